//! The words of the text format.

use logos::Logos;
use std::fmt;

/// A token, as written. Whether a word is a valid name, or a number a number, is judged later, where a
/// better message can be given.
#[derive(Logos, Clone, Copy, Debug, PartialEq)]
#[logos(skip r"[ \t\r]+")]
pub(super) enum Token<'s> {
    /// A name, mnemonic, attribute or bare word.
    #[regex(r"[A-Za-z_][A-Za-z0-9_.\-]*")]
    Word(&'s str),
    /// Anything that begins like a number.
    #[regex(r"[0-9.+\-][A-Za-z0-9_.+\-]*")]
    Number(&'s str),
    /// `:`
    #[token(":")]
    Colon,
    /// `=`
    #[token("=")]
    Equals,
    /// `,`
    #[token(",")]
    Comma,
    /// `(`
    #[token("(")]
    Open,
    /// `)`
    #[token(")")]
    Close,
    /// `[`
    #[token("[")]
    OpenList,
    /// `]`
    #[token("]")]
    CloseList,
    /// What no token begins with.
    Unknown(&'s str),
}

impl fmt::Display for Token<'_> {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let text = match self {
            Token::Word(text) | Token::Number(text) => return write!(f, "`{}`", shorten(text)),
            Token::Unknown(text) => return write!(f, "`{}`", shorten(text).escape_debug()),
            Token::Colon => "`:`",
            Token::Equals => "`=`",
            Token::Comma => "`,`",
            Token::Open => "`(`",
            Token::Close => "`)`",
            Token::OpenList => "`[`",
            Token::CloseList => "`]`",
        };
        f.write_str(text)
    }
}

/// The beginning of a text that is too long for a message.
pub(crate) fn shorten(text: &str) -> String {
    const MAX: usize = 60;
    match text.char_indices().nth(MAX) {
        None => text.to_string(),
        Some((end, _)) => format!("{}...", &text[..end]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_statement_splits_into_tokens() {
        let tokens: Vec<String> = Token::lexer("w.2 : f32[N, 3]=relu(x)\ta=-1e-4 é")
            .spanned()
            .map(|(token, span)| token.map_or(format!("? {}", span.start), |t| t.to_string()))
            .collect();
        let expected = "`w.2` `:` `f32` `[` `N` `,` `3` `]` `=` `relu` `(` `x` `)` `a` `=` `-1e-4`";
        assert_eq!(tokens[..16].join(" "), expected);
        assert!(tokens[16].starts_with('?'), "{tokens:?}");
    }
}
