//! Which kernels run: the cheapest set that makes every wanted value, as an integer program.
//!
//! [`Problem`] knows nothing of tensors: *values* are made by *candidates*, each of which needs other values and offers
//! some. A candidate that is taken costs its time; a value that it stores costs traffic. Costs are those of a directed
//! acyclic graph: a value that many need is paid for once.
//!
//! | module | what it does |
//! |---|---|
//! | [`integer`] | the optimum, with its bound, by a solver; cycles are cut as they appear in solutions |
//! | [`greedy`] | a good selection at once: the warm start, and the fallback where the solver finds none |

pub mod greedy;
pub mod integer;

use std::collections::BTreeSet;

/// A value, by its position.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ValueIx(pub usize);

/// A way to make values.
#[derive(Clone, Debug, PartialEq)]
pub struct Candidate {
    /// Values that must be there.
    pub needs: Vec<ValueIx>,
    /// Values it offers, with the seconds that storing each takes.
    pub offers: Vec<(ValueIx, f64)>,
    /// Seconds of arithmetic.
    pub compute: f64,
    /// Seconds of reading what it needs.
    pub read: f64,
    /// Seconds that a launch takes.
    pub launch: f64,
}

impl Candidate {
    /// Seconds, if these values are stored: arithmetic and traffic overlap.
    pub fn seconds(&self, stored: impl Fn(ValueIx) -> bool) -> f64 {
        let store: f64 = self.offers.iter().filter(|o| stored(o.0)).map(|o| o.1).sum();
        self.compute.max(self.read + store) + self.launch
    }
}

/// What to make, of what.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Problem {
    /// How many values there are.
    pub values: usize,
    /// Values that are there from the start.
    pub given: BTreeSet<ValueIx>,
    /// Values that must be made.
    pub wanted: BTreeSet<ValueIx>,
    /// All ways to make values.
    pub candidates: Vec<Candidate>,
}

/// A candidate that runs, with the values that it stores.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Taken {
    /// Position among the candidates.
    pub candidate: usize,
    /// Values stored: each by one candidate of a selection.
    pub stores: Vec<ValueIx>,
}

/// What was selected, in an order in which it can run.
#[derive(Clone, Debug, PartialEq)]
pub struct Selection {
    /// Candidates in the order they run.
    pub taken: Vec<Taken>,
    /// Seconds of all.
    pub seconds: f64,
    /// No selection takes fewer seconds than this.
    pub bound: f64,
}

impl Selection {
    /// How far the selection may be from the optimum, relative to its cost.
    pub fn gap(&self) -> f64 {
        match self.seconds > 0.0 {
            true => ((self.seconds - self.bound) / self.seconds).max(0.0),
            false => 0.0,
        }
    }
}

/// Why nothing could be selected.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ExtractError {
    /// A wanted value is made by nothing.
    #[error("no candidate makes value {0}, which is wanted")]
    Unmade(usize),
    /// The solver gave up.
    #[error("the solver found no selection: {0}")]
    Solver(String),
}

impl Problem {
    /// Orders candidates so that each runs after those that make what it needs, every value made by the first of the
    /// chosen that offers it; candidates left without a value to make are dropped. `Err` names a wanted value that is not
    /// made, since candidates wait for each other.
    pub fn order(&self, chosen: &[usize]) -> Result<Vec<Taken>, ValueIx> {
        let (order, here) = self.run(chosen);
        match self.wanted.iter().find(|v| !here.contains(v)) {
            Some(&missing) => Err(missing),
            None => Ok(self.without_waste(&order)),
        }
    }

    /// The values that there are once all chosen candidates ran that can.
    pub fn reached(&self, chosen: &[usize]) -> BTreeSet<ValueIx> {
        self.run(chosen).1
    }

    fn run(&self, chosen: &[usize]) -> (Vec<usize>, BTreeSet<ValueIx>) {
        let mut here: BTreeSet<ValueIx> = self.given.clone();
        let (mut left, mut order): (Vec<usize>, Vec<usize>) = (chosen.to_vec(), vec![]);
        loop {
            let ready = |c: &usize| self.candidates[*c].needs.iter().all(|v| here.contains(v));
            let Some(position) = left.iter().position(ready) else {
                return (order, here);
            };
            let next = left.remove(position);
            here.extend(self.candidates[next].offers.iter().map(|o| o.0));
            order.push(next);
        }
    }

    /// From the end, keeps candidates that store a value which is needed later or wanted.
    fn without_waste(&self, order: &[usize]) -> Vec<Taken> {
        let mut needed: BTreeSet<ValueIx> = self.wanted.clone();
        let mut taken = vec![];
        for (position, &candidate) in order.iter().enumerate().rev() {
            let earlier = |v: ValueIx| {
                let offers = |c: &usize| self.candidates[*c].offers.iter().any(|o| o.0 == v);
                order[..position].iter().any(offers)
            };
            let offers = self.candidates[candidate].offers.iter().map(|o| o.0);
            let stores: Vec<ValueIx> = offers
                .filter(|v| needed.contains(v) && !self.given.contains(v) && !earlier(*v))
                .collect();
            if !stores.is_empty() {
                stores.iter().for_each(|v| _ = needed.remove(v));
                needed.extend(&self.candidates[candidate].needs);
                taken.push(Taken { candidate, stores });
            }
        }
        taken.reverse();
        taken
    }

    /// Seconds of a selection.
    pub fn seconds(&self, taken: &[Taken]) -> f64 {
        let seconds = |t: &Taken| self.candidates[t.candidate].seconds(|v| t.stores.contains(&v));
        taken.iter().map(seconds).sum()
    }

    /// Checks that a selection runs in its order and makes all that is wanted, each value once.
    pub fn verify(&self, selection: &Selection) -> Result<(), String> {
        let mut here: BTreeSet<ValueIx> = self.given.clone();
        for taken in &selection.taken {
            let candidate = &self.candidates[taken.candidate];
            if let Some(missing) = candidate.needs.iter().find(|v| !here.contains(v)) {
                return Err(format!(
                    "candidate {} needs value {} before it is made",
                    taken.candidate, missing.0
                ));
            }
            for value in &taken.stores {
                if !candidate.offers.iter().any(|o| o.0 == *value) || !here.insert(*value) {
                    return Err(format!(
                        "candidate {} stores value {}, which it does not offer or which is there",
                        taken.candidate, value.0
                    ));
                }
            }
        }
        match self.wanted.iter().find(|v| !here.contains(v)) {
            Some(missing) => Err(format!("value {} is wanted and not made", missing.0)),
            None => Ok(()),
        }
    }

    /// Candidates that may be of use: those that offer, over any number of steps, what is wanted.
    pub fn useful(&self) -> Vec<usize> {
        let mut wanted: BTreeSet<ValueIx> = self.wanted.clone();
        let mut found: BTreeSet<usize> = BTreeSet::new();
        loop {
            let new: Vec<usize> = (0..self.candidates.len())
                .filter(|c| !found.contains(c))
                .filter(|&c| self.candidates[c].offers.iter().any(|o| wanted.contains(&o.0)))
                .collect();
            if new.is_empty() {
                return found.into_iter().collect();
            }
            for c in new {
                found.insert(c);
                let needs = self.candidates[c].needs.iter();
                wanted.extend(needs.filter(|v| !self.given.contains(v)));
            }
        }
    }
}
