//! House rules that no compiler checks, and that are about the text of the sources: where `unsafe` may stand, how long
//! a file may be, what a module says first, what an operation needs.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every Rust file of the workspace, by its path from the root.
fn sources() -> BTreeMap<PathBuf, String> {
    let mut found = BTreeMap::new();
    let mut folders: Vec<PathBuf> = ["src", "tests", "ir", "passes", "codegen", "runtime"]
        .map(|name| root().join(name))
        .into();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).expect("a folder of sources can be listed") {
            let path = entry.expect("a folder of sources can be listed").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = std::fs::read_to_string(&path).expect("a source is text");
                let name = path.strip_prefix(root()).expect("it was found below the root");
                found.insert(name.to_path_buf(), text);
            }
        }
    }
    assert!(
        found.len() > 100,
        "this is not the whole workspace: {}",
        found.len()
    );
    found
}

/// The code of a Rust source: comments and the contents of strings and characters are gone.
fn code(source: &str) -> String {
    let mut code = String::new();
    let mut rest = source;
    while let Some(first) = rest.chars().next() {
        let raw = rest.trim_start_matches(['b', 'r', 'c']);
        let hashes = raw.len() - raw.trim_start_matches('#').len();
        let is_raw = raw.len() < rest.len() && rest[..rest.len() - raw.len()].ends_with('r');
        let after_word = code.ends_with(|c: char| c.is_alphanumeric() || c == '_');
        let skipped = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            block_comment(rest)
        } else if is_raw && !after_word && raw[hashes..].starts_with('"') {
            let end = format!("\"{}", "#".repeat(hashes));
            let begin = rest.len() - raw.len() + hashes + 1;
            rest[begin..]
                .find(&end)
                .map_or(rest.len(), |at| begin + at + end.len())
        } else if first == '"' {
            quoted(rest, '"')
        } else if first == '\'' && is_character(rest) {
            quoted(rest, '\'')
        } else {
            code.push(first);
            first.len_utf8()
        };
        if skipped > first.len_utf8() {
            code.push(' ');
        }
        rest = &rest[skipped..];
    }
    code
}

/// The length of a block comment, nested ones included.
fn block_comment(text: &str) -> usize {
    let (mut depth, mut at) = (0, 0);
    while at < text.len() {
        let step = match &text.as_bytes()[at..] {
            [b'/', b'*', ..] => {
                depth += 1;
                2
            }
            [b'*', b'/', ..] => {
                depth -= 1;
                2
            }
            _ => 1,
        };
        at += step;
        if depth == 0 {
            break;
        }
    }
    at
}

/// The length of a text in quotes, in which a backslash hides what follows it.
fn quoted(text: &str, quote: char) -> usize {
    let mut hidden = false;
    for (at, c) in text.char_indices().skip(1) {
        if hidden {
            hidden = false;
        } else if c == '\\' {
            hidden = true;
        } else if c == quote {
            return at + 1;
        }
    }
    text.len()
}

/// Whether a quote begins a character, and not a lifetime.
fn is_character(text: &str) -> bool {
    let mut after = text.chars().skip(1);
    after.next() == Some('\\') || after.next() == Some('\'')
}

/// Whether `word` stands in `code` as a word of its own.
fn has_word(code: &str, word: &str) -> bool {
    let is_part = |c: char| c.is_alphanumeric() || c == '_';
    code.match_indices(word)
        .any(|(at, _)| !code[..at].ends_with(is_part) && !code[at + word.len()..].starts_with(is_part))
}

#[test]
fn code_is_told_from_comments_and_texts() {
    let source = r###"
        // unsafe
        /* unsafe /* unsafe */ unsafe */
        let a = "unsafe \" unsafe"; let b = r#"unsafe " unsafe"#; let c = br"unsafe";
        let d = '"'; let e: &'static str = "unsafe"; let f = '\''; let g = "unsafe";
        car!("unsafe"); not_unsafe(); unsafely();
    "###;
    let found = code(source);
    assert!(!has_word(&found, "unsafe"), "{found}");
    for kept in [
        "let a",
        "let b",
        "let c",
        "let d",
        "let e: &'static str",
        "let f",
        "let g",
        "car!(",
    ] {
        assert!(found.contains(kept), "{kept} is not in {found}");
    }
    assert!(has_word(&code("let x = unsafe { y() };"), "unsafe"));
    assert!(has_word(&code("'a: loop { '\\'' } unsafe fn"), "unsafe"));
}

#[test]
fn unsafe_stands_in_the_bridge_and_in_devices_only() {
    let allowed = [
        "codegen/src/bridge.rs",
        "codegen/src/bridge/",
        "runtime/src/device/",
    ];
    let (inside, outside): (Vec<PathBuf>, Vec<PathBuf>) = sources()
        .into_iter()
        .filter(|(_, text)| has_word(&code(text), "unsafe"))
        .map(|(path, _)| path)
        .partition(|path| {
            let path = path.to_string_lossy();
            allowed.iter().any(|allowed| path.starts_with(allowed))
        });
    assert!(
        outside.is_empty(),
        "unsafe in {outside:?}; it belongs into {allowed:?}"
    );
    assert!(!inside.is_empty(), "this test finds no unsafe any more");
}

#[test]
fn nothing_is_left_to_do_and_no_test_is_left_out() {
    let mut problems = Vec::new();
    for (path, text) in sources() {
        let code: String = code(&text).split_whitespace().collect();
        for banned in [
            "todo!(",
            "unimplemented!(",
            "dbg!(",
            "#[ignore",
            ",ignore)",
            ",ignore=",
        ] {
            if code.contains(banned) {
                problems.push(format!("{}: {banned}", path.display()));
            }
        }
    }
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}

/// A file of up to so many lines says nothing about its length ("about 400").
const LONG: usize = 450;

/// Longer files, and why they are not split. A new one gets its reason here, or better: is split by idea.
const WHY_LONG: &[(&str, &str)] = &[
    (
        "codegen/src/emit.rs",
        "the scalar and the vector form of every expression, side by side",
    ),
    (
        "ir/tests/program_text.rs",
        "the text of programs: one of everything, its errors, and random programs and texts",
    ),
    (
        "passes/src/layout.rs",
        "one decision, whose parts weigh the same costs",
    ),
    (
        "passes/src/partition/search.rs",
        "what follows from placing a kernel, what an answer means, and the search that leads from one to the other",
    ),
    ("src/cli.rs", "every command of the program with its flags"),
    ("src/explain.rs", "one report of a search, as text and as JSON"),
    (
        "passes/tests/programs.rs",
        "random nets, and every way in which a program of one is made, each held to the same reference",
    ),
    (
        "passes/tests/compose.rs",
        "every producer with every consumer: two tables and one check",
    ),
];

#[test]
fn a_long_file_says_why() {
    for (path, text) in sources() {
        let lines = text.lines().count();
        let reason = WHY_LONG.iter().find(|(long, _)| Path::new(long) == path);
        assert!(
            lines <= LONG || reason.is_some(),
            "{} has {lines} lines; split it by idea, or say in WHY_LONG why not",
            path.display()
        );
    }
}

#[test]
fn every_module_says_why_it_exists() {
    for (path, text) in sources() {
        assert!(
            text.starts_with("//! "),
            "{} does not begin with //!",
            path.display()
        );
    }
}

/// Files under `ir/src/ops/` that several operations share.
const SHARED: [&str; 4] = ["mod", "build", "operation", "window"];

/// The Rust name of an operation: `max_pool` is `MaxPool`.
fn variant_of(mnemonic: &str) -> String {
    let parts = mnemonic.split('_');
    parts.map(|part| part[..1].to_uppercase() + &part[1..]).collect()
}

#[test]
fn every_operation_has_its_line_its_example_and_its_tests() {
    let sources = sources();
    let registry = code(&sources[Path::new("ir/src/ops/mod.rs")]);
    let table: String = registry
        .split("ops! {")
        .nth(1)
        .expect("the table of operations")
        .into();
    let table: String = table
        .split('}')
        .next()
        .unwrap_or_default()
        .split_whitespace()
        .collect();
    let mut operations = Vec::new();
    for (path, text) in &sources {
        let Ok(file) = path.strip_prefix("ir/src/ops") else {
            continue;
        };
        let name = file.file_stem().expect("a file has a name").to_string_lossy();
        if SHARED.contains(&&name[..]) {
            continue;
        }
        let place = path.display();
        let variant = variant_of(&name);
        let line = format!("{name}::{variant},");
        assert!(
            table.contains(&line),
            "{place} has no line {line} in the ops! table"
        );
        assert!(
            text.contains(&format!("const MNEMONIC: &'static str = \"{name}\"")),
            "{place}: the mnemonic is not the file's name"
        );
        let example = |line: &str| line.starts_with("/// `") && line.contains(&format!(" = {name}("));
        assert!(
            text.lines().any(example),
            "{place}: its documentation does not show `y = {name}(...)`"
        );
        operations.push(name.into_owned());
    }
    assert_eq!(
        table.matches("::").count(),
        operations.len(),
        "lines of the table and files of operations"
    );
    let known: BTreeSet<&str> = operations.iter().map(String::as_str).collect();
    let listed: BTreeSet<&str> = ir::ops::MNEMONICS.iter().copied().collect();
    assert_eq!(known, listed);
    // Tests under ir/tests/ops/ go over all mnemonics. In addition, a test of its own has the operation as a statement
    // (`y = name(x)`) or constructs it (`Name { .. }`); the name in a comment or a message is not a test. Tests compare
    // a gradient (`name_grad`) with central differences of the operation that it belongs to.
    let tests: Vec<&String> = sources
        .iter()
        .filter(|(path, _)| path.starts_with("ir/tests") || path.starts_with("passes/tests"))
        .map(|(_, text)| text)
        .collect();
    for name in known.iter().filter_map(|name| name.split("_grad").next()) {
        let statement = format!("= {name}(");
        let variant = variant_of(name);
        let is_tested = |text: &&String| text.contains(&statement) || has_word(&code(text), &variant);
        assert!(
            tests.iter().any(is_tested),
            "no test of ir or passes has a statement {statement}...) or constructs {variant}"
        );
    }
}
