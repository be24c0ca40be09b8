//! Exponential, logarithm, hyperbolic tangent and powers over their whole range, and values that are no numbers.

use crate::harness::{Case, F32, Fill, check_filled};
use ir::DType;
use ir::interpreter::Tensor;
use ir::plan::Mode;

/// Spread over all magnitudes, both signs, with every special value among them.
fn everything(_: &str, dtype: DType, extents: &[usize], _: u64) -> Tensor {
    let special = [
        0.0,
        -0.0,
        1.0,
        -1.0,
        f64::INFINITY,
        f64::NEG_INFINITY,
        f64::NAN,
        f64::from(f32::MAX),
        f64::from(f32::MIN),
        f64::from(f32::MIN_POSITIVE),
        f64::from(f32::from_bits(1)),
    ];
    let spread = |i: usize| {
        let magnitude = 2f64.powf((i as f64 / 2.0) % 60.0 - 30.0);
        f64::from(
            (if i.is_multiple_of(2) {
                magnitude
            } else {
                -magnitude
            }) as f32,
        )
    };
    let value = |i: usize| special.get(i).copied().unwrap_or_else(|| spread(i));
    Tensor::new(dtype, extents, (0..extents.iter().product()).map(value).collect())
}

/// From −104 to 89, where the exponential of an f32 is neither 0 nor infinite.
fn exponents(_: &str, dtype: DType, extents: &[usize], _: u64) -> Tensor {
    let count: usize = extents.iter().product();
    let value = |i: usize| f64::from((-104.0 + 193.0 * i as f64 / count as f64) as f32);
    Tensor::new(dtype, extents, (0..count).map(value).collect())
}

fn each(text: &str, tolerance: f64, fill: Fill) {
    let case = |text: String| Case {
        text,
        batch: 1,
        mode: Mode::Infer,
        seed: 1,
        tolerance,
        factors: F32,
        exact_factors: false,
    };
    check_filled(&case(text.to_string()), fill);
}

#[test]
fn tanh_everywhere() {
    each(
        "model m\nx = input() shape=[4096]\ny = tanh(x)\noutput y = y\n",
        3e-7,
        everything,
    );
}

#[test]
fn relu_everywhere() {
    each(
        "model m\nx = input() shape=[4096]\ny = relu(x)\noutput y = y\n",
        0.0,
        everything,
    );
}

/// The exponent is a difference of numbers up to 104, whose last place is 7.6e-6: so much is its relative error.
#[test]
fn exponentials_of_rows() {
    let text = "model m\nx = input() shape=[700, 2]\ny = softmax(x)\nl = log_sum_exp(x)\noutput y = y\noutput l = l\n";
    each(text, 8e-6, exponents);
}

/// Two equal logits, however large: the loss is log 2, probabilities are halves, gradients are -1/2 and 1/2. An f32 keeps
/// nothing of log 2 next to 1e8. The model scales logits of 1, since a test's numbers are given by a function.
#[test]
fn large_logits() {
    fn ones(_: &str, dtype: DType, extents: &[usize], _: u64) -> Tensor {
        let value = if dtype == DType::F32 { 1.0 } else { 0.0 };
        Tensor::new(dtype, extents, vec![value; extents.iter().product()])
    }
    for logit in ["0", "1000", "1e5", "1e7", "1e8", "3e38", "-3e38"] {
        let text = format!(
            "model m\ninput = input() shape=[1, 2]\nx = scale(input) factor={logit}\nl = input() shape=[1] dtype=i64\n\
             one = constant() shape=[] value=1\nloss = softmax_cross_entropy(x, l)\n\
             g = softmax_cross_entropy_grad(one, x, l)\ny = softmax(x)\n\
             output loss = loss\noutput g = g\noutput y = y\n"
        );
        let graph = crate::harness::parse(&text);
        let given = graph.select(ir::Op::is_leaf).into_iter().map(|id| {
            let node = graph.node(id);
            let value = ones(&node.name, node.ty.dtype, &node.ty.extents(), 1);
            (node.name.clone(), value)
        });
        let given = given.collect();
        let values = ir::interpreter::evaluate(&graph, &given).unwrap();
        let output = |name: &str| values.output(&graph, name).unwrap().data.clone();
        assert!(
            (output("loss")[0] - 2f64.ln()).abs() < 1e-12,
            "{logit}: {:?}",
            output("loss")
        );
        assert_eq!(output("g"), [-0.5, 0.5], "{logit}");
        assert_eq!(output("y"), [0.5, 0.5], "{logit}");
        each(&text, 3e-7, ones);
    }
}

/// Mostly −∞, so that whole windows and rows hold nothing else; some ∞ and NaN.
fn mostly_infinite(_: &str, dtype: DType, extents: &[usize], seed: u64) -> Tensor {
    let value = |i: usize| match (ir::nest::uniform(seed as i64, 1, 2, i as u32) * 20.0) as u32 {
        0 => f64::NAN,
        1 => f64::INFINITY,
        2..5 => i as f64 % 7.0,
        _ => f64::NEG_INFINITY,
    };
    Tensor::new(dtype, extents, (0..extents.iter().product()).map(value).collect())
}

/// A window of nothing but −∞ and padding has a winner, and it is a real element.
#[test]
fn maxima_of_infinities() {
    let window = "kernel=3 stride=2 pad=1";
    let text = format!(
        "model m\nx = input() shape=[2, 5, 17, 17]\ny = max_pool(x) {window}\ni = max_pool_index(x) {window}\n\
         output y = y\noutput i = i\n"
    );
    each(&text, 0.0, mostly_infinite);
}

#[test]
fn logarithms_of_sums_of_infinities() {
    let text = "model m\nx = input() shape=[200, 3]\nl = log_sum_exp(x)\noutput l = l\n";
    each(text, 3e-7, mostly_infinite);
}
