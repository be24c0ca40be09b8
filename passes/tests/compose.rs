//! Composed nests compute what the two nests compute one after the other: every producer with every consumer.

mod common;

use common::{Tensor, Tensors, assert_close, evaluate, random};
use ir::nest::{Affine, Binary, Combine, Expr, Index, Loop, Nest, Output, Predicate, Read, Source};
use ir::types::DType;
use passes::compose::{epilogue, inline, merge};

/// The tensor between producer and consumer, `[2, 4, 3, 3]`, and the place of a second one.
const MIDDLE: usize = 9;
const RESULT: usize = 10;
const SHAPE: [usize; 4] = [2, 4, 3, 3];

fn tensors() -> Tensors {
    let shapes: [&[usize]; 6] = [&SHAPE, &[4, 2], &[2, 36], &[4], &[2], &[2, 4, 6, 6]];
    let mut tensors: Tensors = shapes
        .iter()
        .enumerate()
        .map(|(i, shape)| (i, random(shape, i as u64)))
        .collect();
    tensors.insert(4, Tensor::new(DType::I64, &[2], vec![12345.0, 17.0]));
    tensors
}

fn extents(source: Source) -> Vec<usize> {
    let Source::Operand(i) = source else {
        panic!("tests read operands")
    };
    if i == MIDDLE {
        SHAPE.to_vec()
    } else {
        tensors()[&i].extents.clone()
    }
}

/// `Σ coefficient · loop + constant`.
fn affine(terms: &[(usize, i64)], constant: i64) -> Affine {
    terms
        .iter()
        .fold(Affine::constant(constant), |sum, &(l, factor)| {
            sum.plus_loop(Loop(l), factor)
        })
}

fn at(l: usize) -> Affine {
    affine(&[(l, 1)], 0)
}

fn read(tensor: usize, index: &[Affine]) -> Read {
    let index = index.iter().cloned().map(Index::new).collect();
    Read {
        source: Source::Operand(tensor),
        index,
        predicates: vec![],
        padding_value: 0.0,
    }
}

fn output(extents: &[usize], index: &[Affine], value: Expr) -> Output {
    Output {
        dtype: DType::F32,
        extents: extents.to_vec(),
        index: index.to_vec(),
        value,
    }
}

fn map(parallel: &[usize], reads: Vec<Read>, output: Output) -> Nest {
    let (reduction, body) = (vec![], Expr::Constant(0.0));
    Nest {
        parallel: parallel.to_vec(),
        reduction,
        reads,
        combine: Combine::None,
        body,
        outputs: vec![output],
    }
}

fn over_zero(value: Expr) -> Expr {
    value.binary(Binary::Max, Expr::Constant(0.0))
}

/// A grouped 1×1 convolution: loops n, g, o, y, x; the channel is `o + 2·g`.
fn convolution() -> Nest {
    let channel = affine(&[(1, 2), (2, 1)], 0);
    Nest {
        parallel: vec![2, 2, 2, 3, 3],
        reduction: vec![2],
        reads: vec![
            read(0, &[at(0), affine(&[(1, 2), (5, 1)], 0), at(3), at(4)]),
            read(1, &[channel.clone(), at(5)]),
        ],
        combine: Combine::Sum,
        body: Expr::Read(0) * Expr::Read(1),
        outputs: vec![output(&SHAPE, &[at(0), channel, at(3), at(4)], Expr::Reduced)],
    }
}

/// A 2×2 maximum with padding, with the place of the winner beside it.
fn pool(value: Expr) -> Nest {
    let position = |out: usize, k: usize| affine(&[(out, 1), (k, 1)], -1);
    Nest {
        parallel: SHAPE.to_vec(),
        reduction: vec![2, 2],
        reads: vec![read(0, &[at(0), at(1), position(2, 4), position(3, 5)])],
        combine: Combine::Max,
        body: Expr::Read(0),
        outputs: vec![output(&SHAPE, &[at(0), at(1), at(2), at(3)], value)],
    }
}

/// Bias and rectifier over loops x, c, n, y.
fn permuted_map() -> Nest {
    let reads = vec![read(0, &[at(2), at(1), at(3), at(0)]), read(3, &[at(1)])];
    let value = over_zero(Expr::Read(0) + Expr::Read(1)) + Expr::Index(affine(&[(0, 2), (1, 1)], 3));
    map(
        &[3, 4, 2, 3],
        reads,
        output(&SHAPE, &[at(2), at(1), at(3), at(0)], value),
    )
}

/// `[2, 36]` as `[2, 4, 3, 3]`.
fn reshape() -> Nest {
    let flat = affine(&[(1, 9), (2, 3), (3, 1)], 0);
    map(
        &SHAPE,
        vec![read(2, &[at(0), flat])],
        output(&SHAPE, &[at(0), at(1), at(2), at(3)], Expr::Read(0)),
    )
}

/// Reads with a predicate of its own, and counts where it holds.
fn guarded_map() -> Nest {
    let mut inner = read(0, &[at(0), at(1), at(2), affine(&[(3, 1)], 1)]);
    inner.predicates.push(Predicate {
        map: at(2),
        low: 1,
        high: 3,
    });
    let solid = read(0, &[at(0), at(1), at(2), at(3)]);
    let value = Expr::Read(0) + Expr::InBounds(0) + Expr::Read(1);
    map(
        &SHAPE,
        vec![inner, solid],
        output(&SHAPE, &[at(0), at(1), at(2), at(3)], value),
    )
}

/// A random mask of 2/3 kept elements.
fn mask() -> Nest {
    let element = affine(&[(0, 36), (1, 9), (2, 3), (3, 1)], 0);
    let reads = vec![read(4, &[affine(&[], 0)]), read(4, &[affine(&[], 1)])];
    let uniform = Expr::Uniform {
        seed: 0,
        step: 1,
        stream: 7,
        element,
    };
    let value = Expr::Constant(0.66).binary(Binary::Greater, uniform);
    map(
        &SHAPE,
        reads,
        output(&SHAPE, &[at(0), at(1), at(2), at(3)], value),
    )
}

fn producers() -> Vec<(&'static str, Nest)> {
    vec![
        ("convolution", convolution()),
        ("pool", pool(Expr::Reduced)),
        ("permuted map", permuted_map()),
        ("reshape", reshape()),
        ("predicated map", guarded_map()),
        ("mask", mask()),
    ]
}

/// Maps that read the middle tensor element by element.
fn elementwise_consumers() -> Vec<(&'static str, Nest)> {
    let permuted = {
        let index = [at(3), at(0), at(2), at(1)];
        let reads = vec![
            read(MIDDLE, &index),
            read(0, &index),
            read(3, &[at(0)]),
            read(MIDDLE, &index),
        ];
        let value = over_zero(Expr::Read(0)) * Expr::Read(1) + Expr::Read(2) * Expr::Read(3);
        map(
            &[4, 3, 3, 2],
            reads,
            output(&[3, 4, 2, 3], &[at(1), at(0), at(3), at(2)], value),
        )
    };
    let flat = {
        let index = [at(0), at(1), at(2), at(3)];
        let flat = [at(0), affine(&[(1, 9), (2, 3), (3, 1)], 0)];
        let value = Expr::Read(0) + Expr::Index(affine(&[(1, 1), (3, -2)], 1));
        map(&SHAPE, vec![read(MIDDLE, &index)], output(&[2, 36], &flat, value))
    };
    let predicated = {
        let index = [at(0), at(1), at(2), at(3)];
        let mut other = read(0, &[at(0), at(1), affine(&[(2, 1)], -1), at(3)]);
        other.predicates.push(Predicate {
            map: at(1),
            low: 1,
            high: 3,
        });
        other.padding_value = 0.5;
        let value = Expr::Read(0) * Expr::Read(1) + Expr::InBounds(1) + Expr::InBounds(0);
        map(
            &SHAPE,
            vec![read(MIDDLE, &index), other],
            output(&SHAPE, &index, value),
        )
    };
    let random = {
        let index = [at(0), at(1), at(2), at(3)];
        let mut reads = mask().reads;
        reads.push(read(MIDDLE, &index));
        let value = mask().outputs[0].value.clone() * Expr::Read(2);
        map(&SHAPE, reads, output(&SHAPE, &index, value))
    };
    vec![
        ("permuted", permuted),
        ("flat", flat),
        ("predicated", predicated),
        ("random", random),
    ]
}

/// Nests that read the middle tensor otherwise.
fn other_consumers() -> Vec<(&'static str, Nest)> {
    let window = |combine| {
        let mut nest = pool(Expr::Reduced);
        nest.reads[0].source = Source::Operand(MIDDLE);
        nest.reads[0].padding_value = 0.25;
        nest.combine = combine;
        nest.reads.push(read(3, &[at(1)]));
        if combine == Combine::Sum {
            nest.body = Expr::Read(0) * Expr::Read(1) + Expr::InBounds(0);
        }
        nest
    };
    let strided = {
        let half = |out: usize, k: usize| Index {
            map: affine(&[(out, 1), (k, -1)], 1),
            divisor: 2,
        };
        let mut of = read(MIDDLE, &[at(0), at(1)]);
        of.index.extend([half(2, 4), half(3, 5)]);
        of.predicates.push(Predicate {
            map: at(4),
            low: 0,
            high: 2,
        });
        Nest {
            parallel: vec![2, 4, 6, 6],
            reduction: vec![3, 3],
            reads: vec![of],
            combine: Combine::Sum,
            body: Expr::Read(0),
            outputs: vec![output(
                &[2, 4, 6, 6],
                &[at(0), at(1), at(2), at(3)],
                Expr::Reduced,
            )],
        }
    };
    let rows = Nest {
        parallel: vec![4],
        reduction: vec![2, 3, 3],
        reads: vec![read(MIDDLE, &[at(1), at(0), at(2), at(3)])],
        combine: Combine::Sum,
        body: Expr::Read(0),
        outputs: vec![output(&[4], &[at(0)], Expr::Reduced)],
    };
    let shifted = {
        let index = [at(0), at(1), affine(&[(2, 1)], -2), affine(&[(3, 1)], 1)];
        let mut other = read(MIDDLE, &index);
        other.padding_value = -1.5;
        let same = [at(0), at(1), at(2), at(3)];
        map(
            &SHAPE,
            vec![other],
            output(&SHAPE, &same, Expr::Read(0) * Expr::Constant(2.0)),
        )
    };
    vec![
        ("window sum", window(Combine::Sum)),
        ("window maximum", window(Combine::Max)),
        ("strided", strided),
        ("rows", rows),
        ("shifted", shifted),
    ]
}

/// The consumer's result, computed from the stored middle tensor.
fn in_two(producer: &Nest, consumer: &Nest) -> Tensors {
    let mut tensors = tensors();
    tensors.insert(MIDDLE, evaluate(producer, &tensors).remove(0));
    tensors.insert(RESULT, evaluate(consumer, &tensors).remove(0));
    tensors
}

#[test]
fn every_nest_takes_elementwise_consumers_as_epilogue() {
    for (producer_name, producer) in producers() {
        for (consumer_name, consumer) in elementwise_consumers() {
            let what = format!("{producer_name}, then {consumer_name}");
            let expected = in_two(&producer, &consumer);
            let stored = [Source::Operand(MIDDLE)];
            for keep in [false, true] {
                let fused =
                    epilogue(&producer, &stored, &[keep], &consumer).unwrap_or_else(|| panic!("{what}"));
                assert!(
                    fused.reads.iter().all(|r| r.source != stored[0]),
                    "{what} still reads the middle"
                );
                let results = evaluate(&fused, &tensors());
                assert_eq!(results.len(), 1 + usize::from(keep), "{what}");
                assert_close(results.last().unwrap(), &expected[&RESULT], &what);
                assert_close(&results[0], &expected[&if keep { MIDDLE } else { RESULT }], &what);
            }
        }
    }
}

#[test]
fn an_epilogue_reads_each_element_where_it_is_made() {
    let stored = [Source::Operand(MIDDLE)];
    for (name, consumer) in other_consumers() {
        assert_eq!(
            epilogue(&convolution(), &stored, &[false], &consumer),
            None,
            "{name}"
        );
    }
    let index = [at(0), at(1), at(2), at(3)];
    let transposed = [at(0), at(1), at(3), at(2)];
    let of = |indices: &[[Affine; 4]]| {
        let reads: Vec<Read> = indices.iter().map(|index| read(MIDDLE, index)).collect();
        let sum = (1..reads.len()).fold(Expr::Read(0), |sum, i| sum + Expr::Read(i));
        map(&SHAPE, reads, output(&SHAPE, &index, sum))
    };
    assert!(
        epilogue(
            &convolution(),
            &stored,
            &[false],
            &of(std::slice::from_ref(&index))
        )
        .is_some()
    );
    assert_eq!(
        epilogue(
            &convolution(),
            &stored,
            &[false],
            &of(&[index.clone(), transposed])
        ),
        None
    );
    let mut half = of(std::slice::from_ref(&index));
    half.parallel[0] = 1;
    assert_eq!(
        epilogue(&convolution(), &stored, &[false], &half),
        None,
        "reads half of the batch"
    );
    let diagonal = [at(0), at(1), at(2), at(2)];
    assert_eq!(
        epilogue(&convolution(), &stored, &[false], &of(&[diagonal])),
        None
    );
    let mut integer = convolution();
    integer.outputs[0].dtype = DType::U8;
    assert_eq!(
        epilogue(&integer, &stored, &[false], &of(std::slice::from_ref(&index))),
        None,
        "storing rounds"
    );
}

#[test]
fn a_map_is_computed_where_it_is_read() {
    let mut declined = vec![];
    for (producer_name, producer) in producers() {
        for (consumer_name, consumer) in elementwise_consumers().into_iter().chain(other_consumers()) {
            let what = format!("{producer_name} in {consumer_name}");
            let stored = Source::Operand(MIDDLE);
            let Some(fused) = inline(&consumer, stored, &producer, &extents) else {
                declined.push(what);
                continue;
            };
            assert!(
                fused.reads.iter().all(|r| r.source != stored),
                "{what} still reads the middle"
            );
            let result = evaluate(&fused, &tensors()).remove(0);
            assert_close(&result, &in_two(&producer, &consumer)[&RESULT], &what);
        }
    }
    declined.retain(|what| !what.starts_with("convolution in") && !what.starts_with("pool in"));
    let expected = [
        // The value names a loop that the stride divides.
        "permuted map in strided",
        // The divisors of two dimensions would meet in one index.
        "reshape in strided",
        // The maximum would leave out what the map's own predicate does.
        "predicated map in window maximum",
        // A mask reads nothing that shows whether the element is there.
        "mask in window maximum",
        "mask in strided",
    ];
    assert_eq!(declined, expected);
}

#[test]
fn reshapes_follow_through_digits() {
    let consumer = {
        let reads = vec![read(MIDDLE, &[at(0), affine(&[(2, 1), (1, 9)], 0)])];
        map(
            &[2, 4, 9],
            reads,
            output(&[2, 4, 9], &[at(0), at(1), at(2)], Expr::Read(0)),
        )
    };
    let flat = affine(&[(1, 9), (2, 3), (3, 1)], 0);
    let flatten = |parallel: &[usize]| {
        let reads = vec![read(0, &[at(0), at(1), at(2), at(3)])];
        map(
            parallel,
            reads,
            output(&[2, 36], &[at(0), flat.clone()], Expr::Read(0)),
        )
    };
    // Nine elements of loop 2 are no pair of digits 3 and 3 in affine terms, in neither direction.
    let shape = |_: Source| SHAPE.to_vec();
    assert_eq!(
        inline(&consumer, Source::Operand(MIDDLE), &flatten(&SHAPE), &shape),
        None
    );

    let consumer = {
        let index = [at(0), affine(&[(3, 1), (1, 9), (2, 3)], 0)];
        map(
            &SHAPE,
            vec![read(MIDDLE, &index)],
            output(&SHAPE, &[at(0), at(1), at(2), at(3)], Expr::Read(0)),
        )
    };
    let there_and_back = inline(&consumer, Source::Operand(MIDDLE), &flatten(&SHAPE), &shape).unwrap();
    let epilogue = epilogue(&flatten(&SHAPE), &[Source::Operand(MIDDLE)], &[false], &consumer).unwrap();
    let mut copy = Nest::copy(DType::F32, &SHAPE);
    copy.reads[0].source = Source::Operand(0);
    assert_eq!((&there_and_back, &epilogue), (&copy, &copy));
}

#[test]
fn equal_reductions_store_their_results_together() {
    let (value, place) = (pool(Expr::Reduced), pool(Expr::ArgMax));
    let both = merge(&value, &place).expect("the bodies are equal");
    assert_eq!(both.reads.len(), 1);
    let results = evaluate(&both, &tensors());
    assert_close(&results[0], &evaluate(&value, &tensors())[0], "value");
    assert_close(&results[1], &evaluate(&place, &tensors())[0], "place");
    assert_eq!(merge(&value, &convolution()), None);
    let mut shifted = pool(Expr::ArgMax);
    shifted.reads[0].index[2].map.constant += 1;
    assert_eq!(
        merge(&value, &shifted),
        None,
        "the bodies read different elements"
    );
    let mut sum = pool(Expr::Reduced);
    sum.combine = Combine::Sum;
    assert_eq!(merge(&value, &sum), None);
}

#[test]
fn maps_over_the_same_loops_share_reads() {
    let index = [at(0), at(1), at(2), at(3)];
    let one = map(
        &SHAPE,
        vec![read(0, &index)],
        output(&SHAPE, &index, over_zero(Expr::Read(0))),
    );
    let reads = vec![read(3, &[at(1)]), read(0, &index)];
    let two = map(
        &SHAPE,
        reads,
        output(&SHAPE, &index, Expr::Read(0) * Expr::Read(1)),
    );
    let both = merge(&one, &two).unwrap();
    assert_eq!(both.reads.len(), 2);
    let results = evaluate(&both, &tensors());
    assert_close(&results[0], &evaluate(&one, &tensors())[0], "first");
    assert_close(&results[1], &evaluate(&two, &tensors())[0], "second");
}
