//! Points whose reads and outputs run along different loops in memory: changes of layout, and what is fused with them.
//!
//! A block takes a box of points, a *tile*. What runs along another loop than the first output is *staged*: threads take
//! it in the order of its own memory and leave it in shared memory, from where they take it in the order of the
//! output's; or, of another output, the other way round. So neighbouring threads find neighbours in global memory on
//! both sides.
//!
//! The tile grows until what it has of each memory are runs of a warp's width or more that begin where sectors do: of
//! weights `[out, in, 3, 3]` whose copy is `[out, 3, 3, in]`, 32 inputs; of `[out, 3, 11, 11]`, where those are no whole
//! sectors, eight outputs as a whole. Where no tile is aligned like that, warps are: they take a row of neighbours each,
//! from the sector on that it begins in. Where rows are whole vectors in memory, a thread takes 16 bytes at once; rows of
//! weights, of 9, 25 or 121 elements, never are, and there a warp still takes whole sectors, of which a thread has
//! [`TOGETHER`] on their way: 32 KiB a multiprocessor, when the bandwidth (4.8 TB/s for 132 of them on an H200) times a
//! latency of 600 ns is 22 KiB.
//! [`Banks`] arranges shared memory so that the lanes of a warp, in either order, hit different banks.

mod banks;
mod order;
mod shared_tile;

use super::thread::{Grid, barrier, below, both, emit_function, lanes_type};
use super::{KernelArguments, Partial};
use crate::emit::{Point, Scope};
use crate::kernel::{FlatNest, KernelText, delinearize};
use crate::loops::{asks_winner, reduce_point};
use crate::mlir::{Body, Value};
use crate::scalar::{Lanes, Math};
use banks::Banks;
use ir::nest::Loop;
use order::{Order, SECTOR};
use shared_tile::{SharedTile, Source, TilePoint, access, finishes_vectors, has_vectors, sources};

const THREADS: usize = 256;
/// Points that a thread has on their way at once.
const TOGETHER: usize = 4;
/// Words of shared memory that a block has without asking for more.
const SHARED: usize = 48 * 1024 / 4;

struct Schedule<'a> {
    nest: &'a FlatNest,
    /// That of the first output, with all parallel loops.
    order: Order,
    /// What a block has of each loop of the nest.
    tile: Vec<usize>,
    stages: Vec<SharedTile>,
}

/// Lowers a nest, or returns `None` where all that it touches runs along the same loop. `partial` as in
/// [`super::points`].
pub fn lower(nest: &FlatNest, call: &KernelArguments, partial: Option<&Partial>) -> Option<KernelText> {
    let mut nest = nest.clone();
    nest.forget_unused_reads();
    nest.collapse();
    let schedule = Schedule::new(&nest)?;
    let words: usize = schedule.stages.iter().map(|stage| stage.words(&nest)).sum();
    if words > SHARED {
        return None;
    }
    let grid = Grid {
        blocks: schedule.block_extents().iter().map(|&n| n as u64).product(),
        threads: THREADS as u32,
        shared_bytes: 4 * words as u32,
        shared_align: 16,
        registers: 0,
    };
    let scratch = partial.map(|partial| partial.scratch.clone());
    let arguments: Vec<_> = call.arguments.iter().chain(&scratch).cloned().collect();
    let text = emit_function(&arguments, call.in_place, grid, |body, block, thread| {
        schedule.write(body, block, thread);
    });
    Some(KernelText { scratch, ..text })
}

impl<'a> Schedule<'a> {
    fn new(nest: &'a FlatNest) -> Option<Schedule<'a>> {
        let order = Order::new(&nest.outputs[0].0, nest.parallel_loops());
        let fastest = *order.loops.first()?;
        let sources = sources(nest, &order);
        if sources.is_empty() || order.access.step(fastest) != Some(1) {
            return None;
        }
        let orders: Vec<(Order, bool)> = sources
            .iter()
            .map(|&source| {
                let (access, mut loops) = (access(nest, source), nest.parallel_loops());
                if let Source::Read(_) = source {
                    loops.retain(|&l| access.depends_on(l));
                }
                let order = Order::new(access, loops);
                let vectors = order.loops.first().is_some_and(|&l| has_vectors(nest, source, l));
                (order, vectors)
            })
            .collect();
        let all: Vec<Order> = std::iter::once(&order)
            .chain(orders.iter().map(|order| &order.0))
            .cloned()
            .collect();
        let tile = order::tile(nest, &all);
        // Each stage as it is arranged best, if the output is taken like this: conflicts, order, banks.
        let arrange = |order: &Order| -> Vec<(usize, Order, Banks)> {
            let best = |(staged, vectors): &(Order, bool)| {
                let ways = staged.ways(nest, &tile, *vectors).into_iter().map(|staged| {
                    let (conflicts, banks) = Banks::choose(&tile, order, &staged);
                    (conflicts, staged, banks)
                });
                ways.min_by_key(|way| way.0).expect("there is a way")
            };
            orders.iter().map(best).collect()
        };
        let ways = order
            .ways(nest, &tile, finishes_vectors(nest, &sources, fastest))
            .into_iter();
        let (arranged, order) = ways
            .map(|order| (arrange(&order), order))
            .min_by_key(|(stages, _)| stages.iter().map(|stage| stage.0).sum::<usize>())
            .expect("there is a way");
        let mut start = 0;
        let stages = sources
            .into_iter()
            .zip(arranged)
            .map(|(source, (_, order, banks))| {
                let stage = SharedTile {
                    source,
                    order,
                    banks,
                    start,
                };
                start += stage.words(nest);
                stage
            })
            .collect();
        Some(Schedule {
            nest,
            order,
            tile,
            stages,
        })
    }

    /// Tiles along each loop, slowest first.
    fn block_extents(&self) -> Vec<usize> {
        let tiles = |&l: &Loop| self.nest.extent(l).div_ceil(self.tile[l.0]);
        self.order.loops.iter().rev().map(tiles).collect()
    }

    fn write(&self, body: &mut Body, block: Value, thread: Value) {
        let nest = self.nest;
        let mut first = vec![body.index(0); nest.extents.len()];
        let numbers = delinearize(body, block, &self.block_extents());
        for (&l, number) in self.order.loops.iter().rev().zip(numbers) {
            first[l.0] = body.sum(0, &[(number, self.tile[l.0] as i64)]);
        }
        for stage in &self.stages {
            let values = match stage.source {
                Source::Reduction if asks_winner(nest) => 2,
                Source::Output(_) => continue,
                _ => 1,
            };
            let take = |math: &mut Math, place: &TilePoint| match stage.source {
                Source::Read(read) => vec![place.point.read(math, &nest.reads[read])],
                _ => {
                    let (reduced, winner) = reduce_point(nest, math, &place.point, None);
                    reduced.into_iter().chain(winner).take(values).collect()
                }
            };
            self.walk(
                body,
                &first,
                thread,
                &stage.order,
                values,
                &take,
                &|math, place, values| {
                    for (i, &value) in values.iter().enumerate() {
                        stage.store(math, &stage.order, place, i, value);
                    }
                },
            );
        }
        barrier(body);
        let stage_of = |output: usize| {
            self.stages
                .iter()
                .find(|stage| stage.source == Source::Output(output))
        };
        let finish = |math: &mut Math, place: &TilePoint| {
            let mut scope = Scope::of_reads(&nest.reads);
            let (mut reduced, mut winner) = (None, None);
            for stage in &self.stages {
                let mut value = |i: usize| stage.load(math, &self.order, place, i);
                match stage.source {
                    Source::Reduction => {
                        reduced = Some(value(0));
                        winner = asks_winner(nest).then(|| value(1));
                    }
                    Source::Read(read) => {
                        scope.loaded.insert(read, value(0));
                    }
                    Source::Output(_) => {}
                }
            }
            if reduced.is_none() {
                (reduced, winner) = reduce_point(nest, math, &place.point, None);
            }
            (scope.reduced, scope.winner) = (reduced, winner);
            let outputs = nest.outputs.iter();
            outputs
                .map(|(_, value)| scope.value(math, &place.point, value))
                .collect()
        };
        self.walk(
            body,
            &first,
            thread,
            &self.order,
            nest.outputs.len(),
            &finish,
            &|math, place, values| {
                for (i, ((access, _), &value)) in nest.outputs.iter().zip(values).enumerate() {
                    match stage_of(i) {
                        None => place.point.store(math, access, value),
                        Some(stage) => stage.store(math, &self.order, place, 0, value),
                    }
                }
            },
        );
        let outputs = (0..nest.outputs.len()).filter_map(|output| Some((output, stage_of(output)?)));
        for (i, (output, stage)) in outputs.enumerate() {
            if i == 0 {
                barrier(body);
            }
            let take = |math: &mut Math, place: &TilePoint| vec![stage.load(math, &stage.order, place, 0)];
            self.walk(
                body,
                &first,
                thread,
                &stage.order,
                1,
                &take,
                &|math, place, values| {
                    place.point.store(math, &nest.outputs[output].0, values[0]);
                },
            );
        }
    }

    /// Visits the points of the tile in an order, neighbouring threads neighbouring ones (or vectors of them): `take` gives
    /// so many values of a point, for several of a thread's points before `put` is given those of each.
    #[allow(clippy::too_many_arguments)]
    fn walk(
        &self,
        body: &mut Body,
        first: &[Value],
        thread: Value,
        order: &Order,
        values: usize,
        take: &dyn Fn(&mut Math, &TilePoint) -> Vec<Value>,
        put: &dyn Fn(&mut Math, &TilePoint, &[Value]),
    ) {
        let points: usize = order.extents(&self.tile).iter().product();
        let passes = points.div_ceil(THREADS);
        let rounds = passes.div_ceil(TOGETHER);
        let together = passes.div_ceil(rounds);
        let all = rounds * together * THREADS;
        let lanes = Lanes {
            width: order.lanes,
            mask: None,
        };
        let types = vec![lanes_type(order.lanes); values];
        body.for_extent(rounds, |body, round| {
            let taken: Vec<(TilePoint, Vec<Value>)> = (0..together)
                .map(|pass| {
                    let terms = [(thread, 1), (round, (together * THREADS) as i64)];
                    let number = body.sum((pass * THREADS) as i64, &terms);
                    let place = self.place(body, first, order, number, (points < all).then_some(points));
                    let values = match place.exists {
                        None => take(&mut Math { body, lanes }, &place),
                        Some(exists) => body.if_else(
                            exists,
                            &types,
                            |body| take(&mut Math { body, lanes }, &place),
                            |body| vec![Math { body, lanes }.constant(0.0); values],
                        ),
                    };
                    (place, values)
                })
                .collect();
            for (place, values) in taken {
                match place.exists {
                    None => put(&mut Math { body, lanes }, &place, &values),
                    Some(exists) => {
                        body.if_true(exists, |body| put(&mut Math { body, lanes }, &place, &values));
                    }
                }
            }
        });
    }

    /// The point of a number in an order (the first of a vector), of which there are so many, if not all numbers are points.
    fn place(
        &self,
        body: &mut Body,
        first: &[Value],
        order: &Order,
        number: Value,
        points: Option<usize>,
    ) -> TilePoint {
        let mut within = vec![body.index(0); first.len()];
        let mut loops = first.to_vec();
        let mut exists = points.map(|points| below(body, number, points));
        let numbers = delinearize(body, number, &order.extents(&self.tile));
        let also = |body: &mut Body, exists: &mut Option<Value>, condition: Value| {
            *exists = Some(match *exists {
                None => condition,
                Some(exists) => both(body, exists, condition),
            });
        };
        for (i, (&l, mut value)) in order.loops.iter().rev().zip(numbers).enumerate() {
            let is_first = i + 1 == order.loops.len();
            if is_first {
                value = body.sum(0, &[(value, order.lanes as i64)]);
            }
            if is_first && order.by_row {
                // All other loops are set, so this is where the row begins.
                let point = Point {
                    loops: loops.clone(),
                    vector: None,
                };
                let begin = point.offset(body, &order.access);
                let before = body.index_op("remui", begin, SECTOR as i64);
                value = body.sum(0, &[(value, 1), (before, -1)]);
                let inside = below(body, value, self.tile[l.0]);
                also(body, &mut exists, inside);
            }
            within[l.0] = value;
            loops[l.0] = body.sum(0, &[(first[l.0], 1), (value, 1)]);
            if !self.nest.extent(l).is_multiple_of(self.tile[l.0]) {
                let inside = below(body, loops[l.0], self.nest.extent(l));
                also(body, &mut exists, inside);
            }
        }
        let vector = order.loops.first().copied().filter(|_| order.lanes > 1);
        let point = Point { loops, vector };
        TilePoint {
            point,
            within,
            exists,
        }
    }
}
