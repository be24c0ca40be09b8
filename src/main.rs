//! The `alexc` command.

fn main() -> std::process::ExitCode {
    alexc::cli::main()
}
