//! Whole graphs: the round trip without rules, and programs found by search against the graph itself.

use crate::common::{OPTIMIZER, assert_all_close, given, run};
use ir::Graph;
use ir::plan::Mode;
use ir::profile::{Precision, Profile};
use ir::program::Algorithm;
use passes::cost::Costs;
use passes::eqsat::{Limits, build, search};
use passes::lower::lower;
use passes::{simplify, training};

fn profile() -> Profile {
    Profile::shipped("cpu2").expect("this profile ships")
}

fn costs(profile: &Profile) -> Costs<'_> {
    Costs {
        profile,
        precision: Precision::F32,
        times: None,
    }
}

fn model(name: &str) -> Graph {
    let path = format!("{}/../models/{name}", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(&path).unwrap();
    ir::text::parse(&text, name).unwrap_or_else(|errors| panic!("{errors:?}"))
}

fn training_step(name: &str, batch: usize) -> Graph {
    let bound = model(name).bind(batch).unwrap();
    simplify::simplify(&training::training(&bound, &OPTIMIZER).unwrap()).unwrap()
}

#[test]
fn without_rules_a_graph_comes_back() {
    for name in ["alexnet.ir", "alexnet-owt.ir", "alexnet-cifar.ir"] {
        for graph in [
            simplify::simplify(&training::inference(&model(name).bind(2).unwrap()).unwrap()).unwrap(),
            training_step(name, 2),
        ] {
            let again = build::from_graph(&graph).to_graph(&graph).unwrap();
            let sorted = |graph: &Graph| {
                let text = ir::text::print(graph);
                let words = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
                let mut lines: Vec<String> =
                    text.lines().map(words).filter(|line| !line.is_empty()).collect();
                lines.sort();
                lines
            };
            assert_eq!(sorted(&again), sorted(&graph), "{name}");
        }
    }
}

const SMALL: &str = "\
x = input() shape=[N, 3, 12, 12]
w1 = parameter() shape=[8, 3, 3, 3] init=normal std=0.3
b1 = parameter() shape=[8] init=normal std=0.3
c1 = conv2d(x, w1) pad=1
s1 = bias(c1, b1)
r1 = relu(s1)
l1 = lrn(r1)
p1 = max_pool(l1) kernel=3 stride=2
w2 = parameter() shape=[6, 4, 3, 3] init=normal std=0.3
b2 = parameter() shape=[6] init=normal std=0.3
c2 = conv2d(p1, w2) pad=1 groups=2
s2 = bias(c2, b2)
r2 = relu(s2)
p2 = max_pool(r2) kernel=3 stride=2
f = reshape(p2) shape=[N, 24]
d = dropout(f) rate=0.5
w3 = parameter() shape=[5, 24] init=normal std=0.3
y = fully_connected(d, w3)
output y = y
";

#[test]
fn a_found_program_means_what_the_graph_means() {
    let graph = ir::text::parse(SMALL, "small.ir").unwrap_or_else(|errors| panic!("{errors:?}"));
    let bound = graph.bind(3).unwrap();
    for (mode, graph) in [
        (Mode::Infer, training::inference(&bound).unwrap()),
        (Mode::Gradients, training::gradients(&bound, true).unwrap()),
        (Mode::Train, training::training(&bound, &OPTIMIZER).unwrap()),
    ] {
        let graph = simplify::simplify(&graph).unwrap();
        let plain = lower(&graph, mode, 3).unwrap();
        let (found, report) = search(&graph, mode, 3, &costs(&profile()), true, &Limits::default()).unwrap();
        assert_eq!(found.verify(), Ok(()));
        assert_eq!(passes::schedule::verify(&found), Ok(()));
        assert_eq!(report.fallback, None);
        assert!(report.bound <= report.seconds, "{report:?}");
        assert!(found.kernels.len() < plain.kernels.len());
        for seed in 0..3 {
            let inputs = given(&plain, 5, seed);
            assert_all_close(&run(&found, &inputs), &run(&plain, &inputs), &format!("{mode:?}"));
        }
    }
}

#[test]
fn the_training_step_of_2012_is_found_to_its_optimum_in_seconds() {
    let graph = training_step("alexnet.ir", 128);
    let start = std::time::Instant::now();
    let (found, report) = search(
        &graph,
        Mode::Train,
        128,
        &costs(&profile()),
        true,
        &Limits::default(),
    )
    .unwrap();
    let took = start.elapsed().as_secs_f64();
    println!("{took:.1} s: {} kernels, {report:?}", found.kernels.len());
    assert_eq!(report.fallback, None);
    assert!(report.gap <= 0.01, "{}", report.gap);
    assert!(
        report
            .phases
            .iter()
            .all(|phase| !phase.stopped.starts_with("limit"))
    );
}

/// Forms of Winograd's algorithm are e-nodes beside the direct kernel; the cheapest is taken, and no other is cheaper.
#[test]
fn convolutions_have_algorithms_to_choose_from() {
    let graph = training_step("alexnet.ir", 128);
    let find = |algorithms| {
        let limits = Limits::default();
        search(&graph, Mode::Train, 128, &costs(&profile()), algorithms, &limits).unwrap()
    };
    let (fast, report) = find(true);
    let added = report
        .phases
        .iter()
        .find(|phase| phase.name == "algorithm")
        .unwrap();
    assert!(added.applied["winograd"] > 0, "{added:?}");
    let forms = |program: &ir::program::Program| {
        let calls = program.kernels.iter();
        let fast = calls.filter(|call| matches!(call.algorithm, Some(Algorithm::Winograd(_))));
        fast.map(|call| call.label.split('+').next().unwrap().to_string())
            .collect::<Vec<_>>()
    };
    let found = forms(&fast);
    for layer in [
        "conv2",
        "conv3",
        "conv3.grad_input",
        "conv3.grad_weight",
        "conv5.grad_weight",
    ] {
        assert!(
            found.iter().any(|label| label == layer),
            "{layer} is direct: {found:?}"
        );
    }
    // Its stride is 4.
    assert!(!found.iter().any(|label| label.starts_with("conv1")), "{found:?}");
    for chosen in report
        .chosen
        .iter()
        .filter(|chosen| !chosen.variant.starts_with("direct"))
    {
        assert!(chosen.variant.starts_with("F("), "{chosen:?}");
        assert!(
            chosen
                .variants
                .iter()
                .any(|other| other.variant.starts_with("direct")),
            "{chosen:?}"
        );
        assert!(
            chosen.variants.iter().all(|other| other.more >= 0.0),
            "{chosen:?}"
        );
    }
    let (direct, slower) = find(false);
    assert!(forms(&direct).is_empty());
    assert!(
        slower.seconds > report.seconds,
        "{} and {}",
        slower.seconds,
        report.seconds
    );
}

/// What contractions read in vectors is an e-node beside the others, and what is rearranged for it a value with a cost: where
/// classes are too few to fill vectors, images are rearranged instead of weights.
#[test]
fn contractions_have_layouts_to_choose_from() {
    let way = |classes: usize| {
        let text = format!(
            "image = input() shape=[N, 64]\nfc.weight = parameter() shape=[{classes}, 64] init=normal std=0.1\n\
             fc = fully_connected(image, fc.weight)\noutput logits = fc\n"
        );
        let graph = ir::text::parse(&text, "one.ir").unwrap_or_else(|errors| panic!("{errors:?}"));
        let graph = training::gradients(&graph.bind(256).unwrap(), false).unwrap();
        let limits = Limits::default();
        let (found, report) =
            search(&graph, Mode::Gradients, 256, &costs(&profile()), true, &limits).unwrap();
        let chosen = report.chosen.iter().find(|chosen| chosen.label.starts_with("fc"));
        let chosen = chosen.expect("the layer is computed").clone();
        assert!(
            chosen.variants.iter().all(|other| other.more >= 0.0),
            "{chosen:?}"
        );
        let call = found.kernels.iter().find(|call| call.label == chosen.label);
        assert!(call.expect("a kernel of the program").vectors.is_some());
        chosen
    };
    let (few, many) = (way(17), way(1024));
    assert_eq!(
        few.variant, "direct, image in vectors along dimension 0, relayout",
        "{few:?}"
    );
    assert_eq!(
        many.variant, "direct, fc.weight in vectors along dimension 0, relayout",
        "{many:?}"
    );
    assert!(
        few.variants.iter().any(|other| other.variant == many.variant),
        "{few:?}"
    );
}
