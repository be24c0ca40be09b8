//! Small constructors that the meanings of operations share.

use crate::nest::{Affine, Combine, Expr, Index, Loop, Nest, Output, Read, Source};
use crate::op::{Attribute, OpError};
use crate::types::{DType, Type};

/// A read of an operand at affine indices, 0 outside.
pub fn read(operand: usize, index: impl IntoIterator<Item = Affine>) -> Read {
    let index = index.into_iter().map(Index::new).collect();
    Read {
        source: Source::Operand(operand),
        index,
        predicates: vec![],
        padding_value: 0.0,
    }
}

/// A read of a row's number from an earlier stage.
pub fn row(stage: usize) -> Read {
    Read {
        source: Source::Intermediate(stage),
        ..read(0, [Affine::of(Loop(0))])
    }
}

/// The loops `first..first + count`, each as a map.
pub fn loops(first: usize, count: usize) -> impl Iterator<Item = Affine> + Clone {
    (first..first + count).map(|l| Affine::of(Loop(l)))
}

/// An output of the result's type at affine indices.
pub fn output(result: &Type, index: impl IntoIterator<Item = Affine>, value: Expr) -> Output {
    Output {
        dtype: result.dtype,
        extents: result.extents(),
        index: index.into_iter().collect(),
        value,
    }
}

/// A map over the result's elements: each read as given, the value over those reads.
pub fn map(result: &Type, reads: Vec<Read>, value: Expr) -> Nest {
    Nest {
        parallel: result.extents(),
        reduction: vec![],
        reads,
        combine: Combine::None,
        body: Expr::Constant(0.0),
        outputs: vec![output(result, loops(0, result.rank()), value)],
    }
}

/// A map whose operands all have the result's shape and are read element by element.
pub fn elementwise(operands: usize, result: &Type, value: Expr) -> Vec<Nest> {
    let reads = (0..operands).map(|i| read(i, loops(0, result.rank()))).collect();
    vec![map(result, reads, value)]
}

/// A reduction whose result is stored as combined.
pub fn reduce(result: &Type, reduction: Vec<usize>, reads: Vec<Read>, combine: Combine, body: Expr) -> Nest {
    let outputs = vec![output(result, loops(0, result.rank()), Expr::Reduced)];
    Nest {
        parallel: result.extents(),
        reduction,
        reads,
        combine,
        body,
        outputs,
    }
}

/// Checks that all operands are f32 and of one type, which is the result's.
pub fn same_types(operands: &[&Type]) -> Result<Type, OpError> {
    let first = operands[0];
    if first.dtype != DType::F32 {
        let found = format!("operand of type {first}");
        return Err(OpError::new(found, "f32", "Pass a floating-point value.").operand(0));
    }
    match operands.iter().position(|ty| *ty != first) {
        None => Ok(first.clone()),
        Some(i) => {
            let found = format!("operand of type {}", operands[i]);
            Err(OpError::new(
                found,
                format!("{first}, as the first operand"),
                "Make the shapes equal.",
            )
            .operand(i))
        }
    }
}

/// Integers as an attribute.
pub fn ints(items: &[usize]) -> Attribute {
    Attribute::Ints(items.iter().map(|&n| n as i64).collect())
}
