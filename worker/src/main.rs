//! Parses the command line, runs the command, and sets the exit code.

#![forbid(unsafe_code)]

use std::process::ExitCode;

use sq_shared::process::{command_line, telemetry};
use sq_worker::cli::{Cli, Command};
use sq_worker::commands::{fsck, healthcheck, pool, sandbox, serve};

fn main() -> ExitCode {
    let cli = match command_line::parse::<Cli>() {
        Ok(cli) => cli,
        Err(code) => return code,
    };
    telemetry::init(cli.log_format);
    let outcome = match cli.command {
        Command::Serve(options) => {
            return serve::run(options).unwrap_or_else(|failure| failure.report("sq-worker"));
        }
        Command::Pool(options) => pool::run(&options, cli.log_format),
        Command::Fsck(options) => fsck::run(&options),
        Command::Sandbox(options) => sandbox::run(&options),
        Command::Healthcheck(options) => healthcheck::run(&options),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report("sq-worker"),
    }
}
