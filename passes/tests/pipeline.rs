//! The pipeline as a whole: what it makes of the models, and what it says when a pass breaks something.
//!
//! `BLESS=1 cargo test -p alexc-passes --test pipeline` writes the golden listings anew.

use ir::Graph;
use ir::graph::Builder;
use ir::plan::{Mode, Role};
use ir::program::Program;
use passes::{OptLevel, Optimizer, Options, Pass, PassError, Snapshot, compile, memory, pipeline, run};
use std::collections::BTreeSet;
use std::path::Path;

const MODES: [Mode; 3] = [Mode::Infer, Mode::Gradients, Mode::Train];

fn model(name: &str) -> Graph {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models").join(name);
    let text = std::fs::read_to_string(&path).expect("the models are part of the repository");
    ir::text::parse(&text, name).expect("the models parse")
}

fn options(mode: Mode, batch: usize) -> Options<'static> {
    Options {
        mode,
        batch,
        optimizer: Optimizer::default(),
        opt_level: OptLevel::greedy(passes::DeviceKind::Cpu),
        machine: passes::DeviceKind::Cpu,
        ..Options::default()
    }
}

/// The program after the pass with this name.
fn after(pass: &str, graph: &Graph, options: &Options) -> Program {
    let mut found = None;
    let result = compile(graph, options, &mut |name, stage| match stage {
        Snapshot::Program(program) if name == pass => found = Some(program.clone()),
        _ => {}
    });
    result.expect("the models compile");
    found.expect("the pipeline has this pass")
}

/// A kernel a line: its label, how often it runs if in micro-batches, and the values it stores.
fn listing(program: &Program) -> String {
    let line = |kernel: &ir::program::Kernel| {
        let results: Vec<&str> = kernel
            .results
            .iter()
            .map(|&v| &program.value(v).name[..])
            .collect();
        let micro_batches = match kernel.micro_batches() {
            1 => String::new(),
            micro_batches => format!(" in {micro_batches} micro-batches"),
        };
        format!("{}{micro_batches} -> {}\n", kernel.label, results.join(" "))
    };
    program.kernels.iter().map(line).collect()
}

#[test]
fn alexnet_becomes_these_kernels() {
    for (file, mode) in [("alexnet-train", Mode::Train), ("alexnet-infer", Mode::Infer)] {
        let found = listing(&after("micro-batches", &model("alexnet.ir"), &options(mode, 128)));
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/golden/{file}.txt"));
        if std::env::var_os("BLESS").is_some() {
            std::fs::write(&path, &found).expect("a golden text can be written");
        }
        let expected = std::fs::read_to_string(&path).unwrap_or_default();
        assert_eq!(found, expected, "{file}; BLESS=1 accepts what was found");
    }
}

#[test]
fn a_training_step_stores_no_gradient_of_a_weight() {
    let program = after("schedule", &model("alexnet.ir"), &options(Mode::Train, 128));
    let stored: BTreeSet<&str> = program.values.iter().map(|v| &v.name[..]).collect();
    for layer in ["conv1", "conv2", "conv3", "conv4", "conv5", "fc6", "fc7", "fc8"] {
        assert!(
            stored.contains(format!("{layer}.weight.next").as_str()),
            "{layer} is updated"
        );
        for gradient in ["grad_weight", "grad_b", "sum.grad_bias"] {
            assert!(
                !stored.contains(format!("{layer}.{gradient}").as_str()),
                "{layer}.{gradient} is stored"
            );
        }
    }
    for value in program.values.iter().filter(|v| v.name.ends_with(".next")) {
        let owner = program.value(value.alias.expect("an update shares its parameter's buffer"));
        assert_eq!(Some(&owner.name[..]), value.name.strip_suffix(".next"));
    }
}

#[test]
fn floating_point_operations_are_those_of_the_paper() {
    let program = after("memory", &model("alexnet.ir"), &options(Mode::Infer, 8));
    assert_eq!(program.flops, 2 * 8 * 724_406_816);
    // Backward every contraction twice, but for the gradient of the image.
    let program = after("memory", &model("alexnet.ir"), &options(Mode::Train, 8));
    assert_eq!(program.flops, 2 * 8 * (3 * 724_406_816 - 105_415_200));
}

#[test]
fn arenas_are_within_two_percent_of_the_bound() {
    for name in ["alexnet.ir", "alexnet-owt.ir", "alexnet-cifar.ir"] {
        for mode in MODES {
            let mut program = after("layout", &model(name), &options(mode, 128));
            let packing = memory::plan(&mut program);
            let (arena, bound) = (packing.arena_bytes, packing.lower_bound);
            assert!(
                arena as f64 <= 1.02 * bound as f64,
                "{name} {mode:?}: {arena} bytes, bound {bound}"
            );
        }
    }
}

#[test]
fn the_interface_is_the_same_at_every_level() {
    let interface = |opt_level: OptLevel<'static>| {
        let options = Options {
            opt_level,
            machine: passes::DeviceKind::Cpu,
            ..options(Mode::Train, 2)
        };
        let program = after("memory", &model("alexnet-cifar.ir"), &options);
        let named = |v: &ir::program::Value| (v.name.clone(), format!("{:?}", v.role));
        let of_interface = |v: &&ir::program::Value| v.role.shape().is_some();
        program
            .values
            .iter()
            .filter(of_interface)
            .map(named)
            .collect::<BTreeSet<_>>()
    };
    let unfused = interface(OptLevel::None);
    assert_eq!(unfused, interface(OptLevel::greedy(passes::DeviceKind::Cpu)));
    let states = unfused
        .iter()
        .filter(|(_, role)| role.starts_with("State"))
        .count();
    let parameters = unfused
        .iter()
        .filter(|(_, role)| role.starts_with("Parameter"))
        .count();
    assert_eq!((states, parameters), (10, 10));
    for name in [
        "image",
        "labels",
        "train.random_state",
        "train.learning_rate",
        "logits",
        "loss",
    ] {
        assert!(unfused.iter().any(|(n, _)| n == name), "{name} is missing");
    }
}

#[test]
fn every_stage_is_shown_with_its_name() {
    let mut names = vec![];
    compile(
        &model("alexnet-cifar.ir"),
        &options(Mode::Train, 2),
        &mut |name, _| names.push(name.to_string()),
    )
    .unwrap();
    assert_eq!(
        names,
        [
            "bind",
            "training",
            "simplify",
            "search",
            "search",
            "schedule",
            "algorithm",
            "reschedule",
            "layout",
            "rematerialize",
            "micro-batches",
            "memory"
        ]
    );
}

/// What the pipeline says when a pass is put into it after the one named.
fn with_pass(at: &str, pass: Pass<'static>) -> PassError {
    let options = options(Mode::Train, 2);
    let mut passes = pipeline(&options);
    let position = passes
        .iter()
        .position(|p| p.name() == at)
        .expect("the pipeline has this pass");
    passes.insert(position + 1, pass);
    let mut seen = vec![];
    let error = run(&passes, &model("alexnet-cifar.ir"), &mut |name, _| {
        seen.push(name.to_string())
    });
    assert_eq!(
        seen.last().map(|s| &s[..]),
        Some(at),
        "the pass before is the last one that is shown"
    );
    error.expect_err("the pass breaks something")
}

#[test]
fn a_broken_graph_pass_is_named() {
    let forgetful = |graph: &Graph| Ok(Builder::extend(graph).finish());
    let error = with_pass("simplify", Pass::Graph("forgetful", Box::new(forgetful)));
    let PassError::Broken {
        pass: "forgetful",
        faults,
    } = error
    else {
        panic!("{error}")
    };
    assert_eq!(
        faults,
        ["alexnet-cifar: the graph has neither outputs nor updates"]
    );
}

#[test]
fn a_broken_program_pass_is_named_with_its_kernel() {
    let faults = |at, change: fn(&mut Program)| {
        let broken = move |mut program: Program| {
            change(&mut program);
            program
        };
        let error = with_pass(at, Pass::Program("clumsy", Box::new(broken)));
        let PassError::Broken {
            pass: "clumsy",
            faults,
        } = error
        else {
            panic!("{error}")
        };
        faults.concat()
    };
    assert_eq!(
        faults("search", |program| program.kernels.reverse()),
        "conv1.grad_weight+conv1.weight.step+conv1.weight.update: reads relu1.grad before it is written"
    );
    assert_eq!(
        faults("search", |program| program.kernels.truncate(1)),
        "the output logits is never written"
    );
    assert_eq!(
        faults("schedule", |program| {
            let first = program.kernels.iter_mut().find(|k| k.label.starts_with("conv1+"));
            first.unwrap().nest.reads[0].index.truncate(2);
        }),
        "conv1+conv1.sum: image is read with 2 indices"
    );
    assert_eq!(
        faults("schedule", |program| {
            let position = |program: &Program, node: &str| {
                let begins = |k: &ir::program::Kernel| k.label.starts_with(node);
                program.kernels.iter().position(begins).unwrap()
            };
            let update = program.kernels.remove(position(program, "fc5.grad_b"));
            let reader = position(program, "fc5.grad_a");
            program.kernels.insert(reader, update);
        }),
        "fc5.grad_b+fc5.weight.step+fc5.weight.update: runs before \
         fc5.grad_a+drop4.grad_a+relu4.grad, which it waits for"
    );
    assert_eq!(
        faults("memory", |program| {
            let output = program
                .values
                .iter()
                .position(|v| matches!(v.role, Role::Output { .. }))
                .unwrap();
            let writer = program
                .kernels
                .iter()
                .position(|k| k.results.iter().any(|r| r.0 == output))
                .unwrap();
            program.kernels[writer].results.clear();
        })
        .split(": ")
        .last(),
        Some("0 results for 1 outputs")
    );
}

#[test]
fn a_pipeline_that_leads_nowhere_is_refused() {
    let graph = model("alexnet-cifar.ir").bind(2).unwrap();
    let refused = |passes: &[Pass]| {
        run(passes, &graph, &mut |_, _| {})
            .expect_err("it leads nowhere")
            .to_string()
    };
    let schedule = || Pass::Program("schedule", Box::new(|p| p));
    assert!(refused(&[]).starts_with("after the pass lower: is missing"));
    assert!(refused(&[schedule()]).starts_with("after the pass schedule: runs on the wrong side"));
}
