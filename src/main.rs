//! `vyos-aws-vipa`: one program, a command each for VyOS's commit, keepalived's unit, the agent's unit and a person.

use std::error::Error;
use std::io::{self, Write};
use std::process::ExitCode;

use clap::Parser;
use vipa_core::printable;
use vyos_aws_vipa::arguments::{self, Arguments};
use vyos_aws_vipa::commands::wrapped;
use vyos_aws_vipa::paths::Paths;

/// The exit code for a wrong command line, the same as clap's.
const USAGE_EXIT_CODE: u8 = 2;

fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => match arguments::bad_value(&error) {
            Some(text) => {
                tell(&wrapped(&format!("vyos-aws-vipa: {text}")));
                return ExitCode::from(USAGE_EXIT_CODE);
            }
            None => error.exit(),
        },
    };
    let is_for_a_person = arguments.command.is_for_a_person();
    match arguments.command.run(&Paths::system()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let text = format!("vyos-aws-vipa: {}", chain(&*error));
            // VyOS breaks the lines of `commit`, a fault each, and the journal takes long ones.
            tell(&if is_for_a_person { wrapped(&text) } else { text + "\n" });
            ExitCode::FAILURE
        }
    }
}

fn tell(text: &str) {
    // Nobody may be there to read it.
    let _ = io::stderr().write_all(printable::lines(text).as_bytes());
}

/// The error and its causes, without repetitions.
fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    text
}
