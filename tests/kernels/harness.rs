//! States a case once and runs it on every device there is.

use codegen::Target;
use codegen::bridge::{GpuTarget, HostTarget};
use codegen::gpu::Precision;
use ir::interpreter::{Tensor, evaluate};
use ir::nest::{mix, uniform};
use ir::plan::{LEARNING_RATE, Mode, RANDOM_STATE, Role};
use ir::profile::Profile;
use ir::{DType, Graph, Op, text};
use passes::cost::Costs;
use passes::{DeviceKind, OptLevel, Optimizer, Options, Pass, Snapshot};
use runtime::Compiled;
use runtime::device::DeviceSpec;
use runtime::executor::Executor;
use runtime::tensor::{Data, Tensor as HostTensor};
use std::collections::{BTreeMap, HashMap};
use std::sync::OnceLock;

/// Tensors of the interface by name.
pub type Named = HashMap<String, Tensor>;

/// A network and how it is run.
#[derive(Clone, Debug)]
pub struct Case {
    /// The text of the model.
    pub text: String,
    /// Samples of one run.
    pub batch: usize,
    /// What one run does.
    pub mode: Mode,
    /// Of its numbers.
    pub seed: u64,
    /// The largest error allowed, relative to the largest magnitude expected in a tensor.
    pub tolerance: f64,
    /// Arithmetics of contractions that it is tried in on GPUs.
    pub factors: &'static [Precision],
    /// Whether no factor of a product is rounded in any of them, as multiples of 1/8 are not.
    pub exact_factors: bool,
}

/// Only f32: where values between layers have all bits of a mantissa, rounding them tells one winner of a maximum from
/// another, and gradients go elsewhere.
pub const F32: &[Precision] = &[Precision::F32];
/// Every arithmetic.
pub const EVERY: &[Precision] = &[Precision::F32, Precision::Tf32, Precision::Bf16];

/// Sums of f32 products differ from exact ones by a few units in the last place times the root of their length;
/// through a net, where magnitudes cancel, by some ten times as much.
pub const TOLERANCE: f64 = 2e-5;

/// Rounding of a gradient that cancels (that of a bias in front of batch normalisation is 0), relative to the largest
/// gradient of the run, which bounds its terms.
const CANCELLATION: f64 = 1e-6;

/// The rounding of factors, relative to the largest magnitude expected: half a unit in the last place of the mantissa
/// (10 bits of tf32, 7 of bf16) of each of two factors, whose errors partly cancel in a sum. `wgmma` of sm_90a cuts factors
/// to tf32 instead, which is up to a whole unit, always towards 0. Sums are in f32, so in f32 nothing comes on top of a
/// case's own tolerance.
pub fn rounding(gpu: &GpuTarget, precision: Precision) -> f64 {
    match precision {
        Precision::F32 => 0.0,
        Precision::Tf32 if gpu.has_warpgroups() => 2.0 / 1024.0,
        Precision::Tf32 => 2.0 / 2048.0,
        Precision::Bf16 => 2.0 / 256.0,
    }
}

/// Ways to compile a case: by optimisation level and target.
fn ways() -> Vec<(u8, Target)> {
    let gpu = |name: &str, precision: Precision| {
        let target = GpuTarget::from_name(name).expect("an architecture");
        Target::Gpu(target, precision)
    };
    vec![
        (2, Target::Host(HostTarget::native())),
        (0, Target::Host(HostTarget::native())),
        (1, Target::Host(HostTarget::avx2())),
        (2, gpu("sm_90", Precision::F32)),
        (0, gpu("sm_80", Precision::F32)),
        (2, gpu("sm_90", Precision::Tf32)),
        (2, gpu("sm_90", Precision::Bf16)),
        (2, gpu("sm_90a", Precision::Tf32)),
        (2, gpu("sm_90a", Precision::Bf16)),
    ]
}

/// How a tensor is filled.
pub type Fill = fn(name: &str, dtype: DType, extents: &[usize], seed: u64) -> Tensor;

/// Multiples of 1/8 between −1 and 1, as sums of their products are exact: no rounding decides which of two values
/// is larger, or whether one is positive. Integers are 0, 1 or 2.
pub fn eighths(name: &str, dtype: DType, extents: &[usize], seed: u64) -> Tensor {
    let stream = name.bytes().fold(0, |h, b| mix(h ^ u32::from(b)));
    let number = |i: usize| {
        let u = uniform(seed as i64, 1, stream, i as u32);
        match dtype {
            DType::F32 => (u * 17.0).floor() / 8.0 - 1.0,
            DType::I64 | DType::U8 => (u * 3.0).floor(),
        }
    };
    Tensor::new(
        dtype,
        extents,
        (0..extents.iter().product()).map(number).collect(),
    )
}

/// Numbers of 24 bits between −1 and 1. Integers are 0.
pub fn fractions(name: &str, dtype: DType, extents: &[usize], seed: u64) -> Tensor {
    let stream = name.bytes().fold(0, |h, b| mix(h ^ u32::from(b)));
    let number = |i: usize| match dtype {
        DType::F32 => uniform(seed as i64, 1, stream, i as u32) * 2.0 - 1.0,
        DType::I64 | DType::U8 => 0.0,
    };
    let count = extents.iter().product();
    Tensor::new(dtype, extents, (0..count).map(number).collect())
}

/// Multiples of 1/8 above 0, for operations that divide or take roots. Integers are 0 or 1.
pub fn positive_eighths(name: &str, dtype: DType, extents: &[usize], seed: u64) -> Tensor {
    let mut tensor = eighths(name, dtype, extents, seed);
    let change = |x: &mut f64| match dtype {
        DType::F32 => *x = x.abs() + 0.125,
        DType::I64 | DType::U8 => *x = x.min(1.0),
    };
    tensor.data.iter_mut().for_each(change);
    tensor
}

/// The devices that run a target's code and are here; of a GPU that is not, a line is printed once.
fn devices(target: &Target) -> Vec<DeviceSpec> {
    let names: &[&str] = match target {
        Target::Host(_) => &["cpu:0", "cpu"],
        Target::Gpu(..) if has_gpu() => &["sim", "cuda:0"],
        Target::Gpu(..) => &["sim"],
    };
    let spec = |name: &&str| DeviceSpec::parse(name).expect("a device of this build");
    names.iter().map(spec).collect()
}

fn has_gpu() -> bool {
    static FOUND: std::sync::OnceLock<bool> = std::sync::OnceLock::new();
    *FOUND.get_or_init(|| match (DeviceSpec::Cuda(0)).architecture() {
        Ok(_) => true,
        Err(why) => {
            println!("skipped on cuda: {why}");
            false
        }
    })
}

/// Compares a case with the interpreter, compiled in every way, on every device.
pub fn check(case: &Case) {
    check_filled(case, eighths);
}

/// The same with other numbers.
pub fn check_filled(case: &Case, fill: Fill) {
    check_ways(case, fill, &ways(), &passes::pipeline);
}

/// Makes the passes of a way to compile.
pub type Pipeline<'p> = &'p dyn Fn(&Options<'static>) -> Vec<Pass<'static>>;

/// The same with other passes, on processors only.
pub fn check_passes(case: &Case, fill: Fill, pipeline: Pipeline) {
    let mut ways = ways();
    ways.retain(|(opt_level, target)| *opt_level > 0 && matches!(target, Target::Host(_)));
    check_ways(case, fill, &ways, pipeline);
}

fn check_ways(case: &Case, fill: Fill, ways: &[(u8, Target)], pipeline: Pipeline) {
    let source = parse(&case.text);
    let mut reference: Option<(Named, Named)> = None;
    for (opt_level, target) in ways.iter().cloned() {
        let extra = match &target {
            Target::Host(_) => 0.0,
            Target::Gpu(gpu, precision) if case.factors.contains(precision) => rounding(gpu, *precision),
            Target::Gpu(..) => continue,
        };
        let (whole, compiled) = compile(&source, case, opt_level, &target, pipeline);
        let (given, expected) = reference.get_or_insert_with(|| {
            let given = leaves(&whole, case.seed, fill);
            let expected = interpret(&whole, &given);
            (given, expected)
        });
        let mut first: Option<BTreeMap<String, HostTensor>> = None;
        for device in devices(&target) {
            let what = describe(case, opt_level, &target, &device);
            let found = execute(&compiled, &device, given, &what);
            let gradients = expected.iter().filter(|(name, _)| name.starts_with("grad."));
            let cancelled = CANCELLATION * largest(gradients.map(|(_, gradient)| gradient));
            for (name, tensor) in &found {
                let expected = &expected[name];
                let factors = if case.exact_factors { 0.0 } else { extra };
                let allowed = ((case.tolerance + factors) * largest([expected])).max(cancelled);
                compare(tensor, expected, allowed, &format!("{what}: {name}"));
            }
            // Bit for bit on processors, whatever the number of threads.
            if let Target::Gpu(..) = target {
                continue;
            }
            let first = first.get_or_insert_with(|| found.clone());
            assert!(
                bits(&found) == bits(first),
                "{what}: differs from one core's result"
            );
        }
    }
}

/// A case, and the commands that look at its kernels one by one, each against exact references.
fn describe(case: &Case, opt_level: u8, target: &Target, device: &DeviceSpec) -> String {
    let (name, precision) = match target {
        Target::Host(host) if host.cpu.starts_with("x86") => ("avx2", "f32"),
        Target::Host(_) => ("cpu", "f32"),
        Target::Gpu(gpu, precision) => (gpu.architecture, precision.name()),
    };
    let (mode, batch, seed, text) = (case.mode, case.batch, case.seed, &case.text);
    let compiled = if mode == Mode::Infer { "infer" } else { "train" };
    format!(
        "{mode:?} at batch {batch}, seed {seed}, for {name} in {precision} on {device}; with this as case.ir:\n{text}\n\
         alexc compile case.ir --mode {compiled} --batch {batch} --opt-level {opt_level} --target {name} \
         --precision {precision} --with-cases -o case.alx && alexrun check case.alx --devices {device}\n"
    )
}

/// The largest magnitude in a model's outputs, by the interpreter.
pub fn largest_output(text: &str, batch: usize, seed: u64) -> f64 {
    let graph = passes::training::inference(&parse(text).bind(batch).expect("the batch binds"));
    let graph = graph.expect("the model can be run");
    let outputs = interpret(&graph, &leaves(&graph, seed, eighths));
    largest(graph.outputs().iter().map(|(name, _)| &outputs[name]))
}

/// The largest finite magnitude.
pub fn largest<'a>(tensors: impl IntoIterator<Item = &'a Tensor>) -> f64 {
    let numbers = tensors.into_iter().flat_map(|tensor| &tensor.data);
    let finite = numbers.filter(|x| x.is_finite());
    finite.fold(0.0, |largest, x| largest.max(x.abs()))
}

pub fn parse(source: &str) -> Graph {
    text::parse(source, "case.ir")
        .unwrap_or_else(|errors| panic!("{source}\n{}", text::render(&errors, source, false)))
}

/// What a search counts with: the figures of a machine of the target's kind.
fn costs(target: &Target) -> &'static [Costs<'static>] {
    static COSTS: OnceLock<[Costs<'static>; 2]> = OnceLock::new();
    let costs = COSTS.get_or_init(|| {
        ["cpu2", "h200"].map(|name| {
            let profile = Profile::shipped(name).expect("this profile ships");
            Costs {
                profile: Box::leak(Box::new(profile)),
                precision: Precision::F32,
                times: None,
            }
        })
    });
    match target {
        Target::Host(_) => &costs[..1],
        Target::Gpu(..) => &costs[1..],
    }
}

/// The graph of the whole run before it was optimised, and the program.
fn compile(
    source: &Graph,
    case: &Case,
    opt_level: u8,
    target: &Target,
    pipeline: Pipeline,
) -> (Graph, Compiled) {
    let options = Options {
        mode: case.mode,
        batch: case.batch,
        optimizer: Optimizer {
            momentum: 0.5,
            weight_decay: 0.25,
            bias_lr_factor: 2.0,
            bias_weight_decay: 0.0,
            dropout: true,
        },
        opt_level: match opt_level {
            0 => OptLevel::None,
            1 => OptLevel::Greedy(costs(target)),
            _ => OptLevel::Search(costs(target)),
        },
        machine: match target {
            Target::Host(_) => DeviceKind::Cpu,
            Target::Gpu(..) => DeviceKind::Gpu,
        },
        micro_batch_bytes: 1 << (case.seed % 3 * 10),
        ..Options::default()
    };
    let mut whole = None;
    let program = passes::run(&pipeline(&options), source, &mut |pass, stage| {
        if let (Snapshot::Graph(graph), true) = (stage, pass != "simplify") {
            whole = Some(graph.clone());
        }
    })
    .unwrap_or_else(|error| panic!("{}\n{error}", case.text));
    let targets = std::slice::from_ref(target);
    let compiled =
        codegen::compile(&program, targets, false).unwrap_or_else(|error| panic!("{}\n{error}", case.text));
    compiled.plan.check().expect("codegen makes sound plans");
    let program = alexc::compile::program_of(compiled, targets, String::new());
    (whole.expect("the pipeline has passes over graphs"), program)
}

fn leaves(graph: &Graph, seed: u64, fill: Fill) -> Named {
    let leaves = graph.select(Op::is_leaf).into_iter().map(|id| graph.node(id));
    leaves
        .map(|node| {
            let extents = node.ty.extents();
            let tensor = match &node.name[..] {
                RANDOM_STATE => Tensor::new(DType::I64, &extents, vec![seed as f64, 3.0]),
                LEARNING_RATE => Tensor::f32(&extents, vec![0.125]),
                name => fill(name, node.ty.dtype, &extents, seed),
            };
            (node.name.clone(), tensor)
        })
        .collect()
}

/// What a graph leaves behind, straight from the meaning of its operations.
fn interpret(graph: &Graph, given: &Named) -> Named {
    let values = evaluate(graph, given).expect("the case can be interpreted");
    let parameters = graph.select(|op| matches!(op, Op::Parameter(_))).into_iter();
    let kept = parameters.map(|id| (graph.node(id).name.clone(), id));
    let outputs = graph.outputs().iter().map(|(name, id)| (name.clone(), *id));
    let updates = graph
        .updates()
        .iter()
        .map(|&(state, next)| (graph.node(state).name.clone(), next));
    kept.chain(outputs)
        .chain(updates)
        .map(|(name, id)| (name, values[id].clone()))
        .collect()
}

/// Runs a program once, everything that it should write poisoned before; gives what it leaves behind.
fn execute(
    program: &Compiled,
    device: &DeviceSpec,
    given: &Named,
    what: &str,
) -> BTreeMap<String, HostTensor> {
    let mut executor = Executor::new(program, std::slice::from_ref(device))
        .unwrap_or_else(|error| panic!("{what}\n{error}"));
    executor.set_poison(true);
    let is_set = |role: &Role| {
        matches!(
            role,
            Role::Input { .. } | Role::Parameter { .. } | Role::State { .. }
        )
    };
    for name in executor.names(is_set) {
        executor
            .set(&name, &host(&given[&name]))
            .expect("the case fits its program");
    }
    executor.run().unwrap_or_else(|error| panic!("{what}\n{error}"));
    let is_left = |role: &Role| {
        matches!(
            role,
            Role::Output { .. } | Role::Parameter { .. } | Role::State { .. }
        )
    };
    let names = executor.names(is_left);
    names
        .into_iter()
        .map(|name| {
            let tensor = executor.get(&name).expect("what was listed is there");
            (name, tensor)
        })
        .collect()
}

fn host(tensor: &Tensor) -> HostTensor {
    let data = match tensor.dtype {
        DType::F32 => Data::F32(tensor.data.iter().map(|&x| x as f32).collect()),
        DType::I64 => Data::I64(tensor.data.iter().map(|&x| x as i64).collect()),
        DType::U8 => Data::U8(tensor.data.iter().map(|&x| x as u8).collect()),
    };
    HostTensor::new(tensor.extents.clone(), data).expect("a tensor has its elements")
}

fn bits(tensors: &BTreeMap<String, HostTensor>) -> Vec<(&str, &[u8])> {
    tensors
        .iter()
        .map(|(name, tensor)| (&name[..], tensor.bytes()))
        .collect()
}

/// Panics where an element is further from what is expected than is allowed. NaN and ±∞ must be met.
pub fn compare(found: &HostTensor, expected: &Tensor, allowed: f64, what: &str) {
    assert_eq!(found.shape(), expected.extents, "{what}");
    let found: Vec<f64> = match found.data() {
        Data::F32(values) => values.iter().map(|&x| f64::from(x)).collect(),
        Data::I64(values) => values.iter().map(|&x| x as f64).collect(),
        Data::U8(values) => values.iter().map(|&x| f64::from(x)).collect(),
    };
    for (i, (&found, &expected)) in found.iter().zip(&expected.data).enumerate() {
        let close = (found - expected).abs() <= allowed;
        let same = found == expected || (found.is_nan() && expected.is_nan());
        assert!(
            close || same,
            "{what}: element {i} is {found} instead of {expected} (allowed: {allowed})"
        );
    }
}

/// So many random cases, or as many as `PROPTEST_CASES` says.
pub fn cases(count: u32) -> proptest::test_runner::Config {
    let mut config = proptest::test_runner::Config::default();
    if std::env::var_os("PROPTEST_CASES").is_none() {
        config.cases = count;
    }
    config.failure_persistence = None;
    config.max_shrink_iters = 200;
    config
}
