//! A thread a point of the parallel loops, or four that are adjacent in memory; reductions run within the thread.
//!
//! Neighbouring threads take neighbouring elements of the first output, so a warp's accesses are whole lines of
//! memory wherever reads follow the output's order. Four points a thread are 16 bytes an access; of windows that slide
//! along these see [`super::slide`].

use super::slide::Slide;
use super::thread::{Grid, below, emit_function};
use super::vector::{VECTOR, is_vector};
use super::{KernelArguments, Partial};
use crate::emit::Point;
use crate::kernel::{FlatNest, KernelText, delinearize};
use crate::loops::{finish_point, write_point};
use crate::mlir::Body;
use crate::scalar::{Lanes, Math};

const THREADS: usize = 256;

/// Lowers a nest. `partial` names what an earlier kernel left to be added: its scratch memory is passed on.
pub fn lower(nest: &FlatNest, call: &KernelArguments, partial: Option<&Partial>) -> KernelText {
    let output = &nest.outputs[0].0;
    let mut loops = nest.parallel_loops();
    loops.sort_by_key(|&l| std::cmp::Reverse(output.step(l)));
    let slide = loops.last().and_then(|&l| Slide::of(nest, l));
    let vector = loops
        .last()
        .copied()
        .filter(|&l| slide.is_some() || is_vector(nest, l));
    let width = if vector.is_some() { VECTOR } else { 1 };
    let mut extents: Vec<usize> = loops.iter().map(|&l| nest.extent(l)).collect();
    if let (Some(last), Some(_)) = (extents.last_mut(), vector) {
        *last /= width;
    }
    let total: usize = extents.iter().product();
    let grid = Grid {
        blocks: total.div_ceil(THREADS) as u64,
        threads: THREADS as u32,
        shared_bytes: 0,
        shared_align: 16,
        registers: 0,
    };
    let mut arguments = call.arguments.clone();
    arguments.extend(partial.map(|partial| partial.scratch.clone()));
    let text = emit_function(&arguments, call.in_place, grid, |body, block, thread| {
        let number = body.sum(0, &[(block, THREADS as i64), (thread, 1)]);
        let write = |body: &mut Body| {
            let zero = body.index(0);
            let mut values = vec![zero; nest.extents.len()];
            for (&l, value) in loops.iter().zip(delinearize(body, number, &extents)) {
                let step = if Some(l) == vector { width as i64 } else { 1 };
                values[l.0] = body.sum(0, &[(value, step)]);
            }
            let lanes = Lanes { width, mask: None };
            let (math, point) = (
                &mut Math { body, lanes },
                Point {
                    loops: values,
                    vector,
                },
            );
            match &slide {
                Some(slide) => {
                    let sum = slide.sum(nest, math, &point);
                    finish_point(nest, math, &point, (Some(sum), None));
                }
                None => write_point(nest, math, point),
            }
        };
        if total.is_multiple_of(THREADS) {
            write(body);
        } else {
            let inside = below(body, number, total);
            body.if_true(inside, write);
        }
    });
    KernelText {
        scratch: partial.map(|partial| partial.scratch.clone()),
        ..text
    }
}
