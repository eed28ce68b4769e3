//! The flags of servers that say whom they trust: the same for leaves and aggregators.

use std::path::PathBuf;

use clap::Args;

/// Certificates between the machines of a cluster.
#[derive(Debug, Args)]
pub(crate) struct TlsArgs {
    /// The certificate of the cluster's authority, PEM: others must show one that it signed
    #[arg(long, env = "GANNET_TLS_CA", value_name = "FILE", requires_all = ["tls_cert", "tls_key"])]
    tls_ca: Option<PathBuf>,
    /// The certificate that is shown to others, PEM; it must be for the host that they connect to
    #[arg(long, env = "GANNET_TLS_CERT", value_name = "FILE", requires_all = ["tls_ca", "tls_key"])]
    tls_cert: Option<PathBuf>,
    /// The key of that certificate, PEM, readable by its owner only
    #[arg(long, env = "GANNET_TLS_KEY", value_name = "FILE", requires_all = ["tls_ca", "tls_cert"])]
    tls_key: Option<PathBuf>,
    /// The name that certificates of others must be for, instead of the host of their address
    #[arg(long, env = "GANNET_TLS_NAME", value_name = "NAME", requires = "tls_ca")]
    tls_name: Option<String>,
    /// Be open to other machines without encryption and without asking who they are, on a network you trust
    #[arg(long)]
    insecure: bool,
}

impl TlsArgs {
    /// Sets what was said; what was not stays as it is.
    pub(crate) fn set(
        self,
        (ca, cert, key): (&mut Option<PathBuf>, &mut Option<PathBuf>, &mut Option<PathBuf>),
        name: &mut Option<String>,
        insecure: &mut bool,
    ) {
        *name = self.tls_name.or(name.take());
        *ca = self.tls_ca.or(ca.take());
        *cert = self.tls_cert.or(cert.take());
        *key = self.tls_key.or(key.take());
        *insecure |= self.insecure;
    }
}
