//! Mean over windows that may overlap.

use super::AvgPoolGrad;
use super::build::{loops, output};
use super::window::Pool;
use crate::node_id::NodeId;
use crate::nest::{Affine, Binary, Combine, Expr, Loop, Nest};
use crate::op::{Attribute, Attributes, OpError};
use super::operation::{GradientContext, Operation};
use crate::types::{DType, Type};

/// `y = avg_pool(x) kernel=3 stride=2`: the sum of a window, in which padding is 0, divided by its elements.
///
/// Padding counts among them unless `count_pad=false`. What a last window lacks beyond the padding, where
/// `ceil=true` rounds up, never counts. That is PyTorch's rule.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AvgPool {
    /// The windows.
    pub pool: Pool,
    /// Whether padding counts as elements.
    pub count_pad: bool,
}

impl AvgPool {
    /// The attributes of the text; the gradient has the same ones.
    pub(super) fn parse_window(attributes: &mut Attributes) -> Result<AvgPool, OpError> {
        Ok(AvgPool {
            pool: Pool::parse(attributes)?,
            count_pad: attributes.bool("count_pad", true)?,
        })
    }

    /// The attributes, without those that have their default value.
    pub(super) fn print_window(&self) -> Vec<(&'static str, Attribute)> {
        let mut attributes = self.pool.attributes();
        if !self.count_pad {
            attributes.push(("count_pad", Attribute::Bool(false)));
        }
        attributes
    }

    /// How many elements count in the window whose first element lies at `start` in a value of these extents:
    /// a constant where no window reaches beyond what counts. `windows` are their numbers along both axes.
    pub(super) fn count(&self, size: [usize; 2], windows: [usize; 2], start: [Affine; 2]) -> Expr {
        let [rows, columns] = [0, 1].map(|axis| {
            let [kernel, stride] = [self.pool.kernel[axis], self.pool.stride[axis]].map(|n| n as i64);
            let [before, after] = [self.pool.pad[axis], self.pool.pad[axis + 2]].map(|n| n as i64);
            let (low, high) = match self.count_pad {
                true => (-before, size[axis] as i64 + after),
                false => (0, size[axis] as i64),
            };
            let last = stride * (windows[axis] as i64 - 1) - before;
            if -before >= low && last + kernel <= high {
                return Expr::Constant(kernel as f64);
            }
            let begin = Expr::Index(start[axis].clone()).binary(Binary::Max, Expr::Constant(low as f64));
            let end = Expr::Index(start[axis].clone().plus_constant(kernel));
            end.binary(Binary::Min, Expr::Constant(high as f64)) - begin
        });
        match (rows, columns) {
            (Expr::Constant(rows), Expr::Constant(columns)) => Expr::Constant(rows * columns),
            (rows, columns) => rows * columns,
        }
    }
}

impl Operation for AvgPool {
    const MNEMONIC: &'static str = "avg_pool";
    const EXAMPLE: &'static str = "\
x = input() shape=[N, 3, 7, 7]
y = avg_pool(x) kernel=3 stride=2 pad=1 count_pad=false
output y = y";

    fn parse(attributes: &mut Attributes) -> Result<AvgPool, OpError> {
        AvgPool::parse_window(attributes)
    }

    fn attributes(&self) -> Vec<(&'static str, Attribute)> {
        self.print_window()
    }

    fn infer_type(&self, operands: &[&Type]) -> Result<Type, OpError> {
        self.pool.infer_type(operands, DType::F32)
    }

    fn semantics(&self, operands: &[&Type], result: &Type) -> Vec<Nest> {
        let (x, y) = (operands[0].extents(), result.extents());
        let start = [0, 1].map(|axis| {
            Affine::constant(-(self.pool.pad[axis] as i64))
                .plus_loop(Loop(2 + axis), self.pool.stride[axis] as i64)
        });
        let value = Expr::Reduced / self.count([x[2], x[3]], [y[2], y[3]], start);
        vec![Nest {
            parallel: y,
            reduction: self.pool.kernel.to_vec(),
            reads: vec![self.pool.read(0, 0.0)],
            combine: Combine::Sum,
            body: Expr::Read(0),
            outputs: vec![output(result, loops(0, 4), value)],
        }]
    }

    fn gradient(&self, context: &mut GradientContext) -> Vec<Option<NodeId>> {
        let upstream = context.upstream;
        let size = [2, 3].map(|d| {
            context.operand_type(0).shape[d]
                .fixed()
                .expect("only the batch is symbolic")
        });
        let window = self.clone();
        vec![Some(context.add(
            "grad",
            AvgPoolGrad { window, size },
            &[upstream],
        ))]
    }
}
