//! The ways to vectorise a contraction on a processor: along a loop that one factor walks element by element, in vectors,
//! and the other does not walk at all. The factor that is read in vectors is the *panel*.

use ir::nest::{Affine, Loop, Nest, Read};
use ir::program::Vectors;

/// A way to vectorise a contraction.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Vectorization {
    /// What is read in vectors, and along which dimension.
    pub vectors: Vectors,
    /// The loop along the lanes.
    pub vector: Loop,
    /// The panel's position in the nest's reads.
    pub panel: usize,
    /// That of the other factor.
    pub scalar: usize,
}

/// Steps of a vector loop from which on longer is no better.
const LONG: usize = 64;

impl Vectorization {
    /// Of two ways that cost the same the one with the longer loop is better.
    pub fn length(&self, nest: &Nest) -> usize {
        nest.parallel[self.vector.0].min(LONG)
    }

    /// The share of lanes that have something to do.
    pub fn fill(&self, nest: &Nest, lanes: usize) -> f64 {
        let extent = nest.parallel[self.vector.0];
        extent as f64 / extent.next_multiple_of(lanes) as f64
    }
}

/// All ways to vectorise a nest; none if it is no contraction, or its factors are not found by strides.
pub fn vectorizations(nest: &Nest) -> Vec<Vectorization> {
    let simple = |read: &Read| read.predicates.is_empty() && read.index.iter().all(|i| i.divisor == 1);
    let factors = nest.contraction().map(|(a, b)| [a, b]);
    let Some(factors) = factors.filter(|factors| factors.iter().all(|&f| simple(&nest.reads[f]))) else {
        return vec![];
    };
    let maps = |read: usize| nest.reads[read].index.iter().map(|i| &i.map);
    let mut found = vec![];
    for factor in [1, 0] {
        let (panel, scalar) = (factors[factor], factors[1 - factor]);
        for vector in (0..nest.parallel.len())
            .map(Loop)
            .filter(|l| nest.parallel[l.0] > 1)
        {
            let Some(dimension) = unit_stride_dimension(maps(panel), vector) else {
                continue;
            };
            let is_stored =
                |output: &ir::nest::Output| unit_stride_dimension(output.index.iter(), vector).is_some();
            if maps(scalar).all(|m| m.coefficient(vector) == 0) && nest.outputs.iter().all(is_stored) {
                found.push(Vectorization {
                    vectors: Vectors { factor, dimension },
                    vector,
                    panel,
                    scalar,
                });
            }
        }
    }
    found
}

/// The dimension that a loop walks element by element, if it walks exactly one.
pub fn unit_stride_dimension<'m>(maps: impl Iterator<Item = &'m Affine>, l: Loop) -> Option<usize> {
    let mut found = maps.enumerate().filter(|(_, map)| map.coefficient(l) != 0);
    match (found.next(), found.next()) {
        (Some((d, map)), None) if map.coefficient(l) == 1 => Some(d),
        _ => None,
    }
}
