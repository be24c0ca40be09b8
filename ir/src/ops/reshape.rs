//! The same elements in row-major order under another shape.

use super::build::{map, read};
use crate::node_id::NodeId;
use crate::nest::{Affine, Expr, Loop, Nest};
use crate::op::{Attribute, Attributes, OpError, expect_operands};
use super::operation::{GradientContext, Operation};
use crate::types::{DType, Dim, Shape, Type};

/// `y = reshape(x) shape=[N, 9216]`: joins or splits neighbouring dimensions.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Reshape {
    /// The shape of the result.
    pub shape: Shape,
}

/// Extents whose runs multiply to the extents of both shapes, or `None` if there are none.
fn refinement(a: &[usize], b: &[usize]) -> Option<Vec<usize>> {
    let (mut parts, mut i, mut j) = (vec![], 0, 0);
    let (mut left, mut right) = (1, 1);
    loop {
        while left == 1 && i < a.len() {
            (left, i) = (a[i], i + 1);
        }
        while right == 1 && j < b.len() {
            (right, j) = (b[j], j + 1);
        }
        match (left, right) {
            (1, 1) => return Some(parts),
            (l, r) if l % r == 0 && r > 1 => {
                // Row-major: the outer part of the longer dimension comes first.
                parts.push(r);
                (left, right) = (l / r, 1);
            }
            (l, r) if r % l == 0 && l > 1 => {
                parts.push(l);
                (left, right) = (1, r / l);
            }
            _ => return None,
        }
    }
}

/// For each dimension, its index as a map of the refinement's loops.
fn indices(extents: &[usize], parts: &[usize]) -> Vec<Affine> {
    let mut next = 0;
    extents
        .iter()
        .map(|&extent| {
            let first = next;
            let mut product = 1;
            while product < extent {
                product *= parts[next];
                next += 1;
            }
            let mut index = Affine::default();
            let mut stride = 1;
            for l in (first..next).rev() {
                index = index.plus_loop(Loop(l), stride);
                stride *= parts[l] as i64;
            }
            index
        })
        .collect()
}

impl Operation for Reshape {
    const MNEMONIC: &'static str = "reshape";
    const EXAMPLE: &'static str =
        "x = input() shape=[N, 3, 2, 2]\ny = reshape(x) shape=[N, 12]\noutput y = y";

    fn parse(attributes: &mut Attributes) -> Result<Reshape, OpError> {
        Ok(Reshape {
            shape: attributes.dims("shape")?,
        })
    }

    fn attributes(&self) -> Vec<(&'static str, Attribute)> {
        vec![("shape", Attribute::Dims(self.shape.clone()))]
    }

    fn infer_type(&self, operands: &[&Type]) -> Result<Type, OpError> {
        expect_operands(operands, &["x"])?;
        let x = operands[0];
        let result = Type::new(DType::F32, self.shape.clone());
        let error = |found: String, expected: &str| {
            let remedy = "Reshape joins or splits neighbouring dimensions and keeps the number of elements.";
            Err(OpError::new(found, expected, remedy).attribute("shape"))
        };
        if x.dtype != DType::F32 {
            return error(format!("operand of type {x}"), "f32");
        }
        let batches = |shape: &Shape| shape.iter().filter(|d| **d == Dim::Batch).count();
        let fixed = |shape: &Shape| shape.iter().filter_map(|d| d.fixed()).collect::<Vec<usize>>();
        let first = |shape: &Shape| shape.first() == Some(&Dim::Batch);
        if batches(&x.shape) != batches(&self.shape) || first(&x.shape) != first(&self.shape) {
            return error(format!("{x} as {result}"), "the batch N kept in first place");
        }
        let (from, to) = (fixed(&x.shape), fixed(&self.shape));
        let count = |extents: &[usize]| {
            extents
                .iter()
                .fold(1, |n: u128, &extent| n.saturating_mul(extent as u128))
        };
        if count(&from) != count(&to) {
            return error(format!("{x} as {result}"), "as many elements as before");
        }
        match refinement(&from, &to) {
            Some(_) => Ok(result),
            None => error(format!("{x} as {result}"), "whole dimensions joined or split"),
        }
    }

    /// Loops over a common refinement of both shapes.
    fn semantics(&self, operands: &[&Type], result: &Type) -> Vec<Nest> {
        let (from, to) = (operands[0].extents(), result.extents());
        let parts = refinement(&from, &to).expect("the shape rule found a refinement");
        let mut nest = map(result, vec![read(0, indices(&from, &parts))], Expr::Read(0));
        nest.outputs[0].index = indices(&to, &parts);
        nest.parallel = parts;
        vec![nest]
    }

    fn gradient(&self, context: &mut GradientContext) -> Vec<Option<NodeId>> {
        let (shape, upstream) = (context.operand_type(0).shape.clone(), context.upstream);
        vec![Some(context.add("grad", Reshape { shape }, &[upstream]))]
    }
}
