//! The demonstration to its end, with the program as the tests build it.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

use lab::said;

#[test]
fn the_demonstration_ends_with_the_address_on_the_master() {
    let demo = Path::new(env!("CARGO_BIN_EXE_demo"));
    let venv = match env::var_os("VIPA_AWS_VENV") {
        Some(folder) => PathBuf::from(folder),
        None => Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("venv-aws"),
    };
    let make_venv = Path::new(env!("CARGO_MANIFEST_DIR")).join("../simulator/tests/make-venv");
    let made = Command::new(make_venv).arg(&venv).output().expect("make-venv");
    assert!(made.status.success(), "{}", said(&made));
    // Both are programs of this workspace.
    let binary = demo.with_file_name("vyos-aws-vipa");
    let output = Command::new(demo).arg("--binary").arg(&binary).arg("--aws").arg(venv.join("bin/aws")).output();
    let output = output.expect("the demonstration");
    let said = said(&output);
    assert!(output.status.success(), "{}: {said}", output.status);
    let (_, summary) = said.rsplit_once("\nSummary\n").unwrap_or_else(|| panic!("no summary: {said}"));
    assert!(summary.contains("Owner        eni-0a000000000000001 of i-0a000000000000001"), "{said}");
}
