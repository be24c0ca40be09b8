//! Instructions whose results are known, and what is counted of them.

use crate::{COUNT, given, module, outcome, program, run};
use runtime::device::sim::Sim;
use runtime::device::{BufferId, Device, LaunchId};

#[test]
fn threads_that_part_meet_again() {
    // Each thread adds 1 as often as its number says, in a loop that they leave one by one.
    let y = run(
        "mov.b32 %f1, 0f00000000;\nmov.u32 %r4, 0;\n$loop:\nsetp.ge.u32 %p1, %r4, %r1;\n@%p1 bra $done;\n\
         add.f32 %f1, %f1, 0f3F800000;\nadd.s32 %r4, %r4, 1;\nbra.uni $loop;\n$done:\nbar.sync 0;\n\
         st.global.f32 [%rd5], %f1;",
        2,
    );
    let expected: Vec<f32> = (0..COUNT).map(|i| (i % 32) as f32).collect();
    assert_eq!(y, expected);
}

#[test]
fn values_of_other_lanes() {
    let shuffled = |text: &str| {
        run(
            &format!("ld.global.f32 %f1, [%rd4];\n{text}\nst.global.f32 [%rd5], %f2;"),
            2,
        )
    };
    let x = given();
    let butterfly = shuffled("shfl.sync.bfly.b32 %f2, %f1, 16, 31, -1;");
    let down = shuffled("shfl.sync.down.b32 %f2|%p1, %f1, 1, 31, -1;");
    let up = shuffled("shfl.sync.up.b32 %f2, %f1, 2, 0, -1;");
    let first = shuffled("shfl.sync.idx.b32 %f2, %f1, 0, 31, -1;");
    for i in 0..COUNT {
        assert_eq!(butterfly[i], x[i ^ 16]);
        assert_eq!(down[i], if i % 32 == 31 { x[i] } else { x[i + 1] });
        assert_eq!(up[i], if i % 32 < 2 { x[i] } else { x[i - 2] });
        assert_eq!(first[i], x[i / 32 * 32]);
    }
    // x is negative below 16.
    let votes = run(
        "ld.global.f32 %f1, [%rd4];\nsetp.lt.f32 %p1, %f1, 0f00000000;\nvote.sync.ballot.b32 %r4, %p1, -1;\n\
         popc.b32 %r5, %r4;\ncvt.rn.f32.u32 %f2, %r5;\nst.global.f32 [%rd5], %f2;",
        2,
    );
    assert_eq!((votes[0], votes[32]), (16.0, 0.0));
}

#[test]
fn atomics_lose_nothing() {
    let y = run(
        "mov.u32 %r5, fixed;\nsetp.eq.s32 %p1, %r1, 0;\n@%p1 st.shared.u32 [%r5], 0;\nbar.sync 0;\n\
         cvt.u64.u32 %rd6, %r5;\natom.shared.add.u32 %r6, [%rd6], 3;\nbar.sync 0;\nld.shared.u32 %r7, [%r5];\n\
         cvt.rn.f32.u32 %f1, %r7;\nst.global.f32 [%rd5], %f1;",
        2,
    );
    assert!(y.iter().all(|&sum| sum == 96.0), "{y:?}");
    // All blocks to one word of x.
    let text =
        module("mov.b32 %f1, 0f3F800000;\nred.global.add.f32 [%rd1], %f1;\nst.global.f32 [%rd5], %f1;");
    let mut sim = Sim::open("sim".into(), &program(text, 2, 32), 0).unwrap();
    sim.write(BufferId(0), &[0; 4 * COUNT]).unwrap();
    sim.launch(LaunchId(0)).unwrap();
    let mut bytes = [0; 4];
    sim.read(BufferId(0), &mut bytes).unwrap();
    assert_eq!(f32::from_le_bytes(bytes), 64.0);
    let counts = &sim.counts().unwrap()["k"];
    assert_eq!(
        (counts.launches, counts.blocks, counts.executed("red.global")),
        (1, 2, 64)
    );
    assert_eq!((counts.executed("st.global"), counts.executed("cvt")), (64, 0));
}

#[test]
fn conversions_round_as_the_isa_says() {
    // A number as bits, the conversion, and what it gives.
    let cases: [(u32, &str, f32); 12] = [
        (2.5f32.to_bits(), "cvt.rni.f32.f32 %f2, %f1", 2.0),
        (2.5f32.to_bits(), "cvt.rpi.f32.f32 %f2, %f1", 3.0),
        ((-2.5f32).to_bits(), "cvt.rmi.f32.f32 %f2, %f1", -3.0),
        (
            (-2.7f32).to_bits(),
            "cvt.rzi.s32.f32 %r4, %f1; cvt.rn.f32.s32 %f2, %r4",
            -2.0,
        ),
        (
            3e9f32.to_bits(),
            "cvt.rzi.s32.f32 %r4, %f1; cvt.rn.f32.s32 %f2, %r4",
            2_147_483_648.0,
        ),
        (
            f32::NAN.to_bits(),
            "cvt.rzi.s32.f32 %r4, %f1; cvt.rn.f32.s32 %f2, %r4",
            0.0,
        ),
        (
            200,
            "mov.b32 %r4, %f1; cvt.s8.s32 %r5, %r4; cvt.rn.f32.s32 %f2, %r5",
            -56.0,
        ),
        (
            u32::MAX,
            "mov.b32 %r4, %f1; cvt.s64.s32 %rd9, %r4; cvt.rn.f32.s64 %f2, %rd9",
            -1.0,
        ),
        (
            u32::MAX,
            "mov.b32 %r4, %f1; cvt.u64.u32 %rd9, %r4; cvt.rn.f32.u64 %f2, %rd9",
            4_294_967_296.0,
        ),
        // 1 + 2⁻¹¹ is half way between two numbers of 10 bits: away from zero.
        (0x3f80_1000, "cvt.rna.tf32.f32 %f2, %f1", 1.0 + 1.0 / 1024.0),
        // 1 + 2⁻⁸ is half way between two of 7 bits: to even.
        (
            0x3f80_8000,
            "cvt.rn.bf16x2.f32 %r4, %f1, %f1; and.b32 %r5, %r4, -65536; mov.b32 %f2, %r5",
            1.0,
        ),
        (
            0x3f81_8000,
            "cvt.rn.bf16x2.f32 %r4, %f1, %f1; shl.b32 %r5, %r4, 16; mov.b32 %f2, %r5",
            1.015_625,
        ),
    ];
    for (bits, text, expected) in cases {
        let y = run(
            &format!("mov.b32 %f1, {bits};\n{text};\nst.global.f32 [%rd5], %f2;"),
            2,
        );
        assert_eq!(y[5], expected, "{text} of {bits:#x}");
    }
}

#[test]
fn integers_of_every_width() {
    let cases: [(&str, f32); 14] = [
        (
            "mov.u64 %rd9, 0xABCD; bfe.u64 %rd10, %rd9, 4, 8; cvt.rn.f32.u64 %f1, %rd10",
            188.0,
        ),
        (
            "mov.u64 %rd9, 0xABCD; bfe.s64 %rd10, %rd9, 4, 8; cvt.rn.f32.s64 %f1, %rd10",
            -68.0,
        ),
        (
            "mov.u32 %r4, -7; div.s32 %r5, %r4, 2; cvt.rn.f32.s32 %f1, %r5",
            -3.0,
        ),
        (
            "mov.u32 %r4, -7; rem.s32 %r5, %r4, 4; cvt.rn.f32.s32 %f1, %r5",
            -3.0,
        ),
        (
            "mov.u32 %r4, -7; shr.s32 %r5, %r4, 1; cvt.rn.f32.s32 %f1, %r5",
            -4.0,
        ),
        (
            "mov.u32 %r4, 7; shr.u32 %r5, %r4, 40; cvt.rn.f32.s32 %f1, %r5",
            0.0,
        ),
        (
            "mov.u32 %r4, -2; mul.hi.u32 %r5, %r4, 3; cvt.rn.f32.s32 %f1, %r5",
            2.0,
        ),
        (
            "mov.b16 %rs1, -300; mul.wide.s16 %r5, %rs1, 300; cvt.rn.f32.s32 %f1, %r5",
            -90000.0,
        ),
        (
            "mov.b16 %rs1, 60000; add.s16 %rs2, %rs1, 10000; cvt.u32.u16 %r5, %rs2; cvt.rn.f32.s32 %f1, %r5",
            4464.0,
        ),
        (
            "mov.u32 %r4, 0xABCD; bfe.u32 %r5, %r4, 4, 8; cvt.rn.f32.s32 %f1, %r5",
            188.0,
        ),
        (
            "mov.u32 %r4, 0x0102; prmt.b32 %r5, %r4, 0, 0x4401; cvt.rn.f32.s32 %f1, %r5",
            513.0,
        ),
        (
            "mov.u32 %r4, 12; mov.u32 %r6, 10; lop3.b32 %r5, %r4, %r6, 7, 0x96; cvt.rn.f32.s32 %f1, %r5",
            1.0,
        ),
        (
            "mov.u32 %r4, 1; mov.u32 %r6, -2147483648; shf.l.wrap.b32 %r5, %r6, %r4, 1; cvt.rn.f32.s32 %f1, %r5",
            3.0,
        ),
        (
            "mov.u32 %r4, 5; mov.b64 %rd9, {%r4, 2}; mov.b64 {%r5, %r6}, %rd9; sub.s32 %r5, %r5, %r6; cvt.rn.f32.s32 %f1, %r5",
            3.0,
        ),
    ];
    for (text, expected) in cases {
        assert_eq!(
            run(&format!("{text};\nst.global.f32 [%rd5], %f1;"), 2)[3],
            expected,
            "{text}"
        );
    }
}

#[test]
fn comparisons_know_nan() {
    let holds = |name: &str, a: f32, b: f32| {
        let (a, b) = (a.to_bits(), b.to_bits());
        let y = run(
            &format!(
                "mov.b32 %f1, {a};\nmov.b32 %f2, {b};\nsetp.{name}.f32 %p1, %f1, %f2;\n\
                 selp.f32 %f3, 0f3F800000, 0f00000000, %p1;\nst.global.f32 [%rd5], %f3;"
            ),
            2,
        );
        y[0] == 1.0
    };
    let nan = f32::NAN;
    for (name, less, equal, unordered) in [
        ("lt", true, false, false),
        ("le", true, true, false),
        ("eq", false, true, false),
        ("ne", true, false, false),
        ("ltu", true, false, true),
        ("neu", true, false, true),
        ("geu", false, true, true),
        ("num", true, true, false),
        ("nan", false, false, true),
    ] {
        assert_eq!(holds(name, 1.0, 2.0), less, "{name}");
        assert_eq!(holds(name, 2.0, 2.0), equal, "{name}");
        assert_eq!(holds(name, nan, 2.0), unordered, "{name}");
        assert_eq!(holds(name, 2.0, nan), unordered, "{name}");
    }
}

#[test]
fn approximations_are_within_the_stated_errors() {
    // The ISA: ex2 and rcp 2⁻²² relative or better, lg2 2⁻²² absolute, rsqrt 2⁻²² relative.
    let x: Vec<f64> = given().iter().map(|&x| f64::from(x)).collect();
    let of = |name: &str| {
        run(
            &format!("ld.global.f32 %f1, [%rd4];\n{name}.approx.f32 %f2, %f1;\nst.global.f32 [%rd5], %f2;"),
            2,
        )
    };
    let close =
        |found: f32, expected: f64| (f64::from(found) - expected).abs() <= expected.abs() * 2f64.powi(-22);
    let (powers, roots, logs) = (of("ex2"), of("rsqrt"), of("lg2"));
    for i in 0..COUNT {
        assert!(close(powers[i], x[i].exp2()), "ex2 {}", x[i]);
        if x[i] > 0.0 {
            assert!(close(roots[i], 1.0 / x[i].sqrt()), "rsqrt {}", x[i]);
            assert!(
                (f64::from(logs[i]) - x[i].log2()).abs() <= 2f64.powi(-22),
                "lg2 {}",
                x[i]
            );
        } else if x[i] < 0.0 {
            assert!(logs[i].is_nan() && roots[i].is_nan());
        }
    }
}

/// Numbers that look random, exact in tf32 and bf16.
fn small(i: usize) -> f32 {
    (ir::nest::uniform(7, 0, 0, i as u32) * 33.0).floor() as f32 - 16.0
}

#[test]
fn products_of_small_matrices() {
    // Every lane makes its registers of A (rows × depth) and B (depth × columns) as the ISA lays fragments out.
    for (bf16, depth) in [(false, 8), (true, 16)] {
        let a = |row: usize, k: usize| small(row * 16 + k);
        let b = |k: usize, column: usize| small(1000 + k * 8 + column);
        let mut text = String::new();
        let word = |low: f32, high: f32| match bf16 {
            true => low.to_bits() >> 16 | high.to_bits() & 0xffff_0000,
            false => low.to_bits(),
        };
        for lane in 0..32usize {
            let (group, member) = (lane / 4, lane % 4);
            let first = |half: usize| {
                if bf16 {
                    2 * member + 8 * half
                } else {
                    member + 4 * half
                }
            };
            text += &format!("setp.eq.s32 %p1, %r1, {lane};\n");
            for (i, (down, half)) in [(0, 0), (8, 0), (0, 1), (8, 1)].into_iter().enumerate() {
                let bits = word(a(group + down, first(half)), a(group + down, first(half) + 1));
                text += &format!("@%p1 mov.b32 %r{}, {bits};\n", 10 + i);
            }
            for half in 0..2 {
                let bits = word(b(first(half), group), b(first(half) + 1, group));
                text += &format!("@%p1 mov.b32 %r{}, {bits};\n", 14 + half);
            }
        }
        let (shape, ty) = if bf16 {
            ("m16n8k16", "bf16")
        } else {
            ("m16n8k8", "tf32")
        };
        text += &format!(
            "mov.b32 %f1, 0f3F800000;\nmma.sync.aligned.{shape}.row.col.f32.{ty}.{ty}.f32 {{%f2, %f3, %f4, %f5}}, \
             {{%r10, %r11, %r12, %r13}}, {{%r14, %r15}}, {{%f1, %f1, %f1, %f1}};\n"
        );
        for register in 0..4 {
            let y = run(&format!("{text}st.global.f32 [%rd5], %f{};", 2 + register), 2);
            for (lane, &found) in y.iter().take(32).enumerate() {
                let (row, column) = (lane / 4 + register / 2 * 8, lane % 4 * 2 + register % 2);
                let sum: f32 = (0..depth).map(|k| a(row, k) * b(k, column)).sum();
                assert_eq!(found, sum + 1.0, "{ty}: row {row}, column {column}");
            }
        }
    }
}

#[test]
fn matrices_loaded_as_fragments() {
    // 8 × 8 elements of 16 bits, element (r, c) is 8r + c, in shared memory by rows of 16 bytes.
    let fill = "shl.b32 %r4, %r1, 1;\nadd.s32 %r5, %r4, 1;\nshl.b32 %r5, %r5, 16;\nor.b32 %r5, %r5, %r4;\n\
                shl.b32 %r6, %r1, 2;\nmov.u32 %r7, fixed;\nadd.s32 %r6, %r7, %r6;\nst.shared.b32 [%r6], %r5;\nbar.sync 0;\n\
                and.b32 %r8, %r1, 7;\nmad.lo.s32 %r8, %r8, 16, %r7;\n";
    for (modifier, expected) in [("", [0, 1]), (".trans", [0, 8])] {
        let y = run(
            &format!(
                "{fill}ldmatrix.sync.aligned.m8n8.x1{modifier}.shared.b16 {{%r9}}, [%r8];\nshr.u32 %r10, %r9, 16;\n\
                 cvt.rn.f32.u32 %f1, %r10;\nst.global.f32 [%rd5], %f1;"
            ),
            2,
        );
        // Lane 4r + j holds elements 2j and 2j + 1 of row r, or of column r; the upper half is looked at.
        for (lane, &found) in y.iter().take(32).enumerate() {
            let (row, pair) = (lane / 4, lane % 4 * 2);
            let upper = match modifier {
                "" => 8 * row + pair + 1,
                _ => 8 * (pair + 1) + row,
            };
            assert_eq!(found as usize, upper, "lane {lane}{modifier}");
        }
        assert_eq!(y[0] as usize, expected[1]);
    }
}

#[test]
fn local_memory_and_constants() {
    let text = module(
        "cvta.local.u64 %rd9, %rd10;\nst.local.v2.f32 [depot+16], {%f1, %f1};\nmov.u64 %rd11, table;\n\
         and.b32 %r4, %r1, 3;\nmul.wide.u32 %rd12, %r4, 4;\nadd.s64 %rd11, %rd11, %rd12;\nld.const.f32 %f2, [%rd11];\n\
         st.local.f32 [depot+8], %f2;\nld.local.f32 %f3, [depot+8];\nst.global.f32 [%rd5], %f3;",
    );
    let ones: Vec<String> = [1.0f32, 2.0, 4.0, 8.0]
        .iter()
        .map(|x| x.to_bits().to_string())
        .collect();
    let table = format!(
        ".const .align 4 .b32 table[4] = {{{}}};\n.visible",
        ones.join(", ")
    );
    let y = outcome(text.replacen(".visible", &table, 1), 2, 32).unwrap();
    assert_eq!(y[..4], [1.0, 2.0, 4.0, 8.0]);
}

#[test]
fn bank_conflicts_and_coalescing_are_counted() {
    let counts = |body: &str| {
        let mut sim = Sim::open("sim".into(), &program(module(body), 2, 32), 0).unwrap();
        let bytes: Vec<u8> = given().iter().flat_map(|x| x.to_le_bytes()).collect();
        sim.write(BufferId(0), &bytes).unwrap();
        sim.launch(LaunchId(0)).unwrap();
        sim.counts().unwrap()["k"].clone()
    };
    let store = |shift: usize| {
        format!(
            "mov.u32 %r5, dynamic;\nand.b32 %r4, %r1, 15;\nshl.b32 %r4, %r4, {shift};\nadd.s32 %r6, %r5, %r4;\n\
                 setp.lt.u32 %p1, %r1, 16;\n@%p1 st.shared.u32 [%r6], %r1;"
        )
    };
    let neighbours = counts(&store(2));
    assert_eq!((neighbours.shared_cycles, neighbours.conflicts), (2, 0));
    // Every other word: 16 words in 16 banks.
    assert_eq!(counts(&store(3)).conflicts, 0);
    // Every fourth word: 16 words in 8 banks.
    assert_eq!(counts(&store(4)).conflicts, 2);
    let loads = counts("ld.global.f32 %f1, [%rd4];");
    assert_eq!((loads.read_bytes, loads.distinct_read_bytes), (256, 256));
    assert_eq!((loads.sectors, loads.min_sectors), (8, 8));
    let same = counts("ld.global.f32 %f1, [%rd1];");
    assert_eq!(
        (same.read_bytes, same.distinct_read_bytes, same.sectors),
        (256, 4, 2)
    );
    let strided = counts(
        "and.b32 %r4, %r1, 7;\nmul.wide.u32 %rd9, %r4, 32;\nadd.s64 %rd9, %rd1, %rd9;\nld.global.f32 %f1, [%rd9];",
    );
    assert_eq!((strided.sectors, strided.min_sectors), (16, 2));
}
