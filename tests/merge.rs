//! `debian/merge-into-vyos`, which merges the package's part into files of vyos-1x (tests/package/merge.py).

use std::path::Path;
use std::process::Command;

#[test]
fn the_part_comes_and_goes_and_damages_nothing() {
    let done = Command::new("python3")
        .args(["-m", "unittest", "-v", "merge"])
        .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/package"))
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .output()
        .expect("python3");
    let said = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success() && !said.contains("Ran 0 tests"), "{}:\n{said}", done.status);
}
