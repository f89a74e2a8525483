//! `bench run` measures everything and writes the report; it runs itself again for each measurement, in namespaces.

use std::error::Error;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::Instant;

use bench::report::{Circumstances, Measured, Package, Report, machine};
use bench::resources::{Kind, Resources};
use bench::{black_hole, cost, failover, line, many, owner, page, picture, resources};
use clap::{Args, Parser, Subcommand};
use lab::Lab;
use lab::simulator::World;
use serde::Serialize;
use serde::de::DeserializeOwned;

type Failure = Box<dyn Error + Send + Sync>;

/// Failover time, scale and cost of vyos-aws-vipa, beside what people use otherwise.
#[derive(Parser)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Measure everything; the exit code is 1 if a bound does not hold.
    Run(Run),
    /// Judge a report of an earlier run once more, by its measurements alone; the exit code is that of `run`.
    Judge {
        /// Its bench.json.
        report: PathBuf,
    },
    /// One measurement, inside its namespaces; prints JSON.
    #[command(hide = true)]
    Measure(Measure),
    /// Run a program so often, and print what it took as JSON.
    #[command(hide = true)]
    Times {
        times: usize,
        /// Files for its standard input, in turn, with commas between them.
        inputs: String,
        program: String,
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
}

#[derive(Args)]
struct Run {
    #[command(flatten)]
    subject: Subject,
    /// The Debian package that the binary is from.
    #[arg(long)]
    package: PathBuf,
    /// The commit that is measured, for the report.
    #[arg(long)]
    revision: String,
    /// The directory for bench.txt, bench.json and bench.svg.
    #[arg(long)]
    output: PathBuf,
    /// Also rewrite docs/benchmarks.md in this repository, and the picture and the report that it links to.
    #[arg(long, value_name = "DIRECTORY")]
    update_docs: Option<PathBuf>,
}

#[derive(Args)]
struct Measure {
    #[command(flatten)]
    subject: Subject,
    /// line, many, failover, black-hole, first, routes, elastic-ips, held, idle, commands or owner.
    what: String,
    /// Groups, for idle, commands and owner.
    #[arg(default_value_t = 1)]
    groups: usize,
}

#[derive(Args, Clone)]
struct Subject {
    /// The binary to measure.
    #[arg(long)]
    product: PathBuf,
    /// The Python environment with boto3 and the AWS CLI.
    #[arg(long)]
    environment: PathBuf,
    /// Measure very little, only to see that all of it works; bounds do not count.
    #[arg(long)]
    smoke: bool,
}

impl Subject {
    fn groups(&self) -> Vec<usize> {
        if self.smoke { vec![1, 2, 3] } else { vec![1, 10, 50, 200] }
    }

    fn lines(&self) -> line::Sizes {
        match self.smoke {
            true => line::Sizes { transitions: 4, paused: 1, peers: 1, cold: 1 },
            false => line::Sizes { transitions: 1_000, paused: 20, peers: 30, cold: 50 },
        }
    }

    fn many(&self) -> many::Sizes {
        match self.smoke {
            true => many::Sizes { groups: self.groups(), rounds: 1, peers: (2, 1) },
            false => many::Sizes { groups: self.groups(), rounds: 5, peers: (10, 3) },
        }
    }

    /// The groups of a commit, and how often it is made.
    fn owner(&self) -> (Vec<usize>, usize) {
        if self.smoke { (vec![1, 3], 1) } else { (vec![1, 20, 200], 5) }
    }

    fn resources(&self) -> resources::Sizes {
        let counts = self.groups();
        match self.smoke {
            true => resources::Sizes { groups: 2, lives: 1, counts, rounds: 1, peers: (2, 1), held: (3, 2) },
            false => resources::Sizes { groups: 50, lives: 2, counts, rounds: 3, peers: (10, 1), held: (200, 50) },
        }
    }

    /// Seconds between two regular reads, and how many times that to measure.
    fn idle(&self) -> (u32, u32) {
        if self.smoke { (5, 1) } else { (30, 2) }
    }
}

fn main() -> ExitCode {
    match perform(Cli::parse().verb) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("bench: {error}");
            ExitCode::FAILURE
        }
    }
}

fn perform(verb: Verb) -> Result<bool, Failure> {
    match verb {
        Verb::Run(run) => perform_run(&run),
        Verb::Measure(measure) => perform_measure(&measure).map(|()| true),
        Verb::Judge { report } => perform_judge(&report),
        Verb::Times { times, inputs, program, arguments } => {
            let inputs: Vec<PathBuf> = inputs.split(',').map(PathBuf::from).collect();
            print(&cost::run(times, &inputs, &program, &arguments)?)?;
            Ok(true)
        }
    }
}

fn print(what: &impl Serialize) -> io::Result<()> {
    serde_json::to_writer(io::stdout().lock(), what).map_err(io::Error::other)
}

fn perform_run(run: &Run) -> Result<bool, Failure> {
    let measured = measure_all(run)?;
    let on = Circumstances {
        date: jiff::Timestamp::now().strftime("%Y-%m-%d").to_string(),
        machine: machine(),
        version: last_word(Command::new(&run.subject.product).arg("--version"))?,
        revision: run.revision.clone(),
        tools: tools(&run.subject.environment)?,
        verify_interval: run.subject.idle().0,
    };
    let report = Report::new(on, measured);
    let text = page::text(&report);
    print!("{text}");
    let json = format!("{}\n", serde_json::to_string_pretty(&report)?);
    let svg = picture::draw(&report);
    fs::create_dir_all(&run.output)?;
    for (name, content) in [("bench.txt", &text), ("bench.json", &json), ("bench.svg", &svg)] {
        write(&run.output.join(name), content)?;
    }
    if let Some(repository) = &run.update_docs {
        let page = page::markdown(&report);
        for (path, content) in [(page::PAGE, &page), (page::JSON, &json), (page::PICTURE, &svg)] {
            write(&repository.join(path), content)?;
        }
    }
    Ok(run.subject.smoke || report.holds())
}

fn perform_judge(path: &Path) -> Result<bool, Failure> {
    let json = fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
    let old: Report = serde_json::from_str(&json).map_err(|error| format!("{}: {error}", path.display()))?;
    let report = Report::new(old.on, old.measured);
    print!("{}", page::text(&report));
    Ok(report.holds())
}

fn write(path: &Path, content: &str) -> Result<(), String> {
    fs::write(path, content).map_err(|error| format!("{}: {error}", path.display()))
}

fn measure_all(run: &Run) -> Result<Measured, Failure> {
    let began = Instant::now();
    let subject = &run.subject;
    let megabytes = |path: &Path| match fs::metadata(path) {
        Ok(metadata) => Ok(metadata.len() as f64 / 1e6),
        Err(error) => Err(format!("{}: {error}", path.display())),
    };
    let me = std::env::current_exe()?;
    let of_groups = |what: &str, groups: Vec<usize>| -> Vec<Measurement> {
        groups.into_iter().map(|n| Measurement::new(&me, subject, what, Some(n))).collect()
    };
    let new = |what| Measurement::new(&me, subject, what, None);
    let mut once = ["line", "many", "failover", "black-hole", "first"].map(new);
    let (mut moves, mut held) = (["routes", "elastic-ips"].map(new), new("held"));
    let (mut commands, mut idle) = (of_groups("commands", subject.groups()), of_groups("idle", subject.groups()));
    let mut owner = of_groups("owner", subject.owner().0);
    if subject.smoke {
        // No time counts: all at once.
        let once = once.iter_mut().chain(&mut moves).chain([&mut held]);
        let mut all = once.chain(&mut commands).chain(&mut idle).chain(&mut owner);
        all.try_for_each(Measurement::start)?;
    }
    let [line, many, failover, black_hole, first] = once;
    let (line, many, failover, black_hole) = (line.end()?, many.end()?, failover.end()?, Some(black_hole.end()?));
    let first = first.end()?;
    // The calls of both kinds take far longer than all that is computed for them.
    moves.iter_mut().try_for_each(Measurement::start)?;
    let moves = moves.into_iter().map(Measurement::end::<Vec<_>>).collect::<Result<Vec<_>, Failure>>()?.concat();
    let commands = commands.into_iter().map(Measurement::end).collect::<Result<_, Failure>>()?;
    let owner = owner.into_iter().map(Measurement::end::<Vec<_>>).collect::<Result<Vec<_>, Failure>>()?.concat();
    // An idle agent takes nothing from its neighbours: all of them at once, each in a lab of its own.
    idle.iter_mut().chain([&mut held]).try_for_each(Measurement::start)?;
    let resources = Some(Resources { first, moves, held: held.end()? });
    let idle = idle.into_iter().map(Measurement::end).collect::<Result<_, Failure>>()?;
    let binary_mb = megabytes(&subject.product)?;
    let package = Package { mb: megabytes(&run.package)?, depends: depends(&run.package)? };
    let seconds = began.elapsed().as_secs_f64();
    Ok(Measured { line, many, failover, black_hole, idle, commands, owner, resources, binary_mb, package, seconds })
}

/// This program once more, in namespaces of its own, for one measurement.
struct Measurement {
    name: String,
    command: Command,
    running: Option<Child>,
}

impl Measurement {
    fn new(me: &Path, subject: &Subject, what: &str, groups: Option<usize>) -> Self {
        let mut command = lab::enter(me, &["measure", what, &groups.unwrap_or(1).to_string()]);
        command.arg("--product").arg(&subject.product).arg("--environment").arg(&subject.environment);
        if subject.smoke {
            command.arg("--smoke");
        }
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        let name = groups.map_or_else(|| what.to_owned(), |count| format!("{what}, {}", bench::figures::groups(count)));
        Self { name, command, running: None }
    }

    /// Does nothing if it runs already.
    fn start(&mut self) -> Result<(), Failure> {
        if self.running.is_none() {
            eprintln!("measuring: {}", self.name);
            self.running = Some(self.command.spawn()?);
        }
        Ok(())
    }

    /// What it has printed at its end.
    fn end<T: DeserializeOwned>(mut self) -> Result<T, Failure> {
        self.start()?;
        let child = self.running.ok_or("not started")?;
        let output = child.wait_with_output()?;
        if !output.status.success() {
            return Err(format!("{}: {}", self.name, output.status).into());
        }
        serde_json::from_slice(&output.stdout).map_err(|error| format!("{}: {error}", self.name).into())
    }
}

/// What a command prints, on either output.
fn printed(command: &mut Command) -> Result<String, Failure> {
    let output = command.output().map_err(|error| format!("{command:?}: {error}"))?;
    if !output.status.success() {
        return Err(format!("{command:?}: {}: {}", output.status, lab::said(&output)).into());
    }
    Ok(lab::said(&output))
}

fn last_word(command: &mut Command) -> Result<String, Failure> {
    Ok(printed(command)?.split_whitespace().last().unwrap_or_default().to_owned())
}

/// The names of the packages that a Debian package depends on.
fn depends(package: &Path) -> Result<Vec<String>, Failure> {
    let field = printed(Command::new("dpkg-deb").arg("--field").arg(package).arg("Depends"))?;
    let names = field.split([',', '|']).filter_map(|one| one.split_whitespace().next());
    Ok(names.map(str::to_owned).collect())
}

/// The versions of what the product is measured with and beside.
fn tools(environment: &Path) -> Result<String, Failure> {
    let bin = environment.join("bin");
    let script = "import boto3, platform; print(boto3.__version__, 'with Python', platform.python_version())";
    let boto3 = printed(Command::new(bin.join("python")).args(["-c", script]))?;
    let cli = printed(Command::new(bin.join("aws")).arg("--version"))?;
    let cli = cli.split_whitespace().next().and_then(|word| word.strip_prefix("aws-cli/")).unwrap_or_default();
    let keepalived = printed(Command::new("keepalived").arg("--version"))?;
    let keepalived = keepalived.split_whitespace().nth(1).unwrap_or_default().trim_start_matches('v');
    Ok(format!("keepalived {keepalived}, boto3 {}, AWS CLI {cli}", boto3.trim()))
}

fn perform_measure(measure: &Measure) -> Result<(), Failure> {
    if !lab::is_inside() {
        return Err("this is for `bench run`, which makes the namespaces".into());
    }
    let subject = &measure.subject;
    let lab = |world: World| Lab::start(world, &subject.product);
    let environment = &subject.environment;
    match measure.what.as_str() {
        "line" => print(&line::measure(&mut lab(line::world(subject.lines())), environment, subject.lines()))?,
        "many" => print(&many::measure(&mut lab(many::world()), environment, &subject.many()))?,
        "failover" => {
            let rounds = if subject.smoke { 1 } else { 10 };
            print(&failover::measure(&mut lab(cost::world()), rounds))?;
        }
        "black-hole" => {
            let rounds = if subject.smoke { 1 } else { 10 };
            print(&black_hole::measure(&mut lab(cost::world()), rounds))?;
        }
        "first" => print(&resources::first(&mut lab(resources::world()), &subject.resources()))?,
        "routes" | "elastic-ips" => {
            let kind = if measure.what == "routes" { Kind::Route } else { Kind::ElasticIp };
            print(&resources::moves(&mut lab(resources::world()), environment, kind, &subject.resources()))?;
        }
        "held" => {
            // Two of each kind of read are needed.
            let ((interval, _), sizes) = (subject.idle(), subject.resources());
            print(&resources::held(&mut lab(resources::world()), sizes.held, interval, 2))?;
        }
        "idle" => {
            let (interval, times) = subject.idle();
            print(&cost::idle(&mut lab(cost::world()), measure.groups, interval, times))?;
        }
        "commands" => {
            let (bench, times) = (std::env::current_exe()?, if subject.smoke { 2 } else { 100 });
            print(&cost::commands(&mut lab(cost::world()), &bench, measure.groups, times))?;
        }
        "owner" => print(&owner::measure(&mut lab(cost::world()), measure.groups, subject.owner().1))?,
        other => return Err(format!("there is no measurement {other}").into()),
    }
    Ok(())
}
