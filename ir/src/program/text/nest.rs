//! The block of a kernel: its lines, one after the other, to a nest.

use super::literal::{Wrong, count, count_of, float, id, wrong};
use super::printer::COMBINES;
use super::resolver::{check_extents, extent, ty};
use super::scope::{Scope, affine, expression, integer};
use super::syntax::{
    Access, Kind, LoopExtent, Name, Operator, Statement, Term, Word, WrittenGuard, WrittenType,
};
use crate::nest::{Affine, Combine, Expr, Index, Nest, Output, Predicate, Read, Source};
use crate::program::{Kernel, Program, ValueId};
use crate::text::shorten;
use std::ops::Range;

/// Words that mean something in expressions and cannot name a read.
const RESERVED: [&str; 4] = ["acc", "argmax", "inf", "nan"];

/// A kernel of which only the first lines are read.
pub(super) struct Draft<'s> {
    pub call: Kernel,
    label: Range<usize>,
    scope: Scope<'s>,
    has_loops: bool,
    has_body: bool,
}

impl<'s> Draft<'s> {
    /// A kernel of which only the header is read.
    pub fn new(label: Name, operands: Vec<ValueId>, results: Vec<ValueId>) -> Draft<'s> {
        let nest = Nest {
            parallel: vec![],
            reduction: vec![],
            reads: vec![],
            combine: Combine::None,
            body: Expr::Constant(0.0),
            outputs: vec![],
        };
        Draft {
            call: Kernel::new(label.value, nest, operands, results),
            label: label.span,
            scope: Scope::default(),
            has_loops: false,
            has_body: false,
        }
    }

    /// Adds a line of the nest.
    pub fn statement(&mut self, statement: &Statement<'s>, program: &Program) -> Result<(), Wrong> {
        match statement {
            Statement::Loops {
                keyword,
                parallel,
                reduction,
            } => self.loops(keyword, parallel, reduction),
            Statement::Read {
                name,
                access,
                predicates,
                padding_value,
            } => self.read(name, access, predicates, padding_value.as_ref(), program),
            Statement::Combine { acc, body } => self.combine(acc, body),
            Statement::Output { access, ty, value } => self.output(access, ty.as_ref(), value, program),
            Statement::Program { .. } | Statement::Value { .. } | Statement::Kernel { .. } => {
                unreachable!("the resolver ends a kernel at these")
            }
        }
    }

    fn loops(
        &mut self,
        keyword: &Range<usize>,
        parallel: &[LoopExtent<'s>],
        reduction: &[LoopExtent<'s>],
    ) -> Result<(), Wrong> {
        if self.has_loops {
            return wrong(keyword, "a second `for`", "one in a kernel", "Join the two.");
        }
        self.has_loops = true;
        for (name, size) in parallel.iter().chain(reduction) {
            if self.scope.loops.iter().any(|known| known.0 == name.value) {
                let found = format!("a second loop `{}`", shorten(name.value));
                return wrong(&name.span, found, "another name", "Rename it.");
            }
            self.scope.loops.push((name.value, extent(size)?));
        }
        let extents: Vec<usize> = self.scope.loops.iter().map(|known| known.1).collect();
        check_extents(&extents, keyword)?;
        let (outer, inner) = extents.split_at(parallel.len());
        (self.call.nest.parallel, self.call.nest.reduction) = (outer.to_vec(), inner.to_vec());
        Ok(())
    }

    fn read(
        &mut self,
        name: &Word<'s>,
        access: &Access,
        predicates: &[WrittenGuard],
        padding_value: Option<&Term>,
        program: &Program,
    ) -> Result<(), Wrong> {
        if RESERVED.contains(&name.value) || self.scope.reads.contains(&name.value) {
            let found = format!("a second meaning of `{}`", shorten(name.value));
            return wrong(&name.span, found, "a new name", "Name reads r0, r1 and so on.");
        }
        let operand = self.operand(access, program)?;
        check_rank(access, self.call.operands[operand], program)?;
        let index = access.index.iter().map(|term| index(term, &self.scope));
        let index = index.collect::<Result<_, _>>()?;
        let predicate = |predicate: &WrittenGuard| -> Result<Predicate, Wrong> {
            Ok(Predicate {
                map: affine(&predicate.map, &self.scope)?,
                low: integer(&predicate.low)?,
                high: integer(&predicate.high)?,
            })
        };
        let predicates = predicates.iter().map(predicate).collect::<Result<_, _>>()?;
        self.call.nest.reads.push(Read {
            source: Source::Operand(operand),
            index,
            predicates,
            padding_value: padding_value.map_or(Ok(0.0), float)?,
        });
        self.scope.reads.push(name.value);
        Ok(())
    }

    /// The position of the operand that an access names.
    fn operand(&self, access: &Access, program: &Program) -> Result<usize, Wrong> {
        let operands = &self.call.operands;
        let value = ValueId(id(&access.id, program.values.len())?);
        let position = match &access.position {
            None => operands.iter().position(|&operand| operand == value),
            Some(word) => Some(count_of(word.value, &word.span, u64::MAX)? as usize)
                .filter(|&position| operands.get(position) == Some(&value)),
        };
        let Some(position) = position else {
            let shown: Vec<String> = operands.iter().map(|id| format!("%{}", id.0)).collect();
            let expected = match &shown[..] {
                [] => "no read in a kernel without operands".to_string(),
                shown => format!("one of the operands {}", shown.join(", ")),
            };
            let remedy = "List it among the operands of the kernel.";
            let found = format!("a read of `{}`", shorten(access.id.value));
            return wrong(&access.id.span, found, expected, remedy);
        };
        Ok(position)
    }

    fn combine(&mut self, acc: &Range<usize>, body: &Term) -> Result<(), Wrong> {
        if self.has_body {
            return wrong(acc, "a second body", "one `acc` in a kernel", "Leave one out.");
        }
        self.has_body = true;
        if let Kind::Call(word, arguments) = &body.kind
            && let [inside] = &arguments[..]
            && let Some(known) = COMBINES.iter().find(|known| known.0 == *word)
        {
            let value = expression(inside, &self.scope)?;
            (self.call.nest.combine, self.call.nest.body) = (known.1, value);
            return Ok(());
        }
        let expected = "sum(...), max(...) or none(...)";
        let remedy = "Say how the body is combined: `acc = sum(r0 * r1)`.";
        wrong(&body.span, "another expression", expected, remedy)
    }

    fn output(
        &mut self,
        access: &Access,
        written: Option<&WrittenType>,
        value: &Term,
        program: &Program,
    ) -> Result<(), Wrong> {
        let next = self.call.results.get(self.call.nest.outputs.len()).copied();
        let expected = next.map_or("no further output".to_string(), |id| format!("%{}", id.0));
        let Some(result) = next.filter(|_| expected == access.id.value && access.position.is_none()) else {
            let found = format!("an output to `{}`", shorten(access.id.value));
            let remedy = "Write the results of the header in order, one an output.";
            return wrong(&access.id.span, found, expected, remedy);
        };
        let of_value = program.value(result);
        let (dtype, extents) = match written {
            Some(written) => ty(written)?,
            None => {
                check_rank(access, result, program)?;
                (of_value.dtype, of_value.extents.clone())
            }
        };
        if access.index.len() != extents.len() {
            let found = format!("{} indices", access.index.len());
            let expected = format!("{}, one a dimension", extents.len());
            return wrong(&access.id.span, found, expected, "Index every dimension.");
        }
        let index = access.index.iter().map(|term| affine(term, &self.scope));
        let index: Vec<Affine> = index.collect::<Result<_, _>>()?;
        let parallel = self.call.nest.parallel.len();
        let is_reduced = |map: &Affine| map.terms.iter().any(|(l, _)| l.0 >= parallel);
        if let Some(at) = index.iter().position(is_reduced) {
            let expected = "parallel loops only";
            let remedy = "A result is stored after its reduction.";
            return wrong(&access.index[at].span, "a reduction loop", expected, remedy);
        }
        self.call.nest.outputs.push(Output {
            dtype,
            extents,
            index,
            value: expression(value, &self.scope)?,
        });
        Ok(())
    }

    /// The kernel, once all its lines are read.
    pub fn finish(self) -> Result<Kernel, Wrong> {
        let (outputs, results) = (self.call.nest.outputs.len(), self.call.results.len());
        if !self.has_loops {
            let remedy = "Write `for` alone if there are no loops.";
            return wrong(&self.label, "a kernel without `for`", "its loops", remedy);
        }
        if outputs < results {
            let found = format!("a kernel with {outputs} outputs");
            let remedy = "Write a line for each result.";
            return wrong(&self.label, found, format!("{results}"), remedy);
        }
        Ok(self.call)
    }
}

/// Checks that a value is accessed with an index for each dimension.
fn check_rank(access: &Access, value: ValueId, program: &Program) -> Result<(), Wrong> {
    let rank = program.value(value).extents.len();
    if access.index.len() == rank {
        return Ok(());
    }
    let found = format!("{} indices", access.index.len());
    let expected = format!("{rank}, one a dimension of {}", access.id.value);
    wrong(&access.id.span, found, expected, "Index every dimension.")
}

/// An affine map, or one over a divisor.
fn index(term: &Term, scope: &Scope) -> Result<Index, Wrong> {
    let Kind::Binary(Operator::Divide, map, divisor) = &term.kind else {
        return affine(term, scope).map(Index::new);
    };
    let map = affine(map, scope)?;
    match count(divisor, 1 << 40)? {
        0 => wrong(
            &divisor.span,
            "the divisor 0",
            "at least 1",
            "Leave the division out.",
        ),
        divisor => Ok(Index {
            map,
            divisor: divisor as i64,
        }),
    }
}
