//! Where the points of a tile lie in shared memory.

use super::order::{Order, WARP};
use ir::nest::Loop;

/// An arrangement of points: at `at + at / every · skew`, for `at = Σ step · place`.
#[derive(Clone, Debug, PartialEq)]
pub struct Banks {
    /// Of each loop of the nest.
    pub steps: Vec<usize>,
    /// Words between one skew and the next.
    pub every: usize,
    /// Words left free.
    pub skew: usize,
    /// Words of all points.
    pub words: usize,
}

impl Banks {
    /// The arrangement of a tile's points whose warps, in both orders, wait the least for each other, and how often they
    /// do: the points of one order in lines of banks, with a skew from one group of lines to the next.
    pub fn choose(tile: &[usize], order: &Order, staged: &Order) -> (usize, Banks) {
        let warps = [order.warps(tile), staged.warps(tile)].concat();
        let mut best: Option<(usize, Banks)> = None;
        for lines in [&order.loops, &staged.loops] {
            let loops: Vec<Loop> = lines
                .iter()
                .copied()
                .filter(|l| staged.loops.contains(l))
                .collect();
            for banks in arrangements(tile, &loops) {
                let limit = best.as_ref().map_or(usize::MAX, |best| best.0);
                let conflicts = banks.conflicts(&warps, limit);
                if conflicts < limit {
                    best = Some((conflicts, banks));
                }
                if conflicts == 0 {
                    break;
                }
            }
        }
        best.expect("there are arrangements")
    }

    fn word(&self, place: &[usize]) -> usize {
        let at: usize = place
            .iter()
            .zip(&self.steps)
            .map(|(place, step)| place * step)
            .sum();
        at + at / self.every * self.skew
    }

    /// Turns that warps wait because lanes want different words of a bank; those beyond the limit are not counted.
    fn conflicts(&self, warps: &[Vec<Vec<usize>>], limit: usize) -> usize {
        let mut conflicts = 0;
        for warp in warps {
            let mut words: Vec<usize> = warp.iter().map(|place| self.word(place)).collect();
            words.sort_unstable();
            words.dedup();
            let mut banks = [0; WARP];
            words.iter().for_each(|word| banks[word % WARP] += 1);
            conflicts += banks.into_iter().max().unwrap_or(0).max(1) - 1;
            if conflicts >= limit {
                break;
            }
        }
        conflicts
    }
}

/// Arrangements with the points of these loops one after the other, the fastest first, but for a skew.
fn arrangements(tile: &[usize], loops: &[Loop]) -> impl Iterator<Item = Banks> {
    let (mut steps, mut step) = (vec![0; tile.len()], 1);
    let mut groups: Vec<usize> = (1..=8).map(|lines| lines * WARP).collect();
    for l in loops {
        steps[l.0] = step;
        step *= tile[l.0];
        // After so many words, rows of such a length are back at the same bank.
        groups.push(step / gcd(step, WARP) * WARP);
    }
    let skewed = move |every: usize, skew: usize| Banks {
        steps: steps.clone(),
        every,
        skew,
        words: step + (step - 1) / every * skew,
    };
    let pairs = groups
        .into_iter()
        .flat_map(|every| (0..WARP).map(move |skew| (every, skew)));
    pairs.map(move |(every, skew)| skewed(every, skew))
}

fn gcd(a: usize, b: usize) -> usize {
    if b == 0 { a } else { gcd(b, a % b) }
}
