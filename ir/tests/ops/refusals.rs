//! What each operation says to operands and attributes that do not fit: found, expected, and a remedy.

use crate::shapes::program;
use ir::text;

/// The one error of statements, as `found; expected`.
fn error_of(source: &str) -> String {
    let errors = match text::parse(&format!("{source}\noutput y = y"), "shapes") {
        Ok(graph) => panic!(
            "{source} is accepted as {}",
            graph.node(graph.find("y").expect("y is defined")).ty
        ),
        Err(errors) => errors,
    };
    assert_eq!(errors.len(), 1, "{source}: {errors:?}");
    assert!(errors[0].remedy.len() > 5, "{source}: no remedy");
    format!("{}; {}", errors[0].found, errors[0].expected)
}

/// Inputs, the statement, and what its error says was found; then expected.
type Refusal = (
    &'static [(&'static str, &'static str)],
    &'static str,
    &'static str,
);

fn check_refusals(refusals: &[Refusal]) {
    for (inputs, y, expected) in refusals {
        let found = error_of(&program(inputs, y));
        assert!(
            found.contains(expected),
            "{y}: the error says {found:?} and not {expected:?}"
        );
    }
}

const IMAGE: &[(&str, &str)] = &[("x", "[N, 4, 5, 5]"), ("w", "[6, 2, 3, 3]")];
const ROWS: &[(&str, &str)] = &[("x", "[N, 6]"), ("v", "[6]"), ("l", "[N] dtype=i64")];

#[test]
fn operands_that_do_not_fit_are_refused() {
    check_refusals(&[
        (IMAGE, "conv2d(x) groups=2", "1 operand; (x, weight)"),
        (
            IMAGE,
            "conv2d(x, w)",
            "4 input channels, a weight of f32[6, 2, 3, 3] and 1 groups",
        ),
        (
            IMAGE,
            "conv2d(x, w) groups=4",
            "4 input channels, a weight of f32[6, 2, 3, 3] and 4 groups",
        ),
        (
            IMAGE,
            "conv2d(x, w) groups=2 dilation=3",
            "a window of 7 over 5 elements padded by 0 and 0",
        ),
        (
            ROWS,
            "conv2d(x, v)",
            "operand of type f32[N, 6]; f32 with 4 dimensions",
        ),
        (
            &[("x", "[1, 2, N, 5]")],
            "max_pool(x) kernel=1",
            "N after the first dimension",
        ),
        (
            IMAGE,
            "conv2d_grad_input(x, w) size=5 groups=2",
            "an upstream gradient of type f32[N, 4, 5, 5]",
        ),
        (
            IMAGE,
            "conv2d_grad_weight(x, x) kernel=2",
            "an upstream gradient of type f32[N, 4, 5, 5]",
        ),
        (
            ROWS,
            "matmul(x, x)",
            "a product over 6 and N elements; equal inner extents",
        ),
        (
            ROWS,
            "matmul(x, v)",
            "operand of type f32[6]; f32 with 2 dimensions",
        ),
        (
            &[("x", "[N, 6]"), ("w", "[7, 5]")],
            "fully_connected(x, w)",
            "a weight of f32[7, 5] for f32[N, 6]; f32[out, 6]",
        ),
        (
            IMAGE,
            "bias(x, w)",
            "operand of type f32[6, 2, 3, 3]; f32 with 1 dimensions",
        ),
        (
            &[("x", "[N, 4]"), ("b", "[3]")],
            "bias(x, b)",
            "a bias of f32[3] for f32[N, 4]; f32[4]",
        ),
        (
            ROWS,
            "bias(v, v)",
            "operand of type f32[6]; f32 with 2 dimensions",
        ),
        (ROWS, "relu(l)", "operand of type i64[N]; f32"),
        (
            ROWS,
            "add(x, v)",
            "operand of type f32[6]; f32[N, 6], as the first operand",
        ),
        (
            ROWS,
            "max_pool(x) kernel=1",
            "operand of type f32[N, 6]; f32 with 4 dimensions",
        ),
        (
            IMAGE,
            "max_pool(x) kernel=6",
            "a window of 6 over 5 elements padded by 0 and 0",
        ),
        (
            IMAGE,
            "max_pool_grad(x, x) size=5 kernel=1",
            "operand of type f32[N, 4, 5, 5]; u8 with 4 dimensions",
        ),
        (
            IMAGE,
            "avg_pool_grad(x) size=6 kernel=1",
            "an upstream gradient of type f32[N, 4, 5, 5]",
        ),
        (
            ROWS,
            "global_avg_pool(x)",
            "operand of type f32[N, 6]; f32 with 4 dimensions",
        ),
        (
            IMAGE,
            "lrn(x) groups=3",
            "operand of type f32[N, 4, 5, 5] with groups=3",
        ),
        (IMAGE, "lrn_grad(x, w, x)", "operand of type f32[6, 2, 3, 3]"),
        (
            IMAGE,
            "reshape(x) shape=[N, 99]",
            "f32[N, 4, 5, 5] as f32[N, 99]; as many elements as before",
        ),
        (IMAGE, "reshape(x) shape=[100]", "the batch N kept in first place"),
        (ROWS, "reshape(x) shape=[6, N]", "the batch N kept in first place"),
        (
            &[("x", "[2, 3]")],
            "reshape(x) shape=[3, 2]",
            "f32[2, 3] as f32[3, 2]; whole dimensions joined or split",
        ),
        (ROWS, "reshape(l) shape=[N]", "operand of type i64[N]; f32"),
        (
            ROWS,
            "broadcast(v) shape=[N, 5] axes=[0]",
            "operand of type f32[6]; f32[5]",
        ),
        (
            ROWS,
            "concat(x, v) axis=1",
            "operand of type f32[6]; an f32 value that is f32[N, 6] but",
        ),
        (ROWS, "concat(x, x) axis=0", "a known extent along axis 0"),
        (
            ROWS,
            "slice(x) axis=1 stop=7",
            "elements 0 to 6 of dimension 1 of f32[N, 6]",
        ),
        (
            ROWS,
            "slice(x) axis=0 stop=1",
            "elements 0 to 0 of dimension 0 of f32[N, 6]",
        ),
        (ROWS, "pad(l) before=[0] after=[0]", "operand of type i64[N]; f32"),
        (
            ROWS,
            "softmax(v)",
            "operand of type f32[6]; f32 with 2 dimensions",
        ),
        (ROWS, "softmax_grad(x, v)", "operand of type f32[6]; f32[N, 6]"),
        (
            ROWS,
            "softmax_cross_entropy(x, v)",
            "operand of type f32[6]; i64 with 1 dimensions",
        ),
        (
            &[("x", "[N, 6]"), ("l", "[3] dtype=i64")],
            "softmax_cross_entropy(x, l)",
            "labels of type i64[3] for f32[N, 6]; one label a row",
        ),
        (
            ROWS,
            "channel_mean(v)",
            "operand of type f32[6]; f32 with 2 dimensions",
        ),
        (
            IMAGE,
            "channel_variance(x, w)",
            "mean of type f32[6, 2, 3, 3] for f32[N, 4, 5, 5]; f32[4]",
        ),
        (
            ROWS,
            "channel_mean_grad(v) shape=[N, 7]",
            "an upstream gradient of type f32[6]; f32[7]",
        ),
        (
            ROWS,
            "batch_norm(x, v, v, v)",
            "4 operands; (x, scale, shift, mean, variance)",
        ),
        (
            ROWS,
            "batch_norm(x, v, v, v, l)",
            "variance of type i64[N] for f32[N, 6]; f32[6]",
        ),
        (
            ROWS,
            "sgd_velocity(v, v, v, v)",
            "operand of type f32[6]; f32 with 0 dimensions",
        ),
        (
            ROWS,
            "random_mask(l) shape=[2]",
            "a state of type i64[N]; i64[2], seed and step",
        ),
    ]);
}

#[test]
fn attributes_that_do_not_fit_are_refused() {
    check_refusals(&[
        (IMAGE, "max_pool(x) stride=1", "no attribute kernel"),
        (
            IMAGE,
            "max_pool(x) kernel=0",
            "kernel=0; an integer or a list of 2, each from 1",
        ),
        (
            IMAGE,
            "max_pool(x) kernel=2 pad=2",
            "pad=[2, 2, 2, 2] for kernel=[2, 2]; padding smaller",
        ),
        (
            &[("x", "[N, 1, 16, 16]")],
            "max_pool_index(x) kernel=16",
            "windows of [16, 16] elements; fewer than 255 elements",
        ),
        (IMAGE, "conv2d(x, w) stride=0 groups=2", "stride=0"),
        (
            IMAGE,
            "conv2d(x, w) pad=[1, 1] groups=2",
            "pad=[1, 1]; an integer or a list of 4",
        ),
        (IMAGE, "lrn(x) k=0", "k=0.0; k > 0 and alpha >= 0"),
        (IMAGE, "lrn(x) alpha=-1", "alpha=-1.0; k > 0 and alpha >= 0"),
        (IMAGE, "lrn(x) size=0", "size=0; an integer from 1"),
        (ROWS, "dropout(x) rate=1", "rate=1.0; a probability below 1"),
        (ROWS, "dropout(x) scale=none", "scale=none; training or inference"),
        (ROWS, "scale(x)", "no attribute factor"),
        (
            ROWS,
            "reduce_sum(x) axes=[2]",
            "axes=[2] of f32[N, 6]; dimensions of an f32 value, below 2",
        ),
        (
            ROWS,
            "concat(x) axis=2",
            "axis=2 of f32[N, 6]; one of its dimensions",
        ),
        (
            ROWS,
            "slice(x) axis=1 start=3 stop=3",
            "start=3 with stop=3; start below stop",
        ),
        (
            ROWS,
            "pad(x) before=[0] after=[0, 0]",
            "before=[0]; 2 numbers, one a dimension of f32[N, 6]",
        ),
        (
            ROWS,
            "pad(x) before=[1, 0] after=[0, 0]",
            "padding of the batch by 1 and 0; 0 and 0",
        ),
        (
            ROWS,
            "pad(x) before=[0, 9223372036854775807] after=[0, 9223372036854775807]",
            "dimension 1 padded beyond what can be addressed",
        ),
        (
            ROWS,
            "batch_norm(x, v, v, v, v) eps=0",
            "eps=0.0; a positive number",
        ),
        (ROWS, "matmul(x, x) transpose_a=1", "transpose_a=1; true or false"),
        (
            &[("x", "[2]")],
            "reshape(x) shape=[2147483648, 2147483648, 2147483648, 2147483648, 2147483648]",
            "as many elements as before",
        ),
    ]);
}

#[test]
fn an_operation_without_operands_says_how_many_it_takes() {
    for mnemonic in ["add", "concat", "conv2d", "reshape", "softmax"] {
        let attributes = match mnemonic {
            "concat" => "axis=0",
            "reshape" => "shape=[1]",
            _ => "",
        };
        let found = error_of(&format!("y = {mnemonic}() {attributes}"));
        assert!(
            found.starts_with("0 operands") || found.starts_with("no operands"),
            "{mnemonic}: {found}"
        );
    }
}
