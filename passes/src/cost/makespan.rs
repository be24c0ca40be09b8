//! The time of a program on its devices, by simulating them.
//!
//! Additive costs ignore that devices work at the same time. Here, as in the runtime, each device has two queues, one of
//! kernels and one of transfers to it, each in the program's order, and begins whatever may begin first, a transfer before
//! a kernel. A GPU does both at once; a processor's cores do one thing at a time. A launch waits for what wrote its
//! operands, and for whatever still reads what it overwrites; that values share memory is not looked at.

use super::{Candidate, Costs, Stored};
use ir::program::{DeviceId, Kernel, Program, ValueId};

/// When everything happens, in microseconds from the start of a run.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Makespan {
    /// The end of the last launch.
    pub us: f64,
    /// Time that each device computes or receives.
    pub busy_us: Vec<f64>,
    /// Beginning and end of each kernel (with the zeros around its results) and transfer, in the program's order; those
    /// that only prepare take no time.
    pub calls: Vec<(f64, f64)>,
}

/// Simulates a placed program on devices of these costs, one for each that the program names; panics if one is missing.
pub fn makespan(program: &Program, devices: &[Costs]) -> Makespan {
    let mut simulation = Simulation::new(program, devices);
    while let Some((begin, queue)) = simulation.next() {
        simulation.run(begin, queue);
    }
    simulation.made
}

struct Simulation<'a> {
    program: &'a Program,
    devices: &'a [Costs<'a>],
    /// Positions of calls: kernels of device `d` are queue `2·d`, transfers to it `2·d + 1`.
    queues: Vec<Vec<usize>>,
    /// How many of each queue are done.
    done: Vec<usize>,
    /// When each queue has ended its last.
    free: Vec<f64>,
    /// Of each call, the earlier ones that it waits for.
    waits: Vec<Vec<usize>>,
    is_done: Vec<bool>,
    made: Makespan,
}

impl<'a> Simulation<'a> {
    fn new(program: &'a Program, devices: &'a [Costs<'a>]) -> Simulation<'a> {
        let step = |call: &Kernel| !call.prepack;
        let mut queues = vec![vec![]; 2 * program.arena_bytes.len()];
        for (k, call) in program.kernels.iter().enumerate().filter(|(_, call)| step(call)) {
            let transfer = usize::from(program.is_transfer(call));
            queues[2 * program.device_of(call).0 + transfer].push(k);
        }
        Simulation {
            program,
            devices,
            done: vec![0; queues.len()],
            free: vec![0.0; queues.len()],
            waits: waits(program),
            is_done: program.kernels.iter().map(|call| call.prepack).collect(),
            made: Makespan {
                us: 0.0,
                busy_us: vec![0.0; program.arena_bytes.len()],
                calls: vec![(0.0, 0.0); program.kernels.len()],
            },
            queues,
        }
    }

    /// The queue whose next call may begin first, and when.
    fn next(&self) -> Option<(f64, usize)> {
        let mut first: Option<(f64, usize)> = None;
        // Transfers come after kernels here, so that they win a tie.
        let order = (0..self.queues.len())
            .step_by(2)
            .chain((1..self.queues.len()).step_by(2));
        for queue in order {
            let Some(&call) = self.queues[queue].get(self.done[queue]) else {
                continue;
            };
            if !self.waits[call].iter().all(|&other| self.is_done[other]) {
                continue;
            }
            let ends = self.waits[call].iter().map(|&other| self.made.calls[other].1);
            let begin = ends.fold(self.free[queue], f64::max);
            if first.is_none_or(|(earliest, _)| begin <= earliest) {
                first = Some((begin, queue));
            }
        }
        first
    }

    fn run(&mut self, begin: f64, queue: usize) {
        let position = self.queues[queue][self.done[queue]];
        let (program, call) = (self.program, &self.program.kernels[position]);
        let device = DeviceId(queue / 2);
        let costs = &self.devices[device.0];
        let us = match program.is_transfer(call) {
            true => {
                let from = program.value(call.operands[0]);
                let bytes = Stored::of(from).bytes();
                costs.transfer(bytes, &self.devices[from.device.0]).us()
            }
            false => costs.with_padding_us(&Candidate::of(program, call)) * call.micro_batches() as f64,
        };
        let end = begin + us;
        self.done[queue] += 1;
        self.is_done[position] = true;
        self.made.calls[position] = (begin, end);
        self.made.busy_us[device.0] += us;
        self.made.us = self.made.us.max(end);
        self.free[queue] = end;
        if costs.profile.gpu.is_none() {
            self.free[queue ^ 1] = end;
        }
    }
}

/// Of each call, the last that wrote an operand or result of it, and those that read the result since.
fn waits(program: &Program) -> Vec<Vec<usize>> {
    let mut writer: Vec<Option<usize>> = vec![None; program.values.len()];
    let mut readers: Vec<Vec<usize>> = vec![vec![]; program.values.len()];
    let mut waits = vec![];
    for (k, call) in program.kernels.iter().enumerate() {
        let owner = |&id: &ValueId| program.owner(id).0;
        let mut own: Vec<usize> = vec![];
        for v in call.operands.iter().map(owner) {
            own.extend(writer[v]);
        }
        for v in call.results.iter().map(owner) {
            own.extend(writer[v]);
            own.append(&mut readers[v]);
            writer[v] = Some(k);
        }
        for v in call.operands.iter().map(owner) {
            readers[v].push(k);
        }
        own.retain(|&other| other != k);
        waits.push(own);
    }
    waits
}
