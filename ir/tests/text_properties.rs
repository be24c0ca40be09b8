//! Properties of the text format: every operation's example and random graphs survive printing and reading,
//! and no text, however broken or large, makes the parser panic or take long.

use ir::graph::Builder;
use ir::ops::{EXAMPLES, Input, MNEMONICS};
use ir::text::{self, Diagnostic};
use ir::{Graph, NodeId, Op, Type};
use proptest::prelude::*;
use std::collections::HashSet;
use std::time::{Duration, Instant};

fn parse(source: &str) -> Graph {
    text::parse(source, "test.ir")
        .unwrap_or_else(|errors| panic!("{source}\n{}", text::render(&errors, source, false)))
}

/// Printing and reading, formatting and binding change nothing that they should not.
fn check_round_trip(graph: &Graph) {
    assert_eq!(ir::verify::verify(graph), Ok(()));
    let printed = text::print(graph);
    assert_eq!(&parse(&printed), graph, "{printed}");
    assert_eq!(text::format(&printed, "test.ir").as_ref(), Ok(&printed));
    if let Ok(bound) = graph.bind(2) {
        assert_eq!(ir::verify::verify(&bound), Ok(()));
        assert_eq!(parse(&text::print(&bound)), bound);
    }
}

#[test]
fn every_example_parses_verifies_prints_and_binds() {
    for (mnemonic, example) in EXAMPLES {
        let graph = parse(example);
        assert!(
            !graph.select(|op| op.mnemonic() == *mnemonic).is_empty(),
            "{mnemonic}: not in its own example"
        );
        check_round_trip(&graph);
        graph
            .bind(2)
            .unwrap_or_else(|error| panic!("{mnemonic}: {error}"));
    }
}

#[test]
fn an_operation_without_operands_is_an_error_not_a_panic() {
    for mnemonic in MNEMONICS {
        for operands in ["", "x", "x, x", "x, x, x, x, x, x, x, x"] {
            let source = format!("x = input() shape=[]\ny = {mnemonic}({operands}) shape=[1]\noutput y = y");
            if let Ok(graph) = text::parse(&source, "test.ir") {
                check_round_trip(&graph);
            }
        }
    }
}

#[test]
fn an_unknown_operation_is_answered_with_all_that_there_are() {
    let errors =
        text::parse("x = transmogrify()\noutput y = x", "test.ir").expect_err("there is no such operation");
    assert_eq!(errors.len(), 1, "{errors:?}");
    for mnemonic in MNEMONICS {
        assert!(
            errors[0].remedy.contains(mnemonic),
            "{mnemonic} is not in: {}",
            errors[0].remedy
        );
    }
}

/// A node that occurs in some example: its operation and the types that it takes.
fn known_applications() -> Vec<(Op, Vec<Type>)> {
    let mut all = vec![];
    for (_, example) in EXAMPLES {
        let graph = parse(example);
        for id in graph.ids() {
            all.push((
                graph.node(id).op.clone(),
                graph.operand_types(id).into_iter().cloned().collect(),
            ));
        }
    }
    all
}

/// Applies known operations to nodes of fitting types, and to new inputs where there is none.
fn random_graph(steps: &[(String, usize, usize)]) -> Graph {
    let known = known_applications();
    let mut builder = Builder::new("random-graph");
    let mut ids: Vec<NodeId> = vec![];
    for (name, which, seed) in steps {
        let (op, types) = &known[which % known.len()];
        let mut operands = vec![];
        for (i, ty) in types.iter().enumerate() {
            let fitting: Vec<NodeId> = ids
                .iter()
                .copied()
                .filter(|&id| builder.node(id).ty == *ty)
                .collect();
            let operand = match fitting.len() {
                0 => {
                    let input = Input {
                        shape: ty.shape.clone(),
                        dtype: ty.dtype,
                    };
                    let id = builder
                        .add_fresh(name, input, &[])
                        .expect("an operand's type can be an input's");
                    ids.push(id);
                    id
                }
                count => fitting[(seed / (i + 1)) % count],
            };
            operands.push(operand);
        }
        ids.push(
            builder
                .add_fresh(name, op.clone(), &operands)
                .expect("the operands have the example's types"),
        );
    }
    for (i, &id) in ids.iter().enumerate() {
        let (name, _, seed) = &steps[i % steps.len()];
        if seed % 3 == 0 {
            builder
                .output(&format!("{name}.{i}"), id)
                .expect("numbered outputs are distinct");
        }
        let ty = builder.node(id).ty.clone();
        let next = ids.iter().copied().rfind(|&other| builder.node(other).ty == ty);
        if seed % 2 == 0 && matches!(builder.node(id).op, Op::Parameter(_)) {
            builder
                .update(id, next.unwrap_or(id))
                .expect("the types are the same and each is updated once");
        }
    }
    builder
        .output("last", *ids.last().expect("there is a step"))
        .expect("the name is fresh");
    builder.finish()
}

/// Pieces that a mutation inserts: edges of what the grammar and the operations accept.
const HOSTILE: &[&str] = &[
    "0",
    "-1",
    "2147483648",
    "2147483649",
    "9223372036854775807",
    "99999999999999999999",
    "1e308",
    "1e-400",
    "NaN",
    "inf",
    "N",
    "[",
    "]",
    "[]",
    "[N]",
    "[N, N]",
    "(",
    ")",
    "()",
    "=",
    ":",
    ",",
    "#",
    "\n",
    "\r",
    "\0",
    "é",
    "\u{202e}",
    "\t",
    ".",
    "-",
    "_",
    "f32[",
    "output",
    "update",
    "model",
    "true",
    "  ",
    "=1",
    "[1, 2, 3, 4]",
    "[2147483648, 2147483648]",
    "shape=",
    "x",
    "groups=3",
    "stride=2147483648",
    "pad=2147483648",
    "kernel=7",
];

fn mutate(source: &str, edits: &[(usize, usize, usize)]) -> String {
    let mut bytes = source.as_bytes().to_vec();
    for &(kind, place, with) in edits {
        let at = place % (bytes.len() + 1);
        let piece = HOSTILE[with % HOSTILE.len()].as_bytes();
        let token_end = (at..bytes.len())
            .find(|&i| !bytes[i].is_ascii_alphanumeric())
            .unwrap_or(bytes.len());
        match kind % 6 {
            0 => bytes.splice(at..at, piece.iter().copied()).for_each(drop),
            1 => bytes.splice(at..token_end, piece.iter().copied()).for_each(drop),
            2 => bytes.drain(at..token_end).for_each(drop),
            3 if at < bytes.len() => bytes[at] = with as u8,
            4 => bytes.truncate(at),
            _ => {
                let copy = bytes[at..(at + with % 40).min(bytes.len())].to_vec();
                bytes.splice(0..0, copy).for_each(drop);
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Reads a text that may be anything; what is wrong has a place in it and can be shown.
fn read_anything(source: &str) {
    match text::parse(source, "test.ir") {
        Ok(graph) => check_round_trip(&graph),
        Err(errors) => {
            assert!(!errors.is_empty());
            for Diagnostic {
                line, column, span, ..
            } in &errors
            {
                assert!(
                    span.start <= span.end && span.end <= source.len(),
                    "{span:?} in {source:?}"
                );
                let lines: Vec<&str> = source.split('\n').collect();
                assert!(
                    lines[line - 1].chars().count() + 1 >= *column,
                    "{line}:{column} in {source:?}"
                );
            }
            text::render(&errors, source, false);
            text::render(&errors, source, true);
        }
    }
}

proptest! {
    #[test]
    fn random_graphs_survive_printing(
        steps in prop::collection::vec(("[A-Za-z_][A-Za-z0-9_.]{0,40}", any::<usize>(), any::<usize>()), 1..20),
    ) {
        check_round_trip(&random_graph(&steps));
    }

    #[test]
    fn mutated_examples_are_read_or_refused(
        which in any::<usize>(),
        edits in prop::collection::vec((any::<usize>(), any::<usize>(), any::<usize>()), 1..6),
    ) {
        read_anything(&mutate(EXAMPLES[which % EXAMPLES.len()].1, &edits));
    }

    #[test]
    fn mutated_models_are_read_or_refused(
        edits in prop::collection::vec((any::<usize>(), any::<usize>(), any::<usize>()), 1..6),
    ) {
        read_anything(&mutate(include_str!("../../models/alexnet-cifar.ir"), &edits));
    }

    #[test]
    fn random_text_is_read_or_refused(source in "[ -~\n\\PC]{0,200}") {
        read_anything(&source);
    }

    #[test]
    fn random_pieces_are_read_or_refused(pieces in prop::collection::vec(0..HOSTILE.len(), 0..60)) {
        read_anything(&pieces.into_iter().map(|i| HOSTILE[i]).collect::<Vec<_>>().join(" "));
    }
}

#[test]
fn random_graphs_hold_operations_not_inputs_only() {
    let graph = random_graph(
        &(0..150)
            .map(|i| (format!("n{i}"), i * 7919, i))
            .collect::<Vec<_>>(),
    );
    let used: HashSet<&str> = graph.ids().map(|id| graph.node(id).op.mnemonic()).collect();
    assert!(used.len() > MNEMONICS.len() / 2, "{used:?}");
}

/// Reads a hostile text within a time that only an algorithm of the wrong order exceeds.
fn read_quickly(what: &str, source: &str) -> Vec<Diagnostic> {
    let start = Instant::now();
    let errors = text::parse(source, "hostile.ir").err().unwrap_or_default();
    text::render(&errors, source, false);
    let took = start.elapsed();
    assert!(took < Duration::from_secs(20), "{what} took {took:?}");
    errors
}

#[test]
fn hostile_sources_are_refused_quickly() {
    let lines = |count: usize, line: &dyn Fn(usize) -> String| (0..count).map(line).collect::<String>();
    let cases: Vec<(&str, String)> = vec![
        ("a source beyond the limit", "#".repeat(text::MAX_SOURCE + 1)),
        ("one line of brackets", "[".repeat(text::MAX_SOURCE)),
        (
            "a statement of nested lists",
            format!("x = input() shape={}", "[".repeat(9_000)),
        ),
        (
            "a long name",
            format!("{} = input() shape=[1]\noutput y = x", "x".repeat(9_000)),
        ),
        ("line breaks", "\n".repeat(text::MAX_SOURCE)),
        (
            "too many statements",
            lines(text::MAX_STATEMENTS + 1, &|i| {
                format!("x{i} = input() shape=[1]\n")
            }),
        ),
        ("too many outputs", {
            let outputs = lines(text::MAX_OUTPUTS + 1, &|i| format!("output o{i} = x\n"));
            format!("x = input() shape=[1]\n{outputs}")
        }),
        (
            "a line of unknown operands",
            format!("y = conv2d({})", vec!["a"; 3_000].join(", ")),
        ),
        (
            "a name defined again and again",
            "x = input() shape=[1]\n".repeat(90_000),
        ),
        ("unknown names that resemble thousands of known ones", {
            let known = lines(40_000, &|i| {
                format!("{}{i:05} = input() shape=[1]\n", "n".repeat(150))
            });
            let unknown = lines(40_000, &|i| format!("output o{i} = {}{i:05}\n", "m".repeat(150)));
            known + &unknown
        }),
        ("lines that cannot be read", "= = =\n".repeat(150_000)),
    ];
    for (what, source) in cases {
        let errors = read_quickly(what, &source);
        assert!(!errors.is_empty(), "{what}: accepted");
        assert!(
            errors.len() <= text::MAX_DIAGNOSTICS,
            "{what}: {} errors",
            errors.len()
        );
        if errors.len() == text::MAX_DIAGNOSTICS {
            assert_eq!(
                errors[errors.len() - 1].found,
                "more errors than are listed",
                "{what}"
            );
        }
    }
}

#[test]
fn the_largest_sources_allowed_are_read_quickly() {
    let chain: String = (1..text::MAX_STATEMENTS - 1)
        .map(|i| format!("x{i} = input() shape=[N, {i}]\n"))
        .collect();
    let source = format!("{chain}output y = x1");
    assert_eq!(read_quickly("a long model", &source), vec![]);
}
