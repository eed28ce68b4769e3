//! The query object: what is looked at, as a link and JSON hold it and before it is known what is now.

use std::collections::BTreeMap;

use clap::ValueEnum;
use serde_json::{Map, Value as Json, json};

use super::filter::{self, Filter};
use crate::cells::Zone;
use crate::explore::question::View;
use crate::explore::span::{instant_text, parse_instant, parse_span, span_text};
use crate::query::statements::split_at_commas;

/// Nanoseconds of a millisecond, the smallest stretch of time that is written.
const MILLISECOND: i64 = 1_000_000;
/// What is shown unless something is said.
const LIMIT_DEFAULT: u32 = 10;
/// As many groups or rows can be asked for.
const LIMIT_MAX: u32 = 10_000;

/// A time as a link has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Moment {
    /// Whenever it is asked.
    Now,
    /// So long before that, in nanoseconds.
    Ago(i64),
    /// This instant.
    At(i64),
}

impl Moment {
    /// Reads `now`, `-90m`, or a time, which is in `zone` where it names none.
    pub(crate) fn parse(text: &str, zone: Zone) -> Result<Moment, String> {
        match text.trim() {
            "now" => Ok(Moment::Now),
            ago if ago.starts_with('-') => Ok(Moment::Ago(parse_stretch(&ago[1..])?)),
            instant => parse_instant(instant, 0, zone).map(Moment::At),
        }
    }

    /// The text that it is read from.
    pub(crate) fn text(self) -> String {
        match self {
            Moment::Now => "now".to_owned(),
            Moment::Ago(nanoseconds) => format!("-{}", span_text(nanoseconds)),
            Moment::At(instant) => instant_text(instant, None),
        }
    }
}

/// A stretch of time in whole milliseconds, as they are written.
fn parse_stretch(text: &str) -> Result<i64, String> {
    Ok(parse_span(text)? / MILLISECOND * MILLISECOND)
}

/// See the module.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Exploration {
    /// The table.
    pub(crate) table: String,
    /// From when.
    pub(crate) from: Moment,
    /// Until when.
    pub(crate) to: Moment,
    /// The width of a bucket; what fits when nothing is said.
    pub(crate) every: Option<i64>,
    /// Aggregates, or for a distribution the column.
    pub(crate) show: Vec<String>,
    /// Conditions on single columns, which all hold.
    pub(crate) filters: Vec<Filter>,
    /// Other conditions, as SQL.
    pub(crate) conditions: Vec<String>,
    /// Columns made of others.
    pub(crate) derive: BTreeMap<String, String>,
    /// Expressions that make groups.
    pub(crate) group_by: Vec<String>,
    /// Conditions on groups.
    pub(crate) having: Vec<String>,
    /// Expressions to order by, with `asc` or `desc`.
    pub(crate) order_by: Vec<(String, Option<&'static str>)>,
    /// Groups or rows that are shown.
    pub(crate) limit: u32,
    /// How long ago the period is that is compared with.
    pub(crate) compare: Option<i64>,
    /// The way to look.
    pub(crate) view: View,
}

impl Exploration {
    /// What is looked at when nothing but the table is said.
    pub(crate) fn of_table(table: String) -> Exploration {
        const HOUR: i64 = 3_600_000 * MILLISECOND;
        Exploration {
            table,
            from: Moment::Ago(HOUR),
            to: Moment::Now,
            every: None,
            show: vec!["count".to_owned()],
            filters: Vec::new(),
            conditions: Vec::new(),
            derive: BTreeMap::new(),
            group_by: Vec::new(),
            having: Vec::new(),
            order_by: Vec::new(),
            limit: LIMIT_DEFAULT,
            compare: None,
            view: View::Series,
        }
    }

    /// Sorts conditions into those on one column and others.
    pub(crate) fn add_condition(&mut self, sql: &str) {
        match Filter::of_sql(sql) {
            Some(filter) => self.filters.push(filter),
            None => self.conditions.push(sql.trim().to_owned()),
        }
    }

    /// All conditions as SQL.
    pub(crate) fn all_conditions(&self) -> Vec<String> {
        self.filters.iter().map(Filter::sql).chain(self.conditions.iter().cloned()).collect()
    }

    /// Reads `count(*) desc, region` as SQL orders.
    pub(crate) fn set_order(&mut self, sql: &str) -> Result<(), String> {
        let directed = |item: String| {
            let cut = item.rsplit_once(char::is_whitespace);
            let direction = cut.and_then(|(_, word)| direction(word));
            match (cut, direction) {
                (Some((expression, _)), Some(direction)) => (expression.trim().to_owned(), Some(direction)),
                _ => (item, None),
            }
        };
        self.order_by = split_at_commas(sql)?.into_iter().map(directed).collect();
        Ok(())
    }

    /// The order as SQL.
    pub(crate) fn order(&self) -> Option<String> {
        let items = self.order_by.iter().map(|(expression, direction)| match direction {
            Some(direction) => format!("{expression} {direction}"),
            None => expression.clone(),
        });
        let items: Vec<String> = items.collect();
        (!items.is_empty()).then(|| items.join(", "))
    }

    /// Keys and values of a link, in the order in which they are read best.
    pub(super) fn pairs(&self) -> Vec<(&'static str, String)> {
        let mut pairs = vec![("from", self.from.text())];
        if self.to != Moment::Now {
            pairs.push(("to", self.to.text()));
        }
        pairs.extend(self.every.map(|every| ("every", span_text(every))));
        pairs.push(("show", self.show.join(",")));
        pairs.extend(self.filters.iter().map(|filter| ("f", filter.link())));
        pairs.extend(self.conditions.iter().map(|condition| ("where", condition.clone())));
        let derive = self.derive.iter();
        pairs.extend(derive.map(|(name, text)| ("derive", format!("{}:{text}", filter::name_text(name)))));
        if !self.group_by.is_empty() {
            pairs.push(("by", self.group_by.join(",")));
        }
        pairs.extend(self.having.iter().map(|having| ("having", having.clone())));
        if !self.order_by.is_empty() {
            let items = self.order_by.iter().map(|(expression, direction)| match direction {
                Some(direction) => format!("{expression}:{direction}"),
                None => expression.clone(),
            });
            pairs.push(("order", items.collect::<Vec<_>>().join(",")));
        }
        if self.limit != LIMIT_DEFAULT {
            pairs.push(("limit", self.limit.to_string()));
        }
        pairs.extend(self.compare.map(|compare| ("cmp", span_text(compare))));
        pairs.push(("view", view_name(self.view)));
        pairs
    }

    /// Takes one key and its value from a link; `false` when the key is not known.
    pub(super) fn take_pair(&mut self, key: &str, value: &str) -> Result<bool, String> {
        match key {
            "from" => self.from = Moment::parse(value, None)?,
            "to" => self.to = Moment::parse(value, None)?,
            "every" => self.every = every(value)?,
            "show" => self.show = split_at_commas(value)?,
            "f" => self.filters.push(Filter::of_link(value)?),
            "where" => self.conditions.push(value.to_owned()),
            "derive" => {
                let wrong = || format!("derived column `{value}` must be NAME:EXPRESSION");
                let (name, expression) = filter::name(value).ok_or_else(wrong)?;
                self.take_derived(name, expression)?;
            }
            "by" => self.group_by = split_at_commas(value)?,
            "having" => self.having.push(value.to_owned()),
            "order" => {
                let directed = |item: String| {
                    let cut = item.rsplit_once(':');
                    match cut.and_then(|(expression, word)| Some((expression, direction(word)?))) {
                        Some((expression, direction)) => (expression.to_owned(), Some(direction)),
                        None => (item, None),
                    }
                };
                self.order_by = split_at_commas(value)?.into_iter().map(directed).collect();
            }
            "limit" => self.limit = limit(value.parse().ok(), value)?,
            "cmp" => self.compare = Some(parse_stretch(value)?),
            "view" => self.view = view(value)?,
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn take_derived(&mut self, name: String, expression: &str) -> Result<(), String> {
        if name.is_empty() {
            return Err("a derived column has no name".to_owned());
        }
        let twice = format!("the derived column `{name}` is there twice");
        if self.derive.insert(name, expression.to_owned()).is_some() { Err(twice) } else { Ok(()) }
    }

    /// The object as JSON.
    pub(super) fn json(&self) -> Json {
        let order = self.order_by.iter().map(|(expression, direction)| match direction {
            Some(direction) => json!([expression, direction]),
            None => json!([expression]),
        });
        let conditions = match &self.conditions[..] {
            [] => Json::Null,
            [one] => Json::from(one.as_str()),
            several => json!(several),
        };
        json!({
            "table": self.table,
            "time": {"from": self.from.text(), "to": self.to.text()},
            "every": self.every.map_or_else(|| "auto".to_owned(), span_text),
            "show": self.show,
            "filters": self.filters.iter().map(Filter::json).collect::<Vec<_>>(),
            "where": conditions,
            "derive": self.derive,
            "group_by": self.group_by,
            "having": self.having,
            "order_by": order.collect::<Vec<_>>(),
            "limit": self.limit,
            "compare": self.compare.map(span_text),
            "view": view_name(self.view),
        })
    }

    /// Takes one member of the object; `false` when it is not known.
    pub(super) fn take_member(&mut self, name: &str, value: &Json) -> Result<bool, String> {
        let wrong = |what: &str| format!("`{name}` is {value}, must be {what}");
        let text = || value.as_str().ok_or_else(|| wrong("a text"));
        match name {
            "table" => text()?.clone_into(&mut self.table),
            "time" => {
                self.take_time(value.as_object().ok_or_else(|| wrong("an object with from and to"))?)?
            }
            "every" if value.is_null() => self.every = None,
            "every" => self.every = every(text()?)?,
            "show" => self.show = expressions(value).ok_or_else(|| wrong("a list of expressions"))?,
            "filters" => {
                let filters = value.as_array().ok_or_else(|| wrong("a list of filters"))?;
                self.filters = filters.iter().map(Filter::of_json).collect::<Result<_, _>>()?;
            }
            "where" => self.conditions = texts(value).ok_or_else(|| wrong("a text, or a list of texts"))?,
            "derive" => {
                for (name, expression) in value.as_object().ok_or_else(|| wrong("an object of texts"))? {
                    let expression = expression.as_str().ok_or_else(|| wrong("an object of texts"))?;
                    self.take_derived(name.clone(), expression)?;
                }
            }
            "group_by" => self.group_by = expressions(value).ok_or_else(|| wrong("a list of expressions"))?,
            "having" => self.having = texts(value).ok_or_else(|| wrong("a list of texts"))?,
            "order_by" => {
                self.order_by =
                    orders(value).ok_or_else(|| wrong("a list such as [[\"count\", \"desc\"]]"))?
            }
            "limit" => self.limit = limit(value.as_u64(), &value.to_string())?,
            "compare" if value.is_null() => self.compare = None,
            "compare" => self.compare = Some(parse_stretch(text()?)?),
            "view" => self.view = view(text()?)?,
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn take_time(&mut self, time: &Map<String, Json>) -> Result<(), String> {
        for (name, moment) in [("from", &mut self.from), ("to", &mut self.to)] {
            if let Some(value) = time.get(name) {
                let text =
                    value.as_str().ok_or_else(|| format!("`time.{name}` is {value}, must be a text"))?;
                *moment = Moment::parse(text, None)?;
            }
        }
        Ok(())
    }
}

fn direction(word: &str) -> Option<&'static str> {
    ["asc", "desc"].into_iter().find(|known| known.eq_ignore_ascii_case(word))
}

fn every(text: &str) -> Result<Option<i64>, String> {
    if text == "auto" { Ok(None) } else { parse_stretch(text).map(Some) }
}

fn limit(number: Option<u64>, text: &str) -> Result<u32, String> {
    let number = number.and_then(|number| u32::try_from(number).ok());
    let number = number.filter(|number| (1..=LIMIT_MAX).contains(number));
    number.ok_or_else(|| format!("the limit is {text}, must be from 1 to {LIMIT_MAX}"))
}

fn view(text: &str) -> Result<View, String> {
    View::from_str(text, true).map_err(|_| {
        let names: Vec<String> = View::value_variants().iter().map(|view| view_name(*view)).collect();
        format!("the view is `{text}`, must be one of {}", names.join(", "))
    })
}

fn view_name(view: View) -> String {
    view.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
}

/// A text, or a list of texts, or null for none.
fn texts(value: &Json) -> Option<Vec<String>> {
    match value {
        Json::Null => Some(Vec::new()),
        Json::String(text) => Some(vec![text.clone()]),
        Json::Array(list) => list.iter().map(|text| text.as_str().map(str::to_owned)).collect(),
        _ => None,
    }
}

/// Expressions, each of which would stay one between commas.
fn expressions(value: &Json) -> Option<Vec<String>> {
    let lists = texts(value)?.into_iter().map(|text| split_at_commas(&text).ok());
    Some(lists.collect::<Option<Vec<_>>>()?.concat())
}

fn orders(value: &Json) -> Option<Vec<(String, Option<&'static str>)>> {
    let order = |item: &Json| match item.as_array().map(Vec::as_slice)? {
        [Json::String(expression)] => Some((expression.clone(), None)),
        [Json::String(expression), Json::String(word)] => Some((expression.clone(), Some(direction(word)?))),
        _ => None,
    };
    value.as_array()?.iter().map(order).collect()
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::super::filter::tests::filters;
    use super::*;

    fn moments() -> impl Strategy<Value = Moment> {
        let stretch = (1..1_000_000_000_i64).prop_map(|n| n * MILLISECOND);
        prop_oneof![Just(Moment::Now), stretch.prop_map(Moment::Ago), (0..i64::MAX).prop_map(Moment::At)]
    }

    /// Any exploration.
    pub(crate) fn explorations() -> impl Strategy<Value = Exploration> {
        let expression = || "(count|p99\\(a, b\\)|\"x,y\"|a \\+ 'b,&ü=%'|time::int)";
        let list = move || prop::collection::vec(expression(), 0..3);
        let stretch = || prop::option::of((1..1_000_000_000_i64).prop_map(|n| n * MILLISECOND));
        let order = (expression(), prop::option::of(prop::sample::select(vec!["asc", "desc"])));
        let derive = prop::collection::btree_map("[a-z:\"ü ]{1,5}", expression(), 0..3);
        let times = (moments(), moments(), stretch(), stretch());
        let conditions = (prop::collection::vec(filters(), 0..3), list(), list());
        let lists =
            (prop::collection::vec(expression(), 1..3), list(), prop::collection::vec(order, 0..3), derive);
        let view = prop::sample::select(View::value_variants().to_vec());
        ("[a-zü./ ]{1,8}", times, conditions, lists, 1..=LIMIT_MAX, view).prop_map(
            |(table, times, conditions, lists, limit, view)| {
                let (from, to, every, compare) = times;
                let (filters, conditions, having) = conditions;
                let (show, group_by, order_by, derive) = lists;
                let base = Exploration::of_table(table);
                let base = Exploration { from, to, every, compare, filters, conditions, having, ..base };
                Exploration { show, group_by, order_by, derive, limit, view, ..base }
            },
        )
    }

    #[test]
    fn moments_are_read() {
        let check = |text: &str, expect: Result<&str, &str>| {
            let found = Moment::parse(text, None).map(Moment::text);
            assert_eq!(found.as_deref().map_err(String::as_str), expect, "{text}");
        };
        check("now", Ok("now"));
        check("-90m", Ok("-90m"));
        check("-3600s", Ok("-1h"));
        check("2026-11-21", Ok("2026-11-21T00:00:00Z"));
        check("2026-11-21T10:00:00.25+01:00", Ok("2026-11-21T09:00:00.250Z"));
        check("-x", Err("`x` must be a stretch of time such as 30s, 15m, 1h, 1d or 1w"));
    }

    #[test]
    fn orders_are_read() {
        let check = |sql: &str, link: &str| {
            let mut exploration = Exploration::of_table("t".to_owned());
            exploration.set_order(sql).unwrap();
            let pairs = exploration.pairs();
            assert_eq!(pairs.iter().find(|(key, _)| *key == "order").unwrap().1, link);
            let mut read = Exploration::of_table("t".to_owned());
            read.take_pair("order", link).unwrap();
            assert_eq!(read, exploration);
        };
        check("count(*) DESC", "count(*):desc");
        check("f(a, b), region asc", "f(a, b),region:asc");
        check("a::int", "a::int");
    }
}
