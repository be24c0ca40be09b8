//! What operations share: their errors, and attributes as the text format has them.

use crate::types::{DType, Dim, Real, Type};
use std::fmt;

/// Why an operation cannot be: what was found, what was expected, what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{found}; expected {expected}. {remedy}")]
pub struct OpError {
    /// The attribute or operand at fault, if it is one.
    pub at: Fault,
    /// What was found.
    pub found: String,
    /// What would have been right.
    pub expected: String,
    /// What to do.
    pub remedy: String,
}

/// The part of a statement that an [`OpError`] blames.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The statement as a whole.
    Statement,
    /// The operand with this number.
    Operand(usize),
    /// The attribute with this name.
    Attribute(String),
}

impl OpError {
    /// An error about the statement as a whole.
    pub fn new(found: impl Into<String>, expected: impl Into<String>, remedy: impl Into<String>) -> OpError {
        OpError {
            at: Fault::Statement,
            found: found.into(),
            expected: expected.into(),
            remedy: remedy.into(),
        }
    }

    /// The same error, blaming an operand.
    pub fn operand(mut self, number: usize) -> OpError {
        self.at = Fault::Operand(number);
        self
    }

    /// The same error, blaming an attribute.
    pub fn attribute(mut self, name: &str) -> OpError {
        self.at = Fault::Attribute(name.to_string());
        self
    }
}

/// Checks the number of operands.
pub fn expect_operands(operands: &[&Type], names: &[&str]) -> Result<(), OpError> {
    if operands.len() == names.len() {
        return Ok(());
    }
    let expected = if names.is_empty() {
        "no operands".into()
    } else {
        format!("({})", names.join(", "))
    };
    let found = format!(
        "{} operand{}",
        operands.len(),
        if operands.len() == 1 { "" } else { "s" }
    );
    Err(OpError::new(found, expected, "Pass exactly these values."))
}

/// Checks the element type and rank of operand `i`.
pub fn expect_operand(operands: &[&Type], i: usize, dtype: DType, rank: usize) -> Result<(), OpError> {
    let ty = operands[i];
    if ty.dtype == dtype && ty.rank() == rank {
        return Ok(());
    }
    let expected = format!("{dtype} with {rank} dimensions");
    Err(OpError::new(
        format!("operand of type {ty}"),
        expected,
        "Reshape it or pass another value.",
    )
    .operand(i))
}

/// The value of an attribute.
#[derive(Clone, Debug, PartialEq)]
pub enum Attribute {
    /// An integer.
    Int(i64),
    /// A real number.
    Real(f64),
    /// `true` or `false`.
    Bool(bool),
    /// A bare word.
    Word(String),
    /// A list of integers.
    Ints(Vec<i64>),
    /// A list of dimensions, as `[N, 9216]`.
    Dims(Vec<Dim>),
}

impl Attribute {
    /// Integers for [`Attributes::ints`]: one number where all are the same.
    pub fn ints(items: &[usize]) -> Attribute {
        match items {
            [first, rest @ ..] if rest.iter().all(|n| n == first) => Attribute::Int(*first as i64),
            _ => Attribute::Ints(items.iter().map(|&n| n as i64).collect()),
        }
    }
}

impl fmt::Display for Attribute {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        fn list<T: fmt::Display>(f: &mut fmt::Formatter, items: &[T]) -> fmt::Result {
            let items: Vec<String> = items.iter().map(T::to_string).collect();
            write!(f, "[{}]", items.join(", "))
        }
        match self {
            Attribute::Int(n) => write!(f, "{n}"),
            Attribute::Real(x) if x.fract() == 0.0 && x.abs() < 1e15 => write!(f, "{x}"),
            Attribute::Real(x) => write!(f, "{x:?}"),
            Attribute::Bool(b) => write!(f, "{b}"),
            Attribute::Word(w) => f.write_str(w),
            Attribute::Ints(items) => list(f, items),
            Attribute::Dims(items) => list(f, items),
        }
    }
}

/// The attributes of one statement while an operation reads them: what is taken is removed, so that what
/// remains is unknown.
#[derive(Clone, Debug, Default)]
pub struct Attributes {
    /// Names and values, in the order written.
    pub entries: Vec<(String, Attribute)>,
    /// The names that the operation asked for, so that an unknown one can be answered with those it knows.
    pub asked: Vec<String>,
}

impl Attributes {
    /// Attributes as written, none read yet.
    pub fn new(entries: Vec<(String, Attribute)>) -> Attributes {
        Attributes {
            entries,
            asked: vec![],
        }
    }

    fn take(&mut self, name: &str) -> Option<Attribute> {
        self.asked.push(name.to_string());
        let i = self.entries.iter().position(|e| e.0 == name)?;
        Some(self.entries.remove(i).1)
    }

    fn wrong(name: &str, found: &Attribute, expected: &str) -> OpError {
        OpError::new(
            format!("{name}={found}"),
            expected,
            format!("Write {name} as {expected}."),
        )
        .attribute(name)
    }

    /// An integer of at least `least`; `default` if it is not written.
    pub fn int(&mut self, name: &str, default: Option<usize>, least: usize) -> Result<usize, OpError> {
        let expected = format!("an integer from {least} up to {MAX_EXTENT}");
        match (self.take(name), default) {
            (Some(Attribute::Int(n)), _) if n >= least as i64 && n <= MAX_EXTENT as i64 => Ok(n as usize),
            (Some(other), _) => Err(Self::wrong(name, &other, &expected)),
            (None, Some(default)) => Ok(default),
            (None, None) => Err(Self::missing(name, &expected)),
        }
    }

    /// A finite real number; `default` if it is not written.
    pub fn real(&mut self, name: &str, default: Option<f64>) -> Result<Real, OpError> {
        match (self.take(name), default) {
            (Some(Attribute::Real(x)), _) if x.is_finite() => Ok(Real(x)),
            (Some(Attribute::Int(n)), _) => Ok(Real(n as f64)),
            (Some(other), _) => Err(Self::wrong(name, &other, "a finite number")),
            (None, Some(default)) => Ok(Real(default)),
            (None, None) => Err(Self::missing(name, "a finite number")),
        }
    }

    /// A truth value; `default` if it is not written.
    pub fn bool(&mut self, name: &str, default: bool) -> Result<bool, OpError> {
        match self.take(name) {
            Some(Attribute::Bool(b)) => Ok(b),
            Some(other) => Err(Self::wrong(name, &other, "true or false")),
            None => Ok(default),
        }
    }

    /// One of the given words; the first if it is not written.
    pub fn word(&mut self, name: &str, words: &[&'static str]) -> Result<&'static str, OpError> {
        match self.take(name) {
            None => Ok(words[0]),
            Some(found) => words
                .iter()
                .find(|w| **w == found.to_string())
                .copied()
                .ok_or_else(|| Self::wrong(name, &found, &words.join(" or "))),
        }
    }

    /// `count` integers of at least `least`; one integer stands for all of them. `default` if not written.
    pub fn ints<const COUNT: usize>(
        &mut self,
        name: &str,
        default: Option<usize>,
        least: usize,
    ) -> Result<[usize; COUNT], OpError> {
        let expected = format!("an integer or a list of {COUNT}, each from {least} up to {MAX_EXTENT}");
        let fits = |n: i64| n >= least as i64 && n <= MAX_EXTENT as i64;
        match (self.take(name), default) {
            (Some(Attribute::Int(n)), _) if fits(n) => Ok([n as usize; COUNT]),
            (Some(Attribute::Ints(items)), _) if items.len() == COUNT && items.iter().all(|&n| fits(n)) => {
                Ok(std::array::from_fn(|i| items[i] as usize))
            }
            (Some(other), _) => Err(Self::wrong(name, &other, &expected)),
            (None, Some(default)) => Ok([default; COUNT]),
            (None, None) => Err(Self::missing(name, &expected)),
        }
    }

    /// A list of integers of any length, each at least `least`.
    pub fn list(&mut self, name: &str, least: usize) -> Result<Vec<usize>, OpError> {
        let expected = format!("a list of integers from {least} up");
        match self.take(name) {
            Some(Attribute::Ints(items)) if items.iter().all(|&n| n >= least as i64) => {
                Ok(items.iter().map(|&n| n as usize).collect())
            }
            Some(other) => Err(Self::wrong(name, &other, &expected)),
            None => Err(Self::missing(name, &expected)),
        }
    }

    /// A list of dimensions.
    pub fn dims(&mut self, name: &str) -> Result<Vec<Dim>, OpError> {
        let expected = &format!("a list of dimensions such as [N, 9216], each from 1 up to {MAX_EXTENT}");
        let fits = |n: i64| n >= 1 && n <= MAX_EXTENT as i64;
        match self.take(name) {
            Some(Attribute::Dims(dims)) if dims.iter().all(|d| d.fixed().is_none_or(|n| fits(n as i64))) => {
                Ok(dims)
            }
            Some(Attribute::Ints(items)) if items.iter().all(|&n| fits(n)) => {
                Ok(items.iter().map(|&n| Dim::Fixed(n as usize)).collect())
            }
            Some(other) => Err(Self::wrong(name, &other, expected)),
            None => Err(Self::missing(name, expected)),
        }
    }

    fn missing(name: &str, expected: &str) -> OpError {
        let remedy = format!("Add {name}=... to the statement.");
        OpError::new(format!("no attribute {name}"), expected, remedy).attribute(name)
    }
}

/// The largest extent or attribute accepted: products of four of them still fit 128 bits, and index
/// arithmetic in kernels fits 64.
pub const MAX_EXTENT: usize = 1 << 31;
/// The most elements a tensor may have, so that byte offsets fit comfortably.
pub const MAX_ELEMENTS: u128 = 1 << 40;
