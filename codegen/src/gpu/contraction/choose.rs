//! Sides, tile and parts of a contraction.

use super::warpgroup::{self, ALIGNMENT};
use super::{Lines, MajorDim, MatrixOperand, Schedule, Tile, Unit, convert};
use crate::access::Access;
use crate::gpu::thread::Grid;
use crate::gpu::vector::VECTOR;
use crate::gpu::{Precision, SM_COUNT, k_slices};
use crate::kernel::FlatNest;
use ir::nest::Loop;

/// Tiles of f32 arithmetic.
const THREAD_TILES: [Tile; 3] = [
    square(128, 16, 256, Unit::Thread, (8, 8), 1.0),
    square(64, 16, 128, Unit::Thread, (8, 4), 0.7),
    square(32, 16, 64, Unit::Thread, (4, 4), 0.4),
];
/// Tiles of tensor cores.
const WARP_TILES: [Tile; 3] = [
    square(128, 32, 256, Unit::Warp, (64, 32), 1.0),
    square(64, 32, 128, Unit::Warp, (32, 32), 0.7),
    square(32, 32, 128, Unit::Warp, (16, 16), 0.4),
];
/// Tiles of tensor cores where these multiply for warpgroups. What has few rows and columns is left to warps.
const WARPGROUP_TILES: [Tile; 7] = [
    warpgroups(128, 128, 1.0),
    alone(warpgroups(128, 192, 1.0)),
    warpgroups(128, 96, 0.9),
    warpgroups(128, 64, 0.75),
    warpgroups(64, 128, 0.75),
    warpgroups(64, 64, 0.6),
    square(32, 32, 128, Unit::Warp, (16, 16), 0.3),
];
/// Registers of a multiprocessor (CUDA programming guide, technical specifications).
const REGISTERS: usize = 1 << 16;
/// Steps of the depth that a block does at least before others share it.
const STEPS: usize = 8;

const fn square(
    size: usize,
    depth: usize,
    threads: usize,
    unit: Unit,
    part: (usize, usize),
    reuse: f64,
) -> Tile {
    Tile {
        rows: size,
        columns: size,
        depth,
        stages: 3,
        threads,
        unit,
        part,
        reuse,
    }
}

/// A tile that fills a multiprocessor: more steps are on their way, since no other block computes while this one waits.
const fn alone(tile: Tile) -> Tile {
    Tile { stages: 4, ..tile }
}

/// A tile with a warpgroup for every 64 rows.
const fn warpgroups(rows: usize, columns: usize, reuse: f64) -> Tile {
    Tile {
        rows,
        columns,
        ..square(
            0,
            warpgroup::STEP,
            2 * rows,
            Unit::Warpgroup,
            (16, columns),
            reuse,
        )
    }
}

impl<'a> Schedule<'a> {
    pub(super) fn new(
        nest: &'a FlatNest,
        a: usize,
        b: usize,
        precision: Precision,
        warpgroups: bool,
    ) -> Schedule<'a> {
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
        let tiles: &[Tile] = match precision {
            Precision::F32 => &THREAD_TILES,
            Precision::Tf32 | Precision::Bf16 if warpgroups => &WARPGROUP_TILES,
            Precision::Tf32 | Precision::Bf16 => &WARP_TILES,
        };
        let blocks = |tile: &Tile| batches * sizes.0.div_ceil(tile.rows) * sizes.1.div_ceil(tile.columns);
        // Rounds that the busiest multiprocessor takes, of whole depths.
        let waves = |tile: &Tile, k_slices: usize| {
            (blocks(tile) * k_slices).div_ceil(SM_COUNT) as f64 / k_slices as f64
        };
        let split = |tile: &Tile| {
            let steps = terms.div_ceil(tile.depth);
            let places = SM_COUNT * if tile.is_alone() { 1 } else { 2 };
            let most = k_slices(steps, STEPS, places / blocks(tile));
            // Of equals the most: two blocks on a multiprocessor compute while either waits.
            let fastest = (1..=most)
                .rev()
                .min_by(|&a, &b| waves(tile, a).total_cmp(&waves(tile, b)));
            fastest.expect("at least one part")
        };
        // Time of the whole in units of a product at full speed: products of whole tiles, on the processors that
        // have a block.
        let cost = |tile: &Tile| waves(tile, split(tile)) * (tile.rows * tile.columns) as f64 / tile.reuse;
        let filled = tiles.iter().filter_map(|tile| {
            let side = |read: usize, loops: &[Loop], elements: usize| {
                MatrixOperand::new(nest, read, loops.to_vec(), &depth, elements, tile, precision)
            };
            let sides = [side(a, &lefts, tile.rows), side(b, &rights, tile.columns)];
            Some((convert::fitted(tile, &sides)?, sides))
        });
        let best = filled.min_by(|(a, _), (b, _)| cost(a).total_cmp(&cost(b)));
        let (tile, [rows, columns]) = best.expect("there are tiles");
        Schedule {
            nest,
            precision,
            tile,
            batch,
            rows,
            columns,
            k_slices: split(&tile),
            depth,
        }
    }

    pub(super) fn terms(&self) -> usize {
        self.depth.iter().map(|&l| self.nest.extent(l)).product()
    }

    /// Steps of the depth that one part has.
    pub(super) fn steps(&self) -> usize {
        self.terms().div_ceil(self.tile.depth).div_ceil(self.k_slices)
    }

    /// Extents that the number of a block counts: parts, batches, tiles of rows and of columns.
    pub(super) fn block_extents(&self) -> Vec<usize> {
        let mut extents = vec![self.k_slices];
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
            // Left alone, ptxas aims for so many blocks on a multiprocessor that it spills a few registers of these; those
            // of warpgroups it gives so many that a multiprocessor has one block only where two can be (tried with ptxas
            // 13.3 on every model: tests/ptx.rs).
            registers: match self.tile.unit {
                // Single elements have more addresses than there is room for.
                Unit::Warpgroup if self.tile.is_alone() || self.rows.vector.min(self.columns.vector) == 1 => {
                    0
                }
                Unit::Warpgroup => (REGISTERS / 2 / self.tile.threads).min(255) as u32,
                _ => 168,
            },
            shared_align: if self.tile.unit == Unit::Warpgroup {
                ALIGNMENT
            } else {
                16
            },
        }
    }

    /// Words of shared memory of one stage, both sides.
    pub(super) fn stage_words(&self) -> usize {
        self.rows.words + self.columns.words
    }
}

impl MatrixOperand {
    fn new(
        nest: &FlatNest,
        read: usize,
        loops: Vec<Loop>,
        depth: &[Loop],
        elements: usize,
        tile: &Tile,
        precision: Precision,
    ) -> MatrixOperand {
        let access = &nest.reads[read];
        let step = |l: Option<&Loop>| l.and_then(|&l| access.step(l)).map_or(i64::MAX, i64::abs);
        let along = match step(loops.last()) <= step(depth.last()) {
            true => MajorDim::Mn,
            false => MajorDim::K,
        };
        let fastest = match along {
            MajorDim::Mn => loops.last(),
            MajorDim::K => depth.last(),
        };
        let whole =
            fastest.is_some_and(|&l| nest.extent(l).is_multiple_of(VECTOR) && access.is_aligned(l, VECTOR));
        // Threads read shared memory along the side. Warps take single elements, whichever way lines run.
        let lines = match (tile.unit, along) {
            (Unit::Thread, _) | (Unit::Warp, MajorDim::Mn) => Lines::Depths,
            (Unit::Warp, MajorDim::K) => Lines::Elements,
            (Unit::Warpgroup, _) => Lines::Swizzled,
        };
        // Lines that run the other way take vectors of warpgroups, which turn them in registers.
        let packed = convert::packed(tile, precision);
        let transposes = whole && along == MajorDim::Mn && lines == Lines::Swizzled;
        let transposed = transposes
            .then(|| convert::transposed(tile, elements, packed))
            .flatten();
        let straight = whole && (along == MajorDim::Mn) == (lines == Lines::Depths);
        let vector = if straight || transposed.is_some() {
            VECTOR
        } else {
            1
        };
        let untransposed = transposes && transposed.is_none();
        let deep = match (transposed, vector) {
            (Some(depths), _) => depths,
            (None, 1) => packed,
            (None, _) => 1,
        };
        // Padding that puts the lanes of a warp into different banks; see `multiply`.
        let (line, count, padding) = match lines {
            Lines::Depths => (elements, tile.depth, 4),
            Lines::Elements => (tile.depth, elements, 8),
            Lines::Swizzled => (warpgroup::line(precision), elements, 0),
        };
        let extent = loops.iter().map(|&l| nest.extent(l)).product();
        MatrixOperand {
            read,
            loops,
            extent,
            along,
            vector,
            deep,
            by_registers: packed > 1 || transposed.is_some(),
            untransposed,
            tile: elements,
            lines,
            stride: line + padding,
            words: (line + padding) * count,
        }
    }
}

/// Orders loops so that the one with the smallest step is the last.
fn by_step(access: &Access, loops: &mut [Loop]) {
    loops.sort_by_key(|&l| std::cmp::Reverse(access.step(l).map_or(i64::MAX, i64::abs)));
}
