//! Windows that slide along vectors: what they load, on the emulator.

use crate::layouts::{Stored, at_point, output, read, run};
use ir::DType;
use ir::nest::{Combine, Expr, Loop, Nest};

/// Sums over windows along what is contiguous, as of normalisation across channels: whole vectors are loaded, each once for
/// the four windows of a thread that it is in; rows that are no vectors are summed term by term.
#[test]
fn windows_that_slide_along_vectors() {
    for (channels, window, before) in [
        (24, 5, 2),
        (16, 3, 0),
        (20, 4, 3),
        (8, 9, 4),
        (12, 2, 1),
        (22, 5, 2),
    ] {
        let extents = [6, channels];
        let mut beside = at_point(2);
        beside[1].map = beside[1].map.clone().plus_loop(Loop(2), 1).plus_constant(-before);
        let nest = Nest {
            parallel: extents.to_vec(),
            reduction: vec![window],
            reads: vec![read(0, beside), read(0, at_point(2))],
            combine: Combine::Sum,
            body: Expr::Read(0) * Expr::Constant(0.5),
            outputs: vec![output(DType::F32, &extents, Expr::Reduced - Expr::Read(1))],
        };
        let rows = Stored::new(&extents, &[0, 1]);
        let counts = run(&nest, std::slice::from_ref(&rows), std::slice::from_ref(&rows), 5);
        let vectors = (before as usize * 3 % 4 + 3 + window).div_ceil(4);
        let most = 6 * channels / 4 * (vectors + 1);
        let whole = counts.executed("ld.global") as usize <= most;
        assert_eq!(
            whole,
            channels % 4 == 0,
            "{channels}, {window}, {before}: {counts:?}"
        );
    }
}
