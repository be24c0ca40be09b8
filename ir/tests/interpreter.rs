//! The interpreter itself: what it refuses, how it combines, and whole networks.

use ir::interpreter::{EvalError, Tensor, check_coverage, evaluate, evaluate_nest};
use ir::nest::{Affine, Combine, Expr, Index, Loop, Nest, Output, Predicate, Read, Source};
use ir::{DType, text};
use std::collections::HashMap;

fn tensor(values: &[f64]) -> Tensor {
    Tensor::f32(&[values.len()], values.to_vec())
}

/// One value from all elements of a vector, read `shift` places on; outside it reads −5.
fn row(extent: usize, shift: i64, combine: Combine, body: Expr, value: Expr) -> Nest {
    Nest {
        parallel: vec![],
        reduction: vec![extent],
        reads: vec![Read {
            source: Source::Operand(0),
            index: vec![Index::new(Affine::of(Loop(0)).plus_constant(shift))],
            predicates: vec![],
            padding_value: -5.0,
        }],
        combine,
        body,
        outputs: vec![Output {
            dtype: DType::F32,
            extents: vec![],
            index: vec![],
            value,
        }],
    }
}

fn run(nest: &Nest, operand: &Tensor) -> f64 {
    let outputs = evaluate_nest(nest, &[operand]).unwrap_or_else(|error| panic!("{error}"));
    outputs[0].data[0]
}

#[test]
fn the_first_of_equal_maxima_wins_and_nan_before_all() {
    let winner = |values: &[f64]| {
        let nest = row(values.len(), 0, Combine::Max, Expr::Read(0), Expr::ArgMax);
        run(&nest, &tensor(values))
    };
    assert_eq!(winner(&[1.0, 3.0, 3.0, 2.0]), 1.0);
    assert_eq!(winner(&[f64::NEG_INFINITY, f64::NEG_INFINITY]), 0.0);
    assert_eq!(winner(&[1.0, f64::NAN, f64::INFINITY, f64::NAN]), 1.0);
}

#[test]
fn a_maximum_considers_what_is_inside_only() {
    let maximum = |shift, value| {
        run(
            &row(3, shift, Combine::Max, Expr::Read(0), value),
            &tensor(&[-9.0, -8.0, -9.5]),
        )
    };
    // The value read outside, -5, would be larger.
    assert_eq!(maximum(-1, Expr::Reduced), -8.0);
    assert_eq!(maximum(-1, Expr::ArgMax), 2.0);
    assert_eq!(maximum(-2, Expr::ArgMax), 2.0);
    assert_eq!(maximum(3, Expr::Reduced), f64::NEG_INFINITY);
}

#[test]
fn a_read_outside_has_its_value_and_says_so() {
    let sum = |body| {
        run(
            &row(4, -1, Combine::Sum, body, Expr::Reduced),
            &tensor(&[1.0, 2.0, 4.0]),
        )
    };
    assert_eq!(sum(Expr::Read(0)), 2.0);
    assert_eq!(sum(Expr::InBounds(0)), 3.0);
}

/// `y[i] = x[(4 − i) / 2]` where that divides and `1 <= i < 5`, else −1: along a row of falling, strided reads.
#[test]
fn divisors_and_guards_decide_what_is_inside() {
    let falling = Affine::constant(4).plus_loop(Loop(0), -1);
    let nest = Nest {
        parallel: vec![8],
        reduction: vec![],
        reads: vec![Read {
            source: Source::Operand(0),
            index: vec![Index {
                map: falling,
                divisor: 2,
            }],
            predicates: vec![Predicate {
                map: Affine::of(Loop(0)),
                low: 1,
                high: 5,
            }],
            padding_value: -1.0,
        }],
        combine: Combine::None,
        body: Expr::Constant(0.0),
        outputs: vec![Output {
            dtype: DType::F32,
            extents: vec![8],
            index: vec![Affine::of(Loop(0))],
            value: Expr::Read(0),
        }],
    };
    let found = evaluate_nest(&nest, &[&tensor(&[10.0, 11.0, 12.0])]).unwrap();
    assert_eq!(found[0].data, [-1.0, -1.0, 11.0, -1.0, 10.0, -1.0, -1.0, -1.0]);
}

/// `y[i] = x[5 − i]`, outside at both ends: the first index beyond the tensor is its extent.
#[test]
fn a_falling_read_enters_and_leaves_its_tensor() {
    let mut nest = Nest::copy(DType::F32, &[8]);
    nest.reads[0].index[0].map = Affine::constant(5).plus_loop(Loop(0), -1);
    nest.reads[0].padding_value = -1.0;
    let found = evaluate_nest(&nest, &[&tensor(&[10.0, 11.0, 12.0])]).unwrap();
    assert_eq!(found[0].data, [-1.0, -1.0, -1.0, 12.0, 11.0, 10.0, -1.0, -1.0]);
}

#[test]
fn coverage_notices_elements_written_twice_and_never() {
    let mut nest = Nest::copy(DType::F32, &[2, 3]);
    assert_eq!(check_coverage(&nest), Ok(()));
    nest.parallel.push(2);
    let error = check_coverage(&nest).unwrap_err();
    assert_eq!(error.found, "2 writes of element 0 of an output of [2, 3]");
    nest.parallel.pop();
    nest.outputs[0].extents[0] = 3;
    nest.outputs[0].index[0] = Affine::default().plus_loop(Loop(0), 2);
    assert_eq!(
        check_coverage(&nest).unwrap_err().found,
        "0 writes of element 3 of an output of [3, 3]"
    );
}

/// Tiles of two that do not divide five elements.
#[test]
fn what_lies_beyond_the_end_is_not_stored() {
    let mut nest = Nest::copy(DType::F32, &[3, 2]);
    let place = Affine::of(Loop(1)).plus_loop(Loop(0), 2);
    nest.reads[0].index = vec![Index::new(place.clone())];
    nest.reads[0].padding_value = -1.0;
    nest.outputs[0].extents = vec![5];
    nest.outputs[0].index = vec![place];
    assert_eq!(check_coverage(&nest), Ok(()));
    let x = tensor(&[1.0, 2.0, 3.0, 4.0, 5.0]);
    assert_eq!(evaluate_nest(&nest, &[&x]).unwrap()[0].data, x.data);
}

#[test]
fn an_unsound_nest_is_an_error() {
    let x = Tensor::f32(&[2, 3], vec![0.0; 6]);
    let fault = |change: fn(&mut Nest)| {
        let mut nest = Nest::copy(DType::F32, &[2, 3]);
        change(&mut nest);
        evaluate_nest(&nest, &[&x]).map(drop).map_err(|error| error.found)
    };
    assert_eq!(fault(|_| ()), Ok(()));
    for (change, expected) in [
        ((|n| n.parallel[0] = 1) as fn(&mut Nest), "writes at"),
        (
            |n| n.outputs[0].index[0] = Affine::of(Loop(0)).plus_constant(1),
            "writes at",
        ),
        (|n| n.parallel[0] = 0, "loops of [0, 3] iterations"),
        (|n| n.reads[0].source = Source::Operand(1), "a read of Operand(1)"),
        (
            |n| n.reads[0].source = Source::Intermediate(0),
            "a read of Intermediate(0)",
        ),
        (|n| drop(n.reads[0].index.pop()), "1 indices into f32[2, 3]"),
        (|n| n.reads[0].index[0].divisor = 0, "an index divided by 0"),
        (
            |n| n.reads[0].index[0] = Index::of(Loop(2)),
            "a map of loop 2 among 2",
        ),
        (|n| n.reduction.push(2), "reduction loops without a combination"),
        (
            |n| n.outputs[0].value = Expr::Read(1),
            "an expression with Read(1)",
        ),
        (
            |n| n.outputs[0].value = Expr::Reduced,
            "an expression with Reduced",
        ),
        (
            |n| {
                n.outputs[0].value = Expr::Table {
                    values: vec![1.0],
                    index: Affine::of(Loop(0)),
                }
            },
            "an expression with Table",
        ),
        (|n| n.outputs[0].value = Expr::ArgMax, "an expression with ArgMax"),
        (|n| n.body = Expr::InBounds(3), "an expression with InBounds(3)"),
    ] {
        let found = fault(change).unwrap_err();
        assert!(found.starts_with(expected), "{found} instead of {expected}");
    }
}

const SMALL: &str = "\
x = input() shape=[N, 3]
labels = input() shape=[N] dtype=i64
w = parameter() shape=[3] init=normal std=0.1
y = bias(x, w)
loss = softmax_cross_entropy(y, labels)
output loss = loss";

fn small_inputs() -> HashMap<String, Tensor> {
    HashMap::from([
        (
            "x".into(),
            Tensor::f32(&[2, 3], vec![1.0, 2.0, 3.0, 0.0, 0.0, 0.0]),
        ),
        ("labels".into(), Tensor::new(DType::I64, &[2], vec![2.0, 0.0])),
        ("w".into(), Tensor::f32(&[3], vec![0.0, -1.0, -2.0])),
    ])
}

#[test]
fn a_graph_has_a_value_at_every_node() {
    let graph = text::parse(SMALL, "small").unwrap().bind(2).unwrap();
    let inputs = small_inputs();
    let values = evaluate(&graph, &inputs).unwrap();
    assert_eq!(
        values[graph.find("y").unwrap()].data,
        [1.0, 1.0, 1.0, 0.0, -1.0, -2.0]
    );
    let second = (1.0 + (-1f64).exp() + (-2f64).exp()).ln();
    let loss = values.output(&graph, "loss").unwrap().data[0];
    assert!((loss - (3f64.ln() + second) / 2.0).abs() < 1e-12, "{loss}");
    assert!(values.output(&graph, "y").is_none());
}

#[test]
fn wrong_inputs_are_errors_that_name_them() {
    let unbound = text::parse(SMALL, "small").unwrap();
    let graph = unbound.bind(2).unwrap();
    let fails = |change: fn(&mut HashMap<String, Tensor>)| -> EvalError {
        let mut inputs = small_inputs();
        change(&mut inputs);
        evaluate(&graph, &inputs).unwrap_err()
    };
    let missing = fails(|inputs| drop(inputs.remove("w")));
    assert_eq!(
        missing.to_string(),
        "w: no value; expected a value of type f32[3]. Pass one under this name."
    );
    let shape = fails(|inputs| inputs.get_mut("x").unwrap().extents = vec![3, 2]);
    assert_eq!((&*shape.name, &*shape.found), ("x", "f32[3, 2]"));
    let dtype = fails(|inputs| inputs.get_mut("labels").unwrap().dtype = DType::U8);
    assert_eq!((&*dtype.name, &*dtype.found), ("labels", "u8[2]"));
    let count = fails(|inputs| inputs.get_mut("x").unwrap().data.truncate(5));
    assert_eq!((&*count.name, &*count.found), ("x", "f32[2, 3] with 5 elements"));
    let integer = fails(|inputs| inputs.get_mut("labels").unwrap().data[0] = 0.5);
    assert_eq!((&*integer.name, &*integer.found), ("labels", "0.5 in i64[2]"));
    let inputs = small_inputs();
    let symbolic = evaluate(&unbound, &inputs).unwrap_err();
    assert_eq!((&*symbolic.name, &*symbolic.found), ("x", "the type f32[N, 3]"));
}

/// 0.7 billion multiply-adds: an interpreter that works a point at a time would take minutes.
#[test]
fn one_image_goes_through_the_2012_network() {
    let source = include_str!("../../models/alexnet.ir");
    let graph = text::parse(source, "alexnet").unwrap().bind(1).unwrap();
    let mut inputs = HashMap::new();
    for id in graph.ids().filter(|&id| graph.node(id).op.is_leaf()) {
        let (node, number) = (graph.node(id), id.index() as u32);
        let spread = if node.name == "image" { 100.0 } else { 0.02 };
        let value = |i| (ir::nest::uniform(0, 0, number, i) - 0.5) * spread;
        let data = (0..node.ty.elements() as u32).map(value).collect();
        inputs.insert(node.name.clone(), Tensor::f32(&node.ty.extents(), data));
    }
    let values = evaluate(&graph, &inputs).unwrap();
    for (name, id) in graph.outputs() {
        assert_eq!(values[*id].extents, [1, 1000], "{name}");
        assert!(values[*id].data.iter().all(|x| x.is_finite()), "{name}");
    }
    let relu5 = &values[graph.find("relu5").unwrap()].data;
    assert!(relu5.contains(&0.0) && relu5.iter().any(|&x| x > 0.0));
}
