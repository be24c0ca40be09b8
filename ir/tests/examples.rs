//! Every operation's example is a program that means something: its nests fit its types, its numbers are finite.

use ir::interpreter::{Tensor, evaluate};
use ir::nest::uniform;
use ir::ops::EXAMPLES;
use ir::{DType, Graph, Op, Type, text};
use std::collections::HashMap;

fn parse(source: &str) -> Graph {
    text::parse(source, "example.ir")
        .unwrap_or_else(|errors| panic!("{source}\n{}", text::render(&errors, source, false)))
}

#[test]
fn every_example_states_a_meaning_that_fits_its_type() {
    for (mnemonic, example) in EXAMPLES {
        let graph = parse(example).bind(2).expect("examples bind");
        for id in graph.ids().filter(|&id| !graph.node(id).op.is_leaf()) {
            let node = graph.node(id);
            let nests = node.op.semantics(&graph.operand_types(id), &node.ty);
            let last = nests
                .last()
                .unwrap_or_else(|| panic!("{mnemonic}: {} has no meaning", node.name));
            let stored = &last.outputs[0];
            assert_eq!(
                Type::f32(&stored.extents).shape,
                node.ty.shape,
                "{mnemonic}: {}",
                node.name
            );
            assert_eq!(stored.dtype, node.ty.dtype, "{mnemonic}: {}", node.name);
        }
    }
}

/// Positive numbers, so that operations defined for those only have a value; small integers as labels.
fn example_values(ty: &Type, seed: i64) -> Tensor {
    let value = |i: usize| match ty.dtype {
        DType::F32 => 0.05 + uniform(seed, 0, 0, i as u32),
        DType::I64 | DType::U8 => (i % 2) as f64,
    };
    Tensor::new(ty.dtype, &ty.extents(), (0..ty.elements()).map(value).collect())
}

#[test]
fn every_example_evaluates_to_finite_numbers() {
    for (mnemonic, example) in EXAMPLES {
        let graph = parse(example).bind(2).expect("examples bind");
        let leaves = graph.select(Op::is_leaf).into_iter();
        let inputs: HashMap<String, Tensor> = leaves
            .map(|id| (graph.node(id), id.index() as i64))
            .map(|(node, seed)| (node.name.clone(), example_values(&node.ty, seed)))
            .collect();
        let values = evaluate(&graph, &inputs).unwrap_or_else(|error| panic!("{mnemonic}: {error}"));
        for (name, id) in graph.outputs() {
            let data = &values[*id].data;
            assert_eq!(data.len(), graph.node(*id).ty.elements(), "{mnemonic}: {name}");
            assert!(
                data.iter().all(|x| x.is_finite()),
                "{mnemonic}: {name} = {data:?}"
            );
        }
    }
}
