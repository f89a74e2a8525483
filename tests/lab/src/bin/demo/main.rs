//! The demonstration: a failover and two split-brains, and which ENI has the address in EC2 meanwhile; or failovers between
//! two availability zones, and the clients' pings meanwhile. scripts/demo builds what it needs and runs it. It succeeds only
//! if the router that should have the address or the routes has them, according to the AWS CLI.

mod screen;
mod witness;
mod zones;

use std::env;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use jiff::Timestamp;
use lab::simulator::{Move, Request};
use lab::{Cut, GROUP, Lab, Router, Signal, VIP};
use rustix::process::{Pid, set_parent_process_death_signal};

use crate::screen::{configuration, heading, milliseconds, operational, timeline, wait};
use crate::witness::{Witness, is_state};

/// What a busy machine may need.
const SLACK: Duration = Duration::from_secs(20);

/// Shows failovers with two routers in namespaces of this machine.
#[derive(Parser)]
#[command(name = "demo")]
struct Demo {
    /// The program that is shown, vyos-aws-vipa, by its absolute path
    #[arg(long)]
    binary: PathBuf,
    /// The AWS CLI, by its absolute path
    #[arg(long)]
    aws: PathBuf,
    /// Routers in two availability zones, and routes in place of an address
    #[arg(long)]
    zones: bool,
}

/// What was measured, for the summary.
struct Failover {
    whole: String,
    vrrp: String,
    ours: String,
}

fn main() -> ExitCode {
    let demo = Demo::parse();
    if lab::is_inside() {
        if demo.zones {
            lab::in_lab(lab::two_zones(), &demo.binary, |lab| zones::show(&demo, lab));
        } else {
            lab::in_lab(lab::world().stale_reads(Duration::ZERO), &demo.binary, |lab| demo.show(lab));
        }
        return ExitCode::SUCCESS;
    }
    // unshare(1) ends everything in the namespaces when it ends, and so with the script.
    if let Err(error) = set_parent_process_death_signal(Some(Signal::KILL)) {
        eprintln!("demo: prctl(2): {error}");
        return ExitCode::FAILURE;
    }
    let arguments: Vec<String> = env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let error = lab::enter(&env::current_exe().expect("our own file"), &arguments).exec();
    eprintln!("demo: unshare(1) of util-linux: {error}");
    ExitCode::FAILURE
}

impl Demo {
    /// # Panics
    /// If something else happens than expected.
    fn show(&self, lab: &mut Lab) {
        println!(
            "Two routers with the real keepalived, each in namespaces of its own, and a\n\
             simulated EC2 that answers at once. `set`, `commit` and `show` do here what\n\
             VyOS does with them."
        );
        self.two_routers(lab);
        let second = Witness::of(&lab.r2);
        let failover = self.power_cut(lab, &second);
        come_back(lab, is_as_it_was);
        let heard = healed_heard(lab);
        let unheard = healed_unheard(lab, &second);

        heading("In the end");
        [&lab.r1, &lab.r2].into_iter().for_each(show_status);
        let owner = self.owner_says_the_cli(&lab.r1);
        assert_eq!(owner, place(&lab.r1), "{:?}", lab.simulator);

        heading("Summary");
        println!(
            "Failover     Router 1 lost power. Router 2 had {VIP} {} ms after\n\
             \x20            its last advertisement. VRRP took {} ms to make router 2\n\
             \x20            master, and {} ms later its claim was at EC2.\n\
             Split-brain  Router 2 took {VIP} while the link was cut. Router 1, the\n\
             \x20            master, had it back {} ms after the first advertisement of\n\
             \x20            router 2 that came through; where none came, {} ms after the\n\
             \x20            link was healed, by its regular read of the owner.\n\
             Owner        {owner}, says the AWS CLI:\n\
             \x20            router 1, which is the master.",
            failover.whole, failover.vrrp, failover.ours, heard, unheard
        );
    }

    fn two_routers(&self, lab: &mut Lab) {
        heading("1. Two routers with one virtual address");
        println!(
            "The last two nodes are those of vyos-aws-vipa, and the very last one is only for\n\
             the certificate of the simulator.\n"
        );
        for (router, priority) in [(&mut lab.r1, 200), (&mut lab.r2, 100)] {
            let commands = router.group_commands(GROUP, 10, "10.99.0.100/24", priority);
            commands.iter().for_each(|command| configuration(router, command));
            router.set(commands.iter().map(String::as_str));
            commit(router);
        }
        let is_settled = |lab: &Lab| shows(&lab.r1, "MASTER", "OK") && shows(&lab.r2, "BACKUP", "STANDBY-READY");
        wait(lab, "VRRP elects a master, which claims the address", SLACK, is_settled);
        [&lab.r1, &lab.r2].into_iter().for_each(show_status);
        println!("\nThe AWS CLI, with the role of router 2, agrees:");
        assert_eq!(self.owner_says_the_cli(&lab.r2), place(&lab.r1), "{:?}", lab.simulator);
    }

    fn power_cut(&self, lab: &mut Lab, second: &Witness) -> Failover {
        heading("2. Router 1 loses power");
        wait(lab, "router 2 hears router 1", SLACK, |lab| {
            second.heard.last(Timestamp::now(), |from| *from == lab.r1.primaries[0]).is_some()
        });
        let cut = Timestamp::now();
        lab.r1.power_off();
        wait(lab, "router 2 notices, and takes over", SLACK, |lab| has_the_address(lab, &lab.r2));
        let (claim, moved) = claim_and_move(lab, &lab.r2, cut);
        let is_logged = |lab: &Lab| log_since(&lab.r2, cut).iter().any(|(_, line)| line.contains("claim acknowledged"));
        lab.wait("the agent of router 2 logs its claim", SLACK, is_logged);
        let log = log_since(&lab.r2, cut);
        let master = became_master(second, cut, &log);
        let last = second.heard.last(master, |from| *from == lab.r1.primaries[0]).expect("it was heard before");
        timeline(&[
            (last, "the last advertisement of router 1 reaches router 2".to_owned()),
            (cut, "router 1 loses power".to_owned()),
            (master, "keepalived on router 2 writes MASTER".to_owned()),
            (claim.arrived_wall, format!("the claim of router 2 is at EC2: {}", claim.action)),
            (moved.wall, format!("{VIP} is on {} of router 2", moved_to(&moved))),
        ]);
        let failover = Failover {
            whole: milliseconds(last, moved.wall),
            vrrp: milliseconds(last, master),
            ours: milliseconds(master, claim.arrived_wall),
        };
        println!(
            "{}vyos-aws-vipa  {} ms\n\
             EC2            {} ms: the simulator's; the real one takes its own time\n",
            vrrp_took(&failover.vrrp),
            failover.ours,
            milliseconds(claim.arrived_wall, moved.wall)
        );
        wait(lab, "a read confirms it", SLACK, |lab| shows(&lab.r2, "MASTER", "OK"));
        show_status(&lab.r2);
        show_log(&lab.r2, &log);
        assert_eq!(self.owner_says_the_cli(&lab.r2), place(&lab.r2), "{:?}", lab.simulator);
        failover
    }

    /// What the AWS CLI on the router, with the role of its instance, reports for the address: the ENI and the
    /// instance.
    fn owner_says_the_cli(&self, router: &Router) -> String {
        let filter = format!("Name=addresses.private-ip-address,Values={VIP}");
        let said = self.ask(
            router,
            &[
                ["ec2", "describe-network-interfaces"],
                ["--region", "eu-west-1"],
                ["--ca-bundle", "/run/lab/ca.pem"],
                ["--filters", &filter],
                ["--query", "NetworkInterfaces[].[NetworkInterfaceId,Attachment.InstanceId]"],
                ["--output", "text"],
            ],
        );
        said.split_whitespace().collect::<Vec<_>>().join(" of ")
    }

    /// Runs the AWS CLI on the router with these words, two in a line, and returns its output.
    fn ask(&self, router: &Router, words: &[[&str; 2]]) -> String {
        let typed: Vec<String> = words.iter().map(|pair| pair.map(quoted).join(" ")).collect();
        operational(router, &format!("aws {}", typed.join(" \\\n    ")));
        let mut command = router.command(&self.aws);
        let path = env::var_os("PATH").unwrap_or_default();
        let output = command.args(words.concat()).env_clear().env("PATH", path).env("HOME", "/nonexistent").output();
        let output = output.expect("nsenter(1)");
        let said = lab::said(&output);
        print!("{said}");
        assert!(output.status.success(), "the AWS CLI: {}", output.status);
        said
    }
}

/// A word as a shell takes it.
fn quoted(word: &str) -> String {
    let is_plain = !word.contains(['?', '\'', ' ', '|', '`']);
    if is_plain { word.to_owned() } else { format!("\"{word}\"") }
}

fn come_back(lab: &mut Lab, is_as_it_was: impl Fn(&Lab) -> bool) {
    heading("3. Router 1 is back");
    println!("It boots with its configuration. Its priority is the higher one, so it is master again.\n");
    for output in lab.r1.boot(|_| ()) {
        assert!(output.status.success(), "{}", lab::said(&output));
    }
    wait(lab, "router 1 boots, and takes over", SLACK, is_as_it_was);
}

/// A split-brain after which the true master gets a line.
fn healed_heard(lab: &mut Lab) -> String {
    heading("4. Split-brain");
    split(lab);
    println!(
        "The link is healed. Router 1 stays MASTER: nothing changes there, and whoever\n\
         listens for changes alone leaves the address with router 2. But keepalived on a\n\
         master that hears a lower priority writes MASTER_RX_LOWER_PRI. It does if router\n\
         1 hears router 2 before that hears router 1 and gives up. So that it happens\n\
         here, the direction from router 2 is healed first.\n"
    );
    let first = Witness::of(&lab.r1);
    let healed = Timestamp::now();
    lab.cut(Cut::From(1));
    wait(lab, "router 1 hears router 2, and claims the address back", SLACK, |lab| has_the_address(lab, &lab.r1));
    let (claim, moved) = claim_and_move(lab, &lab.r1, healed);
    let line = first.wrote(healed, "MASTER_RX_LOWER_PRI").min(claim.arrived_wall);
    let heard = first.heard.first(healed, |from| *from == lab.r2.primaries[0]);
    let heard = heard.map_or(line, |heard| heard.min(line));
    timeline(&[
        (healed, "the link from router 2 to router 1 is healed".to_owned()),
        (heard, "an advertisement of router 2 reaches router 1".to_owned()),
        (line, "keepalived on router 1 writes MASTER_RX_LOWER_PRI".to_owned()),
        (claim.arrived_wall, format!("the claim of router 1 is at EC2: {}", claim.action)),
        (moved.wall, format!("{VIP} is on {} of router 1", moved_to(&moved))),
    ]);
    lab.heal();
    wait(lab, "the other direction is healed too, and router 2 gives up", SLACK, is_as_it_was);
    milliseconds(heard, moved.wall)
}

/// A split-brain after which the true master gets no notify event.
fn healed_unheard(lab: &mut Lab, second: &Witness) -> String {
    heading("5. Split-brain, without a notify event for the master");
    println!(
        "The other order: router 2 hears router 1 first, and becomes BACKUP. Then only\n\
         router 1's reads show it: it reads the owner every verify-interval, and once\n\
         more 1 to 2 s later. The interval is 30 s by default; here it is less.\n"
    );
    let command = "set high-availability vrrp global-parameters aws-vipa verify-interval 5";
    configuration(&lab.r1, command);
    lab.r1.set([command]);
    commit(&mut lab.r1);
    split(lab);
    let healed = Timestamp::now();
    lab.cut(Cut::From(2));
    let gives_up = |_: &Lab| second.written.first(healed, |line| is_state(line, "BACKUP")).is_some();
    wait(lab, "router 2 hears router 1, and gives up", SLACK, gives_up);
    lab.heal();
    wait(lab, "router 1 finds out, and claims the address back", SLACK, |lab| has_the_address(lab, &lab.r1));
    let (claim, moved) = claim_and_move(lab, &lab.r1, healed);
    let mut events = vec![
        (healed, "the link from router 1 to router 2 is healed".to_owned()),
        (second.wrote(healed, "BACKUP"), "keepalived on router 2 writes BACKUP".to_owned()),
        (claim.arrived_wall, format!("the claim of router 1 is at EC2: {}", claim.action)),
        (moved.wall, format!("{VIP} is on {} of router 1", moved_to(&moved))),
    ];
    events.extend(reads(lab, &lab.r1, healed, claim.arrived_wall));
    timeline(&events);
    wait(lab, "a read confirms it", SLACK, is_as_it_was);
    milliseconds(healed, moved.wall)
}

/// Cuts the link both ways until router 2 has taken the address too.
fn split(lab: &Lab) {
    println!(
        "The link is cut in both directions. Router 1 is MASTER as before, and router 2\n\
         becomes MASTER as well. EC2 obeys the last claim: that of router 2.\n"
    );
    lab.cut(Cut::Both);
    wait(lab, "router 2 hears nothing, and takes the address", SLACK, |lab| has_the_address(lab, &lab.r2));
    let states = [&lab.r1, &lab.r2].map(|router| router.shown(GROUP, VIP).vrrp().to_owned());
    println!("\n  router 1 {}, router 2 {}, in EC2 {} of router 2\n", states[0], states[1], lab.r2.enis[0]);
    assert_eq!(states, ["MASTER", "MASTER"]);
}

fn commit(router: &mut Router) {
    configuration(router, "commit");
    router.commit().iter().for_each(|said| print!("{said}"));
    println!();
}

fn show_status(router: &Router) {
    operational(router, "show aws-vipa status");
    print!("{}", router.call(&["vyos-aws-vipa", "show", "status"]));
}

fn show_log(router: &Router, log: &[(Timestamp, String)]) {
    operational(router, "show log aws-vipa");
    let pid = router.main_pid("vyos-aws-vipa").expect("an agent");
    log.iter().for_each(|(_, line)| println!("{}", as_shown(line, pid)));
}

/// What a summary says of the time that VRRP takes.
fn vrrp_took(milliseconds: &str) -> String {
    format!(
        "VRRP           {milliseconds} ms: a standby waits for three advertisements, 1 s\n\
         \x20              each, and (256 - 100)/256 s more (RFC 9568 and 5798, 6.1)\n"
    )
}

/// When keepalived made the router master, according to VyOS's FIFO and to the agent's log: both are a little late, and one
/// of them less.
fn became_master(witness: &Witness, start: Timestamp, log: &[(Timestamp, String)]) -> Timestamp {
    let read = log.iter().find(|(_, line)| line.contains("to=MASTER")).expect("the agent logs it").0;
    witness.wrote(start, "MASTER").min(read)
}

fn shows(router: &Router, vrrp: &str, verdict: &str) -> bool {
    let shown = router.shown(GROUP, VIP);
    (shown.vrrp(), shown.verdict()) == (vrrp, verdict)
}

/// Router 1 is master and has the address, router 2 is ready, and both report it.
fn is_as_it_was(lab: &Lab) -> bool {
    has_the_address(lab, &lab.r1) && shows(&lab.r1, "MASTER", "OK") && shows(&lab.r2, "BACKUP", "STANDBY-READY")
}

fn has_the_address(lab: &Lab, router: &Router) -> bool {
    lab.simulator.owner(VIP).is_some_and(|eni| eni == *router.enis[0])
}

/// As [`Demo::owner_says_the_cli`] names it.
fn place(router: &Router) -> String {
    format!("{} of {}", router.enis[0], router.instance)
}

/// The first claim of the router from `start` on, and the move of the address to it.
fn claim_and_move(lab: &Lab, router: &Router, start: Timestamp) -> (Request, Move) {
    let claim = lab.claims(Some(router)).into_iter().find(|r| r.arrived_wall >= start && r.claims(VIP));
    let moves = lab.simulator.moves().into_iter();
    let moved = moves.rev().find(|m| m.address == VIP && m.to.as_ref().is_some_and(|eni| *eni == *router.enis[0]));
    claim.zip(moved).unwrap_or_else(|| panic!("no claim of router {}: {:?}", router.number, lab.simulator))
}

fn moved_to(moved: &Move) -> String {
    moved.to.as_ref().map(ToString::to_string).unwrap_or_default()
}

/// The reads of the router between two times, and the owners that they found.
fn reads(lab: &Lab, router: &Router, start: Timestamp, end: Timestamp) -> Vec<(Timestamp, String)> {
    let requests = lab.simulator.requests().into_iter();
    requests
        .filter(|r| r.action == "DescribeNetworkInterfaces" && r.addresses.contains(&VIP))
        .filter(|r| r.instance.as_ref().is_some_and(|i| *i == *router.instance))
        .filter(|r| (start..end).contains(&r.arrived_wall))
        .map(|r| (r.arrived_wall, format!("a read of router {} at EC2 finds router 2", router.number)))
        .collect()
}

/// A line of the agent's standard error in the form of `show log aws-vipa`.
fn as_shown(line: &str, pid: Pid) -> String {
    let (time, rest) = line.split_once("Z ").expect("a time in UTC");
    format!("{time}+0000 vyos-aws-vipa[{}]: {}", pid.as_raw_nonzero(), rest.trim_start())
}

/// The agent's log of the router from `start` on.
fn log_since(router: &Router, start: Timestamp) -> Vec<(Timestamp, String)> {
    let log = router.agent_log();
    let dated = log.lines().filter_map(|line| Some((line.split(' ').next()?.parse().ok()?, line.to_owned())));
    dated.filter(|(at, _)| *at >= start).collect()
}
