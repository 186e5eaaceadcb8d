//! The shape of the workspace: who may depend on whom, and how much a function's start may hold.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::{Path, PathBuf};

use cargo_metadata::{DependencyKind, Metadata, MetadataCommand};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

fn metadata() -> Metadata {
    MetadataCommand::new().manifest_path(root().join("Cargo.toml")).no_deps().exec().unwrap()
}

/// Direct dependencies of each member on other members, without those for tests.
fn directions() -> BTreeMap<String, BTreeSet<String>> {
    let metadata = metadata();
    let members: BTreeSet<String> =
        metadata.packages.iter().map(|package| package.name.to_string()).collect();
    let ours = |package: &cargo_metadata::Package| -> BTreeSet<String> {
        let normal =
            package.dependencies.iter().filter(|dependency| dependency.kind != DependencyKind::Development);
        normal.map(|dependency| dependency.name.clone()).filter(|name| members.contains(name)).collect()
    };
    metadata.packages.iter().map(|package| (package.name.to_string(), ours(package))).collect()
}

fn functions() -> Vec<PathBuf> {
    let folders = std::fs::read_dir(root().join("functions")).unwrap();
    folders.map(|entry| entry.unwrap().path()).filter(|path| path.is_dir()).collect()
}

#[test]
fn shared_crates_depend_only_downwards() {
    let directions = directions();
    let allowed: [(&str, &[&str]); 7] = [
        ("claviger-domain", &[]),
        ("claviger-envelope", &[]),
        // The control plane only as a feature of its own: a vendor's app needs none of it.
        ("claviger-reencrypt", &["claviger-app", "claviger-domain", "claviger-envelope"]),
        ("claviger-app", &["claviger-domain"]),
        ("claviger-aws", &["claviger-app", "claviger-domain"]),
        ("claviger-lambda", &["claviger-app", "claviger-aws", "claviger-domain"]),
        ("claviger-testkit", &["claviger-app", "claviger-domain"]),
    ];
    for (name, may) in allowed {
        let may: BTreeSet<String> = may.iter().map(ToString::to_string).collect();
        let does = &directions[name];
        assert!(does.is_subset(&may), "{name} depends on {:?}", does.difference(&may));
    }
}

#[test]
fn functions_depend_on_shared_crates_only_and_nothing_depends_on_a_function() {
    let directions = directions();
    let functions: BTreeSet<String> = functions()
        .iter()
        .map(|path| format!("claviger-{}", path.file_name().unwrap().to_str().unwrap()))
        .collect();
    assert!(functions.len() >= 8);
    let may = [
        "claviger-app",
        "claviger-aws",
        "claviger-domain",
        "claviger-envelope",
        "claviger-lambda",
        "claviger-reencrypt",
    ];
    for function in &functions {
        for other in &directions[function] {
            assert!(may.contains(&other.as_str()), "{function} depends on {other}");
        }
    }
    for (name, others) in &directions {
        assert!(others.is_disjoint(&functions), "{name} depends on a function");
    }
}

#[test]
fn a_vendors_app_that_moves_its_own_records_needs_nothing_of_the_control_plane() {
    let metadata = metadata();
    let own = metadata.packages.iter().find(|package| *package.name == "claviger-reencrypt").unwrap();
    let always =
        own.dependencies.iter().filter(|one| one.kind != DependencyKind::Development && !one.optional);
    let ours: Vec<&str> =
        always.map(|one| one.name.as_str()).filter(|name| name.starts_with("claviger")).collect();
    assert_eq!(ours, ["claviger-envelope"]);
    assert!(!own.features.contains_key("default"));
}

#[test]
fn no_product_crate_depends_on_a_test_crate() {
    for (name, others) in directions() {
        if !["claviger-testkit", "claviger-proof", "claviger-tests"].contains(&name.as_str()) {
            for test in ["claviger-testkit", "claviger-proof", "claviger-customer-cloud", "claviger-tests"] {
                assert!(!others.contains(test), "{name} depends on {test}");
            }
        }
    }
}

/// Crates that do I/O, read a clock or an environment, or log.
const IMPURE: [&str; 11] = [
    "aws-config",
    "aws-smithy-runtime",
    "axum",
    "env_logger",
    "hyper",
    "lambda_runtime",
    "mio",
    "reqwest",
    "rustls",
    "tokio",
    "tracing",
];

#[test]
fn the_domain_depends_on_nothing_that_does_io_however_deep() {
    let metadata = MetadataCommand::new().manifest_path(root().join("Cargo.toml")).exec().unwrap();
    let resolve = metadata.resolve.as_ref().unwrap();
    let names: BTreeMap<_, _> =
        metadata.packages.iter().map(|p| (p.id.clone(), p.name.to_string())).collect();
    let domain = names.iter().find(|(_, name)| *name == "claviger-domain").unwrap().0;
    let mut seen = BTreeSet::from([domain.clone()]);
    let mut queue = VecDeque::from([domain.clone()]);
    while let Some(id) = queue.pop_front() {
        let node = resolve.nodes.iter().find(|node| node.id == id).unwrap();
        for dependency in &node.deps {
            let tests_only = dependency.dep_kinds.iter().all(|kind| kind.kind == DependencyKind::Development);
            if !tests_only && seen.insert(dependency.pkg.clone()) {
                queue.push_back(dependency.pkg.clone());
            }
        }
    }
    let reached: BTreeSet<&str> = seen.iter().map(|id| names[id].as_str()).collect();
    for impure in IMPURE {
        assert!(!reached.contains(impure), "the domain reaches {impure}");
    }
}

#[test]
fn the_domain_asks_no_clock_and_no_environment() {
    for file in rust_files(&root().join("shared/domain/src")) {
        let text = std::fs::read_to_string(&file).unwrap();
        for forbidden in
            ["::now()", "std::env::", "std::fs::", "std::net::", "println!", "SystemTime", "Instant"]
        {
            assert!(!text.contains(forbidden), "{} says {forbidden}", file.display());
        }
    }
}

#[test]
fn the_start_of_a_function_fits_a_screen_and_its_library_is_no_dumping_ground() {
    for function in functions() {
        let lines = |file: &str| {
            std::fs::read_to_string(function.join("src").join(file))
                .map(|text| text.lines().count())
                .unwrap_or(0)
        };
        let main = lines("main.rs");
        assert!(main > 0 && main < 90, "{}: main.rs has {main} lines", function.display());
        assert!(lines("lib.rs") < 200, "{}: lib.rs has {} lines", function.display(), lines("lib.rs"));
    }
}

fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(rust_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files
}
