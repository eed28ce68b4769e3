//! Times as text.

/// Writes a time as RFC 3339 with as many digits as it needs: `2026-11-21T09:30:00Z`; with the offset of a time zone from
/// UTC in seconds, `2026-11-21T10:30:00.500+01:00`.
pub fn write_time(nanoseconds: i64, offset_seconds: Option<i64>, out: &mut Vec<u8>) {
    let seconds = nanoseconds.div_euclid(1_000_000_000) + offset_seconds.unwrap_or(0);
    let fraction = nanoseconds.rem_euclid(1_000_000_000);
    let (year, month, day) = civil(seconds.div_euclid(86_400));
    let second = seconds.rem_euclid(86_400);
    let mut text = *b"0000-00-00T00:00:00";
    put(year, &mut text[..4]);
    for (place, number) in
        [(5, month), (8, day), (11, second / 3600), (14, second / 60 % 60), (17, second % 60)]
    {
        put(number, &mut text[place..place + 2]);
    }
    out.extend_from_slice(&text);
    match fraction {
        0 => {}
        _ if fraction % 1_000_000 == 0 => fractional(fraction / 1_000_000, 3, out),
        _ if fraction % 1_000 == 0 => fractional(fraction / 1_000, 6, out),
        _ => fractional(fraction, 9, out),
    }
    match offset_seconds {
        None => out.push(b'Z'),
        Some(offset) => {
            out.push(if offset < 0 { b'-' } else { b'+' });
            let minutes = offset.abs() / 60;
            digits(minutes / 60, 2, out);
            out.push(b':');
            digits(minutes % 60, 2, out);
        }
    }
}

/// A time as RFC 3339 with as many digits as it needs, such as `2026-09-22T12:00:00Z`.
pub fn format_time(nanoseconds: i64) -> String {
    let mut text = Vec::with_capacity(30);
    write_time(nanoseconds, None, &mut text);
    String::from_utf8_lossy(&text).into_owned()
}

fn fractional(number: i64, width: usize, out: &mut Vec<u8>) {
    out.push(b'.');
    digits(number, width, out);
}

/// Writes a number below 10^width with leading zeros.
fn digits(number: i64, width: usize, out: &mut Vec<u8>) {
    let start = out.len();
    out.resize(start + width, b'0');
    put(number, &mut out[start..]);
}

/// Puts the last digits of a number, as many as there is room for.
#[inline]
fn put(number: i64, digits: &mut [u8]) {
    let mut rest = number.unsigned_abs() as u32;
    for digit in digits.iter_mut().rev() {
        *digit = b'0' + (rest % 10) as u8;
        rest /= 10;
    }
}

/// Year, month and day of a day counted from 1970-01-01, in the Gregorian calendar. Years start in March here, so that the
/// leap day is the last of its year; 400 years have 146,097 days.
fn civil(day: i64) -> (i64, i64, i64) {
    let day = day + 719_468;
    let era = day.div_euclid(146_097);
    let day_of_era = day.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day_of_month = day_of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day_of_month)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_those_of_a_calendar() {
        let second = 1_000_000_000;
        let days = (-106_000..=106_000).step_by(7).map(|day| day * 86_400 * second + day * 1_234_567_891);
        let ends = [
            i64::MIN,
            i64::MAX,
            0,
            -1,
            1,
            second - 1,
            1_500_000_000,
            951_782_400 * second,
            4_107_542_399 * second,
        ];
        for nanoseconds in days.chain(ends) {
            let Some(time) = arrow::temporal_conversions::timestamp_ns_to_datetime(nanoseconds) else {
                panic!("{nanoseconds} is no time");
            };
            let form = match nanoseconds {
                ns if ns % second == 0 => "%Y-%m-%dT%H:%M:%SZ",
                ns if ns % 1_000_000 == 0 => "%Y-%m-%dT%H:%M:%S%.3fZ",
                ns if ns % 1_000 == 0 => "%Y-%m-%dT%H:%M:%S%.6fZ",
                _ => "%Y-%m-%dT%H:%M:%S%.9fZ",
            };
            assert_eq!(format_time(nanoseconds), time.format(form).to_string(), "{nanoseconds}");
        }
    }

    #[test]
    fn an_offset_is_told() {
        let check = |offset: i64, expect: &str| {
            let mut text = Vec::new();
            write_time(1_782_907_200_250_000_000, Some(offset), &mut text);
            assert_eq!(String::from_utf8_lossy(&text), expect);
        };
        check(7_200, "2026-07-01T14:00:00.250+02:00");
        check(-12_600, "2026-07-01T08:30:00.250-03:30");
        check(0, "2026-07-01T12:00:00.250+00:00");
    }
}
