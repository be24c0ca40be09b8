//! Instructions with operands of their own kinds, decoded: those that move values between registers, memory and lanes.

use super::code::*;
use super::decode::{Decoded, Decoder, LOCAL, Preset, SHARED};
use crate::device::ptx::Operand;

impl Decoder<'_> {
    pub(super) fn memory(&mut self, parts: &[&str], operands: &[Operand]) -> Decoded<Step> {
        let of = super::names::integer(parts[parts.len() - 1]).ok_or("the type is not known")?;
        let wide = of.bytes() == 8;
        let (value, address) = if parts[0] == "ld" { (0, 1) } else { (1, 0) };
        if parts.contains(&"param") {
            let Some(Operand::Address(base, 0)) = operands.get(address) else {
                return Err("only whole parameters are read".to_string());
            };
            let number = match &**base {
                Operand::Name(name) => self.parameters.get(&name[..]).copied(),
                _ => None,
            };
            let number = number
                .filter(|_| wide)
                .ok_or("only parameters of 8 bytes are known")?;
            let (d, a) = (
                self.write(&operands[0], true)?,
                self.preset(Preset::Parameter(number)),
            );
            return Ok(self.make(Code::Move64, d, [a, 0, 0]));
        }
        let memory = super::names::memory(parts);
        let (a, offset) = self.address(operands.get(address))?;
        // Loads may widen to a register of 64 bits, and stores take the low bits of one.
        if !wide
            && let Some(Operand::Name(name)) = operands.get(value)
            && self.bits(name) == Some(64)
        {
            return self.resized(parts[0] == "ld", name, memory, of, (a, offset));
        }
        let list = self.vector(operands.get(value), wide, parts[0] == "ld")?;
        let count: usize = parts
            .iter()
            .find_map(|p| p.strip_prefix('v')?.parse().ok())
            .unwrap_or(1);
        if list.len() != count {
            return Err(format!("{} registers for {count} elements", list.len()));
        }
        let code = match parts[0] {
            "ld" => Code::Load { memory, of },
            _ => Code::Store { memory, of },
        };
        Ok(Step {
            list,
            offsets: (offset, 0),
            ..self.make(code, 0, [a, 0, 0])
        })
    }

    fn resized(
        &mut self,
        loads: bool,
        name: &str,
        memory: Memory,
        of: Int,
        (a, offset): (Register, i64),
    ) -> Decoded<Step> {
        let (wide, narrow) = (self.register(name, true)?, self.allocate(false));
        let resize = |from: Int, to: Int| Code::Convert {
            from: Number::Int(from),
            to: Number::Int(to),
            round: Round::Nearest,
            to_integer: false,
        };
        let code = match loads {
            true => Code::Load { memory, of },
            false => Code::Store { memory, of },
        };
        let moves = Step {
            list: vec![narrow],
            offsets: (offset, 0),
            ..self.make(code, 0, [a, 0, 0])
        };
        if loads {
            // A load of less than 32 bits has filled those already.
            let from = if of.signed() { Int::S32 } else { Int::U32 };
            self.before.push(moves);
            return Ok(self.make(resize(from, Int::U64), wide, [narrow, 0, 0]));
        }
        self.insert(resize(Int::U64, Int::U32), narrow, wide, 0);
        Ok(moves)
    }

    pub(super) fn atomic(&mut self, parts: &[&str], operands: &[Operand]) -> Decoded<Step> {
        let ty = parts[parts.len() - 1];
        let of = super::names::integer(ty).ok_or("the type is not known")?;
        let wide = of.bytes() == 8;
        let has = |name: &str| parts.contains(&name);
        let how = match () {
            _ if has("add") && ty == "f32" => Atomic::AddFloat,
            _ if ty == "f64" || ty == "f16" => return Err("the type is not known".to_string()),
            _ if has("add") => Atomic::Add,
            _ if has("min") => Atomic::Min,
            _ if has("max") => Atomic::Max,
            _ if has("and") => Atomic::And,
            _ if has("or") => Atomic::Or,
            _ if has("exch") => Atomic::Exchange,
            _ if has("cas") => Atomic::CompareExchange,
            _ => return Err("the operation is not known".to_string()),
        };
        let result = parts[0] == "atom";
        let d = match result {
            true => self.write(operands.first().ok_or("a result is missing")?, wide)?,
            false => 0,
        };
        let rest = &operands[usize::from(result)..];
        let (a, offset) = self.address(rest.first())?;
        let b = self.read(rest.get(1).ok_or("a value is missing")?, wide)?;
        let c = rest.get(2).map_or(Ok(0), |operand| self.read(operand, wide))?;
        let memory = super::names::memory(parts);
        Ok(Step {
            offsets: (offset, 0),
            ..self.make(
                Code::Atomic {
                    memory,
                    how,
                    of,
                    result,
                },
                d,
                [a, b, c],
            )
        })
    }

    pub(super) fn mov(&mut self, operands: &[Operand]) -> Decoded<Step> {
        let wide_name = |decoder: &Self, operand: &Operand| match operand {
            Operand::Name(name) => decoder.bits(name) == Some(64),
            _ => false,
        };
        match operands {
            [d, Operand::Vector(parts)] => {
                let wide = wide_name(self, d);
                let (code, d) = (
                    if wide { Code::Pack64 } else { Code::Pack32 },
                    self.write(d, wide)?,
                );
                let [a, b] = &parts[..] else {
                    return Err("only pairs are packed".to_string());
                };
                let (a, b) = (self.read(a, false)?, self.read(b, false)?);
                Ok(self.make(code, d, [a, b, 0]))
            }
            [Operand::Vector(parts), a] => {
                let wide = wide_name(self, a);
                let code = if wide { Code::Unpack64 } else { Code::Unpack32 };
                let a = self.read(a, wide)?;
                let [low, high] = &parts[..] else {
                    return Err("only pairs are unpacked".to_string());
                };
                let (d, high) = (self.write(low, false)?, self.write(high, false)?);
                Ok(Step {
                    list: vec![high],
                    ..self.make(code, d, [a, 0, 0])
                })
            }
            [d, a] => {
                let wide = wide_name(self, d);
                let (d, a) = (self.write(d, wide)?, self.read(a, wide)?);
                let code = if wide { Code::Move64 } else { Code::Move32 };
                Ok(self.make(code, d, [a, 0, 0]))
            }
            _ => Err("two operands are expected".to_string()),
        }
    }

    /// Between addresses of one kind of memory and generic ones.
    pub(super) fn cvta(&mut self, parts: &[&str], operands: &[Operand]) -> Decoded<Step> {
        let base = match () {
            _ if parts.contains(&"shared") => SHARED,
            _ if parts.contains(&"local") => LOCAL,
            _ => 0,
        };
        let [d, a] = operands else {
            return Err("two operands are expected".to_string());
        };
        let (d, a) = (self.write(d, true)?, self.read(a, true)?);
        let base = self.preset(Preset::Long(base));
        Ok(self.make(Code::Binary(Binary::Xor, Int::U64), d, [a, base, 0]))
    }

    pub(super) fn setp(&mut self, parts: &[&str], operands: &[Operand]) -> Decoded<Step> {
        let (how, of, with) = super::names::comparison(parts).ok_or("the comparison is not known")?;
        let wide = matches!(of, Compared::Int(int) if int.bytes() == 8);
        let (d, sources) = operands.split_first().ok_or("operands are missing")?;
        let [a, b, rest @ ..] = sources else {
            return Err("two values are compared".to_string());
        };
        let d = self.write(d, false)?;
        let (a, b) = (self.read(a, wide)?, self.read(b, wide)?);
        let c = rest.first().map_or(Ok(0), |operand| self.read(operand, false))?;
        if rest.is_empty() != with.is_none() {
            return Err("a predicate to combine with is expected with .and, .or and .xor only".to_string());
        }
        Ok(self.make(Code::Set { how, of, with }, d, [a, b, c]))
    }

    pub(super) fn cp(&mut self, parts: &[&str], operands: &[Operand]) -> Decoded<Step> {
        match parts {
            ["cp", "async", "commit_group"] => Ok(self.make(Code::Commit, 0, [0; 3])),
            ["cp", "async", "wait_all"] => Ok(self.make(Code::Wait(0), 0, [0; 3])),
            ["cp", "async", "wait_group"] => match operands {
                [Operand::Number(left)] if *left >= 0 => Ok(self.make(Code::Wait(*left as usize), 0, [0; 3])),
                _ => Err("a number of groups is expected".to_string()),
            },
            ["cp", "async", "ca" | "cg", "shared", "global", ..] => {
                let (a, to) = self.address(operands.first())?;
                let (b, from) = self.address(operands.get(1))?;
                let bytes = match operands.get(2) {
                    Some(Operand::Number(bytes @ (4 | 8 | 16))) => *bytes as usize,
                    _ => return Err("4, 8 or 16 bytes are copied".to_string()),
                };
                let c = self.read(operands.get(3).unwrap_or(&operands[2]), false)?;
                Ok(Step {
                    offsets: (to, from),
                    ..self.make(Code::CopyAsync { bytes }, 0, [a, b, c])
                })
            }
            _ => Err("the copy is not known".to_string()),
        }
    }

    pub(super) fn matrix(&mut self, parts: &[&str], operands: &[Operand]) -> Decoded<Step> {
        if parts[0] == "ldmatrix" {
            let list = self.vector(operands.first(), false, true)?;
            let (a, offset) = self.address(operands.get(1))?;
            let count = list.len();
            if !parts.contains(&"m8n8") || !parts.contains(&"b16") || !matches!(count, 1 | 2 | 4) {
                return Err("only 1, 2 or 4 matrices of 8 × 8 elements of 16 bits are loaded".to_string());
            }
            let code = Code::LoadMatrix {
                count,
                transposed: parts.contains(&"trans"),
            };
            return Ok(Step {
                list,
                offsets: (offset, 0),
                ..self.make(code, 0, [a, 0, 0])
            });
        }
        let bf16 = match parts {
            [
                "mma",
                "sync",
                "aligned",
                "m16n8k8",
                "row",
                "col",
                "f32",
                "tf32",
                "tf32",
                "f32",
            ] => false,
            [
                "mma",
                "sync",
                "aligned",
                "m16n8k16",
                "row",
                "col",
                "f32",
                "bf16",
                "bf16",
                "f32",
            ] => true,
            _ => return Err("the shape is not known".to_string()),
        };
        let mut list = self.vector(operands.first(), false, true)?;
        for operand in operands.iter().skip(1) {
            list.extend(self.vector(Some(operand), false, false)?);
        }
        if list.len() != 14 {
            return Err(format!("{} registers instead of 14", list.len()));
        }
        Ok(Step {
            list,
            ..self.make(Code::Mma { bf16 }, 0, [0; 3])
        })
    }

    /// Products of warpgroups, both matrices in shared memory with their rows along the depth.
    pub(super) fn warpgroup(&mut self, parts: &[&str], operands: &[Operand]) -> Decoded<Step> {
        let (shape, bf16) = match parts {
            ["wgmma", "fence", "sync", "aligned"] => return Ok(self.make(Code::Nothing, 0, [0; 3])),
            ["wgmma", "commit_group", "sync", "aligned"] => {
                return Ok(self.make(Code::WarpgroupCommit, 0, [0; 3]));
            }
            ["wgmma", "wait_group", "sync", "aligned"] => {
                return match operands {
                    [Operand::Number(left)] if *left >= 0 => {
                        Ok(self.make(Code::WarpgroupWait(*left as usize), 0, [0; 3]))
                    }
                    _ => Err("a number of groups is expected".to_string()),
                };
            }
            [
                "wgmma",
                "mma_async",
                "sync",
                "aligned",
                shape,
                "f32",
                "tf32",
                "tf32",
            ] => (shape, false),
            [
                "wgmma",
                "mma_async",
                "sync",
                "aligned",
                shape,
                "f32",
                "bf16",
                "bf16",
            ] => (shape, true),
            _ => return Err("the instruction is not known".to_string()),
        };
        let deep = if bf16 { "k16" } else { "k8" };
        let columns = shape
            .strip_prefix("m64n")
            .and_then(|rest| rest.strip_suffix(deep));
        let columns: usize = columns.and_then(|n| n.parse().ok()).unwrap_or(0);
        if columns == 0 || columns > 256 || !columns.is_multiple_of(8) {
            return Err("the shape is not known".to_string());
        }
        let [sums, a, b, adds, rest @ ..] = operands else {
            return Err("sums, two matrices and whether to add are expected".to_string());
        };
        // Both factors with their sign; of bf16 also that neither is transposed.
        let expected: &[i64] = if bf16 { &[1, 1, 0, 0] } else { &[1, 1] };
        let plain = rest
            .iter()
            .zip(expected)
            .all(|(found, &number)| *found == Operand::Number(number));
        if !plain || rest.len() != expected.len() {
            return Err("only factors as they are, with rows along the depth, are known".to_string());
        }
        let list = self.vector(Some(sums), false, true)?;
        if list.len() != columns / 2 {
            return Err(format!("{} registers instead of {}", list.len(), columns / 2));
        }
        let sources = [self.read(a, true)?, self.read(b, true)?, self.read(adds, false)?];
        Ok(Step {
            list,
            ..self.make(Code::WarpgroupMultiply { columns, bf16 }, 0, sources)
        })
    }

    pub(super) fn warp(&mut self, parts: &[&str], operands: &[Operand]) -> Decoded<Step> {
        let (d, rest) = operands.split_first().ok_or("operands are missing")?;
        let (d, second) = match d {
            Operand::Pair(d, p) => (self.register(d, false)?, Some(self.register(p, false)?)),
            d => (self.write(d, false)?, None),
        };
        let mut sources = [0; 3];
        for (source, operand) in sources.iter_mut().zip(rest) {
            *source = self.read(operand, false)?;
        }
        let has = |name: &str| parts.contains(&name);
        let code = match () {
            _ if parts[0] == "activemask" => Code::Vote(Vote::Active),
            _ if has("bfly") => Code::Shuffle(Shuffle::Butterfly),
            _ if has("up") => Code::Shuffle(Shuffle::Up),
            _ if has("down") => Code::Shuffle(Shuffle::Down),
            _ if has("idx") => Code::Shuffle(Shuffle::Index),
            _ if has("any") => Code::Vote(Vote::Any),
            _ if has("all") => Code::Vote(Vote::All),
            _ if has("ballot") => Code::Vote(Vote::Ballot),
            _ => return Err("the instruction is not known".to_string()),
        };
        Ok(Step {
            list: second.into_iter().collect(),
            ..self.make(code, d, sources)
        })
    }
}
