//! The program `sq-worker`.

#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    sq_worker::cli::main()
}
