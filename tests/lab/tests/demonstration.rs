//! Runs the whole demonstration, in both forms, with the program as the tests build it.

use std::collections::{BTreeMap, BTreeSet};
use std::env;
use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::thread;
use std::time::Duration;

use lab::said;

/// A variable that the demonstration inherits, and all that it starts.
const MARK: &str = "VIPA_DEMONSTRATION";

/// The namespaces that it makes.
const NAMESPACES: [&str; 4] = ["user", "net", "mnt", "pid"];

#[test]
fn the_demonstration_ends_with_the_address_on_the_master_and_leaves_nothing_behind() {
    // Twice in a row: the first run must leave nothing behind that affects the second.
    let owner = "Owner        eni-0a000000000000001 of i-0a000000000000001, says the AWS CLI:";
    // Two more of network and mounts for each router.
    ends_well(&[], &["first", "second"], owner, 4);
}

#[test]
fn the_demonstration_of_two_zones_ends_with_the_routes_to_the_master_and_leaves_nothing_behind() {
    let routes = "Routes       Both lead to eni-0a000000000000001, says the AWS CLI:";
    // And the network of each client, in which a thread of the demonstration stays.
    ends_well(&["--zones"], &["only"], routes, 4 + 2);
}

/// Runs it with these arguments, and checks its summary, that its hosts had so many namespaces, and that it leaves nothing
/// behind.
fn ends_well(arguments: &[&str], runs: &[&str], summary: &str, of_hosts: usize) {
    let demo = Path::new(env!("CARGO_BIN_EXE_demo"));
    let venv = match env::var_os("VIPA_AWS_VENV") {
        Some(directory) => PathBuf::from(directory),
        None => Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("venv-aws"),
    };
    let make_venv = Path::new(env!("CARGO_MANIFEST_DIR")).join("../simulator/tests/make-venv");
    let made = Command::new(make_venv).arg(&venv).output().expect("make-venv");
    assert!(made.status.success(), "{}", said(&made));
    let temporary = tempfile::tempdir().expect("a directory");
    let mut command = Command::new(demo);
    command.args(arguments);
    // Both are programs of this workspace.
    command.arg("--binary").arg(demo.with_file_name("vyos-aws-vipa")).arg("--aws").arg(venv.join("bin/aws"));
    command.env("TMPDIR", temporary.path()).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    for run in runs {
        let mark = format!("{run} of {}", std::process::id());
        let (output, held) = watched(command.env(MARK, &mark), &mark);
        let namespaces: BTreeSet<String> = held.keys().cloned().collect();
        let said = said(&output);
        assert!(output.status.success(), "{run}: {}: {said}", output.status);
        let (_, shown) = said.rsplit_once("\nSummary\n").unwrap_or_else(|| panic!("{run}: no summary: {said}"));
        assert!(shown.contains(summary), "{run}: {said}");

        assert!(namespaces.len() >= NAMESPACES.len() + of_hosts, "{run}: {namespaces:?}");
        let processes: Vec<_> =
            processes().filter(|p| is_marked(p, &mark) || !namespaces.is_disjoint(&namespaces_of(p))).collect();
        assert!(processes.is_empty(), "{run}: {:#?}", processes.iter().map(|p| story(p)).collect::<Vec<_>>());
        // A namespace can be kept by a mount too; /run/lab is where a router has its files.
        let mounts = fs::read_to_string("/proc/self/mountinfo").expect("our mounts");
        let is_left = |line: &&str| line.contains("/run/lab") || namespaces.iter().any(|n| line.contains(n.as_str()));
        let mounts: Vec<_> = mounts.lines().filter(is_left).collect();
        assert!(mounts.is_empty(), "{run}: {mounts:#?}");
        let files: Vec<_> = fs::read_dir(temporary.path()).expect("listed").flatten().map(|e| e.path()).collect();
        assert!(files.is_empty(), "{run}: {files:#?}");
        assert!(!Path::new("/run/lab").exists(), "{run}: a router's files are outside of its namespaces");
    }
}

/// Runs the demonstration to its end. Returns its output, and the namespaces of the processes with the mark. They are
/// held open, because the kernel reuses the number of a namespace that is gone, perhaps for another test.
fn watched(command: &mut Command, mark: &str) -> (Output, BTreeMap<String, File>) {
    let outside = namespaces_of(Path::new("/proc/self"));
    let mut seen = BTreeMap::new();
    let child = command.spawn().expect("the demonstration");
    let run = thread::spawn(|| child.wait_with_output().expect("an end"));
    while !run.is_finished() {
        for process in processes().filter(|process| is_marked(process, mark)) {
            let opened =
                threads(&process).flat_map(|thread| NAMESPACES.map(|kind| File::open(thread.join("ns").join(kind))));
            seen.extend(opened.filter_map(Result::ok).filter_map(|file| {
                let name = fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd())).ok()?;
                Some((name.to_string_lossy().into_owned(), file))
            }));
        }
        thread::sleep(Duration::from_millis(100));
    }
    seen.retain(|name, _| !outside.contains(name));
    (run.join().expect("what it said"), seen)
}

/// The directories of all processes; one may end at any time.
fn processes() -> impl Iterator<Item = PathBuf> {
    let entries = fs::read_dir("/proc").expect("proc(5)").flatten();
    entries.filter(|e| e.file_name().as_encoded_bytes().iter().all(u8::is_ascii_digit)).map(|e| e.path())
}

/// The directories of its threads; one may be in other namespaces than the process.
fn threads(process: &Path) -> impl Iterator<Item = PathBuf> {
    fs::read_dir(process.join("task")).into_iter().flatten().flatten().map(|entry| entry.path())
}

fn is_marked(process: &Path, mark: &str) -> bool {
    let variable = format!("{MARK}={mark}");
    let environment = fs::read(process.join("environ")).unwrap_or_default();
    environment.split(|byte| *byte == 0).any(|other| other == variable.as_bytes())
}

/// As the kernel names them, such as `net:[4026531840]`.
fn namespaces_of(process: &Path) -> BTreeSet<String> {
    let links = threads(process).flat_map(|thread| NAMESPACES.map(|kind| fs::read_link(thread.join("ns").join(kind))));
    links.filter_map(Result::ok).map(|link| link.to_string_lossy().into_owned()).collect()
}

fn story(process: &Path) -> String {
    let words = fs::read(process.join("cmdline")).unwrap_or_default();
    format!("{}: {}", process.display(), String::from_utf8_lossy(&words).replace('\0', " "))
}
