//! What the shell knows of tables, columns and values: asked for in the background, kept for a while.
//!
//! Nobody who types waits for it: what is not known is asked for, and offered the next time. Only a request for
//! completion waits, and not longer than [`WAIT_MAX`]. A server that does not answer is not asked again for a while.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use arrow::array::{Array, AsArray};
use arrow::compute::cast;
use arrow::datatypes::DataType;
use gannet_client::{Client, Error, QueryOptions};
use tokio::runtime::Handle;

use super::completion::{Context, Fits, Known};
use crate::query::format::Format;
use crate::sql_names::quoted_name;

/// How long a completion waits for the server.
pub(super) const WAIT_MAX: Duration = Duration::from_millis(300);
/// How long what is known is believed.
const KEPT_FOR: Duration = Duration::from_secs(30);
/// Things that are remembered of each kind; then all of the kind are forgotten.
const REMEMBERED_MAX: usize = 1000;
/// Values of a column that are offered.
const VALUES_MAX: usize = 30;

/// Something asked for.
#[derive(Debug)]
struct Remembered<T> {
    value: T,
    /// When the answer came, if it did.
    since: Option<Instant>,
    is_asked_for: bool,
}

impl<T: Default> Default for Remembered<T> {
    fn default() -> Remembered<T> {
        Remembered { value: T::default(), since: None, is_asked_for: false }
    }
}

/// A column and its type.
type Column = (String, String);

#[derive(Debug, Default)]
struct State {
    tables: HashMap<(), Remembered<Vec<String>>>,
    columns: HashMap<String, Remembered<Vec<Column>>>,
    values: HashMap<(String, String), Remembered<Vec<String>>>,
    kept: Vec<String>,
    /// Requests that are on their way.
    under_way: usize,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    arrived: Condvar,
}

/// What is known so far.
#[derive(Debug, Clone)]
pub(super) struct Catalogue {
    client: Client,
    runtime: Handle,
    shared: Arc<Shared>,
}

/// The part of the state that a kind of thing is in.
type Part<K, T> = fn(&mut State) -> &mut HashMap<K, Remembered<T>>;

impl Catalogue {
    /// Knows nothing yet. Requests run on this runtime, which must have a thread of its own.
    pub(super) fn new(client: Client, runtime: Handle) -> Catalogue {
        Catalogue { client, runtime, shared: Arc::default() }
    }

    /// Takes the names of kept statements.
    pub(super) fn keep(&self, names: Vec<String>) {
        self.state().kept = names;
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks for the tables, without waiting.
    pub(super) fn want_tables(&self) {
        let client = self.client.clone();
        self.want(|state| &mut state.tables, (), async move {
            Ok(client.tables().await?.into_iter().map(|table| table.name).collect())
        });
    }

    /// Asks for the columns of a table, without waiting.
    pub(super) fn want_columns(&self, table: &str) {
        let (client, name) = (self.client.clone(), table.to_owned());
        self.want(|state| &mut state.columns, name.clone(), async move {
            let columns = client.table(&name).await?.columns.into_iter();
            Ok(columns.map(|column| (column.name, column.type_name)).collect())
        });
    }

    fn want_values(&self, table: &str, column: &str) {
        let client = self.client.clone();
        let key = (table.to_owned(), column.to_owned());
        let sql = values_sql(table, column);
        self.want(|state| &mut state.values, key, async move { values(&client, &sql).await });
    }

    fn want<K, T>(
        &self,
        part: Part<K, T>,
        key: K,
        ask: impl Future<Output = Result<T, Error>> + Send + 'static,
    ) where
        K: Hash + Eq + Clone + Send + 'static,
        T: Default + Send + 'static,
    {
        let mut state = self.state();
        let remembered = part(&mut state);
        if remembered.len() >= REMEMBERED_MAX {
            remembered.clear();
        }
        let entry = remembered.entry(key.clone()).or_default();
        if entry.is_asked_for || entry.since.is_some_and(|since| since.elapsed() < KEPT_FOR) {
            return;
        }
        entry.is_asked_for = true;
        state.under_way += 1;
        drop(state);
        let shared = Arc::clone(&self.shared);
        self.runtime.spawn(async move {
            let asked = ask.await;
            let mut state = shared.state.lock().unwrap_or_else(PoisonError::into_inner);
            state.under_way -= 1;
            let entry = part(&mut state).entry(key).or_default();
            entry.is_asked_for = false;
            // What failed is as old as what came: asking again at each key would not help.
            entry.since = Some(Instant::now());
            if let Ok(value) = asked {
                entry.value = value;
            }
            drop(state);
            shared.arrived.notify_all();
        });
    }

    /// Asks for what this place needs, without waiting.
    pub(super) fn want_for(&self, context: &Context) {
        match &context.fits {
            Fits::Table => self.want_tables(),
            Fits::Column { tables, .. } => tables.iter().for_each(|table| self.want_columns(table)),
            Fits::Value { tables, column, .. } => {
                for table in tables {
                    let columns = self.columns(table);
                    // Of a column that is known to be elsewhere nothing is asked.
                    if columns.is_empty() || columns.iter().any(|(name, _)| name == column) {
                        self.want_values(table, column);
                    }
                }
            }
            _ => {}
        }
    }

    /// Waits until nothing is on its way, or [`WAIT_MAX`].
    pub(super) fn wait(&self) {
        let until = Instant::now() + WAIT_MAX;
        let mut state = self.state();
        while state.under_way > 0 {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            let waited = self.shared.arrived.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

fn values_sql(table: &str, column: &str) -> String {
    let (table, column) = (quoted_name(table), quoted_name(column));
    format!(
        "SELECT {column} FROM {table} WHERE {column} IS NOT NULL GROUP BY {column} \
         ORDER BY count(*) DESC LIMIT {VALUES_MAX}"
    )
}

/// The values, most frequent first. By the deadline a server answers with what it has seen.
async fn values(client: &Client, sql: &str) -> Result<Vec<String>, Error> {
    let options = QueryOptions { timeout: Some(WAIT_MAX), min_completeness: None };
    let answer = client.query(sql, &options).await?;
    let mut values = Vec::new();
    for batch in &answer.batches {
        let Some(column) = batch.columns().first() else { continue };
        let is_text = matches!(column.data_type(), DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View);
        // Only text is compared with text in quotes.
        if !is_text {
            continue;
        }
        let Ok(column) = cast(column, &DataType::Utf8) else { continue };
        values.extend(column.as_string::<i32>().iter().flatten().map(str::to_owned));
    }
    Ok(values)
}

impl Known for Catalogue {
    fn tables(&self) -> Vec<String> {
        self.state().tables.get(&()).map(|tables| tables.value.clone()).unwrap_or_default()
    }

    fn columns(&self, table: &str) -> Vec<(String, String)> {
        self.state().columns.get(table).map(|columns| columns.value.clone()).unwrap_or_default()
    }

    fn values(&self, table: &str, column: &str) -> Vec<String> {
        let key = (table.to_owned(), column.to_owned());
        self.state().values.get(&key).map(|values| values.value.clone()).unwrap_or_default()
    }

    fn kept(&self) -> Vec<String> {
        self.state().kept.clone()
    }

    fn formats(&self) -> Vec<String> {
        use clap::ValueEnum;
        Format::value_variants().iter().map(|format| format.name().to_owned()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_quoted_for_sql() {
        assert_eq!(
            values_sql("a b", "order"),
            "SELECT \"order\" FROM \"a b\" WHERE \"order\" IS NOT NULL GROUP BY \"order\" \
             ORDER BY count(*) DESC LIMIT 30"
        );
        assert!(values_sql("t", "user.id").starts_with("SELECT user.id FROM t WHERE"));
    }

    #[test]
    fn a_server_that_is_away_is_asked_once() {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let client = Client::new("http://127.0.0.1:1").unwrap();
        let catalogue = Catalogue::new(client, runtime.handle().clone());
        catalogue.want_tables();
        while catalogue.state().under_way > 0 {
            catalogue.wait();
        }
        assert!(catalogue.tables().is_empty());
        catalogue.want_tables();
        assert_eq!(catalogue.state().under_way, 0);
    }
}
