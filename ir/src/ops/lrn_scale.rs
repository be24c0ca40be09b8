//! The denominator's base of local response normalisation, which its gradient needs.

use super::Lrn;
use crate::node_id::NodeId;
use crate::nest::{Expr, Nest};
use crate::op::{Attribute, Attributes, OpError};
use super::operation::{GradientContext, Operation};
use crate::types::Type;

/// `s = lrn_scale(x)` with the normalisation's attributes: `s = k + α'·Σ x²`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LrnScale {
    /// The normalisation's own attributes.
    pub window: Lrn,
}

impl Operation for LrnScale {
    const MNEMONIC: &'static str = "lrn_scale";
    const EXAMPLE: &'static str = "\
x = input() shape=[N, 8, 3, 3]
s = lrn_scale(x) size=5 alpha=0.0001 beta=0.75 k=2.0
output s = s";

    fn parse(attributes: &mut Attributes) -> Result<LrnScale, OpError> {
        Ok(LrnScale {
            window: Lrn::parse_window(attributes)?,
        })
    }

    fn attributes(&self) -> Vec<(&'static str, Attribute)> {
        self.window.print_window()
    }

    fn infer_type(&self, operands: &[&Type]) -> Result<Type, OpError> {
        self.window.check(operands, &["x"])
    }

    fn semantics(&self, operands: &[&Type], result: &Type) -> Vec<Nest> {
        let channels = operands[0].extents()[1];
        let reads = vec![self.window.neighbour(0, channels, self.window.size / 2)];
        self.window
            .nest(result, reads, Expr::Read(0) * Expr::Read(0), self.window.scale())
    }

    fn gradient(&self, _: &mut GradientContext) -> Vec<Option<NodeId>> {
        vec![None]
    }
}
