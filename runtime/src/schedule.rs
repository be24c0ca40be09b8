//! The learning rate over a run: a small state machine. Every checkpoint contains its state, so that a resumed run lowers the
//! learning rate at the same epochs as an uninterrupted one.

use serde::{Deserialize, Serialize};

/// How the learning rate changes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase", try_from = "Table")]
pub enum Schedule {
    /// It is constant.
    #[default]
    Constant,
    /// It is multiplied by `factor` after each of these epochs.
    Steps {
        /// Numbers of finished epochs, ascending.
        epochs: Vec<u64>,
        /// Between 0 and 1.
        factor: f64,
    },
    /// It is multiplied by `factor` when the validation error has not improved, at most `times` times.
    Plateau {
        /// Between 0 and 1.
        factor: f64,
        /// The number of evaluations in a row without a new best.
        patience: u64,
        /// As AlexNet's authors did it by hand: three times.
        times: u64,
    },
}

/// The table as written. It is flat, because serde loses the positions of keys in tagged tables.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    #[serde(default)]
    kind: Kind,
    epochs: Option<Vec<u64>>,
    factor: Option<f64>,
    patience: Option<u64>,
    times: Option<u64>,
}

#[derive(Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Kind {
    #[default]
    Constant,
    Steps,
    Plateau,
}

impl TryFrom<Table> for Schedule {
    type Error = String;

    fn try_from(table: Table) -> Result<Schedule, String> {
        let Table {
            kind,
            epochs,
            factor,
            patience,
            times,
        } = table;
        let (kind_name, foreign) = match kind {
            Kind::Constant => (
                "constant",
                [
                    epochs.is_some(),
                    factor.is_some(),
                    patience.is_some(),
                    times.is_some(),
                ],
            ),
            Kind::Steps => ("steps", [false, false, patience.is_some(), times.is_some()]),
            Kind::Plateau => ("plateau", [epochs.is_some(), false, false, false]),
        };
        let names = ["epochs", "factor", "patience", "times"];
        if let Some((name, _)) = names.iter().zip(foreign).find(|(_, given)| *given) {
            return Err(format!(
                "`{name}` means nothing to the schedule \"{kind_name}\"; remove it or change kind"
            ));
        }
        let factor = factor.unwrap_or(0.1);
        Ok(match kind {
            Kind::Constant => Schedule::Constant,
            Kind::Steps => {
                let epochs =
                    epochs.ok_or("the schedule \"steps\" needs `epochs`, as epochs = [25, 51, 79]")?;
                Schedule::Steps { epochs, factor }
            }
            Kind::Plateau => Schedule::Plateau {
                factor,
                patience: patience.unwrap_or(5),
                times: times.unwrap_or(3),
            },
        })
    }
}

/// The state of a schedule.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScheduleState {
    /// How often the learning rate was multiplied.
    pub drops: u64,
    /// The lowest validation error so far.
    pub best: Option<f64>,
    /// Evaluations since then, or since the last drop.
    pub waited: u64,
}

impl Schedule {
    /// The current learning rate, for the recipe's learning rate `base`.
    pub fn rate(&self, base: f64, state: &ScheduleState) -> f64 {
        let factor = match self {
            Schedule::Constant => 1.0,
            Schedule::Steps { factor, .. } | Schedule::Plateau { factor, .. } => *factor,
        };
        // Not `powi`, whose last digit may differ between compilers.
        (0..state.drops).fold(base, |rate, _| rate * factor)
    }

    /// Whether the schedule needs the validation error.
    pub fn needs_validation(&self) -> bool {
        matches!(self, Schedule::Plateau { .. })
    }

    /// Records the end of epoch `finished` with this validation error. Returns whether the learning rate drops.
    pub fn epoch_ended(&self, state: &mut ScheduleState, finished: u64, error: Option<f64>) -> bool {
        let drops = match self {
            Schedule::Constant => false,
            Schedule::Steps { epochs, .. } => epochs.contains(&finished),
            Schedule::Plateau { patience, times, .. } => match error {
                Some(error) if state.best.is_none_or(|best| error < best) => {
                    state.best = Some(error);
                    state.waited = 0;
                    false
                }
                Some(_) => {
                    state.waited += 1;
                    state.waited >= *patience && state.drops < *times
                }
                None => false,
            },
        };
        if drops {
            state.drops += 1;
            state.waited = 0;
        }
        drops
    }

    /// The first invalid value, if there is one.
    pub fn problem(&self) -> Option<String> {
        let (factor, patience) = match self {
            Schedule::Constant => return None,
            Schedule::Steps { epochs, factor } => {
                if epochs.first() == Some(&0) || !epochs.is_sorted_by(|a, b| a < b) {
                    return Some(format!(
                        "epochs = {epochs:?}: expected ascending numbers from 1, as [25, 51, 79]"
                    ));
                }
                (*factor, 1)
            }
            Schedule::Plateau { factor, patience, .. } => (*factor, *patience),
        };
        if !(factor > 0.0 && factor < 1.0) {
            return Some(format!(
                "factor = {factor}: the rate is multiplied by it, so expected between 0 and 1; to divide by 10 write 0.1"
            ));
        }
        (patience == 0).then(|| "patience = 0: expected at least 1 evaluation".to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The rates of the epochs that follow these validation errors.
    fn rates(schedule: &Schedule, errors: &[f64]) -> Vec<f64> {
        let mut state = ScheduleState::default();
        let rate = |(i, &error): (usize, &f64)| {
            schedule.epoch_ended(&mut state, i as u64 + 1, Some(error));
            // Through a checkpoint each time.
            state = serde_json::from_str(&serde_json::to_string(&state).unwrap()).unwrap();
            schedule.rate(1.0, &state)
        };
        errors.iter().enumerate().map(rate).collect()
    }

    #[test]
    fn constant_stays() {
        assert_eq!(rates(&Schedule::Constant, &[1.0, 2.0, 3.0]), [1.0; 3]);
    }

    #[test]
    fn steps_fall_after_their_epochs() {
        let schedule = Schedule::Steps {
            epochs: vec![2, 3],
            factor: 0.5,
        };
        assert_eq!(rates(&schedule, &[0.0; 5]), [1.0, 0.5, 0.25, 0.25, 0.25]);
    }

    #[test]
    fn a_plateau_divides_when_nothing_improves_and_only_so_often() {
        let schedule = Schedule::Plateau {
            factor: 0.5,
            patience: 2,
            times: 2,
        };
        let errors = [9.0, 8.0, 8.0, 8.5, 8.4, 7.0, 7.5, 7.0, 7.0, 7.0, 7.0, 7.0];
        let expected = [1.0, 1.0, 1.0, 0.5, 0.5, 0.5, 0.5, 0.25, 0.25, 0.25, 0.25, 0.25];
        assert_eq!(rates(&schedule, &errors), expected);
    }

    #[test]
    fn an_error_that_is_no_number_is_no_improvement() {
        let schedule = Schedule::Plateau {
            factor: 0.5,
            patience: 1,
            times: 9,
        };
        assert_eq!(rates(&schedule, &[1.0, f64::NAN, 0.5]), [1.0, 0.5, 0.5]);
    }

    #[test]
    fn numbers_that_make_no_sense_are_told() {
        for (schedule, part) in [
            (
                Schedule::Steps {
                    epochs: vec![3, 2],
                    factor: 0.1,
                },
                "ascending",
            ),
            (
                Schedule::Steps {
                    epochs: vec![0],
                    factor: 0.1,
                },
                "ascending",
            ),
            (
                Schedule::Steps {
                    epochs: vec![1],
                    factor: 10.0,
                },
                "to divide by 10 write 0.1",
            ),
            (
                Schedule::Plateau {
                    factor: f64::NAN,
                    patience: 1,
                    times: 1,
                },
                "between 0 and 1",
            ),
            (
                Schedule::Plateau {
                    factor: 0.1,
                    patience: 0,
                    times: 1,
                },
                "patience = 0",
            ),
        ] {
            assert!(schedule.problem().unwrap().contains(part));
        }
        assert_eq!(
            Schedule::Steps {
                epochs: vec![25, 51, 79],
                factor: 0.1
            }
            .problem(),
            None
        );
    }
}
