//! The syntax tree: what was written, with comments and places, before any name or operation is looked up.

use std::ops::Range;

/// Something written at a place: bytes of the source.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Spanned<T> {
    pub value: T,
    pub span: Range<usize>,
}

/// A word as written.
pub(super) type Word<'s> = Spanned<&'s str>;

/// One line of the source.
#[derive(Clone, Debug)]
pub(super) struct Line<'s> {
    /// `None` on a line of its own comment.
    pub statement: Option<Statement<'s>>,
    /// From `#` to the end of the line.
    pub comment: Option<&'s str>,
    /// Whether the line above is empty.
    pub after_blank: bool,
}

/// What a line says.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Statement<'s> {
    /// `model NAME`
    Model(Word<'s>),
    /// `output NAME = VALUE`
    Output { name: Word<'s>, value: Word<'s> },
    /// `update PARAMETER = VALUE`
    Update { target: Word<'s>, next: Word<'s> },
    /// `NAME : TYPE = MNEMONIC(OPERANDS) key=value ...`
    Definition(Definition<'s>),
    /// A line that could not be read, with the name it would have defined.
    Broken(Option<Word<'s>>),
}

/// `NAME : TYPE = MNEMONIC(OPERANDS) key=value ...`
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Definition<'s> {
    pub name: Word<'s>,
    pub ty: Option<Spanned<WrittenType<'s>>>,
    pub mnemonic: Word<'s>,
    pub operands: Vec<Word<'s>>,
    /// From the mnemonic to the closing parenthesis.
    pub call: Range<usize>,
    pub attributes: Vec<(Word<'s>, Spanned<Value<'s>>)>,
}

/// `f32[N, 96]`
#[derive(Clone, Debug, PartialEq)]
pub(super) struct WrittenType<'s> {
    pub dtype: Word<'s>,
    pub dims: Vec<Spanned<Scalar<'s>>>,
}

/// The value of an attribute.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value<'s> {
    Scalar(Scalar<'s>),
    List(Vec<Spanned<Scalar<'s>>>),
}

/// A number or word, as written.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Scalar<'s> {
    Number(&'s str),
    Word(&'s str),
}

impl<'s> Scalar<'s> {
    /// What was written.
    pub fn text(self) -> &'s str {
        match self {
            Scalar::Number(text) | Scalar::Word(text) => text,
        }
    }
}
