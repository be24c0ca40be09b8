//! Texts and what becomes of them, one concern a file: `golden/KIND/NAME.ir` beside `golden/KIND/NAME.txt`.
//! `BLESS=1 cargo test -p alexc-ir --test golden` writes the expected texts anew.

use std::fs;
use std::path::{Path, PathBuf};

/// Compares `become(source, file name)` of every source of a kind with the text beside it.
fn check(kind: &str, become_text: impl Fn(&str, &str) -> String) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden")
        .join(kind);
    let mut sources: Vec<PathBuf> = fs::read_dir(&folder)
        .expect("the folder of golden texts is part of the repository")
        .map(|entry| entry.expect("a folder can be listed").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "ir"))
        .collect();
    sources.sort();
    assert!(!sources.is_empty(), "no sources in {}", folder.display());
    let mut differences = String::new();
    for path in sources {
        let source = fs::read_to_string(&path).expect("a golden source can be read");
        let name = path
            .file_name()
            .expect("a listed file has a name")
            .to_string_lossy()
            .into_owned();
        let found = become_text(&source, &name);
        let expected_path = path.with_extension("txt");
        if std::env::var_os("BLESS").is_some() {
            fs::write(&expected_path, &found).expect("a golden text can be written");
        }
        let expected = fs::read_to_string(&expected_path).unwrap_or_default();
        if found != expected {
            differences += &format!("--- {kind}/{name}, expected:\n{expected}\n--- found:\n{found}\n");
        }
    }
    assert!(
        differences.is_empty(),
        "{differences}BLESS=1 accepts what was found"
    );
}

#[test]
fn errors_are_shown_with_their_place_and_a_remedy() {
    check("errors", |source, name| match ir::text::parse(source, name) {
        Ok(_) => panic!("{name} has no errors"),
        Err(errors) => ir::text::render(&errors, source, false),
    });
}

#[test]
fn errors_in_programs_are_shown_with_their_place_and_a_remedy() {
    check("program_errors", |source, name| {
        match ir::program::text::parse(source, name) {
            Ok(_) => panic!("{name} has no errors"),
            Err(errors) => ir::text::render(&errors, source, false),
        }
    });
}

#[test]
fn a_graph_prints_as_a_table() {
    check("print", |source, name| {
        let graph = parse(source, name);
        let printed = ir::text::print(&graph);
        assert_eq!(parse(&printed, name), graph, "{name}");
        printed
    });
}

#[test]
fn formatting_keeps_comments_and_changes_nothing_the_second_time() {
    check("fmt", |source, name| {
        let format = |source: &str| {
            ir::text::format(source, name)
                .unwrap_or_else(|errors| panic!("{}", ir::text::render(&errors, source, false)))
        };
        let formatted = format(source);
        assert_eq!(format(&formatted), formatted, "{name}");
        assert_eq!(parse(&formatted, name), parse(source, name), "{name}");
        let comments = |text: &str| -> Vec<String> {
            text.lines()
                .filter_map(|l| Some(l[l.find('#')?..].trim_end().to_string()))
                .collect()
        };
        assert_eq!(comments(&formatted), comments(source), "{name}");
        formatted
    });
}

#[test]
fn colours_appear_when_asked_for_only() {
    let source = "y = relu(x)\noutput y = y";
    let errors = ir::text::parse(source, "m.ir").expect_err("x is unknown");
    assert!(ir::text::render(&errors, source, true).contains('\u{1b}'));
    assert!(!ir::text::render(&errors, source, false).contains('\u{1b}'));
}

fn parse(source: &str, name: &str) -> ir::Graph {
    ir::text::parse(source, name)
        .unwrap_or_else(|errors| panic!("{}", ir::text::render(&errors, source, false)))
}
