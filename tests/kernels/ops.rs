//! Single operations over random shapes: around vector widths, tile limits and ragged ends.

use crate::harness::{Case, EVERY, TOLERANCE, cases, check, check_filled, fractions};
use ir::plan::Mode;
use proptest::prelude::*;

fn infer(text: String, batch: usize, seed: u64) {
    check(&Case {
        text,
        batch,
        mode: Mode::Infer,
        seed,
        tolerance: TOLERANCE,
        factors: EVERY,
        exact_factors: true,
    });
}

/// Sizes around vector widths and register tiles.
fn channels() -> impl Strategy<Value = usize> {
    prop_oneof![1usize..9, 14usize..19, 30usize..35, 46usize..50, 62usize..68]
}

/// A window along one axis: input, kernel, stride, padding before and after, dilation.
type Axis = (usize, usize, usize, usize, usize, usize);

fn axis() -> impl Strategy<Value = Axis> {
    let parts = (1usize..20, 1usize..6, 1usize..4, 0usize..4, 0usize..4, 1usize..3);
    parts.prop_filter(
        "the kernel fits",
        |&(size, kernel, _, before, after, dilation)| (kernel - 1) * dilation < size + before + after,
    )
}

fn output((size, kernel, stride, before, after, dilation): Axis) -> usize {
    (size + before + after - dilation * (kernel - 1) - 1) / stride + 1
}

proptest! {
    #![proptest_config(cases(24))]

    #[test]
    fn convolutions_and_their_gradients(
        (ci, co) in (channels(), channels()),
        groups in 1usize..4,
        y in axis(),
        x in axis(),
        batch in 1usize..7,
        seed in 0u64..1000,
    ) {
        let (h, w) = (y.0, x.0);
        let window = format!(
            "stride=[{}, {}] pad=[{}, {}, {}, {}] dilation=[{}, {}] groups={groups}",
            y.2, x.2, y.3, x.3, y.4, x.4, y.5, x.5
        );
        let (cin, out) = (ci * groups, co * groups);
        let image = format!("x = input() shape=[N, {cin}, {h}, {w}]\n");
        let weight = format!("w = input() shape=[{out}, {ci}, {}, {}]\n", y.1, x.1);
        let upstream = format!("dy = input() shape=[N, {out}, {}, {}]\n", output(y), output(x));
        infer(format!("model m\n{image}{weight}y = conv2d(x, w) {window}\noutput y = y\n"), batch, seed);
        infer(
            format!(
                "model m\n{upstream}{weight}dx = conv2d_grad_input(dy, w) size=[{h}, {w}] {window}\noutput dx = dx\n"
            ),
            batch,
            seed,
        );
        infer(
            format!(
                "model m\n{upstream}{image}dw = conv2d_grad_weight(dy, x) kernel=[{}, {}] {window}\noutput dw = dw\n",
                y.1, x.1
            ),
            batch,
            seed,
        );
    }

    #[test]
    fn matrix_products(
        (rows, columns, inner) in (1usize..80, 1usize..80, prop_oneof![1usize..70, 380usize..390, 1200usize..1300]),
        (a, b) in (any::<bool>(), any::<bool>()),
        seed in 0u64..1000,
    ) {
        let left = if a { [inner, rows] } else { [rows, inner] };
        let right = if b { [columns, inner] } else { [inner, columns] };
        let text = format!(
            "model m\na = input() shape={left:?}\nb = input() shape={right:?}\n\
             y = matmul(a, b) transpose_a={a} transpose_b={b}\noutput y = y\n"
        );
        infer(text, 1, seed);
    }

    /// Factors of all 24 bits, which tensor cores round.
    #[test]
    fn products_of_factors_that_are_rounded(
        (rows, columns, inner) in (1usize..80, 1usize..80, 1usize..200),
        seed in 0u64..1000,
    ) {
        let text = format!(
            "model m\na = input() shape=[{rows}, {inner}]\nb = input() shape=[{columns}, {inner}]\n\
             y = matmul(a, b) transpose_b=true\noutput y = y\n"
        );
        let case = Case {
            text,
            batch: 1,
            mode: Mode::Infer,
            seed,
            tolerance: TOLERANCE,
            factors: EVERY,
            exact_factors: false,
        };
        check_filled(&case, fractions);
    }

    #[test]
    fn maxima_and_their_gradients(
        channels in channels(),
        y in axis(),
        x in axis(),
        ceil in any::<bool>(),
        batch in 1usize..4,
        seed in 0u64..1000,
    ) {
        // Windows without a real element are refused: that is a test of `ir`.
        let (before, after) = (y.3.min(y.1 / 2), y.4.min(y.1 / 2));
        let (left, right) = (x.3.min(x.1 / 2), x.4.min(x.1 / 2));
        let window = format!(
            "kernel=[{}, {}] stride=[{}, {}] pad=[{before}, {left}, {after}, {right}] ceil={ceil}",
            y.1, x.1, y.2, x.2
        );
        let image = format!("x = input() shape=[N, {channels}, {}, {}]\n", y.0, x.0);
        let text = format!("model m\n{image}y = max_pool(x) {window}\ni = max_pool_index(x) {window}\n\
                            output y = y\noutput i = i\n");
        prop_assume!(ir::text::parse(&text, "pool.ir").is_ok());
        let text = text.replace("output i = i\n", "");
        let text = format!(
            "{text}z = tanh(y)\ndx = max_pool_grad(z, i) size=[{}, {}] {window}\noutput dx = dx\noutput i = i\n",
            y.0, x.0
        );
        infer(text, batch, seed);
    }

    #[test]
    fn rows(rows in 1usize..40, columns in 1usize..70, seed in 0u64..1000) {
        let text = format!(
            "model m\nx = input() shape=[{rows}, {columns}]\np = softmax(x)\nl = log_sum_exp(x)\n\
             r = reduce_sum(x) axes=[0]\nc = reduce_sum(x) axes=[1]\n\
             output p = p\noutput l = l\noutput r = r\noutput c = c\n"
        );
        infer(text, 1, seed);
    }
}

/// The vector loop is along the width, which is one element more than the output's, as the padding is on the right.
#[test]
fn panels_of_channels_only() {
    let text = "model m\nx = input() shape=[N, 1, 2, 13]\nw = input() shape=[30, 1, 2, 3]\n\
                y = conv2d(x, w) pad=[1, 0, 2, 1]\noutput y = y\n";
    infer(text.into(), 1, 0);
}

/// Rows of 17: a vector and one element, next to which another thread stores the next row's.
#[test]
fn one_element_beyond_vectors() {
    let text = "model m\nx = input() shape=[N, 64, 7, 17]\ny = max_pool_index(x) kernel=2 stride=1 pad=[0, 1, 1, 0]\n\
                output y = y\n";
    infer(text.into(), 8, 0);
}
