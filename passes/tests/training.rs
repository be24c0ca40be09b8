//! Gradients against finite differences, the step against the formula, and what training refuses.

mod common;

use common::{Named, Tensor, given, run};
use ir::Graph;
use ir::plan::Mode;
use ir::program::Program;
use passes::{OptLevel, Optimizer, Options, PassError, compile, training};

/// AlexNet in small: both kinds of dropout, groups, overlapping pools, normalisation.
const NET: &str = "\
model small
image = input() shape=[N, 2, 11, 11]
conv1.weight = parameter() shape=[4, 2, 3, 3] init=normal std=0.3
conv1.bias = parameter() shape=[4]
conv1 = conv2d(image, conv1.weight) stride=2 pad=[0, 0, 1, 1]
conv1.sum = bias(conv1, conv1.bias)
relu1 = relu(conv1.sum)
norm1 = lrn(relu1) size=3 alpha=0.1 beta=0.75 k=2 groups=2
pool1 = max_pool(norm1) kernel=3 stride=1
conv2.weight = parameter() shape=[4, 2, 3, 3] init=normal std=0.3
conv2.bias = parameter() shape=[4]
conv2 = conv2d(pool1, conv2.weight) pad=1 groups=2
conv2.sum = bias(conv2, conv2.bias)
relu2 = relu(conv2.sum)
drop2 = dropout(relu2) rate=0.3 scale=training
pool2 = max_pool(drop2) kernel=2 stride=1
flat = reshape(pool2) shape=[N, 16]
fc3.weight = parameter() shape=[5, 16] init=normal std=0.3
fc3.bias = parameter() shape=[5]
fc3 = fully_connected(flat, fc3.weight)
fc3.sum = bias(fc3, fc3.bias)
relu3 = relu(fc3.sum)
drop3 = dropout(relu3) rate=0.5 scale=inference
fc4.weight = parameter() shape=[3, 5] init=normal std=0.3
fc4.bias = parameter() shape=[3]
fc4 = fully_connected(drop3, fc4.weight)
fc4.sum = bias(fc4, fc4.bias)
output logits = fc4.sum
";

fn parse(text: &str) -> Graph {
    ir::text::parse(text, "test.ir").unwrap_or_else(|errors| panic!("{errors:?}"))
}

fn program(mode: Mode, batch: usize, optimizer: Optimizer) -> Program {
    let options = Options {
        mode,
        batch,
        optimizer,
        opt_level: OptLevel::greedy(passes::DeviceKind::Cpu),
        machine: passes::DeviceKind::Cpu,
        ..Options::default()
    };
    compile(&parse(NET), &options, &mut |_, _| {}).expect("the net compiles")
}

fn loss(result: &Named) -> f64 {
    result["loss"].data[0]
}

#[test]
fn gradients_are_those_of_finite_differences() {
    let program = program(Mode::Gradients, 3, Optimizer::default());
    let given = given(&program, 3, 5);
    let result = run(&program, &given);
    let mut checked = 0;
    for (name, gradient) in result
        .iter()
        .filter_map(|(n, t)| Some((n.strip_prefix("grad.")?, t)))
    {
        assert_eq!(gradient.extents, given[name].extents, "{name}");
        assert!(
            gradient.data.iter().any(|g| g.abs() > 1e-6),
            "the gradient of {name} is zero"
        );
        for (i, found) in gradient.data.iter().enumerate() {
            const STEP: f64 = 1e-6;
            let moved = |by: f64| {
                let mut given = given.clone();
                given.get_mut(name).expect("it is a parameter").data[i] += by;
                loss(&run(&program, &given))
            };
            let expected = (moved(STEP) - moved(-STEP)) / (2.0 * STEP);
            assert!(
                (found - expected).abs() < 1e-7,
                "{name}[{i}] is {found} instead of {expected}"
            );
            checked += 1;
        }
    }
    assert_eq!(checked, 72 + 4 + 72 + 4 + 80 + 5 + 15 + 3);
}

#[test]
fn a_step_is_gradient_descent_with_momentum_and_decay() {
    let optimizer = Optimizer {
        momentum: 0.8,
        weight_decay: 0.01,
        bias_lr_factor: 2.0,
        bias_weight_decay: 0.002,
        dropout: true,
    };
    let (step, gradients) = (
        program(Mode::Train, 2, optimizer),
        program(Mode::Gradients, 2, optimizer),
    );
    let given = given(&step, 3, 9);
    let (after, gradients) = (run(&step, &given), run(&gradients, &given));
    assert_eq!(loss(&after), loss(&gradients));
    let mut checked = 0;
    for (name, gradient) in gradients
        .iter()
        .filter_map(|(n, t)| Some((n.strip_prefix("grad.")?, t)))
    {
        let (factor, decay) = if name.ends_with(".bias") {
            (2.0, 0.002)
        } else {
            (1.0, 0.01)
        };
        let rate = 0.1 * factor;
        let velocity = format!("{name}.velocity");
        for (i, g) in gradient.data.iter().enumerate() {
            let (v, w) = (given[&velocity].data[i], given[name].data[i]);
            let next = 0.8 * v - decay * rate * w - rate * g;
            assert!((after[&velocity].data[i] - next).abs() < 1e-12, "{velocity}[{i}]");
            assert!((after[name].data[i] - (w + next)).abs() < 1e-12, "{name}[{i}]");
            checked += 1;
        }
    }
    assert_eq!(checked, 255);
}

#[test]
fn steps_lower_the_loss() {
    let program = program(
        Mode::Train,
        4,
        Optimizer {
            dropout: false,
            ..Optimizer::default()
        },
    );
    let mut given = given(&program, 3, 3);
    let rate = given
        .get_mut(ir::plan::LEARNING_RATE)
        .expect("training has a learning rate");
    rate.data[0] = 0.02;
    for (name, tensor) in given.iter_mut() {
        if name.ends_with(".velocity") {
            tensor.data.fill(0.0);
        }
    }
    let mut losses = vec![];
    for _ in 0..30 {
        let after = run(&program, &given);
        losses.push(loss(&after));
        given.extend(after);
    }
    assert!(losses[29] < 0.5 * losses[0], "{losses:?}");
}

/// The output of a program that drops out a tensor of ones, twice.
fn dropped(mode: Mode, scale: &str, dropout: bool, state: [f64; 2]) -> Vec<f64> {
    let text = format!(
        "x = input() shape=[N, 400]\nw = parameter() shape=[400, 400]\na = dropout(x) rate=0.25 scale={scale}\n\
         b = dropout(a) rate=0.25 scale={scale}\ny = fully_connected(b, w)\noutput y = y\noutput b = b\n"
    );
    let optimizer = Optimizer {
        dropout,
        ..Optimizer::default()
    };
    let options = Options {
        mode,
        batch: 2,
        optimizer,
        opt_level: OptLevel::greedy(passes::DeviceKind::Cpu),
        machine: passes::DeviceKind::Cpu,
        ..Options::default()
    };
    let program = compile(&parse(&text), &options, &mut |_, _| {}).expect("the net compiles");
    let mut given = given(&program, 400, 1);
    given.insert("x".into(), Tensor::f32(&[2, 400], vec![1.0; 800]));
    given.insert(
        ir::plan::RANDOM_STATE.into(),
        Tensor::new(ir::DType::I64, &[2], state.to_vec()),
    );
    run(&program, &given).remove("b").expect("it is an output").data
}

#[test]
fn dropout_is_scaled_in_training_or_at_inference() {
    let state = [4.0, 1.0];
    assert_eq!(dropped(Mode::Infer, "training", true, state), vec![1.0; 800]);
    assert_eq!(
        dropped(Mode::Infer, "inference", true, state),
        vec![0.75 * 0.75; 800]
    );
    assert_eq!(dropped(Mode::Gradients, "training", false, state), vec![1.0; 800]);
    assert_eq!(
        dropped(Mode::Gradients, "inference", false, state),
        vec![0.75 * 0.75; 800]
    );
    for (scale, kept_value) in [("training", 1.0 / 0.75 / 0.75), ("inference", 1.0)] {
        let b = dropped(Mode::Train, scale, true, state);
        let kept = b.iter().filter(|x| **x != 0.0).count() as f64 / 800.0;
        // Two masks of their own keep 0.75²; one mask twice would keep 0.75.
        assert!((kept - 0.5625).abs() < 0.06, "{kept} are kept");
        assert!(b.iter().all(|x| *x == 0.0 || (x - kept_value).abs() < 1e-12));
    }
    let first = dropped(Mode::Train, "training", true, state);
    assert_eq!(first, dropped(Mode::Train, "training", true, state));
    assert_ne!(first, dropped(Mode::Train, "training", true, [4.0, 2.0]));
    assert_ne!(first, dropped(Mode::Train, "training", true, [5.0, 1.0]));
}

/// What training says about a model.
fn refused(text: &str) -> String {
    let graph = parse(text).bind(2).expect("the batch fits");
    let error = training::training(&graph, &Optimizer::default()).expect_err("training refuses the model");
    assert!(!matches!(error, PassError::Broken { .. }), "{error}");
    error.to_string()
}

#[test]
fn training_names_what_it_cannot_work_with() {
    let head = "x = input() shape=[N, 4]\nw = parameter() shape=[4, 4]\n";
    let net = format!("{head}a = fully_connected(x, w)\n");
    assert_eq!(
        refused(&format!("{net}g = relu_grad(x, a)\noutput y = g\n")),
        "gradient: g: relu_grad has no gradient with respect to operand 1, a; train a network without it there"
    );
    assert_eq!(
        refused(&format!("{net}lost = parameter() shape=[3]\noutput y = a\n")),
        "gradient: lost: does not influence loss; remove it or use it"
    );
    assert_eq!(
        refused(
            "x = input() shape=[N, 2, 27, 27]\nw = parameter() shape=[2]\nb = bias(x, w)\n\
             pool = max_pool(b) kernel=27 stride=1\nflat = reshape(pool) shape=[N, 2]\noutput y = flat\n"
        ),
        "gradient: pool: no gradient of max_pool: windows of [27, 27] elements; expected fewer than 255 elements. \
         Use a smaller kernel."
    );
    assert_eq!(
        refused("model wide\nx = input() shape=[N, 4, 2, 2]\ny = relu(x)\noutput y = y\n"),
        "training: wide: the model has no output of type f32[N, classes]; add one with the logits"
    );
    assert_eq!(
        refused(&format!("{net}labels = relu(a)\noutput y = labels\n")),
        "training: the name labels is defined twice; give the second value another name"
    );
    assert_eq!(
        refused(&format!(
            "{net}next = scale(w) factor=0.5\noutput y = a\nupdate w = next\n"
        )),
        "training: w: the model updates it itself; remove the update, or run the model for inference"
    );
}

#[test]
fn an_output_needs_a_name_of_its_own() {
    let graph = parse("x = input() shape=[N, 4]\ny = relu(x)\noutput x = y\n");
    let options = Options {
        mode: Mode::Infer,
        batch: 2,
        optimizer: Optimizer::default(),
        opt_level: OptLevel::greedy(passes::DeviceKind::Cpu),
        machine: passes::DeviceKind::Cpu,
        ..Options::default()
    };
    let error = compile(&graph, &options, &mut |_, _| {}).expect_err("x names two tensors");
    assert_eq!(
        error.to_string(),
        "lower: x: an input or parameter and an output share this name; rename the output"
    );
}
