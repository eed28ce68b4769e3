//! Between machines: certificates and tokens as the commands make them, and what those without them get.

use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::Stdio;

use gannet_tests::process::{Process, Said, gannet};
use gannet_tests::segments;
use gannet_tests::wait::until;
use tempfile::TempDir;

const SECONDS_MAX: u64 = 120;

/// A leaf and an aggregator that know each other by certificates, and an HTTP door with TLS and tokens.
struct Secured {
    folder: TempDir,
    leaf: Option<Process>,
    aggregator: Option<Process>,
    child: String,
    server: String,
}

async fn done(args: &[&str]) -> String {
    let said = gannet(args, "").await;
    assert_eq!(said.code, 0, "{args:?}: {said:?}");
    said.out
}

fn texts(args: &[&str]) -> Vec<String> {
    args.iter().map(|arg| (*arg).to_owned()).collect()
}

impl Secured {
    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }

    async fn start() -> Secured {
        let folder = TempDir::with_prefix("gannet-").unwrap();
        let mut secured =
            Secured { folder, leaf: None, aggregator: None, child: String::new(), server: String::new() };
        for out in ["certs", "others"] {
            // Where the leaf is says nothing of its certificate: all have one name in common.
            let names = "127.0.0.1,leaf+cluster.internal,aggregator+cluster.internal";
            done(&["cluster", "certificates", "--out", &secured.path(out), "--names", names]).await;
        }
        for scopes in ["ingest", "query"] {
            let file = secured.path("tokens");
            let out = secured.path(scopes);
            let args =
                ["token", "new", "--scope", scopes, "--name", scopes, "--tokens-file", &file, "--out", &out];
            assert_eq!(done(&args).await, "");
        }
        // Everywhere, which is beyond this machine.
        let leaf = secured.leaf_with("leaf", "0.0.0.0:0", "certs");
        let port = port_of(&leaf).await;
        secured.leaf = Some(leaf);
        secured.child = format!("127.0.0.1:{port}");
        let (aggregator, server) = secured.aggregator_with("aggregator", "certs");
        (secured.aggregator, secured.server) = (Some(aggregator), server);
        until(SECONDS_MAX, "the leaf to serve", || async {
            let said = secured.ask(&["status"], Some("query"), true).await;
            said.out.contains("serving").then_some(())
        })
        .await;
        secured
    }

    fn leaf_with(&self, id: &str, listen: &str, certificates: &str) -> Process {
        let at = |file: &str| self.path(&format!("{certificates}/{file}"));
        let (ca, cert, key) = (at("ca.pem"), at("leaf.pem"), at("leaf.key"));
        let tls = ["--tls-ca", &ca, "--tls-cert", &cert, "--tls-key", &key];
        let args = texts(&[&["leaf", "--id", id, "--data-dir", id, "--listen", listen][..], &tls].concat());
        self.process(&args, id, Stdio::null())
    }

    fn aggregator_with(&self, id: &str, certificates: &str) -> (Process, String) {
        let listener = TcpListener::bind("0.0.0.0:0").unwrap();
        let server = format!("https://127.0.0.1:{}", listener.local_addr().unwrap().port());
        let at = |file: &str| self.path(&format!("{certificates}/{file}"));
        let (ca, cert, key) = (at("ca.pem"), at("aggregator.pem"), at("aggregator.key"));
        let (http_cert, http_key) = (self.path("certs/127.0.0.1.pem"), self.path("certs/127.0.0.1.key"));
        let tokens = self.path("tokens");
        let args = texts(&[
            "aggregator",
            "--data-dir",
            id,
            "--http-on-stdin",
            "--child",
            &self.child,
            "--tls-ca",
            &ca,
            "--tls-cert",
            &cert,
            "--tls-key",
            &key,
            "--tls-name",
            "cluster.internal",
            "--http-cert",
            &http_cert,
            "--http-key",
            &http_key,
            "--tokens-file",
            &tokens,
        ]);
        (self.process(&args, id, Stdio::from(OwnedFd::from(listener))), server)
    }

    fn process(&self, args: &[String], id: &str, stdin: Stdio) -> Process {
        Process::start(args, self.folder.path(), &self.folder.path().join(format!("{id}.log")), stdin)
    }

    async fn ask(&self, args: &[&str], token: Option<&str>, believes: bool) -> Said {
        self.ask_at(&self.server, args, token, believes).await
    }

    async fn ask_at(&self, server: &str, args: &[&str], token: Option<&str>, believes: bool) -> Said {
        let (token, ca) = (token.map(|token| self.path(token)), self.path("certs/ca.pem"));
        let mut all = [args, &["--server", server]].concat();
        all.extend(token.iter().flat_map(|token| ["--token-file", token]));
        if believes {
            all.extend(["--ca-file", &ca]);
        }
        gannet(&all, "{\"a\":1}\n{\"a\":2}\n").await
    }
}

impl Drop for Secured {
    fn drop(&mut self) {
        (self.aggregator, self.leaf) = (None, None);
        for id in ["leaf", "open"] {
            segments::remove(Path::new(&self.path(id)));
        }
    }
}

/// The port that a leaf says it listens on.
async fn port_of(leaf: &Process) -> String {
    until(SECONDS_MAX, "the leaf to listen", || async {
        let said = leaf.said();
        let digits = |rest: &str| rest.chars().take_while(char::is_ascii_digit).collect::<String>();
        said.split_once("listening address=0.0.0.0:")
            .map(|(_, rest)| digits(rest))
            .filter(|port| port.len() >= 4)
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn those_with_certificates_and_tokens_are_let_in() {
    let secured = Secured::start().await;
    let said = secured.ask(&["ingest", "t", "-"], Some("ingest"), true).await;
    assert_eq!(said.code, 0, "{said:?}");
    let count = ["query", "SELECT count(*) AS n FROM t", "--format", "csv"];
    let said = secured.ask(&count, Some("query"), true).await;
    assert_eq!((said.code, said.out.as_str()), (0, "n\n2\n"), "{said:?}");
    assert_eq!(said.err, "", "nothing to warn of");

    // Everybody else gets exit code 4 and what to do, and never a token.
    let secret = std::fs::read_to_string(secured.path("ingest")).unwrap();
    let check = async |server: &str, token: Option<&str>, believes: bool, expect: &str| {
        let said = secured.ask_at(server, &count, token, believes).await;
        assert_eq!((said.code, said.out.as_str()), (4, ""), "{said:?}");
        assert!(said.err.contains(expect), "{said:?}");
        assert!(!said.err.contains(secret.trim()), "{said:?}");
    };
    let server = secured.server.clone();
    check(&server, None, true, "error: no token came with the request\nhint: Send `Authorization: Bearer")
        .await;
    check(&server, Some("ingest"), true, "error: the token does not have the scope `query`\n").await;
    check(&server, Some("query"), false, "cannot be trusted: invalid peer certificate: UnknownIssuer").await;
    let plain = server.replace("https", "http");
    check(&plain, Some("query"), true, "hint: if it speaks TLS, its address begins with https://\n").await;
    std::fs::write(secured.path("wrong"), "gannet_0123456789abcdef0123456789abcdef").unwrap();
    check(&server, Some("wrong"), true, "error: the token is not one of this server, or no longer\n").await;
    for id in ["leaf", "aggregator"] {
        let log = std::fs::read_to_string(secured.path(&format!("{id}.log"))).unwrap();
        assert!(!log.contains(&secret.trim()[7..]), "{log}");
    }

    // A token that is taken out of the file is soon none any more.
    let tokens = std::fs::read_to_string(secured.path("tokens")).unwrap();
    let without: String =
        tokens.lines().filter(|line| !line.starts_with("ingest ")).map(|line| format!("{line}\n")).collect();
    std::fs::write(secured.path("tokens"), without).unwrap();
    until(SECONDS_MAX, "the token to be none", || async {
        let said = secured.ask(&["ingest", "t", "-"], Some("ingest"), true).await;
        (said.code == 4).then_some(())
    })
    .await;

    // An aggregator of somebody else reaches no leaf.
    let (rogue, server) = secured.aggregator_with("rogue", "others");
    let status = until(SECONDS_MAX, "the rogue to serve", || async {
        let said = secured.ask_at(&server, &["status"], Some("query"), true).await;
        (said.code == 0).then_some(said.out)
    })
    .await;
    assert!(status.contains("not ready · 0 of 1 leaves serving"), "{status}");
    rogue.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn all_of_it_on_one_machine_for_others() {
    let folder = TempDir::with_prefix("gannet-").unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    done(&["cluster", "certificates", "--out", &path("certs"), "--names", "127.0.0.1"]).await;
    let (tokens, token) = (path("tokens"), path("token"));
    done(&["token", "new", "--scope", "ingest,query", "--tokens-file", &tokens, "--out", &token]).await;
    // Files are named from where the command is typed.
    let (cert, key) = ("certs/127.0.0.1.pem", "certs/127.0.0.1.key");
    let guard = ["--http-cert", cert, "--http-key", key, "--tokens-file", "tokens"];
    let up = ["up", "--leaves", "1", "--data-dir", "data", "--memory-limit", "1GiB", "--http", "0.0.0.0:0"];
    let log = folder.path().join("up.log");
    let up = Process::start(&texts(&[&up[..], &guard].concat()), folder.path(), &log, Stdio::null());
    let server = until(SECONDS_MAX, "`gannet up` to be ready", || async {
        let said = up.said();
        let (_, rest) = said.split_once("Gannet is ready\n\n  address  ")?;
        rest.split_once('\n').map(|(server, _)| server.to_owned())
    })
    .await;
    assert!(server.starts_with("https://127.0.0.1:"), "{server}");
    assert!(up.said().contains("Authorization: Bearer TOKEN"), "{}", up.said());
    let ca = path("certs/ca.pem");
    let client = ["--server", &server, "--ca-file", &ca, "--token-file", &token];
    let said = gannet(&[&["ingest", "t", "-"][..], &client].concat(), "{\"a\":1}\n").await;
    assert_eq!(said.code, 0, "{said:?}");
    let said = gannet(&[&["query", "SELECT a FROM t", "--format", "csv"][..], &client].concat(), "").await;
    assert_eq!((said.code, said.out.as_str()), (0, "a\n1\n"), "{said:?}");
    up.interrupt().await;
    segments::remove(&folder.path().join("data/leaf-0"));
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_open_to_other_machines_by_accident() {
    let folder = TempDir::with_prefix("gannet-").unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    let check = async |args: &[&str], code: i32, message: &str| {
        let said = gannet(args, "").await;
        assert_eq!(said.code, code, "{said:?}");
        assert!(said.err.contains(message) && said.err.contains("--insecure"), "{said:?}");
    };
    let data = path("leaf");
    let leaf = "gRPC on 0.0.0.0:0 would be open to other machines without TLS at both ends";
    check(&["leaf", "--data-dir", &data, "--listen", "0.0.0.0:0"], 2, leaf).await;
    let http = "would be open to other machines without TLS and tokens\nhint: give --http-cert, --http-key";
    check(&["up", "--data-dir", &path("up"), "--http", "0.0.0.0:0"], 2, http).await;
    let aggregator = ["aggregator", "--data-dir", &path("agg"), "--child", "127.0.0.1:1"];
    check(&[&aggregator[..], &["--http", "0.0.0.0:0"]].concat(), 2, http).await;
    let far = ["aggregator", "--data-dir", &path("agg"), "--http", "127.0.0.1:0", "--child", "10.0.0.7:1"];
    check(&far, 2, "gRPC to 10.0.0.7:1 would be open to other machines without TLS at both ends").await;

    // Somebody who insists is warned.
    let args = texts(&["leaf", "--data-dir", "open", "--listen", "0.0.0.0:0", "--insecure"]);
    let open = Process::start(&args, folder.path(), &folder.path().join("open.log"), Stdio::null());
    port_of(&open).await;
    let warning = "insecure: gRPC is open to other machines without TLS at both ends";
    assert!(open.said().contains(warning), "{}", open.said());
    open.stop().await;
    segments::remove(&folder.path().join("open"));
}
