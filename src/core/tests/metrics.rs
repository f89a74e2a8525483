//! The metrics of the expected reports, and of many groups.
//!
//! `BLESS=1` rewrites tests/status/metrics.prom.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::{Duration, Instant};
use std::{env, fs};

use vipa_core::model::calls::Outcomes;
use vipa_core::model::counters::Counters;
use vipa_core::model::ec2::{ErrorClass, Taker};
use vipa_core::model::ids::GroupName;
use vipa_core::model::resource::Kind;
use vipa_core::model::verdict::Verdict;
use vipa_core::printable;
use vipa_core::report::metrics::{ALL, MetricKind, render};
use vipa_core::report::model::{CallsReport, Report};

/// The most that the file of 200 groups has, in bytes.
const MOST_BYTES: usize = 300_000;

fn path(name: &str) -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/status")).join(name)
}

/// The expected reports, by name.
fn reports() -> BTreeMap<String, Report> {
    let files = fs::read_dir(path("")).expect("a directory").flatten();
    let names = files.filter_map(|file| file.file_name().into_string().ok()).filter(|name| name.ends_with(".json"));
    let report = |name: &String| serde_json::from_slice(&fs::read(path(name)).expect("read")).ok();
    names.filter_map(|name| Some((name.clone(), report(&name)?))).collect()
}

fn report(name: &str) -> Report {
    reports().remove(name).unwrap_or_else(|| panic!("no report {name}"))
}

fn counters() -> Counters {
    let mut counters = Counters::default();
    counters.claim(Kind::Address, Duration::from_millis(142), None);
    counters.claim(Kind::Address, Duration::from_secs(3), Some(ErrorClass::TimedOut));
    counters.claim(Kind::ElasticIp, Duration::from_millis(700), None);
    counters.notify_to_request.add(Duration::from_micros(310));
    let web = GroupName::try_from("web").expect("a name");
    counters.transition(&web);
    counters.ownership_lost(&web, Taker::Peer);
    counters
}

/// The series of a text, each with its value, after a check of the text against the table of all metrics.
fn series(text: &str) -> BTreeMap<String, f64> {
    let mut series = BTreeMap::new();
    let mut seen = BTreeSet::new();
    let mut lines = text.lines().peekable();
    while let Some(line) = lines.next() {
        let name = line.strip_prefix("# HELP ").and_then(|rest| rest.split(' ').next()).expect("a metric begins");
        let metric = ALL.iter().find(|metric| metric.name == name).unwrap_or_else(|| panic!("no metric {name}"));
        assert!(seen.insert(name), "{name} begins twice");
        assert_eq!(line, format!("# HELP {name} {}", metric.help));
        assert_eq!(lines.next(), Some(format!("# TYPE {name} {}", metric.kind.as_str()).as_str()));
        let mut samples = 0;
        while let Some(line) = lines.next_if(|line| !line.starts_with('#')) {
            samples += 1;
            let (key, value) = line.rsplit_once(' ').expect("a value");
            let (found, labels) = key.split_once('{').map_or((key, ""), |(found, rest)| (found, rest));
            let suffix = found.strip_prefix(name).unwrap_or_else(|| panic!("{line} among {name}"));
            let suffixes =
                if metric.kind == MetricKind::Histogram { &["_bucket", "_sum", "_count"][..] } else { &[""] };
            assert!(suffixes.contains(&suffix), "{line}");
            let mut expected: Vec<&str> = metric.labels.to_vec();
            expected.extend((suffix == "_bucket").then_some("le"));
            assert_eq!(label_names(labels), expected, "{line}");
            assert!(series.insert(key.to_owned(), value.parse().expect(line)).is_none(), "{line} is there twice");
        }
        assert!(samples > 0, "{name} has no samples");
    }
    series
}

/// The names of the labels in `a="b",c="d"}`.
fn label_names(mut labels: &str) -> Vec<&str> {
    let mut names = Vec::new();
    while let Some((name, rest)) = labels.split_once("=\"") {
        names.push(name);
        let mut is_escaped = false;
        let end = rest.find(|c| {
            let ends = c == '"' && !is_escaped;
            is_escaped = c == '\\' && !is_escaped;
            ends
        });
        labels = rest[end.expect("the end of a value") + 1..].trim_start_matches(',');
    }
    assert!(labels.is_empty() || labels == "}", "{labels}");
    names
}

#[test]
fn the_metrics_of_a_report_are_as_expected() {
    let mut report = report("ok.json");
    let calls = |operation: &str, outcomes| CallsReport { operation: operation.to_owned(), outcomes };
    report.ec2.calls = vec![
        calls("AssignPrivateIpAddresses", Outcomes { succeeded: 1, failed: 1, sent_again: 1, ..Outcomes::default() }),
        calls(
            "DescribeNetworkInterfaces",
            Outcomes { succeeded: 4_000, throttled: 2, refused: 1, ..Outcomes::default() },
        ),
    ];
    let text = render(&report, &counters());
    if env::var_os("BLESS").is_some() {
        fs::write(path("metrics.prom"), &text).expect("written");
    }
    assert_eq!(text, fs::read_to_string(path("metrics.prom")).expect("an expected file"));
}

#[test]
fn every_report_has_metrics_that_fit_the_table_and_every_metric_is_in_one() {
    let mut seen = BTreeSet::new();
    for (name, report) in reports() {
        let series = series(&render(&report, &counters()));
        let has = |key: &str| series.contains_key(key);
        for group in &report.groups {
            let name = printable::line(&group.name).replace('\\', "\\\\").replace('"', "\\\"");
            assert!(
                has(&format!(r#"vyos_aws_vipa_vrrp_state{{group="{name}",state="{}"}}"#, group.vrrp)),
                "{series:#?}"
            );
            for address in group.not_assigned.iter().filter(|address| address.local.is_some()) {
                let labels = format!(r#"group="{name}",kind="address",resource="{}""#, address.address);
                assert!(has(&format!("vyos_aws_vipa_resource_local{{{labels}}}")), "{labels} in {series:#?}");
            }
            let addresses =
                group.addresses.iter().map(|a| ("address", a.address.to_string(), a.verdict, &a.reason_code));
            let routes = group.routes.iter();
            let routes = routes.map(|r| ("route", r.route.to_string(), r.state.verdict, &r.state.reason_code));
            let elastic_ips = group.elastic_ips.iter();
            let elastic_ips =
                elastic_ips.map(|e| ("elastic-ip", e.allocation.to_string(), e.state.verdict, &e.state.reason_code));
            for (kind, resource, verdict, reason) in addresses.chain(routes).chain(elastic_ips) {
                let labels = format!(r#"group="{name}",kind="{kind}",resource="{resource}""#);
                assert!(has(&format!(r#"vyos_aws_vipa_resource_verdict{{{labels},verdict="{verdict}"}}"#)), "{labels}");
                if let Some(reason) = reason {
                    let key = format!(r#"vyos_aws_vipa_resource_reason{{{labels},reason="{reason}"}}"#);
                    assert!(has(&key), "{key} in {series:#?}");
                }
                assert!(has(&format!(
                    r#"vyos_aws_vipa_claims_total{{kind="{kind}",outcome="acknowledged",class=""}}"#
                )));
            }
        }
        assert!(!series.is_empty(), "{name}");
        seen.extend(series.into_keys());
    }
    for metric in ALL {
        assert!(seen.iter().any(|key| key.starts_with(metric.name)), "{} is in no report", metric.name);
    }
}

#[test]
fn a_standby_is_ready_or_not_and_a_master_neither() {
    let ready = |report: &Report, group: &str| {
        let series = series(&render(report, &Counters::default()));
        series.get(&format!(r#"vyos_aws_vipa_standby_ready{{group="{group}"}}"#)).copied()
    };
    let ok = report("ok.json");
    let states: BTreeMap<&str, Option<f64>> =
        ok.groups.iter().map(|group| (group.name.as_str(), ready(&ok, &group.name))).collect();
    assert_eq!(states, BTreeMap::from([("db", Some(1.0)), ("web", None)]));
    let standby = report("standby.json");
    assert!(standby.groups.iter().any(|group| ready(&standby, &group.name) == Some(0.0)), "{standby:#?}");
}

/// An agent that has just started, and one whose calls fail from the beginning.
#[test]
fn what_is_not_known_is_absent() {
    let mut starting = report("ok.json");
    let ec2 = &mut starting.ec2;
    (ec2.last_success_at, ec2.credentials_loaded_at, ec2.credentials_expire_at) = (None, None, None);
    ec2.clock_skew = None;
    let hook = &mut starting.hook;
    (hook.attached, hook.last_notify_event_at, hook.last_activity_at) = (None, None, None);
    let unknown = [
        "vyos_aws_vipa_hook_attached",
        "vyos_aws_vipa_last_notify_event_timestamp_seconds",
        "vyos_aws_vipa_last_keepalived_activity_timestamp_seconds",
        "vyos_aws_vipa_ec2_last_success_timestamp_seconds",
        "vyos_aws_vipa_ec2_last_call_failed",
        "vyos_aws_vipa_credentials_loaded_timestamp_seconds",
        "vyos_aws_vipa_credentials_expiry_timestamp_seconds",
        "vyos_aws_vipa_credentials_error",
        "vyos_aws_vipa_clock_skew_seconds",
    ];
    let of = |report: &Report| {
        let series = series(&render(report, &Counters::default()));
        unknown.map(|name| series.get(name).copied())
    };
    assert_eq!(of(&starting), [None; 9]);
    let known = of(&report("ok.json"));
    assert!(known.iter().all(Option::is_some), "{known:?}");
    assert_eq!((known[4], known[7], known[8]), (Some(0.0), Some(0.0), Some(0.0)));

    starting.ec2.last_error = report("ec2-unreachable.json").ec2.last_error;
    starting.ec2.credentials_error = Some("no credentials".to_owned());
    let failing = of(&starting);
    assert_eq!((failing[4], failing[7]), (Some(1.0), Some(1.0)));
    assert_eq!((failing[3], failing[5]), (None, None));
}

#[test]
fn names_are_escaped() {
    let mut hostile = report("ok.json");
    hostile.groups[0].name = "a\"b\\c\nd{e=\"f\"} 1 #ü\u{202e}".to_owned();
    let series = series(&render(&hostile, &Counters::default()));
    let state = r#"vyos_aws_vipa_vrrp_state{group="a\"b\\c\\nd{e=\"f\"} 1 #ü\\u{202e}",state="BACKUP"}"#;
    assert_eq!(series.get(state), Some(&1.0), "{series:#?}");
}

#[test]
fn counters_begin_at_zero() {
    let series = series(&render(&report("ok.json"), &Counters::default()));
    for key in [
        r#"vyos_aws_vipa_claims_total{kind="address",outcome="acknowledged",class=""}"#,
        r#"vyos_aws_vipa_claims_total{kind="address",outcome="failed",class="denied"}"#,
        r#"vyos_aws_vipa_ownership_losses_total{group="web",taker="third-party"}"#,
        r#"vyos_aws_vipa_vrrp_transitions_total{group="web"}"#,
        r#"vyos_aws_vipa_notify_to_request_seconds_bucket{le="0.001"}"#,
        r#"vyos_aws_vipa_claim_duration_seconds_count{kind="address"}"#,
        "vyos_aws_vipa_fifo_full_total",
    ] {
        assert_eq!(series.get(key), Some(&0.0), "{key} in {series:#?}");
    }
    assert!(!series.keys().any(|key| key.contains("kind=\"route\"")), "no route is configured");
}

/// 200 groups, each with an address, a reason for its verdict, and a name of 20 bytes.
#[test]
fn the_text_of_two_hundred_groups_is_small_and_made_quickly() {
    let mut many = report("ok.json");
    let web = many.groups.pop().expect("a group");
    many.groups.clear();
    for n in 0..200 {
        let mut group = web.clone();
        group.name = format!("group-of-customer-{n:03}");
        group.addresses.truncate(1);
        group.addresses[0].verdict = Verdict::StandbyNotReady;
        group.addresses[0].reason_code = Some("contested-with-third-party".to_owned());
        many.groups.push(group);
    }
    let counters = counters();
    let text = render(&many, &counters);
    println!("{} bytes", text.len());
    assert!(text.len() < MOST_BYTES, "{} bytes", text.len());
    assert!(series(&text).len() > 200 * 10);
    // The quickest of many, because other processes interrupt.
    let quickest = (0..50).map(|_| {
        let began = Instant::now();
        assert_eq!(render(&many, &counters).len(), text.len());
        began.elapsed()
    });
    let quickest = quickest.min().expect("one");
    println!("rendered in {quickest:?}");
    assert!(quickest < Duration::from_millis(2), "{quickest:?}");
}
