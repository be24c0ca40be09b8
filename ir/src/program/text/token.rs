//! The words of program text.
//!
//! They differ from those of graphs: here `i0-1` is a difference, and names may be quoted.

use crate::text::shorten;
use logos::Logos;
use std::fmt;
use std::ops::Range;

/// A token, as written.
#[derive(Logos, Clone, Copy, Debug, PartialEq)]
#[logos(skip r"[ \t\r]+")]
pub(super) enum Token<'s> {
    /// A keyword, an attribute or a name.
    #[regex(r"[A-Za-z_][A-Za-z0-9_.]*")]
    Word(&'s str),
    /// Anything that begins with a digit.
    #[regex(r"[0-9][A-Za-z0-9_.]*")]
    #[regex(r"[0-9][0-9.]*[eE][+-][0-9]+")]
    Number(&'s str),
    /// A value, as `%3`.
    #[regex(r"%[0-9]+")]
    Value(&'s str),
    /// A name in quotes, which are part of the token.
    #[regex(r#""([^"\\]|\\.)*""#)]
    Quoted(&'s str),
    /// Everything else that has a meaning.
    #[token("->")]
    #[token("<=")]
    #[token("==")]
    #[regex(r"[-+*/<>=:,()\[\]@]")]
    Symbol(&'s str),
    /// The rest of the line is for people.
    #[token("#")]
    Comment,
    /// What no token begins with.
    Unknown(&'s str),
}

impl fmt::Display for Token<'_> {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Token::Comment => f.write_str("a comment"),
            Token::Unknown(text) => write!(f, "`{}`", shorten(text).escape_debug()),
            Token::Word(text)
            | Token::Number(text)
            | Token::Value(text)
            | Token::Quoted(text)
            | Token::Symbol(text) => {
                write!(f, "`{}`", shorten(text))
            }
        }
    }
}

/// The tokens of a line that begins at `offset`, up to its comment.
pub(super) fn tokens(line: &str, offset: usize) -> Vec<(Token<'_>, Range<usize>)> {
    let tokens = Token::lexer(line).spanned().map(|(token, span)| {
        let token = token.unwrap_or(Token::Unknown(&line[span.clone()]));
        (token, span.start + offset..span.end + offset)
    });
    tokens.take_while(|(token, _)| *token != Token::Comment).collect()
}

/// Whether a name needs no quotes.
fn is_plain(name: &str) -> bool {
    let first = |c: char| c.is_ascii_alphabetic() || c == '_';
    name.starts_with(first) && name.chars().all(|c| first(c) || c.is_ascii_digit() || c == '.')
}

/// A name as it is written: in quotes if it needs them.
pub(super) fn quote(name: &str) -> String {
    if is_plain(name) {
        return name.to_string();
    }
    let mut quoted = String::from("\"");
    for c in name.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            c if c.is_control() => quoted.push_str(&format!("\\u{{{:x}}}", c as u32)),
            c => quoted.push(c),
        }
    }
    quoted + "\""
}

/// The name that a quoted token means; `None` if an escape is unknown.
pub(super) fn unquote(quoted: &str) -> Option<String> {
    let inside = quoted.strip_prefix('"')?.strip_suffix('"')?;
    let mut name = String::new();
    let mut rest = inside.chars();
    while let Some(c) = rest.next() {
        if c != '\\' {
            name.push(c);
            continue;
        }
        match rest.next()? {
            c @ ('"' | '\\') => name.push(c),
            'u' => {
                let (code, after) = rest.as_str().strip_prefix('{')?.split_once('}')?;
                name.push(char::from_u32(u32::from_str_radix(code, 16).ok()?)?);
                rest = after.chars();
            }
            _ => return None,
        }
    }
    Some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_splits_into_tokens_up_to_its_comment() {
        let found: Vec<String> = tokens("%3[i0-1]=1e-5*\"a#\\\"b\" <= x.y # %", 0)
            .into_iter()
            .map(|token| token.0.to_string())
            .collect();
        let expected = "`%3` `[` `i0` `-` `1` `]` `=` `1e-5` `*` `\"a#\\\"b\"` `<=` `x.y`";
        assert_eq!(found.join(" "), expected);
    }

    #[test]
    fn quoting_is_undone() {
        for name in [
            "a",
            "a+b",
            "",
            "9",
            "a\"\\b",
            "é\n\u{7f}\u{2028}",
            "x@1 # no comment",
        ] {
            let written = quote(name);
            let read = if is_plain(name) {
                Some(written.clone())
            } else {
                unquote(&written)
            };
            assert_eq!(read.as_deref(), Some(name), "{written}");
            assert!(!written.contains('\n'), "{written}");
        }
        assert_eq!(unquote(r#""\q""#), None);
    }
}
