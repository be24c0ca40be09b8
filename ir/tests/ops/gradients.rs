//! Every gradient against central differences, over random shapes and attributes.

use crate::differentiate::{backward, central_differences};
use crate::samples::{Rng, Sample, sample};
use ir::graph::Builder;
use ir::interpreter::{Tensor, evaluate};
use ir::ops::operation::GradientContext;
use ir::ops::{Input, MNEMONICS};
use ir::{DType, text};
use std::collections::HashMap;

/// Instances of each operation.
const CASES: u64 = 40;

/// Operations without a gradient: leaves have no operands, the others are no part of a differentiated network
/// but of its gradient or update.
const WITHOUT: &[&str] = &[
    "input",
    "parameter",
    "constant",
    "random_mask",
    "max_pool_index",
    "max_pool_grad",
    "lrn_scale",
    "lrn_grad",
    "softmax_grad",
    "softmax_cross_entropy_grad",
    "sgd_velocity",
];
/// Those with a gradient by their first operand alone: the second decides where it goes.
const FIRST_ONLY: &[&str] = &["relu_grad", "tanh_grad"];

fn has_gradient(sample: &Sample, operand: usize) -> bool {
    let mnemonic = sample.op.mnemonic();
    sample.operands[operand].dtype == DType::F32
        && !WITHOUT.contains(&mnemonic)
        && (operand == 0 || !FIRST_ONLY.contains(&mnemonic))
}

/// Adds an upstream gradient of y to a graph of inputs and `y`.
fn with_upstream(graph: &ir::Graph) -> (Builder, ir::NodeId, ir::NodeId) {
    let mut builder = Builder::extend(graph);
    let y = graph.find("y").expect("the graph defines y");
    let upstream = Input {
        shape: graph.node(y).ty.shape.clone(),
        dtype: DType::F32,
    };
    let upstream = builder.add("upstream", upstream, &[]).expect("the name is free");
    (builder, y, upstream)
}

/// Compares the gradient by every input named with central differences.
fn check(
    graph: &ir::Graph,
    mut inputs: HashMap<String, Tensor>,
    names: &[String],
    rng: &mut Rng,
    what: &str,
) {
    let (mut builder, y, upstream) = with_upstream(graph);
    let extents = builder.node(y).ty.extents();
    let count: usize = extents.iter().product();
    let dy = (0..count)
        .map(|_| rng.from(0, 2000) as f64 / 1000.0 - 1.0)
        .collect();
    let dy = Tensor::f32(&extents, dy);
    let gradients = backward(&mut builder, y, upstream);
    let derived = builder.finish();
    inputs.insert("upstream".into(), dy.clone());
    let values = evaluate(&derived, &inputs).unwrap_or_else(|error| panic!("{what}: {error}"));
    for name in names {
        let gradient = &values[gradients[&derived.find(name).expect("the name is an input's")]];
        let expected = central_differences(graph, &inputs, &dy, name);
        assert_eq!(gradient.data.len(), expected.len(), "{what}: {name}");
        for (i, (found, expected)) in gradient.data.iter().zip(&expected).enumerate() {
            let tolerance = 1e-6 * expected.abs().max(1.0);
            assert!(
                (found - expected).abs() <= tolerance,
                "{what}: the gradient by {name}[{i}] is {found}, by differences {expected}"
            );
        }
    }
}

#[test]
fn gradients_agree_with_central_differences() {
    for mnemonic in MNEMONICS {
        for seed in 0..CASES {
            let rng = &mut Rng::new(seed);
            let (sample, batch) = (sample(mnemonic, rng), 1 + seed as usize % 3);
            let operands = 0..sample.operands.len();
            let inputs = operands
                .clone()
                .map(|i| (format!("x{i}"), sample.values(i, batch, rng)))
                .collect();
            let names: Vec<String> = operands
                .filter(|&i| has_gradient(&sample, i))
                .map(|i| format!("x{i}"))
                .collect();
            if !names.is_empty() {
                check(&sample.graph(batch), inputs, &names, rng, &format!("{sample:?}"));
            }
        }
    }
}

/// An operation may save the work for operands whose gradient is not wanted, but not for those wanted; and a
/// gradient has its operand's type also while the batch is symbolic.
#[test]
fn each_wanted_gradient_is_there_and_has_its_operands_type() {
    for mnemonic in MNEMONICS {
        for seed in 0..CASES {
            let sample = sample(mnemonic, &mut Rng::new(seed));
            for wanted in 0..sample.operands.len() {
                let mut builder = Builder::new("symbolic");
                let mut add = |name: String, ty: &ir::Type| {
                    let input = Input {
                        shape: ty.shape.clone(),
                        dtype: ty.dtype,
                    };
                    builder.add(&name, input, &[]).expect("the name is free")
                };
                let operands: Vec<_> = sample
                    .operands
                    .iter()
                    .enumerate()
                    .map(|(i, ty)| add(format!("x{i}"), ty))
                    .collect();
                let types: Vec<_> = sample.operands.iter().collect();
                let result = sample.op.infer_type(&types).expect("samples are sound");
                let upstream = add("upstream".into(), &ir::Type::new(DType::F32, result.shape));
                let y = builder
                    .add("y", sample.op.clone(), &operands)
                    .expect("samples are sound");
                let gradients = sample.op.gradient(&mut GradientContext {
                    builder: &mut builder,
                    wanted: (0..operands.len()).map(|i| i == wanted).collect(),
                    operands,
                    result: y,
                    upstream,
                });
                assert_eq!(gradients.len(), sample.operands.len(), "{sample:?}");
                let found = gradients[wanted].map(|id| builder.node(id).ty.clone());
                let expected = has_gradient(&sample, wanted).then(|| sample.operands[wanted].clone());
                assert_eq!(found, expected, "{sample:?}, operand {wanted}");
            }
        }
    }
}

/// The gradient through the statistics of the batch, which are themselves functions of x.
#[test]
fn batch_normalisation_in_training_is_differentiable() {
    for (shape, batch) in [("3, 2, 4", 2), ("2, 1, 3", 3), ("4", 5)] {
        let source = format!(
            "x = input() shape=[N, {shape}]\nw = input() shape=[N, {shape}]\n\
             a = input() shape=[{c}]\nb = input() shape=[{c}]\n\
             m = channel_mean(x)\nv = channel_variance(x, m)\n\
             n = batch_norm(x, a, b, m, v) eps=0.01\ny = multiply(n, w)\noutput y = y",
            c = &shape[..1]
        );
        let graph = text::parse(&source, "training").unwrap().bind(batch).unwrap();
        let rng = &mut Rng::new(7);
        let inputs = graph
            .select(|op| op.is_leaf())
            .into_iter()
            .map(|id| {
                let (name, ty) = (graph.node(id).name.clone(), &graph.node(id).ty);
                let data = (0..ty.elements())
                    .map(|_| rng.from(0, 4000) as f64 / 2000.0 - 1.0)
                    .collect();
                (name, Tensor::f32(&ty.extents(), data))
            })
            .collect();
        check(
            &graph,
            inputs,
            &["x", "w", "a", "b"].map(String::from),
            rng,
            &source,
        );
    }
}

/// A small network of AlexNet's family: every kind of layer, and a value with two users.
#[test]
fn a_whole_network_is_differentiable() {
    let source = "\
x = input() shape=[N, 2, 9, 9]
w1 = input() shape=[4, 2, 3, 3]
b1 = input() shape=[4]
w2 = input() shape=[4, 2, 3, 3]
w3 = input() shape=[3, 16]
labels = input() shape=[N] dtype=i64
c1 = conv2d(x, w1) stride=2
s1 = bias(c1, b1)
r1 = tanh(s1)
n1 = lrn(r1) size=3 alpha=0.5 beta=0.75 k=2 groups=2
c2 = conv2d(n1, w2) pad=1 groups=2
sum = add(c2, n1)
p2 = max_pool(sum) kernel=3 stride=2 ceil=true
a2 = avg_pool(p2) kernel=2 pad=1 count_pad=false
q2 = slice(a2) axis=2 start=1 stop=3
z2 = slice(q2) axis=3 start=1 stop=3
flat = reshape(z2) shape=[N, 16]
logits = fully_connected(flat, w3)
y = softmax_cross_entropy(logits, labels)
output y = y";
    let graph = text::parse(source, "network").unwrap().bind(2).unwrap();
    let rng = &mut Rng::new(11);
    let mut inputs: HashMap<String, Tensor> = graph
        .select(|op| op.is_leaf())
        .into_iter()
        .map(|id| {
            let (name, ty) = (graph.node(id).name.clone(), &graph.node(id).ty);
            let data = (0..ty.elements())
                .map(|_| rng.from(0, 40_000) as f64 / 20_000.0 - 1.0)
                .collect();
            (name, Tensor::f32(&ty.extents(), data))
        })
        .collect();
    inputs.insert("labels".into(), Tensor::new(DType::I64, &[2], vec![2.0, 0.0]));
    check(
        &graph,
        inputs,
        &["x", "w1", "b1", "w2", "w3"].map(String::from),
        rng,
        "network",
    );
}
