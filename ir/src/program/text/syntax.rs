//! What a line of program text says, before any name or number is looked up.

use super::token::Token;
use std::ops::Range;

/// Something written at a place: bytes of the source.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Spanned<T> {
    pub value: T,
    pub span: Range<usize>,
}

/// A word, number or value, as written.
pub(super) type Word<'s> = Spanned<&'s str>;
/// A name, its quotes undone.
pub(super) type Name = Spanned<String>;
/// `key=value`, or `key` alone.
pub(super) type Attribute<'s> = (Word<'s>, Option<Term<'s>>);
/// A loop and its extent.
pub(super) type LoopExtent<'s> = (Word<'s>, Word<'s>);

/// What a line says.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Statement<'s> {
    /// `program NAME MODE key=value ...`
    Program {
        name: Name,
        mode: Word<'s>,
        attributes: Vec<Attribute<'s>>,
    },
    /// `%ID NAME : TYPE ROLE key=value ...`
    Value {
        id: Word<'s>,
        name: Name,
        ty: WrittenType<'s>,
        role: Word<'s>,
        attributes: Vec<Attribute<'s>>,
    },
    /// `kernel LABEL(%ID, ...) -> (%ID, ...) key=value ...`
    Kernel {
        label: Name,
        operands: Vec<Word<'s>>,
        results: Vec<Word<'s>>,
        attributes: Vec<Attribute<'s>>,
    },
    /// `for LOOP<EXTENT ... over LOOP<EXTENT ...`
    Loops {
        keyword: Range<usize>,
        parallel: Vec<LoopExtent<'s>>,
        reduction: Vec<LoopExtent<'s>>,
    },
    /// `READ = ACCESS where GUARD, ... else NUMBER`
    Read {
        name: Word<'s>,
        access: Access<'s>,
        predicates: Vec<WrittenGuard<'s>>,
        padding_value: Option<Term<'s>>,
    },
    /// `acc = COMBINE(EXPRESSION)`
    Combine { acc: Range<usize>, body: Term<'s> },
    /// `ACCESS : TYPE = EXPRESSION`; the type is left out where it is the value's.
    Output {
        access: Access<'s>,
        ty: Option<WrittenType<'s>>,
        value: Term<'s>,
    },
}

/// `f32[128, 96]`
#[derive(Clone, Debug, PartialEq)]
pub(super) struct WrittenType<'s> {
    pub dtype: Word<'s>,
    pub extents: Term<'s>,
}

/// `%3@1[INDEX, ...]`
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Access<'s> {
    pub id: Word<'s>,
    pub position: Option<Word<'s>>,
    pub index: Vec<Term<'s>>,
}

/// `LOW <= MAP < HIGH`
#[derive(Clone, Debug, PartialEq)]
pub(super) struct WrittenGuard<'s> {
    pub low: Term<'s>,
    pub map: Term<'s>,
    pub high: Term<'s>,
}

/// An operator between two terms.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Operator {
    Add,
    Subtract,
    Multiply,
    Divide,
    Greater,
    Equal,
}

impl Operator {
    /// The operator that a token is.
    pub fn of(token: Token) -> Option<Operator> {
        Some(match token {
            Token::Symbol("+") => Operator::Add,
            Token::Symbol("-") => Operator::Subtract,
            Token::Symbol("*") => Operator::Multiply,
            Token::Symbol("/") => Operator::Divide,
            Token::Symbol(">") => Operator::Greater,
            Token::Symbol("==") => Operator::Equal,
            _ => return None,
        })
    }

    /// How tightly it binds. Operators of one strength group from the left.
    pub fn strength(self) -> u8 {
        match self {
            Operator::Greater | Operator::Equal => 1,
            Operator::Add | Operator::Subtract => 2,
            Operator::Multiply | Operator::Divide => 3,
        }
    }
}

/// An expression, an index, a list or the value of an attribute.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Term<'s> {
    pub kind: Kind<'s>,
    pub span: Range<usize>,
    /// How deep it nests.
    pub depth: usize,
}

/// See [`Term`].
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Kind<'s> {
    Number(&'s str),
    Word(&'s str),
    Value(&'s str),
    List(Vec<Term<'s>>),
    Call(&'s str, Vec<Term<'s>>),
    Minus(Box<Term<'s>>),
    Binary(Operator, Box<Term<'s>>, Box<Term<'s>>),
}
