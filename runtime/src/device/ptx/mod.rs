//! PTX text to syntax: what the code generator writes for GPUs, as NVIDIA's "Parallel Thread Execution ISA" defines it.
//!
//! Both devices that run PTX read it here: the emulator executes the instructions, and the GPU's device checks that
//! each entry takes the arguments it will be passed, before it hands the text to the driver.

mod parser;
mod token;

pub use parser::parse;

/// A text that is no PTX, or not of the kind that is read here.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "line {line}: found {found}, expected {expected}. The text is damaged, or not what alexc writes; compile again"
)]
pub struct PtxError {
    /// Counted from 1.
    pub line: usize,
    /// What is there.
    pub found: String,
    /// What should be.
    pub expected: String,
}

/// A module.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Module {
    /// The version of PTX, as `8.0`.
    pub version: String,
    /// The architecture, as `sm_90`.
    pub target: String,
    /// Variables outside of entries.
    pub variables: Vec<Variable>,
    /// Its kernels.
    pub entries: Vec<Entry>,
}

/// Memory with a name.
#[derive(Clone, Debug, PartialEq)]
pub struct Variable {
    /// Its name.
    pub name: String,
    /// Its address space.
    pub space: Space,
    /// Its size; 0 if every launch says.
    pub bytes: usize,
    /// A power of two.
    pub align: usize,
    /// What it holds at first, if that is said.
    pub contents: Option<Vec<u8>>,
}

/// A kind of memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Space {
    Parameter,
    Global,
    Shared,
    Local,
    Constant,
    /// Any of global, shared and local.
    Generic,
}

/// A kernel.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Entry {
    /// Its name.
    pub name: String,
    /// Its parameters' names; all have 8 bytes.
    pub parameters: Vec<String>,
    /// Kinds of registers by the beginning of their names, as `%rd`, with the bits of each; 1 for predicates.
    pub registers: Vec<(String, usize)>,
    /// Variables of its own.
    pub variables: Vec<Variable>,
    /// Its instructions.
    pub body: Vec<Instruction>,
    /// Labels, with the position of the instruction after each.
    pub labels: Vec<(String, usize)>,
}

/// An instruction.
#[derive(Clone, Debug, PartialEq)]
pub struct Instruction {
    /// The line it begins on, counted from 1.
    pub line: usize,
    /// The predicate that says which threads execute it, and whether they are those where it does not hold.
    pub guard: Option<(String, bool)>,
    /// Its name with modifiers, as `add.s32`.
    pub opcode: String,
    /// Results first.
    pub operands: Vec<Operand>,
}

/// What an instruction works on.
#[derive(Clone, Debug, PartialEq)]
pub enum Operand {
    /// A register, a label or a variable.
    Name(String),
    /// A number, as its bits; of floats those of the type it is written as.
    Number(i64),
    /// `[base + offset]`.
    Address(Box<Operand>, i64),
    /// `{a, b}`.
    Vector(Vec<Operand>),
    /// `p|q`.
    Pair(String, String),
    /// `!p`.
    Not(String),
}

impl std::fmt::Display for Instruction {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        if let Some((name, negated)) = &self.guard {
            write!(f, "@{}{name} ", if *negated { "!" } else { "" })?;
        }
        write!(f, "{}", self.opcode)?;
        for (i, operand) in self.operands.iter().enumerate() {
            write!(f, "{} {operand}", if i == 0 { "" } else { "," })?;
        }
        Ok(())
    }
}

impl std::fmt::Display for Operand {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        match self {
            Operand::Name(name) => write!(f, "{name}"),
            Operand::Number(number) => write!(f, "{number}"),
            Operand::Address(base, 0) => write!(f, "[{base}]"),
            Operand::Address(base, offset) => write!(f, "[{base}{offset:+}]"),
            Operand::Vector(parts) => {
                let parts: Vec<String> = parts.iter().map(Operand::to_string).collect();
                write!(f, "{{{}}}", parts.join(", "))
            }
            Operand::Pair(a, b) => write!(f, "{a}|{b}"),
            Operand::Not(name) => write!(f, "!{name}"),
        }
    }
}
