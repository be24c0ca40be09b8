//! Sums over windows that slide along a vector: normalisation across channels that are neighbours in memory.
//!
//! The windows of a vector's lanes have all but their ends in common. So a thread computes each term once, whole vectors of
//! them, and every lane adds those of its window: for windows of 5 three vectors instead of twenty single terms.
//!
//! ```text
//! terms of vectors   [-4 -3 -2 -1] [ 0  1  2  3] [ 4  5  6  7]
//! window of lane 0          └────────────────┘
//! window of lane 3                   └────────────────┘
//! ```

use super::thread::lanes_type;
use super::vector::{VECTOR, is_same_or_vector};
use crate::access::{Access, FlatPredicate};
use crate::emit::{Point, Scope};
use crate::kernel::FlatNest;
use crate::mlir::Value;
use crate::scalar::Math;
use ir::nest::{Affine, Combine, Expr, Loop};

/// How the windows of a nest lie along its vector loop.
pub struct Slide {
    /// Counts the terms of a window.
    window: Loop,
    /// Terms of the first vector before the first lane's window.
    skipped: usize,
}

impl Slide {
    /// How the windows of a nest slide along a loop in whole vectors; `None` if they do not.
    pub fn of(nest: &FlatNest, along: Loop) -> Option<Slide> {
        let mut windows = nest.reduction_loops().into_iter().filter(|&l| nest.extent(l) > 1);
        let window = windows.next().filter(|_| nest.combine == Combine::Sum)?;
        if windows.next().is_some() || !nest.extent(along).is_multiple_of(VECTOR) {
            return None;
        }
        let mut reads = vec![];
        let mut fits = true;
        nest.body.walk(&mut |e| match e {
            Expr::Read(read) => reads.push(*read),
            Expr::InBounds(_) | Expr::Index(_) | Expr::Uniform { .. } | Expr::Table { .. } => fits = false,
            _ => {}
        });
        let begin = nest.reads[*reads.first()?].offset.constant;
        let slide = Slide {
            window,
            skipped: begin.rem_euclid(VECTOR as i64) as usize,
        };
        fits &= reads
            .iter()
            .all(|&read| slide.slides(nest, &nest.reads[read], along));
        for (access, value) in &nest.outputs {
            fits &= access.is_aligned(along, VECTOR);
            value.walk(&mut |e| match e {
                Expr::Read(read) | Expr::InBounds(read) => {
                    fits &= is_same_or_vector(&nest.reads[*read], along)
                }
                _ => {}
            });
        }
        fits.then_some(slide)
    }

    /// Whether a read moves on along the loop as it does along the window, and whole vectors of it are inside or outside.
    fn slides(&self, nest: &FlatNest, access: &Access, along: Loop) -> bool {
        // Vectors reach beyond the windows; but what is inside some window reaches is there.
        let is_kept_inside = access.checks.iter().any(|check| match check {
            FlatPredicate::Range(map, low, high) => {
                let (first, last) = map.range(&nest.extents);
                map.coefficient(along) == 1 && first <= *low && *high <= last + 1
            }
            FlatPredicate::Divides(..) => false,
        });
        // The first vector stands for all: they are whole vectors apart.
        let first = self.at(access, 0);
        (access.step(along), access.step(self.window)) == (Some(1), Some(1))
            && is_kept_inside
            && first.is_aligned(along, VECTOR)
    }

    /// A read of the terms that are so many vectors after the first one.
    fn at(&self, access: &Access, vector: usize) -> Access {
        let place = (vector * VECTOR) as i64 - self.skipped as i64;
        let set = |map: &Affine| {
            let mut map = map.clone().plus_constant(place * map.coefficient(self.window));
            map.terms.retain(|term| term.0 != self.window);
            map
        };
        let mut access = access.clone();
        access.offset = set(&access.offset);
        access.divided.iter_mut().for_each(|d| d.0 = set(&d.0));
        for check in &mut access.checks {
            let (FlatPredicate::Range(map, ..) | FlatPredicate::Divides(map, _)) = check;
            *map = set(map);
        }
        access
    }

    /// Adds up the windows of a vector of points.
    pub fn sum(&self, nest: &FlatNest, math: &mut Math, point: &Point) -> Value {
        let terms = nest.extent(self.window);
        let ty = lanes_type(VECTOR);
        let mut all = vec![];
        for vector in 0..(self.skipped + VECTOR - 1 + terms).div_ceil(VECTOR) {
            let reads: Vec<Access> = nest.reads.iter().map(|access| self.at(access, vector)).collect();
            let value = Scope::of_reads(&reads).value(math, point, &nest.body);
            let one = |i: usize| {
                math.body
                    .op(format_args!("vector.extract {value}[{i}] : f32 from {ty}"))
            };
            all.extend((0..VECTOR).map(one));
        }
        let sums: Vec<String> = (0..VECTOR)
            .map(|lane| {
                let own = &all[self.skipped + lane..][..terms];
                let add =
                    |sum: Value, term: &Value| math.body.op(format_args!("arith.addf {sum}, {term} : f32"));
                own[1..].iter().fold(own[0], add).to_string()
            })
            .collect();
        math.body
            .op(format_args!("vector.from_elements {} : {ty}", sums.join(", ")))
    }
}
