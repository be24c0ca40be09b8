//! What `--emit` prints of placements and plans. Graphs and programs have texts of their own.

use ir::program::Program;
use std::fmt::Write;

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
