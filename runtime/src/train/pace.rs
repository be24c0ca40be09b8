//! The speed of a run, its expected time, and the share of time that it waits for data.

use std::time::{Duration, Instant};

/// Between two lines in a log, and between two looks at the time spent waiting.
const LINE_INTERVAL: Duration = Duration::from_secs(10);
const WAITING_INTERVAL: Duration = Duration::from_secs(30);
/// A warning is repeated no sooner.
const WARNING_INTERVAL: Duration = Duration::from_secs(300);
/// The share of time spent waiting that is worth a warning.
const WAITING_SHARE: f64 = 0.2;

/// Measures steps.
pub struct Pace {
    batch: u64,
    /// When the last step ended, or training began or went on after something else.
    mark: Instant,
    steps: u64,
    spent: Duration,
    last_line: Option<Instant>,
    window: Window,
    last_warning: Option<Instant>,
}

#[derive(Default)]
struct Window {
    spent: Duration,
    waited: Duration,
}

impl Pace {
    /// For steps of `batch` images; the clock starts.
    pub fn new(batch: u64) -> Pace {
        let (mark, window) = (Instant::now(), Window::default());
        Pace {
            batch,
            mark,
            steps: 0,
            spent: Duration::ZERO,
            last_line: None,
            window,
            last_warning: None,
        }
    }

    /// Restarts the clock after an evaluation or a checkpoint, whose time does not count.
    pub fn resume(&mut self) {
        self.mark = Instant::now();
    }

    /// Records a finished step that waited `waited` for its data. Returns its images per second, rounded for the log.
    pub fn step_done(&mut self, waited: Duration) -> f64 {
        let spent = self.mark.elapsed();
        self.mark = Instant::now();
        self.steps += 1;
        self.spent += spent;
        self.window.spent += spent;
        self.window.waited += waited;
        (self.batch as f64 / spent.as_secs_f64().max(1e-9) * 10.0).round() / 10.0
    }

    /// Images a second over all steps.
    pub fn images_per_s(&self) -> f64 {
        (self.steps * self.batch) as f64 / self.spent.as_secs_f64().max(1e-9)
    }

    /// The mean time of a step.
    pub fn step_time(&self) -> Duration {
        self.spent
            .checked_div(u32::try_from(self.steps).unwrap_or(u32::MAX))
            .unwrap_or_default()
    }

    /// The expected time of `steps` steps, for display.
    pub fn time_left(&self, steps: u64) -> String {
        let seconds = (self.step_time().as_secs_f64() * steps as f64) as u64;
        let (hours, minutes) = (seconds / 3600, seconds / 60 % 60);
        if hours > 0 {
            format!("{hours} h {minutes} min")
        } else {
            format!("{minutes} min {} s", seconds % 60)
        }
    }

    /// Whether it is time for a line in the log.
    pub fn line_is_due(&mut self) -> bool {
        let due = self.last_line.is_none_or(|last| last.elapsed() >= LINE_INTERVAL);
        if due {
            self.last_line = Some(Instant::now());
        }
        due
    }

    /// The share of time spent waiting for data, when it is worth a warning now.
    pub fn waiting(&mut self) -> Option<f64> {
        if self.window.spent < WAITING_INTERVAL {
            return None;
        }
        let window = std::mem::take(&mut self.window);
        let share = window.waited.as_secs_f64() / window.spent.as_secs_f64();
        let quiet = self
            .last_warning
            .is_none_or(|last| last.elapsed() >= WARNING_INTERVAL);
        if share < WAITING_SHARE || !quiet {
            return None;
        }
        self.last_warning = Some(Instant::now());
        Some(share)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waiting_is_told_once_it_matters() {
        let mut pace = Pace::new(8);
        pace.window = Window {
            spent: WAITING_INTERVAL,
            waited: WAITING_INTERVAL / 10,
        };
        assert_eq!(pace.waiting(), None);
        assert!(pace.window.spent.is_zero(), "the next window begins");
        pace.window = Window {
            spent: WAITING_INTERVAL,
            waited: WAITING_INTERVAL / 2,
        };
        assert_eq!(pace.waiting(), Some(0.5));
        pace.window = Window {
            spent: WAITING_INTERVAL,
            waited: WAITING_INTERVAL / 2,
        };
        assert_eq!(pace.waiting(), None, "not again so soon");
        pace.window = Window {
            spent: WAITING_INTERVAL / 2,
            waited: WAITING_INTERVAL / 2,
        };
        assert_eq!(pace.waiting(), None, "not before the window is full");
    }

    #[test]
    fn speed_and_time_left() {
        let mut pace = Pace::new(10);
        assert_eq!(pace.time_left(5), "0 min 0 s");
        (pace.steps, pace.spent) = (4, Duration::from_secs(8));
        assert_eq!(pace.images_per_s(), 5.0);
        assert_eq!(pace.time_left(45), "1 min 30 s");
        assert_eq!(pace.time_left(3600), "2 h 0 min");
        assert!(pace.line_is_due() && !pace.line_is_due());
    }
}
