//! The arithmetic of one step by warpgroups: four warps multiply 64 rows by all columns of the tile with one instruction
//! (`wgmma`, on sm_90a), which reads both sides from shared memory by itself while the threads fetch what comes next.
//!
//! A line of shared memory is 128 bytes: the depths of one element in a step, in eight parts of 16 bytes. Part `p` of line
//! `r` lies where part `p ^ (r mod 8)` would (the 128-byte swizzle of the PTX ISA, asynchronous warpgroup-level matrix
//! instructions), so that the same part of eight lines is in all 32 banks, as is a whole line. Both ways to fill it hit
//! different banks then: whole parts along a line, where memory runs along the depth; and where memory runs along the side,
//! single words by lanes of 8 lines × 4 depths, which transposes on the way.
//!
//! The instruction ignores the low 13 bits of a factor: it is cut to tf32, not rounded. Nothing between global and shared
//! memory could round it (`cp.async` only copies), and to round it there afterwards would cost as much as the products.
//! What that means for results is said where tolerances are (`rounding` in tests/kernels/harness.rs).
//!
//! Products of bf16 stay with warps (`multiply`): the instruction wants 16-bit numbers in shared memory, and values are f32
//! in global memory, so `cp.async` cannot bring them.

use super::Schedule;
use crate::mlir::{Body, Value};

/// Words of a line of shared memory, which is a step of the depth.
pub const LINE: usize = 32;
/// Bytes after which the order of parts repeats: 8 lines. Shared memory begins at a multiple of them.
pub const ALIGNMENT: u32 = 1024;
/// Depths of one instruction.
pub const DEEP: usize = 8;
/// Rows of one instruction.
const ROWS: usize = 64;

/// A matrix descriptor (PTX ISA, matrix descriptor format of `wgmma`) but for the address: swizzled lines of 128 bytes,
/// groups of 8 lines 1024 bytes apart. The offset of the other dimension has no meaning in this layout.
const DESCRIPTOR: i64 = 1 << 62 | (ALIGNMENT as i64 >> 4) << 32 | 1 << 16;

/// The descriptors of a step's products, for warpgroup `group` of the block: the step's rows begin at word `stage` of shared
/// memory, its columns `columns` words later; both are multiples of 4.
pub fn descriptors(body: &mut Body, group: Value, stage: Value, columns: usize) -> Vec<(Value, Value)> {
    // In units of 16 bytes; rows of a group come after those of the groups before.
    let rows = body.index_op("muli", group, (ROWS * LINE / 4) as i64);
    let stage = body.index_op("divui", stage, 4);
    let base = body.op("llvm.mlir.addressof @KERNEL_shared : !llvm.ptr<3>");
    let base = body.op(format_args!("llvm.ptrtoint {base} : !llvm.ptr<3> to i64"));
    let four = body.op("arith.constant 4 : i64");
    let base = body.op(format_args!("arith.shrui {base}, {four} : i64"));
    let mut plus = |a: Value, b: i64| {
        let b = body.op(format_args!("arith.constant {b} : i64"));
        body.op(format_args!("arith.addi {a}, {b} : i64"))
    };
    let (left, right) = (
        plus(base, DESCRIPTOR),
        plus(base, DESCRIPTOR + columns as i64 / 4),
    );
    let mut further = |a: Value, units: Value| {
        let units = body.op(format_args!("arith.index_castui {units} : index to i64"));
        body.op(format_args!("arith.addi {a}, {units} : i64"))
    };
    let left = further(left, rows);
    let (left, right) = (further(left, stage), further(right, stage));
    (0..LINE)
        .step_by(DEEP)
        .map(|depth| {
            let depth = body.op(format_args!("arith.constant {} : i64", depth / 4));
            let mut plus = |a: Value| body.op(format_args!("arith.addi {a}, {depth} : i64"));
            (plus(left), plus(right))
        })
        .collect()
}

/// Lets `wgmma` see what the threads put into shared memory, once a barrier says that all did.
pub fn show_copies(body: &mut Body) {
    body.line(
        "llvm.inline_asm has_side_effects asm_dialect = att \"fence.proxy.async;\", \"~{memory}\" : () -> ()",
    );
}

/// Begins the products of a warpgroup's 64 rows with `columns` columns at pairs of descriptors; [`wait`] ends them, and
/// until then nothing else may touch the sums.
pub fn begin(body: &mut Body, columns: usize, pairs: &[(Value, Value)], sums: &[Value]) -> Vec<Value> {
    let count = sums.len();
    let names: Vec<String> = (0..count).map(|i| format!("${i}")).collect();
    let list = names.join(", ");
    let mut text = "wgmma.fence.sync.aligned;".to_string();
    for i in 0..pairs.len() {
        let (a, b) = (count + 2 * i, count + 2 * i + 1);
        text += &format!(
            "\\0A\\09wgmma.mma_async.sync.aligned.m64n{columns}k{DEEP}.f32.tf32.tf32 {{{list}}}, ${a}, ${b}, 1, 1, 1;"
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
        let pairs = descriptors(body, group, stage, self.rows.words);
        begin(body, self.tile.columns, &pairs, sums)
    }
}
