//! Kernels of points whose operands and results lie in memory in any orders: nests by hand, with layouts that no model
//! would get. On the emulator, which says whether every access is coalesced and whether banks conflict.

use crate::harness::{cases, compare, eighths};
use codegen::Target;
use codegen::bridge::GpuTarget;
use codegen::gpu::Precision;
use ir::DType;
use ir::interpreter::{Tensor, evaluate_nest};
use ir::layout::Layout;
use ir::nest::{Affine, Combine, Expr, Index, Loop, Nest, Output, Predicate, Read, Source, Unary};
use ir::plan::{Allocation, Init, Mode, Role};
use ir::program::{DeviceId, Kernel, Program, Value, ValueId};
use proptest::prelude::*;
use runtime::device::DeviceSpec;
use runtime::device::sim::counts::Counts;
use runtime::executor::Executor;
use runtime::tensor::{Data, Tensor as HostTensor};

/// A tensor that a nest touches.
#[derive(Clone, Debug)]
pub struct Stored {
    dtype: DType,
    extents: Vec<usize>,
    order: Vec<usize>,
    /// Of a result: the operand whose memory it takes.
    in_place: Option<usize>,
}

impl Stored {
    pub fn new(extents: &[usize], order: &[usize]) -> Stored {
        Stored {
            dtype: DType::F32,
            extents: extents.to_vec(),
            order: order.to_vec(),
            in_place: None,
        }
    }

    fn layout(&self) -> Layout {
        Layout::ordered(self.order.clone())
    }

    /// Where each element, counted row-major, lies.
    fn offsets(&self) -> Vec<usize> {
        let strides = self.layout().strides(&self.extents);
        let index = |mut element: usize| {
            let mut index = vec![0; self.extents.len()];
            for (d, extent) in self.extents.iter().enumerate().rev() {
                index[d] = element % extent;
                element /= extent;
            }
            strides.offset(&index)
        };
        (0..strides.elements).map(index).collect()
    }
}

/// Compiles the nest as a program of its own, runs it on the emulator and compares its results; gives what it asked of
/// memory.
pub fn run(nest: &Nest, operands: &[Stored], results: &[Stored], seed: u64) -> Counts {
    let value = |name: String, stored: &Stored, role: Role, alias: Option<usize>| Value {
        name,
        dtype: stored.dtype,
        extents: stored.extents.clone(),
        layout: stored.layout(),
        role,
        alias: alias.map(ValueId),
        batch_slice: false,
        allocation: Allocation::Dedicated,
        device: DeviceId(0),
        shard: None,
    };
    let mut values = vec![];
    for (i, operand) in operands.iter().enumerate() {
        let shape = operand.extents.clone();
        let role = match results.iter().any(|result| result.in_place == Some(i)) {
            true => Role::Parameter {
                shape,
                init: Init::Constant(0.0),
            },
            false => Role::Input { shape },
        };
        values.push(value(format!("x{i}"), operand, role, None));
    }
    for (i, result) in results.iter().enumerate() {
        let shape = result.extents.clone();
        let role = match result.in_place {
            Some(_) => Role::Temporary,
            None => Role::Output { shape },
        };
        values.push(value(format!("y{i}"), result, role, result.in_place));
    }
    let call = Kernel::new(
        "nest",
        nest.clone(),
        (0..operands.len()).map(ValueId).collect(),
        (operands.len()..values.len()).map(ValueId).collect(),
    );
    let program = Program {
        model: "layouts".into(),
        mode: Mode::Infer,
        batch: 1,
        values,
        kernels: vec![call],
        arena_bytes: vec![0],
        flops: 0,
    };
    program.verify().expect("the program is sound");
    let gpu = GpuTarget::from_name("sm_90").expect("an architecture");
    let targets = [Target::Gpu(gpu, Precision::F32)];
    let compiled = codegen::compile(&program, &targets, false).expect("the nest compiles");
    compiled.plan.check().expect("codegen makes sound plans");
    let program = alexc::compile::program_of(compiled, &targets, String::new());
    let mut executor = Executor::new(&program, &DeviceSpec::parse_list("sim").unwrap()).unwrap();
    executor.set_poison(true);

    let tensors: Vec<Tensor> = operands
        .iter()
        .enumerate()
        .map(|(i, operand)| eighths(&format!("x{i}"), operand.dtype, &operand.extents, seed))
        .collect();
    for (i, (operand, tensor)) in operands.iter().zip(&tensors).enumerate() {
        let mut data = vec![0.0; tensor.data.len()];
        for (element, at) in operand.offsets().into_iter().enumerate() {
            data[at] = tensor.data[element] as f32;
        }
        let tensor = HostTensor::new(operand.extents.clone(), Data::F32(data)).unwrap();
        executor.set(&format!("x{i}"), &tensor).unwrap();
    }
    executor.run().unwrap_or_else(|error| panic!("{error}"));
    let expected = evaluate_nest(nest, &tensors.iter().collect::<Vec<_>>()).unwrap();
    for (i, (result, expected)) in results.iter().zip(&expected).enumerate() {
        let name = result
            .in_place
            .map_or(format!("y{i}"), |operand| format!("x{operand}"));
        let found = executor.get(&name).unwrap();
        let ordered =
            |from: &dyn Fn(usize) -> f64| result.offsets().into_iter().map(from).collect::<Vec<f64>>();
        let data = match found.data() {
            Data::F32(data) => Data::F32(
                ordered(&|at| f64::from(data[at]))
                    .iter()
                    .map(|&x| x as f32)
                    .collect(),
            ),
            Data::I64(data) => Data::I64(ordered(&|at| data[at] as f64).iter().map(|&x| x as i64).collect()),
            Data::U8(data) => Data::U8(
                ordered(&|at| f64::from(data[at]))
                    .iter()
                    .map(|&x| x as u8)
                    .collect(),
            ),
        };
        let found = HostTensor::new(result.extents.clone(), data).unwrap();
        // Eighths and their sums are exact.
        compare(&found, expected, 0.0, &format!("result {i} of {nest:?}"));
    }
    executor
        .counts()
        .unwrap()
        .values()
        .next()
        .expect("one kernel")
        .clone()
}

pub fn at_point(rank: usize) -> Vec<Index> {
    (0..rank).map(|d| Index::of(Loop(d))).collect()
}

pub fn read(operand: usize, index: Vec<Index>) -> Read {
    Read {
        source: Source::Operand(operand),
        index,
        predicates: vec![],
        padding_value: 0.0,
    }
}

pub fn output(dtype: DType, extents: &[usize], value: Expr) -> Output {
    Output {
        dtype,
        extents: extents.to_vec(),
        index: (0..extents.len()).map(|d| Affine::of(Loop(d))).collect(),
        value,
    }
}

/// `v ← v/2 + w/4 + Σ g`, `w ← w − v` with the new `v`: the update of weights, whose gradient may come in parts.
fn update(extents: &[usize], parts: usize) -> Nest {
    let rank = extents.len();
    let mut gradient = at_point(rank);
    gradient.push(Index::of(Loop(rank)));
    let sum = match parts {
        1 => Expr::Read(2),
        _ => Expr::Reduced,
    };
    if parts == 1 {
        gradient[rank] = Index::new(Affine::constant(0));
    }
    let half = Expr::Constant(0.5) * Expr::Read(1);
    let velocity = half + Expr::Constant(0.25) * Expr::Read(0) + sum;
    Nest {
        parallel: extents.to_vec(),
        reduction: if parts == 1 { vec![] } else { vec![parts] },
        reads: vec![
            read(0, at_point(rank)),
            read(1, at_point(rank)),
            read(2, gradient),
        ],
        combine: if parts == 1 { Combine::None } else { Combine::Sum },
        body: if parts == 1 {
            Expr::Constant(0.0)
        } else {
            Expr::Read(2)
        },
        outputs: vec![
            output(DType::F32, extents, Expr::Read(0) - velocity.clone()),
            output(DType::F32, extents, velocity),
        ],
    }
}

/// The operands and results of an update: what is updated in one order, in place; the gradient in another, with its parts
/// before all else in memory.
fn updated(
    extents: &[usize],
    order: &[usize],
    gradient: &[usize],
    parts: usize,
) -> (Vec<Stored>, Vec<Stored>) {
    let kept = Stored::new(extents, order);
    let all = [extents, &[parts]].concat();
    let first = [&[extents.len()], gradient].concat();
    let result = |operand: usize| Stored {
        in_place: Some(operand),
        ..kept.clone()
    };
    (
        vec![kept.clone(), kept.clone(), Stored::new(&all, &first)],
        vec![result(0), result(1)],
    )
}

/// Extents about the widths of sectors, warps and tiles, those of kernels and of channels.
fn extent() -> impl Strategy<Value = usize> {
    prop_oneof![
        1usize..8,
        8usize..17,
        23usize..34,
        Just(48),
        63usize..66,
        Just(96),
        Just(121)
    ]
}

fn shape(most: usize) -> impl Strategy<Value = Vec<usize>> {
    let points = |extents: &Vec<usize>| extents.iter().product::<usize>();
    prop::collection::vec(extent(), 2..5).prop_filter("not too large", move |extents| points(extents) <= most)
}

fn orders(rank: usize, count: usize) -> impl Strategy<Value = Vec<Vec<usize>>> {
    prop::collection::vec(Just((0..rank).collect::<Vec<usize>>()).prop_shuffle(), count)
}

fn shape_and_orders(most: usize, count: usize) -> impl Strategy<Value = (Vec<usize>, Vec<Vec<usize>>)> {
    shape(most).prop_flat_map(move |extents| {
        let orders = orders(extents.len(), count);
        (Just(extents), orders)
    })
}

/// No access that needs twice the sectors it could, and of two accesses to shared memory at most one that waits a turn:
/// some tiles with short rows in both orders have no arrangement without.
fn is_coalesced(counts: &Counts) {
    let accesses = counts.shared_cycles - counts.conflicts;
    assert!(2 * counts.conflicts <= accesses, "{counts:?}");
    assert!(counts.sectors <= 2 * counts.min_sectors, "{counts:?}");
}

proptest! {
    #![proptest_config(cases(40))]

    #[test]
    fn updates((extents, orders) in shape_and_orders(20_000, 2), parts in 1usize..5, seed in 0u64..1000) {
        let (operands, results) = updated(&extents, &orders[0], &orders[1], parts);
        is_coalesced(&run(&update(&extents, parts), &operands, &results, seed));
    }

    /// A maximum over a window that begins in padding, its place, what lies beside it within a predicate, a value for all
    /// points of the first loop, and every one of them in an order of its own.
    #[test]
    fn windows_of_several_orders(
        (extents, orders) in shape_and_orders(6000, 5),
        (along, window, shift) in (0usize..4, 1usize..4, 0i64..3),
        combine in prop_oneof![Just(Combine::Max), Just(Combine::Sum), Just(Combine::None)],
        padding_value in prop_oneof![Just(0.0), Just(1.5)],
        seed in 0u64..1000,
    ) {
        let rank = extents.len();
        let along = along % rank;
        let mut windowed = at_point(rank);
        if combine != Combine::None {
            windowed[along].map = windowed[along].map.clone().plus_loop(Loop(rank), 1).plus_constant(-shift);
        }
        let mut beside = at_point(rank);
        beside[0].map = beside[0].map.clone().plus_constant(shift - 1);
        let mut predicated = read(1, beside);
        predicated.padding_value = padding_value;
        predicated.predicates.push(Predicate { map: Affine::of(Loop(rank - 1)), low: 1, high: extents[rank - 1] as i64 });
        // Windows of a maximum have an element inside.
        let length = extents[along] + if combine == Combine::Max { window } else { 0 };
        let shift_fits = combine != Combine::Max || shift < window as i64;
        prop_assume!(shift_fits);
        let mut first = extents.clone();
        first[along] = length;
        let second = extents.clone();
        let third_order: Vec<usize> = orders[2].iter().filter(|&&d| d > 0).map(|d| d - 1).collect();
        let third = extents[1..].to_vec();
        let reduced = if combine == Combine::None { Expr::Read(0) } else { Expr::Reduced };
        let value = reduced + Expr::Constant(0.5) * Expr::Read(1) + Expr::InBounds(1) - Expr::Read(2);
        let place = if combine == Combine::Max { Expr::ArgMax } else { Expr::Index(Affine::of(Loop(0))) };
        let mut windowed = read(0, windowed);
        windowed.padding_value = if combine == Combine::Max { f64::NEG_INFINITY } else { padding_value };
        let nest = Nest {
            parallel: extents.clone(),
            reduction: if combine == Combine::None { vec![] } else { vec![window] },
            reads: vec![windowed, predicated, read(2, at_point(rank)[1..].to_vec())],
            combine,
            body: if combine == Combine::None { Expr::Constant(0.0) } else { Expr::Read(0) },
            outputs: vec![
                output(DType::F32, &extents, value.clone()),
                output(DType::I64, &extents, place),
                output(DType::F32, &extents, value.unary(Unary::Negate)),
            ],
        };
        let operands = [
            Stored::new(&first, &orders[0]),
            Stored::new(&second, &orders[1]),
            Stored::new(&third, &third_order),
        ];
        let results = [
            Stored::new(&extents, &orders[3]),
            Stored { dtype: DType::I64, ..Stored::new(&extents, &orders[4]) },
            Stored::new(&extents, &orders[0]),
        ];
        run(&nest, &operands, &results, seed);
    }
}

/// Updates of the weights of convolutions whose gradients are channels last: every access as few sectors as it can be,
/// 16 bytes of a gradient where channels are vectors, and no bank conflicts, unless rows are short in both orders.
#[test]
fn weights_of_convolutions() {
    let shapes = [
        ([96, 3, 11, 11], true),
        ([64, 48, 5, 5], true),
        ([16, 256, 3, 3], true),
        ([16, 192, 3, 3], true),
        ([64, 3, 5, 5], false),
        ([64, 3, 3, 3], false),
    ];
    for (extents, wide) in shapes {
        for parts in [1, 3] {
            let (operands, results) = updated(&extents, &[0, 1, 2, 3], &[0, 2, 3, 1], parts);
            let counts = run(&update(&extents, parts), &operands, &results, 7);
            let what = format!("{extents:?} in {parts} parts: {counts:?}");
            assert!(counts.shared_cycles > 0, "{what}");
            assert_eq!(counts.sectors, counts.min_sectors, "{what}");
            assert!(!wide || counts.conflicts == 0, "{what}");
            is_coalesced(&counts);
            // Rows of weights are kernels of 9, 25 or 121 elements, never vectors.
            let (points, lanes) = (
                extents.iter().product::<usize>(),
                if extents[1].is_multiple_of(4) { 4 } else { 1 },
            );
            let loads = 2 * points + parts * points / lanes;
            assert_eq!(counts.executed("ld.global"), loads as u64, "{what}");
        }
    }
}

/// Rows that are shorter than a sector and come first in both orders.
#[test]
fn short_rows_that_all_orders_begin_with() {
    let extents = [2, 63, 121];
    let (operands, results) = updated(&extents, &[1, 2, 0], &[2, 1, 0], 4);
    let counts = run(&update(&extents, 4), &operands, &results, 190);
    assert!(counts.shared_cycles > 0, "{counts:?}");
    is_coalesced(&counts);
}

/// Rows that neither order has a warp's width of, in a tile of three loops.
#[test]
fn short_rows_between_long_ones() {
    let extents = [11, 6, 121];
    let (operands, results) = updated(&extents, &[2, 1, 0], &[0, 1, 2], 2);
    is_coalesced(&run(&update(&extents, 2), &operands, &results, 202));
}

/// Images, channels last, to rows as a classifier's weights have them; and matrices whose rows begin amid sectors.
#[test]
fn images_and_matrices() {
    // Elements of a load and of a store: rows of 36 and of 64 are vectors, those of 300 begin amid sectors.
    for (extents, order, loaded, stored) in [
        (vec![4, 256, 6, 6], vec![0, 2, 3, 1], 4, 4),
        (vec![300, 64], vec![1, 0], 1, 4),
        (vec![199, 301], vec![1, 0], 1, 1),
    ] {
        let nest = Nest::copy(DType::F32, &extents);
        let rows: Vec<usize> = (0..extents.len()).collect();
        let counts = run(
            &nest,
            &[Stored::new(&extents, &order)],
            &[Stored::new(&extents, &rows)],
            3,
        );
        let what = format!("{extents:?}: {counts:?}");
        assert!(counts.shared_cycles > 0, "{what}");
        assert_eq!(
            (counts.conflicts, counts.sectors),
            (0, counts.min_sectors),
            "{what}"
        );
        let points: usize = extents.iter().product();
        let accesses = (counts.executed("ld.global"), counts.executed("st.global"));
        assert_eq!(
            accesses,
            ((points / loaded) as u64, (points / stored) as u64),
            "{what}"
        );
    }
}
