//! Regions of tensors, and nests over a part of a loop: the arithmetic beneath [`super`].

use ir::nest::{Affine, Combine, Expr, Index, Loop, Nest, Output, Read, Source};
use ir::plan::Region;
use ir::types::DType;

/// Where each device's part of `extent` begins and ends, in proportion to their shares; `None` if one has nothing.
pub fn cut(extent: usize, shares: &[usize]) -> Option<Vec<(usize, usize)>> {
    let total: usize = shares.iter().sum();
    let mut sum = 0;
    let mut from = 0;
    let mut parts = vec![];
    for share in shares {
        sum += share;
        let to = (extent * sum + total / 2) / total;
        if to <= from {
            return None;
        }
        parts.push((from, to));
        from = to;
    }
    Some(parts)
}

/// The nest with loop `l` going over `from..to` of what it went over; outputs keep their extents.
pub fn restrict(nest: &Nest, l: Loop, (from, to): (usize, usize)) -> Nest {
    let shift = |map: &Affine| {
        let step = map.coefficient(l) * from as i64;
        map.clone().plus_constant(step)
    };
    let mut part = nest.map_affine(&mut |map| shift(map));
    match l.0.checked_sub(nest.parallel.len()) {
        None => part.parallel[l.0] = to - from,
        Some(reduction) => part.reduction[reduction] = to - from,
    }
    part
}

/// The region that an output of a nest covers, if it covers one without gaps.
pub fn written(nest: &Nest, output: &Output) -> Option<Region> {
    let extents = nest.extents();
    let mut region = Region::whole(&output.extents);
    for (d, map) in output.index.iter().enumerate() {
        let (low, high) = map.range(&extents);
        region.offset[d] = low as usize;
        region.shape[d] = (high - low + 1) as usize;
    }
    (volume(&region) == nest.parallel_points() as usize).then_some(region)
}

/// The region of a tensor of these extents that a read may touch. One that is always outside touches a corner.
pub fn touched(nest: &Nest, read: &Read, extents: &[usize]) -> Region {
    let loops = nest.extents();
    let mut region = Region::whole(extents);
    for (d, index) in read.index.iter().enumerate() {
        let (low, high) = index.map.range(&loops);
        let first = low.max(0).div_euclid(index.divisor) + i64::from(low.max(0) % index.divisor != 0);
        let last = high.div_euclid(index.divisor).min(extents[d] as i64 - 1);
        if first > last {
            return Region {
                offset: vec![0; extents.len()],
                shape: vec![1; extents.len()],
            };
        }
        region.offset[d] = first as usize;
        region.shape[d] = (last - first + 1) as usize;
    }
    region
}

/// Elements of a region.
pub fn volume(region: &Region) -> usize {
    region.shape.iter().product()
}

/// Whether `inner` lies within `outer`.
pub fn contains(outer: &Region, inner: &Region) -> bool {
    (0..outer.shape.len()).all(|d| {
        outer.offset[d] <= inner.offset[d]
            && inner.offset[d] + inner.shape[d] <= outer.offset[d] + outer.shape[d]
    })
}

/// The smallest region around two.
pub fn hull(a: &Region, b: &Region) -> Region {
    let mut region = a.clone();
    for d in 0..a.shape.len() {
        let end = (a.offset[d] + a.shape[d]).max(b.offset[d] + b.shape[d]);
        region.offset[d] = a.offset[d].min(b.offset[d]);
        region.shape[d] = end - region.offset[d];
    }
    region
}

/// What two regions share, if anything.
pub fn overlap(a: &Region, b: &Region) -> Option<Region> {
    let mut region = a.clone();
    for d in 0..a.shape.len() {
        let end = (a.offset[d] + a.shape[d]).min(b.offset[d] + b.shape[d]);
        region.offset[d] = a.offset[d].max(b.offset[d]);
        region.shape[d] = end.checked_sub(region.offset[d]).filter(|&n| n > 0)?;
    }
    Some(region)
}

/// Makes a read take its elements from a region of its tensor, which holds all that it touches.
pub fn read_within(read: &mut Read, region: &Region) {
    for (index, &from) in read.index.iter_mut().zip(&region.offset) {
        index.map.constant -= from as i64 * index.divisor;
    }
}

/// Makes an output the region of it that is written.
pub fn write_within(output: &mut Output, region: &Region) {
    output.extents.clone_from(&region.shape);
    for (map, &from) in output.index.iter_mut().zip(&region.offset) {
        map.constant -= from as i64;
    }
}

/// A nest that puts a region of a tensor together from regions of it that cover it, one an operand.
pub fn join(dtype: DType, of: &Region, from: &[Region]) -> Nest {
    let mut nest = Nest::copy(dtype, &of.shape);
    let read = |(operand, region): (usize, &Region)| {
        let shifts = of.offset.iter().zip(&region.offset).enumerate();
        let index = shifts
            .map(|(d, (&to, &from))| Index::new(Affine::of(Loop(d)).plus_constant(to as i64 - from as i64)));
        Read {
            source: Source::Operand(operand),
            index: index.collect(),
            predicates: vec![],
            padding_value: 0.0,
        }
    };
    nest.reads = from.iter().enumerate().map(read).collect();
    let last = from.len() - 1;
    nest.outputs[0].value = (0..last).rev().fold(Expr::Read(last), |rest, i| {
        Expr::InBounds(i).select(Expr::Read(i), rest)
    });
    nest
}

/// A sum over a part of its loop, stored as it is; its caller adds the parts with [`finish`].
pub fn partial(nest: &Nest, l: Loop, range: (usize, usize)) -> Nest {
    let mut part = nest.clone();
    part.outputs.truncate(1);
    part.outputs[0].dtype = DType::F32;
    part.outputs[0].value = Expr::Reduced;
    restrict(&part, l, range)
}

/// Adds partial sums, the operands from `first` on, and finishes as the nest does.
pub fn finish(nest: &Nest, first: usize, parts: usize) -> Nest {
    let index: Vec<Index> = nest.outputs[0].index.iter().cloned().map(Index::new).collect();
    let mut whole = nest.clone();
    let sum = (0..parts).map(|part| Expr::Read(nest.reads.len() + part));
    let sum = sum.reduce(|a, b| a + b).expect("there is at least one part");
    for operand in first..first + parts {
        whole.reads.push(Read {
            source: Source::Operand(operand),
            index: index.clone(),
            predicates: vec![],
            padding_value: 0.0,
        });
    }
    whole.reduction = vec![];
    whole.combine = Combine::None;
    whole.body = Expr::Constant(0.0);
    for output in &mut whole.outputs {
        output.value = output.value.map_leaves(&mut |leaf| match leaf {
            Expr::Reduced => sum.clone(),
            other => other.clone(),
        });
    }
    whole
}
