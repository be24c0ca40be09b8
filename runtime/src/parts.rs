//! Splits tensors of the interface into the parts that several devices hold, and assembles them.

use ir::plan::Region;

/// A range of bytes that is contiguous both in a tensor and in a part of it.
struct Run {
    whole: usize,
    part: usize,
    bytes: usize,
}

/// The contiguous ranges of a part of a tensor, in order; an element has `element` bytes.
fn runs(shape: &[usize], part: &Region, element: usize) -> Vec<Run> {
    // Dimensions after the last one that is cut are contiguous.
    let cut = (0..shape.len())
        .rev()
        .find(|&d| part.shape[d] != shape[d])
        .unwrap_or(0);
    let stride = |d: usize| element * shape[d + 1..].iter().product::<usize>();
    let bytes = match shape.len() {
        0 => element,
        _ => part.shape[cut] * stride(cut),
    };
    let mut starts = vec![0];
    for d in 0..(cut + 1).min(shape.len()) {
        let count = if d == cut { 1 } else { part.shape[d] };
        let along = |start: usize| (0..count).map(move |i| start + (part.offset[d] + i) * stride(d));
        starts = starts.into_iter().flat_map(along).collect();
    }
    let numbered = starts.into_iter().enumerate();
    numbered
        .map(|(i, whole)| Run {
            whole,
            part: i * bytes,
            bytes,
        })
        .collect()
}

/// The bytes of a part of a row-major tensor.
pub fn take(whole: &[u8], shape: &[usize], part: &Region, element: usize) -> Vec<u8> {
    let mut taken = Vec::new();
    for run in runs(shape, part, element) {
        taken.extend_from_slice(&whole[run.whole..run.whole + run.bytes]);
    }
    taken
}

/// Puts the bytes of a part where they belong in a row-major tensor.
pub fn put(whole: &mut [u8], shape: &[usize], part: &Region, element: usize, bytes: &[u8]) {
    for run in runs(shape, part, element) {
        whole[run.whole..run.whole + run.bytes].copy_from_slice(&bytes[run.part..run.part + run.bytes]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_taken_and_put_back() {
        let whole: Vec<u8> = (0..24).collect();
        let part = |offset: [usize; 3], shape: [usize; 3]| Region {
            offset: offset.into(),
            shape: shape.into(),
        };
        let shape = [2, 3, 4];
        assert_eq!(take(&whole, &shape, &part([1, 0, 0], [1, 3, 4]), 1), whole[12..]);
        assert_eq!(
            take(&whole, &shape, &part([0, 1, 1], [2, 2, 2]), 1),
            [5, 6, 9, 10, 17, 18, 21, 22]
        );
        assert_eq!(
            take(
                &whole,
                &[2, 3],
                &Region {
                    offset: vec![0, 1],
                    shape: vec![2, 1]
                },
                4
            ),
            [4, 5, 6, 7, 16, 17, 18, 19]
        );
        assert_eq!(take(&whole[..8], &[], &Region::whole(&[]), 8), whole[..8]);
        let mut put_together = vec![0; 24];
        for parted in [
            part([0, 0, 0], [2, 3, 3]),
            part([0, 0, 3], [2, 2, 1]),
            part([0, 2, 3], [2, 1, 1]),
        ] {
            let bytes = take(&whole, &shape, &parted, 1);
            put(&mut put_together, &shape, &parted, 1, &bytes);
        }
        assert_eq!(put_together, whole);
    }
}
