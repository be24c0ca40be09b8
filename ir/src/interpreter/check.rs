//! Whether a nest can be run at all: its references, its index maps, and what it writes.

use super::{EvalError, Tensor};
use crate::nest::{Affine, Combine, Expr, Nest, Output, Source};

fn fault(found: impl Into<String>, expected: &str) -> EvalError {
    EvalError::new(
        "nest",
        found,
        expected,
        "Correct the nest: the operation or pass that made it is at fault.",
    )
}

/// Checks that running a nest over these tensors stays within them.
pub(super) fn check_nest(nest: &Nest, operands: &[&Tensor], stages: &[Tensor]) -> Result<(), EvalError> {
    let extents = nest.extents();
    if extents.contains(&0) {
        return Err(fault(
            format!("loops of {extents:?} iterations"),
            "one or more each",
        ));
    }
    if nest.combine == Combine::None && !nest.reduction.is_empty() {
        return Err(fault(
            "reduction loops without a combination",
            "none, or a combination",
        ));
    }
    let depends_on = |map: &Affine, loops: usize| match map.terms.iter().find(|t| t.0.0 >= loops) {
        Some((l, _)) => Err(fault(
            format!("a map of loop {} among {loops}", l.0),
            "loops of the nest",
        )),
        None => Ok(()),
    };
    for read in &nest.reads {
        let tensor = match read.source {
            Source::Operand(i) => operands.get(i).copied(),
            Source::Intermediate(i) => stages.get(i),
        };
        let Some(tensor) = tensor else {
            let found = format!("a read of {:?} with {} operands", read.source, operands.len());
            return Err(fault(found, "an operand or earlier stage"));
        };
        tensor.check("nest")?;
        if tensor.extents.len() != read.index.len() {
            let found = format!("{} indices into {}", read.index.len(), tensor.describe());
            return Err(fault(found, "one a dimension"));
        }
        for index in &read.index {
            depends_on(&index.map, extents.len())?;
            if index.divisor < 1 {
                return Err(fault(
                    format!("an index divided by {}", index.divisor),
                    "a divisor from 1 up",
                ));
            }
        }
        for predicate in &read.predicates {
            depends_on(&predicate.map, extents.len())?;
        }
    }
    check_expression(nest, &nest.body, extents.len(), false)?;
    for output in &nest.outputs {
        check_expression(nest, &output.value, nest.parallel.len(), true)?;
        check_writes(nest, output)?;
    }
    Ok(())
}

/// Checks that an expression refers to what there is, over the first `loops` loops.
fn check_expression(nest: &Nest, expr: &Expr, loops: usize, finish: bool) -> Result<(), EvalError> {
    let mut result = Ok(());
    let within = |map: &Affine| map.terms.iter().all(|t| t.0.0 < loops);
    let reads = |i: &usize| {
        nest.reads.get(*i).is_some_and(|read| {
            read.index.iter().all(|index| within(&index.map))
                && read.predicates.iter().all(|predicate| within(&predicate.map))
        })
    };
    expr.walk(&mut |part| {
        let sound = match part {
            Expr::Read(i) | Expr::InBounds(i) => reads(i),
            Expr::Index(map) => within(map),
            Expr::Table { values, index } => {
                let (low, high) = index.range(&nest.extents());
                within(index) && low >= 0 && high < values.len() as i64
            }
            Expr::Reduced => finish && nest.combine != Combine::None,
            Expr::ArgMax => finish && nest.combine == Combine::Max,
            Expr::Uniform {
                seed, step, element, ..
            } => reads(seed) && reads(step) && within(element),
            _ => true,
        };
        if !sound {
            let expected = "reads and loops that it has, the reduced value and the winner in outputs only";
            result = Err(fault(format!("an expression with {part:?}"), expected));
        }
    });
    result
}

fn check_writes(nest: &Nest, output: &Output) -> Result<(), EvalError> {
    if output.index.len() != output.extents.len() {
        let found = format!(
            "{} indices into an output of {:?}",
            output.index.len(),
            output.extents
        );
        return Err(fault(found, "one a dimension"));
    }
    for (map, &extent) in output.index.iter().zip(&output.extents) {
        let parallel = map.terms.iter().all(|t| t.0.0 < nest.parallel.len());
        let (low, high) = if parallel {
            map.range(&nest.parallel)
        } else {
            (-1, -1)
        };
        // Tiles may reach beyond the end, but an output that begins late or ends early is not covered.
        if low != 0 || high + 1 < extent as i64 {
            let found = format!("writes at {map:?} into an output of {:?}", output.extents);
            return Err(fault(found, "indices over parallel loops that cover the output"));
        }
    }
    Ok(())
}

/// Checks that every output's elements are each written exactly once. Time and memory are proportional to the
/// parallel points.
pub fn check_coverage(nest: &Nest) -> Result<(), EvalError> {
    for output in &nest.outputs {
        check_writes(nest, output)?;
        let mut writes = vec![0u8; output.extents.iter().product()];
        let mut point = vec![0i64; nest.parallel.len()];
        for number in 0..nest.parallel_points() {
            let mut rest = number;
            for (index, &extent) in point.iter_mut().zip(&nest.parallel).rev() {
                *index = (rest % extent as u64) as i64;
                rest /= extent as u64;
            }
            if let Some(element) = output.place(&point) {
                writes[element] = writes[element].saturating_add(1);
            }
        }
        if let Some(element) = writes.iter().position(|&count| count != 1) {
            let found = format!(
                "{} writes of element {element} of an output of {:?}",
                writes[element], output.extents
            );
            return Err(fault(found, "one"));
        }
    }
    Ok(())
}
