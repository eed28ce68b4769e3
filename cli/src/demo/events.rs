//! Believable request events, the same for the same seed and moment.
//!
//! Traffic has a daily curve; services differ in volume, speed and errors. Something went wrong an hour before the
//! moment: for twenty minutes the new build of one service in one region was slow and failed, so that there is
//! something to find.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, Float64Builder, Int64Builder, ListBuilder, RecordBatch, StringBuilder, TimestampNanosecondArray,
};
use arrow::error::ArrowError;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

const SECOND_NS: i64 = 1_000_000_000;
const MINUTE_NS: i64 = 60 * SECOND_NS;
/// How far back the events go.
pub(super) const BACKFILL_NS: i64 = 24 * 60 * MINUTE_NS;
/// When it went wrong, before the moment, and for how long.
const INCIDENT_BEFORE_NS: i64 = 60 * MINUTE_NS;
const INCIDENT_NS: i64 = 20 * MINUTE_NS;
const INCIDENT_SERVICE: &str = "checkout";
const INCIDENT_REGION: &str = "eu-central";
/// The new build, on one host of five.
const NEW_BUILD: &str = "build:2026.47.2";
const OLD_BUILD: &str = "build:2026.47.1";
/// Health checks are many and dull: one of ten is kept, and stands for ten. Of a thousand rows so many are such.
const HEALTH_SAMPLE_RATE: i64 = 10;
const HEALTH_PER_MILLE: u32 = 15;

struct Service {
    name: &'static str,
    /// Its share of all requests.
    weight: u32,
    /// Median duration.
    median_ms: f64,
    /// Requests of a thousand that fail.
    errors_per_mille: u32,
    endpoints: &'static [&'static str],
}

const SERVICES: [Service; 10] = [
    Service {
        name: "feed",
        weight: 30,
        median_ms: 38.0,
        errors_per_mille: 3,
        endpoints: &["/feed", "/feed/next"],
    },
    Service {
        name: "search",
        weight: 17,
        median_ms: 72.0,
        errors_per_mille: 5,
        endpoints: &["/search", "/search/suggest"],
    },
    Service {
        name: "profile",
        weight: 14,
        median_ms: 21.0,
        errors_per_mille: 2,
        endpoints: &["/users/get", "/users/update"],
    },
    Service {
        name: "cart",
        weight: 10,
        median_ms: 29.0,
        errors_per_mille: 4,
        endpoints: &["/cart", "/cart/add"],
    },
    Service {
        name: "auth",
        weight: 9,
        median_ms: 14.0,
        errors_per_mille: 20,
        endpoints: &["/login", "/token", "/logout"],
    },
    Service {
        name: "checkout",
        weight: 7,
        median_ms: 110.0,
        errors_per_mille: 6,
        endpoints: &["/checkout", "/checkout/confirm"],
    },
    Service {
        name: "media",
        weight: 6,
        median_ms: 160.0,
        errors_per_mille: 8,
        endpoints: &["/photos/get", "/photos/upload", "/videos/get"],
    },
    Service { name: "ads", weight: 4, median_ms: 9.0, errors_per_mille: 1, endpoints: &["/ads/pick"] },
    Service {
        name: "notify",
        weight: 2,
        median_ms: 55.0,
        errors_per_mille: 12,
        endpoints: &["/push", "/mail"],
    },
    Service {
        name: "billing",
        weight: 1,
        median_ms: 240.0,
        errors_per_mille: 9,
        endpoints: &["/invoices", "/refund"],
    },
];

const REGIONS: [(&str, u32); 5] =
    [("us-east", 38), ("eu-central", 26), ("us-west", 18), ("ap-south", 12), ("sa-east", 6)];
const HOSTS_OF_SERVICE: u32 = 10;
const USERS: f64 = 200_000.0;

/// Makes events one after another.
#[derive(Debug)]
pub(super) struct Generator {
    random: StdRng,
    incident_from: i64,
}

/// Columns being filled.
#[derive(Default)]
struct Columns {
    service: StringBuilder,
    endpoint: StringBuilder,
    host: StringBuilder,
    region: StringBuilder,
    status: Int64Builder,
    duration_ms: Float64Builder,
    bytes: Int64Builder,
    user_id: Int64Builder,
    trace_id: StringBuilder,
    error: StringBuilder,
    tags: ListBuilder<StringBuilder>,
    sample_rate: Int64Builder,
}

impl Generator {
    /// Events around a moment; the incident was an hour before it.
    pub(super) fn new(seed: u64, moment_ns: i64) -> Generator {
        Generator { random: StdRng::seed_from_u64(seed), incident_from: moment_ns - INCIDENT_BEFORE_NS }
    }

    /// One event for each of these times.
    pub(super) fn batch(&mut self, times: &[i64]) -> Result<RecordBatch, ArrowError> {
        let mut columns = Columns::default();
        for time in times {
            self.event(*time, &mut columns);
        }
        let time = TimestampNanosecondArray::from(times.to_vec()).with_timezone("UTC");
        let named: [(&str, ArrayRef); 13] = [
            ("time", Arc::new(time)),
            ("service", Arc::new(columns.service.finish())),
            ("endpoint", Arc::new(columns.endpoint.finish())),
            ("host", Arc::new(columns.host.finish())),
            ("region", Arc::new(columns.region.finish())),
            ("status", Arc::new(columns.status.finish())),
            ("duration_ms", Arc::new(columns.duration_ms.finish())),
            ("bytes", Arc::new(columns.bytes.finish())),
            ("user_id", Arc::new(columns.user_id.finish())),
            ("trace_id", Arc::new(columns.trace_id.finish())),
            ("error", Arc::new(columns.error.finish())),
            ("tags", Arc::new(columns.tags.finish())),
            ("sample_rate", Arc::new(columns.sample_rate.finish())),
        ];
        RecordBatch::try_from_iter_with_nullable(named.into_iter().map(|(name, array)| (name, array, true)))
    }

    /// About `rows` times, evenly between two moments, in order.
    pub(super) fn times_between(&mut self, from: i64, to: i64, rows: u64) -> Vec<i64> {
        let rows = self.random.random_range(rows / 2..=rows + rows / 2);
        let mut times: Vec<i64> = (0..rows).map(|_| self.random.random_range(from..=to.max(from))).collect();
        times.sort_unstable();
        times
    }

    fn event(&mut self, time: i64, columns: &mut Columns) {
        let service = &SERVICES[self.pick(SERVICES.iter().map(|service| service.weight))];
        let region = REGIONS[self.pick(REGIONS.iter().map(|(_, weight)| *weight))].0;
        let host = self.random.random_range(0..HOSTS_OF_SERVICE);
        let new_build = service.name == INCIDENT_SERVICE && host % 5 == 0 && time >= self.incident_from;
        // The build is rolled back at the end of the incident.
        let in_incident = new_build && time < self.incident_from + INCIDENT_NS;
        let hit = in_incident && region == INCIDENT_REGION;
        let health = self.random.random_range(0..1000) < HEALTH_PER_MILLE;
        // The first endpoints of a service are asked most.
        let last = service.endpoints.len() - 1;
        let endpoint = self.random.random_range(0..=last).min(self.random.random_range(0..=last));
        let endpoint = if health { "/healthz" } else { service.endpoints[endpoint] };

        let fails = if hit { 300 } else { service.errors_per_mille };
        let failed = !health && self.random.random_range(0..1000) < fails;
        let (status, error) = self.status(failed, hit, endpoint);
        let median = if health { 1.0 } else { service.median_ms * if hit { 9.0 } else { 1.0 } };
        let duration = median * (0.55 * self.normal()).exp() + if failed && hit { 2_000.0 } else { 0.0 };
        let size = if failed { 180.0 } else { 2_400.0 * (0.9 * self.normal()).exp() };

        columns.service.append_value(service.name);
        columns.endpoint.append_value(endpoint);
        columns.host.append_value(format!("{}-{region}-{host:02}", service.name));
        columns.region.append_value(region);
        columns.status.append_value(status);
        // Clocks measure microseconds.
        columns.duration_ms.append_value((duration * 1000.0).round() / 1000.0);
        columns.bytes.append_value(size as i64);
        // Some users ask far more than others; health checks have none.
        let user = (USERS * self.random.random::<f64>().powi(3)) as i64 + 1;
        columns.user_id.append_option((!health).then_some(user));
        columns.trace_id.append_value(format!("{:032x}", self.random.random::<u128>()));
        columns.error.append_option(error);
        let tags = columns.tags.values();
        tags.append_value(if in_incident { NEW_BUILD } else { OLD_BUILD });
        if host % 5 == 0 {
            tags.append_value("canary");
        }
        if !health {
            tags.append_value(["device:phone", "device:desktop", "device:tablet"][self.pick([6, 3, 1])]);
        }
        columns.tags.append(true);
        columns.sample_rate.append_value(if health { HEALTH_SAMPLE_RATE } else { 1 });
    }

    fn status(&mut self, failed: bool, hit: bool, endpoint: &str) -> (i64, Option<&'static str>) {
        if !failed {
            let created = ["/cart/add", "/photos/upload", "/checkout/confirm"].contains(&endpoint);
            return (if created { 201 } else { 200 }, None);
        }
        if hit {
            return (503, Some("TimeoutError: payments did not answer in time"));
        }
        match self.pick([4, 3, 2, 1]) {
            0 => (404, Some("NotFound: no such object")),
            1 => (500, Some("Internal: unexpected empty reply")),
            2 => (429, Some("QuotaExceeded: limit reached for tenant")),
            _ => (504, Some("TimeoutError: upstream did not answer in time")),
        }
    }

    /// An index, each as often as its weight says.
    fn pick(&mut self, weights: impl IntoIterator<Item = u32> + Clone) -> usize {
        let all: u32 = weights.clone().into_iter().sum();
        let mut left = self.random.random_range(0..all.max(1));
        for (index, weight) in weights.into_iter().enumerate() {
            if left < weight {
                return index;
            }
            left -= weight;
        }
        0
    }

    /// A number with mean 0 and deviation 1.
    fn normal(&mut self) -> f64 {
        // Box and Muller; the first must not be 0.
        let first = 1.0 - self.random.random::<f64>();
        let second = self.random.random::<f64>();
        (-2.0 * first.ln()).sqrt() * (2.0 * std::f64::consts::PI * second).cos()
    }
}

/// Exactly `rows` times between two moments, in order, more of them by day than by night.
pub(super) fn backfill_times(seed: u64, from: i64, to: i64, rows: u64) -> Vec<i64> {
    let mut random = StdRng::seed_from_u64(seed ^ 0x0074_696d_6573);
    let minutes = ((to - from) / MINUTE_NS).max(1);
    let weights: Vec<f64> = (0..minutes).map(|minute| traffic_at(from + minute * MINUTE_NS)).collect();
    let all: f64 = weights.iter().sum();
    let mut times = Vec::with_capacity(rows as usize);
    let mut sum = 0.0;
    for (minute, weight) in (0..minutes).zip(&weights) {
        sum += weight;
        // Rounding the running sum makes the last minute end at exactly all rows.
        let until = if minute + 1 == minutes { rows } else { (rows as f64 * sum / all) as u64 };
        let first = times.len();
        let start = from + minute * MINUTE_NS;
        while (times.len() as u64) < until {
            times.push(start + random.random_range(0..MINUTE_NS.min(to - start).max(1)));
        }
        times[first..].sort_unstable();
    }
    times
}

/// Relative traffic at a time of day (UTC): least at 4, most at 16.
fn traffic_at(time: i64) -> f64 {
    let hour = time.rem_euclid(24 * 60 * MINUTE_NS) as f64 / (60 * MINUTE_NS) as f64;
    1.0 - 0.6 * ((hour - 4.0) / 24.0 * 2.0 * std::f64::consts::PI).cos()
}

#[cfg(test)]
mod tests {
    use arrow::array::{AsArray, types::Float64Type, types::Int64Type};

    use super::*;

    const MOMENT: i64 = 1_790_000_000 * SECOND_NS;

    fn day(rows: u64) -> RecordBatch {
        let times = backfill_times(7, MOMENT - BACKFILL_NS, MOMENT, rows);
        Generator::new(7, MOMENT).batch(&times).unwrap()
    }

    #[test]
    fn the_same_seed_makes_the_same_events() {
        assert_eq!(day(2_000), day(2_000));
        let times = backfill_times(8, MOMENT - BACKFILL_NS, MOMENT, 2_000);
        assert_ne!(Generator::new(8, MOMENT).batch(&times).unwrap(), day(2_000));
        // However they are cut into batches.
        let times = backfill_times(7, MOMENT - BACKFILL_NS, MOMENT, 2_000);
        let mut generator = Generator::new(7, MOMENT);
        let first = generator.batch(&times[..700]).unwrap();
        let rest = generator.batch(&times[700..]).unwrap();
        assert_eq!(arrow::compute::concat_batches(&first.schema(), [&first, &rest]).unwrap(), day(2_000));
    }

    #[test]
    fn times_are_all_there_and_in_order() {
        for rows in [1, 999, 50_000] {
            let times = backfill_times(1, MOMENT - BACKFILL_NS, MOMENT, rows);
            assert_eq!(times.len() as u64, rows);
            assert!(times.is_sorted());
            assert!(times[0] >= MOMENT - BACKFILL_NS && times[times.len() - 1] < MOMENT);
        }
        let mut generator = Generator::new(1, MOMENT);
        let times = generator.times_between(100, 200, 50);
        assert!(times.is_sorted() && (25..=75).contains(&times.len()), "{times:?}");
        assert!(generator.times_between(5, 5, 50).iter().all(|time| *time == 5));
    }

    #[test]
    fn there_is_something_to_find() {
        let events = day(100_000);
        let column = |name: &str| events.column_by_name(name).unwrap();
        let (service, region) = (column("service").as_string::<i32>(), column("region").as_string::<i32>());
        let status = column("status").as_primitive::<Int64Type>();
        let duration = column("duration_ms").as_primitive::<Float64Type>();
        let time = column("time").as_primitive::<arrow::datatypes::TimestampNanosecondType>();
        let from = MOMENT - INCIDENT_BEFORE_NS;
        let failures = |within: bool| {
            let chosen = (0..events.num_rows()).filter(|row| {
                let during = (from..from + INCIDENT_NS).contains(&time.value(*row));
                during == within && service.value(*row) == "checkout" && region.value(*row) == "eu-central"
            });
            let (mut all, mut failed) = (0, 0);
            for row in chosen {
                all += 1;
                failed += u32::from(status.value(row) == 503);
            }
            f64::from(failed) / f64::from(all)
        };
        assert!(failures(true) > 0.02, "{}", failures(true));
        assert_eq!(failures(false), 0.0);
        assert!(duration.iter().flatten().all(|value| value > 0.0 && value < 100_000.0));
    }
}
