//! The reference meaning of a program, in f64, straight from the nests.
//!
//! What a kernel computes is compared with this. It therefore follows the definitions in [`crate::nest`] word
//! by word and knows nothing of layouts, fusion or devices. F32 values are not rounded: the difference to a
//! kernel is the kernel's error. It is still quick enough for whole networks, because it works on rows (see
//! `rows`) and on all cores.

mod check;
mod point;
mod rows;
mod run;

pub use check::check_coverage;
pub use point::{Element, evaluate_point};
pub use run::evaluate_nest;

use crate::graph::Graph;
use crate::nest::Nest;
use crate::node_id::NodeId;
use crate::types::{DType, Dim};
use std::borrow::Cow;
use std::collections::HashMap;

/// A tensor of known extents, row-major.
#[derive(Clone, Debug, PartialEq)]
pub struct Tensor {
    /// Element type. Elements of the integer types are integers between −2⁵³ and 2⁵³.
    pub dtype: DType,
    /// Extents, outermost first.
    pub extents: Vec<usize>,
    /// Elements, as many as the product of the extents.
    pub data: Vec<f64>,
}

impl Tensor {
    /// A tensor of the given elements.
    pub fn new(dtype: DType, extents: &[usize], data: Vec<f64>) -> Tensor {
        Tensor {
            dtype,
            extents: extents.to_vec(),
            data,
        }
    }

    /// An f32 tensor of the given elements.
    pub fn f32(extents: &[usize], data: Vec<f64>) -> Tensor {
        Tensor::new(DType::F32, extents, data)
    }

    /// A scalar.
    pub fn scalar(value: f64) -> Tensor {
        Tensor::f32(&[], vec![value])
    }

    /// The element type and extents, as `f32[2, 3]`.
    fn describe(&self) -> String {
        format!("{}{:?}", self.dtype, self.extents)
    }

    /// Checks the number of elements, and that integers are integers.
    fn check(&self, name: &str) -> Result<(), EvalError> {
        let count = self
            .extents
            .iter()
            .try_fold(1usize, |n, &extent| n.checked_mul(extent));
        if count != Some(self.data.len()) {
            let found = format!("{} with {} elements", self.describe(), self.data.len());
            return Err(EvalError::new(
                name,
                found,
                "the product of the extents",
                "Pass all elements.",
            ));
        }
        let (low, high) = match self.dtype {
            DType::F32 => return Ok(()),
            DType::I64 => (-EXACT, EXACT),
            DType::U8 => (0.0, 255.0),
        };
        match self
            .data
            .iter()
            .find(|&&x| x.fract() != 0.0 || !(low..=high).contains(&x))
        {
            None => Ok(()),
            Some(x) => {
                let expected = format!("integers from {low} to {high}");
                Err(EvalError::new(
                    name,
                    format!("{x} in {}", self.describe()),
                    expected,
                    "Pass integers.",
                ))
            }
        }
    }
}

/// Up to here f64 holds every integer: 2⁵³.
const EXACT: f64 = 9_007_199_254_740_992.0;

/// Why something has no value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{name}: {found}; expected {expected}. {remedy}")]
pub struct EvalError {
    /// The input, parameter or node at fault; `nest` for a nest without a name.
    pub name: String,
    /// What was found.
    pub found: String,
    /// What would have been right.
    pub expected: String,
    /// What to do.
    pub remedy: String,
}

impl EvalError {
    fn new(
        name: &str,
        found: impl Into<String>,
        expected: impl Into<String>,
        remedy: impl Into<String>,
    ) -> EvalError {
        EvalError {
            name: name.to_string(),
            found: found.into(),
            expected: expected.into(),
            remedy: remedy.into(),
        }
    }
}

/// The values of all nodes of a graph: `values[id]`.
#[derive(Clone, Debug)]
pub struct Values<'a>(Vec<Cow<'a, Tensor>>);

impl std::ops::Index<NodeId> for Values<'_> {
    type Output = Tensor;
    fn index(&self, id: NodeId) -> &Tensor {
        &self.0[id.index()]
    }
}

impl Values<'_> {
    /// The graph's output with this name.
    pub fn output(&self, graph: &Graph, name: &str) -> Option<&Tensor> {
        let (_, id) = graph.outputs().iter().find(|output| output.0 == name)?;
        Some(&self[*id])
    }
}

/// Computes every node of a graph whose batch is bound, from its inputs and parameters by name. Names that the
/// graph does not have are ignored.
pub fn evaluate<'a>(graph: &Graph, inputs: &'a HashMap<String, Tensor>) -> Result<Values<'a>, EvalError> {
    let mut values: Vec<Cow<'a, Tensor>> = Vec::with_capacity(graph.len());
    for id in graph.ids() {
        let node = graph.node(id);
        let name = &node.name;
        let extents: Vec<usize> = node.ty.shape.iter().filter_map(|d| d.fixed()).collect();
        if node.ty.shape.contains(&Dim::Batch) {
            let found = format!("the type {}", node.ty);
            return Err(EvalError::new(
                name,
                found,
                "numbers for all extents",
                "Bind the batch.",
            ));
        }
        if node.op.is_leaf() {
            let Some(given) = inputs.get(name) else {
                let expected = format!("a value of type {}", node.ty);
                return Err(EvalError::new(
                    name,
                    "no value",
                    expected,
                    "Pass one under this name.",
                ));
            };
            if given.dtype != node.ty.dtype || given.extents != extents {
                let expected = node.ty.to_string();
                return Err(EvalError::new(
                    name,
                    given.describe(),
                    expected,
                    "Pass a value of its type.",
                ));
            }
            given.check(name)?;
            values.push(Cow::Borrowed(given));
            continue;
        }
        let operands = graph.operands(id);
        let tensors: Vec<&Tensor> = operands.iter().map(|o| &*values[o.index()]).collect();
        let chain = node.op.semantics(&graph.operand_types(id), &node.ty);
        let result = evaluate_chain(&chain, &tensors).map_err(|error| EvalError {
            name: name.clone(),
            ..error
        })?;
        values.push(Cow::Owned(result));
    }
    Ok(Values(values))
}

/// Computes the meaning of an operation: a chain of nests, of which each may read output 0 of those before it.
/// The result is output 0 of the last.
pub fn evaluate_chain(chain: &[Nest], operands: &[&Tensor]) -> Result<Tensor, EvalError> {
    let mut stages: Vec<Tensor> = Vec::with_capacity(chain.len());
    for nest in chain {
        let outputs = run::run(nest, operands, &stages)?;
        let first = outputs.into_iter().next();
        stages.push(first.ok_or_else(|| {
            EvalError::new(
                "nest",
                "a nest without outputs",
                "one at least",
                "Store its value.",
            )
        })?);
    }
    stages.pop().ok_or_else(|| {
        EvalError::new(
            "nest",
            "an empty chain of nests",
            "one nest at least",
            "Pass its value instead.",
        )
    })
}
