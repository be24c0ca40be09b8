//! Affine maps and expressions over the names of a kernel, each with how it is written.
//!
//! Printing and reading stand together here, so that one is seen to undo the other.

use super::literal::{Wrong, count, count_of, float, literal, shown, written_float, wrong};
use super::syntax::{Kind, Operator, Term};
use crate::nest::{Affine, Binary, Expr, Loop, Unary};
use crate::text::shorten;
use std::collections::BTreeMap;
use std::fmt::Write;

/// An integer with a sign.
pub(super) fn integer(term: &Term) -> Result<i64, Wrong> {
    let map = affine(term, &Scope::default())?;
    Ok(map.constant)
}

/// The names that stand in a kernel.
#[derive(Default)]
pub(super) struct Scope<'s> {
    /// Loops and their extents, parallel ones first.
    pub loops: Vec<(&'s str, usize)>,
    /// Reads, by name.
    pub reads: Vec<&'s str>,
}

/// An affine map as it is written: `2*i0 + k1 - 3`.
pub(super) fn written_affine(map: &Affine, parallel: usize) -> String {
    let mut text = String::new();
    for &(l, factor) in &map.terms {
        let name = written_loop(l, parallel);
        let sign = match (text.is_empty(), factor < 0) {
            (true, false) => "",
            (true, true) => "-",
            (false, false) => " + ",
            (false, true) => " - ",
        };
        text.push_str(sign);
        match factor.unsigned_abs() {
            1 => text.push_str(&name),
            factor => _ = write!(text, "{factor}*{name}"),
        }
    }
    match (text.is_empty(), map.constant) {
        (true, constant) => _ = write!(text, "{constant}"),
        (false, 0) => {}
        (false, constant) if constant < 0 => _ = write!(text, " - {}", constant.unsigned_abs()),
        (false, constant) => _ = write!(text, " + {constant}"),
    }
    text
}

/// The name of a loop: `i` for parallel ones, `k` for those of the reduction.
pub(super) fn written_loop(l: Loop, parallel: usize) -> String {
    match l.0.checked_sub(parallel) {
        None => format!("i{}", l.0),
        Some(k) => format!("k{k}"),
    }
}

/// The largest magnitude of an index.
const MAX_INDEX: i128 = 1 << 60;

/// An affine map of the loops in scope.
pub(super) fn affine(term: &Term, scope: &Scope) -> Result<Affine, Wrong> {
    let sum = linear(term, scope)?;
    let mut range = (sum.constant, sum.constant);
    for (&l, &factor) in &sum.terms {
        let last = factor.saturating_mul(scope.loops[l].1 as i128 - 1);
        range = (
            range.0.saturating_add(last.min(0)),
            range.1.saturating_add(last.max(0)),
        );
    }
    let factors = sum.terms.values().all(|factor| factor.abs() <= MAX_INDEX);
    if range.0 < -MAX_INDEX || range.1 > MAX_INDEX || !factors {
        let found = "an index beyond 2^60";
        return wrong(&term.span, found, "a smaller one", "Use smaller factors.");
    }
    let terms = sum.terms.into_iter().filter(|term| term.1 != 0);
    Ok(Affine {
        terms: terms.map(|(l, factor)| (Loop(l), factor as i64)).collect(),
        constant: sum.constant as i64,
    })
}

#[derive(Default)]
struct Linear {
    terms: BTreeMap<usize, i128>,
    constant: i128,
}

fn linear(term: &Term, scope: &Scope) -> Result<Linear, Wrong> {
    let constant = |constant: i128| Linear {
        constant,
        ..Linear::default()
    };
    let (operator, left, right) = match &term.kind {
        Kind::Number(text) => return Ok(constant(count_of(text, &term.span, 1 << 60)?.into())),
        Kind::Word(name) => {
            let Some(l) = scope.loops.iter().position(|l| l.0 == *name) else {
                let known: Vec<&str> = scope.loops.iter().map(|l| l.0).collect();
                let expected = match &known[..] {
                    [] => "an integer".to_string(),
                    known => format!("one of the loops {}", known.join(", ")),
                };
                let found = format!("the unknown loop `{}`", shorten(name));
                return wrong(
                    &term.span,
                    found,
                    expected,
                    "Write loops in the `for` line of the kernel.",
                );
            };
            return Ok(Linear {
                terms: [(l, 1)].into(),
                constant: 0,
            });
        }
        Kind::Minus(inside) => return Ok(constant(0).plus(&linear(inside, scope)?, -1)),
        Kind::Binary(operator, left, right) => (operator, linear(left, scope)?, linear(right, scope)?),
        other => {
            let remedy = "An index is made of loops, integers, +, - and *.";
            return wrong(&term.span, shown(other), "a sum of loops", remedy);
        }
    };
    match operator {
        Operator::Add => Ok(left.plus(&right, 1)),
        Operator::Subtract => Ok(left.plus(&right, -1)),
        Operator::Multiply if left.terms.is_empty() => Ok(constant(0).plus(&right, left.constant)),
        Operator::Multiply if right.terms.is_empty() => Ok(constant(0).plus(&left, right.constant)),
        Operator::Multiply => wrong(
            &term.span,
            "a product of loops",
            "an integer on one side",
            "An index is affine.",
        ),
        _ => {
            let remedy = "A divisor stands behind a whole index: (i0 + 1) / 2.";
            wrong(&term.span, "another operator", "+, - or *", remedy)
        }
    }
}

impl Linear {
    fn plus(mut self, other: &Linear, factor: i128) -> Linear {
        // Saturated numbers are beyond every limit that follows.
        self.constant = self
            .constant
            .saturating_add(other.constant.saturating_mul(factor));
        for (&l, &of_loop) in &other.terms {
            let sum = self.terms.entry(l).or_default();
            *sum = sum.saturating_add(of_loop.saturating_mul(factor));
        }
        self
    }
}

const UNARY: [(&str, Unary); 6] = [
    ("neg", Unary::Negate),
    ("exp", Unary::Exp),
    ("log", Unary::Log),
    ("tanh", Unary::Tanh),
    ("sqrt", Unary::Sqrt),
    ("reciprocal", Unary::Reciprocal),
];

const FUNCTIONS: [(&str, Binary); 3] = [("max", Binary::Max), ("min", Binary::Min), ("pow", Binary::Power)];

const INFIX: [(&str, Operator, Binary); 6] = [
    ("+", Operator::Add, Binary::Add),
    ("-", Operator::Subtract, Binary::Subtract),
    ("*", Operator::Multiply, Binary::Multiply),
    ("/", Operator::Divide, Binary::Divide),
    (">", Operator::Greater, Binary::Greater),
    ("==", Operator::Equal, Binary::Equal),
];

/// An expression as it is written. What binds more loosely than `strength` stands in brackets.
pub(super) fn written_expression(expr: &Expr, parallel: usize, strength: u8) -> String {
    let inner = |e: &Expr| written_expression(e, parallel, 0);
    match expr {
        Expr::Constant(x) => written_float(*x),
        Expr::Read(i) => format!("r{i}"),
        Expr::InBounds(i) => format!("in_bounds(r{i})"),
        Expr::Index(map) => format!("index({})", written_affine(map, parallel)),
        Expr::Table { values, index } => {
            let values: Vec<String> = values.iter().map(|&x| written_float(x)).collect();
            format!(
                "table([{}], {})",
                values.join(", "),
                written_affine(index, parallel)
            )
        }
        Expr::Reduced => "acc".into(),
        Expr::ArgMax => "argmax".into(),
        Expr::Uniform {
            seed,
            step,
            stream,
            element,
        } => {
            format!(
                "uniform(r{seed}, r{step}, {stream}, {})",
                written_affine(element, parallel)
            )
        }
        Expr::Unary(op, a) => {
            let name = UNARY
                .iter()
                .find(|(_, unary)| unary == op)
                .expect("every function has a name");
            format!("{}({})", name.0, inner(a))
        }
        Expr::Select(a, b, c) => format!("select({}, {}, {})", inner(a), inner(b), inner(c)),
        Expr::Binary(op, a, b) => {
            if let Some((name, _)) = FUNCTIONS.iter().find(|(_, function)| function == op) {
                return format!("{name}({}, {})", inner(a), inner(b));
            }
            let (sign, operator, _) = INFIX
                .iter()
                .find(|infix| infix.2 == *op)
                .expect("every function has a sign or a name");
            let own = operator.strength();
            let left = written_expression(a, parallel, own);
            let right = written_expression(b, parallel, own + 1);
            match own < strength {
                true => format!("({left} {sign} {right})"),
                false => format!("{left} {sign} {right}"),
            }
        }
    }
}

/// The value of a point, over the reads and loops in scope.
pub(super) fn expression(term: &Term, scope: &Scope) -> Result<Expr, Wrong> {
    if let Some(number) = literal(term) {
        return Ok(Expr::Constant(number?));
    }
    let (name, arguments) = match &term.kind {
        Kind::Word("acc") => return Ok(Expr::Reduced),
        Kind::Word("argmax") => return Ok(Expr::ArgMax),
        Kind::Word(_) => return read(term, scope).map(Expr::Read),
        Kind::Minus(inside) => return Ok(expression(inside, scope)?.unary(Unary::Negate)),
        Kind::Binary(operator, left, right) => {
            let infix = INFIX.iter().find(|infix| infix.1 == *operator);
            let op = infix.expect("every operator has a function").2;
            return Ok(expression(left, scope)?.binary(op, expression(right, scope)?));
        }
        Kind::Call(name, arguments) => (*name, &arguments[..]),
        other => {
            return wrong(
                &term.span,
                shown(other),
                "an expression",
                "Give an element a name: `r0 = %0[i0]`.",
            );
        }
    };
    let unary = UNARY.iter().find(|(written, _)| *written == name);
    let function = FUNCTIONS.iter().find(|(written, _)| *written == name);
    match (arguments, unary, function) {
        ([a], Some((_, op)), _) => return Ok(expression(a, scope)?.unary(*op)),
        ([a, b], _, Some((_, op))) => return Ok(expression(a, scope)?.binary(*op, expression(b, scope)?)),
        _ => {}
    }
    match (name, arguments) {
        ("select", [a, b, c]) => {
            let (a, b) = (expression(a, scope)?, expression(b, scope)?);
            Ok(a.select(b, expression(c, scope)?))
        }
        ("in_bounds", [of]) => read(of, scope).map(Expr::InBounds),
        ("index", [map]) => affine(map, scope).map(Expr::Index),
        ("table", [list, index]) => {
            let Kind::List(items) = &list.kind else {
                return wrong(
                    &list.span,
                    shown(&list.kind),
                    "a list",
                    "Write table([0.5, 1.0], i0).",
                );
            };
            let values = items.iter().map(float).collect::<Result<_, _>>()?;
            let index = affine(index, scope)?;
            Ok(Expr::Table { values, index })
        }
        ("uniform", [seed, step, stream, element]) => Ok(Expr::Uniform {
            seed: read(seed, scope)?,
            step: read(step, scope)?,
            stream: count(stream, u32::MAX.into())? as u32,
            element: affine(element, scope)?,
        }),
        _ => {
            let found = format!("`{}` of {} arguments", shorten(name), arguments.len());
            let expected =
                "neg, exp, log, tanh, sqrt, reciprocal or in_bounds of 1, max, min or pow of 2, select of 3";
            let remedy = "There are also index(MAP), table(LIST, MAP) and uniform(SEED, STEP, STREAM, MAP).";
            wrong(&term.span, found, expected, remedy)
        }
    }
}

/// The number of a read.
fn read(term: &Term, scope: &Scope) -> Result<usize, Wrong> {
    let position = match term.kind {
        Kind::Word(name) => scope.reads.iter().position(|read| *read == name),
        _ => None,
    };
    if let Some(position) = position {
        return Ok(position);
    }
    let expected = match &scope.reads[..] {
        [] => "a read above".to_string(),
        reads => format!("one of the reads {}", reads.join(", ")),
    };
    let remedy = "Name an element on a line above: `r0 = %0[i0]`.";
    wrong(&term.span, shown(&term.kind), expected, remedy)
}
