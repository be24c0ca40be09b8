//! Where the points of a tile lie in shared memory.

use super::order::{Order, WARP};
use crate::gpu::vector::VECTOR;
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
    /// Words of all points, and up to a whole vector.
    pub words: usize,
}

impl Banks {
    /// The arrangement of a tile's points whose warps, in both orders, wait the least for each other, and how often they
    /// do: the points of one order in lines of banks, with a skew from one group of lines to the next. Where neither order
    /// serves both, any order of the loops may.
    pub fn choose(tile: &[usize], order: &Order, staged: &Order) -> (usize, Banks) {
        // Of each order, what lanes take at once: word by word, and as vectors.
        let accesses =
            [order, staged].map(|order| (order, [false, true].map(|whole| order.together(tile, whole))));
        let mut best: Option<(usize, Banks)> = None;
        let of_stage = |loops: &[Loop]| -> Vec<Loop> {
            let loops = loops.iter().copied();
            loops.filter(|l| staged.loops.contains(l)).collect()
        };
        let mut lines = vec![of_stage(&order.loops), staged.loops.clone()];
        for loops in permutations(&staged.loops) {
            if !lines.contains(&loops) {
                lines.push(loops);
            }
        }
        for loops in lines {
            if best.as_ref().is_some_and(|best| best.0 == 0) {
                break;
            }
            for banks in arrangements(tile, &loops) {
                let limit = best.as_ref().map_or(usize::MAX, |best| best.0);
                let of = accesses.iter();
                let accesses = of.flat_map(|(order, ways)| &ways[usize::from(banks.has_vectors(order))]);
                let conflicts = banks.conflicts(accesses, limit);
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

    /// Whether the vectors that threads take in an order are vectors here as well.
    pub fn has_vectors(&self, order: &Order) -> bool {
        let Some(first) = order.loops.first().filter(|_| order.lanes > 1) else {
            return false;
        };
        let whole = |words: usize| words.is_multiple_of(order.lanes);
        let mut others = self.steps.iter().enumerate().filter(|&(l, _)| l != first.0);
        self.steps[first.0] == 1
            && whole(self.every)
            && whole(self.skew)
            && others.all(|other| whole(*other.1))
    }

    /// Turns that lanes wait because others want different words of a bank; those beyond the limit are not counted.
    fn conflicts<'a>(&self, accesses: impl Iterator<Item = &'a Vec<Vec<usize>>>, limit: usize) -> usize {
        let mut conflicts = 0;
        for lanes in accesses {
            let mut words: Vec<usize> = lanes.iter().map(|place| self.word(place)).collect();
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
        words: (step + (step - 1) / every * skew).next_multiple_of(VECTOR),
    };
    let pairs = groups
        .into_iter()
        .flat_map(|every| (0..WARP).map(move |skew| (every, skew)));
    pairs.map(move |(every, skew)| skewed(every, skew))
}

/// The loops in every order.
fn permutations(loops: &[Loop]) -> Vec<Vec<Loop>> {
    let Some((&last, rest)) = loops.split_last() else {
        return vec![vec![]];
    };
    let with_last = |order: Vec<Loop>| {
        (0..=order.len()).map(move |at| {
            let mut order = order.clone();
            order.insert(at, last);
            order
        })
    };
    permutations(rest).into_iter().flat_map(with_last).collect()
}

fn gcd(a: usize, b: usize) -> usize {
    if b == 0 { a } else { gcd(b, a % b) }
}
