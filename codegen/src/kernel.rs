//! The frame of a kernel: its arguments, its tasks, and the nest resolved against memory.

use crate::access::{Access, Operand};
use crate::emit::{argument_name, element_name};
use crate::mlir::{Body, Value};
use ir::nest::{Affine, Combine, Expr, Loop, Nest};

/// A kernel as MLIR text.
#[derive(Clone, Debug, PartialEq)]
pub struct KernelText {
    /// `func.func @NAME ...`, with the name left as `@KERNEL` so that equal kernels have equal text.
    pub text: String,
    /// The number of independent tasks.
    pub tasks: u64,
    /// On a GPU, threads of a block, which is a task.
    pub threads: u32,
    /// On a GPU, bytes of shared memory of a block.
    pub shared_bytes: u32,
    /// One more argument after operands and results: memory for partial sums, of no meaning between launches.
    pub scratch: Option<Operand>,
}

/// A nest with its reads and outputs resolved to offsets in buffers, and loops merged where memory allows.
#[derive(Clone, Debug)]
pub struct FlatNest {
    /// Extents of all loops, parallel first.
    pub extents: Vec<usize>,
    /// How many of them are parallel.
    pub parallel: usize,
    /// Reads, as the nest numbers them.
    pub reads: Vec<Access>,
    /// How the body is combined.
    pub combine: Combine,
    /// See [`Nest::body`].
    pub body: Expr,
    /// Where outputs go, with their values.
    pub outputs: Vec<(Access, Expr)>,
}

impl FlatNest {
    /// Resolves a nest whose operands and results have these layouts.
    pub fn new(nest: &Nest, operands: &[Operand], results: &[Operand]) -> FlatNest {
        let use_padding = nest.combine != Combine::Max && !asks_inside(nest);
        let reads = nest
            .reads
            .iter()
            .map(|read| Access::of_read(nest, read, operands, use_padding))
            .collect();
        let outputs = nest.outputs.iter().zip(results).enumerate();
        FlatNest {
            extents: nest.extents(),
            parallel: nest.parallel.len(),
            reads,
            combine: nest.combine,
            body: nest.body.clone(),
            outputs: outputs
                .map(|(i, (output, result))| {
                    (
                        Access::of_output(nest, output, operands.len() + i, result),
                        output.value.clone(),
                    )
                })
                .collect(),
        }
    }

    /// Merges parallel loops that walk memory as one: `outer` steps by `extent(inner)` steps of `inner` in every
    /// read, output and index. The outer loop's extent becomes 1.
    pub fn collapse(&mut self) {
        let mut changed = true;
        while changed {
            changed = false;
            for outer in 0..self.parallel {
                for inner in 0..self.parallel {
                    if outer != inner
                        && self.extents[outer] > 1
                        && self.extents[inner] > 1
                        && self.merges(outer, inner)
                    {
                        self.extents[inner] *= self.extents[outer];
                        self.extents[outer] = 1;
                        self.each_affine(&mut |map| map.terms.retain(|t| t.0 != Loop(outer)));
                        changed = true;
                    }
                }
            }
        }
    }

    fn merges(&mut self, outer: usize, inner: usize) -> bool {
        let factor = self.extents[inner] as i64;
        let mut fits = true;
        self.each_affine(&mut |map| {
            fits &= map.coefficient(Loop(outer)) == map.coefficient(Loop(inner)) * factor;
        });
        fits
    }

    /// Calls `visit` with every affine map.
    fn each_affine(&mut self, visit: &mut impl FnMut(&mut Affine)) {
        for access in self
            .reads
            .iter_mut()
            .chain(self.outputs.iter_mut().map(|o| &mut o.0))
        {
            visit(&mut access.offset);
            access.divided.iter_mut().for_each(|d| visit(&mut d.0));
            for check in &mut access.checks {
                match check {
                    crate::access::FlatPredicate::Range(map, ..)
                    | crate::access::FlatPredicate::Divides(map, _) => visit(map),
                }
            }
        }
        for expr in std::iter::once(&mut self.body).chain(self.outputs.iter_mut().map(|o| &mut o.1)) {
            *expr = expr.map_affine(&mut |map| {
                let mut map = map.clone();
                visit(&mut map);
                map
            });
        }
    }

    /// Whether each read is one that expressions refer to.
    pub fn used_reads(&self) -> Vec<bool> {
        let mut used = vec![false; self.reads.len()];
        let mut visit = |e: &Expr| match e {
            Expr::Read(read) | Expr::InBounds(read) => used[*read] = true,
            Expr::Uniform { seed, step, .. } => (used[*seed], used[*step]) = (true, true),
            _ => {}
        };
        self.body.walk(&mut visit);
        self.outputs.iter().for_each(|(_, value)| value.walk(&mut visit));
        used
    }

    /// Leaves reads that nothing refers to without loops, so that they keep none apart.
    pub fn forget_unused_reads(&mut self) {
        let used = self.used_reads();
        for (read, used) in self.reads.iter_mut().zip(used) {
            if !used {
                read.offset = Affine::constant(0);
                read.divided.clear();
                read.checks.clear();
            }
        }
    }

    /// Splits a reduction loop into an outer one, which keeps the loop's number, and a new inner one of this
    /// extent (a divisor of the loop's), which is returned.
    pub fn split(&mut self, l: Loop, inner: usize) -> Loop {
        let new = Loop(self.extents.len());
        self.extents[l.0] /= inner;
        self.extents.push(inner);
        self.each_affine(&mut |map| {
            let step = map.coefficient(l);
            *map = std::mem::take(map)
                .plus_loop(l, step * (inner as i64 - 1))
                .plus_loop(new, step);
        });
        new
    }

    /// The parallel loops with more than one iteration.
    pub fn parallel_loops(&self) -> Vec<Loop> {
        (0..self.parallel)
            .filter(|&l| self.extents[l] > 1)
            .map(Loop)
            .collect()
    }

    /// The reduction loops.
    pub fn reduction_loops(&self) -> Vec<Loop> {
        (self.parallel..self.extents.len()).map(Loop).collect()
    }

    /// The reads of the body.
    pub fn body_reads(&self) -> Vec<&Access> {
        let mut reads = vec![];
        self.body.walk(&mut |e| {
            if let Expr::Read(read) | Expr::InBounds(read) = e {
                reads.push(&self.reads[*read]);
            }
        });
        reads
    }

    /// The extent of a loop.
    pub fn extent(&self, l: Loop) -> usize {
        self.extents[l.0]
    }
}

fn asks_inside(nest: &Nest) -> bool {
    let mut asks = false;
    for expr in std::iter::once(&nest.body).chain(nest.outputs.iter().map(|o| &o.value)) {
        expr.walk(&mut |e| asks |= matches!(e, Expr::InBounds(_)));
    }
    asks
}

/// Writes the frame around a kernel's task.
pub fn emit_function(arguments: &[Operand], tasks: u64, task: impl FnOnce(&mut Body, Value)) -> KernelText {
    let mut body = Body::default();
    let (begin, end, t) = (body.fresh(), body.fresh(), body.fresh());
    let one = body.index(1);
    body.line(format_args!("scf.for {t} = {begin} to {end} step {one} {{"));
    task(&mut body, t);
    body.line("}");
    let parameters: Vec<String> = arguments
        .iter()
        .enumerate()
        .map(|(i, a)| {
            format!(
                "{}: memref<{}x{}>",
                argument_name(i),
                a.elements(),
                element_name(a.dtype)
            )
        })
        .chain([format!("{begin}: index"), format!("{end}: index")])
        .collect();
    let text = format!(
        "func.func @KERNEL({}) {{\n{}  return\n}}\n",
        parameters.join(", "),
        body.finish()
    );
    KernelText {
        text,
        tasks,
        threads: 0,
        shared_bytes: 0,
        scratch: None,
    }
}

/// Splits a task number into the iterations of loops with these extents, the last one fastest.
pub fn delinearize(body: &mut Body, task: Value, extents: &[usize]) -> Vec<Value> {
    let mut rest = task;
    let mut iterations = vec![];
    for (i, &extent) in extents.iter().enumerate().rev() {
        if i == 0 {
            iterations.push(rest);
        } else {
            iterations.push(body.index_op("remui", rest, extent as i64));
            rest = body.index_op("divui", rest, extent as i64);
        }
    }
    iterations.reverse();
    iterations
}
