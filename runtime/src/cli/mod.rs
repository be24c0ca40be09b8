//! The commands that `alexc` and `alexrun` share. Here they take an artifact that is in memory: `alexc` has just
//! compiled it, `alexrun` has just read it. Results go to stdout, everything else to stderr.

mod bench;
mod check;
mod eval;
mod predict;
mod run;
mod train;

pub use bench::BenchArgs;
pub use check::CheckArgs;
pub use eval::EvalArgs;
pub use predict::PredictArgs;
pub use run::RunArgs;
pub use train::TrainArgs;

use crate::console::Console;
use crate::{DeviceSpec, Error};
use serde::Serialize;
use std::io::Write;
use std::process::ExitCode;

/// Where to run.
#[derive(Clone, Debug, clap::Args)]
pub struct DeviceArgs {
    /// Devices, separated by commas: cpu (all cores), cpu:K (one core), cpu:A-B, cuda:K (a GPU), sim (its emulator)
    #[arg(long, alias = "device", value_name = "D[,D]", default_value = "cpu")]
    pub devices: String,
}

impl DeviceArgs {
    /// The devices named.
    pub fn parse(&self) -> Result<Vec<DeviceSpec>, Error> {
        DeviceSpec::parse_list(&self.devices)
    }
}

/// How to print results.
#[derive(Clone, Copy, Debug, clap::Args)]
pub struct OutputArgs {
    /// Print JSON: one object on stdout and nothing else
    #[arg(long)]
    pub json: bool,
}

impl OutputArgs {
    /// Prints a result: as JSON, or as `text` for people.
    pub fn print(&self, result: &impl Serialize, text: impl FnOnce() -> String) -> Result<(), Error> {
        if self.json {
            let json = serde_json::to_string(result)
                .map_err(|error| Error::work(format!("the result cannot be printed as JSON: {error}")))?;
            print(&json)
        } else {
            print(text().trim_end())
        }
    }
}

/// Prints to stdout. A closed pipe is not an error, so that `alexc bench | head` ends quietly.
pub fn print(text: &str) -> Result<(), Error> {
    let mut stdout = std::io::stdout().lock();
    match writeln!(stdout, "{text}").and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(Error::work(format!("the result cannot be printed: {error}")))
        }
        _ => Ok(()),
    }
}

/// The exit code of a program, after its error was printed: 0 success, 1 the work failed, 2 bad usage or bad
/// input, 130 stopped by Ctrl-C with everything saved.
pub fn exit(outcome: Result<(), Error>) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(Error::Interrupted(message)) => {
            Console::stderr().say(&message);
            ExitCode::from(130)
        }
        Err(error @ Error::Report(_)) => {
            Console::stderr().say(error.to_string().trim_end());
            ExitCode::from(error.exit_code())
        }
        Err(error) => {
            Console::stderr().error(&error.to_string());
            ExitCode::from(error.exit_code())
        }
    }
}
