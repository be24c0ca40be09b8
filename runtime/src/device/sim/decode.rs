//! Instructions as written to instructions as executed: names to codes, operands to registers.
//!
//! To add an instruction: a [`Code`], its name here, and its execution in `arithmetic` or `block`.

use super::code::*;
use crate::device::ptx::{Entry, Instruction, Module, Operand, Space};
use std::collections::HashMap;

/// The address bit of the module's constants.
pub const CONSTANTS: u64 = 1 << 58;
/// Generic addresses of shared memory.
pub const SHARED: u64 = 1 << 60;
/// Generic addresses of a thread's local memory.
pub const LOCAL: u64 = 1 << 61;

/// A register whose value is known before a block begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Preset {
    /// A constant of 32 bits.
    Word(u32),
    /// A constant of 64 bits.
    Long(u64),
    /// A parameter of the entry.
    Parameter(usize),
    /// The thread in the block, the threads of a block, the block, the blocks, the lane and the warp.
    Thread,
    Threads,
    Block,
    Blocks,
    Lane,
    Warp,
}

/// A kernel, ready to run.
#[derive(Clone, Debug)]
pub struct Program {
    /// Its steps.
    pub steps: Vec<Step>,
    /// Registers of 32 and of 64 bits.
    pub registers: (usize, usize),
    /// Initial values of registers of 32 bits and of 64 bits.
    pub presets: Vec<(Preset, Register)>,
    /// Bytes of shared memory that it declares. The dynamic shared memory of a launch follows them.
    pub shared_bytes: usize,
    /// Bytes of local memory of a thread.
    pub local_bytes: usize,
    /// Constants of the module.
    pub constants: Vec<u8>,
    /// The text of each instruction, with its line.
    pub sources: Vec<(usize, String)>,
    /// Registers of 32 bits that each instruction names, where there are products to wait for.
    pub names: Vec<Vec<Register>>,
}

/// An instruction that is not understood.
pub struct Unknown {
    pub line: usize,
    pub text: String,
    pub why: String,
}

/// Decodes an entry of a module.
pub fn decode(module: &Module, entry: &Entry) -> Result<Program, Unknown> {
    let mut decoder = Decoder::new(module, entry);
    let mut steps = Vec::with_capacity(entry.body.len());
    for (source, instruction) in entry.body.iter().enumerate() {
        decoder.source = source as u32;
        let step = decoder.step(instruction).map_err(|why| Unknown {
            line: instruction.line,
            text: instruction.to_string(),
            why,
        })?;
        decoder.starts.push(steps.len() + decoder.before.len());
        steps.append(&mut decoder.before);
        steps.push(step);
    }
    decoder.starts.push(steps.len());
    for step in &mut steps {
        if let Code::Branch { to } = &mut step.code {
            // A step before the one that was written belongs to it.
            let first = *to;
            let before = if first == 0 {
                0
            } else {
                decoder.starts[first - 1] + 1
            };
            *to = before.min(decoder.starts[first]);
        }
    }
    let waits = steps
        .iter()
        .any(|step| matches!(step.code, Code::WarpgroupMultiply { .. }));
    let names = |instruction: &Instruction| {
        let mut found = vec![];
        let guard = instruction
            .guard
            .iter()
            .map(|(name, _)| Operand::Name(name.clone()));
        let operands = instruction.operands.iter().cloned().chain(guard).collect();
        decoder.named(&Operand::Vector(operands), &mut found);
        found
    };
    Ok(Program {
        names: entry.body.iter().filter(|_| waits).map(names).collect(),
        steps,
        registers: (decoder.count32 as usize, decoder.count64 as usize),
        presets: decoder.presets.into_iter().collect(),
        shared_bytes: decoder.shared_bytes,
        local_bytes: decoder.local_bytes,
        constants: decoder.constants,
        sources: entry.body.iter().map(|i| (i.line, i.to_string())).collect(),
    })
}

pub(super) struct Decoder<'m> {
    entry: &'m Entry,
    names: HashMap<String, Register>,
    presets: HashMap<Preset, Register>,
    /// Addresses of variables.
    variables: HashMap<&'m str, u64>,
    pub(super) parameters: HashMap<&'m str, usize>,
    labels: HashMap<&'m str, usize>,
    count32: u32,
    count64: u32,
    shared_bytes: usize,
    local_bytes: usize,
    constants: Vec<u8>,
    /// Steps to insert before the current one.
    pub(super) before: Vec<Step>,
    /// For each instruction as written, the position of its last step.
    starts: Vec<usize>,
    source: u32,
}

pub(super) type Decoded<T> = Result<T, String>;

impl<'m> Decoder<'m> {
    fn new(module: &'m Module, entry: &'m Entry) -> Decoder<'m> {
        let mut decoder = Decoder {
            entry,
            names: HashMap::new(),
            presets: HashMap::new(),
            variables: HashMap::new(),
            parameters: entry
                .parameters
                .iter()
                .enumerate()
                .map(|(i, name)| (&name[..], i))
                .collect(),
            labels: entry.labels.iter().map(|(name, at)| (&name[..], *at)).collect(),
            count32: 0,
            count64: 0,
            shared_bytes: 0,
            local_bytes: 0,
            constants: vec![],
            before: vec![],
            starts: vec![],
            source: 0,
        };
        // Dynamic shared memory begins after all variables that have a size.
        let variables = || module.variables.iter().chain(&entry.variables);
        for variable in variables().filter(|v| v.bytes > 0) {
            let align = variable.align;
            let address = match variable.space {
                Space::Shared => place(&mut decoder.shared_bytes, variable.bytes, align),
                Space::Local => place(&mut decoder.local_bytes, variable.bytes, align),
                _ => {
                    let at = decoder.constants.len().next_multiple_of(align);
                    decoder.constants.resize(at, 0);
                    let contents = variable.contents.clone();
                    decoder
                        .constants
                        .extend(contents.unwrap_or_else(|| vec![0; variable.bytes]));
                    CONSTANTS + at as u64
                }
            };
            decoder.variables.insert(&variable.name, address);
        }
        let asked = || variables().filter(|v| v.bytes == 0);
        let align = asked().map(|v| v.align).max().unwrap_or(1).max(16);
        decoder.shared_bytes = decoder.shared_bytes.next_multiple_of(align);
        for variable in asked() {
            decoder
                .variables
                .insert(&variable.name, decoder.shared_bytes as u64);
        }
        decoder
    }

    /// Bits of a register by its name.
    pub(super) fn bits(&self, name: &str) -> Option<usize> {
        let kind = name.trim_end_matches(|c: char| c.is_ascii_digit());
        let registers = &self.entry.registers;
        let found = registers
            .iter()
            .find(|r| r.0 == name)
            .or_else(|| registers.iter().find(|r| r.0 == kind));
        found.map(|r| r.1)
    }

    /// Adds the registers of 32 bits that an operand names.
    fn named(&self, operand: &Operand, found: &mut Vec<Register>) {
        let mut add = |name: &str| match self.names.get(name) {
            Some(&register) if self.bits(name) != Some(64) => found.push(register),
            _ => {}
        };
        match operand {
            Operand::Name(name) | Operand::Not(name) => add(name),
            Operand::Pair(a, b) => [a, b].into_iter().for_each(|name| add(name)),
            Operand::Address(base, _) => self.named(base, found),
            Operand::Vector(parts) => parts.iter().for_each(|part| self.named(part, found)),
            Operand::Number(_) => {}
        }
    }

    pub(super) fn allocate(&mut self, wide: bool) -> Register {
        let count = if wide {
            &mut self.count64
        } else {
            &mut self.count32
        };
        *count += 1;
        *count - 1
    }

    pub(super) fn preset(&mut self, preset: Preset) -> Register {
        if let Some(&register) = self.presets.get(&preset) {
            return register;
        }
        let register = self.allocate(matches!(preset, Preset::Long(_) | Preset::Parameter(_)));
        self.presets.insert(preset, register);
        register
    }

    /// A register by name; `wide` says that it has 64 bits.
    pub(super) fn register(&mut self, name: &str, wide: bool) -> Decoded<Register> {
        let special = match name {
            "%tid.x" => Some(Preset::Thread),
            "%ntid.x" => Some(Preset::Threads),
            "%ctaid.x" => Some(Preset::Block),
            "%nctaid.x" => Some(Preset::Blocks),
            "%laneid" => Some(Preset::Lane),
            "%warpid" => Some(Preset::Warp),
            "%tid.y" | "%tid.z" | "%ctaid.y" | "%ctaid.z" => Some(Preset::Word(0)),
            "%ntid.y" | "%ntid.z" | "%nctaid.y" | "%nctaid.z" => Some(Preset::Word(1)),
            _ => None,
        };
        if let (Some(preset), false) = (special, wide) {
            return Ok(self.preset(preset));
        }
        let bits = self.bits(name).ok_or_else(|| format!("{name} is not declared"))?;
        if (bits == 64) != wide {
            return Err(format!("{name} has {bits} bits"));
        }
        if let Some(&register) = self.names.get(name) {
            return Ok(register);
        }
        let register = self.allocate(wide);
        self.names.insert(name.to_string(), register);
        Ok(register)
    }

    /// An operand that is read.
    pub(super) fn read(&mut self, operand: &Operand, wide: bool) -> Decoded<Register> {
        match operand {
            Operand::Number(number) if wide => Ok(self.preset(Preset::Long(*number as u64))),
            Operand::Number(number) => Ok(self.preset(Preset::Word(*number as u32))),
            Operand::Name(name) => match self.variables.get(&name[..]) {
                Some(&address) if wide => Ok(self.preset(Preset::Long(address))),
                Some(&address) => Ok(self.preset(Preset::Word(address as u32))),
                None => self.register(name, wide),
            },
            Operand::Not(name) => {
                let (a, d) = (self.register(name, false)?, self.allocate(false));
                let one = self.preset(Preset::Word(1));
                self.insert(Code::Binary(Binary::Xor, Int::U32), d, a, one);
                Ok(d)
            }
            other => Err(format!("{other} stands where a register does")),
        }
    }

    /// The low 32 bits of an operand, which may be a register of 64: conversions from less take what they need.
    fn read_low(&mut self, operand: &Operand) -> Decoded<Register> {
        match operand {
            Operand::Name(name) if self.bits(name) == Some(64) => {
                let (a, d) = (self.register(name, true)?, self.allocate(false));
                let low = Code::Convert {
                    from: Number::Int(Int::U64),
                    to: Number::Int(Int::U32),
                    round: Round::Nearest,
                    to_integer: false,
                };
                self.insert(low, d, a, 0);
                Ok(d)
            }
            operand => self.read(operand, false),
        }
    }

    /// An operand that is written. `_` discards the value.
    pub(super) fn write(&mut self, operand: &Operand, wide: bool) -> Decoded<Register> {
        match operand {
            Operand::Name(name) if name == "_" => Ok(self.allocate(wide)),
            Operand::Name(name) => self.register(name, wide),
            other => Err(format!("{other} stands where a result does")),
        }
    }

    pub(super) fn insert(&mut self, code: Code, d: Register, a: Register, b: Register) {
        let step = self.make(code, d, [a, b, 0]);
        self.before.push(step);
    }

    pub(super) fn make(&self, code: Code, d: Register, [a, b, c]: [Register; 3]) -> Step {
        Step {
            code,
            guard: None,
            d,
            a,
            b,
            c,
            list: vec![],
            offsets: (0, 0),
            source: self.source,
        }
    }

    /// `[register + offset]`.
    pub(super) fn address(&mut self, operand: Option<&Operand>) -> Decoded<(Register, i64)> {
        let Some(Operand::Address(base, offset)) = operand else {
            return Err("an address is missing".to_string());
        };
        if let Operand::Name(name) = &**base
            && self.bits(name) == Some(32)
        {
            let (a, d) = (self.register(name, false)?, self.allocate(true));
            let widen = Code::Convert {
                from: Number::Int(Int::U32),
                to: Number::Int(Int::U64),
                round: Round::Nearest,
                to_integer: false,
            };
            self.insert(widen, d, a, 0);
            return Ok((d, *offset));
        }
        Ok((self.read(base, true)?, *offset))
    }

    pub(super) fn vector(
        &mut self,
        operand: Option<&Operand>,
        wide: bool,
        written: bool,
    ) -> Decoded<Vec<Register>> {
        let one = |decoder: &mut Self, part: &Operand| match written {
            true => decoder.write(part, wide),
            false => decoder.read(part, wide),
        };
        match operand {
            Some(Operand::Vector(parts)) => parts.iter().map(|part| one(self, part)).collect(),
            Some(part) => Ok(vec![one(self, part)?]),
            None => Err("an operand is missing".to_string()),
        }
    }

    fn step(&mut self, instruction: &Instruction) -> Decoded<Step> {
        let mut step = self.unguarded(instruction)?;
        if let Some((name, negated)) = &instruction.guard {
            let guard = Some((self.register(name, false)?, *negated));
            step.guard = guard;
            self.before.iter_mut().for_each(|step| step.guard = guard);
        }
        Ok(step)
    }

    fn unguarded(&mut self, instruction: &Instruction) -> Decoded<Step> {
        let parts: Vec<&str> = instruction.opcode.split('.').collect();
        let operands = &instruction.operands;
        match parts[0] {
            "ld" | "st" => self.memory(&parts, operands),
            "atom" | "red" => self.atomic(&parts, operands),
            "mov" => self.mov(operands),
            "cvta" => self.cvta(&parts, operands),
            "setp" => self.setp(&parts, operands),
            "cp" => self.cp(&parts, operands),
            "mma" | "ldmatrix" => self.matrix(&parts, operands),
            "wgmma" => self.warpgroup(&parts, operands),
            "shfl" | "vote" | "activemask" => self.warp(&parts, operands),
            "bra" => {
                let Some(Operand::Name(label)) = operands.first() else {
                    return Err("a label is missing".to_string());
                };
                let to = self
                    .labels
                    .get(&label[..])
                    .ok_or_else(|| format!("no label {label}"))?;
                Ok(self.make(Code::Branch { to: *to }, 0, [0; 3]))
            }
            "ret" | "exit" => Ok(self.make(Code::Exit, 0, [0; 3])),
            "trap" => Ok(self.make(Code::Trap, 0, [0; 3])),
            "bar" | "barrier" if parts.contains(&"warp") => Ok(self.make(Code::Nothing, 0, [0; 3])),
            "bar" | "barrier" if parts.contains(&"sync") => match operands.get(..) {
                Some([Operand::Number(_)]) => Ok(self.make(Code::Barrier, 0, [0; 3])),
                _ => Err("only barriers of all threads are known".to_string()),
            },
            "fence" if super::names::shows_shared(&parts) => Ok(self.make(Code::ShowWrites, 0, [0; 3])),
            "membar" | "fence" | "prefetch" | "griddepcontrol" => Ok(self.make(Code::Nothing, 0, [0; 3])),
            _ => {
                let (code, wide, sources) =
                    super::names::code(&parts).ok_or("the instruction is not known")?;
                if operands.len() != sources.len() + 1 {
                    return Err(format!(
                        "{} operands instead of {}",
                        operands.len(),
                        sources.len() + 1
                    ));
                }
                let d = self.write(&operands[0], wide)?;
                let mut registers = [0; 3];
                for ((register, operand), &wide) in registers.iter_mut().zip(&operands[1..]).zip(sources) {
                    *register = match code {
                        Code::Convert { .. } if !wide => self.read_low(operand)?,
                        _ => self.read(operand, wide)?,
                    };
                }
                let mut step = self.make(code, d, registers);
                // More than three sources: the rest in the list.
                for (operand, &wide) in operands[1..].iter().zip(sources).skip(3) {
                    let register = self.read(operand, wide)?;
                    step.list.push(register);
                }
                if let Code::Logic(table) = &mut step.code {
                    let Some(Operand::Number(number)) = operands.last() else {
                        return Err("the table of a logic function is a number".to_string());
                    };
                    *table = *number as u8;
                }
                Ok(step)
            }
        }
    }
}

/// Allocates bytes after the ones before, aligned.
fn place(used: &mut usize, bytes: usize, align: usize) -> u64 {
    let at = used.next_multiple_of(align);
    *used = at + bytes;
    at as u64
}
