//! Links as people see them, and that every question comes back from its link.

use proptest::prelude::*;

use super::exploration::tests::explorations;
use super::*;

fn read(text: &str) -> Link {
    let found = Link::read(text).unwrap();
    assert!(found.notices.is_empty(), "{found:?}");
    found.link
}

fn exploration(link: Link) -> Exploration {
    match link {
        Link::Exploration(exploration) => *exploration,
        Link::Sql(sql) => panic!("{sql}"),
    }
}

#[test]
fn links_can_be_read_by_people() {
    let text =
        "/e/requests?v=1&from=-1h&show=count,p99(duration_ms)&f=status:ge:500&by=region&cmp=1w&view=series";
    let found = exploration(read(text));
    assert_eq!((found.table.as_str(), found.from), ("requests", Moment::Ago(3_600_000_000_000)));
    assert_eq!(found.show, ["count", "p99(duration_ms)"]);
    assert_eq!(found.all_conditions(), ["status >= 500"]);
    assert_eq!(
        (found.group_by.clone(), found.compare),
        (vec!["region".to_owned()], Some(604_800_000_000_000))
    );
    let link = Link::Exploration(Box::new(found));
    assert_eq!(link.url("http://box:7700/"), format!("http://box:7700{text}"));
    assert_eq!(read(&format!("https://u:p@box{text}#part")), link);
    // A table alone is what is seen without any flags.
    let alone = exploration(read("/e/a%20b"));
    assert_eq!(Link::Exploration(Box::new(alone)).path(), "/e/a%20b?v=1&from=-1h&show=count&view=series");
    let sql = Link::Sql("select 'ü' & 1".to_owned());
    assert_eq!(sql.path(), "/e?v=1&sql=select%20%27%C3%BC%27%20%26%201");
    assert_eq!(read("/e/?sql=select+%27%c3%bc%27+%26+1"), sql);
}

#[test]
fn what_is_not_known_is_left_out_and_said() {
    let check = |text: &str, expect: &[&str]| {
        let notices = Link::read(text).unwrap().notices;
        let expect: Vec<String> = expect
            .iter()
            .map(|key| format!("`{key}` of the link is not known here and is left out"))
            .collect();
        assert_eq!(notices, expect);
    };
    check("/e/t?v=1&fill=zero&show=count&token=x", &["fill", "token"]);
    check("/e?sql=select%201&from=-1h", &["from"]);
    let packed = URL_SAFE_NO_PAD.encode({
        let mut packer = DeflateEncoder::new(Vec::new(), Compression::fast());
        packer.write_all(br#"{"v":1,"table":"t","fill":"zero"}"#).unwrap();
        packer.finish().unwrap()
    });
    check(&format!("/e/t?q={packed}&show=count"), &["show", "fill"]);
}

#[test]
fn what_is_no_link_is_named() {
    let check = |text: &str, expect: &str| assert_eq!(Link::read(text), Err(expect.to_owned()), "{text}");
    let address = "it must be an address such as http://HOST/e/TABLE?v=1, or /e/TABLE?v=1";
    check("requests", address);
    check("ftp://box/e/t", address);
    check("http://box", address);
    check("/q/t", address);
    check("/e/t/u", address);
    check("/everything", address);
    check("/e?v=1", "it names neither a table nor a statement");
    check("/e/t?v=2", "it is of version 2, and this program reads version 1");
    check("/e/t?v=x", "it is of version \"x\", and this program reads version 1");
    check("/e/t?from=-1h&from=-2h", "`from` is there twice");
    check(
        "/e/t?from=later",
        "`later` must be a time such as 2026-11-21, 2026-11-21 09:30, 2026-11-21T09:30:00Z, -90m or now",
    );
    check("/e/t?every=x", "`x` must be a stretch of time such as 30s, 15m, 1h, 1d or 1w");
    check("/e/t?show=f(", "`f(` is no list of expressions: quotes and parentheses must close");
    check("/e/t?limit=0", "the limit is 0, must be from 1 to 10000");
    check("/e/t?view=pie", "the view is `pie`, must be one of series, table, distribution, samples");
    check("/e/t?derive=a", "derived column `a` must be NAME:EXPRESSION");
    check("/e/t?derive=a:1&derive=a:2", "the derived column `a` is there twice");
    check("/e/t?show=%f", "`%f`: two hexadecimal digits must follow a %");
    check("/e/t?q=a-b", "what it holds cannot be unpacked; it may have been cut");
    check(&"x".repeat(READ_BYTES_MAX + 1), "it is longer than 65536 bytes");
    let packed = |text: &[u8]| {
        let mut packer = DeflateEncoder::new(Vec::new(), Compression::best());
        packer.write_all(text).unwrap();
        format!("/e?q={}", URL_SAFE_NO_PAD.encode(packer.finish().unwrap()))
    };
    check(&packed(&vec![b' '; INFLATED_BYTES_MAX + 1]), "it holds more than 262144 bytes");
    check(&packed(b"{}"), "it names no table");
    check(&packed(br#"{"v":7}"#), "it is of version 7, and this program reads version 1");
    check(&packed(br#"{"table":"t","limit":-1}"#), "the limit is -1, must be from 1 to 10000");
    check(&packed(br#"{"table":7}"#), "`table` is 7, must be a text");
    check(
        &packed(b"[1]"),
        "what it holds is no query object: invalid type: sequence, expected a map at line 1 column 0",
    );
}

#[test]
fn long_questions_are_packed() {
    let mut long = Exploration::of_table("requests".to_owned());
    for number in 0..200 {
        long.add_condition(&format!("column_{number} >= {number}"));
    }
    let link = Link::Exploration(Box::new(long));
    let path = link.path();
    assert!(path.starts_with("/e/requests?v=1&q=") && path.len() < LENGTH_MAX, "{path}");
    assert_eq!(read(&path), link);
    let sql = Link::Sql(format!("select {}", "1, ".repeat(2_000)));
    assert!(sql.path().starts_with("/e?v=1&q=") && sql.path().len() < 200);
    assert_eq!(read(&sql.path()), sql);
}

proptest! {
    /// In the readable form and in the packed one.
    #[test]
    fn every_question_comes_back(exploration in explorations()) {
        let link = Link::Exploration(Box::new(exploration));
        prop_assert_eq!(&read(&link.path()), &link);
        prop_assert_eq!(&read(&format!("/e?q={}", link.packed())), &link);
    }

    #[test]
    fn every_statement_comes_back(sql in "\\PC{1,40}") {
        let link = Link::Sql(sql);
        prop_assert_eq!(&read(&link.path()), &link);
        prop_assert_eq!(&read(&format!("/e?q={}", link.packed())), &link);
    }

    #[test]
    fn any_text_is_read_or_refused(text in "(/e/[a-z%?&=:,\"'0-9+()-]{0,40}|\\PC{0,40}|/e\\?q=[A-Za-z0-9_-]{0,40})") {
        if let Ok(found) = Link::read(&text) {
            prop_assert_eq!(Link::read(&found.link.path()).map(|found| found.link), Ok(found.link));
        }
    }
}
