//! Orders in which threads take points, and the tile of points that a block takes.

use crate::access::Access;
use crate::gpu::SM_COUNT;
use crate::gpu::vector::VECTOR;
use crate::kernel::FlatNest;
use ir::nest::Loop;

/// Lanes of a warp, and banks of shared memory.
pub const WARP: usize = 32;
/// Words of a sector of global memory.
pub const SECTOR: usize = 8;
/// Points of a tile at the most.
const MAX: usize = 4096;
/// Points of a tile that keep the threads of a block busy.
const ENOUGH: usize = 1024;

/// An order in which threads take the points of a tile.
#[derive(Clone, Debug)]
pub struct Order {
    /// The memory in whose order they do.
    pub access: Access,
    /// The loops that it depends on, the fastest first.
    pub loops: Vec<Loop>,
    /// Whether a warp takes points of one row of the first loop, from a sector's begin on; else points are counted
    /// through, and a warp may go on in the next row.
    pub by_row: bool,
    /// Neighbours along the first loop that a thread takes as one: a vector, or 1.
    pub lanes: usize,
}

impl Order {
    /// Counts through.
    pub fn new(access: &Access, mut loops: Vec<Loop>) -> Order {
        // Loops without a step come last.
        let step = |l: Loop| access.step(l).filter(|&step| step != 0);
        loops.sort_by_key(|&l| step(l).map_or(i64::MAX, i64::abs));
        Order {
            access: access.clone(),
            loops,
            by_row: false,
            lanes: 1,
        }
    }

    /// Extents of what numbers count, the last fastest: of a row, also the lanes that its begin may leave idle.
    pub fn extents(&self, tile: &[usize]) -> Vec<usize> {
        let mut extents: Vec<usize> = self.loops.iter().rev().map(|l| tile[l.0]).collect();
        if let Some(row) = extents.last_mut() {
            *row = match self.by_row {
                true => (*row + SECTOR - 1).next_multiple_of(WARP),
                false => *row / self.lanes,
            };
        }
        extents
    }

    /// The ways to take the points of a tile, the best first: vectors, if all that is touched in this order has them; rows
    /// have to be as wide as a warp, and are better where counting through would begin amid sectors.
    pub fn ways(&self, nest: &FlatNest, tile: &[usize], vectors: bool) -> Vec<Order> {
        let row = self.loops.first().map_or(1, |l| tile[l.0]);
        let wide = row >= WARP;
        let whole = Run::of(nest, self, tile).is_whole;
        let ways = [(VECTOR, false), (1, false), (1, true)].map(|(lanes, by_row)| Order {
            by_row,
            lanes,
            ..self.clone()
        });
        let fits = |way: &Order| match (way.lanes, way.by_row) {
            (_, true) => wide,
            (1, false) => whole || !wide,
            (lanes, false) => vectors && row.is_multiple_of(lanes) && (whole || !wide),
        };
        ways.into_iter().filter(fits).collect()
    }

    /// The places of a tile, of each loop of the nest, that lanes take at once: warps, or, of vectors that are each one
    /// access to shared memory, quarters of warps. Of rows, for every begin in a sector.
    pub fn together(&self, tile: &[usize], whole_vectors: bool) -> Vec<Vec<Vec<usize>>> {
        let points: usize = self.loops.iter().map(|l| tile[l.0]).product();
        let place = |mut number: usize| {
            let mut place = vec![0; tile.len()];
            for l in &self.loops {
                place[l.0] = number % tile[l.0];
                number /= tile[l.0];
            }
            place
        };
        let places: Vec<Vec<usize>> = (0..points).map(place).collect();
        if !self.by_row {
            let apart = if whole_vectors { 1 } else { self.lanes };
            let lane = |warp: &[Vec<usize>], lane| warp.iter().skip(lane).step_by(apart).cloned().collect();
            return places
                .chunks(WARP * apart)
                .flat_map(|warp| (0..apart).map(move |i| lane(warp, i)))
                .collect();
        }
        let mut warps = vec![];
        for row in places.chunks(tile[self.loops[0].0]) {
            for before in 0..SECTOR {
                let (first, rest) = row.split_at((WARP - before).min(row.len()));
                warps.push(first.to_vec());
                warps.extend(rest.chunks(WARP).map(<[_]>::to_vec));
            }
        }
        warps
    }
}

/// What a block takes of each loop.
pub fn tile(nest: &FlatNest, orders: &[Order]) -> Vec<usize> {
    let mut tile = vec![1; nest.extents.len()];
    // The loop that lengthens the shortest of the runs, or of those that are not whole.
    let shortest = |tile: &[usize], all: bool| {
        let runs = orders.iter().map(|order| Run::of(nest, order, tile));
        let runs = runs.filter(|run| all || !run.is_whole);
        let grows = runs.filter_map(|run| Some((run.length, run.next?)));
        grows.min_by_key(|run| run.0).map(|run| run.1)
    };
    while let Some(l) = shortest(&tile, false) {
        let grown = (2 * tile[l.0]).min(nest.extent(l));
        if tile.iter().product::<usize>() / tile[l.0] * grown > MAX {
            break;
        }
        tile[l.0] = grown;
    }
    // More for a thread to do, as long as there are enough blocks.
    while let Some(l) = shortest(&tile, true) {
        let tiles = |&l: &Loop| nest.extent(l).div_ceil(tile[l.0]);
        let blocks: usize = nest.parallel_loops().iter().map(tiles).product();
        let is_enough = tile.iter().product::<usize>() >= ENOUGH || blocks < 4 * SM_COUNT;
        if is_enough || !nest.extent(l).is_multiple_of(2 * tile[l.0]) {
            break;
        }
        tile[l.0] *= 2;
    }
    tile
}

/// Neighbours in memory that a tile has.
struct Run {
    length: usize,
    /// The loop that would make it longer.
    next: Option<Loop>,
    /// Whether it is as wide as a warp and begins where a sector does.
    is_whole: bool,
}

impl Run {
    fn of(nest: &FlatNest, order: &Order, tile: &[usize]) -> Run {
        let step = |l: Loop| order.access.step(l).map_or(0, i64::unsigned_abs) as usize;
        let mut length = 1;
        for (i, &l) in order.loops.iter().enumerate() {
            let begins = |loops: &[Loop]| loops.iter().all(|&l| step(l).is_multiple_of(SECTOR));
            if step(l) != length {
                // Memory has gaps here, so nothing makes the run longer.
                let is_whole = begins(&order.loops[i..]);
                return Run {
                    length,
                    next: None,
                    is_whole,
                };
            }
            length *= tile[l.0];
            if tile[l.0] < nest.extent(l) {
                let begins = length.is_multiple_of(SECTOR) && begins(&order.loops[i + 1..]);
                return Run {
                    length,
                    next: Some(l),
                    is_whole: begins && length >= WARP,
                };
            }
        }
        Run {
            length,
            next: None,
            is_whole: true,
        }
    }
}
