//! Fused, scheduled, laid out and packed, a program computes what its unfused kernels compute: random nets in
//! all modes, after every pass, with every value checked to be alive where it is read; also split among devices at random.
//! Each of these programs is read back from its text.

mod common;

use common::{Named, assert_all_close, assert_read_back, given, run};
use ir::Graph;
use ir::nest::Loop;
use ir::plan::Mode;
use ir::profile::{Precision, Profile};
use ir::program::DeviceId;
use passes::cost::Costs;
use passes::partition::{Placement, choose, partition};
use passes::{OptLevel, Optimizer, Options, Snapshot, compile, layout, memory, schedule, winograd};
use proptest::prelude::*;
use std::fmt::Write;

/// A layer of a random net; what does not fit the shape at hand is left out.
#[derive(Clone, Debug)]
enum Layer {
    Convolution {
        channels: usize,
        kernel: usize,
        stride: usize,
        pad: usize,
        groups: usize,
        bias: bool,
    },
    Relu,
    Tanh,
    Pool {
        kernel: usize,
        stride: usize,
        pad: usize,
    },
    Lrn {
        size: usize,
        groups: usize,
    },
    Dropout {
        at_inference: bool,
    },
    Scale,
    /// Adds the rectified value to itself before.
    Residual,
    /// Multiplies the value by its own hyperbolic tangent.
    Gate,
    /// Puts the rectified value beside it.
    Beside,
    /// Keeps the last half of the channels.
    Half,
    /// A frame on two sides.
    Pad,
    AveragePool,
    BatchNorm,
}

fn layer() -> impl Strategy<Value = Layer> {
    let convolution = (
        1usize..4,
        1usize..4,
        1usize..3,
        0usize..2,
        1usize..3,
        any::<bool>(),
    )
        .prop_map(|(channels, kernel, stride, pad, groups, bias)| {
            let channels = 2 * channels;
            Layer::Convolution {
                channels,
                kernel,
                stride,
                pad,
                groups,
                bias,
            }
        });
    prop_oneof![
        3 => convolution,
        2 => Just(Layer::Relu),
        1 => Just(Layer::Tanh),
        2 => (1usize..4, 1usize..3, 0usize..2)
            .prop_map(|(kernel, stride, pad)| Layer::Pool { kernel, stride, pad: pad.min(kernel / 2) }),
        2 => (1usize..6, 1usize..3).prop_map(|(size, groups)| Layer::Lrn { size, groups }),
        1 => any::<bool>().prop_map(|at_inference| Layer::Dropout { at_inference }),
        1 => Just(Layer::Scale),
        1 => Just(Layer::Residual),
        1 => Just(Layer::Gate),
        1 => Just(Layer::Beside),
        1 => Just(Layer::Half),
        1 => Just(Layer::Pad),
        1 => Just(Layer::AveragePool),
        1 => Just(Layer::BatchNorm),
    ]
}

/// The text of a net: images `[N, 2, 6, 6]`, the layers, and a classifier of one or two layers.
fn text(layers: &[Layer], hidden: Option<usize>) -> String {
    let mut text = String::from("model random\nimage = input() shape=[N, 2, 6, 6]\n");
    let (mut value, mut channels, mut size) = ("image".to_string(), 2, 6);
    for (i, layer) in layers.iter().enumerate() {
        let name = format!("v{i}");
        let statement = match *layer {
            Layer::Convolution {
                channels: out,
                kernel,
                stride,
                pad,
                groups,
                bias,
            } => {
                if kernel > size + 2 * pad || channels % groups != 0 {
                    continue;
                }
                let weight = format!(
                    "{name}.weight = parameter() shape=[{out}, {}, {kernel}, {kernel}]",
                    channels / groups
                );
                writeln!(text, "{weight} init=normal std=0.1").unwrap();
                (channels, size) = (out, (size + 2 * pad - kernel) / stride + 1);
                let conv =
                    format!("conv2d({value}, {name}.weight) stride={stride} pad={pad} groups={groups}");
                if bias {
                    writeln!(
                        text,
                        "{name}.bias = parameter() shape=[{out}]\n{name}.conv = {conv}"
                    )
                    .unwrap();
                    format!("bias({name}.conv, {name}.bias)")
                } else {
                    conv
                }
            }
            Layer::Relu => format!("relu({value})"),
            Layer::Tanh => format!("tanh({value})"),
            Layer::Pool { kernel, stride, pad } => {
                if kernel > size {
                    continue;
                }
                size = (size + 2 * pad - kernel) / stride + 1;
                format!("max_pool({value}) kernel={kernel} stride={stride} pad={pad}")
            }
            Layer::Lrn { groups, .. } if channels % groups != 0 => continue,
            Layer::Half if channels % 2 != 0 => continue,
            Layer::Beside if channels > 6 => continue,
            Layer::Lrn { size, groups } => format!("lrn({value}) size={size} alpha=0.5 k=2 groups={groups}"),
            Layer::Dropout { at_inference } => {
                let scale = if at_inference { "inference" } else { "training" };
                format!("dropout({value}) rate=0.4 scale={scale}")
            }
            Layer::Scale => format!("scale({value}) factor=0.7"),
            Layer::Residual => {
                writeln!(text, "{name}.relu = relu({value})").unwrap();
                format!("add({value}, {name}.relu)")
            }
            Layer::Gate => {
                writeln!(text, "{name}.tanh = tanh({value})").unwrap();
                format!("multiply({name}.tanh, {value})")
            }
            Layer::Beside => {
                writeln!(text, "{name}.relu = relu({value})").unwrap();
                channels *= 2;
                format!("concat({value}, {name}.relu) axis=1")
            }
            Layer::Half => {
                channels /= 2;
                format!("slice({value}) axis=1 start={channels} stop={}", 2 * channels)
            }
            Layer::Pad => {
                size += 1;
                format!("pad({value}) before=[0, 0, 1, 0] after=[0, 0, 0, 1]")
            }
            Layer::AveragePool => {
                size = size.div_ceil(2);
                format!("avg_pool({value}) kernel=1 stride=2 pad=0")
            }
            Layer::BatchNorm => {
                writeln!(text, "{name}.scale = parameter() shape=[{channels}] value=1").unwrap();
                writeln!(text, "{name}.shift = parameter() shape=[{channels}]").unwrap();
                writeln!(text, "{name}.mean = channel_mean({value})").unwrap();
                writeln!(text, "{name}.variance = channel_variance({value}, {name}.mean)").unwrap();
                format!(
                    "batch_norm({value}, {name}.scale, {name}.shift, {name}.mean, {name}.variance) eps=0.1"
                )
            }
        };
        writeln!(text, "{name} = {statement}").unwrap();
        value = name;
    }
    let mut features = channels * size * size;
    writeln!(text, "flat = reshape({value}) shape=[N, {features}]").unwrap();
    value = "flat".into();
    let mut classifier = |name: &str, value: &str, features: usize, outputs: usize| {
        writeln!(
            text,
            "{name}.weight = parameter() shape=[{outputs}, {features}] init=normal std=0.1"
        )
        .unwrap();
        writeln!(text, "{name}.bias = parameter() shape=[{outputs}]").unwrap();
        writeln!(text, "{name}.product = fully_connected({value}, {name}.weight)").unwrap();
        writeln!(text, "{name} = bias({name}.product, {name}.bias)").unwrap();
    };
    if let Some(outputs) = hidden {
        classifier("hidden", &value, features, outputs);
        (value, features) = ("hidden".into(), outputs);
    }
    classifier("logits", &value, features, 3);
    text + "output scores = logits\n"
}

fn parse(text: &str) -> Graph {
    ir::text::parse(text, "random.ir").unwrap_or_else(|errors| panic!("{text}\n{errors:?}"))
}

const MODES: [Mode; 3] = [Mode::Infer, Mode::Gradients, Mode::Train];

/// What a graph leaves behind, straight from the meaning of its operations.
fn interpret(graph: &Graph, given: &Named) -> Named {
    let values = ir::interpreter::evaluate(graph, given).expect("the net can be interpreted");
    let leaves = graph.select(|op| matches!(op, ir::Op::Parameter(_)));
    let mut left: Named = leaves
        .iter()
        .map(|&id| (graph.node(id).name.clone(), values[id].clone()))
        .collect();
    left.extend(
        graph
            .outputs()
            .iter()
            .map(|(name, id)| (name.clone(), values[*id].clone())),
    );
    let next = graph
        .updates()
        .iter()
        .map(|&(state, next)| (graph.node(state).name.clone(), values[next].clone()));
    left.extend(next);
    left
}

fn processor() -> Profile {
    Profile::shipped("cpu2").expect("this profile ships")
}

fn costs(profile: &Profile) -> Costs<'_> {
    Costs {
        profile,
        precision: Precision::F32,
        times: None,
    }
}

/// Runs what every pass over programs makes of the net: without optimisation, fused greedily, by search, and placed on two
/// devices by search.
fn check(text: &str, batch: usize, optimizer: Optimizer, seed: u64) {
    let graph = parse(text);
    for mode in MODES {
        let mut whole: Option<Graph> = None;
        let mut expected: Option<(Named, Named)> = None;
        let profile = processor();
        let costs = [costs(&profile); 2];
        for (opt_level, second) in [
            (OptLevel::None, None),
            (OptLevel::Greedy(&costs), None),
            (OptLevel::Search(&costs), None),
            (OptLevel::Search(&costs), Some(passes::DeviceKind::Cpu)),
        ] {
            let options = Options {
                mode,
                batch,
                optimizer,
                opt_level,
                second,
                ..Options::default()
            };
            let mut observe = |pass: &str, stage: Snapshot| match stage {
                Snapshot::Graph(graph) if pass != "simplify" => whole = Some(graph.clone()),
                Snapshot::Graph(_) => {}
                Snapshot::Kernels(report) => assert_eq!(report.fallback, None, "{text}"),
                Snapshot::Placement(found, _) => assert_eq!(found.fallback, None, "{text}"),
                Snapshot::Program(program) => {
                    let (given, result) = expected.get_or_insert_with(|| {
                        let given = given(program, 3, seed);
                        let result = interpret(whole.as_ref().expect("graphs come first"), &given);
                        (given, result)
                    });
                    let what = format!("{text}\n{mode:?} after {pass} at level {}", opt_level.number());
                    assert_all_close(&run(program, given), result, &what);
                    assert_read_back(program, &what);
                }
            };
            compile(&graph, &options, &mut observe).unwrap_or_else(|error| panic!("{text}\n{error}"));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]
    #[test]
    fn fused_programs_compute_what_unfused_ones_do(
        layers in prop::collection::vec(layer(), 0..7),
        hidden in prop::option::of(1usize..5),
        batch in 1usize..4,
        dropout: bool,
        seed in 0u64..1000,
    ) {
        let optimizer = Optimizer { dropout, bias_lr_factor: 2.0, bias_weight_decay: 0.0, ..Optimizer::default() };
        check(&text(&layers, hidden), batch, optimizer, seed);
    }
}

/// Splits what the net becomes among devices, every kernel in a way of its own, and runs what the later passes make of it.
fn check_placed(text: &str, batch: usize, shares: &[usize], seed: u64) {
    let graph = parse(text);
    for (number, mode) in MODES.into_iter().enumerate() {
        let options = Options {
            mode,
            batch,
            optimizer: Optimizer::default(),
            opt_level: OptLevel::greedy(passes::DeviceKind::Cpu),
            machine: passes::DeviceKind::Cpu,
            ..Options::default()
        };
        let mut scheduled = None;
        let mut observe = |pass: &str, stage: Snapshot| match stage {
            Snapshot::Program(program) if pass == "schedule" => scheduled = Some(program.clone()),
            _ => {}
        };
        compile(&graph, &options, &mut observe).unwrap_or_else(|error| panic!("{text}\n{error}"));
        let program = scheduled.expect("programs are scheduled");
        let given = given(&program, 3, seed);
        let expected = run(&program, &given);
        let mut draws =
            (number as u32 * 1000..).map(|i| ir::nest::mix(i ^ ir::nest::mix(seed as u32)) as usize);
        let mut draw = |below: usize| draws.next().expect("draws never end") % below;
        let mut strategy = choose::choose(&program, shares);
        for (k, call) in program.kernels.iter().enumerate() {
            let mut simple = |kind: usize| match kind {
                0 => Placement::Single(DeviceId(draw(shares.len()))),
                1 => Placement::Replicated,
                _ => Placement::Sharded(Loop(draw(call.nest.parallel.len() + 1))),
            };
            let (first, then) = (simple(k % 3), simple(k / 3 % 3));
            let reduction = Placement::Partial(Loop(draw(call.nest.extents().len() + 1)), Box::new(then));
            for placement in [first, reduction] {
                // What cannot be is refused, with the kernel's name, and stays as it was.
                let before = std::mem::replace(&mut strategy.kernels[k], placement);
                if let Err(fault) = partition(&program, &strategy) {
                    assert!(fault.contains(&call.label), "{fault}");
                    strategy.kernels[k] = before;
                }
            }
        }
        let what = |pass: &str| format!("{text}\n{mode:?} after {pass} by {strategy:?}");
        let mut machines = vec![passes::DeviceKind::Cpu; shares.len()];
        if seed % 2 == 1 {
            machines[1] = passes::DeviceKind::Gpu;
        }
        let placed = partition(&program, &strategy).expect("it was tried");
        let mut fast = placed.clone();
        if machines.iter().all(|machine| *machine == passes::DeviceKind::Cpu) {
            winograd::rewrite_all(
                &mut fast,
                &|_| passes::micro_batch::MICRO_BATCH_BYTES,
                &|_, _, forms: &[winograd::Form]| Some(forms[seed as usize / 2 % forms.len()].clone()),
            );
        }
        let mut laid_out = layout::assign(&fast, &machines);
        for (pass, program) in [
            ("partition", &placed),
            ("algorithm", &fast),
            ("layout", &laid_out),
        ] {
            program
                .verify()
                .unwrap_or_else(|fault| panic!("{}: {fault}", what(pass)));
            schedule::verify(program).unwrap_or_else(|fault| panic!("{}: {fault}", what(pass)));
            assert_all_close(&run(program, &given), &expected, &what(pass));
            assert_read_back(program, &what(pass));
        }
        memory::plan(&mut laid_out);
        assert_all_close(&run(&laid_out, &given), &expected, &what("memory"));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]
    #[test]
    fn programs_split_among_devices_compute_what_one_device_does(
        layers in prop::collection::vec(layer(), 0..7),
        hidden in prop::option::of(1usize..5),
        batch in 1usize..5,
        shares in prop_oneof![Just(vec![1, 1]), Just(vec![1, 2]), Just(vec![1, 1, 1])],
        seed in 0u64..1000,
    ) {
        check_placed(&text(&layers, hidden), batch, &shares, seed);
    }
}

#[test]
fn parameters_may_be_shared_and_values_used_many_times() {
    let text = "\
image = input() shape=[N, 2, 6, 6]
w = parameter() shape=[2, 2, 3, 3] init=normal std=0.1
a = conv2d(image, w) pad=1
b = conv2d(a, w) pad=1
c = add(a, b)
d = multiply(c, c)
e = add(d, a)
flat = reshape(e) shape=[N, 72]
f.weight = parameter() shape=[3, 72] init=normal std=0.1
logits = fully_connected(flat, f.weight)
output logits = logits
output early = a
output again = logits
output weight = w
output given = image
";
    check(text, 2, Optimizer::default(), 7);
}

#[test]
fn a_weight_that_its_own_gradient_reads_is_not_overwritten_on_the_way() {
    let text = "\
image = input() shape=[N, 4]
w = parameter() shape=[4, 4] init=normal std=0.1
square = matmul(w, w)
logits = matmul(image, square)
output logits = logits
";
    check(text, 3, Optimizer::default(), 11);
}

#[test]
fn every_operation_is_lowered_and_fused_as_its_example_means() {
    for (mnemonic, example) in ir::ops::EXAMPLES {
        let graph = parse(example);
        let profile = processor();
        let costs = [costs(&profile)];
        for opt_level in [OptLevel::None, OptLevel::Greedy(&costs), OptLevel::Search(&costs)] {
            let options = Options {
                mode: Mode::Infer,
                batch: 2,
                opt_level,
                ..Options::default()
            };
            let mut whole: Option<Graph> = None;
            let mut observe = |pass: &str, stage: Snapshot| match stage {
                Snapshot::Graph(graph) if pass == "inference" => whole = Some(graph.clone()),
                Snapshot::Graph(_) | Snapshot::Kernels(_) | Snapshot::Placement(..) => {}
                Snapshot::Program(program) => {
                    let given = given(program, 3, 1);
                    let expected = interpret(whole.as_ref().expect("graphs come first"), &given);
                    assert_all_close(
                        &run(program, &given),
                        &expected,
                        &format!("{mnemonic} after {pass}"),
                    );
                }
            };
            compile(&graph, &options, &mut observe).unwrap_or_else(|error| panic!("{mnemonic}: {error}"));
        }
    }
}
