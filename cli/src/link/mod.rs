//! Links: a question as an address, such as `/e/requests?v=1&from=-1h&show=count&f=status:ge:500&view=series`, and back.
//!
//! A link holds the query object ([`exploration`]) or a statement, and nothing else: no token, and whoever reads it asks
//! the server of their own settings, whatever server the link names. It is readable; one that would be longer than
//! [`LENGTH_MAX`] holds the object as JSON, deflated, in the letters of base64url. A link is text of a stranger: its
//! parts are checked, what it inflates to is limited, and what is not known is left out and said.

use std::io::{Read, Write};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use flate2::Compression;
use flate2::read::DeflateDecoder;
use flate2::write::DeflateEncoder;
use serde_json::{Map, Value as Json, json};

pub(crate) use self::exploration::{Exploration, Moment};

mod exploration;
mod filter;
mod percent;

/// The version of what links hold.
const VERSION: u64 = 1;
/// Longer links are packed; some programs cut them.
const LENGTH_MAX: usize = 2_000;
/// A link that is longer is not read.
const READ_BYTES_MAX: usize = 64 << 10;
/// A packed link that holds more is not read.
const INFLATED_BYTES_MAX: usize = 256 << 10;
/// What may be there more than once.
const REPEATED: [&str; 4] = ["f", "where", "derive", "having"];

/// What a link stands for.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Link {
    /// A table that is looked at.
    Exploration(Box<Exploration>),
    /// A statement.
    Sql(String),
}

/// What was read, and what of it was left out.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Found {
    /// What the link stands for.
    pub(crate) link: Link,
    /// What the reader should know.
    pub(crate) notices: Vec<String>,
}

impl Link {
    /// The link at a server.
    pub(crate) fn url(&self, server: &str) -> String {
        format!("{}{}", server.trim_end_matches('/'), self.path())
    }

    /// The link without a server.
    fn path(&self) -> String {
        let mut path = "/e".to_owned();
        let pairs = match self {
            Link::Exploration(exploration) => {
                path.push('/');
                percent::push(&mut path, &exploration.table);
                exploration.pairs()
            }
            Link::Sql(sql) => vec![("sql", sql.clone())],
        };
        path.push_str(&format!("?v={VERSION}"));
        let whole = pairs.iter().fold(path.clone(), |mut whole, (key, value)| {
            whole.push_str(&format!("&{key}="));
            percent::push(&mut whole, value);
            whole
        });
        if whole.len() <= LENGTH_MAX { whole } else { format!("{path}&q={}", self.packed()) }
    }

    /// The query object, packed.
    fn packed(&self) -> String {
        let mut object = match self {
            Link::Exploration(exploration) => exploration.json(),
            Link::Sql(sql) => json!({ "sql": sql }),
        };
        object["v"] = Json::from(VERSION);
        let mut packer = DeflateEncoder::new(Vec::new(), Compression::best());
        // Writing to memory does not fail.
        let _ = packer.write_all(object.to_string().as_bytes());
        URL_SAFE_NO_PAD.encode(packer.finish().unwrap_or_default())
    }

    /// Reads a link: an address, or the part of it from `/e` on.
    ///
    /// # Errors
    /// When it is none, or of another version. The text says what is wrong with it.
    pub(crate) fn read(text: &str) -> Result<Found, String> {
        if text.len() > READ_BYTES_MAX {
            return Err(format!("it is longer than {READ_BYTES_MAX} bytes"));
        }
        let text = text.trim().split('#').next().unwrap_or_default();
        let (path, query) = text.split_once('?').unwrap_or((text, ""));
        let table = table_of(path)?;
        let mut pairs: Vec<(String, String)> = Vec::new();
        for part in query.split('&').filter(|part| !part.is_empty()) {
            let (key, value) = part.split_once('=').unwrap_or((part, ""));
            let key = percent::read(key)?;
            if pairs.iter().any(|(known, _)| *known == key) && !REPEATED.contains(&key.as_str()) {
                return Err(format!("`{key}` is there twice"));
            }
            pairs.push((key, percent::read(value)?));
        }
        let mut version = None;
        pairs.retain(|(key, value)| {
            let is_version = key == "v";
            if is_version {
                version = Some(value.clone());
            }
            !is_version
        });
        check_version(
            version.map_or(Json::Null, |text| text.parse::<u64>().map_or(text.into(), Json::from)),
        )?;
        let take = |name: &str| pairs.iter().find(|(key, _)| key == name).map(|(_, value)| value.clone());
        if let Some(packed) = take("q") {
            let rest = pairs.iter().map(|(key, _)| key.as_str()).filter(|key| *key != "q");
            let notices: Vec<String> = rest.map(left_out).collect();
            return unpack(&packed, table, notices);
        }
        let mut notices = Vec::new();
        let link = match (table, take("sql")) {
            (None, Some(sql)) => {
                notices.extend(
                    pairs.iter().map(|(key, _)| key.as_str()).filter(|key| *key != "sql").map(left_out),
                );
                Link::Sql(sql)
            }
            (None, None) => return Err("it names neither a table nor a statement".to_owned()),
            (Some(table), _) => {
                let mut exploration = Exploration::of_table(table);
                for (key, value) in &pairs {
                    if !exploration.take_pair(key, value)? {
                        notices.push(left_out(key));
                    }
                }
                Link::Exploration(Box::new(exploration))
            }
        };
        Ok(Found { link, notices })
    }
}

fn left_out(key: &str) -> String {
    let key: String = key.chars().filter(|c| !c.is_control()).take(40).collect();
    format!("`{key}` of the link is not known here and is left out")
}

/// The table of a path `/e/TABLE`, with or without a server before it; none for `/e`.
fn table_of(path: &str) -> Result<Option<String>, String> {
    let wrong = || "it must be an address such as http://HOST/e/TABLE?v=1, or /e/TABLE?v=1".to_owned();
    let path = match path.split_once("://") {
        Some((scheme, rest)) if ["http", "https"].contains(&scheme) => {
            &rest[rest.find('/').ok_or_else(wrong)?..]
        }
        Some(_) => return Err(wrong()),
        None => path,
    };
    let rest = path.strip_prefix("/e").ok_or_else(wrong)?;
    match rest.strip_prefix('/') {
        None | Some("") if rest.len() <= 1 => Ok(None),
        Some(table) if !table.contains('/') => percent::read(table).map(Some),
        _ => Err(wrong()),
    }
}

/// No version is this one: people write links by hand.
fn check_version(version: Json) -> Result<(), String> {
    match version {
        Json::Null => Ok(()),
        Json::Number(number) if number.as_u64() == Some(VERSION) => Ok(()),
        other => Err(format!("it is of version {other}, and this program reads version {VERSION}")),
    }
}

/// Reads the query object of a packed link.
fn unpack(packed: &str, table: Option<String>, mut notices: Vec<String>) -> Result<Found, String> {
    let broken = || "what it holds cannot be unpacked; it may have been cut".to_owned();
    let bytes = URL_SAFE_NO_PAD.decode(packed.trim_end_matches('=')).map_err(|_| broken())?;
    let mut text = Vec::new();
    let limit = INFLATED_BYTES_MAX as u64 + 1;
    DeflateDecoder::new(&bytes[..]).take(limit).read_to_end(&mut text).map_err(|_| broken())?;
    if text.len() > INFLATED_BYTES_MAX {
        return Err(format!("it holds more than {INFLATED_BYTES_MAX} bytes"));
    }
    let object: Map<String, Json> = serde_json::from_slice(&text)
        .map_err(|error| format!("what it holds is no query object: {error}"))?;
    check_version(object.get("v").cloned().unwrap_or(Json::Null))?;
    if let Some(Json::String(sql)) = object.get("sql") {
        return Ok(Found { link: Link::Sql(sql.clone()), notices });
    }
    let mut exploration = Exploration::of_table(table.unwrap_or_default());
    for (name, value) in object.iter().filter(|(name, _)| *name != "v") {
        if !exploration.take_member(name, value)? {
            notices.push(left_out(name));
        }
    }
    if exploration.table.is_empty() {
        return Err("it names no table".to_owned());
    }
    Ok(Found { link: Link::Exploration(Box::new(exploration)), notices })
}

#[cfg(test)]
mod tests;
