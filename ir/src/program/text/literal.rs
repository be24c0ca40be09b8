//! Terms as numbers and lists, and how numbers are written.

use super::syntax::{Kind, Spanned, Term};
use crate::text::shorten;
use std::ops::Range;

/// Why something means nothing.
#[derive(Debug)]
pub(super) struct Wrong {
    pub span: Range<usize>,
    pub found: String,
    pub expected: String,
    pub remedy: String,
}

pub(super) fn wrong<T>(
    span: &Range<usize>,
    found: impl Into<String>,
    expected: impl Into<String>,
    remedy: impl Into<String>,
) -> Result<T, Wrong> {
    Err(Wrong {
        span: span.clone(),
        found: found.into(),
        expected: expected.into(),
        remedy: remedy.into(),
    })
}

/// What is found where a term stands.
pub(super) fn shown(kind: &Kind) -> String {
    match kind {
        Kind::Number(text) | Kind::Word(text) | Kind::Value(text) => format!("`{}`", shorten(text)),
        Kind::List(_) => "a list".into(),
        Kind::Call(name, _) => format!("`{}(...)`", shorten(name)),
        Kind::Minus(_) => "`-`".into(),
        Kind::Binary(..) => "an operation".into(),
    }
}

/// A whole number without sign, decimal or hexadecimal, at most `most`.
pub(super) fn count(term: &Term, most: u64) -> Result<u64, Wrong> {
    match &term.kind {
        Kind::Number(text) => count_of(text, &term.span, most),
        other => wrong(
            &term.span,
            shown(other),
            "a whole number",
            "Write a number such as 96.",
        ),
    }
}

/// See [`count`].
pub(super) fn count_of(text: &str, span: &Range<usize>, most: u64) -> Result<u64, Wrong> {
    let number = match text.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16),
        None => text.parse(),
    };
    match number {
        Ok(number) if number <= most => Ok(number),
        _ => {
            let expected = format!("a whole number up to {most}");
            wrong(
                span,
                format!("`{}`", shorten(text)),
                expected,
                "Write a number such as 96.",
            )
        }
    }
}

/// The number of a value such as `%3`, which must be one of those above.
pub(super) fn id(word: &Spanned<&str>, values: usize) -> Result<usize, Wrong> {
    let known = word.value.strip_prefix('%').and_then(|n| n.parse().ok());
    match known.filter(|&id: &usize| id < values) {
        Some(id) => Ok(id),
        None => {
            let found = format!("the unknown value `{}`", shorten(word.value));
            wrong(
                &word.span,
                found,
                "a value defined above",
                "Define values before kernels.",
            )
        }
    }
}

/// A list of whole numbers.
pub(super) fn counts(term: &Term, most: u64) -> Result<Vec<u64>, Wrong> {
    match &term.kind {
        Kind::List(items) => items.iter().map(|item| count(item, most)).collect(),
        other => wrong(
            &term.span,
            shown(other),
            "a list",
            "Write a list such as [0, 2, 3, 1].",
        ),
    }
}

/// A float as it is written. Only NaN with unusual bits is written by its bits.
pub(super) fn written_float(x: f64) -> String {
    match x {
        x if x.to_bits() == f64::NAN.to_bits() => "nan".into(),
        x if x.is_nan() => format!("nan({:#x})", x.to_bits()),
        f64::INFINITY => "inf".into(),
        f64::NEG_INFINITY => "-inf".into(),
        x => format!("{x:?}"),
    }
}

/// A float that stands for itself; nothing if the term is no literal.
pub(super) fn literal(term: &Term) -> Option<Result<f64, Wrong>> {
    Some(match &term.kind {
        Kind::Word("inf") => Ok(f64::INFINITY),
        Kind::Word("nan") => Ok(f64::NAN),
        Kind::Call("nan", items) => match &items[..] {
            [bits] => count(bits, u64::MAX).map(f64::from_bits),
            _ => wrong(
                &term.span,
                shown(&term.kind),
                "nan(BITS)",
                "Write the bits of the NaN.",
            ),
        },
        Kind::Minus(inside) if matches!(inside.kind, Kind::Number(_) | Kind::Word("inf")) => {
            return literal(inside).map(|number| number.map(|x| -x));
        }
        Kind::Number(text) => {
            let numeric = text.chars().all(|c| c.is_ascii_digit() || "+-.eE".contains(c));
            match text.parse::<f64>() {
                Ok(x) if numeric && x.is_finite() => Ok(x),
                _ => wrong(
                    &term.span,
                    format!("`{}`", shorten(text)),
                    "a number such as 3, 0.5 or 1e-4",
                    "Write a decimal number; infinity is `inf`.",
                ),
            }
        }
        _ => return None,
    })
}

/// A float.
pub(super) fn float(term: &Term) -> Result<f64, Wrong> {
    literal(term).unwrap_or_else(|| {
        wrong(
            &term.span,
            shown(&term.kind),
            "a number",
            "Write a number, inf or nan.",
        )
    })
}
