//! Conversions between types of numbers.

use super::code::*;
use super::lanes::{Mask, Registers, map};

/// Rounds to 10 bits of mantissa, ties away from zero; the low 13 bits become 0. NaN and infinities stay.
pub fn to_tf32(bits: u32) -> u32 {
    match bits & 0x7f80_0000 == 0x7f80_0000 {
        true => bits & 0xffff_e000 | if bits & 0x007f_ffff != 0 { 0x0040_0000 } else { 0 },
        false => bits.wrapping_add(0x1000) & 0xffff_e000,
    }
}

/// Rounds to bf16, ties to even.
pub fn to_bf16(value: f32) -> u16 {
    if value.is_nan() {
        return 0x7fff;
    }
    let bits = value.to_bits();
    ((bits + 0x7fff + (bits >> 16 & 1)) >> 16) as u16
}

/// A value between types.
enum Value {
    Int(i128),
    Float(f64),
}

/// `cvt`.
pub fn convert(
    step: &Step,
    (from, to): (Number, Number),
    round: Round,
    to_integer: bool,
    registers: &mut Registers,
    mask: &Mask,
) {
    let (d, a) = (step.d, step.a);
    use Number::Int as I;
    // The conversions of address arithmetic.
    match (from, to) {
        (I(Int::U32), I(Int::U64 | Int::S64)) => {
            return map!(registers, mask, wide d, (narrow a => x), u64::from(x));
        }
        (I(Int::S32), I(Int::U64 | Int::S64)) => {
            return map!(registers, mask, wide d, (narrow a => x), i64::from(x as i32) as u64);
        }
        (I(Int::U64 | Int::S64), I(Int::U32 | Int::S32)) => {
            return map!(registers, mask, narrow d, (wide a => x), x as u32);
        }
        (I(Int::U16), I(Int::U32 | Int::S32)) | (I(Int::U32 | Int::S32), I(Int::U16)) => {
            return map!(registers, mask, narrow d, (narrow a => x), x & 0xffff);
        }
        _ => {}
    }
    let wide = |number: Number| matches!(number, I(Int::U64 | Int::S64) | Number::F64);
    let one = |bits: u64| write(convert_value(read(bits, from), round, to_integer, to), to);
    match (wide(from), wide(to)) {
        (false, false) => map!(registers, mask, narrow d, (narrow a => x), one(u64::from(x)) as u32),
        (true, false) => map!(registers, mask, narrow d, (wide a => x), one(x) as u32),
        (false, true) => map!(registers, mask, wide d, (narrow a => x), one(u64::from(x))),
        (true, true) => map!(registers, mask, wide d, (wide a => x), one(x)),
    }
}

fn read(bits: u64, from: Number) -> Value {
    match from {
        Number::Int(int) => Value::Int(match int {
            Int::U8 => i128::from(bits as u8),
            Int::S8 => i128::from(bits as i8),
            Int::U16 => i128::from(bits as u16),
            Int::S16 => i128::from(bits as i16),
            Int::U32 => i128::from(bits as u32),
            Int::S32 => i128::from(bits as i32),
            Int::U64 => i128::from(bits),
            Int::S64 => i128::from(bits as i64),
        }),
        Number::F32 => Value::Float(f64::from(f32::from_bits(bits as u32))),
        Number::Bf16 => Value::Float(f64::from(f32::from_bits((bits as u32) << 16))),
        Number::F64 => Value::Float(f64::from_bits(bits)),
    }
}

fn convert_value(value: Value, round: Round, to_integer: bool, to: Number) -> Value {
    let rounded = |x: f64| match round {
        Round::Nearest => x.round_ties_even(),
        Round::Zero => x.trunc(),
        Round::Down => x.floor(),
        Round::Up => x.ceil(),
    };
    match (value, to) {
        (Value::Float(x), Number::Int(int)) => {
            // A value out of range becomes the nearest value in range; NaN becomes zero.
            let (low, high) = range(int);
            Value::Int((rounded(x) as i128).clamp(low, high))
        }
        (Value::Float(x), _) if to_integer => Value::Float(rounded(x)),
        (value, _) => value,
    }
}

fn range(int: Int) -> (i128, i128) {
    let bits = 8 * int.bytes() as u32;
    match int.signed() {
        true => (-(1 << (bits - 1)), (1 << (bits - 1)) - 1),
        false => (0, (1 << bits) - 1),
    }
}

fn write(value: Value, to: Number) -> u64 {
    match (to, value) {
        // A narrow result fills its register: with its sign, if it has one.
        (Number::Int(Int::S8), Value::Int(x)) => u64::from(x as i8 as i32 as u32),
        (Number::Int(Int::U8), Value::Int(x)) => u64::from(x as u8),
        (Number::Int(Int::U16 | Int::S16), Value::Int(x)) => u64::from(x as u16),
        (Number::Int(Int::U32 | Int::S32), Value::Int(x)) => u64::from(x as u32),
        (Number::Int(_), Value::Int(x)) => x as u64,
        (Number::Int(_), Value::Float(x)) => x as u64,
        (Number::F32, Value::Int(x)) => u64::from((x as f32).to_bits()),
        (Number::F32, Value::Float(x)) => u64::from((x as f32).to_bits()),
        (Number::F64, Value::Int(x)) => (x as f64).to_bits(),
        (Number::F64, Value::Float(x)) => x.to_bits(),
        (Number::Bf16, Value::Int(x)) => u64::from(to_bf16(x as f32)),
        (Number::Bf16, Value::Float(x)) => u64::from(to_bf16(x as f32)),
    }
}
