//! The meaning of operations against loops written by hand, which share nothing with the nests.
//!
//! Operations that are gradients are held to central differences instead (see `gradients`).

use crate::samples::{Rng, sample};
use ir::Op;
use ir::interpreter::{Tensor, evaluate};
use ir::ops::MNEMONICS;

const CASES: u64 = 60;

/// Operations without a reference here: leaves and gradients.
const WITHOUT: &[&str] = &[
    "input",
    "parameter",
    "conv2d_grad_input",
    "conv2d_grad_weight",
    "relu_grad",
    "tanh_grad",
    "max_pool_grad",
    "avg_pool_grad",
    "lrn_grad",
    "softmax_grad",
    "softmax_cross_entropy_grad",
    "channel_mean_grad",
];

/// All indices of a tensor, row-major.
fn indices(extents: &[usize]) -> Vec<Vec<usize>> {
    extents.iter().fold(vec![vec![]], |all, &extent| {
        all.iter()
            .flat_map(|index| (0..extent).map(|i| [&index[..], &[i]].concat()))
            .collect()
    })
}

/// An element, or `None` outside the tensor.
fn get(x: &Tensor, index: &[i64]) -> Option<f64> {
    let mut place = 0;
    for (&i, &extent) in index.iter().zip(&x.extents) {
        if i < 0 || i >= extent as i64 {
            return None;
        }
        place = place * extent + i as usize;
    }
    Some(x.data[place])
}

fn at(x: &Tensor, index: &[usize]) -> f64 {
    get(x, &index.iter().map(|&i| i as i64).collect::<Vec<_>>()).expect("the reference reads inside")
}

/// The element of a vector that belongs to the channel of an index.
fn of_channel(numbers: &Tensor, index: &[usize]) -> f64 {
    numbers.data[index[1]]
}

/// The places of a pooling window in its image: (row, column, number in the window), inside or not.
fn window(pool: &ir::ops::window::Pool, index: &[usize]) -> Vec<(i64, i64, usize)> {
    let start = |axis: usize| (index[2 + axis] * pool.stride[axis]) as i64 - pool.pad[axis] as i64;
    let mut places = vec![];
    for ky in 0..pool.kernel[0] {
        for kx in 0..pool.kernel[1] {
            places.push((
                start(0) + ky as i64,
                start(1) + kx as i64,
                ky * pool.kernel[1] + kx,
            ));
        }
    }
    places
}

/// The largest element of a window and its number.
fn largest(pool: &ir::ops::window::Pool, x: &Tensor, index: &[usize]) -> (f64, usize) {
    let mut best = (f64::NEG_INFINITY, usize::MAX);
    for (row, column, number) in window(pool, index) {
        if let Some(value) = get(x, &[index[0] as i64, index[1] as i64, row, column])
            && value > best.0
        {
            best = (value, number);
        }
    }
    best
}

fn log_sum_exp(row: &[f64]) -> f64 {
    let top = row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    top + row.iter().map(|x| (x - top).exp()).sum::<f64>().ln()
}

/// Elements of one channel of x.
fn channel(x: &Tensor, c: usize) -> Vec<f64> {
    indices(&x.extents)
        .iter()
        .filter(|index| index[1] == c)
        .map(|index| at(x, index))
        .collect()
}

/// `k + α'·Σ x²` of local response normalisation.
fn lrn_scale(lrn: &ir::ops::Lrn, x: &Tensor, index: &[usize]) -> f64 {
    let per_group = x.extents[1] / lrn.groups;
    let (c, group) = (index[1] as i64, (index[1] / per_group * per_group) as i64);
    let (size, end) = (lrn.size as i64, group + per_group as i64);
    let mut squares = 0.0;
    for j in (c - size / 2).max(group)..(c - size / 2 + size).min(end) {
        squares += at(x, &[index[0], j as usize, index[2], index[3]]).powi(2);
    }
    lrn.k.0 + lrn.alpha.0 / if lrn.divide { size as f64 } else { 1.0 } * squares
}

/// What an operation computes at one index of its result.
fn reference(op: &Op, x: &[Tensor], index: &[usize]) -> f64 {
    match op {
        Op::Constant(op) => op.value.0,
        Op::Conv2d(op) => {
            let (w, n) = (&x[1], index[0] as i64);
            let (per_group, outputs) = (w.extents[1], w.extents[0] / op.groups);
            let mut sum = 0.0;
            for c in 0..per_group {
                for ky in 0..w.extents[2] {
                    for kx in 0..w.extents[3] {
                        let row = index[2] * op.stride[0] + ky * op.dilation[0];
                        let column = index[3] * op.stride[1] + kx * op.dilation[1];
                        let place = [
                            n,
                            (index[1] / outputs * per_group + c) as i64,
                            row as i64 - op.pad[0] as i64,
                            column as i64 - op.pad[1] as i64,
                        ];
                        sum += get(&x[0], &place).unwrap_or(0.0) * at(w, &[index[1], c, ky, kx]);
                    }
                }
            }
            sum
        }
        Op::Matmul(op) => {
            let inner = x[0].extents[usize::from(!op.transpose_a)];
            let a = |m, k| at(&x[0], &if op.transpose_a { [k, m] } else { [m, k] });
            let b = |k, n| at(&x[1], &if op.transpose_b { [n, k] } else { [k, n] });
            (0..inner).map(|k| a(index[0], k) * b(k, index[1])).sum()
        }
        Op::FullyConnected(_) => (0..x[0].extents[1])
            .map(|k| at(&x[0], &[index[0], k]) * at(&x[1], &[index[1], k]))
            .sum(),
        Op::Bias(_) => at(&x[0], index) + of_channel(&x[1], index),
        Op::Relu(_) => at(&x[0], index).max(0.0),
        Op::Tanh(_) => at(&x[0], index).tanh(),
        Op::MaxPool(op) => largest(&op.pool, &x[0], index).0,
        Op::MaxPoolIndex(op) => largest(&op.pool, &x[0], index).1 as f64,
        Op::AvgPool(op) => {
            let (height, width) = (x[0].extents[2] as i64, x[0].extents[3] as i64);
            let pad = op.pool.pad.map(|n| n as i64);
            let (mut sum, mut count) = (0.0, 0);
            for (row, column, _) in window(&op.pool, index) {
                let value = get(&x[0], &[index[0] as i64, index[1] as i64, row, column]);
                let padding =
                    row >= -pad[0] && row < height + pad[2] && column >= -pad[1] && column < width + pad[3];
                sum += value.unwrap_or(0.0);
                count += i32::from(value.is_some() || (op.count_pad && padding));
            }
            sum / f64::from(count)
        }
        Op::GlobalAvgPool(_) => {
            let image = indices(&x[0].extents[2..]);
            let sum: f64 = image
                .iter()
                .map(|place| at(&x[0], &[&index[..2], place].concat()))
                .sum();
            sum / image.len() as f64
        }
        Op::Lrn(op) => at(&x[0], index) / lrn_scale(op, &x[0], index).powf(op.beta.0),
        Op::LrnScale(op) => lrn_scale(&op.window, &x[0], index),
        Op::Dropout(op) => at(&x[0], index) * op.factor(),
        Op::Add(_) => at(&x[0], index) + at(&x[1], index),
        Op::Multiply(_) => at(&x[0], index) * at(&x[1], index),
        Op::Scale(op) => at(&x[0], index) * op.factor.0,
        Op::ReduceSum(op) => {
            let kept = |full: &[usize]| -> Vec<usize> {
                (0..full.len())
                    .filter(|d| !op.axes.contains(d))
                    .map(|d| full[d])
                    .collect()
            };
            indices(&x[0].extents)
                .iter()
                .filter(|full| kept(full) == index)
                .map(|full| at(&x[0], full))
                .sum()
        }
        Op::Broadcast(op) => {
            let kept: Vec<usize> = (0..index.len())
                .filter(|d| !op.axes.contains(d))
                .map(|d| index[d])
                .collect();
            at(&x[0], &kept)
        }
        Op::Concat(op) => {
            let mut index = index.to_vec();
            for part in x {
                let extent = part.extents[op.axis];
                if index[op.axis] < extent {
                    return at(part, &index);
                }
                index[op.axis] -= extent;
            }
            panic!("the result is longer than its parts")
        }
        Op::Slice(op) => {
            let mut index = index.to_vec();
            index[op.axis] += op.start;
            at(&x[0], &index)
        }
        Op::Pad(op) => {
            let index: Vec<i64> = index
                .iter()
                .zip(&op.before)
                .map(|(&i, &b)| i as i64 - b as i64)
                .collect();
            get(&x[0], &index).unwrap_or(op.value.0)
        }
        Op::BatchNorm(op) => {
            let [scale, shift, mean, variance] = [1, 2, 3, 4].map(|i| of_channel(&x[i], index));
            scale * (at(&x[0], index) - mean) / (variance + op.eps.0).sqrt() + shift
        }
        Op::ChannelMean(_) => {
            let values = channel(&x[0], index[0]);
            values.iter().sum::<f64>() / values.len() as f64
        }
        Op::ChannelVariance(_) => {
            let values = channel(&x[0], index[0]);
            values
                .iter()
                .map(|v| (v - x[1].data[index[0]]).powi(2))
                .sum::<f64>()
                / values.len() as f64
        }
        Op::LogSumExp(_) => log_sum_exp(x[0].data.chunks(x[0].extents[1]).nth(index[0]).expect("a row")),
        Op::Softmax(_) => {
            let row = x[0].data.chunks(x[0].extents[1]).nth(index[0]).expect("a row");
            row[index[1]].exp() / row.iter().map(|v| v.exp()).sum::<f64>()
        }
        Op::SoftmaxCrossEntropy(_) => {
            let rows = x[0].data.chunks(x[0].extents[1]).zip(&x[1].data);
            let losses = rows.map(|(row, &label)| log_sum_exp(row) - row[label as usize]);
            losses.sum::<f64>() / x[1].data.len() as f64
        }
        Op::SgdVelocity(op) => {
            let [v, w, g] = [0, 1, 2].map(|i| at(&x[i], index));
            let rate = op.factor.0 * x[3].data[0];
            op.momentum.0 * v - op.decay.0 * rate * w - rate * g
        }
        other => panic!("{} has no reference: write one", other.mnemonic()),
    }
}

#[test]
fn operations_compute_what_loops_written_by_hand_compute() {
    for mnemonic in MNEMONICS.iter().filter(|m| !WITHOUT.contains(m)) {
        for seed in 0..CASES {
            let rng = &mut Rng::new(seed);
            let (sample, batch) = (sample(mnemonic, rng), 1 + seed as usize % 3);
            let operands: Vec<Tensor> = (0..sample.operands.len())
                .map(|i| sample.values(i, batch, rng))
                .collect();
            let inputs = operands
                .iter()
                .enumerate()
                .map(|(i, x)| (format!("x{i}"), x.clone()))
                .collect();
            let graph = sample.graph(batch);
            let values = evaluate(&graph, &inputs).unwrap_or_else(|error| panic!("{sample:?}: {error}"));
            let y = values.output(&graph, "y").expect("samples define y");
            for (index, found) in indices(&y.extents).iter().zip(&y.data) {
                // Where row-major order decides, the number of the element is all that matters.
                let number = index
                    .iter()
                    .zip(&y.extents)
                    .fold(0, |n, (i, extent)| n * extent + i);
                let expected = match &sample.op {
                    Op::Reshape(_) => operands[0].data[number],
                    Op::RandomMask(op) => {
                        let [seed, step] = [0, 1].map(|i| operands[0].data[i] as i64);
                        let uniform = ir::nest::uniform(seed, step, op.stream as u32, number as u32);
                        if uniform < op.keep.0 { op.value.0 } else { 0.0 }
                    }
                    op => reference(op, &operands, index),
                };
                assert!(
                    (found - expected).abs() <= 1e-12 * expected.abs().max(1.0),
                    "{sample:?} at {index:?} for a batch of {batch}: {found} instead of {expected}"
                );
            }
        }
    }
}
