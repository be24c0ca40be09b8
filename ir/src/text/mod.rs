//! The text format: one operation a line, attributes by name, comments.
//!
//! ```text
//! # AlexNet (2012)
//! model alexnet
//!
//! image        : f32[N, 3, 224, 224] = input()                     shape=[N, 3, 224, 224]
//! conv1.weight : f32[96, 3, 11, 11]  = parameter()                 shape=[96, 3, 11, 11] init=normal std=0.01
//! conv1        : f32[N, 96, 55, 55]  = conv2d(image, conv1.weight) stride=4 pad=[0, 0, 3, 3]
//!
//! output features = conv1
//! ```
//!
//! | statement | says |
//! |---|---|
//! | `model NAME` | the model's name; may be left out, and is the first statement |
//! | `NAME : TYPE = OP(VALUES) key=value ...` | a value; the type may be left out, and is checked where written |
//! | `output NAME = VALUE` | a result of the model |
//! | `update PARAMETER = VALUE` | what a training step writes back |
//!
//! A name is letters, digits, `_` and `.`, and is defined once, above its uses. `N` is the symbolic batch. An
//! attribute's value is an integer, a real number, `true` or `false`, a word, or a list of integers and `N`.
//!
//! [`parse`] reads it and reports everything that is wrong, [`print()`] writes a graph so that `parse(print(g))`
//! equals `g`, and [`format()`] writes a source anew with its comments.

mod diagnostic;
mod literal;
mod operation;
mod parser;
mod printer;
mod resolver;
mod suggest;
mod syntax;
mod token;

pub use diagnostic::{Diagnostic, Label, render};
pub use printer::print;

pub(crate) use diagnostic::Reports;
pub(crate) use token::shorten;

use crate::Graph;
use syntax::{Line, Statement};

/// The longest source accepted, in bytes.
pub const MAX_SOURCE: usize = 16 << 20;
/// The longest line accepted, in bytes.
pub const MAX_LINE: usize = 10_000;
/// The most lines accepted, blank ones included.
pub const MAX_LINES: usize = 200_000;
/// The most statements accepted.
pub const MAX_STATEMENTS: usize = 100_000;
/// The most outputs, and the most updates, accepted.
pub const MAX_OUTPUTS: usize = 10_000;
/// The longest name accepted, in bytes.
pub const MAX_NAME: usize = 200;
/// Where reporting stops.
pub const MAX_DIAGNOSTICS: usize = 1_000;

/// The graph that a text describes, or everything that is wrong with it, in the order of its lines.
/// `file_name` is how diagnostics call the source.
pub fn parse(source: &str, file_name: &str) -> Result<Graph, Vec<Diagnostic>> {
    load(source, file_name).map(|loaded| loaded.1)
}

/// The source in canonical form: as [`print()`] would write it, with its comments, order and single blank
/// lines kept. Formatting twice changes nothing. A source with errors is not formatted.
pub fn format(source: &str, file_name: &str) -> Result<String, Vec<Diagnostic>> {
    let (lines, graph) = load(source, file_name)?;
    Ok(printer::format_lines(&lines, &graph))
}

/// Whether a text is a name that the format can carry.
pub fn is_name(text: &str) -> bool {
    let first = |c: char| c.is_ascii_alphabetic() || c == '_';
    text.len() <= MAX_NAME
        && text.starts_with(first)
        && text.chars().all(|c| first(c) || c.is_ascii_digit() || c == '.')
}

/// Whether a text can name a model: a name in which `-` may stand too.
pub fn is_model_name(text: &str) -> bool {
    is_name(&text.replace('-', "_"))
}

fn load<'s>(source: &'s str, file_name: &str) -> Result<(Vec<Line<'s>>, Graph), Vec<Diagnostic>> {
    let mut reports = Reports::new(source, file_name);
    let lines = read(source, &mut reports);
    let graph = lines.as_ref().map(|lines| resolver::resolve(lines, &mut reports));
    match (lines, graph, reports.finish()) {
        (Some(lines), Some(graph), diagnostics) if diagnostics.is_empty() => Ok((lines, graph)),
        (_, _, diagnostics) => Err(diagnostics),
    }
}

/// All lines that say something, or `None` where the source is beyond a limit.
fn read<'s>(source: &'s str, reports: &mut Reports) -> Option<Vec<Line<'s>>> {
    let too_large = |reports: &mut Reports, at: usize, found: String, most: String| {
        reports.add(at..at, found, most, "Split the model, or generate a smaller one.");
        None
    };
    if source.len() > MAX_SOURCE {
        return too_large(
            reports,
            0,
            format!("a source of {} bytes", source.len()),
            format!("at most {MAX_SOURCE}"),
        );
    }
    if reports.line_count() > MAX_LINES {
        let found = format!("a source of {} lines", reports.line_count());
        return too_large(reports, 0, found, format!("at most {MAX_LINES}"));
    }
    let mut lines = vec![];
    let (mut offset, mut statements, mut after_blank) = (0, 0, false);
    for raw in source.split('\n') {
        let at = offset;
        offset += raw.len() + 1;
        let text = if at == 0 {
            raw.trim_start_matches('\u{feff}')
        } else {
            raw
        };
        let start = at + raw.len() - text.len();
        if text.trim().is_empty() {
            after_blank = !lines.is_empty();
            continue;
        }
        if text.len() > MAX_LINE {
            let found = format!("a line of {} bytes", text.len());
            reports.add(
                start..start,
                found,
                format!("at most {MAX_LINE}"),
                "One statement is one short line.",
            );
            let name = parser::first_word(text, start);
            lines.push(Line {
                statement: Some(Statement::Broken(name)),
                comment: None,
                after_blank,
            });
            continue;
        }
        let (line, error) = parser::line(text, start, after_blank);
        after_blank = false;
        if let Some(error) = error {
            reports.add(error.span, error.found, error.expected, parser::REMEDY);
        }
        if line.statement.is_some() {
            statements += 1;
        }
        if statements > MAX_STATEMENTS {
            let found = format!("more than {MAX_STATEMENTS} statements");
            return too_large(reports, start, found, format!("at most {MAX_STATEMENTS}"));
        }
        lines.push(line);
    }
    Some(lines)
}
