//! The patterns and the event handler of docs/operations/monitoring.md, with what the agent logs and the shipped scripts.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::Duration;

use lab::simulator::{Fault, On, RouteTable, Simulator};
use lab::{GROUP, Lab, ROUTE_TABLES, Router, THIRD_PARTY, VIP};
use regex_lite::Regex;
use serde_json::{Value, json};

use crate::{BINARY, SLACK, shipped};

/// The identifier of the agent's lines in the journal: the name of the program.
const IDENTIFIER: &str = "vyos-aws-vipa";

/// An advertisement interval of 1 s.
const ELECTION: Duration = Duration::from_secs(4);

/// The longest time until a standby has read once more.
const STANDBY_READ: Duration = Duration::from_secs(18);

/// The longest time until a loss is detected: a verify-interval of 5 s, and a recheck 2 s later.
const SEEN: Duration = Duration::from_secs(7);

fn document(path: &str) -> String {
    fs::read_to_string(shipped(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The stable messages of the reference: events, and their patterns.
fn stable() -> BTreeMap<String, String> {
    let reference = document("docs/reference/log-messages.md");
    let (_, table) = reference.split_once("\n| Event | Pattern |\n").expect("a table");
    let rows = table.lines().skip(1).take_while(|line| line.starts_with('|'));
    let row = |line: &str| {
        // In a table, a bar that belongs to the text is escaped.
        let (event, pattern) = line.trim_matches('|').split_once('|').expect("two cells");
        (event.trim().to_owned(), pattern.trim().trim_matches('`').replace("\\|", "|"))
    };
    rows.map(row).collect()
}

/// As Python's `fullmatch`.
fn whole(pattern: &str) -> Regex {
    Regex::new(&format!("^(?:{pattern})$")).unwrap_or_else(|error| panic!("{pattern}: {error}"))
}

/// The lines of the agent's log as the journal has them: the same text without the time (the unit tests of
/// src/systemd/journal.rs compare the two).
fn messages(router: &Router) -> Vec<String> {
    let log = router.agent_log();
    log.lines().filter_map(|line| Some(line.split_once(' ')?.1.trim_start().to_owned())).collect()
}

/// The `set` commands of the document about the event handler, as VyOS passes them to its handler.
fn configuration() -> BTreeMap<String, Value> {
    let document = document("docs/operations/monitoring.md");
    let mut events: BTreeMap<String, Value> = BTreeMap::new();
    for line in document.lines().filter_map(|line| line.strip_prefix("set service event-handler event ")) {
        let (words, value) = match line.split_once('\'') {
            Some((words, value)) => (words.trim_end(), value.strip_suffix('\'').expect("the end of a value")),
            None => line.rsplit_once(' ').expect("a value"),
        };
        let words: Vec<&str> = words.split(' ').collect();
        let event = events.entry(words[0].to_owned()).or_insert_with(|| json!({}));
        // The nodes of vyos-1x interface-definitions/service_event-handler.xml.in.
        match words[1..] {
            ["filter", leaf @ ("pattern" | "syslog-identifier")] => event["filter"][leaf] = value.into(),
            ["script", leaf @ ("path" | "arguments")] => event["script"][leaf] = value.into(),
            ["script", "environment", name, "value"] => event["script"]["environment"][name]["value"] = value.into(),
            _ => panic!("VyOS has no such node: {line}"),
        }
    }
    events
}

/// The patterns of an event, of which one has to match.
fn alternatives(event: &Value) -> Vec<&str> {
    event["filter"]["pattern"].as_str().unwrap_or_default().trim_matches(['(', ')']).split(")|(").collect()
}

/// Each event of the document has a pattern of the reference, the identifier, and a script that is shipped.
#[test]
fn the_documented_events_are_stable_ones() {
    let patterns: BTreeSet<String> = stable().into_values().collect();
    let events = configuration();
    assert!(events.len() >= 3, "{events:#?}");
    let mut scripts = BTreeSet::new();
    for (name, event) in &events {
        let parts = alternatives(event);
        assert!(parts.iter().all(|part| patterns.contains(*part)), "{name}: {parts:?} not in {patterns:#?}");
        assert_eq!(event["filter"]["syslog-identifier"], IDENTIFIER, "{name}");
        let path = event["script"]["path"].as_str().unwrap_or_default();
        let script =
            path.strip_prefix("/config/scripts/").unwrap_or_else(|| panic!("{name}: {path} is lost by an upgrade"));
        assert!(shipped("debian/examples/event-handler").join(script).is_file(), "{name}: {path}");
        scripts.insert(script.to_owned());
    }
    assert_eq!(scripts, ["mail", "sns", "webhook"].map(str::to_owned).into());
}

/// What the agent logs when something happens is found by the pattern of that event, and by no other's.
#[test]
fn what_the_agent_logs_is_found_by_the_patterns() {
    let world = lab::world().stale_reads(Duration::ZERO);
    let table = RouteTable::new(ROUTE_TABLES[0], &world.vpcs[0].id).main().route("0.0.0.0/0", "igw-0a000000000000001");
    lab::scenario_in(world.route_table(table), BINARY, |lab: &mut Lab| {
        let patterns: BTreeMap<String, Regex> =
            stable().into_iter().map(|(event, pattern)| (event, whole(&pattern))).collect();
        let mut seen = BTreeSet::new();
        // `before`: how many messages each router had before it happened.
        let mut expect = |lab: &Lab, router: &Router, before: [usize; 2], event: &str, within: Duration| {
            let pattern = patterns.get(event).unwrap_or_else(|| panic!("{event} is not in the reference"));
            let before = before[usize::from(router.number) - 1];
            let is_logged = || messages(router).iter().skip(before).any(|line| pattern.is_match(line));
            lab.wait(event, within + SLACK, |_| is_logged());
            seen.insert(event.to_owned());
        };
        let logged = |lab: &Lab| [&lab.r1, &lab.r2].map(|router| messages(router).len());
        let before = [0, 0];
        lab.set_global("verify-interval 5");
        lab.bring_up();
        expect(lab, &lab.r1, before, "this router became MASTER", ELECTION);
        expect(lab, &lab.r1, before, "EC2 accepted a claim of addresses", SLACK);

        let before = logged(lab);
        let reads = On::action("DescribeNetworkInterfaces").instance(&lab.r2.instance);
        let denial = lab.simulator.add_fault(Fault::on(reads).deny());
        expect(lab, &lab.r2, before, "EC2 denies reading the owners", STANDBY_READ);
        expect(lab, &lab.r2, before, "a standby could not take over", STANDBY_READ);
        let before = logged(lab);
        lab.simulator.remove_fault(denial);
        expect(lab, &lab.r2, before, "it could again", STANDBY_READ);

        let before = logged(lab);
        for loss in 1..=4 {
            lab.simulator.steal(VIP, THIRD_PARTY[0]).expect("stolen");
            lab.wait("the loss is seen", SEEN + SLACK, |lab| lab.r1.logged(&["ownership lost"]) == loss);
            if loss < 4 {
                lab.wait_for_owner(VIP, &lab.r1, SLACK);
                lab.wait_for_verdict(&lab.r1, GROUP, VIP, "OK", SLACK);
            }
        }
        expect(lab, &lab.r1, before, "another owner took what this MASTER had", SLACK);
        expect(lab, &lab.r1, before, "both routers are MASTER, or a third party claims too", SLACK);

        let before = logged(lab);
        let claims = On::action("AssignPrivateIpAddresses").instance(&lab.r2.instance);
        lab.simulator.add_fault(Fault::on(claims).deny());
        lab.r1.set([format!("set high-availability vrrp group {GROUP} priority 50").as_str()]);
        lab.r1.commit();
        expect(lab, &lab.r1, before, "it is no longer MASTER", ELECTION);
        expect(lab, &lab.r1, before, "that has ended", SLACK);
        expect(lab, &lab.r2, before, "EC2 refuses a claim", ELECTION);

        let before = logged(lab);
        for destination in ["0.0.0.0/0", "10.200.0.0/16"] {
            let node = format!("aws-vipa route {destination} route-table {}", ROUTE_TABLES[0]);
            lab.r2.set([format!("set high-availability vrrp group {GROUP} {node}").as_str()]);
        }
        lab.r2.commit();
        expect(lab, &lab.r2, before, "a route or an Elastic IP cannot be taken", SEEN);
        expect(lab, &lab.r2, before, "EC2 accepted claims of routes or Elastic IPs", SEEN);

        let before = logged(lab);
        lab.r2.systemctl(&["stop", "keepalived.service"]);
        expect(lab, &lab.r2, before, "keepalived does not run, or does not report", SLACK);
        expect(lab, &lab.r2, before, "the VRRP state is unknown", SLACK);
        let before = logged(lab);
        lab.r2.systemctl(&["start", "keepalived.service"]);
        expect(lab, &lab.r2, before, "it does again", SLACK);

        let before = logged(lab);
        let node = "aws-vipa credentials-file /run/lab/missing";
        lab.r2.set([format!("set high-availability vrrp global-parameters {node}").as_str()]);
        lab.r2.commit();
        expect(lab, &lab.r2, before, "there are no credentials", STANDBY_READ);

        let unseen: Vec<&String> = patterns.keys().filter(|event| !seen.contains(*event)).collect();
        assert!(unseen.is_empty(), "{unseen:?}");

        // VyOS's own rule of what matches agrees, for every line of both routers.
        let lines: Vec<String> = [&lab.r1, &lab.r2].into_iter().flat_map(messages).collect();
        let events: BTreeMap<String, Value> = stable()
            .into_iter()
            .map(|(event, pattern)| {
                let filter = json!({"pattern": pattern, "syslog-identifier": IDENTIFIER});
                (event, json!({"filter": filter, "script": {"path": "/bin/true"}}))
            })
            .collect();
        let handled = handle(&json!(events), IDENTIFIER, &lines);
        let by_line = |line: &String| patterns.iter().filter(|(_, pattern)| pattern.is_match(line)).count();
        assert_eq!(handled.len(), lines.iter().map(by_line).sum::<usize>(), "{handled:#?}");
        assert!(lines.iter().all(|line| by_line(line) <= 1), "a line is found by two patterns");
        assert_eq!(handle(&json!(events), "sshd", &lines), Vec::<Value>::new(), "the lines of another program");

        // Each event of the document, with its pattern as an operator copies it, gets the lines of all its alternatives.
        let mut documented = configuration();
        documented.values_mut().for_each(|event| event["script"] = json!({"path": "/bin/true"}));
        let handled = handle(&json!(documented), IDENTIFIER, &lines);
        for (name, event) in &documented {
            let alternatives: Vec<Regex> = alternatives(event).into_iter().map(whole).collect();
            let expected: Vec<&String> =
                lines.iter().filter(|line| alternatives.iter().any(|one| one.is_match(line))).collect();
            let found: Vec<&Value> =
                handled.iter().filter(|h| h["event"] == name.as_str()).map(|h| &h["message"]).collect();
            assert!(!found.is_empty() && found == expected, "{name}: {found:#?}, not {expected:#?}");
        }
    });
}

/// Passes lines of this program to the event handler, and returns what it did.
fn handle(events: &Value, identifier: &str, lines: &[String]) -> Vec<Value> {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("events.json");
    fs::write(&file, events.to_string()).expect("written");
    let journal = directory.path().join("journal");
    let entry = |line: &String| json!({"SYSLOG_IDENTIFIER": identifier, "MESSAGE": line}).to_string() + "\n";
    fs::write(&journal, lines.iter().map(entry).collect::<String>()).expect("written");
    let mut handler = Command::new(shipped("tests/monitoring/event-handler"));
    handler.arg(&file).stdin(fs::File::open(&journal).expect("a file"));
    let output = handler.stdout(Stdio::piped()).output().expect("python3");
    assert!(output.status.success(), "{}", lab::said(&output));
    let said = String::from_utf8(output.stdout).expect("text");
    said.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

/// The events of the document, with the shipped scripts, a web server, a mail server and a topic.
#[test]
fn the_shipped_scripts_pass_a_message_on() {
    lab::in_namespaces(|| {
        let simulator = Simulator::start(lab::world()).expect("a world");
        run_ip("address add 169.254.169.254/32 dev lo");
        let imds = "169.254.169.254:80".parse().expect("an address");
        let _imds = simulator.serve_imds("i-0a000000000000001", imds, None).expect("IMDS");
        let (web, posted) = http_server();
        let (mail, mailed) = mail_server();
        let mut events = configuration();
        for event in events.values_mut() {
            let script = event["script"]["path"].as_str().expect("a path").replace("/config/scripts/", "");
            event["script"]["path"] =
                shipped("debian/examples/event-handler").join(script).to_str().expect("text").into();
            let environment = &mut event["script"]["environment"];
            for (name, value) in
                [("WEBHOOK_URL", format!("{web}/hook")), ("SMTP_SERVER", mail.clone()), ("TOPIC_ARN", String::new())]
            {
                match (environment.get(name).is_some(), name) {
                    (true, "TOPIC_ARN") => environment["SNS_URL"] = json!({ "value": format!("{web}/topic") }),
                    (true, _) => environment[name]["value"] = value.into(),
                    _ => {}
                }
            }
        }
        let line = "ERROR standby not ready group=web obstacle=\"it says \\\"no\\\" & more\"".to_owned();
        for script in ["webhook", "mail", "sns"] {
            let (name, event) = events
                .iter()
                .find(|(_, event)| event["script"]["path"].as_str().is_some_and(|path| path.ends_with(script)))
                .expect("an event");
            let mut event = event.clone();
            event["filter"]["pattern"] = "ERROR standby not ready .*".into();
            let done = handle(&json!({ name.as_str(): event }), IDENTIFIER, std::slice::from_ref(&line));
            assert_eq!(done.len(), 1, "{done:?}");
            assert_eq!(done[0]["code"], 0, "{done:?}");
        }
        let hook = posted.recv_timeout(SLACK).expect("a request to the webhook");
        let text: Value = serde_json::from_str(&hook.body).unwrap_or_else(|error| panic!("{error}: {hook:?}"));
        assert!(text["text"].as_str().is_some_and(|text| text.ends_with(&line)), "{hook:?}");
        let topic = posted.recv_timeout(SLACK).expect("a request to the topic");
        assert!(topic.head.contains("/eu-west-1/sns/aws4_request"), "{topic:?}");
        assert!(topic.head.to_lowercase().contains("x-amz-security-token: "), "{topic:?}");
        for part in ["Action=Publish", "TopicArn=arn%3Aaws%3Asns%3Aeu-west-1%3A", "Message=ERROR+standby+not+ready"] {
            assert!(topic.body.contains(part), "{part}: {topic:?}");
        }
        let mail = mailed.recv_timeout(SLACK).expect("a mail");
        // In the subject, which may be folded, and in the text.
        let lines = mail.lines().filter(|line| line.contains("ERROR standby not ready group=web"));
        assert!(mail.contains("Subject:") && mail.contains("To: ") && lines.count() == 2, "{mail}");
    });
}

fn run_ip(arguments: &str) {
    let status = Command::new("ip").args(arguments.split(' ')).status().expect("ip(8)");
    assert!(status.success(), "ip {arguments}");
}

#[derive(Debug)]
struct Posted {
    head: String,
    body: String,
}

/// A web server that accepts everything.
fn http_server() -> (String, Receiver<Posted>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("bound"));
    let (sender, posted) = mpsc::channel();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let Some(request) = http_request(&stream) else { continue };
            let _ = (&stream).write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
            if sender.send(request).is_err() {
                return;
            }
        }
    });
    (url, posted)
}

fn http_request(stream: &TcpStream) -> Option<Posted> {
    let mut reader = BufReader::new(stream);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if reader.read_line(&mut head).ok()? == 0 {
            return None;
        }
    }
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse().ok())?
    });
    let mut body = vec![0; length?];
    reader.read_exact(&mut body).ok()?;
    Some(Posted { head, body: String::from_utf8_lossy(&body).into_owned() })
}

/// A mail server that accepts everything.
fn mail_server() -> (String, Receiver<String>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let address = listener.local_addr().expect("bound").to_string();
    let (sender, mailed) = mpsc::channel();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            if let Some(mail) = receive_mail(&stream) {
                let _ = sender.send(mail);
            }
        }
    });
    (address, mailed)
}

fn receive_mail(mut stream: &TcpStream) -> Option<String> {
    stream.write_all(b"220 mail\r\n").ok()?;
    let (mut mail, mut in_data) = (String::new(), false);
    for line in BufReader::new(stream.try_clone().ok()?).lines() {
        let line = line.ok()?;
        let answer = match (in_data, line.split(' ').next()?.to_lowercase().as_str()) {
            (true, ".") => {
                in_data = false;
                "250 taken"
            }
            (true, _) => {
                mail += &format!("{line}\n");
                continue;
            }
            (false, "data") => {
                in_data = true;
                "354 go on"
            }
            (false, "quit") => {
                stream.write_all(b"221 bye\r\n").ok()?;
                break;
            }
            _ => "250 ok",
        };
        stream.write_all(format!("{answer}\r\n").as_bytes()).ok()?;
    }
    Some(mail)
}
