//! Kernels that do nothing but reach a limit: multiply-adds, or tensor cores, on registers alone or, for warpgroups, on one
//! step in shared memory.

use super::Precision;
use super::contraction::warpgroup::{self, ALIGNMENT, STEP};
use super::thread::{Grid, barrier, emit_function, store_shared};
use crate::access::Operand;
use crate::kernel::KernelText;
use crate::mlir::{Body, Value};

/// Blocks and threads of each.
const BLOCKS: u64 = 132 * 8;
const THREADS: u32 = 256;
/// Rounds of every thread's loop that take a GPU some milliseconds.
pub const ROUNDS: u64 = 4096;
/// Independent sums of a thread: more than an instruction's latency.
const SUMS: usize = 16;
/// Products of a warp in a round.
const PRODUCTS: usize = 8;
/// Columns of a warpgroup's products.
const COLUMNS: usize = 128;
/// Rows of a block of two warpgroups.
const ROWS: usize = 128;

/// Elements of the one result: a sum a thread, so that nothing is left out.
pub fn elements() -> usize {
    (BLOCKS * u64::from(THREADS)) as usize
}

/// A kernel with one result of [`elements`], and its floating-point operations.
/// `warpgroups` says that the architecture has `wgmma`.
pub fn kernel(result: &Operand, precision: Precision, warpgroups: bool, rounds: u64) -> (KernelText, u64) {
    let warpgroups = warpgroups && precision != Precision::F32;
    let line = warpgroup::line(precision);
    let grid = Grid {
        blocks: BLOCKS,
        threads: THREADS,
        shared_bytes: if warpgroups {
            (4 * line * (ROWS + COLUMNS)) as u32
        } else {
            0
        },
        shared_align: ALIGNMENT,
        registers: 0,
    };
    let text = emit_function(
        std::slice::from_ref(result),
        false,
        grid,
        |body, block, thread| {
            let number = body.sum(0, &[(block, i64::from(THREADS)), (thread, 1)]);
            let word = body.op(format_args!("arith.index_cast {number} : index to i32"));
            let start = body.op(format_args!("arith.sitofp {word} : i32 to f32"));
            let sum = match precision {
                Precision::F32 => multiply_adds(body, start, rounds),
                _ if warpgroups => warpgroup_products(body, precision, start, thread, rounds),
                _ => matrix_products(body, start, precision, rounds),
            };
            let address = body.global_address("%a0", "f32", number);
            body.line(format_args!("llvm.store {sum}, {address} : f32, !llvm.ptr<1>"));
        },
    );
    let threads = BLOCKS * u64::from(THREADS) * rounds;
    let flops = match precision {
        Precision::F32 => threads * SUMS as u64 * 2,
        _ if warpgroups => threads / 128 * 2 * 64 * (COLUMNS * STEP) as u64,
        Precision::Tf32 => threads / 32 * PRODUCTS as u64 * 2 * 16 * 8 * 8,
        Precision::Bf16 => threads / 32 * PRODUCTS as u64 * 2 * 16 * 8 * 16,
    };
    (text, flops)
}

/// Repeats `round` on sums that begin with `start`; gives their total.
fn repeat(
    body: &mut Body,
    start: Value,
    (sums, rounds): (usize, u64),
    round: impl FnOnce(&mut Body, &[Value]) -> Vec<Value>,
) -> Value {
    let (low, high) = (body.index(0), body.index(rounds as i64));
    let types = vec!["f32".to_string(); sums];
    let made = body.for_carry(low, high, 1, &vec![start; sums], &types, |body, _, sums| {
        round(body, sums)
    });
    let mut total = made[0];
    for sum in &made[1..] {
        total = body.op(format_args!("arith.addf {total}, {sum} : f32"));
    }
    total
}

fn multiply_adds(body: &mut Body, start: Value, rounds: u64) -> Value {
    let factors: Vec<Value> = (0..SUMS)
        .map(|i| body.op(format_args!("arith.constant {:?} : f32", 1.0 + i as f32 / 1024.0)))
        .collect();
    repeat(body, start, (SUMS, rounds), |body, sums| {
        let pairs = sums.iter().zip(&factors);
        pairs
            .map(|(sum, factor)| body.op(format_args!("math.fma {sum}, {factor}, {start} : f32")))
            .collect()
    })
}

fn matrix_products(body: &mut Body, start: Value, precision: Precision, rounds: u64) -> Value {
    let name = match precision {
        Precision::Bf16 => "m16n8k16.row.col.bf16",
        _ => "m16n8k8.row.col.tf32",
    };
    let bits = body.op(format_args!("arith.bitcast {start} : f32 to i32"));
    repeat(body, start, (4 * PRODUCTS, rounds), |body, sums| {
        let mut made = vec![];
        for four in sums.chunks(4) {
            let sums: Vec<String> = four.iter().map(Value::to_string).collect();
            let ty = "!llvm.struct<(f32, f32, f32, f32)>";
            let product = body.op(format_args!(
                "llvm.call_intrinsic \"llvm.nvvm.mma.{name}\"({bits}, {bits}, {bits}, {bits}, {bits}, {bits}, {}) : (i32, i32, \
                 i32, i32, i32, i32, f32, f32, f32, f32) -> {ty}",
                sums.join(", ")
            ));
            made.extend((0..4).map(|i| body.op(format_args!("llvm.extractvalue {product}[{i}] : {ty}"))));
        }
        made
    })
}

fn warpgroup_products(
    body: &mut Body,
    precision: Precision,
    start: Value,
    thread: Value,
    rounds: u64,
) -> Value {
    let line = warpgroup::line(precision);
    for word in 0..line * (ROWS + COLUMNS) / THREADS as usize {
        let word = body.sum((word * THREADS as usize) as i64, &[(thread, 1)]);
        store_shared(body, word, start, 1);
    }
    warpgroup::show_copies(body);
    barrier(body);
    let group = body.index_op("divui", thread, 128);
    let stage = body.index(0);
    let pairs = warpgroup::descriptors(body, precision, group, stage, line * ROWS);
    repeat(body, start, (COLUMNS / 2, rounds), |body, sums| {
        let sums = warpgroup::begin(body, precision, COLUMNS, &pairs, sums);
        warpgroup::wait(body, &sums)
    })
}
