//! Pictures of a placed program: kernels by device, and what goes from one to the other.

use ir::program::{Kernel, Program, ValueId};
use std::collections::BTreeMap;
use std::fmt::Write;

/// Fill colours of devices.
const COLOURS: [&str; 2] = ["#cfe3f7", "#fbe0c3"];
/// The colour of transfers.
const TRANSFER: &str = "#c0392b";

/// What a picture shows of a program: kernels of the step in their order, with the kernels that made what they read.
struct Picture<'a> {
    program: &'a Program,
    calls: Vec<&'a Kernel>,
    /// By kernel: the value, and its maker among the kernels.
    reads: Vec<Vec<(ValueId, usize)>>,
}

impl Picture<'_> {
    fn of(program: &Program) -> Picture<'_> {
        let calls: Vec<&Kernel> = program.kernels.iter().filter(|call| !call.prepack).collect();
        let mut maker: BTreeMap<ValueId, usize> = BTreeMap::new();
        let mut reads = vec![];
        for (k, call) in calls.iter().enumerate() {
            let made = |id: &ValueId| Some((*id, *maker.get(id)?));
            reads.push(call.operands.iter().filter_map(made).collect());
            call.results.iter().for_each(|&id| _ = maker.insert(id, k));
        }
        Picture {
            program,
            calls,
            reads,
        }
    }

    fn colour(&self, call: &Kernel) -> &'static str {
        match self.program.is_transfer(call) {
            true => "white",
            false => COLOURS[self.program.device_of(call).0 % COLOURS.len()],
        }
    }
}

/// For Graphviz: kernels as boxes in the colour of their device, transfers as red ovals, values on the edges.
pub fn dot(program: &Program) -> String {
    let picture = Picture::of(program);
    let mut text = format!(
        "digraph {:?} {{\n  node [shape=box, style=filled, fontname=Helvetica];\n",
        program.model
    );
    for (k, call) in picture.calls.iter().enumerate() {
        let shape = match program.is_transfer(call) {
            true => format!(", shape=oval, color={TRANSFER:?}"),
            false => String::new(),
        };
        let (label, colour) = (&call.label, picture.colour(call));
        _ = writeln!(text, "  k{k} [label={label:?}, fillcolor={colour:?}{shape}];");
        for (value, maker) in &picture.reads[k] {
            let value = program.value(*value);
            let label = format!("{:?}", value.extents);
            _ = writeln!(text, "  k{maker} -> k{k} [label={label:?}];");
        }
    }
    text + "}\n"
}

/// Points of a row, of a box, and of a letter.
const ROW: usize = 26;
const BOX: usize = 430;
const GAP: usize = 150;
const LETTERS: usize = 62;

/// A picture of its own: a column a device, kernels downwards in the order they run, transfers as red arrows between.
pub fn svg(program: &Program) -> String {
    let picture = Picture::of(program);
    let columns = program.arena_bytes.len();
    let (width, height) = (
        columns * (BOX + GAP) - GAP + 40,
        (picture.calls.len() + 2) * ROW + 20,
    );
    let mut text = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" font-family=\"Helvetica, sans-serif\" \
         font-size=\"12\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n<defs><marker id=\"tip\" \
         markerWidth=\"8\" markerHeight=\"8\" refX=\"7\" refY=\"3\" orient=\"auto\"><path d=\"M0,0 L7,3 L0,6 z\" \
         fill=\"{TRANSFER}\"/></marker></defs>\n"
    );
    let left = |device: usize| 20 + device * (BOX + GAP);
    for device in 0..columns {
        _ = writeln!(
            text,
            "<text x=\"{}\" y=\"24\" font-weight=\"bold\">device {device}</text>",
            left(device)
        );
    }
    for (row, call) in picture.calls.iter().enumerate() {
        let (top, device) = ((row + 1) * ROW + 10, program.device_of(call).0);
        let label = escaped(&call.label);
        if program.is_transfer(call) {
            let from = program.value(call.operands[0]).device.0;
            let (begin, end) = match from < device {
                true => (left(from) + BOX, left(device)),
                false => (left(from), left(device) + BOX),
            };
            let y = top + ROW / 2;
            _ = writeln!(
                text,
                "<line x1=\"{begin}\" y1=\"{y}\" x2=\"{end}\" y2=\"{y}\" stroke=\"{TRANSFER}\" marker-end=\"url(#tip)\"/>\n\
                 <text x=\"{}\" y=\"{}\" font-size=\"9\" text-anchor=\"middle\" fill=\"{TRANSFER}\">{:?}</text>\n\
                 <text x=\"{}\" y=\"{}\" fill=\"{TRANSFER}\">{label}</text>",
                (begin + end) / 2,
                y - 3,
                program.value(call.results[0]).extents,
                left(device) + 6,
                y + 4,
            );
            continue;
        }
        _ = writeln!(
            text,
            "<rect x=\"{}\" y=\"{}\" width=\"{BOX}\" height=\"{}\" rx=\"4\" fill=\"{}\" stroke=\"#666\"/>\n\
             <text x=\"{}\" y=\"{}\">{label}</text>",
            left(device),
            top + 2,
            ROW - 4,
            picture.colour(call),
            left(device) + 6,
            top + ROW / 2 + 4,
        );
    }
    text + "</svg>\n"
}

/// A label that fits a box, as text of XML.
fn escaped(label: &str) -> String {
    let short: String = match label.chars().count() > LETTERS {
        true => label.chars().take(LETTERS - 1).chain(['\u{2026}']).collect(),
        false => label.to_string(),
    };
    short
        .replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}
