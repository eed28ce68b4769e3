//! Stretches of time as people say them: `1h`, `1w`, `2026-11-21 09:00`, `-90m`, and steps that fit them.

use arrow::array::timezone::Tz;
use chrono::{DateTime, NaiveDate, NaiveDateTime, NaiveTime, TimeZone, Utc};

use crate::cells::{Zone, write_time};
use crate::units;

/// Nanoseconds of a second.
pub(crate) const SECOND: i64 = 1_000_000_000;
/// Steps that people think in, in seconds.
const STEPS: [i64; 26] = [
    1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1_800, 3_600, 7_200, 10_800, 21_600, 43_200, 86_400,
    172_800, 604_800, 1_209_600, 2_592_000, 7_776_000, 15_552_000, 31_536_000, 63_072_000,
];

/// Reads `90m`, `1h`, `1d`, `1w` as nanoseconds.
pub(crate) fn parse_span(text: &str) -> Result<i64, String> {
    let (number, scale) = match text.trim().strip_suffix(['w', 'W']) {
        Some(weeks) => (format!("{weeks}d"), 7.0),
        None => (text.to_owned(), 1.0),
    };
    let span = units::parse_duration(&number)
        .map_err(|_| format!("`{text}` must be a stretch of time such as 30s, 15m, 1h, 1d or 1w"))?;
    let nanoseconds = span.as_nanos() as f64 * scale;
    match nanoseconds {
        none if none < 1e6 => Err(format!("`{text}` must be at least 1ms")),
        // Of weeks there may be more than of days.
        much if much > 3.2e18 => Err(format!("`{text}` must be at most 100 years")),
        some => Ok(some as i64),
    }
}

/// Reads an instant: `now`, `-90m`, a date, a date with a time, or RFC 3339. What names no zone is in `zone`.
pub(crate) fn parse_instant(text: &str, now: i64, zone: Zone) -> Result<i64, String> {
    let text = text.trim();
    if text == "now" {
        return Ok(now);
    }
    if let Some(span) = text.strip_prefix('-') {
        return Ok(now.saturating_sub(parse_span(span)?));
    }
    let wrong = || {
        format!(
            "`{text}` must be a time such as 2026-11-21, 2026-11-21 09:30, 2026-11-21T09:30:00Z, -90m or now"
        )
    };
    let nanoseconds = |time: DateTime<Utc>| time.timestamp_nanos_opt().ok_or_else(wrong);
    if let Ok(time) = DateTime::parse_from_rfc3339(text) {
        return nanoseconds(time.to_utc());
    }
    let forms = ["%Y-%m-%d %H:%M:%S%.f", "%Y-%m-%dT%H:%M:%S%.f", "%Y-%m-%d %H:%M", "%Y-%m-%dT%H:%M"];
    let local = forms.iter().find_map(|form| NaiveDateTime::parse_from_str(text, form).ok());
    let date = || NaiveDate::parse_from_str(text, "%Y-%m-%d").ok().map(|date| date.and_time(NaiveTime::MIN));
    let local = local.or_else(date).ok_or_else(wrong)?;
    match zone {
        None => nanoseconds(local.and_utc()),
        // An hour that the clocks skip has no instant of its own.
        Some(zone) => nanoseconds(zone.from_local_datetime(&local).earliest().ok_or_else(wrong)?.to_utc()),
    }
}

/// The shortest step that cuts a range into at most `buckets`, and of which `multiple` is a whole number.
pub(crate) fn step(range: i64, buckets: usize, multiple: Option<i64>) -> i64 {
    let fits = |step: &i64| multiple.is_none_or(|multiple| multiple % step == 0);
    let steps = STEPS.iter().map(|seconds| seconds * SECOND).filter(fits);
    let buckets = i64::try_from(buckets.max(1)).unwrap_or(i64::MAX);
    let mut last = SECOND;
    for step in steps {
        if range / step < buckets {
            return step;
        }
        last = step;
    }
    last
}

/// `1m`, `6h`, `1w`, `1500ms`: the largest unit of which it is a whole number.
pub(crate) fn span_text(nanoseconds: i64) -> String {
    let units = [(604_800, "w"), (86_400, "d"), (3_600, "h"), (60, "m"), (1, "s")];
    let whole = units.into_iter().find(|(seconds, _)| nanoseconds % (seconds * SECOND) == 0);
    match whole {
        Some((seconds, unit)) => format!("{}{unit}", nanoseconds / (seconds * SECOND)),
        None => format!("{}ms", nanoseconds / 1_000_000),
    }
}

/// A time as RFC 3339.
pub(crate) fn instant_text(nanoseconds: i64, zone: Zone) -> String {
    let mut text = Vec::new();
    write_time(nanoseconds, zone, &mut text);
    String::from_utf8_lossy(&text).into_owned()
}

/// A time of a range this long, as short as it can be: `12:05`, `11-21 12:00`, `2026-11-21`.
pub(crate) fn tick_text(nanoseconds: i64, range: i64, step: i64, zone: Zone) -> String {
    let text = instant_text(nanoseconds, zone);
    let (date, clock) = (text.get(..10).unwrap_or(&text), text.get(11..19).unwrap_or(""));
    const DAY: i64 = 86_400 * SECOND;
    match (range, step) {
        (_, step) if step >= DAY => date.to_owned(),
        (range, _) if range > DAY => format!("{} {}", &date[5..], &clock[..5]),
        (_, step) if step < 60 * SECOND => clock.to_owned(),
        _ => clock[..5].to_owned(),
    }
}

/// The name of a zone.
pub(crate) fn zone_text(zone: Option<Tz>) -> String {
    zone.map_or_else(|| "UTC".to_owned(), |zone| zone.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_795_255_200 * SECOND;

    #[test]
    fn spans_are_read() {
        let check = |text: &str, expect: Result<i64, &str>| {
            assert_eq!(parse_span(text), expect.map_err(str::to_owned), "{text}");
        };
        check("90m", Ok(5400 * SECOND));
        check("1w", Ok(604_800 * SECOND));
        check("1.5d", Ok(129_600 * SECOND));
        check("500ms", Ok(SECOND / 2));
        check("9999w", Err("`9999w` must be at most 100 years"));
        check("0s", Err("`0s` must be at least 1ms"));
        check("99999w", Err("`99999w` must be a stretch of time such as 30s, 15m, 1h, 1d or 1w"));
        check("moon", Err("`moon` must be a stretch of time such as 30s, 15m, 1h, 1d or 1w"));
    }

    #[test]
    fn instants_are_read() {
        let check = |text: &str, zone: &str, expect: Option<&str>| {
            let zone = (!zone.is_empty()).then(|| zone.parse().unwrap());
            let found = parse_instant(text, NOW, zone).ok().map(|time| instant_text(time, None));
            assert_eq!(found.as_deref(), expect, "{text}");
        };
        check("now", "", Some("2026-11-21T10:00:00Z"));
        check("-90m", "", Some("2026-11-21T08:30:00Z"));
        check("2026-11-21", "", Some("2026-11-21T00:00:00Z"));
        check("2026-11-21 09:30", "", Some("2026-11-21T09:30:00Z"));
        check("2026-11-21 09:30", "Europe/Berlin", Some("2026-11-21T08:30:00Z"));
        check("2026-11-21T09:30:00.25", "+02:00", Some("2026-11-21T07:30:00.250Z"));
        check("2026-11-21T09:30:00+05:00", "Europe/Berlin", Some("2026-11-21T04:30:00Z"));
        // The clocks go from 2 to 3.
        check("2026-03-29 02:30", "Europe/Berlin", None);
        check("yesterday-ish", "", None);
        check("9999-01-01", "", None);
    }

    #[test]
    fn steps_fit() {
        let check = |range: &str, buckets, multiple: Option<&str>, expect: &str| {
            let multiple = multiple.map(|text| parse_span(text).unwrap());
            assert_eq!(span_text(step(parse_span(range).unwrap(), buckets, multiple)), expect, "{range}");
        };
        check("1h", 60, None, "2m");
        check("1h", 61, None, "1m");
        check("24h", 100, None, "15m");
        check("7d", 100, None, "2h");
        check("24h", 100, Some("7d"), "15m");
        check("1h", 61, Some("90s"), "30s");
    }

    #[test]
    fn spans_and_ticks_are_written() {
        assert_eq!(
            ["1w", "36h", "90m", "1500ms"].map(|text| span_text(parse_span(text).unwrap())),
            ["1w", "36h", "90m", "1500ms"]
        );
        let tick = |range: &str, step: &str| {
            tick_text(NOW, parse_span(range).unwrap(), parse_span(step).unwrap(), None)
        };
        assert_eq!(tick("1h", "1m"), "10:00");
        assert_eq!(tick("1m", "1s"), "10:00:00");
        assert_eq!(tick("2d", "1h"), "11-21 10:00");
        assert_eq!(tick("60d", "1d"), "2026-11-21");
    }
}
