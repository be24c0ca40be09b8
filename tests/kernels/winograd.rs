//! Every form of Winograd's convolution, forced, over random shapes: forward and both gradients.

use crate::harness::{Case, F32, TOLERANCE, cases, check_passes, fractions};
use ir::plan::Mode;
use passes::winograd::{Form, rewrite_all};
use passes::{Options, Pass};
use proptest::prelude::*;

/// Products along one dimension, and what the error of a form may be, relative to the largest magnitude expected.
/// A form adds up terms larger than its result, which cancel, so it loses more digits the larger the entries of its
/// tables are. The largest errors seen in 24 random cases or so of each, against the interpreter in f64, are 2.3e-7,
/// 1.1e-6, 2.3e-6 and 8.2e-6; longer sums and smaller results than those get the rest.
const FORMS: [(usize, f64); 4] = [
    (4, TOLERANCE),
    (6, 2.0 * TOLERANCE),
    (7, 5.0 * TOLERANCE),
    (8, 10.0 * TOLERANCE),
];

/// The usual passes, but with this form wherever it is one of the candidates.
pub fn forced(options: &Options<'static>, products: usize) -> Vec<Pass<'static>> {
    let micro_batch_bytes = options.micro_batch_bytes;
    let force = move |pass| match pass {
        Pass::Program(name @ "algorithm", _) => Pass::Program(
            name,
            Box::new(move |mut program| {
                let fits = |form: &&Form| form.products() == products;
                rewrite_all(&mut program, &|_| micro_batch_bytes, &|_, _, forms: &[Form]| {
                    forms.iter().find(fits).cloned()
                });
                program
            }),
        ),
        other => other,
    };
    passes::pipeline(options).into_iter().map(force).collect()
}

fn check_form((products, tolerance): (usize, f64), text: &str, batch: usize, mode: Mode, seed: u64) {
    let case = Case {
        text: text.to_string(),
        batch,
        mode,
        seed,
        tolerance,
        factors: F32,
        exact_factors: false,
    };
    check_passes(&case, fractions, &move |options| forced(options, products));
}

/// Sizes around vector widths and panels.
fn channels() -> impl Strategy<Value = usize> {
    prop_oneof![1usize..9, 14usize..19, 30usize..35, Just(48usize), Just(64)]
}

/// Input, kernel, padding before and after: a kernel that fits.
fn axis() -> impl Strategy<Value = (usize, usize, usize, usize)> {
    let parts = (2usize..20, 1usize..6, 0usize..4, 0usize..4);
    parts.prop_filter("the kernel fits", |&(size, kernel, before, after)| {
        kernel < size + before + after
    })
}

proptest! {
    #![proptest_config(cases(6))]

    #[test]
    fn convolutions_and_their_gradients(
        (ci, co) in (channels(), channels()),
        groups in 1usize..4,
        y in axis(),
        x in axis(),
        batch in 1usize..6,
        form in 0..FORMS.len(),
        seed in 0u64..1000,
    ) {
        let (h, w) = (y.0, x.0);
        let output = |(size, kernel, before, after): (usize, usize, usize, usize)| size + before + after - kernel + 1;
        let window = format!("pad=[{}, {}, {}, {}] groups={groups}", y.2, x.2, y.3, x.3);
        let (cin, out) = (ci * groups, co * groups);
        let image = format!("x = input() shape=[N, {cin}, {h}, {w}]\n");
        let weight = format!("w = input() shape=[{out}, {ci}, {}, {}]\n", y.1, x.1);
        let upstream = format!("dy = input() shape=[N, {out}, {}, {}]\n", output(y), output(x));
        let text = [
            format!("{image}{weight}y = conv2d(x, w) {window}\noutput y = y\n"),
            format!(
                "{upstream}{weight}dx = conv2d_grad_input(dy, w) size=[{h}, {w}] {window}\noutput dx = dx\n"
            ),
            format!(
                "{upstream}{image}dw = conv2d_grad_weight(dy, x) kernel=[{}, {}] {window}\noutput dw = dw\n",
                y.1, x.1
            ),
        ];
        for text in text {
            check_form(FORMS[form], &format!("model m\n{text}"), batch, Mode::Infer, seed);
        }
    }
}

/// Layers in a row: layouts and storage padding between them, what is fused to them, taps that are prepared, and updates.
#[test]
fn layers_between_others() {
    let text = "model m
x = input() shape=[N, 5, 14, 13]
w1 = parameter() shape=[32, 5, 3, 3]
b1 = parameter() shape=[32]
c1 = conv2d(x, w1) pad=1
s1 = bias(c1, b1)
t1 = tanh(s1)
w2 = parameter() shape=[24, 16, 5, 5]
b2 = parameter() shape=[24]
c2 = conv2d(t1, w2) pad=2 groups=2
s2 = bias(c2, b2)
t2 = tanh(s2)
p2 = avg_pool(t2) kernel=3 stride=2
w3 = parameter() shape=[40, 24, 3, 3]
c3 = conv2d(p2, w3) pad=1
g = global_avg_pool(c3)
logits = reshape(g) shape=[N, 40]
output logits = logits
";
    for (form, mode) in [
        (0, Mode::Infer),
        (1, Mode::Train),
        (2, Mode::Gradients),
        (3, Mode::Train),
    ] {
        check_form(FORMS[form], text, 3, mode, 7);
    }
}
