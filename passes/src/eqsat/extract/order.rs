//! What every selection has in common: which values come before which, and which are always in memory.
//!
//! Both are greatest fixed points over the ways of making a value: what all of its ways have in common. Values are visited in
//! an order in which they can be made, so that one pass finds nearly everything and a second finds nothing new.

use super::bits::Bits;
use super::{ClassValueId, ExtractionProblem, Need};
use std::collections::{BTreeSet, HashMap, HashSet};

/// A way of making a value: the values it needs, and whether each counts itself or only what it is made of.
type Recipe = Vec<(ClassValueId, bool)>;

impl ExtractionProblem {
    /// For every value those that no way of making it does without, over any number of steps.
    pub fn ancestors(&self) -> Vec<Bits> {
        self.common(|_| true)
    }

    /// The values that are in memory in every selection, those that are given left out: wanted ones, and those that every way
    /// of making a wanted value reads from memory at some step.
    pub fn forced(&self) -> Bits {
        let read = self.common(|need| need.inside.is_empty());
        let mut forced = Bits::none(self.traffic.len());
        for &value in &self.wanted {
            forced.insert(value);
            forced.unite(&read[value.0]);
        }
        self.given.iter().for_each(|&v| forced.remove(v));
        forced
    }

    /// Kernels that make, over any number of steps, something that is wanted.
    pub fn useful(&self) -> Vec<usize> {
        let makers = self.makers();
        let mut open: Vec<ClassValueId> = self.wanted.iter().copied().collect();
        let mut seen: BTreeSet<ClassValueId> = self.given.iter().chain(&open).copied().collect();
        let mut found: BTreeSet<usize> = BTreeSet::new();
        while let Some(value) = open.pop() {
            for &k in &makers[value.0] {
                if found.insert(k) {
                    let needs = self.kernels[k].ops.iter().flat_map(|m| &m.needs);
                    open.extend(needs.map(|n| n.value).filter(|&v| seen.insert(v)));
                }
            }
        }
        found.into_iter().collect()
    }

    /// The kernels that make each value, by any op.
    pub fn makers(&self) -> Vec<Vec<usize>> {
        let mut makers = vec![vec![]; self.traffic.len()];
        for (k, kernel) in self.kernels.iter().enumerate() {
            for value in kernel.ops.iter().flat_map(|m| &m.makes) {
                if makers[value.0].last() != Some(&k) {
                    makers[value.0].push(k);
                }
            }
        }
        makers
    }

    /// Removes ops that are in no selection: those that would read, inside a kernel, what cannot be made without that
    /// kernel's first op. Returns the ops of each kernel that stay, by their positions until now.
    pub fn prune(&mut self) -> Vec<Vec<usize>> {
        let before = self.ancestors();
        let kernels = std::mem::take(&mut self.kernels);
        let mut kept = vec![];
        for mut kernel in kernels {
            let own = &kernel.ops[0].makes;
            let is_late = |v: ClassValueId| {
                !self.given.contains(&v) && own.iter().any(|made| before[v.0].contains(*made))
            };
            let mut stays = vec![true; kernel.ops.len()];
            loop {
                let lacks = |n: &Need| is_late(n.value) && !n.inside.iter().any(|&p| stays[p]);
                let gone = (1..stays.len()).find(|&m| stays[m] && kernel.ops[m].needs.iter().any(lacks));
                match gone {
                    Some(m) => stays[m] = false,
                    None => break,
                }
            }
            let positions: Vec<usize> = (0..stays.len()).filter(|&m| stays[m]).collect();
            let mut new = vec![None; stays.len()];
            positions.iter().enumerate().for_each(|(i, &m)| new[m] = Some(i));
            for (m, mut op) in std::mem::take(&mut kernel.ops).into_iter().enumerate() {
                if stays[m] {
                    for need in &mut op.needs {
                        need.inside = need.inside.iter().filter_map(|&p| new[p]).collect();
                    }
                    kernel.ops.push(op);
                }
            }
            self.kernels.push(kernel);
            kept.push(positions);
        }
        kept
    }

    /// For every value what all ways of making it have in common: the needs that `counts`, and theirs.
    fn common(&self, counts: impl Fn(&Need) -> bool) -> Vec<Bits> {
        let count = self.traffic.len();
        let recipes = self.recipes(counts);
        let mut known: Vec<Option<Bits>> = vec![None; count];
        self.given
            .iter()
            .for_each(|v| known[v.0] = Some(Bits::none(count)));
        let order = self.order(&recipes);
        loop {
            let mut changed = false;
            for &value in &order {
                let mut common: Option<Bits> = None;
                for recipe in &recipes[value.0] {
                    // A value of which nothing is known yet may still need everything.
                    if recipe.iter().any(|(need, _)| known[need.0].is_none()) {
                        continue;
                    }
                    let mut all = Bits::none(count);
                    for &(need, itself) in recipe {
                        all.unite(known[need.0].as_ref().expect("it was looked for"));
                        if itself {
                            all.insert(need);
                        }
                    }
                    match &mut common {
                        Some(common) => common.intersect(&all),
                        None => common = Some(all),
                    }
                }
                if common.is_some() && common != known[value.0] {
                    known[value.0] = common;
                    changed = true;
                }
            }
            if !changed {
                break;
            }
        }
        // What cannot be made comes after everything.
        known
            .into_iter()
            .map(|bits| bits.unwrap_or_else(|| Bits::all(count)))
            .collect()
    }

    /// The different ways of making each value.
    fn recipes(&self, counts: impl Fn(&Need) -> bool) -> Vec<Vec<Recipe>> {
        let mut recipes: Vec<Vec<Recipe>> = vec![vec![]; self.traffic.len()];
        let mut seen: HashSet<(ClassValueId, Recipe)> = HashSet::new();
        for op in self.kernels.iter().flat_map(|kernel| &kernel.ops) {
            let mut recipe: Recipe = op.needs.iter().map(|n| (n.value, counts(n))).collect();
            recipe.sort_unstable();
            for &value in op.makes.iter().filter(|v| !self.given.contains(v)) {
                if seen.insert((value, recipe.clone())) {
                    recipes[value.0].push(recipe.clone());
                }
            }
        }
        recipes
    }

    /// Values in an order in which they can be made; what cannot be made is left out.
    fn order(&self, recipes: &[Vec<Recipe>]) -> Vec<ClassValueId> {
        let mut lacking: Vec<(ClassValueId, usize)> = vec![];
        let mut users: HashMap<ClassValueId, Vec<usize>> = HashMap::new();
        let mut ready: Vec<ClassValueId> = vec![];
        for (value, recipes) in recipes.iter().enumerate() {
            for recipe in recipes {
                let needs: BTreeSet<ClassValueId> = recipe.iter().map(|need| need.0).collect();
                let needs = needs.into_iter().filter(|v| !self.given.contains(v));
                let mut missing = 0;
                for need in needs {
                    users.entry(need).or_default().push(lacking.len());
                    missing += 1;
                }
                lacking.push((ClassValueId(value), missing));
                if missing == 0 {
                    ready.push(ClassValueId(value));
                }
            }
        }
        let mut made = Bits::none(self.traffic.len());
        let mut order = vec![];
        let mut next = 0;
        ready.retain(|&v| {
            let new = !made.contains(v);
            made.insert(v);
            new
        });
        while next < ready.len() {
            let value = ready[next];
            next += 1;
            order.push(value);
            for &recipe in users.get(&value).into_iter().flatten() {
                let (makes, missing) = &mut lacking[recipe];
                *missing -= 1;
                if *missing == 0 && !made.contains(*makes) {
                    made.insert(*makes);
                    ready.push(*makes);
                }
            }
        }
        order
    }
}
