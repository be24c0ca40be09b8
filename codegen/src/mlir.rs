//! A writer of MLIR text: structured control flow, index arithmetic and vectors.
//!
//! Kernels are written as text because text is what `--emit mlir` shows, what a reader can try by hand, and
//! what does not change when the binding does.

use std::collections::HashMap;
use std::fmt::{self, Display, Write};

/// An SSA value of the function being written: `%v7`, or member 2 of a pack, `%v7#2`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Value {
    number: u32,
    member: Option<u32>,
}

impl Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "%v{}", self.number)?;
        self.member.map_or(Ok(()), |member| write!(f, "#{member}"))
    }
}

/// How the arguments of a kernel are reached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Memory {
    /// As memrefs of the host.
    #[default]
    Host,
    /// As pointers to the global memory of a GPU. Vectors are loaded and stored whole, so they must be aligned.
    Gpu,
}

/// The body of a function, written line by line.
#[derive(Debug, Default)]
pub struct Body {
    /// Where its arguments lie.
    pub memory: Memory,
    entry: String,
    /// The constants of the entry, by their operation: text that is written once is read and folded once.
    constants: HashMap<String, Value>,
    text: String,
    depth: usize,
    values: u32,
}

impl Body {
    /// An empty body whose arguments are reached like this.
    pub fn new(memory: Memory) -> Body {
        Body {
            memory,
            ..Body::default()
        }
    }

    /// A new value, to be defined by the caller.
    pub fn fresh(&mut self) -> Value {
        self.values += 1;
        Value {
            number: self.values - 1,
            member: None,
        }
    }

    /// Writes one line.
    pub fn line(&mut self, line: impl Display) {
        let indent = 2 + 2 * self.depth;
        writeln!(self.text, "{:indent$}{line}", "").expect("writing to a string succeeds");
    }

    /// Writes `%v = operation` and returns the value. A constant is written once, at the function's entry.
    pub fn op(&mut self, operation: impl Display) -> Value {
        let operation = operation.to_string();
        if operation.starts_with("arith.constant ") {
            return self.constant(operation);
        }
        let value = self.fresh();
        self.line(format_args!("{value} = {operation}"));
        value
    }

    fn constant(&mut self, operation: String) -> Value {
        if let Some(&known) = self.constants.get(&operation) {
            return known;
        }
        let value = self.at_entry(&operation);
        self.constants.insert(operation, value);
        value
    }

    /// Writes `%v = operation` at the function's entry: stack buffers must not be allocated in a loop.
    pub fn at_entry(&mut self, operation: impl Display) -> Value {
        let value = self.fresh();
        writeln!(self.entry, "  {value} = {operation}").expect("writing to a string succeeds");
        value
    }

    /// The address of an element of an argument in a GPU's global memory.
    pub fn global_address(&mut self, name: &str, element: &str, at: Value) -> Value {
        let at = self.op(format_args!("arith.index_cast {at} : index to i64"));
        self.op(format_args!(
            "llvm.getelementptr {name}[{at}] : (!llvm.ptr<1>, i64) -> !llvm.ptr<1>, {element}"
        ))
    }

    /// The text written so far.
    pub fn finish(self) -> String {
        self.entry + &self.text
    }

    /// An index constant.
    pub fn index(&mut self, n: i64) -> Value {
        self.op(format_args!("arith.constant {n} : index"))
    }

    /// `constant + Σ coefficient·value`, over indices.
    pub fn sum(&mut self, constant: i64, terms: &[(Value, i64)]) -> Value {
        let mut total: Option<Value> = None;
        for &(value, coefficient) in terms.iter().filter(|t| t.1 != 0) {
            let term = if coefficient == 1 {
                value
            } else {
                let factor = self.index(coefficient);
                self.op(format_args!("arith.muli {value}, {factor} : index"))
            };
            total = Some(match total {
                Some(sum) => self.op(format_args!("arith.addi {sum}, {term} : index")),
                None => term,
            });
        }
        match total {
            None => self.index(constant),
            Some(sum) if constant == 0 => sum,
            Some(sum) => {
                let constant = self.index(constant);
                self.op(format_args!("arith.addi {sum}, {constant} : index"))
            }
        }
    }

    /// A binary operation on indices, as `divui`.
    pub fn index_op(&mut self, name: &str, a: Value, b: i64) -> Value {
        let b = self.index(b);
        self.op(format_args!("arith.{name} {a}, {b} : index"))
    }

    /// `for i in low..high step step`, without carried values.
    pub fn for_each(&mut self, low: Value, high: Value, step: i64, body: impl FnOnce(&mut Body, Value)) {
        self.for_carry(low, high, step, &[], &[], |b, i, _| {
            body(b, i);
            vec![]
        });
    }

    /// `for i in 0..extent`; a loop of one iteration becomes its body.
    pub fn for_extent(&mut self, extent: usize, body: impl FnOnce(&mut Body, Value)) {
        let zero = self.index(0);
        if extent == 1 {
            return body(self, zero);
        }
        let end = self.index(extent as i64);
        self.for_each(zero, end, 1, body);
    }

    /// A loop that carries values, whose types are given; returns their last values.
    pub fn for_carry(
        &mut self,
        low: Value,
        high: Value,
        step: i64,
        initial: &[Value],
        types: &[String],
        body: impl FnOnce(&mut Body, Value, &[Value]) -> Vec<Value>,
    ) -> Vec<Value> {
        let step = self.index(step);
        let i = self.fresh();
        let carried: Vec<Value> = initial.iter().map(|_| self.fresh()).collect();
        let header = format!("scf.for {i} = {low} to {high} step {step}");
        if initial.is_empty() {
            self.line(format_args!("{header} {{"));
        } else {
            let pairs: Vec<String> = carried
                .iter()
                .zip(initial)
                .map(|(c, v)| format!("{c} = {v}"))
                .collect();
            let result = self.fresh();
            let arrow = types.join(", ");
            self.line(format_args!(
                "{result}:{} = {header} iter_args({}) -> ({arrow}) {{",
                types.len(),
                pairs.join(", ")
            ));
            return self.close_region(result, types, |b| body(b, i, &carried), "}");
        }
        self.depth += 1;
        body(self, i, &carried);
        self.depth -= 1;
        self.line("}");
        vec![]
    }

    /// `if condition { body }`.
    pub fn if_true(&mut self, condition: Value, body: impl FnOnce(&mut Body)) {
        self.line(format_args!("scf.if {condition} {{"));
        self.depth += 1;
        body(self);
        self.depth -= 1;
        self.line("}");
    }

    /// `if condition { then } else { otherwise }` with values of the given types.
    pub fn if_else(
        &mut self,
        condition: Value,
        types: &[String],
        then: impl FnOnce(&mut Body) -> Vec<Value>,
        otherwise: impl FnOnce(&mut Body) -> Vec<Value>,
    ) -> Vec<Value> {
        let result = self.fresh();
        self.line(format_args!(
            "{result}:{} = scf.if {condition} -> ({}) {{",
            types.len(),
            types.join(", ")
        ));
        self.close_region(result, types, then, "} else {");
        self.close_region(result, types, otherwise, "}")
    }

    fn close_region(
        &mut self,
        result: Value,
        types: &[String],
        body: impl FnOnce(&mut Body) -> Vec<Value>,
        end: &str,
    ) -> Vec<Value> {
        self.depth += 1;
        let values = body(self);
        let list: Vec<String> = values.iter().map(Value::to_string).collect();
        self.line(format_args!(
            "scf.yield {} : {}",
            list.join(", "),
            types.join(", ")
        ));
        self.depth -= 1;
        self.line(end);
        (0..types.len() as u32)
            .map(|i| Value {
                member: Some(i),
                ..result
            })
            .collect()
    }
}
