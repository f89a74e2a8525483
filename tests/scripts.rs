//! The checks of the scripts before a build: a first build takes minutes, and more memory than many machines have.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

/// The scripts that build, with the memory that the first build needs, in GB, as they print it.
const SCRIPTS: &[(&str, &str)] = &[
    ("scripts/bench", "9.2"),
    ("scripts/build-deb", "9.2"),
    ("scripts/build-release", "9.2"),
    ("scripts/demo", "9.2"),
    ("scripts/test", "7.3"),
];

/// The result of a script, with its output.
struct Run {
    /// The script called one of the programs that build.
    has_built: bool,
    code: Option<i32>,
    text: String,
}

/// A machine with this available memory and swap, in GB, and files below /sys/fs/cgroup. Its stand-ins for the programs that
/// build only record the call, and fail.
struct Machine {
    directory: tempfile::TempDir,
    environment: Vec<(&'static str, &'static str)>,
}

impl Machine {
    fn new(memory: f64, swap: f64, cgroup: &[(&str, &str)]) -> Self {
        let machine = Self { directory: tempfile::tempdir().expect("a directory"), environment: Vec::new() };
        let kib = |gigabytes: f64| (gigabytes * 1e9 / 1024.0).round();
        machine.write(
            "meminfo",
            &format!("MemTotal: 99999999 kB\nMemAvailable: {} kB\nSwapFree: {} kB\n", kib(memory), kib(swap)),
        );
        for (path, text) in cgroup {
            machine.write(&format!("cgroup/{path}"), text);
        }
        // Otherwise a script treats the directory as that of another clone, and marks every source as changed.
        machine.write("target/.clone", concat!(env!("CARGO_MANIFEST_DIR"), "\n"));
        for program in ["cargo", "dpkg-buildpackage", "dh", "objdump"] {
            machine.write(&format!("bin/{program}"), "#!/bin/sh\ntouch \"$CARGO_TARGET_DIR/called\"\nexit 7\n");
            let file = machine.directory.path().join("bin").join(program);
            fs::set_permissions(file, fs::Permissions::from_mode(0o755)).expect("made executable");
        }
        machine
    }

    fn with_environment(mut self, name: &'static str, value: &'static str) -> Self {
        self.environment.push((name, value));
        self
    }

    fn with_file(self, path: &str) -> Self {
        self.write(path, "");
        self
    }

    fn write(&self, path: &str, text: &str) {
        let file = self.directory.path().join(path);
        fs::create_dir_all(file.parent().expect("a parent")).expect("made");
        fs::write(file, text).expect("written");
    }

    fn run(&self, script: &str) -> Run {
        let called = self.directory.path().join("target/called");
        let mounts = "mount --bind \"$0/meminfo\" /proc/meminfo && mount -t tmpfs tmpfs /sys/fs/cgroup && \
                      { [ ! -e \"$0/cgroup\" ] || cp -R \"$0/cgroup/.\" /sys/fs/cgroup; } && exec \"$1\" </dev/null";
        let output = Command::new("unshare")
            .args(["--user", "--map-root-user", "--mount", "sh", "-c", mounts])
            .arg(self.directory.path())
            .arg(script)
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .env("CARGO_TARGET_DIR", self.directory.path().join("target"))
            .env("PATH", format!("{}:/usr/sbin:/usr/bin:/sbin:/bin", self.directory.path().join("bin").display()))
            .env_remove("VIPA_BUILD_ANYWAY")
            .envs(self.environment.iter().copied())
            .output()
            .expect("unshare(1) of util-linux");
        let text = [output.stdout, output.stderr].concat();
        Run {
            has_built: called.exists(),
            code: output.status.code(),
            text: String::from_utf8_lossy(&text).into_owned(),
        }
    }

    fn assert_refused(&self, script: &str, expected: &str) {
        let Run { has_built, code, text } = self.run(script);
        assert!(!has_built && code == Some(1), "{script}: {code:?} {text}");
        assert!(text.starts_with(&format!("{script}: the first build needs ")) && text.contains(expected), "{text}");
        assert!(text.contains(&format!("VIPA_BUILD_ANYWAY=1 {script}\n")), "{text}");
    }

    fn assert_builds(&self, script: &str) {
        let Run { has_built, text, .. } = self.run(script);
        assert!(has_built && !text.contains("the first build needs"), "{script}: {text}");
    }
}

#[test]
fn no_script_begins_a_build_that_runs_out_of_memory() {
    let machine = Machine::new(4.0, 2.0, &[]);
    for (script, needed) in SCRIPTS {
        machine.assert_refused(script, &format!("needs {needed} GB of memory in one process"));
        machine.assert_refused(script, "6.0 GB are available (/proc/meminfo)");
    }
    // The list has each script in which cargo builds or tests a package with the AWS SDK.
    for entry in fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts")).expect("listed") {
        let path = entry.expect("an entry").path();
        let name = format!("scripts/{}", path.file_name().expect("a name").to_str().expect("text"));
        let text = fs::read_to_string(&path).expect("a script");
        let without_sdk = |line: &str| line.contains("--package build-templates");
        let mut code = text.lines().filter(|line| !line.trim_start().starts_with('#') && !without_sdk(line));
        let builds =
            code.any(|line| ["cargo build", "cargo test", "cargo nextest run"].iter().any(|c| line.contains(c)));
        assert!(!builds || SCRIPTS.iter().any(|(script, _)| *script == name), "{name} builds");
    }
}

#[test]
fn a_build_begins_where_there_is_memory_or_nothing_large_to_build() {
    let script = "scripts/build-release";
    for machine in [
        Machine::new(9.5, 0.0, &[]),
        Machine::new(4.0, 5.5, &[]),
        Machine::new(4.0, 0.0, &[]).with_environment("VIPA_BUILD_ANYWAY", "1"),
        Machine::new(1.0, 0.0, &[]).with_file("target/release/deps/libaws_sdk_ec2-0123456789abcdef.rlib"),
    ] {
        machine.assert_builds(script);
    }
    // Files of clippy are not libraries, and a build for tests is not a release build.
    for file in ["target/release/deps/libaws_sdk_ec2-0.rmeta", "target/debug/deps/libaws_sdk_ec2-0.rlib"] {
        Machine::new(4.0, 0.0, &[]).with_file(file).assert_refused(script, "4.0 GB are available");
    }
}

#[test]
fn the_limit_of_a_control_group_counts() {
    let script = "scripts/build-release";
    let groups = fs::read_to_string("/proc/self/cgroup").expect("our control groups");
    let mut versions = 0;
    if groups.lines().any(|line| line.starts_with("0::")) {
        versions += 1;
        let group = |used: &'static str, cache: &'static str, swap: &'static str| {
            let stat = [("memory.max", "12000000000\n"), ("memory.current", used), ("memory.stat", cache)];
            Machine::new(30.0, 1.0, &[stat[0], stat[1], stat[2], ("memory.swap.max", swap)])
        };
        group("5000000000\n", "anon 5000000000\nactive_file 0\ninactive_file 0\n", "0\n")
            .assert_refused(script, "7.0 GB are available (/sys/fs/cgroup/memory.max)");
        group("5000000000\n", "anon 2600000000\nactive_file 1200000000\ninactive_file 1200000000\n", "0\n")
            .assert_builds(script);
        group("5000000000\n", "anon 5000000000\n", "max\n").assert_refused(script, "8.0 GB are available");
        group("1500000000\n", "anon 1500000000\n", "max\n").assert_builds(script);
        Machine::new(30.0, 0.0, &[("memory.max", "max\n")]).assert_builds(script);
    }
    if groups.lines().any(|line| line.split(':').nth(1).is_some_and(|names| names.split(',').any(|n| n == "memory"))) {
        versions += 1;
        let group = |limit: &'static str| {
            Machine::new(
                30.0,
                9.0,
                &[
                    ("memory/memory.limit_in_bytes", limit),
                    ("memory/memory.usage_in_bytes", "2000000000\n"),
                    (
                        "memory/memory.stat",
                        "inactive_file 9\ntotal_inactive_file 500000000\ntotal_active_file 500000000\n",
                    ),
                ],
            )
        };
        group("8000000000\n")
            .assert_refused(script, "7.0 GB are available (/sys/fs/cgroup/memory/memory.limit_in_bytes)");
        group("9223372036854771712\n").assert_builds(script);
    }
    assert!(versions > 0, "no control groups: {groups}");
}

/// README states the figures of the check before the commands that start a build, and so does the page about installing.
#[test]
fn the_documents_state_what_a_first_build_needs() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let document = |path: &str| fs::read_to_string(root.join(path)).expect("a document");
    let readme = document("README.md");
    let (before, _) = readme.split_once("\n    scripts/demo ").expect("the command");
    let (_, stated) = before.split_once("\n## Try it\n").expect("the section");
    let stated = stated.split_whitespace().collect::<Vec<_>>().join(" ");
    let set_up = document("scripts/set-up.sh");
    for build in ["release", "tests"] {
        let (_, figure) = set_up.split_once(&format!("\nmemory_of_{build}=")).expect("the figure");
        let megabytes: f64 = figure.lines().next().expect("a line").parse().expect("a number");
        let gigabytes = format!("{:.1} GB", megabytes / 1e3);
        assert!(stated.contains(&gigabytes), "{build}: {gigabytes} is not in: {stated}");
        assert!(build != "release" || document("docs/operations/install.md").contains(&gigabytes), "{gigabytes}");
    }
    assert!(stated.contains("`VIPA_BUILD_ANYWAY=1`"), "{stated}");
}

#[test]
fn the_toolchain_has_the_version_in_cargo_toml() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let toolchain = fs::read_to_string(root.join("rust-toolchain.toml")).expect("rust-toolchain.toml");
    let channel = format!("channel = \"{}\"", env!("CARGO_PKG_RUST_VERSION"));
    assert!(toolchain.lines().any(|line| line == channel), "{channel} is not in: {toolchain}");
}

/// As on a machine without the project: the run's only result is its exit code, and no files are left.
#[test]
fn continuous_integration_runs_in_an_empty_home() {
    let directory = tempfile::tempdir().expect("a directory");
    for name in [".ci", "scripts", "homes"] {
        fs::create_dir(directory.path().join(name)).expect("made");
    }
    let run = directory.path().join(".ci/run");
    fs::copy(Path::new(env!("CARGO_MANIFEST_DIR")).join(".ci/run"), &run).expect("copied");
    let checks = "[ \"$*\" = --all ] && [ -z \"$(ls -A \"$HOME\")\" ] && cargo --version && env && mkdir \"$CARGO_HOME\" && exit 7";
    fs::write(directory.path().join("scripts/test"), checks).expect("written");
    let homes = directory.path().join("homes");
    let output = Command::new(&run)
        .arg("--empty-home")
        .env("TMPDIR", &homes)
        .env("CARGO_TARGET_DIR", "/nonexistent")
        .env("XDG_CACHE_HOME", "/nonexistent")
        .output()
        .expect("bash");
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(7), "{text}");
    let value = |name: &str| text.lines().find_map(|line| line.strip_prefix(&format!("{name}="))).map(Path::new);
    let home = value("HOME").expect("a home");
    assert!(home.starts_with(&homes) && value("CARGO_HOME") == Some(&home.join(".cargo")), "{text}");
    assert_eq!((value("CARGO_TARGET_DIR"), value("XDG_CACHE_HOME")), (None, None), "{text}");
    assert_eq!(fs::read_dir(&homes).expect("listed").count(), 0, "a home is left");
    let output = Command::new(&run).arg("--emptyhome").output().expect("bash");
    assert!(
        output.status.code() == Some(2) && String::from_utf8_lossy(&output.stderr).contains(".ci/run --empty-home ")
    );
}
