//! This process's command line.

use std::io::Write;
use std::process::ExitCode;

use clap::Parser;

use crate::process::output;
use crate::visible;

/// Reads this process's arguments. When they are wrong, or ask for help, prints that and gives the exit code.
///
/// # Errors
/// There is nothing more to do.
pub fn parse<C: Parser>() -> Result<C, ExitCode> {
    let error = match C::try_parse() {
        Ok(options) => return Ok(options),
        Err(error) => error,
    };
    // clap repeats arguments as they are. Reading them again, made visible, gives the same error but for that.
    let arguments =
        std::env::args_os().map(|argument| visible::line(&argument.to_string_lossy()).into_owned());
    let error = C::try_parse_from(arguments).err().unwrap_or(error);
    let code = u8::try_from(error.exit_code()).unwrap_or(2);
    if code != 0 {
        // Nobody is there to tell when standard error is closed.
        let _ = error.print();
        return Err(ExitCode::from(code));
    }
    // The help, or the version: it is what was asked for.
    let printed = output::check_open().and_then(|()| error.print()).and_then(|()| std::io::stdout().flush());
    let program = C::command().get_name().to_owned();
    Err(printed.map_or_else(|error| output::failure(&error).report(&program), |()| ExitCode::from(code)))
}
