//! Who is let in, and that nothing is read of those who are not.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::atomic::AtomicBool;

use chrono::{DateTime, Utc};

use super::*;
use crate::access::{Grant, Scope, new_token};

/// A door with a token for each scope, one for all, and one that has ended.
struct Guarded {
    door: Door,
    _leaves: Vec<Served>,
    tokens: Vec<(&'static str, String)>,
}

fn file_of(folder: &Path, grants: &[Grant]) -> std::path::PathBuf {
    let path = folder.join("tokens");
    let lines: String = grants.iter().map(|grant| format!("{grant}\n")).collect();
    std::fs::write(&path, lines).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    path
}

impl Guarded {
    async fn start() -> Guarded {
        let folder = tempfile::tempdir().unwrap();
        let leaf = Served::start(folder.path(), "a", 30).await;
        let long_ago = DateTime::<Utc>::from_timestamp(1_000_000_000, 0);
        let (mut tokens, mut grants) = (Vec::new(), Vec::new());
        for (name, scopes, until) in [
            ("ingest", &[Scope::Ingest][..], None),
            ("query", &[Scope::Query], None),
            ("admin", &[Scope::Admin], None),
            ("all", &Scope::ALL, None),
            ("ended", &Scope::ALL, long_ago),
        ] {
            let (token, grant) = new_token(name, scopes, until).unwrap();
            tokens.push((name, token));
            grants.push(grant);
        }
        let access = Access::of_file(file_of(folder.path(), &grants), None).unwrap();
        let guarding = Guarding { access: Arc::new(access), ..Guarding::default() };
        let router = guarded(over(folder.path(), &[&leaf]).await, guarding);
        Guarded { door: Door { router, _folder: folder }, _leaves: vec![leaf], tokens }
    }

    fn token<'a>(&'a self, name: &'a str) -> &'a str {
        self.tokens.iter().find(|(known, _)| *known == name).map_or(name, |(_, token)| token)
    }

    async fn ask(&self, method: &str, path: &str, token: Option<&str>, body: Body) -> Reply {
        let mut request = Request::builder().method(method).uri(path);
        if let Some(token) = token {
            request = request.header("authorization", format!("Bearer {}", self.token(token)));
        }
        self.door.send(request.body(body).unwrap()).await
    }
}

/// Every call, and the scope that it needs.
const CALLS: [(&str, &str, &str, &str); 12] = [
    ("POST", "/v1/events/t", "{\"a\":1}", "ingest"),
    ("POST", "/v1/query", "SELECT count(*) FROM t", "query"),
    ("GET", "/v1/tables", "", "query"),
    ("GET", "/v1/tables/t", "", "query"),
    ("GET", "/v1/status", "", "query"),
    ("GET", "/metrics", "", "query"),
    ("GET", "/v1/nothing", "", "query"),
    ("DELETE", "/v1/tables/t", "", "admin"),
    ("POST", "/v1/leaves/nobody/accept-loss", "", "admin"),
    ("POST", "/v1/nothing", "", "admin"),
    ("GET", "/healthz", "", ""),
    ("GET", "/", "", ""),
];

#[tokio::test]
async fn every_call_needs_its_scope() {
    let guarded = Guarded::start().await;
    for (method, path, body, needs) in CALLS {
        for token in
            [None, Some("unknown"), Some("ended"), Some("ingest"), Some("query"), Some("admin"), Some("all")]
        {
            let reply = guarded.ask(method, path, token, Body::from(body)).await;
            let what = format!("{method} {path} with {token:?}: {} {}", reply.status, reply.body);
            let expect = match token {
                _ if needs.is_empty() => None,
                None | Some("unknown" | "ended") => Some((StatusCode::UNAUTHORIZED, "unauthenticated")),
                Some("all") => None,
                Some(scope) if scope == needs => None,
                Some(_) => Some((StatusCode::FORBIDDEN, "forbidden")),
            };
            let Some((status, code)) = expect else {
                assert!(![401, 403].contains(&reply.status.as_u16()), "{what}");
                continue;
            };
            assert_eq!(
                (reply.status, reply.json()["error"]["code"].as_str()),
                (status, Some(code)),
                "{what}"
            );
            assert!(reply.json()["error"]["hint"].is_string(), "{what}");
            let scheme = reply.headers.get("www-authenticate").map(|it| it.to_str().unwrap());
            let asked = (status == StatusCode::UNAUTHORIZED).then_some("Bearer realm=\"gannet\"");
            assert_eq!(scheme, asked, "{what}");
            for (_, token) in &guarded.tokens {
                assert!(!reply.body.contains(&token[7..]), "{what}");
            }
        }
    }
}

#[tokio::test]
async fn nothing_is_read_of_those_who_are_not_let_in() {
    let guarded = Guarded::start().await;
    for (path, token) in [
        ("/v1/events/t", None),
        ("/v1/events/t", Some("query")),
        ("/v1/query", Some("unknown")),
        ("/v1/query", Some("ingest")),
    ] {
        let read = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&read);
        let body = futures::stream::poll_fn(move |_| {
            seen.store(true, Ordering::SeqCst);
            std::task::Poll::Ready(Some(Ok::<_, std::io::Error>(axum::body::Bytes::from_static(b"x"))))
        });
        let reply = guarded.ask("POST", path, token, Body::from_stream(body)).await;
        assert!([401, 403].contains(&reply.status.as_u16()), "{path} {token:?}");
        assert!(!read.load(Ordering::SeqCst), "{path} {token:?}");
    }
}

#[tokio::test]
async fn two_who_ask_the_same_door_see_nothing_of_each_other() {
    let folder = tempfile::tempdir().unwrap();
    let leaf = Served::start(folder.path(), "a", 30).await;
    let (one, one_grant) = new_token("one", &[Scope::Query], None).unwrap();
    let (two, two_grant) = new_token("two", &[Scope::Query], None).unwrap();
    let access = Access::of_file(file_of(folder.path(), &[one_grant, two_grant]), None).unwrap();
    let guarding = Guarding { access: Arc::new(access), ..Guarding::default() };
    let router = guarded(over(folder.path(), &[&leaf]).await, guarding);
    let guarded = Guarded {
        door: Door { router, _folder: folder },
        _leaves: vec![leaf],
        tokens: vec![("one", one), ("two", two)],
    };
    let ask = |who: &'static str, sql: String| guarded.ask("POST", "/v1/query", Some(who), Body::from(sql));
    // The same statement but for what is secret in it, and the same mistake: no kept plan or error is mixed up.
    for turn in 0..3 {
        for (who, other) in [("one", "two"), ("two", "one")] {
            let reply = ask(who, format!("SELECT 'secret of {who}' AS s, count(*) FROM t")).await;
            assert_eq!(reply.status, StatusCode::OK, "{turn} {}", reply.body);
            assert!(reply.body.contains(&format!("secret of {who}")), "{}", reply.body);
            let wrong = ask(who, format!("SELECT secret_of_{who} FROM t")).await;
            assert_eq!(wrong.status, StatusCode::BAD_REQUEST);
            for reply in [reply, wrong] {
                let found = reply.body.contains(&format!("of {other}"))
                    || reply.body.contains(&format!("of_{other}"));
                assert!(!found, "{}", reply.body);
            }
        }
    }
}

#[tokio::test]
async fn readiness_names_leaves_to_those_who_may_know() {
    let unheard = over_nobody().await;
    let bare = unheard.door.get("/readyz").await;
    assert_eq!(
        (bare.status, bare.body.as_str()),
        (StatusCode::SERVICE_UNAVAILABLE, "not all rows are served\n")
    );
    let known = unheard.ask("GET", "/readyz", Some("all"), Body::empty()).await;
    assert!(
        known.status == StatusCode::SERVICE_UNAVAILABLE && known.body.contains("nobody.sock"),
        "{}",
        known.body
    );
}

/// A guarded door over a child that is not there.
async fn over_nobody() -> Guarded {
    let folder = tempfile::tempdir().unwrap();
    let (token, grant) = new_token("all", &Scope::ALL, None).unwrap();
    let access = Access::of_file(file_of(folder.path(), &[grant]), None).unwrap();
    let guarding = Guarding { access: Arc::new(access), ..Guarding::default() };
    let mut settings = config(folder.path(), &[]);
    settings.children = vec![format!("unix:{}", folder.path().join("nobody.sock").display())];
    let aggregator = Aggregator::start(settings).await.unwrap();
    let router = guarded(aggregator, guarding);
    Guarded { door: Door { router, _folder: folder }, _leaves: Vec::new(), tokens: vec![("all", token)] }
}

#[tokio::test]
async fn status_and_metrics_say_what_is_open() {
    let folder = tempfile::tempdir().unwrap();
    let leaf = Served::start(folder.path(), "a", 3).await;
    let open = "HTTP on 0.0.0.0:7700 is open to other machines without TLS and tokens";
    let guarding = Guarding { insecure: vec![open.to_owned()], ..Guarding::default() };
    let router = guarded(over(folder.path(), &[&leaf]).await, guarding);
    let door = Door { router, _folder: folder };
    assert_eq!(door.get("/v1/status").await.json()["insecure"], json!([open]));
    let metrics = door.get("/metrics").await.body;
    assert!(metrics.contains("\ngannet_insecure 1\n"), "{metrics}");
    assert!(metrics.contains("\ngannet_requests_denied_total{why=\"unauthenticated\"} 0\n"), "{metrics}");
}
