//! This process's command line.

use std::io::Write;
use std::process::ExitCode;

use clap::Parser;

use crate::process::output;
use crate::visible;

/// Reads this process's arguments. When they are wrong, or ask for help, prints that and returns the exit code.
///
/// # Errors
/// The process is to end with this code.
pub fn parse<C: Parser>() -> Result<C, ExitCode> {
    let error = match C::try_parse() {
        Ok(options) => return Ok(options),
        Err(error) => error,
    };
    // clap repeats arguments unchanged. Reading them again, made visible, gives the same error with visible text.
    let arguments =
        std::env::args_os().map(|argument| visible::line(&argument.to_string_lossy()).into_owned());
    let error = C::try_parse_from(arguments).err().unwrap_or(error);
    let code = u8::try_from(error.exit_code()).unwrap_or(2);
    if code != 0 {
        // When standard error is closed, the error cannot be reported.
        let _ = error.print();
        return Err(ExitCode::from(code));
    }
    // The help, or the version, is the requested result.
    let printed = output::check_open().and_then(|()| error.print()).and_then(|()| std::io::stdout().flush());
    let program = C::command().get_name().to_owned();
    Err(printed.map_or_else(|error| output::failure(&error).report(&program), |()| ExitCode::from(code)))
}
