//! `scripts/accept-on-aws` against the simulator: a class of tests/aws-account/test_acceptance.py each.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod python;

use std::path::Path;
use std::process::{Command, Stdio};

fn run(class: &str) {
    let python = python::program("python");
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let venv = python.parent().and_then(Path::parent).unwrap();
    let output = Command::new(&python)
        .args(["-B", "-m", "unittest", &format!("test_acceptance.{class}")])
        .current_dir(root.join("tests/aws-account"))
        .env("VIPA_SIMULATOR", env!("CARGO_BIN_EXE_simulator"))
        .env("VIPA_AWS_VENV", venv)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{}{}", text(&output.stdout), text(&output.stderr));
}

#[test]
fn parts_of_the_acceptance() {
    run("Parts");
}

#[test]
fn wrong_arguments_and_a_no_make_nothing() {
    run("Arguments");
}

#[test]
fn a_whole_run_confirms_measures_and_deletes() {
    run("Confirmed");
}

#[test]
fn the_other_settings_refute_each_assumption() {
    run("Refuted");
}

#[test]
fn where_security_groups_do_not_cut_the_routers_do() {
    run("TrackedFlows");
}

#[test]
fn an_interrupted_run_deletes_what_it_made() {
    run("Interrupted");
}

#[test]
fn a_stack_that_is_created_in_part_is_deleted() {
    run("PartlyCreated");
}

#[test]
fn what_cannot_be_deleted_is_named() {
    run("Left");
}
