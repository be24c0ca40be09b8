//! Products of warpgroups against loops written by hand, in every layout; and what a program must not do with them.

use crate::{COUNT, module, outcome};

/// Columns of the products here.
const COLUMNS: usize = 8;
/// Bytes of shared memory: rows of 64 × 128 bytes, and after them columns.
const SHARED: usize = 10 * 1024;
/// Where columns begin.
const RIGHT: usize = 8 * 1024;

/// Where the word at a place of a line lies.
type Swizzle = fn(usize) -> usize;

/// A way to lay out rows in shared memory: the number in a descriptor, and the bytes of a row. Parts of 16 bytes of a row
/// are shuffled among themselves by the row's number, as often as the row has parts.
const LAYOUTS: [(u64, usize, Swizzle); 3] = [
    (1, 128, |row| row % 8),
    (2, 64, |row| row % 8 / 2),
    (3, 32, |row| row % 8 / 4),
];

/// Where byte `at` of a row's 32 lies.
type Place<'a> = &'a dyn Fn(usize, usize) -> usize;

fn descriptor(start: usize, leading: usize, stride: usize, swizzle: u64) -> u64 {
    (start as u64) >> 4 | ((leading as u64) >> 4) << 16 | ((stride as u64) >> 4) << 32 | swizzle << 62
}

/// Factors with more bits than tf32 has.
fn factor(row: usize, depth: usize, seed: usize) -> f32 {
    let number = (row * 37 + depth * 101 + seed * 17) % 64;
    f32::from_bits((number as f32 / 8.0 - 4.0 + 1.0 / 64.0).to_bits() | 0x1abc)
}

fn cut(x: f32) -> f64 {
    f64::from(f32::from_bits(x.to_bits() & !0x1fff))
}

/// The 32 bytes of a row: 8 of tf32, or 16 of bf16.
fn row_bytes(row: usize, seed: usize, bf16: bool) -> Vec<u8> {
    match bf16 {
        false => (0..8).flat_map(|k| factor(row, k, seed).to_le_bytes()).collect(),
        true => (0..16)
            .flat_map(|k| factor(row, k, seed).to_le_bytes()[2..].to_vec())
            .collect(),
    }
}

/// A kernel of one warpgroup: puts an image into shared memory, multiplies, and stores column `column` of the results.
fn kernel(image: &[u8], left: u64, right: u64, bf16: bool, column: usize) -> String {
    let words = image
        .chunks(4)
        .map(|word| u32::from_le_bytes(word.try_into().unwrap()).to_string());
    let words: Vec<String> = words.collect();
    let table = format!(
        ".const .align 16 .b32 table[{}] = {{{}}};\n.visible",
        words.len(),
        words.join(", ")
    );
    let mut body = String::from("mov.u64 %rd11, table;\nmov.u32 %r5, tile;\nmul.wide.u32 %rd12, %r1, 4;\n");
    body += "add.s64 %rd11, %rd11, %rd12;\nshl.b32 %r6, %r1, 2;\nadd.s32 %r5, %r5, %r6;\n";
    for chunk in 0..SHARED / 512 {
        body += &format!(
            "ld.const.u32 %r7, [%rd11+{0}];\nst.shared.u32 [%r5+{0}], %r7;\n",
            512 * chunk
        );
    }
    let (shape, ty, rest) = match bf16 {
        false => ("m64n8k8", "tf32", "1, 1"),
        true => ("m64n8k16", "bf16", "1, 1, 0, 0"),
    };
    body += &format!(
        "fence.proxy.async;\nbar.sync 0;\nmov.b32 %f1, 0f3F800000;\nmov.b32 %f2, %f1;\nmov.b32 %f3, %f1;\nmov.b32 %f4, %f1;\n\
         mov.u64 %rd13, {left};\nmov.u64 %rd14, {right};\nwgmma.fence.sync.aligned;\n\
         wgmma.mma_async.sync.aligned.{shape}.f32.{ty}.{ty} {{%f1, %f2, %f3, %f4}}, %rd13, %rd14, 1, {rest};\n\
         wgmma.commit_group.sync.aligned;\nwgmma.wait_group.sync.aligned 0;\n"
    );
    // Lane 4g + m of warp w has columns 2m and 2m + 1 of row 16w + g, then of row 16w + g + 8.
    body += &format!(
        "and.b32 %r8, %r1, 3;\nsetp.eq.u32 %p1, %r8, {};\nshr.u32 %r9, %r1, 5;\nshl.b32 %r9, %r9, 4;\nand.b32 %r10, %r1, 31;\n\
         shr.u32 %r10, %r10, 2;\nadd.s32 %r9, %r9, %r10;\nmul.wide.u32 %rd15, %r9, 4;\nadd.s64 %rd15, %rd2, %rd15;\n\
         @%p1 st.global.f32 [%rd15], %f{};\n@%p1 st.global.f32 [%rd15+32], %f{};",
        column / 2,
        1 + column % 2,
        3 + column % 2
    );
    let shared = format!(".shared .align 1024 .b8 tile[{SHARED}];\n");
    module(&body)
        .replace(".target sm_90\n", ".target sm_90a\n")
        .replacen(".visible", &table, 1)
        .replace(".shared .align 16 .b8 fixed[256];\n", &shared)
}

/// An image of shared memory with rows and columns at these places.
fn image(left: Place, right: Place, bf16: bool) -> Vec<u8> {
    let mut image = vec![0; SHARED];
    for (start, rows, seed, place) in [(0, 64, 1, left), (RIGHT, COLUMNS, 2, right)] {
        for row in 0..rows {
            for (at, byte) in row_bytes(row, seed, bf16).into_iter().enumerate() {
                image[start + place(row, at)] = byte;
            }
        }
    }
    image
}

fn expected(row: usize, column: usize, bf16: bool) -> f32 {
    let bytes = [row_bytes(row, 1, bf16), row_bytes(column, 2, bf16)];
    let number = |side: usize, depth: usize| match bf16 {
        false => cut(f32::from_le_bytes(
            bytes[side][4 * depth..4 * depth + 4].try_into().unwrap(),
        )),
        true => {
            let half = [bytes[side][2 * depth], bytes[side][2 * depth + 1]];
            f64::from(f32::from_bits(u32::from(u16::from_le_bytes(half)) << 16))
        }
    };
    let depths = if bf16 { 16 } else { 8 };
    (1.0 + (0..depths)
        .map(|depth| number(0, depth) * number(1, depth))
        .sum::<f64>()) as f32
}

fn check(image: &[u8], left: u64, right: u64, bf16: bool, what: &str) {
    for column in 0..COLUMNS {
        let y = outcome(kernel(image, left, right, bf16, column), 1, 128)
            .unwrap_or_else(|e| panic!("{what}: {e}"));
        assert_eq!(y.len(), COUNT);
        for (row, &found) in y.iter().enumerate() {
            assert_eq!(
                found,
                expected(row, column, bf16),
                "{what}: row {row}, column {column}"
            );
        }
    }
}

#[test]
fn products_in_every_layout() {
    for bf16 in [false, true] {
        for (swizzle, line, turn) in LAYOUTS {
            // The second step of the depth, where there is one: 32 bytes after the first.
            let begin = if line > 32 { 32 } else { 0 };
            let place = |row: usize, at: usize| {
                let at = begin + at;
                row * line + ((at / 16) ^ turn(row)) * 16 + at % 16
            };
            let at = |start: usize| descriptor(start + begin, 16, 8 * line, swizzle);
            check(
                &image(&place, &place, bf16),
                at(0),
                at(RIGHT),
                bf16,
                &format!("lines of {line} bytes"),
            );
        }
        // Without: eight rows of 16 bytes after each other, then the next part of the depth, then the next rows.
        let place = |row: usize, at: usize| row / 8 * 256 + at / 16 * 128 + row % 8 * 16 + at % 16;
        let at = |start: usize| descriptor(start, 128, 256, 0);
        check(
            &image(&place, &place, bf16),
            at(0),
            at(RIGHT),
            bf16,
            "not swizzled",
        );
    }
}

/// The kernel that is right, with something changed, on so many threads; the report must have these parts.
fn faulty(change: impl Fn(String) -> String, threads: u32, parts: &[&str]) {
    let place = |row: usize, at: usize| row * 128 + ((at / 16) ^ (row % 8)) * 16 + at % 16;
    let (left, right) = (descriptor(0, 16, 1024, 1), descriptor(RIGHT, 16, 1024, 1));
    let right_kernel = kernel(&image(&place, &place, false), left, right, false, 0);
    assert!(outcome(right_kernel.clone(), 1, 128).is_ok());
    let error = outcome(change(right_kernel), 1, threads)
        .expect_err("a fault")
        .to_string();
    for part in parts {
        assert!(error.contains(part), "{part:?} is not in {error}");
    }
}

#[test]
fn layouts_that_are_unknown_and_matrices_beyond_shared_memory() {
    let left = descriptor(0, 16, 1024, 1).to_string();
    let with = |other: u64| {
        let left = format!("mov.u64 %rd13, {left};");
        move |text: String| text.replace(&left, &format!("mov.u64 %rd13, {other};"))
    };
    faulty(
        with(descriptor(0, 16, 1024, 1) | 1 << 49),
        128,
        &["wgmma.mma_async", "unknown layout", "base offset"],
    );
    faulty(
        with(descriptor(128, 16, 1024, 1)),
        128,
        &["unknown layout", "multiple of 1024 bytes"],
    );
    faulty(
        with(descriptor(15 * 1024, 16, 1024, 1)),
        128,
        &["access out of bounds", "of shared memory, which has"],
    );
    faulty(
        |text| text.replace("1, 1, 1;\nwgmma.commit", "1, -1, 1;\nwgmma.commit"),
        128,
        &["only factors as they are"],
    );
}

#[test]
fn sums_are_waited_for() {
    let wait = "wgmma.wait_group.sync.aligned 0;\n";
    let early = [
        "st.global.f32",
        "uses a sum that wgmma is still making",
        "wait_group is missing",
    ];
    faulty(|text| text.replace(wait, ""), 128, &early);
    faulty(
        |text| text.replace("wait_group.sync.aligned 0;", "wait_group.sync.aligned 1;"),
        128,
        &early,
    );
    faulty(
        |text| text.replace(wait, &format!("add.f32 %f9, %f1, %f1;\n{wait}")),
        128,
        &["add.f32", early[1]],
    );
}

#[test]
fn shared_memory_is_shown_and_left_alone() {
    for other in ["", "fence.proxy.async.global;\n", "fence.proxy.alias;\n"] {
        faulty(
            |text| text.replace("fence.proxy.async;\n", other),
            128,
            &["did not show", "fence.proxy.async is missing"],
        );
    }
    faulty(
        |text| text.replace("bar.sync 0;\nmov.b32", "mov.b32"),
        128,
        &["race within the block: reads what thread"],
    );
    let wait = "wgmma.wait_group.sync.aligned 0;\n";
    faulty(
        |text| text.replace(wait, &format!("bar.sync 0;\nst.shared.u32 [%r5], %r7;\n{wait}")),
        128,
        &[
            "wgmma.wait_group.sync.aligned 0",
            "was written while wgmma could still read it",
        ],
    );
}

#[test]
fn all_threads_of_a_warpgroup_take_part() {
    faulty(|text| text, 64, &["its whole warpgroup", "warp 2"]);
}
