//! Machines of a cluster as network namespaces: one for the aggregator, one for each leaf, and a cable to each leaf that
//! can be cut, made to lose packets, or made to lose them in one direction.
//!
//! It takes root, `ip` and `tc`. Packets are dropped by classic BPF at the aggregator's end of a cable, which needs no
//! module beyond the classifier. Namespaces, cables and filters go when the network is dropped.

use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

/// The port on which every leaf listens; it has a namespace of its own.
const PORT: u16 = 7710;
/// What a filter drops: everything.
const EVERYTHING: u32 = 100;

/// Which packets of a cable are lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// Those of the aggregator.
    ToLeaf,
    /// Those of the leaf.
    FromLeaf,
}

impl Direction {
    fn hook(self) -> &'static str {
        match self {
            Direction::ToLeaf => "egress",
            Direction::FromLeaf => "ingress",
        }
    }
}

/// See the module.
#[derive(Debug)]
pub struct Network {
    /// Names every namespace of this one.
    name: String,
    leaves: usize,
}

/// Numbers networks of this process.
static NETWORKS: AtomicU32 = AtomicU32::new(0);

fn run(program: &str, args: &[&str]) -> Result<(), String> {
    let output = Command::new(program).args(args).output().map_err(|error| format!("{program}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("{program} {}: {}", args.join(" "), String::from_utf8_lossy(&output.stderr).trim()))
}

impl Network {
    /// A network of so many leaves.
    ///
    /// # Errors
    /// Why there can be none here: no root, no `ip`, no `tc`, or a kernel without them.
    pub fn new(leaves: usize) -> Result<Network, String> {
        let number = NETWORKS.fetch_add(1, Ordering::Relaxed);
        let name = format!("gannet{}-{number}", std::process::id());
        // Dropped when a step fails, which removes what there is by then.
        let network = Network { name, leaves };
        let aggregator = network.aggregator();
        run("ip", &["netns", "add", &aggregator])?;
        for index in 0..leaves {
            network.connect(index)?;
        }
        if leaves > 0 {
            // Whether packets can be lost is known before anything relies on it.
            network.lose(0, 1)?;
            network.heal(0)?;
        }
        Ok(network)
    }

    /// The aggregator's namespace.
    pub fn aggregator(&self) -> String {
        format!("{}-a", self.name)
    }

    /// A leaf's namespace.
    pub fn leaf(&self, index: usize) -> String {
        format!("{}-l{index}", self.name)
    }

    /// Where a leaf listens.
    pub fn address(&self, index: usize) -> String {
        format!("10.213.{index}.2:{PORT}")
    }

    /// A program in a namespace; arguments may be added.
    pub fn command(&self, namespace: &str, program: &std::path::Path) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", namespace]).arg(program);
        command
    }

    /// The aggregator's end of the cable to a leaf.
    fn cable(index: usize) -> String {
        format!("leaf{index}")
    }

    fn connect(&self, index: usize) -> Result<(), String> {
        let (aggregator, leaf, cable) = (self.aggregator(), self.leaf(index), Network::cable(index));
        let in_aggregator = |args: &[&str]| run("ip", &[&["-n", &aggregator], args].concat());
        let in_leaf = |args: &[&str]| run("ip", &[&["-n", &leaf], args].concat());
        run("ip", &["netns", "add", &leaf])?;
        in_aggregator(&["link", "add", &cable, "type", "veth", "peer", "name", "eth0", "netns", &leaf])?;
        in_aggregator(&["addr", "add", &format!("10.213.{index}.1/30"), "dev", &cable])?;
        in_aggregator(&["link", "set", &cable, "up"])?;
        in_leaf(&["addr", "add", &format!("10.213.{index}.2/30"), "dev", "eth0"])?;
        in_leaf(&["link", "set", "eth0", "up"])?;
        in_leaf(&["link", "set", "lo", "up"])?;
        run("tc", &["-n", &aggregator, "qdisc", "add", "dev", &cable, "clsact"])
    }

    /// Pulls the cable of a leaf.
    ///
    /// # Errors
    /// What `ip` says.
    pub fn cut(&self, index: usize) -> Result<(), String> {
        run("ip", &["-n", &self.aggregator(), "link", "set", &Network::cable(index), "down"])
    }

    /// Loses so many of a hundred packets of a leaf's cable, in both directions, by chance.
    ///
    /// # Errors
    /// What `tc` says.
    pub fn lose(&self, index: usize, percent: u32) -> Result<(), String> {
        self.filter(index, Direction::ToLeaf, percent)?;
        self.filter(index, Direction::FromLeaf, percent)
    }

    /// Loses all packets of a leaf's cable in one direction.
    ///
    /// # Errors
    /// What `tc` says.
    pub fn lose_one_way(&self, index: usize, direction: Direction) -> Result<(), String> {
        self.filter(index, direction, EVERYTHING)
    }

    fn filter(&self, index: usize, direction: Direction, percent: u32) -> Result<(), String> {
        let (aggregator, cable) = (self.aggregator(), Network::cable(index));
        let program = dropping(percent);
        let args = [
            "-n",
            &aggregator,
            "filter",
            "add",
            "dev",
            &cable,
            direction.hook(),
            "bpf",
            "da",
            "bytecode",
            &program,
        ];
        run("tc", &args)
    }

    /// Makes a leaf's cable whole again.
    ///
    /// # Errors
    /// What `ip` or `tc` says.
    pub fn heal(&self, index: usize) -> Result<(), String> {
        let (aggregator, cable) = (self.aggregator(), Network::cable(index));
        run("ip", &["-n", &aggregator, "link", "set", &cable, "up"])?;
        for direction in [Direction::ToLeaf, Direction::FromLeaf] {
            run("tc", &["-n", &aggregator, "filter", "del", "dev", &cable, direction.hook()])?;
        }
        Ok(())
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        // Cables go with their namespaces, and those when no process is in them.
        let leaves = (0..self.leaves).map(|index| self.leaf(index));
        for namespace in leaves.chain([self.aggregator()]) {
            // One that was never made is gone already.
            let _ = run("ip", &["netns", "del", &namespace]);
        }
    }
}

/// A program of classic BPF that drops so many of a hundred packets: a random word is loaded and compared, and the packet
/// is shot (2) or goes its way (-1).
fn dropping(percent: u32) -> String {
    const LOAD_RANDOM: &str = "32 0 0 4294963256";
    const SHOOT: &str = "6 0 0 2";
    const PASS: &str = "6 0 0 4294967295";
    if percent >= EVERYTHING {
        return format!("1,{SHOOT}");
    }
    let threshold = u64::from(u32::MAX) * u64::from(percent) / 100;
    // At least the threshold: over the next instruction.
    format!("4,{LOAD_RANDOM},53 1 0 {threshold},{SHOOT},{PASS}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_drop_what_they_should() {
        assert_eq!(dropping(100), "1,6 0 0 2");
        assert_eq!(dropping(50), "4,32 0 0 4294963256,53 1 0 2147483647,6 0 0 2,6 0 0 4294967295");
    }
}
