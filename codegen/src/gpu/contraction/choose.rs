//! Sides, tile and parts of a contraction.

use super::{Along, Schedule, Side, Tile};
use crate::access::Access;
use crate::gpu::points::VECTOR;
use crate::gpu::thread::Grid;
use crate::gpu::{PROCESSORS, Precision, parts};
use crate::kernel::Resolved;
use ir::nest::Loop;

/// Tiles of f32 arithmetic; a part is a thread's.
const THREAD_TILES: [Tile; 3] = [
    tile(128, 16, 256, (8, 8)),
    tile(64, 16, 128, (8, 4)),
    tile(32, 16, 64, (4, 4)),
];
/// Tiles of tensor cores; a part is a warp's.
const WARP_TILES: [Tile; 3] = [
    tile(128, 32, 256, (64, 32)),
    tile(64, 32, 128, (32, 32)),
    tile(32, 32, 128, (16, 16)),
];
/// The share of the peak that each size of tile can reach: small ones load more for each product.
const REUSE: [f64; 3] = [1.0, 0.7, 0.4];
/// Steps of the depth that a block does at least before others share it.
const STEPS: usize = 8;

const fn tile(size: usize, depth: usize, threads: usize, part: (usize, usize)) -> Tile {
    Tile {
        rows: size,
        columns: size,
        depth,
        stages: 3,
        threads,
        part,
    }
}

impl<'a> Schedule<'a> {
    pub(super) fn new(nest: &'a Resolved, a: usize, b: usize, precision: Precision) -> Schedule<'a> {
        let (left, right) = (&nest.reads[a], &nest.reads[b]);
        let (mut batch, mut lefts, mut rights) = (vec![], vec![], vec![]);
        for l in nest.parallel_loops() {
            match (left.depends_on(l), right.depends_on(l)) {
                (true, false) => lefts.push(l),
                (false, true) => rights.push(l),
                _ => batch.push(l),
            }
        }
        // Threads that write next to each other are those of adjacent columns.
        let output = &nest.outputs[0].0;
        let adjacent = |loops: &[Loop]| loops.iter().any(|&l| output.step(l) == Some(1));
        let ((a, mut lefts), (b, mut rights)) = match adjacent(&lefts) && !adjacent(&rights) {
            true => ((b, rights), (a, lefts)),
            false => ((a, lefts), (b, rights)),
        };
        let mut depth: Vec<Loop> = nest.reduction_loops();
        depth.retain(|&l| nest.extent(l) > 1);
        let larger = match nest.reads[a].elements > nest.reads[b].elements {
            true => a,
            false => b,
        };
        by_step(&nest.reads[larger], &mut depth);
        by_step(&nest.reads[a], &mut lefts);
        by_step(&nest.reads[b], &mut rights);
        let count = |loops: &[Loop]| loops.iter().map(|&l| nest.extent(l)).product::<usize>();
        let sizes = (count(&lefts), count(&rights));
        let (terms, batches) = (count(&depth), count(&batch));
        let tiles = if precision == Precision::F32 {
            THREAD_TILES
        } else {
            WARP_TILES
        };
        let blocks = |tile: &Tile| batches * sizes.0.div_ceil(tile.rows) * sizes.1.div_ceil(tile.columns);
        let split = |tile: &Tile| {
            let steps = terms.div_ceil(tile.depth);
            parts(steps, STEPS, (2 * PROCESSORS).div_ceil(blocks(tile)))
        };
        // Time of the whole in units of a product at full speed: products of whole tiles, on the processors that
        // have a block.
        let cost = |tile: &Tile, reuse: f64| {
            let (blocks, parts) = (blocks(tile), split(tile));
            let waves = (blocks * parts).div_ceil(PROCESSORS) as f64 / parts as f64;
            waves * (tile.rows * tile.columns) as f64 / reuse
        };
        let best = tiles
            .iter()
            .zip(REUSE)
            .min_by(|(a, x), (b, y)| cost(a, *x).total_cmp(&cost(b, *y)));
        let tile = *best.expect("there are three tiles").0;
        let side = |read: usize, loops: Vec<Loop>, elements: usize| {
            Side::new(nest, read, loops, &depth, precision, elements, tile.depth)
        };
        Schedule {
            nest,
            precision,
            tile,
            batch,
            rows: side(a, lefts, tile.rows),
            columns: side(b, rights, tile.columns),
            parts: split(&tile),
            depth,
        }
    }

    pub(super) fn terms(&self) -> usize {
        self.depth.iter().map(|&l| self.nest.extent(l)).product()
    }

    /// Steps of the depth that one part has.
    pub(super) fn steps(&self) -> usize {
        self.terms().div_ceil(self.tile.depth).div_ceil(self.parts)
    }

    /// Extents that the number of a block counts: parts, batches, tiles of rows and of columns.
    pub(super) fn block_extents(&self) -> Vec<usize> {
        let mut extents = vec![self.parts];
        extents.extend(self.batch.iter().map(|&l| self.nest.extent(l)));
        extents.push(self.rows.extent.div_ceil(self.tile.rows));
        extents.push(self.columns.extent.div_ceil(self.tile.columns));
        extents
    }

    pub(super) fn grid(&self) -> Grid {
        Grid {
            blocks: self.block_extents().iter().map(|&n| n as u64).product(),
            threads: self.tile.threads as u32,
            shared_bytes: (self.stage_words() * self.tile.stages * 4) as u32,
            // Left alone, ptxas aims for so many blocks on a multiprocessor that it spills a few registers of these; of
            // bf16, it spills when it is told (tried with ptxas 13.3 on every model: tests/ptx.rs).
            registers: match self.precision {
                Precision::Bf16 if self.tile.threads > 128 => 0,
                _ => 168,
            },
        }
    }

    /// Words of shared memory of one stage, both sides.
    pub(super) fn stage_words(&self) -> usize {
        self.rows.words + self.columns.words
    }
}

impl Side {
    fn new(
        nest: &Resolved,
        read: usize,
        loops: Vec<Loop>,
        depth: &[Loop],
        precision: Precision,
        tile: usize,
        steps: usize,
    ) -> Side {
        let access = &nest.reads[read];
        let step = |l: Option<&Loop>| l.and_then(|&l| access.step(l)).map_or(i64::MAX, i64::abs);
        let along = match step(loops.last()) <= step(depth.last()) {
            true => Along::Side,
            false => Along::Depth,
        };
        let fastest = match along {
            Along::Side => loops.last(),
            Along::Depth => depth.last(),
        };
        let whole =
            fastest.is_some_and(|&l| nest.extent(l).is_multiple_of(VECTOR) && access.is_aligned(l, VECTOR));
        // Threads read shared memory along the side. Tensor cores take single elements, whichever way lines run.
        let by_depth = precision == Precision::F32 || along == Along::Side;
        let vector = if whole && (along == Along::Side || !by_depth) {
            VECTOR
        } else {
            1
        };
        // Padding that puts the lanes of a warp into different banks; see `multiply`.
        let padding = match (precision, by_depth) {
            (Precision::F32, _) | (_, true) => 4,
            (_, false) => 8,
        };
        let (line, lines) = if by_depth { (tile, steps) } else { (steps, tile) };
        let extent = loops.iter().map(|&l| nest.extent(l)).product();
        Side {
            read,
            loops,
            extent,
            along,
            vector,
            tile,
            stride: line + padding,
            by_depth,
            words: (line + padding) * lines,
        }
    }
}

/// Orders loops so that the one with the smallest step is the last.
fn by_step(access: &Access, loops: &mut [Loop]) {
    loops.sort_by_key(|&l| std::cmp::Reverse(access.step(l).map_or(i64::MAX, i64::abs)));
}
