//! Numbers, lists and types: from what was written to what it means.

use super::syntax::{Scalar, Spanned, Value, WrittenType};
use super::token::shorten;
use crate::op::Attribute;
use crate::types::{DType, Dim, Type};
use std::ops::Range;

/// The most items of a list, and the most dimensions of a type.
const MAX_ITEMS: usize = 16;

/// Why a literal means nothing.
#[derive(Debug)]
pub(super) struct Wrong {
    pub span: Range<usize>,
    pub found: String,
    pub expected: &'static str,
    pub remedy: &'static str,
}

/// The meaning of an attribute's value.
pub(super) fn attribute(value: &Spanned<Value>) -> Result<Attribute, Wrong> {
    match &value.value {
        Value::Scalar(scalar) => self::scalar(*scalar, &value.span),
        Value::List(items) if items.iter().any(|i| i.value == Scalar::Word("N")) => {
            Ok(Attribute::Dims(dims(items, &value.span)?))
        }
        Value::List(items) => {
            check_length(items, &value.span)?;
            Ok(Attribute::Ints(
                items.iter().map(integer).collect::<Result<_, _>>()?,
            ))
        }
    }
}

/// The meaning of a type annotation.
pub(super) fn written_type(ty: &Spanned<WrittenType>) -> Result<Type, Wrong> {
    let dtype = DType::from_name(ty.value.dtype.value).ok_or_else(|| Wrong {
        span: ty.value.dtype.span.clone(),
        found: format!("the element type `{}`", shorten(ty.value.dtype.value)),
        expected: "f32, i64 or u8",
        remedy: "Write a type as f32[N, 96, 55, 55].",
    })?;
    Ok(Type::new(dtype, dims(&ty.value.dims, &ty.span)?))
}

fn scalar(scalar: Scalar, span: &Range<usize>) -> Result<Attribute, Wrong> {
    let text = match scalar {
        Scalar::Word("true") => return Ok(Attribute::Bool(true)),
        Scalar::Word("false") => return Ok(Attribute::Bool(false)),
        Scalar::Word(word) => return Ok(Attribute::Word(word.to_string())),
        Scalar::Number(text) => text,
    };
    if is_integer(text) {
        return integer(&Spanned {
            value: scalar,
            span: span.clone(),
        })
        .map(Attribute::Int);
    }
    let wrong = |found: String| Wrong {
        span: span.clone(),
        found,
        expected: "a number such as 3, 0.5 or 1e-4",
        remedy: "Write a decimal number.",
    };
    let numeric = text.chars().all(|c| c.is_ascii_digit() || "+-.eE".contains(c));
    match text.parse::<f64>() {
        // Zero has one sign only, so that equal attributes print alike.
        Ok(number) if numeric && number.is_finite() => Ok(Attribute::Real(number + 0.0)),
        Ok(_) if numeric => Err(wrong(format!("`{}`, which is too large", shorten(text)))),
        _ => Err(wrong(format!("`{}`, which is no number", shorten(text)))),
    }
}

fn is_integer(text: &str) -> bool {
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit())
}

fn integer(item: &Spanned<Scalar>) -> Result<i64, Wrong> {
    let text = item.value.text();
    let wrong = |found: String| Wrong {
        span: item.span.clone(),
        found,
        expected: "an integer",
        remedy: "A list holds integers; N, the batch, may stand in a shape.",
    };
    match text.parse() {
        Ok(number) => Ok(number),
        Err(_) if is_integer(text) => Err(wrong(format!("`{}`, which is too large", shorten(text)))),
        Err(_) => Err(wrong(format!("`{}`", shorten(text)))),
    }
}

fn dims(items: &[Spanned<Scalar>], span: &Range<usize>) -> Result<Vec<Dim>, Wrong> {
    check_length(items, span)?;
    let dim = |item: &Spanned<Scalar>| match item.value {
        Scalar::Word("N") => Ok(Dim::Batch),
        _ => usize::try_from(integer(item)?)
            .map(Dim::Fixed)
            .map_err(|_| Wrong {
                span: item.span.clone(),
                found: format!("the dimension {}", item.value.text()),
                expected: "N or a positive integer",
                remedy: "A dimension is at least 1.",
            }),
    };
    items.iter().map(dim).collect()
}

fn check_length(items: &[Spanned<Scalar>], span: &Range<usize>) -> Result<(), Wrong> {
    if items.len() <= MAX_ITEMS {
        return Ok(());
    }
    Err(Wrong {
        span: span.clone(),
        found: format!("a list of {} items", items.len()),
        expected: "at most 16 items",
        remedy: "No operation takes a longer list.",
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number(text: &str) -> Result<Attribute, String> {
        scalar(Scalar::Number(text), &(0..0)).map_err(|wrong| wrong.found)
    }

    #[test]
    fn numbers_are_integers_or_finite_reals() {
        assert_eq!(number("-3"), Ok(Attribute::Int(-3)));
        assert_eq!(number("1e-4"), Ok(Attribute::Real(1e-4)));
        assert_eq!(number("2."), Ok(Attribute::Real(2.0)));
        assert_eq!(number("-0.0").unwrap().to_string(), "0");
        for wrong in [
            "1e999",
            "99999999999999999999",
            "-inf",
            "+nan",
            "3x3",
            "-",
            "1-2",
            ".",
        ] {
            assert!(number(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_list_with_n_is_a_list_of_dimensions() {
        let list = |items: &[Scalar<'static>]| {
            let items = items.iter().map(|&value| Spanned { value, span: 0..0 }).collect();
            attribute(&Spanned {
                value: Value::List(items),
                span: 0..0,
            })
            .map_err(|wrong| wrong.found)
        };
        use Scalar::{Number, Word};
        assert_eq!(
            list(&[Number("1"), Number("-2")]),
            Ok(Attribute::Ints(vec![1, -2]))
        );
        assert_eq!(
            list(&[Word("N"), Number("3")]),
            Ok(Attribute::Dims(vec![Dim::Batch, Dim::Fixed(3)]))
        );
        assert_eq!(list(&[]), Ok(Attribute::Ints(vec![])));
        assert!(list(&[Word("N"), Number("-2")]).is_err());
        assert!(list(&[Word("M")]).is_err());
        assert!(list(&[Number("0.5")]).is_err());
        assert!(list(&[Number("1"); 17]).is_err());
    }
}
