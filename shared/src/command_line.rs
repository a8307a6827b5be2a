//! This process's command line.

use std::process::ExitCode;

use clap::Parser;

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
    // Nobody may be there to read it.
    let _ = error.print();
    Err(ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2)))
}
