//! Finds convolutions in nests, from their index maps alone.
//!
//! A convolution is a contraction in which pairs of loops slide: a parallel loop and a reduction loop meet as
//! `p + r + constant` (or `p − r + constant`) in one dimension of one read, the *image*, and of the two only the reduction
//! loop walks the other read, the *kernel*. That is a forward convolution (`p` a place, `r` a tap), the gradient of its
//! input (with `−r`), and the gradient of its weight (`p` a tap, `r` a place), with groups or without. Strides and
//! dilations make other coefficients, and are no pairs.

use ir::nest::{Affine, Expr, Loop, Nest, Read};

/// Two loops that slide over one another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pair {
    /// The loop of the result.
    pub parallel: Loop,
    /// The loop of the sum.
    pub reduction: Loop,
    /// The dimension of the image where they meet.
    pub dimension: usize,
    /// Whether the reduction loop walks the image backwards.
    pub flipped: bool,
    /// Whether points of the parallel loop beyond its extent would lie beyond the ends of all outputs.
    pub may_exceed: bool,
}

/// A convolution: its reads and the parts of its loops.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Convolution {
    /// The read with pairs, among the nest's reads.
    pub image: usize,
    /// The other factor.
    pub kernel: usize,
    /// Loops that slide.
    pub pairs: Vec<Pair>,
    /// Parallel loops that walk both reads: groups.
    pub batch: Vec<Loop>,
    /// Other parallel loops that walk the image only.
    pub image_only: Vec<Loop>,
    /// Parallel loops that walk the kernel only.
    pub filter_only: Vec<Loop>,
    /// Other reduction loops, which walk both.
    pub shared: Vec<Loop>,
}

/// The convolution that a nest is, if it is one.
pub fn recognise(nest: &Nest) -> Option<Convolution> {
    let (a, b) = nest.contraction()?;
    of_reads(nest, a, b).or_else(|| of_reads(nest, b, a))
}

fn of_reads(nest: &Nest, image: usize, kernel: usize) -> Option<Convolution> {
    let reads = [&nest.reads[image], &nest.reads[kernel]];
    let plain = |read: &&Read| {
        read.padding_value == 0.0
            && read.predicates.is_empty()
            && read.index.iter().all(|index| index.divisor == 1)
    };
    if !reads.iter().all(plain) || reads[0].source == reads[1].source {
        return None;
    }
    let pairs: Vec<Pair> = (0..reads[0].index.len())
        .filter_map(|dimension| pair(nest, reads, dimension))
        .collect();
    let mut found = Convolution {
        image,
        kernel,
        batch: vec![],
        image_only: vec![],
        filter_only: vec![],
        shared: vec![],
        pairs,
    };
    let walks = |read: &Read, l: Loop| read.index.iter().any(|index| index.map.coefficient(l) != 0);
    for (i, extent) in nest.extents().into_iter().enumerate() {
        let (l, parallel) = (Loop(i), i < nest.parallel.len());
        if found.pairs.iter().any(|p| p.parallel == l || p.reduction == l) {
            continue;
        }
        let list = match (parallel, walks(reads[0], l), walks(reads[1], l)) {
            (true, true, true) => &mut found.batch,
            (true, true, false) => &mut found.image_only,
            (true, false, true) => &mut found.filter_only,
            (true, false, false) if extent == 1 => &mut found.image_only,
            (false, true, true) => &mut found.shared,
            (false, ..) if extent == 1 => &mut found.shared,
            _ => return None,
        };
        list.push(l);
    }
    let mut reused = false;
    let mut visit =
        |e: &Expr| reused |= matches!(e, Expr::Read(i) | Expr::InBounds(i) if *i == image || *i == kernel);
    nest.outputs
        .iter()
        .for_each(|output| output.value.walk(&mut visit));
    (!found.pairs.is_empty() && !found.filter_only.is_empty() && !reused).then_some(found)
}

/// The pair of loops that slides along a dimension of the image.
fn pair(nest: &Nest, [image, kernel]: [&Read; 2], dimension: usize) -> Option<Pair> {
    let extents = nest.extents();
    let long = |map: &Affine| -> Vec<(Loop, i64)> {
        let terms = map.terms.iter().copied();
        terms.filter(|(l, _)| extents[l.0] > 1).collect()
    };
    let [(parallel, 1), (reduction, step)] = long(&image.index[dimension].map)[..] else {
        return None;
    };
    if parallel.0 >= nest.parallel.len() || reduction.0 < nest.parallel.len() || step.abs() != 1 {
        return None;
    }
    let dimensions = |read: &Read, l: Loop| {
        let walked = read.index.iter().filter(|index| index.map.coefficient(l) != 0);
        walked.count()
    };
    let alone = kernel
        .index
        .iter()
        .any(|index| matches!(long(&index.map)[..], [(l, 1 | -1)] if l == reduction));
    let slides = dimensions(image, parallel) == 1
        && dimensions(image, reduction) == 1
        && dimensions(kernel, parallel) == 0
        && dimensions(kernel, reduction) == 1
        && alone;
    let extent = extents[parallel.0];
    let may_exceed = nest.outputs.iter().all(|output| {
        let mut places = output.index.iter().zip(&output.extents);
        places.any(|(map, &end)| map.as_loop() == Some(parallel) && end == extent)
    });
    slides.then_some(Pair {
        parallel,
        reduction,
        dimension,
        flipped: step < 0,
        may_exceed,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use ir::Graph;

    /// The nest of the node `y` of a model.
    fn nest(text: &str) -> Nest {
        let graph: Graph = ir::text::parse(&format!("model m\n{text}\noutput y = y\n"), "m.ir").unwrap();
        let graph = graph.bind(2).unwrap();
        let id = graph.outputs()[0].1;
        let node = graph.node(id);
        node.op.semantics(&graph.operand_types(id), &node.ty).remove(0)
    }

    fn found(text: &str) -> Option<Convolution> {
        recognise(&nest(text))
    }

    const IMAGE: &str = "x = input() shape=[N, 6, 9, 8]\n";
    const WEIGHT: &str = "w = input() shape=[4, 3, 3, 5]\n";
    const UPSTREAM: &str = "d = input() shape=[N, 4, 9, 8]\n";

    #[test]
    fn a_convolution_and_its_gradients() {
        let window = "pad=[1, 2, 1, 2] groups=2";
        let forward = found(&format!("{IMAGE}{WEIGHT}y = conv2d(x, w) {window}")).unwrap();
        // Loops n, g, o, y, x; c, ky, kx.
        let parallel = |conv: &Convolution| conv.pairs.iter().map(|p| p.parallel.0).collect::<Vec<_>>();
        let reduction = |conv: &Convolution| conv.pairs.iter().map(|p| p.reduction.0).collect::<Vec<_>>();
        assert_eq!((forward.image, forward.kernel), (0, 1));
        assert_eq!(
            (parallel(&forward), reduction(&forward)),
            (vec![3, 4], vec![6, 7])
        );
        assert_eq!(forward.batch, [Loop(1)]);
        assert_eq!(forward.image_only, [Loop(0)]);
        assert_eq!(forward.filter_only, [Loop(2)]);
        assert_eq!(forward.shared, [Loop(5)]);
        assert!(forward.pairs.iter().all(|p| !p.flipped && p.may_exceed));

        let input = found(&format!(
            "{UPSTREAM}{WEIGHT}y = conv2d_grad_input(d, w) size=[9, 8] {window}"
        ))
        .unwrap();
        // Loops n, g, c, y, x; o, ky, kx.
        assert_eq!((parallel(&input), reduction(&input)), (vec![3, 4], vec![6, 7]));
        assert!(input.pairs.iter().all(|p| p.flipped));

        let weight = found(&format!(
            "{UPSTREAM}{IMAGE}y = conv2d_grad_weight(d, x) kernel=[3, 5] {window}"
        ))
        .unwrap();
        // Loops g, o, c, ky, kx; n, y, x.
        assert_eq!((weight.image, weight.kernel), (1, 0));
        assert_eq!((parallel(&weight), reduction(&weight)), (vec![3, 4], vec![6, 7]));
        assert_eq!(weight.image_only, [Loop(2)]);
        assert_eq!(weight.shared, [Loop(5)]);
    }

    #[test]
    fn one_dimension_may_slide_alone() {
        let row = found("x = input() shape=[N, 6, 9, 8]\nw = input() shape=[4, 6, 1, 5]\ny = conv2d(x, w)")
            .unwrap();
        assert_eq!(row.pairs.len(), 1);
        assert_eq!(row.pairs[0].dimension, 3);
        // Along the height every place has rows of its own: one more loop of the image, and one of the sum.
        let strided = found(&format!("{IMAGE}{WEIGHT}y = conv2d(x, w) stride=[2, 1] groups=2")).unwrap();
        assert_eq!(strided.pairs.len(), 1);
        assert_eq!(
            (strided.image_only, strided.shared),
            (vec![Loop(0), Loop(3)], vec![Loop(5), Loop(6)])
        );
    }

    #[test]
    fn what_does_not_slide_is_none() {
        for text in [
            &format!("{IMAGE}{WEIGHT}y = conv2d(x, w) stride=2 groups=2")[..],
            &format!("{IMAGE}{WEIGHT}y = conv2d(x, w) dilation=2 pad=4 groups=2"),
            &format!(
                "d = input() shape=[N, 4, 5, 4]\n{WEIGHT}\
                 y = conv2d_grad_input(d, w) size=[9, 8] stride=2 pad=[1, 2, 1, 2] groups=2"
            ),
            "x = input() shape=[N, 6, 9, 8]\nw = input() shape=[4, 6, 1, 1]\ny = conv2d(x, w)",
            "x = input() shape=[N, 6]\nw = input() shape=[4, 6]\ny = fully_connected(x, w)",
            "x = input() shape=[N, 6, 9, 8]\ny = max_pool(x) kernel=3",
            "x = input() shape=[N, 6, 9, 8]\ny = avg_pool(x) kernel=3",
        ] {
            assert_eq!(found(text), None, "{text}");
        }
        // The stages of LRN: sums of squares in a window of channels.
        let text = format!("model m\n{IMAGE}y = lrn(x) size=5\noutput y = y\n");
        let graph = ir::text::parse(&text, "m.ir").unwrap().bind(2).unwrap();
        let id = graph.outputs()[0].1;
        let node = graph.node(id);
        for nest in node.op.semantics(&graph.operand_types(id), &node.ty) {
            assert_eq!(recognise(&nest), None);
        }
    }
}
