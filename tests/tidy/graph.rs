//! Who may import whom. A new edge is rare and has to be added here, where it is seen.

use std::collections::{BTreeMap, BTreeSet};

use cargo_metadata::{DependencyKind, MetadataCommand};

use crate::{refuse, root};

/// What each crate may import of ours; tests and benches may import everything and are imported by nobody.
const EDGES: [(&str, &[&str]); 7] = [
    ("gannet-query", &[]),
    ("gannet-shm", &[]),
    ("gannet-proto", &["gannet-query"]),
    ("gannet-leaf", &["gannet-proto", "gannet-query", "gannet-shm"]),
    ("gannet-aggregator", &["gannet-proto", "gannet-query"]),
    ("gannet-client", &[]),
    (
        "gannet",
        &["gannet-aggregator", "gannet-client", "gannet-leaf", "gannet-proto", "gannet-query", "gannet-shm"],
    ),
];
/// Crates that may import everything, because nothing of them ships.
const FREE: [&str; 2] = ["gannet-tests", "gannet-benches"];

/// The edges that are not allowed, and crates nobody ruled on.
fn forbidden(edges: &BTreeMap<String, BTreeSet<String>>) -> Vec<String> {
    let mut found = Vec::new();
    for (name, imports) in edges {
        if FREE.contains(&name.as_str()) {
            continue;
        }
        let Some((_, allowed)) = EDGES.iter().find(|(known, _)| known == name) else {
            found.push(format!("crate {name} has no rule"));
            continue;
        };
        let extra = imports.iter().filter(|import| !allowed.contains(&import.as_str()));
        found.extend(extra.map(|import| format!("{name} imports {import}")));
    }
    found
}

#[test]
fn crates_import_only_what_they_may() {
    let metadata = MetadataCommand::new()
        .manifest_path(root().join("Cargo.toml"))
        .no_deps()
        .other_options(vec!["--offline".to_owned()])
        .exec()
        .unwrap();
    let members: BTreeSet<String> =
        metadata.packages.iter().map(|package| package.name.to_string()).collect();
    let edges = metadata
        .packages
        .iter()
        .map(|package| {
            let ours = package
                .dependencies
                .iter()
                .filter(|dependency| dependency.kind != DependencyKind::Development)
                .map(|dependency| dependency.name.clone())
                .filter(|name| members.contains(name));
            (package.name.to_string(), ours.collect())
        })
        .collect();
    refuse("crates import each other in one direction only (see ARCHITECTURE.md)", &forbidden(&edges));
    for (name, _) in EDGES {
        assert!(members.contains(name), "the rule for {name} is about a crate that is gone");
    }
}

#[test]
fn a_new_edge_is_seen() {
    let edge = |from: &str, to: &str| BTreeMap::from([(from.to_owned(), BTreeSet::from([to.to_owned()]))]);
    assert_eq!(
        forbidden(&edge("gannet-leaf", "gannet-aggregator")),
        ["gannet-leaf imports gannet-aggregator"]
    );
    assert_eq!(forbidden(&edge("gannet-shm", "gannet-query")), ["gannet-shm imports gannet-query"]);
    assert_eq!(forbidden(&edge("gannet-utils", "gannet-query")), ["crate gannet-utils has no rule"]);
    assert!(forbidden(&edge("gannet-leaf", "gannet-shm")).is_empty());
}
