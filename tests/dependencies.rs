//! Which crate may know what, and the dependency audit: licences, sources, versions. All from `cargo metadata`.

use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

// --- the graph of crates ------------------------------------------------------------------------------

/// What `cargo metadata` knows of this workspace, on the platform that runs the tests.
struct Workspace {
    packages: BTreeMap<String, Value>,
    /// Direct dependencies of a package, by package id. A dependency for tests only counts where it is asked for.
    edges: BTreeMap<String, Vec<(String, bool)>>,
    /// Edges, by package ids, of what only runs while another package is built.
    for_building: BTreeSet<(String, String)>,
    members: Vec<String>,
}

impl Workspace {
    fn read() -> Workspace {
        let rustc = Command::new("rustc").arg("-vV").output().expect("rustc runs");
        let version = String::from_utf8(rustc.stdout).expect("rustc writes text");
        let host = version.lines().find_map(|line| line.strip_prefix("host: "));
        let output = Command::new(env!("CARGO"))
            .args(["metadata", "--offline", "--locked", "--format-version", "1"])
            .args(["--filter-platform", host.expect("rustc names its host")])
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .output()
            .expect("cargo runs");
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        let metadata: Value = serde_json::from_slice(&output.stdout).expect("cargo writes JSON");
        let list = |value: &Value| -> Vec<Value> { value.as_array().expect("a list").clone() };
        let text = |value: &Value| value.as_str().expect("a text").to_string();
        let mut for_building = BTreeSet::new();
        let edges = list(&metadata["resolve"]["nodes"]).into_iter().map(|node| {
            let to = list(&node["deps"]).into_iter().map(|dep| {
                let all = |kind: &str| list(&dep["dep_kinds"]).iter().all(|found| found["kind"] == kind);
                if all("build") {
                    for_building.insert((text(&node["id"]), text(&dep["pkg"])));
                }
                let for_tests = all("dev");
                (text(&dep["pkg"]), for_tests)
            });
            (text(&node["id"]), to.collect())
        });
        let edges: BTreeMap<String, Vec<(String, bool)>> = edges.collect();
        let packages = list(&metadata["packages"])
            .into_iter()
            .map(|package| (text(&package["id"]), package))
            .filter(|(id, _)| edges.contains_key(id))
            .collect();
        let members = list(&metadata["workspace_members"]).iter().map(text).collect();
        Workspace {
            packages,
            edges,
            for_building,
            members,
        }
    }

    fn name(&self, id: &str) -> &str {
        self.packages[id]["name"].as_str().expect("a package has a name")
    }

    fn member(&self, name: &str) -> &str {
        let found = self.members.iter().find(|id| self.name(id) == name);
        found.unwrap_or_else(|| panic!("the workspace has no {name}"))
    }

    /// Names of all packages that building `name` takes, and testing it if `tests`.
    fn reached(&self, name: &str, tests: bool) -> BTreeSet<&str> {
        let mut left = vec![(self.member(name), tests)];
        let mut seen = BTreeSet::new();
        while let Some((id, tests)) = left.pop() {
            for (to, for_tests) in &self.edges[id] {
                if (tests || !for_tests) && seen.insert(&to[..]) {
                    left.push((to, false));
                }
            }
        }
        seen.into_iter().map(|id| self.name(id)).collect()
    }
}

/// Words in the names of crates that bring LLVM or MLIR, or need them to build. (libclang, which reads the headers of the
/// solver HiGHS when `passes` is built, is not LLVM to link with.)
const LLVM: [&str; 5] = ["llvm", "mlir", "melior", "inkwell", "tblgen"];

#[test]
fn only_codegen_knows_llvm_and_mlir() {
    let workspace = Workspace::read();
    for member in ["alexc-ir", "alexc-passes", "alexc-runtime"] {
        let reached = workspace.reached(member, true);
        let found: Vec<_> = reached
            .iter()
            .filter(|name| LLVM.iter().any(|word| name.contains(word)))
            .collect();
        assert!(found.is_empty(), "{member} and its tests depend on {found:?}");
    }
    let reached = workspace.reached("alexc-codegen", false);
    assert!(
        reached.contains("melior") && reached.contains("inkwell"),
        "the names that this test looks for are still those of the bindings: {reached:?}"
    );
}

#[test]
fn only_runtime_knows_cuda() {
    let workspace = Workspace::read();
    for member in ["alexc-ir", "alexc-passes", "alexc-codegen"] {
        let reached = workspace.reached(member, true);
        let found: Vec<_> = reached.iter().filter(|name| name.contains("cuda")).collect();
        assert!(found.is_empty(), "{member} depends on {found:?}");
    }
}

#[test]
fn passes_codegen_and_runtime_depend_on_ir_and_not_on_each_other() {
    let workspace = Workspace::read();
    let ours: BTreeSet<&str> = workspace.members.iter().map(|id| workspace.name(id)).collect();
    for id in &workspace.members {
        let name = workspace.name(id);
        let reached = workspace.reached(name, true);
        let found: BTreeSet<&str> = reached.intersection(&ours).copied().collect();
        let expected: &[&str] = match name {
            "alexc" => &["alexc-codegen", "alexc-ir", "alexc-passes", "alexc-runtime"],
            "alexc-ir" => &[],
            _ => &["alexc-ir"],
        };
        assert_eq!(
            found,
            expected.iter().copied().collect(),
            "what {name} depends on"
        );
    }
}

// --- the dependency audit -----------------------------------------------------------------------------

/// Licences that ask for a notice at the most.
const PERMISSIVE: [&str; 13] = [
    "0BSD",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "CC0-1.0",
    "ISC",
    "MIT",
    "Unicode-3.0",
    "Unicode-DFS-2016",
    "Unlicense",
    "Zlib",
];

/// Whether a licence expression (SPDX; also the old `A/B` for `A OR B`) can be met with permissive licences.
fn is_permissive(expression: &str) -> bool {
    let spaced = expression
        .replace('/', " OR ")
        .replace('(', " ( ")
        .replace(')', " ) ");
    let words: Vec<&str> = spaced.split_whitespace().collect();
    let mut rest = &words[..];
    let permissive = either(&mut rest);
    permissive && rest.is_empty()
}

fn either(words: &mut &[&str]) -> bool {
    let mut permissive = both(words);
    while let ["OR", rest @ ..] = *words {
        *words = rest;
        permissive |= both(words);
    }
    permissive
}

fn both(words: &mut &[&str]) -> bool {
    let mut permissive = one_licence(words);
    while let ["AND", rest @ ..] = *words {
        *words = rest;
        permissive &= one_licence(words);
    }
    permissive
}

fn one_licence(words: &mut &[&str]) -> bool {
    match *words {
        ["(", rest @ ..] => {
            *words = rest;
            let permissive = either(words);
            let ([")", rest @ ..] | rest) = *words;
            *words = rest;
            permissive
        }
        [name, "WITH", exception, rest @ ..] => {
            *words = rest;
            PERMISSIVE.contains(&&format!("{name} WITH {exception}")[..])
        }
        [name, rest @ ..] => {
            *words = rest;
            PERMISSIVE.contains(name)
        }
        [] => false,
    }
}

/// The licence that a package states, or that its licence file is the text of.
fn licence(package: &Value) -> String {
    if let Some(stated) = package["license"].as_str() {
        return stated.to_string();
    }
    let Some(file) = package["license_file"].as_str() else {
        return String::new();
    };
    let manifest = package["manifest_path"]
        .as_str()
        .expect("a package has a manifest");
    let text = std::fs::read_to_string(Path::new(manifest).with_file_name(file)).unwrap_or_default();
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    if text.contains("Permission is hereby granted, free of charge, to any person obtaining a copy") {
        "MIT".to_string()
    } else if text.starts_with("Apache License Version 2.0") {
        "Apache-2.0".to_string()
    } else {
        format!("as in {file}")
    }
}

#[test]
fn licence_expressions_are_understood() {
    for expression in [
        "MIT",
        "MIT OR Apache-2.0",
        "MIT/GPL-3.0",
        "(MIT OR GPL-3.0) AND Unicode-3.0",
        "Apache-2.0 WITH LLVM-exception",
        "GPL-3.0 OR (MIT AND Zlib)",
    ] {
        assert!(is_permissive(expression), "{expression}");
    }
    for expression in [
        "",
        "GPL-3.0",
        "MIT AND GPL-3.0",
        "(MIT OR GPL-3.0) AND LGPL-2.1",
        "GPL-2.0 WITH Classpath-exception-2.0",
        "MIT AND",
        "MIT Zlib",
    ] {
        assert!(!is_permissive(expression), "{expression}");
    }
}

#[test]
fn dependencies_are_permissive_and_come_from_crates_io() {
    let workspace = Workspace::read();
    let mut problems = Vec::new();
    for (id, package) in &workspace.packages {
        let licence = licence(package);
        if !is_permissive(&licence) {
            problems.push(format!(
                "{id}: the licence {licence:?} is not known as permissive"
            ));
        }
        let source = package["source"].as_str();
        let from_here = workspace.members.contains(id);
        if !from_here && source != Some("registry+https://github.com/rust-lang/crates.io-index") {
            problems.push(format!("{id}: comes from {source:?}, expected crates.io"));
        }
    }
    assert!(problems.is_empty(), "{}", problems.join("\n"));
    assert!(
        workspace.packages.len() > 50,
        "this is not the whole workspace: {}",
        workspace.packages.len()
    );
}

#[test]
fn no_direct_dependency_is_in_programs_in_two_versions() {
    let workspace = Workspace::read();
    let direct: BTreeSet<&str> = workspace
        .members
        .iter()
        .flat_map(|id| &workspace.edges[id])
        .map(|(to, _)| workspace.name(to))
        .collect();
    let mut versions: BTreeMap<&str, Vec<&Value>> = BTreeMap::new();
    let mut left: Vec<&String> = workspace.members.iter().collect();
    let mut seen: BTreeSet<&String> = BTreeSet::new();
    while let Some(id) = left.pop() {
        if !seen.insert(id) {
            continue;
        }
        let package = &workspace.packages[id];
        versions
            .entry(workspace.name(id))
            .or_default()
            .push(&package["version"]);
        let needed = workspace.edges[id].iter().map(|(to, _)| to);
        left.extend(needed.filter(|to| !workspace.for_building.contains(&(id.clone(), (*to).clone()))));
    }
    // egg 0.11 asks for version 1, everything else for version 2; derived code of a few errors.
    let twice = "thiserror";
    for name in direct.into_iter().filter(|name| *name != twice) {
        // What only builds other packages is in no program.
        let found = versions.get(name).map_or(&[][..], |versions| versions);
        assert!(found.len() <= 1, "{name} is there as {found:?}");
    }
}
