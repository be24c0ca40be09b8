//! Tensors on the host: what goes into an executor and comes out of it, and what weights files hold.

use crate::Error;
use ir::DType;

/// The elements of a tensor, row-major.
#[derive(Clone, Debug, PartialEq)]
pub enum Data {
    /// 32-bit floating point.
    F32(Vec<f32>),
    /// 64-bit signed integers.
    I64(Vec<i64>),
    /// 8-bit unsigned integers.
    U8(Vec<u8>),
}

impl Data {
    /// The number of elements.
    pub fn len(&self) -> usize {
        match self {
            Data::F32(values) => values.len(),
            Data::I64(values) => values.len(),
            Data::U8(values) => values.len(),
        }
    }

    /// The element type.
    pub fn dtype(&self) -> DType {
        match self {
            Data::F32(_) => DType::F32,
            Data::I64(_) => DType::I64,
            Data::U8(_) => DType::U8,
        }
    }

    /// Whether there is no element.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// A tensor in host memory.
#[derive(Clone, Debug, PartialEq)]
pub struct Tensor {
    shape: Vec<usize>,
    data: Data,
}

impl Tensor {
    /// A tensor of `shape`; the number of elements must fit.
    pub fn new(shape: impl Into<Vec<usize>>, data: Data) -> Result<Tensor, Error> {
        let shape = shape.into();
        match elements(&shape) {
            Some(n) if n == data.len() => Ok(Tensor { shape, data }),
            _ => Err(Error::input(format!(
                "{} elements were given for the shape {shape:?}",
                data.len()
            ))),
        }
    }

    /// A tensor of f32.
    pub fn f32(shape: impl Into<Vec<usize>>, values: Vec<f32>) -> Result<Tensor, Error> {
        Tensor::new(shape, Data::F32(values))
    }

    /// A tensor of i64.
    pub fn i64(shape: impl Into<Vec<usize>>, values: Vec<i64>) -> Result<Tensor, Error> {
        Tensor::new(shape, Data::I64(values))
    }

    /// A tensor from its little-endian bytes.
    pub fn from_bytes(dtype: DType, shape: impl Into<Vec<usize>>, bytes: &[u8]) -> Result<Tensor, Error> {
        if !bytes.len().is_multiple_of(dtype.bytes()) {
            return Err(Error::input(format!(
                "{} bytes are not a whole number of {dtype}",
                bytes.len()
            )));
        }
        let data = match dtype {
            DType::F32 => Data::F32(bytemuck::pod_collect_to_vec(bytes)),
            DType::I64 => Data::I64(bytemuck::pod_collect_to_vec(bytes)),
            DType::U8 => Data::U8(bytes.to_vec()),
        };
        Tensor::new(shape, data)
    }

    /// The extents, outermost first.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// The elements.
    pub fn data(&self) -> &Data {
        &self.data
    }

    /// The element type.
    pub fn dtype(&self) -> DType {
        self.data.dtype()
    }

    /// The elements, without a copy.
    pub fn into_data(self) -> Data {
        self.data
    }

    /// The elements as f32, if they are.
    pub fn as_f32(&self) -> Option<&[f32]> {
        match &self.data {
            Data::F32(values) => Some(values),
            _ => None,
        }
    }

    /// The elements as i64, if they are.
    pub fn as_i64(&self) -> Option<&[i64]> {
        match &self.data {
            Data::I64(values) => Some(values),
            _ => None,
        }
    }

    /// The elements' bytes.
    pub fn bytes(&self) -> &[u8] {
        match &self.data {
            Data::F32(values) => bytemuck::cast_slice(values),
            Data::I64(values) => bytemuck::cast_slice(values),
            Data::U8(values) => values,
        }
    }

    /// The type as people write it: `f32[8, 3]`.
    pub fn type_name(&self) -> String {
        type_name(self.dtype(), &self.shape)
    }
}

/// A type as people write it: `f32[8, 3]`.
pub fn type_name(dtype: DType, shape: &[usize]) -> String {
    let extents: Vec<String> = shape.iter().map(usize::to_string).collect();
    format!("{dtype}[{}]", extents.join(", "))
}

/// The number of elements of `shape`, or `None` when it overflows.
pub fn elements(shape: &[usize]) -> Option<usize> {
    shape.iter().try_fold(1usize, |n, &extent| n.checked_mul(extent))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_and_back() {
        let tensor = Tensor::f32([2, 2], vec![1.0, -2.5, f32::MIN_POSITIVE, 0.0]).unwrap();
        // An odd address: bytes of files are not aligned.
        let mut shifted = vec![0u8];
        shifted.extend_from_slice(tensor.bytes());
        assert_eq!(
            Tensor::from_bytes(DType::F32, [2, 2], &shifted[1..]).unwrap(),
            tensor
        );
        assert_eq!(tensor.type_name(), "f32[2, 2]");
    }

    #[test]
    fn counts_must_fit() {
        assert!(
            Tensor::f32([2], vec![1.0])
                .unwrap_err()
                .to_string()
                .contains("1 elements")
        );
        assert!(Tensor::i64([usize::MAX, 4], vec![]).is_err());
        assert!(
            Tensor::from_bytes(DType::I64, [1], &[0; 7])
                .unwrap_err()
                .to_string()
                .contains("7 bytes")
        );
    }
}
