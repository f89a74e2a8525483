//! Prometheus and node_exporter of Debian with the agent's metrics, and VyOS's event handler with its log.
//!
//! `tests/monitoring/fetch` fetches the programs.

mod events;
mod programs;

use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use lab::simulator::{ElasticIp, Fault, On, RouteTable, World};
use lab::{ELASTIC_IP, GROUP, Lab, ROUTE_TABLES, Router, VIP};
use programs::{NodeExporter, Prometheus, promtool};
use serde_json::Value;

/// The shipped binary.
const BINARY: &str = env!("CARGO_BIN_EXE_vyos-aws-vipa");

/// The directory that VyOS makes for node_exporter's textfile collector.
const COLLECTOR: &str = "/run/node_exporter/collector";

/// The longest time until a change is in Prometheus: the agent writes every 15 s at most, and Prometheus scrapes every second.
const WRITTEN: Duration = Duration::from_secs(17);

/// The longest time until a standby has read once more.
const STANDBY_READ: Duration = Duration::from_secs(18);

/// Additional time for a busy machine.
const SLACK: Duration = Duration::from_secs(10);

fn shipped(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

#[test]
fn promtool_finds_nothing_wrong_with_the_metrics() {
    assert_eq!(promtool(&["check", "metrics"], Some(&shipped("tests/status/metrics.prom"))), "");
}

/// promtool finds nothing wrong with the file that the router's agent has written.
fn check_metrics(router: &Router) {
    let file = router.path("/run/vyos-aws-vipa-agent/metrics.prom");
    assert_eq!(promtool(&["check", "metrics"], Some(&file)), "", "router {}", router.number);
}

/// Each alert has a case in which it fires.
#[test]
fn the_alert_rules_do_what_they_are_for() {
    let (rules, tests) = (shipped("debian/examples/prometheus-rules.yml"), shipped("tests/monitoring/rules.test.yml"));
    promtool(&["check", "rules", rules.to_str().expect("text")], None);
    promtool(&["check", "config", shipped("debian/examples/prometheus.yml").to_str().expect("text")], None);
    promtool(&["test", "rules", tests.to_str().expect("text")], None);
    let tests = fs::read_to_string(tests).expect("the tests");
    let names: Vec<String> = alerts(&fs::read_to_string(rules).expect("the rules"));
    assert!(names.len() > 10, "{names:?}");
    for name in names {
        let fires = format!("ALERTS{{alertname=\"{name}\",alertstate=\"firing\"");
        let expected = format!("      - alertname: {name}\n");
        assert!(tests.contains(&fires) || tests.contains(&expected), "no test of {name}");
    }
}

fn alerts(rules: &str) -> Vec<String> {
    rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).map(str::to_owned).collect()
}

/// The command of the unit that root runs, as systemd would.
fn perform(router: &Router, key: &str) {
    let unit = fs::read_to_string(shipped("debian/vyos-aws-vipa-metrics.service")).expect("the unit");
    let line = unit.lines().find_map(|line| line.strip_prefix(key)).expect("a command");
    router.call(&line.split(' ').collect::<Vec<_>>());
}

/// The expressions of the dashboard, for all routers and groups.
fn expressions(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                match (name.as_str(), value.as_str()) {
                    ("expr", Some(expression)) => found.push(
                        expression.replace("$__rate_interval", "1m").replace("$instance", ".*").replace("$group", ".*"),
                    ),
                    _ => expressions(value, found),
                }
            }
        }
        Value::Array(values) => values.iter().for_each(|value| expressions(value, found)),
        _ => {}
    }
}

/// A route that the group moves, besides its address and the Elastic IP.
const ROUTE: &str = "10.200.0.0/16";

/// With an empty route table and the Elastic IP.
fn world() -> World {
    let world = lab::world().stale_reads(Duration::ZERO);
    let table = RouteTable::new(ROUTE_TABLES[0], &world.vpcs[0].id).main();
    let (public, allocation) = ELASTIC_IP;
    world.route_table(table).elastic_ip(ElasticIp::new(allocation, public))
}

#[test]
fn prometheus_sees_a_failover() {
    programs::root();
    lab::scenario_in(world(), BINARY, |lab: &mut Lab| {
        let (table, allocation) = (ROUTE_TABLES[0], ELASTIC_IP.1);
        lab.set_global("verify-interval 5");
        for router in [&mut lab.r1, &mut lab.r2] {
            for node in [format!("route {ROUTE} route-table {table}"), format!("elastic-ip {allocation}")] {
                router.set([format!("set high-availability vrrp group {GROUP} aws-vipa {node}").as_str()]);
            }
        }
        lab.bring_up();
        for router in [&lab.r1, &lab.r2] {
            router.call(&["mkdir", "-p", COLLECTOR]);
            perform(router, "ExecStart=");
        }
        let exporters = [&lab.r1, &lab.r2].map(NodeExporter::start);
        let targets: Vec<(&str, Ipv4Addr)> = vec![("r1", lab.r1.primaries[0]), ("r2", lab.r2.primaries[0])];
        let prometheus = Prometheus::start(Ipv4Addr::new(10, 99, 0, 1), &targets);

        let value = |expression: &str| prometheus.value(expression);
        let sees = |lab: &Lab, expression: &str, expected: f64| {
            lab.wait(&format!("{expression} is {expected}"), WRITTEN + SLACK, |_| value(expression) == Some(expected));
        };
        let group = format!("group=\"{GROUP}\"");
        let of = |router: &str| format!("instance=\"{router}\",{group}");
        let resource = |router: &str| format!("{},kind=\"address\",resource=\"{VIP}\"", of(router));
        let others = [("route", format!("{ROUTE} in {table}")), ("elastic-ip", allocation.to_owned())];
        let others = others.map(|(kind, name)| (kind, format!("kind=\"{kind}\",resource=\"{name}\"")));
        // The routes and Elastic IPs are where the group is MASTER.
        let others_moved = |lab: &Lab, router: &str| {
            for (kind, labels) in &others {
                let verdict = format!("vyos_aws_vipa_resource_verdict{{{},{labels},verdict=\"OK\"}}", of(router));
                sees(lab, &verdict, 1.0);
                let owner = format!("vyos_aws_vipa_resource_owner{{{},{labels},owner=\"this-router\"}}", of(router));
                sees(lab, &owner, 1.0);
                let claims = format!("instance=\"{router}\",kind=\"{kind}\",outcome=\"acknowledged\"");
                assert!(value(&format!("vyos_aws_vipa_claims_total{{{claims}}}")).is_some_and(|n| n >= 1.0), "{kind}");
            }
        };
        sees(lab, &format!("vyos_aws_vipa_resource_verdict{{{},verdict=\"OK\"}}", resource("r1")), 1.0);
        sees(lab, &format!("vyos_aws_vipa_resource_verdict{{{},verdict=\"STANDBY-READY\"}}", resource("r2")), 1.0);
        sees(lab, &format!("vyos_aws_vipa_vrrp_state{{{},state=\"MASTER\"}}", of("r1")), 1.0);
        sees(lab, &format!("vyos_aws_vipa_standby_ready{{{}}}", of("r2")), 1.0);
        sees(lab, &format!("vyos_aws_vipa_resource_local{{{}}}", resource("r1")), 1.0);
        let owner = format!("owner=\"other-router\",eni=\"{}\",instance_id=\"{}\"", lab.r1.enis[0], lab.r1.instance);
        sees(lab, &format!("vyos_aws_vipa_resource_owner{{{},{owner}}}", resource("r2")), 1.0);
        let acknowledged = "kind=\"address\",outcome=\"acknowledged\"";
        sees(lab, &format!("vyos_aws_vipa_claims_total{{instance=\"r1\",{acknowledged}}}"), 1.0);
        sees(lab, "vyos_aws_vipa_claim_duration_seconds_count{instance=\"r1\",kind=\"address\"}", 1.0);
        // The notify event has caused one claim of each kind.
        let measured = |lab: &Lab, router: &str| {
            sees(lab, &format!("vyos_aws_vipa_notify_to_request_seconds_count{{instance=\"{router}\"}}"), 3.0);
        };
        measured(lab, "r1");
        let operation = "operation=\"AssignPrivateIpAddresses\"";
        sees(lab, &format!("vyos_aws_vipa_ec2_calls_total{{instance=\"r1\",{operation},outcome=\"succeeded\"}}"), 1.0);
        others_moved(lab, "r1");
        for (_, labels) in &others {
            let labels = format!("{},{labels},verdict=\"STANDBY-READY\"", of("r2"));
            sees(lab, &format!("vyos_aws_vipa_resource_verdict{{{labels}}}"), 1.0);
        }
        sees(lab, "sum(vyos_aws_vipa_hook_attached)", 2.0);
        sees(lab, "sum(vyos_aws_vipa_fifo_full_total)", 0.0);
        sees(lab, "sum(vyos_aws_vipa_build_info)", 2.0);
        let regular = "operation=\"DescribeNetworkInterfaces\",outcome=\"succeeded\"";
        lab.wait("regular reads are counted", WRITTEN + SLACK, |_| {
            value(&format!("vyos_aws_vipa_ec2_calls_total{{instance=\"r1\",{regular}}}")).is_some_and(|n| n >= 3.0)
        });
        let age = value("max(time() - vyos_aws_vipa_ec2_last_success_timestamp_seconds)").expect("an age");
        assert!(age < 60.0, "{age}");
        assert_eq!(value("sum(node_textfile_scrape_error)"), Some(0.0), "the file is not as node_exporter wants it");
        let age = value("max(time() - node_textfile_mtime_seconds{file=~\".*/vyos-aws-vipa\\\\.prom\"})");
        assert!(age.is_some_and(|age| age < 60.0), "{age:?}");

        [&lab.r1, &lab.r2].into_iter().for_each(check_metrics);

        let dashboard = fs::read(shipped("debian/examples/grafana-dashboard.json")).expect("the dashboard");
        let mut queries = Vec::new();
        expressions(&serde_json::from_slice(&dashboard).expect("JSON"), &mut queries);
        assert!(queries.len() > 12, "{queries:?}");
        // Those with a condition find what has not happened here.
        let without: Vec<&String> =
            queries.iter().filter(|q| !q.ends_with(" > 0") && prometheus.query(q).is_empty()).collect();
        assert!(without.is_empty(), "without a result: {without:#?}");
        let rules = prometheus.rules();
        assert!(rules.len() > 10 && rules.iter().all(|(_, health)| health == "ok"), "{rules:?}");

        let reads = On::action("DescribeNetworkInterfaces").instance(&lab.r2.instance);
        let denial = lab.simulator.add_fault(Fault::on(reads).deny());
        lab.wait_for_verdict(&lab.r2, GROUP, VIP, "STANDBY-NOT-READY", STANDBY_READ + SLACK);
        sees(lab, &format!("vyos_aws_vipa_standby_ready{{{}}}", of("r2")), 0.0);
        sees(lab, &format!("vyos_aws_vipa_resource_reason{{{},reason=\"read-failed\"}}", resource("r2")), 1.0);
        sees(lab, &format!("count(ALERTS{{alertname=\"VipaStandbyNotReady\",{}}})", of("r2")), 1.0);
        check_metrics(&lab.r2);
        lab.simulator.remove_fault(denial);
        lab.wait_for_verdict(&lab.r2, GROUP, VIP, "STANDBY-READY", STANDBY_READ + SLACK);
        sees(lab, &format!("vyos_aws_vipa_standby_ready{{{}}}", of("r2")), 1.0);
        assert_eq!(value(&format!("vyos_aws_vipa_resource_reason{{{}}}", resource("r2"))), None);

        lab.r1.power_off();
        perform(&lab.r1, "ExecStop=");
        sees(lab, &format!("vyos_aws_vipa_vrrp_state{{{},state=\"MASTER\"}}", of("r2")), 1.0);
        sees(lab, &format!("vyos_aws_vipa_resource_verdict{{{},verdict=\"OK\"}}", resource("r2")), 1.0);
        sees(lab, &format!("vyos_aws_vipa_claims_total{{instance=\"r2\",{acknowledged}}}"), 1.0);
        measured(lab, "r2");
        others_moved(lab, "r2");
        let times = ["vyos_aws_vipa_notify_to_request_seconds_sum", "vyos_aws_vipa_notify_to_request_seconds_count"];
        let mean = value(&times.map(|name| format!("{name}{{instance=\"r2\"}}")).join(" / ")).expect("a time");
        println!("from the notify event to the request: {:.1} ms", mean * 1e3);
        assert_eq!(value(&format!("vyos_aws_vipa_standby_ready{{{}}}", of("r2"))), None, "it is no standby any more");
        check_metrics(&lab.r2);
        drop(exporters);
    });
}

/// Whatever a name holds, node_exporter reads the file, and Prometheus has the name.
#[test]
fn names_arrive_as_they_are() {
    let mut report: vipa_core::report::model::Report =
        serde_json::from_slice(&fs::read(shipped("tests/status/ok.json")).expect("read")).expect("a report");
    let name = "a\"b\\c{d=\"e\"},#ü 1";
    report.groups[0].name = name.to_owned();
    let text = vipa_core::report::metrics::render(&report, &vipa_core::model::counters::Counters::default());
    programs::root();
    lab::in_namespaces(|| {
        let directory = tempfile::tempdir().expect("a directory");
        fs::write(directory.path().join("vyos-aws-vipa.prom"), &text).expect("written");
        let _exporter = NodeExporter::start_here(Ipv4Addr::LOCALHOST, directory.path());
        let prometheus = Prometheus::start(Ipv4Addr::LOCALHOST, &[("here", Ipv4Addr::LOCALHOST)]);
        let states = programs::wait_for("the state of the group", WRITTEN, || {
            let found = prometheus.query("vyos_aws_vipa_vrrp_state{state=\"BACKUP\"}");
            (!found.is_empty()).then_some(found)
        });
        assert_eq!(states[0].0["group"], name, "{states:?}");
        assert_eq!(prometheus.value("node_textfile_scrape_error"), Some(0.0));
    });
}
