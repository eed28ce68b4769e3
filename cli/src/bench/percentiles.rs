//! Percentiles of what was measured.

/// The value below which this share of sorted values are; 0 of none.
pub(super) fn percentile(sorted: &[f64], share: f64) -> f64 {
    let index = (sorted.len() as f64 * share).ceil() as usize;
    sorted.get(index.clamp(1, sorted.len().max(1)) - 1).copied().unwrap_or(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles() {
        let check = |values: &[f64], share, expect: f64| assert_eq!(percentile(values, share), expect);
        check(&[], 0.5, 0.0);
        check(&[1.0], 0.99, 1.0);
        check(&[1.0, 2.0, 3.0, 4.0], 0.5, 2.0);
        check(&[1.0, 2.0, 3.0, 4.0], 1.0, 4.0);
    }
}
