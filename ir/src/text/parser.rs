//! Source to syntax tree. A statement is one line, so an error ends with its line and the next one is read
//! afresh.

use super::syntax::{Definition, Line, Scalar, Spanned, Statement, Value, Word, WrittenType};
use super::token::Token;
use chumsky::error::{RichPattern, RichReason};
use chumsky::input::MappedInput;
use chumsky::prelude::*;
use logos::Logos;

/// What to do about a line that cannot be read.
pub(super) const REMEDY: &str = "A line is `NAME = OP(VALUES) key=value ...`, `output NAME = VALUE`, `update NAME = VALUE` or `model NAME`.";

/// Tokens with their places in the source.
type Tokens<'t, 's> = MappedInput<'t, Token<'s>, SimpleSpan, &'t [(Token<'s>, SimpleSpan)]>;
type Failure<'t, 's> = extra::Err<Rich<'t, Token<'s>, SimpleSpan>>;

/// A line that could not be read.
pub(super) struct SyntaxError {
    pub span: std::ops::Range<usize>,
    pub found: String,
    pub expected: String,
}

/// Reads one line, without its line break, that begins at `offset`.
pub(super) fn line<'s>(text: &'s str, offset: usize, after_blank: bool) -> (Line<'s>, Option<SyntaxError>) {
    let (code, comment) = match text.find('#') {
        Some(at) => (&text[..at], Some(text[at..].trim_end())),
        None => (text, None),
    };
    let tokens: Vec<(Token, SimpleSpan)> = tokens(code, offset).collect();
    let Some(&last) = tokens.last() else {
        return (
            Line {
                statement: None,
                comment,
                after_blank,
            },
            None,
        );
    };
    let end = SimpleSpan::from(last.1.end..last.1.end);
    let (parsed, errors) = statement()
        .parse(tokens.split_token_span(end))
        .into_output_errors();
    let error = errors.into_iter().next().map(explain);
    let statement = match (parsed, &error) {
        (Some(statement), None) => statement,
        _ => Statement::Broken(defined_name(&tokens)),
    };
    (
        Line {
            statement: Some(statement),
            comment,
            after_blank,
        },
        error,
    )
}

/// The name that a line too long to be read would have defined.
pub(super) fn first_word(text: &str, offset: usize) -> Option<Word<'_>> {
    let first: Vec<_> = tokens(text, offset).take(2).collect();
    defined_name(&first)
}

fn tokens(code: &str, offset: usize) -> impl Iterator<Item = (Token<'_>, SimpleSpan)> {
    Token::lexer(code).spanned().map(move |(token, span)| {
        let token = token.unwrap_or(Token::Unknown(&code[span.clone()]));
        (token, SimpleSpan::from(span.start + offset..span.end + offset))
    })
}

/// The name that a broken line would have defined, so that its users are not blamed.
fn defined_name<'s>(tokens: &[(Token<'s>, SimpleSpan)]) -> Option<Word<'s>> {
    match tokens {
        [
            (Token::Word("output" | "update" | "model"), _),
            (Token::Word(_), _),
            ..,
        ] => None,
        [(Token::Word(name), span), ..] => Some(Spanned {
            value: name,
            span: span.into_range(),
        }),
        _ => None,
    }
}

fn explain(error: Rich<Token, SimpleSpan>) -> SyntaxError {
    let found = error
        .found()
        .map_or("the end of the line".to_string(), Token::to_string);
    let mut expected: Vec<String> = match error.reason() {
        RichReason::Custom(message) => vec![message.to_string()],
        RichReason::ExpectedFound { expected, .. } => expected
            .iter()
            .filter_map(|pattern| match pattern {
                RichPattern::Token(token) => Some(token.to_string()),
                RichPattern::Label(label) => Some(label.to_string()),
                RichPattern::EndOfInput => Some("the end of the line".to_string()),
                _ => None,
            })
            .collect(),
    };
    expected.sort();
    expected.dedup();
    let expected = match expected.split_last() {
        None => "something else".to_string(),
        Some((one, [])) => one.clone(),
        Some((last, rest)) => format!("{} or {last}", rest.join(", ")),
    };
    SyntaxError {
        span: error.span().into_range(),
        found,
        expected,
    }
}

fn statement<'t, 's: 't>() -> impl Parser<'t, Tokens<'t, 's>, Statement<'s>, Failure<'t, 's>> {
    let keyword = |word: &'static str| just(Token::Word(word));
    let equals = just(Token::Equals);
    let model = keyword("model").ignore_then(word("a name")).map(Statement::Model);
    let output = keyword("output")
        .ignore_then(word("a name"))
        .then_ignore(equals)
        .then(word("a value"))
        .map(|(name, value)| Statement::Output { name, value });
    let update = keyword("update")
        .ignore_then(word("a parameter"))
        .then_ignore(equals)
        .then(word("a value"))
        .map(|(target, next)| Statement::Update { target, next });
    choice((model, output, update, definition().map(Statement::Definition))).then_ignore(end())
}

fn definition<'t, 's: 't>() -> impl Parser<'t, Tokens<'t, 's>, Definition<'s>, Failure<'t, 's>> {
    let ty = word("an element type")
        .then(list())
        .map_with(|(dtype, dims), e| spanned(WrittenType { dtype, dims }, e.span()))
        .labelled("a type");
    let operands = word("a value")
        .separated_by(just(Token::Comma))
        .collect::<Vec<_>>()
        .delimited_by(just(Token::Open), just(Token::Close));
    let call = word("an operation")
        .then(operands)
        .map_with(|parts, e| spanned(parts, e.span()));
    let value = choice((
        scalar().map(|s| Value::Scalar(s.value)),
        list().map(Value::List).labelled("a list"),
    ))
    .map_with(|value, e| spanned(value, e.span()));
    let attribute = word("an attribute").then_ignore(just(Token::Equals)).then(value);
    word("a statement")
        .then(just(Token::Colon).ignore_then(ty).or_not())
        .then_ignore(just(Token::Equals))
        .then(call)
        .then(attribute.repeated().collect::<Vec<_>>())
        .map(|(((name, ty), call), attributes)| {
            let (mnemonic, operands) = call.value;
            Definition {
                name,
                ty,
                mnemonic,
                operands,
                call: call.span,
                attributes,
            }
        })
}

/// `[1, N, 3]`; lists do not nest.
fn list<'t, 's: 't>() -> impl Parser<'t, Tokens<'t, 's>, Vec<Spanned<Scalar<'s>>>, Failure<'t, 's>> + Clone {
    scalar()
        .separated_by(just(Token::Comma))
        .collect::<Vec<_>>()
        .delimited_by(just(Token::OpenList), just(Token::CloseList))
}

fn scalar<'t, 's: 't>() -> impl Parser<'t, Tokens<'t, 's>, Spanned<Scalar<'s>>, Failure<'t, 's>> + Clone {
    let number = select! { Token::Number(text) => Scalar::Number(text) }.labelled("a number");
    let word = select! { Token::Word(text) => Scalar::Word(text) }.labelled("a word");
    choice((number, word)).map_with(|scalar, e| spanned(scalar, e.span()))
}

fn word<'t, 's: 't>(
    label: &'static str,
) -> impl Parser<'t, Tokens<'t, 's>, Word<'s>, Failure<'t, 's>> + Clone {
    select! { Token::Word(text) => text }
        .map_with(|text, e| spanned(text, e.span()))
        .labelled(label)
}

fn spanned<T>(value: T, span: SimpleSpan) -> Spanned<T> {
    Spanned {
        value,
        span: span.into_range(),
    }
}
