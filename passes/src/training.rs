//! What a run computes, as one graph: inference, the gradients of the loss, or a whole training step.
//!
//! A model states its network only. Training appends the labels and the loss, replaces dropout by products
//! with random masks, differentiates, and ends in the update of stochastic gradient descent with momentum:
//! `v ← momentum·v − decay·ε·w − ε·∂L/∂w`, `w ← w + v`. The velocity `v` of a parameter `w` is a parameter
//! `w.velocity` of the new graph that starts at zero.

use crate::error::PassError;
use crate::gradient;
use ir::ops::{
    Add, Constant, Dropout, Init, Input, Multiply, Parameter, RandomMask, Scale, SgdVelocity,
    SoftmaxCrossEntropy,
};
use ir::plan::{LABELS, LEARNING_RATE, LOSS, RANDOM_STATE};
use ir::{Builder, DType, Dim, Graph, NodeId, Op, Real, Type};

/// What of the recipe is compiled into a training step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Optimizer {
    /// The share of the velocity that stays from step to step.
    pub momentum: f64,
    /// Weight decay.
    pub weight_decay: f64,
    /// What the learning rate is multiplied by for biases.
    pub bias_lr_factor: f64,
    /// Weight decay of biases.
    pub bias_weight_decay: f64,
    /// Whether dropout drops.
    pub dropout: bool,
}

impl Default for Optimizer {
    /// The recipe of the paper of 2012.
    fn default() -> Optimizer {
        Optimizer {
            momentum: 0.9,
            weight_decay: 0.0005,
            bias_lr_factor: 1.0,
            bias_weight_decay: 0.0005,
            dropout: true,
        }
    }
}

/// What follows a parameter's name in its velocity's.
const VELOCITY: &str = ".velocity";

/// Whether a parameter is the optimiser's state rather than the model's.
pub fn is_state(graph: &Graph, id: NodeId) -> bool {
    let updated = |id| graph.updates().iter().any(|u| u.0 == id);
    let weight = graph
        .node(id)
        .name
        .strip_suffix(VELOCITY)
        .and_then(|name| graph.find(name));
    weight.is_some_and(|weight| updated(weight) && updated(id))
}

/// The model with nothing dropped. Updates that it states itself stay.
pub fn inference(graph: &Graph) -> Result<Graph, PassError> {
    let mut copy = Copy::new("inference", graph, false)?;
    copy.outputs()?;
    for &(state, next) in graph.updates() {
        copy.update(copy.new[state.index()], copy.new[next.index()])?;
    }
    Ok(copy.builder.finish())
}

/// The loss, the model's outputs, and the gradient `grad.NAME` of every parameter.
pub fn gradients(graph: &Graph, dropout: bool) -> Result<Graph, PassError> {
    let mut step = Step::new("gradients", graph, dropout)?;
    step.copy.outputs()?;
    for (parameter, gradient) in std::mem::take(&mut step.gradients) {
        let name = format!("grad.{}", step.copy.builder.node(parameter).name);
        step.copy.output(&name, gradient)?;
    }
    Ok(step.copy.builder.finish())
}

/// A whole training step: the loss, the model's outputs, and the update of every parameter.
pub fn training(graph: &Graph, optimizer: &Optimizer) -> Result<Graph, PassError> {
    let mut step = Step::new("training", graph, optimizer.dropout)?;
    step.copy.outputs()?;
    let rate = Input {
        shape: vec![],
        dtype: DType::F32,
    };
    let rate = step.copy.add(LEARNING_RATE, rate, &[])?;
    for (weight, gradient) in std::mem::take(&mut step.gradients) {
        let name = step.copy.builder.node(weight).name.clone();
        let (factor, decay) = match name.ends_with(".bias") {
            true => (optimizer.bias_lr_factor, optimizer.bias_weight_decay),
            false => (1.0, optimizer.weight_decay),
        };
        let rule = SgdVelocity {
            momentum: Real(optimizer.momentum),
            decay: Real(decay),
            factor: Real(factor),
        };
        let shape = step.copy.builder.node(weight).ty.shape.clone();
        let zero = Parameter {
            shape,
            init: Init::Constant(Real(0.0)),
        };
        let velocity = step.copy.add(&format!("{name}{VELOCITY}"), zero, &[])?;
        let next_velocity =
            step.copy
                .derived(&format!("{name}.step"), rule, &[velocity, weight, gradient, rate])?;
        let next_weight = step
            .copy
            .derived(&format!("{name}.update"), Add, &[weight, next_velocity])?;
        step.copy.update(velocity, next_velocity)?;
        step.copy.update(weight, next_weight)?;
    }
    Ok(step.copy.builder.finish())
}

/// The model with its loss and gradients, no output declared but the loss.
struct Step<'a> {
    copy: Copy<'a>,
    /// Parameters with their gradients.
    gradients: Vec<(NodeId, NodeId)>,
}

impl Step<'_> {
    fn new<'a>(pass: &'static str, graph: &'a Graph, dropout: bool) -> Result<Step<'a>, PassError> {
        let mut copy = Copy::new(pass, graph, dropout)?;
        if let Some((state, _)) = graph.updates().first() {
            let fault = "the model updates it itself; remove the update, or run the model for inference";
            return Err(copy.fault(&graph.node(*state).name, fault));
        }
        let logits = graph
            .outputs()
            .iter()
            .map(|(_, id)| copy.new[id.index()])
            .find(|&id| {
                let ty = &copy.builder.node(id).ty;
                ty.dtype == DType::F32 && ty.rank() == 2
            });
        let Some(logits) = logits else {
            let fault = "the model has no output of type f32[N, classes]; add one with the logits";
            return Err(copy.fault(graph.name(), fault));
        };
        let labels = Input {
            shape: vec![copy.builder.node(logits).ty.shape[0]],
            dtype: DType::I64,
        };
        let labels = copy.add(LABELS, labels, &[])?;
        let loss = copy.derived(LOSS, SoftmaxCrossEntropy, &[logits, labels])?;
        copy.output(LOSS, loss)?;
        let one = Constant {
            shape: vec![],
            value: Real(1.0),
        };
        let one = copy.derived("loss.grad", one, &[])?;
        let parameters = copy.builder.graph().select(|op| matches!(op, Op::Parameter(_)));
        let gradients = gradient::gradients(&mut copy.builder, loss, one, &parameters)?;
        Ok(Step {
            copy,
            gradients: parameters.into_iter().zip(gradients).collect(),
        })
    }
}

/// A model's graph being rebuilt, with dropout replaced.
struct Copy<'a> {
    pass: &'static str,
    graph: &'a Graph,
    builder: Builder,
    /// What each node of the model became.
    new: Vec<NodeId>,
}

impl Copy<'_> {
    fn new<'a>(pass: &'static str, graph: &'a Graph, drop: bool) -> Result<Copy<'a>, PassError> {
        let mut copy = Copy {
            pass,
            graph,
            builder: Builder::new(graph.name()),
            new: vec![],
        };
        let mut random_state = None;
        for id in graph.ids() {
            let operands: Vec<NodeId> = graph.operands(id).iter().map(|o| copy.new[o.index()]).collect();
            let node = graph.node(id);
            let new = match &node.op {
                Op::Dropout(dropout) if drop && dropout.rate.0 > 0.0 => {
                    let state = match random_state {
                        Some(state) => state,
                        None => {
                            let state = Input {
                                shape: vec![Dim::Fixed(2)],
                                dtype: DType::I64,
                            };
                            *random_state.insert(copy.add(RANDOM_STATE, state, &[])?)
                        }
                    };
                    // The number of the node in the model: distinct, and the same for every batch.
                    let mask = mask(dropout, &node.ty, id.index());
                    let mask = copy.derived(&format!("{}.mask", node.name), mask, &[state])?;
                    copy.add(&node.name, Multiply, &[operands[0], mask])?
                }
                Op::Dropout(dropout) if dropout.factor() == 1.0 => operands[0],
                Op::Dropout(dropout) => copy.add(
                    &node.name,
                    Scale {
                        factor: Real(dropout.factor()),
                    },
                    &operands,
                )?,
                op => copy.add(&node.name, op.clone(), &operands)?,
            };
            copy.new.push(new);
        }
        Ok(copy)
    }

    /// Declares the model's own outputs.
    fn outputs(&mut self) -> Result<(), PassError> {
        for (name, id) in self.graph.outputs() {
            self.output(name, self.new[id.index()])?;
        }
        Ok(())
    }

    /// Adds a node of the interface: its name must be free.
    fn add(&mut self, name: &str, op: impl Into<Op>, operands: &[NodeId]) -> Result<NodeId, PassError> {
        self.builder
            .add(name, op, operands)
            .map_err(PassError::graph(self.pass))
    }

    /// Adds a node whose name may change.
    fn derived(&mut self, name: &str, op: impl Into<Op>, operands: &[NodeId]) -> Result<NodeId, PassError> {
        self.builder
            .add_fresh(name, op, operands)
            .map_err(PassError::graph(self.pass))
    }

    fn output(&mut self, name: &str, id: NodeId) -> Result<(), PassError> {
        self.builder.output(name, id).map_err(PassError::graph(self.pass))
    }

    fn update(&mut self, state: NodeId, next: NodeId) -> Result<(), PassError> {
        self.builder
            .update(state, next)
            .map_err(PassError::graph(self.pass))
    }

    fn fault(&self, node: &str, fault: &str) -> PassError {
        PassError::Node {
            pass: self.pass,
            node: node.to_string(),
            fault: fault.to_string(),
        }
    }
}

/// The mask of a dropout.
fn mask(dropout: &Dropout, ty: &Type, stream: usize) -> RandomMask {
    let (keep, value) = (Real(1.0 - dropout.rate.0), Real(dropout.kept_value()));
    RandomMask {
        shape: ty.shape.clone(),
        keep,
        value,
        stream,
    }
}
