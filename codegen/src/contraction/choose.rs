//! Which loops of a contraction are vectors, tiles, tasks and reductions, and which operands are staged.

use super::{Schedule, Tile};
use crate::access::Access;
use crate::kernel::FlatNest;
use ir::nest::Loop;

/// Bytes of the vector operand that one sweep over the tile loop may use: they should stay in the L2 cache.
const PANEL_BYTES: usize = 320 * 1024;
/// Rows of the vector operand farther apart than this many elements are staged, this many rows at a time.
const FAR: i64 = 512;
const STAGED_ROWS: usize = 256;
/// Bytes of scalars staged for all tiles together: they should stay in the L2 cache beside the panel.
const STAGED_BYTES: usize = 320 * 1024;
/// Points of the reduction whose scalars are staged: a tile's should stay in the L1 cache.
const STAGED_POINTS: usize = 288;
/// Products that one chain of additions may sum: chains are summed apart and then added, as the rounding error of a
/// chain grows with the square root of its length.
const CHAIN: usize = 384;
/// Cycles that storing an element costs where neighbours in a vector lie apart.
const SCATTER: f64 = 1.5;
/// Tasks to make at least, where the loops allow it.
const TASKS: usize = 16;
/// The same where every task reads an operand as a whole.
const FEW_TASKS: usize = 6;

impl Schedule {
    pub(super) fn new(mut nest: FlatNest, a: usize, b: usize, width: usize) -> Option<Schedule> {
        let (vector, scalar, panel) = choose_vector(&nest, a, b, width)?;
        let (row, tile) = choose_tile(&nest, vector, scalar, panel, width);
        let far = |nest: &FlatNest, l: Loop| nest.reads[panel].step(l).unwrap_or(0).abs() >= FAR;

        // The reduction, in the order in which the scalar operand lies in memory; as much of it inside the tile
        // as lets the panel stay in cache.
        let mut reduction: Vec<Loop> = nest
            .reduction_loops()
            .into_iter()
            .filter(|&l| nest.extent(l) > 1)
            .collect();
        reduction.sort_by_key(|&l| std::cmp::Reverse(nest.reads[scalar].step(l).map(i64::abs)));
        let row_bytes = tile.vectors * tile.width * 4;
        let reused = |l: &&Loop| **l != vector && reuses(&nest, scalar, **l);
        let reuse: usize = nest
            .parallel_loops()
            .iter()
            .filter(reused)
            .map(|&l| nest.extent(l))
            .product();
        let row_tiles = row.map_or(1, |l| nest.extent(l).div_ceil(tile.rows));
        let contiguous = row.is_some_and(|l| nest.reads[scalar].step(l) == Some(1));
        let mut scalars_staged = contiguous && reuse >= 4 && tile.rows <= tile.width;
        let stage = reduction.len() == 1 && far(&nest, reduction[0]) && row.is_some();
        let limit = match (stage, scalars_staged) {
            (true, _) => STAGED_ROWS,
            (_, true) => STAGED_POINTS
                .min(STAGED_BYTES / (4 * tile.width * row_tiles))
                .max(1),
            _ => PANEL_BYTES / row_bytes,
        };
        let mut inner: Vec<Loop> = vec![];
        let mut points = 1;
        while let Some(&l) = reduction.last() {
            if points * nest.extent(l) > limit {
                break;
            }
            points *= nest.extent(l);
            inner.insert(0, l);
            reduction.pop();
        }
        // Of the next loop a part, so that partial sums are loaded and stored less often.
        if let Some(&l) = reduction.last() {
            let extent = nest.extent(l);
            let most = if inner.is_empty() || scalars_staged {
                limit / points
            } else {
                (limit / 2).min(STAGED_POINTS) / points
            };
            let part = (2..=most.min(extent)).rev().find(|&d| extent.is_multiple_of(d));
            let part = part.unwrap_or(if inner.is_empty() { extent } else { 1 });
            if part == extent {
                reduction.pop();
                inner.insert(0, l);
            } else if part > 1 {
                inner.insert(0, nest.split(l, part));
            }
        }
        if nest.outputs[0].0.dtype != ir::DType::F32 {
            inner = reduction.drain(..).chain(inner).collect();
        }
        let staged = stage && inner.len() == 1;
        let chain = if staged {
            0
        } else {
            split_chain(&mut nest, &mut inner)
        };

        // Everything else is a task, or a loop within one.
        let mut others: Vec<Loop> = nest.parallel_loops();
        others.retain(|&l| l != vector && Some(l) != row);
        let panels = nest.extent(vector).div_ceil(tile.vectors * tile.width);
        let (mut tasks, mut count) = (vec![], 1);
        let mut panels_are_tasks = false;
        let mut block = None;
        if others.is_empty() {
            let size = |access: &Access| access.elements;
            let (result, from, to) = (&nest.outputs[0].0, &nest.reads[scalar], &nest.reads[panel]);
            if size(result) > size(to).max(size(from)) {
                block = Some(4.min(row_tiles.div_ceil(TASKS)).max(1));
            } else if size(to) > size(from) {
                panels_are_tasks = true;
            } else {
                block = Some(8.min(row_tiles.div_ceil(TASKS)).max(1));
            }
        } else if !reduction.is_empty() {
            // Each task sweeps the whole outer reduction: make few tasks that share little.
            panels_are_tasks = panels > 1;
            count = panels;
            let steps = |l: &Loop| nest.reads[panel].step(*l) != Some(0);
            others.sort_by_key(|l| !steps(l));
            while count < FEW_TASKS && !others.is_empty() {
                let l = others.remove(0);
                count *= nest.extent(l);
                tasks.push(l);
            }
        } else {
            while count < TASKS && !others.is_empty() {
                let l = others.remove(0);
                count *= nest.extent(l);
                tasks.push(l);
            }
        }
        // A staged panel is one for all loops after it, so none of them may move it.
        let (before, after): (Vec<Loop>, Vec<Loop>) = others
            .into_iter()
            .partition(|&l| nest.reads[panel].step(l) != Some(0) && (staged || !reuses(&nest, scalar, l)));
        let used_again: usize = after.iter().map(|&l| nest.extent(l)).product();
        scalars_staged &=
            !reduction.is_empty() && used_again > 1 && after.iter().all(|&l| reuses(&nest, scalar, l));
        Some(Schedule {
            partial: nest.outputs[0].0.clone(),
            adds: false,
            nest,
            scalar,
            panel,
            vector,
            row,
            tile,
            tasks,
            panels_are_tasks,
            block,
            before,
            outer: reduction,
            after,
            inner,
            chain,
            staged,
            scalars_staged,
        })
    }

    pub(super) fn panels(&self) -> usize {
        self.nest
            .extent(self.vector)
            .div_ceil(self.tile.vectors * self.tile.width)
    }

    pub(super) fn rows(&self) -> usize {
        self.row.map_or(1, |l| self.nest.extent(l))
    }

    /// Extents of the loops that the task number counts, panels or row blocks last.
    pub(super) fn task_extents(&self) -> Vec<usize> {
        let mut extents: Vec<usize> = self.tasks.iter().map(|&l| self.nest.extent(l)).collect();
        extents.push(match self.block {
            _ if self.panels_are_tasks => self.panels(),
            Some(block) => self.rows().div_ceil(block * self.tile.rows),
            None => 1,
        });
        extents
    }

    pub(super) fn task_count(&self) -> u64 {
        self.task_extents().iter().map(|&n| n as u64).product()
    }
}

/// Where in `inner` the loops of one chain of at most [`CHAIN`] additions begin; the loop at that border is split
/// if its divisors allow it.
fn split_chain(nest: &mut FlatNest, inner: &mut Vec<Loop>) -> usize {
    let mut points = 1;
    for at in (0..inner.len()).rev() {
        let l = inner[at];
        let extent = nest.extent(l);
        if points * extent > CHAIN {
            let parts = (2..=CHAIN / points).rev().filter(|&d| extent.is_multiple_of(d));
            return match parts.max() {
                Some(part) if part > 2 || points > 1 => {
                    inner.insert(at + 1, nest.split(l, part));
                    at + 1
                }
                _ if points > 1 => at + 1,
                _ => at,
            };
        }
        points *= extent;
    }
    0
}

/// Whether the scalar operand is the same at every iteration of a loop.
fn reuses(nest: &FlatNest, scalar: usize, l: Loop) -> bool {
    nest.reads[scalar].step(l) == Some(0)
}

/// The loop to vectorise, with the operand broadcast and the operand read in vectors: the one that wastes the fewest
/// lanes, unless the sums are so short that storing scattered results would cost more.
fn choose_vector(nest: &FlatNest, a: usize, b: usize, width: usize) -> Option<(Loop, usize, usize)> {
    let products: usize = nest.reduction_loops().iter().map(|&l| nest.extent(l)).product();
    // Sums longer than a panel of four vectors are stored and loaded again in between.
    let parts = products.div_ceil(PANEL_BYTES / (4 * 4 * width));
    // Cycles of an element of the result.
    let cost = |l: Loop| {
        let scattered = nest.outputs.iter().filter(|o| o.0.step(l) != Some(1)).count();
        let lanes = nest.extent(l) as f64 / nest.extent(l).div_ceil(width) as f64;
        products as f64 / lanes + (scattered * (2 * parts - 1)) as f64 * SCATTER
    };
    let mut best: Option<(f64, Loop, usize, usize)> = None;
    for (scalar, panel) in [(a, b), (b, a)] {
        for l in nest.parallel_loops() {
            if nest.reads[panel].step(l) != Some(1) || nest.reads[scalar].step(l) != Some(0) {
                continue;
            }
            let cost = cost(l);
            let better = best.is_none_or(|(least, other, ..)| {
                cost < least * 0.99 || (cost < least * 1.01 && nest.extent(l) > nest.extent(other))
            });
            if better {
                best = Some((cost, l, scalar, panel));
            }
        }
    }
    best.map(|(_, l, scalar, panel)| (l, scalar, panel))
}

/// The loop to tile, if any, and the tile that keeps the multipliers busiest.
fn choose_tile(
    nest: &FlatNest,
    vector: Loop,
    scalar: usize,
    panel: usize,
    width: usize,
) -> (Option<Loop>, Tile) {
    let registers = if width >= 16 { 32 } else { 16 };
    let mut candidates: Vec<Option<Loop>> = nest
        .parallel_loops()
        .into_iter()
        .filter(|&l| {
            l != vector && nest.reads[panel].step(l) == Some(0) && nest.reads[scalar].step(l) != Some(0)
        })
        .map(Some)
        .collect();
    candidates.sort_by_key(|l| l.and_then(|l| nest.reads[scalar].step(l)).map(i64::abs));
    if candidates.is_empty() {
        candidates.push(None);
    }
    let columns = nest.extent(vector).div_ceil(width);
    let mut best: Option<(f64, Option<Loop>, Tile)> = None;
    for &row in &candidates {
        let extent = row.map_or(1, |l| nest.extent(l));
        for vectors in 1..=4usize.min(columns) {
            let most = ((registers - 1 - vectors) / vectors).min(14.max(24 / vectors));
            let tiles = extent.div_ceil(most);
            let rows = extent.div_ceil(tiles);
            let cycles = |rows: usize, vectors: usize| -> f64 {
                if rows * vectors == 0 {
                    0.0
                } else {
                    (rows * vectors).max(rows + vectors).max(6) as f64 + 0.5
                }
            };
            let sweep = |vectors: usize| {
                (extent / rows) as f64 * cycles(rows, vectors) + cycles(extent % rows, vectors)
            };
            let total = (columns / vectors) as f64 * sweep(vectors) + sweep(columns % vectors);
            let cost = total / (extent * columns) as f64;
            if best.as_ref().is_none_or(|(other, ..)| cost < other * 0.995) {
                best = Some((cost, row, Tile { rows, vectors, width }));
            }
        }
    }
    best.map(|(_, row, tile)| (row, tile))
        .expect("there is at least one candidate tile")
}
