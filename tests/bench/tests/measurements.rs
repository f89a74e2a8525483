//! All measurements by scripts/bench, as few of each as there can be, with the programs as the tests build them. The times
//! say nothing. And what the repository shows of the last whole run: `BLESS=1` writes the page and the picture anew from its
//! report.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use bench::failover::Round;
use bench::many::{Alone, Many};
use bench::owner::Commit;
use bench::page::{JSON, PAGE, PICTURE, markdown, text};
use bench::picture;
use bench::report::{Measured, Report};
use bench::resources::{First, Held, Kind, Moves, Resources};
use bench::spread::Spread;
use lab::said;

#[test]
fn everything_can_be_measured_and_reported() {
    let bench = Path::new(env!("CARGO_BIN_EXE_bench"));
    let environment = match env::var_os("VIPA_AWS_VENV") {
        Some(directory) => PathBuf::from(directory),
        None => Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("venv-aws"),
    };
    let directory = tempfile::tempdir().expect("a directory");
    let repository = directory.path().join("repository");
    fs::create_dir_all(repository.join("docs")).expect("made");
    let package = package(directory.path());
    let mut command = Command::new(root().join("scripts/bench"));
    command.env("CARGO_TARGET_DIR", directory.path()).env("VIPA_AWS_VENV", environment);
    // Both are programs of this workspace.
    command.args(["--smoke", "--built"]).arg(bench.with_file_name(""));
    command.arg("--package").arg(package).arg("--update-docs").arg(&repository);
    let output = command.output().expect("the measurements");
    let said = said(&output);
    assert!(output.status.success(), "{}: {said}", output.status);

    let written = directory.path().join("bench");
    let report: Report = serde_json::from_str(&read(&written.join("bench.json"))).expect("a report");
    let measured = &report.measured;
    assert_eq!(measured.line.iter().map(|line| line.round_trip_ms).collect::<Vec<_>>(), [0, 2]);
    for line in &measured.line {
        assert_eq!((line.agent.count, line.bare.count), (4, 4));
        assert_eq!((line.agent_cold.count, line.bare_cold.count), (1, 1));
        assert_eq!((line.boto3.count, line.cli.count), (1, 1));
        let half = line.round_trip_ms as f64 / 2.0;
        assert!(line.bare.p50 > half && line.agent.p50 > half, "half of the round trip is in them: {line:?}");
    }
    assert_eq!(measured.many.iter().map(|many| many.groups).collect::<Vec<_>>(), [1, 2, 3]);
    for many in &measured.many {
        let alone = many.groups as f64 * 300.0;
        assert!(many.agent.p50 > 300.0 && many.calls >= 1, "{many:?}");
        let out = many.out_of_step.as_ref().expect("measured");
        assert!((1..=many.groups).contains(&out.claims) && out.last.max > 0.0, "{many:?}");
        let are_two_calls = many.boto3.ms > 2.0 * alone && many.cli.ms > 2.0 * alone;
        assert!(are_two_calls || many.groups > 2, "two calls a group: {many:?}");
        assert_eq!((many.boto3.extrapolated, many.cli.extrapolated), (many.groups > 2, many.groups > 2));
    }
    for peer in [|many: &Many| many.boto3, |many: &Many| many.cli] {
        assert_is_on_the_line(&measured.many.iter().map(peer).collect::<Vec<_>>());
    }
    let failover = &measured.failover;
    assert!(failover.vrrp.p50 > 2_000.0 && failover.whole.p50 >= failover.vrrp.p50, "{failover:?}");
    let parts = |round: &Round| round.vrrp + round.agent + round.ec2;
    assert!(failover.rounds.iter().all(|round| (round.whole - parts(round)).abs() < 0.001), "{failover:?}");
    let black_hole = measured.black_hole.as_ref().expect("measured");
    assert!(black_hole.p50 > 300.0 && black_hole.count == 1, "{black_hole:?}");
    let resources = measured.resources.as_ref().expect("measured");
    assert_eq!(resources.first.iter().map(|first| first.kind).collect::<Vec<_>>(), Kind::ALL);
    assert!(resources.first.iter().all(|first| first.agent.count == 2 && first.agent.p50 > 0.0), "{resources:?}");
    let moves: Vec<_> = resources.moves.iter().map(|moves| (moves.kind, moves.count)).collect();
    assert_eq!(moves, Kind::ALL.iter().flat_map(|kind| [1, 2, 3].map(|n| (*kind, n))).collect::<Vec<_>>());
    for moves in &resources.moves {
        assert!(moves.agent.p50 > 300.0 && moves.calls >= moves.count && moves.refused == 0, "{moves:?}");
        // boto3 makes two calls for each, and so does the CLI for a route.
        let calls = 300.0 * moves.count as f64;
        let looks = if moves.kind == Kind::Route { 2.0 } else { 1.0 };
        let is_one_by_one = moves.boto3.ms > 2.0 * calls && moves.cli.ms > looks * calls;
        assert!(is_one_by_one || moves.count > 2, "{moves:?}");
        assert_eq!((moves.boto3.extrapolated, moves.cli.extrapolated), (moves.count > 2, moves.count > 2));
    }
    for moves in resources.moves.chunks(3) {
        for peer in [|moves: &Moves| moves.boto3, |moves: &Moves| moves.cli] {
            assert_is_on_the_line(&moves.iter().map(peer).collect::<Vec<_>>());
        }
    }
    let held = &resources.held;
    assert_eq!((held.routes, held.elastic_ips), (3, 2));
    assert!(held.idle.resident_mb > 1.0 && held.route_reads_per_hour > 0.0, "{held:?}");
    assert!(held.elastic_ip_reads_per_hour > 0.0, "{held:?}");
    assert_eq!((measured.idle.len(), measured.commands.len()), (3, 3));
    for idle in &measured.idle {
        assert!(idle.resident_mb > 1.0 && idle.threads >= 1 && idle.descriptors > 3, "{idle:?}");
        assert!(idle.ec2_calls_per_hour > 0.0 && idle.cpu_ms > 0.0, "{idle:?}");
        assert!(idle.metrics_kb.is_some_and(|size| size > 5.0), "{idle:?}");
    }
    for (name, runs) in measured.commands.iter().flat_map(|commands| commands.all()) {
        assert!(
            runs.peak_mb > 1.0 && runs.wall.p50 > 0.0 && runs.threads >= 1 && runs.descriptors >= 3,
            "{name}: {runs:?}"
        );
        let asks = name == "show status --fresh";
        assert!(name == "commit with a change" || (runs.requests > 0) == asks, "{name}: {runs:?}");
    }
    let commits: Vec<_> = measured.owner.iter().map(|c| (c.groups, c.in_daemon, c.deletes)).collect();
    let kinds = [(false, false), (false, true), (true, false), (true, true)];
    let expected = [1, 3].into_iter().flat_map(|n| kinds.map(|(in_daemon, deletes)| (n, in_daemon, deletes)));
    assert_eq!(commits, expected.collect::<Vec<_>>());
    for commit in &measured.owner {
        // One for the settings. keepalived may take its time on a busy machine, and then another call looks again.
        assert!((1..=commit.groups + 1).contains(&commit.full) && commit.later.count == commit.groups, "{commit:?}");
        let library = if commit.in_daemon { 150.0 } else { 750.0 };
        assert!(commit.first.p50 > library && commit.with.p50 > commit.first.p50, "{commit:?}");
    }
    assert_eq!(measured.package.depends, ["libc6", "libgcc-s1", "keepalived", "vyos-1x"]);
    assert!(
        report.on.tools.starts_with("keepalived 2") && report.on.tools.contains(", AWS CLI 1."),
        "{}",
        report.on.tools
    );

    let page = read(&repository.join(PAGE));
    assert!(page.contains("| line to request, round trip 0 ms, p50"), "{page}");
    assert!(page.contains("| commit that deletes 3 groups, in the daemon "), "{page}");
    assert!(page.contains("| 3 Elastic IPs at once, 300 ms per API call, until the last"), "{page}");
    assert!(page.contains("| idle agent, 3 routes and 2 Elastic IPs, DescribeRouteTables per hour"), "{page}");
    shown(&repository);
    let svg = read(&written.join("bench.svg"));
    assert!(svg.starts_with("<svg ") && svg.ends_with("</svg>\n") && svg.contains(">boto3 script<"), "{svg}");
    assert!(fs::read_to_string(written.join("bench.txt")).is_ok_and(|text| said.contains(&text)));
}

/// The third of three is where the line through the first two leads; on a busy machine that may be anywhere.
fn assert_is_on_the_line(peers: &[Alone]) {
    let [one, two, three] = peers else { panic!("not three: {peers:?}") };
    assert!((three.ms - (2.0 * two.ms - one.ms)).abs() < 0.001, "{peers:?}");
}

/// A package with the dependencies of ours and nothing in it.
fn package(directory: &Path) -> PathBuf {
    let control = "Package: vyos-aws-vipa\nVersion: 0\nArchitecture: all\nMaintainer: nobody <nobody@example.com>\nDepends: \
                   libc6 (>= 2.34), libgcc-s1 (>= 4.2), keepalived, vyos-1x (>= 1.4)\nDescription: none\n";
    let (tree, package) = (directory.join("package"), directory.join("package.deb"));
    fs::create_dir_all(tree.join("DEBIAN")).expect("made");
    fs::write(tree.join("DEBIAN/control"), control).expect("written");
    let built = Command::new("dpkg-deb").args(["--root-owner-group", "--build"]).args([&tree, &package]).output();
    let built = built.expect("dpkg-deb");
    assert!(built.status.success(), "{}", said(&built));
    package
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The report that the page of a repository shows, after a look at whether all that is made from it is.
fn shown(repository: &Path) -> Report {
    let path = repository.join(JSON);
    let report: Report = serde_json::from_str(&read(&path)).unwrap_or_else(|error| {
        panic!("{}: {error}; it is another version's: run scripts/bench --update-docs", path.display())
    });
    let judged = Report::new(report.on.clone(), report.measured.clone());
    assert_eq!(text(&judged), text(&report), "judged by other bounds");
    if env::var_os("BLESS").is_some() {
        fs::write(repository.join(PAGE), markdown(&report)).expect("written");
        fs::write(repository.join(PICTURE), picture::draw(&report)).expect("written");
    }
    assert_eq!(markdown(&report), read(&repository.join(PAGE)), "the page is another run's");
    assert_eq!(picture::draw(&report), read(&repository.join(PICTURE)), "the picture is another run's");
    report
}

#[test]
fn a_measured_value_reads_back_exactly() {
    for value in (1..200_000).map(|n| f64::from(n) / 1_237.0) {
        let written = serde_json::to_string(&value).expect("JSON");
        assert_eq!(serde_json::from_str::<f64>(&written).expect("a number").to_bits(), value.to_bits(), "{written}");
    }
}

#[test]
fn the_page_the_report_and_the_picture_are_of_one_run() {
    let report = shown(&root());
    assert!(report.holds(), "a bound is missed");
    assert!(!report.on.revision.contains("changes"), "figures of no commit: {}", report.on.revision);
}

/// What `bench judge` makes of what was measured: its exit code, and what it said.
fn judged(report: &Report) -> (Option<i32>, String) {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("bench.json");
    fs::write(&path, serde_json::to_string(report).expect("JSON")).expect("written");
    let output = Command::new(env!("CARGO_BIN_EXE_bench")).arg("judge").arg(path).output().expect("bench");
    (output.status.code(), said(&output))
}

/// A commit of 200 groups that takes 100 ms without our nodes.
fn commit(with: f64, later: f64) -> Commit {
    let [without, with, first, later] = [100.0, with, 800.0, later].map(|ms| Spread::of_millis([ms]));
    Commit { groups: 200, deletes: false, in_daemon: false, without, with, first, later, full: 1 }
}

/// Routes and Elastic IPs within their bounds, which a report of an older version does not have. `of` is of the same run.
fn resources(of: &Report) -> Resources {
    let first = |kind| First { kind, agent: Spread::of_millis([0.5; 100]) };
    let moves = |kind| {
        let alone = Alone { ms: 30_000.0, extrapolated: true };
        Moves { kind, count: 50, agent: Spread::of_millis([2_300.0]), calls: 50, refused: 0, boto3: alone, cli: alone }
    };
    let per_hour = 3_600.0 / f64::from(of.on.verify_interval);
    Resources {
        first: Kind::ALL.map(first).into(),
        moves: Kind::ALL.map(moves).into(),
        held: Held {
            routes: 200,
            elastic_ips: 50,
            idle: of.measured.idle[0].clone(),
            route_reads_per_hour: per_hour,
            elastic_ip_reads_per_hour: per_hour,
        },
    }
}

/// Makes the figures of routes and Elastic IPs worse.
type Worsen = fn(&mut Resources);

#[test]
fn bounds_of_routes_and_elastic_ips_count_where_they_were_measured() {
    let shown = shown(&root());
    let mut good = Report::new(shown.on, Measured { resources: None, ..shown.measured });
    for text in [text(&good), markdown(&good), picture::draw(&good)] {
        assert!(!text.contains("ReplaceRoute") && !text.contains("routes") && !text.contains("Elastic"), "{text}");
    }
    good.measured.resources = Some(resources(&good));
    let (code, text) = judged(&good);
    assert_eq!(code, Some(0), "{text}");
    assert!(picture::draw(&good).contains(">agent, routes<"));
    let plants: [(&str, Worsen); 7] = [
        ("line to ReplaceRoute, agent, p50 ", |r| r.first[0].agent.p50 = 1.1),
        ("line to AssociateAddress, agent, p99 ", |r| r.first[1].agent.p99 = Some(5.1)),
        ("50 routes at once, agent, until the last, max ", |r| r.moves[0].agent.max = 2_401.0),
        ("50 Elastic IPs at once, agent, claims ", |r| r.moves[1].calls = 51),
        ("50 routes at once, agent, claims over EC2's rate ", |r| r.moves[0].refused = 1),
        ("idle agent, 200 routes and 50 Elastic IPs, resident memory ", |r| r.held.idle.resident_mb = 20.1),
        ("idle agent, 200 routes and 50 Elastic IPs, DescribeAddresses per hour ", |r| {
            r.held.elastic_ip_reads_per_hour *= 2.0;
        }),
    ];
    for (figure, plant) in plants {
        let mut bad = good.clone();
        plant(bad.measured.resources.as_mut().expect("set"));
        let (code, text) = judged(&bad);
        let line = text.lines().find(|line| line.contains(figure) && line.contains("| NO"));
        assert!(code == Some(1) && line.is_some(), "{figure}: {code:?}: {text}");
    }
}

/// Makes a report worse.
type Plant = fn(&mut Report);

#[test]
fn a_bound_that_does_not_hold_makes_the_run_fail() {
    let good = shown(&root());
    let (code, text) = judged(&good);
    assert_eq!(code, Some(0), "{text}");
    let plants: [(&str, Plant); 7] = [
        ("idle agent, 200 groups, resident memory ", |r| r.measured.idle[3].resident_mb = 16.1),
        ("whole run ", |r| r.measured.seconds = 901.0),
        ("dependencies beside libc", |r| r.measured.package.depends.push("python3".to_owned())),
        ("time until the last address ", |r| {
            r.measured.many.iter_mut().for_each(|m| {
                m.agent.p50 += 0.0085 * (m.groups * m.groups) as f64;
            })
        }),
        ("idle agent, 200 groups, EC2 calls per hour ", |r| r.measured.idle[3].ec2_calls_per_hour = 360.0),
        ("commit that adds 200 groups, added by aws-vipa ", |r| r.measured.owner = vec![commit(2_101.0, 5.0)]),
        ("commit that adds 200 groups, later call, p50 ", |r| r.measured.owner = vec![commit(1_900.0, 50.1)]),
    ];
    for (figure, plant) in plants {
        let mut bad = good.clone();
        plant(&mut bad);
        let (code, text) = judged(&bad);
        let line = text.lines().find(|line| line.contains(figure) && line.contains("| NO"));
        assert!(code == Some(1) && line.is_some(), "{figure}: {code:?}: {text}");
    }
}
