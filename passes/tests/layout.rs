//! Layouts of contractions: whatever is read in vectors, a program means the same, and the choice is kept.

mod common;

use common::{OPTIMIZER, assert_all_close, given, run};
use ir::nest::Source;
use ir::plan::Mode;
use ir::program::{Program, Vectors};
use passes::{DeviceKind, layout, lower, training, vectors};

const MODEL: &str = "\
x = input() shape=[N, 3, 9, 9]
w1 = parameter() shape=[16, 3, 3, 3] init=normal std=0.3
c1 = conv2d(x, w1) pad=1 stride=2
w2 = parameter() shape=[32, 8, 3, 3] init=normal std=0.3
c2 = conv2d(c1, w2) pad=1 groups=2
f = reshape(c2) shape=[N, 800]
w3 = parameter() shape=[20, 800] init=normal std=0.3
y1 = fully_connected(f, w3)
w4 = parameter() shape=[5, 20] init=normal std=0.3
y = fully_connected(y1, w4)
output y = y
";

fn programs() -> Vec<Program> {
    let graph = ir::text::parse(MODEL, "small.ir").unwrap_or_else(|errors| panic!("{errors:?}"));
    let bound = graph.bind(18).unwrap();
    let inference = training::inference(&bound).unwrap();
    let step = training::training(&bound, &OPTIMIZER).unwrap();
    let graphs = [(inference, Mode::Infer), (step, Mode::Train)];
    graphs
        .map(|(graph, mode)| lower::lower(&graph, mode, 18).unwrap())
        .into()
}

#[test]
fn whatever_is_in_vectors_a_program_means_the_same() {
    let mut tried = 0;
    for plain in programs() {
        let inputs = given(&plain, 5, 3);
        let expected = run(&plain, &inputs);
        for k in 0..plain.kernels.len() {
            for way in vectors::vectorizations(&plain.kernels[k].nest) {
                let mut chosen = plain.clone();
                chosen.kernels[k].vectors = Some(way.vectors);
                let what = format!("{} with {:?}", chosen.kernels[k].label, way.vectors);
                let laid = layout::assign(&chosen, &[DeviceKind::Cpu]);
                assert_eq!(laid.verify(), Ok(()), "{what}");
                assert!(is_kept(&laid, &plain.kernels[k].label, way.vectors), "{what}");
                assert_all_close(&run(&laid, &inputs), &expected, &what);
                tried += 1;
            }
        }
    }
    assert!(tried > 20, "{tried}");
}

/// Whether the factor lies in memory along what a kernel could read in vectors.
fn is_kept(program: &Program, label: &str, vectors: Vectors) -> bool {
    let call = program.kernels.iter().find(|call| call.label == label);
    let call = call.expect("the kernel is still there");
    vectors::vectorizations(&call.nest).into_iter().any(|way| {
        let Source::Operand(panel) = call.nest.reads[way.panel].source else {
            unreachable!("kernels of programs read operands")
        };
        let innermost = program.value(call.operands[panel]).layout.innermost();
        way.vectors.factor == vectors.factor && innermost == Some(way.vectors.dimension)
    })
}
