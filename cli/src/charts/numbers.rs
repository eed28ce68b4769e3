//! Numbers beside charts: short, and read at a glance.

use crate::cells::rounded;

/// `0`, `12`, `950`, `1.2k`, `34M`: for axes, where a label must be short.
pub(crate) fn short(value: f64) -> String {
    let magnitude = value.abs();
    let units = [(1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")];
    let Some((scale, unit)) = units.into_iter().find(|(scale, _)| magnitude >= *scale) else {
        return match magnitude {
            0.0 => "0".to_owned(),
            // Three digits are what fits beside an axis.
            small if small < 0.01 => format!("{value:.0e}"),
            small if small < 10.0 => trimmed(&format!("{value:.2}")),
            small if small < 100.0 => trimmed(&format!("{value:.1}")),
            _ => format!("{value:.0}"),
        };
    };
    let scaled = value / scale;
    let text = if scaled.abs() < 10.0 { format!("{scaled:.1}") } else { format!("{scaled:.0}") };
    format!("{}{unit}", trimmed(&text))
}

fn trimmed(text: &str) -> String {
    if text.contains('.') {
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    } else {
        text.to_owned()
    }
}

/// `1,204,331`, `412.5`: whole where it is whole, else six digits.
pub(crate) fn full(value: f64) -> String {
    if value.fract() == 0.0 && value.abs() < 1e15 {
        let text = crate::units::count(value.abs() as u64);
        return if value < 0.0 { format!("-{text}") } else { text };
    }
    rounded(value)
}

/// `+16.6%`, `-0.2%`, `new` when there was nothing before.
pub(crate) fn change(now: f64, before: f64) -> String {
    if before == 0.0 {
        return if now == 0.0 { "0.0%".to_owned() } else { "new".to_owned() };
    }
    let percent = (now - before) / before.abs() * 100.0;
    match percent {
        large if large.abs() >= 10_000.0 => {
            format!("{}{:.0}x", if large < 0.0 { "-" } else { "" }, (now / before).abs())
        }
        large if large.abs() >= 999.5 => format!("{large:+.0}%"),
        percent => format!("{percent:+.1}%"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_short() {
        let check = |value: f64, text: &str| assert_eq!(short(value), text, "{value}");
        check(0.0, "0");
        check(0.001, "1e-3");
        check(0.5, "0.5");
        check(12.34, "12.3");
        check(950.0, "950");
        check(1234.0, "1.2k");
        check(-34_000_000.0, "-34M");
        check(2e9, "2G");
    }

    #[test]
    fn numbers_are_full() {
        let check = |value: f64, text: &str| assert_eq!(full(value), text, "{value}");
        check(1_204_331.0, "1,204,331");
        check(-7.0, "-7");
        check(412.512_345_6, "412.512");
        check(1e300, "1e300");
    }

    #[test]
    fn changes_are_signed() {
        let check =
            |now: f64, before: f64, text: &str| assert_eq!(change(now, before), text, "{now} {before}");
        check(5027.0, 4310.0, "+16.6%");
        check(1.0, 2.0, "-50.0%");
        check(5.0, 5.0, "+0.0%");
        check(0.0, 0.0, "0.0%");
        check(3.0, 0.0, "new");
        check(100.0, 5.0, "+1900%");
        check(10_000.0, 5.0, "2000x");
    }
}
