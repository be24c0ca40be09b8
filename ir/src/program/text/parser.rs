//! A line to a statement.
//!
//! A statement is one line, so an error ends with its line and the next one is read afresh. The parser is written by hand:
//! expressions nest as deep as chains of fused operations, so their depth is limited by count and uses no call stack.

use super::expression::{atom, expression};
use super::syntax::{
    Access, Attribute, LoopExtent, Name, Spanned, Statement, Word, WrittenGuard, WrittenType,
};
use super::token::{Token, tokens, unquote};
use super::{MAX_NAME, syntax};
use std::ops::Range;

/// What to do about a line that cannot be read.
pub(super) const REMEDY: &str = "A line is `program NAME MODE ...`, `%ID NAME : TYPE ROLE ...`, `kernel LABEL(%ID) -> (%ID) ...`, `for I<N over K<N`, `R = %ID[I]`, `acc = sum(R)` or `%ID[I] = R`.";

/// Why a line cannot be read.
#[derive(Debug)]
pub(super) struct Unexpected {
    pub span: Range<usize>,
    pub found: String,
    pub expected: String,
}

pub(super) type Parsed<T> = Result<T, Unexpected>;

/// The tokens of a line, and how far they are read.
pub(super) struct Cursor<'s> {
    tokens: Vec<(Token<'s>, Range<usize>)>,
    at: usize,
    end: usize,
}

impl<'s> Cursor<'s> {
    /// The next token.
    pub fn peek(&self) -> Option<Token<'s>> {
        self.tokens.get(self.at).map(|token| token.0)
    }

    /// The place of the next token.
    pub fn span(&self) -> Range<usize> {
        let end = self.end..self.end;
        self.tokens.get(self.at).map_or(end, |token| token.1.clone())
    }

    /// Goes past the next token.
    pub fn advance(&mut self) {
        self.at += 1;
    }

    /// Goes past the next token if it is this one.
    pub fn eat(&mut self, token: Token) -> bool {
        let found = self.peek() == Some(token);
        self.at += usize::from(found);
        found
    }

    /// Goes past this symbol.
    pub fn expect(&mut self, symbol: &str) -> Parsed<()> {
        match self.eat(Token::Symbol(symbol)) {
            true => Ok(()),
            false => Err(self.unexpected(format!("`{symbol}`"))),
        }
    }

    /// That something else was expected than the next token.
    pub fn unexpected(&self, expected: impl Into<String>) -> Unexpected {
        let found = self
            .peek()
            .map_or("the end of the line".to_string(), |token| token.to_string());
        Unexpected {
            span: self.span(),
            found,
            expected: expected.into(),
        }
    }

    fn take(&mut self, of: impl Fn(Token<'s>) -> Option<&'s str>, expected: &str) -> Parsed<Word<'s>> {
        let span = self.span();
        match self.peek().and_then(of) {
            Some(value) => {
                self.advance();
                Ok(Spanned { value, span })
            }
            None => Err(self.unexpected(expected)),
        }
    }

    fn word(&mut self, expected: &str) -> Parsed<Word<'s>> {
        let of = |token| match token {
            Token::Word(text) => Some(text),
            _ => None,
        };
        self.take(of, expected)
    }

    fn number(&mut self, expected: &str) -> Parsed<Word<'s>> {
        let of = |token| match token {
            Token::Number(text) => Some(text),
            _ => None,
        };
        self.take(of, expected)
    }

    fn value(&mut self) -> Parsed<Word<'s>> {
        let of = |token| match token {
            Token::Value(text) => Some(text),
            _ => None,
        };
        self.take(of, "a value such as %3")
    }

    fn name(&mut self, expected: &str) -> Parsed<Name> {
        let wrong = self.unexpected(expected);
        let value = match self.peek() {
            Some(Token::Word(text)) => Some(text.to_string()),
            Some(Token::Quoted(text)) => unquote(text),
            _ => None,
        };
        let value = value.filter(|name| name.len() <= MAX_NAME).ok_or(wrong)?;
        let span = self.span();
        self.advance();
        Ok(Spanned { value, span })
    }
}

/// What a line that begins at `offset` says; nothing if it is blank.
pub(super) fn line(text: &str, offset: usize) -> Parsed<Option<Statement<'_>>> {
    let tokens = tokens(text, offset);
    let Some(last) = tokens.last() else {
        return Ok(None);
    };
    let end = last.1.end;
    let mut cursor = Cursor { tokens, at: 0, end };
    let statement = statement(&mut cursor)?;
    match cursor.peek() {
        None => Ok(Some(statement)),
        Some(_) => Err(cursor.unexpected("the end of the line")),
    }
}

fn statement<'s>(cursor: &mut Cursor<'s>) -> Parsed<Statement<'s>> {
    let second = cursor.tokens.get(1).map(|token| token.0);
    match (cursor.peek(), second) {
        (Some(Token::Word(name)), Some(Token::Symbol("="))) => assignment(cursor, name),
        (Some(Token::Word("program")), _) => {
            cursor.advance();
            let (name, mode) = (cursor.name("a name")?, cursor.word("a mode")?);
            let attributes = attributes(cursor)?;
            Ok(Statement::Program {
                name,
                mode,
                attributes,
            })
        }
        (Some(Token::Word("kernel")), _) => kernel(cursor),
        (Some(Token::Word("for")), _) => {
            let keyword = cursor.span();
            cursor.advance();
            let parallel = loops(cursor)?;
            let reduction = match cursor.eat(Token::Word("over")) {
                true => loops(cursor)?,
                false => vec![],
            };
            Ok(Statement::Loops {
                keyword,
                parallel,
                reduction,
            })
        }
        (Some(Token::Value(_)), Some(Token::Symbol("[" | "@"))) => {
            let access = access(cursor)?;
            let ty = match cursor.eat(Token::Symbol(":")) {
                true => Some(written_type(cursor)?),
                false => None,
            };
            cursor.expect("=")?;
            let value = expression(cursor)?;
            Ok(Statement::Output { access, ty, value })
        }
        (Some(Token::Value(_)), _) => {
            let (id, name) = (cursor.value()?, cursor.name("a name or `[`")?);
            cursor.expect(":")?;
            let (ty, role) = (written_type(cursor)?, cursor.word("a role")?);
            let attributes = attributes(cursor)?;
            Ok(Statement::Value {
                id,
                name,
                ty,
                role,
                attributes,
            })
        }
        _ => Err(cursor.unexpected("a statement")),
    }
}

/// A read or the combination of the body.
fn assignment<'s>(cursor: &mut Cursor<'s>, name: &'s str) -> Parsed<Statement<'s>> {
    let span = cursor.span();
    cursor.advance();
    cursor.expect("=")?;
    if name == "acc" {
        let body = expression(cursor)?;
        return Ok(Statement::Combine { acc: span, body });
    }
    let access = access(cursor)?;
    let mut predicates = vec![];
    if cursor.eat(Token::Word("where")) {
        loop {
            predicates.push(predicate(cursor)?);
            if !cursor.eat(Token::Symbol(",")) {
                break;
            }
        }
    }
    let padding_value = match cursor.eat(Token::Word("else")) {
        true => Some(atom(cursor)?),
        false => None,
    };
    let name = Spanned { value: name, span };
    Ok(Statement::Read {
        name,
        access,
        predicates,
        padding_value,
    })
}

fn predicate<'s>(cursor: &mut Cursor<'s>) -> Parsed<WrittenGuard<'s>> {
    let low = atom(cursor)?;
    cursor.expect("<=")?;
    let map = expression(cursor)?;
    cursor.expect("<")?;
    let high = atom(cursor)?;
    Ok(WrittenGuard { low, map, high })
}

fn kernel<'s>(cursor: &mut Cursor<'s>) -> Parsed<Statement<'s>> {
    cursor.advance();
    let label = cursor.name("a label")?;
    let operands = values(cursor)?;
    cursor.expect("->")?;
    let results = values(cursor)?;
    let attributes = attributes(cursor)?;
    Ok(Statement::Kernel {
        label,
        operands,
        results,
        attributes,
    })
}

/// `(%0, %1)`
fn values<'s>(cursor: &mut Cursor<'s>) -> Parsed<Vec<Word<'s>>> {
    cursor.expect("(")?;
    let mut values = vec![];
    if cursor.eat(Token::Symbol(")")) {
        return Ok(values);
    }
    loop {
        values.push(cursor.value()?);
        if !cursor.eat(Token::Symbol(",")) {
            cursor.expect(")")?;
            return Ok(values);
        }
    }
}

fn loops<'s>(cursor: &mut Cursor<'s>) -> Parsed<Vec<LoopExtent<'s>>> {
    let mut loops = vec![];
    while let Some(Token::Word(word)) = cursor.peek() {
        if word == "over" {
            break;
        }
        let name = cursor.word("a loop")?;
        cursor.expect("<")?;
        loops.push((name, cursor.number("an extent")?));
    }
    Ok(loops)
}

/// `%3@1[INDEX, ...]`
fn access<'s>(cursor: &mut Cursor<'s>) -> Parsed<Access<'s>> {
    let id = cursor.value()?;
    let position = match cursor.eat(Token::Symbol("@")) {
        true => Some(cursor.number("the position of an operand")?),
        false => None,
    };
    Ok(Access {
        id,
        position,
        index: list(cursor)?.1,
    })
}

fn written_type<'s>(cursor: &mut Cursor<'s>) -> Parsed<WrittenType<'s>> {
    let dtype = cursor.word("an element type")?;
    let extents = list(cursor)?.0;
    Ok(WrittenType { dtype, extents })
}

/// A list, and its items.
fn list<'s>(cursor: &mut Cursor<'s>) -> Parsed<(syntax::Term<'s>, Vec<syntax::Term<'s>>)> {
    if cursor.peek() != Some(Token::Symbol("[")) {
        return Err(cursor.unexpected("`[`"));
    }
    let list = atom(cursor)?;
    let items = match &list.kind {
        syntax::Kind::List(items) => items.clone(),
        _ => vec![],
    };
    Ok((list, items))
}

fn attributes<'s>(cursor: &mut Cursor<'s>) -> Parsed<Vec<Attribute<'s>>> {
    let mut attributes = vec![];
    while cursor.peek().is_some() {
        let key = cursor.word("an attribute")?;
        let value = match cursor.eat(Token::Symbol("=")) {
            true => Some(atom(cursor)?),
            false => None,
        };
        attributes.push((key, value));
    }
    Ok(attributes)
}
