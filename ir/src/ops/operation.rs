//! What every operation must say about itself.

use super::Op;
use crate::nest::Nest;
use crate::node_id::NodeId;
use crate::op::{Attribute, Attributes, OpError};
use crate::types::Type;

/// An operation: a name, typed attributes, and everything a pass or code generator asks of it.
///
/// An operation that forgets a method does not compile. The one default is [`Operation::differentiable`]: an
/// operation has a gradient unless it says why not. `ops!` in [`crate::ops`] joins the operations into one enum.
pub trait Operation: Sized {
    /// The name in the text format.
    const MNEMONIC: &'static str;
    /// A short program that uses the operation; a test parses, verifies and interprets it.
    const EXAMPLE: &'static str;

    /// Reads the attributes of the text format. Unknown names are reported by the caller.
    fn parse(attributes: &mut Attributes) -> Result<Self, OpError>;
    /// The attributes in canonical order, those with their default value left out.
    fn attributes(&self) -> Vec<(&'static str, Attribute)>;
    /// The type of the result: the shape rule, and at the same time the verifier of operands.
    fn infer_type(&self, operands: &[&Type]) -> Result<Type, OpError>;
    /// The meaning, as a chain of nests over bound types; the last one computes the result.
    fn semantics(&self, operands: &[&Type], result: &Type) -> Vec<Nest>;
    /// Whether [`Operation::gradient`] can be asked, where an operation has more forms than its gradient.
    fn differentiable(&self) -> Result<(), OpError> {
        Ok(())
    }
    /// Adds the gradient with respect to each operand, `None` where there is none.
    ///
    /// Operations that are gradients themselves may say `None`: where an operand that is wanted has none, the
    /// gradient pass reports the operation and the operand as an error.
    fn gradient(&self, context: &mut GradientContext) -> Vec<Option<NodeId>>;
}

/// The graph that gradients are added to: what operations need of a builder.
pub trait GradientBuilder {
    /// Adds a node under this name, or the first free `name.2`, `name.3`, ... The operation was derived, so its shapes fit.
    fn add_derived(&mut self, name: &str, op: Op, operands: &[NodeId]) -> NodeId;
    /// The name of a node.
    fn name(&self, id: NodeId) -> &str;
    /// The type of a node's result.
    fn result_type(&self, id: NodeId) -> &Type;
}

/// What [`Operation::gradient`] works with. New nodes go into the same graph.
pub struct GradientContext<'a> {
    /// The graph under construction.
    pub builder: &'a mut dyn GradientBuilder,
    /// The operands of the node.
    pub operands: Vec<NodeId>,
    /// The node itself: its result may be reused.
    pub result: NodeId,
    /// The gradient of the loss with respect to the result, of the result's type.
    pub upstream: NodeId,
    /// Which operands' gradients are wanted; others may be `None`.
    pub wanted: Vec<bool>,
}

impl GradientContext<'_> {
    /// Adds a node named after the differentiated one.
    pub fn add(&mut self, suffix: &str, op: impl Into<Op>, operands: &[NodeId]) -> NodeId {
        let name = format!("{}.{suffix}", self.builder.name(self.result));
        self.builder.add_derived(&name, op.into(), operands)
    }

    /// The type of operand `i`.
    pub fn operand_type(&self, i: usize) -> &Type {
        self.builder.result_type(self.operands[i])
    }
}
