//! `gannet cluster certificates`: an authority for a cluster that has none, and a certificate for each of its machines.
//!
//! The key of the authority stays in the folder; whoever has it can make a machine of the cluster, so it belongs on none
//! of them. Running the command again adds machines. Nothing is replaced unless it is asked for.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use chrono::{DateTime, Datelike, TimeDelta, Utc};
use clap::Args;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose,
};

use crate::outcome::{Exit, Failure, Outcome};

/// What the authority is called. It must stay as it is: machines that were added later are signed under this name too.
const AUTHORITY: &str = "Gannet cluster authority";
/// How long the authority is valid.
const AUTHORITY_DAYS: i64 = 3650;
/// Clocks of machines differ.
const BEFORE_DAYS: i64 = 1;

/// Make an authority for a cluster that has none, and a certificate for each machine
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  gannet cluster certificates --out certs --names 10.0.0.5,10.0.0.7,10.0.0.8
  gannet cluster certificates --out certs --names aggregator.example+10.0.0.5,leaf-7.example
  gannet cluster certificates --out certs --names 10.0.0.7 --renew

A name is what others reach the machine by, a host name or an address; one machine with several joins them with `+`. For \
each there is NAME.pem, its certificate, and NAME.key, its key; ca.pem is what everybody believes, and ca.key signs: keep \
it away from the machines. Copy ca.pem and a machine's own two files to it, and start with

  gannet leaf --listen 10.0.0.7:7710 --tls-ca ca.pem --tls-cert 10.0.0.7.pem --tls-key 10.0.0.7.key
  gannet aggregator --child 10.0.0.7:7710 --tls-ca ca.pem --tls-cert 10.0.0.5.pem --tls-key 10.0.0.5.key

The same certificate can be that of the aggregator's HTTP (--http-cert, --http-key); commands then take --ca-file ca.pem. \
Servers read their files again when they change, so a certificate is renewed by putting the new one in its place.")]
pub(crate) struct CertificatesArgs {
    /// The folder that everything is kept in; made if there is none
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// The machines by what others reach them by, with commas
    #[arg(long, required = true, value_name = "NAMES", value_delimiter = ',')]
    names: Vec<String>,
    /// How many days the certificates of machines are valid
    #[arg(long, value_name = "N", default_value_t = 825, value_parser = clap::value_parser!(u16).range(1..=3650))]
    days: u16,
    /// Replace certificates and keys of machines that are there
    #[arg(long)]
    renew: bool,
}

/// A machine by the names that others reach it by; the first is that of its files.
#[derive(Debug, PartialEq)]
struct Machine {
    names: Vec<String>,
}

impl Machine {
    fn parse(text: &str) -> Result<Machine, Failure> {
        let names: Vec<String> = text.split('+').map(|name| name.trim().to_owned()).collect();
        let plain = |name: &String| {
            let byte = |byte: u8| byte.is_ascii_alphanumeric() || b".-_:*".contains(&byte);
            !name.is_empty() && name.bytes().all(byte) && !name.starts_with('.')
        };
        if names.iter().all(plain) && names[0] != "ca" {
            return Ok(Machine { names });
        }
        let message = format!("name `{text}` is not a host name or an address, or several joined with +");
        Err(Failure::usage(message).hint("without a port, such as 10.0.0.7 or leaf-7.example+10.0.0.7"))
    }

    fn file(&self, out: &Path, ending: &str) -> PathBuf {
        out.join(format!("{}.{ending}", self.names[0].replace([':', '*'], "_")))
    }
}

/// Runs `gannet cluster certificates`.
pub(crate) fn run(args: &CertificatesArgs) -> Outcome {
    let machines = args.names.iter().map(|name| Machine::parse(name)).collect::<Result<Vec<_>, _>>()?;
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&args.out)
        .map_err(|error| Failure::failed(format!("make folder {}: {error}", args.out.display())))?;
    if !args.renew {
        // Before anything is made: half of them would be of no use.
        for path in machines.iter().flat_map(|machine| ["pem", "key"].map(|it| machine.file(&args.out, it))) {
            if path.exists() {
                let failure = Failure::failed(format!("{} exists", path.display()));
                return Err(failure.hint("--renew replaces it"));
            }
        }
    }
    let now = Utc::now();
    let authority = authority(&args.out, now)?;
    let mut out = io::stdout().lock();
    for machine in &machines {
        let (certificate, key) = signed(&authority, machine, now, args.days)?;
        write(&machine.file(&args.out, "key"), 0o600, &key)?;
        write(&machine.file(&args.out, "pem"), 0o644, &certificate)?;
        writeln!(out, "{}: {}", machine.file(&args.out, "pem").display(), machine.names.join(", "))?;
    }
    writeln!(out, "everybody believes {}", args.out.join("ca.pem").display())?;
    Ok(Exit::Done)
}

fn failed(what: &str, error: &dyn std::fmt::Display) -> Failure {
    Failure::failed(format!("{what}: {error}"))
}

/// The authority of a folder, made if there is none.
fn authority(out: &Path, now: DateTime<Utc>) -> Result<Issuer<'static, KeyPair>, Failure> {
    let (certificate, key) = (out.join("ca.pem"), out.join("ca.key"));
    let params = authority_params(now);
    let key = match (certificate.exists(), key.exists()) {
        (true, true) => {
            let named =
                |error: &dyn std::fmt::Display| failed(&format!("authority key {}", key.display()), error);
            let pem = std::fs::read_to_string(&key).map_err(|error| named(&error))?;
            KeyPair::from_pem(&pem).map_err(|error| named(&error))?
        }
        (false, false) => {
            let made = KeyPair::generate().map_err(|error| failed("make a key", &error))?;
            let signed = params.self_signed(&made).map_err(|error| failed("sign the authority", &error))?;
            write(&key, 0o600, &made.serialize_pem())?;
            write(&certificate, 0o644, &signed.pem())?;
            made
        }
        (true, false) => return Err(alone(&certificate, &key)),
        (false, true) => return Err(alone(&key, &certificate)),
    };
    Ok(Issuer::new(params, key))
}

fn alone(there: &Path, gone: &Path) -> Failure {
    Failure::failed(format!("{} is there, and {} is not", there.display(), gone.display()))
        .hint("put back what is missing, or start in another folder")
}

fn authority_params(now: DateTime<Utc>) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = named(AUTHORITY);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    set_span(&mut params, now, AUTHORITY_DAYS);
    params
}

fn named(name: &str) -> DistinguishedName {
    let mut named = DistinguishedName::new();
    named.push(DnType::CommonName, name);
    named
}

/// A certificate and its key for a machine, which is a server to some and a client to others.
fn signed(
    authority: &Issuer<'static, KeyPair>,
    machine: &Machine,
    now: DateTime<Utc>,
    days: u16,
) -> Result<(String, String), Failure> {
    let what = format!("certificate for {}", machine.names[0]);
    let mut params = CertificateParams::new(machine.names.clone()).map_err(|error| failed(&what, &error))?;
    params.distinguished_name = named(&machine.names[0]);
    params.use_authority_key_identifier_extension = true;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    set_span(&mut params, now, i64::from(days));
    let key = KeyPair::generate().map_err(|error| failed(&what, &error))?;
    let certificate = params.signed_by(&key, authority).map_err(|error| failed(&what, &error))?;
    Ok((certificate.pem(), key.serialize_pem()))
}

/// Valid from a day before now until so many days after it, in whole days.
fn set_span(params: &mut CertificateParams, now: DateTime<Utc>, days: i64) {
    let day = |offset: i64| {
        let day = now + TimeDelta::days(offset);
        // A month and a day of the calendar are below 256.
        rcgen::date_time_ymd(day.year(), day.month() as u8, day.day() as u8)
    };
    params.not_before = day(-BEFORE_DAYS);
    params.not_after = day(days);
}

/// Writes a file beside its place and puts it there whole: a server may read it at any moment.
fn write(path: &Path, mode: u32, text: &str) -> Result<(), Failure> {
    let failed = |error: io::Error| Failure::failed(format!("write {}: {error}", path.display()));
    let beside = path.with_extension("new");
    match std::fs::remove_file(&beside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
        _ => {}
    }
    let mut file =
        OpenOptions::new().write(true).create_new(true).mode(mode).open(&beside).map_err(failed)?;
    file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(failed)?;
    std::fs::rename(&beside, path).map_err(failed)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use gannet_proto::tls::Tls;

    use super::*;

    fn args(out: &Path, names: &[&str], renew: bool) -> CertificatesArgs {
        let names = names.iter().map(|name| (*name).to_owned()).collect();
        CertificatesArgs { out: out.to_owned(), names, days: 30, renew }
    }

    #[test]
    fn machines_are_named() {
        let check = |text: &str, expect: Option<&[&str]>| {
            let found = Machine::parse(text).ok().map(|machine| machine.names);
            let expect = expect.map(|names| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>());
            assert_eq!(found, expect, "{text}");
        };
        check("10.0.0.7", Some(&["10.0.0.7"]));
        check("leaf-7.example+10.0.0.7 + ::1", Some(&["leaf-7.example", "10.0.0.7", "::1"]));
        for wrong in ["", "a+", "../a", "a/b", "ca", "a b", ".hidden"] {
            check(wrong, None);
        }
    }

    #[test]
    fn what_is_made_can_be_used() {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("certs");
        run(&args(&out, &["leaf-7.example+10.0.0.7", "::1"], false)).unwrap();
        let tls = |name: &str| {
            let file = |ending: &str| out.join(format!("{name}.{ending}"));
            Tls::of_cluster(&out.join("ca.pem"), &file("pem"), &file("key"))
        };
        let end = tls("leaf-7.example").unwrap().not_after().unwrap();
        let days = (end - Utc::now().timestamp()) / 86_400;
        assert!((28..=30).contains(&days), "{days}");
        assert!(tls("__1").is_ok());
        let mode = |name: &str| std::fs::metadata(out.join(name)).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode("ca.key"), mode("leaf-7.example.key"), mode("")), (0o600, 0o600, 0o700));

        // One more, under the same authority; none is replaced unless it is asked for.
        let read = |name: &str| std::fs::read_to_string(out.join(name)).unwrap();
        let (ca, first) = (read("ca.pem"), read("leaf-7.example.pem"));
        run(&args(&out, &["leaf-8"], false)).unwrap();
        assert_eq!(read("ca.pem"), ca);
        let error = run(&args(&out, &["leaf-9", "leaf-8"], false)).unwrap_err();
        assert_eq!(error.message, format!("{} exists", out.join("leaf-8.pem").display()));
        assert!(!out.join("leaf-9.pem").exists());
        run(&args(&out, &["leaf-7.example"], true)).unwrap();
        assert_ne!(read("leaf-7.example.pem"), first);
        std::fs::remove_file(out.join("ca.key")).unwrap();
        assert!(run(&args(&out, &["leaf-9"], false)).unwrap_err().message.contains("ca.key is not"));
    }
}
