//! What is fused greedily and what is not: each policy on a net of a few lines.

use ir::plan::{Mode, Role};
use ir::program::Program;
use passes::{Options, Snapshot, memory, schedule::schedule};

/// The program of a graph at level 1, before layouts are chosen.
fn fused(text: &str) -> Program {
    let graph = ir::text::parse(text, "test.ir").unwrap_or_else(|errors| panic!("{text}{errors:?}"));
    let options = Options {
        mode: Mode::Infer,
        ..Options::default()
    };
    let mut found = None;
    let mut observe = |pass: &str, stage: Snapshot| {
        if let ("schedule", Snapshot::Program(program)) = (pass, stage) {
            found = Some(program.clone());
        }
    };
    passes::compile(&graph, &options, &mut observe).expect("the graph compiles");
    found.expect("programs are scheduled")
}

/// `LABEL -> RESULTS <- OPERANDS` of every kernel.
fn kernels(text: &str) -> Vec<String> {
    let program = fused(text);
    let names = |ids: &[ir::program::ValueId]| {
        ids.iter()
            .map(|&v| program.value(v).name.clone())
            .collect::<Vec<_>>()
            .join(" ")
    };
    let line =
        |k: &ir::program::Kernel| format!("{} -> {} <- {}", k.label, names(&k.results), names(&k.operands));
    program.kernels.iter().map(line).collect()
}

const HEAD: &str = "x = input() shape=[2, 4, 5, 5]\nw = parameter() shape=[4, 4, 3, 3] init=normal std=0.1\n";

#[test]
fn operands_of_contractions_are_stored() {
    let net = "a = relu(x)\ny = conv2d(a, w)\noutput y = y\n";
    assert_eq!(kernels(&format!("{HEAD}{net}")), ["a -> a <- x", "y -> y <- a w"]);
    let state = "s = input() shape=[2] dtype=i64\n";
    let net = "m = random_mask(s) shape=[2, 4, 5, 5] keep=0.5\ny = conv2d(m, w)\nz = multiply(m, x)\noutput y = y\noutput z = z\n";
    assert_eq!(
        kernels(&format!("{HEAD}{state}{net}")),
        ["m+z -> m z <- s x", "y -> y <- m w"],
        "a mask is stored for a contraction, and the map that reads it too is done where it is made"
    );
}

#[test]
fn a_value_with_other_readers_stays_stored() {
    let net = "\
c = conv2d(x, w) pad=1
r = relu(c)
t = tanh(r)
d = conv2d(r, w)
output t = t
output d = d
";
    assert_eq!(
        kernels(&format!("{HEAD}{net}")),
        ["c+r+t -> r t <- x w", "d -> d <- r w"]
    );
}

#[test]
fn an_epilogue_may_read_more_but_nothing_that_waits_for_it() {
    let net = "c = conv2d(x, w) pad=1\ny = add(c, x)\noutput y = y\n";
    assert_eq!(kernels(&format!("{HEAD}{net}")), ["c+y -> y <- x w"]);
    let net = "c = conv2d(x, w) pad=1\nd = conv2d(c, w) pad=1\ny = add(c, d)\noutput y = y\n";
    assert_eq!(
        kernels(&format!("{HEAD}{net}")),
        ["c -> c <- x w", "d+y -> y <- c w"]
    );
}

#[test]
fn windows_recompute_cheap_maps_that_nobody_else_reads() {
    let pool = "y = max_pool(a) kernel=3 stride=1\noutput y = y\n";
    assert_eq!(
        kernels(&format!("{HEAD}a = relu(x)\n{pool}")),
        ["max_pool+y -> y <- x"]
    );
    assert_eq!(
        kernels(&format!("{HEAD}a = tanh(x)\n{pool}")),
        ["a -> a <- x", "y -> y <- a"]
    );
    assert_eq!(
        kernels(&format!("{HEAD}a = relu(x)\n{pool}output a = a\n")),
        ["a -> a <- x", "max_pool+y -> y <- x"]
    );
}

#[test]
fn siblings_share_a_kernel() {
    let pools = "y = max_pool(x) kernel=3 stride=1\ni = max_pool_index(x) kernel=3 stride=1\n";
    assert_eq!(
        kernels(&format!("{HEAD}{pools}output y = y\noutput i = i\n")),
        ["y+i -> y i <- x"]
    );
    let maps = "a = relu(x)\nb = tanh(x)\noutput a = a\noutput b = b\n";
    assert_eq!(kernels(&format!("{HEAD}{maps}")), ["a+b -> a b <- x"]);
    let apart = "a = relu(x)\nv = parameter() shape=[2, 4, 5, 5]\nb = tanh(v)\noutput a = a\noutput b = b\n";
    assert_eq!(kernels(&format!("{HEAD}{apart}")), ["a -> a <- x", "b -> b <- v"]);
}

#[test]
fn a_reshape_is_where_the_value_is_stored() {
    let net = "p = max_pool(x) kernel=3 stride=2\nf = reshape(p) shape=[2, 16]\nt = tanh(f)\noutput t = t\n";
    assert_eq!(kernels(&format!("{HEAD}{net}")), ["p+f+t -> t <- x"]);
}

#[test]
fn equal_stages_of_different_nodes_run_once() {
    let net = "\
x = input() shape=[2, 5]
labels = input() shape=[2] dtype=i64
one = constant() shape=[] value=1.0
loss = softmax_cross_entropy(x, labels)
grad = softmax_cross_entropy_grad(one, x, labels)
output loss = loss
output grad = grad
";
    let reads_logits = |program: &Program| {
        let sums = program
            .kernels
            .iter()
            .filter(|k| k.nest.combine == ir::nest::Combine::Max);
        sums.count()
    };
    assert_eq!(reads_logits(&fused(net)), 1);
}

#[test]
fn copies_to_outputs_and_parameters_are_kept_where_they_must_be() {
    let net = "\
x = input() shape=[4]
v = parameter() shape=[4]
w = parameter() shape=[4] value=1
a = add(x, v)
output x2 = x
output a = a
output a2 = a
update v = w
update w = v
";
    let program = fused(net);
    let stored = |name: &str| program.values.iter().any(|v| v.name == name);
    assert!(stored("x2") && stored("a") && stored("a2"));
    // Two parameters that change places need room beside them.
    let kept = program
        .values
        .iter()
        .filter(|v| v.name.ends_with(".kept"))
        .count();
    assert_eq!(kept, 1, "one of the two is kept while it is overwritten");
    for name in ["v.next", "w.next"] {
        let value = program
            .values
            .iter()
            .find(|v| v.name == name)
            .expect("both are updated");
        assert!(value.alias.is_some() && value.role == Role::Temporary);
    }
}

#[test]
fn fusion_does_not_depend_on_chance() {
    let text =
        format!("{HEAD}c = conv2d(x, w) pad=1\na = relu(c)\nb = tanh(c)\ny = add(a, b)\noutput y = y\n");
    assert_eq!(fused(&text), fused(&text));
    assert_eq!(kernels(&text), ["c+a+b+y -> y <- x w"]);
}

#[test]
fn kernels_that_free_memory_come_first() {
    // Two branches of a large and a small value each: one after the other, not both large values at once.
    let net = "\
x = input() shape=[2, 4, 5, 5]
w = parameter() shape=[400, 4, 1, 1]
v = parameter() shape=[1, 400, 1, 1]
u = parameter() shape=[1, 400, 1, 1]
a = conv2d(x, w)
b = conv2d(x, w) stride=[1, 1] pad=[0, 0, 0, 1]
c = conv2d(a, v)
d = conv2d(b, u)
output c = c
output d = d
";
    let mut program = fused(net);
    let order: Vec<&str> = program.kernels.iter().map(|k| &k.label[..]).collect();
    assert_eq!(order, ["a", "c", "b", "d"]);
    schedule(&mut program);
    let packing = memory::plan(&mut program);
    assert_eq!(packing.arena_bytes, 2 * 400 * 5 * 6 * 4);
}
