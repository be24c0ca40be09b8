//! Orders in which threads take points, and the tile of points that a block takes.

use crate::access::Access;
use crate::gpu::PROCESSORS;
use crate::kernel::Resolved;
use ir::nest::Loop;

/// Lanes of a warp, and banks of shared memory.
pub const WARP: usize = 32;
/// Words of a sector of global memory.
pub const SECTOR: usize = 8;
/// Points of a tile at the most.
const MOST: usize = 4096;
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
        }
    }

    /// Extents of what numbers count, the last fastest: of a row, also the lanes that its begin may leave idle.
    pub fn extents(&self, tile: &[usize]) -> Vec<usize> {
        let mut extents: Vec<usize> = self.loops.iter().rev().map(|l| tile[l.0]).collect();
        if let (true, Some(row)) = (self.by_row, extents.last_mut()) {
            *row = (*row + SECTOR - 1).next_multiple_of(WARP);
        }
        extents
    }

    /// The ways to take the points of a tile, the simplest first: rows have to be as wide as a warp, and are better
    /// where counting through would begin amid sectors.
    pub fn ways(&self, nest: &Resolved, tile: &[usize]) -> Vec<Order> {
        let wide = self.loops.first().is_some_and(|l| tile[l.0] >= WARP);
        let whole = Run::of(nest, self, tile).is_whole;
        let ways = [false, true].map(|by_row| Order {
            by_row,
            ..self.clone()
        });
        let fits = |way: &Order| if way.by_row { wide } else { whole || !wide };
        ways.into_iter().filter(fits).collect()
    }

    /// The places of a tile, of each loop of the nest, that warps take at once. Of rows, for every begin in a sector.
    pub fn warps(&self, tile: &[usize]) -> Vec<Vec<Vec<usize>>> {
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
            return places.chunks(WARP).map(<[_]>::to_vec).collect();
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
pub fn tile(nest: &Resolved, orders: &[Order]) -> Vec<usize> {
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
        if tile.iter().product::<usize>() / tile[l.0] * grown > MOST {
            break;
        }
        tile[l.0] = grown;
    }
    // More for a thread to do, as long as there are enough blocks.
    while let Some(l) = shortest(&tile, true) {
        let tiles = |&l: &Loop| nest.extent(l).div_ceil(tile[l.0]);
        let blocks: usize = nest.parallel_loops().iter().map(tiles).product();
        let is_enough = tile.iter().product::<usize>() >= ENOUGH || blocks < 4 * PROCESSORS;
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
    fn of(nest: &Resolved, order: &Order, tile: &[usize]) -> Run {
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
