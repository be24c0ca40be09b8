//! Statements to a program: names and numbers are looked up, and what is wrong is reported.
//!
//! After an error in a kernel the rest of its block is skipped, since its lines depend on each other. Kernels are read only
//! if all values are right, because numbers of values count lines.

use super::attributes::{mode, role, set_kernel, set_program, set_value};
use super::literal::{Wrong, count_of, counts, id, wrong};
use super::nest::Draft;
use super::parser::{REMEDY, line};
use super::syntax::{Attribute, Name, Statement, Term, Word, WrittenType};
use super::{MAX_ELEMENTS, MAX_LINE, MAX_RANK};
use crate::layout::Layout;
use crate::plan::{Allocation, Mode};
use crate::program::{DeviceId, Program, Value, ValueId};
use crate::text::{Reports, shorten};
use crate::types::DType;
use std::collections::BTreeSet;
use std::ops::Range;

/// The program of a source; whole only if nothing is reported.
pub(super) fn resolve(source: &str, reports: &mut Reports) -> Option<Program> {
    let mut resolver = Resolver {
        program: Program {
            model: String::new(),
            mode: Mode::Infer,
            batch: 1,
            values: vec![],
            kernels: vec![],
            arena_bytes: vec![0],
            flops: 0,
        },
        reports,
        has_header: false,
        aliases: vec![],
        kernel: None,
        is_skipping: false,
        values_are_broken: false,
    };
    let mut offset = 0;
    for raw in source.split('\n') {
        let start = offset;
        offset += raw.len() + 1;
        resolver.line(raw, start);
        if resolver.reports.is_full() {
            return None;
        }
    }
    resolver.end_kernel();
    resolver.check_aliases();
    if !resolver.has_header {
        resolver.miss_header(0..0);
    }
    Some(resolver.program)
}

struct Resolver<'r, 'c, 's> {
    program: Program,
    reports: &'r mut Reports<'c>,
    has_header: bool,
    /// Where values say whose buffer they share.
    aliases: Vec<(ValueId, Range<usize>)>,
    /// The kernel whose block is read.
    kernel: Option<Draft<'s>>,
    /// Lines of nests are skipped: something above them in their block is wrong.
    is_skipping: bool,
    values_are_broken: bool,
}

impl<'s> Resolver<'_, '_, 's> {
    fn report(&mut self, wrong: Wrong) {
        self.reports
            .add(wrong.span, wrong.found, wrong.expected, wrong.remedy);
    }

    fn line(&mut self, raw: &'s str, start: usize) {
        if raw.len() > MAX_LINE {
            let found = format!("a line of {} bytes", raw.len());
            let expected = format!("at most {MAX_LINE}");
            self.reports
                .add(start..start, found, expected, "Use a smaller kernel.");
            return self.skip(raw);
        }
        match line(raw, start) {
            Ok(None) => {}
            Ok(Some(statement)) => self.statement(statement),
            Err(error) => {
                self.reports.add(error.span, error.found, error.expected, REMEDY);
                self.skip(raw);
            }
        }
    }

    /// Skips what depends on a line that could not be read.
    fn skip(&mut self, raw: &str) {
        let is_value = self.kernel.is_none() && !self.is_skipping && raw.trim_start().starts_with('%');
        self.values_are_broken |= is_value;
        self.has_header |= raw.trim_start().starts_with("program");
        self.kernel = None;
        self.is_skipping = true;
    }

    fn statement(&mut self, statement: Statement<'s>) {
        if !self.has_header && !matches!(statement, Statement::Program { .. }) {
            self.miss_header(statement.span());
        }
        match statement {
            Statement::Program {
                name,
                mode,
                attributes,
            } => {
                self.end_kernel();
                self.header(name, &mode, &attributes);
            }
            Statement::Value {
                id,
                name,
                ty,
                role,
                attributes,
            } => {
                self.end_kernel();
                // Numbers of values go on after a broken one.
                let blank = self.program.values.len();
                if let Err(wrong) = self.value(&id, name, &ty, &role, &attributes) {
                    self.report(wrong);
                    self.values_are_broken = true;
                    self.program.values.truncate(blank);
                    self.program.values.push(unknown_value());
                }
            }
            Statement::Kernel {
                label,
                operands,
                results,
                attributes,
            } => {
                self.end_kernel();
                self.is_skipping = self.values_are_broken;
                if self.is_skipping {
                    return;
                }
                match self.kernel(label, &operands, &results, &attributes) {
                    Ok(draft) => self.kernel = Some(draft),
                    Err(wrong) => {
                        self.report(wrong);
                        self.is_skipping = true;
                    }
                }
            }
            of_nest => {
                if self.is_skipping {
                    return;
                }
                let result = match &mut self.kernel {
                    Some(draft) => draft.statement(&of_nest, &self.program),
                    None => wrong(
                        &of_nest.span(),
                        "a line of a nest outside of a kernel",
                        "`kernel LABEL(...) -> (...)` above it",
                        "Begin the kernel with its header.",
                    ),
                };
                if let Err(wrong) = result {
                    self.report(wrong);
                    self.kernel = None;
                    self.is_skipping = true;
                }
            }
        }
    }

    fn miss_header(&mut self, span: Range<usize>) {
        self.has_header = true;
        let expected = "`program NAME MODE batch=N` on the first line";
        self.reports
            .add(span, "no header", expected, "Begin the text with its header.");
    }

    fn header(&mut self, name: Name, written: &Word, attributes: &[Attribute]) {
        if self.has_header {
            let (found, expected) = ("a second header", "one program in a text");
            self.reports.add(name.span, found, expected, "Split the text.");
            return;
        }
        self.has_header = true;
        self.program.model = name.value;
        match mode(written) {
            Ok(mode) => self.program.mode = mode,
            Err(wrong) => self.report(wrong),
        }
        let program = &mut self.program;
        if let Err(wrong) = set_all(attributes, |key, value| set_program(program, key, value)) {
            self.report(wrong);
        }
    }

    fn value(
        &mut self,
        written: &Word,
        name: Name,
        ty: &WrittenType,
        word: &Word,
        attributes: &[Attribute],
    ) -> Result<(), Wrong> {
        let id = self.program.values.len();
        if written.value != format!("%{id}") {
            let found = format!("`{}`", shorten(written.value));
            return wrong(&written.span, found, format!("%{id}"), "Number values from 0 on.");
        }
        let (dtype, extents) = self::ty(ty)?;
        let mut value = Value {
            name: name.value,
            dtype,
            layout: Layout::row_major(extents.len()),
            role: role(word, &extents)?,
            extents,
            ..unknown_value()
        };
        set_all(attributes, |key, term| set_value(&mut value, key, term))?;
        let padded = value
            .extents
            .iter()
            .zip(&value.layout.padding)
            .try_fold(1u64, |all, (&extent, &(before, after))| {
                all.checked_mul((extent + before + after) as u64)
            });
        if padded.is_none_or(|elements| elements > MAX_ELEMENTS) {
            let found = "a value of more than 2^48 elements";
            return wrong(&written.span, found, "fewer", "Use smaller extents.");
        }
        if value.alias.is_some() {
            self.aliases.push((ValueId(id), written.span.clone()));
        }
        self.program.values.push(value);
        Ok(())
    }

    fn kernel(
        &mut self,
        label: Name,
        operands: &[Word],
        results: &[Word],
        attributes: &[Attribute],
    ) -> Result<Draft<'s>, Wrong> {
        let known = self.program.values.len();
        let ids = |words: &[Word]| -> Result<Vec<ValueId>, Wrong> {
            words.iter().map(|word| id(word, known).map(ValueId)).collect()
        };
        let mut draft = Draft::new(label, ids(operands)?, ids(results)?);
        set_all(attributes, |key, value| set_kernel(&mut draft.call, key, value))?;
        Ok(draft)
    }

    /// Ends the block of a kernel, if one is open.
    fn end_kernel(&mut self) {
        match self.kernel.take().map(Draft::finish) {
            None => {}
            Some(Ok(call)) => self.program.kernels.push(call),
            Some(Err(wrong)) => self.report(wrong),
        }
    }

    /// Checks that aliases lead to owners.
    fn check_aliases(&mut self) {
        if self.values_are_broken {
            return;
        }
        let aliases = std::mem::take(&mut self.aliases);
        let values = &self.program.values;
        // A chain that is longer than there are aliases leads in a circle. Each value is followed once.
        let mut ends: BTreeSet<ValueId> = BTreeSet::new();
        for (value, span) in aliases {
            let mut path: BTreeSet<ValueId> = BTreeSet::new();
            let mut at = value;
            let fault = loop {
                if ends.contains(&at) {
                    break None;
                }
                if !path.insert(at) {
                    break Some((
                        "a value that shares its own buffer",
                        "an owner that is no alias of it",
                    ));
                }
                match values.get(at.0).map(|value| value.alias) {
                    None => break Some(("an alias of an unknown value", "a value of this program")),
                    Some(None) => break None,
                    Some(Some(next)) => at = next,
                }
            };
            match fault {
                None => ends.extend(path),
                Some((found, expected)) => {
                    self.reports
                        .add(span, found, expected, "Name the value that owns the buffer.");
                    return;
                }
            }
        }
    }
}

/// Sets attributes one after the other; each may be given once.
fn set_all<'a, 's: 'a>(
    attributes: &'a [Attribute<'s>],
    mut set: impl FnMut(&Word<'s>, Option<&Term<'s>>) -> Result<(), Wrong>,
) -> Result<(), Wrong> {
    let mut seen = BTreeSet::new();
    for (key, value) in attributes {
        if !seen.insert(key.value) {
            let found = format!("`{}` a second time", shorten(key.value));
            return wrong(&key.span, found, "each attribute once", "Leave one out.");
        }
        set(key, value.as_ref())?;
    }
    Ok(())
}

/// Element type and extents.
pub(super) fn ty(written: &WrittenType) -> Result<(DType, Vec<usize>), Wrong> {
    let Some(dtype) = DType::from_name(written.dtype.value) else {
        let found = format!("the element type `{}`", shorten(written.dtype.value));
        return wrong(&written.dtype.span, found, "f32, i64 or u8", "Write f32[96, 55].");
    };
    let extents = counts(&written.extents, MAX_ELEMENTS)?;
    let extents: Vec<usize> = extents.into_iter().map(|n| n as usize).collect();
    check_extents(&extents, &written.extents.span)?;
    Ok((dtype, extents))
}

/// The extent of a loop.
pub(super) fn extent(word: &Word) -> Result<usize, Wrong> {
    count_of(word.value, &word.span, MAX_ELEMENTS).map(|n| n as usize)
}

/// Checks the number of extents, and that their product is one of a size that machines have.
pub(super) fn check_extents(extents: &[usize], span: &Range<usize>) -> Result<(), Wrong> {
    let elements = extents
        .iter()
        .try_fold(1u64, |all, &extent| all.checked_mul(extent as u64));
    let fits = elements.is_some_and(|elements| (1..=MAX_ELEMENTS).contains(&elements));
    if extents.len() <= MAX_RANK && fits {
        return Ok(());
    }
    let expected = format!("at most {MAX_RANK} positive extents, with a product up to 2^48");
    wrong(
        span,
        format!("{} extents", extents.len()),
        expected,
        "Use fewer or smaller ones.",
    )
}

fn unknown_value() -> Value {
    Value {
        name: String::new(),
        dtype: DType::F32,
        extents: vec![],
        layout: Layout::row_major(0),
        role: crate::plan::Role::Temporary,
        alias: None,
        batch_slice: false,
        allocation: Allocation::Dedicated,
        device: DeviceId(0),
        shard: None,
    }
}

impl Statement<'_> {
    /// Where it begins.
    fn span(&self) -> Range<usize> {
        match self {
            Statement::Program { mode, .. } => mode.span.clone(),
            Statement::Value { id, .. } => id.span.clone(),
            Statement::Kernel { label, .. } => label.span.clone(),
            Statement::Loops { keyword, .. } => keyword.clone(),
            Statement::Read { name, .. } => name.span.clone(),
            Statement::Combine { acc, .. } => acc.clone(),
            Statement::Output { access, .. } => access.id.span.clone(),
        }
    }
}
