//! Kernels of any nest: parallel loops as tasks and a vector loop, reductions in registers.
//!
//! This lowering serves maps, windowed reductions and row reductions, and contractions that
//! [`crate::contraction`] does not take. Its schedule: the loop along which outputs are contiguous becomes the
//! vector loop, the outermost loops become tasks, the others nest in the order of the output's memory.

use crate::access::Operand;
use crate::emit::{Point, Scope};
use crate::kernel::{FlatNest, KernelText, delinearize, emit_function};
use crate::mlir::{Body, Value};
use crate::scalar::{Lanes, Math};
use crate::sums::{has_lanes_along, sum};
use ir::nest::{Combine, Expr, Loop, Nest};

/// Tasks are made until there are this many, so that uneven cores balance.
const TASKS: usize = 64;
/// Elements of a map that one task does at least.
const CHUNK: usize = 16 * 1024;

/// Lowers a nest. `operands` are the values it reads, `results` those it writes; `width` is the vector width.
pub fn lower(nest: &Nest, operands: &[Operand], results: &[Operand], width: usize) -> KernelText {
    let mut resolved = FlatNest::new(nest, operands, results);
    resolved.collapse();
    let schedule = Schedule::new(&resolved, width);
    let arguments = [operands, results].concat();
    emit_function(&arguments, schedule.tasks(&resolved), |body, task| {
        schedule.write(&resolved, body, task)
    })
}

struct Schedule {
    /// Loops decoded from the task number, outermost first.
    tasks: Vec<Loop>,
    /// Loops inside a task, outermost first.
    nested: Vec<Loop>,
    /// The parallel loop along the lanes.
    vector: Option<Loop>,
    /// Of a sum without one, the reduction loop along the lanes.
    along: Option<Loop>,
    /// Iterations of the vector loop that one task does; a multiple of the width.
    chunk: usize,
    width: usize,
}

impl Schedule {
    fn new(resolved: &FlatNest, width: usize) -> Schedule {
        let output = &resolved.outputs[0].0;
        let mut loops = resolved.parallel_loops();
        let contiguous = |l: &&Loop| output.step(**l) == Some(1);
        // Strided stores cost a store a lane, strided loads about as much: take the loop with the fewest.
        let irregular = |l: &Loop| {
            let steps = resolved
                .reads
                .iter()
                .chain(resolved.outputs.iter().map(|o| &o.0))
                .map(|a| a.step(*l));
            steps.filter(|s| !matches!(s, Some(0 | 1))).count()
        };
        let vector = loops
            .iter()
            .filter(contiguous)
            .chain(loops.iter().filter(|l| resolved.extent(**l) >= width))
            .min_by_key(|l| irregular(l))
            .copied();
        // A sum along memory for each point, where neighbouring points would read far apart.
        let is_apart = |l: Loop| {
            resolved
                .body_reads()
                .iter()
                .any(|read| !matches!(read.step(l), Some(0 | 1)))
        };
        let along = resolved
            .reduction_loops()
            .into_iter()
            .filter(|_| resolved.combine == Combine::Sum && vector.is_none_or(is_apart))
            .find(|&l| has_lanes_along(resolved, l, width));
        let vector = vector.filter(|_| along.is_none());
        loops.retain(|l| Some(*l) != vector);
        loops.sort_by_key(|&l| std::cmp::Reverse(output.step(l)));
        let mut count = 1;
        let mut tasks = vec![];
        while count < TASKS && !loops.is_empty() {
            let l = loops.remove(0);
            count *= resolved.extent(l);
            tasks.push(l);
        }
        let reduction: usize = resolved
            .reduction_loops()
            .iter()
            .map(|&l| resolved.extent(l))
            .product();
        let extent = vector.map_or(1, |v| resolved.extent(v));
        let chunk = match count < TASKS {
            true => (CHUNK / reduction)
                .next_multiple_of(width)
                .min(extent.next_multiple_of(width)),
            false => extent.next_multiple_of(width),
        };
        Schedule {
            tasks,
            nested: loops,
            vector,
            along,
            chunk: chunk.max(width),
            width,
        }
    }

    fn chunks(&self, resolved: &FlatNest) -> usize {
        self.vector.map_or(1, |v| resolved.extent(v).div_ceil(self.chunk))
    }

    fn tasks(&self, resolved: &FlatNest) -> u64 {
        let outer: u64 = self.tasks.iter().map(|&l| resolved.extent(l) as u64).product();
        outer * self.chunks(resolved) as u64
    }

    fn write(&self, resolved: &FlatNest, body: &mut Body, task: Value) {
        let mut extents: Vec<usize> = self.tasks.iter().map(|&l| resolved.extent(l)).collect();
        extents.push(self.chunks(resolved));
        let iterations = delinearize(body, task, &extents);
        let zero = body.index(0);
        let mut loops = vec![zero; resolved.extents.len()];
        for (l, &value) in self.tasks.iter().zip(&iterations) {
            loops[l.0] = value;
        }
        self.nest(
            resolved,
            body,
            &mut loops,
            &self.nested,
            *iterations.last().expect("the chunk is decoded last"),
        );
    }

    fn nest(
        &self,
        resolved: &FlatNest,
        body: &mut Body,
        loops: &mut Vec<Value>,
        rest: &[Loop],
        chunk: Value,
    ) {
        let Some((&l, rest)) = rest.split_first() else {
            return self.vector_loop(resolved, body, loops, chunk);
        };
        body.for_extent(resolved.extent(l), |body, i| {
            loops[l.0] = i;
            self.nest(resolved, body, loops, rest, chunk);
        });
    }

    fn vector_loop(&self, resolved: &FlatNest, body: &mut Body, loops: &mut [Value], chunk: Value) {
        let Some(vector) = self.vector else {
            let point = Point {
                loops: loops.to_vec(),
                vector: None,
            };
            let math = &mut Math {
                body,
                lanes: Lanes::scalar(),
            };
            let along = self.along.map(|l| (l, self.width));
            let reduced = reduce_point(resolved, math, &point, along);
            return finish_point(resolved, math, &point, reduced);
        };
        let (extent, width) = (resolved.extent(vector), self.width);
        let whole = extent / width * width;
        let single = self.chunks(resolved) == 1;
        let low = body.sum(0, &[(chunk, self.chunk as i64)]);
        if whole > 0 {
            let end = body.index(whole as i64);
            let high = if single {
                end
            } else {
                let next = body.sum(self.chunk as i64, &[(low, 1)]);
                body.op(format_args!("arith.minui {next}, {end} : index"))
            };
            let low = if single { body.index(0) } else { low };
            body.for_each(low, high, width as i64, |body, i| {
                let mut loops = loops.to_vec();
                loops[vector.0] = i;
                let point = Point {
                    loops,
                    vector: Some(vector),
                };
                write_point(
                    resolved,
                    &mut Math {
                        body,
                        lanes: Lanes { width, mask: None },
                    },
                    point,
                );
            });
        }
        if whole == extent {
            return;
        }
        let tail = |body: &mut Body| {
            let mut loops = loops.to_vec();
            loops[vector.0] = body.index(whole as i64);
            let count = extent - whole;
            // One point is no vector, also because LLVM 22 stores 4 bytes for the one u8 of a masked vector.
            let (lanes, vector) = match count {
                1 => (Lanes::scalar(), None),
                _ => {
                    let count = body.index(count as i64);
                    let mask = body.op(format_args!("vector.create_mask {count} : vector<{width}xi1>"));
                    let mask = Some(mask);
                    (Lanes { width, mask }, Some(vector))
                }
            };
            write_point(resolved, &mut Math { body, lanes }, Point { loops, vector });
        };
        if single {
            return tail(body);
        }
        let last = body.index(self.chunks(resolved) as i64 - 1);
        let is_last = body.op(format_args!("arith.cmpi eq, {chunk}, {last} : index"));
        body.if_true(is_last, tail);
    }
}

/// Writes the reduction and the outputs at one point (or vector of points).
pub fn write_point(resolved: &FlatNest, math: &mut Math, point: Point) {
    let reduced = reduce_point(resolved, math, &point, None);
    finish_point(resolved, math, &point, reduced);
}

/// Writes the outputs at one point (or vector of points), given what the reduction came to, and the winner's place.
pub fn finish_point(
    resolved: &FlatNest,
    math: &mut Math,
    point: &Point,
    (reduced, winner): (Option<Value>, Option<Value>),
) {
    let mut scope = Scope::of_reads(&resolved.reads);
    (scope.reduced, scope.winner) = (reduced, winner);
    for (access, value) in &resolved.outputs {
        let value = scope.value(math, point, value);
        point.store(math, access, value);
    }
}

/// Writes the reduction at one point (or vector of points); of a maximum, also the winner's place.
///
/// `along` is a reduction loop for lanes of a width, if a single point's sum has them.
pub fn reduce_point(
    resolved: &FlatNest,
    math: &mut Math,
    point: &Point,
    along: Option<(Loop, usize)>,
) -> (Option<Value>, Option<Value>) {
    match resolved.combine {
        Combine::None => (None, None),
        Combine::Sum => (Some(sum(resolved, math, point, along)), None),
        Combine::Max => {
            // Before anything won its place is −1, where padding can come before the first element.
            let padded: Vec<usize> = padded_reads(resolved);
            let nowhere = if padded.is_empty() { 0.0 } else { -1.0 };
            let (best, place) = (math.constant(f64::NEG_INFINITY), math.constant(nowhere));
            let number = winner_number(resolved);
            let result = reduce(
                resolved,
                math,
                point,
                &[best, place],
                &mut |math, point, carried| {
                    let value = Scope::of_reads(&resolved.reads).value(math, point, &resolved.body);
                    // A value wins if it is greater or NaN, and the best so far is not NaN.
                    let greater = math.compare("ugt", value, carried[0]);
                    let ordered = math.compare("ord", carried[0], carried[0]);
                    let mut wins = math.both(greater, ordered);
                    if !padded.is_empty() {
                        let zero = math.constant(0.0);
                        let mut first = math.compare("olt", carried[1], zero);
                        for &read in &padded {
                            let inside =
                                Scope::of_reads(&resolved.reads).value(math, point, &Expr::InBounds(read));
                            let inside = math.compare("ogt", inside, zero);
                            first = math.both(first, inside);
                        }
                        wins = math.either(wins, first);
                    }
                    let here = Scope::of_reads(&[]).value(
                        math,
                        &Point {
                            vector: None,
                            ..point.clone()
                        },
                        &number,
                    );
                    vec![
                        math.select(wins, value, carried[0]),
                        math.select(wins, here, carried[1]),
                    ]
                },
            );
            (Some(result[0]), Some(result[1]))
        }
    }
}

/// Whether an output asks for the winner's place.
pub fn asks_winner(resolved: &FlatNest) -> bool {
    let mut asks = false;
    for (_, value) in &resolved.outputs {
        value.walk(&mut |e| asks |= matches!(e, Expr::ArgMax));
    }
    asks
}

/// The reads that may lie in padding, if the outputs ask for the winner's place: an element inside wins against
/// padding even if it is −∞ too.
fn padded_reads(resolved: &FlatNest) -> Vec<usize> {
    let asks = asks_winner(resolved);
    let mut padded = vec![];
    resolved.body.walk(&mut |e| match e {
        Expr::Read(read) if asks && !resolved.reads[*read].checks.is_empty() => padded.push(*read),
        _ => {}
    });
    padded
}

/// The place of a reduction point, counted row-major.
fn winner_number(resolved: &FlatNest) -> Expr {
    let mut map = ir::nest::Affine::constant(0);
    let mut stride = 1;
    for &l in resolved.reduction_loops().iter().rev() {
        map = map.plus_loop(l, stride);
        stride *= resolved.extent(l) as i64;
    }
    Expr::Index(map)
}

type Step<'s> = &'s mut dyn FnMut(&mut Math, &Point, &[Value]) -> Vec<Value>;

/// Nests the reduction loops, carrying f32 lanes through them.
fn reduce(resolved: &FlatNest, math: &mut Math, point: &Point, initial: &[Value], step: Step) -> Vec<Value> {
    fn nested(
        resolved: &FlatNest,
        math: &mut Math,
        point: &Point,
        rest: &[Loop],
        carried: &[Value],
        step: Step,
    ) -> Vec<Value> {
        let Some((&l, rest)) = rest.split_first() else {
            return step(math, point, carried);
        };
        let lanes = math.lanes;
        let types = vec![lanes.of("f32"); carried.len()];
        let (low, high) = (math.body.index(0), math.body.index(resolved.extent(l) as i64));
        math.body
            .for_carry(low, high, 1, carried, &types, |body, i, carried| {
                let mut point = point.clone();
                point.loops[l.0] = i;
                nested(resolved, &mut Math { body, lanes }, &point, rest, carried, step)
            })
    }
    nested(resolved, math, point, &resolved.reduction_loops(), initial, step)
}
