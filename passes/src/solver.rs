//! Integer programs: what the searches share of stating one and solving it with HiGHS.

use good_lp::variable::VariableDefinition;
use good_lp::{Constraint, Expression, ProblemVariables, SolverModel, Variable, highs, variable};
use std::collections::HashMap;

/// Limits of a search.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Limits {
    /// Seconds that the solver may take.
    pub seconds: f64,
    /// The gap at which it may stop, relative to the cost.
    pub gap: f64,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            seconds: 20.0,
            gap: 1e-3,
        }
    }
}

/// Runs of a program that a search for a better one may take as long as, and the seconds that it may take in any case.
const WORTH_RUNS: f64 = 1000.0;
const WORTH_SECONDS: f64 = 0.1;

/// How far a solution's cost may be from what the solver says, relative to it.
const TOLERANCE: f64 = 1e-3;

impl Limits {
    /// No more seconds than a program is worth that is known to take so many.
    pub fn worth(self, seconds: f64) -> Limits {
        Limits {
            seconds: (WORTH_RUNS * seconds).max(WORTH_SECONDS).min(self.seconds),
            ..self
        }
    }
}

/// A variable, and its place in the solution.
#[derive(Clone, Copy, Debug)]
pub struct Column {
    /// For rows and costs.
    pub variable: Variable,
    position: usize,
}

/// An integer program being stated.
#[derive(Clone, Default)]
pub struct Model {
    variables: ProblemVariables,
    columns: Vec<Variable>,
    rows: Vec<Constraint>,
}

/// A solution.
#[derive(Clone, Debug)]
pub struct Solution {
    values: Vec<f64>,
    /// What it costs.
    pub cost: f64,
    /// No solution costs less.
    pub bound: f64,
}

/// How far a program is solved, within the limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Budget {
    /// To the gap.
    Whole,
    /// For so many nodes of the search: unlike seconds, they do not depend on what else a machine does.
    Nodes(i32),
    /// As if no variable had to be whole: a bound.
    Relaxed,
}

/// What the solver says of a program.
#[derive(Clone, Debug)]
pub enum Answer {
    /// The cheapest solution, or what is known of it at a limit.
    Solved(Solution),
    /// Nothing meets all conditions.
    Infeasible,
    /// No solution was found at a limit; none costs less than the bound.
    Unknown {
        /// May be minus infinity.
        bound: f64,
    },
}

impl Model {
    /// A variable that is 0 or 1.
    pub fn binary(&mut self) -> Column {
        self.add(variable().binary())
    }

    /// A variable that is not negative.
    pub fn positive(&mut self) -> Column {
        self.add(variable().min(0))
    }

    fn add(&mut self, definition: VariableDefinition) -> Column {
        let variable = self.variables.add(definition);
        self.columns.push(variable);
        Column {
            variable,
            position: self.columns.len() - 1,
        }
    }

    /// Something that must hold.
    pub fn row(&mut self, row: Constraint) {
        self.rows.push(row);
    }

    /// How many variables there are.
    pub fn columns(&self) -> usize {
        self.columns.len()
    }

    /// The cheapest solution, from one that is known, if one is: the columns that are not zero, with their values.
    ///
    /// Costs should lie around 1000: the solver's tolerances are absolute.
    pub fn minimise(
        self,
        cost: Expression,
        start: &[(Column, f64)],
        limits: Limits,
    ) -> Result<Solution, String> {
        self.minimise_within(cost, start, limits, Budget::Whole)
    }

    /// The same, as far as the budget goes.
    pub fn minimise_within(
        self,
        cost: Expression,
        start: &[(Column, f64)],
        limits: Limits,
        budget: Budget,
    ) -> Result<Solution, String> {
        if self.columns.is_empty() {
            return Ok(Solution {
                values: vec![],
                cost: 0.0,
                bound: 0.0,
            });
        }
        let answer = match self.attempt(&cost, start, limits, budget)? {
            Ok(answer) => answer,
            Err(_) if !start.is_empty() => self.answer(&cost, limits, budget)?,
            Err(error) => return Err(error),
        };
        match answer {
            Answer::Solved(solution) => Ok(solution),
            Answer::Infeasible => Err("nothing meets all conditions".to_string()),
            Answer::Unknown { .. } => Err("the solver found nothing within its limits".to_string()),
        }
    }

    /// What there is to say of the cheapest solution.
    pub fn answer(&self, cost: &Expression, limits: Limits, budget: Budget) -> Result<Answer, String> {
        self.attempt(cost, &[], limits, budget)?
    }

    /// An answer, or how it contradicts itself: HiGHS 1.16 was seen to call a start the optimum, at a cost that it does not
    /// have. Other errors are final.
    fn attempt(
        &self,
        cost: &Expression,
        start: &[(Column, f64)],
        limits: Limits,
        budget: Budget,
    ) -> Result<Result<Answer, String>, String> {
        let mut model = self.variables.clone().minimise(cost.clone()).using(highs);
        for row in &self.rows {
            model = model.with(row.clone());
        }
        // good_lp's own solution has no bound, so the solver's is asked for it.
        let mut model = model.try_into_inner().map_err(|error| error.to_string())?;
        model.make_quiet();
        model.set_option("threads", 1);
        model.set_option("parallel", "off");
        model.set_option("time_limit", limits.seconds);
        model.set_option("mip_rel_gap", limits.gap);
        match budget {
            Budget::Whole => {}
            Budget::Nodes(nodes) => model.set_option("mip_max_nodes", nodes),
            Budget::Relaxed => model.set_option("solve_relaxation", true),
        }
        let mut known = vec![0.0; self.columns.len()];
        start
            .iter()
            .for_each(|(column, value)| known[column.position] = *value);
        if !start.is_empty() {
            model
                .try_set_solution(Some(&known), None, None, None)
                .map_err(|error| format!("the start was refused: {error:?}"))?;
        }
        let solved = model.try_solve().map_err(|error| format!("{error:?}"))?;
        // Costs are bounded from below, so what may be either is infeasible.
        if ["Infeasible", "UnboundedOrInfeasible"].contains(&&format!("{:?}", solved.status())[..]) {
            return Ok(Ok(Answer::Infeasible));
        }
        let bound = match budget {
            Budget::Relaxed => solved.objective_value(),
            Budget::Whole | Budget::Nodes(_) => solved
                .double_info_value(c"mip_dual_bound")
                .map_err(|error| format!("no bound: {error:?}"))?,
        };
        let values = solved.get_solution().columns().to_vec();
        // Without a solution there are zeros, at an infinite cost.
        if values.len() != self.columns.len() || !solved.objective_value().is_finite() {
            return Ok(Ok(Answer::Unknown { bound }));
        }
        let of_variables: HashMap<Variable, f64> =
            self.columns.iter().copied().zip(values.iter().copied()).collect();
        let (found, says) = (cost.eval_with(&of_variables), solved.objective_value());
        Ok(match (found - says).abs() <= TOLERANCE * (1.0 + says.abs()) {
            true => Ok(Answer::Solved(Solution {
                values,
                cost: found,
                bound,
            })),
            false => Err(format!("the solver says {says} of a solution that costs {found}")),
        })
    }
}

impl Solution {
    /// The value of a variable.
    pub fn value(&self, column: Column) -> f64 {
        self.values[column.position]
    }

    /// Whether a variable is 1.
    pub fn is_set(&self, column: Column) -> bool {
        self.value(column) > 0.5
    }
}
