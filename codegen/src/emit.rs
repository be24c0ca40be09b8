//! Reads, expressions and stores of a nest at a point, or at a vector of points along one loop.

use crate::access::{Access, FlatPredicate};
use crate::mlir::{Body, Memory, Value};
use crate::scalar::{Lanes, Math};
use ir::nest::{Affine, Binary, Expr, Loop, Unary};
use ir::types::DType;
use std::collections::BTreeMap;

/// A point of a nest's loops.
#[derive(Clone, Debug)]
pub struct Point {
    /// The value of each loop; of the vector loop, its value in the first lane.
    pub loops: Vec<Value>,
    /// The loop that runs along the lanes.
    pub vector: Option<Loop>,
}

/// The name of an argument in the kernel's text.
pub fn argument_name(argument: usize) -> String {
    format!("%a{argument}")
}

/// The type of an argument: its buffer as a flat memref.
pub fn argument_type(access: &Access) -> String {
    format!("memref<{}x{}>", access.elements, element_name(access.dtype))
}

/// MLIR's name of an element type.
pub fn element_name(dtype: DType) -> &'static str {
    match dtype {
        DType::F32 => "f32",
        DType::I64 => "i64",
        DType::U8 => "i8",
    }
}

/// Loads one element of an argument.
pub fn load_scalar(body: &mut Body, access: &Access, at: Value) -> Value {
    let (name, element) = (argument_name(access.argument), element_name(access.dtype));
    match body.memory {
        Memory::Host => body.op(format_args!(
            "memref.load {name}[{at}] : {}",
            argument_type(access)
        )),
        Memory::Gpu => {
            let address = body.global_address(&name, element, at);
            body.op(format_args!("llvm.load {address} : !llvm.ptr<1> -> {element}"))
        }
    }
}

/// Stores one element of an argument.
pub fn store_scalar(body: &mut Body, access: &Access, at: Value, value: Value) {
    let (name, element) = (argument_name(access.argument), element_name(access.dtype));
    match body.memory {
        Memory::Host => body.line(format_args!(
            "memref.store {value}, {name}[{at}] : {}",
            argument_type(access)
        )),
        Memory::Gpu => {
            let address = body.global_address(&name, element, at);
            body.line(format_args!(
                "llvm.store {value}, {address} : {element}, !llvm.ptr<1>"
            ));
        }
    }
}

impl Point {
    /// The value of an affine map, in the first lane.
    pub fn affine(&self, body: &mut Body, map: &Affine) -> Value {
        let terms: Vec<(Value, i64)> = map.terms.iter().map(|&(l, c)| (self.loops[l.0], c)).collect();
        body.sum(map.constant, &terms)
    }

    fn along(&self, map: &Affine) -> i64 {
        self.vector.map_or(0, |v| map.coefficient(v))
    }

    /// The value of an affine map in every lane, as i32.
    fn affine_lanes(&self, math: &mut Math, map: &Affine) -> Value {
        let first = self.affine(math.body, map);
        let first = math
            .body
            .op(format_args!("arith.index_cast {first} : index to i32"));
        let splat = math.splat(first, "i32");
        let step = self.along(map);
        if math.lanes.width == 1 || step == 0 {
            return splat;
        }
        let steps = lane_steps(math, step);
        math.i("addi", splat, steps)
    }

    fn check_scalar(&self, body: &mut Body, check: &FlatPredicate) -> Value {
        let value = self.affine(body, check.map());
        match check {
            FlatPredicate::Range(_, low, high) => {
                // `low <= value < high` as one unsigned comparison.
                let shifted = body.sum(-low, &[(value, 1)]);
                let size = body.index(high - low);
                body.op(format_args!("arith.cmpi ult, {shifted}, {size} : index"))
            }
            FlatPredicate::Divides(_, divisor) => {
                let rest = body.index_op("remsi", value, *divisor);
                let zero = body.index(0);
                body.op(format_args!("arith.cmpi eq, {rest}, {zero} : index"))
            }
        }
    }

    fn check_lanes(&self, math: &mut Math, check: &FlatPredicate) -> Value {
        let value = self.affine_lanes(math, check.map());
        let ty = math.lanes.of("i32");
        let (predicate, left, right) = match check {
            FlatPredicate::Range(_, low, high) => {
                let low_lanes = math.integer(*low as i32);
                let shifted = math.i("subi", value, low_lanes);
                ("ult", shifted, math.integer((high - low) as i32))
            }
            FlatPredicate::Divides(_, divisor) => {
                let divisor = math.integer(*divisor as i32);
                ("eq", math.i("remsi", value, divisor), math.integer(0))
            }
        };
        math.body
            .op(format_args!("arith.cmpi {predicate}, {left}, {right} : {ty}"))
    }

    /// The conditions of a read: those equal in all lanes as one i1, and the others as one i1 a lane.
    fn conditions(&self, math: &mut Math, access: &Access) -> (Option<Value>, Option<Value>) {
        let (mut same, mut lanes) = (None, None);
        // Vectors of GPUs are aligned.
        let aligned = self.vector.filter(|_| math.body.memory == Memory::Gpu);
        for check in &access.checks {
            let is_uniform = aligned.is_some_and(|v| check.is_uniform(v, math.lanes.width));
            if math.lanes.width == 1 || self.along(check.map()) == 0 || is_uniform {
                let condition = self.check_scalar(math.body, check);
                same = Some(match same {
                    None => condition,
                    Some(other) => math.body.op(format_args!("arith.andi {other}, {condition} : i1")),
                });
            } else {
                let condition = self.check_lanes(math, check);
                lanes = Some(match lanes {
                    None => condition,
                    Some(other) => math.both(other, condition),
                });
            }
        }
        (same, lanes)
    }

    /// On a GPU, whether the lanes of an access are one aligned vector.
    pub fn is_whole(&self, lanes: usize, access: &Access) -> bool {
        self.vector.is_some_and(|v| access.is_aligned(v, lanes))
    }

    /// The point of one lane.
    fn lane(&self, body: &mut Body, lane: usize) -> Point {
        let mut point = Point {
            vector: None,
            ..self.clone()
        };
        if let Some(v) = self.vector {
            point.loops[v.0] = body.sum(lane as i64, &[(self.loops[v.0], 1)]);
        }
        point
    }

    /// The value of a read on a GPU whose lanes are neither one vector nor all the same, lane by lane.
    fn read_lanes(&self, math: &mut Math, access: &Access) -> Value {
        let lanes: Vec<String> = (0..math.lanes.width)
            .map(|lane| {
                let point = self.lane(math.body, lane);
                let mut math = Math {
                    body: math.body,
                    lanes: Lanes::scalar(),
                };
                point.read(&mut math, access).to_string()
            })
            .collect();
        let ty = math.lanes.of("f32");
        math.body
            .op(format_args!("vector.from_elements {} : {ty}", lanes.join(", ")))
    }

    /// The value of a read, as f32 lanes.
    pub fn read(&self, math: &mut Math, access: &Access) -> Value {
        let width = math.lanes.width;
        let same = self.vector.is_none_or(|v| !access.depends_on(v));
        if math.body.memory == Memory::Gpu && width > 1 && !same && !self.is_whole(width, access) {
            return self.read_lanes(math, access);
        }
        let (same, lanes) = self.conditions(math, access);
        let Some(same) = same else {
            return self.load(math, access, lanes);
        };
        let (ty, width) = (math.lanes.of("f32"), math.lanes);
        let result = math.body.if_else(
            same,
            &[ty],
            |body| vec![self.load(&mut Math { body, lanes: width }, access, lanes)],
            |body| vec![Math { body, lanes: width }.constant(access.padding_value)],
        );
        result[0]
    }

    /// 1 where a read is inside, else 0.
    fn inside(&self, math: &mut Math, access: &Access) -> Value {
        let (same, lanes) = self.conditions(math, access);
        let same = same.map(|s| math.splat(s, "i1"));
        match (same, lanes) {
            (None, None) => math.constant(1.0),
            (Some(one), None) | (None, Some(one)) => math.truth(one),
            (Some(a), Some(b)) => {
                let both = math.both(a, b);
                math.truth(both)
            }
        }
    }

    /// Loads a read's element in each lane where `condition` (and the lanes' mask) holds.
    fn load(&self, math: &mut Math, access: &Access, condition: Option<Value>) -> Value {
        let element = element_name(access.dtype);
        let (name, memref) = (argument_name(access.argument), argument_type(access));
        let step = self.vector.map_or(Some(0), |v| access.step(v));
        let mask = match (condition, math.lanes.mask) {
            (Some(a), Some(b)) => Some(math.both(a, b)),
            (a, b) => a.or(b),
        };
        if math.lanes.width == 1 || (step == Some(0) && condition.is_none()) {
            let at = self.offset(math.body, access);
            let scalar = load_scalar(math.body, access, at);
            let scalar = to_f32(
                &mut Math {
                    body: math.body,
                    lanes: Lanes::scalar(),
                },
                scalar,
                access.dtype,
            );
            return math.splat(scalar, "f32");
        }
        let ty = math.lanes.of(element);
        if math.body.memory == Memory::Gpu {
            let at = self.offset(math.body, access);
            let address = math.body.global_address(&name, element, at);
            let bytes = math.lanes.width * access.dtype.bytes();
            let loaded = math.body.op(format_args!(
                "llvm.load {address} {{alignment = {bytes} : i64}} : !llvm.ptr<1> -> {ty}"
            ));
            return to_f32(math, loaded, access.dtype);
        }
        let loaded = match (step, mask) {
            (Some(1), None) => {
                let at = self.offset(math.body, access);
                math.body
                    .op(format_args!("vector.load {name}[{at}] : {memref}, {ty}"))
            }
            (Some(1), Some(mask)) => {
                let at = self.offset(math.body, access);
                let (mask_ty, pass) = (math.lanes.of("i1"), padding_value(math, access));
                math.body.op(format_args!(
                    "vector.maskedload {name}[{at}], {mask}, {pass} : {memref}, {mask_ty}, {ty} into {ty}"
                ))
            }
            _ => {
                let (index, mask_ty) = (math.lanes.of("i32"), math.lanes.of("i1"));
                let lanes = self.offset_lanes(math, access);
                let mask = mask.unwrap_or_else(|| {
                    math.body
                        .op(format_args!("arith.constant dense<true> : {mask_ty}"))
                });
                let (zero, pass) = (math.body.index(0), padding_value(math, access));
                math.body.op(format_args!(
                    "vector.gather {name}[{zero}] [{lanes}], {mask}, {pass} : {memref}, {index}, {mask_ty}, {ty} into {ty}"
                ))
            }
        };
        to_f32(math, loaded, access.dtype)
    }

    /// The element offset in the first lane.
    pub fn offset(&self, body: &mut Body, access: &Access) -> Value {
        let mut terms = vec![(self.affine(body, &access.offset), 1)];
        for (map, divisor, stride) in &access.divided {
            let value = self.affine(body, map);
            terms.push((body.index_op("divsi", value, *divisor), *stride));
        }
        body.sum(0, &terms)
    }

    /// The element offset in every lane, as i32.
    fn offset_lanes(&self, math: &mut Math, access: &Access) -> Value {
        let mut sum = self.affine_lanes(math, &access.offset);
        for (map, divisor, stride) in &access.divided {
            let value = self.affine_lanes(math, map);
            let divisor = math.integer(*divisor as i32);
            let quotient = math.i("divsi", value, divisor);
            let stride = math.integer(*stride as i32);
            let term = math.i("muli", quotient, stride);
            sum = math.i("addi", sum, term);
        }
        sum
    }

    /// Stores f32 lanes as the output's element type, in the lanes where the output's conditions hold.
    pub fn store(&self, math: &mut Math, access: &Access, value: Value) {
        let (same, lanes) = self.conditions(math, access);
        let mask = match (lanes, math.lanes.mask) {
            (Some(a), Some(b)) => Some(math.both(a, b)),
            (a, b) => a.or(b),
        };
        let lanes = Lanes { mask, ..math.lanes };
        let write = |body: &mut Body| self.store_lanes(&mut Math { body, lanes }, access, value);
        match same {
            Some(condition) => math.body.if_true(condition, write),
            None => write(math.body),
        }
    }

    fn store_lanes(&self, math: &mut Math, access: &Access, value: Value) {
        let value = from_f32(math, value, access.dtype);
        let (name, memref) = (argument_name(access.argument), argument_type(access));
        let (element, width) = (element_name(access.dtype), math.lanes.width);
        let ty = math.lanes.of(element);
        if width == 1 {
            let at = self.offset(math.body, access);
            return store_scalar(math.body, access, at, value);
        }
        if math.body.memory == Memory::Gpu {
            return self.store_on_gpu(math, access, value);
        }
        let at = self.offset(math.body, access);
        let mask_ty = math.lanes.of("i1");
        match (self.vector.and_then(|v| access.step(v)), math.lanes.mask) {
            (Some(1), None) => math.body.line(format_args!(
                "vector.store {value}, {name}[{at}] : {memref}, {ty}"
            )),
            (Some(1), Some(mask)) => math.body.line(format_args!(
                "vector.maskedstore {name}[{at}], {mask}, {value} : {memref}, {mask_ty}, {ty}"
            )),
            (step, mask) => {
                let steps = lane_steps(math, step.expect("outputs are stored at affine offsets"));
                let index = math.lanes.of("i32");
                let mask = mask.unwrap_or_else(|| {
                    math.body
                        .op(format_args!("arith.constant dense<true> : {mask_ty}"))
                });
                math.body.line(format_args!(
                    "vector.scatter {name}[{at}] [{steps}], {mask}, {value} : {memref}, {index}, {mask_ty}, {ty}"
                ));
            }
        }
    }

    /// Stores lanes on a GPU: as one vector if they are, else one by one.
    fn store_on_gpu(&self, math: &mut Math, access: &Access, value: Value) {
        let (width, element) = (math.lanes.width, element_name(access.dtype));
        let ty = math.lanes.of(element);
        if self.is_whole(width, access) {
            let at = self.offset(math.body, access);
            let address = math
                .body
                .global_address(&argument_name(access.argument), element, at);
            let bytes = width * access.dtype.bytes();
            return math.body.line(format_args!(
                "llvm.store {value}, {address} {{alignment = {bytes} : i64}} : {ty}, !llvm.ptr<1>"
            ));
        }
        for lane in 0..width {
            let at = self.lane(math.body, lane).offset(math.body, access);
            let one = math.body.op(format_args!(
                "vector.extract {value}[{lane}] : {element} from {ty}"
            ));
            store_scalar(math.body, access, at, one);
        }
    }
}

fn lane_steps(math: &mut Math, step: i64) -> Value {
    let steps: Vec<String> = (0..math.lanes.width as i64)
        .map(|lane| (lane * step).to_string())
        .collect();
    let ty = math.lanes.of("i32");
    math.body.op(format_args!(
        "arith.constant dense<[{}]> : {ty}",
        steps.join(", ")
    ))
}

fn padding_value(math: &mut Math, access: &Access) -> Value {
    let ty = math.lanes.of(element_name(access.dtype));
    match access.dtype {
        DType::F32 => math.constant(access.padding_value),
        DType::I64 | DType::U8 => {
            let literal = access.padding_value as i64;
            math.body
                .op(format_args!("arith.constant dense<{literal}> : {ty}"))
        }
    }
}

fn to_f32(math: &mut Math, value: Value, dtype: DType) -> Value {
    match dtype {
        DType::F32 => value,
        DType::I64 => math.from_integer(value, 64),
        DType::U8 => {
            let (from, to) = (math.lanes.of("i8"), math.lanes.of("i32"));
            let wide = math.body.op(format_args!("arith.extui {value} : {from} to {to}"));
            math.from_integer(wide, 32)
        }
    }
}

fn from_f32(math: &mut Math, value: Value, dtype: DType) -> Value {
    if dtype == DType::F32 {
        return value;
    }
    let (float, wide, narrow) = (
        math.lanes.of("f32"),
        math.lanes.of("i32"),
        math.lanes.of(element_name(dtype)),
    );
    let integer = math
        .body
        .op(format_args!("arith.fptosi {value} : {float} to {wide}"));
    let cast = if dtype == DType::U8 { "trunci" } else { "extsi" };
    math.body
        .op(format_args!("arith.{cast} {integer} : {wide} to {narrow}"))
}

/// What an expression refers to.
pub struct Scope<'a> {
    /// The nest's reads.
    pub reads: &'a [Access],
    /// The combined body, where it is known.
    pub reduced: Option<Value>,
    /// The winner's place, where it is known.
    pub winner: Option<Value>,
    /// Reads already loaded at this point.
    pub loaded: BTreeMap<usize, Value>,
}

impl<'a> Scope<'a> {
    /// A scope that knows reads only.
    pub fn of_reads(reads: &'a [Access]) -> Scope<'a> {
        Scope {
            reads,
            reduced: None,
            winner: None,
            loaded: BTreeMap::new(),
        }
    }

    /// Writes an expression at a point and returns its f32 lanes.
    pub fn value(&mut self, math: &mut Math, point: &Point, expr: &Expr) -> Value {
        match expr {
            Expr::Constant(value) => math.constant(*value),
            Expr::Read(read) => {
                if let Some(&value) = self.loaded.get(read) {
                    return value;
                }
                let value = point.read(math, &self.reads[*read]);
                self.loaded.insert(*read, value);
                value
            }
            Expr::InBounds(read) => point.inside(math, &self.reads[*read]),
            Expr::Index(map) => {
                let lanes = point.affine_lanes(math, map);
                math.from_integer(lanes, 32)
            }
            Expr::Table { values, index } => {
                // Tables are small, and where it matters `transform` has unrolled the loops of their index.
                let place = point.affine_lanes(math, index);
                let ty = math.lanes.of("i32");
                let mut chosen = math.constant(values[0]);
                for (i, &value) in values.iter().enumerate().skip(1) {
                    let (i, value) = (math.integer(i as i32), math.constant(value));
                    let here = math.body.op(format_args!("arith.cmpi eq, {place}, {i} : {ty}"));
                    chosen = math.select(here, value, chosen);
                }
                chosen
            }
            Expr::Reduced => self
                .reduced
                .expect("only outputs of reductions refer to the reduced value"),
            Expr::ArgMax => self.winner.expect("only outputs of maxima refer to the winner"),
            Expr::Unary(op, a) => {
                let a = self.value(math, point, a);
                match op {
                    Unary::Negate => math.negate(a),
                    Unary::Exp => math.exp(a),
                    Unary::Log => math.log(a),
                    Unary::Tanh => math.tanh(a),
                    Unary::Sqrt => math.sqrt(a),
                    Unary::Reciprocal => math.reciprocal(a),
                }
            }
            Expr::Binary(op, a, b) => self.binary(math, point, *op, a, b),
            Expr::Select(condition, then, otherwise) => {
                let condition = self.condition(math, point, condition);
                let (then, otherwise) = (self.value(math, point, then), self.value(math, point, otherwise));
                math.select(condition, then, otherwise)
            }
            Expr::Uniform {
                seed,
                step,
                stream,
                element,
            } => {
                let key = self.key(math, point, *seed, *step, *stream);
                let element = point.affine_lanes(math, element);
                let mixed = math.i("xori", element, key);
                let mixed = math.mix(mixed);
                let sum = math.i("addi", mixed, key);
                let bits = math.mix(sum);
                math.fraction(bits)
            }
        }
    }

    /// The key of [`ir::nest::uniform`], the same in every lane.
    fn key(&mut self, math: &mut Math, point: &Point, seed: usize, step: usize, stream: u32) -> Value {
        let lanes = math.lanes;
        let scalar = Point {
            vector: None,
            ..point.clone()
        };
        let words = |body: &mut Body, read: usize| {
            let access = &self.reads[read];
            let at = scalar.offset(body, access);
            load_scalar(body, access, at)
        };
        let (seed, step) = (words(math.body, seed), words(math.body, step));
        let mut math = Math {
            body: math.body,
            lanes: Lanes::scalar(),
        };
        let shift = math.body.op("arith.constant 32 : i64");
        let high = math.body.op(format_args!("arith.shrui {seed}, {shift} : i64"));
        let word = |math: &mut Math, wide| math.body.op(format_args!("arith.trunci {wide} : i64 to i32"));
        let (low, high, step) = (
            word(&mut math, seed),
            word(&mut math, high),
            word(&mut math, step),
        );
        let high = math.mix(high);
        let left = math.i("xori", low, high);
        let left = math.mix(left);
        let constant = math.integer(ir::nest::mix(stream ^ 0x9e37_79b9) as i32);
        let right = math.i("xori", step, constant);
        let right = math.mix(right);
        let both = math.i("xori", left, right);
        let key = math.mix(both);
        Math {
            body: math.body,
            lanes,
        }
        .splat(key, "i32")
    }

    fn binary(&mut self, math: &mut Math, point: &Point, op: Binary, a: &Expr, b: &Expr) -> Value {
        if let (Binary::Power, Expr::Constant(power)) = (op, b) {
            let a = self.value(math, point, a);
            return math.power(a, *power);
        }
        if matches!(op, Binary::Greater | Binary::Equal) {
            let condition = self.compare(math, point, op, a, b);
            return math.truth(condition);
        }
        let (a, b) = (self.value(math, point, a), self.value(math, point, b));
        match op {
            Binary::Add => math.f("addf", a, b),
            Binary::Subtract => math.f("subf", a, b),
            Binary::Multiply => math.f("mulf", a, b),
            Binary::Divide => math.f("divf", a, b),
            Binary::Max => math.f("maximumf", a, b),
            Binary::Min => math.f("minimumf", a, b),
            Binary::Power => {
                let log = math.log(a);
                let product = math.f("mulf", log, b);
                math.exp(product)
            }
            Binary::Greater | Binary::Equal => unreachable!("comparisons returned above"),
        }
    }

    fn compare(&mut self, math: &mut Math, point: &Point, op: Binary, a: &Expr, b: &Expr) -> Value {
        let (a, b) = (self.value(math, point, a), self.value(math, point, b));
        math.compare(if op == Binary::Greater { "ogt" } else { "oeq" }, a, b)
    }

    /// An expression as a condition: comparisons directly, others by being non-zero.
    fn condition(&mut self, math: &mut Math, point: &Point, expr: &Expr) -> Value {
        if let Expr::Binary(op @ (Binary::Greater | Binary::Equal), a, b) = expr {
            return self.compare(math, point, *op, a, b);
        }
        let (value, zero) = (self.value(math, point, expr), math.constant(0.0));
        math.compare("une", value, zero)
    }
}
