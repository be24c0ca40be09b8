//! Ctrl-C and SIGTERM ask a run to stop: it saves a checkpoint and ends. A second signal ends the process at once.

use crate::Error;
use signal_hook::consts::{SIGINT, SIGTERM};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// A request to stop.
#[derive(Clone, Debug, Default)]
pub struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    /// One that only [`Interrupt::ask`] sets; for tests and for callers with signals of their own.
    pub fn never() -> Interrupt {
        Interrupt::default()
    }

    /// One that SIGINT and SIGTERM set.
    pub fn on_signals() -> Result<Interrupt, Error> {
        let interrupt = Interrupt::default();
        for signal in [SIGINT, SIGTERM] {
            // In this order: the second signal finds the flag set and ends the process.
            signal_hook::flag::register_conditional_shutdown(signal, 130, interrupt.0.clone())
                .and_then(|_| signal_hook::flag::register(signal, interrupt.0.clone()))
                .map_err(|error| Error::work(format!("signals cannot be watched: {error}")))?;
        }
        Ok(interrupt)
    }

    /// Asks to stop.
    pub fn ask(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Whether somebody asked.
    pub fn asked(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}
