//! Properties of the text of programs: what is printed is read back bit for bit, and no text, however broken or large, makes
//! the parser panic or take long.

use ir::layout::Layout;
use ir::nest::{Affine, Combine, Expr, Index, Loop, Nest, Output, Predicate, Read, Source, Unary};
use ir::plan::{Allocation, Init, Mode, Region, Role};
use ir::program::text::{MAX_DEPTH, parse, print};
use ir::program::{Algorithm, DeviceId, Kernel, MicroBatchLoop, Program, Value, ValueId, Vectors};
use ir::text::render;
use ir::types::DType;
use proptest::prelude::*;
use std::time::{Duration, Instant};

/// A program with one of everything that the text has a word for.
const EVERYTHING: &str = r#"program "my-net" train batch=4 arena=[4096, 128] flops=1234567890123

%0 x : f32[4, 3, 8, 8] input
%1 "w@1" : f32[2, 3, 3, 3] parameter shape=[4, 3, 3, 3] init=normal(0.01) shard=[2, 0, 0, 0]
%2 v : f32[4] state init=constant(-0.0)
%3 y : f32[4, 2, 8, 8] temporary layout=[0, 2, 3, 1] pad_before=[0, 0, 1, 1] pad_after=[0, 0, 0, 2] arena=1024
%4 "y slice" : f32[2, 2, 8, 8] temporary layout=[0, 2, 3, 1] slice_of=%3
%5 packed : u8[4] packed device=1 aliases=%6
%6 labels : i64[4] output device=1
%7 scalar : f32[] temporary

kernel "conv+relu \"a\"\\"(%0, %1, %0, %6) -> (%4, %7) loop=3 micro_batches=2 algorithm=winograd(4) vectors=[1, 0]
  for i0<2 i1<2 i2<8 i3<8 over k0<3 k1<3 k2<3
  r0 = %0@0[i0, k0, i2 + k1 - 1, (-i3 + 2*k2 + 3) / 2] where 0 <= i2 - 4 < 8, -3 <= i3 < 9 else -inf
  r1 = %1[i1, k0, k1, k2]
  r2 = %0@2[0, 0, i2 / 3, 0 / 2] else nan(0x7ff8000000000001)
  r3 = %6[i0]
  acc = sum(r0 * r1)
  %4[i0, i1, i2, i3] = select(acc > 0.0, (acc + r2) * (1e-300 - -2.5), in_bounds(r2)) - (r2 - (r2 - nan)) / inf
  %7[] : f32[1] = max(min(neg(acc), exp(log(tanh(sqrt(reciprocal(1.0)))))), pow(index(2*i0 - 3*i1), table([0.5, -1.0], i0)) == uniform(r3, r3, 7, 64*i2 + i3))

kernel pack(%6) -> (%5) prepack algorithm=direct
  for i0<4
  r0 = %6[i0]
  acc = none(r0)
  %5[i0] = argmax

kernel "max over nothing"() -> (%7)
  for
  acc = max(1.0)
  %7[] = acc

kernel lse(%2) -> (%7)
  for over k0<4
  r0 = %2[k0]
  acc = max(r0)
  %7[] = acc
"#;

fn read(text: &str) -> Program {
    parse(text, "test").unwrap_or_else(|errors| panic!("{text}\n{}", render(&errors, text, false)))
}

#[test]
fn one_of_everything_is_read_and_written_alike() {
    let source = EVERYTHING.replace("%7[] : f32[1] =", "%7[] =");
    let program = read(&source);
    let printed = print(&program);
    assert_eq!(
        printed.lines().collect::<Vec<_>>(),
        source.lines().collect::<Vec<_>>()
    );
    assert_eq!(format!("{:?}", read(&printed)), format!("{program:?}"));
}

#[test]
fn what_is_read_is_what_is_written() {
    let source = EVERYTHING.replace("%7[] : f32[1] =", "%7[] =");
    let program = read(&source);
    assert_eq!(
        (&program.model[..], program.mode, program.batch),
        ("my-net", Mode::Train, 4)
    );
    assert_eq!(
        (&program.arena_bytes[..], program.flops),
        (&[4096, 128][..], 1_234_567_890_123)
    );
    let shape = vec![4, 3, 3, 3];
    let init = Init::Normal(0.01);
    assert_eq!(program.values[1].role, Role::Parameter { shape, init });
    let (offset, shape) = (vec![2, 0, 0, 0], vec![2, 3, 3, 3]);
    assert_eq!(program.values[1].shard, Some(Region { offset, shape }));
    let y = &program.values[3];
    let (order, padding) = (vec![0, 2, 3, 1], vec![(0, 0), (0, 0), (1, 0), (1, 2)]);
    assert_eq!(
        (&y.layout, y.allocation),
        (&Layout { order, padding }, Allocation::Arena(1024))
    );
    let slice = &program.values[4];
    assert_eq!((slice.alias, slice.batch_slice), (Some(ValueId(3)), true));
    let packed = &program.values[5];
    assert_eq!(
        (packed.alias, packed.batch_slice, packed.device),
        (Some(ValueId(6)), false, DeviceId(1))
    );
    let kernel = &program.kernels[0];
    assert_eq!(kernel.label, "conv+relu \"a\"\\");
    assert_eq!(
        kernel.micro_batch_loop,
        Some(MicroBatchLoop {
            number: 3,
            micro_batches: 2
        })
    );
    assert_eq!(kernel.algorithm, Some(Algorithm::Winograd(4)));
    assert_eq!(
        kernel.vectors,
        Some(Vectors {
            factor: 1,
            dimension: 0
        })
    );
    let read = &kernel.nest.reads[0];
    let map = Affine {
        terms: vec![(Loop(3), -1), (Loop(6), 2)],
        constant: 3,
    };
    assert_eq!(read.index[3], Index { map, divisor: 2 });
    let map = Affine {
        terms: vec![(Loop(2), 1)],
        constant: -4,
    };
    assert_eq!(read.predicates[0], Predicate { map, low: 0, high: 8 });
    assert_eq!(read.padding_value, f64::NEG_INFINITY);
    assert_eq!(kernel.nest.reads[2].source, Source::Operand(2));
    assert_eq!(
        kernel.nest.reads[2].padding_value.to_bits(),
        0x7ff8_0000_0000_0001
    );
    assert_eq!(program.kernels[1].nest.combine, Combine::None);
    assert!(program.kernels[1].prepack);
    assert_eq!(program.kernels[2].nest.combine, Combine::Max);
}

/// Names of what may stand before a number decide what it means: a literal has its sign, and `neg` is an operation.
#[test]
fn operators_group_as_they_are_written() {
    let value = |text: &str| {
        let text =
            format!("program p infer batch=1\n%0 y : f32[] output\nkernel k() -> (%0)\nfor\n%0[] = {text}\n");
        read(&text).kernels[0].nest.outputs[0].value.clone()
    };
    let c = |x: f64| Expr::Constant(x);
    assert_eq!(value("1 - 2 - 3"), (c(1.0) - c(2.0)) - c(3.0));
    assert_eq!(value("1 - (2 - 3)"), c(1.0) - (c(2.0) - c(3.0)));
    assert_eq!(value("1 + 2 * 3 / 4"), c(1.0) + (c(2.0) * c(3.0)) / c(4.0));
    assert_eq!(value("-1 * --2"), c(-1.0) * c(-2.0).unary(Unary::Negate));
    assert_eq!(value("-(1)"), c(-1.0));
    assert_eq!(value("neg(1)"), c(1.0).unary(Unary::Negate));
}

#[test]
fn every_float_is_read_back_to_its_bits() {
    let bits = [
        0,
        1,
        1 << 63,
        0x7ff0 << 48,
        0xfff0 << 48,
        0x7ff8 << 48,
        0xfff8 << 48,
        0x7ff0_0000_0000_0001,
    ];
    let more = (0..20_000u32).map(|i| u64::from(ir::nest::mix(i)) << 32 | u64::from(ir::nest::mix(!i)));
    let values: Vec<f64> = bits.into_iter().chain(more).map(f64::from_bits).collect();
    let count = values.len();
    let mut program =
        read("program p infer batch=1\n%0 y : f32[] output\nkernel k() -> (%0)\nfor\n%0[] = 0\n");
    program.kernels[0].nest.outputs[0].value = Expr::Table {
        values,
        index: Affine::constant(0),
    };
    let again = read(&print(&program));
    let (Expr::Table { values, .. }, Expr::Table { values: found, .. }) = (
        &program.kernels[0].nest.outputs[0].value,
        &again.kernels[0].nest.outputs[0].value,
    ) else {
        panic!("a table stays a table")
    };
    assert_eq!(found.len(), count);
    for (x, y) in values.iter().zip(found) {
        assert_eq!(x.to_bits(), y.to_bits(), "{x}");
    }
}

/// A chain of operations that were fused nests as deep as it is long.
#[test]
fn expressions_nest_as_deep_as_a_long_chain_and_no_deeper() {
    let text = |depth: usize, open: &str, close: &str| {
        let (open, close) = (open.repeat(depth), close.repeat(depth));
        format!(
            "program p infer batch=1\n%0 y : f32[] output\nkernel k() -> (%0)\nfor\n%0[] = {open}1{close}\n"
        )
    };
    let program = read(&text(MAX_DEPTH - 2, "tanh(", ")"));
    assert_eq!(read(&print(&program)), program);
    for (open, close) in [
        ("tanh(", ")"),
        ("(", ")"),
        ("-", ""),
        ("[", "]"),
        ("", "+1"),
        ("1*(", ")"),
    ] {
        let deep = text(100_000, open, close);
        let errors = parse(&deep, "deep").expect_err("it is too deep");
        assert!(errors[0].expected.contains("levels"), "{open}: {errors:?}");
    }
}

#[test]
fn large_texts_are_refused_or_read_in_little_time() {
    let header = "program p infer batch=1\n";
    let many = |line: &str, count: usize| header.to_string() + &line.repeat(count);
    for text in [
        many("%0 x : f32[1] input\n", 100_000),
        many("kernel k() -> ()\nfor\n", 90_000),
        many("\n", 300_000),
        many("? ", 400_000),
        (0..50_000).fold(header.to_string(), |text, i| {
            text + &format!("%{i} v : f32[1] temporary aliases=%{}\n", i + 1)
        }),
    ] {
        let begun = Instant::now();
        _ = parse(&text, "large");
        assert!(begun.elapsed() < Duration::from_secs(10), "{}", &text[..60]);
    }
}

/// An affine map of some loops, in the form that maps always have.
fn map(loops: usize) -> impl Strategy<Value = Affine> {
    let terms = prop::collection::btree_map(0..loops.max(1), prop_oneof![-9i64..0, 1i64..1000], 0..4);
    (terms, -100i64..100).prop_map(move |(terms, constant)| Affine {
        terms: terms
            .into_iter()
            .filter(|term| term.0 < loops)
            .map(|(l, factor)| (Loop(l), factor))
            .collect(),
        constant,
    })
}

fn number() -> impl Strategy<Value = f64> {
    prop_oneof![
        Just(0.0),
        Just(-0.0),
        Just(f64::NEG_INFINITY),
        -10.0..10.0f64,
        any::<u64>()
            .prop_map(f64::from_bits)
            .prop_filter("programs with NaN equal nothing", |x| !x.is_nan()),
    ]
}

/// An expression over three reads.
fn expression(loops: usize) -> impl Strategy<Value = Expr> {
    use ir::nest::Binary::{self, *};
    let leaf = prop_oneof![
        number().prop_map(Expr::Constant),
        (0usize..3).prop_map(Expr::Read),
        (0usize..3).prop_map(Expr::InBounds),
        Just(Expr::Reduced),
        Just(Expr::ArgMax),
        map(loops).prop_map(Expr::Index),
        (prop::collection::vec(number(), 0..4), map(loops))
            .prop_map(|(values, index)| Expr::Table { values, index }),
        (any::<u32>(), map(loops)).prop_map(|(stream, element)| Expr::Uniform {
            seed: 0,
            step: 1,
            stream,
            element
        }),
    ];
    let unary = prop::sample::select(vec![
        Unary::Negate,
        Unary::Exp,
        Unary::Log,
        Unary::Tanh,
        Unary::Sqrt,
        Unary::Reciprocal,
    ]);
    let all: Vec<Binary> = vec![Add, Subtract, Multiply, Divide, Max, Min, Power, Greater, Equal];
    let binary = prop::sample::select(all);
    leaf.prop_recursive(6, 40, 3, move |inner| {
        prop_oneof![
            1 => (unary.clone(), inner.clone()).prop_map(|(op, a)| a.unary(op)),
            4 => (binary.clone(), inner.clone(), inner.clone()).prop_map(|(op, a, b)| a.binary(op, b)),
            1 => (inner.clone(), inner.clone(), inner).prop_map(|(a, b, c)| a.select(b, c)),
        ]
    })
}

/// A program of one kernel that reads three operands, each with the loops' maps; it need not verify.
fn program() -> impl Strategy<Value = Program> {
    let loops = (
        prop::collection::vec(1usize..9, 0..4),
        prop::collection::vec(1usize..9, 0..4),
    );
    let nest = loops.prop_flat_map(|(parallel, reduction)| {
        let (outer, all) = (parallel.len(), parallel.len() + reduction.len());
        let index = (map(all), 1i64..4).prop_map(|(map, divisor)| Index { map, divisor });
        let predicate =
            (map(all), -5i64..5, -5i64..50).prop_map(|(map, low, high)| Predicate { map, low, high });
        let read = (
            prop::collection::vec(index, 2),
            prop::collection::vec(predicate, 0..3),
            number(),
        );
        let combine = prop::sample::select(vec![Combine::None, Combine::Sum, Combine::Max]);
        let output = (prop::collection::vec(map(outer), 2), expression(all));
        (
            Just((parallel, reduction)),
            prop::collection::vec(read, 3),
            combine,
            expression(all),
            output,
        )
    });
    let names = prop::collection::vec(".{0,8}", 3);
    (nest, names, any::<bool>(), any::<u64>()).prop_map(
        |(((parallel, reduction), reads, combine, body, (index, value)), names, flag, bits)| {
            let small = (bits % 7) as usize;
            let extents = vec![2 + small, 3];
            let values = (0..3).map(|i| Value {
                name: names[i].clone(),
                dtype: [DType::F32, DType::I64, DType::U8][i],
                extents: extents.clone(),
                layout: Layout {
                    order: if flag { vec![1, 0] } else { vec![0, 1] },
                    padding: vec![(small, i), (0, small / 2)],
                },
                role: [
                    Role::Temporary,
                    Role::Packed,
                    Role::State {
                        shape: vec![small, 3],
                        init: Init::Normal(0.5),
                    },
                ][i]
                    .clone(),
                alias: (i == 1 && flag)
                    .then_some(ValueId(small % 3))
                    .filter(|v| v.0 != 1),
                batch_slice: i == 1 && flag && small % 3 != 1,
                allocation: if i == 0 {
                    Allocation::Dedicated
                } else {
                    Allocation::Arena(bits >> 8)
                },
                device: DeviceId(i * usize::from(flag)),
                shard: (i == 2).then(|| Region::whole(&[small, 3])),
            });
            let read = |(i, (index, predicates, outside)): (usize, (Vec<Index>, Vec<Predicate>, f64))| Read {
                source: Source::Operand(i),
                index,
                predicates,
                padding_value: outside,
            };
            let nest = Nest {
                parallel,
                reduction,
                reads: reads.into_iter().enumerate().map(read).collect(),
                combine,
                body,
                outputs: vec![Output {
                    dtype: if flag { DType::F32 } else { DType::U8 },
                    extents: vec![2 + small, 3],
                    index,
                    value,
                }],
            };
            let operands = vec![ValueId(0), ValueId(1), ValueId(usize::from(flag))];
            let mut call = Kernel::new(names.join("+"), nest, operands, vec![ValueId(2)]);
            call.prepack = flag;
            call.micro_batch_loop = flag.then_some(MicroBatchLoop {
                number: small,
                micro_batches: 1 + small,
            });
            call.algorithm = [None, Some(Algorithm::Direct), Some(Algorithm::Winograd(small))][small % 3];
            Program {
                model: names[0].clone(),
                mode: [Mode::Infer, Mode::Train, Mode::Gradients][small % 3],
                batch: small,
                values: values.collect(),
                kernels: vec![call],
                arena_bytes: vec![0; small % 4],
                flops: bits,
            }
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]
    #[test]
    fn random_programs_are_read_back(program in program()) {
        let printed = print(&program);
        let again = read(&printed);
        prop_assert_eq!(&again, &program, "{}", printed);
        prop_assert_eq!(format!("{again:?}"), format!("{program:?}"));
    }

    #[test]
    fn random_texts_are_refused_with_a_place(text in "[ -~\n]{0,200}") {
        check_errors(&text);
    }

    #[test]
    fn random_tokens_are_refused_with_a_place(
        tokens in prop::collection::vec(
            prop::sample::select(EVERYTHING.split_inclusive([' ', ',', '[', ']', '(', '\n']).collect::<Vec<_>>()),
            0..60,
        ),
        header in any::<bool>(),
    ) {
        let header = if header { "program p infer batch=1\n%0 x : f32[2] input\nkernel k(%0) -> (%0)\nfor i0<2 over k0<3\n" } else { "" };
        check_errors(&(header.to_string() + &tokens.concat()));
    }

    #[test]
    fn changed_texts_are_refused_with_a_place(at in 0..EVERYTHING.len(), count in 0usize..12, with in "[ -~\n]{0,4}") {
        let end = (at + count).min(EVERYTHING.len());
        check_errors(&[&EVERYTHING[..at], &with, &EVERYTHING[end..]].concat());
    }
}

/// A text is read to a program that prints and is read again, or every error has a place in it.
fn check_errors(text: &str) {
    match parse(text, "test") {
        Ok(program) => {
            let printed = print(&program);
            assert_eq!(format!("{:?}", read(&printed)), format!("{program:?}"), "{text}");
        }
        Err(errors) => {
            assert!(!errors.is_empty(), "{text}");
            for error in &errors {
                assert!(
                    error.span.start <= error.span.end && error.span.end <= text.len(),
                    "{error:?}"
                );
                assert!(error.line >= 1 && error.column >= 1, "{error:?}");
                let said = [&error.found, &error.expected, &error.remedy];
                assert!(said.iter().all(|text| !text.is_empty()), "{error:?}");
            }
            render(&errors, text, false);
        }
    }
}
