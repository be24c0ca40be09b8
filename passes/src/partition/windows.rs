//! What devices do while others wait, as rows of the integer program of [`super::search`].
//!
//! The work of each device and the length of every path bound a makespan from below, and yet miss what makes a layer on one
//! device expensive: the layers before and after it are done by then, or cannot begin, and the other device idles. Kernels of
//! the longest path divide the step into windows:
//!
//! ```text
//! end[i] ≥ end[i−1] + Σ work of d in kernels between path[i−1] and path[i]          for every device d
//! makespan ≥ end[i] + Σ work of d in kernels that wait for path[i]
//! ```
//!
//! Transfers count where both the kernel that made the value and all that need it lie within.

use super::search::Problem;
use crate::solver::{Column, Model};
use good_lp::{Expression, constraint};
use std::collections::BTreeSet;

/// Of each kernel those that wait for it, also by way of others.
type Waiting = Vec<BTreeSet<usize>>;

impl Problem<'_> {
    fn waiting(&self) -> Waiting {
        let mut readers: Vec<BTreeSet<usize>> = vec![BTreeSet::new(); self.kernels.len()];
        for (need, users) in &self.needs {
            let maker = self.maker[&need.value];
            let later = users.iter().map(|(k, _)| *k).filter(|&k| k > maker);
            readers[maker].extend(later);
        }
        let mut after: Waiting = vec![BTreeSet::new(); self.kernels.len()];
        for k in (0..self.kernels.len()).rev() {
            let all = readers[k]
                .iter()
                .flat_map(|&r| after[r].iter().copied().chain([r]));
            after[k] = all.collect();
        }
        after
    }

    /// The kernels of the path with the most work, in order.
    fn longest_path(&self, waiting: &Waiting) -> Vec<usize> {
        let work = |k: usize| {
            let choices = self.kernels[k].iter().map(|choice| choice.seconds.iter().sum());
            choices.fold(f64::INFINITY, f64::min)
        };
        // From each kernel on: the work, and the next.
        let mut rest: Vec<(f64, Option<usize>)> = vec![(0.0, None); self.kernels.len()];
        for k in (0..self.kernels.len()).rev() {
            let longest = waiting[k]
                .iter()
                .max_by(|&&a, &&b| rest[a].0.total_cmp(&rest[b].0));
            rest[k] = (
                work(k) + longest.map_or(0.0, |&next| rest[next].0),
                longest.copied(),
            );
        }
        let first = (0..rest.len()).max_by(|&a, &b| rest[a].0.total_cmp(&rest[b].0));
        std::iter::successors(first, |&k| rest[k].1).collect()
    }

    /// States that devices wait for each other.
    pub(super) fn windows(
        &self,
        model: &mut Model,
        place: &[Vec<Column>],
        brought: &[Expression],
        makespan: Column,
        unit: f64,
    ) {
        let waiting = self.waiting();
        let load = |device: usize, from: Option<usize>, within: &BTreeSet<usize>| {
            let mut load = Expression::default();
            for &k in within {
                for (column, choice) in place[k].iter().zip(&self.kernels[k]) {
                    load += choice.seconds[device] / unit * column.variable;
                }
            }
            for ((need, users), delay) in self.needs.iter().zip(brought) {
                let maker = self.maker[&need.value];
                let begins = within.contains(&maker) || from == Some(maker);
                if need.device == device && begins && users.iter().all(|(k, _)| within.contains(k)) {
                    load += delay.clone();
                }
            }
            load
        };
        let mut before: Option<(usize, Column)> = None;
        for k in self.longest_path(&waiting) {
            let end = model.positive();
            let mut window: BTreeSet<usize> = (0..k).filter(|&other| waiting[other].contains(&k)).collect();
            if let Some((last, _)) = before {
                window.retain(|other| waiting[last].contains(other));
            }
            window.insert(k);
            for device in 0..self.costs.len() {
                let begin = before.map_or(Expression::default(), |(_, end)| end.variable.into());
                let within = load(device, before.map(|(last, _)| last), &window);
                model.row(constraint!(end.variable >= begin + within));
                let rest = load(device, Some(k), &waiting[k]);
                model.row(constraint!(makespan.variable >= end.variable + rest));
            }
            before = Some((k, end));
        }
    }
}
