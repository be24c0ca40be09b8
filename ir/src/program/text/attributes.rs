//! Attributes of programs, values and kernels: how each is written and read.
//!
//! A new field of [`Program`], [`Value`] or [`Kernel`] gets a line in `written_…` and a line in `set_…`. An
//! attribute with its default value is not written.

use super::literal::{Wrong, count, counts, float, id, written_float, wrong};
use super::syntax::{Kind, Spanned, Term, Word};
use super::{MAX_ELEMENTS, MAX_RANK};
use crate::layout::Layout;
use crate::plan::{Allocation, Init, Mode, Region, Role};
use crate::program::{Algorithm, DeviceId, Kernel, MicroBatchLoop, Program, Value, ValueId, Vectors};
use crate::text::shorten;

/// The most bytes of an arena, and the most of any other number.
const MAX_NUMBER: u64 = 1 << 60;
/// The most devices.
const MAX_DEVICES: usize = 64;

const MODES: [(&str, Mode); 3] = [
    ("infer", Mode::Infer),
    ("train", Mode::Train),
    ("gradients", Mode::Gradients),
];

/// The word of a mode.
pub(super) fn written_mode(mode: Mode) -> &'static str {
    let known = MODES.iter().find(|known| known.1 == mode);
    known.expect("every mode has a word").0
}

/// The mode that a word means.
pub(super) fn mode(word: &Word) -> Result<Mode, Wrong> {
    match MODES.iter().find(|known| known.0 == word.value) {
        Some(known) => Ok(known.1),
        None => {
            let found = format!("the mode `{}`", shorten(word.value));
            wrong(
                &word.span,
                found,
                "infer, train or gradients",
                "Write one of the three.",
            )
        }
    }
}

/// The attributes of a program.
pub(super) fn written_program(program: &Program) -> Vec<String> {
    let mut written = vec![format!("batch={}", program.batch)];
    if program.arena_bytes != [0] {
        written.push(format!("arena={:?}", program.arena_bytes));
    }
    if program.flops != 0 {
        written.push(format!("flops={}", program.flops));
    }
    written
}

/// Sets an attribute of a program.
pub(super) fn set_program(program: &mut Program, key: &Word, value: Option<&Term>) -> Result<(), Wrong> {
    match (key.value, value) {
        ("batch", Some(value)) => program.batch = count(value, MAX_ELEMENTS)? as usize,
        ("flops", Some(value)) => program.flops = count(value, u64::MAX)?,
        ("arena", Some(value)) => {
            program.arena_bytes = counts(value, MAX_NUMBER)?;
            if program.arena_bytes.len() > MAX_DEVICES {
                return wrong(
                    &value.span,
                    "arenas of more than 64 devices",
                    "fewer",
                    "Use fewer devices.",
                );
            }
        }
        _ => return unknown(key, value, "batch=N, arena=[BYTES, ...] or flops=N"),
    }
    Ok(())
}

/// The word of a role.
pub(super) fn written_role(role: &Role) -> &'static str {
    match role {
        Role::Input { .. } => "input",
        Role::Output { .. } => "output",
        Role::Parameter { .. } => "parameter",
        Role::State { .. } => "state",
        Role::Packed => "packed",
        Role::Temporary => "temporary",
    }
}

/// The role that a word means, of a value with these extents.
pub(super) fn role(word: &Word, extents: &[usize]) -> Result<Role, Wrong> {
    let (shape, init) = (extents.to_vec(), Init::Constant(0.0));
    Ok(match word.value {
        "input" => Role::Input { shape },
        "output" => Role::Output { shape },
        "parameter" => Role::Parameter { shape, init },
        "state" => Role::State { shape, init },
        "packed" => Role::Packed,
        "temporary" => Role::Temporary,
        other => {
            let found = format!("the role `{}`", shorten(other));
            let expected = "input, output, parameter, state, packed or temporary";
            return wrong(&word.span, found, expected, "Write one of the six.");
        }
    })
}

/// The attributes of a value.
pub(super) fn written_value(value: &Value) -> Vec<String> {
    let mut written = vec![];
    if let Some(shape) = value.role.shape().filter(|shape| *shape != value.extents) {
        written.push(format!("shape={shape:?}"));
    }
    if let Role::Parameter { init, .. } | Role::State { init, .. } = &value.role {
        written.push(match init {
            Init::Constant(x) => format!("init=constant({})", written_float(*x)),
            Init::Normal(deviation) => format!("init=normal({})", written_float(*deviation)),
        });
    }
    if let Some(part) = &value.shard {
        written.push(format!("shard={:?}", part.offset));
        if part.shape != value.extents {
            written.push(format!("shard_shape={:?}", part.shape));
        }
    }
    if value.device != DeviceId(0) {
        written.push(format!("device={}", value.device.0));
    }
    let Layout { order, padding } = &value.layout;
    if !order.iter().copied().eq(0..value.extents.len()) {
        written.push(format!("layout={order:?}"));
    }
    let sides = [("pad_before", 0), ("pad_after", 1)];
    for (key, side) in sides {
        let pad: Vec<usize> = padding.iter().map(|&(a, b)| [a, b][side]).collect();
        if pad.iter().any(|&elements| elements > 0) {
            written.push(format!("{key}={pad:?}"));
        }
    }
    if let Some(other) = value.alias {
        let key = if value.batch_slice { "slice_of" } else { "aliases" };
        written.push(format!("{key}=%{}", other.0));
    }
    if let Allocation::Arena(offset) = value.allocation {
        written.push(format!("arena={offset}"));
    }
    written
}

/// Sets an attribute of a value. Its type and role are known.
pub(super) fn set_value(made: &mut Value, key: &Word, value: Option<&Term>) -> Result<(), Wrong> {
    let sizes = |term: &Term| -> Result<Vec<usize>, Wrong> {
        let list = counts(term, MAX_ELEMENTS)?;
        if list.len() != made.extents.len() {
            let expected = format!("one for each of {} dimensions", made.extents.len());
            let found = format!("a list of {} numbers", list.len());
            return wrong(&term.span, found, expected, "List all dimensions in order.");
        }
        Ok(list.into_iter().map(|n| n as usize).collect())
    };
    match (key.value, value) {
        ("shape", Some(value)) => {
            let list = sizes(value)?;
            match &mut made.role {
                Role::Input { shape }
                | Role::Output { shape }
                | Role::Parameter { shape, .. }
                | Role::State { shape, .. } => *shape = list,
                Role::Packed | Role::Temporary => {
                    let expected = "an input, output, parameter or state";
                    return wrong(
                        &key.span,
                        "the shape of a role without one",
                        expected,
                        "Leave it out.",
                    );
                }
            }
        }
        ("init", Some(value)) => {
            let start = init(value)?;
            match &mut made.role {
                Role::Parameter { init, .. } | Role::State { init, .. } => *init = start,
                _ => {
                    let found = "the start of a role without one";
                    return wrong(&key.span, found, "a parameter or state", "Leave it out.");
                }
            }
        }
        ("shard", Some(value)) => {
            let shape = made
                .shard
                .take()
                .map_or_else(|| made.extents.clone(), |part| part.shape);
            made.shard = Some(Region {
                offset: sizes(value)?,
                shape,
            });
        }
        ("shard_shape", Some(value)) => {
            let shape = sizes(value)?;
            let offset = made
                .shard
                .take()
                .map_or_else(|| vec![0; shape.len()], |part| part.offset);
            made.shard = Some(Region { offset, shape });
        }
        ("device", Some(value)) => made.device = DeviceId(count(value, MAX_DEVICES as u64)? as usize),
        ("layout", Some(value)) => {
            let order = sizes(value)?;
            if (0..order.len()).any(|d| !order.contains(&d)) {
                let found = format!("the order {order:?}");
                return wrong(
                    &value.span,
                    found,
                    "every dimension once",
                    "List dimensions, outermost first.",
                );
            }
            made.layout.order = order;
        }
        ("pad_before" | "pad_after", Some(value)) => {
            let list = sizes(value)?;
            for (sides, elements) in made.layout.padding.iter_mut().zip(list) {
                match key.value {
                    "pad_before" => sides.0 = elements,
                    _ => sides.1 = elements,
                }
            }
        }
        ("aliases" | "slice_of", Some(value)) => {
            let Kind::Value(word) = value.kind else {
                return wrong(&value.span, "no value", "a value such as %3", "Name its owner.");
            };
            // Which values there are is known at the end.
            let word = Spanned {
                value: word,
                span: value.span.clone(),
            };
            made.alias = Some(ValueId(id(&word, usize::MAX)?));
            made.batch_slice = key.value == "slice_of";
        }
        ("arena", Some(value)) => made.allocation = Allocation::Arena(count(value, MAX_NUMBER)?),
        (
            "allocation",
            Some(Term {
                kind: Kind::Word("dedicated"),
                ..
            }),
        ) => made.allocation = Allocation::Dedicated,
        _ => {
            let expected = "shape, init, shard, shard_shape, device, layout, pad_before, pad_after, aliases, slice_of or arena, with its value, or allocation=dedicated";
            return unknown(key, value, expected);
        }
    }
    Ok(())
}

fn init(term: &Term) -> Result<Init, Wrong> {
    match &term.kind {
        Kind::Call("constant", arguments) if arguments.len() == 1 => {
            Ok(Init::Constant(float(&arguments[0])?))
        }
        Kind::Call("normal", arguments) if arguments.len() == 1 => Ok(Init::Normal(float(&arguments[0])?)),
        _ => {
            let remedy = "Write init=normal(0.01) or init=constant(0).";
            wrong(
                &term.span,
                "another initial value",
                "constant(X) or normal(DEVIATION)",
                remedy,
            )
        }
    }
}

/// The attributes of a kernel.
pub(super) fn written_kernel(kernel: &Kernel) -> Vec<String> {
    let mut written = vec![];
    if kernel.prepack {
        written.push("prepack".into());
    }
    if let Some(MicroBatchLoop {
        number,
        micro_batches,
    }) = kernel.micro_batch_loop
    {
        written.push(format!("loop={number} micro_batches={micro_batches}"));
    }
    match kernel.algorithm {
        None => {}
        Some(Algorithm::Direct) => written.push("algorithm=direct".into()),
        Some(Algorithm::Winograd(products)) => written.push(format!("algorithm=winograd({products})")),
    }
    if let Some(Vectors { factor, dimension }) = kernel.vectors {
        written.push(format!("vectors=[{factor}, {dimension}]"));
    }
    written
}

/// Sets an attribute of a kernel.
pub(super) fn set_kernel(kernel: &mut Kernel, key: &Word, value: Option<&Term>) -> Result<(), Wrong> {
    let mut group = kernel.micro_batch_loop.unwrap_or(MicroBatchLoop {
        number: 0,
        micro_batches: 1,
    });
    match (key.value, value) {
        ("prepack", None) => kernel.prepack = true,
        ("loop", Some(value)) => {
            group.number = count(value, MAX_NUMBER)? as usize;
            kernel.micro_batch_loop = Some(group);
        }
        ("micro_batches", Some(value)) => {
            group.micro_batches = count(value, MAX_NUMBER)? as usize;
            kernel.micro_batch_loop = Some(group);
        }
        ("algorithm", Some(value)) => {
            kernel.algorithm = Some(match &value.kind {
                Kind::Word("direct") => Algorithm::Direct,
                Kind::Call("winograd", arguments) if arguments.len() == 1 => {
                    Algorithm::Winograd(count(&arguments[0], MAX_NUMBER)? as usize)
                }
                _ => {
                    let remedy = "Write algorithm=direct or algorithm=winograd(4).";
                    return wrong(
                        &value.span,
                        "another algorithm",
                        "direct or winograd(PRODUCTS)",
                        remedy,
                    );
                }
            });
        }
        ("vectors", Some(value)) => match counts(value, MAX_RANK as u64)?[..] {
            [factor @ (0 | 1), dimension] => {
                let (factor, dimension) = (factor as usize, dimension as usize);
                kernel.vectors = Some(Vectors { factor, dimension });
            }
            _ => {
                let expected = "[FACTOR, DIMENSION] with factor 0 or 1";
                return wrong(
                    &value.span,
                    "other vectors",
                    expected,
                    "Write vectors=[1, 0], for example.",
                );
            }
        },
        _ => {
            let expected = "prepack, loop=N, micro_batches=N, algorithm=NAME or vectors=[FACTOR, DIMENSION]";
            return unknown(key, value, expected);
        }
    }
    Ok(())
}

fn unknown(key: &Word, value: Option<&Term>, expected: &str) -> Result<(), Wrong> {
    let shown = shorten(key.value);
    let (span, found) = match value {
        Some(value) => (
            key.span.start..value.span.end,
            format!("the attribute `{shown}` with a value"),
        ),
        None => (
            key.span.clone(),
            format!("the attribute `{shown}` without a value"),
        ),
    };
    wrong(
        &span,
        found,
        expected,
        "Leave the attribute out, or write it as listed.",
    )
}
