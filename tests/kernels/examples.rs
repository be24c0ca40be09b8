//! The example of every operation, in every mode that it can be run in.

use crate::harness::{Case, F32, TOLERANCE, check_filled, parse, positive_eighths};
use ir::plan::Mode;
use ir::{DType, ops::EXAMPLES};

#[test]
fn the_example_of_every_operation() {
    for (_, example) in EXAMPLES {
        let graph = parse(example);
        let logits = graph.outputs().iter().any(|(_, id)| {
            let ty = &graph.node(*id).ty;
            ty.dtype == DType::F32 && ty.rank() == 2
        });
        let trains = logits && example.contains("parameter()") && graph.updates().is_empty();
        let modes: &[Mode] = match trains {
            true => &[Mode::Infer, Mode::Gradients, Mode::Train],
            false => &[Mode::Infer],
        };
        for &mode in modes {
            for batch in [1, 5] {
                let text = example.to_string();
                let case = Case {
                    text,
                    batch,
                    mode,
                    seed: 7,
                    tolerance: TOLERANCE,
                    factors: F32,
                    exact_factors: false,
                };
                check_filled(&case, positive_eighths);
            }
        }
    }
}
