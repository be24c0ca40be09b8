//! Computes cheap values again where they are needed next, instead of keeping them while much else is alive.
//!
//! The scale of a local response normalisation is made on the way forward and read again on the way back, when it has long
//! been the largest tensor that nobody is using; a copy of the images with zeros around them, too. Where memory is fullest,
//! the value that gives back the most bytes for the time of its kernel is computed again just before its next reader, as
//! long as all that its kernel reads is still there, or can itself be computed again: a pooled image needs the normalised
//! one, which is there for a micro-batch only.

use crate::micro_batches;
use crate::operands::drop_unused_operands;
use crate::overlap_chain::{chains, peak};
use crate::substitute::normalize;
use ir::live::{LiveRange, liveness};
use ir::nest::Nest;
use ir::plan::Role;
use ir::program::{Kernel, Program, Value, ValueId};
use std::collections::BTreeMap;
use std::ops::Range;

/// Bytes that must come free for each byte that the repeated kernel moves.
const FREED_PER_MOVED: f64 = 0.2;
/// The least share of the peak point that is worth a kernel.
const MIN_SHARE: f64 = 0.04;

/// Rewrites a program until nothing is left to gain where its memory is fullest once it takes micro-batches of so many bytes.
pub fn rematerialize(program: &mut Program, micro_batch_bytes: u64) {
    let mut trial = program.clone();
    // What is computed again stays: every value has so many readers less each time, and the loop ends.
    let originals = program.values.len();
    let mut least = u64::MAX;
    loop {
        // Kernels and values keep their numbers when they run in micro-batches.
        let mut micro_batched = trial.clone();
        micro_batches::cut(&mut micro_batched, micro_batch_bytes);
        let live = liveness(&micro_batched);
        let Some((k, bytes)) = peak(&chains(&micro_batched, &live)) else {
            break;
        };
        // One peak point may give way to another that is as full: only the sum of all steps counts.
        if bytes < least {
            least = bytes;
            program.clone_from(&trial);
        }
        let together = |a: usize, b: usize| same_loop(&micro_batched, a, b);
        let peak_point = PeakPoint {
            program: &trial,
            live: &live,
            together: &together,
            k,
        };
        let is_candidate =
            |l: &&LiveRange| l.value.0 < originals && l.bytes as f64 >= MIN_SHARE * bytes as f64;
        let Some(again) = peak_point.best(live.iter().filter(is_candidate)) else {
            break;
        };
        repeat(&mut trial, &again);
    }
}

/// What to compute again, in order: of each kernel some results. Those of the last one are what is needed.
struct Again {
    steps: Vec<Step>,
    /// The first kernel that reads them afterwards.
    reader: usize,
}

/// Some results of a kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Step {
    maker: usize,
    results: Vec<usize>,
}

/// A kernel during which much is alive.
struct PeakPoint<'a> {
    program: &'a Program,
    live: &'a [LiveRange],
    /// Whether two kernels will run in micro-batches together.
    together: &'a dyn Fn(usize, usize) -> bool,
    k: usize,
}

impl PeakPoint<'_> {
    /// What frees the most, for what it takes to compute it again: a value, or if that alone is not worth it, all that its
    /// kernel makes. (Together they are there from when the first of them is read.)
    fn best<'l>(&self, values: impl Iterator<Item = &'l LiveRange> + Clone) -> Option<Again> {
        let of = |together: bool| {
            let found = values.clone().filter_map(move |l| self.candidate(l, together));
            let best = found.max_by(|a, b| a.0.total_cmp(&b.0))?;
            (best.0 >= FREED_PER_MOVED).then_some(best.1)
        };
        of(false).or_else(|| of(true))
    }

    /// A value that nobody uses at this peak point, alone or with others of its kernel, and the bytes freed for each that is
    /// moved.
    fn candidate(&self, freed: &LiveRange, together: bool) -> Option<(f64, Again)> {
        let program = self.program;
        let mut reader = self.next_reader(freed)?;
        let maker = maker_of(program, freed.value, 0..self.k)?;
        let mut bytes = 0;
        let mut results = vec![];
        for (result, &id) in program.kernels[maker].results.iter().enumerate() {
            let mut others = self.live.iter().filter(|_| together || id == freed.value);
            let Some(live) = others.find(|live| live.value == id) else {
                continue;
            };
            if let Some(next) = self.next_reader(live) {
                reader = reader.min(next);
                bytes += live.bytes;
                results.push(result);
            }
        }
        let mut steps = vec![];
        let read = self.steps(Step { maker, results }, reader, &mut steps)?;
        Some((bytes as f64 / (read + bytes) as f64, Again { steps, reader }))
    }

    /// The first kernel that reads a value after this peak point, if none uses it now, nor does a micro-batch loop that is under way.
    fn next_reader(&self, live: &LiveRange) -> Option<usize> {
        let &PeakPoint { program, k, .. } = self;
        if live.first >= k || live.last <= k {
            return None;
        }
        let id = live.value;
        let uses = |i: &usize| {
            let call = &program.kernels[*i];
            let mut touched = call.operands.iter().chain(&call.results);
            touched.any(|&v| program.owner(v) == id)
        };
        // Every micro-batch of a micro-batch loop comes back to all of it.
        let (before, after): (Vec<usize>, Vec<usize>) =
            (0..program.kernels.len()).filter(uses).partition(|&i| i < k);
        let (last, next) = (*before.last()?, *after.first()?);
        let is_in_use = uses(&k) || (self.together)(last, k) || (self.together)(k, next);
        let is_made_later = after.iter().any(|&i| program.kernels[i].results.contains(&id));
        (!is_in_use && !is_made_later).then_some(next)
    }

    /// Adds what has to be computed again before a reader, ending with this. Returns the bytes that it reads of what is
    /// there: what is made on the way is taken in micro-batches, and goes through caches.
    fn steps(&self, step: Step, reader: usize, steps: &mut Vec<Step>) -> Option<u64> {
        let program = self.program;
        let call = &program.kernels[step.maker];
        let is_cheap = call.micro_batch_loop.is_none() && !call.prepack && call.nest.contraction().is_none();
        if !is_cheap || program.is_transfer(call) {
            return None;
        }
        let mut read = 0;
        for &id in &alone(program, call, &step.results).operands {
            if self.is_there(id, reader) {
                read += program.value(id).bytes();
                continue;
            }
            let value = program.value(id);
            if value.role != Role::Temporary || value.alias.is_some() {
                return None;
            }
            let maker = maker_of(program, id, 0..step.maker)?;
            let result = program.kernels[maker].results.iter().position(|&v| v == id)?;
            match steps.iter_mut().find(|other| other.maker == maker) {
                Some(other) if !other.results.contains(&result) => other.results.push(result),
                Some(_) => {}
                None => {
                    let results = vec![result];
                    read += self.steps(Step { maker, results }, reader, steps)?;
                }
            }
        }
        steps.push(step);
        Some(read)
    }

    /// Whether a value is at a later kernel what it is now.
    fn is_there(&self, id: ValueId, reader: usize) -> bool {
        let &PeakPoint { program, live, .. } = self;
        let owner = program.owner(id);
        match program.value(owner).role {
            Role::Input { .. } | Role::Packed => true,
            Role::Temporary => {
                // What is overwritten later is not what it was.
                let mut others = program.values.iter();
                let overwritten = others.any(|other| other.alias == Some(id) && !other.batch_slice);
                owner == id && !overwritten && live.iter().any(|l| l.value == id && l.last >= reader)
            }
            Role::Parameter { .. } | Role::State { .. } | Role::Output { .. } => false,
        }
    }
}

/// The only kernel of these that makes a value.
fn maker_of(program: &Program, id: ValueId, kernels: Range<usize>) -> Option<usize> {
    let mut makers = kernels.filter(|&i| program.kernels[i].results.contains(&id));
    makers.next().filter(|_| makers.next().is_none())
}

fn same_loop(program: &Program, a: usize, b: usize) -> bool {
    let micro_batch_loop = program.kernels[a].micro_batch_loop;
    micro_batch_loop.is_some() && micro_batch_loop == program.kernels[b].micro_batch_loop
}

/// A kernel with some of its results.
fn alone(program: &Program, call: &Kernel, results: &[usize]) -> Kernel {
    let outputs = results.iter().map(|&result| call.nest.outputs[result].clone());
    let nest = Nest {
        outputs: outputs.collect(),
        ..call.nest.clone()
    };
    let names = results
        .iter()
        .map(|&result| &program.value(call.results[result]).name[..]);
    let mut alone = Kernel {
        label: format!("remat {}", names.collect::<Vec<_>>().join("+")),
        nest: normalize(nest),
        results: results.iter().map(|&result| call.results[result]).collect(),
        ..call.clone()
    };
    drop_unused_operands(&mut alone);
    alone
}

/// Computes values again before a reader, for that one and those after it.
fn repeat(program: &mut Program, again: &Again) {
    let mut new: BTreeMap<ValueId, ValueId> = BTreeMap::new();
    let mut calls = vec![];
    for step in &again.steps {
        let mut call = alone(program, &program.kernels[step.maker], &step.results);
        for id in &mut call.operands {
            *id = new.get(id).copied().unwrap_or(*id);
        }
        for id in &mut call.results {
            let old = program.value(*id).clone();
            program.values.push(Value {
                name: format!("{}.remat", old.name),
                ..old
            });
            let made = ValueId(program.values.len() - 1);
            new.insert(*id, made);
            *id = made;
        }
        calls.push(call);
    }
    for later in &mut program.kernels[again.reader..] {
        for id in &mut later.operands {
            if let Some(&made) = new.get(id) {
                *id = made;
            } else if let Some(&made) = program.values[id.0].alias.and_then(|whole| new.get(&whole)) {
                // A batch slice belongs to one micro-batch loop, and so is read here only.
                program.values[id.0].alias = Some(made);
            }
        }
    }
    let at = first_of_loop(program, again.reader);
    program.kernels.splice(at..at, calls);
    for step in &again.steps {
        for id in program.kernels[step.maker].results.clone() {
            drop_unread(program, step.maker, id);
        }
    }
}

fn first_of_loop(program: &Program, k: usize) -> usize {
    (0..k)
        .rev()
        .take_while(|&other| same_loop(program, other, k))
        .last()
        .unwrap_or(k)
}

/// Removes a result that nobody reads any more from its kernel, if that has others.
fn drop_unread(program: &mut Program, maker: usize, id: ValueId) {
    let mut operands = program.kernels.iter().flat_map(|call| &call.operands);
    let read = operands.any(|&v| program.owner(v) == id);
    let call = &mut program.kernels[maker];
    if read || call.results.len() < 2 {
        return;
    }
    let kept: Vec<bool> = call.results.iter().map(|&v| v != id).collect();
    let mut keep = kept.iter();
    call.results.retain(|_| *keep.next().expect("one a result"));
    let mut keep = kept.iter();
    call.nest.outputs.retain(|_| *keep.next().expect("one a result"));
    call.nest = normalize(call.nest.clone());
    drop_unused_operands(call);
}
