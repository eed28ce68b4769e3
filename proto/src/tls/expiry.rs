//! When a certificate ends: the one field of it that people have to know beforehand.
//!
//! Reads as much of the DER as leads there and nothing else. What it means is the business of the TLS library, which
//! checks it on its own.

/// The tags of DER that are met on the way.
const SEQUENCE: u8 = 0x30;
const VERSION: u8 = 0xa0;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;

const SECONDS_A_DAY: i64 = 86_400;

/// The second since 1970 after which a certificate is no longer valid; `None` when it is no certificate.
pub(super) fn not_after(certificate: &[u8]) -> Option<i64> {
    let (SEQUENCE, certificate, _) = element(certificate)? else { return None };
    let (SEQUENCE, mut rest, _) = element(certificate)? else { return None };
    if let (VERSION, _, after) = element(rest)? {
        rest = after;
    }
    // Serial number, algorithm, issuer.
    for _ in 0..3 {
        rest = element(rest)?.2;
    }
    let (SEQUENCE, validity, _) = element(rest)? else { return None };
    let (_, _, rest) = element(validity)?;
    let (tag, text, _) = element(rest)?;
    seconds(tag, text)
}

/// The first element: its tag, what it holds, and what follows it.
fn element(der: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&[tag, first], rest) = der.split_first_chunk::<2>()?;
    let (length, rest) = match first {
        short if short < 0x80 => (usize::from(short), rest),
        long => {
            let digits = usize::from(long & 0x7f);
            if !(1..=4).contains(&digits) || rest.len() < digits {
                return None;
            }
            let (digits, rest) = rest.split_at(digits);
            (digits.iter().fold(0usize, |length, digit| length << 8 | usize::from(*digit)), rest)
        }
    };
    if length > rest.len() {
        return None;
    }
    let (content, after) = rest.split_at(length);
    Some((tag, content, after))
}

/// `YYMMDDHHMMSSZ` or `YYYYMMDDHHMMSSZ` as seconds since 1970.
fn seconds(tag: u8, text: &[u8]) -> Option<i64> {
    let digits = text.strip_suffix(b"Z")?;
    if !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let number = |from: usize, length: usize| {
        let digits = digits.get(from..from + length)?;
        Some(digits.iter().fold(0i64, |number, digit| number * 10 + i64::from(digit - b'0')))
    };
    let (year, at) = match (tag, digits.len()) {
        // Years of two digits mean 1950 to 2049.
        (UTC_TIME, 12) => (number(0, 2).map(|year| if year < 50 { 2000 + year } else { 1900 + year })?, 2),
        (GENERALIZED_TIME, 14) => (number(0, 4)?, 4),
        _ => return None,
    };
    let field = |index: usize| number(at + 2 * index, 2);
    let (month, day) = (field(0)?, field(1)?);
    if !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    Some(days(year, month, day) * SECONDS_A_DAY + field(2)? * 3600 + field(3)? * 60 + field(4)?)
}

/// Days from 1970-01-01 to a date of the Gregorian calendar, whose years are taken to begin in March: then the leap day
/// is the last of its year, and the months before it have the same lengths in each.
fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let (era, of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let since_march = (month + 9) % 12;
    let of_year = (153 * since_march + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(tag: u8, text: &str, expect: Option<i64>) {
        assert_eq!(seconds(tag, text.as_bytes()), expect, "{text}");
    }

    #[test]
    fn times_are_read() {
        check(UTC_TIME, "700101000000Z", Some(0));
        check(UTC_TIME, "261121093001Z", Some(1_795_253_401));
        check(UTC_TIME, "491231235959Z", Some(2_524_607_999));
        check(GENERALIZED_TIME, "20500101000000Z", Some(2_524_608_000));
        check(GENERALIZED_TIME, "20000229120000Z", Some(951_825_600));
        check(GENERALIZED_TIME, "99991231235959Z", Some(253_402_300_799));
        check(UTC_TIME, "20500101000000Z", None);
        check(UTC_TIME, "7001010000Z", None);
        check(UTC_TIME, "701301000000Z", None);
        check(UTC_TIME, "70010100000aZ", None);
        check(GENERALIZED_TIME, "", None);
    }

    #[test]
    fn the_end_of_a_certificate_is_found() {
        let mut params = rcgen::CertificateParams::new(["leaf-1.example".to_owned()]).unwrap();
        params.not_after = rcgen::date_time_ymd(2031, 5, 6);
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        let der = certificate.der().to_vec();
        assert_eq!(not_after(&der), Some(1_935_792_000));
        for cut in 0..der.len().min(300) {
            // Whatever is missing, nothing panics.
            let _ = not_after(&der[..cut]);
        }
        assert_eq!(not_after(b""), None);
        assert_eq!(not_after(&[SEQUENCE, 0x84, 0xff, 0xff, 0xff, 0xff]), None);
        assert_eq!(not_after(&[SEQUENCE, 0x80]), None);
    }
}
