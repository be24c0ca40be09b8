//! The modules of a folder depend on each other without circles, so that each can be read after those that it uses.
//!
//! A folder's modules are its files and subfolders; a subfolder counts as one. What a folder's own `mod.rs` defines is
//! common ground of its modules and is not counted. Dependencies are the paths that begin with `crate`, `super` or `self`,
//! and what modules re-export.

use petgraph::algo::tarjan_scc;
use petgraph::graphmap::DiGraphMap;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// A module by the names of the modules around it and its own; the crate itself has none.
type Module = Vec<String>;

/// The modules of a crate: what each refers to, and what it re-exports from where.
#[derive(Default)]
struct Crate {
    paths: BTreeMap<Module, Vec<Vec<String>>>,
    exports: BTreeMap<Module, BTreeMap<String, Vec<String>>>,
}

impl Crate {
    fn read(sources: &Path) -> Crate {
        let mut found = Crate::default();
        found.read_folder(sources, &vec![]);
        assert!(found.paths.len() > 3, "{} is not a crate", sources.display());
        found
    }

    fn read_folder(&mut self, folder: &Path, module: &Module) {
        for entry in std::fs::read_dir(folder).expect("a folder of sources can be listed") {
            let path = entry.expect("a folder of sources can be listed").path();
            let name = path
                .file_stem()
                .expect("a file has a name")
                .to_string_lossy()
                .into_owned();
            let inner = [&module[..], std::slice::from_ref(&name)].concat();
            if path.is_dir() && name != "bin" {
                self.read_folder(&path, &inner);
            } else if path.extension().is_some_and(|extension| extension == "rs") && name != "main" {
                let own = if ["mod", "lib"].contains(&&name[..]) {
                    module.clone()
                } else {
                    inner
                };
                let text = std::fs::read_to_string(&path).expect("a source is text");
                let mut paths = Paths::default();
                paths.read(&without_comments_and_tests(&text));
                self.exports.insert(own.clone(), paths.exports);
                self.paths.insert(own, paths.found);
            }
        }
    }

    /// The module that a path names, as seen from another one; `None` if it leaves the crate or names no module of it.
    fn resolve(&self, from: &Module, path: &[String]) -> Option<Module> {
        let mut at = from.clone();
        let mut rest = path;
        match &path.first()?[..] {
            "crate" => at = vec![],
            "self" => {}
            "super" => _ = at.pop(),
            first => {
                // A module of this one, by its name.
                at.push(first.to_string());
                return self.paths.contains_key(&at).then(|| self.descend(at, &path[1..]));
            }
        }
        rest = &rest[1..];
        while rest.first().is_some_and(|part| part == "super") {
            at.pop();
            rest = &rest[1..];
        }
        Some(self.descend(at, rest))
    }

    fn descend(&self, mut at: Module, rest: &[String]) -> Module {
        let Some(part) = rest.first() else { return at };
        if let Some(path) = self.exports.get(&at).and_then(|exports| exports.get(part)) {
            return self.resolve(&at, path).unwrap_or(at);
        }
        at.push(part.clone());
        match self.paths.contains_key(&at) {
            true => self.descend(at, &rest[1..]),
            false => {
                at.pop();
                at
            }
        }
    }

    /// The groups of modules of one folder that depend on each other.
    fn circles(&self) -> Vec<String> {
        // By folder: which of its modules refers to which, and from where.
        let mut folders: BTreeMap<Module, BTreeSet<(String, String)>> = BTreeMap::new();
        for (from, paths) in &self.paths {
            for to in paths.iter().filter_map(|path| self.resolve(from, path)) {
                let common = from.iter().zip(&to).take_while(|(a, b)| a == b).count();
                if let (Some(a), Some(b)) = (from.get(common), to.get(common)) {
                    let folder = folders.entry(from[..common].to_vec()).or_default();
                    folder.insert((a.clone(), b.clone()));
                }
            }
        }
        let mut circles = vec![];
        for (folder, edges) in &folders {
            let graph = DiGraphMap::<&str, ()>::from_edges(edges.iter().map(|(a, b)| (&a[..], &b[..])));
            for group in tarjan_scc(&graph).into_iter().filter(|group| group.len() > 1) {
                let inside =
                    |edge: &&(String, String)| group.contains(&&edge.0[..]) && group.contains(&&edge.1[..]);
                let edges = edges.iter().filter(inside).map(|(a, b)| format!("{a} -> {b}"));
                circles.push(format!(
                    "{}: {}",
                    folder.join("::"),
                    edges.collect::<Vec<_>>().join(", ")
                ));
            }
        }
        circles
    }
}

/// The code of a source up to its unit tests; comments are gone.
fn without_comments_and_tests(source: &str) -> String {
    let lines = source.lines().take_while(|line| !line.contains("#[cfg(test)]"));
    let code = lines.map(|line| line.split("//").next().unwrap_or_default());
    code.collect::<Vec<_>>().join("\n")
}

/// The paths of a file, and its `pub use` by the name that they give.
#[derive(Default)]
struct Paths {
    found: Vec<Vec<String>>,
    exports: BTreeMap<String, Vec<String>>,
}

impl Paths {
    fn read(&mut self, code: &str) {
        let is_part = |c: char| c.is_alphanumeric() || c == '_';
        for root in ["crate", "super", "self"] {
            for (at, _) in code.match_indices(root) {
                let begins = !code[..at].ends_with(is_part) && !code[..at].ends_with("::");
                if begins && code[at + root.len()..].starts_with("::") {
                    let mut all = vec![];
                    tree(&code[at..], &[], &mut all);
                    self.found.extend(all.into_iter().map(|(path, _)| path));
                }
            }
        }
        for (at, word) in code.match_indices("pub use ") {
            let mut all = vec![];
            tree(&code[at + word.len()..], &[], &mut all);
            self.exports
                .extend(all.into_iter().map(|(path, name)| (name, path)));
        }
    }
}

/// Adds the paths of a tree such as `a::{b, c::d as e}` at the start of `code`, each with the name that it gives; returns
/// what follows the tree.
fn tree<'c>(code: &'c str, before: &[String], all: &mut Vec<(Vec<String>, String)>) -> &'c str {
    let code = code.trim_start();
    if let Some(mut rest) = code.strip_prefix('{') {
        loop {
            rest = rest.trim_start();
            match rest.strip_prefix('}') {
                Some(rest) => return rest,
                None if rest.is_empty() => return rest,
                None => rest = tree(rest, before, all).trim_start(),
            }
            rest = rest.strip_prefix(',').unwrap_or(rest);
        }
    }
    let word = |code: &str| -> usize {
        let end = code.find(|c: char| !c.is_alphanumeric() && c != '_');
        end.unwrap_or(code.len())
    };
    let end = word(code);
    if end == 0 {
        // A glob, or generic arguments: the path so far.
        all.push((before.to_vec(), String::new()));
        let mut rest = code.chars();
        rest.next();
        return rest.as_str();
    }
    let path = [before, &[code[..end].to_string()]].concat();
    let rest = &code[end..];
    if let Some(rest) = rest.strip_prefix("::") {
        return tree(rest, &path, all);
    }
    if let Some(renamed) = rest.strip_prefix(" as ") {
        let end = word(renamed);
        all.push((path, renamed[..end].to_string()));
        return &renamed[end..];
    }
    let name = path.last().cloned().unwrap_or_default();
    all.push((path, name));
    rest
}

/// Circles that are still there, to be untied: a new one fails the test, and so does one that is gone and still listed.
const LEFT: &[&str] = &[
    ".: : cache -> calibrate, cache -> compile, cache -> costs, calibrate -> costs, calibrate -> peak, cases -> compile, compile -> cases, compile -> costs, costs -> cache, costs -> compile, costs -> kernel_times, kernel_times -> cache, peak -> costs",
    "ir: program::text: expression -> parser, parser -> expression",
    "ir: program::text: nest -> resolver, resolver -> nest",
    "passes: partition: formulation -> resident, formulation -> search, neighbourhoods -> formulation, neighbourhoods -> search, resident -> search, search -> neighbourhoods, search -> resident",
    "runtime: : data -> weights, preprocess_state -> data, weights -> preprocess_state",
    "runtime: device: cpu -> cuda, cpu -> sim, cuda -> sim, sim -> cpu, sim -> cuda",
];

#[test]
fn modules_depend_on_each_other_without_circles() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut circles = vec![];
    for name in [".", "ir", "passes", "codegen", "runtime"] {
        let found = Crate::read(&root.join(name).join("src")).circles();
        circles.extend(found.into_iter().map(|circle| format!("{name}: {circle}")));
    }
    assert_eq!(circles, LEFT, "modules in a circle:\n{}", circles.join("\n"));
}

#[test]
fn a_circle_is_found_in_whatever_way_a_module_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    };
    write("lib.rs", "mod a; mod b; mod c; mod d; pub use b::Thing;");
    write("a/mod.rs", "mod inner; pub struct Shared;");
    write(
        "a/inner.rs",
        "use super::Shared; fn f() -> crate::Thing { todo() }",
    );
    write("b.rs", "pub struct Thing; fn g() { super::c::h() }");
    write("c.rs", "pub fn h() {}");
    write("d.rs", "fn k() { crate::c::h() }");
    assert_eq!(Crate::read(folder.path()).circles(), Vec::<String>::new());
    write("c.rs", "use super::a::{self, Shared}; pub fn h() {}");
    assert_eq!(Crate::read(folder.path()).circles(), [": a -> b, b -> c, c -> a"]);
    write(
        "c.rs",
        "pub fn h() {} #[cfg(test)] mod tests { use crate::a::Shared; }",
    );
    assert_eq!(Crate::read(folder.path()).circles(), Vec::<String>::new());
}
