//! Random nets, whole: what fusion, layouts and memory planning make of several layers at once.

use crate::harness::{Case, F32, TOLERANCE, cases, check, check_passes, eighths, largest_output};
use crate::winograd::forced;
use ir::plan::Mode;
use proptest::prelude::*;
use std::fmt::Write;

/// A layer of a random net; what does not fit the shape at hand is left out.
#[derive(Clone, Debug)]
pub enum Layer {
    Convolution {
        channels: usize,
        kernel: usize,
        stride: usize,
        pad: usize,
        groups: usize,
    },
    Relu,
    Tanh,
    MaxPool {
        kernel: usize,
        stride: usize,
        pad: usize,
        round_up: bool,
    },
    AveragePool {
        kernel: usize,
        stride: usize,
    },
    Lrn {
        size: usize,
        groups: usize,
        divide: bool,
    },
    Dropout {
        at_inference: bool,
    },
    /// Adds the rectified value to the value.
    Residual,
    /// Puts the value's hyperbolic tangent beside it.
    Beside,
    /// Keeps the last half of the channels.
    Half,
    /// A frame on two sides.
    Pad,
    BatchNorm,
}

fn layer() -> impl Strategy<Value = Layer> {
    let convolution = (1usize..24, 1usize..6, 1usize..4, 0usize..3, 1usize..3);
    let convolution = convolution.prop_map(|(channels, kernel, stride, pad, groups)| Layer::Convolution {
        channels: groups * channels,
        kernel,
        stride,
        pad,
        groups,
    });
    let pool = (1usize..4, 1usize..4, 0usize..2, any::<bool>());
    let pool = pool.prop_map(|(kernel, stride, pad, round_up)| Layer::MaxPool {
        kernel,
        stride,
        pad: pad.min(kernel / 2),
        round_up,
    });
    let lrn = (1usize..6, 1usize..3, any::<bool>());
    prop_oneof![
        4 => convolution,
        3 => Just(Layer::Relu),
        1 => Just(Layer::Tanh),
        2 => pool,
        1 => (1usize..4, 1usize..3).prop_map(|(kernel, stride)| Layer::AveragePool { kernel, stride }),
        2 => lrn.prop_map(|(size, groups, divide)| Layer::Lrn { size, groups, divide }),
        1 => any::<bool>().prop_map(|at_inference| Layer::Dropout { at_inference }),
        1 => Just(Layer::Residual),
        1 => Just(Layer::Beside),
        1 => Just(Layer::Half),
        1 => Just(Layer::Pad),
        1 => Just(Layer::BatchNorm),
    ]
}

/// The text of a net: images `[N, channels, size, size]`, the layers, and a classifier of one or two layers.
fn text(mut channels: usize, mut size: usize, layers: &[Layer], hidden: Option<usize>) -> String {
    let mut text = format!("model random\nimage = input() shape=[N, {channels}, {size}, {size}]\n");
    let mut value = "image".to_string();
    for (i, layer) in layers.iter().enumerate() {
        let name = format!("v{i}");
        let mut before = String::new();
        let statement = match *layer {
            Layer::Convolution {
                channels: out,
                kernel,
                stride,
                pad,
                groups,
            } => {
                if kernel > size + 2 * pad || !channels.is_multiple_of(groups) {
                    continue;
                }
                let shape = format!("[{out}, {}, {kernel}, {kernel}]", channels / groups);
                writeln!(before, "{name}.weight = parameter() shape={shape}").unwrap();
                writeln!(before, "{name}.bias = parameter() shape=[{out}]").unwrap();
                let how = format!("stride={stride} pad={pad} groups={groups}");
                writeln!(before, "{name}.conv = conv2d({value}, {name}.weight) {how}").unwrap();
                (channels, size) = (out, (size + 2 * pad - kernel) / stride + 1);
                format!("bias({name}.conv, {name}.bias)")
            }
            Layer::Relu => format!("relu({value})"),
            Layer::Tanh => format!("tanh({value})"),
            Layer::MaxPool { kernel, .. } | Layer::AveragePool { kernel, .. } if kernel > size => continue,
            Layer::MaxPool {
                kernel,
                stride,
                pad,
                round_up,
            } => {
                format!("max_pool({value}) kernel={kernel} stride={stride} pad={pad} ceil={round_up}")
            }
            Layer::AveragePool { kernel, stride } => {
                format!("avg_pool({value}) kernel={kernel} stride={stride}")
            }
            Layer::Lrn { groups, .. } if !channels.is_multiple_of(groups) => continue,
            Layer::Lrn { size, groups, divide } => {
                format!("lrn({value}) size={size} alpha=0.5 k=2 groups={groups} divide={divide}")
            }
            Layer::Dropout { at_inference } => {
                let scale = if at_inference { "inference" } else { "training" };
                format!("dropout({value}) rate=0.25 scale={scale}")
            }
            Layer::Residual => {
                writeln!(before, "{name}.relu = relu({value})").unwrap();
                format!("add({value}, {name}.relu)")
            }
            Layer::Beside if channels > 40 => continue,
            Layer::Beside => {
                writeln!(before, "{name}.tanh = tanh({value})").unwrap();
                channels *= 2;
                format!("concat({value}, {name}.tanh) axis=1")
            }
            Layer::Half if channels < 2 => continue,
            Layer::Half => {
                let (start, stop) = (channels / 2, channels);
                channels = stop - start;
                format!("slice({value}) axis=1 start={start} stop={stop}")
            }
            Layer::Pad => {
                size += 1;
                format!("pad({value}) before=[0, 0, 1, 0] after=[0, 0, 0, 1]")
            }
            Layer::BatchNorm => {
                writeln!(before, "{name}.scale = parameter() shape=[{channels}] value=1").unwrap();
                writeln!(before, "{name}.shift = parameter() shape=[{channels}]").unwrap();
                writeln!(before, "{name}.mean = channel_mean({value})").unwrap();
                writeln!(before, "{name}.variance = channel_variance({value}, {name}.mean)").unwrap();
                let operands = ["scale", "shift", "mean", "variance"].map(|part| format!("{name}.{part}"));
                format!("batch_norm({value}, {}) eps=0.5", operands.join(", "))
            }
        };
        let longer = format!("{text}{before}{name} = {statement}\n");
        if let Layer::MaxPool { .. } | Layer::AveragePool { .. } = layer {
            // The operation's own rule says how large the result is; windows that would lie outside are refused.
            let probe = format!("{longer}output probe = {name}\n");
            let Ok(graph) = ir::text::parse(&probe, "probe.ir") else {
                continue;
            };
            let id = graph.outputs()[0].1;
            size = graph.node(id).ty.shape[2].fixed().expect("heights are numbers");
        }
        text = longer;
        value = name;
    }
    let mut features = channels * size * size;
    writeln!(text, "flat = reshape({value}) shape=[N, {features}]").unwrap();
    value = "flat".into();
    for (name, outputs) in hidden
        .map(|outputs| ("hidden", outputs))
        .into_iter()
        .chain([("last", 3)])
    {
        writeln!(text, "{name}.weight = parameter() shape=[{outputs}, {features}]").unwrap();
        writeln!(text, "{name}.bias = parameter() shape=[{outputs}]").unwrap();
        writeln!(text, "{name}.product = fully_connected({value}, {name}.weight)").unwrap();
        writeln!(text, "{name} = bias({name}.product, {name}.bias)").unwrap();
        (value, features) = (name.into(), outputs);
    }
    text + "output logits = last\n"
}

/// The net with logits of at most 1: of large ones softmax is 0 or 1, and the gradient of the loss all rounding.
fn tame(text: &str, batch: usize, seed: u64) -> String {
    let factor = largest_output(text, batch, seed)
        .max(1.0)
        .log2()
        .ceil()
        .exp2()
        .recip();
    text.replace(
        "output logits = last\n",
        &format!("logits = scale(last) factor={factor}\noutput logits = logits\n"),
    )
}

/// A layer whose text were wrong would be left out everywhere.
#[test]
fn every_kind_of_layer_is_in_a_net() {
    let (channels, kernel, stride, pad, groups) = (8, 3, 1, 1, 2);
    let layers = [
        Layer::Convolution {
            channels,
            kernel,
            stride,
            pad,
            groups,
        },
        Layer::MaxPool {
            kernel,
            stride,
            pad,
            round_up: true,
        },
        Layer::AveragePool { kernel, stride },
        Layer::Lrn {
            size: 5,
            groups,
            divide: false,
        },
        Layer::Half,
    ];
    let text = text(8, 12, &layers, Some(4));
    for operation in ["conv2d(", "max_pool(", "avg_pool(", "lrn(", "slice("] {
        assert!(text.contains(operation), "{operation}) is missing in {text}");
    }
}

proptest! {
    #![proptest_config(cases(24))]

    #[test]
    fn random_nets(
        channels in 1usize..20,
        size in 4usize..14,
        layers in prop::collection::vec(layer(), 1..6),
        hidden in prop::option::of(1usize..40),
        batch in 1usize..6,
        mode in prop_oneof![Just(Mode::Infer), Just(Mode::Gradients), Just(Mode::Train)],
        seed in 0u64..1000,
    ) {
        let text = tame(&text(channels, size, &layers, hidden), batch, seed);
        check(&Case { text, batch, mode, seed, tolerance: 10.0 * TOLERANCE, factors: F32, exact_factors: false });
    }

}

proptest! {
    // Transforms take several times as long to compile as what they replace.
    #![proptest_config(cases(8))]

    /// Layers of random nets are too small for `algorithm` to rewrite of its own accord. The tables of 4 products hold
    /// powers of two, so that here too sums of products are exact.
    #[test]
    fn random_nets_with_forms_of_winograd(
        channels in 1usize..20,
        size in 4usize..14,
        layers in prop::collection::vec(layer(), 1..6),
        batch in 1usize..6,
        mode in prop_oneof![Just(Mode::Infer), Just(Mode::Gradients), Just(Mode::Train)],
        seed in 0u64..1000,
    ) {
        let convolution = Layer::Convolution { channels: 8, kernel: 3, stride: 1, pad: 1, groups: 1 };
        let layers = [&[convolution], &layers[..]].concat();
        let text = tame(&text(channels, size, &layers, None), batch, seed);
        let tolerance = 10.0 * TOLERANCE;
        let case = Case { text, batch, mode, seed, tolerance, factors: F32, exact_factors: false };
        check_passes(&case, eighths, &|options| forced(options, 4));
    }
}
