//! `vyos-aws-vipa`: one program, a command each for VyOS's commit, keepalived's unit, the agent's unit and a person.

use std::error::Error;
use std::io::{self, Write};
use std::process::ExitCode;

use clap::Parser;
use vyos_aws_vipa::arguments::Arguments;
use vyos_aws_vipa::paths::Paths;

fn main() -> ExitCode {
    match Arguments::parse().command.run(&Paths::system()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Nobody may be there to read it.
            let _ = writeln!(io::stderr(), "vyos-aws-vipa: {}", chain(&*error));
            ExitCode::FAILURE
        }
    }
}

/// The error and its causes, each said once.
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
