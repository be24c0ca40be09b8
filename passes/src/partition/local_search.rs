//! Which of the strategies near the bound is taken, for [`super::search`].
//!
//! The integer program sees how much each device has to do, and how long paths are; not that a device waits in between, for
//! a transfer or for what the other one is about to make. A simulation of the queues sees that. So kernels are placed anew,
//! one by one, wherever that shortens the simulated schedule, and no device is busier than a strategy near the bound makes it.

use super::search::{Measures, PlacementProblem};

/// How many strategies are simulated.
const TRIED: usize = 200;
/// What must be gained by placing a kernel anew, relative to the schedule.
const GAIN: f64 = 1e-4;

impl PlacementProblem<'_> {
    /// The choices, changed where that shortens the schedule and the busiest device does not work longer than so many seconds.
    pub(super) fn improved_locally(
        &self,
        shares: &[usize],
        mut chosen: Vec<usize>,
        busiest: f64,
        measures: Measures,
    ) -> Vec<usize> {
        let simulated = |chosen: &[usize]| (measures.seconds)(&self.strategy(shares, chosen));
        let mut shortest = simulated(&chosen);
        let mut left = TRIED;
        loop {
            let mut shorter = false;
            for k in 0..self.kernels.len() {
                for p in 0..self.kernels[k].len() {
                    let before = std::mem::replace(&mut chosen[k], p);
                    if p == before || self.busiest(&chosen) > busiest {
                        chosen[k] = before;
                        continue;
                    }
                    if left == 0 {
                        chosen[k] = before;
                        return chosen;
                    }
                    left -= 1;
                    let seconds = simulated(&chosen);
                    match seconds < shortest * (1.0 - GAIN) {
                        true => (shortest, shorter) = (seconds, true),
                        false => chosen[k] = before,
                    }
                }
            }
            if !shorter {
                return chosen;
            }
        }
    }
}
