//! Times and sample rates as people write them.
//!
//! A time is a text (RFC 3339; also with a space instead of T, without seconds, zone or time of day; no zone is UTC)
//! or a number of seconds, milliseconds, microseconds or nanoseconds since 1970, told apart by magnitude: below 1e11
//! seconds, below 1e14 milliseconds, below 1e17 microseconds, else nanoseconds. Numbers may have a fraction, and may
//! come as text. What lies outside the years 1678 to 2261 is not a time.

use chrono::NaiveDate;

const NANOS_PER_SECOND: i128 = 1_000_000_000;
/// 1678-01-01T00:00:00Z in seconds.
const MIN_SECONDS: i128 = -9_214_560_000;
/// 2262-01-01T00:00:00Z in seconds, the first that is too late.
const END_SECONDS: i128 = 9_214_646_400;
/// The largest sample rate: 2^53, up to which floats count exactly.
const SAMPLE_RATE_MAX: i64 = gannet_query::value::EXACT_INT_MAX;

/// Nanoseconds as a row's time, if they are in range.
pub(super) fn in_range(nanoseconds: i128) -> Option<i64> {
    let range = MIN_SECONDS * NANOS_PER_SECOND..END_SECONDS * NANOS_PER_SECOND;
    if range.contains(&nanoseconds) { i64::try_from(nanoseconds).ok() } else { None }
}

/// Nanoseconds per unit of a number of this magnitude.
fn unit(magnitude: u128) -> i128 {
    match magnitude {
        0..100_000_000_000 => NANOS_PER_SECOND,
        100_000_000_000..100_000_000_000_000 => 1_000_000,
        100_000_000_000_000..100_000_000_000_000_000 => 1_000,
        _ => 1,
    }
}

pub(super) fn from_int(number: i64) -> Option<i64> {
    let number = i128::from(number);
    in_range(number * unit(number.unsigned_abs()))
}

pub(super) fn from_float(number: f64) -> Option<i64> {
    if !number.is_finite() || number.abs() > 1e19 {
        return None;
    }
    // The shortest digits that read back as this float are what its writer meant: 1700000000.123 is exactly .123.
    from_decimal(&number.to_string())
}

/// `[-]digits[.digits]`.
fn from_decimal(text: &str) -> Option<i64> {
    let (negative, digits) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let is_digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || whole.len() > 19 || !is_digits(whole) || !is_digits(fraction) {
        return None;
    }
    let whole: u128 = whole.parse().ok()?;
    let unit = unit(whole);
    let magnitude = i128::try_from(whole).ok()? * unit + nanoseconds_of(fraction) * unit / NANOS_PER_SECOND;
    in_range(if negative { -magnitude } else { magnitude })
}

/// The first nine digits of a fraction, as billionths.
fn nanoseconds_of(fraction: &str) -> i128 {
    let digits = fraction.bytes().chain(std::iter::repeat(b'0')).take(9);
    digits.fold(0, |sum, digit| sum * 10 + i128::from(digit - b'0'))
}

pub(super) fn from_text(text: &str) -> Option<i64> {
    let text = text.trim();
    // A dash behind a year is in no number, so most texts need not be tried as one.
    if text.as_bytes().get(4) == Some(&b'-')
        && let Some(time) = from_iso(text.as_bytes())
    {
        return Some(time);
    }
    match from_decimal(text).or_else(|| from_iso(text.as_bytes())) {
        Some(time) => Some(time),
        None if text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'.' | b'-' | b'+' | b'e' | b'E')) => {
            from_float(text.parse().ok()?)
        }
        None => None,
    }
}

/// Takes a number of exactly `digits` digits off the front.
fn take_number(text: &mut &[u8], digits: usize) -> Option<u32> {
    let (number, rest) = text.split_at_checked(digits)?;
    let number = number
        .iter()
        .try_fold(0, |sum, digit| digit.is_ascii_digit().then(|| sum * 10 + u32::from(digit - b'0')))?;
    *text = rest;
    Some(number)
}

/// Takes one byte of `any` off the front, if one is there.
fn take_byte(text: &mut &[u8], any: &[u8]) -> Option<u8> {
    let (first, rest) = text.split_first()?;
    if !any.contains(first) {
        return None;
    }
    *text = rest;
    Some(*first)
}

fn from_iso(mut text: &[u8]) -> Option<i64> {
    let text = &mut text;
    let year = i32::try_from(take_number(text, 4)?).ok()?;
    take_byte(text, b"-")?;
    let month = take_number(text, 2)?;
    take_byte(text, b"-")?;
    let day = take_number(text, 2)?;
    let days = NaiveDate::from_ymd_opt(year, month, day)?.to_epoch_days();
    let (mut seconds, mut nanoseconds) = (i128::from(days) * 86_400, 0);
    if !text.is_empty() {
        take_byte(text, b"Tt ")?;
        let hour = take_number(text, 2)?;
        take_byte(text, b":")?;
        let minute = take_number(text, 2)?;
        let mut second = 0;
        if take_byte(text, b":").is_some() {
            second = take_number(text, 2)?;
            if take_byte(text, b".,").is_some() {
                let digits = text.iter().take_while(|byte| byte.is_ascii_digit()).count();
                let (fraction, rest) = text.split_at(digits);
                nanoseconds = nanoseconds_of(std::str::from_utf8(fraction).ok().filter(|f| !f.is_empty())?);
                *text = rest;
            }
        }
        // 60 is a leap second: it counts as the first of the next minute.
        if hour > 23 || minute > 59 || second > 60 {
            return None;
        }
        seconds += i128::from(hour * 3600 + minute * 60 + second) - zone(text)?;
    }
    in_range(seconds * NANOS_PER_SECOND + nanoseconds)
}

/// Seconds east of UTC; reads the rest of the text.
fn zone(text: &mut &[u8]) -> Option<i128> {
    take_byte(text, b" ");
    if matches!(**text, [] | [b'Z' | b'z']) || *text == b"UTC" || *text == b"GMT" {
        return Some(0);
    }
    let sign = take_byte(text, b"+-")?;
    let hours = take_number(text, 2)?;
    let minutes = if text.is_empty() {
        0
    } else {
        take_byte(text, b":");
        take_number(text, 2)?
    };
    if !text.is_empty() || hours > 23 || minutes > 59 {
        return None;
    }
    let offset = i128::from(hours * 3600 + minutes * 60);
    Some(if sign == b'-' { -offset } else { offset })
}

/// Whether an integer can be a sample rate.
pub(super) fn int_rate_is_valid(rate: i64) -> bool {
    (1..=SAMPLE_RATE_MAX).contains(&rate)
}

/// Whether a float can be a sample rate.
pub(super) fn float_rate_is_valid(rate: f64) -> bool {
    (1.0..=SAMPLE_RATE_MAX as f64).contains(&rate)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expect: Option<&str>) {
        let found = from_text(text).map(gannet_query::rfc3339::format_time);
        assert_eq!(found.as_deref(), expect, "{text}");
    }

    #[test]
    fn texts() {
        check("2026-09-22T12:00:00Z", Some("2026-09-22T12:00:00Z"));
        check("2026-09-22t12:00:00z", Some("2026-09-22T12:00:00Z"));
        check(" 2026-09-22 12:00:00.5 ", Some("2026-09-22T12:00:00.500Z"));
        check("2026-09-22 12:00:00,25", Some("2026-09-22T12:00:00.250Z"));
        check("2026-09-22T12:00:00.123456789123", Some("2026-09-22T12:00:00.123456789Z"));
        check("2026-09-22T12:00+02:00", Some("2026-09-22T10:00:00Z"));
        check("2026-09-22T12:00:00-0230", Some("2026-09-22T14:30:00Z"));
        check("2026-09-22 12:00:00 +02", Some("2026-09-22T10:00:00Z"));
        check("2026-09-22 12:00:00 UTC", Some("2026-09-22T12:00:00Z"));
        check("2026-09-22", Some("2026-09-22T00:00:00Z"));
        check("2016-12-31T23:59:60Z", Some("2017-01-01T00:00:00Z"));
        check("1678-01-01", Some("1678-01-01T00:00:00Z"));
        check("2261-12-31T23:59:59.999999999Z", Some("2261-12-31T23:59:59.999999999Z"));
        for bad in [
            "",
            "soon",
            "2026",
            "-",
            ".",
            "1e",
            "2026-02-30",
            "2026-09-22T25:00:00Z",
            "2026-09-22T12:60:00Z",
            "2026-09-22T12:00:00.Z",
            "2026-09-22T12:00:00+25:00",
            "2026-09-22T12:00:00Zulu",
            "2026-09-22Z",
            "1677-12-31",
            "2262-01-01",
            "9999-12-31T00:00:00Z",
            "99999999999999999999999999",
            "1e300",
            "nan",
            "２０２６-09-22",
        ] {
            let expect = (bad == "2026").then_some("1970-01-01T00:33:46Z");
            check(bad, expect);
        }
    }

    #[test]
    fn numbers() {
        check("1700000000", Some("2023-11-14T22:13:20Z"));
        check("1700000000123", Some("2023-11-14T22:13:20.123Z"));
        check("1700000000123456", Some("2023-11-14T22:13:20.123456Z"));
        check("1700000000123456789", Some("2023-11-14T22:13:20.123456789Z"));
        check("1700000000.123", Some("2023-11-14T22:13:20.123Z"));
        check("1700000000123.456", Some("2023-11-14T22:13:20.123456Z"));
        check("1.7e9", Some("2023-11-14T22:13:20Z"));
        check("-1.5", Some("1969-12-31T23:59:58.500Z"));
        check("0", Some("1970-01-01T00:00:00Z"));
        check("99999999999", None);
        assert_eq!(from_float(1_700_000_000.123), Some(1_700_000_000_123_000_000));
        assert_eq!(from_float(f64::NAN), None);
        assert_eq!(from_float(f64::INFINITY), None);
        assert_eq!(from_int(i64::MIN), None);
        assert_eq!(from_int(i64::MAX), None);
        assert_eq!(from_int(1_700_000_000), Some(1_700_000_000_000_000_000));
    }

    #[test]
    fn rates() {
        for (rate, valid) in [(0, false), (-1, false), (1, true), (1 << 53, true), ((1 << 53) + 1, false)] {
            assert_eq!(int_rate_is_valid(rate), valid, "{rate}");
        }
        for (rate, valid) in
            [(0.99, false), (1.0, true), (1.5, true), (f64::NAN, false), (f64::INFINITY, false)]
        {
            assert_eq!(float_rate_is_valid(rate), valid, "{rate}");
        }
    }
}
