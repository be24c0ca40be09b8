//! Factors that become bf16 on their way to shared memory, where `wgmma` wants them as such. In global memory they are f32
//! and `cp.async` only copies, so threads load them into registers, one step ahead, and round and store them while the step
//! before is multiplied. Two stages are enough: registers are the third.
//!
//! A word of shared memory has two depths. Where memory runs along the depth in whole vectors, a thread loads four depths
//! and stores two words; else it loads two depths one by one.

use super::copy::{Element, Fetch};
use super::{Schedule, Tile, Unit, warpgroup};
use crate::emit::argument_name;
use crate::gpu::Precision;
use crate::gpu::thread::{barrier, lanes_type};
use crate::mlir::{Body, Value};
use crate::scalar::{Lanes, Math};

/// Steps that are in shared memory at once.
const STAGES: usize = 2;
/// Elements that a thread loads in a step at the most: beside the sums, more do not fit into its registers (tried with ptxas
/// 13.3 on every model: tests/ptx.rs).
const MOST_LOADED: usize = 32;

/// Whether a tile's factors become bf16 before they are in shared memory.
fn converts(tile: &Tile, precision: Precision) -> bool {
    tile.unit == Unit::Warpgroup && precision == Precision::Bf16
}

/// A tile as it is used for products of a precision, if it is.
pub(super) fn fitted(tile: &Tile, precision: Precision) -> Option<Tile> {
    if !converts(tile, precision) {
        return Some(*tile);
    }
    let loaded = (tile.rows + tile.columns) * tile.depth / tile.threads;
    (loaded <= MOST_LOADED).then_some(Tile {
        stages: STAGES,
        ..*tile
    })
}

impl Schedule<'_> {
    pub(super) fn converts(&self) -> bool {
        converts(&self.tile, self.precision)
    }

    /// Depths that share a word of shared memory.
    pub(super) fn packed(&self) -> usize {
        if self.converts() { 2 } else { 1 }
    }

    /// A thread's sums over the depths counted from `from` up to `end`; see [`Schedule::sum`].
    pub(super) fn sum_converted(
        &self,
        body: &mut Body,
        fetches: &[Fetch; 2],
        (from, end): (Value, Value),
        group: Value,
    ) -> Vec<Value> {
        let (depth, words) = (self.tile.depth as i64, self.stage_words() as i64);
        let load =
            |body: &mut Body, from: Value| fetches.each_ref().map(|fetch| self.load(body, fetch, from, end));
        let put = |body: &mut Body, stage: Value, values: [&[Value]; 2]| {
            let after = body.sum(self.rows.words as i64, &[(stage, 1)]);
            for ((fetch, values), stage) in fetches.iter().zip(values).zip([stage, after]) {
                self.put(body, fetch, stage, values);
            }
        };
        let first = load(body, from);
        let stage = body.index(0);
        put(body, stage, [&first[0], &first[1]]);
        let next = body.sum(depth, &[(from, 1)]);
        let next = load(body, next);
        let zero = Math {
            body,
            lanes: Lanes::scalar(),
        }
        .constant(0.0);
        // Sums, what was loaded for the next step, and which stage is used in a step and which is filled.
        let (sums, rows) = (self.sums(), next[0].len());
        let mut carried = vec![zero; sums];
        let mut types = vec!["f32".to_string(); sums];
        for (fetch, values) in fetches.iter().zip(&next) {
            types.extend(values.iter().map(|_| lanes_type(fetch.side.vector)));
            carried.extend(values);
        }
        carried.extend([body.index(0), body.index(words)]);
        types.extend(["index".to_string(), "index".to_string()]);
        let (low, high) = (body.index(0), body.index(self.steps() as i64));
        let mut carried = body.for_carry(low, high, 1, &carried, &types, |body, step, carried| {
            let (products, rest) = carried.split_at(sums);
            let (values, stages) = rest.split_at(rest.len() - STAGES);
            warpgroup::show_copies(body);
            barrier(body);
            let products = self.begin_products(body, group, stages[0], products);
            put(body, stages[1], [&values[..rows], &values[rows..]]);
            let ahead = body.sum(2 * depth, &[(from, 1), (step, depth)]);
            let next = load(body, ahead);
            let mut carried = warpgroup::wait(body, &products);
            carried.extend(next.concat());
            carried.extend([stages[1], stages[0]]);
            carried
        });
        carried.truncate(sums);
        carried
    }

    /// Loads a thread's elements of one step, in the order of [`Schedule::each`].
    fn load(&self, body: &mut Body, fetch: &Fetch, from: Value, end: Value) -> Vec<Value> {
        let vector = fetch.side.vector;
        let name = argument_name(self.nest.reads[fetch.side.read].argument);
        let (bytes, ty) = (4 * vector, lanes_type(vector));
        let mut values = vec![];
        self.each(
            body,
            fetch,
            (from, end),
            &mut |body, Element { inside, from, .. }| {
                // What is outside stands for zero; the array's begin can be loaded instead.
                let begin = body.index(0);
                let begin = body.global_address(&name, "f32", begin);
                let from = body.op(format_args!(
                    "llvm.select {inside}, {from}, {begin} : i1, !llvm.ptr<1>"
                ));
                let loaded = body.op(format_args!(
                    "llvm.load {from} {{alignment = {bytes} : i64}} : !llvm.ptr<1> -> {ty}"
                ));
                let lanes = Lanes {
                    width: vector,
                    mask: None,
                };
                let zero = Math { body, lanes }.constant(0.0);
                values.push(body.op(format_args!("arith.select {inside}, {loaded}, {zero} : {ty}")));
            },
        );
        values
    }

    /// Stores what was loaded to the stage at `stage` (in words), as bf16.
    fn put(&self, body: &mut Body, fetch: &Fetch, stage: Value, values: &[Value]) {
        let members: Vec<usize> = fetch.members().collect();
        let by_depth: Vec<&[Value]> = values.chunks(members.len()).collect();
        let depths: Vec<Value> = fetch.depths.clone();
        let vector = fetch.side.vector;
        if vector > 1 {
            let ty = lanes_type(vector);
            for (&depth, values) in depths.iter().zip(by_depth) {
                for (&member, value) in members.iter().zip(values) {
                    let lanes: Vec<Value> = (0..vector)
                        .map(|i| body.op(format_args!("vector.extract {value}[{i}] : f32 from {ty}")))
                        .collect();
                    let words: Vec<Value> = lanes.chunks(2).map(|two| pack(body, two[0], two[1])).collect();
                    self.put_words(body, fetch, stage, (depth, member), &words);
                }
            }
            return;
        }
        for (depths, values) in depths.chunks(2).zip(by_depth.chunks(2)) {
            for (i, &member) in members.iter().enumerate() {
                let word = pack(body, values[0][i], values[1][i]);
                self.put_words(body, fetch, stage, (depths[0], member), &[word]);
            }
        }
    }

    /// Stores neighbouring words, from a depth of an element on.
    fn put_words(
        &self,
        body: &mut Body,
        fetch: &Fetch,
        stage: Value,
        (depth, member): (Value, usize),
        words: &[Value],
    ) {
        let to = self.place_in_shared(body, fetch, stage, depth, member);
        let (value, ty) = match words {
            [word] => (*word, "i32".to_string()),
            _ => {
                let names: Vec<String> = words.iter().map(Value::to_string).collect();
                let ty = format!("vector<{}xi32>", words.len());
                let value = body.op(format_args!("vector.from_elements {} : {ty}", names.join(", ")));
                (value, ty)
            }
        };
        let bytes = 4 * words.len();
        body.line(format_args!(
            "llvm.store {value}, {to} {{alignment = {bytes} : i64}} : {ty}, !llvm.ptr<3>"
        ));
    }
}

/// Two depths as a word of bf16, rounded to the nearest.
pub(super) fn pack(body: &mut Body, low: Value, high: Value) -> Value {
    let packed = body.op(format_args!(
        "llvm.call_intrinsic \"llvm.nvvm.ff2bf16x2.rn\"({high}, {low}) : (f32, f32) -> vector<2xbf16>"
    ));
    body.op(format_args!("llvm.bitcast {packed} : vector<2xbf16> to i32"))
}
