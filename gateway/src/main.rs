//! Parses the command line, runs the command, and converts its result to an exit code.

#![forbid(unsafe_code)]

use std::process::ExitCode;

use mimalloc::MiMalloc;
use sq_gateway::cli::{Cli, Command};
use sq_gateway::commands::{check, healthcheck, import, provision, serve, tenants, up};
use sq_shared::process::{command_line, telemetry};

/// Pingora and its libraries allocate about a hundred times per request: docs/decisions/0012-performance.md.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    let cli = match command_line::parse::<Cli>() {
        Ok(cli) => cli,
        Err(code) => return code,
    };
    telemetry::init(cli.log_format);
    let outcome = match cli.command {
        Command::Up(options) => up::run(&options, cli.log_format),
        Command::Serve(options) => serve::run(options),
        Command::Provision(options) => provision::run(&options),
        Command::Tenants(options) => tenants::run(&options),
        Command::Import(options) => import::run(&options),
        Command::Check(options) => check::run(&options),
        Command::Healthcheck(options) => healthcheck::run(&options),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report("sq-gateway"),
    }
}
