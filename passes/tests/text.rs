//! Passes on small texts, one concern a file: `text/NAME.txt` holds a header, a graph or program, and what becomes of it.
//!
//! `BLESS=1 cargo test -p alexc-passes --test text` writes what becomes of them anew. The parts of a file stand between lines
//! of three dashes. Its header begins with a comment that says what is to be seen; then come the options:
//!
//! | option | says |
//! |---|---|
//! | `passes: NAME ...` | the passes that run, in the order of the pipeline |
//! | `through: NAME` | instead: all passes up to this one |
//! | `mode:`, `batch:`, `level:` | as `alexc compile` takes them; without them `infer`, 2 and 1 |
//! | `machine: cpu`, `second: cpu` | what kind of devices there are, `cpu` or `gpu` |
//! | `micro_batch_bytes: N` | the bytes of a micro-batch |
//! | `profile: NAME` | what a search counts with; without it `cpu2` |
//! | `place: NODE=PLACE ...` | the placement of the kernel that begins with a node: `on:0`, `everywhere`, `parallel:1` for a parallel loop, `reduction:0` for a loop of the reduction |
//! | `show: WORD ...` | `full` (default), or of programs `values`, `kernels`, `loops` or `labels` |
//! | `only: WORD ...` | of those the ones that contain one of the words |

mod common;

use common::{OPTIMIZER, assert_read_back};
use ir::Graph;
use ir::nest::Loop;
use ir::plan::Mode;
use ir::profile::{Precision, Profile};
use ir::program::text::{kernel, value};
use ir::program::{DeviceId, Kernel, Program, ValueId};
use passes::cost::Costs;
use passes::partition::{Placement, Strategy, partition};
use passes::{DeviceKind, OptLevel, Options, Pass, Snapshot, compile, pipeline, schedule};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;

/// The options of a file, by name.
type Header<'a> = BTreeMap<&'a str, &'a str>;

/// What a pass runs on.
enum Subject {
    Graph(Graph),
    Program(Program),
}

#[test]
fn passes_make_of_texts_what_their_files_say() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/text");
    let files = std::fs::read_dir(&folder).expect("the texts are part of the repository");
    let mut files: Vec<_> = files
        .map(|file| file.expect("a folder can be listed").path())
        .collect();
    files.sort();
    assert!(files.len() > 30, "only {} texts", files.len());
    let mut differences = String::new();
    for path in files {
        let name = path
            .file_name()
            .expect("a listed file has a name")
            .to_string_lossy();
        let source = std::fs::read_to_string(&path).expect("a text can be read");
        let parts: Vec<&str> = source.splitn(3, "\n---\n").collect();
        let [header, input, expected] = parts[..] else {
            panic!("{name}: a file has three parts between lines of three dashes")
        };
        assert!(header.starts_with("# "), "{name}: begins with what is to be seen");
        let found = made(&name, header, &format!("{input}\n"));
        if found == expected {
            continue;
        }
        if std::env::var_os("BLESS").is_some() {
            let blessed = [header, input, &found].join("\n---\n");
            std::fs::write(&path, blessed).expect("a text can be written");
        } else {
            differences += &format!("{name}:\n{}\n", diff(expected, &found));
        }
    }
    assert!(
        differences.is_empty(),
        "{differences}BLESS=1 accepts what was found"
    );
}

/// What the passes that a header names make of an input.
fn made(name: &str, header: &str, input: &str) -> String {
    let lines = header.lines().filter(|line| !line.starts_with('#'));
    let header: Header = lines
        .map(|line| {
            let (key, value) = line
                .split_once(": ")
                .unwrap_or_else(|| panic!("{name}: {line} is no option"));
            (key, value)
        })
        .collect();
    let profile = Profile::shipped(header.get("profile").unwrap_or(&"cpu2")).expect("this profile ships");
    let costs = [Costs {
        profile: &profile,
        precision: Precision::F32,
        times: None,
    }; 2];
    let options = options(name, &header, &costs);
    let passes = pipeline(&options);
    let known: Vec<&str> = passes.iter().map(Pass::name).collect();
    let wanted: Vec<&str> = match (header.get("passes"), header.get("through")) {
        (Some(names), None) => names.split(' ').collect(),
        (None, Some(last)) => {
            let end = known.iter().position(|pass| pass == last);
            known[..=end.unwrap_or_else(|| panic!("{name}: {last} is none of {known:?}"))].to_vec()
        }
        _ => panic!("{name}: either passes or through"),
    };
    for pass in &wanted {
        assert!(known.contains(pass), "{name}: {pass} is none of {known:?}");
    }
    let mut subject = match input.starts_with("program ") {
        true => Subject::Program(parse_program(name, input)),
        false => Subject::Graph(
            ir::text::parse(input, name)
                .unwrap_or_else(|errors| panic!("{}", ir::text::render(&errors, input, false))),
        ),
    };
    for pass in passes.iter().filter(|pass| wanted.contains(&pass.name())) {
        subject = run(name, pass, subject, &header);
    }
    shown(&subject, &header)
}

fn options<'a>(name: &str, header: &Header, costs: &'a [Costs<'a>; 2]) -> Options<'a> {
    let machine = |word: &str| match word {
        "cpu" => DeviceKind::Cpu,
        "gpu" => DeviceKind::Gpu,
        other => panic!("{name}: {other} is no machine"),
    };
    let mut level = 1;
    let mut options = Options {
        batch: 2,
        optimizer: OPTIMIZER,
        ..Options::default()
    };
    for (&key, &text) in header {
        let number = || -> u64 { text.parse().unwrap_or_else(|_| panic!("{name}: {key}: {text}")) };
        match key {
            "mode" => {
                options.mode = match text {
                    "infer" => Mode::Infer,
                    "train" => Mode::Train,
                    "gradients" => Mode::Gradients,
                    other => panic!("{name}: {other} is no mode"),
                }
            }
            "batch" => options.batch = number() as usize,
            "level" => level = number(),
            "machine" => options.machine = machine(text),
            "second" => options.second = Some(machine(text)),
            "micro_batch_bytes" => options.micro_batch_bytes = number(),
            "passes" | "through" | "show" | "only" | "place" | "profile" => {}
            other => panic!("{name}: {other} is no option"),
        }
    }
    let devices = 1 + usize::from(options.second.is_some());
    options.opt_level = opt_level(level, &costs[..devices]);
    options
}

fn opt_level<'a>(number: u64, costs: &'a [Costs<'a>]) -> OptLevel<'a> {
    match number {
        0 => OptLevel::None,
        1 => OptLevel::Greedy(costs),
        2 => OptLevel::Search(costs),
        other => panic!("{other} is no opt level"),
    }
}

/// What a pass makes of a graph or program; what it makes must verify, and its text must say all of it.
fn run(name: &str, pass: &Pass, subject: Subject, header: &Header) -> Subject {
    let at = format!("{name} after {}", pass.name());
    let program = match (pass, subject) {
        (Pass::Graph(_, change), Subject::Graph(graph)) => {
            let graph = change(&graph).unwrap_or_else(|error| panic!("{at}: {error}"));
            ir::verify::verify(&graph).unwrap_or_else(|faults| panic!("{at}: {faults:?}"));
            return Subject::Graph(graph);
        }
        (Pass::Lower(_, lower), Subject::Graph(graph)) => {
            lower(&graph).unwrap_or_else(|error| panic!("{at}: {error}"))
        }
        (Pass::Search(_, search), Subject::Graph(graph)) => {
            search(&graph).unwrap_or_else(|error| panic!("{at}: {error}")).0
        }
        (Pass::Program("partition", _) | Pass::Place(..), Subject::Program(program))
            if header.contains_key("place") =>
        {
            let strategy = strategy(name, &program, header["place"]);
            partition(&program, &strategy).unwrap_or_else(|fault| panic!("{at}: {fault}"))
        }
        (Pass::Program(_, change), Subject::Program(program)) => change(program),
        (Pass::Place(_, place), Subject::Program(program)) => {
            partition(&program, &place(&program).strategy).unwrap_or_else(|fault| panic!("{at}: {fault}"))
        }
        (Pass::Program(..) | Pass::Place(..), Subject::Graph(_)) => panic!("{at}: needs a program"),
        (_, Subject::Program(_)) => panic!("{at}: needs a graph"),
    };
    check(&at, &program);
    Subject::Program(program)
}

/// Checks that a program verifies and that its text says all of it.
fn check(at: &str, program: &Program) {
    let verified = program.verify().and_then(|()| schedule::verify(program));
    verified.unwrap_or_else(|fault| panic!("{at}: {fault}"));
    assert_read_back(program, at);
}

fn parse_program(name: &str, text: &str) -> Program {
    ir::program::text::parse(text, name)
        .unwrap_or_else(|errors| panic!("{}", ir::text::render(&errors, text, false)))
}

/// The placement of every kernel: as a header says by the node that it begins with, else on the first device.
fn strategy(name: &str, program: &Program, places: &str) -> Strategy {
    let places: BTreeMap<&str, &str> = places
        .split(' ')
        .map(|place| {
            place
                .split_once('=')
                .unwrap_or_else(|| panic!("{name}: {place} is no place"))
        })
        .collect();
    let first = Placement::Single(DeviceId(0));
    let placement = |call: &Kernel| {
        let node = call.label.split('+').next().unwrap_or_default();
        let place = places.get(node).copied().unwrap_or("on:0");
        let (kind, number) = place.split_once(':').unwrap_or((place, "0"));
        let number: usize = number.parse().unwrap_or_else(|_| panic!("{name}: {place}"));
        match kind {
            "on" => Placement::Single(DeviceId(number)),
            "everywhere" => Placement::Replicated,
            "parallel" => Placement::Sharded(Loop(number)),
            "reduction" => Placement::Partial(call.nest.reduction_loop(number), Box::new(first.clone())),
            other => panic!("{name}: {other} is no kind of place"),
        }
    };
    Strategy {
        shares: vec![1, 1],
        kernels: program.kernels.iter().map(placement).collect(),
    }
}

/// What a header asks to be shown.
fn shown(subject: &Subject, header: &Header) -> String {
    let program = match subject {
        Subject::Graph(graph) => return ir::text::print(graph),
        Subject::Program(program) => program,
    };
    let mut text = String::new();
    for word in header.get("show").unwrap_or(&"full").split(' ') {
        let ids = || (0..program.values.len()).map(ValueId);
        let items: Vec<String> = match word {
            "full" => vec![ir::program::text::print(program)],
            "values" => ids().map(|id| value(program, id)).collect(),
            "kernels" => program.kernels.iter().map(|call| kernel(program, call)).collect(),
            "loops" => program
                .kernels
                .iter()
                .map(|call| label(program, call, true))
                .collect(),
            "labels" => program
                .kernels
                .iter()
                .map(|call| label(program, call, false))
                .collect(),
            other => panic!("{other} cannot be shown"),
        };
        let only: Vec<&str> = header
            .get("only")
            .map_or(vec![], |words| words.split(' ').collect());
        let is_shown = |item: &&String| only.is_empty() || only.iter().any(|word| item.contains(word));
        text.extend(items.iter().filter(is_shown).map(|item| &item[..]));
    }
    text
}

/// A kernel on one line, with names instead of numbers: its label, what it reads and writes, its attributes, its loops.
fn label(program: &Program, call: &Kernel, with_loops: bool) -> String {
    let names = |ids: &[ValueId]| {
        let names: Vec<String> = ids
            .iter()
            .map(|&id| match program.value(id).device.0 {
                0 => program.value(id).name.clone(),
                device => format!("{} on {device}", program.value(id).name),
            })
            .collect();
        names.join(", ")
    };
    let mut line = format!(
        "{}: ({}) -> ({})",
        call.label,
        names(&call.operands),
        names(&call.results)
    );
    let block = kernel(program, call);
    let mut lines = block.lines();
    let header = lines.next().expect("a kernel has a header");
    let results = header.rsplit_once("-> (").map_or("", |parts| parts.1);
    let attributes = results.split_once(')').map_or("", |parts| parts.1);
    line += attributes;
    if with_loops {
        let loops = lines.next().expect("a kernel has loops");
        _ = write!(line, " {}", loops.trim_start());
    }
    line + "\n"
}

/// The lines that two texts do not share in order, with `-` or `+` before them.
fn diff(expected: &str, found: &str) -> String {
    let (old, new): (Vec<&str>, Vec<&str>) = (expected.lines().collect(), found.lines().collect());
    let mut longest = vec![vec![0; new.len() + 1]; old.len() + 1];
    for i in (0..old.len()).rev() {
        for j in (0..new.len()).rev() {
            longest[i][j] = match old[i] == new[j] {
                true => longest[i + 1][j + 1] + 1,
                false => longest[i + 1][j].max(longest[i][j + 1]),
            };
        }
    }
    let (mut i, mut j) = (0, 0);
    let mut text = String::new();
    while i < old.len() || j < new.len() {
        if i < old.len() && j < new.len() && old[i] == new[j] {
            text += &format!("  {}\n", old[i]);
            (i, j) = (i + 1, j + 1);
        } else if j == new.len() || (i < old.len() && longest[i + 1][j] >= longest[i][j + 1]) {
            text += &format!("- {}\n", old[i]);
            i += 1;
        } else {
            text += &format!("+ {}\n", new[j]);
            j += 1;
        }
    }
    text
}

#[test]
fn a_difference_shows_the_lines_that_changed() {
    assert_eq!(diff("a\nb\nc\n", "a\nx\nc\nd\n"), "  a\n- b\n+ x\n  c\n+ d\n");
}

#[test]
fn programs_of_the_models_are_read_back() {
    let profile = Profile::shipped("cpu2").expect("this profile ships");
    let costs = [Costs {
        profile: &profile,
        precision: Precision::F32,
        times: None,
    }; 2];
    let cases = [
        ("alexnet-cifar", Mode::Train, 2, Some(DeviceKind::Cpu)),
        ("alexnet-cifar", Mode::Gradients, 2, None),
        ("alexnet-owt", Mode::Infer, 2, None),
        ("alexnet", Mode::Train, 1, Some(DeviceKind::Gpu)),
        ("alexnet", Mode::Train, 2, None),
        ("alexnet", Mode::Infer, 0, None),
    ];
    for (model, mode, level, second) in cases {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../models/{model}.ir"));
        let text = std::fs::read_to_string(path).expect("the models are part of the repository");
        let graph = ir::text::parse(&text, model).expect("the models parse");
        let options = Options {
            mode,
            batch: 128,
            opt_level: opt_level(level, &costs[..1 + usize::from(second.is_some())]),
            second,
            ..Options::default()
        };
        let mut programs = 0;
        let mut observe = |pass: &str, stage: Snapshot| {
            if let Snapshot::Program(program) = stage {
                check(&format!("{model} after {pass}"), program);
                programs += 1;
            }
        };
        compile(&graph, &options, &mut observe).expect("the models compile");
        assert!(programs > 2, "{model}: {programs}");
    }
}
