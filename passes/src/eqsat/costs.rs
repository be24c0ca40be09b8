//! What kernels cost, as the extraction wants to know it.

use ir::nest::{Binary, Expr, Nest, Unary};

/// A model of a machine.
pub trait Costs {
    /// Seconds of a nest's arithmetic, if its operands are at hand.
    fn compute(&self, nest: &Nest) -> f64;
    /// Seconds of reading or writing so many bytes of memory.
    fn traffic(&self, bytes: usize) -> f64;
    /// Seconds of a launch.
    fn launch(&self) -> f64;
    /// Seconds of bringing so many bytes from another device.
    fn transfer(&self, bytes: usize) -> f64;
}

/// Arithmetic over a rate, traffic over a bandwidth.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Roofline {
    /// Floating-point operations a second.
    pub flops: f64,
    /// Bytes a second.
    pub bandwidth: f64,
    /// Seconds of a launch.
    pub launch: f64,
    /// Bytes a second between devices.
    pub link: f64,
    /// Seconds of a transfer of nothing.
    pub latency: f64,
}

impl Costs for Roofline {
    fn compute(&self, nest: &Nest) -> f64 {
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
        (reduced + NO_CONTRACTION * outputs * nest.parallel_points() as f64) / self.flops
    }

    fn traffic(&self, bytes: usize) -> f64 {
        bytes as f64 / self.bandwidth
    }

    fn launch(&self) -> f64 {
        self.launch
    }

    fn transfer(&self, bytes: usize) -> f64 {
        self.latency + bytes as f64 / self.link
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
