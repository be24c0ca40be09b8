//! Every operation, one file each. A new one is a file and a line here.

use crate::nest::Nest;
use crate::node_id::NodeId;
use crate::op::{Attribute, Attributes, OpError};
use crate::types::Type;
use operation::{GradientContext, Operation};

mod build;
pub mod operation;
pub mod window;

pub use dropout::DropoutScale;
pub use parameter::Init;

macro_rules! ops {
    ($($module:ident :: $variant:ident),* $(,)?) => {
        $(mod $module;)*
        $(pub use $module::$variant;)*

        /// Any operation.
        #[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[allow(missing_docs)]
        pub enum Op { $($variant($variant)),* }

        $(impl From<$variant> for Op {
            fn from(op: $variant) -> Op {
                Op::$variant(op)
            }
        })*

        /// The mnemonics of all operations, as listed.
        pub const MNEMONICS: &[&str] = &[$(<$variant as Operation>::MNEMONIC),*];
        /// The examples of all operations, with their mnemonics.
        pub const EXAMPLES: &[(&str, &str)] = &[$((<$variant as Operation>::MNEMONIC, <$variant as Operation>::EXAMPLE)),*];

        impl Op {
            /// Constructs the operation with this mnemonic, or `None` if there is none.
            pub fn parse(mnemonic: &str, attributes: &mut Attributes) -> Option<Result<Op, OpError>> {
                $(if mnemonic == <$variant as Operation>::MNEMONIC {
                    return Some(<$variant as Operation>::parse(attributes).map(Op::$variant));
                })*
                None
            }

            /// [`Operation::MNEMONIC`].
            pub fn mnemonic(&self) -> &'static str {
                match self { $(Op::$variant(_) => <$variant as Operation>::MNEMONIC),* }
            }

            /// [`Operation::attributes`].
            pub fn attributes(&self) -> Vec<(&'static str, Attribute)> {
                match self { $(Op::$variant(op) => op.attributes()),* }
            }

            /// [`Operation::infer_type`].
            pub fn infer_type(&self, operands: &[&Type]) -> Result<Type, OpError> {
                match self { $(Op::$variant(op) => op.infer_type(operands)),* }
            }

            /// [`Operation::semantics`]; empty for inputs and parameters.
            pub fn semantics(&self, operands: &[&Type], result: &Type) -> Vec<Nest> {
                match self { $(Op::$variant(op) => op.semantics(operands, result)),* }
            }

            /// [`Operation::differentiable`].
            pub fn differentiable(&self) -> Result<(), OpError> {
                match self { $(Op::$variant(op) => op.differentiable()),* }
            }

            /// [`Operation::gradient`].
            pub fn gradient(&self, context: &mut GradientContext) -> Vec<Option<NodeId>> {
                match self { $(Op::$variant(op) => op.gradient(context)),* }
            }
        }
    };
}

ops! {
    input::Input,
    parameter::Parameter,
    conv2d::Conv2d,
    conv2d_grad_input::Conv2dGradInput,
    conv2d_grad_weight::Conv2dGradWeight,
    matmul::Matmul,
    fully_connected::FullyConnected,
    bias::Bias,
    relu::Relu,
    relu_grad::ReluGrad,
    tanh::Tanh,
    tanh_grad::TanhGrad,
    max_pool::MaxPool,
    max_pool_index::MaxPoolIndex,
    max_pool_grad::MaxPoolGrad,
    avg_pool::AvgPool,
    avg_pool_grad::AvgPoolGrad,
    global_avg_pool::GlobalAvgPool,
    lrn::Lrn,
    lrn_scale::LrnScale,
    lrn_grad::LrnGrad,
    dropout::Dropout,
    random_mask::RandomMask,
    add::Add,
    multiply::Multiply,
    scale::Scale,
    reshape::Reshape,
    reduce_sum::ReduceSum,
    broadcast::Broadcast,
    concat::Concat,
    slice::Slice,
    pad::Pad,
    batch_norm::BatchNorm,
    channel_mean::ChannelMean,
    channel_mean_grad::ChannelMeanGrad,
    channel_variance::ChannelVariance,
    log_sum_exp::LogSumExp,
    softmax::Softmax,
    softmax_grad::SoftmaxGrad,
    softmax_cross_entropy::SoftmaxCrossEntropy,
    softmax_cross_entropy_grad::SoftmaxCrossEntropyGrad,
    sgd_velocity::SgdVelocity,
    constant::Constant,
}

impl Op {
    /// The operation with the symbolic batch in its attributes replaced by a number.
    pub fn bind(&self, batch: usize) -> Op {
        let entries = self
            .attributes()
            .into_iter()
            .map(|(name, value)| {
                let value = match value {
                    Attribute::Dims(dims) => Attribute::Dims(dims.iter().map(|d| d.bind(batch)).collect()),
                    other => other,
                };
                (name.to_string(), value)
            })
            .collect();
        Op::parse(self.mnemonic(), &mut Attributes::new(entries))
            .and_then(Result::ok)
            .expect("printed attributes parse: the text round trip is tested for every operation")
    }

    /// Whether this is an input or a parameter: no operands, no nest.
    pub fn is_leaf(&self) -> bool {
        matches!(self, Op::Input(_) | Op::Parameter(_))
    }
}
