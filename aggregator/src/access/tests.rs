use std::os::unix::fs::PermissionsExt;

use super::*;

fn at(text: &str) -> DateTime<Utc> {
    time(text).unwrap()
}

fn write(path: &Path, text: &str) {
    // Another inode each time, so that a change is seen however coarse the clock is.
    let beside = path.with_extension("new");
    std::fs::write(&beside, text).unwrap();
    std::fs::set_permissions(&beside, std::fs::Permissions::from_mode(0o600)).unwrap();
    std::fs::rename(&beside, path).unwrap();
}

#[test]
fn what_a_request_needs_is_known() {
    let check = |method: &str, path: &str, expect: Option<Scope>| {
        assert_eq!(Scope::needed(method, path), expect, "{method} {path}");
    };
    for open in ["/", "/healthz", "/readyz"] {
        check("GET", open, None);
        check("HEAD", open, None);
        check("POST", open, Some(Scope::Admin));
    }
    check("POST", "/v1/events/t", Some(Scope::Ingest));
    check("POST", "/v1/query", Some(Scope::Query));
    for shown in ["/v1/tables", "/v1/tables/t", "/v1/status", "/metrics", "/v1/rollout", "/nothing"] {
        check("GET", shown, Some(Scope::Query));
    }
    check("DELETE", "/v1/tables/t", Some(Scope::Admin));
    check("POST", "/v1/leaves/a/accept-loss", Some(Scope::Admin));
    // What nobody thought of, and what looks like something else.
    for (method, path) in [
        ("POST", "/v1/rollout"),
        ("POST", "/v1/events"),
        ("PUT", "/v1/events/t"),
        ("POST", "//v1/query"),
        ("POST", "/v1/query/"),
        ("POST", "/V1/query"),
        ("POST", "/v1/%71uery"),
        ("OPTIONS", "/v1/query"),
        ("get", "/v1/status"),
    ] {
        check(method, path, Some(Scope::Admin));
    }
}

#[test]
fn a_new_token_is_long_and_only_its_hash_is_kept() {
    let until = at("2027-01-01T00:00:00Z");
    let scopes = [Scope::Query, Scope::Ingest, Scope::Query];
    let (token, grant) = new_token("ci-7", &scopes, Some(until)).unwrap();
    assert_eq!((token.len(), token.starts_with(PREFIX)), (PREFIX.len() + 64, true));
    let line = grant.to_string();
    assert!(line.starts_with("ci-7 ingest,query sha256:") && line.ends_with(" until=2027-01-01T00:00:00Z"));
    assert!(!line.contains(&token[PREFIX.len()..]));
    assert_eq!(line.parse::<Grant>().unwrap(), grant);
    assert_ne!(new_token("ci-7", &scopes, None).unwrap().0, token);
    assert_eq!(
        new_token("ci 7", &scopes, None).unwrap_err(),
        "name `ci 7` is not 1 to 64 letters, digits or ._-@:/"
    );
}

#[test]
fn lines_that_are_none_are_named_without_what_may_be_a_secret() {
    let check = |line: &str, expect: &str| assert_eq!(line.parse::<Grant>().unwrap_err(), expect, "{line}");
    let hash = "sha256:".to_owned() + &"a".repeat(64);
    let digest = "its third word is not sha256: and 64 hexadecimal digits";
    check("a", "it is not NAME SCOPES sha256:HEX");
    check("a query gannet_secret", digest);
    check(&format!("a query sha256:{}", "a".repeat(63)), digest);
    check(&format!("a query sha256:{}é", "a".repeat(62)), digest);
    check(&format!("a querry {hash}"), "scope `querry` is not ingest, query or admin");
    check(&format!("a query, {hash}"), "scope `` is not ingest, query or admin");
    check(&format!("a,b query {hash}"), "name `a,b` is not 1 to 64 letters, digits or ._-@:/");
    check(&format!("a query {hash} 2027"), "its fourth word is not until=TIME");
    check(&format!("a query {hash} until=soon"), "its fourth word is not until=TIME");
    check(&format!("a query {hash} until=2027-01-01T00:00:00Z x"), "it has more than four words");
    let empty = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    check(&format!("a query {empty}"), "its hash is that of an empty text");
}

#[test]
fn only_what_a_token_is_for_is_allowed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tokens");
    let end = at("2026-12-01T00:00:00Z");
    let (reader, reads) = new_token("reader", &[Scope::Query], Some(end)).unwrap();
    let (agent, posts) = new_token("agent", &[Scope::Ingest], None).unwrap();
    let short = "x".repeat(TOKEN_BYTES_MIN - 1);
    let weak = format!("weak query,admin sha256:{}", hex(&hash(short.as_bytes())));
    write(&path, &format!("# who may do what\n\n{reads}\n  {posts}\n{weak}\n"));
    let access = Access::of_file(path, None).unwrap();
    let check =
        |token: Option<&str>, needed: Option<Scope>, now: &str, expect: Result<Option<&str>, Denied>| {
            let found = access.admit(token.map(str::as_bytes), needed, at(now));
            assert_eq!(found.as_ref().map(Option::as_deref).map_err(|denied| *denied), expect, "{needed:?}");
        };
    let (before, after) = ("2026-11-30T23:59:59Z", "2026-12-01T00:00:00Z");
    let (query, ingest, admin) = (Some(Scope::Query), Some(Scope::Ingest), Some(Scope::Admin));
    check(Some(&reader), query, before, Ok(Some("reader")));
    check(Some(&reader), ingest, before, Err(Denied::Lacks(Scope::Ingest)));
    check(Some(&reader), admin, before, Err(Denied::Lacks(Scope::Admin)));
    check(Some(&reader), query, after, Err(Denied::Unknown));
    check(Some(&agent), ingest, after, Ok(Some("agent")));
    check(Some(&agent), query, after, Err(Denied::Lacks(Scope::Query)));
    check(None, query, before, Err(Denied::NoToken));
    check(None, None, before, Ok(None));
    check(Some(&agent), None, before, Ok(Some("agent")));
    for wrong in ["", "x", &short, &format!("{reader}0"), &reader[..reader.len() - 1], &"x".repeat(10_000)] {
        check(Some(wrong), query, before, Err(Denied::Unknown));
    }
    assert_eq!(access.denied(), DeniedCounts { unauthenticated: 8, forbidden: 3 });
    assert!(!format!("{access:?}").contains(&reader));
    let open = Access::open();
    assert_eq!(open.admit(None, admin, at(before)), Ok(None));
}

#[test]
fn one_token_follows_another_without_a_gap() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tokens");
    let now = at("2026-11-21T00:00:00Z");
    let (first, first_line) = new_token("ci", &[Scope::Ingest], None).unwrap();
    let (second, second_line) = new_token("ci", &[Scope::Ingest], None).unwrap();
    write(&path, &format!("{first_line}\n"));
    let access = Access::of_file(path.clone(), None).unwrap();
    let valid = |token: &str| access.admit(Some(token.as_bytes()), Some(Scope::Ingest), now).is_ok();
    assert_eq!((valid(&first), valid(&second)), (true, false));
    write(&path, &format!("{first_line}\n{second_line}\n"));
    assert!(access.refresh().unwrap());
    assert_eq!((valid(&first), valid(&second)), (true, true));
    write(&path, &format!("{second_line}\n"));
    assert!(access.refresh().unwrap());
    assert_eq!((valid(&first), valid(&second)), (false, true));
    // A mistake locks nobody out.
    write(&path, "ci ingest oops\n");
    let error = access.refresh().unwrap_err().to_string();
    let expect = "line 1: its third word is not sha256: and 64 hexadecimal digits";
    assert_eq!(error, format!("file {}: {expect}", path.display()));
    assert!(valid(&second));
}

#[test]
fn files_without_tokens_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tokens");
    for text in ["", "\n# nobody\n"] {
        write(&path, text);
        let error = Tokens::read(&path).unwrap_err().to_string();
        let what = "holds no token, so nobody could do anything; `gannet token new` makes one";
        assert_eq!(error, format!("file {}: {what}", path.display()));
    }
    let (_, line) = new_token("a", &[Scope::Admin], None).unwrap();
    write(&path, &line.to_string());
    assert!(Tokens::read(&path).is_ok());
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
    assert!(Tokens::read(&path).unwrap_err().to_string().contains("has mode 644"));
}

#[test]
fn the_supervisor_has_a_token_of_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tokens");
    write(&path, &new_token("a", &[Scope::Query], None).unwrap().1.to_string());
    let (token, grant) = new_token("up", &Scope::ALL, None).unwrap();
    let beside = Grant::of_everything("up", &grant.sha256()).unwrap();
    let access = Access::of_file(path, Some(beside)).unwrap();
    let now = at("2026-11-21T00:00:00Z");
    for scope in Scope::ALL {
        assert_eq!(access.admit(Some(token.as_bytes()), Some(scope), now), Ok(Some("up".into())));
    }
    assert!(Grant::of_everything("up", "x").is_err());
}
