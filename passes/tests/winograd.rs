//! Every form of Winograd's convolution means what the convolution does, whatever it is fused with.

mod common;

use common::{assert_all_close, given, run};
use ir::plan::Mode;
use passes::winograd::{Form, candidates, rewrite_all};
use passes::{DeviceKind, Options, Pass, Snapshot};

fn options(mode: Mode) -> Options<'static> {
    Options {
        mode,
        batch: 2,
        optimizer: passes::Optimizer {
            momentum: 0.5,
            weight_decay: 0.25,
            bias_lr_factor: 2.0,
            bias_weight_decay: 0.0,
            dropout: true,
        },
        ..Options::default()
    }
}

/// Compiles with the form of so many products wherever there is one; shows programs, and how often it was taken.
fn compile(text: &str, mode: Mode, products: usize, observe: &mut dyn FnMut(&ir::program::Program)) -> usize {
    let graph = ir::text::parse(text, "net.ir").unwrap();
    let (options, taken) = (options(mode), std::cell::Cell::new(0));
    let force = |pass| match pass {
        Pass::Program(name @ "algorithm", _) => Pass::Program(
            name,
            Box::new(|mut program: ir::program::Program| {
                rewrite_all(
                    &mut program,
                    &|_| passes::micro_batch::MICRO_BATCH_BYTES,
                    &|_, _, forms: &[Form]| {
                        let form = forms.iter().find(|form| form.products() == products).cloned();
                        taken.set(taken.get() + usize::from(form.is_some()));
                        form
                    },
                );
                program
            }),
        ),
        other => other,
    };
    let passes: Vec<Pass> = passes::pipeline(&options).into_iter().map(force).collect();
    let mut show = |_: &str, stage: Snapshot| {
        if let Snapshot::Program(program) = stage {
            observe(program);
        }
    };
    passes::run(&passes, &graph, &mut show).unwrap();
    drop(passes);
    taken.get()
}

const NET: &str = "model net
x = input() shape=[N, 4, 7, 6]
w1 = parameter() shape=[6, 2, 3, 3]
b1 = parameter() shape=[6]
c1 = conv2d(x, w1) pad=[1, 2, 1, 0] groups=2
s1 = bias(c1, b1)
r1 = relu(s1)
p1 = max_pool(r1) kernel=2 stride=1
w2 = parameter() shape=[3, 6, 2, 5]
c2 = conv2d(p1, w2) pad=2
g = global_avg_pool(c2)
logits = reshape(g) shape=[N, 3]
output logits = logits
";

#[test]
fn programs_with_forms_compute_the_same() {
    for mode in [Mode::Infer, Mode::Gradients, Mode::Train] {
        let mut expected = None;
        for products in [0, 4, 6, 7, 8] {
            let taken = compile(NET, mode, products, &mut |program| {
                let (given, expected) = expected.get_or_insert_with(|| {
                    let given = given(program, 3, 1);
                    let result = run(program, &given);
                    (given, result)
                });
                assert_all_close(
                    &run(program, given),
                    expected,
                    &format!("{mode:?} with {products} products"),
                );
            });
            // Forward, and in training the gradients of both weights and of one input.
            let convolutions = if mode == Mode::Infer { 2 } else { 5 };
            assert!(
                products < 6 || taken == convolutions,
                "{mode:?} with {products} products: {taken}"
            );
        }
    }
}

#[test]
fn taps_of_constant_weights_are_prepared() {
    let mut last = None;
    compile(NET, Mode::Infer, 6, &mut |program| last = Some(program.clone()));
    let program = last.unwrap();
    let prepared: Vec<&str> = program
        .kernels
        .iter()
        .filter(|k| k.prepack)
        .map(|k| &k.label[..])
        .collect();
    assert_eq!(prepared.len(), 2, "{prepared:?}");
    assert!(
        prepared.iter().all(|label| label.starts_with("taps of ")),
        "{prepared:?}"
    );
}

#[test]
fn a_form_is_proposed_for_each_number_of_products() {
    let text = "model m\nx = input() shape=[N, 8, 13, 13]\nw = input() shape=[8, 8, 3, 3]\n\
                y = conv2d(x, w) pad=1\noutput y = y\n";
    let graph = ir::text::parse(text, "m.ir").unwrap().bind(1).unwrap();
    let id = graph.outputs()[0].1;
    let node = graph.node(id);
    let nests = node.op.semantics(&graph.operand_types(id), &node.ty);
    let forms = candidates(&nests[0]);
    let cut: Vec<(usize, usize)> = forms
        .iter()
        .map(|f| (f.tilings[0].outputs, f.tilings[0].output_tiles))
        .collect();
    assert_eq!(cut, [(2, 7), (4, 4), (5, 3), (6, 3)]);
}

/// The kernels of a large layer on these machines: their devices and labels.
fn kernels_on(machine: DeviceKind, second: Option<DeviceKind>) -> Vec<(usize, String)> {
    let text = "model m\nx = input() shape=[N, 256, 28, 28]\nw = parameter() shape=[256, 256, 3, 3]\n\
                y = conv2d(x, w) pad=1\nz = tanh(y)\noutput z = z\n";
    let graph = ir::text::parse(text, "m.ir").unwrap();
    let options = Options {
        machine,
        second,
        batch: 8,
        ..options(Mode::Infer)
    };
    let program = passes::compile(&graph, &options, &mut |_, _| {}).unwrap();
    let named = |k: &ir::program::Kernel| (program.device_of(k).0, k.label.clone());
    program.kernels.iter().map(named).collect()
}

#[test]
fn only_programs_of_processors_have_forms() {
    let forms_on = |machine, second| -> Vec<usize> {
        let kernels = kernels_on(machine, second).into_iter();
        let products = kernels.filter(|(_, label)| label.starts_with("products of "));
        products.map(|(device, _)| device).collect()
    };
    assert_eq!(forms_on(DeviceKind::Cpu, None), [0]);
    assert_eq!(forms_on(DeviceKind::Gpu, None), []);
    assert_eq!(forms_on(DeviceKind::Cpu, Some(DeviceKind::Cpu)), [0, 1]);
    assert_eq!(forms_on(DeviceKind::Gpu, Some(DeviceKind::Cpu)), []);
}
