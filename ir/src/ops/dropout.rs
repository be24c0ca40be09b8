//! Dropout as a model states it. Training replaces it by a product with a [`super::RandomMask`].

use super::Scale;
use super::build::{elementwise, same_types};
use crate::node_id::NodeId;
use crate::nest::{Expr, Nest};
use crate::op::{Attribute, Attributes, OpError, expect_operands};
use super::operation::{GradientContext, Operation};
use crate::types::{Real, Type};

/// `y = dropout(x) rate=0.5 scale=training`: elements are dropped with probability `rate` in training.
///
/// As an operation it is what remains when nothing is dropped: the identity, or with `scale=inference` the
/// product with `1 − rate`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Dropout {
    /// The probability of dropping an element.
    pub rate: Real,
    /// When the scale that makes up for dropped elements is applied.
    pub scale: DropoutScale,
}

/// The two conventions of dropout.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum DropoutScale {
    /// Kept elements are multiplied by `1/(1 − rate)` in training, as most frameworks do.
    Training,
    /// Outputs are multiplied by `1 − rate` at inference, as the paper of 2012 does.
    Inference,
}

impl Dropout {
    /// What the operation multiplies by when nothing is dropped.
    pub fn factor(&self) -> f64 {
        match self.scale {
            DropoutScale::Training => 1.0,
            DropoutScale::Inference => 1.0 - self.rate.0,
        }
    }

    /// The value of the mask at kept elements, in training.
    pub fn kept_value(&self) -> f64 {
        match self.scale {
            DropoutScale::Training => 1.0 / (1.0 - self.rate.0),
            DropoutScale::Inference => 1.0,
        }
    }
}

impl Operation for Dropout {
    const MNEMONIC: &'static str = "dropout";
    const EXAMPLE: &'static str =
        "x = input() shape=[N, 4]\ny = dropout(x) rate=0.5 scale=inference\noutput y = y";

    fn parse(attributes: &mut Attributes) -> Result<Dropout, OpError> {
        let rate = attributes.real("rate", Some(0.5))?;
        if !(0.0..1.0).contains(&rate.0) {
            let error = OpError::new(
                format!("rate={rate}"),
                "a probability below 1",
                "Use 0 <= rate < 1.",
            );
            return Err(error.attribute("rate"));
        }
        let scale = match attributes.word("scale", &["training", "inference"])? {
            "inference" => DropoutScale::Inference,
            _ => DropoutScale::Training,
        };
        Ok(Dropout { rate, scale })
    }

    fn attributes(&self) -> Vec<(&'static str, Attribute)> {
        let mut attributes = vec![("rate", Attribute::Real(self.rate.0))];
        if self.scale == DropoutScale::Inference {
            attributes.push(("scale", Attribute::Word("inference".into())));
        }
        attributes
    }

    fn infer_type(&self, operands: &[&Type]) -> Result<Type, OpError> {
        expect_operands(operands, &["x"])?;
        same_types(operands)
    }

    fn semantics(&self, _: &[&Type], result: &Type) -> Vec<Nest> {
        elementwise(1, result, Expr::Read(0) * Expr::Constant(self.factor()))
    }

    fn gradient(&self, context: &mut GradientContext) -> Vec<Option<NodeId>> {
        let upstream = context.upstream;
        vec![Some(context.add(
            "grad",
            Scale {
                factor: Real(self.factor()),
            },
            &[upstream],
        ))]
    }
}
