//! Computes cheap values again where they are needed next, instead of keeping them while much else is alive.
//!
//! The scale of a local response normalisation is made on the way forward and read again on the way back, when it has long
//! been the largest tensor that nobody is using; a copy of the images with zeros around them, too. Where memory is fullest,
//! the value that gives back the most bytes for the time of its kernel is computed again just before its next reader, as
//! long as all that its kernel reads is still there.

use crate::layout::drop_unused_operands;
use crate::memory;
use crate::micro_batches;
use crate::substitute::normalize;
use crate::trail::trails;
use ir::live::{Live, liveness};
use ir::nest::Nest;
use ir::plan::Role;
use ir::program::{KernelCall, Program, Value, ValueId};

/// Bytes that must come free for each byte that the repeated kernel moves.
const FREED_PER_MOVED: f64 = 0.2;
/// The least share of the fullest moment that is worth a kernel.
const LEAST_SHARE: f64 = 0.04;

/// Rewrites a program until nothing is left to gain where its memory is fullest once it takes turns of so many bytes.
pub fn rematerialize(program: &mut Program, turn_bytes: u64) {
    let mut trial = program.clone();
    // What is computed again stays: every value has so many readers less each time, and the loop ends.
    let originals = program.values.len();
    let mut least = u64::MAX;
    loop {
        // Kernels and values keep their numbers when they take turns.
        let mut turned = trial.clone();
        micro_batches::cut(&mut turned, turn_bytes);
        let live = liveness(&turned);
        let held: Vec<Live> = trails(&turned, &live).iter().map(|trail| trail.live).collect();
        let Some((k, bytes)) = memory::fullest(&held) else {
            break;
        };
        // One moment may give way to another that is as full: only the sum of all steps counts.
        if bytes < least {
            least = bytes;
            program.clone_from(&trial);
        }
        let together = |a: usize, b: usize| same_group(&turned, a, b);
        let moment = Moment {
            program: &trial,
            live: &live,
            together: &together,
            k,
        };
        let is_candidate = |l: &&Live| l.value.0 < originals && l.bytes as f64 >= LEAST_SHARE * bytes as f64;
        let Some(again) = moment.best(live.iter().filter(is_candidate)) else {
            break;
        };
        repeat(&mut trial, &again);
    }
}

/// A value to compute again.
struct Again {
    value: ValueId,
    /// The kernel that makes it, and which of its results it is.
    maker: (usize, usize),
    /// The first kernel that reads it afterwards.
    reader: usize,
}

/// A kernel during which much is alive.
struct Moment<'a> {
    program: &'a Program,
    live: &'a [Live],
    /// Whether two kernels will take turns together.
    together: &'a dyn Fn(usize, usize) -> bool,
    k: usize,
}

impl Moment<'_> {
    /// What frees the most, for what it takes to compute it again.
    fn best<'l>(&self, values: impl Iterator<Item = &'l Live>) -> Option<Again> {
        let idle = values.filter(|l| l.first < self.k && self.k < l.last);
        let found = idle.filter_map(|l| self.candidate(l));
        let best = found.max_by(|a, b| a.0.total_cmp(&b.0))?;
        (best.0 >= FREED_PER_MOVED).then_some(best.1)
    }

    /// A value that nobody uses at this moment, and the bytes it frees for each that is moved.
    fn candidate(&self, freed: &Live) -> Option<(f64, Again)> {
        let &Moment {
            program,
            live,
            together,
            k,
        } = self;
        let id = freed.value;
        let uses = |call: &KernelCall| {
            call.operands
                .iter()
                .chain(&call.results)
                .any(|&v| program.owner(v) == id)
        };
        // Every turn of a group comes back to all of it.
        let run = program
            .kernels
            .iter()
            .enumerate()
            .filter(|(_, call)| uses(call))
            .map(|(i, _)| i);
        let (before, after): (Vec<usize>, Vec<usize>) = run.partition(|&i| i < k);
        if uses(&program.kernels[k]) || together(*before.last()?, k) || together(k, *after.first()?) {
            return None;
        }
        let reader = *after.first()?;
        let makes = |&i: &usize| program.kernels[i].results.contains(&id);
        let mut makers = before.iter().copied().filter(makes);
        let (Some(maker), None) = (makers.next(), makers.next()) else {
            return None;
        };
        let call = &program.kernels[maker];
        let is_cheap = call.group.is_none() && !call.prepare && call.nest.contraction().is_none();
        if !is_cheap
            || program.is_transfer(call)
            || after.iter().any(|&i| program.kernels[i].results.contains(&id))
        {
            return None;
        }
        let result = call.results.iter().position(|&v| v == id)?;
        let again = alone(program, call, result);
        // What is overwritten later is not what it was.
        let is_there = |&v: &ValueId| {
            let owner = program.owner(v);
            match program.value(owner).role {
                Role::Input { .. } | Role::Prepared => true,
                Role::Temporary => {
                    let overwritten = program
                        .values
                        .iter()
                        .any(|other| other.alias == Some(v) && !other.window);
                    owner == v && !overwritten && live.iter().any(|l| l.value == v && l.last >= reader)
                }
                Role::Parameter { .. } | Role::State { .. } | Role::Output { .. } => false,
            }
        };
        if !again.operands.iter().all(is_there) {
            return None;
        }
        let bytes = |v: &ValueId| program.value(*v).bytes() as f64;
        let moved: f64 = again.operands.iter().chain([&id]).map(bytes).sum();
        let again = Again {
            value: id,
            maker: (maker, result),
            reader,
        };
        Some((freed.bytes as f64 / moved, again))
    }
}

fn same_group(program: &Program, a: usize, b: usize) -> bool {
    let group = program.kernels[a].group;
    group.is_some() && group == program.kernels[b].group
}

/// A kernel with one of its results.
fn alone(program: &Program, call: &KernelCall, result: usize) -> KernelCall {
    let nest = Nest {
        outputs: vec![call.nest.outputs[result].clone()],
        ..call.nest.clone()
    };
    let mut alone = KernelCall {
        label: format!("{} again", program.value(call.results[result]).name),
        nest: normalize(nest),
        results: vec![call.results[result]],
        ..call.clone()
    };
    drop_unused_operands(&mut alone);
    alone
}

/// Computes a value again before a reader, for that one and those after it.
fn repeat(program: &mut Program, again: &Again) {
    let (maker, result) = again.maker;
    let mut call = alone(program, &program.kernels[maker], result);
    let old = program.value(again.value).clone();
    program.values.push(Value {
        name: format!("{}.again", old.name),
        ..old
    });
    let new = ValueId(program.values.len() - 1);
    call.results = vec![new];
    for later in &mut program.kernels[again.reader..] {
        for id in &mut later.operands {
            if *id == again.value {
                *id = new;
            } else if program.values[id.0].alias == Some(again.value) {
                // A window belongs to one group, and so is read here only.
                program.values[id.0].alias = Some(new);
            }
        }
    }
    program
        .kernels
        .insert(first_of_group(program, again.reader), call);
    drop_unread(program, maker, again.value);
}

fn first_of_group(program: &Program, k: usize) -> usize {
    (0..k)
        .rev()
        .take_while(|&other| same_group(program, other, k))
        .last()
        .unwrap_or(k)
}

/// Removes a result that nobody reads any more from its kernel, if that has others.
fn drop_unread(program: &mut Program, maker: usize, id: ValueId) {
    let read = program.kernels.iter().any(|call| call.operands.contains(&id));
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
