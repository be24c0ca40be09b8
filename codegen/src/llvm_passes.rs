//! The passes of LLVM that kernels for processors go through.
//!
//! They are those of `default<O2>` of LLVM 22 with vectorisation off (`opt -passes='default<O2>' -vectorize-loops=false
//! -vectorize-slp=false -print-pipeline-passes`), without the ones that change no kernel: `loop-load-elim`, which alone takes
//! a fifth of the time, and those for coroutines, OpenMP, profiles and library calls. Machine code is the same byte for byte.
//! What else takes long (unrolling, `indvars`, `loop-idiom`, `instcombine`) changes most kernels and stays.

/// The pipeline in the syntax of `opt -passes`.
pub const FOR_PROCESSORS: &str = "\
inferattrs,function<eager-inv>(lower-expect,\
simplifycfg<bonus-inst-threshold=1;no-forward-switch-cond;no-switch-range-to-icmp;no-switch-to-arithmetic;no-switch-to-lookup;keep-loops;no-hoist-common-insts;no-hoist-loads-stores-with-cond-faulting;no-sink-common-insts;speculate-blocks;simplify-cond-branch;no-speculate-unpredictables>,\
sroa<modify-cfg>,early-cse<>),ipsccp,called-value-propagation,globalopt,function<eager-inv>(mem2reg,\
instcombine<max-iterations=1;no-verify-fixpoint>,\
simplifycfg<bonus-inst-threshold=1;no-forward-switch-cond;switch-range-to-icmp;no-switch-to-arithmetic;no-switch-to-lookup;keep-loops;no-hoist-common-insts;no-hoist-loads-stores-with-cond-faulting;no-sink-common-insts;speculate-blocks;simplify-cond-branch;no-speculate-unpredictables>),\
always-inline,require<globals-aa>,cgscc(devirt<4>(inline,function-attrs<skip-non-recursive-function-attrs>,\
function<eager-inv>(sroa<modify-cfg>,early-cse<memssa>,speculative-execution<only-if-divergent-target>,\
jump-threading,correlated-propagation,\
simplifycfg<bonus-inst-threshold=1;no-forward-switch-cond;switch-range-to-icmp;no-switch-to-arithmetic;no-switch-to-lookup;keep-loops;no-hoist-common-insts;no-hoist-loads-stores-with-cond-faulting;no-sink-common-insts;speculate-blocks;simplify-cond-branch;no-speculate-unpredictables>,\
instcombine<max-iterations=1;no-verify-fixpoint>,aggressive-instcombine,tailcallelim,\
simplifycfg<bonus-inst-threshold=1;no-forward-switch-cond;switch-range-to-icmp;no-switch-to-arithmetic;no-switch-to-lookup;keep-loops;no-hoist-common-insts;no-hoist-loads-stores-with-cond-faulting;no-sink-common-insts;speculate-blocks;simplify-cond-branch;no-speculate-unpredictables>,\
reassociate,constraint-elimination,loop-mssa(loop-instsimplify,loop-simplifycfg,licm<no-allowspeculation>,\
loop-rotate<header-duplication;no-prepare-for-lto>,licm<allowspeculation>,\
simple-loop-unswitch<no-nontrivial;trivial>),\
simplifycfg<bonus-inst-threshold=1;no-forward-switch-cond;switch-range-to-icmp;no-switch-to-arithmetic;no-switch-to-lookup;keep-loops;no-hoist-common-insts;no-hoist-loads-stores-with-cond-faulting;no-sink-common-insts;speculate-blocks;simplify-cond-branch;no-speculate-unpredictables>,\
instcombine<max-iterations=1;no-verify-fixpoint>,loop(loop-idiom,indvars,extra-simple-loop-unswitch-passes,\
loop-deletion,loop-unroll-full),sroa<modify-cfg>,vector-combine,mldst-motion<no-split-footer-bb>,gvn<>,sccp,\
bdce,instcombine<max-iterations=1;no-verify-fixpoint>,jump-threading,correlated-propagation,adce,memcpyopt,\
dse,loop-mssa(licm<allowspeculation>),\
simplifycfg<bonus-inst-threshold=1;no-forward-switch-cond;switch-range-to-icmp;switch-to-arithmetic;no-switch-to-lookup;keep-loops;hoist-common-insts;no-hoist-loads-stores-with-cond-faulting;sink-common-insts;speculate-blocks;simplify-cond-branch;no-speculate-unpredictables>,\
instcombine<max-iterations=1;no-verify-fixpoint>),function-attrs)),deadargelim,globalopt,globaldce,\
elim-avail-extern,rpo-function-attrs,recompute-globalsaa,function<eager-inv>(drop-unnecessary-assumes,\
float2int,lower-constant-intrinsics,loop(loop-rotate<header-duplication;no-prepare-for-lto>,loop-deletion),\
drop-unnecessary-assumes,infer-alignment,instcombine<max-iterations=1;no-verify-fixpoint>,\
simplifycfg<bonus-inst-threshold=1;forward-switch-cond;switch-range-to-icmp;switch-to-arithmetic;switch-to-lookup;no-keep-loops;hoist-common-insts;no-hoist-loads-stores-with-cond-faulting;sink-common-insts;speculate-blocks;simplify-cond-branch;no-speculate-unpredictables>,\
vector-combine,instcombine<max-iterations=1;no-verify-fixpoint>,loop-unroll<O2>,sroa<preserve-cfg>,\
infer-alignment,instcombine<max-iterations=1;no-verify-fixpoint>,loop-mssa(licm<allowspeculation>),\
alignment-from-assumptions,loop-sink,instsimplify,div-rem-pairs,tailcallelim,\
simplifycfg<bonus-inst-threshold=1;no-forward-switch-cond;switch-range-to-icmp;switch-to-arithmetic;no-switch-to-lookup;keep-loops;no-hoist-common-insts;hoist-loads-stores-with-cond-faulting;no-sink-common-insts;speculate-blocks;simplify-cond-branch;speculate-unpredictables>),\
globaldce,constmerge";
