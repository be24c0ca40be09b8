//! The time of a program on its devices, by simulating them.
//!
//! Additive costs ignore that devices work at the same time. Here each device runs its kernels one after the other, in
//! the program's order, each as soon as its operands are there; values that another device made come over a link, one
//! after the other in each direction, while the devices go on computing.

use super::{Candidate, Costs, KernelCost, work};
use ir::program::{Program, ValueId};
use std::collections::HashMap;

/// When everything happens, in microseconds from the start of a run.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Makespan {
    /// The end of the last kernel.
    pub us: f64,
    /// Time that each device computes.
    pub busy_us: Vec<f64>,
    /// Beginning and end of each kernel with the halos of its results, in the program's order; those that only
    /// prepare take no time.
    pub kernels: Vec<(f64, f64)>,
    /// Every transfer, in the order they are asked for.
    pub transfers: Vec<Transfer>,
}

/// A value on its way to another device.
#[derive(Clone, Debug, PartialEq)]
pub struct Transfer {
    /// The value.
    pub value: ValueId,
    /// The devices.
    pub from: usize,
    /// The device that needs it.
    pub to: usize,
    /// Bytes, halo included.
    pub bytes: f64,
    /// When it begins.
    pub begin_us: f64,
    /// When it is there.
    pub end_us: f64,
}

/// Simulates a program; `device_of` is asked for the device of each kernel, by its position, which numbers `devices`.
/// What the caller sets is wherever it is needed. Panics for a program without devices.
pub fn makespan(program: &Program, devices: &[Costs], device_of: impl Fn(usize) -> usize) -> Makespan {
    let mut free = vec![0.0f64; devices.len()];
    let mut link_free: HashMap<(usize, usize), f64> = HashMap::new();
    // Where each value is, and from when on.
    let mut there: HashMap<(ValueId, usize), f64> = HashMap::new();
    let mut maker: HashMap<ValueId, usize> = HashMap::new();
    let mut simulated = Makespan {
        busy_us: vec![0.0; devices.len()],
        ..Makespan::default()
    };
    for (k, call) in program.kernels.iter().enumerate() {
        if call.prepare {
            simulated.kernels.push((0.0, 0.0));
            continue;
        }
        let device = device_of(k);
        let mut begin = free[device];
        for &id in &call.operands {
            let Some(&from) = maker.get(&id) else { continue };
            if let Some(&ready) = there.get(&(id, device)) {
                begin = begin.max(ready);
                continue;
            }
            let bytes = work::bytes(program.value(id));
            let link = link_free.entry((from, device)).or_default();
            let begin_us = link.max(there[&(id, from)]);
            let us = devices[from]
                .transfer_us(bytes)
                .max(devices[device].transfer_us(bytes));
            let end_us = begin_us + us;
            *link = end_us;
            there.insert((id, device), end_us);
            simulated.transfers.push(Transfer {
                value: id,
                from,
                to: device,
                bytes,
                begin_us,
                end_us,
            });
            begin = begin.max(end_us);
        }
        let candidate = Candidate::of(program, call);
        let halos: f64 = devices[device].halos(&candidate).iter().map(KernelCost::us).sum();
        let us = devices[device].kernel(&candidate).us() + halos;
        let end = begin + us;
        free[device] = end;
        simulated.busy_us[device] += us;
        simulated.kernels.push((begin, end));
        for &id in &call.results {
            maker.insert(id, device);
            there.insert((id, device), end);
        }
        simulated.us = simulated.us.max(end);
    }
    simulated
}
