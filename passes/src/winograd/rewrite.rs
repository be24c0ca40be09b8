//! A convolution as four nests: transforms of both reads, a batched matrix product, and the inverse transform.
//!
//! Where the tensors between them would be large, the nests take one micro-batch after the other ([`micro_batch`]). In the gradient
//! of a weight, whose sum goes over the batch, every turn then adds its products to those before, and the inverse
//! transform comes after the last.

use super::Form;
use super::parts::{Parts, Side};
use super::product::Product;
use super::recognise::{Convolution, recognise};
use crate::micro_batch;
use crate::operands::drop_unused_operands;
use ir::DType;
use ir::layout::Layout;
use ir::nest::{Affine, Expr, Index, Loop, Nest, Read, Source};
use ir::plan::{Allocation, Mode, Role};
use ir::program::{Algorithm, DeviceId, Kernel, Program, Value, ValueId};
use std::collections::BTreeMap;

/// Replaces a kernel by the nests of a form. Returns the kernels in order; values are added to the program.
pub fn rewrite(
    program: &mut Program,
    call: &Kernel,
    conv: &Convolution,
    form: &Form,
    micro_batch_bytes: u64,
) -> Vec<Kernel> {
    let Some((samples, micro_batches)) = cut(program, call, conv, form, micro_batch_bytes) else {
        return nests(program, call, conv, form).to_vec();
    };
    let sums = conv.shared.contains(&samples);
    let call = micro_batch::cut(program, call, samples, micro_batches, &mut BTreeMap::new());
    let conv = recognise(&call.nest).expect("a convolution of fewer samples is one");
    let micro_batch_loop = Some(micro_batch::new_micro_batch_loop(program, micro_batches));
    let [mut taps, mut tiles, mut products, mut finish] = nests(program, &call, &conv, form);
    tiles.micro_batch_loop = micro_batch_loop;
    products.micro_batch_loop = micro_batch_loop;
    if sums {
        taps.micro_batch_loop = micro_batch_loop;
        let zeros = accumulate(program, &mut products);
        return vec![zeros, taps, tiles, products, finish];
    }
    finish.micro_batch_loop = micro_batch_loop;
    vec![taps, tiles, products, finish]
}

/// The loop over samples and the number of micro-batches, if the tensors between the nests are large and the loop lets itself be
/// cut.
fn cut(
    program: &Program,
    call: &Kernel,
    conv: &Convolution,
    form: &Form,
    micro_batch_bytes: u64,
) -> Option<(Loop, usize)> {
    let first = &call.nest.reads[conv.image].index.first()?.map;
    let mut loops = conv.image_only.iter().chain(&conv.shared).copied();
    let samples = loops.find(|l| *first == Affine::of(*l))?;
    let Product {
        batch,
        rows,
        columns,
        depth,
    } = Product::new(&call.nest, conv, form);
    let elements = match conv.shared.contains(&samples) {
        true => batch * depth * (rows + columns),
        false => batch * rows * (depth + columns),
    };
    if !micro_batch::is_batch_loop(program, call, samples) {
        return None;
    }
    let indexed = micro_batch::indexed(call, samples);
    let count = call.nest.extents()[samples.0];
    let fits = |samples| micro_batch::are_aligned(program, &indexed, samples);
    let micro_batches = micro_batch::count(count, 4 * elements as u64, micro_batch_bytes, fits);
    (micro_batches > 1).then_some((samples, micro_batches))
}

/// The four kernels of a form: of taps, tiles, products, and the inverse transform.
fn nests(program: &mut Program, call: &Kernel, conv: &Convolution, form: &Form) -> [Kernel; 4] {
    // Tiles of the result would come between the lanes of the image's side.
    let side = match form.tilings.iter().all(|tiling| tiling.output_tiles == 1) {
        true => side_of_panels(program, call, conv),
        false => Side::Filter,
    };
    let parts = Parts::new(&call.nest, conv, form, side);
    let (image, kernel, result) = parts.tensors();
    let label = &call.label;
    let operand = |read: usize| call.operands[call.nest.reads[read].source.operand()];
    let (from_image, from_kernel) = (operand(conv.image), operand(conv.kernel));
    let constant = program.mode == Mode::Infer
        && matches!(
            program.value(program.owner(from_kernel)).role,
            Role::Parameter { .. }
        );
    let device = program.device_of(call);
    let algorithm = Some(Algorithm::Winograd(form.products()));
    let mut add = |name, extents| add(program, name, extents, device);
    let tiles = add(format!("{label}.tiles"), image.extents());
    let taps = add(format!("{label}.taps"), kernel.extents());
    let products = add(format!("{label}.products"), result.extents());
    let kernel_call = |label: String, nest, operands, result| Kernel {
        algorithm,
        ..Kernel::new(label, nest, operands, vec![result])
    };
    let mut finish = Kernel {
        nest: parts.finish(&result, call.operands.len()),
        operands: call.operands.iter().copied().chain([products]).collect(),
        algorithm,
        ..call.clone()
    };
    drop_unused_operands(&mut finish);
    [
        Kernel {
            prepack: constant,
            ..kernel_call(
                format!("taps of {label}"),
                parts.taps(&kernel),
                vec![from_kernel],
                taps,
            )
        },
        kernel_call(
            format!("tiles of {label}"),
            parts.tiles(&image),
            vec![from_image],
            tiles,
        ),
        kernel_call(
            format!("products of {label}"),
            parts.product(&image, &kernel, &result),
            vec![tiles, taps],
            products,
        ),
        finish,
    ]
}

/// Makes a matrix product add to what lies where its result goes. Returns the kernel that puts zeros there.
fn accumulate(program: &mut Program, products: &mut Kernel) -> Kernel {
    let result = products.results[0];
    let (name, extents, device) = {
        let value = program.value(result);
        (value.name.clone(), value.extents.clone(), value.device)
    };
    let zeros = add(program, format!("{name}.zeros"), extents.clone(), device);
    // As layouts of three dimensions are: see [`super::parts::Tensor`].
    let sum = &mut program.values[result.0];
    sum.alias = Some(zeros);
    sum.layout = Layout::channels_last(extents.len());
    let mut nest = Nest::copy(DType::F32, &extents);
    nest.reads.clear();
    nest.outputs[0].value = Expr::Constant(0.0);
    let own = &mut products.nest;
    let index = own.outputs[0].index.iter().cloned().map(Index::new);
    own.reads.push(Read {
        source: Source::Operand(products.operands.len()),
        index: index.collect(),
        predicates: vec![],
        padding_value: 0.0,
    });
    own.outputs[0].value = Expr::Reduced + Expr::Read(own.reads.len() - 1);
    products.operands.push(zeros);
    Kernel::new(format!("zeros for {}", products.label), nest, vec![], vec![zeros])
}

fn add(program: &mut Program, name: String, extents: Vec<usize>, device: DeviceId) -> ValueId {
    program.values.push(Value {
        name,
        dtype: DType::F32,
        layout: Layout::row_major(extents.len()),
        extents,
        role: Role::Temporary,
        alias: None,
        batch_slice: false,
        allocation: Allocation::Dedicated,
        device,
        shard: None,
    });
    ValueId(program.values.len() - 1)
}

/// Whose places lie next to each other in the product's result: those next to each other in the nest's own, as far as
/// layouts are known. Images are kept channels last.
fn side_of_panels(program: &Program, call: &Kernel, conv: &Convolution) -> Side {
    let output = &call.nest.outputs[0];
    let result = program.value(call.results[0]);
    let order = match result.role {
        Role::Temporary if result.alias.is_none() => Layout::channels_last(output.extents.len()).order,
        _ => (0..output.extents.len()).collect(),
    };
    let step = |loops: &[Loop]| {
        let last = loops.last()?;
        let mut inner = order.iter().rev();
        inner.position(|&d| output.index[d].coefficient(*last) != 0)
    };
    match (step(&conv.image_only), step(&conv.filter_only)) {
        (Some(image), Some(kernel)) if image < kernel => Side::Image,
        _ => Side::Filter,
    }
}
