//! What guards the HTTP door of `gannet up`, and how the supervisor comes in by it.
//!
//! The supervisor makes a token for this one run and tells the aggregator only its hash. Over TLS it believes the very
//! certificate that the door was given, since what that is called is not where the supervisor asks.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use gannet_aggregator::access::{Scope, Tokens, new_token};
use gannet_client::{ClientOptions, Token, Trust};
use gannet_proto::address::ChildAddress;
use gannet_proto::exposed::{Exposed, Protection, Way};
use gannet_proto::tls::Tls;
use gannet_proto::watched::read_public;

use crate::client::Client;
use crate::outcome::Failure;
use crate::serve_aggregator::HttpGuardArgs;

/// What guards the door.
#[derive(Debug)]
pub(super) struct HttpGuard {
    args: Vec<OsString>,
    token: Option<String>,
    certificate: Option<PathBuf>,
}

impl HttpGuard {
    /// Checks what the aggregator would refuse: it would be started again and again in vain.
    pub(super) fn new(
        guard: HttpGuardArgs,
        insecure: bool,
        address: SocketAddr,
    ) -> Result<HttpGuard, Failure> {
        let unusable = |error: gannet_proto::watched::FileError| Failure::usage(error.to_string());
        let mut args: Vec<OsString> = Vec::new();
        let mut token = None;
        if let (Some(certificate), Some(key)) = (&guard.http_cert, &guard.http_key) {
            Tls::of_server(certificate, key).map_err(unusable)?;
            args.extend(["--http-cert".into(), absolute(certificate)?.into()]);
            args.extend(["--http-key".into(), absolute(key)?.into()]);
        }
        if let Some(path) = &guard.tokens_file {
            Tokens::read(path).map_err(unusable)?;
            let (ours, grant) = new_token("supervisor", &Scope::ALL, None).map_err(Failure::failed)?;
            args.extend(["--tokens-file".into(), absolute(path)?.into()]);
            args.extend(["--supervisor-token".into(), grant.sha256().into()]);
            token = Some(ours);
        }
        let protection = Protection { tls: guard.http_cert.is_some(), tokens: token.is_some() };
        let at = ChildAddress::Tcp(address.to_string());
        match Exposed::find(Way::Http, &at, protection) {
            Some(exposed) if !insecure => {
                return Err(Failure::usage(exposed.to_string()).hint(exposed.hint()));
            }
            _ => {}
        }
        if insecure {
            args.push("--insecure".into());
        }
        Ok(HttpGuard { args, token, certificate: guard.http_cert })
    }

    /// The aggregator's arguments.
    pub(super) fn args(&self) -> Vec<OsString> {
        self.args.clone()
    }

    /// Whether tokens are asked for.
    pub(super) fn asks(&self) -> bool {
        self.token.is_some()
    }

    /// Whether the door speaks TLS.
    pub(super) fn speaks_tls(&self) -> bool {
        self.certificate.is_some()
    }

    /// A client for the supervisor itself.
    pub(super) fn client(&self, server: &str) -> Result<Client, Failure> {
        let mut options = ClientOptions::default();
        if let Some(token) = &self.token {
            options.token = Some(Token::new(token)?);
        }
        if let Some(path) = &self.certificate {
            let pem = read_public(path).map_err(|error| Failure::failed(error.to_string()))?;
            options.trust = Trust::Certificate(pem);
        }
        Client::with(server, options)
    }
}

/// Parts run in the data directory.
fn absolute(path: &Path) -> Result<PathBuf, Failure> {
    std::path::absolute(path).map_err(|error| Failure::failed(format!("{}: {error}", path.display())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_aggregator_would_refuse_is_refused_before() {
        let new = |insecure: bool, address: &str| {
            HttpGuard::new(HttpGuardArgs::default(), insecure, address.parse().unwrap())
        };
        assert!(new(false, "127.0.0.1:7700").unwrap().args().is_empty());
        assert_eq!(
            new(false, "0.0.0.0:7700").unwrap_err().message,
            "HTTP on 0.0.0.0:7700 would be open to other machines without TLS and tokens"
        );
        assert_eq!(new(true, "0.0.0.0:7700").unwrap().args(), ["--insecure"]);
        let guard = HttpGuardArgs { tokens_file: Some("/nowhere".into()), ..HttpGuardArgs::default() };
        let error = HttpGuard::new(guard, false, "127.0.0.1:1".parse().unwrap()).unwrap_err();
        assert_eq!(error.message, "file /nowhere cannot be read: No such file or directory (os error 2)");
    }
}
