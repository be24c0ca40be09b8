//! The modules of a folder depend on each other without circles, so that each can be read after those that it uses.
//!
//! A folder's modules are its files and subfolders; a subfolder counts as one. What a folder's own `mod.rs` defines is
//! common ground of its modules and is not counted. Dependencies are the paths of the sources, as `syn` parses them.

use petgraph::algo::tarjan_scc;
use petgraph::graphmap::DiGraphMap;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use syn::visit::{self, Visit};

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
                let file =
                    syn::parse_file(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
                let mut paths = Paths::default();
                paths.visit_file(&file);
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

/// The paths of a file, and its `pub use` by the name that they give.
#[derive(Default)]
struct Paths {
    found: Vec<Vec<String>>,
    exports: BTreeMap<String, Vec<String>>,
}

impl Paths {
    fn tree(&mut self, tree: &syn::UseTree, before: &[String], is_public: bool) {
        let joined = |name: &syn::Ident| [before, &[name.to_string()]].concat();
        match tree {
            syn::UseTree::Path(path) => self.tree(&path.tree, &joined(&path.ident), is_public),
            syn::UseTree::Group(group) => {
                let items = group.items.iter();
                items.for_each(|item| self.tree(item, before, is_public));
            }
            syn::UseTree::Name(name) => self.leaf(&name.ident, joined(&name.ident), is_public),
            syn::UseTree::Rename(name) => self.leaf(&name.rename, joined(&name.ident), is_public),
            syn::UseTree::Glob(_) => self.found.push(before.to_vec()),
        }
    }

    fn leaf(&mut self, name: &syn::Ident, path: Vec<String>, is_public: bool) {
        if is_public {
            self.exports.insert(name.to_string(), path.clone());
        }
        self.found.push(path);
    }
}

impl<'ast> Visit<'ast> for Paths {
    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        let is_public = !matches!(item.vis, syn::Visibility::Inherited);
        self.tree(&item.tree, &[], is_public);
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let parts: Vec<String> = path
            .segments
            .iter()
            .map(|segment| segment.ident.to_string())
            .collect();
        if parts.len() > 1 {
            self.found.push(parts);
        }
        visit::visit_path(self, path);
    }

    fn visit_item_mod(&mut self, item: &'ast syn::ItemMod) {
        let is_test = item
            .attrs
            .iter()
            .any(|attribute| attribute.path().is_ident("cfg"));
        if !is_test {
            visit::visit_item_mod(self, item);
        }
    }
}

#[test]
fn modules_depend_on_each_other_without_circles() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut circles = vec![];
    for name in [".", "ir", "passes", "codegen", "runtime"] {
        let found = Crate::read(&root.join(name).join("src")).circles();
        circles.extend(found.into_iter().map(|circle| format!("{name}: {circle}")));
    }
    assert!(circles.is_empty(), "modules in a circle:\n{}", circles.join("\n"));
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
