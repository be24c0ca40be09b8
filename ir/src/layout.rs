//! Where the elements of a stored tensor lie in memory.
//!
//! A layout is chosen by the compiler, never by the model file. It permutes the logical dimensions, may
//! surround some of them with a *storage padding* of zeros, so that a padded convolution reads without predicates.

/// The physical arrangement of a tensor of some rank.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Layout {
    /// Logical dimensions, outermost in memory first.
    pub order: Vec<usize>,
    /// Zero elements kept before and after each logical dimension.
    pub padding: Vec<(usize, usize)>,
}

/// How a logical index becomes an element offset: `base + Σ stride·index`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Strides {
    /// Offset of the logical origin.
    pub base: usize,
    /// Stride of each logical dimension, in elements.
    pub dims: Vec<usize>,
    /// Elements of the buffer, storage padding included.
    pub elements: usize,
}

impl Layout {
    /// Row-major in the logical order, as parameters, inputs and outputs are exchanged with the host.
    pub fn row_major(rank: usize) -> Layout {
        Layout::ordered((0..rank).collect())
    }

    /// The given order (outermost first) without storage padding or blocks.
    pub fn ordered(order: Vec<usize>) -> Layout {
        Layout {
            padding: vec![(0, 0); order.len()],
            order,
        }
    }

    /// Channels innermost: NHWC for an image batch, row-major below rank 4.
    pub fn channels_last(rank: usize) -> Layout {
        if rank < 3 {
            return Layout::row_major(rank);
        }
        Layout::ordered([0].into_iter().chain(2..rank).chain([1]).collect())
    }

    /// Whether any dimension has storage padding.
    pub fn has_padding(&self) -> bool {
        self.padding.iter().any(|&h| h != (0, 0))
    }

    /// The logical dimension whose neighbours are adjacent in memory.
    pub fn innermost(&self) -> Option<usize> {
        self.order.last().copied()
    }

    /// Strides for a tensor of these extents.
    pub fn strides(&self, extents: &[usize]) -> Strides {
        let mut dims = vec![0; extents.len()];
        let (mut stride, mut base) = (1, 0);
        for &d in self.order.iter().rev() {
            dims[d] = stride;
            base += self.padding[d].0 * stride;
            stride *= extents[d] + self.padding[d].0 + self.padding[d].1;
        }
        Strides {
            base,
            dims,
            elements: stride,
        }
    }
}

impl Strides {
    /// The element offset of a logical index.
    pub fn offset(&self, index: &[usize]) -> usize {
        self.base
            + index
                .iter()
                .zip(&self.dims)
                .map(|(i, stride)| i * stride)
                .sum::<usize>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn channels_last_puts_channels_innermost() {
        let strides = Layout::channels_last(4).strides(&[2, 3, 5, 7]);
        assert_eq!((strides.dims, strides.elements), (vec![105, 1, 21, 3], 210));
    }

    #[test]
    fn a_halo_moves_the_origin_and_widens_rows() {
        let mut layout = Layout::channels_last(4);
        layout.padding[2] = (1, 0);
        layout.padding[3] = (2, 1);
        let strides = layout.strides(&[1, 4, 2, 2]);
        assert_eq!(
            (strides.base, strides.dims, strides.elements),
            (20 + 8, vec![60, 1, 20, 4], 60)
        );
    }
}
