//! Compiles kernels on all cores.
//!
//! Kernels differ in size by a factor of a hundred, so they are not divided beforehand: every core takes the largest module
//! that is left. A module holds a large kernel, or small ones that are next to each other.

use crate::Target;
use crate::bridge::{BridgeError, Compiler, MachineCode};
use std::ops::Range;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Bytes of MLIR text from which on a module takes no further kernel.
const MODULE_BYTES: usize = 32 << 10;

/// Compiles kernels, given as symbols with their MLIR text, for a target; gives the code of modules in the kernels' order.
pub fn compile(
    kernels: &[(&str, &str)],
    target: &Target,
    assembly: bool,
) -> Result<Vec<MachineCode>, BridgeError> {
    let sizes: Vec<usize> = kernels.iter().map(|(_, text)| text.len()).collect();
    let modules = modules(&sizes);
    let mut order: Vec<usize> = (0..modules.len()).collect();
    order.sort_by_key(|&m| std::cmp::Reverse(sizes[modules[m].clone()].iter().sum::<usize>()));
    let next = AtomicUsize::new(0);
    let made: Vec<Mutex<Option<MachineCode>>> = modules.iter().map(|_| Mutex::default()).collect();
    let work = || -> Result<(), BridgeError> {
        let compiler = match target {
            Target::Host(target) => Compiler::for_host(target)?,
            Target::Gpu(target, _) => Compiler::for_gpu(target)?,
        };
        while let Some(&m) = order.get(next.fetch_add(1, Ordering::Relaxed)) {
            let part = &kernels[modules[m].clone()];
            let text: String = part.iter().map(|(_, text)| *text).collect();
            let symbols: Vec<String> = part.iter().map(|(symbol, _)| symbol.to_string()).collect();
            let code = compiler.compile(&text, &symbols, assembly)?;
            *made[m].lock().expect("code generation does not panic") = Some(code);
        }
        Ok(())
    };
    let cores = std::thread::available_parallelism().map_or(1, |n| n.get());
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..cores.min(modules.len())).map(|_| scope.spawn(work)).collect();
        workers
            .into_iter()
            .try_for_each(|worker| worker.join().expect("code generation does not panic"))
    })?;
    let made = made.into_iter().map(|code| {
        let code = code.into_inner().expect("code generation does not panic");
        code.expect("every module was compiled")
    });
    Ok(made.collect())
}

/// Neighbours that become one module, by the sizes of their texts.
fn modules(sizes: &[usize]) -> Vec<Range<usize>> {
    let mut modules: Vec<Range<usize>> = vec![];
    let mut bytes = MODULE_BYTES;
    for (kernel, size) in sizes.iter().enumerate() {
        if bytes + size > MODULE_BYTES {
            modules.push(kernel..kernel);
            bytes = 0;
        }
        bytes += size;
        modules.last_mut().expect("the first kernel begins a module").end = kernel + 1;
    }
    modules
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_neighbours_share_a_module_and_large_kernels_have_their_own() {
        let whole = MODULE_BYTES;
        assert_eq!(modules(&[]), []);
        assert_eq!(modules(&[1, 2, whole, 3, 4]), [0..2, 2..3, 3..5]);
        assert_eq!(modules(&[3 * whole, 1]), [0..1, 1..2]);
    }
}
