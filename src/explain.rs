//! `alexc explain`: what was fused and placed, why, and what else it could have been.

use crate::compile::{Model, options};
use crate::costs;
use crate::model_args::{ModelArgs, colour};
use ir::plan::Mode;
use ir::program::{Algorithm, Kernel, Program};
use passes::cost::{Candidate, Costs, Makespan, makespan};
use passes::eqsat::extract::integer::MAX_DECISIONS;
use passes::eqsat::report::{Chosen, Report};
use passes::eqsat::rules::fusion::MAX_FUSED_OPS;
use passes::partition::search::PlacementResult;
use passes::{Options, Snapshot};
use runtime::Error;
use runtime::cli::OutputArgs;
use serde::Serialize;
use std::fmt::Write;

/// What a compilation chose.
#[derive(Debug, Serialize)]
struct Explanation {
    model: String,
    mode: &'static str,
    batch: usize,
    /// The profile of each device.
    devices: Vec<String>,
    /// Milliseconds of a step: the queues of the devices, simulated.
    predicted_ms: f64,
    /// What each device does meanwhile.
    schedule: Vec<Use>,
    /// Which kernels were chosen among which; absent at lower levels of optimisation.
    kernels: Option<Report>,
    /// Where they run; absent on one device.
    placements: Option<Placements>,
    /// The kernels of the program in the order they run.
    program: Vec<Row>,
}

/// Milliseconds of a device in the simulated step.
#[derive(Debug, Serialize)]
struct Use {
    computes: f64,
    /// Transfers to it while it computes nothing.
    receives: f64,
    /// Neither: what it needs is being made by another device.
    waits: f64,
}

/// Where kernels run.
#[derive(Debug, Serialize)]
struct Placements {
    /// Milliseconds of the busier device.
    ms: f64,
    /// No placement has a busier device, or a critical path, of fewer milliseconds.
    bound_ms: f64,
    gap: f64,
    fallback: Option<String>,
    kernels: Vec<KernelPlacement>,
}

#[derive(Debug, Serialize)]
struct KernelPlacement {
    label: String,
    placement: String,
    alternatives: Vec<OtherPlacement>,
}

/// A place that was not taken.
#[derive(Debug, Serialize)]
struct OtherPlacement {
    placement: String,
    /// Milliseconds of work on each device.
    ms: Vec<f64>,
    /// Milliseconds that the busier device would have more to do.
    more_ms: f64,
}

/// A kernel or transfer.
#[derive(Debug, Serialize)]
struct Row {
    device: usize,
    label: String,
    algorithm: &'static str,
    /// How its first result lies in memory: dimensions, the outermost first.
    layout: String,
    /// Micro-batches that it takes one after the other.
    micro_batches: usize,
    /// Milliseconds of all micro-batches.
    predicted_ms: f64,
    bound: &'static str,
}

/// Explains what a model is compiled to.
pub fn command(model: &ModelArgs, mode: Mode, node: Option<&str>, output: OutputArgs) -> Result<(), Error> {
    let request = model.request_for(mode)?;
    let graph = Model::read(&model.model, colour())?.graph;
    let profiles = model.costs.choose(&model.devices.parse()?, &request.targets)?;
    let costs = costs::of_devices(&profiles, &request.targets);
    let options = Options {
        explain: true,
        ..options(&request, mode, &costs)
    };
    let (mut kernels, mut placements) = (None, None);
    let program = passes::compile(&graph, &options, &mut |_, stage| match stage {
        Snapshot::Kernels(report) => kernels = Some(report.clone()),
        Snapshot::Placement(found, program) => placements = Some(Placements::new(found, program)),
        Snapshot::Graph(_) | Snapshot::Program(_) => {}
    });
    let program = program.map_err(|error| Error::input(error.to_string()))?;
    let rows = program.kernels.iter().filter(|call| !call.prepack);
    let simulated = makespan(&program, &costs);
    let explanation = Explanation {
        model: program.model.clone(),
        mode: mode_name(mode),
        batch: program.batch,
        devices: profiles
            .iter()
            .map(|device| device.profile.name.clone())
            .collect(),
        predicted_ms: simulated.us / 1e3,
        schedule: Use::of_devices(&program, &simulated),
        kernels,
        placements,
        program: rows.map(|call| Row::new(&program, call, &costs)).collect(),
    };
    match node {
        None => output.print(&explanation, || explanation.text()),
        Some(node) => {
            let found = explanation.node(node)?;
            output.print(&found, || found.text())
        }
    }
}

fn mode_name(mode: Mode) -> &'static str {
    match mode {
        Mode::Infer => "infer",
        Mode::Gradients => "gradients",
        Mode::Train => "train",
    }
}

impl Use {
    fn of_devices(program: &Program, simulated: &Makespan) -> Vec<Use> {
        let of_device = |device: usize| {
            let calls = program.kernels.iter().zip(&simulated.calls);
            let here = calls.filter(|(call, _)| program.device_of(call).0 == device);
            let (transfers, kernels): (Vec<_>, Vec<_>) =
                here.partition(|(call, _)| program.is_transfer(call));
            let meanwhile = |&(begin, end): &(f64, f64)| {
                let shared = kernels
                    .iter()
                    .map(|(_, (from, to))| (end.min(*to) - begin.max(*from)).max(0.0));
                end - begin - shared.sum::<f64>()
            };
            let computes: f64 = kernels.iter().map(|(_, (begin, end))| end - begin).sum();
            let receives: f64 = transfers.iter().map(|(_, times)| meanwhile(times)).sum();
            Use {
                computes: computes / 1e3,
                receives: receives / 1e3,
                waits: (simulated.us - computes - receives).max(0.0) / 1e3,
            }
        };
        (0..simulated.busy_us.len()).map(of_device).collect()
    }
}

impl Placements {
    fn new(found: &PlacementResult, program: &Program) -> Placements {
        let placed = program.kernels.iter().zip(&found.strategy.kernels);
        let kernels = placed
            .zip(&found.alternatives)
            .map(|((call, placement), alternatives)| KernelPlacement {
                label: call.label.clone(),
                placement: placement.describe(program, call),
                alternatives: alternatives
                    .iter()
                    .filter(|other| other.placement != *placement)
                    .map(|other| OtherPlacement {
                        placement: other.placement.describe(program, call),
                        ms: other.seconds.iter().map(|s| s * 1e3).collect(),
                        more_ms: (other.busiest - found.seconds) * 1e3,
                    })
                    .collect(),
            });
        Placements {
            ms: found.seconds * 1e3,
            bound_ms: found.bound * 1e3,
            gap: found.gap(),
            fallback: found.fallback.clone(),
            kernels: kernels.collect(),
        }
    }
}

impl Row {
    fn new(program: &Program, call: &Kernel, costs: &[Costs]) -> Row {
        let device = program.device_of(call);
        let candidate = Candidate::of(program, call);
        let own = &costs[device.0];
        let (algorithm, cost) = match program.is_transfer(call) {
            true => {
                let from = program.value(call.operands[0]).device;
                (
                    "transfer",
                    own.transfer(candidate.operands[0].bytes(), &costs[from.0]),
                )
            }
            false => (algorithm(call), own.kernel(&candidate)),
        };
        Row {
            device: device.0,
            label: call.label.clone(),
            algorithm,
            layout: layout(program, call),
            micro_batches: call.micro_batches(),
            predicted_ms: cost.us() * call.micro_batches() as f64 / 1e3,
            bound: cost.bound().name(),
        }
    }
}

/// The shape of a kernel's computation.
fn algorithm(call: &Kernel) -> &'static str {
    use ir::nest::Combine;
    match (call.algorithm, call.nest.contraction(), call.nest.combine) {
        (Some(Algorithm::Winograd(_)), Some(_), _) => "winograd product",
        (Some(Algorithm::Winograd(_)), None, Combine::Sum) => "winograd change",
        (_, Some(_), _) => "implicit product",
        (_, None, Combine::None) => "map",
        (_, None, _) => "reduction",
    }
}

/// The dimensions of the first result, the outermost in memory first: letters for images and filters, else numbers.
fn layout(program: &Program, call: &Kernel) -> String {
    let Some(&first) = call.results.first() else {
        return String::new();
    };
    let order = &program.value(first).layout.order;
    let name = |&d: &usize| match order.len() {
        4 => ["n", "c", "h", "w"][d].to_string(),
        _ => d.to_string(),
    };
    order.iter().map(name).collect()
}

impl Explanation {
    fn text(&self) -> String {
        let mut text = format!(
            "{}, {}, batch {}, on {}: predicted {:.3} ms a step\n",
            self.model,
            self.mode,
            self.batch,
            self.devices.join(" and "),
            self.predicted_ms
        );
        if let Some(report) = &self.kernels {
            text += &kernels(report);
        }
        if let Some(placements) = &self.placements {
            _ = writeln!(
                text,
                "places: the busier device works {:.3} ms, no placement less than {:.3} ms (gap {:.2} %)",
                placements.ms,
                placements.bound_ms,
                placements.gap * 1e2
            );
            if let Some(reason) = &placements.fallback {
                _ = writeln!(text, "  chosen greedily: {reason}");
            }
            text += "  an account of kernels before they are split and laid out; of the step as predicted, queues simulated,\n";
            for (device, part) in self.schedule.iter().enumerate() {
                _ = writeln!(
                    text,
                    "  device {device} computes {:.3} ms, only receives {:.3} ms, waits for others {:.3} ms",
                    part.computes, part.receives, part.waits
                );
            }
        }
        text += "\ndevice          ms  bound    algorithm         layout  micro_batches  kernel\n";
        for row in &self.program {
            _ = writeln!(
                text,
                "{:>6}  {:>10.3}  {:8} {:17} {:7} {:>13}  {}",
                row.device,
                row.predicted_ms,
                row.bound,
                row.algorithm,
                row.layout,
                row.micro_batches,
                row.label
            );
        }
        if let Some(placements) = &self.placements {
            text += "\nplacements of the kernels, before they are split\n";
            for placement in &placements.kernels {
                _ = writeln!(text, "  {}: {}", placement.label, placement.placement);
            }
        }
        text
    }

    fn node(&self, name: &str) -> Result<NodeExplanation, Error> {
        let report = self.kernels.as_ref().ok_or_else(|| {
            Error::input("--node: nothing was searched at this level; leave out --opt-level, or give it 2")
        })?;
        let computes = |chosen: &&Chosen| chosen.ops.iter().any(|op| op.node == name);
        let kernels: Vec<Chosen> = report.chosen.iter().filter(computes).cloned().collect();
        if kernels.is_empty() {
            let mut known: Vec<&str> = report
                .chosen
                .iter()
                .flat_map(|chosen| chosen.ops.iter().map(|op| &op.node[..]))
                .collect();
            known.sort_unstable();
            known.dedup();
            return Err(Error::input(format!(
                "--node {name}: no kernel computes a node of this name; expected one of {}",
                known.join(", ")
            )));
        }
        let is_its =
            |placement: &&KernelPlacement| kernels.iter().any(|chosen| chosen.label == placement.label);
        let placements = self
            .placements
            .iter()
            .flat_map(|placements| &placements.kernels)
            .filter(is_its);
        let placements = placements.map(|placement| KernelPlacement {
            label: placement.label.clone(),
            placement: placement.placement.clone(),
            alternatives: placement
                .alternatives
                .iter()
                .map(|other| OtherPlacement {
                    placement: other.placement.clone(),
                    ms: other.ms.clone(),
                    more_ms: other.more_ms,
                })
                .collect(),
        });
        Ok(NodeExplanation {
            node: name.to_string(),
            placements: placements.collect(),
            kernels,
        })
    }
}

/// What was found of kernels.
fn kernels(report: &Report) -> String {
    let mut text = format!(
        "kernels: {} chosen of {} that could run, {:.3} ms one after the other, no choice less than {:.3} ms (gap {:.2} %)\n",
        report.chosen.len(),
        report.kernels,
        report.seconds * 1e3,
        report.bound * 1e3,
        report.gap * 1e2
    );
    if let Some(reason) = &report.fallback {
        _ = writeln!(text, "  chosen greedily: {reason}");
    }
    for phase in &report.phases {
        _ = writeln!(
            text,
            "  {}: {} e-nodes in {} classes after {} rounds, {:.3} s, {}",
            phase.name, phase.nodes, phase.classes, phase.rounds, phase.seconds, phase.stopped
        );
        for (rule, count) in &phase.applied {
            _ = writeln!(text, "    {count:4} x {rule}");
        }
    }
    _ = writeln!(
        text,
        "  extraction: {} variables, {} parts ({} different), {} rounds, {} circles cut, {:.3} s",
        report.effort.variables,
        report.effort.parts,
        report.effort.different,
        report.effort.rounds,
        report.effort.cuts,
        report.extraction_seconds
    );
    if report.effort.too_large > 0 {
        _ = writeln!(
            text,
            "  {} parts have more than {MAX_DECISIONS} decisions: they are solved in windows, and their bound is counted",
            report.effort.too_large
        );
    }
    if report.crowded > 0 {
        _ = writeln!(
            text,
            "  {} kernels were offered the nearest {MAX_FUSED_OPS} operations only",
            report.crowded
        );
    }
    for one in &report.relayouts {
        let ms = one.seconds * 1e3;
        _ = writeln!(
            text,
            "  rearranged: {} with dimension {} fastest, {ms:.3} ms",
            one.value, one.dimension
        );
    }
    text
}

/// Why a node is computed as it is.
#[derive(Debug, Serialize)]
struct NodeExplanation {
    node: String,
    kernels: Vec<Chosen>,
    placements: Vec<KernelPlacement>,
}

impl NodeExplanation {
    fn text(&self) -> String {
        let mut text = String::new();
        for chosen in &self.kernels {
            _ = writeln!(
                text,
                "{}: {:.3} ms by {}, built around {}",
                chosen.label,
                chosen.seconds * 1e3,
                chosen.bound,
                chosen.ops[0].node
            );
            for op in &chosen.ops {
                let made = op
                    .made_by
                    .map_or(String::new(), |rule| format!(", made by the rule: {rule}"));
                match op.fused_by {
                    Some(rule) => _ = writeln!(text, "  {} by the rule {rule}{made}", op.node),
                    None => {
                        _ = writeln!(text, "  {}, {}{made}", op.node, chosen.variant);
                        for other in &chosen.variants {
                            _ = writeln!(text, "    {}: {:+.3} ms", other.variant, other.more * 1e3);
                        }
                    }
                }
                if op.node == self.node {
                    for other in &op.alternatives {
                        let placement = match other.anchor == op.node {
                            true => "in a kernel of its own".to_string(),
                            false => format!("in the kernel of {}", other.anchor),
                        };
                        _ = writeln!(text, "    {placement}: {:+.3} ms", other.more * 1e3);
                    }
                }
            }
        }
        for placement in &self.placements {
            _ = writeln!(text, "{}: {}", placement.label, placement.placement);
            for other in &placement.alternatives {
                let ms: Vec<String> = other.ms.iter().map(|ms| format!("{ms:.3}")).collect();
                _ = writeln!(
                    text,
                    "    {}: {} ms of work, the busier device {:+.3} ms",
                    other.placement,
                    ms.join(" and "),
                    other.more_ms
                );
            }
        }
        text
    }
}
