//! Waiting for something that another process or task does: by asking again, with a deadline, never by guessing how
//! long it takes.

use std::future::Future;
use std::time::{Duration, Instant};

const PAUSE: Duration = Duration::from_millis(10);

/// Asks until there is something.
///
/// # Panics
/// When there is nothing by the deadline; `what` says for what the test waited.
pub async fn until<T, F: Future<Output = Option<T>>>(
    seconds: u64,
    what: &str,
    mut ask: impl FnMut() -> F,
) -> T {
    let deadline = Instant::now() + Duration::from_secs(seconds);
    loop {
        if let Some(found) = ask().await {
            return found;
        }
        assert!(Instant::now() < deadline, "waited {seconds} s in vain for {what}");
        tokio::time::sleep(PAUSE).await;
    }
}
