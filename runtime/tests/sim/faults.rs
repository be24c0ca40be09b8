//! Faults planted one by one, each of which the emulator must find and name.

use crate::{COUNT, given, module, outcome, run};

/// Runs a body that does something wrong, on two blocks of `threads` threads; the report must have these parts.
fn faulty(body: &str, threads: u32, parts: &[&str]) {
    let error = outcome(module(body), 2, threads).expect_err(body);
    assert_eq!(error.exit_code(), 1, "{error}");
    let report = error.to_string();
    for part in ["layer: kernel k, line ", "block ", "thread "]
        .iter()
        .chain(parts)
    {
        assert!(report.contains(part), "{part:?} is not in {report}");
    }
}

/// A module that is refused when it is opened.
fn refused(text: String, parts: &[&str]) {
    let error = outcome(text, 1, 32).expect_err("the module is refused");
    assert_eq!(error.exit_code(), 2, "{error}");
    for part in parts {
        assert!(error.to_string().contains(part), "{part:?} is not in {error}");
    }
}

#[test]
fn an_access_out_of_bounds() {
    faulty(
        "mov.b32 %f1, 0f3F800000;\nst.global.f32 [%rd5+132], %f1;",
        32,
        &[
            "`st.global.f32 [%rd5+132], %f1`",
            "block 0, thread 31",
            "access out of bounds",
            "byte 256 of argument 1",
        ],
    );
    // Below the first byte, and nowhere near.
    faulty(
        "ld.global.f32 %f1, [%rd1+-4];",
        32,
        &["byte -4 of argument 0", "thread 0"],
    );
    faulty(
        "mov.u64 %rd9, 4096;\nld.global.f32 %f1, [%rd9];",
        32,
        &["of no argument"],
    );
    faulty(
        "mov.u32 %r9, dynamic;\nld.shared.f32 %f1, [%r9+512];",
        32,
        &["shared memory, which has 512 bytes"],
    );
}

#[test]
fn a_misaligned_access() {
    faulty(
        "ld.global.v2.f32 {%f1, %f2}, [%rd1+4];",
        32,
        &["misaligned access: 8 bytes"],
    );
    faulty(
        "st.shared.b32 [fixed+2], %r1;",
        1,
        &["misaligned access: 4 bytes at 0x2"],
    );
}

#[test]
fn reads_of_memory_that_nothing_wrote() {
    faulty(
        "ld.global.f32 %f1, [%rd5];",
        32,
        &["`ld.global.f32 %f1, [%rd5]`", "global memory that nothing wrote"],
    );
    faulty(
        "ld.shared.f32 %f1, [fixed+8];",
        32,
        &["reads shared memory that nothing wrote", "thread 0"],
    );
    faulty(
        "ld.local.f32 %f1, [depot+8];",
        32,
        &["reads local memory that nothing wrote"],
    );
}

#[test]
fn a_race_within_a_block() {
    let swap = |between: &str| {
        format!(
            "shl.b32 %r4, %r1, 2;\nmov.u32 %r5, fixed;\nadd.s32 %r6, %r5, %r4;\nst.shared.u32 [%r6], %r1;\n{between}\n\
             xor.b32 %r7, %r4, 124;\nadd.s32 %r7, %r5, %r7;\nld.shared.u32 %r8, [%r7];\n\
             cvt.rn.f32.u32 %f1, %r8;\nst.global.f32 [%rd5], %f1;"
        )
    };
    faulty(
        &swap(""),
        32,
        &[
            "`ld.shared.u32 %r8, [%r7]`",
            "race within the block: reads what thread 31 wrote",
            "thread 0",
        ],
    );
    let expected: Vec<f32> = (0..COUNT).map(|i| 31.0 - (i % 32) as f32).collect();
    assert_eq!(run(&swap("bar.sync 0;"), 2), expected);
    // Writing what others read since the barrier.
    let again = swap("bar.sync 0;") + "\nst.shared.u32 [%r6], %r1;";
    faulty(
        &again,
        32,
        &["race within the block: writes what thread 31 read", "thread 0"],
    );
}

#[test]
fn a_race_between_blocks() {
    faulty(
        "ld.global.f32 %f1, [%rd4];\nst.global.f32 [%rd2], %f1;",
        1,
        &["race between blocks", "`st.global.f32 [%rd2], %f1`"],
    );
    // Through the memory of x, which one block writes and the other reads.
    faulty(
        "setp.eq.s32 %p1, %r2, 0;\nmov.b32 %f1, 0f00000000;\n@%p1 st.global.f32 [%rd1], %f1;\nld.global.f32 %f2, [%rd1];\n\
         add.f32 %f2, %f2, %f1;\nst.global.f32 [%rd5], %f2;",
        1,
        &["race between blocks"],
    );
}

#[test]
fn a_barrier_that_not_all_threads_reach() {
    faulty(
        "setp.lt.u32 %p1, %r1, 20;\n@%p1 bra $low;\nbra.uni $end;\n$low:\nbar.sync 0;\n$end:",
        32,
        &[
            "`bar.sync 0`",
            "12 of 32 threads do not reach",
            "they took another path",
            "as thread 20",
        ],
    );
    faulty(
        "setp.lt.u32 %p1, %r1, 3;\n@%p1 exit;\nbar.sync 0;",
        32,
        &["3 of 32 threads", "they have exited"],
    );
}

#[test]
fn reading_what_a_copy_still_brings() {
    let copy = |wait: &str| {
        format!(
            "mov.u32 %r5, fixed;\nshl.b32 %r4, %r1, 2;\nadd.s32 %r6, %r5, %r4;\ncvt.u64.u32 %rd6, %r6;\n\
             cp.async.ca.shared.global [%rd6], [%rd4], 4;\ncp.async.commit_group;\n{wait}\n\
             ld.shared.f32 %f1, [%r6];\nst.global.f32 [%rd5], %f1;"
        )
    };
    faulty(
        &copy(""),
        32,
        &["what a copy of thread 0 is still bringing: cp.async.wait_group is missing"],
    );
    faulty(&copy("cp.async.wait_group 1;"), 32, &["still bringing"]);
    assert_eq!(run(&copy("cp.async.wait_group 0;"), 2), given());
    // Another thread's copy needs a barrier too.
    let other = copy("cp.async.wait_all;\nxor.b32 %r7, %r4, 4;\nadd.s32 %r6, %r5, %r7;");
    faulty(&other, 32, &["race within the block"]);
}

#[test]
fn what_is_no_ptx_for_the_emulator_is_refused() {
    refused(
        module("frobnicate.s32 %r4, %r1;"),
        &["line 25, `frobnicate.s32 %r4, %r1`", "not known", "kernel k"],
    );
    refused(module("add.s32 %r4, %r1;"), &["2 operands instead of 3"]);
    refused(module("add.s32 %r4 %r1;"), &["line 25: found `%r1`", "expected"]);
    refused(module("bra $nowhere;"), &["no label $nowhere"]);
    refused(module("mov.u32 %unknown, 1;"), &["%unknown is not declared"]);
    refused(module("mov.u64 %r4, %rd1;"), &["64 bits"]);
    refused(
        module("").replace("sm_90", "sm_35"),
        &["the PTX is for sm_35", "sm_90"],
    );
    refused(
        module("").replace(".entry k(", ".entry other("),
        &["it is not in the PTX"],
    );
    refused(module("").replace("ret;\n}", "ret;"), &["expected `}`"]);
    refused("hello".into(), &["line 1: found `hello`, expected a directive"]);
    refused(String::new(), &["`.version` and `.target`"]);
    refused(
        module("").replacen(".param .u64 .ptr .global k_x,\n", "", 1),
        &["it takes 1 arguments and the plan passes 2"],
    );
}

#[test]
fn a_trap_is_reported_with_its_thread() {
    faulty(
        "setp.eq.s32 %p1, %r1, 7;\n@%p1 trap;",
        32,
        &["thread 7", "gave up"],
    );
}
