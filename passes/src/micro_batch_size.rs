//! How much convolutions read and write in a micro-batch: less where memory is fullest.
//!
//! Between the nests of a fast convolution lie its transformed tiles and their products, for a micro-batch. Micro-batches of
//! [`crate::micro_batch::MICRO_BATCH_BYTES`] are the fastest; half of that takes little longer, and where most is alive it is what the
//! arena becomes smaller by. The program is made in full to see where that is, then again with smaller micro-batches there, until
//! they are no remedy.

use crate::overlap_chain::{chains, peak};
use crate::winograd;
use ir::live::liveness;
use ir::program::{Program, ValueId};
use std::collections::BTreeSet;

/// Gives convolutions their algorithm, in micro-batches of so many bytes, or of half as many where memory would be fullest once
/// `rest` is done with the program. (Of several devices each is fullest at a time of its own; there all micro-batches are alike.)
pub fn choose(program: &mut Program, micro_batch_bytes: u64, rest: &dyn Fn(Program) -> Program) {
    let mut halved: BTreeSet<ValueId> = BTreeSet::new();
    let mut best: Option<(u64, Program)> = None;
    loop {
        let mut trial = program.clone();
        let makes = winograd::choose(&mut trial, &|call| match halved.contains(&call.results[0]) {
            true => micro_batch_bytes / 2,
            false => micro_batch_bytes,
        });
        if program.arena_bytes.len() > 1 {
            *program = trial;
            return;
        }
        let micro_batched = rest(trial.clone());
        let Some((k, bytes)) = peak(&chains(&micro_batched, &liveness(&micro_batched))) else {
            break;
        };
        if best.as_ref().is_none_or(|best| bytes < best.0) {
            best = Some((bytes, trial));
        }
        let micro_batch_loop = micro_batched.kernels[k].micro_batch_loop;
        let Some(&id) = micro_batch_loop.and_then(|micro_batch_loop| makes.get(&micro_batch_loop.number))
        else {
            break;
        };
        if !halved.insert(id) {
            break;
        }
    }
    if let Some((_, best)) = best {
        *program = best;
    }
}
