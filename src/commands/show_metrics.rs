//! `show metrics`: prints the agent's metrics, for collectors that run as root: they do not open the agent's file, which the
//! agent could replace by a link to another.

use std::io::{self, Write};

use super::show_status::{AGENT_PATIENCE, no_answer};
use crate::control::Request;
use crate::control::client::Client;
use crate::paths::Paths;

/// The metrics could not be read or printed.
#[derive(Debug, thiserror::Error)]
pub enum ShowMetricsError {
    /// The agent does not answer.
    #[error("{0}")]
    NoAnswer(String),
    /// The metrics cannot be printed.
    #[error("cannot print the metrics: {0}")]
    Print(#[source] io::Error),
}

/// Prints the metrics as they are now.
///
/// # Errors
/// [`ShowMetricsError`].
pub fn run(paths: &Paths, out: &mut impl Write) -> Result<(), ShowMetricsError> {
    let metrics: Result<String, _> =
        Client::connect(&paths.socket, AGENT_PATIENCE).and_then(|mut client| client.call(&Request::Metrics));
    let metrics = metrics.map_err(|error| ShowMetricsError::NoAnswer(no_answer(&paths.socket, error)))?;
    super::print(out, &metrics).map_err(ShowMetricsError::Print)
}
