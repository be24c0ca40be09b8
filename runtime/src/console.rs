//! Messages and progress of a long run, on stderr: a progress bar on a terminal, plain lines elsewhere. So a log file has no
//! control characters, and stdout has results only.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressFinish, ProgressStyle};
use std::io::{IsTerminal, Write};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Where messages go. Clones share the bar.
#[derive(Clone, Debug)]
pub struct Console {
    terminal: bool,
    colour: bool,
    silent: bool,
    bar: Arc<Mutex<Option<ProgressBar>>>,
}

impl Console {
    /// Messages to stderr; bars if it is a terminal, colours if `NO_COLOR` is not set there.
    pub fn stderr() -> Console {
        let terminal = std::io::stderr().is_terminal();
        let refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Console {
            terminal,
            colour: terminal && !refused,
            silent: false,
            bar: Arc::default(),
        }
    }

    /// No messages at all.
    pub fn silent() -> Console {
        Console {
            terminal: false,
            colour: false,
            silent: true,
            bar: Arc::default(),
        }
    }

    /// Starts a bar over `total` things, `done` of them done; the one before ends.
    pub fn start(&self, what: &str, done: u64, total: u64) {
        self.finish();
        if !self.terminal {
            return;
        }
        let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr_with_hz(5))
            .with_finish(ProgressFinish::AndClear);
        let template = if self.colour {
            "{prefix} {bar:30.cyan/blue} {pos}/{len} {msg} {eta} left"
        } else {
            "{prefix} {bar:30} {pos}/{len} {msg} {eta} left"
        };
        // A template of ours that indicatif does not take would be our bug; its own style then serves.
        bar.set_style(
            ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()),
        );
        bar.set_prefix(what.to_string());
        bar.set_position(done);
        bar.reset_eta();
        bar.enable_steady_tick(Duration::from_millis(500));
        *self.bar() = Some(bar);
    }

    /// Moves the bar on, with a message behind it.
    pub fn advance(&self, done: u64, message: &str) {
        if let Some(bar) = &*self.bar() {
            bar.set_position(done);
            bar.set_message(message.to_string());
        }
    }

    /// Removes the bar.
    pub fn finish(&self) {
        if let Some(bar) = self.bar().take() {
            bar.finish_and_clear();
        }
    }

    /// Whether a bar can be shown, which replaces the line per step.
    pub fn is_terminal(&self) -> bool {
        self.terminal
    }

    /// Prints a line.
    pub fn say(&self, line: &str) {
        if self.silent {
            return;
        }
        let print = || {
            // Nobody is left to tell when stderr is closed.
            let _ = writeln!(std::io::stderr().lock(), "{line}");
        };
        match &*self.bar() {
            Some(bar) => bar.suspend(print),
            None => print(),
        }
    }

    /// Prints a warning.
    pub fn warn(&self, line: &str) {
        if self.colour {
            self.say(&format!("\x1b[33mwarning:\x1b[0m {line}"));
        } else {
            self.say(&format!("warning: {line}"));
        }
    }

    /// Prints an error.
    pub fn error(&self, line: &str) {
        if self.colour {
            self.say(&format!("\x1b[31merror:\x1b[0m {line}"));
        } else {
            self.say(&format!("error: {line}"));
        }
    }

    fn bar(&self) -> MutexGuard<'_, Option<ProgressBar>> {
        self.bar.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
