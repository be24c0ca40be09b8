//! Factors that come to shared memory through registers, since `cp.async` only copies. Threads load them a step ahead, and
//! put them into shared memory while the step before is multiplied. Where both factors come so, two stages are enough:
//! registers are the third. There are two reasons for it:
//!
//! - *Rounding*: `wgmma` wants bf16 as such, and in global memory there is f32.
//! - *Transposition*: `wgmma` wants the depths of an element in one line, and memory may run along the side, as in the gradients
//!   of weights. A thread loads 4 elements at each of 4 depths, 16 bytes a load, and what it stores, 16 bytes again, are 4
//!   depths of an element. (To turn single words by `cp.async` takes four times the instructions.) Where a tile is too small
//!   to give every thread so many, it takes fewer depths.
//!
//! A word of shared memory has two depths of bf16. Where memory runs along the depth in whole vectors, a thread loads four
//! depths and stores two words.
//!
//! Eight neighbouring lanes load 32 neighbours, a line of memory: with a sector of each of four lines instead, as many
//! requests for sectors as there are lanes limit everything (an H100: a request in 3 cycles, a third of the speed). To store
//! to different banks they must have eight neighbouring lines of shared memory, since the order of parts depends on the
//! line's number (see `warpgroup`). So lines are interleaved: element `4j + i` of 32 is in line `8i + j`. That is also what makes
//! neighbours of the sums that a thread holds: of 32 columns it has 8 that follow each other.

use super::copy::{Element, Fetch};
use super::interleave::{INTERLEAVED, INTERLEAVERS};
use super::{MajorDim, MatrixOperand, Schedule, Tile, Unit};
use crate::gpu::Precision;
use crate::gpu::thread::lanes_type;
use crate::gpu::vector::VECTOR;
use crate::mlir::{Body, Value};

/// Steps that are in shared memory at once where both factors come through registers.
const STAGES: usize = 2;
/// Elements that a thread loads in a step at the most: beside the sums, more do not fit into its registers (tried with ptxas
/// 13.3 on every model: tests/ptx.rs).
const MAX_LOADED: usize = 32;

/// Depths that share a word of shared memory.
pub(super) fn packed(tile: &Tile, precision: Precision) -> usize {
    match tile.unit == Unit::Warpgroup && precision == Precision::Bf16 {
        true => 2,
        false => 1,
    }
}

/// How many depths a thread turns at once of a side with so many elements, of which `packed` share a word: as many as leave
/// no thread without work.
pub(super) fn transposed(tile: &Tile, elements: usize, packed: usize) -> Option<usize> {
    let whole = |&depths: &usize| {
        let at_once = VECTOR * tile.threads * depths / tile.depth;
        at_once.is_multiple_of(INTERLEAVED) && elements.is_multiple_of(at_once)
    };
    [4, 2, 1].into_iter().filter(|&n| n >= packed).find(whole)
}

/// A tile as it is used with these sides, if it is.
pub(super) fn fitted(tile: &Tile, sides: &[MatrixOperand; 2]) -> Option<Tile> {
    let by_registers = sides.iter().filter(|side| side.by_registers);
    let loaded: usize = by_registers
        .map(|side| side.tile * tile.depth / tile.threads)
        .sum();
    let all = sides.iter().all(|side| side.by_registers);
    let fits = loaded <= MAX_LOADED && !sides.iter().any(|side| side.untransposed);
    fits.then_some(Tile {
        stages: if all { STAGES } else { tile.stages },
        ..*tile
    })
}

/// Those whose elements come through registers.
fn through_registers<'f, 's>(fetches: &'f [Fetch<'s>; 2]) -> impl Iterator<Item = &'f Fetch<'s>> {
    fetches.iter().filter(|fetch| fetch.side.by_registers)
}

impl Schedule<'_> {
    /// Depths that share a word of shared memory.
    pub(super) fn packed(&self) -> usize {
        packed(&self.tile, self.precision)
    }

    /// The types of what [`Schedule::load`] gives.
    pub(super) fn loaded_types(&self, fetches: &[Fetch; 2]) -> Vec<String> {
        let types = through_registers(fetches).flat_map(|fetch| {
            let count = fetch.members().count() * fetch.depths.len();
            vec![lanes_type(fetch.side.vector); count]
        });
        types.collect()
    }

    /// Loads a thread's elements of one step, whose depths are counted from one number up to another; of each side in the
    /// order of [`Schedule::each`].
    pub(super) fn load(&self, body: &mut Body, fetches: &[Fetch; 2], from: Value, end: Value) -> Vec<Value> {
        let mut values = vec![];
        for fetch in through_registers(fetches) {
            self.load_side(body, fetch, (from, end), &mut values);
        }
        values
    }

    fn load_side(&self, body: &mut Body, fetch: &Fetch, range: (Value, Value), values: &mut Vec<Value>) {
        let vector = fetch.side.vector;
        let (bytes, ty) = (4 * vector, lanes_type(vector));
        self.each(body, fetch, range, &mut |body, Element { from, .. }| {
            values.push(body.op(format_args!(
                "llvm.load {from} {{alignment = {bytes} : i64}} : !llvm.ptr<1> -> {ty}"
            )));
        });
    }

    /// Stores what was loaded to the stage at `stage` (in words).
    pub(super) fn put(&self, body: &mut Body, fetches: &[Fetch; 2], stage: Value, loaded: &[Value]) {
        let columns = body.sum(self.rows.words as i64, &[(stage, 1)]);
        let mut loaded = loaded;
        for (fetch, stage) in fetches.iter().zip([stage, columns]) {
            if fetch.side.by_registers {
                let (values, rest) = loaded.split_at(fetch.members().count() * fetch.depths.len());
                self.put_side(body, fetch, stage, values);
                loaded = rest;
            }
        }
    }

    fn put_side(&self, body: &mut Body, fetch: &Fetch, stage: Value, values: &[Value]) {
        let MatrixOperand { vector, deep, .. } = *fetch.side;
        let members: Vec<usize> = fetch.members().collect();
        let by_depth: Vec<&[Value]> = values.chunks(members.len()).collect();
        let ty = lanes_type(vector);
        let lane = |body: &mut Body, value: Value, i: usize| match vector {
            1 => value,
            _ => body.op(format_args!("vector.extract {value}[{i}] : f32 from {ty}")),
        };
        for (depths, values) in fetch.depths.chunks(deep).zip(by_depth.chunks(deep)) {
            for (m, &member) in members.iter().enumerate() {
                // Elements side by side with their depths: a vector's lanes are either.
                let (elements, further) = match fetch.side.along {
                    MajorDim::Mn => (vector, 1),
                    MajorDim::K => (1, vector),
                };
                for element in 0..elements {
                    let terms: Vec<Value> = values
                        .iter()
                        .flat_map(|values| (0..further).map(|i| (values[m], element + i)).collect::<Vec<_>>())
                        .map(|(value, i)| lane(body, value, i))
                        .collect();
                    let words = self.words(body, &terms);
                    let line = member + element * INTERLEAVERS;
                    self.put_words(body, fetch, stage, (depths[0], line), &words);
                }
            }
        }
    }

    /// Depths of an element as words of shared memory.
    fn words(&self, body: &mut Body, terms: &[Value]) -> Vec<Value> {
        match self.packed() {
            1 => {
                let bits = |term| body.op(format_args!("arith.bitcast {term} : f32 to i32"));
                terms.iter().map(bits).collect()
            }
            _ => terms.chunks(2).map(|two| pack(body, two[0], two[1])).collect(),
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
