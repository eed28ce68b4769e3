//! Who may do what over HTTP: tokens with scopes.
//!
//! A token is a long random text that is shown once, when it is made. The server keeps a file with one line a token: its
//! name, its scopes, and the SHA-256 of its text. Several may be valid at once, so that one can follow the other; the
//! file is read again when it changes, and a line that is gone is a token that is gone.
//!
//! Invariants: what a token may do is decided before anything of a body is read; comparing takes as long whatever the
//! token is; no token is ever in a log, a message or the file; an empty or short text is no token, whatever the file says.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use chrono::{DateTime, SecondsFormat, Utc};
use gannet_proto::watched::{FileError, Watched, read_secret};
use ring::digest::{SHA256, digest};
use ring::rand::{SecureRandom, SystemRandom};
use subtle::ConstantTimeEq;

/// Bytes of a token that are random.
const RANDOM_BYTES: usize = 32;
/// What a token begins with, so that people and programs that look for leaked secrets know it.
const PREFIX: &str = "gannet_";
/// Nothing shorter is a token: 32 hexadecimal digits are 128 bits.
const TOKEN_BYTES_MIN: usize = 32;
/// Nothing longer is one either.
const TOKEN_BYTES_MAX: usize = 256;
/// Lines of a tokens file.
const TOKENS_MAX: usize = 10_000;
/// Bytes of a token's name.
const NAME_BYTES_MAX: usize = 64;

/// What a token lets its holder do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Scope {
    /// Post events.
    Ingest,
    /// Ask, and see what there is.
    Query,
    /// Delete, and change how leaves are treated.
    Admin,
}

impl Scope {
    /// All of them.
    pub const ALL: [Scope; 3] = [Scope::Ingest, Scope::Query, Scope::Admin];

    /// Its word.
    pub fn name(self) -> &'static str {
        match self {
            Scope::Ingest => "ingest",
            Scope::Query => "query",
            Scope::Admin => "admin",
        }
    }

    /// What a request needs; nothing for what everybody may ask. What nobody thought of needs the most.
    pub fn needed(method: &str, path: &str) -> Option<Scope> {
        let is_reading = matches!(method, "GET" | "HEAD");
        match path {
            "/" | "/healthz" | "/readyz" if is_reading => None,
            "/v1/query" if method == "POST" => Some(Scope::Query),
            events if method == "POST" && events.starts_with("/v1/events/") => Some(Scope::Ingest),
            _ if is_reading => Some(Scope::Query),
            _ => Some(Scope::Admin),
        }
    }
}

impl FromStr for Scope {
    type Err = String;

    fn from_str(text: &str) -> Result<Scope, String> {
        let named = Scope::ALL.into_iter().find(|scope| scope.name() == text);
        named.ok_or_else(|| format!("scope `{}` is not ingest, query or admin", shown(text)))
    }
}

/// A token as the file has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    /// What people call it.
    pub name: Arc<str>,
    scopes: Vec<Scope>,
    sha256: [u8; 32],
    /// When it ends.
    until: Option<DateTime<Utc>>,
}

impl Grant {
    /// Whether it lets its holder do this.
    pub fn allows(&self, scope: Scope) -> bool {
        self.scopes.contains(&scope)
    }

    /// The hash of its token, as hexadecimal digits.
    pub fn sha256(&self) -> String {
        hex(&self.sha256)
    }

    /// A grant with every scope for a token whose hash is given.
    ///
    /// # Errors
    /// When that is no hash.
    pub fn of_everything(name: &str, sha256: &str) -> Result<Grant, String> {
        let sha256 = unhex(sha256).ok_or("it is not the SHA-256 of a token")?;
        Ok(Grant { name: name.into(), scopes: Scope::ALL.to_vec(), sha256, until: None })
    }
}

impl fmt::Display for Grant {
    /// The line of the file.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scopes: Vec<&str> = self.scopes.iter().map(|scope| scope.name()).collect();
        write!(f, "{} {} sha256:{}", self.name, scopes.join(","), hex(&self.sha256))?;
        match self.until {
            Some(until) => write!(f, " until={}", until.to_rfc3339_opts(SecondsFormat::Secs, true)),
            None => Ok(()),
        }
    }
}

impl FromStr for Grant {
    type Err = String;

    fn from_str(line: &str) -> Result<Grant, String> {
        let mut fields = line.split_ascii_whitespace();
        let (Some(name), Some(scopes), Some(sha256)) = (fields.next(), fields.next(), fields.next()) else {
            return Err("it is not NAME SCOPES sha256:HEX".to_owned());
        };
        check_name(name)?;
        let scopes = scopes.split(',').map(Scope::from_str).collect::<Result<Vec<_>, _>>()?;
        // Somebody may have written the token itself; it is not repeated.
        let sha256 = sha256.strip_prefix("sha256:").and_then(unhex);
        let sha256 = sha256.ok_or("its third word is not sha256: and 64 hexadecimal digits")?;
        if sha256 == hash(b"") {
            return Err("its hash is that of an empty text".to_owned());
        }
        let until = match fields.next().map(|field| field.strip_prefix("until=")) {
            None => None,
            Some(until) => Some(until.and_then(time).ok_or("its fourth word is not until=TIME")?),
        };
        match fields.next() {
            None => Ok(Grant { name: name.into(), scopes, sha256, until }),
            Some(_) => Err("it has more than four words".to_owned()),
        }
    }
}

fn time(text: &str) -> Option<DateTime<Utc>> {
    DateTime::parse_from_rfc3339(text).ok().map(|time| time.to_utc())
}

/// Checks what people call a token.
fn check_name(name: &str) -> Result<(), String> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-@:/".contains(&byte);
    match name.len() {
        1..=NAME_BYTES_MAX if name.bytes().all(plain) => Ok(()),
        _ => Err(format!("name `{}` is not 1 to {NAME_BYTES_MAX} letters, digits or ._-@:/", shown(name))),
    }
}

/// As much of a text as goes into a message.
fn shown(text: &str) -> String {
    text.chars().take(20).map(|c| if c.is_control() { ' ' } else { c }).collect()
}

fn hash(token: &[u8]) -> [u8; 32] {
    let mut bytes = [0; 32];
    bytes.copy_from_slice(digest(&SHA256, token).as_ref());
    bytes
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Option<[u8; 32]> {
    let mut bytes = [0; 32];
    if text.len() != 64 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    for (index, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(text.get(2 * index..2 * index + 2)?, 16).ok()?;
    }
    Some(bytes)
}

/// A token that nobody had before, and its grant.
///
/// # Errors
/// When the name is none, or the system gives no random bytes.
pub fn new_token(
    name: &str,
    scopes: &[Scope],
    until: Option<DateTime<Utc>>,
) -> Result<(String, Grant), String> {
    check_name(name)?;
    let mut random = [0; RANDOM_BYTES];
    SystemRandom::new().fill(&mut random).map_err(|_| "the system gives no random bytes".to_owned())?;
    let token = format!("{PREFIX}{}", hex(&random));
    let mut scopes = scopes.to_vec();
    scopes.sort_unstable();
    scopes.dedup();
    let sha256 = hash(token.as_bytes());
    Ok((token, Grant { name: name.into(), scopes, sha256, until }))
}

/// Why somebody may not do something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Denied {
    /// No token came with the request.
    NoToken,
    /// A token came that is none here, or no longer.
    Unknown,
    /// The token is good, and not for this.
    Lacks(Scope),
}

/// The tokens of a file.
#[derive(Debug, Default)]
pub struct Tokens(Vec<Grant>);

impl Tokens {
    /// Reads a tokens file.
    ///
    /// # Errors
    /// When it cannot be read, others may read it, a line is none, or there is no token in it.
    pub fn read(path: &Path) -> Result<Tokens, FileError> {
        let wrong = |what: String| FileError::content(path, what);
        let text = String::from_utf8(read_secret(path)?).map_err(|_| wrong("is not UTF-8".to_owned()))?;
        let mut grants = Vec::new();
        for (index, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let grant = line.parse().map_err(|what| wrong(format!("line {}: {what}", index + 1)))?;
            grants.push(grant);
            if grants.len() > TOKENS_MAX {
                return Err(wrong(format!("holds more than {TOKENS_MAX} tokens")));
            }
        }
        if grants.is_empty() {
            let what = "holds no token, so nobody could do anything; `gannet token new` makes one";
            return Err(wrong(what.to_owned()));
        }
        Ok(Tokens(grants))
    }

    /// Whose token this is. Takes as long whichever it is.
    fn of(&self, token: &[u8], now: DateTime<Utc>) -> Option<&Grant> {
        if !(TOKEN_BYTES_MIN..=TOKEN_BYTES_MAX).contains(&token.len()) {
            return None;
        }
        let presented = hash(token);
        let mut found = None;
        for grant in &self.0 {
            if bool::from(grant.sha256.ct_eq(&presented)) {
                found = Some(grant);
            }
        }
        found.filter(|grant| grant.until.is_none_or(|until| now < until))
    }
}

/// How often somebody was not let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeniedCounts {
    /// Without a token that is one.
    pub unauthenticated: u64,
    /// With one that is not for what was asked.
    pub forbidden: u64,
}

/// The guard of the HTTP door.
#[derive(Debug, Default)]
pub struct Access {
    tokens: Option<Watched<Tokens>>,
    /// One that is in no file: that of the supervisor.
    beside: Option<Grant>,
    unauthenticated: AtomicU64,
    forbidden: AtomicU64,
}

impl Access {
    /// Everybody may do everything.
    pub fn open() -> Access {
        Access::default()
    }

    /// Only who has a token of this file, or the one beside it.
    ///
    /// # Errors
    /// When the file cannot be used.
    pub fn of_file(path: PathBuf, beside: Option<Grant>) -> Result<Access, FileError> {
        let of = path.clone();
        let tokens = Watched::open(vec![path], move || Tokens::read(&of))?;
        Ok(Access { tokens: Some(tokens), beside, ..Access::default() })
    }

    /// Whether tokens are asked for.
    pub fn asks(&self) -> bool {
        self.tokens.is_some()
    }

    /// How often somebody was not let in.
    pub fn denied(&self) -> DeniedCounts {
        DeniedCounts {
            unauthenticated: self.unauthenticated.load(Ordering::Relaxed),
            forbidden: self.forbidden.load(Ordering::Relaxed),
        }
    }

    /// Looks at the file, and says whether it changed.
    ///
    /// # Errors
    /// When it changed and cannot be used. The tokens that were there stay valid.
    pub fn refresh(&self) -> Result<bool, FileError> {
        self.tokens.as_ref().map_or(Ok(false), Watched::refresh)
    }

    /// Whether whoever has this token may do what needs this scope: the token's name; none where none is asked for.
    ///
    /// # Errors
    /// Why not.
    pub fn admit(
        &self,
        token: Option<&[u8]>,
        needed: Option<Scope>,
        now: DateTime<Utc>,
    ) -> Result<Option<Arc<str>>, Denied> {
        let Some(tokens) = &self.tokens else { return Ok(None) };
        let tokens = tokens.current();
        let beside = |token: &[u8]| self.beside.as_ref().filter(|it| it.sha256.ct_eq(&hash(token)).into());
        let grant = token.and_then(|token| beside(token).or_else(|| tokens.of(token, now)));
        match (needed, token, grant) {
            // What everybody may ask is answered more fully to those who show who they are.
            (None, _, grant) => Ok(grant.map(|grant| Arc::clone(&grant.name))),
            (Some(scope), _, Some(grant)) if grant.allows(scope) => Ok(Some(Arc::clone(&grant.name))),
            (Some(scope), _, Some(_)) => {
                self.forbidden.fetch_add(1, Ordering::Relaxed);
                Err(Denied::Lacks(scope))
            }
            (Some(_), token, None) => {
                self.unauthenticated.fetch_add(1, Ordering::Relaxed);
                Err(if token.is_some() { Denied::Unknown } else { Denied::NoToken })
            }
        }
    }
}

/// Reads the tokens again whenever their file changes, until it is dropped.
pub async fn look_after(access: Arc<Access>) {
    let mut ticks = tokio::time::interval(gannet_proto::tls::REFRESH);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        match access.refresh() {
            Ok(true) => tracing::info!("tokens were read again"),
            Ok(false) => {}
            Err(error) => tracing::error!(%error, "new tokens cannot be used; the old ones stay"),
        }
    }
}

#[cfg(test)]
mod tests;
