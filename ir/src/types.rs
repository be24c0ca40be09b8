//! Element types, dimensions and tensor types.
//!
//! A dimension is a number or the symbolic batch `N`. [`Type::bind`] replaces `N` once, at compile time;
//! everything after that sees numbers only.

use std::fmt;

/// The element type of a tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DType {
    /// 32-bit IEEE floating point: images, activations, parameters.
    F32,
    /// 64-bit signed integer: labels, the random state.
    I64,
    /// 8-bit unsigned integer: the winner's place in a pooling window.
    U8,
}

impl DType {
    /// Bytes of one element.
    pub fn bytes(self) -> usize {
        match self {
            DType::F32 => 4,
            DType::I64 => 8,
            DType::U8 => 1,
        }
    }

    /// The name in the text format, as `f32`.
    pub fn name(self) -> &'static str {
        match self {
            DType::F32 => "f32",
            DType::I64 => "i64",
            DType::U8 => "u8",
        }
    }

    /// The inverse of [`DType::name`].
    pub fn from_name(name: &str) -> Option<DType> {
        [DType::F32, DType::I64, DType::U8]
            .into_iter()
            .find(|dtype| dtype.name() == name)
    }
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// One dimension of a shape.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Dim {
    /// The symbolic batch, `N` in the text.
    Batch,
    /// A known extent.
    Fixed(usize),
}

impl Dim {
    /// The extent, or `None` while the batch is not bound.
    pub fn fixed(self) -> Option<usize> {
        match self {
            Dim::Batch => None,
            Dim::Fixed(n) => Some(n),
        }
    }

    /// Replaces the symbolic batch by `batch`.
    pub fn bind(self, batch: usize) -> Dim {
        Dim::Fixed(self.fixed().unwrap_or(batch))
    }
}

impl fmt::Display for Dim {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Dim::Batch => f.write_str("N"),
            Dim::Fixed(n) => write!(f, "{n}"),
        }
    }
}

/// The dimensions of a tensor, outermost first; empty for a scalar.
pub type Shape = Vec<Dim>;

/// A tensor type: element type and shape.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Type {
    /// Element type.
    pub dtype: DType,
    /// Dimensions, outermost first.
    pub shape: Shape,
}

impl Type {
    /// A type from its parts.
    pub fn new(dtype: DType, shape: impl Into<Shape>) -> Type {
        Type {
            dtype,
            shape: shape.into(),
        }
    }

    /// An f32 tensor with known extents.
    pub fn f32(extents: &[usize]) -> Type {
        Type::new(
            DType::F32,
            extents.iter().map(|&n| Dim::Fixed(n)).collect::<Shape>(),
        )
    }

    /// The number of dimensions.
    pub fn rank(&self) -> usize {
        self.shape.len()
    }

    /// The type with the symbolic batch replaced.
    pub fn bind(&self, batch: usize) -> Type {
        Type::new(
            self.dtype,
            self.shape.iter().map(|d| d.bind(batch)).collect::<Shape>(),
        )
    }

    /// The extents. Panics while the batch is symbolic: passes and code generation run on bound graphs.
    pub fn extents(&self) -> Vec<usize> {
        self.shape
            .iter()
            .map(|d| {
                d.fixed()
                    .expect("the batch is bound before extents are asked for")
            })
            .collect()
    }

    /// The number of elements of a bound type.
    pub fn elements(&self) -> usize {
        self.extents().iter().product()
    }
}

impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{}[", self.dtype)?;
        for (i, dim) in self.shape.iter().enumerate() {
            write!(f, "{}{dim}", if i == 0 { "" } else { ", " })?;
        }
        f.write_str("]")
    }
}

/// A real attribute, compared and hashed by its bits so that operations can be keys (egg needs that).
#[derive(Clone, Copy, Debug)]
pub struct Real(pub f64);

impl Real {
    /// A total key: equal bits, equal attributes.
    fn key(self) -> u64 {
        self.0.to_bits()
    }
}

impl PartialEq for Real {
    fn eq(&self, other: &Real) -> bool {
        self.key() == other.key()
    }
}
impl Eq for Real {}
impl PartialOrd for Real {
    fn partial_cmp(&self, other: &Real) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Real {
    fn cmp(&self, other: &Real) -> std::cmp::Ordering {
        self.0.total_cmp(&other.0)
    }
}
impl std::hash::Hash for Real {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.key().hash(state);
    }
}
impl fmt::Display for Real {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{:?}", self.0)
    }
}
