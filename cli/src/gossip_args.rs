//! Flags of gossip: the same for leaves and aggregators.

use std::path::PathBuf;

use clap::Args;
use gannet_proto::gossip::GossipConfig;

/// Where a member gossips, and with whom it begins.
#[derive(Debug, Args)]
pub(crate) struct GossipArgs {
    /// Find the other members by gossip, and gossip here: IP:PORT, UDP
    #[arg(id = "gossip", long = "gossip", env = "GANNET_GOSSIP", value_name = "ADDR")]
    listen: Option<String>,
    /// Where others reach its gossip, when that is another address [default: as --gossip]
    #[arg(
        id = "gossip_advertise",
        long = "gossip-advertise",
        env = "GANNET_GOSSIP_ADVERTISE",
        value_name = "ADDR",
        requires = "gossip"
    )]
    advertise: Option<String>,
    /// A member to begin with: HOST:PORT; once for each, or with commas
    #[arg(
        id = "gossip_seeds",
        long = "gossip-seed",
        env = "GANNET_GOSSIP_SEEDS",
        value_name = "ADDR",
        value_delimiter = ',',
        requires = "gossip"
    )]
    seeds: Vec<String>,
    /// The key that proves who is a member, from `gannet cluster key`; needed beyond this machine
    #[arg(long, env = "GANNET_CLUSTER_KEY_FILE", value_name = "FILE")]
    cluster_key_file: Option<PathBuf>,
}

impl GossipArgs {
    /// Puts what was said over what the settings say.
    pub(crate) fn set(self, config: &mut Option<GossipConfig>) {
        if let Some(listen) = self.listen {
            config.get_or_insert_default().listen = listen;
        }
        let Some(config) = config else { return };
        config.advertise = self.advertise.or(config.advertise.take());
        config.key_file = self.cluster_key_file.or(config.key_file.take());
        if !self.seeds.is_empty() {
            config.seeds = self.seeds;
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Member {
        #[command(flatten)]
        gossip: GossipArgs,
    }

    fn set(flags: &[&str], config: Option<GossipConfig>) -> Option<GossipConfig> {
        let mut config = config;
        Member::try_parse_from([&["member"], flags].concat()).unwrap().gossip.set(&mut config);
        config
    }

    #[test]
    fn flags_win_over_the_file() {
        assert_eq!(set(&[], None), None);
        assert_eq!(set(&["--cluster-key-file", "k"], None), None);
        let flags = ["--gossip", "10.0.0.7:1", "--gossip-seed", "a:1,b:1", "--cluster-key-file", "k"];
        let config = set(&flags, None).unwrap();
        assert_eq!((config.listen.as_str(), config.seeds.len()), ("10.0.0.7:1", 2));
        assert_eq!(config.key_file, Some(PathBuf::from("k")));
        let file = GossipConfig { seeds: vec!["s:1".into()], cluster: "blue".into(), ..Default::default() };
        let config = set(&["--gossip", "10.0.0.8:1"], Some(file)).unwrap();
        assert_eq!((config.listen.as_str(), config.cluster.as_str()), ("10.0.0.8:1", "blue"));
        assert_eq!(config.seeds, ["s:1"]);
    }
}
