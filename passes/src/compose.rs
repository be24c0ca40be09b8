//! Composing nests: the three ways in which two kernels become one.
//!
//! * [`epilogue`]: a map that reads what another nest stores moves to where that value is made.
//! * [`inline`]: a map is computed again wherever its value is read.
//! * [`merge`]: two nests over the same loops store their results together.
//!
//! All are pure functions of nests. The nests of both kernels number their operands alike: equal
//! [`Source`]s are the same tensor. Each returns `None` where the composition is not exact; whether it pays
//! is decided by `fuse`.

use crate::substitute::{Substitution, always_holds, always_inside, normalize, renumber};
use ir::nest::{Combine, Expr, Index, Nest, Output, Predicate, Read, Source};
use ir::types::DType;

/// The extents of the tensor behind a source.
pub type Extents<'a> = &'a dyn Fn(Source) -> Vec<usize>;

/// Computes the map `consumer` at the end of `producer`, whose output `j` is the tensor `stored[j]`.
///
/// The result stores those outputs of the producer that `keep` names, then those of the consumer. The
/// consumer must read the producer's values element by element, at one point of its own loops each.
pub fn epilogue(producer: &Nest, stored: &[Source], keep: &[bool], consumer: &Nest) -> Option<Nest> {
    if consumer.combine != Combine::None {
        return None;
    }
    let output_of = |read: &Read| stored.iter().position(|s| *s == read.source);
    let mut loops: Option<Substitution> = None;
    for read in &consumer.reads {
        let Some(output) = output_of(read).map(|j| &producer.outputs[j]) else {
            continue;
        };
        let solved = solve_epilogue(read, consumer, output, producer)?;
        if loops.get_or_insert_with(|| solved.clone()) != &solved {
            return None;
        }
    }
    let loops = loops?;

    let mut nest = producer.clone();
    let shift = nest.reads.len();
    for read in &consumer.reads {
        // Reads of the producer's values keep their place and disappear when unused reads do.
        nest.reads.push(if output_of(read).is_some() {
            read.clone()
        } else {
            loops.read(read)?
        });
    }
    let made = |i: usize| output_of(&consumer.reads[i]).map(|j| producer.outputs[j].value.clone());
    let value = |i: usize| made(i).unwrap_or(Expr::Read(i + shift));
    let inside = |i: usize| made(i).map_or(Expr::InBounds(i + shift), |_| Expr::Constant(1.0));
    let mut kept = keep.iter();
    nest.outputs.retain(|_| kept.next().copied().unwrap_or(false));
    for output in &consumer.outputs {
        nest.outputs.push(Output {
            dtype: output.dtype,
            extents: output.extents.clone(),
            index: output
                .index
                .iter()
                .map(|map| loops.affine(map))
                .collect::<Option<_>>()?,
            value: loops.expression(&output.value, &value, &inside)?,
        });
    }
    Some(normalize(nest))
}

/// The consumer's loops in those of the producer, where the element that the consumer reads is made.
fn solve_epilogue(read: &Read, consumer: &Nest, output: &Output, producer: &Nest) -> Option<Substitution> {
    let exact = output.dtype == DType::F32
        && read.index.iter().all(|i| i.divisor == 1)
        && read
            .predicates
            .iter()
            .all(|g| always_holds(g, &consumer.parallel));
    if !exact {
        return None;
    }
    let maps: Vec<_> = read.index.iter().map(|i| i.map.clone()).collect();
    let targets: Vec<Index> = output.index.iter().map(|map| Index::new(map.clone())).collect();
    Substitution::solve(
        &maps,
        &consumer.parallel,
        &output.extents,
        &targets,
        &producer.parallel,
    )
}

/// Computes the map `producer`, whose only output is the tensor `stored`, wherever `consumer` reads it.
///
/// Where the consumer would read outside of the stored tensor it still sees its own outside value.
/// `extents` tells those of the producer's operands.
pub fn inline(consumer: &Nest, stored: Source, producer: &Nest, extents: Extents) -> Option<Nest> {
    let [output] = &producer.outputs[..] else {
        return None;
    };
    if producer.combine != Combine::None || output.dtype != DType::F32 {
        return None;
    }
    let mut nest = consumer.clone();
    let mut values: Vec<Expr> = (0..nest.reads.len()).map(Expr::Read).collect();
    let mut insides: Vec<Expr> = (0..nest.reads.len()).map(Expr::InBounds).collect();
    let mut found = false;
    for (i, read) in consumer
        .reads
        .iter()
        .enumerate()
        .filter(|(_, r)| r.source == stored)
    {
        let placed = Placed::new(read, consumer, producer, extents)?;
        let shift = nest.reads.len();
        values[i] = placed.value(shift)?;
        insides[i] = placed.inside(shift);
        nest.reads.extend(placed.reads);
        found = true;
    }
    if !found {
        return None;
    }
    let same = Substitution::identity(&nest.extents());
    let (value, inside) = (|i: usize| values[i].clone(), |i: usize| insides[i].clone());
    nest.body = same.expression(&nest.body, &value, &inside)?;
    for output in &mut nest.outputs {
        output.value = same.expression(&output.value, &value, &inside)?;
    }
    Some(normalize(nest))
}

/// A producer at one read of a consumer.
struct Placed<'a> {
    producer: &'a Nest,
    loops: Substitution,
    /// The producer's reads over the consumer's loops.
    reads: Vec<Read>,
    /// The read among them that is inside exactly where the consumer's read was; none if that always was.
    witness: Option<usize>,
    /// What the consumer sees elsewhere.
    padding_value: f64,
}

impl Placed<'_> {
    fn new<'a>(read: &Read, consumer: &Nest, producer: &'a Nest, extents: Extents) -> Option<Placed<'a>> {
        let (output, all) = (&producer.outputs[0], consumer.extents());
        let from = &producer.parallel;
        let loops = Substitution::solve(&output.index, from, &output.extents, &read.index, &all)?;
        let mut reads: Vec<Read> = producer
            .reads
            .iter()
            .map(|r| loops.read(r))
            .collect::<Option<_>>()?;
        // A read of the producer that is inside at each of its points is outside only where a predicate says so.
        let solid = |r: &Read| {
            let within = |(i, n): (&Index, usize)| always_inside(i, n, from);
            r.predicates.iter().all(|g| always_holds(g, from))
                && r.index.iter().zip(extents(r.source)).all(within)
        };
        let mut predicates = read.predicates.clone();
        let dimensions = || read.index.iter().zip(&output.extents);
        predicates.extend(
            dimensions()
                .filter(|&(i, &n)| !always_inside(i, n, &all))
                .map(|(i, &n)| Predicate {
                    map: i.map.clone(),
                    low: 0,
                    high: n as i64 * i.divisor,
                }),
        );
        predicates.retain(|g| !always_holds(g, &all));
        let divided = || read.index.iter().filter(|i| i.divisor != 1);
        let shows = |r: &Read| divided().all(|d| r.index.contains(d));
        let fits = |i: usize| solid(&producer.reads[i]) && shows(&reads[i]);
        // The maximum leaves out points whose reads are outside, so all must agree on where that is.
        let mut has_read = false;
        output.value.walk(&mut |e| has_read |= matches!(e, Expr::Read(_)));
        if consumer.combine == Combine::Max && !(has_read && (0..reads.len()).all(fits)) {
            return None;
        }
        let mut witness = None;
        if !predicates.is_empty() || divided().next().is_some() {
            witness = Some((0..reads.len()).find(|&i| fits(i))?);
            reads
                .iter_mut()
                .for_each(|r| r.predicates.extend(predicates.iter().cloned()));
        }
        Some(Placed {
            producer,
            loops,
            reads,
            witness,
            padding_value: read.padding_value,
        })
    }

    /// What the consumer sees, its new reads numbered from `shift`.
    fn value(&self, shift: usize) -> Option<Expr> {
        let read = |i: usize| Expr::Read(i + shift);
        let inside = |i: usize| Expr::InBounds(i + shift);
        let value = self
            .loops
            .expression(&self.producer.outputs[0].value, &read, &inside)?;
        Some(match self.witness {
            Some(w) => Expr::InBounds(w + shift).select(value, Expr::Constant(self.padding_value)),
            None => value,
        })
    }

    /// Whether the consumer's read was inside.
    fn inside(&self, shift: usize) -> Expr {
        self.witness
            .map_or(Expr::Constant(1.0), |w| Expr::InBounds(w + shift))
    }
}

/// One nest that stores the outputs of both, `a`'s first: maps over the same loops, or reductions that
/// combine the same body.
pub fn merge(a: &Nest, b: &Nest) -> Option<Nest> {
    if a.parallel != b.parallel || a.reduction != b.reduction || a.combine != b.combine {
        return None;
    }
    let mut nest = a.clone();
    let mut position = vec![];
    for read in &b.reads {
        position.push(nest.reads.iter().position(|r| r == read).unwrap_or_else(|| {
            nest.reads.push(read.clone());
            nest.reads.len() - 1
        }));
    }
    let mut body = b.body.clone();
    renumber(&mut body, &position);
    if a.combine != Combine::None && a.body != body {
        return None;
    }
    for output in &b.outputs {
        let mut output = output.clone();
        renumber(&mut output.value, &position);
        nest.outputs.push(output);
    }
    Some(normalize(nest))
}
