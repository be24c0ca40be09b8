//! What devices do while others wait, as rows of the integer program of [`super::search`].
//!
//! The work of each device and the length of every path bound a makespan from below, and yet miss what makes a layer on one
//! device expensive: the layers before and after it are done by then, or cannot begin, and the other device idles. Kernels of
//! the longest path divide the step into intervals:
//!
//! ```text
//! end[i] ≥ end[i−1] + Σ work of d in kernels between path[i−1] and path[i]          for every device d
//! rest[i, d] ≥ rest[i+1, d] + Σ work of d in kernels that wait for path[i] and not for path[i+1]
//! makespan ≥ end[i] + rest[i, d]
//! ```
//!
//! Transfers count where both the kernel that made the value and all that need it lie within.

use super::formulation::Columns;
use super::search::PlacementProblem;
use crate::solver::{Column, Model};
use good_lp::{Expression, constraint};
use std::collections::BTreeSet;

/// Of each kernel those that wait for it, also by way of others.
type Waiting = Vec<BTreeSet<usize>>;

impl PlacementProblem<'_> {
    fn waiting(&self) -> Waiting {
        let mut readers: Vec<BTreeSet<usize>> = vec![BTreeSet::new(); self.kernels.len()];
        for (n, (need, _)) in self.required.iter().enumerate() {
            readers[self.producer[&need.value]].extend(self.readers_of(n));
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
    ///
    /// What waits for a kernel of the path waits for those before it, too: the work behind each is that behind the next and
    /// some more, so that every kernel is in few rows.
    pub(super) fn intervals(&self, model: &mut Model, columns: &Columns) {
        let waiting = self.waiting();
        let path = self.longest_path(&waiting);
        let mut ends: Vec<Column> = vec![];
        for (i, &k) in path.iter().enumerate() {
            let last = i.checked_sub(1).map(|last| path[last]);
            let mut interval: BTreeSet<usize> = (0..k).filter(|&other| waiting[other].contains(&k)).collect();
            if let Some(last) = last {
                interval.retain(|other| waiting[last].contains(other));
            }
            interval.insert(k);
            let end = model.positive();
            for device in 0..self.costs.len() {
                let begin = ends
                    .last()
                    .map_or(Expression::default(), |end| end.variable.into());
                let transferred = self.transfers_within(device, last, &interval);
                let within = self.load(device, &interval, &transferred, columns);
                model.row(constraint!(end.variable >= begin + within));
            }
            ends.push(end);
        }
        for device in 0..self.costs.len() {
            let mut behind = Expression::default();
            let (mut kernels, mut transferred) = (BTreeSet::new(), BTreeSet::new());
            for (&k, end) in path.iter().zip(&ends).rev() {
                let all = self.transfers_within(device, Some(k), &waiting[k]);
                let more_kernels: BTreeSet<usize> = waiting[k].difference(&kernels).copied().collect();
                let more_transferred: BTreeSet<usize> = all.difference(&transferred).copied().collect();
                let more = self.load(device, &more_kernels, &more_transferred, columns);
                let rest = model.positive();
                model.row(constraint!(rest.variable >= behind + more));
                model.row(constraint!(
                    columns.makespan.variable >= end.variable + rest.variable
                ));
                behind = rest.variable.into();
                (kernels, transferred) = (waiting[k].clone(), all);
            }
        }
    }

    /// The required regions of a device whose values are made within some kernels, or by the one before them, and read by those alone.
    fn transfers_within(
        &self,
        device: usize,
        before: Option<usize>,
        within: &BTreeSet<usize>,
    ) -> BTreeSet<usize> {
        let lies = |n: &usize| {
            let (need, users) = &self.required[*n];
            let producer = self.producer[&need.value];
            let begins = within.contains(&producer) || before == Some(producer);
            need.device == device && begins && users.iter().all(|(k, _)| within.contains(k))
        };
        (0..self.required.len()).filter(lies).collect()
    }

    /// The work of a device in kernels, and in bringing what they need.
    fn load(
        &self,
        device: usize,
        kernels: &BTreeSet<usize>,
        transferred: &BTreeSet<usize>,
        &Columns {
            place,
            transfers,
            unit,
            ..
        }: &Columns,
    ) -> Expression {
        let mut load: Expression = transferred.iter().map(|&n| transfers[n].clone()).sum();
        for &k in kernels {
            for (column, choice) in place[k].iter().zip(&self.kernels[k]) {
                load += choice.seconds[device] / unit * column.variable;
            }
        }
        load
    }
}
