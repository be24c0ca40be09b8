//! Program to text.

use super::attributes::{written_kernel, written_mode, written_program, written_role, written_value};
use super::literal::written_float;
use super::scope::{written_affine, written_expression, written_loop};
use super::token::quote;
use crate::nest::{Affine, Combine, Expr, Index, Loop, Nest, Predicate, Read, Source};
use crate::program::{Kernel, Program, ValueId};
use std::fmt::Write;

/// The combinations of a body, by their words.
pub(super) const COMBINES: [(&str, Combine); 3] = [
    ("none", Combine::None),
    ("sum", Combine::Sum),
    ("max", Combine::Max),
];

/// A program in canonical form: its values, then its kernels in the order they run.
pub fn print(program: &Program) -> String {
    let mut header = vec![
        "program".to_string(),
        quote(&program.model),
        written_mode(program.mode).into(),
    ];
    header.extend(written_program(program));
    let mut text = header.join(" ") + "\n\n";
    for id in 0..program.values.len() {
        text += &value(program, ValueId(id));
    }
    for call in &program.kernels {
        text += "\n";
        text += &kernel(program, call);
    }
    text
}

/// The line of a value.
pub fn value(program: &Program, id: ValueId) -> String {
    let value = program.value(id);
    let mut line = vec![
        format!("%{} {} :", id.0, quote(&value.name)),
        format!("{}{:?}", value.dtype, value.extents),
        written_role(&value.role).to_string(),
    ];
    line.extend(written_value(value));
    line.join(" ") + "\n"
}

/// The block of a kernel.
pub fn kernel(program: &Program, call: &Kernel) -> String {
    let list = |ids: &[ValueId]| {
        let ids: Vec<String> = ids.iter().map(|id| format!("%{}", id.0)).collect();
        ids.join(", ")
    };
    let (operands, results) = (list(&call.operands), list(&call.results));
    let mut header = vec![
        format!("kernel {}({operands})", quote(&call.label)),
        format!("-> ({results})"),
    ];
    header.extend(written_kernel(call));
    let mut text = header.join(" ") + "\n";
    let nest = &call.nest;
    let parallel = nest.parallel.len();
    _ = writeln!(text, "  for{}", loops(nest));
    for (r, read) in nest.reads.iter().enumerate() {
        _ = writeln!(text, "  r{r} = {}", written_read(call, read, parallel));
    }
    if !is_left_out(nest.combine, &nest.body) {
        let how = COMBINES.iter().find(|known| known.1 == nest.combine);
        let how = how.expect("every combination has a word").0;
        _ = writeln!(
            text,
            "  acc = {how}({})",
            written_expression(&nest.body, parallel, 0)
        );
    }
    for (output, &id) in nest.outputs.iter().zip(&call.results) {
        let index: Vec<String> = output
            .index
            .iter()
            .map(|map| written_affine(map, parallel))
            .collect();
        let value = program.value(id);
        let ty = match (output.dtype, &output.extents) == (value.dtype, &value.extents) {
            true => String::new(),
            false => format!(" : {}{:?}", output.dtype, output.extents),
        };
        let stored = written_expression(&output.value, parallel, 0);
        _ = writeln!(text, "  %{}[{}]{ty} = {stored}", id.0, index.join(", "));
    }
    text
}

/// Whether a body says nothing: that of a nest without reduction loops.
fn is_left_out(combine: Combine, body: &Expr) -> bool {
    combine == Combine::None && matches!(body, Expr::Constant(x) if x.to_bits() == 0)
}

fn loops(nest: &Nest) -> String {
    let parallel = nest.parallel.len();
    let shown = |(l, extent): (usize, usize)| format!(" {}<{extent}", written_loop(Loop(l), parallel));
    let mut all = nest.extents().into_iter().enumerate().map(shown);
    let mut text: String = all.by_ref().take(parallel).collect();
    if !nest.reduction.is_empty() {
        text += " over";
        text.extend(all);
    }
    text
}

fn written_read(call: &Kernel, read: &Read, parallel: usize) -> String {
    let index: Vec<String> = read
        .index
        .iter()
        .map(|index| written_index(index, parallel))
        .collect();
    let source = match read.source {
        Source::Intermediate(stage) => format!("stage{stage}"),
        Source::Operand(operand) => match call.operands.get(operand) {
            // Programs with such reads do not verify, and their text is refused.
            None => format!("operand{operand}"),
            Some(id) if call.operands.iter().filter(|other| *other == id).count() > 1 => {
                format!("%{}@{operand}", id.0)
            }
            Some(id) => format!("%{}", id.0),
        },
    };
    let mut text = format!("{source}[{}]", index.join(", "));
    for (g, Predicate { map, low, high }) in read.predicates.iter().enumerate() {
        let before = if g == 0 { " where" } else { "," };
        _ = write!(
            text,
            "{before} {low} <= {} < {high}",
            written_affine(map, parallel)
        );
    }
    if read.padding_value.to_bits() != 0 {
        _ = write!(text, " else {}", written_float(read.padding_value));
    }
    text
}

fn written_index(Index { map, divisor }: &Index, parallel: usize) -> String {
    let written = written_affine(map, parallel);
    match divisor {
        1 => written,
        divisor if is_single(map) => format!("{written} / {divisor}"),
        divisor => format!("({written}) / {divisor}"),
    }
}

/// Whether a map is written without operators that bind more loosely than a division.
fn is_single(map: &Affine) -> bool {
    map.terms.is_empty() || map.as_loop().is_some()
}
