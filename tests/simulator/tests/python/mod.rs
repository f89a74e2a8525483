//! The private Python environment with the AWS CLI and boto3.

use std::path::{Path, PathBuf};
use std::process::Command;

/// A program of the environment, which is made if need be.
pub fn program(name: &str) -> PathBuf {
    let venv = match std::env::var_os("VIPA_AWS_VENV") {
        Some(directory) => PathBuf::from(directory),
        None => Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("venv-aws"),
    };
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/make-venv");
    let made = Command::new(&script).arg(&venv).output().unwrap();
    assert!(made.status.success(), "{}: {}", script.display(), String::from_utf8_lossy(&made.stderr));
    venv.join("bin").join(name)
}
