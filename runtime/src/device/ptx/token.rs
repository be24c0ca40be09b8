//! The words of PTX.

use logos::Logos;
use std::fmt;

/// A token, as written.
#[derive(Logos, Clone, Copy, Debug, PartialEq)]
#[logos(skip r"[ \t\r\n]+")]
#[logos(skip(r"//[^\n]*", allow_greedy = true))]
#[logos(skip r"/\*([^*]|\*[^/])*\*/")]
pub(super) enum Token<'s> {
    /// An opcode with its modifiers, a register, a label or a symbol: `add.s32`, `fence.proxy.async.shared::cta`, `%r1`,
    /// `%tid.x`, `$L__BB0_1`.
    #[regex(r"[A-Za-z_$%][A-Za-z0-9_$%.]*(::[A-Za-z0-9_.]+)*")]
    Word(&'s str),
    /// A directive: `.reg`.
    #[regex(r"\.[A-Za-z_][A-Za-z0-9_.]*")]
    Directive(&'s str),
    /// Anything that begins like a number: `-1`, `0x1F`, `0f3F800000`, `7.8`.
    #[regex(r"-?[0-9][A-Za-z0-9_.]*")]
    Number(&'s str),
    /// A text in quotes.
    #[regex(r#""[^"\n]*""#)]
    Text(&'s str),
    /// A character with a meaning of its own.
    #[regex(r"[,;:\[\]{}()@!<>|+=]", |lexer| lexer.slice().as_bytes()[0])]
    Sign(u8),
    /// What no token begins with.
    Unknown(&'s str),
}

impl fmt::Display for Token<'_> {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Token::Word(text)
            | Token::Directive(text)
            | Token::Number(text)
            | Token::Text(text)
            | Token::Unknown(text) => write!(f, "`{text}`"),
            Token::Sign(sign) => write!(f, "`{}`", char::from(*sign)),
        }
    }
}

/// A token with the line it is on, counted from 1.
pub(super) type Placed<'s> = (Token<'s>, usize);

/// The tokens of a text.
pub(super) fn tokens(text: &str) -> Vec<Placed<'_>> {
    let (mut line, mut seen) = (1, 0);
    Token::lexer(text)
        .spanned()
        .map(|(token, span)| {
            line += text.as_bytes()[seen..span.start]
                .iter()
                .filter(|&&b| b == b'\n')
                .count();
            seen = span.start;
            (token.unwrap_or(Token::Unknown(&text[span])), line)
        })
        .collect()
}
