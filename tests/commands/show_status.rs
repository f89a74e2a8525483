//! The command `show status`: with an agent, with a faulty agent, and without.

use std::io::{self, Write};
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};
use std::{env, fs};

use serde_json::{Value, json};
use simulator::{Simulator, World};
use vipa_core::model::config::{Config, Global};
use vipa_core::model::ids::Region;
use vyos_aws_vipa::aws::Imds;
use vyos_aws_vipa::commands::show_check;
use vyos_aws_vipa::commands::show_group::ShowGroup;
use vyos_aws_vipa::commands::show_status::{ShowStatus, ShowStatusError};
use vyos_aws_vipa::control::Access;
use vyos_aws_vipa::fs::json_file;

use crate::router::{Router, inside, ip, nowhere};

const TABLE: ShowStatus = ShowStatus { json: false, fresh: false, detail: false };
const JSON: ShowStatus = ShowStatus { json: true, fresh: false, detail: false };

/// The time limit of the command, and a second more for a busy machine.
const WHOLE: Duration = Duration::from_secs(5);

/// A server whose connections the kernel accepts; it never answers.
struct Listening {
    listener: TcpListener,
    url: String,
}

impl Listening {
    fn start() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        listener.set_nonblocking(true).expect("set");
        let url = format!("http://{}", listener.local_addr().expect("its address"));
        Self { listener, url }
    }

    fn was_called(&self) -> bool {
        self.listener.accept().is_ok()
    }
}

/// The output of the command, with IMDS at `imds`.
fn show(router: &Router, show: ShowStatus, imds: &str) -> Result<String, ShowStatusError> {
    let mut out = Vec::new();
    show.run(&router.paths, &Imds::at(imds), Access::Granted, &mut out)?;
    Ok(String::from_utf8(out).expect("UTF-8"))
}

fn pinned(file: &str) -> String {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/status").join(file);
    fs::read_to_string(path).expect("a pinned report")
}

/// The response of an agent with the pinned report.
fn answer(report: &str) -> Option<Vec<u8>> {
    let report: Value = serde_json::from_str(&pinned(report)).expect("JSON");
    Some(format!("{}\n", json!({"format": 1, "ok": report})).into_bytes())
}

#[test]
fn the_agents_report_is_printed() {
    let region = Region::try_from("eu-central-1").ok();
    let router = Router::new().configured(Global { region, ..Global::default() }, [10, 99, 0, 100], "eth0");
    let agent = router.agent(vec![answer("ok.json"), answer("claiming.json")]);
    assert_eq!(show(&router, TABLE, &nowhere()).expect("printed"), pinned("ok.txt"));
    assert_eq!(show(&router, JSON, &nowhere()).expect("printed"), pinned("claiming.json"));
    let requests = agent.join().expect("no panic");
    for request in requests {
        let request: Value = serde_json::from_str(&request).expect("JSON");
        assert_eq!(request, json!({"format": 1, "request": "status", "fresh": false}));
    }
}

#[test]
fn the_history_is_printed_on_request() {
    let router = Router::new();
    let mut report: Value = serde_json::from_str(&pinned("ok.json")).expect("JSON");
    report["history"] = serde_json::from_str(&pinned("history.json")).expect("JSON");
    let response = || Some(format!("{}\n", json!({"format": 1, "ok": report})).into_bytes());
    let agent = router.agent(vec![response(), response()]);
    let detail = ShowStatus { detail: true, ..TABLE };
    let text = show(&router, detail, &nowhere()).expect("printed");
    assert_eq!(text, format!("{}\n{}", pinned("ok.txt"), pinned("history.txt")));
    let text = show(&router, ShowStatus { json: true, ..detail }, &nowhere()).expect("printed");
    assert_eq!(serde_json::from_str::<Value>(&text).expect("JSON"), report);
    for request in agent.join().expect("no panic") {
        let request: Value = serde_json::from_str(&request).expect("JSON");
        assert_eq!(request, json!({"format": 1, "request": "status", "fresh": false, "history": 50}));
    }
    // Only the agent has the history.
    let router = Router::calling(&nowhere(), [10, 99, 0, 100], "lo");
    let text = show(&router, detail, &nowhere()).expect("printed");
    assert!(text.ends_with("\nHistory: only available from the agent.\n"), "{text}");
}

#[test]
fn if_a_fresh_report_takes_too_long_the_last_one_is_printed() {
    let request_timeout = 1.try_into().expect("in range");
    let router = Router::new().configured(Global { request_timeout, ..Global::default() }, [10, 99, 0, 100], "eth0");
    let agent = router.agent(vec![answer("ok.json"), None]);
    let start = Instant::now();
    let text = show(&router, ShowStatus { fresh: true, ..TABLE }, &nowhere()).expect("printed");
    assert!(start.elapsed() < WHOLE, "{:?}", start.elapsed());
    assert!(text.contains("\nNo answer    EC2 did not answer the agent within 3."), "{text}");
    assert!(text.contains("10.99.0.100      eth0 / yes, 2h 3m      this router / 4s ago   OK"), "{text}");
    let requests = agent.join().expect("no panic");
    assert!(requests[0].contains(r#""fresh":false"#) && requests[1].contains(r#""fresh":true"#), "{requests:?}");
}

/// Text from an agent is printed escaped, and never in a command that root might paste.
#[test]
fn text_from_the_agent_is_printed_but_never_in_a_command_to_paste() {
    let hostile = "\u{9b}2J\u{7f}\u{202e}\u{1b}[31m";
    let region = Region::try_from("eu-central-1").ok();
    let router = Router::new().configured(Global { region, ..Global::default() }, [10, 99, 0, 100], "eth0");
    let mut report: Value = serde_json::from_str(&pinned("claiming.json")).expect("JSON");
    report["ec2"]["endpoint_url"] = json!("https://elsewhere.example");
    report["ec2"]["credentials"] = json!(format!("{hostile}role"));
    for address in report["groups"][0]["addresses"].as_array_mut().expect("addresses") {
        address["command"] = json!(format!("rm -rf / {hostile}"));
        address["reason"] = json!(format!("because {hostile}"));
    }
    let response = || Some(format!("{}\n", json!({"format": 1, "ok": report})).into_bytes());
    let agent = router.agent(vec![response(), response()]);
    let [table, json] = [TABLE, JSON].map(|format| show(&router, format, &nowhere()).expect("printed"));
    agent.join().expect("no panic");
    for text in [&table, &json] {
        let bad = text.chars().find(|c| *c != '\n' && (c.is_control() || *c == '\u{202e}'));
        assert_eq!(bad, None, "{text}");
        assert!(!text.contains("rm -rf"), "{text}");
        let commands: Vec<&str> = text.lines().filter(|line| line.contains("aws ec2 ")).collect();
        assert!(commands.len() == 2 && !commands.concat().contains("elsewhere"), "{text}");
        assert!(commands[0].contains("--region eu-central-1 --network-interface-id eni-0123456789abcdef0"), "{text}");
    }
    let shown: Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!(shown["ec2"]["credentials"], format!("{hostile}role"));
    // Without a configuration the endpoint is unknown, so no command for a manual claim is shown.
    for path in [&router.paths.config, &router.paths.socket] {
        fs::remove_file(path).expect("removed");
    }
    let agent = router.agent(vec![Some(format!("{}\n", json!({"format": 1, "ok": report})).into_bytes())]);
    let text = show(&router, TABLE, &nowhere()).expect("printed");
    agent.join().expect("no panic");
    assert!(!text.contains("aws ec2") && text.contains("because"), "{text}");
}

#[test]
fn without_root_no_state_is_read_and_aws_is_not_called() {
    let (ec2, imds) = (Listening::start(), Listening::start());
    let router = Router::calling(&ec2.url, [10, 99, 0, 100], "lo");
    for format in [TABLE, JSON, ShowStatus { fresh: true, ..TABLE }] {
        let mut out = Vec::new();
        let error = format.run(&router.paths, &Imds::at(&imds.url), Access::Denied, &mut out).expect_err("refused");
        assert!(matches!(error, ShowStatusError::NotPermitted) && out.is_empty(), "{error:?}");
        assert!(
            error.to_string().starts_with("only root may see") && error.to_string().ends_with("use sudo"),
            "{error}"
        );
    }
    let group = ShowGroup { group: "web".to_owned() };
    let error = group.run(&router.paths, &Imds::at(&imds.url), Access::Denied, &mut Vec::new()).expect_err("refused");
    assert!(error.to_string().contains("only root may see"), "{error}");
    let error = show_check::run(&router.paths, &Imds::at(&imds.url), Access::Denied, &mut Vec::new());
    assert!(error.expect_err("refused").to_string().contains("only root may see"));
    assert!(!ec2.was_called() && !imds.was_called());
    // An agent that answers has accepted the user: members of its socket's group may read the status.
    let agent = router.agent(vec![answer("ok.json")]);
    let mut out = Vec::new();
    TABLE.run(&router.paths, &Imds::at(&imds.url), Access::Denied, &mut out).expect("printed");
    agent.join().expect("no panic");
    assert!(!out.is_empty() && !ec2.was_called() && !imds.was_called());
    // Without a configuration, every user gets that message.
    let error = TABLE.run(&Router::new().paths, &Imds::at(&imds.url), Access::Denied, &mut Vec::new());
    assert!(matches!(error, Err(ShowStatusError::NotConfigured)), "{error:?}");
}

/// A stopped agent, an IMDS that delays each response, and an EC2 that does not respond.
#[test]
fn whatever_is_down_the_command_ends_within_four_seconds() {
    let (ec2, imds) = (Listening::start(), Listening::start());
    for region in [None, Region::try_from("eu-west-1").ok()] {
        let global = Global { region, endpoint_url: Some(ec2.url.clone()), ..Global::default() };
        let router = Router::new().configured(global, [10, 99, 0, 100], "lo");
        // Connections are not accepted, as with a stopped process.
        let _stopped = UnixListener::bind(&router.paths.socket).expect("bound");
        let run = |format: ShowStatus| show(&router, format, &imds.url).expect("printed");
        let check = || {
            let mut out = Vec::new();
            let failed = show_check::run(&router.paths, &Imds::at(&imds.url), Access::Granted, &mut out);
            assert!(failed.is_err());
            String::from_utf8(out).expect("UTF-8")
        };
        let whats: [&dyn Fn() -> String; 3] = [&|| run(TABLE), &|| run(ShowStatus { fresh: true, ..TABLE }), &check];
        for what in whats {
            let start = Instant::now();
            let text = what();
            assert!(start.elapsed() < WHOLE, "{:?}: {text}", start.elapsed());
            assert!(text.contains("the agent hangs"), "{text}");
        }
    }
}

#[test]
fn a_faulty_agent_is_named_and_the_report_is_made_without_it() {
    for (answer, why) in [
        (Some(b"\x00\xff\x1b[2J\n".to_vec()), "cannot read the agent's answer"),
        (Some(b"{\"format\":1,\"ok\":{\"surprise\":1}}\n".to_vec()), "unexpected content: missing field"),
        (Some(b"{\"format\":9,\"ok\":{}}\n".to_vec()), "it has format 9"),
        (Some(b"{\"format\":1,\"ok\"".to_vec()), "the connection ended before it"),
        (Some(b"{\"format\":1,\"error\":{\"code\":\"busy\",\"message\":\"try again\"}}\n".to_vec()), "refuses"),
        (None, "the agent hangs"),
    ] {
        let router = Router::calling(&nowhere(), [10, 99, 0, 100], "lo");
        let hangs = answer.is_none();
        let agent = router.agent(vec![answer]);
        // The hanging server keeps the connection open until the request is abandoned.
        let agent = if hangs { agent } else { thread::spawn(move || agent.join().expect("no panic")) };
        let start = Instant::now();
        let text = show(&router, JSON, &nowhere()).expect("printed");
        assert!(start.elapsed() < WHOLE, "{why}: {:?}", start.elapsed());
        let report: Value = serde_json::from_str(&text).expect("JSON");
        let error = report["agent_error"].as_str().expect("a reason");
        assert!(error.contains(why) && error.contains("agent.sock"), "{why}: {error}");
        assert_eq!((&report["format"], &report["agent"]), (&json!(1), &Value::Null));
        assert_eq!(report["groups"][0]["addresses"][0]["verdict"], "UNKNOWN", "{report}");
        agent.join().expect("no panic");
    }
}

#[test]
fn a_report_is_printed_even_if_nothing_answers() {
    let router = Router::calling(&nowhere(), [127, 0, 0, 1], "lo");
    let text = show(&router, TABLE, &nowhere()).expect("printed");
    for expected in [
        "Agent        NO ANSWER: the agent is not running",
        "agent.sock",
        "(`sudo systemctl restart vyos-aws-vipa`) starts it",
        "Hook         NOT ATTACHED",
        "LAST CALL FAILED 0s ago: Connection:",
        "cannot read the instance id from IMDS: Connection:",
        "interface lo has no MAC address",
        "127.0.0.1        lo / yes               unknown                UNKNOWN",
    ] {
        assert!(text.contains(expected), "{expected}:\n{text}");
    }
    fs::remove_file(&router.paths.groups).expect("removed");
    let text = show(&router, TABLE, &nowhere()).expect("printed");
    assert!(text.contains("groups.json is missing") && text.contains("Group web: nothing is moved"), "{text}");
}

#[test]
fn hanging_services_are_given_up() {
    let (imds, ec2) = (Listening::start(), Listening::start());
    let router = Router::calling(&ec2.url, [10, 99, 0, 100], "lo");
    let start = Instant::now();
    let text = show(&router, TABLE, &imds.url).expect("printed");
    assert!(start.elapsed() < WHOLE, "{:?}", start.elapsed());
    assert!(text.contains("LAST CALL FAILED 0s ago: Timeout:"), "{text}");
    assert!(text.contains("cannot read the instance id from IMDS"), "{text}");
}

#[test]
fn without_a_configuration_the_error_says_what_to_do() {
    let router = Router::new();
    let not_configured = |router: &Router| match show(router, TABLE, &nowhere()) {
        Err(error @ ShowStatusError::NotConfigured) => error.to_string(),
        other => panic!("{other:?}"),
    };
    assert!(not_configured(&router).contains("set high-availability vrrp group <group> aws-vipa"));
    json_file::write(&router.paths.config, 0o644, &Config::default()).expect("written");
    not_configured(&router);
    fs::write(&router.paths.config, "\u{1b}").expect("written");
    let error = show(&router, TABLE, &nowhere()).expect_err("unreadable");
    assert!(matches!(error, ShowStatusError::NothingToTellFrom { .. }), "{error:?}");
    assert!(error.to_string().contains("config.json") && error.to_string().contains("agent.sock"), "{error}");
}

#[test]
fn the_hook_is_attached_while_keepalived_holds_the_fifo_open() {
    let router = Router::calling(&nowhere(), [10, 99, 0, 100], "lo");
    let attached = || {
        let report: Value = serde_json::from_str(&show(&router, JSON, &nowhere()).expect("printed")).expect("JSON");
        report["hook"]["attached"].clone()
    };
    assert_eq!(attached(), false, "there is no FIFO");
    let mode = rustix::fs::Mode::from_raw_mode(0o640);
    rustix::fs::mknodat(rustix::fs::CWD, &router.paths.fifo, rustix::fs::FileType::Fifo, mode, 0).expect("a FIFO");
    assert_eq!(attached(), false, "keepalived has no process id");
    // This process stands in for keepalived: like it, it opens the FIFO for reading and writing.
    fs::write(format!("/proc/{}/comm", std::process::id()), "keepalived").expect("renamed");
    fs::write(&router.paths.keepalived_pid, format!("{}\n", std::process::id())).expect("written");
    assert_eq!(attached(), false, "it does not hold the FIFO");
    let held = fs::File::options().read(true).write(true).open(&router.paths.fifo).expect("opened");
    assert_eq!(attached(), true);
    drop(held);
    assert_eq!(attached(), false, "it has closed the FIFO");
    fs::write(&router.paths.keepalived_pid, "../../etc").expect("written");
    assert_eq!(attached(), false, "there is no such process");
}

#[test]
fn a_closed_output_is_no_error() {
    struct Closed(io::ErrorKind);
    impl Write for Closed {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(self.0.into())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    for show in [TABLE, JSON] {
        let router = Router::new();
        let agent = router.agent(vec![answer("ok.json"), answer("ok.json")]);
        let imds = Imds::at(&nowhere());
        let closed = show.run(&router.paths, &imds, Access::Granted, &mut Closed(io::ErrorKind::BrokenPipe));
        assert!(closed.is_ok(), "{closed:?}");
        let full = show.run(&router.paths, &imds, Access::Granted, &mut Closed(io::ErrorKind::StorageFull));
        assert!(matches!(full, Err(ShowStatusError::Print(_))), "{full:?}");
        agent.join().expect("no panic");
    }
}

/// In a network of its own: `eth0` has the MAC address of the simulated router's ENI, and the virtual address.
#[test]
fn without_the_agent_the_owner_is_read_from_ec2() {
    if !inside("show_status::without_the_agent_the_owner_is_read_from_ec2") {
        return;
    }
    ip("address add 10.99.0.100/32 dev eth0");
    let simulator = Simulator::start(World::two_routers().stale_reads(Duration::ZERO)).expect("a simulator");
    let any = "127.0.0.1:0".parse().expect("an address");
    let ec2 = simulator.serve_ec2_http(any, None).expect("EC2");
    let imds = simulator.serve_imds("i-0a000000000000001", any, None).expect("IMDS");
    let router = Router::calling(&ec2.url(), [10, 99, 0, 100], "eth0");
    let address = || -> Value {
        let text = show(&router, JSON, &imds.url()).expect("printed");
        let report: Value = serde_json::from_str(&text).expect("JSON");
        assert_eq!(report["not_answered"], json!([]), "{report}");
        assert_eq!(report["ec2"]["instance"], "i-0a000000000000001");
        report["groups"][0]["addresses"][0].clone()
    };
    let seen = |address: &Value| {
        let text = |value: &Value| value.as_str().unwrap_or("-").to_owned();
        [text(&address["owner"]["who"]), text(&address["verdict"])]
    };
    let vip = Ipv4Addr::new(10, 99, 0, 100);
    let unassigned = address();
    assert_eq!(seen(&unassigned), ["unassigned", "DRIFT"], "{unassigned}");
    let command = unassigned["command"].as_str().expect("a command");
    assert!(command.contains("--network-interface-id eni-0a000000000000001 ") && command.ends_with(" 10.99.0.100"));
    for (eni, expected) in [
        ("eni-0a000000000000002", ["other-router", "DRIFT"]),
        ("eni-0a000000000000003", ["third-party", "DRIFT"]),
        ("eni-0a000000000000001", ["this-router", "UNKNOWN"]),
    ] {
        simulator.steal(vip, eni).expect("taken");
        let address = address();
        assert_eq!(seen(&address), expected, "{address}");
        assert_eq!(address["owner"]["eni"], eni);
        assert_eq!(address["local"], true);
    }
}
