//! Random instances of every operation.
//!
//! Operations of a model are sampled as text with random shapes and attributes; what does not fit is drawn
//! again. Operations that only gradients contain are taken from the gradient of a sampled one.

use crate::differentiate::backward;
use ir::graph::Builder;
use ir::interpreter::Tensor;
use ir::ops::Input;
use ir::{DType, Graph, NodeId, Op, Type, text};

/// A sequence of random numbers (SplitMix64), so that a failure repeats.
pub struct Rng(u64);

impl Rng {
    pub fn new(seed: u64) -> Rng {
        Rng(seed.wrapping_mul(0x2545_f491_4f6c_dd1d))
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let x = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    }

    /// An integer of `low..=high`.
    pub fn from(&mut self, low: usize, high: usize) -> usize {
        low + (self.next() % (high - low + 1) as u64) as usize
    }

    pub fn flag(&mut self) -> bool {
        self.next() & 1 == 1
    }

    /// A number of `low..high` with four decimals, as a model would write it.
    fn real(&mut self, low: f64, high: f64) -> f64 {
        let fraction = (self.next() >> 11) as f64 / (1u64 << 53) as f64;
        ((low + (high - low) * fraction) * 1e4).round() / 1e4
    }

    fn list(&mut self, count: usize, low: usize, high: usize) -> Vec<usize> {
        (0..count).map(|_| self.from(low, high)).collect()
    }
}

/// An operation with the types of its operands, the batch still symbolic.
#[derive(Clone, Debug)]
pub struct Sample {
    pub op: Op,
    pub operands: Vec<Type>,
}

impl Sample {
    fn of(graph: &Graph, id: NodeId) -> Sample {
        let operands = graph.operand_types(id).into_iter().cloned().collect();
        Sample {
            op: graph.node(id).op.clone(),
            operands,
        }
    }

    /// A graph of inputs `x0`, `x1`, ... and the operation on them, `y`, for a batch.
    pub fn graph(&self, batch: usize) -> Graph {
        let mut builder = Builder::new("sample");
        let operands: Vec<NodeId> = self
            .operands
            .iter()
            .enumerate()
            .map(|(i, ty)| {
                let ty = ty.bind(batch);
                let input = Input {
                    shape: ty.shape,
                    dtype: ty.dtype,
                };
                builder
                    .add(&format!("x{i}"), input, &[])
                    .expect("inputs of bound types are sound")
            })
            .collect();
        let y = builder
            .add("y", self.op.bind(batch), &operands)
            .unwrap_or_else(|error| panic!("{self:?} for a batch of {batch}: {error}"));
        builder.output("y", y).expect("the name is free");
        builder.finish()
    }

    /// Values for operand `i`, as [`Sample::graph`] takes them. No two are closer than 1/n of their range, and
    /// none is 0, so that small steps cross neither ties nor the kink of a rectifier.
    pub fn values(&self, i: usize, batch: usize, rng: &mut Rng) -> Tensor {
        let ty = self.operands[i].bind(batch);
        let (extents, n) = (ty.extents(), ty.elements());
        let mut order: Vec<usize> = (0..n).collect();
        (1..n).for_each(|k| order.swap(k, rng.from(0, k)));
        let data = match (&self.op, i) {
            (Op::SoftmaxCrossEntropy(_), 1) => {
                let classes = self.operands[0].bind(batch).extents()[1];
                (0..n).map(|_| rng.from(0, classes - 1) as f64).collect()
            }
            (Op::SoftmaxCrossEntropyGrad(_), 2) => {
                let classes = self.operands[1].bind(batch).extents()[1];
                (0..n).map(|_| rng.from(0, classes - 1) as f64).collect()
            }
            (Op::MaxPoolGrad(op), 1) => {
                let area = op.pool.kernel[0] * op.pool.kernel[1];
                (0..n).map(|_| rng.from(0, area - 1) as f64).collect()
            }
            (Op::RandomMask(_), 0) => vec![rng.from(0, 1 << 40) as f64, rng.from(0, 1000) as f64],
            // Variances and the scale of a normalisation are positive.
            (Op::BatchNorm(_), 4) | (Op::LrnGrad(_), 2) => {
                order.iter().map(|&k| 0.5 + (k as f64 + 0.5) / n as f64).collect()
            }
            _ => order
                .iter()
                .map(|&k| (2 * k + 1) as f64 / n as f64 - 1.0 + 0.1 / n as f64)
                .collect(),
        };
        Tensor::new(ty.dtype, &extents, data)
    }
}

/// A random instance of the operation with this mnemonic.
pub fn sample(mnemonic: &str, rng: &mut Rng) -> Sample {
    for _ in 0..10_000 {
        let found = match origin(mnemonic) {
            Some(forward) => derived(mnemonic, &sample(forward, rng)),
            None => {
                let source = format!("{}\noutput y = y", statements(mnemonic, rng));
                text::parse(&source, mnemonic).ok().map(|graph| {
                    let y = graph.find("y").expect("every sample defines y");
                    Sample::of(&graph, y)
                })
            }
        };
        if let Some(sample) = found {
            return sample;
        }
    }
    panic!("{mnemonic}: no random instance fits; see its line in samples.rs");
}

/// The operation whose gradient contains this one.
fn origin(mnemonic: &str) -> Option<&'static str> {
    Some(match mnemonic {
        "conv2d_grad_input" | "conv2d_grad_weight" => "conv2d",
        "relu_grad" => "relu",
        "tanh_grad" => "tanh",
        "max_pool_index" | "max_pool_grad" => "max_pool",
        "avg_pool_grad" => "avg_pool",
        "lrn_scale" | "lrn_grad" => "lrn",
        "softmax_grad" => "softmax",
        "softmax_cross_entropy_grad" => "softmax_cross_entropy",
        "channel_mean_grad" => "channel_mean",
        _ => return None,
    })
}

fn derived(mnemonic: &str, forward: &Sample) -> Option<Sample> {
    // A symbolic batch stays one: the gradient is made before the batch is bound.
    let mut builder = Builder::new("forward");
    let mut operands = vec![];
    for (i, ty) in forward.operands.iter().enumerate() {
        let input = Input {
            shape: ty.shape.clone(),
            dtype: ty.dtype,
        };
        operands.push(builder.add(&format!("x{i}"), input, &[]).ok()?);
    }
    let y = builder.add("y", forward.op.clone(), &operands).ok()?;
    let upstream = Input {
        shape: builder.node(y).ty.shape.clone(),
        dtype: DType::F32,
    };
    let upstream = builder.add("upstream", upstream, &[]).ok()?;
    backward(&mut builder, y, upstream);
    let graph = builder.finish();
    let id = *graph.select(|op| op.mnemonic() == mnemonic).first()?;
    Some(Sample::of(&graph, id))
}

/// Statements that define `y` by the operation, with random shapes and attributes that may not fit.
fn statements(mnemonic: &str, rng: &mut Rng) -> String {
    let input = |name: &str, shape: &[usize]| {
        let extents: String = shape.iter().map(|n| format!(", {n}")).collect();
        format!("{name} = input() shape=[N{extents}]\n")
    };
    let fixed = |name: &str, shape: &[usize]| format!("{name} = input() shape={shape:?}\n");
    let image = |rng: &mut Rng| [rng.from(1, 4), rng.from(1, 7), rng.from(1, 7)];
    // A shape of rank 1 to 5, the batch included.
    let any = |rng: &mut Rng| {
        let rank = rng.from(0, 4);
        rng.list(rank, 1, 4)
    };
    match mnemonic {
        "input" => {
            let (shape, dtype) = (any(rng), ["f32", "i64", "u8"][rng.from(0, 2)]);
            format!("y = input() shape={shape:?} dtype={dtype}")
                .replace("[", if rng.flag() { "[" } else { "[N, " })
        }
        "parameter" => {
            let init = match rng.flag() {
                true => format!("value={}", rng.real(-2.0, 2.0)),
                false => format!("init=normal std={}", rng.real(0.0, 1.0)),
            };
            format!("y = parameter() shape={:?} {init}", any(rng))
        }
        "constant" => format!(
            "y = constant() shape={:?} value={}",
            any(rng),
            rng.real(-2.0, 2.0)
        ),
        "conv2d" => {
            let groups = rng.from(1, 3);
            let (inputs, outputs) = (rng.from(1, 3), rng.from(1, 3) * groups);
            let kernel = rng.list(2, 1, 3);
            let x = input("x", &[inputs * groups, rng.from(1, 8), rng.from(1, 8)]);
            let w = fixed("w", &[outputs, inputs, kernel[0], kernel[1]]);
            let (stride, dilation, pad) = (rng.list(2, 1, 3), rng.list(2, 1, 2), rng.list(4, 0, 2));
            format!(
                "{x}{w}y = conv2d(x, w) stride={stride:?} pad={pad:?} dilation={dilation:?} groups={groups}"
            )
        }
        "matmul" => {
            let (m, n, k) = (rng.from(1, 5), rng.from(1, 5), rng.from(1, 5));
            let (ta, tb) = (rng.flag(), rng.flag());
            let a = fixed("a", &if ta { [k, m] } else { [m, k] });
            let b = fixed("b", &if tb { [n, k] } else { [k, n] });
            format!("{a}{b}y = matmul(a, b) transpose_a={ta} transpose_b={tb}")
        }
        "fully_connected" => {
            let (inputs, outputs) = (rng.from(1, 6), rng.from(1, 6));
            format!(
                "{}{}y = fully_connected(x, w)",
                input("x", &[inputs]),
                fixed("w", &[outputs, inputs])
            )
        }
        "bias" => {
            let mut shape = any(rng);
            shape.push(rng.from(1, 3));
            format!("{}{}y = bias(x, b)", input("x", &shape), fixed("b", &shape[..1]))
        }
        "relu" | "tanh" => format!("{}y = {mnemonic}(x)", input("x", &any(rng))),
        "max_pool" | "avg_pool" => {
            let (kernel, stride, pad) = (rng.list(2, 1, 3), rng.list(2, 1, 3), rng.list(4, 0, 2));
            let count = if mnemonic == "avg_pool" && rng.flag() {
                "count_pad=false"
            } else {
                ""
            };
            let x = input("x", &image(rng));
            let ceil = rng.flag();
            format!(
                "{x}y = {mnemonic}(x) kernel={kernel:?} stride={stride:?} pad={pad:?} ceil={ceil} {count}"
            )
        }
        "global_avg_pool" => format!("{}y = global_avg_pool(x)", input("x", &image(rng))),
        "lrn" => {
            let (groups, size, divide) = (rng.from(1, 2), rng.from(1, 6), rng.flag());
            let [channels, height, width] = image(rng);
            let x = input("x", &[channels * groups, height, width]);
            let (alpha, beta, k) = (rng.real(0.0, 2.0), rng.real(0.1, 1.5), rng.real(0.5, 2.0));
            format!(
                "{x}y = lrn(x) size={size} alpha={alpha} beta={beta} k={k} divide={divide} groups={groups}"
            )
        }
        "dropout" => {
            let (rate, scale) = (rng.real(0.0, 0.9), ["training", "inference"][rng.from(0, 1)]);
            format!(
                "{}y = dropout(x) rate={rate} scale={scale}",
                input("x", &any(rng))
            )
        }
        "random_mask" => {
            let (shape, stream) = (any(rng), rng.from(0, 5));
            let (keep, value) = (rng.real(0.0, 1.0), rng.real(0.5, 2.0));
            format!(
                "s = input() shape=[2] dtype=i64\n\
                 y = random_mask(s) shape={shape:?} keep={keep} value={value} stream={stream}"
            )
        }
        "add" | "multiply" => {
            let shape = any(rng);
            format!("{}{}y = {mnemonic}(a, b)", input("a", &shape), input("b", &shape))
        }
        "scale" => format!(
            "{}y = scale(x) factor={}",
            input("x", &any(rng)),
            rng.real(-2.0, 2.0)
        ),
        "reshape" => {
            // Both shapes group the same parts, each in its own way.
            let count = rng.from(0, 5);
            let parts = rng.list(count, 1, 3);
            let group = |rng: &mut Rng| {
                let mut shape = vec![];
                for &part in &parts {
                    match shape.last_mut() {
                        Some(last) if rng.flag() => *last *= part,
                        _ => shape.push(part),
                    }
                    if rng.from(0, 5) == 0 {
                        shape.push(1);
                    }
                }
                shape
            };
            let (from, to) = (group(rng), group(rng));
            let to: String = to.iter().map(|n| format!(", {n}")).collect();
            format!("{}y = reshape(x) shape=[N{to}]", input("x", &from))
        }
        "reduce_sum" => {
            let shape = any(rng);
            let axes: Vec<usize> = (0..=shape.len()).filter(|_| rng.flag()).collect();
            format!("{}y = reduce_sum(x) axes={axes:?}", input("x", &shape))
        }
        "broadcast" => {
            let shape = any(rng);
            let axes: Vec<usize> = (0..shape.len()).filter(|_| rng.flag()).collect();
            let kept: Vec<usize> = (0..shape.len())
                .filter(|d| !axes.contains(d))
                .map(|d| shape[d])
                .collect();
            format!(
                "{}y = broadcast(x) shape={shape:?} axes={axes:?}",
                fixed("x", &kept)
            )
        }
        "concat" => {
            let (shape, count) = (any(rng), rng.from(1, 3));
            let axis = rng.from(0, 4);
            let operands: String = (0..count)
                .map(|i| {
                    let mut shape = shape.clone();
                    shape
                        .iter_mut()
                        .skip(axis)
                        .take(1)
                        .for_each(|n| *n = rng.from(1, 3));
                    fixed(["a", "b", "c"][i], &shape)
                })
                .collect();
            format!(
                "{operands}y = concat({}) axis={axis}",
                ["a", "a, b", "a, b, c"][count - 1]
            )
        }
        "slice" => {
            let (axis, start) = (rng.from(0, 4), rng.from(0, 3));
            let stop = start + rng.from(1, 3);
            format!(
                "{}y = slice(x) axis={axis} start={start} stop={stop}",
                input("x", &any(rng))
            )
        }
        "pad" => {
            let shape = any(rng);
            let (mut before, mut after) = (rng.list(shape.len(), 0, 2), rng.list(shape.len(), 0, 2));
            before.insert(0, 0);
            after.insert(0, 0);
            let value = rng.real(-1.0, 1.0);
            format!(
                "{}y = pad(x) before={before:?} after={after:?} value={value}",
                input("x", &shape)
            )
        }
        "batch_norm" => {
            let mut shape = any(rng);
            shape.push(rng.from(1, 3));
            let numbers: String = ["a", "b", "m", "v"]
                .into_iter()
                .map(|name| fixed(name, &shape[..1]))
                .collect();
            format!(
                "{}{numbers}y = batch_norm(x, a, b, m, v) eps={}",
                input("x", &shape),
                rng.real(0.001, 0.1)
            )
        }
        "channel_mean" => format!("{}y = channel_mean(x)", input("x", &image(rng))),
        "channel_variance" => {
            let shape = image(rng);
            format!(
                "{}{}y = channel_variance(x, m)",
                input("x", &shape),
                fixed("m", &shape[..1])
            )
        }
        "log_sum_exp" | "softmax" => format!("{}y = {mnemonic}(x)", input("x", &[rng.from(1, 6)])),
        "softmax_cross_entropy" => {
            let x = input("x", &[rng.from(1, 6)]);
            format!("{x}labels = input() shape=[N] dtype=i64\ny = softmax_cross_entropy(x, labels)")
        }
        "sgd_velocity" => {
            let shape = any(rng);
            let three: String = ["v", "w", "g"]
                .into_iter()
                .map(|name| fixed(name, &shape))
                .collect();
            let (momentum, decay, factor) = (rng.real(0.0, 1.0), rng.real(0.0, 0.1), rng.real(0.5, 2.0));
            format!(
                "{three}e = input() shape=[]\n\
                 y = sgd_velocity(v, w, g, e) momentum={momentum} decay={decay} factor={factor}"
            )
        }
        other => panic!("{other} has no line in samples.rs: add one, so that it is tested like all others"),
    }
}
