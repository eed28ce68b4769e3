use proptest::prelude::*;

use super::*;

/// What fits at `|`, and what was typed of it.
fn at(marked: &str) -> (String, Fits) {
    let place = marked.find('|').expect("the place is marked");
    let text = marked.replacen('|', "", 1);
    let context = context(&text, place);
    assert_eq!(&text[context.start..place], context.typed.replace('\'', "''"), "{marked}");
    (context.typed, context.fits)
}

fn check(marked: &str, typed: &str, fits: Fits) {
    assert_eq!(at(marked), (typed.to_owned(), fits), "{marked}");
}

fn column(tables: &[&str]) -> Fits {
    Fits::Column { tables: tables.iter().map(|table| (*table).to_owned()).collect(), only: None }
}

fn column_of(tables: &[&str], only: &str) -> Fits {
    match column(tables) {
        Fits::Column { tables, .. } => Fits::Column { tables, only: Some(only.to_owned()) },
        other => other,
    }
}

fn value(tables: &[&str], column: &str, is_closed: bool) -> Fits {
    let tables = tables.iter().map(|table| (*table).to_owned()).collect();
    Fits::Value { tables, column: column.to_owned(), is_closed }
}

#[test]
fn tables_stand_after_from() {
    check("select * from |", "", Fits::Table);
    check("select * from req|", "req", Fits::Table);
    check("select * from a, b|", "b", Fits::Table);
    check("select * from a join |", "", Fits::Table);
    check("select x, (select 1 from | )", "", Fits::Table);
    check("describe re|", "re", Fits::Table);
    check("select 1; select * from r|", "r", Fits::Table);
    check("select x from a where b in (1, |", "", column(&["a"]));
    check("select extract(hour from |) from t", "", column(&["t"]));
    check("select * from t order by a, |", "", column(&["t"]));
}

#[test]
fn columns_are_those_of_the_tables_of_the_statement() {
    check("select du| from requests", "du", column(&["requests"]));
    check("select | from a; select x from b", "", column(&["a"]));
    check("select a from t where |", "", column(&["t"]));
    check("select | ", "", column(&[]));
    check("select r.d| from requests r", "d", column_of(&["requests"], "requests"));
    check("select r.d| from requests as r join b using (x)", "d", column_of(&["requests", "b"], "requests"));
    check("select user.i| from requests", "user.i", column(&["requests"]));
    check("select x from \"a \"\"t\" where |", "", column(&["a \"t"]));
    check("with c as (select a from t) select | from c", "", column(&["t", "c"]));
    check("select a as |", "", Fits::Nothing);
    check("select a, -- du|\n b from t", "", Fits::Nothing);
    check("select 12|", "", Fits::Nothing);
    check("sel|", "sel", Fits::Beginning);
    check("|", "", Fits::Beginning);
    check("select 1; |", "", Fits::Beginning);
}

#[test]
fn values_stand_inside_strings() {
    check("select * from t where service = '|", "", value(&["t"], "service", false));
    check("select * from t where service='ca|'", "ca", value(&["t"], "service", true));
    check("select * from t where \"a b\" != 'x|", "x", value(&["t"], "a b", false));
    check("select * from t where r <> 'it''s|", "it's", value(&["t"], "r", false));
    check("select * from t where a not like 'x|", "x", value(&["t"], "a", false));
    check("select * from t where region in ('eu', '|", "", value(&["t"], "region", false));
    check("select * from t where region not in ('|')", "", value(&["t"], "region", true));
    check("select * from t x where x.a = 'b|", "b", value(&["t"], "a", false));
    check("select * from t where contains_any(tags, 'a', 'b|", "b", value(&["t"], "tags", false));
    check("select 'a|", "a", Fits::Nothing);
    check("select interval '1 h|", "1 h", Fits::Nothing);
    check("select 'a'|", "", Fits::Nothing);
    assert_eq!(context("select $$a", 10).fits, Fits::Nothing);
}

#[test]
fn meta_commands_have_names_and_arguments() {
    check("\\fo|", "\\fo", Fits::MetaName);
    check(".ta|", ".ta", Fits::MetaName);
    check("\\d re|", "re", Fits::Table);
    check(".describe |", "", Fits::Table);
    check("\\f er|", "er", Fits::Kept);
    check("\\format c|", "c", Fits::Format);
    check("\\tail t where du|", "du", column(&["t"]));
    check("\\timing |", "", Fits::Nothing);
    check("select a\n\\e|", "\\e", Fits::MetaName);
}

struct Few;

impl Known for Few {
    fn tables(&self) -> Vec<String> {
        ["requests", "Deploys", "a b", "order"].map(str::to_owned).to_vec()
    }

    fn columns(&self, table: &str) -> Vec<(String, String)> {
        match table {
            "requests" => {
                vec![("duration_ms".to_owned(), "float".to_owned()), ("user.id".into(), "int".into())]
            }
            _ => vec![],
        }
    }

    fn values(&self, _: &str, column: &str) -> Vec<String> {
        if column == "service" { vec!["cart".to_owned(), "it's\n".to_owned()] } else { vec![] }
    }

    fn kept(&self) -> Vec<String> {
        vec!["errors".to_owned()]
    }

    fn formats(&self) -> Vec<String> {
        vec!["csv".to_owned()]
    }
}

fn offers(marked: &str) -> Vec<(String, String)> {
    let place = marked.find('|').expect("the place is marked");
    let context = context(&marked.replacen('|', "", 1), place);
    candidates(&context, &Few).into_iter().map(|candidate| (candidate.shown, candidate.text)).collect()
}

fn check_offers(marked: &str, expect: &[(&str, &str)]) {
    let found = offers(marked);
    let found: Vec<(&str, &str)> =
        found.iter().map(|(shown, text)| (shown.as_str(), text.as_str())).collect();
    assert_eq!(found, expect, "{marked}");
}

#[test]
fn what_fits_is_offered() {
    check_offers(
        "select * from |",
        &[("requests", "requests"), ("Deploys", "Deploys"), ("a b", "\"a b\""), ("order", "\"order\"")],
    );
    check_offers("select * from dep|", &[("Deploys", "Deploys")]);
    check_offers("select * from ploy|", &[("Deploys", "Deploys")]);
    check_offers("select dur| from requests", &[("duration_ms float", "duration_ms")]);
    check_offers("select p99| from requests", &[("p99(x) → float", "p99("), ("p999(x) → float", "p999(")]);
    check_offers("select a from requests GROU|", &[("GROUP BY", "GROUP BY")]);
    check_offers("select * from requests where service = '|", &[("cart", "cart'"), ("it's ", "it''s\n'")]);
    check_offers("select * from requests where service = 'c|'", &[("cart", "cart")]);
    check_offers("\\fd e|", &[("errors", "errors")]);
    check_offers("\\onc|", &[("\\once FILE", "\\once")]);
    check_offers(".quit|", &[]);
    check_offers("sh|", &[("show tables", "show tables")]);
    check_offers("SH|", &[("SHOW TABLES", "SHOW TABLES")]);
    check_offers("select r.d| from requests r", &[("duration_ms float", "duration_ms")]);
}

proptest! {
    /// Wherever the place is, what was typed lies before it.
    #[test]
    fn no_place_is_refused(text in "[a-c,.'\"\\\\; (=ü\n]{0,30}|(select|from|a|b|,|'|=|in| |\\(|\\.){0,12}", at in 0_usize..40) {
        let context = context(&text, at);
        prop_assert!(context.start <= text.len() && text.is_char_boundary(context.start));
        candidates(&context, &Few);
    }
}
