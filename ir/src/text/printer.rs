//! Graph to text: a table with a column each for names, types, operations and attributes.

use super::syntax::{Line, Statement};
use crate::graph::Graph;
use crate::node_id::NodeId;
use crate::ops::Op;

/// One line of the printed text.
enum Printed {
    Blank,
    /// Not part of the table: comments, header, outputs and updates.
    Plain(String),
    /// A value: name, type, operation with operands, attributes.
    Row([String; 4], Option<String>),
}

/// A graph in canonical form. Types are always written; blank lines part it into layers, each beginning with
/// its parameters.
pub fn print(graph: &Graph) -> String {
    let mut lines = vec![Printed::Plain(format!("model {}", graph.name())), Printed::Blank];
    let is_parameter = |id: NodeId| matches!(graph.node(id).op, Op::Parameter(_));
    let mut previous = None;
    for id in graph.ids() {
        if previous.is_some_and(|previous| is_parameter(id) && !is_parameter(previous)) {
            lines.push(Printed::Blank);
        }
        lines.push(Printed::Row(cells(graph, id), None));
        previous = Some(id);
    }
    let outputs = graph
        .outputs()
        .iter()
        .map(|(name, id)| format!("output {name} = {}", graph.node(*id).name));
    let updates = graph
        .updates()
        .iter()
        .map(|(state, next)| format!("update {} = {}", graph.node(*state).name, graph.node(*next).name));
    for statements in [outputs.collect::<Vec<_>>(), updates.collect()] {
        if !statements.is_empty() {
            lines.push(Printed::Blank);
        }
        lines.extend(statements.into_iter().map(Printed::Plain));
    }
    layout(&lines)
}

/// The lines of a source in canonical form, with their comments.
pub(super) fn format_lines(source: &[Line], graph: &Graph) -> String {
    let mut lines = vec![];
    for line in source {
        if line.after_blank {
            lines.push(Printed::Blank);
        }
        let comment = line.comment.map(str::to_string);
        let plain = match &line.statement {
            None => String::new(),
            Some(Statement::Model(name)) => format!("model {}", name.value),
            Some(Statement::Output { name, value }) => format!("output {} = {}", name.value, value.value),
            Some(Statement::Update { target, next }) => format!("update {} = {}", target.value, next.value),
            Some(Statement::Broken(_)) => continue,
            Some(Statement::Definition(definition)) => {
                let id = graph
                    .find(definition.name.value)
                    .expect("a source without errors defines its nodes");
                lines.push(Printed::Row(cells(graph, id), comment));
                continue;
            }
        };
        let parts: Vec<String> = [plain, comment.unwrap_or_default()]
            .into_iter()
            .filter(|p| !p.is_empty())
            .collect();
        lines.push(Printed::Plain(parts.join("  ")));
    }
    layout(&lines)
}

/// Name, type, operation with operands, attributes.
fn cells(graph: &Graph, id: NodeId) -> [String; 4] {
    let node = graph.node(id);
    let operands: Vec<&str> = graph
        .operands(id)
        .into_iter()
        .map(|o| graph.node(o).name.as_str())
        .collect();
    let attributes: Vec<String> = node
        .op
        .attributes()
        .into_iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    [
        node.name.clone(),
        node.ty.to_string(),
        format!("{}({})", node.op.mnemonic(), operands.join(", ")),
        attributes.join(" "),
    ]
}

/// Joins the lines, cells padded to the width of their column. A cell beyond the widest column allowed
/// shifts its own line only.
fn layout(lines: &[Printed]) -> String {
    const WIDEST: [usize; 3] = [28, 28, 44];
    let mut widths = [0; 3];
    for line in lines {
        if let Printed::Row(cells, _) = line {
            for (i, widest) in WIDEST.into_iter().enumerate() {
                if cells[i].len() <= widest {
                    widths[i] = widths[i].max(cells[i].len());
                }
            }
        }
    }
    let mut text = String::new();
    for line in lines {
        match line {
            Printed::Blank => {}
            Printed::Plain(plain) => text.push_str(plain),
            Printed::Row([name, ty, call, attributes], comment) => {
                let [a, b, c] = widths;
                let row = format!("{name:a$} : {ty:b$} = {call:c$} {attributes}");
                text.push_str(row.trim_end());
                if let Some(comment) = comment {
                    text.push_str("  ");
                    text.push_str(comment);
                }
            }
        }
        text.push('\n');
    }
    text
}
