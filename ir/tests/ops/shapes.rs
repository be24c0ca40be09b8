//! Shape rules: the types of results. What does not fit is in `refusals`.

use ir::text;

/// The type of `y` in statements that may use `x` and others.
fn type_of(source: &str) -> String {
    let graph = text::parse(&format!("{source}\noutput y = y"), "shapes")
        .unwrap_or_else(|errors| panic!("{}", text::render(&errors, source, false)));
    let y = graph.find("y").expect("the statements define y");
    graph.node(y).ty.to_string()
}

/// `x = input() shape=...` and so on, then `y = ...`.
pub fn program(inputs: &[(&str, &str)], y: &str) -> String {
    let inputs: String = inputs
        .iter()
        .map(|(name, shape)| format!("{name} = input() shape={shape}\n"))
        .collect();
    format!("{inputs}y = {y}")
}

#[test]
fn convolution_rounds_down_and_pads_each_side() {
    let conv = |x: &str, w: &str, attributes: &str| {
        type_of(&program(
            &[("x", x), ("w", w)],
            &format!("conv2d(x, w) {attributes}"),
        ))
    };
    // The first layers of both networks.
    assert_eq!(
        conv("[N, 3, 224, 224]", "[96, 3, 11, 11]", "stride=4 pad=[0, 0, 3, 3]"),
        "f32[N, 96, 55, 55]"
    );
    assert_eq!(
        conv("[N, 3, 224, 224]", "[96, 3, 11, 11]", "stride=4"),
        "f32[N, 96, 54, 54]"
    );
    assert_eq!(
        conv("[N, 3, 224, 224]", "[64, 3, 11, 11]", "stride=4 pad=2"),
        "f32[N, 64, 55, 55]"
    );
    assert_eq!(
        conv("[2, 96, 27, 27]", "[256, 48, 5, 5]", "pad=2 groups=2"),
        "f32[2, 256, 27, 27]"
    );
    assert_eq!(
        conv("[1, 1, 9, 9]", "[1, 1, 3, 2]", "dilation=[2, 4] stride=[2, 1]"),
        "f32[1, 1, 3, 5]"
    );
    assert_eq!(
        conv("[1, 1, 4, 5]", "[1, 1, 1, 1]", "pad=[1, 2, 3, 4]"),
        "f32[1, 1, 8, 11]"
    );
}

#[test]
fn pooling_rounds_as_asked_and_drops_windows_in_the_padding() {
    let pool =
        |x: &str, attributes: &str| type_of(&program(&[("x", x)], &format!("max_pool(x) {attributes}")));
    assert_eq!(pool("[N, 96, 55, 55]", "kernel=3 stride=2"), "f32[N, 96, 27, 27]");
    assert_eq!(pool("[N, 1, 8, 8]", "kernel=3 stride=2"), "f32[N, 1, 3, 3]");
    assert_eq!(
        pool("[N, 1, 8, 8]", "kernel=3 stride=2 ceil=true"),
        "f32[N, 1, 4, 4]"
    );
    assert_eq!(
        pool("[N, 1, 3, 3]", "kernel=2 stride=3 ceil=true"),
        "f32[N, 1, 1, 1]"
    );
    assert_eq!(
        pool("[N, 1, 4, 5]", "kernel=[2, 3] pad=[1, 0, 0, 2]"),
        "f32[N, 1, 4, 5]"
    );
    let index = program(&[("x", "[N, 2, 5, 5]")], "max_pool_index(x) kernel=3 stride=2");
    assert_eq!(type_of(&index), "u8[N, 2, 2, 2]");
}

/// Inputs, the statement, and the type of its result.
type Case = (
    &'static [(&'static str, &'static str)],
    &'static str,
    &'static str,
);

#[test]
fn other_types_follow_from_operands_and_attributes() {
    let cases: &[Case] = &[
        (
            &[("a", "[N, 5]"), ("b", "[7, 5]")],
            "matmul(a, b) transpose_b=true",
            "f32[N, 7]",
        ),
        (
            &[("a", "[N, 5]"), ("b", "[N, 7]")],
            "matmul(a, b) transpose_a=true",
            "f32[5, 7]",
        ),
        (
            &[("x", "[N, 5]"), ("w", "[7, 5]")],
            "fully_connected(x, w)",
            "f32[N, 7]",
        ),
        (&[("x", "[N, 3, 4, 5]")], "global_avg_pool(x)", "f32[N, 3, 1, 1]"),
        (
            &[("x", "[N, 256, 6, 6]")],
            "reshape(x) shape=[N, 9216]",
            "f32[N, 9216]",
        ),
        (
            &[("x", "[6, 4]")],
            "reshape(x) shape=[2, 1, 3, 2, 2]",
            "f32[2, 1, 3, 2, 2]",
        ),
        (&[("x", "[1, 1]")], "reshape(x) shape=[]", "f32[]"),
        (&[("x", "[N, 3, 4, 5]")], "reduce_sum(x) axes=[2, 0]", "f32[3, 5]"),
        (&[("x", "[N, 3]")], "reduce_sum(x) axes=[]", "f32[N, 3]"),
        (
            &[("x", "[3]")],
            "broadcast(x) shape=[N, 3, 2] axes=[0, 2]",
            "f32[N, 3, 2]",
        ),
        (
            &[("a", "[N, 3, 2]"), ("b", "[N, 4, 2]")],
            "concat(a, b, a) axis=1",
            "f32[N, 10, 2]",
        ),
        (&[("x", "[N, 6]")], "slice(x) axis=1 stop=4", "f32[N, 4]"),
        (
            &[("x", "[N, 6]")],
            "pad(x) before=[0, 1] after=[0, 2]",
            "f32[N, 9]",
        ),
        (&[("x", "[N, 6, 2]")], "channel_mean(x)", "f32[6]"),
        (
            &[("m", "[6]")],
            "channel_mean_grad(m) shape=[N, 6, 2]",
            "f32[N, 6, 2]",
        ),
        (&[("x", "[N, 6]")], "log_sum_exp(x)", "f32[N]"),
        (
            &[("x", "[N, 6]"), ("l", "[N] dtype=i64")],
            "softmax_cross_entropy(x, l)",
            "f32[]",
        ),
        (
            &[("s", "[2] dtype=i64")],
            "random_mask(s) shape=[N, 6]",
            "f32[N, 6]",
        ),
    ];
    for (inputs, y, expected) in cases {
        assert_eq!(type_of(&program(inputs, y)), *expected, "{y}");
    }
}
