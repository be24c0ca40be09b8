//! What happens at the edges of arithmetic: NaN, infinities, ties, labels out of range; and random masks.

use ir::interpreter::{Tensor, Values, evaluate};
use ir::{DType, Graph, text};
use std::collections::HashMap;

/// Evaluates a text for a batch of one and returns `y`.
fn y(source: &str, inputs: &[(&str, Tensor)]) -> Tensor {
    let source = format!("{source}\noutput y = y");
    let graph: Graph = text::parse(&source, "extremes")
        .unwrap_or_else(|errors| panic!("{}", text::render(&errors, &source, false)))
        .bind(1)
        .unwrap();
    let inputs: HashMap<String, Tensor> = inputs
        .iter()
        .map(|(name, value)| (name.to_string(), value.clone()))
        .collect();
    let values: Values = evaluate(&graph, &inputs).unwrap_or_else(|error| panic!("{source}: {error}"));
    values.output(&graph, "y").expect("y is an output").clone()
}

fn image(rows: &[&[f64]]) -> Tensor {
    Tensor::f32(&[1, 1, rows.len(), rows[0].len()], rows.concat())
}

const NAN: f64 = f64::NAN;
const INF: f64 = f64::INFINITY;

#[test]
fn rectifier_keeps_nan_and_its_gradient_at_zero_is_zero() {
    let x = Tensor::f32(&[5], vec![-1.0, 0.0, 2.0, NAN, -INF]);
    let relu = y("x = input() shape=[5]\ny = relu(x)", &[("x", x.clone())]);
    assert_eq!(relu.data[..3], [0.0, 0.0, 2.0]);
    assert!(relu.data[3].is_nan() && relu.data[4] == 0.0);
    let ones = Tensor::f32(&[5], vec![1.0; 5]);
    let gradient = y(
        "dy = input() shape=[5]\nx = input() shape=[5]\ny = relu_grad(dy, x)",
        &[("dy", ones), ("x", x)],
    );
    assert_eq!(gradient.data, [0.0, 0.0, 1.0, 0.0, 0.0]);
}

#[test]
fn the_first_of_ties_gets_the_gradient_of_pooling() {
    let ones = image(&[&[1.0; 3], &[1.0; 3], &[1.0; 3]]);
    let source = "x = input() shape=[1, 1, 3, 3]\ny = max_pool_index(x) kernel=2 pad=[1, 1, 0, 0]";
    let index = y(source, &[("x", ones)]);
    // The windows at the top and left begin in the padding.
    assert_eq!(index.data, [3.0, 2.0, 2.0, 1.0, 0.0, 0.0, 1.0, 0.0, 0.0]);
    let source = "dy = input() shape=[1, 1, 3, 3]\ni = input() shape=[1, 1, 3, 3] dtype=u8\n\
                  y = max_pool_grad(dy, i) size=[3, 3] kernel=2 pad=[1, 1, 0, 0]";
    let dy = image(&[&[1.0, 2.0, 4.0], &[8.0, 16.0, 32.0], &[64.0, 128.0, 256.0]]);
    let dx = y(source, &[("dy", dy), ("i", index)]);
    assert_eq!(
        dx.data,
        [
            1.0 + 2.0 + 8.0 + 16.0,
            4.0 + 32.0,
            0.0,
            64.0 + 128.0,
            256.0,
            0.0,
            0.0,
            0.0,
            0.0
        ]
    );
}

#[test]
fn nan_and_minus_infinity_win_pooling_where_nothing_else_does() {
    let pool = |op: &str, x: Tensor| {
        y(
            &format!("x = input() shape=[1, 1, 2, 2]\ny = {op}(x) kernel=2"),
            &[("x", x)],
        )
    };
    let with_nan = image(&[&[1.0, NAN], &[INF, NAN]]);
    assert!(pool("max_pool", with_nan.clone()).data[0].is_nan());
    assert_eq!(pool("max_pool_index", with_nan).data, [1.0]);
    let lowest = image(&[&[-INF, -INF], &[-INF, -INF]]);
    assert_eq!(pool("max_pool", lowest.clone()).data, [-INF]);
    assert_eq!(pool("max_pool_index", lowest).data, [0.0]);
}

/// Windows of 254 elements are the largest whose places fit beside 255, which means none.
#[test]
fn the_last_place_of_the_largest_window_gets_its_gradient() {
    let mut x = vec![0.0; 254];
    x[253] = 1.0;
    let x = Tensor::f32(&[1, 1, 2, 127], x);
    let index = y(
        "x = input() shape=[1, 1, 2, 127]\ny = max_pool_index(x) kernel=[2, 127]",
        &[("x", x)],
    );
    assert_eq!(index.data, [253.0]);
    let source = "dy = input() shape=[1, 1, 1, 1]\ni = input() shape=[1, 1, 1, 1] dtype=u8\n\
                  y = max_pool_grad(dy, i) size=[2, 127] kernel=[2, 127]";
    let dx = y(source, &[("dy", image(&[&[3.0]])), ("i", index)]);
    assert_eq!((dx.data[253], dx.data.iter().sum::<f64>()), (3.0, 3.0));
}

#[test]
fn large_logits_do_not_overflow() {
    let x = Tensor::f32(&[1, 3], vec![1000.0, 999.0, -1000.0]);
    let softmax = y("x = input() shape=[1, 3]\ny = softmax(x)", &[("x", x.clone())]);
    let first = 1.0 / (1.0 + (-1f64).exp());
    assert!(
        (softmax.data[0] - first).abs() < 1e-12 && softmax.data[2] == 0.0,
        "{softmax:?}"
    );
    let label = Tensor::new(DType::I64, &[1], vec![2.0]);
    let source = "x = input() shape=[1, 3]\nl = input() shape=[1] dtype=i64\ny = softmax_cross_entropy(x, l)";
    let loss = y(source, &[("x", x), ("l", label)]);
    assert!((loss.data[0] - (2000.0 - first.ln())).abs() < 1e-9, "{loss:?}");
}

#[test]
fn a_label_out_of_range_matches_no_class() {
    let x = Tensor::f32(&[1, 2], vec![0.0, 0.0]);
    for label in [-1.0, 2.0] {
        let label = Tensor::new(DType::I64, &[1], vec![label]);
        let source = "x = input() shape=[1, 2]\nl = input() shape=[1] dtype=i64\n";
        let loss = y(
            &format!("{source}y = softmax_cross_entropy(x, l)"),
            &[("x", x.clone()), ("l", label.clone())],
        );
        assert!((loss.data[0] - 2f64.ln()).abs() < 1e-12);
        let gradient = y(
            &format!("{source}d = constant() shape=[] value=1\ny = softmax_cross_entropy_grad(d, x, l)"),
            &[("x", x.clone()), ("l", label)],
        );
        assert!(
            gradient.data.iter().all(|g| (g - 0.5).abs() < 1e-12),
            "{gradient:?}"
        );
    }
}

fn mask(seed: f64, step: f64, stream: usize, keep: f64) -> Vec<f64> {
    let state = Tensor::new(DType::I64, &[2], vec![seed, step]);
    let source = format!(
        "s = input() shape=[2] dtype=i64\n\
         y = random_mask(s) shape=[100, 100] keep={keep} value=2.5 stream={stream}"
    );
    y(&source, &[("s", state)]).data
}

#[test]
fn a_mask_keeps_the_stated_share_and_no_more() {
    for keep in [0.0, 0.1, 0.5, 0.9, 1.0] {
        let mask = mask(12345.0, 7.0, 3, keep);
        assert!(mask.iter().all(|&m| m == 0.0 || m == 2.5));
        let kept = mask.iter().filter(|&&m| m > 0.0).count() as f64 / 1e4;
        // Five standard deviations of 10,000 draws.
        assert!(
            (kept - keep).abs() <= 5.0 * (keep * (1.0 - keep) / 1e4).sqrt(),
            "{kept} of {keep}"
        );
    }
}

#[test]
fn masks_of_other_seeds_steps_and_streams_are_independent_and_equal_states_repeat() {
    let base = mask(1.0, 2.0, 3, 0.5);
    assert_eq!(base, mask(1.0, 2.0, 3, 0.5));
    let high_seed = (1u64 << 40) as f64 + 1.0;
    for other in [
        mask(2.0, 2.0, 3, 0.5),
        mask(1.0, 3.0, 3, 0.5),
        mask(1.0, 2.0, 4, 0.5),
        mask(high_seed, 2.0, 3, 0.5),
        mask(2.0, 1.0, 3, 0.5),
    ] {
        let equal = base.iter().zip(&other).filter(|(a, b)| a == b).count() as f64 / 1e4;
        assert!(
            (equal - 0.5).abs() < 5.0 * (0.25f64 / 1e4).sqrt(),
            "{equal} of the elements agree"
        );
    }
}

/// Neighbours along a row, and along a column, are as independent as whole masks are.
#[test]
fn elements_of_a_mask_are_independent_of_their_neighbours() {
    let mask = mask(99.0, 0.0, 0, 0.5);
    for distance in [1, 2, 100, 101] {
        let pairs = mask.iter().zip(&mask[distance..]);
        let equal = pairs.clone().filter(|(a, b)| a == b).count() as f64 / pairs.count() as f64;
        assert!(
            (equal - 0.5).abs() < 0.025,
            "{equal} of the elements {distance} apart agree"
        );
    }
}
