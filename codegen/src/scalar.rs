//! Scalar expressions of nests, written for a vector of points at once.

use crate::mlir::{Body, Value};

/// How many points are computed at once, and which of them exist.
#[derive(Clone, Copy, Debug)]
pub struct Lanes {
    /// 1, or the lanes of a vector register.
    pub width: usize,
    /// For the last, partial vector: an i1 a lane.
    pub mask: Option<Value>,
}

impl Lanes {
    /// One point at a time.
    pub fn scalar() -> Lanes {
        Lanes { width: 1, mask: None }
    }

    /// The MLIR type of these lanes of an element type.
    pub fn of(&self, element: &str) -> String {
        if self.width == 1 {
            element.to_string()
        } else {
            format!("vector<{}x{element}>", self.width)
        }
    }
}

/// Writes arithmetic on f32 lanes.
pub struct Math<'b> {
    /// Where it is written.
    pub body: &'b mut Body,
    /// The lanes it works on.
    pub lanes: Lanes,
}

impl Math<'_> {
    fn f32(&self) -> String {
        self.lanes.of("f32")
    }

    fn i32(&self) -> String {
        self.lanes.of("i32")
    }

    /// The same constant in every lane, printed so that it reads back exactly.
    pub fn constant(&mut self, value: f64) -> Value {
        let literal = float_literal(value as f32);
        let (ty, width) = (self.f32(), self.lanes.width);
        match width {
            1 => self.body.op(format_args!("arith.constant {literal} : {ty}")),
            _ => self
                .body
                .op(format_args!("arith.constant dense<{literal}> : {ty}")),
        }
    }

    /// The same f64 in every lane.
    pub fn constant_f64(&mut self, value: f64) -> Value {
        let ty = self.lanes.of("f64");
        match self.lanes.width {
            1 => self.body.op(format_args!("arith.constant {value:?} : {ty}")),
            _ => self
                .body
                .op(format_args!("arith.constant dense<{value:?}> : {ty}")),
        }
    }

    /// A binary operation on f64 lanes, as `addf`.
    pub fn f64(&mut self, name: &str, a: Value, b: Value) -> Value {
        let ty = self.lanes.of("f64");
        self.body.op(format_args!("arith.{name} {a}, {b} : {ty}"))
    }

    /// f32 lanes as f64.
    pub fn widen(&mut self, value: Value) -> Value {
        self.convert("extf", value, "f32", "f64")
    }

    /// f64 lanes rounded to f32.
    pub fn narrow(&mut self, value: Value) -> Value {
        self.convert("truncf", value, "f64", "f32")
    }

    /// The same 32-bit integer in every lane.
    pub fn integer(&mut self, value: i32) -> Value {
        let ty = self.i32();
        match self.lanes.width {
            1 => self.body.op(format_args!("arith.constant {value} : {ty}")),
            _ => self.body.op(format_args!("arith.constant dense<{value}> : {ty}")),
        }
    }

    /// A scalar in every lane.
    pub fn splat(&mut self, scalar: Value, element: &str) -> Value {
        match self.lanes.width {
            1 => scalar,
            _ => self.body.op(format_args!(
                "vector.broadcast {scalar} : {element} to {}",
                self.lanes.of(element)
            )),
        }
    }

    /// A binary operation on f32 lanes, as `addf`.
    pub fn f(&mut self, name: &str, a: Value, b: Value) -> Value {
        let ty = self.f32();
        self.body.op(format_args!("arith.{name} {a}, {b} : {ty}"))
    }

    /// A binary operation on i32 lanes, as `xori`.
    pub fn i(&mut self, name: &str, a: Value, b: Value) -> Value {
        let ty = self.i32();
        self.body.op(format_args!("arith.{name} {a}, {b} : {ty}"))
    }

    /// `a·b + c`, rounded once.
    pub fn fma(&mut self, a: Value, b: Value, c: Value) -> Value {
        let ty = self.f32();
        self.body.op(format_args!("math.fma {a}, {b}, {c} : {ty}"))
    }

    /// A comparison of f32 lanes by MLIR's predicate, as `ogt`.
    pub fn compare(&mut self, predicate: &str, a: Value, b: Value) -> Value {
        let ty = self.f32();
        self.body
            .op(format_args!("arith.cmpf {predicate}, {a}, {b} : {ty}"))
    }

    /// Lane-wise choice between f32 lanes.
    pub fn select(&mut self, condition: Value, then: Value, otherwise: Value) -> Value {
        let (mask, ty) = (self.lanes.of("i1"), self.f32());
        self.body.op(format_args!(
            "arith.select {condition}, {then}, {otherwise} : {mask}, {ty}"
        ))
    }

    /// `and` of two conditions.
    pub fn both(&mut self, a: Value, b: Value) -> Value {
        let ty = self.lanes.of("i1");
        self.body.op(format_args!("arith.andi {a}, {b} : {ty}"))
    }

    /// `or` of two conditions.
    pub fn either(&mut self, a: Value, b: Value) -> Value {
        let ty = self.lanes.of("i1");
        self.body.op(format_args!("arith.ori {a}, {b} : {ty}"))
    }

    fn convert(&mut self, name: &str, value: Value, from: &str, to: &str) -> Value {
        let (from, to) = (self.lanes.of(from), self.lanes.of(to));
        self.body
            .op(format_args!("arith.{name} {value} : {from} to {to}"))
    }

    /// `1.0` where the condition holds, else `0.0`.
    pub fn truth(&mut self, condition: Value) -> Value {
        self.convert("uitofp", condition, "i1", "f32")
    }

    /// Signed integers of `bits` bits as f32.
    pub fn from_integer(&mut self, value: Value, bits: usize) -> Value {
        self.convert("sitofp", value, &format!("i{bits}"), "f32")
    }

    fn unary(&mut self, name: &str, value: Value) -> Value {
        let ty = self.f32();
        self.body.op(format_args!("{name} {value} : {ty}"))
    }

    /// `−a`.
    pub fn negate(&mut self, a: Value) -> Value {
        self.unary("arith.negf", a)
    }

    /// `√a`.
    pub fn sqrt(&mut self, a: Value) -> Value {
        self.unary("math.sqrt", a)
    }

    /// `1 / a`.
    pub fn reciprocal(&mut self, a: Value) -> Value {
        let one = self.constant(1.0);
        self.f("divf", one, a)
    }

    /// A polynomial, highest power first, by Horner's rule.
    fn polynomial(&mut self, x: Value, coefficients: &[f64]) -> Value {
        let mut sum = self.constant(coefficients[0]);
        for &c in &coefficients[1..] {
            let c = self.constant(c);
            sum = self.fma(sum, x, c);
        }
        sum
    }

    /// `eˣ` within 2 units in the last place. `x = n·ln 2 + r` with ln 2 in two parts (Cody and Waite), then the
    /// Taylor polynomial of degree 7 on |r| ≤ ln 2 / 2 (error below 2⁻²⁷) and 2ⁿ by the exponent field, in two
    /// factors so that results near overflow and subnormal results are right. NaN stays NaN.
    pub fn exp(&mut self, x: Value) -> Value {
        let (low, high) = (self.constant(-104.0), self.constant(89.0));
        let clamped = self.f("maximumf", x, low);
        let clamped = self.f("minimumf", clamped, high);
        let (log2e, zero) = (self.constant(std::f64::consts::LOG2_E), self.constant(0.0));
        let scaled = self.fma(clamped, log2e, zero);
        let n = self.unary("math.roundeven", scaled);
        let (ln2_high, ln2_low) = (self.constant(-0.693_359_375), self.constant(2.121_944_4e-4));
        let r = self.fma(n, ln2_high, clamped);
        let r = self.fma(n, ln2_low, r);
        let taylor = [
            1.0 / 5040.0,
            1.0 / 720.0,
            1.0 / 120.0,
            1.0 / 24.0,
            1.0 / 6.0,
            0.5,
            1.0,
            1.0,
        ];
        let value = self.polynomial(r, &taylor);
        let n = self.convert("fptosi", n, "f32", "i32");
        let (one, bias, shift) = (self.integer(1), self.integer(127), self.integer(23));
        let half = self.i("shrsi", n, one);
        let rest = self.i("subi", n, half);
        let mut result = value;
        for part in [half, rest] {
            let exponent = self.i("addi", part, bias);
            let bits = self.i("shli", exponent, shift);
            let power = self.convert("bitcast", bits, "i32", "f32");
            result = self.f("mulf", result, power);
        }
        result
    }

    /// `ln x` for positive normal x, within 2 units in the last place; −∞ at 0, NaN below. `x = 2ᵉ·m` with m in
    /// [√½, √2), then the odd series of `2·artanh((m − 1)/(m + 1))`.
    pub fn log(&mut self, x: Value) -> Value {
        let bits = self.convert("bitcast", x, "f32", "i32");
        // Subtracting the bits of √½ moves the exponent's boundary there.
        let root_half = self.integer(std::f32::consts::FRAC_1_SQRT_2.to_bits() as i32);
        let shift = self.integer(23);
        let shifted = self.i("subi", bits, root_half);
        let e = self.i("shrsi", shifted, shift);
        let exponent = self.i("shli", e, shift);
        let mantissa = self.i("subi", bits, exponent);
        let m = self.convert("bitcast", mantissa, "i32", "f32");
        let e = self.from_integer(e, 32);
        let one = self.constant(1.0);
        let (below, above) = (self.f("subf", m, one), self.f("addf", m, one));
        let s = self.f("divf", below, above);
        let s2 = self.f("mulf", s, s);
        let series = self.polynomial(s2, &[2.0 / 11.0, 2.0 / 9.0, 2.0 / 7.0, 2.0 / 5.0, 2.0 / 3.0]);
        let cubed = self.f("mulf", s, s2);
        let tail = self.f("mulf", cubed, series);
        let (ln2_high, ln2_low) = (self.constant(0.693_359_375), self.constant(-2.121_944_4e-4));
        let tail = self.fma(e, ln2_low, tail);
        let two = self.constant(2.0);
        let value = self.fma(s, two, tail);
        let value = self.fma(e, ln2_high, value);
        let (zero, infinity) = (self.constant(0.0), self.constant(f64::INFINITY));
        let (minus_infinity, nan) = (self.constant(f64::NEG_INFINITY), self.constant(f64::NAN));
        let at_zero = self.compare("oeq", x, zero);
        let value = self.select(at_zero, minus_infinity, value);
        let valid = self.compare("oge", x, zero);
        let value = self.select(valid, value, nan);
        let at_infinity = self.compare("oeq", x, infinity);
        self.select(at_infinity, infinity, value)
    }

    /// `tanh x`: from eˣ for |x| ≥ 0.3, else its Taylor polynomial to x¹¹ (relative error below 2⁻²⁴ there).
    pub fn tanh(&mut self, x: Value) -> Value {
        let (two, one) = (self.constant(2.0), self.constant(1.0));
        let twice = self.f("mulf", x, two);
        let power = self.exp(twice);
        let above = self.f("addf", power, one);
        let ratio = self.f("divf", two, above);
        let large = self.f("subf", one, ratio);
        let x2 = self.f("mulf", x, x);
        let series = [
            -1382.0 / 155_925.0,
            62.0 / 2835.0,
            -17.0 / 315.0,
            2.0 / 15.0,
            -1.0 / 3.0,
            1.0,
        ];
        let series = self.polynomial(x2, &series);
        let small = self.f("mulf", x, series);
        let (magnitude, limit) = (self.unary("math.absf", x), self.constant(0.3));
        let is_small = self.compare("olt", magnitude, limit);
        self.select(is_small, small, large)
    }

    /// `x` to the power −¼ for positive normal x, within 2 units in the last place: three steps of Newton's method
    /// (`y + y·(1 − x·y⁴)/4`) from a quarter of the exponent's bits, which is off by at most 3.2 %. Fewer cycles than the
    /// two square roots and the division that make the same.
    fn inverse_quarter(&mut self, x: Value) -> Value {
        let bits = self.convert("bitcast", x, "f32", "i32");
        let (two, offset) = (self.integer(2), self.integer(0x4f58_6000));
        let quarter = self.i("shrui", bits, two);
        let guess = self.i("subi", offset, quarter);
        let mut y = self.convert("bitcast", guess, "i32", "f32");
        let (minus_quarter, quarter) = (self.constant(-0.25), self.constant(0.25));
        let x = self.f("mulf", x, minus_quarter);
        for _ in 0..3 {
            let square = self.f("mulf", y, y);
            let fourth = self.f("mulf", square, square);
            let step = self.fma(x, fourth, quarter);
            y = self.fma(y, step, y);
        }
        y
    }

    /// A value to a power above 0, by the squares of squares.
    fn repeated(&mut self, x: Value, times: u32) -> Value {
        let mut product = None;
        let mut square = x;
        let mut left = times;
        while left > 0 {
            if left % 2 == 1 {
                product = Some(product.map_or(square, |product| self.f("mulf", product, square)));
            }
            left /= 2;
            if left > 0 {
                square = self.f("mulf", square, square);
            }
        }
        product.expect("the power is above 0")
    }

    /// `x` to a constant power, for positive normal x: by roots and products where the power is a multiple of a
    /// quarter (as LRN's 0.75), else as `exp(power·ln x)`.
    pub fn power(&mut self, x: Value, power: f64) -> Value {
        let quarters = power * 4.0;
        if quarters.fract() != 0.0 || quarters.abs() > 16.0 {
            let (log, factor) = (self.log(x), self.constant(power));
            let scaled = self.f("mulf", log, factor);
            return self.exp(scaled);
        }
        let mut left = quarters.abs() as u32;
        if power < 0.0 && left % 2 == 1 {
            let quarter = self.inverse_quarter(x);
            return self.repeated(quarter, left);
        }
        let mut factors = vec![];
        let root = (!left.is_multiple_of(4)).then(|| self.sqrt(x));
        for _ in 0..left / 4 {
            factors.push(x);
        }
        left %= 4;
        if let Some(root) = root {
            if left >= 2 {
                factors.push(root);
            }
            if left % 2 == 1 {
                factors.push(self.sqrt(root));
            }
        }
        let Some((&first, rest)) = factors.split_first() else {
            return self.constant(1.0);
        };
        let product = rest
            .iter()
            .fold(first, |product, &factor| self.f("mulf", product, factor));
        if power < 0.0 {
            self.reciprocal(product)
        } else {
            product
        }
    }

    /// [`ir::nest::mix`] on i32 lanes.
    pub fn mix(&mut self, mut x: Value) -> Value {
        for (shift, factor) in [(16, Some(0x7feb_352du32)), (15, Some(0x846c_a68b)), (16, None)] {
            let shift = self.integer(shift);
            let shifted = self.i("shrui", x, shift);
            x = self.i("xori", x, shifted);
            if let Some(factor) = factor {
                let factor = self.integer(factor as i32);
                x = self.i("muli", x, factor);
            }
        }
        x
    }

    /// The top 24 bits of i32 lanes as a fraction in [0, 1).
    pub fn fraction(&mut self, bits: Value) -> Value {
        let eight = self.integer(8);
        let top = self.i("shrui", bits, eight);
        let value = self.from_integer(top, 32);
        let unit = self.constant(1.0 / f64::from(1u32 << 24));
        self.f("mulf", value, unit)
    }
}

/// A literal that MLIR reads back as exactly this f32: by its bits where decimal digits cannot say it.
pub fn float_literal(value: f32) -> String {
    if value.is_finite() {
        format!("{value:e}").replacen(
            'e',
            if format!("{value:e}").contains('.') {
                "e"
            } else {
                ".0e"
            },
            1,
        )
    } else {
        format!("0x{:08X}", value.to_bits())
    }
}
