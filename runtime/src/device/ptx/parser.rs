//! Tokens to a module. Statements are told apart by their first token and their end; what is between is read by a
//! grammar for instructions and one for variables.

use super::token::{Placed, Token, tokens};
use super::{Entry, Instruction, Module, Operand, PtxError, Space, Variable};
use chumsky::prelude::*;

type Failure<'t, 's> = extra::Err<Simple<'t, Token<'s>>>;

/// Reads a module.
pub fn parse(text: &str) -> Result<Module, PtxError> {
    let tokens = tokens(text);
    let mut reader = Reader {
        tokens: &tokens,
        at: 0,
    };
    reader.module()
}

/// The tokens that are left to read.
struct Reader<'t, 's> {
    tokens: &'t [Placed<'s>],
    at: usize,
}

impl<'t, 's> Reader<'t, 's> {
    fn peek(&self) -> Option<Token<'s>> {
        self.tokens.get(self.at).map(|t| t.0)
    }

    fn next(&mut self) -> Option<Token<'s>> {
        self.at += 1;
        self.tokens.get(self.at - 1).map(|t| t.0)
    }

    /// An error at the next token.
    fn error(&self, expected: &str) -> PtxError {
        self.error_at(self.at, expected)
    }

    fn error_at(&self, at: usize, expected: &str) -> PtxError {
        let last = self.tokens.last().map_or(1, |t| t.1);
        PtxError {
            line: self.tokens.get(at).map_or(last, |t| t.1),
            found: self
                .tokens
                .get(at)
                .map_or("the end of the text".to_string(), |t| t.0.to_string()),
            expected: expected.to_string(),
        }
    }

    fn sign(&mut self, sign: u8) -> Result<(), PtxError> {
        if self.peek() != Some(Token::Sign(sign)) {
            return Err(self.error(&format!("`{}`", char::from(sign))));
        }
        self.at += 1;
        Ok(())
    }

    fn module(&mut self) -> Result<Module, PtxError> {
        let mut module = Module::default();
        while let Some(token) = self.peek() {
            match token {
                Token::Directive(".version") => {
                    self.at += 1;
                    module.version = self.number("a version of PTX")?.to_string();
                }
                Token::Directive(".target") => {
                    self.at += 1;
                    module.target = self.word("an architecture")?.to_string();
                    while self.peek() == Some(Token::Sign(b',')) {
                        self.at += 2;
                    }
                }
                Token::Directive(".address_size") => {
                    self.at += 1;
                    if self.number("64")? != "64" {
                        return Err(self.error_at(self.at - 1, "addresses of 64 bits"));
                    }
                }
                Token::Directive(".visible" | ".extern" | ".weak") => self.at += 1,
                Token::Directive(".entry") => {
                    self.at += 1;
                    let entry = self.entry()?;
                    module.entries.push(entry);
                }
                Token::Directive(_) => module.variables.push(self.variable()?),
                _ => return Err(self.error("a directive")),
            }
        }
        if module.version.is_empty() || module.target.is_empty() {
            return Err(self.error("`.version` and `.target`"));
        }
        Ok(module)
    }

    fn number(&mut self, what: &str) -> Result<&'s str, PtxError> {
        match self.peek() {
            Some(Token::Number(text)) => {
                self.at += 1;
                Ok(text)
            }
            _ => Err(self.error(what)),
        }
    }

    fn word(&mut self, what: &str) -> Result<&'s str, PtxError> {
        match self.peek() {
            Some(Token::Word(text)) => {
                self.at += 1;
                Ok(text)
            }
            _ => Err(self.error(what)),
        }
    }

    fn entry(&mut self) -> Result<Entry, PtxError> {
        let mut entry = Entry {
            name: self.word("the entry's name")?.to_string(),
            ..Entry::default()
        };
        if self.peek() == Some(Token::Sign(b'(')) {
            self.at += 1;
            while self.peek() != Some(Token::Sign(b')')) {
                entry.parameters.push(self.parameter()?);
            }
            self.at += 1;
        }
        // Directives about performance, with their numbers.
        while let Some(Token::Directive(_) | Token::Number(_) | Token::Sign(b',')) = self.peek() {
            self.at += 1;
        }
        self.sign(b'{')?;
        let mut depth = 1;
        while depth > 0 {
            match self.peek() {
                None => return Err(self.error("`}`")),
                Some(Token::Sign(b'{')) => {
                    depth += 1;
                    self.at += 1;
                }
                Some(Token::Sign(b'}')) => {
                    depth -= 1;
                    self.at += 1;
                }
                Some(Token::Directive(".reg")) => self.registers(&mut entry)?,
                Some(Token::Directive(".pragma" | ".loc" | ".file")) => {
                    let line = self.tokens[self.at].1;
                    while self.tokens.get(self.at).is_some_and(|t| t.1 == line) {
                        self.at += 1;
                    }
                }
                Some(Token::Directive(_)) => entry.variables.push(self.variable()?),
                Some(Token::Word(name))
                    if self.tokens.get(self.at + 1).map(|t| t.0) == Some(Token::Sign(b':')) =>
                {
                    entry.labels.push((name.to_string(), entry.body.len()));
                    self.at += 2;
                }
                Some(_) => {
                    let instruction = self.instruction()?;
                    entry.body.push(instruction);
                }
            }
        }
        Ok(entry)
    }

    /// `.param .u64 .ptr .global .align 4 NAME`, with the comma after it.
    fn parameter(&mut self) -> Result<String, PtxError> {
        let begin = self.at;
        let mut wide = false;
        loop {
            match self.next() {
                Some(Token::Directive(".u64" | ".b64" | ".s64")) => wide = true,
                Some(Token::Directive(_) | Token::Number(_)) => {}
                Some(Token::Word(name)) if wide => {
                    if self.peek() == Some(Token::Sign(b',')) {
                        self.at += 1;
                    }
                    return Ok(name.to_string());
                }
                _ => return Err(self.error_at(begin, "a parameter of 64 bits")),
            }
        }
    }

    /// `.reg .b32 %r<9>;`
    fn registers(&mut self, entry: &mut Entry) -> Result<(), PtxError> {
        self.at += 1;
        let bits = match self.next() {
            Some(Token::Directive(".pred")) => 1,
            Some(Token::Directive(".b16" | ".u16" | ".s16" | ".f16")) => 16,
            Some(Token::Directive(".b32" | ".u32" | ".s32" | ".f32")) => 32,
            Some(Token::Directive(".b64" | ".u64" | ".s64" | ".f64")) => 64,
            _ => return Err(self.error_at(self.at - 1, "a type of registers of at most 64 bits")),
        };
        loop {
            let name = self.word("a register")?.to_string();
            entry.registers.push((name, bits));
            if self.peek() == Some(Token::Sign(b'<')) {
                self.at += 1;
                self.number("how many registers")?;
                self.sign(b'>')?;
            }
            match self.next() {
                Some(Token::Sign(b',')) => {}
                Some(Token::Sign(b';')) => return Ok(()),
                _ => return Err(self.error_at(self.at - 1, "`;`")),
            }
        }
    }

    /// `.shared .align 16 .b8 NAME[BYTES] = {..};`
    fn variable(&mut self) -> Result<Variable, PtxError> {
        let space = match self.next() {
            Some(Token::Directive(".shared")) => Space::Shared,
            Some(Token::Directive(".local")) => Space::Local,
            Some(Token::Directive(".global")) => Space::Global,
            Some(Token::Directive(".const")) => Space::Constant,
            _ => return Err(self.error_at(self.at - 1, "a variable, an entry or an instruction")),
        };
        let (mut align, mut element) = (1, 1);
        while let Some(Token::Directive(directive)) = self.peek() {
            self.at += 1;
            match directive {
                ".align" => align = self.count("an alignment")?,
                _ => {
                    let bits: Option<usize> = directive.get(2..).and_then(|bits| bits.parse().ok());
                    let Some(bits) = bits.filter(|bits| [8, 16, 32, 64].contains(bits)) else {
                        return Err(self.error_at(self.at - 1, "the type of a variable"));
                    };
                    element = bits / 8;
                }
            }
        }
        let name = self.word("a variable's name")?.to_string();
        let mut bytes = element;
        if self.peek() == Some(Token::Sign(b'[')) {
            self.at += 1;
            bytes = match self.peek() {
                Some(Token::Sign(b']')) => 0,
                _ => self.count("a size")?.saturating_mul(element),
            };
            self.sign(b']')?;
        }
        let mut contents = None;
        if self.peek() == Some(Token::Sign(b'=')) {
            self.at += 1;
            self.sign(b'{')?;
            let mut written: Vec<u8> = vec![];
            while self.peek() != Some(Token::Sign(b'}')) {
                let text = self.number("a number")?;
                let value = number(text).ok_or_else(|| self.error_at(self.at - 1, "a number"))?;
                written.extend(&value.to_le_bytes()[..element]);
                if self.peek() == Some(Token::Sign(b',')) {
                    self.at += 1;
                }
            }
            self.at += 1;
            written.resize(bytes, 0);
            contents = Some(written);
        }
        self.sign(b';')?;
        Ok(Variable {
            name,
            space,
            bytes,
            align: align.max(element),
            contents,
        })
    }

    fn count(&mut self, what: &str) -> Result<usize, PtxError> {
        let text = self.number(what)?;
        let count = text.parse().ok().filter(|&count| count < 1usize << 32);
        count.ok_or_else(|| self.error_at(self.at - 1, what))
    }

    fn instruction(&mut self) -> Result<Instruction, PtxError> {
        let begin = self.at;
        let left = &self.tokens[begin..];
        let Some(length) = left.iter().position(|t| t.0 == Token::Sign(b';')) else {
            return Err(self.error_at(self.tokens.len(), "`;` at the end of an instruction"));
        };
        let statement: Vec<Token> = left[..length].iter().map(|t| t.0).collect();
        self.at += length + 1;
        let (parsed, errors) = instruction().parse(&statement).into_output_errors();
        match (parsed, errors.first()) {
            (Some(parsed), None) => Ok(Instruction {
                line: left[0].1,
                ..parsed
            }),
            (_, error) => {
                let place = error.map_or(0, |error| error.span().start);
                Err(self.error_at(
                    begin + place.min(length),
                    "an instruction: its name, then operands",
                ))
            }
        }
    }
}

fn sign<'t, 's: 't>(which: u8) -> impl Parser<'t, &'t [Token<'s>], (), Failure<'t, 's>> + Clone {
    just(Token::Sign(which)).ignored()
}

fn word<'t, 's: 't>() -> impl Parser<'t, &'t [Token<'s>], String, Failure<'t, 's>> + Clone {
    select! { Token::Word(text) => text.to_string() }
}

/// One instruction, without its semicolon.
fn instruction<'t, 's: 't>() -> impl Parser<'t, &'t [Token<'s>], Instruction, Failure<'t, 's>> {
    let value = select! { Token::Number(text) if number(text).is_some() => number(text).unwrap_or_default() };
    let offset = sign(b'+').or_not().ignore_then(value);
    let base = word().map(Operand::Name).or(value.map(Operand::Number));
    let address = base
        .then(offset.or_not())
        .map(|(base, offset)| Operand::Address(Box::new(base), offset.unwrap_or(0)))
        .delimited_by(sign(b'['), sign(b']'));
    let plain = word().map(Operand::Name).or(value.map(Operand::Number));
    let vector = plain
        .clone()
        .separated_by(sign(b','))
        .at_least(1)
        .collect()
        .map(Operand::Vector)
        .delimited_by(sign(b'{'), sign(b'}'));
    let pair = word()
        .then_ignore(sign(b'|'))
        .then(word())
        .map(|(a, b)| Operand::Pair(a, b));
    let not = sign(b'!').ignore_then(word()).map(Operand::Not);
    let operand = choice((address, vector, not, pair, plain));
    let guard = sign(b'@').ignore_then(sign(b'!').or_not()).then(word());
    guard
        .or_not()
        .then(word())
        .then(operand.separated_by(sign(b',')).collect())
        .map(|((guard, opcode), operands)| Instruction {
            line: 0,
            guard: guard.map(|(negated, name)| (name, negated.is_some())),
            opcode,
            operands,
        })
}

/// The bits of a number as PTX writes it: decimal, hexadecimal, or a float by its bits.
fn number(text: &str) -> Option<i64> {
    let text = text.trim_end_matches('U');
    if let Some(bits) = text.strip_prefix("0f").or_else(|| text.strip_prefix("0F")) {
        return u32::from_str_radix(bits, 16).ok().map(i64::from);
    }
    if let Some(bits) = text.strip_prefix("0d").or_else(|| text.strip_prefix("0D")) {
        return u64::from_str_radix(bits, 16).ok().map(|bits| bits as i64);
    }
    if let Some(digits) = text.strip_prefix("0x") {
        return u64::from_str_radix(digits, 16).ok().map(|bits| bits as i64);
    }
    match text.parse::<i64>() {
        Ok(number) => Some(number),
        Err(_) => text.parse::<u64>().ok().map(|bits| bits as i64),
    }
}
