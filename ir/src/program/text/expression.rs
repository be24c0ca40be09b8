//! Expressions, by precedence, with a stack of what is open instead of recursion.

use super::MAX_DEPTH;
use super::parser::{Cursor, Parsed, Unexpected};
use super::syntax::{Kind, Operator, Spanned, Term, Word};
use super::token::Token;
use std::ops::Range;

/// A bracket that is not closed yet.
enum Open<'s> {
    /// None: the beginning of the expression.
    Start,
    Group,
    List,
    Call(Word<'s>),
}

/// What was read since a bracket.
struct Frame<'s> {
    open: Open<'s>,
    from: usize,
    /// Finished items before commas.
    items: Vec<Term<'s>>,
    operands: Vec<Term<'s>>,
    operators: Vec<Operator>,
    /// Where the signs before the next operand stand.
    minuses: Vec<usize>,
}

/// An expression.
pub(super) fn expression<'s>(cursor: &mut Cursor<'s>) -> Parsed<Term<'s>> {
    read(cursor, false)
}

/// An expression without operators outside of brackets; a sign may stand before it.
pub(super) fn atom<'s>(cursor: &mut Cursor<'s>) -> Parsed<Term<'s>> {
    read(cursor, true)
}

fn read<'s>(cursor: &mut Cursor<'s>, one: bool) -> Parsed<Term<'s>> {
    let mut frames = vec![Frame::new(Open::Start, cursor.span().start)];
    loop {
        // An operand has to follow.
        let Some(mut done) = operand(cursor, &mut frames)? else {
            continue;
        };
        loop {
            let mut frame = frames.pop().expect("the start is closed last");
            for start in frame.minuses.drain(..).rev() {
                let span = start..done.span.end;
                done = term(Kind::Minus(Box::new(done)), span)?;
            }
            if one && matches!(frame.open, Open::Start) {
                return Ok(done);
            }
            frame.operands.push(done);
            if let Some(operator) = cursor.peek().and_then(Operator::of) {
                cursor.advance();
                frame.fold(operator.strength())?;
                frame.operators.push(operator);
                frames.push(frame);
                break;
            }
            frame.fold(0)?;
            let whole = frame
                .operands
                .pop()
                .expect("an operand was pushed, and folding leaves one");
            let close = match frame.open {
                Open::Start => return Ok(whole),
                Open::Group | Open::Call(_) => ")",
                Open::List => "]",
            };
            let is_group = matches!(frame.open, Open::Group);
            frame.items.push(whole);
            if !is_group && cursor.eat(Token::Symbol(",")) {
                frames.push(frame);
                break;
            }
            let end = cursor.span().end;
            if !cursor.eat(Token::Symbol(close)) {
                let separator = if is_group { "an operator" } else { "`,`" };
                return Err(cursor.unexpected(format!("`{close}` or {separator}")));
            }
            done = frame.close(end)?;
        }
    }
}

/// The next operand if it has no brackets, or nothing if a bracket or sign was read.
fn operand<'s>(cursor: &mut Cursor<'s>, frames: &mut Vec<Frame<'s>>) -> Parsed<Option<Term<'s>>> {
    let span = cursor.span();
    let wrong = cursor.unexpected("a number, a name or a bracket");
    let Some(token) = cursor.peek() else {
        return Err(wrong);
    };
    let open = match token {
        Token::Symbol("-") => {
            let frame = frames.last_mut().expect("the start is closed last");
            frame.minuses.push(span.start);
            check_depth(frame.minuses.len(), &span)?;
            cursor.advance();
            return Ok(None);
        }
        Token::Number(text) => {
            cursor.advance();
            return term(Kind::Number(text), span).map(Some);
        }
        Token::Value(text) => {
            cursor.advance();
            return term(Kind::Value(text), span).map(Some);
        }
        Token::Word(text) => {
            cursor.advance();
            if !cursor.eat(Token::Symbol("(")) {
                return term(Kind::Word(text), span).map(Some);
            }
            Open::Call(Spanned {
                value: text,
                span: span.clone(),
            })
        }
        Token::Symbol("(") => {
            cursor.advance();
            Open::Group
        }
        Token::Symbol("[") => {
            cursor.advance();
            Open::List
        }
        _ => return Err(wrong),
    };
    let close = if matches!(open, Open::List) { "]" } else { ")" };
    let frame = Frame::new(open, span.start);
    let end = cursor.span().end;
    if !matches!(frame.open, Open::Group) && cursor.eat(Token::Symbol(close)) {
        return frame.close(end).map(Some);
    }
    frames.push(frame);
    check_depth(frames.len(), &span)?;
    Ok(None)
}

impl<'s> Frame<'s> {
    fn new(open: Open<'s>, from: usize) -> Frame<'s> {
        Frame {
            open,
            from,
            items: vec![],
            operands: vec![],
            operators: vec![],
            minuses: vec![],
        }
    }

    /// Applies the operators that bind at least this tightly, from the right: each has what binds tighter behind it.
    fn fold(&mut self, strength: u8) -> Parsed<()> {
        while let Some(operator) = self.operators.pop_if(|last| last.strength() >= strength) {
            let right = self.operands.pop().expect("an operator has two operands");
            let left = self.operands.pop().expect("an operator has two operands");
            let span = left.span.start..right.span.end;
            let kind = Kind::Binary(operator, Box::new(left), Box::new(right));
            self.operands.push(term(kind, span)?);
        }
        Ok(())
    }

    /// The term that ends with the closing bracket.
    fn close(mut self, end: usize) -> Parsed<Term<'s>> {
        let span = self.from..end;
        match self.open {
            Open::Call(word) => term(Kind::Call(word.value, self.items), span),
            Open::List => term(Kind::List(self.items), span),
            Open::Group | Open::Start => {
                let inside = self.items.pop().expect("a group has an item");
                Ok(Term { span, ..inside })
            }
        }
    }
}

fn term<'s>(kind: Kind<'s>, span: Range<usize>) -> Parsed<Term<'s>> {
    let inside = match &kind {
        Kind::Number(_) | Kind::Word(_) | Kind::Value(_) => 0,
        Kind::List(items) | Kind::Call(_, items) => items.iter().map(|item| item.depth).max().unwrap_or(0),
        Kind::Minus(inside) => inside.depth,
        Kind::Binary(_, left, right) => left.depth.max(right.depth),
    };
    check_depth(inside, &span)?;
    Ok(Term {
        kind,
        span,
        depth: inside + 1,
    })
}

fn check_depth(depth: usize, span: &Range<usize>) -> Parsed<()> {
    if depth < MAX_DEPTH {
        return Ok(());
    }
    Err(Unexpected {
        span: span.clone(),
        found: "an expression that nests deeper".into(),
        expected: format!("at most {MAX_DEPTH} levels"),
    })
}
