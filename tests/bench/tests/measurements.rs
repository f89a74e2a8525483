//! All measurements, as few of each as there can be, with the programs as the tests build them. The times say nothing.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use bench::readme::MARKERS;
use bench::report::Report;
use lab::said;

#[test]
fn everything_can_be_measured_and_reported() {
    let bench = Path::new(env!("CARGO_BIN_EXE_bench"));
    let environment = match env::var_os("VIPA_AWS_VENV") {
        Some(folder) => PathBuf::from(folder),
        None => Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("venv-aws"),
    };
    let make_venv = Path::new(env!("CARGO_MANIFEST_DIR")).join("../simulator/tests/make-venv");
    let made = Command::new(make_venv).arg(&environment).output().expect("make-venv");
    assert!(made.status.success(), "{}", said(&made));
    let folder = tempfile::tempdir().expect("a folder");
    let repository = folder.path().join("repository");
    fs::create_dir_all(repository.join("tests/bench")).expect("made");
    fs::write(repository.join("README.md"), format!("before\n{}\n{}\nafter\n", MARKERS[0], MARKERS[1]))
        .expect("written");
    let mut command = Command::new(bench);
    // Both are programs of this workspace.
    command.args(["run", "--smoke", "--product"]).arg(bench.with_file_name("vyos-aws-vipa"));
    command.arg("--environment").arg(environment).arg("--output").arg(folder.path());
    // Any file has a size.
    command.arg("--package").arg(bench).arg("--update-readme").arg(&repository);
    let output = command.output().expect("the measurements");
    let said = said(&output);
    assert!(output.status.success(), "{}: {said}", output.status);

    let read = |path: PathBuf| fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let report: Report = serde_json::from_str(&read(folder.path().join("bench.json"))).expect("a report");
    let measured = &report.measured;
    assert_eq!(measured.line.iter().map(|line| line.round_trip_ms).collect::<Vec<_>>(), [0, 2]);
    for line in &measured.line {
        assert_eq!((line.agent.count, line.bare.count), (4, 4));
        assert_eq!((line.agent_cold.count, line.bare_cold.count), (1, 1));
        assert_eq!((line.boto3.count, line.cli.count), (1, 1));
        let half = line.round_trip_ms as f64 / 2.0;
        assert!(line.bare.p50 > half && line.agent.p50 > half, "half of the round trip is in them: {line:?}");
    }
    assert_eq!(measured.many.iter().map(|many| many.groups).collect::<Vec<_>>(), [1, 3]);
    for many in &measured.many {
        let alone = many.groups as f64 * 300.0;
        assert!(many.agent.p50 > 300.0 && many.calls >= 1, "{many:?}");
        assert!(many.boto3.ms > 2.0 * alone && many.cli.ms > 2.0 * alone, "two calls a group: {many:?}");
    }
    let failover = &measured.failover;
    assert!(failover.vrrp.p50 > 2_000.0 && failover.whole.p50 >= failover.vrrp.p50, "{failover:?}");
    assert_eq!((measured.idle.len(), measured.commands.len()), (2, 2));
    for idle in &measured.idle {
        assert!(idle.resident_mb > 1.0 && idle.threads >= 1 && idle.descriptors > 3, "{idle:?}");
        assert!(idle.ec2_calls_per_hour > 0.0 && idle.cpu_ms > 0.0, "{idle:?}");
    }
    assert!(measured.commands.iter().all(|c| c.commit.peak_mb > 1.0 && c.show_status.wall.p50 > 0.0), "{said}");
    assert!(report.figures.iter().any(|figure| figure.name == "Debian package"), "{said}");

    let readme = read(repository.join("README.md"));
    assert!(readme.starts_with("before\n") && readme.ends_with("\nafter\n"), "{readme}");
    assert!(readme.contains("| line to request, round trip 0 ms, p50"), "{readme}");
    for place in ["tests/bench/bench.svg", "tests/bench/bench.json"] {
        assert!(repository.join(place).exists(), "{place}");
    }
    assert!(readme.contains("(tests/bench/bench.svg)"), "{readme}");
    let svg = read(folder.path().join("bench.svg"));
    assert!(svg.starts_with("<svg ") && svg.ends_with("</svg>\n") && svg.contains(">boto3 script<"), "{svg}");
    assert!(fs::read_to_string(folder.path().join("bench.txt")).is_ok_and(|text| said.contains(&text)));
}
