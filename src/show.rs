//! What `--emit` prints of programs and plans as text.

use ir::plan::Allocation;
use ir::program::Program;
use std::fmt::Write;

/// The kernels of a program in order, then its stored values.
pub fn program(program: &Program) -> String {
    let mut text = String::new();
    let name = |id: ir::program::ValueId| &program.value(id).name[..];
    for call in &program.kernels {
        let operands: Vec<&str> = call.operands.iter().map(|&id| name(id)).collect();
        let results: Vec<&str> = call.results.iter().map(|&id| name(id)).collect();
        let when = if call.prepack { "prepack " } else { "" };
        _ = writeln!(text, "{when}{} <- {}", results.join(", "), operands.join(", "));
        _ = writeln!(text, "    {}", call.label);
        _ = writeln!(
            text,
            "    over {:?} reduce {:?}",
            call.nest.parallel, call.nest.reduction
        );
    }
    for value in &program.values {
        let place = match (value.alias, value.allocation) {
            (Some(other), _) if value.batch_slice => format!("slice of {}", name(other)),
            (Some(other), _) => format!("aliases {}", name(other)),
            (None, Allocation::Dedicated) => "dedicated".to_string(),
            (None, Allocation::Arena(offset)) => format!("arena + {offset}"),
        };
        let layout = &value.layout;
        let padding = if layout.has_padding() {
            format!(" padding {:?}", layout.padding)
        } else {
            String::new()
        };
        _ = writeln!(
            text,
            "{}: {}{:?} order {:?}{padding}, {place}",
            value.name, value.dtype, value.extents, layout.order
        );
    }
    text
}

/// What each device does, as comments below the text of a graph: its kernels, which read and write parts of the graph's
/// values, and the transfers.
pub fn placed(program: &Program) -> String {
    let mut text = String::from("\n# Placed on devices, by their number:\n");
    for call in &program.kernels {
        let shown = |id: ir::program::ValueId| {
            let value = program.value(id);
            let name = value.name.split('@').next().unwrap_or_default();
            format!("{name}@{}{:?}", value.device.0, value.extents)
        };
        let list = |ids: &[ir::program::ValueId]| {
            let shown: Vec<String> = ids.iter().map(|&id| shown(id)).collect();
            shown.join(", ")
        };
        let device = program.device_of(call).0;
        let (results, operands) = (list(&call.results), list(&call.operands));
        _ = writeln!(text, "# {device}  {}: {results} <- {operands}", call.label);
    }
    text
}

/// Anything as indented JSON.
pub fn json(value: &impl serde::Serialize) -> String {
    serde_json::to_string_pretty(value).expect("plans have string keys only") + "\n"
}
