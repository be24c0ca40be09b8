//! Sums of many values: the error is below 1e-6 of the sum of magnitudes, whatever the shape of the reduction. All values
//! are positive, so that a sum is the sum of its magnitudes.

use crate::harness::{Case, F32, Fill, cases, check_filled, check_passes};
use ir::DType;
use ir::interpreter::Tensor;
use ir::plan::Mode;
use proptest::prelude::*;

const TOLERANCE: f64 = 1e-6;

/// A tenth everywhere: each addition to a sum is rounded the same way, so that errors do not cancel. Labels are 0.
fn tenths(_: &str, dtype: DType, extents: &[usize], _: u64) -> Tensor {
    let value = match dtype {
        DType::F32 => f64::from(0.1f32),
        DType::I64 | DType::U8 => 0.0,
    };
    Tensor::new(dtype, extents, vec![value; extents.iter().product()])
}

/// Between 0 and 1.
fn positive(_: &str, dtype: DType, extents: &[usize], seed: u64) -> Tensor {
    let number = |i: usize| match dtype {
        DType::F32 => ir::nest::uniform(seed as i64, 2, 3, i as u32),
        DType::I64 | DType::U8 => 0.0,
    };
    Tensor::new(
        dtype,
        extents,
        (0..extents.iter().product()).map(number).collect(),
    )
}

fn case(text: String, seed: u64) -> Case {
    Case {
        text,
        batch: 1,
        mode: Mode::Infer,
        seed,
        tolerance: TOLERANCE,
        factors: F32,
        exact_factors: false,
    }
}

fn check_both(text: &str, seed: u64) {
    for fill in [tenths as Fill, positive] {
        check_filled(&case(text.to_string(), seed), fill);
    }
}

/// Sums along, across and over all of images; losses and their mean.
fn text(n: usize, c: usize, h: usize, w: usize) -> String {
    let rows = n * h;
    let columns = c * w;
    format!(
        "model m\nx = input() shape=[{n}, {c}, {h}, {w}]\npool = global_avg_pool(x)\nmean = channel_mean(x)\n\
         bias = reduce_sum(x) axes=[0, 2, 3]\nsample = reduce_sum(x) axes=[1, 2, 3]\nall = reduce_sum(x) axes=[0, 1, 2, 3]\n\
         z = input() shape=[{rows}, {columns}]\nrow = reduce_sum(z) axes=[1]\ncolumn = reduce_sum(z) axes=[0]\n\
         l = input() shape=[{rows}] dtype=i64\nloss = softmax_cross_entropy(z, l)\nlog = log_sum_exp(z)\n\
         output pool = pool\noutput mean = mean\noutput bias = bias\noutput sample = sample\noutput all = all\n\
         output row = row\noutput column = column\noutput loss = loss\noutput log = log\n"
    )
}

proptest! {
    #![proptest_config(cases(6))]

    #[test]
    fn of_any_shape(n in 1..6usize, c in 1..40usize, h in 1..40usize, w in 1..40usize, seed in any::<u64>()) {
        check_both(&text(n, c, h, w), seed);
    }
}

#[test]
fn of_many_values_in_every_order() {
    check_both(&text(3, 2, 130, 151), 1);
    check_both(&text(40, 33, 9, 17), 2);
}

#[test]
fn of_ten_million_values() {
    let text = "model m\nx = input() shape=[10, 1000, 1003]\ny = reduce_sum(x) axes=[0, 1, 2]\n\
                s = reduce_sum(x) axes=[0, 1]\nr = reduce_sum(x) axes=[1, 2]\noutput y = y\noutput s = s\noutput r = r\n";
    check_passes(&case(text.to_string(), 1), tenths, &passes::pipeline);
}

/// The variance of one channel: a bright background with a darker square, as 8 images of 224x224.
#[test]
fn of_squares_around_the_mean() {
    let square = |_: &str, dtype: DType, extents: &[usize], _: u64| {
        let (h, w) = (extents[2], extents[3]);
        let inside = |i: usize| (h / 3..h / 2).contains(&(i / w % h)) && (w / 3..w / 2).contains(&(i % w));
        let value = |i: usize| f64::from(if inside(i) { -0.5 } else { 2.3355f32 });
        Tensor::new(dtype, extents, (0..extents.iter().product()).map(value).collect())
    };
    let text = "model m\nx = input() shape=[8, 1, 224, 224]\nm = channel_mean(x)\nv = channel_variance(x, m)\n\
                output m = m\noutput v = v\n";
    check_passes(&case(text.to_string(), 1), square, &passes::pipeline);
}
