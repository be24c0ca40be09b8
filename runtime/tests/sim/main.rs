//! The emulator of GPUs, on PTX written by hand: faults planted one by one, each of which it must find and name, and
//! instructions whose results are known.

mod faults;
mod results;
mod warpgroup;

use ir::DType;
use ir::plan::{self, Allocation, Buffer, Command, CompiledKernel, Mode, Plan, Role};
use runtime::device::DeviceSpec;
use runtime::{Compiled, Executor, Ptx};

/// Elements of both buffers of a test.
pub const COUNT: usize = 64;

/// A module with one kernel, `k(x, y)`: `registers` 0 to 31 of each kind are declared. `%rd1` and `%rd2` hold the
/// addresses of x and y, `%r1` the thread, `%r2` the block, `%rd3` four times the thread's number in the grid of 32-thread
/// blocks.
pub fn module(body: &str) -> String {
    format!(
        ".version 8.0\n.target sm_90\n.address_size 64\n\
         .extern .shared .align 16 .b8 dynamic[];\n\
         .visible .entry k(\n.param .u64 .ptr .global k_x,\n.param .u64 .ptr .global k_y\n)\n{{\n\
         .reg .pred %p<32>;\n.reg .b16 %rs<32>;\n.reg .b32 %r<32>;\n.reg .b64 %rd<32>;\n.reg .f32 %f<32>;\n\
         .local .align 8 .b8 depot[64];\n.shared .align 16 .b8 fixed[256];\n\
         ld.param.u64 %rd1, [k_x];\nld.param.u64 %rd2, [k_y];\n\
         mov.u32 %r1, %tid.x;\nmov.u32 %r2, %ctaid.x;\nmad.lo.s32 %r3, %r2, 32, %r1;\n\
         mul.wide.u32 %rd3, %r3, 4;\nadd.s64 %rd4, %rd1, %rd3;\nadd.s64 %rd5, %rd2, %rd3;\n\
         {body}\nret;\n}}\n"
    )
}

/// The module's one kernel as a program: y from x, on so many blocks and threads of each.
pub fn program(text: String, blocks: u64, threads: u32) -> Compiled {
    let buffer = |name: &str, role| Buffer {
        name: name.into(),
        dtype: DType::F32,
        bytes: 4 * COUNT as u64,
        device: 0,
        role,
        allocation: Allocation::Dedicated,
        shard: None,
    };
    let shape = vec![COUNT];
    Compiled {
        plan: Plan {
            version: plan::VERSION,
            model: "tiny".into(),
            mode: Mode::Infer,
            batch: 1,
            devices: vec![plan::PTX.into()],
            arena_bytes: vec![0],
            buffers: vec![
                buffer("x", Role::Input { shape: shape.clone() }),
                buffer("y", Role::Output { shape }),
            ],
            kernels: vec![CompiledKernel {
                symbol: "k".into(),
                tasks: blocks,
                threads,
                shared_bytes: 256,
                operands: 1,
                argument_bytes: vec![4 * COUNT as u64; 2],
                flops: 0,
                bytes: 0,
            }],
            prepack: vec![],
            step: vec![Command::kernel("layer", 0, 0, vec![0, 1])],
            flops: 0,
        },
        graph: String::new(),
        precision: "f32".into(),
        predicted_ms: None,
        host: None,
        ptx: vec![Ptx {
            target: if text.contains(".target sm_90a") {
                "sm_90a"
            } else {
                "sm_90"
            }
            .into(),
            text,
        }],
    }
}

/// x as it is before every run: numbers that are exact in every type.
pub fn given() -> Vec<f32> {
    (0..COUNT).map(|i| i as f32 * 0.25 - 4.0).collect()
}

/// Runs a body on `blocks` blocks of 32 threads, y poisoned before; gives y.
pub fn run(body: &str, blocks: u64) -> Vec<f32> {
    outcome(module(body), blocks, 32).unwrap_or_else(|error| panic!("{body}\n{error}"))
}

/// Runs a module, y poisoned before; gives y.
pub fn outcome(text: String, blocks: u64, threads: u32) -> Result<Vec<f32>, runtime::Error> {
    let devices = [DeviceSpec::parse("sim")?];
    let mut executor = Executor::new(&program(text, blocks, threads), &devices)?;
    executor.set_poison(true);
    executor.set_f32("x", &given())?;
    executor.run()?;
    executor.get_f32("y")
}
