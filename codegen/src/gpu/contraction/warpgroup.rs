//! The arithmetic of one step by warpgroups: four warps multiply 64 rows by all columns of the tile with one instruction
//! (`wgmma`, on sm_90a), which reads both sides from shared memory by itself while the threads fetch what comes next.
//!
//! A line of shared memory is the depths of one element in a step, in parts of 16 bytes: eight of tf32, four of bf16. Part
//! `p` of line `r` lies where part `p ^ (r mod 8)` would, or `p ^ (r/2 mod 4)` (the swizzles of 128 and 64 bytes of the PTX
//! ISA, asynchronous warpgroup-level matrix instructions), so that the same part of eight lines is in all 32 banks, as are
//! 128 bytes along lines. Both ways to fill it hit different banks then: whole parts along a line, where memory runs along
//! the depth; and where memory runs along the side, single words by lanes of 8 lines × 4 words, which transposes on the way.
//!
//! Of tf32 the instruction ignores the low 13 bits of a factor: it is cut, not rounded. Nothing between global and shared
//! memory could round it (`cp.async` only copies), and to round it there afterwards would cost as much as the products.
//! What that means for results is said where tolerances are (`rounding` in tests/kernels/harness.rs). Factors of bf16 are
//! rounded on their way: see `convert`.

use super::Schedule;
use crate::gpu::Precision;
use crate::mlir::{Body, Value};

/// Depths of a step.
pub const STEP: usize = 32;
/// What shared memory begins at a multiple of, in bytes: the order of parts repeats after 8 lines.
pub const ALIGNMENT: u32 = 1024;
/// Rows of one instruction.
const ROWS: usize = 64;
/// Words of a line that one instruction takes.
const WORDS: usize = 8;

/// Words of a line of shared memory.
pub fn line(precision: Precision) -> usize {
    match precision {
        Precision::Bf16 => STEP / 2,
        _ => STEP,
    }
}

/// Where word `word` of line `number` lies within its line.
pub fn swizzled(body: &mut Body, line: usize, number: Value, word: Value) -> Value {
    let turn = body.index_op("divui", number, (STEP / line) as i64);
    let turn = body.index_op("andi", turn, line as i64 / 4 - 1);
    let turn = body.index_op("shli", turn, 2);
    body.op(format_args!("arith.xori {word}, {turn} : index"))
}

/// A matrix descriptor (PTX ISA, matrix descriptor format of `wgmma`) but for the address: swizzled lines of 128 or 64 bytes,
/// in groups of 8. The offset of the other dimension has no meaning in this layout.
fn descriptor(line: usize) -> i64 {
    let swizzle: u64 = if line == STEP { 1 } else { 2 };
    (swizzle << 62 | (8 * line as u64 / 4) << 32 | 1 << 16) as i64
}

/// The descriptors of a step's products, for warpgroup `group` of the block: the step's rows begin at word `stage` of shared
/// memory, its columns `columns` words later; both are multiples of 4.
pub fn descriptors(
    body: &mut Body,
    precision: Precision,
    group: Value,
    stage: Value,
    columns: usize,
) -> Vec<(Value, Value)> {
    let line = line(precision);
    // In units of 16 bytes; rows of a group come after those of the groups before.
    let rows = body.index_op("muli", group, (ROWS * line / 4) as i64);
    let stage = body.index_op("divui", stage, 4);
    let base = body.op("llvm.mlir.addressof @KERNEL_shared : !llvm.ptr<3>");
    let base = body.op(format_args!("llvm.ptrtoint {base} : !llvm.ptr<3> to i64"));
    let four = body.op("arith.constant 4 : i64");
    let base = body.op(format_args!("arith.shrui {base}, {four} : i64"));
    let mut plus = |a: Value, b: i64| {
        let b = body.op(format_args!("arith.constant {b} : i64"));
        body.op(format_args!("arith.addi {a}, {b} : i64"))
    };
    let descriptor = descriptor(line);
    let (left, right) = (
        plus(base, descriptor),
        plus(base, descriptor + columns as i64 / 4),
    );
    let mut further = |a: Value, units: Value| {
        let units = body.op(format_args!("arith.index_castui {units} : index to i64"));
        body.op(format_args!("arith.addi {a}, {units} : i64"))
    };
    let left = further(left, rows);
    let (left, right) = (further(left, stage), further(right, stage));
    (0..line)
        .step_by(WORDS)
        .map(|word| {
            let word = body.op(format_args!("arith.constant {} : i64", word / 4));
            let mut plus = |a: Value| body.op(format_args!("arith.addi {a}, {word} : i64"));
            (plus(left), plus(right))
        })
        .collect()
}

/// Lets `wgmma` see what the threads put into shared memory, once a barrier says that all did. Said of shared memory alone:
/// without, the whole GPU's memory is waited for.
pub fn show_copies(body: &mut Body) {
    body.line(
        "llvm.inline_asm has_side_effects asm_dialect = att \"fence.proxy.async.shared::cta;\", \"~{memory}\" : () -> ()",
    );
}

/// Begins the products of a warpgroup's 64 rows with `columns` columns at pairs of descriptors; [`wait`] ends them, and
/// until then nothing else may touch the sums.
pub fn begin(
    body: &mut Body,
    precision: Precision,
    columns: usize,
    pairs: &[(Value, Value)],
    sums: &[Value],
) -> Vec<Value> {
    // Of bf16 it is also said that neither factor is transposed.
    let (shape, signs) = match precision {
        Precision::Bf16 => ("k16.f32.bf16.bf16", "1, 1, 1, 0, 0"),
        _ => ("k8.f32.tf32.tf32", "1, 1, 1"),
    };
    let count = sums.len();
    let names: Vec<String> = (0..count).map(|i| format!("${i}")).collect();
    let list = names.join(", ");
    let mut text = "wgmma.fence.sync.aligned;".to_string();
    for i in 0..pairs.len() {
        let (a, b) = (count + 2 * i, count + 2 * i + 1);
        text += &format!(
            "\\0A\\09wgmma.mma_async.sync.aligned.m64n{columns}{shape} {{{list}}}, ${a}, ${b}, {signs};"
        );
    }
    text += "\\0A\\09wgmma.commit_group.sync.aligned;";
    let descriptors: Vec<Value> = pairs.iter().flat_map(|&(a, b)| [a, b]).collect();
    in_place(body, &text, &descriptors, sums)
}

/// Waits for the products that were begun; gives the sums.
pub fn wait(body: &mut Body, sums: &[Value]) -> Vec<Value> {
    in_place(body, "wgmma.wait_group.sync.aligned 0;", &[], sums)
}

/// Instructions that change sums where they are. `$0` and so on are the sums, after them the descriptors.
fn in_place(body: &mut Body, text: &str, descriptors: &[Value], sums: &[Value]) -> Vec<Value> {
    let results = vec!["=f".to_string(); sums.len()];
    let given = vec!["l".to_string(); descriptors.len()];
    let same = (0..sums.len()).map(|i| i.to_string());
    let constraints: Vec<String> = results.into_iter().chain(given).chain(same).collect();
    let operands: Vec<String> = descriptors.iter().chain(sums).map(Value::to_string).collect();
    let types: Vec<&str> = descriptors
        .iter()
        .map(|_| "i64")
        .chain(sums.iter().map(|_| "f32"))
        .collect();
    let ty = format!("!llvm.struct<({})>", vec!["f32"; sums.len()].join(", "));
    let made = body.op(format_args!(
        "llvm.inline_asm has_side_effects asm_dialect = att \"{text}\", \"{},~{{memory}}\" {} : ({}) -> {ty}",
        constraints.join(","),
        operands.join(", "),
        types.join(", ")
    ));
    (0..sums.len())
        .map(|i| body.op(format_args!("llvm.extractvalue {made}[{i}] : {ty}")))
        .collect()
}

impl Schedule<'_> {
    /// Begins adding the products of the step in the stage at `stage` (in words) to the sums of warpgroup `group`.
    pub(super) fn begin_products(
        &self,
        body: &mut Body,
        group: Value,
        stage: Value,
        sums: &[Value],
    ) -> Vec<Value> {
        let pairs = descriptors(body, self.precision, group, stage, self.rows.words);
        begin(body, self.precision, self.tile.columns, &pairs, sums)
    }
}
