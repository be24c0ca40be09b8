//! Vectors of a thread: 16 bytes that it reads or writes at once.

use crate::access::Access;
use crate::kernel::FlatNest;
use ir::nest::Loop;

/// f32 lanes of a vector of 16 bytes.
pub const VECTOR: usize = 4;

/// Whether all that a nest reads and writes is, along a loop, the same or whole vectors.
pub fn is_vector(nest: &FlatNest, l: Loop) -> bool {
    let outputs = nest.outputs.iter().all(|o| o.0.is_aligned(l, VECTOR));
    let mut reads = nest.reads.iter().zip(nest.used_reads());
    let fits = |(access, used): (&Access, bool)| !used || is_same_or_vector(access, l);
    outputs && nest.extent(l).is_multiple_of(VECTOR) && reads.all(fits)
}

/// Whether a read is, along a loop, the same element or whole vectors.
pub fn is_same_or_vector(access: &Access, l: Loop) -> bool {
    !access.depends_on(l) || access.is_aligned(l, VECTOR)
}
