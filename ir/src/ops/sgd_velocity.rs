//! The velocity of stochastic gradient descent with momentum and weight decay.

use super::build::{loops, map, read, same_types};
use crate::node_id::NodeId;
use crate::nest::{Expr, Nest};
use crate::op::{Attribute, Attributes, OpError, expect_operand, expect_operands};
use super::operation::{GradientContext, Operation};
use crate::types::{DType, Real, Type};

/// `v' = sgd_velocity(v, w, g, lr) momentum=0.9 decay=0.0005 factor=1.0`, as in the paper of 2012:
/// `v' = momentum·v − decay·ε·w − ε·g` with `ε = factor·lr`; the weight's next value is `w + v'`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SgdVelocity {
    /// The share of the velocity that stays.
    pub momentum: Real,
    /// Weight decay.
    pub decay: Real,
    /// The parameter's own factor of the learning rate.
    pub factor: Real,
}

impl Operation for SgdVelocity {
    const MNEMONIC: &'static str = "sgd_velocity";
    const EXAMPLE: &'static str = "\
v = parameter() shape=[4]
w = parameter() shape=[4] init=normal std=0.1
g = input() shape=[4]
lr = input() shape=[]
v.next = sgd_velocity(v, w, g, lr) momentum=0.9 decay=0.0005
w.next = add(w, v.next)
output w.next = w.next
update v = v.next
update w = w.next";

    fn parse(attributes: &mut Attributes) -> Result<SgdVelocity, OpError> {
        Ok(SgdVelocity {
            momentum: attributes.real("momentum", Some(0.9))?,
            decay: attributes.real("decay", Some(0.0))?,
            factor: attributes.real("factor", Some(1.0))?,
        })
    }

    fn attributes(&self) -> Vec<(&'static str, Attribute)> {
        let mut attributes = vec![("momentum", Attribute::Real(self.momentum.0))];
        if self.decay.0 != 0.0 {
            attributes.push(("decay", Attribute::Real(self.decay.0)));
        }
        if self.factor.0 != 1.0 {
            attributes.push(("factor", Attribute::Real(self.factor.0)));
        }
        attributes
    }

    fn infer_type(&self, operands: &[&Type]) -> Result<Type, OpError> {
        expect_operands(operands, &["velocity", "weight", "gradient", "learning_rate"])?;
        expect_operand(operands, 3, DType::F32, 0)?;
        same_types(&operands[..3])
    }

    fn semantics(&self, _: &[&Type], result: &Type) -> Vec<Nest> {
        let mut reads: Vec<_> = (0..3).map(|i| read(i, loops(0, result.rank()))).collect();
        reads.push(read(3, []));
        let rate = Expr::Constant(self.factor.0) * Expr::Read(3);
        let mut pull = Expr::Read(2);
        if self.decay.0 != 0.0 {
            pull = Expr::Constant(self.decay.0) * Expr::Read(1) + pull;
        }
        vec![map(
            result,
            reads,
            Expr::Constant(self.momentum.0) * Expr::Read(0) - rate * pull,
        )]
    }

    fn gradient(&self, _: &mut GradientContext) -> Vec<Option<NodeId>> {
        vec![None; 4]
    }
}
