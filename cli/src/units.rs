//! Sizes, durations and counts: read from people, written for people.

use std::time::Duration;

/// Reads `512`, `64MiB`, `1.5 GiB` (powers of 1024; so are bare `K`, `M`, `G`, `T`) or `500MB` (powers of 1000).
pub(crate) fn parse_size(text: &str) -> Result<u64, String> {
    let (number, unit) = split_unit(text);
    let scale: u64 = match unit.to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" | "kib" => 1 << 10,
        "m" | "mib" => 1 << 20,
        "g" | "gib" => 1 << 30,
        "t" | "tib" => 1 << 40,
        "kb" => 1_000,
        "mb" => 1_000_000,
        "gb" => 1_000_000_000,
        "tb" => 1_000_000_000_000,
        _ => {
            return Err(format!(
                "size `{text}` has unit `{unit}`, must be one of B, KiB, MiB, GiB, TiB, KB, MB, GB, TB"
            ));
        }
    };
    let value = parse_number(number, text, "size")? * scale as f64;
    // 2^63 is far beyond any machine, and every float below it has an exact integer part.
    if value < 9e18 { Ok(value as u64) } else { Err(format!("size `{text}` is too large")) }
}

/// Reads `500ms`, `10s`, `5m`, `2h`, `7d`; a bare number is seconds.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, String> {
    let (number, unit) = split_unit(text);
    let seconds = match unit.to_ascii_lowercase().as_str() {
        "ms" => 0.001,
        "" | "s" => 1.0,
        "m" | "min" => 60.0,
        "h" => 3600.0,
        "d" => 86_400.0,
        _ => return Err(format!("duration `{text}` has unit `{unit}`, must be one of ms, s, m, h, d")),
    };
    let value = parse_number(number, text, "duration")? * seconds;
    let years = 100.0 * 366.0 * 86_400.0;
    if value > years {
        return Err(format!("duration `{text}` is longer than 100 years"));
    }
    Ok(Duration::from_secs_f64(value))
}

/// Reads a share: `0.9`, or `90%`.
pub(crate) fn parse_share(text: &str) -> Result<f64, String> {
    let (number, scale) = match text.strip_suffix('%') {
        Some(number) => (number, 0.01),
        None => (text, 1.0),
    };
    match number.trim().parse::<f64>() {
        Ok(value) if (0.0..=1.0).contains(&(value * scale)) => Ok(value * scale),
        _ => Err(format!("`{text}` must be a number between 0 and 1, or between 0% and 100%")),
    }
}

/// A share that was given, as it was meant: `0.9` is `90%`.
pub(crate) fn share(value: f64) -> String {
    // Ten digits are more than anybody types, and fewer than floats get wrong.
    let text = format!("{:.10}", value * 100.0);
    format!("{}%", text.trim_end_matches('0').trim_end_matches('.'))
}

fn split_unit(text: &str) -> (&str, &str) {
    let text = text.trim();
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    (&text[..end], text[end..].trim())
}

fn parse_number(number: &str, text: &str, what: &str) -> Result<f64, String> {
    number.parse::<f64>().map_err(|_| format!("{what} `{text}` must be a number with a unit"))
}

/// `1204331` as `1,204,331`.
pub(crate) fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `1 row`, `1,204 rows`.
pub(crate) fn rows(number: u64) -> String {
    if number == 1 { "1 row".to_owned() } else { format!("{} rows", count(number)) }
}

/// `61.2 MB`: powers of 1000, three digits.
pub(crate) fn bytes(number: u64) -> String {
    let units = ["B", "KB", "MB", "GB", "TB", "PB", "EB"];
    let mut value = number as f64;
    let mut unit = 0;
    // 999.95 would be written as 1000.0.
    while value >= 999.95 && unit + 1 < units.len() {
        value /= 1000.0;
        unit += 1;
    }
    let decimals = if unit == 0 || value >= 99.95 { 0 } else { 1 };
    format!("{value:.decimals$} {}", units[unit])
}

/// `12 ms`, `1.24 s`, `3m05s`.
pub(crate) fn seconds(value: f64) -> String {
    if !value.is_finite() || value < 0.0 {
        return "unknown".to_owned();
    }
    let milliseconds = value * 1000.0;
    if milliseconds < 9.95 {
        format!("{milliseconds:.1} ms")
    } else if milliseconds < 999.5 {
        format!("{milliseconds:.0} ms")
    } else if value < 99.95 {
        format!("{value:.2} s")
    } else {
        let whole = value.round() as u64;
        match whole / 60 {
            minutes @ 0..=99 => format!("{minutes}m{:02}s", whole % 60),
            minutes => format!("{}h{:02}m", minutes / 60, minutes % 60),
        }
    }
}

/// A time without its fraction, for people.
pub(crate) fn seconds_only(time: Option<&str>) -> String {
    let time = time.unwrap_or("");
    match time.split_once('.') {
        Some((seconds, _)) => format!("{seconds}Z"),
        None => time.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read() {
        let check = |text: &str, bytes: u64| assert_eq!(parse_size(text), Ok(bytes), "{text}");
        check("0", 0);
        check("512", 512);
        check("64MiB", 64 << 20);
        check("1.5 GiB", 3 << 29);
        check("2g", 2 << 30);
        check("500MB", 500_000_000);
        check("7 b", 7);
        assert_eq!(
            parse_size("3 feet"),
            Err("size `3 feet` has unit `feet`, must be one of B, KiB, MiB, GiB, TiB, KB, MB, GB, TB"
                .to_owned())
        );
        assert_eq!(parse_size("MiB"), Err("size `MiB` must be a number with a unit".to_owned()));
        assert_eq!(
            parse_size("-1"),
            Err("size `-1` has unit `-1`, must be one of B, KiB, MiB, GiB, TiB, KB, MB, GB, TB".to_owned())
        );
        assert_eq!(parse_size("99999999TiB"), Err("size `99999999TiB` is too large".to_owned()));
    }

    #[test]
    fn durations_are_read() {
        let check = |text: &str, milliseconds: u64| {
            assert_eq!(parse_duration(text), Ok(Duration::from_millis(milliseconds)), "{text}");
        };
        check("500ms", 500);
        check("10s", 10_000);
        check("10", 10_000);
        check("1.5m", 90_000);
        check("2h", 7_200_000);
        check("7 d", 604_800_000);
        assert_eq!(
            parse_duration("3 moons"),
            Err("duration `3 moons` has unit `moons`, must be one of ms, s, m, h, d".to_owned())
        );
        assert_eq!(parse_duration("s"), Err("duration `s` must be a number with a unit".to_owned()));
        assert_eq!(
            parse_duration("99999999d"),
            Err("duration `99999999d` is longer than 100 years".to_owned())
        );
    }

    #[test]
    fn shares_are_read() {
        assert_eq!(parse_share("0.5"), Ok(0.5));
        assert_eq!(parse_share("90%"), Ok(0.9));
        assert_eq!(parse_share("1"), Ok(1.0));
        assert_eq!([0.9, 0.995, 0.29, 1.0, 0.0].map(share), ["90%", "99.5%", "29%", "100%", "0%"]);
        for wrong in ["1.1", "-0.1", "NaN", "101%", "most", ""] {
            assert_eq!(
                parse_share(wrong),
                Err(format!("`{wrong}` must be a number between 0 and 1, or between 0% and 100%"))
            );
        }
    }

    #[test]
    fn numbers_are_written() {
        assert_eq!([count(0), count(999), count(1000), count(1_204_331)], ["0", "999", "1,000", "1,204,331"]);
        assert_eq!([rows(0), rows(1), rows(2000)], ["0 rows", "1 row", "2,000 rows"]);
        let check_bytes = |number: u64, text: &str| assert_eq!(bytes(number), text, "{number}");
        check_bytes(0, "0 B");
        check_bytes(999, "999 B");
        check_bytes(1000, "1.0 KB");
        check_bytes(61_234_567, "61.2 MB");
        check_bytes(999_960_000, "1.0 GB");
        check_bytes(u64::MAX, "18.4 EB");
        let check_seconds = |value: f64, text: &str| assert_eq!(seconds(value), text, "{value}");
        check_seconds(0.0004, "0.4 ms");
        check_seconds(0.012, "12 ms");
        check_seconds(0.9999, "1.00 s");
        check_seconds(1.24, "1.24 s");
        check_seconds(185.0, "3m05s");
        check_seconds(7260.0, "2h01m");
        check_seconds(f64::NAN, "unknown");
    }
}
