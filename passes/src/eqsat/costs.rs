//! What a kernel costs, as the extraction wants to know it.

use ir::nest::{Binary, Expr, Nest, Unary};
use ir::types::Type;

/// Seconds of one kernel, by cause.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Cost {
    /// Arithmetic.
    pub compute: f64,
    /// Reading every operand once.
    pub read: f64,
    /// Writing each output, if it is stored.
    pub store: Vec<f64>,
    /// Launching.
    pub launch: f64,
}

/// A model of a machine.
pub trait Costs {
    /// The cost of a nest over operands of these types.
    fn kernel(&self, nest: &Nest, operands: &[&Type]) -> Cost;
}

/// Arithmetic over a rate, traffic over a bandwidth, the larger of both.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Roofline {
    /// Floating-point operations a second.
    pub flops: f64,
    /// Bytes a second.
    pub bandwidth: f64,
    /// Seconds of a launch.
    pub launch: f64,
}

impl Costs for Roofline {
    fn kernel(&self, nest: &Nest, operands: &[&Type]) -> Cost {
        let count = |e: &Expr| {
            let mut operations = 0.0;
            e.walk(&mut |part| operations += weight(part));
            operations
        };
        let outputs: f64 = nest.outputs.iter().map(|o| count(&o.value)).sum();
        // Half of a multiply-add each: a contraction's body and its sum are one instruction.
        let body = match nest.contraction() {
            Some(_) => 2.0,
            None => NO_CONTRACTION * (1.0 + count(&nest.body)),
        };
        let reduced = if nest.reduction.is_empty() { 0.0 } else { body * nest.points() as f64 };
        let operations = reduced + NO_CONTRACTION * outputs * nest.parallel_points() as f64;
        let seconds = |bytes: usize| bytes as f64 / self.bandwidth;
        let bytes = |ty: &&Type| ty.elements() * ty.dtype.bytes();
        let stored = |o: &ir::nest::Output| o.extents.iter().product::<usize>() * o.dtype.bytes();
        Cost {
            compute: operations / self.flops,
            read: seconds(operands.iter().map(bytes).sum()),
            store: nest.outputs.iter().map(|o| seconds(stored(o))).collect(),
            launch: self.launch,
        }
    }
}

/// Kernels that are no contraction reach about this part of the arithmetic peak: loads, shuffles and guards share its
/// instructions.
const NO_CONTRACTION: f64 = 4.0;

/// Operations that a part of an expression is worth.
fn weight(part: &Expr) -> f64 {
    match part {
        Expr::Binary(Binary::Power, ..) => 40.0,
        Expr::Unary(Unary::Exp | Unary::Log | Unary::Tanh, _) => 20.0,
        Expr::Uniform { .. } => 12.0,
        Expr::Unary(..) | Expr::Binary(..) | Expr::Select(..) => 1.0,
        Expr::Constant(_) | Expr::Read(_) | Expr::Inside(_) | Expr::Index(_) | Expr::Reduced | Expr::Winner => 0.0,
    }
}
