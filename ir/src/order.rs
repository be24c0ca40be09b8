//! What runs beside what: the queues of a plan, and the waits between them.
//!
//! Each device has two queues, one of kernels and one of transfers to it. A queue runs in the order of the step; queues
//! run beside each other. So wherever two launches of different queues touch the same bytes, and one of them writes
//! there, the later one must wait for the earlier. [`waits`] states the least waits that see to that, and [`check`]
//! verifies those of a plan. As launches wait for earlier ones only, none waits forever.
//!
//! Both go over the step once and note of each launch how many of every queue are done before it starts.

use crate::plan::{Allocation, Command, CommandKind, Plan, PlanError};

/// The queue of a launch: a number below [`count`].
pub fn queue(launch: &Command) -> usize {
    2 * launch.device + usize::from(launch.kernel_position().is_none())
}

/// The number of queues of a plan.
pub fn count(plan: &Plan) -> usize {
    2 * plan.devices.len()
}

/// For each launch of the step, the launches that it must wait for, beside those before it in its queue. The plan's
/// references must be sound.
pub fn waits(plan: &Plan) -> Vec<Vec<usize>> {
    let mut waits = vec![vec![]; plan.step.len()];
    let noted = walk(
        plan,
        |_, _| &[],
        |later, earlier| {
            waits[later].push(earlier);
            Ok(())
        },
    );
    noted.expect("a missing wait is noted, never refused");
    waits
}

/// Checks that the waits of a plan name earlier launches and keep conflicting ones apart.
pub fn check(plan: &Plan) -> Result<(), PlanError> {
    for (position, launch) in plan.step.iter().enumerate() {
        if let Some(other) = launch.after.iter().find(|&&other| other >= position) {
            return Err(PlanError(format!(
                "launch {} at {position} waits for {other}, which is not before it",
                launch.label
            )));
        }
    }
    walk(
        plan,
        |plan, position| &plan.step[position].after,
        |later, earlier| {
            let [later, earlier] = [later, earlier].map(|position| &plan.step[position].label);
            Err(PlanError(format!(
                "launch {later} does not wait for {earlier}, whose bytes it touches"
            )))
        },
    )
}

/// Bytes that a launch touches: of an arena, or of a buffer with an allocation of its own.
struct Touch {
    memory: (usize, Option<usize>),
    from: u64,
    to: u64,
    writes: bool,
}

fn touches(plan: &Plan, launch: &Command) -> Vec<Touch> {
    let touch = |position: usize, writes: bool| {
        let buffer = &plan.buffers[position];
        let (own, from) = match buffer.allocation {
            Allocation::Dedicated => (Some(position), 0),
            Allocation::Arena(offset) => (None, offset),
        };
        Touch {
            memory: (buffer.device, own),
            from,
            to: from + buffer.bytes,
            writes,
        }
    };
    match &launch.work {
        CommandKind::Kernel { kernel, arguments } => {
            let only_read = plan.kernels[*kernel].operands;
            let arguments = arguments.iter().enumerate();
            arguments
                .map(|(i, &position)| touch(position, i >= only_read))
                .collect()
        }
        CommandKind::Transfer { from, to } => vec![touch(*from, false), touch(*to, true)],
    }
}

fn conflict(a: &[Touch], b: &[Touch]) -> bool {
    let meets = |a: &Touch, b: &Touch| {
        a.memory == b.memory && a.from < b.to && b.from < a.to && (a.writes || b.writes)
    };
    a.iter().any(|a| b.iter().any(|b| meets(a, b)))
}

/// Goes over the step and calls `missing` with every pair of conflicting launches (the later one first) whose order
/// neither the queues nor the waits keep; from then on it counts as kept.
fn walk<'p>(
    plan: &'p Plan,
    after: impl Fn(&'p Plan, usize) -> &'p [usize],
    mut missing: impl FnMut(usize, usize) -> Result<(), PlanError>,
) -> Result<(), PlanError> {
    // Kernels of different devices share no memory, so without transfers there is nothing to keep apart.
    let transfers: Vec<usize> = (0..plan.step.len())
        .filter(|&position| plan.step[position].kernel_position().is_none())
        .collect();
    if transfers.is_empty() {
        return Ok(());
    }
    let touched: Vec<Vec<Touch>> = plan.step.iter().map(|launch| touches(plan, launch)).collect();
    let queues: Vec<usize> = plan.step.iter().map(queue).collect();
    // How many launches of each queue are done when a launch is; of each queue, those of its latest launch.
    let mut done: Vec<Vec<usize>> = vec![];
    let mut latest: Vec<Vec<usize>> = vec![vec![0; count(plan)]; count(plan)];
    let mut place_in_queue = vec![];
    let merge = |known: &mut Vec<usize>, others: &[usize]| {
        known.iter_mut().zip(others).for_each(|(a, b)| *a = (*a).max(*b));
    };
    for position in 0..plan.step.len() {
        let own = queues[position];
        let mut known = latest[own].clone();
        let place = known[own];
        place_in_queue.push(place);
        for &other in after(plan, position) {
            merge(&mut known, &done[other]);
        }
        let is_transfer = own % 2 == 1;
        let earlier: Box<dyn Iterator<Item = usize>> = match is_transfer {
            true => Box::new((0..position).rev()),
            false => Box::new(transfers.iter().rev().copied().filter(|&other| other < position)),
        };
        for other in earlier {
            let kept = queues[other] == own || known[queues[other]] > place_in_queue[other];
            if !kept && conflict(&touched[position], &touched[other]) {
                missing(position, other)?;
                merge(&mut known, &done[other]);
            }
        }
        known[own] = place + 1;
        latest[own].clone_from(&known);
        done.push(known);
    }
    Ok(())
}
