//! Syntax tree to graph: looks up names, operations and attributes, and reports whatever does not fit.
//!
//! A statement that fails leaves its name *failed*: statements that use it are checked as far as they do not
//! depend on it, and are not blamed for it.

use super::diagnostic::{Label, Reports};
use super::literal::{self, Wrong};
use super::suggest::Suggestions;
use super::syntax::{Definition, Line, Statement, Word};
use super::token::shorten;
use super::{MAX_NAME, MAX_OUTPUTS, is_model_name, is_name};
use crate::graph::{Builder, Graph, GraphError};
use crate::node_id::NodeId;
use crate::op::Fault;
use std::collections::HashMap;
use std::ops::Range;

/// The graph of a source. It is whole only if nothing was reported.
pub(super) fn resolve<'s>(lines: &[Line<'s>], reports: &mut Reports<'s>) -> Graph {
    let statements = || lines.iter().filter_map(|line| line.statement.as_ref());
    let mut definitions = HashMap::new();
    for name in statements().filter_map(defined) {
        definitions.entry(name.value).or_insert(name.span.clone());
    }
    let name = match statements().next() {
        Some(Statement::Model(name)) if is_model_name(name.value) => name.value,
        _ => "model",
    };
    let mut resolver = Resolver {
        reports,
        definitions,
        values: HashMap::new(),
        names: vec![],
        outputs: HashMap::new(),
        updates: HashMap::new(),
        suggestions: Suggestions::new(),
        builder: Builder::new(name),
    };
    for (i, statement) in statements().enumerate() {
        if resolver.reports.is_full() {
            break;
        }
        resolver.statement(statement, i == 0);
    }
    let unread = statements().any(|statement| matches!(statement, Statement::Broken(None)));
    if resolver.outputs.is_empty() && resolver.updates.is_empty() && !unread {
        resolver.no_output();
    }
    resolver.builder.finish()
}

/// The name that a statement defines.
fn defined<'a, 's>(statement: &'a Statement<'s>) -> Option<&'a Word<'s>> {
    match statement {
        Statement::Definition(definition) => Some(&definition.name),
        Statement::Broken(name) => name.as_ref(),
        Statement::Model(_) | Statement::Output { .. } | Statement::Update { .. } => None,
    }
}

/// A source while it becomes a graph.
pub(super) struct Resolver<'r, 's> {
    pub(super) reports: &'r mut Reports<'s>,
    /// Where each name of the source is first defined, whether above or below.
    definitions: HashMap<&'s str, Range<usize>>,
    /// The values defined so far; `None` where the definition failed.
    values: HashMap<&'s str, Option<NodeId>>,
    /// Their names, in order.
    names: Vec<&'s str>,
    outputs: HashMap<&'s str, Range<usize>>,
    updates: HashMap<&'s str, Range<usize>>,
    pub(super) suggestions: Suggestions,
    builder: Builder,
}

impl<'s> Resolver<'_, 's> {
    fn statement(&mut self, statement: &Statement<'s>, first: bool) {
        match statement {
            Statement::Model(name) => self.model(name, first),
            Statement::Definition(definition) => self.define(definition),
            Statement::Output { name, value } => self.output(name, value),
            Statement::Update { target, next } => self.update(target, next),
            Statement::Broken(name) => {
                if let Some(name) = name
                    && self.is_fresh(name)
                {
                    self.bind(name.value, None);
                }
            }
        }
    }

    fn model(&mut self, name: &Word, first: bool) {
        if !first {
            let remedy = "A source describes one model; its name is the first statement.";
            self.reports.add(
                name.span.clone(),
                "a model's name below other statements",
                "it at the top",
                remedy,
            );
        } else if !is_model_name(name.value) {
            self.wrong_name(name);
        }
    }

    fn define(&mut self, definition: &Definition<'s>) {
        let fresh = self.is_fresh(&definition.name);
        let well_named = is_name(definition.name.value);
        if !well_named {
            self.wrong_name(&definition.name);
        }
        let operands: Vec<Option<NodeId>> = definition
            .operands
            .iter()
            .map(|operand| self.value(operand))
            .collect();
        let op = self.operation(definition);
        let annotation = definition.ty.as_ref().map(literal::written_type);
        if let Some(Err(wrong)) = &annotation {
            self.wrong_literal(wrong);
        }
        if !fresh {
            return;
        }
        let operands: Option<Vec<NodeId>> = operands.into_iter().collect();
        let node = match (op, operands, well_named) {
            (Some(op), Some(operands), true) => {
                match self.builder.add(definition.name.value, op, &operands) {
                    Ok(node) => Some(node),
                    Err(error) => {
                        self.refused(definition, error);
                        None
                    }
                }
            }
            _ => None,
        };
        let node = match (node, &definition.ty, annotation) {
            (Some(node), Some(written), Some(Ok(ty))) if ty != self.builder.node(node).ty => {
                let expected = self.builder.node(node).ty.to_string();
                let remedy = "Correct the type or leave it out, or change the operation.";
                self.reports
                    .add(written.span.clone(), format!("the type {ty}"), expected, remedy);
                None
            }
            (_, _, Some(Err(_))) => None,
            (node, _, _) => node,
        };
        self.bind(definition.name.value, node);
    }

    /// Reports what an operation or the builder refuses.
    pub(super) fn refused(&mut self, definition: &Definition, error: GraphError) {
        let (span, found, expected, remedy) = match error {
            GraphError::Op { error, .. } => (
                place(definition, &error.at),
                error.found,
                error.expected,
                error.remedy,
            ),
            GraphError::TooLarge(_, ty) => (
                definition.call.clone(),
                format!("a result of type {ty}"),
                "at most 2^40 elements".into(),
                "Use smaller extents.".into(),
            ),
            other @ (GraphError::Duplicate(_) | GraphError::Update(..)) => (
                definition.name.span.clone(),
                other.to_string(),
                "another name".into(),
                "Rename it.".into(),
            ),
        };
        self.reports.add(span, found, expected, remedy);
    }

    fn output(&mut self, name: &Word<'s>, value: &Word<'s>) {
        let node = self.value(value);
        if !is_name(name.value) {
            self.wrong_name(name);
        }
        if let Some(first) = self.outputs.get(name.value) {
            let labels = vec![Label {
                span: first.clone(),
                text: "first named here".into(),
            }];
            let found = format!("a second output `{}`", shorten(name.value));
            self.reports.add_with(
                name.span.clone(),
                found,
                "another name",
                "Rename one of the two.",
                labels,
            );
        } else if self.outputs.len() == MAX_OUTPUTS {
            let found = format!("more than {MAX_OUTPUTS} outputs");
            self.reports
                .add(name.span.clone(), found, "fewer", "Leave out what nobody reads.");
        } else {
            self.outputs.insert(name.value, name.span.clone());
            if let Some(node) = node {
                self.builder
                    .output(name.value, node)
                    .expect("the output's name was looked up");
            }
        }
    }

    fn update(&mut self, target: &Word<'s>, next: &Word<'s>) {
        let (state, value) = (self.value(target), self.value(next));
        if let Some(first) = self.updates.get(target.value) {
            let labels = vec![Label {
                span: first.clone(),
                text: "first updated here".into(),
            }];
            let found = format!("a second update of `{}`", shorten(target.value));
            self.reports.add_with(
                target.span.clone(),
                found,
                "one update",
                "Keep one of the two.",
                labels,
            );
            return;
        }
        if self.updates.len() == MAX_OUTPUTS {
            let found = format!("more than {MAX_OUTPUTS} updates");
            self.reports
                .add(target.span.clone(), found, "fewer", "Join parameters.");
            return;
        }
        self.updates.insert(target.value, target.span.clone());
        if let (Some(state), Some(value)) = (state, value)
            && let Err(error) = self.builder.update(state, value)
        {
            let found = match error {
                GraphError::Update(_, fault) => format!("an update of `{}`: {fault}", target.value),
                other => other.to_string(),
            };
            let expected = "a parameter, and a next value of its type";
            self.reports.add(
                target.span.clone(),
                found,
                expected,
                "Update parameters only, with their own type.",
            );
        }
    }

    /// The node of a name that is used; `None` if it is not defined above or its definition failed.
    fn value(&mut self, name: &Word<'s>) -> Option<NodeId> {
        if let Some(&node) = self.values.get(name.value) {
            return node;
        }
        let shown = shorten(name.value);
        let span = name.span.clone();
        if let Some(place) = self.definitions.get(name.value) {
            let labels = vec![Label {
                span: place.clone(),
                text: "defined here".into(),
            }];
            let (found, remedy) = if self.reports.line_of(place.start) == self.reports.line_of(span.start) {
                (
                    format!("`{shown}` in its own definition"),
                    "Use another value; a model has no cycles.",
                )
            } else {
                let remedy = "Move the definition above this line; a model has no cycles.";
                (format!("`{shown}` used before it is defined"), remedy)
            };
            self.reports
                .add_with(span, found, "a value defined above", remedy, labels);
            return None;
        }
        let remedy = match self.suggestions.nearest(name.value, self.names.iter().copied()) {
            Some(near) => format!("Did you mean `{near}`?"),
            None => format!("Define `{shown}` on a line above."),
        };
        self.reports.add(
            span,
            format!("the unknown value `{shown}`"),
            "a value defined above",
            remedy,
        );
        None
    }

    /// Whether a definition is the first of its name; reports it otherwise.
    fn is_fresh(&mut self, name: &Word) -> bool {
        if !self.values.contains_key(name.value) {
            return true;
        }
        let labels = self.definitions.get(name.value).cloned();
        let labels = labels.map(|span| Label {
            span,
            text: "first defined here".into(),
        });
        let found = format!("a second definition of `{}`", shorten(name.value));
        let remedy = "Give the second value another name.";
        self.reports.add_with(
            name.span.clone(),
            found,
            "a new name",
            remedy,
            labels.into_iter().collect(),
        );
        false
    }

    fn bind(&mut self, name: &'s str, node: Option<NodeId>) {
        self.values.insert(name, node);
        self.names.push(name);
    }

    fn no_output(&mut self) {
        let last = self.names.last().copied();
        let place = last
            .and_then(|name| self.definitions.get(name))
            .cloned()
            .unwrap_or(0..0);
        let remedy = format!(
            "End the model with `output logits = {}`.",
            last.map_or("NAME".into(), shorten)
        );
        self.reports.add(
            place,
            "a model without output",
            "`output NAME = VALUE` below",
            remedy,
        );
    }

    fn wrong_name(&mut self, name: &Word) {
        let found = if name.value.len() > MAX_NAME {
            format!("a name of {} letters", name.value.len())
        } else {
            format!("the name `{}`", name.value)
        };
        let remedy = format!("A name begins with a letter and has at most {MAX_NAME}: write _ for -.");
        self.reports
            .add(name.span.clone(), found, "letters, digits, _ and .", remedy);
    }

    pub(super) fn wrong_literal(&mut self, wrong: &Wrong) {
        self.reports
            .add(wrong.span.clone(), &wrong.found, wrong.expected, wrong.remedy);
    }
}

/// The part of a statement that an operation blames.
pub(super) fn place(definition: &Definition, fault: &Fault) -> Range<usize> {
    match fault {
        Fault::Operand(i) => definition.operands.get(*i).map(|operand| operand.span.clone()),
        Fault::Attribute(name) => definition
            .attributes
            .iter()
            .find(|(written, _)| written.value == name)
            .map(|(written, value)| written.span.start..value.span.end),
        Fault::Statement => None,
    }
    .unwrap_or(definition.call.clone())
}
