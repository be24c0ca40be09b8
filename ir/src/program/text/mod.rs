//! The text of programs: one value a line, one kernel a block.
//!
//! ```text
//! program tiny infer batch=2
//!
//! %0 x : f32[2, 3, 8, 8] input
//! %1 w : f32[4, 3, 3, 3] parameter init=normal(0.1)
//! %2 y : f32[2, 4, 8, 8] output layout=[0, 2, 3, 1]
//!
//! kernel "conv+relu"(%0, %1) -> (%2)
//!   for i0<2 i1<4 i2<8 i3<8 over k0<3 k1<3 k2<3
//!   r0 = %0[i0, k0, i2 + k1 - 1, i3 + k2 - 1]
//!   r1 = %1[i1, k0, k1, k2]
//!   acc = sum(r0 * r1)
//!   %2[i0, i1, i2, i3] = max(acc, 0.0)
//! ```
//!
//! | line | says |
//! |---|---|
//! | `program NAME MODE key=value ...` | the first line; the mode is `infer`, `train` or `gradients` |
//! | `%ID NAME : TYPE ROLE key=value ...` | a stored value; numbers count from 0 |
//! | `kernel LABEL(%ID, ...) -> (%ID, ...) key=value ...` | a kernel with what it reads and writes; its nest follows |
//! | `for LOOP<EXTENT ... over LOOP<EXTENT ...` | the parallel loops, and the reduction loops |
//! | `READ = %ID[INDEX, ...] where GUARD, ... else NUMBER` | an element that expressions name; the number where it is outside, if not 0 |
//! | `acc = COMBINE(EXPRESSION)` | the body, combined over the reduction loops |
//! | `%ID[INDEX, ...] = EXPRESSION` | what is stored at every point of the parallel loops |
//!
//! An index is an affine map of loops. A divisor stands behind it, as in `(i2 + 1) / 2`: the read is outside where the
//! division leaves a rest. A predicate is `LOW <= MAP < HIGH`. `%7@1` is the operand in position 1, for kernels that read a
//! value twice. A name with other characters than letters, digits, `_` and `.` is written in quotes. The table of
//! attributes is in `attributes.rs`, and an attribute that has its default value is not written.
//!
//! [`parse`] reports everything that is wrong; [`print()`] writes a program so that `parse(print(p))` equals `p`, bit for
//! bit. The parser checks names, numbers and ranks. [`Program::verify`] checks the rest.

mod attributes;
mod expression;
mod literal;
mod nest;
mod parser;
mod printer;
mod resolver;
mod scope;
mod syntax;
mod token;

pub use printer::{kernel, print, value};

use super::Program;
use crate::text::{Diagnostic, MAX_LINES, MAX_SOURCE, Reports};

/// The longest line accepted, in bytes. Tables of constants make long lines.
pub const MAX_LINE: usize = 1 << 20;
/// How deep expressions may nest. Passes and code generation recurse as deep.
pub const MAX_DEPTH: usize = 2_000;
/// The longest name accepted, in bytes. Labels join the names of all fused operations.
pub const MAX_NAME: usize = 1 << 16;
/// The most dimensions of a value, and the most loops of a kind.
pub const MAX_RANK: usize = 32;
/// The most elements of a value, and the most points of a nest's loops.
pub const MAX_ELEMENTS: u64 = 1 << 48;

/// The program that a text describes, or everything that is wrong with it, in the order of its lines.
/// `file_name` is how diagnostics call the source.
pub fn parse(source: &str, file_name: &str) -> Result<Program, Vec<Diagnostic>> {
    let mut reports = Reports::new(source, file_name);
    let program = if source.len() > MAX_SOURCE || reports.line_count() > MAX_LINES {
        let found = format!(
            "a source of {} bytes in {} lines",
            source.len(),
            reports.line_count()
        );
        let expected = format!("at most {MAX_SOURCE} bytes and {MAX_LINES} lines");
        reports.add(0..0, found, expected, "Generate a smaller program.");
        None
    } else {
        resolver::resolve(source, &mut reports)
    };
    match (program, reports.finish()) {
        (Some(program), diagnostics) if diagnostics.is_empty() => Ok(program),
        (_, diagnostics) => Err(diagnostics),
    }
}
