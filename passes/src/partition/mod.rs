//! Splits a program among devices, kernel by kernel as a [`Strategy`] says, and inserts the transfers that it takes.
//!
//! | module | what it does |
//! |---|---|
//! | [`crate::region`] | regions of tensors; nests over a part of a loop, or adding partial sums |
//! | [`shards`] | what of each value lies on which device; slices, transfers, joins |
//! | [`choose`] | a strategy by its cost, greedily |
//! | [`choice`] | a placement of one kernel with what follows from it |
//! | [`search`] | the cheapest strategy |
//! | [`formulation`] | what strategies cost, as an integer program |
//! | [`neighbourhoods`] | a strategy improved by solving parts of that program |
//! | [`local_search`] | of the strategies near the bound one with a short schedule |
//!
//! It looks at nests alone. A kernel that is split along a parallel loop writes a region of each result on each device; of
//! what it reads, a device needs the region that its part of the loop touches. So splitting the batch, channels, groups, the
//! outputs of a fully connected layer are one thing: a loop. A sum that is split along a loop of its reduction leaves
//! partial sums, which a second kernel adds, in the order of the devices wherever it runs, so that copies stay equal.
//! Random numbers are counted by an affine map of the loops, which the split shifts: masks are those of one device.
//!
//! Parameters, state and inputs are set from outside: each device gets the region of them that its kernels read. An updated
//! parameter that was not computed where it lies is transferred there. A kernel that finishes partial sums and does nothing
//! but update parameters comes last, so that nobody waits for the sums of the other device before the end of the step.

mod choice;
pub mod choose;
mod formulation;
mod intervals;
mod local_search;
mod neighbourhoods;

mod resident;
pub mod search;
pub mod shards;

use crate::operands::drop_unused_operands;
use crate::region;
use crate::substitute::normalize;
use ir::layout::Layout;
use ir::nest::{Combine, Loop, Nest};
use ir::plan::{Allocation, Role};
use ir::program::{DeviceId, Kernel, Program, Value, ValueId};
use shards::Shards;

/// Where every kernel of a program runs.
#[derive(Clone, Debug, PartialEq)]
pub struct Strategy {
    /// What the devices' parts of a loop are proportional to, one number a device.
    pub shares: Vec<usize>,
    /// One a kernel.
    pub kernels: Vec<Placement>,
}

/// Where a kernel runs.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Placement {
    /// On one device.
    Single(DeviceId),
    /// On every device, each computing all of it.
    Replicated,
    /// A part of this parallel loop on each device.
    Sharded(Loop),
    /// A part of this reduction loop of a sum on each device; the second placement, which is no reduction, is that of
    /// the kernel that adds the partial sums and finishes.
    Partial(Loop, Box<Placement>),
}

impl Placement {
    /// In words, of a kernel that is placed so.
    pub fn describe(&self, program: &Program, call: &Kernel) -> String {
        let walked = |l: &Loop| {
            let made = call.results.iter().zip(&call.nest.outputs);
            let made = made
                .flat_map(|(&id, output)| output.index.iter().enumerate().map(move |(d, map)| (id, d, map)));
            let read = call.nest.reads.iter().flat_map(|read| {
                let id = call.operands[read.source.operand()];
                read.index
                    .iter()
                    .enumerate()
                    .map(move |(d, index)| (id, d, &index.map))
            });
            let mut all = made.chain(read);
            let found = all.find(|(_, _, map)| map.coefficient(*l) != 0);
            found.map_or("nothing".to_string(), |(id, d, _)| {
                format!("dimension {d} of {}", program.value(id).name)
            })
        };
        match self {
            Placement::Single(device) => format!("on device {}", device.0),
            Placement::Replicated => "on every device".to_string(),
            Placement::Sharded(l) => format!("split along {}", walked(l)),
            Placement::Partial(l, then) => {
                format!(
                    "sums split along {}, added {}",
                    walked(l),
                    then.describe(program, call)
                )
            }
        }
    }
}

/// The program split among devices. Fails where a kernel cannot be placed as the strategy says, and names it.
pub fn partition(program: &Program, strategy: &Strategy) -> Result<Program, String> {
    if strategy.kernels.len() != program.kernels.len() {
        let (found, expected) = (strategy.kernels.len(), program.kernels.len());
        return Err(format!("the strategy places {found} kernels of {expected}"));
    }
    let split = split_sums(program, strategy)?;
    let mut parts = vec![];
    for (call, placement) in split.program.kernels.iter().zip(&split.placements) {
        let placed = parts_of(&call.nest, placement, &strategy.shares);
        parts.push(placed.ok_or_else(|| cannot(call, placement))?);
    }
    let mut shards = Shards::new(&split.program, strategy.shares.len());
    let placed = split.program.kernels.iter().zip(&parts);
    shards.place_leaves(
        placed.flat_map(|(call, parts)| parts.iter().map(move |(device, nest)| (call, *device, nest))),
    );
    for step in &split.steps {
        match *step {
            Step::Fetch(k) => shards.fetch(&split.program.kernels[k], &parts[k]),
            Step::Run(k) => shards.run(&split.program.kernels[k], &parts[k]),
        }
    }
    Ok(shards.finish())
}

fn cannot(call: &Kernel, placement: &Placement) -> String {
    format!(
        "{}: over {:?} reduce {:?} it cannot be placed {placement:?}",
        call.label, call.nest.parallel, call.nest.reduction
    )
}

/// A kernel's parts by device, unless it cannot be placed so.
pub fn parts_of(nest: &Nest, placement: &Placement, shares: &[usize]) -> Option<Vec<(DeviceId, Nest)>> {
    let devices = 0..shares.len();
    match placement {
        Placement::Single(device) => (device.0 < shares.len()).then(|| vec![(*device, nest.clone())]),
        Placement::Replicated => Some(devices.map(|d| (DeviceId(d), nest.clone())).collect()),
        Placement::Sharded(l) => {
            let ranges = region::cut(*nest.parallel.get(l.0)?, shares)?;
            let parts = ranges.into_iter().enumerate().map(|(d, range)| {
                let part = region::restrict(nest, *l, range);
                let whole = part
                    .outputs
                    .iter()
                    .all(|output| region::written(&part, output).is_some());
                whole.then_some((DeviceId(d), part))
            });
            parts.collect()
        }
        Placement::Partial(..) => None,
    }
}

/// What happens in order: a kernel, or that others' partial sums are fetched for it.
enum Step {
    Fetch(usize),
    Run(usize),
}

/// A program whose split sums are kernels of their own, on single devices.
struct Split {
    program: Program,
    placements: Vec<Placement>,
    steps: Vec<Step>,
}

/// Replaces each sum that is split by its parts and what adds them.
fn split_sums(program: &Program, strategy: &Strategy) -> Result<Split, String> {
    let mut split = Split {
        program: Program {
            kernels: vec![],
            ..program.clone()
        },
        placements: vec![],
        steps: vec![],
    };
    let mut last = vec![];
    for (k, (call, placement)) in program.kernels.iter().zip(&strategy.kernels).enumerate() {
        let mut call = call.clone();
        drop_unused_operands(&mut call);
        let Placement::Partial(l, then) = placement else {
            split.steps.push(Step::Run(split.program.kernels.len()));
            split.program.kernels.push(call);
            split.placements.push(placement.clone());
            continue;
        };
        let within = l.0.checked_sub(call.nest.parallel.len());
        let extent = within.and_then(|within| call.nest.reduction.get(within));
        let ranges = extent.and_then(|&extent| region::cut(extent, &strategy.shares));
        let ranges = ranges.filter(|_| call.nest.combine == Combine::Sum);
        let ranges = ranges.ok_or_else(|| cannot(&call, placement))?;
        let mut sums = vec![];
        for (device, &range) in ranges.iter().enumerate() {
            let mut part = call.clone();
            part.nest = normalize(region::partial(&call.nest, *l, range));
            drop_unused_operands(&mut part);
            let sum = add_value(&mut split.program, &format!("{}.part", call.label), &part.nest);
            part.results = vec![sum];
            sums.push(sum);
            split.steps.push(Step::Run(split.program.kernels.len()));
            split.program.kernels.push(part);
            split.placements.push(Placement::Single(DeviceId(device)));
        }
        let first = call.operands.len();
        call.operands.extend(&sums);
        call.nest = normalize(region::finish(&call.nest, first, sums.len()));
        call.label = format!("reduce partials of {}", call.label);
        drop_unused_operands(&mut call);
        let finish = split.program.kernels.len();
        if only_updates(program, k) {
            split.steps.push(Step::Fetch(finish));
            last.push(Step::Run(finish));
        } else {
            split.steps.push(Step::Run(finish));
        }
        split.program.kernels.push(call);
        split.placements.push((**then).clone());
    }
    split.steps.extend(last);
    Ok(split)
}

fn add_value(program: &mut Program, name: &str, nest: &Nest) -> ValueId {
    let output = &nest.outputs[0];
    program.values.push(Value {
        name: name.to_string(),
        dtype: output.dtype,
        extents: output.extents.clone(),
        layout: Layout::row_major(output.extents.len()),
        role: Role::Temporary,
        alias: None,
        batch_slice: false,
        allocation: Allocation::Dedicated,
        device: DeviceId::default(),
        shard: None,
    });
    ValueId(program.values.len() - 1)
}

/// Whether a kernel does nothing but update parameters and may do so after all others: none of them reads its results
/// or overwrites what it reads.
fn only_updates(program: &Program, k: usize) -> bool {
    let call = &program.kernels[k];
    let updates = |id: &ValueId| program.value(*id).alias.is_some();
    let later = &program.kernels[k + 1..];
    let reads = |id: &ValueId| later.iter().any(|other| other.operands.contains(id));
    let overwritten = |id: &ValueId| {
        let mut results = later.iter().flat_map(|other| &other.results);
        results.any(|&other| program.owner(other) == program.owner(*id))
    };
    call.results.iter().all(|id| updates(id) && !reads(id)) && !call.operands.iter().any(overwritten)
}
