//! A statement's operation: looks up its mnemonic and lets it read its attributes.

use super::diagnostic::Label;
use super::literal;
use super::resolver::{Resolver, place};
use super::syntax::Definition;
use super::token::shorten;
use crate::graph::GraphError;
use crate::op::{Attribute, Attributes, Fault, OpError};
use crate::ops::{MNEMONICS, Op};
use std::collections::HashMap;
use std::ops::Range;

impl Resolver<'_, '_> {
    /// The operation of a statement, its attributes read.
    pub(super) fn operation(&mut self, definition: &Definition) -> Option<Op> {
        let mnemonic = &definition.mnemonic;
        if !MNEMONICS.contains(&mnemonic.value) {
            let remedy = match self
                .suggestions
                .nearest(mnemonic.value, MNEMONICS.iter().copied())
            {
                Some(near) => format!("Did you mean `{near}`?"),
                None => format!("The operations are {}.", MNEMONICS.join(", ")),
            };
            let found = format!("the unknown operation `{}`", shorten(mnemonic.value));
            self.reports
                .add(mnemonic.span.clone(), found, "an operation", remedy);
            return None;
        }
        let mut attributes = Attributes::new(self.attributes(definition)?);
        match Op::parse(mnemonic.value, &mut attributes)? {
            Ok(op) if attributes.entries.is_empty() => Some(op),
            Ok(_) => {
                for (name, _) in &attributes.entries {
                    self.unknown_attribute(definition, name, &attributes.asked);
                }
                None
            }
            Err(error) => {
                self.refused_attributes(definition, &attributes, error);
                None
            }
        }
    }

    fn attributes(&mut self, definition: &Definition) -> Option<Vec<(String, Attribute)>> {
        let mut entries: Vec<(String, Attribute)> = vec![];
        let mut places: HashMap<&str, &Range<usize>> = HashMap::new();
        let mut sound = true;
        for (name, value) in &definition.attributes {
            if let Some(first) = places.insert(name.value, &name.span) {
                let labels = vec![Label {
                    span: first.clone(),
                    text: "first given here".into(),
                }];
                let found = format!("the attribute `{}` a second time", shorten(name.value));
                self.reports.add_with(
                    name.span.clone(),
                    found,
                    "it once",
                    "Keep one of the two.",
                    labels,
                );
                sound = false;
            }
            match literal::attribute(value) {
                Ok(attribute) => entries.push((name.value.to_string(), attribute)),
                Err(wrong) => {
                    self.wrong_literal(&wrong);
                    sound = false;
                }
            }
        }
        sound.then_some(entries)
    }

    fn unknown_attribute(&mut self, definition: &Definition, name: &str, known: &[String]) {
        let span = place(definition, &Fault::Attribute(name.to_string()));
        let expected = match known {
            [] => "no attributes".to_string(),
            [one] => format!("`{one}`"),
            _ => format!("one of `{}`", known.join("`, `")),
        };
        let remedy = match self.suggestions.nearest(name, known.iter().map(String::as_str)) {
            Some(near) => format!("Did you mean `{near}`?"),
            None => format!(
                "`{}` has no such attribute; leave it out.",
                definition.mnemonic.value
            ),
        };
        self.reports.add(
            span,
            format!("the unknown attribute `{}`", shorten(name)),
            expected,
            remedy,
        );
    }

    /// An operation that refuses its attributes. One that is missing may be there under a wrong name.
    fn refused_attributes(&mut self, definition: &Definition, left: &Attributes, error: OpError) {
        if let Fault::Attribute(missing) = &error.at
            && !definition.attributes.iter().any(|a| a.0.value == missing)
        {
            let written = left.entries.iter().map(|entry| entry.0.as_str());
            if let Some(near) = self.suggestions.nearest(missing, written) {
                return self.unknown_attribute(definition, near, std::slice::from_ref(missing));
            }
        }
        self.refused(
            definition,
            GraphError::Op {
                name: definition.name.value.to_string(),
                error,
            },
        );
    }
}
