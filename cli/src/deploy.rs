//! The files of `cli/deploy` against the program: whatever they say is a flag, a setting or a variable is one.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command as Process;

use clap::{Command, CommandFactory};
use yaml_rust2::{Yaml, YamlLoader};

use crate::Cli;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy")
}

fn read(name: &str) -> String {
    std::fs::read_to_string(folder().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

#[track_caller]
fn check_line(words: &[&str]) {
    if let Err(error) = Cli::command().try_get_matches_from(words) {
        panic!("{words:?} is not understood:\n{error}");
    }
}

/// The keys of a unit with their values, all sections together.
fn unit(name: &str) -> BTreeMap<String, Vec<String>> {
    let mut keys: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for line in read(name).lines().filter(|line| !line.starts_with(['#', '['])) {
        if let Some((key, value)) = line.split_once('=') {
            keys.entry(key.to_owned()).or_default().push(value.to_owned());
        }
    }
    keys
}

const UNITS: [&str; 2] = ["systemd/gannet-leaf@.service", "systemd/gannet-aggregator.service"];

#[test]
fn units_run_what_there_is() {
    for name in UNITS {
        let keys = unit(name);
        let mut line = keys["ExecStart"][0].replace("%i", "3").replace("%l", "box");
        for set in keys.get("Environment").into_iter().flatten() {
            let (variable, value) = set.split_once('=').unwrap();
            line = line.replace(&format!("${{{variable}}}"), value);
        }
        assert!(!line.contains(['%', '$']), "{name}: something is not expanded: {line}");
        let words: Vec<&str> = line.split_whitespace().collect();
        assert_eq!(words[0], "/usr/local/bin/gannet");
        check_line(&words);
        assert_eq!(keys["Restart"], ["always"], "{name}: a leaf that was told to stop starts again");
        let usage = crate::outcome::Exit::Usage.code().to_string();
        assert_eq!(keys["RestartPreventExitStatus"], [usage], "{name}");
    }
}

#[test]
fn settings_are_settings_and_stops_have_time() {
    let leaf: gannet_leaf::Config = toml::from_str(&read("systemd/leaf.toml")).unwrap();
    leaf.check().unwrap();
    let aggregator: gannet_aggregator::Config = toml::from_str(&read("systemd/aggregator.toml")).unwrap();
    aggregator.checked().unwrap();
    let stops = |unit_name: &str| unit(unit_name)["TimeoutStopSec"][0].parse::<u64>().unwrap();
    assert!(stops(UNITS[0]) > leaf.hand_over_seconds_max);
    assert!(stops(UNITS[1]) * 1000 > aggregator.stop_grace_ms);
}

#[test]
fn systemd_takes_the_units() {
    let Ok(version) = Process::new("systemd-analyze").arg("--version").output() else {
        eprintln!("SKIPPED: the units were NOT verified, because there is no systemd-analyze here");
        return;
    };
    assert!(version.status.success());
    let directory = tempfile::tempdir().unwrap();
    for name in UNITS {
        let path = directory.path().join(Path::new(name).file_name().unwrap());
        // It wants a program that is there.
        std::fs::write(&path, read(name).replace("/usr/local/bin/gannet", "/bin/true")).unwrap();
        let said = Process::new("systemd-analyze").arg("verify").arg(&path).output().unwrap();
        let text = String::from_utf8_lossy(&said.stderr);
        // What other units of this machine do is not ours.
        let ours: Vec<&str> = text.lines().filter(|line| line.contains("gannet")).collect();
        assert!(ours.is_empty(), "{name}: {text}");
    }
}

fn manifest() -> Vec<Yaml> {
    YamlLoader::load_from_str(&read("kubernetes/gannet.yaml")).unwrap()
}

fn named<'a>(documents: &'a [Yaml], kind: &str, name: &str) -> &'a Yaml {
    let is = |document: &&Yaml| {
        document["kind"].as_str() == Some(kind) && document["metadata"]["name"].as_str() == Some(name)
    };
    documents.iter().find(is).unwrap_or_else(|| panic!("no {kind} {name}"))
}

/// The environment variables that a command knows.
fn variables(command: &str) -> Vec<String> {
    let cli = Cli::command();
    let command: &Command = cli.find_subcommand(command).unwrap();
    let known = command.get_arguments().filter_map(|arg| arg.get_env());
    known.map(|name| name.to_string_lossy().into_owned()).collect()
}

#[test]
fn the_manifest_runs_what_there_is() {
    let documents = manifest();
    for (name, command) in [("gannet-leaf", "leaf"), ("gannet-aggregator", "aggregator")] {
        let set = named(&documents, "StatefulSet", name);
        let container = &set["spec"]["template"]["spec"]["containers"][0];
        let words = ["command", "args"].map(|key| container[key].as_vec().unwrap());
        let words: Vec<&str> = words.into_iter().flatten().map(|word| word.as_str().unwrap()).collect();
        assert_eq!(words[..2], ["gannet", command]);
        check_line(&words);
        for variable in container["env"].as_vec().into_iter().flatten() {
            let variable = variable["name"].as_str().unwrap();
            assert!(variables(command).iter().any(|known| known == variable), "{variable} means nothing");
        }
        // What a claim is called is what is mounted.
        let claim = set["spec"]["volumeClaimTemplates"][0]["metadata"]["name"].as_str().unwrap();
        let mounts = container["volumeMounts"].as_vec().unwrap();
        assert!(mounts.iter().any(|mount| mount["name"].as_str() == Some(claim)));
        let service = set["spec"]["serviceName"].as_str().unwrap();
        named(&documents, "Service", service);
    }
}

#[test]
fn the_manifest_names_every_leaf_and_keeps_its_memory() {
    let documents = manifest();
    let leaves = named(&documents, "StatefulSet", "gannet-leaf");
    let pod = &leaves["spec"]["template"]["spec"];
    let grace = pod["terminationGracePeriodSeconds"].as_i64().unwrap();
    assert!(grace > gannet_leaf::Config::default().hand_over_seconds_max as i64);
    let mounts = pod["containers"][0]["volumeMounts"].as_vec().unwrap();
    let shm = mounts.iter().find(|mount| mount["mountPath"].as_str() == Some("/dev/shm")).unwrap();
    let volumes = pod["volumes"].as_vec().unwrap();
    let volume = volumes.iter().find(|volume| volume["name"] == shm["name"]).unwrap();
    assert!(volume["hostPath"]["path"].as_str().unwrap().starts_with("/dev/shm/"));

    let aggregator = named(&documents, "StatefulSet", "gannet-aggregator");
    let args = aggregator["spec"]["template"]["spec"]["containers"][0]["args"].as_vec().unwrap();
    let args: Vec<&str> = args.iter().map(|arg| arg.as_str().unwrap()).collect();
    let children: Vec<&str> =
        args.windows(2).filter(|pair| pair[0] == "--child").map(|pair| pair[1]).collect();
    let count = leaves["spec"]["replicas"].as_i64().unwrap();
    let expected: Vec<String> =
        (0..count).map(|index| format!("gannet-leaf-{index}.gannet-leaf:7710")).collect();
    assert_eq!(children, expected);
}

#[test]
fn commands_in_the_pages_are_commands() {
    let mut checked = 0;
    for page in ["README.md", "SIZING.md"] {
        let text = read(page);
        for line in text.lines().filter(|line| line.starts_with("gannet ")) {
            check_line(&line.split_whitespace().collect::<Vec<_>>());
            checked += 1;
        }
        // Files that a page names are there.
        for name in text
            .split('`')
            .skip(1)
            .step_by(2)
            .filter(|name| name.starts_with("systemd/") || name.starts_with("kubernetes/"))
        {
            assert!(folder().join(name).exists(), "{page} names {name}");
        }
    }
    assert!(checked >= 3, "{checked}");
}
