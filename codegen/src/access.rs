//! Reads and outputs of a nest, resolved against the layouts of the values they touch.

use ir::layout::Layout;
use ir::nest::{Affine, Loop, Nest, Output, Read};
use ir::types::DType;

/// A buffer that a kernel is passed.
#[derive(Clone, Debug, PartialEq)]
pub struct Operand {
    /// Element type.
    pub dtype: DType,
    /// Logical extents.
    pub extents: Vec<usize>,
    /// Where elements lie.
    pub layout: Layout,
}

impl Operand {
    /// Elements of the buffer, storage padding included.
    pub fn elements(&self) -> usize {
        self.layout.strides(&self.extents).elements
    }

    /// Bytes of the buffer.
    pub fn bytes(&self) -> u64 {
        (self.elements() * self.dtype.bytes()) as u64
    }
}

/// A condition for a read to be inside its tensor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FlatPredicate {
    /// `low <= map < high`.
    Range(Affine, i64, i64),
    /// `map` is a multiple of the divisor.
    Divides(Affine, i64),
}

impl FlatPredicate {
    /// Whether it holds for all lanes of an aligned vector along a loop, or for none.
    pub fn is_uniform(&self, l: Loop, lanes: usize) -> bool {
        let whole = |n: i64| n % lanes as i64 == 0;
        match self {
            FlatPredicate::Range(map, low, high) => {
                let others = map.terms.iter().filter(|term| term.0 != l);
                map.coefficient(l) == 1
                    && [map.constant, *low, *high].into_iter().all(whole)
                    && others.map(|term| term.1).all(whole)
            }
            FlatPredicate::Divides(map, _) => map.coefficient(l) == 0,
        }
    }

    /// The tested map.
    pub fn map(&self) -> &Affine {
        match self {
            FlatPredicate::Range(map, ..) | FlatPredicate::Divides(map, _) => map,
        }
    }
}

/// Where a read or an output finds its element.
#[derive(Clone, Debug, PartialEq)]
pub struct Access {
    /// The argument of the kernel.
    pub argument: usize,
    /// Element type.
    pub dtype: DType,
    /// Elements of the buffer.
    pub elements: usize,
    /// Element offset, divided parts apart.
    pub offset: Affine,
    /// `(map, divisor, stride)`: adds `map / divisor · stride` to the offset.
    pub divided: Vec<(Affine, i64, i64)>,
    /// What must hold for the element to be inside; empty if it always is.
    pub checks: Vec<FlatPredicate>,
    /// The value elsewhere.
    pub padding_value: f64,
}

impl Access {
    /// Resolves a read. Checks that can be decided from the loops' extents are dropped; those that storage padding of
    /// zeros answers too, unless the caller needs to know inside from outside.
    pub fn of_read(nest: &Nest, read: &Read, operands: &[Operand], use_padding: bool) -> Access {
        let argument = read.source.operand();
        let operand = &operands[argument];
        let strides = operand.layout.strides(&operand.extents);
        let extents = nest.extents();
        let mut access = Access {
            argument,
            dtype: operand.dtype,
            elements: strides.elements,
            offset: Affine::constant(strides.base as i64),
            divided: vec![],
            checks: vec![],
            padding_value: read.padding_value,
        };
        for (d, index) in read.index.iter().enumerate() {
            let (stride, size) = (strides.dims[d] as i64, operand.extents[d] as i64);
            let (low, high) = index.map.range(&extents);
            let (before, after) = match use_padding && read.padding_value == 0.0 && index.divisor == 1 {
                true => (
                    operand.layout.padding[d].0 as i64,
                    operand.layout.padding[d].1 as i64,
                ),
                false => (0, 0),
            };
            if low < -before || high >= (size + after) * index.divisor {
                access
                    .checks
                    .push(FlatPredicate::Range(index.map.clone(), 0, size * index.divisor));
            }
            if index.divisor == 1 {
                access.offset = access.offset.plus(&index.map, stride);
            } else {
                access
                    .checks
                    .push(FlatPredicate::Divides(index.map.clone(), index.divisor));
                access.divided.push((index.map.clone(), index.divisor, stride));
            }
        }
        for predicate in &read.predicates {
            let (low, high) = predicate.map.range(&extents);
            if low < predicate.low || high >= predicate.high {
                access.checks.push(FlatPredicate::Range(
                    predicate.map.clone(),
                    predicate.low,
                    predicate.high,
                ));
            }
        }
        access
    }

    /// Resolves an output of a nest; `argument` is the kernel's argument it is stored to.
    pub fn of_output(nest: &Nest, output: &Output, argument: usize, operand: &Operand) -> Access {
        let strides = operand.layout.strides(&operand.extents);
        let mut offset = Affine::constant(strides.base as i64);
        for (map, &stride) in output.index.iter().zip(&strides.dims) {
            offset = offset.plus(map, stride as i64);
        }
        let (dtype, elements) = (operand.dtype, strides.elements);
        let beyond = |(map, extent): &(&Affine, usize)| map.range(&nest.parallel).1 >= *extent as i64;
        let dimensions = output.index.iter().zip(output.extents.iter().copied());
        let checks = dimensions
            .filter(beyond)
            .map(|(map, extent)| FlatPredicate::Range(map.clone(), 0, extent as i64));
        Access {
            argument,
            dtype,
            elements,
            offset,
            divided: vec![],
            checks: checks.collect(),
            padding_value: 0.0,
        }
    }

    /// Whether the element is found by strides alone: always inside, nothing divided.
    pub fn is_affine(&self) -> bool {
        self.divided.is_empty() && self.checks.is_empty()
    }

    /// The step in elements along a loop, or `None` where a division makes it irregular.
    pub fn step(&self, l: Loop) -> Option<i64> {
        match self.divided.iter().any(|d| d.0.coefficient(l) != 0) {
            true => None,
            false => Some(self.offset.coefficient(l)),
        }
    }

    /// Whether every `lanes` elements along a loop are one vector in memory, aligned to its size: with a step of 1,
    /// and all else a multiple of `lanes`; inside as a whole, or not at all.
    pub fn is_aligned(&self, l: Loop, lanes: usize) -> bool {
        let lanes = lanes as i64;
        let multiple = |n: i64| n % lanes == 0;
        self.step(l) == Some(1)
            && self
                .checks
                .iter()
                .all(|c| c.map().coefficient(l) == 0 || c.is_uniform(l, lanes as usize))
            && multiple(self.offset.constant)
            && self
                .offset
                .terms
                .iter()
                .all(|&(other, step)| other == l || multiple(step))
            && self.divided.iter().all(|d| multiple(d.2))
    }

    /// Whether address or checks depend on a loop.
    pub fn depends_on(&self, l: Loop) -> bool {
        self.step(l) != Some(0) || self.checks.iter().any(|c| c.map().coefficient(l) != 0)
    }
}
