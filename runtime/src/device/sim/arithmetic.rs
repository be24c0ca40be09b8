//! Instructions that only compute: registers in, registers out.
//!
//! Floats are rounded as the ISA says: `add`, `mul`, `fma`, `div.rn`, `sqrt.rn` and `rcp.rn` to nearest even. What it calls
//! approximate (`ex2`, `lg2`, `rsqrt`, `sin`, `cos`, `tanh`) is computed in f64 and rounded once, which is within its
//! stated errors.

use super::code::*;
use super::convert;
use super::lanes::{Mask, Registers, map};

/// Executes a step that only computes; returns whether it was one.
#[inline(always)]
pub fn execute(step: &Step, registers: &mut Registers, mask: &Mask) -> bool {
    let (d, a, b, c) = (step.d, step.a, step.b, step.c);
    match step.code {
        Code::Move32 => map!(registers, mask, narrow d, (narrow a => x), x),
        Code::Move64 => map!(registers, mask, wide d, (wide a => x), x),
        Code::FusedMultiplyAdd => {
            map!(registers, mask, narrow d, (narrow a => x, narrow b => y, narrow c => z),
            f32::from_bits(x).mul_add(f32::from_bits(y), f32::from_bits(z)).to_bits())
        }
        Code::Float2(how) => float2(how, step, registers, mask),
        Code::Float1(how) => float1(how, step, registers, mask),
        Code::Binary(how, of) => binary(how, of, step, registers, mask),
        Code::Unary(how, of) => unary(how, of, step, registers, mask),
        Code::Wide(of) => match of {
            Int::U16 => {
                map!(registers, mask, narrow d, (narrow a => x, narrow b => y), (x & 0xffff) * (y & 0xffff))
            }
            Int::S16 => map!(registers, mask, narrow d, (narrow a => x, narrow b => y),
                (i32::from(x as i16) * i32::from(y as i16)) as u32),
            Int::U32 => {
                map!(registers, mask, wide d, (narrow a => x, narrow b => y), u64::from(x) * u64::from(y))
            }
            _ => map!(registers, mask, wide d, (narrow a => x, narrow b => y),
                (i64::from(x as i32) * i64::from(y as i32)) as u64),
        },
        Code::MultiplyAdd(of) => match of.bytes() {
            8 => {
                map!(registers, mask, wide d, (wide a => x, wide b => y, wide c => z), x.wrapping_mul(y).wrapping_add(z))
            }
            4 => map!(registers, mask, narrow d, (narrow a => x, narrow b => y, narrow c => z),
                x.wrapping_mul(y).wrapping_add(z)),
            _ => map!(registers, mask, narrow d, (narrow a => x, narrow b => y, narrow c => z),
                x.wrapping_mul(y).wrapping_add(z) & 0xffff),
        },
        Code::WideAdd(of) => match of {
            Int::U32 => map!(registers, mask, wide d, (narrow a => x, narrow b => y, wide c => z),
                (u64::from(x) * u64::from(y)).wrapping_add(z)),
            _ => map!(registers, mask, wide d, (narrow a => x, narrow b => y, wide c => z),
                ((i64::from(x as i32) * i64::from(y as i32)) as u64).wrapping_add(z)),
        },
        Code::Extract { signed } => {
            map!(registers, mask, narrow d, (narrow a => x, narrow b => y, narrow c => z),
            extract(x, y & 0xff, z & 0xff, signed))
        }
        Code::ExtractWide { signed } => {
            map!(registers, mask, wide d, (wide a => x, narrow b => y, narrow c => z), extract_wide(x, y & 0xff, z & 0xff, signed));
        }
        Code::CopySign => {
            map!(registers, mask, narrow d, (narrow a => x, narrow b => y), (y & 0x7fff_ffff) | (x & 0x8000_0000))
        }
        Code::Insert => {
            let length = step.list[0];
            map!(registers, mask, narrow d, (narrow a => x, narrow b => y, narrow c => z, narrow length => n), {
                let bits = if n >= 32 { u32::MAX } else { (1 << n) - 1 };
                let bits = if z >= 32 { 0 } else { bits << z };
                let x = if z >= 32 { 0 } else { x << z };
                (y & !bits) | (x & bits)
            });
        }
        Code::Permute => {
            map!(registers, mask, narrow d, (narrow a => x, narrow b => y, narrow c => z), permute(x, y, z))
        }
        Code::Funnel { left, wrap } => {
            map!(registers, mask, narrow d, (narrow a => x, narrow b => y, narrow c => z), {
                let (pair, by) = (u64::from(y) << 32 | u64::from(x), if wrap { z & 31 } else { z.min(32) });
                if left { (pair << by >> 32) as u32 } else { (pair >> by) as u32 }
            })
        }
        Code::Logic(table) => {
            map!(registers, mask, narrow d, (narrow a => x, narrow b => y, narrow c => z), {
                let mut out = 0;
                for i in 0..8 {
                    let pick = |value: u32, bit: u32| if i & bit != 0 { value } else { !value };
                    if table >> i & 1 == 1 {
                        out |= pick(x, 4) & pick(y, 2) & pick(z, 1);
                    }
                }
                out
            })
        }
        Code::Pair(how) => match how {
            Float2::Add => {
                map!(registers, mask, wide d, (wide a => x, wide b => y), pair(x, y, |x, y| x + y))
            }
            Float2::Subtract => {
                map!(registers, mask, wide d, (wide a => x, wide b => y), pair(x, y, |x, y| x - y))
            }
            _ => map!(registers, mask, wide d, (wide a => x, wide b => y), pair(x, y, |x, y| x * y)),
        },
        Code::PairFusedMultiplyAdd => {
            map!(registers, mask, wide d, (wide a => x, wide b => y, wide c => z), {
                let low = half(x, 0).mul_add(half(y, 0), half(z, 0));
                let high = half(x, 32).mul_add(half(y, 32), half(z, 32));
                u64::from(high.to_bits()) << 32 | u64::from(low.to_bits())
            })
        }
        Code::Double(how) => map!(registers, mask, wide d, (wide a => x, wide b => y), {
            let (x, y) = (f64::from_bits(x), f64::from_bits(y));
            let value = match how {
                Float2::Add => x + y,
                Float2::Subtract => x - y,
                Float2::Multiply => x * y,
                Float2::Divide => x / y,
                Float2::Min | Float2::MinNan => x.min(y),
                Float2::Max | Float2::MaxNan => x.max(y),
            };
            value.to_bits()
        }),
        Code::DoubleFusedMultiplyAdd => {
            map!(registers, mask, wide d, (wide a => x, wide b => y, wide c => z),
            f64::from_bits(x).mul_add(f64::from_bits(y), f64::from_bits(z)).to_bits())
        }
        Code::Convert {
            from,
            to,
            round,
            to_integer,
        } => {
            convert::convert(step, (from, to), round, to_integer, registers, mask);
        }
        Code::ToTf32 => map!(registers, mask, narrow d, (narrow a => x), convert::to_tf32(x)),
        Code::PackBf16 => map!(registers, mask, narrow d, (narrow a => x, narrow b => y),
            u32::from(convert::to_bf16(f32::from_bits(x))) << 16 | u32::from(convert::to_bf16(f32::from_bits(y)))),
        Code::Set { how, of, with } => set(how, of, with, step, registers, mask),
        Code::Select32 => map!(registers, mask, narrow d, (narrow a => x, narrow b => y, narrow c => p),
            if p != 0 { x } else { y }),
        Code::Select64 => map!(registers, mask, wide d, (wide a => x, wide b => y, narrow c => p),
            if p != 0 { x } else { y }),
        Code::Pack64 => {
            map!(registers, mask, wide d, (narrow a => x, narrow b => y), u64::from(y) << 32 | u64::from(x))
        }
        Code::Unpack64 => {
            // The high half first: the low one may replace the source's own register, never the other way round.
            let high = step.list[0];
            map!(registers, mask, narrow high, (wide a => x), (x >> 32) as u32);
            map!(registers, mask, narrow d, (wide a => x), x as u32);
        }
        Code::Pack32 => map!(registers, mask, narrow d, (narrow a => x, narrow b => y), y << 16 | x & 0xffff),
        Code::Unpack32 => {
            let high = step.list[0];
            map!(registers, mask, narrow high, (narrow a => x), x >> 16);
            map!(registers, mask, narrow d, (narrow a => x), x & 0xffff);
        }
        _ => return false,
    }
    true
}

#[inline(always)]
fn float2(how: Float2, step: &Step, registers: &mut Registers, mask: &Mask) {
    let (d, a, b) = (step.d, step.a, step.b);
    macro_rules! apply {
        ($f:expr) => {
            map!(registers, mask, narrow d, (narrow a => x, narrow b => y), {
                let f: fn(f32, f32) -> f32 = $f;
                f(f32::from_bits(x), f32::from_bits(y)).to_bits()
            })
        };
    }
    match how {
        Float2::Add => map!(registers, mask, narrow d, (narrow a => x, narrow b => y),
            (f32::from_bits(x) + f32::from_bits(y)).to_bits()),
        Float2::Subtract => map!(registers, mask, narrow d, (narrow a => x, narrow b => y),
            (f32::from_bits(x) - f32::from_bits(y)).to_bits()),
        Float2::Multiply => map!(registers, mask, narrow d, (narrow a => x, narrow b => y),
            (f32::from_bits(x) * f32::from_bits(y)).to_bits()),
        Float2::Divide => apply!(|x, y| x / y),
        Float2::Min => apply!(f32::min),
        Float2::Max => apply!(f32::max),
        Float2::MinNan => apply!(|x, y| if x.is_nan() || y.is_nan() {
            f32::NAN
        } else if x < y || (x == y && x.is_sign_negative()) {
            x
        } else {
            y
        }),
        Float2::MaxNan => apply!(|x, y| if x.is_nan() || y.is_nan() {
            f32::NAN
        } else if x > y || (x == y && x.is_sign_positive()) {
            x
        } else {
            y
        }),
    }
}

fn float1(how: Float1, step: &Step, registers: &mut Registers, mask: &Mask) {
    let (d, a) = (step.d, step.a);
    macro_rules! apply {
        ($f:expr) => {
            map!(registers, mask, narrow d, (narrow a => x), {
                let f: fn(f32) -> f32 = $f;
                f(f32::from_bits(x)).to_bits()
            })
        };
    }
    let exactly = |x: f32, f: fn(f64) -> f64| f(f64::from(x)) as f32;
    match how {
        Float1::Negate => apply!(|x| -x),
        Float1::Absolute => apply!(f32::abs),
        Float1::SquareRoot => apply!(f32::sqrt),
        Float1::Reciprocal => apply!(|x| 1.0 / x),
        _ => {
            let f: fn(f64) -> f64 = match how {
                Float1::ReciprocalRoot => |x| 1.0 / x.sqrt(),
                Float1::Power2 => f64::exp2,
                Float1::Log2 => f64::log2,
                Float1::Sine => f64::sin,
                Float1::Cosine => f64::cos,
                _ => f64::tanh,
            };
            map!(registers, mask, narrow d, (narrow a => x), exactly(f32::from_bits(x), f).to_bits());
        }
    }
}

#[inline(always)]
fn binary(how: Binary, of: Int, step: &Step, registers: &mut Registers, mask: &Mask) {
    let (d, a, b) = (step.d, step.a, step.b);
    // Each type computes in its own width; narrower ones live in the low bits of 32.
    macro_rules! apply {
        ($kind:ident, $whole:ty, $unsigned:ty, $ty:ty, $shift:ident, $wider:ty) => {{
            macro_rules! each {
                ($f:expr) => {
                    map!(registers, mask, $kind d, ($kind a => x, $kind b => y), {
                        let f: fn($ty, $ty) -> $ty = $f;
                        f(x as $ty, y as $ty) as $unsigned as $whole
                    })
                };
            }
            const BITS: u32 = <$ty>::BITS;
            match how {
                Binary::Add => each!(|x, y| x.wrapping_add(y)),
                Binary::Subtract => each!(|x, y| x.wrapping_sub(y)),
                Binary::MultiplyLow => each!(|x, y| x.wrapping_mul(y)),
                Binary::MultiplyHigh => each!(|x, y| ((x as $wider * y as $wider) >> BITS) as $ty),
                // The ISA leaves division by zero open; hardware gives all ones.
                Binary::Divide => each!(|x, y| x.checked_div(y).unwrap_or(!0)),
                Binary::Remainder => each!(|x, y| x.checked_rem(y).unwrap_or(x)),
                Binary::Min => each!(|x, y| x.min(y)),
                Binary::Max => each!(|x, y| x.max(y)),
                Binary::And => each!(|x, y| x & y),
                Binary::Or => each!(|x, y| x | y),
                Binary::Xor => each!(|x, y| x ^ y),
                Binary::ShiftLeft => map!(registers, mask, $kind d, ($kind a => x, narrow b => y), {
                    if y >= BITS { 0 } else { ((x as $ty) << y) as $unsigned as $whole }
                }),
                Binary::ShiftRight => map!(registers, mask, $kind d, ($kind a => x, narrow b => y), {
                    let x = x as $ty;
                    let fill = if x < (0 as $ty) { !0 } else { 0 };
                    (if y >= BITS { fill } else { x >> y }) as $unsigned as $whole
                }),
            }
        }};
    }
    #[allow(
        unused_comparisons,
        clippy::absurd_extreme_comparisons,
        clippy::unnecessary_cast
    )]
    match of {
        Int::U8 | Int::U16 => apply!(narrow, u32, u16, u16, narrow, u32),
        Int::S8 | Int::S16 => apply!(narrow, u32, u16, i16, narrow, i32),
        Int::U32 => apply!(narrow, u32, u32, u32, narrow, u64),
        Int::S32 => apply!(narrow, u32, u32, i32, narrow, i64),
        Int::U64 => apply!(wide, u64, u64, u64, narrow, u128),
        Int::S64 => apply!(wide, u64, u64, i64, narrow, i128),
    }
}

fn unary(how: Unary, of: Int, step: &Step, registers: &mut Registers, mask: &Mask) {
    let (d, a) = (step.d, step.a);
    let (wide, low) = (of.bytes() == 8, if of.bytes() == 2 { 0xffff } else { u32::MAX });
    match (how, wide) {
        (Unary::NotPredicate, _) => map!(registers, mask, narrow d, (narrow a => x), u32::from(x == 0)),
        (Unary::Not, true) => map!(registers, mask, wide d, (wide a => x), !x),
        (Unary::Not, false) => map!(registers, mask, narrow d, (narrow a => x), !x & low),
        (Unary::Negate, true) => map!(registers, mask, wide d, (wide a => x), x.wrapping_neg()),
        (Unary::Negate, false) => map!(registers, mask, narrow d, (narrow a => x), x.wrapping_neg() & low),
        (Unary::Absolute, true) => {
            map!(registers, mask, wide d, (wide a => x), (x as i64).wrapping_abs() as u64)
        }
        (Unary::Absolute, false) if low == 0xffff => map!(registers, mask, narrow d, (narrow a => x),
            u32::from((x as i16).wrapping_abs() as u16)),
        (Unary::Absolute, false) => {
            map!(registers, mask, narrow d, (narrow a => x), (x as i32).wrapping_abs() as u32)
        }
        (Unary::CountOnes, true) => map!(registers, mask, narrow d, (wide a => x), x.count_ones()),
        (Unary::CountOnes, false) => map!(registers, mask, narrow d, (narrow a => x), x.count_ones()),
        (Unary::CountLeadingZeros, true) => map!(registers, mask, narrow d, (wide a => x), x.leading_zeros()),
        (Unary::CountLeadingZeros, false) => {
            map!(registers, mask, narrow d, (narrow a => x), x.leading_zeros())
        }
        (Unary::Reverse, true) => map!(registers, mask, wide d, (wide a => x), x.reverse_bits()),
        (Unary::Reverse, false) => map!(registers, mask, narrow d, (narrow a => x), x.reverse_bits()),
    }
}

#[inline(always)]
fn set(
    how: Compare,
    of: Compared,
    with: Option<Binary>,
    step: &Step,
    registers: &mut Registers,
    mask: &Mask,
) {
    let (d, a, b, c) = (step.d, step.a, step.b, step.c);
    macro_rules! each {
        ($kind:ident, $convert:expr, $f:expr) => {
            match with {
                None => map!(registers, mask, narrow d, ($kind a => x, $kind b => y), {
                    u32::from($f($convert(x), $convert(y)))
                }),
                Some(with) => map!(registers, mask, narrow d, ($kind a => x, $kind b => y, narrow c => p), {
                    let holds = u32::from($f($convert(x), $convert(y)));
                    match with {
                        Binary::And => holds & p,
                        Binary::Or => holds | p,
                        _ => holds ^ p,
                    }
                }),
            }
        };
    }
    macro_rules! compare {
        ($kind:ident, $convert:expr) => {
            match how {
                Compare::Equal => each!($kind, $convert, |x, y| x == y),
                Compare::NotEqual => each!($kind, $convert, |x, y| x != y),
                Compare::Less => each!($kind, $convert, |x, y| x < y),
                Compare::LessEqual => each!($kind, $convert, |x, y| x <= y),
                Compare::Greater => each!($kind, $convert, |x, y| x > y),
                Compare::GreaterEqual => each!($kind, $convert, |x, y| x >= y),
            }
        };
    }
    match of {
        Compared::Int(Int::U8 | Int::U16) => compare!(narrow, |x: u32| x as u16),
        Compared::Int(Int::S8 | Int::S16) => compare!(narrow, |x: u32| x as i16),
        Compared::Int(Int::U32) => compare!(narrow, |x: u32| x),
        Compared::Int(Int::S32) => compare!(narrow, |x: u32| x as i32),
        Compared::Int(Int::U64) => compare!(wide, |x: u64| x),
        Compared::Int(Int::S64) => compare!(wide, |x: u64| x as i64),
        // Ordered: `ne` holds of two numbers only.
        Compared::Float { unordered: false } if how == Compare::NotEqual => {
            each!(narrow, f32::from_bits, |x: f32, y: f32| x != y
                && !x.is_nan()
                && !y.is_nan());
        }
        Compared::Float { unordered: false } => compare!(narrow, f32::from_bits),
        Compared::Float { unordered: true } => {
            let ordered = |x: f32, y: f32| match how {
                Compare::Equal => x == y,
                Compare::NotEqual => x != y,
                Compare::Less => x < y,
                Compare::LessEqual => x <= y,
                Compare::Greater => x > y,
                Compare::GreaterEqual => x >= y,
            };
            each!(narrow, f32::from_bits, |x: f32, y: f32| x.is_nan()
                || y.is_nan()
                || ordered(x, y));
        }
        Compared::Order { numbers } => {
            each!(narrow, f32::from_bits, |x: f32, y: f32| (x.is_nan()
                || y.is_nan())
                != numbers);
        }
    }
}

fn half(x: u64, shift: u32) -> f32 {
    f32::from_bits((x >> shift) as u32)
}

#[inline(always)]
fn pair(x: u64, y: u64, f: impl Fn(f32, f32) -> f32) -> u64 {
    let (low, high) = (f(half(x, 0), half(y, 0)), f(half(x, 32), half(y, 32)));
    u64::from(high.to_bits()) << 32 | u64::from(low.to_bits())
}

fn extract(x: u32, from: u32, length: u32, signed: bool) -> u32 {
    if length == 0 {
        return 0;
    }
    let wide = if signed { i64::from(x as i32) } else { i64::from(x) };
    let shifted = wide >> from.min(63);
    if length >= 32 {
        return shifted as u32;
    }
    let kept = shifted as u32 & ((1 << length) - 1);
    match signed {
        true => ((kept << (32 - length)) as i32 >> (32 - length)) as u32,
        false => kept,
    }
}

fn extract_wide(x: u64, from: u32, length: u32, signed: bool) -> u64 {
    if length == 0 {
        return 0;
    }
    let shifted = match signed {
        true => (x as i64 >> from.min(63)) as u64,
        false => x.checked_shr(from).unwrap_or(0),
    };
    if length >= 64 {
        return shifted;
    }
    match signed {
        true => ((shifted << (64 - length)) as i64 >> (64 - length)) as u64,
        false => shifted & ((1 << length) - 1),
    }
}

fn permute(x: u32, y: u32, selector: u32) -> u32 {
    let bytes = (u64::from(y) << 32 | u64::from(x)).to_le_bytes();
    let mut out = [0; 4];
    for (i, byte) in out.iter_mut().enumerate() {
        let pick = selector >> (4 * i) & 0xf;
        let chosen = bytes[(pick & 7) as usize];
        *byte = if pick & 8 == 0 {
            chosen
        } else {
            (chosen as i8 >> 7) as u8
        };
    }
    u32::from_le_bytes(out)
}
