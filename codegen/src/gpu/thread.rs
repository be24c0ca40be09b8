//! The frame of a GPU kernel, its shared memory, and the numbers of loops that a thread is given.

use crate::access::Operand;
use crate::emit::argument_name;
use crate::kernel::KernelText;
use crate::mlir::{Body, Memory, Value};

/// Shape of a launch: blocks, threads of a block, bytes of shared memory of a block.
#[derive(Clone, Copy, Debug)]
pub struct Grid {
    /// Blocks.
    pub blocks: u64,
    /// Threads of a block.
    pub threads: u32,
    /// Bytes.
    pub shared_bytes: u32,
    /// What the address of shared memory is a multiple of, in bytes.
    pub shared_align: u32,
    /// Registers of a thread at the most; 0 leaves that to the assembler.
    pub registers: u32,
}

/// Writes a kernel; `write` is given the numbers of the block and of the thread in it, as indices.
pub fn emit_function(
    arguments: &[Operand],
    in_place: bool,
    grid: Grid,
    write: impl FnOnce(&mut Body, Value, Value),
) -> KernelText {
    let mut body = Body::new(Memory::Gpu);
    let mut number = |register: &str, end: u64| {
        let value = body.op(format_args!(
            "nvvm.read.ptx.sreg.{register} range <i32, 0, {end}> : i32"
        ));
        body.op(format_args!("arith.index_castui {value} : i32 to index"))
    };
    let block = number("ctaid.x", grid.blocks);
    let thread = number("tid.x", u64::from(grid.threads));
    write(&mut body, block, thread);
    // No alignment: from it LLVM concludes that it may load what is between and after elements, so as to load vectors.
    let alias = if in_place { "" } else { " {llvm.noalias}" };
    let parameters: Vec<String> = (0..arguments.len())
        .map(|i| format!("{}: !llvm.ptr<1>{alias}", argument_name(i)))
        .collect();
    let shared = match grid.shared_bytes {
        0 => String::new(),
        _ => format!(
            "llvm.mlir.global external @KERNEL_shared() {{addr_space = 3 : i32, alignment = {} : i64}} : \
             !llvm.array<0 x i8>\n",
            grid.shared_align
        ),
    };
    let registers = match grid.registers {
        0 => String::new(),
        count => format!(", nvvm.maxnreg = {count} : i32"),
    };
    let body = body.finish();
    let zeros = match body.contains("@KERNEL_zeros") {
        true => {
            "llvm.mlir.global internal @KERNEL_zeros(dense<0.0> : tensor<4xf32>) {addr_space = 1 : i32, alignment = 16 : i64} : \
             !llvm.array<4 x f32>\n"
        }
        false => "",
    };
    let text = format!(
        "{shared}{zeros}func.func @KERNEL({}) attributes {{nvvm.maxntid = array<i32: {}>{registers}}} {{\n{}  return\n}}\n",
        parameters.join(", "),
        grid.threads,
        body
    );
    KernelText {
        text,
        tasks: grid.blocks,
        threads: grid.threads,
        shared_bytes: grid.shared_bytes,
        scratch: None,
    }
}

/// The number of the block (`ctaid.x`) or of the thread (`tid.x`), as something that was not known before.
pub fn read_again(body: &mut Body, register: &str) -> Value {
    let value = body.op(format_args!(
        "llvm.inline_asm has_side_effects asm_dialect = att \"mov.u32 $0, %{register};\", \"=r\" : () -> i32"
    ));
    body.op(format_args!("arith.index_castui {value} : i32 to index"))
}

/// Waits until all threads of the block are here.
pub fn barrier(body: &mut Body) {
    body.line("nvvm.barrier0");
}

/// The address of four zeros in global memory.
pub fn zeros(body: &mut Body) -> Value {
    body.op("llvm.mlir.addressof @KERNEL_zeros : !llvm.ptr<1>")
}

/// The address of a word of the block's shared memory.
pub fn shared_address(body: &mut Body, word: Value) -> Value {
    let base = body.op("llvm.mlir.addressof @KERNEL_shared : !llvm.ptr<3>");
    let word = body.op(format_args!("arith.index_cast {word} : index to i32"));
    body.op(format_args!(
        "llvm.getelementptr inbounds {base}[{word}] : (!llvm.ptr<3>, i32) -> !llvm.ptr<3>, f32"
    ))
}

/// Loads `lanes` words of shared memory: an f32, or a vector aligned to its size.
pub fn load_shared(body: &mut Body, word: Value, lanes: usize) -> Value {
    let address = shared_address(body, word);
    let (bytes, ty) = (4 * lanes, lanes_type(lanes));
    body.op(format_args!(
        "llvm.load {address} {{alignment = {bytes} : i64}} : !llvm.ptr<3> -> {ty}"
    ))
}

/// Stores `lanes` words to shared memory.
pub fn store_shared(body: &mut Body, word: Value, value: Value, lanes: usize) {
    let address = shared_address(body, word);
    let (bytes, ty) = (4 * lanes, lanes_type(lanes));
    body.line(format_args!(
        "llvm.store {value}, {address} {{alignment = {bytes} : i64}} : {ty}, !llvm.ptr<3>"
    ));
}

/// The type of f32 lanes.
pub fn lanes_type(lanes: usize) -> String {
    match lanes {
        1 => "f32".to_string(),
        _ => format!("vector<{lanes}xf32>"),
    }
}

/// Whether an index is below a bound.
pub fn below(body: &mut Body, value: Value, bound: usize) -> Value {
    let bound = body.index(bound as i64);
    body.op(format_args!("arith.cmpi ult, {value}, {bound} : index"))
}

/// `and` of two conditions.
pub fn both(body: &mut Body, a: Value, b: Value) -> Value {
    body.op(format_args!("arith.andi {a}, {b} : i1"))
}
