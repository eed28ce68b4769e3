use std::os::unix::fs::PermissionsExt;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_stream::StreamExt;

use super::*;
use crate::address::{ChildAddress, Guard, Listener};

/// An authority that signs what a test needs.
struct Authority {
    folder: PathBuf,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn new(folder: &Path, name: &str) -> Authority {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        let folder = folder.join(name);
        std::fs::create_dir(&folder).unwrap();
        std::fs::write(folder.join("ca.pem"), certificate.pem()).unwrap();
        Authority { folder, issuer: Issuer::new(params, key) }
    }

    fn ca(&self) -> PathBuf {
        self.folder.join("ca.pem")
    }

    /// A certificate and its key, valid until the end of a year.
    fn signs(&self, file: &str, name: &str, until_year: i32) -> (PathBuf, PathBuf) {
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        params.not_before = rcgen::date_time_ymd(2000, 1, 1);
        params.not_after = rcgen::date_time_ymd(until_year, 12, 31);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let (at, key_at) = (self.folder.join(format!("{file}.pem")), self.folder.join(format!("{file}.key")));
        std::fs::write(&at, certificate.pem()).unwrap();
        std::fs::write(&key_at, key.serialize_pem()).unwrap();
        std::fs::set_permissions(&key_at, std::fs::Permissions::from_mode(0o600)).unwrap();
        (at, key_at)
    }

    fn tls(&self, file: &str, name: &str, until_year: i32) -> Arc<Tls> {
        let (certificate, key) = self.signs(file, name, until_year);
        Tls::of_cluster(&self.ca(), &certificate, &key).unwrap()
    }
}

/// Says "ok" over TLS when both sides believe each other; what a client then reads, or why it does not.
async fn talk(server: &Arc<Tls>, client: Arc<ClientConfig>, name: &'static str) -> Result<String, String> {
    let listener = Listener::bind(&"127.0.0.1:0".parse().unwrap()).await.unwrap();
    let ChildAddress::Tcp(at) = listener.local_address().unwrap() else { panic!("TCP") };
    let mut incoming = listener.guarded(Guard { tls: Some(Arc::clone(server)), ..Guard::default() });
    let serving = tokio::spawn(async move {
        let mut connection = incoming.next().await.unwrap().unwrap();
        let mut asked = [0; 3];
        connection.read_exact(&mut asked).await.map_err(|error| error.to_string())?;
        connection.write_all(b"ok").await.map_err(|error| error.to_string())?;
        connection.shutdown().await.map_err(|error| error.to_string())
    });
    let asking = async {
        let stream = TcpStream::connect(&at).await.unwrap();
        let server = ServerName::try_from(name).unwrap();
        let mut stream = TlsConnector::from(client).connect(server, stream).await?;
        stream.write_all(b"hi\n").await?;
        let mut said = String::new();
        stream.read_to_string(&mut said).await?;
        Ok::<String, std::io::Error>(said)
    };
    let said = asking.await.map_err(|error| error.to_string());
    let served = serving.await.unwrap();
    match (said, served) {
        (Ok(said), Ok(())) => Ok(said),
        (said, served) => {
            let why = |error: Option<String>| error.unwrap_or_else(|| "well".to_owned());
            Err(format!("client: {}; server: {}", why(said.err()), why(served.err())))
        }
    }
}

#[tokio::test]
async fn only_those_of_the_cluster_are_let_in() {
    let folder = tempfile::tempdir().unwrap();
    let (ours, theirs) = (Authority::new(folder.path(), "ours"), Authority::new(folder.path(), "theirs"));
    let leaf = ours.tls("leaf", "leaf-1.example", 2090);
    let check =
        |client: Arc<ClientConfig>, name: &'static str, expect: Result<&'static str, &'static str>| {
            let leaf = Arc::clone(&leaf);
            async move {
                match (talk(&leaf, client, name).await, expect) {
                    (Ok(said), Ok(expect)) => assert_eq!(said, expect),
                    (Err(error), Err(expect)) => assert!(error.contains(expect), "{error} is not {expect}"),
                    (found, expect) => panic!("{found:?} is not {expect:?}"),
                }
            }
        };
    let client = |tls: Arc<Tls>| tls.client().unwrap();
    check(client(ours.tls("a", "aggregator", 2090)), "leaf-1.example", Ok("ok")).await;
    check(
        client(ours.tls("a2", "aggregator", 2090)),
        "leaf-2.example",
        Err("certificate not valid for name \"leaf-2.example\""),
    )
    .await;
    check(
        client(ours.tls("old", "aggregator", 2001)),
        "leaf-1.example",
        Err("server: invalid peer certificate: certificate expired"),
    )
    .await;
    // Somebody who knows our authority's certificate, which is public, and has one of another.
    let (certificate, key) = theirs.signs("rogue", "aggregator", 2090);
    let rogue = Tls::of_cluster(&ours.ca(), &certificate, &key).unwrap();
    check(client(rogue), "leaf-1.example", Err("server: invalid peer certificate: UnknownIssuer")).await;
    check(client(theirs.tls("b", "aggregator", 2090)), "leaf-1.example", Err("UnknownIssuer")).await;
    let mut nobody = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots(&ours.ca()).unwrap())
        .with_no_client_auth();
    nobody.alpn_protocols = vec![b"h2".to_vec()];
    check(Arc::new(nobody), "leaf-1.example", Err("server: peer sent no certificates")).await;
    // A leaf whose certificate has ended is not believed either.
    let ended = ours.tls("ended", "leaf-1.example", 2001);
    let aggregator = ours.tls("a3", "aggregator", 2090).client().unwrap();
    let error = talk(&ended, aggregator, "leaf-1.example").await.unwrap_err();
    assert!(error.contains("certificate expired"), "{error}");
}

#[test]
fn files_that_cannot_be_used_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let ours = Authority::new(folder.path(), "ours");
    let ((a, a_key), (_, b_key)) = (ours.signs("a", "a", 2090), ours.signs("b", "b", 2090));
    let check = |ca: &Path, certificate: &Path, key: &Path, expect: String| {
        assert_eq!(Tls::of_cluster(ca, certificate, key).unwrap_err().to_string(), expect);
    };
    let wrong_key = format!("file {}: is not the key of certificate {}", b_key.display(), a.display());
    check(&ours.ca(), &a, &b_key, wrong_key.clone());
    assert_eq!(Tls::of_server(&a, &b_key).unwrap_err().to_string(), wrong_key);
    check(&ours.ca(), &a_key, &a_key, format!("file {}: holds no certificate", a_key.display()));
    let no_key = ours.folder.join("none.key");
    std::fs::write(&no_key, "secret").unwrap();
    std::fs::set_permissions(&no_key, std::fs::Permissions::from_mode(0o600)).unwrap();
    check(&ours.ca(), &a, &no_key, format!("file {}: holds no private key in PEM", no_key.display()));
    std::fs::set_permissions(&b_key, std::fs::Permissions::from_mode(0o644)).unwrap();
    let open =
        format!("file {} holds a secret and has mode 644, must be 640 or less (chmod 600)", b_key.display());
    check(&ours.ca(), &a, &b_key, open);
    let some = Settings { authority: Some(&a), ..Settings::default() };
    let some = Tls::of_settings(some).unwrap_err().to_string();
    assert_eq!(some, format!("file {}: tls_ca, tls_cert and tls_key go together", a.display()));
    assert!(Tls::of_settings(Settings::default()).unwrap().is_none());
    let ca = ours.ca();
    let named =
        |name| Settings { authority: Some(&ca), certificate: Some(&a), key: Some(&a_key), name: Some(name) };
    assert!(Tls::of_settings(named("gannet.internal")).unwrap().is_some());
    let error = Tls::of_settings(named("a b")).unwrap_err().to_string();
    assert_eq!(error, format!("file {}: tls_name `a b` is no name", ca.display()));
}

#[tokio::test]
async fn certificates_are_read_again_when_they_change() {
    let folder = tempfile::tempdir().unwrap();
    let ours = Authority::new(folder.path(), "ours");
    let (certificate, key) = ours.signs("leaf", "leaf-1.example", 2001);
    let leaf = Tls::of_cluster(&ours.ca(), &certificate, &key).unwrap();
    let client = || ours.tls("a", "aggregator", 2090).client().unwrap();
    assert!(talk(&leaf, client(), "leaf-1.example").await.is_err());
    let ended = leaf.not_after().unwrap();
    for file in [&certificate, &key] {
        std::fs::remove_file(file).unwrap();
    }
    assert!(leaf.refresh().is_err());
    ours.signs("leaf", "leaf-1.example", 2090);
    assert!(leaf.refresh().unwrap());
    assert_eq!(talk(&leaf, client(), "leaf-1.example").await.as_deref(), Ok("ok"));
    assert!(leaf.not_after().unwrap() > ended);
}

#[test]
fn the_end_is_told_beforehand() {
    let at = |days: u64| UNIX_EPOCH + Duration::from_secs(days * 86_400);
    let warned = |now: u64| expiry_warning(Some(100 * 86_400), at(now));
    assert_eq!(warned(85), None);
    assert_eq!(warned(87).as_deref(), Some("the certificate ends in 13 days"));
    assert_eq!(warned(100).as_deref(), Some("the certificate ends in 0 days"));
    assert_eq!(warned(101).as_deref(), Some("the certificate has ended: nobody will connect any more"));
    assert_eq!(expiry_warning(None, at(1)), None);
}
