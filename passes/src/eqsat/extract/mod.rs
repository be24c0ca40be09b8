//! Which kernels run, what each computes and what it stores: the cheapest choice, as an integer program.
//!
//! [`ExtractionProblem`] knows nothing of tensors. *Values* are made by *kernels*. A kernel is a core and what may be computed beside
//! it, its ops; an op takes each value it needs from another op of its kernel, where that is possible, or from
//! memory, where some kernel must have stored it. A kernel costs its launch and the larger of its arithmetic and its traffic;
//! a value that many kernels need is stored once and paid for once.
//!
//! | module | what it does |
//! |---|---|
//! | [`integer`] | the optimum, with its bound, by a solver; circles are cut as they appear in solutions |
//! | [`parts`] | the problem in parts that share no decision: one integer program each |
//! | [`windows`] | parts too large for that, window by window |
//! | [`greedy`] | a good selection at once: the warm start, and the fallback where the solver finds none |
//! | [`order`] | what every selection has in common: which value comes before which, and which are in memory |

pub mod bits;
mod cuts;
pub mod greedy;
pub mod integer;
pub mod order;
pub mod parts;
mod program;
mod trees;
pub mod windows;

use bits::Bits;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, HashMap};

/// A value, by its position.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ClassValueId(pub usize);

/// A value that an op reads.
#[derive(Clone, Debug, PartialEq)]
pub struct Need {
    /// The value.
    pub value: ClassValueId,
    /// Ops of the same kernel that it can be taken from, without memory.
    pub inside: Vec<usize>,
}

/// What a kernel may compute.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct FusedOp {
    /// Values that it makes.
    pub makes: Vec<ClassValueId>,
    /// Whether its kernel can store them; what is computed anew wherever it is read is not at hand to be stored.
    pub is_stored: bool,
    /// Values that it reads.
    pub needs: Vec<Need>,
    /// Seconds of arithmetic.
    pub compute: f64,
}

/// A kernel that could run.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct FusionGroup {
    /// What it may compute; the first always, the others as the selection says.
    pub ops: Vec<FusedOp>,
    /// Seconds that a launch takes.
    pub launch: f64,
}

/// What to make, of what.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ExtractionProblem {
    /// For every value the seconds that a kernel takes to read it, or to store it.
    pub traffic: Vec<f64>,
    /// Values that are in memory from the start.
    pub given: BTreeSet<ClassValueId>,
    /// Values that must be in memory at the end.
    pub wanted: BTreeSet<ClassValueId>,
    /// Kernels that could run.
    pub kernels: Vec<FusionGroup>,
    /// The most values that a kernel stores.
    pub outputs: usize,
    /// Ops that cannot be in one kernel together: found when it was built.
    pub impossible: Vec<(usize, BTreeSet<usize>)>,
}

/// Kernels with their ops.
pub type FusionChoice = BTreeMap<usize, BTreeSet<usize>>;

/// A kernel that runs.
#[derive(Clone, Debug, PartialEq)]
pub struct Taken {
    /// Position among the kernels.
    pub kernel: usize,
    /// Its ops, in an order in which they can be computed.
    pub ops: Vec<usize>,
    /// Values that it reads from memory.
    pub reads: Vec<ClassValueId>,
    /// Values that it stores: each is stored by one kernel of a selection.
    pub stores: Vec<ClassValueId>,
}

/// What was selected, in an order in which it can run.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Selection {
    /// Kernels in the order they run.
    pub taken: Vec<Taken>,
    /// Seconds of all.
    pub seconds: f64,
    /// No selection takes fewer seconds than this.
    pub bound: f64,
}

impl Selection {
    /// Its kernels with their ops.
    pub fn choice(&self) -> FusionChoice {
        let ops = |taken: &Taken| (taken.kernel, taken.ops.iter().copied().collect());
        self.taken.iter().map(ops).collect()
    }

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
    #[error("no kernel makes value {0}, which is wanted")]
    Unmade(usize),
    /// The solver gave up.
    #[error("the solver found no selection: {0}")]
    Solver(String),
}

/// Why a choice cannot run: kernels that wait for values, and those that others of them make.
#[derive(Clone, Debug, PartialEq)]
pub struct Stuck {
    /// Kernels that cannot start, with the values each waits for.
    pub waiting: BTreeMap<usize, Vec<ClassValueId>>,
    /// A wanted value that is therefore missing.
    pub missing: ClassValueId,
}

impl ExtractionProblem {
    /// Orders a choice so that each kernel runs after those that make what it reads, and leaves out what nobody needs.
    ///
    /// A value that several chosen kernels make is stored by the first of them. Of kernels that can run the one with the
    /// lowest position runs first.
    pub fn realise(&self, choice: &FusionChoice) -> Result<Selection, Stuck> {
        let mut here = Bits::none(self.traffic.len());
        self.given.iter().for_each(|&v| here.insert(v));
        let mut left: Vec<Option<Taken>> = vec![];
        let mut missing: Vec<usize> = vec![];
        let mut waiting: HashMap<ClassValueId, Vec<usize>> = HashMap::new();
        let mut ready: BinaryHeap<Reverse<usize>> = BinaryHeap::new();
        for (position, (&k, ops)) in choice.iter().enumerate() {
            let taken = self.inside(k, ops);
            let absent: Vec<ClassValueId> = taken
                .reads
                .iter()
                .copied()
                .filter(|&v| !here.contains(v))
                .collect();
            for &value in &absent {
                waiting.entry(value).or_default().push(position);
            }
            if absent.is_empty() {
                ready.push(Reverse(position));
            }
            missing.push(absent.len());
            left.push(Some(taken));
        }
        let mut order: Vec<Taken> = vec![];
        while let Some(Reverse(position)) = ready.pop() {
            let mut next = left[position].take().expect("a kernel becomes ready once");
            let mut stores = vec![];
            for value in self.made(&next) {
                if !here.contains(value) {
                    here.insert(value);
                    stores.push(value);
                }
            }
            for reader in stores.iter().filter_map(|v| waiting.remove(v)).flatten() {
                missing[reader] -= 1;
                if missing[reader] == 0 {
                    ready.push(Reverse(reader));
                }
            }
            next.stores = stores;
            order.push(next);
        }
        if let Some(&missing) = self.wanted.iter().find(|v| !here.contains(**v)) {
            let absent = |taken: &Taken| {
                let absent = taken.reads.iter().copied();
                absent.filter(|&v| !here.contains(v)).collect()
            };
            let waiting = left.iter().flatten().map(|taken| (taken.kernel, absent(taken)));
            return Err(Stuck {
                waiting: waiting.collect(),
                missing,
            });
        }
        let taken = self.without_waste(order);
        Ok(Selection {
            seconds: taken.iter().map(|t| self.seconds(t)).sum(),
            taken,
            bound: 0.0,
        })
    }

    /// The order of a kernel's ops, and what they read from memory.
    fn inside(&self, kernel: usize, ops: &BTreeSet<usize>) -> Taken {
        let all = &self.kernels[kernel].ops;
        let (mut order, mut left): (Vec<usize>, BTreeSet<usize>) = (vec![], ops.clone());
        left.insert(0);
        let mut reads: BTreeSet<ClassValueId> = BTreeSet::new();
        while !left.is_empty() {
            let waits = |m: &usize| {
                all[*m]
                    .needs
                    .iter()
                    .any(|n| n.inside.iter().any(|p| left.contains(p)))
            };
            // Ops that wait for each other read what they would have taken from each other.
            let next = left.iter().find(|m| !waits(m)).or(left.first());
            let next = *next.expect("an op is left");
            left.remove(&next);
            let from_memory = |n: &&Need| !n.inside.iter().any(|p| order.contains(p));
            reads.extend(all[next].needs.iter().filter(from_memory).map(|n| n.value));
            order.push(next);
        }
        Taken {
            kernel,
            ops: order,
            reads: reads.into_iter().collect(),
            stores: vec![],
        }
    }

    fn made<'a>(&'a self, taken: &'a Taken) -> impl Iterator<Item = ClassValueId> + 'a {
        let ops = &self.kernels[taken.kernel].ops;
        taken
            .ops
            .iter()
            .map(|&m| &ops[m])
            .filter(|m| m.is_stored)
            .flat_map(|m| m.makes.iter().copied())
    }

    /// From the end, keeps what makes a value that is needed later or wanted.
    fn without_waste(&self, order: Vec<Taken>) -> Vec<Taken> {
        let mut needed: BTreeSet<ClassValueId> = self.wanted.clone();
        let mut kept = vec![];
        for mut taken in order.into_iter().rev() {
            taken.stores.retain(|v| needed.contains(v));
            if taken.stores.is_empty() {
                continue;
            }
            let taken = self.trimmed(taken);
            needed.extend(&taken.reads);
            kept.push(taken);
        }
        kept.reverse();
        kept
    }

    /// A kernel with only those ops that its stores take, and with what these read.
    fn trimmed(&self, mut taken: Taken) -> Taken {
        let ops = &self.kernels[taken.kernel].ops;
        let mut used: BTreeSet<usize> = BTreeSet::new();
        let mut reads: BTreeSet<ClassValueId> = BTreeSet::new();
        for (position, &m) in taken.ops.iter().enumerate().rev() {
            let makes = |v: &ClassValueId| ops[m].is_stored && ops[m].makes.contains(v);
            if m != 0 && !used.contains(&m) && !taken.stores.iter().any(makes) {
                continue;
            }
            used.insert(m);
            for need in &ops[m].needs {
                match taken.ops[..position].iter().find(|p| need.inside.contains(p)) {
                    Some(&provider) => _ = used.insert(provider),
                    None => _ = reads.insert(need.value),
                }
            }
        }
        taken.ops.retain(|m| used.contains(m));
        taken.reads = reads.into_iter().collect();
        taken
    }

    /// Seconds of a kernel: arithmetic and traffic overlap.
    pub fn seconds(&self, taken: &Taken) -> f64 {
        let kernel = &self.kernels[taken.kernel];
        let compute: f64 = taken.ops.iter().map(|&m| kernel.ops[m].compute).sum();
        compute.max(self.memory(taken)) + kernel.launch
    }

    /// Seconds of a kernel's traffic.
    pub fn memory(&self, taken: &Taken) -> f64 {
        taken
            .reads
            .iter()
            .chain(&taken.stores)
            .map(|v| self.traffic[v.0])
            .sum()
    }

    /// Checks that a selection runs in its order and makes all that is wanted, each value once.
    pub fn verify(&self, selection: &Selection) -> Result<(), String> {
        let mut here: BTreeSet<ClassValueId> = self.given.clone();
        for taken in &selection.taken {
            let k = taken.kernel;
            if let Some(missing) = taken.reads.iter().find(|v| !here.contains(v)) {
                return Err(format!("kernel {k} reads value {} before it is made", missing.0));
            }
            for (position, &m) in taken.ops.iter().enumerate() {
                for need in &self.kernels[k].ops[m].needs {
                    let inside = taken.ops[..position].iter().any(|p| need.inside.contains(p));
                    if !inside && !taken.reads.contains(&need.value) {
                        return Err(format!("op {m} of kernel {k} lacks value {}", need.value.0));
                    }
                }
            }
            for value in &taken.stores {
                if !self.made(taken).any(|v| v == *value) || !here.insert(*value) {
                    return Err(format!(
                        "kernel {k} stores value {}, not made by it or stored already",
                        value.0
                    ));
                }
            }
        }
        match self.wanted.iter().find(|v| !here.contains(v)) {
            Some(missing) => Err(format!("value {} is wanted and not made", missing.0)),
            None => Ok(()),
        }
    }
}
