//! The rules, as tables by subject.
//!
//! | subject | rewrites |
//! |---|---|
//! | [`algebra`] | operations into equal operations |
//! | [`lowering`] | operations into kernels |
//! | [`algorithm`] | kernels into the same by another algorithm |
//! | [`layout`] | contractions into the same with a factor in vectors, and what that has to lie like |
//! | [`fusion`] | kernels into fewer |
//!
//! To add a rule of algebra: a line in its table, with an example that a test runs and evaluates on random inputs. What is
//! always better belongs into `simplify` instead: here both sides stay, and the extraction chooses.

pub mod algebra;
pub mod algorithm;
pub mod fusion;
pub mod layout;
pub mod lowering;

use super::language::{Node, TensorAnalysis, TensorEGraph};
use egg::{Id, SearchMatches, Searcher, Subst, Var};

/// Finds classes of which something holds.
struct Classes(fn(&TensorEGraph, Id) -> bool);

impl Searcher<Node, TensorAnalysis> for Classes {
    fn search_eclass_with_limit(
        &self,
        egraph: &TensorEGraph,
        class: Id,
        _: usize,
    ) -> Option<SearchMatches<'_, Node>> {
        (self.0)(egraph, class).then(|| matches(class, vec![Subst::default()]))
    }

    fn vars(&self) -> Vec<Var> {
        vec![]
    }
}

/// What a searcher written in Rust found in a class.
fn matches(eclass: Id, substs: Vec<Subst>) -> SearchMatches<'static, Node> {
    SearchMatches {
        eclass,
        substs,
        ast: None,
    }
}
