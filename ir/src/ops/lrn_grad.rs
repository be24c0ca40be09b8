//! The gradient of local response normalisation.

use super::Lrn;
use crate::node_id::NodeId;
use crate::nest::{Binary, Expr, Nest};
use crate::op::{Attribute, Attributes, OpError};
use super::operation::{GradientContext, Operation};
use crate::types::Type;

/// `dx = lrn_grad(dy, x, s)` with the normalisation's attributes and s its scale:
/// `dx = dy·s^−β − 2α'β·x·Σ dy·x·s^(−β−1)`, the sum over the windows that contain the channel.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LrnGrad {
    /// The normalisation's own attributes.
    pub window: Lrn,
}

impl Operation for LrnGrad {
    const MNEMONIC: &'static str = "lrn_grad";
    const EXAMPLE: &'static str = "\
x = input() shape=[N, 8, 3, 3]
dy = input() shape=[N, 8, 3, 3]
s = lrn_scale(x) size=5 alpha=0.0001 beta=0.75 k=2.0
dx = lrn_grad(dy, x, s) size=5 alpha=0.0001 beta=0.75 k=2.0
output dx = dx";

    fn parse(attributes: &mut Attributes) -> Result<LrnGrad, OpError> {
        Ok(LrnGrad {
            window: Lrn::parse_window(attributes)?,
        })
    }

    fn attributes(&self) -> Vec<(&'static str, Attribute)> {
        self.window.print_window()
    }

    fn infer_type(&self, operands: &[&Type]) -> Result<Type, OpError> {
        self.window.check(operands, &["dy", "x", "scale"])
    }

    fn semantics(&self, operands: &[&Type], result: &Type) -> Vec<Nest> {
        let (lrn, channels) = (&self.window, operands[0].extents()[1]);
        // A channel is `size/2` after the first channel of the last window that contains it.
        let before = (lrn.size - 1) / 2;
        let mut reads: Vec<_> = (0..3).map(|i| lrn.neighbour(i, channels, before)).collect();
        reads[2].padding_value = 1.0;
        reads.extend((0..3).map(|i| lrn.here(i, channels)));
        let power =
            |scale: usize, exponent: f64| Expr::Read(scale).binary(Binary::Power, Expr::Constant(exponent));
        let body = Expr::Read(0) * Expr::Read(1) * power(2, -lrn.beta.0 - 1.0);
        let factor = Expr::Constant(-2.0 * lrn.effective_alpha() * lrn.beta.0);
        let value = Expr::Read(3) * power(5, -lrn.beta.0) + factor * Expr::Read(4) * Expr::Reduced;
        lrn.nest(result, reads, body, value)
    }

    fn gradient(&self, _: &mut GradientContext) -> Vec<Option<NodeId>> {
        vec![None, None, None]
    }
}
