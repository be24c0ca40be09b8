//! A strategy without a search: the batch is split, and each large parameter too where that is cheaper than adding its
//! gradients across devices.
//!
//! The cost of a strategy is that of the program it leads to: arithmetic, bytes and transfers of the device that takes
//! longest. For each parameter, the largest first, all kernels that walk one of its first two dimensions are split along
//! it together, since one alone would only add transfers; then kernels that share a value with those are placed anew, one
//! by one, while that lowers the cost.

use super::{Placement, Strategy, partition, parts_of};
use crate::operands::operand;
use ir::nest::{Affine, Combine, Loop, Nest};
use ir::plan::Role;
use ir::program::{DeviceId, Kernel, Program, ValueId};
use std::collections::BTreeSet;

/// What a device does in a second, one core of a processor in mind; between devices only the ratios matter.
const FLOPS: f64 = 100e9;
const BYTES: f64 = 15e9;
const TRANSFERRED: f64 = 6e9;
/// Seconds that a kernel or a transfer takes at the least. A transfer is a place to wait, too.
const KERNEL: f64 = 2e-6;
const TRANSFER: f64 = 20e-6;
/// Arithmetic of a point of a kernel that is no contraction.
const POINT: f64 = 8.0;
/// What the work of all devices counts beside the longest.
const TOTAL: f64 = 0.01;
/// Parameters are tried if moving one takes at least this share of the cost.
const WORTH: f64 = 0.003;

/// A strategy for devices that take these shares of what is split.
pub fn choose(program: &Program, shares: &[usize]) -> Strategy {
    let mut best = by_batch(program, shares);
    let mut cost = cost_of(program, &best).expect("kernels are split along the batch where they can be");
    let mut parameters: Vec<(u64, ValueId)> = (0..program.values.len())
        .filter(|&v| matches!(program.values[v].role, Role::Parameter { .. }))
        .map(|v| (bytes(program, ValueId(v)) as u64, ValueId(v)))
        .collect();
    parameters.sort_by_key(|&(bytes, id)| (std::cmp::Reverse(bytes), id));
    for (bytes, parameter) in parameters {
        if (bytes as f64) / TRANSFERRED < WORTH * cost {
            break;
        }
        for dimension in 0..program.value(parameter).extents.len().min(2) {
            let mut tried = best.clone();
            let moved = along(program, parameter, dimension, &mut tried);
            let Some(moved_cost) = cost_of(program, &tried).filter(|_| !moved.is_empty()) else {
                continue;
            };
            let tried_cost = improve_locally(program, &moved, &mut tried, moved_cost);
            if tried_cost < cost {
                (best, cost) = (tried, tried_cost);
            }
        }
    }
    best
}

/// Seconds that a run of the program takes under this strategy, if it can be placed so.
pub fn cost_of(program: &Program, strategy: &Strategy) -> Option<f64> {
    Some(cost(&partition(program, strategy).ok()?))
}

/// Seconds that a run of a placed program takes, each device doing one thing after the other.
pub fn cost(program: &Program) -> f64 {
    let mut seconds = vec![0.0; program.arena_bytes.len()];
    for call in &program.kernels {
        let touched = call.operands.iter().chain(&call.results);
        let moved: f64 = touched.map(|&id| bytes(program, id)).sum();
        let points = call.nest.points() as f64;
        let flops = points
            * if call.nest.contraction().is_some() {
                2.0
            } else {
                POINT
            };
        seconds[program.device_of(call).0] += match program.is_transfer(call) {
            true => TRANSFER + moved / 2.0 / TRANSFERRED,
            false => KERNEL + (flops / FLOPS).max(moved / BYTES),
        };
    }
    let longest = seconds.iter().copied().fold(0.0, f64::max);
    longest + TOTAL * seconds.iter().sum::<f64>()
}

fn bytes(program: &Program, id: ValueId) -> f64 {
    let value = program.value(id);
    (value.extents.iter().product::<usize>() * value.dtype.bytes()) as f64
}

/// Every kernel along the loop that walks the batch, if it has one and can be split there; others on every device, or
/// all on the first where the batch is too small to be split.
pub(super) fn by_batch(program: &Program, shares: &[usize]) -> Strategy {
    let place = |(call, batch): (&Kernel, Option<Loop>)| {
        let split = batch.map(|l| split_along(&call.nest, l));
        let default = match crate::region::cut(program.batch, shares) {
            Some(_) => Placement::Replicated,
            None => Placement::Single(DeviceId(0)),
        };
        let split = split.filter(|placement| can_be(&call.nest, placement, shares));
        split.unwrap_or(default)
    };
    Strategy {
        shares: shares.to_vec(),
        kernels: program
            .kernels
            .iter()
            .zip(batch_loops(program))
            .map(place)
            .collect(),
    }
}

/// Of each kernel the loop that walks the batch, if it has one.
pub(super) fn batch_loops(program: &Program) -> Vec<Option<Loop>> {
    let is_batch = |v: &ir::program::Value| {
        matches!(v.role, Role::Input { .. }) && v.extents.first() == Some(&program.batch)
    };
    let mut dimension: Vec<Option<usize>> = program.values.iter().map(|v| is_batch(v).then_some(0)).collect();
    let mut loops = vec![];
    for call in &program.kernels {
        let walks = |map: &Affine| map.as_loop();
        let batch = call.nest.reads.iter().find_map(|read| {
            let index = &read.index[dimension[operand(call, read).0]?];
            walks(&index.map).filter(|_| index.divisor == 1)
        });
        for (&id, output) in call.results.iter().zip(&call.nest.outputs) {
            let mut maps = output.index.iter();
            dimension[id.0] = batch.and_then(|l| maps.position(|map| walks(map) == Some(l)));
        }
        loops.push(batch);
    }
    loops
}

fn split_along(nest: &Nest, l: Loop) -> Placement {
    match l.0 < nest.parallel.len() {
        true => Placement::Sharded(l),
        false => Placement::Partial(l, Box::new(Placement::Replicated)),
    }
}

fn can_be(nest: &Nest, placement: &Placement, shares: &[usize]) -> bool {
    match placement {
        Placement::Partial(l, then) => {
            let extent = nest.reduction[l.0 - nest.parallel.len()];
            let cuts = crate::region::cut(extent, shares).is_some();
            let then_can_be = || parts_of(&crate::region::finish(nest, 0, 1), then, shares).is_some();
            nest.combine == Combine::Sum && cuts && then_can_be()
        }
        _ => parts_of(nest, placement, shares).is_some(),
    }
}

/// Splits all kernels that walk a dimension of a parameter along it. Those that were.
fn along(program: &Program, parameter: ValueId, dimension: usize, strategy: &mut Strategy) -> Vec<usize> {
    let mut moved = vec![];
    for (k, call) in program.kernels.iter().enumerate() {
        let reads = call.nest.reads.iter();
        let read = reads.filter(|read| program.owner(operand(call, read)) == parameter);
        let read = read.map(|read| read.index[dimension].map.clone());
        let written = call.results.iter().zip(&call.nest.outputs);
        let written = written.filter(|(id, _)| program.owner(**id) == parameter);
        let written = written.map(|(_, output)| output.index[dimension].clone());
        let extents = call.nest.extents();
        // The loop that walks it in the largest steps: of groups and channels, the groups.
        let steps = read.chain(written).flat_map(|map| map.terms);
        let mut steps: Vec<(i64, Loop)> = steps
            .filter(|(l, _)| extents[l.0] > 1)
            .map(|(l, step)| (step.abs(), l))
            .collect();
        steps.sort_by_key(|&(step, l)| (std::cmp::Reverse(step), l));
        let placements = steps.into_iter().map(|(_, l)| split_along(&call.nest, l));
        let shares = &strategy.shares;
        if let Some(placement) = placements
            .into_iter()
            .find(|placement| can_be(&call.nest, placement, shares))
        {
            strategy.kernels[k] = placement;
            moved.push(k);
        }
    }
    moved
}

/// Places kernels that share a value with those moved, and those themselves, as is cheapest. The cost afterwards.
fn improve_locally(program: &Program, moved: &[usize], strategy: &mut Strategy, mut cost: f64) -> f64 {
    let values = |call: &Kernel| -> BTreeSet<ValueId> {
        let all = call.operands.iter().chain(&call.results);
        all.map(|&id| program.owner(id))
            .filter(|&id| !matches!(program.value(id).role, Role::Input { .. }))
            .collect()
    };
    let near: BTreeSet<ValueId> = moved.iter().flat_map(|&k| values(&program.kernels[k])).collect();
    for (k, call) in program.kernels.iter().enumerate() {
        if values(call).is_disjoint(&near) {
            continue;
        }
        for placement in candidates(&call.nest, &strategy.shares) {
            let before = std::mem::replace(&mut strategy.kernels[k], placement);
            match cost_of(program, strategy) {
                Some(lower) if lower < cost => cost = lower,
                _ => strategy.kernels[k] = before,
            }
        }
    }
    cost
}

/// The ways to place a kernel that are worth a try: split along loops that walk the first two dimensions of a tensor.
pub(super) fn candidates(nest: &Nest, shares: &[usize]) -> Vec<Placement> {
    let reads = nest
        .reads
        .iter()
        .flat_map(|read| read.index.iter().take(2).map(|index| &index.map));
    let written = nest.outputs.iter().flat_map(|output| output.index.iter().take(2));
    let loops: BTreeSet<Loop> = reads
        .chain(written)
        .flat_map(|map| map.terms.iter().map(|term| term.0))
        .collect();
    let (parallel, reduction): (Vec<Loop>, Vec<Loop>) =
        loops.into_iter().partition(|l| l.0 < nest.parallel.len());
    let mut placements = vec![Placement::Replicated];
    placements.extend(parallel.iter().map(|&l| Placement::Sharded(l)));
    let then = placements.clone();
    for l in reduction {
        placements.extend(
            then.iter()
                .map(|then| Placement::Partial(l, Box::new(then.clone()))),
        );
    }
    placements.retain(|placement| can_be(nest, placement, shares));
    placements
}
