//! The matrix product; with `transpose_b` a fully connected layer.

use super::build::{loops, read};
use crate::node_id::NodeId;
use crate::nest::{Affine, Combine, Expr, Loop, Nest};
use crate::op::{Attribute, Attributes, OpError, expect_operand, expect_operands};
use super::operation::{GradientContext, Operation};
use crate::types::{DType, Type};

/// `y = matmul(x, w) transpose_b=true`: x `[N, in]`, w `[out, in]`, y `[N, out]`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Matmul {
    /// Whether the first operand is read transposed.
    pub transpose_a: bool,
    /// Whether the second operand is read transposed.
    pub transpose_b: bool,
}

impl Operation for Matmul {
    const MNEMONIC: &'static str = "matmul";
    const EXAMPLE: &'static str = "\
x = input() shape=[N, 4]
w = parameter() shape=[3, 4] init=normal std=0.1
y = matmul(x, w) transpose_b=true
output y = y";

    fn parse(attributes: &mut Attributes) -> Result<Matmul, OpError> {
        let transpose_a = attributes.bool("transpose_a", false)?;
        Ok(Matmul {
            transpose_a,
            transpose_b: attributes.bool("transpose_b", false)?,
        })
    }

    fn attributes(&self) -> Vec<(&'static str, Attribute)> {
        let both = [
            ("transpose_a", self.transpose_a),
            ("transpose_b", self.transpose_b),
        ];
        both.into_iter()
            .filter(|a| a.1)
            .map(|(name, value)| (name, Attribute::Bool(value)))
            .collect()
    }

    fn infer_type(&self, operands: &[&Type]) -> Result<Type, OpError> {
        expect_operands(operands, &["a", "b"])?;
        expect_operand(operands, 0, DType::F32, 2)?;
        expect_operand(operands, 1, DType::F32, 2)?;
        let (a, b) = (&operands[0].shape, &operands[1].shape);
        let (rows, inner_a) = if self.transpose_a {
            (a[1], a[0])
        } else {
            (a[0], a[1])
        };
        let (inner_b, columns) = if self.transpose_b {
            (b[1], b[0])
        } else {
            (b[0], b[1])
        };
        if inner_a != inner_b {
            return Err(OpError::new(
                format!("a product over {inner_a} and {inner_b} elements"),
                "equal inner extents",
                "Change a shape, or set transpose_a or transpose_b.",
            ));
        }
        Ok(Type::new(DType::F32, [rows, columns]))
    }

    /// Parallel loops row, column; reduction loop k.
    fn semantics(&self, operands: &[&Type], result: &Type) -> Vec<Nest> {
        let inner = operands[0].extents()[if self.transpose_a { 0 } else { 1 }];
        let [row, column, k] = std::array::from_fn(|l| Affine::of(Loop(l)));
        let a = if self.transpose_a {
            [k.clone(), row]
        } else {
            [row, k.clone()]
        };
        let b = if self.transpose_b {
            [column, k]
        } else {
            [k, column]
        };
        vec![Nest {
            parallel: result.extents(),
            reduction: vec![inner],
            reads: vec![read(0, a), read(1, b)],
            combine: Combine::Sum,
            body: Expr::Read(0) * Expr::Read(1),
            outputs: vec![super::build::output(result, loops(0, 2), Expr::Reduced)],
        }]
    }

    /// With `y = A·B`: `dA = dy·Bᵀ`, `dB = Aᵀ·dy`, each transposed where the operand was read transposed.
    fn gradient(&self, context: &mut GradientContext) -> Vec<Option<NodeId>> {
        let (a, b, dy) = (context.operands[0], context.operands[1], context.upstream);
        let (ta, tb) = (self.transpose_a, self.transpose_b);
        let product = |transpose_a, transpose_b| Matmul {
            transpose_a,
            transpose_b,
        };
        let for_a = context.wanted[0].then(|| match ta {
            false => context.add("grad_a", product(false, !tb), &[dy, b]),
            true => context.add("grad_a", product(tb, true), &[b, dy]),
        });
        let for_b = context.wanted[1].then(|| match tb {
            false => context.add("grad_b", product(!ta, false), &[a, dy]),
            true => context.add("grad_b", product(true, ta), &[dy, a]),
        });
        vec![for_a, for_b]
    }
}
