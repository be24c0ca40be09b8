//! Printed attributes are read back, shape rules agree with meanings, and every element is written once.

use crate::samples::{Rng, sample};
use ir::interpreter::check_coverage;
use ir::ops::MNEMONICS;
use ir::{Attributes, Op};
use proptest::prelude::*;

/// Instances of each operation that a test looks at.
const CASES: u64 = 60;

proptest! {
    #[test]
    fn attributes_survive_printing(which in 0..MNEMONICS.len(), seed in any::<u64>()) {
        let op = sample(MNEMONICS[which], &mut Rng::new(seed)).op;
        for op in [op.bind(3), op] {
            let written = op.attributes().into_iter().map(|(name, value)| (name.to_string(), value));
            let mut attributes = Attributes::new(written.collect());
            let read = Op::parse(op.mnemonic(), &mut attributes).expect("the mnemonic is its own");
            prop_assert_eq!(read.as_ref(), Ok(&op));
            prop_assert!(attributes.entries.is_empty(), "{:?} is written but not read", attributes.entries);
        }
    }
}

#[test]
fn every_attribute_varies_in_the_samples() {
    for mnemonic in MNEMONICS {
        let ops: std::collections::HashSet<Op> = (0..CASES)
            .map(|seed| sample(mnemonic, &mut Rng::new(seed)).op)
            .collect();
        let plain = ops.iter().all(|op| op.attributes().is_empty());
        assert!(
            plain || ops.len() > 3,
            "{mnemonic}: {} different instances",
            ops.len()
        );
    }
}

#[test]
fn every_element_of_every_result_is_written_once() {
    for mnemonic in MNEMONICS {
        for seed in 0..CASES {
            let (sample, batch) = (sample(mnemonic, &mut Rng::new(seed)), 1 + seed as usize % 3);
            let graph = sample.graph(batch);
            let y = graph.find("y").expect("a sample defines y");
            let node = graph.node(y);
            let meaning = node.op.semantics(&graph.operand_types(y), &node.ty);
            assert_eq!(meaning.is_empty(), node.op.is_leaf(), "{sample:?}");
            for nest in &meaning {
                check_coverage(nest).unwrap_or_else(|error| panic!("{sample:?}: {error}"));
            }
            if let Some(last) = meaning.last() {
                let stored = &last.outputs[0];
                assert_eq!(
                    (stored.dtype, &stored.extents),
                    (node.ty.dtype, &node.ty.extents()),
                    "{sample:?}"
                );
            }
        }
    }
}

/// Binding the batch and applying the shape rule give the same in either order.
#[test]
fn shape_rules_agree_before_and_after_binding() {
    for mnemonic in MNEMONICS {
        for seed in 0..CASES {
            let sample = sample(mnemonic, &mut Rng::new(seed));
            let operands: Vec<&ir::Type> = sample.operands.iter().collect();
            let symbolic = sample
                .op
                .infer_type(&operands)
                .unwrap_or_else(|error| panic!("{sample:?}: {error}"));
            for batch in [1, 2, 5] {
                let graph = sample.graph(batch);
                let bound = &graph.node(graph.find("y").expect("a sample defines y")).ty;
                assert_eq!(*bound, symbolic.bind(batch), "{sample:?}");
            }
        }
    }
}
