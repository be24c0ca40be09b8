//! The integer program.
//!
//! ```text
//! take[c] ∈ {0, 1}            candidate c runs
//! store[c, v] ∈ {0, 1}        and stores value v:         store[c, v] ≤ take[c]
//! seconds[c] ≥ compute · take[c]
//! seconds[c] ≥ read · take[c] + Σ store seconds · store[c, v]
//! Σ over c of store[c, v] ≥ 1                             for every wanted v
//! Σ over c of store[c, v] ≥ take[d]                       for every v that d needs
//! minimise Σ seconds[c] + launch · take[c]
//! ```
//!
//! That says nothing of order, so a solution may contain candidates that wait for each other. Such a cycle is cut and the
//! program solved again: of the candidates that make one of the cycle's values without needing another, one must run. Cycles
//! that no solution contains cost nothing. The bound of the last program holds for the whole, since every row is true of
//! every selection that can run.

use super::{ExtractError, Problem, Selection, Taken, ValueIx, greedy};
use good_lp::variable::VariableDefinition;
use good_lp::{Constraint, Expression, ProblemVariables, SolverModel, Variable, constraint, highs, variable};
use std::collections::{BTreeMap, BTreeSet};

/// Limits of a search.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Limits {
    /// Seconds that the solver may take, over all rounds.
    pub seconds: f64,
    /// The gap at which it may stop, relative to the cost.
    pub gap: f64,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            seconds: 20.0,
            gap: 1e-6,
        }
    }
}

/// How the solver came to its answer.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Effort {
    /// Programs solved: one, and one for each round of cuts.
    pub rounds: usize,
    /// Cycles cut.
    pub cuts: usize,
    /// Variables of a program.
    pub variables: usize,
}

/// Costs are handed to the solver in such units that the greedy selection costs this much: its tolerances are absolute.
const SCALE: f64 = 1e3;

/// The optimum, from a greedy selection as a start.
pub fn select(problem: &Problem, limits: &Limits) -> Result<(Selection, Effort), ExtractError> {
    let start = greedy::select(problem)?;
    let begun = std::time::Instant::now();
    let useful = problem.useful();
    let mut cuts: Vec<Cut> = vec![];
    let mut effort = Effort::default();
    loop {
        let left = (limits.seconds - begun.elapsed().as_secs_f64()).max(0.1);
        let program = Program::new(problem, &useful, start.seconds.max(f64::MIN_POSITIVE) / SCALE);
        effort.rounds += 1;
        effort.variables = program.columns;
        let (chosen, bound) = program.solve(&start, &cuts, Limits { seconds: left, ..*limits })?;
        match problem.order(&chosen) {
            Ok(taken) => {
                let selection = Selection {
                    seconds: problem.seconds(&taken),
                    taken,
                    bound,
                };
                return Ok((selection, effort));
            }
            Err(missing) => {
                // A solution that keeps every cut can be ordered, or misses this one.
                let cut = Cut::new(problem, &chosen, missing);
                if cuts.contains(&cut) || begun.elapsed().as_secs_f64() > limits.seconds {
                    let found = format!("after {} cuts value {} is still not made", cuts.len(), missing.0);
                    return Err(ExtractError::Solver(found));
                }
                effort.cuts += 1;
                cuts.push(cut);
            }
        }
    }
}

/// Candidates of which at least one must run: those that reach into a set of values from outside of it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Cut(BTreeSet<usize>);

impl Cut {
    /// The values that chosen candidates make only of each other, on the way to a value that is therefore missing.
    fn new(problem: &Problem, chosen: &[usize], missing: ValueIx) -> Cut {
        let here = problem.reached(chosen);
        let mut inside: BTreeSet<ValueIx> = [missing].into();
        let mut open = vec![missing];
        while let Some(value) = open.pop() {
            let offer = |c: &&usize| problem.candidates[**c].offers.iter().any(|o| o.0 == value);
            for &c in chosen.iter().filter(offer) {
                let waits = problem.candidates[c].needs.iter().filter(|v| !here.contains(v));
                open.extend(waits.filter(|v| inside.insert(**v)));
            }
        }
        let enters = |c: &usize| {
            let candidate = &problem.candidates[*c];
            let offers = candidate.offers.iter().any(|o| inside.contains(&o.0));
            offers && !candidate.needs.iter().any(|v| inside.contains(v))
        };
        Cut((0..problem.candidates.len()).filter(enters).collect())
    }
}

/// A variable, and its position among the columns that the solver answers with.
#[derive(Clone, Copy)]
struct Column {
    variable: Variable,
    position: usize,
}

struct Program<'a> {
    problem: &'a Problem,
    /// Seconds that the solver calls one.
    unit: f64,
    variables: ProblemVariables,
    columns: usize,
    take: BTreeMap<usize, Column>,
    store: BTreeMap<(usize, ValueIx), Column>,
    seconds: BTreeMap<usize, Column>,
}

impl Program<'_> {
    fn new<'a>(problem: &'a Problem, useful: &[usize], unit: f64) -> Program<'a> {
        let mut program = Program {
            problem,
            unit,
            variables: ProblemVariables::new(),
            columns: 0,
            take: BTreeMap::new(),
            store: BTreeMap::new(),
            seconds: BTreeMap::new(),
        };
        for &c in useful {
            let taken = program.add(variable().binary());
            program.take.insert(c, taken);
            let seconds = program.add(variable().min(0));
            program.seconds.insert(c, seconds);
            for &(value, _) in &problem.candidates[c].offers {
                if !problem.given.contains(&value) && !program.store.contains_key(&(c, value)) {
                    let stored = program.add(variable().binary());
                    program.store.insert((c, value), stored);
                }
            }
        }
        program
    }

    fn add(&mut self, definition: VariableDefinition) -> Column {
        let position = self.columns;
        self.columns += 1;
        Column {
            variable: self.variables.add(definition),
            position,
        }
    }

    /// The candidates taken, and the bound on the cost in seconds.
    fn solve(
        mut self,
        start: &Selection,
        cuts: &[Cut],
        limits: Limits,
    ) -> Result<(Vec<usize>, f64), ExtractError> {
        let cost = self.cost();
        let mut model = std::mem::take(&mut self.variables).minimise(cost).using(highs);
        for row in self.rows(cuts)? {
            model = model.with(row);
        }
        let failed = |error: String| ExtractError::Solver(error);
        // good_lp's own solution has no bound, so the solver's is asked for it.
        let mut model = model.try_into_inner().map_err(|error| failed(error.to_string()))?;
        model.make_quiet();
        model.set_option("threads", 1);
        model.set_option("parallel", "off");
        model.set_option("time_limit", limits.seconds);
        model.set_option("mip_rel_gap", limits.gap);
        model.set_solution(Some(&self.values(start)), None, None, None);
        let solved = model.try_solve().map_err(|error| failed(format!("{error:?}")))?;
        let bound = solved
            .double_info_value(c"mip_dual_bound")
            .map_err(|error| failed(format!("no bound: {error:?}")))?;
        let solution = solved.get_solution();
        let value = |column: &Column| solution.columns().get(column.position).copied().unwrap_or(0.0);
        let chosen = self.take.iter().filter(|(_, column)| value(column) > 0.5);
        Ok((chosen.map(|(&c, _)| c).collect(), bound * self.unit))
    }

    fn cost(&self) -> Expression {
        let mut cost = Expression::default();
        for (c, seconds) in &self.seconds {
            cost += seconds.variable;
            cost += self.problem.candidates[*c].launch / self.unit * self.take[c].variable;
        }
        cost
    }

    fn rows(&self, cuts: &[Cut]) -> Result<Vec<Constraint>, ExtractError> {
        let (problem, mut rows) = (self.problem, vec![]);
        let mut made: BTreeMap<ValueIx, Expression> = BTreeMap::new();
        for (&(_, value), stored) in &self.store {
            *made.entry(value).or_default() += stored.variable;
        }
        for (&c, taken) in &self.take {
            let (candidate, taken) = (&problem.candidates[c], taken.variable);
            let mut traffic = candidate.read / self.unit * taken;
            for &(value, seconds) in &candidate.offers {
                if let Some(stored) = self.store.get(&(c, value)) {
                    rows.push(constraint!(stored.variable <= taken));
                    traffic += seconds / self.unit * stored.variable;
                }
            }
            let seconds = self.seconds[&c].variable;
            rows.push(constraint!(seconds >= candidate.compute / self.unit * taken));
            rows.push(constraint!(seconds >= traffic));
            for value in candidate.needs.iter().filter(|v| !problem.given.contains(v)) {
                rows.push(match made.get(value) {
                    Some(made) => constraint!(made.clone() >= taken),
                    None => constraint!(taken <= 0),
                });
            }
        }
        for value in problem.wanted.iter().filter(|v| !problem.given.contains(v)) {
            let made = made.get(value).cloned().ok_or(ExtractError::Unmade(value.0))?;
            rows.push(constraint!(made >= 1));
        }
        for Cut(entering) in cuts {
            let sum: Expression = entering.iter().filter_map(|c| Some(self.take.get(c)?.variable)).sum();
            rows.push(constraint!(sum >= 1));
        }
        Ok(rows)
    }

    /// The values of all variables in a selection, by column.
    fn values(&self, selection: &Selection) -> Vec<f64> {
        let mut values = vec![0.0; self.columns];
        for Taken { candidate: c, stores } in &selection.taken {
            let candidate = &self.problem.candidates[*c];
            values[self.take[c].position] = 1.0;
            stores.iter().for_each(|v| values[self.store[&(*c, *v)].position] = 1.0);
            let seconds = candidate.seconds(|v| stores.contains(&v)) - candidate.launch;
            values[self.seconds[c].position] = seconds / self.unit;
        }
        values
    }
}
