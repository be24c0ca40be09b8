//! How much convolutions read and write in a turn: less where memory is fullest.
//!
//! Between the nests of a fast convolution lie its transformed tiles and their products, for a micro-batch. Turns of
//! [`crate::turns::TURN_BYTES`] are the fastest; half of that takes little longer, and where most is alive it is what the
//! arena becomes smaller by. The program is made in full to see where that is, then again with smaller turns there, until
//! they are no remedy.

use crate::memory;
use crate::trail::trails;
use crate::winograd;
use ir::live::liveness;
use ir::program::{Program, ValueId};
use std::collections::BTreeSet;

/// Gives convolutions their algorithm, in turns of so many bytes, or of half as many where memory would be fullest once
/// `rest` is done with the program. (Of several devices each is fullest at a time of its own; there all turns are alike.)
pub fn choose(program: &mut Program, turn_bytes: u64, rest: &dyn Fn(Program) -> Program) {
    let mut halved: BTreeSet<ValueId> = BTreeSet::new();
    let mut best: Option<(u64, Program)> = None;
    loop {
        let mut trial = program.clone();
        let makes = winograd::choose(&mut trial, &|call| match halved.contains(&call.results[0]) {
            true => turn_bytes / 2,
            false => turn_bytes,
        });
        if program.arena_bytes.len() > 1 {
            *program = trial;
            return;
        }
        let turned = rest(trial.clone());
        let Some((k, bytes)) = memory::fullest(&trails(&turned, &liveness(&turned))) else {
            break;
        };
        if best.as_ref().is_none_or(|best| bytes < best.0) {
            best = Some((bytes, trial));
        }
        let group = turned.kernels[k].group;
        let Some(&id) = group.and_then(|group| makes.get(&group.number)) else {
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
