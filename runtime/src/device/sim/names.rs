//! The names of instructions that only compute.

use super::code::*;

/// What an instruction does, whether its result has 64 bits, and whether each source has.
pub fn code(parts: &[&str]) -> Option<(Code, bool, &'static [bool])> {
    const NARROW: [bool; 4] = [false; 4];
    const WIDE: [bool; 3] = [true; 3];
    let (name, ty) = (parts[0], *parts.last()?);
    let has = |modifier: &str| parts.contains(&modifier);
    if has("ftz") || has("sat") {
        return None;
    }
    let same = |code: Code, sources: usize, wide: bool| {
        let kinds: &'static [bool] = if wide {
            &WIDE[..sources]
        } else {
            &NARROW[..sources]
        };
        Some((code, wide, kinds))
    };
    if let Some(binary) = float2(parts) {
        match ty {
            "f32" => return same(Code::Float2(binary), 2, false),
            "f32x2" => return same(Code::Pair(binary), 2, true),
            "f64" => return same(Code::Double(binary), 2, true),
            _ => {}
        }
    }
    match (name, ty) {
        ("fma", "f32") => return same(Code::FusedMultiplyAdd, 3, false),
        ("fma", "f32x2") => return same(Code::PairFusedMultiplyAdd, 3, true),
        ("fma", "f64") => return same(Code::DoubleFusedMultiplyAdd, 3, true),
        ("selp", _) => {
            return match super::names::integer(ty)?.bytes() {
                8 => Some((Code::Select64, true, &[true, true, false])),
                _ => same(Code::Select32, 3, false),
            };
        }
        ("cvt", _) => return convert(parts),
        ("lop3", "b32") => return same(Code::Logic(0), 4, false),
        ("prmt", "b32") => return same(Code::Permute, 3, false),
        ("bfi", "b32") => return same(Code::Insert, 4, false),
        ("bfe", "u64" | "s64") => {
            let code = Code::ExtractWide { signed: ty == "s64" };
            return Some((code, true, &[true, false, false]));
        }
        ("copysign", "f32") => return same(Code::CopySign, 2, false),
        ("bfe", "u32" | "s32") => return same(Code::Extract { signed: ty == "s32" }, 3, false),
        ("shf", "b32") => {
            let (left, wrap) = (has("l"), has("wrap"));
            return same(Code::Funnel { left, wrap }, 3, false);
        }
        _ => {}
    }
    if ty == "f32" {
        let approximate = has("approx");
        let unary = match name {
            "neg" => Float1::Negate,
            "abs" => Float1::Absolute,
            "sqrt" => Float1::SquareRoot,
            "rcp" => Float1::Reciprocal,
            "rsqrt" if approximate => Float1::ReciprocalRoot,
            "ex2" if approximate => Float1::Power2,
            "lg2" if approximate => Float1::Log2,
            "sin" if approximate => Float1::Sine,
            "cos" if approximate => Float1::Cosine,
            "tanh" if approximate => Float1::Tanh,
            _ => return None,
        };
        return same(Code::Float1(unary), 1, false);
    }
    let int = match ty {
        "pred" => Int::U32,
        _ => integer(ty)?,
    };
    let wide = int.bytes() == 8;
    if name == "mul" && has("wide") {
        return Some((Code::Wide(int), int.bytes() == 4, &NARROW[..2]));
    }
    if name == "mad" && has("wide") && int.bytes() == 4 {
        return Some((Code::WideAdd(int), true, &[false, false, true]));
    }
    if name == "mad" && has("lo") {
        return same(Code::MultiplyAdd(int), 3, wide);
    }
    let unary = match name {
        "not" if ty == "pred" => Some(Unary::NotPredicate),
        "not" => Some(Unary::Not),
        "neg" => Some(Unary::Negate),
        "abs" => Some(Unary::Absolute),
        "popc" => Some(Unary::CountOnes),
        "clz" => Some(Unary::CountLeadingZeros),
        "brev" => Some(Unary::Reverse),
        _ => None,
    };
    if let Some(unary) = unary {
        let counts = matches!(unary, Unary::CountOnes | Unary::CountLeadingZeros);
        let kinds: &'static [bool] = if wide { &WIDE[..1] } else { &NARROW[..1] };
        return Some((Code::Unary(unary, int), wide && !counts, kinds));
    }
    let binary = match name {
        "add" => Binary::Add,
        "sub" => Binary::Subtract,
        "mul" if has("lo") => Binary::MultiplyLow,
        "mul" if has("hi") => Binary::MultiplyHigh,
        "div" => Binary::Divide,
        "rem" => Binary::Remainder,
        "min" => Binary::Min,
        "max" => Binary::Max,
        "and" => Binary::And,
        "or" => Binary::Or,
        "xor" => Binary::Xor,
        "shl" | "shr" => {
            let code = if name == "shl" {
                Binary::ShiftLeft
            } else {
                Binary::ShiftRight
            };
            let kinds: &'static [bool] = if wide { &[true, false] } else { &NARROW[..2] };
            return Some((Code::Binary(code, int), wide, kinds));
        }
        _ => return None,
    };
    same(Code::Binary(binary, int), 2, wide)
}

fn float2(parts: &[&str]) -> Option<Float2> {
    let nan = parts.contains(&"NaN");
    Some(match parts[0] {
        "add" => Float2::Add,
        "sub" => Float2::Subtract,
        "mul" => Float2::Multiply,
        "div" => Float2::Divide,
        "min" if nan => Float2::MinNan,
        "max" if nan => Float2::MaxNan,
        "min" => Float2::Min,
        "max" => Float2::Max,
        _ => return None,
    })
}

/// A type by its name; of bits, as unsigned.
pub fn integer(name: &str) -> Option<Int> {
    Some(match name {
        "u8" | "b8" => Int::U8,
        "s8" => Int::S8,
        "u16" | "b16" | "f16" | "bf16" => Int::U16,
        "s16" => Int::S16,
        "u32" | "b32" | "f32" => Int::U32,
        "s32" => Int::S32,
        "u64" | "b64" | "f64" => Int::U64,
        "s64" => Int::S64,
        _ => return None,
    })
}

/// The memory that a load, store or atomic names.
pub fn memory(parts: &[&str]) -> Memory {
    let has = |name: &str| parts.contains(&name);
    match () {
        _ if has("global") => Memory::Global,
        _ if has("shared") => Memory::Shared,
        _ if has("local") => Memory::Local,
        _ if has("const") => Memory::Constant,
        _ => Memory::Generic,
    }
}

/// Whether an instruction shows `wgmma` what was written to shared memory: a fence of all memory or of that.
pub fn shows_shared(parts: &[&str]) -> bool {
    matches!(
        parts,
        ["fence", "proxy", "async"] | ["fence", "proxy", "async", "shared::cta"]
    )
}

/// A comparison by its name: `setp.lt.and.s32`.
pub fn comparison(parts: &[&str]) -> Option<(Compare, Compared, Option<Binary>)> {
    let ty = *parts.last()?;
    let name = *parts.get(1)?;
    let float = match ty {
        "f32" => true,
        "f64" | "f16" => return None,
        _ => false,
    };
    let with = match *parts.get(2)? {
        "and" => Some(Binary::And),
        "or" => Some(Binary::Or),
        "xor" => Some(Binary::Xor),
        _ => None,
    };
    if float && matches!(name, "num" | "nan") {
        return Some((
            Compare::Equal,
            Compared::Order {
                numbers: name == "num",
            },
            with,
        ));
    }
    let (name, unordered) = match name.strip_suffix('u') {
        Some(ordered) if float && name.len() == 3 => (ordered, true),
        _ => (name, false),
    };
    // Unsigned comparisons have names of their own too.
    let how = match name {
        "eq" => Compare::Equal,
        "ne" => Compare::NotEqual,
        "lt" | "lo" => Compare::Less,
        "le" | "ls" => Compare::LessEqual,
        "gt" | "hi" => Compare::Greater,
        "ge" | "hs" => Compare::GreaterEqual,
        _ => return None,
    };
    let of = match float {
        true => Compared::Float { unordered },
        false => Compared::Int(integer(ty)?),
    };
    Some((how, of, with))
}

/// A conversion by its name: `cvt.rn.f32.s32`.
fn convert(parts: &[&str]) -> Option<(Code, bool, &'static [bool])> {
    let (from, to) = (*parts.last()?, parts[parts.len() - 2]);
    if (to, from) == ("tf32", "f32") {
        return parts.contains(&"rna").then_some((Code::ToTf32, false, &[false]));
    }
    if (to, from) == ("bf16x2", "f32") {
        return Some((Code::PackBf16, false, &[false, false]));
    }
    let number = |name: &str| match name {
        "f32" => Some(Number::F32),
        "f64" => Some(Number::F64),
        "bf16" => Some(Number::Bf16),
        "f16" => None,
        _ => integer(name).map(Number::Int),
    };
    let (from, to) = (number(from)?, number(to)?);
    let mode = parts[1];
    let to_integer = mode.ends_with('i') && mode.starts_with('r');
    let round = match mode.trim_end_matches('i') {
        "rz" => Round::Zero,
        "rm" => Round::Down,
        "rp" => Round::Up,
        _ => Round::Nearest,
    };
    let wide = |number: Number| match number {
        Number::Int(int) => int.bytes() == 8,
        Number::F64 => true,
        _ => false,
    };
    let code = Code::Convert {
        from,
        to,
        round,
        to_integer,
    };
    let kinds: &'static [bool] = if wide(from) { &[true] } else { &[false] };
    Some((code, wide(to), kinds))
}
