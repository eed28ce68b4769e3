//! `gannet shell` as a person sees it: whole screens, with a leaf down and with Ctrl-C among them.

use std::os::unix::fs::PermissionsExt;

use gannet_tests::process::{Parts, gannet};
use gannet_tests::terminal::Terminal;

const EVENTS: &str = r#"{"time":"2026-03-01T00:00:00Z","service":"cart","status":200,"ms":12.5}
{"time":"2026-03-01T00:00:01Z","service":"checkout","status":500,"ms":3}
{"time":"2026-03-01T00:00:02Z","service":"cart","status":200}
"#;

/// Two leaves with three events, and a folder to be at home in.
async fn started() -> (Parts, tempfile::TempDir) {
    let parts = Parts::start(2).await;
    parts.client().ingest("requests", EVENTS).await;
    (parts, tempfile::tempdir().unwrap())
}

fn shell(parts: &Parts, home: &tempfile::TempDir, rows: u16, columns: u16) -> Terminal {
    let args = ["shell", "--server", parts.client().base(), "--color", "never"];
    Terminal::start(rows, columns, "xterm-256color", home.path(), &args)
}

/// A screen without what differs from run to run: durations.
fn steady(screen: &str) -> String {
    let mut text = String::new();
    for line in screen.lines() {
        let parts: Vec<String> = line
            .split(" · ")
            .map(|part| {
                let is_duration = [" ms", " s"]
                    .iter()
                    .any(|unit| part.strip_suffix(unit).is_some_and(|number| number.parse::<f64>().is_ok()));
                if is_duration { "TIME".to_owned() } else { part.to_owned() }
            })
            .collect();
        text.push_str(&parts.join(" · "));
        text.push('\n');
    }
    text
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session() {
    let (parts, home) = started().await;
    let mut shell = shell(&parts, &home, 30, 80);
    let first = shell.wait_for_last("gannet>").await;
    assert!(first.contains("2 of 2 leaves serving, 3 rows\n\\? lists commands, \\q leaves"), "{first}");

    let screen = shell.enter(
        "select service, count(*) as n, avg(ms) from requests group by 1 order by 2 desc;",
        "requests>",
    );
    assert_eq!(
        steady(&screen.await),
        "gannet> select service, count(*) as n, avg(ms) from requests group by 1 order by 2 desc;\n \
         service  │ n │ avg(ms)\n\
         ──────────┼───┼─────────\n \
         cart     │ 2 │    12.5\n \
         checkout │ 1 │       3\n\
         2 rows · TIME · 3 rows scanned · completeness 100%\n"
    );

    // Statements of more than one line are one.
    shell.press("\u{c}select status\rfrom requests\rwhere ms is null;\r");
    let is_answered =
        |screen: &str| screen.contains("is null;") && screen.ends_with("completeness 100%\nrequests>");
    let screen = shell.wait_until("the answer", is_answered).await;
    assert_eq!(
        steady(&screen),
        "requests> select status\nfrom requests\nwhere ms is null;\n status\n────────\n    200\n\
         1 row · TIME · 3 rows scanned · completeness 100%\nrequests>\n"
    );

    // Errors point at their place, and say what to do.
    let screen = shell.enter("select servise from requests;", "requests>").await;
    assert_eq!(
        screen,
        "requests> select servise from requests;\n\
         error: column `servise` not found\n\
         There are `time`, `ms`, `service`, `status`.\n\
         line 1: select servise from requests\n               ^\n\
         hint: Did you mean `service`?"
    );
    let screen = shell.enter("\\fromat csv", "requests>").await;
    assert_eq!(
        screen,
        "requests> \\fromat csv\nerror: there is no command `\\fromat`\n\
         hint: Did you mean \\format? \\? lists the commands."
    );

    // Fields below each other, once.
    let screen = shell.enter("select * from requests order by time limit 1\\G", "requests>").await;
    assert_eq!(
        steady(&screen),
        "requests> select * from requests order by time limit 1\\G\n─── row 1\n \
         time    │ 2026-03-01T00:00:00Z\n ms      │ 12.5\n service │ cart\n status  │ 200\n\
         1 row · TIME · 3 rows scanned · completeness 100%\n"
    );

    // Drawings stand above the numbers they are of.
    shell.enter("\\chart bar", "requests>").await;
    let screen =
        shell.enter("select service, count(*) as n from requests group by 1 order by 2 desc;", "requests>");
    let screen = screen.await;
    assert!(screen.contains("\n checkout 1 ███") && screen.contains("\n checkout │ 1\n"), "{screen}");
    shell.enter("\\chart off", "requests>").await;

    let screen = shell.enter("\\d requests", "requests>").await;
    assert!(
        screen.contains(" service │ string │    0% │") && screen.contains("cart 66%, checkout 33%"),
        "{screen}"
    );
    let screen = shell.enter(".tables", "requests>").await;
    assert!(screen.contains(" requests │    3 │"), "{screen}");
    let screen = shell.enter("\\l", "requests>").await;
    assert!(screen.contains(" leaf-1 │ serving │"), "{screen}");

    shell.press("\\q\r");
    assert_eq!(shell.ended().await.code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn completion_history_and_kept_statements() {
    let (parts, home) = started().await;
    let mut shell = shell(&parts, &home, 24, 100);
    shell.wait_for_last("gannet>").await;

    shell.press("select serv");
    // Columns are those of the tables of the statement, so there is none yet.
    shell.press(" from requ\t");
    shell.wait_for_last("gannet> select serv from requests").await;
    shell.press(" where servi\t");
    shell.wait_for_last("gannet> select serv from requests where service").await;
    shell.press(" = 'c\t");
    shell
        .wait_until("two values", |screen| {
            screen.contains("\ncart") && screen.contains("checkout\n") && screen.ends_with("service = 'c")
        })
        .await;
    shell.press("a\t;");
    shell.wait_until("the value", |screen| screen.ends_with("where service = 'cart';")).await;
    // Ctrl-A, six words on, and the name is completed in the middle of the line.
    shell.press("\u{1}\u{1b}f\u{1b}f\t");
    shell
        .wait_until("the column", |screen| {
            screen.ends_with("select service from requests where service = 'cart';")
        })
        .await;
    shell.press("\r");
    shell.wait_for_last("requests>").await;

    let said = shell.enter("\\s carts", "requests>").await;
    assert!(said.ends_with("kept as carts; \\f carts runs it"), "{said}");
    let said = shell.enter("select count(*) as n from requests where status = $1;", "requests>").await;
    assert!(said.contains("error: "), "{said}");
    shell.enter("\\s by-status", "requests>").await;
    let said = shell.enter("\\f by-status 500", "requests>").await;
    assert!(
        said.contains("select count(*) as n from requests where status = 500;") && said.contains(" 1\n"),
        "{said}"
    );
    shell.enter(" select 'secret' as x;", "requests>").await;

    // Ctrl-D leaves, and the next session knows what was typed.
    shell.press("\u{4}");
    assert_eq!(shell.ended().await.code(), Some(0));
    let history = home.path().join(".local/state/gannet/history");
    let text = std::fs::read_to_string(&history).unwrap();
    assert!(text.contains("by-status 500") && !text.contains("secret"), "{text}");
    assert_eq!(std::fs::metadata(&history).unwrap().permissions().mode() & 0o777, 0o600);
    let kept = std::fs::read_to_string(home.path().join(".config/gannet/queries.sql")).unwrap();
    assert!(
        kept.starts_with("-- name: by-status\nselect count(*) as n from requests where status = $1;\n"),
        "{kept}"
    );
    let mut again = self::shell(&parts, &home, 24, 100);
    again.wait_for_last("gannet>").await;
    again.press("\u{1b}[A");
    again.wait_for_last("gannet> \\f by-status 500").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ctrl_r_finds_what_was_typed_by_parts_of_it() {
    let (parts, home) = started().await;
    let mut shell = shell(&parts, &home, 24, 70);
    shell.wait_for_last("gannet>").await;
    shell.enter("select count(*) as n from requests;", "requests>").await;
    shell.enter("select service, avg(ms) from requests group by service;", "requests>").await;
    shell.enter("select status from requests where ms > 10;", "requests>").await;

    let help = "Up and Down choose, Enter takes it, Esc leaves";
    shell.press("\u{c}sel\u{12}");
    let all = format!(
        "requests> sel\n 1 of 3 · {help}\n› select status from requests where ms > 10;\n  \
         select service, avg(ms) from requests group by service;\n  select count(*) as n from requests;"
    );
    shell.wait_until("all statements", |screen| screen == all).await;
    // Letters may be left out, and words stand in any order.
    shell.press("\u{15}rqst avg");
    let one = format!(
        "requests> rqst avg\n 1 of 1 · {help}\n› select service, avg(ms) from requests group by service;"
    );
    shell.wait_until("the statement", |screen| screen == one).await;
    shell.press("\u{15}zzz");
    let none = "requests> zzz\n nothing typed before holds this · Esc leaves";
    shell.wait_until("nothing", |screen| screen == none).await;
    // What was typed before is there again, also when a key follows at once.
    shell.press("\u{7}ect 1 as one;");
    shell.wait_until("the line", |screen| screen == "requests> select 1 as one;").await;
    shell.press("\u{12}");
    shell.wait_until("the search", |screen| screen.contains("Esc leaves")).await;
    shell.press("\u{1b}");
    shell.wait_until("the line", |screen| screen == "requests> select 1 as one;").await;
    // The second is taken, can be changed, and is run like any other.
    shell.press("\u{15}\u{12}select\u{1b}[B\r");
    let taken = "requests> select service, avg(ms) from requests group by service;";
    shell.wait_until("what was taken", |screen| screen == taken).await;
    shell.press("\u{7f} order by 1;\r");
    let screen =
        shell.wait_until("the answer", |screen| screen.ends_with("completeness 100%\nrequests>")).await;
    assert!(screen.contains(" cart     │"), "{screen}");
    shell.press("\u{12}\u{4}\u{4}");
    assert_eq!(shell.ended().await.code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leaf_that_is_down_and_ctrl_c() {
    let (mut parts, home) = started().await;
    // Rows on both leaves.
    for number in 0..40 {
        parts.client().ingest("t", &format!("{{\"n\":{number}}}\n")).await;
    }
    let mut shell = shell(&parts, &home, 24, 100);
    shell.wait_for_last("gannet>").await;

    // Ctrl-C cancels a question that nobody answers, and the shell goes on.
    parts.aggregator().freeze();
    shell.press("select count(*) from t;\r");
    let is_progress = |line: &str| line.starts_with(' ') && (line.ends_with(" s") || line.ends_with(" ms"));
    shell.wait_until("progress", |screen| screen.lines().last().is_some_and(is_progress)).await;
    shell.press("\u{3}");
    let screen = shell.wait_until("the prompt", |screen| screen.ends_with("cancelled\ngannet>")).await;
    assert!(!screen.contains("error"), "{screen}");
    parts.aggregator().thaw();

    parts.take_leaf(0).stop().await;
    parts.wait_for_leaf(0, "the leaf to be down", |leaf| leaf["state"] == "down").await;
    let rows = parts.client().count("t").await;
    shell.press("\u{c}");
    shell.press("select count(*) as n from t;\r");
    let screen =
        shell.wait_until("the answer", |screen| screen.contains("\\min") && screen.ends_with("t>")).await;
    assert!(screen.contains(&format!("\n {rows}\n")), "{screen}");
    assert!(
        !screen.contains("100%") && screen.contains("warning: completeness") && screen.contains("leaf-0"),
        "{screen}"
    );

    // Twice leaves.
    assert_eq!(shell.press_until_ended("\u{3}").await.code(), Some(130));
}

#[tokio::test(flavor = "multi_thread")]
async fn small_and_plain_terminals() {
    let (parts, home) = started().await;
    let mut narrow = shell(&parts, &home, 12, 40);
    narrow.wait_until("the prompt", |screen| screen.ends_with("gannet>")).await;
    narrow.press(
        "\u{c}select service, status, 'abcdefghijklmnopqrstuvwxyz' as long from requests order by time;\r",
    );
    let screen = narrow.wait_until("the answer", |screen| screen.ends_with("requests>")).await;
    assert!(screen.contains(" cart     │    200 │ abcdefghijk"), "{screen}");
    // What is taller than the screen is paged, and `q` ends the pager.
    narrow.press("\u{c}\\?\r");
    narrow.wait_until("the pager", |screen| screen.ends_with(':')).await;
    narrow.press("q");
    narrow.wait_until("the prompt", |screen| screen.ends_with("requests>")).await;
    narrow.press("\\q\r");
    assert_eq!(narrow.ended().await.code(), Some(0));

    let args = ["shell", "--server", parts.client().base()];
    let mut dumb = Terminal::start(24, 80, "dumb", home.path(), &args);
    dumb.wait_for_last("gannet>").await;
    dumb.press("select count(*) as n\n");
    dumb.wait_for_last("    ->").await;
    dumb.press("from requests;\n");
    let screen = dumb.wait_for_last("requests>").await;
    assert!(screen.contains("    -> from requests;\n n\n───\n 3\n1 row"), "{screen}");
    dumb.press("\u{4}");
    assert_eq!(dumb.ended().await.code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn statements_from_a_pipe() {
    let (parts, home) = started().await;
    let server = parts.client().base().to_owned();
    let run = async |input: &str| gannet(&["shell", "--server", &server], input).await;
    let said = run(
        "\\format csv\nselect service, ms\nfrom requests order by time; select 1 as one;\nselect 2 as two",
    )
    .await;
    assert_eq!((said.code, said.err.as_str()), (0, ""), "{said:?}");
    assert_eq!(said.out, "service,ms\ncart,12.5\ncheckout,3.0\ncart,\none\n1\ntwo\n2\n");
    let said =
        run("select max(status) as m from requests;\nselect nosuch from requests;\nselect 1 as one;\n").await;
    assert_eq!((said.code, said.out.as_str()), (1, "{\"m\":500}\n"), "{said:?}");
    assert!(said.err.contains("nosuch") && said.err.contains('^'), "{said:?}");
    let file = home.path().join("out.csv").display().to_string();
    let said = run(&format!("\\o {file}\nselect 1 as a;\nselect 2 as a;\n\\o\n\\i /nonexistent\n")).await;
    assert_eq!(said.code, 1, "{said:?}");
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "a\n1\na\n2\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn functions_that_are_listed_are_there() {
    let (parts, _home) = started().await;
    let event = r#"{"x":1.5,"y":2,"text":"a/b","tags":["a","b"]}"#;
    parts.client().ingest("t", &format!("{event}\n{event}\n")).await;
    let server = parts.client().base().to_owned();
    let said = gannet(&["shell", "--server", &server], "\\df\n").await;
    let calls: Vec<String> = said
        .out
        .lines()
        .skip(2)
        .map(|line| {
            let cells: Vec<&str> = line.split('│').map(str::trim).collect();
            let over = if cells[2].contains("OVER") { " OVER (ORDER BY time)" } else { "" };
            format!("{}{over}", cells[0])
        })
        .collect();
    assert!(calls.len() > 50, "{said:?}");
    let mut refused = Vec::new();
    for call in calls {
        if let Err(refusal) = parts.client().query(&format!("SELECT {call} FROM t")).await {
            refused.push(format!("{call}: {}", refusal.all()));
        }
    }
    assert!(refused.is_empty(), "{}", refused.join("\n"));
}
