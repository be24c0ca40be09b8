//! Placed graph to kernels: MLIR, LLVM, host objects and the artifact
