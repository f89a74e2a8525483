//! The smoketest (tests/smoke), which is for a real VyOS, on this router: its paths and values against the definitions,
//! and its course against the real programs.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::namespace::ip;
use crate::router::Router;

#[test]
fn the_smoketest_passes() {
    let Some(mut router) = Router::enter("smoketest::the_smoketest_passes") else {
        return;
    };
    // 8021q may be missing in the kernel; keepalived does not mind.
    ip("link add eth1.77 type veth peer name wire77");
    ip("link set wire77 up");
    ip("link set eth1.77 up");
    ip("address add 100.64.77.2/24 dev eth1.77");
    let mut smoketest = Command::new("python3")
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/owner/smoke.py"))
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("python3");
    let mut answers = smoketest.stdin.take().expect("a pipe");
    let commits = BufReader::new(smoketest.stdout.take().expect("a pipe"));
    for line in commits.lines() {
        let proposed: Value = serde_json::from_str(&line.expect("a line")).expect("JSON");
        let calls = router.commit(proposed);
        let shown: Vec<String> = calls.iter().map(|call| call.answer.shown()).collect();
        let answer = json!({
            "passed": calls.iter().all(|call| call.answer.code == Some(0)),
            "shown": shown.join("\n"),
            "effective": router.effective
        });
        writeln!(answers, "{answer}").expect("taken");
    }
    let status = smoketest.wait().expect("an end");
    assert!(status.success(), "{status}");
}
