//! The `alexc` command: joins the crates and owns no logic of theirs.

mod cli;
mod compile;
mod peak;
mod show;

fn main() -> std::process::ExitCode {
    cli::main()
}
