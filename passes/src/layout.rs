//! Chooses where the elements of every stored value lie, so that kernels find them by plain strides.
//!
//! A contraction reads one operand in vectors along a loop in which it must be contiguous, and broadcasts
//! scalars of the other. For each one this pass picks that loop by the bytes it would cost to rearrange
//! operands for it, then makes it so: weights are packed into panels (once for inference, every step in
//! training), values that padded convolutions read get storage padding of zeros, and where two kernels want the same
//! value differently a copy is made. Images are kept channels last; interface values stay row-major.
//!
//! That is for processors; kernels of GPUs are handed to [`crate::gpu_layout`]. What comes from another device lies as it
//! lay there; what crosses between a processor and a GPU lies channels last, without storage padding.

use crate::DeviceKind;
use crate::gpu_layout;
use crate::operands::{operand, order_like_operands, read_from};
use crate::vectors::{self, Vectorization, unit_stride_dimension};
use ir::layout::Layout;
use ir::nest::{Affine, Index, Loop, Nest};
use ir::plan::{Allocation, Mode, Role};
use ir::program::{DeviceId, Kernel, MicroBatchLoop, Program, Value, ValueId};
use std::collections::{HashMap, HashSet};

/// Bytes that are moved in the time of one multiply-add on a core: about 110 GFLOP/s against 20 GB/s.
const BYTES_PER_MULTIPLY_ADD: f64 = 0.36;
/// Interface results smaller than this many elements are stored with strides rather than copied.
const SMALL: usize = 1 << 16;
/// An activation is copied into panels if each of its elements is read at least this many times.
const REUSE: u64 = 256;
/// Lanes assumed when judging how well a loop fills vectors.
const LANES: usize = 16;

/// Rewrites a program with layouts, given the machine of every device.
pub fn assign(program: &Program, machines: &[DeviceKind]) -> Program {
    let mut slices: HashMap<ValueId, Vec<ValueId>> = HashMap::new();
    for id in (0..program.values.len()).map(ValueId) {
        let whole = program.slice_base(id);
        if whole != id {
            slices.entry(whole).or_default().push(id);
        }
    }
    let mut pass = Pass {
        paddings: paddings(program),
        slices,
        program: Program {
            kernels: vec![],
            ..program.clone()
        },
        copies: HashMap::new(),
        fixed: HashSet::new(),
    };
    let machine = |device: DeviceId| machines[device.0];
    for call in program.kernels.iter().filter(|call| program.is_transfer(call)) {
        let (from, to) = (call.operands[0], call.results[0]);
        pass.fixed.insert(to);
        if machine(program.value(from).device) != machine(program.value(to).device) {
            let layout = Layout::channels_last(program.value(from).extents.len());
            pass.fixed.insert(from);
            pass.program.values[from.0].layout = layout;
        }
    }
    let mut gpu_copies = gpu_layout::Copies::new();
    let mut start = 0;
    for call in &program.kernels {
        let call = call.clone();
        if program.is_transfer(&call) {
            let layout = pass.program.value(call.operands[0]).layout.clone();
            for id in pass.slices(call.results[0]).into_iter().chain([call.results[0]]) {
                pass.program.values[id.0].layout = layout.clone();
            }
            pass.program.kernels.push(call);
            continue;
        }
        let first = pass.program.kernels.len();
        let micro_batch_loop = call.micro_batch_loop;
        if micro_batch_loop.is_none()
            || pass
                .program
                .kernels
                .last()
                .is_none_or(|before| before.micro_batch_loop != micro_batch_loop)
        {
            start = first;
        }
        match (machine(program.device_of(&call)), call.nest.contraction()) {
            (DeviceKind::Gpu, _) => {
                let fixed = &pass.fixed;
                let is_free = |program: &Program, id: ValueId| {
                    is_free(program, id) && !fixed.contains(&program.slice_base(id))
                };
                gpu_layout::add(&mut pass.program, &mut gpu_copies, call, is_free);
                let count = pass.program.values.len();
                pass.paddings.resize_with(count, Vec::new);
            }
            (DeviceKind::Cpu, Some(_)) => pass.contraction(call),
            (DeviceKind::Cpu, None) => pass.other(call),
        }
        if micro_batch_loop.is_some() {
            start = pass.join_loop(micro_batch_loop, start, first);
        }
    }
    pass.program
}

/// Whether a value belongs to the program alone; a batch slice if what it moves over does.
fn is_free(program: &Program, id: ValueId) -> bool {
    let value = program.value(program.slice_base(id));
    value.alias.is_none() && matches!(value.role, Role::Temporary)
}

/// The storage padding that contractions want around each value: `(before, after)` a dimension.
fn paddings(program: &Program) -> Vec<Vec<(usize, usize)>> {
    let mut paddings: Vec<Vec<(usize, usize)>> = program
        .values
        .iter()
        .map(|v| vec![(0, 0); v.extents.len()])
        .collect();
    for call in &program.kernels {
        let Some((a, b)) = call.nest.contraction() else {
            continue;
        };
        let extents = call.nest.extents();
        for read in [&call.nest.reads[a], &call.nest.reads[b]] {
            let id = program.slice_base(operand(call, read));
            if read.padding_value != 0.0
                || !read.predicates.is_empty()
                || read.index.iter().any(|i| i.divisor != 1)
            {
                continue;
            }
            for (d, index) in read.index.iter().enumerate() {
                let (low, high) = index.map.range(&extents);
                let padding = &mut paddings[id.0][d];
                padding.0 = padding.0.max((-low).max(0) as usize);
                padding.1 = padding
                    .1
                    .max((high + 1 - program.value(id).extents[d] as i64).max(0) as usize);
            }
        }
    }
    for v in 0..paddings.len() {
        paddings[v] = paddings[program.slice_base(ValueId(v)).0].clone();
    }
    paddings
}

struct Pass {
    program: Program,
    paddings: Vec<Vec<(usize, usize)>>,
    /// The batch slices over each value that has some. This pass adds none.
    slices: HashMap<ValueId, Vec<ValueId>>,
    /// Copies made so far, by original and layout.
    copies: HashMap<(ValueId, Layout), ValueId>,
    /// Values whose layout is that of another device's.
    fixed: HashSet<ValueId>,
}

impl Pass {
    /// Whether the layout of a value is this pass's to choose.
    fn is_free(&self, id: ValueId) -> bool {
        is_free(&self.program, id) && !self.fixed.contains(&self.program.slice_base(id))
    }

    fn is_weight(&self, id: ValueId) -> bool {
        matches!(
            self.program.value(self.program.owner(id)).role,
            Role::Parameter { .. }
        )
    }

    /// Sorts the kernels from `first` on that rearrange values for one of a micro-batch loop, whose kernels begin at `start`: what
    /// belongs to a micro-batch joins the micro-batch loop, and all else runs before it. Returns where the micro-batch loop begins then.
    fn join_loop(
        &mut self,
        micro_batch_loop: Option<MicroBatchLoop>,
        mut start: usize,
        first: usize,
    ) -> usize {
        for mut call in self.program.kernels.split_off(first) {
            let program = &mut self.program;
            let of_micro_batch = |id: &ValueId| {
                let mut own = program.kernels[start..].iter();
                program.value(*id).batch_slice || own.any(|call| call.results.contains(id))
            };
            if call.micro_batch_loop.is_none() && !call.operands.iter().any(of_micro_batch) {
                program.kernels.insert(start, call);
                start += 1;
                continue;
            }
            call.micro_batch_loop = micro_batch_loop;
            program.kernels.push(call);
        }
        start
    }

    fn bytes(&self, id: ValueId) -> f64 {
        let value = self.program.value(id);
        (value.extents.iter().product::<usize>() * value.dtype.bytes()) as f64
    }

    /// Gives a value a layout, if it has none of another's, and the same to all batch slices over it.
    fn set_layout(&mut self, id: ValueId, order: Vec<usize>) {
        if !self.is_free(id) {
            return;
        }
        let whole = self.program.slice_base(id);
        let slices = self.slices(whole);
        // Samples of what batch slices move over lie one after the other.
        let order = match slices.is_empty() || order[0] == 0 {
            true => order,
            false => Layout::channels_last(order.len()).order,
        };
        for id in slices.into_iter().chain([whole]) {
            self.program.values[id.0].layout = Layout {
                order: order.clone(),
                padding: self.paddings[whole.0].clone(),
            };
        }
    }

    fn slices(&self, whole: ValueId) -> Vec<ValueId> {
        self.slices.get(&whole).cloned().unwrap_or_default()
    }

    /// Kernels that are no contraction: images channels last, other values as the first operand of their shape.
    fn other(&mut self, call: Kernel) {
        for (id, order) in order_like_operands(&self.program, &call) {
            self.set_layout(id, order);
        }
        self.program.kernels.push(call);
    }

    fn contraction(&mut self, mut call: Kernel) {
        let Some(vectorization) = self.choose(&call) else {
            return self.other(call);
        };
        self.arrange_scalar(&mut call, vectorization.scalar);
        let panel = operand(&call, &call.nest.reads[vectorization.panel]);
        let innermost = self.program.value(panel).layout.innermost();
        if self.is_weight(panel)
            && (innermost != Some(vectorization.vectors.dimension) || self.program.mode == Mode::Infer)
        {
            self.pack(&mut call, vectorization);
        } else if innermost != Some(vectorization.vectors.dimension) {
            let mut order = self.program.value(panel).layout.order.clone();
            order.retain(|&d| d != vectorization.vectors.dimension);
            order.push(vectorization.vectors.dimension);
            self.redirect_read(&mut call, vectorization.panel, order);
        } else if let Some(lanes) = self.worth_blocking(&call, vectorization) {
            self.block(&mut call, vectorization, lanes);
        } else {
            self.give_halo(&mut call, vectorization.panel);
        }
        self.arrange_results(call, vectorization.vector);
    }

    /// The way to vectorise that the search chose, or else the cheapest; `None` if no loop walks one operand alone.
    fn choose(&self, call: &Kernel) -> Option<Vectorization> {
        let nest = &call.nest;
        let mut vectorizations = vectors::vectorizations(nest);
        let is_chosen = |vectorization: &Vectorization| call.vectors == Some(vectorization.vectors);
        if vectorizations.iter().any(is_chosen) {
            vectorizations.retain(is_chosen);
        }
        let cost = |vectorization: &Vectorization| {
            let id = operand(call, &nest.reads[vectorization.panel]);
            let in_place = self.innermost(id) == Some(vectorization.vectors.dimension);
            let mut cost = match (in_place, self.is_weight(id), self.program.mode) {
                (true, ..) | (_, true, Mode::Infer) => 0.0,
                (_, true, _) => self.bytes(id),
                _ => 2.0 * self.bytes(id),
            };
            for (&result, output) in call.results.iter().zip(&nest.outputs) {
                let along = unit_stride_dimension(output.index.iter(), vectorization.vector);
                if !self.is_free(result) && self.innermost(result) != along {
                    cost += 2.0 * self.bytes(result);
                }
            }
            cost + nest.points() as f64
                * BYTES_PER_MULTIPLY_ADD
                * (1.0 / vectorization.fill(nest, LANES) - 1.0)
        };
        let costs = vectorizations
            .iter()
            .map(|vectorization| (cost(vectorization), vectorization));
        let cheaper = |a: &(f64, &Vectorization), b: &(f64, &Vectorization)| {
            a.0.total_cmp(&b.0).then(b.1.length(nest).cmp(&a.1.length(nest)))
        };
        costs.min_by(cheaper).map(|(_, vectorization)| *vectorization)
    }

    fn innermost(&self, id: ValueId) -> Option<usize> {
        self.program.value(id).layout.innermost()
    }

    /// The broadcast operand may lie in any order, but needs its storage padding.
    fn arrange_scalar(&mut self, call: &mut Kernel, read: usize) {
        self.give_halo(call, read);
    }

    fn give_halo(&mut self, call: &mut Kernel, read: usize) {
        let id = operand(call, &call.nest.reads[read]);
        let there = &self.program.value(id).layout.padding;
        let mut paddings = self.paddings[id.0].iter().zip(there);
        if !self.is_free(id) && !paddings.all(|(wanted, there)| wanted.0 <= there.0 && wanted.1 <= there.1) {
            let order = self.program.value(id).layout.order.clone();
            self.redirect_read(call, read, order);
        }
    }

    /// Makes a read take a copy of its operand in another order, with the operand's storage padding.
    fn redirect_read(&mut self, call: &mut Kernel, read: usize, order: Vec<usize>) {
        let id = operand(call, &call.nest.reads[read]);
        let layout = Layout {
            order,
            padding: self.paddings[id.0].clone(),
        };
        let copy = match self.copies.get(&(id, layout.clone())) {
            Some(&copy) => copy,
            None => {
                let source = self.program.value(id).clone();
                let copy = self.add_value(Value {
                    name: format!("{}.copy", source.name),
                    layout: layout.clone(),
                    role: Role::Temporary,
                    alias: None,
                    batch_slice: false,
                    allocation: Allocation::Dedicated,
                    ..source.clone()
                });
                self.program.kernels.push(Kernel::new(
                    format!("copy {}", source.name),
                    Nest::copy(source.dtype, &source.extents),
                    vec![id],
                    vec![copy],
                ));
                self.copies.insert((id, layout), copy);
                copy
            }
        };
        read_from(call, read, copy);
    }

    fn add_value(&mut self, value: Value) -> ValueId {
        self.paddings.push(vec![(0, 0); value.extents.len()]);
        self.program.values.push(value);
        ValueId(self.program.values.len() - 1)
    }

    /// Packs a weight into panels of the vector loop: `[groups.., panels, reduction.., lanes]`.
    fn pack(&mut self, call: &mut Kernel, vectorization: Vectorization) {
        let extent = call.nest.parallel[vectorization.vector.0];
        let lanes = panel_width(extent);
        let (nest, lane) = call.nest.split_parallel(vectorization.vector, lanes);
        let (weight, scalar) = (
            &nest.reads[vectorization.panel],
            &nest.reads[vectorization.scalar],
        );
        let id = operand(call, weight);

        // The loops that walk the weight, in the order of the packed tensor.
        let walks = |l: &Loop| weight.index.iter().any(|i| i.map.coefficient(*l) != 0);
        let parallel = (0..nest.parallel.len())
            .map(Loop)
            .filter(|l| walks(l) && *l != lane && *l != vectorization.vector);
        let mut loops: Vec<Loop> = parallel.chain([vectorization.vector]).collect();
        let from = self.program.value(operand(call, scalar));
        let strides = from.layout.strides(&from.extents).dims;
        let step = |l: &Loop| {
            let terms = scalar.index.iter().zip(&strides);
            terms
                .map(|(i, &stride)| i.map.coefficient(*l) * stride as i64)
                .sum::<i64>()
                .abs()
        };
        let mut reduction: Vec<Loop> = (0..nest.reduction.len())
            .map(|i| nest.reduction_loop(i))
            .filter(walks)
            .collect();
        reduction.sort_by_key(|l| std::cmp::Reverse(step(l)));
        loops.extend(reduction);
        loops.push(lane);

        let all = nest.extents();
        let extents: Vec<usize> = loops.iter().map(|l| all[l.0]).collect();
        let rename = |map: &Affine| {
            map.terms
                .iter()
                .fold(Affine::constant(map.constant), |sum, &(l, factor)| {
                    let position = loops
                        .iter()
                        .position(|&o| o == l)
                        .expect("loops that walk the weight are listed");
                    sum.plus_loop(Loop(position), factor)
                })
        };
        let mut packing = Nest::copy(ir::DType::F32, &extents);
        packing.reads[0].index = weight
            .index
            .iter()
            .map(|i| Index {
                map: rename(&i.map),
                divisor: i.divisor,
            })
            .collect();

        let constant = self.program.mode == Mode::Infer;
        let source = self.program.value(id).clone();
        let packed = self.add_value(Value {
            name: format!("{}.packed", source.name),
            dtype: source.dtype,
            layout: Layout::row_major(extents.len()),
            extents,
            role: if constant { Role::Packed } else { Role::Temporary },
            alias: None,
            batch_slice: false,
            allocation: Allocation::Dedicated,
            device: source.device,
            shard: None,
        });
        self.program.kernels.push(Kernel {
            prepack: constant,
            ..Kernel::new(format!("pack {}", source.name), packing, vec![id], vec![packed])
        });
        call.nest = nest;
        call.nest.reads[vectorization.panel].index = loops.into_iter().map(Index::of).collect();
        read_from(call, vectorization.panel, packed);
    }

    /// The lanes of a panel of an activation, if copying it into panels pays: rows of a panel would lie a whole
    /// pixel's channels apart, which wastes cache sets, and each is read many times. Panels must hold the whole
    /// dimension, and all else that walks it must go from panel to panel.
    fn worth_blocking(&self, call: &Kernel, vectorization: Vectorization) -> Option<usize> {
        let read = &call.nest.reads[vectorization.panel];
        let id = operand(call, read);
        let (value, d) = (self.program.value(id), vectorization.vectors.dimension);
        let lanes = panel_width(call.nest.parallel[vectorization.vector.0]);
        let map = &read.index[d].map;
        let others = map.terms.iter().filter(|(l, _)| *l != vectorization.vector);
        let mut steps = others.map(|&(_, step)| step).chain([map.constant]);
        let whole = value.extents[d].is_multiple_of(lanes) && self.paddings[id.0][d] == (0, 0);
        if !whole || steps.any(|step| step % lanes as i64 != 0) {
            return None;
        }
        let elements: usize = value.extents.iter().product();
        let reads = call.nest.points() / elements as u64;
        (value.extents.len() == 4 && lanes < value.extents[d] && reads >= REUSE).then_some(lanes)
    }

    /// Copies an activation into panels of channels: `[n, c/lanes, h, w, lanes]`, with its storage padding.
    fn block(&mut self, call: &mut Kernel, vectorization: Vectorization, lanes: usize) {
        let (mut nest, lane) = call.nest.split_parallel(vectorization.vector, lanes);
        let id = operand(call, &nest.reads[vectorization.panel]);
        let d = vectorization.vectors.dimension;
        let source = self.program.value(id).clone();
        let mut extents = source.extents.clone();
        extents[d] /= lanes;
        extents.push(lanes);
        let mut padding = self.paddings[id.0].clone();
        padding.push((0, 0));

        let mut blocking = Nest::copy(source.dtype, &extents);
        let index = &mut blocking.reads[0].index;
        let last = index.pop().expect("a blocked value has a lane dimension");
        index[d].map = Affine::default()
            .plus(&index[d].map, lanes as i64)
            .plus(&last.map, 1);
        let blocked = self.add_value(Value {
            name: format!("{}.blocked", source.name),
            layout: Layout {
                order: (0..extents.len()).collect(),
                padding,
            },
            extents,
            role: Role::Temporary,
            alias: None,
            batch_slice: false,
            allocation: Allocation::Dedicated,
            ..source.clone()
        });
        self.program.kernels.push(Kernel::new(
            format!("block {}", source.name),
            blocking,
            vec![id],
            vec![blocked],
        ));
        // Every other step is a multiple of a panel's lanes.
        let index = &mut nest.reads[vectorization.panel].index;
        let mut panel = index[d].map.clone().plus_loop(lane, -1);
        panel
            .terms
            .iter_mut()
            .for_each(|(_, factor)| *factor /= lanes as i64);
        index[d].map = panel;
        index.push(Index::of(lane));
        call.nest = nest;
        read_from(call, vectorization.panel, blocked);
    }

    /// Stores results with the vector loop innermost; large interface results by way of a copy.
    fn arrange_results(&mut self, mut call: Kernel, vector: Loop) {
        let mut copies = vec![];
        for (i, output) in call.nest.outputs.iter().enumerate() {
            let id = call.results[i];
            // A packed vector loop's lanes walk the same dimension as its panels.
            let Some(d) = output.index.iter().position(|m| m.coefficient(vector) != 0) else {
                continue;
            };
            let rank = output.extents.len();
            let order = match rank {
                4 if d == 1 => Layout::channels_last(4).order,
                _ => (0..rank).filter(|&other| other != d).chain([d]).collect(),
            };
            let large = output.extents.iter().product::<usize>() > SMALL;
            if self.is_free(id) {
                self.set_layout(id, order);
            } else if large && self.innermost(id) != Some(d) {
                let value = self.program.value(id).clone();
                let (dtype, extents) = (value.dtype, value.extents.clone());
                let temporary = self.add_value(Value {
                    name: format!("{}.vectors", value.name),
                    layout: Layout::ordered(order),
                    role: Role::Temporary,
                    alias: None,
                    batch_slice: false,
                    allocation: Allocation::Dedicated,
                    ..value.clone()
                });
                call.results[i] = temporary;
                copies.push(Kernel::new(
                    format!("copy {}", value.name),
                    Nest::copy(dtype, &extents),
                    vec![temporary],
                    vec![id],
                ));
            }
        }
        self.program.kernels.push(call);
        self.program.kernels.extend(copies);
    }
}

/// How many lanes of a vector loop one panel holds: a divisor of the extent that fills vectors well.
pub(crate) fn panel_width(extent: usize) -> usize {
    let filled = |lanes: usize| lanes * 100 / lanes.next_multiple_of(LANES);
    let fits = (LANES..=64.min(extent)).filter(|lanes| extent.is_multiple_of(*lanes) && filled(*lanes) >= 80);
    fits.max_by_key(|&lanes| (filled(lanes), lanes == 32, lanes == 48))
        .unwrap_or(extent)
}
