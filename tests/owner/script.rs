//! The owner script: the input that it passes to `commit`, and the output for the operator, for each kind of change.

use std::env;
use std::fs::{self, OpenOptions};
use std::io::Read;
use std::os::unix::fs::{OpenOptionsExt, symlink};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};

use crate::namespace::ip;
use crate::router::{
    CALLS, CONFIG, Call, FIFO, GROUPS, INCLUDE, KEEPALIVED_CONF, Owned, RELOAD, Router, START_AGENT, STOP_AGENT,
    VYOS_RELOADS, VYOS_STOPS, configuration, group, keepalived_conf, processor_time_of_children, vipa,
};

/// The form in which the script must pass on a configuration: with lists for nodes with several values, and with defaults.
fn passed_on(configuration: &Value) -> Value {
    let Some(mut vrrp) = configuration.pointer("/high-availability/vrrp").cloned() else {
        return json!({});
    };
    for group in vrrp["group"].as_object_mut().into_iter().flat_map(|groups| groups.values_mut()) {
        let as_list = |value: Option<&mut Value>| {
            if let Some(value @ Value::String(_)) = value {
                *value = json!([value.take()]);
            }
        };
        for leaf in ["/peer-address", "/aws-vipa/address"] {
            as_list(group.pointer_mut(leaf));
        }
        let routes = group.pointer_mut("/aws-vipa/route").and_then(Value::as_object_mut);
        routes
            .into_iter()
            .flat_map(|routes| routes.values_mut())
            .for_each(|route| as_list(route.get_mut("route-table")));
        for (node, default) in [("priority", "100"), ("preempt-delay", "0"), ("advertise-interval", "1")] {
            if group.get(node).is_none() {
                group[node] = json!(default);
            }
        }
    }
    if let Some(global) = vrrp.pointer_mut("/global-parameters/aws-vipa") {
        for (node, default) in [("verify-interval", "30"), ("request-timeout", "3")] {
            if global.get(node).is_none() {
                global[node] = json!(default);
            }
        }
    }
    json!({ "vrrp": vrrp })
}

fn assert_input(call: &Call, boot: bool, proposed: &Value, effective: &Value) {
    let called_for = match &call.node {
        Owned::Settings => vec!["global-parameters"],
        Owned::Group(name) => {
            let groups = &proposed["high-availability"]["vrrp"]["group"];
            let vrid = groups.get(name).map(|group| group["vrid"].as_str().expect("a VRID"));
            ["group"].into_iter().chain(vrid).collect()
        }
    };
    let expected = json!({
        "format": 1,
        "boot": boot,
        "called-for": called_for,
        "proposed": passed_on(proposed),
        "effective": passed_on(effective),
        "interface-addresses": { "eth0": ["10.99.0.1/24"], "eth1": ["10.98.0.1/24"], "lo": [] }
    });
    assert_eq!(call.input, expected);
}

/// Commits, and asserts how often the owner script runs, what it passes to `commit`, and that it prints nothing.
fn commit_silently(router: &mut Router, after: &Value, calls: usize) {
    let before = router.effective.clone();
    let done = router.commit(after.clone());
    assert_eq!(done.len(), calls, "{done:?}");
    for call in done {
        assert_input(&call, false, after, &before);
        call.answer.assert_silent();
    }
}

/// The outcome of each call, in order.
fn outcomes(calls: &[Call]) -> Vec<(Owned, bool)> {
    calls.iter().map(|call| (call.node.clone(), call.answer.code == Some(0))).collect()
}

/// Asserts that config.json has exactly the configuration in effect.
fn assert_in_force(router: &Router) {
    let before = fs::read(CONFIG).expect("read");
    let tree = passed_on(&router.effective);
    let input = json!({
        "format": 1,
        "boot": true,
        "proposed": tree,
        "effective": {},
        "interface-addresses": { "eth0": ["10.99.0.1/24"], "eth1": ["10.98.0.1/24"], "lo": [] }
    });
    let answer = vipa(&["commit"], input.to_string().as_bytes());
    assert_eq!(answer.code, Some(0), "{answer:?}");
    let text = |bytes| String::from_utf8(bytes).expect("text");
    assert_eq!(text(before), text(fs::read(CONFIG).expect("read")), "in effect: {}", router.effective);
}

fn names_in(path: &str) -> Vec<String> {
    let file: Value = serde_json::from_slice(&fs::read(path).expect("read")).expect("JSON");
    let groups = file["groups"].as_array().expect("groups");
    groups.iter().map(|g| g["name"].as_str().expect("a name").to_owned()).collect()
}

fn vyos_then(ours: &[&str]) -> Vec<String> {
    VYOS_RELOADS.iter().chain(ours).map(|words| (*words).to_owned()).collect()
}

fn then_vyos(ours: &[&str], vyos: &[&str]) -> Vec<String> {
    ours.iter().chain(vyos).map(|words| (*words).to_owned()).collect()
}

fn two() -> Value {
    configuration(json!({ "a": group(1, json!({})), "b": group(2, json!({})) }))
}

/// Asserts that no files of the package are left, and the hook is detached.
fn assert_as_without_the_package(router: &Router) {
    for path in [CONFIG, GROUPS, INCLUDE] {
        assert!(!Path::new(path).exists(), "{path}");
    }
    assert!(!router.attached());
}

#[test]
fn at_boot_keepalived_is_attached_by_one_reload() {
    let Some(mut router) = Router::enter("script::at_boot_keepalived_is_attached_by_one_reload") else {
        return;
    };
    let calls = router.boot(two());
    assert_eq!(calls.len(), 2);
    for call in &calls {
        assert_input(call, true, &two(), &json!({}));
        call.answer.assert_silent();
    }
    assert_eq!(router.asked(), vyos_then(&[START_AGENT, RELOAD]));
    router.wait_attached(true);
    assert_eq!((names_in(CONFIG), names_in(GROUPS)), (vec!["a".into(), "b".into()], vec!["a".into(), "b".into()]));
}

#[test]
fn an_error_at_boot_skips_that_group_and_fails_nothing() {
    let Some(mut router) = Router::enter("script::an_error_at_boot_skips_that_group_and_fails_nothing") else {
        return;
    };
    let tree = configuration(json!({
        "a": group(1, json!({})),
        "b": group(2, json!({ "interface": "eth7" }))
    }));
    let calls = router.boot(tree);
    assert_eq!(outcomes(&calls), [(Owned::group("a"), true), (Owned::group("b"), true)]);
    calls[0].answer.assert_silent();
    assert_eq!(
        calls[1].answer.shown().trim(),
        "WARNING: high-availability vrrp group b aws-vipa interface: interface eth7 does not exist: group skipped"
    );
    assert_eq!(names_in(CONFIG), ["a"]);
    assert_eq!(router.asked(), vyos_then(&[START_AGENT, RELOAD]));
}

#[test]
fn a_failure_at_boot_is_a_warning_and_no_node_is_dropped() {
    let Some(mut router) = Router::enter("script::a_failure_at_boot_is_a_warning_and_no_node_is_dropped") else {
        return;
    };
    // A directory cannot be replaced by a file.
    fs::create_dir_all(Path::new(CONFIG).join("x")).expect("made");
    let calls = router.boot(two());
    assert!(calls.iter().all(|call| call.answer.code == Some(0)), "{calls:?}");
    let shown = calls[0].answer.shown();
    assert!(shown.contains("WARNING: cannot write /run/vyos-aws-vipa/config.json: "), "{shown}");
    // Outside of the boot, the same fails the commit.
    router.effective = json!({});
    let calls = router.commit(two());
    assert!(calls.iter().all(|call| call.answer.code == Some(1)), "{calls:?}");
    assert!(calls[0].answer.out.starts_with("cannot write /run/vyos-aws-vipa/config.json"), "{calls:?}");
}

#[test]
fn a_change_of_aws_vipa_nodes_only_reloads_nothing() {
    let Some(mut router) = Router::booted("script::a_change_of_aws_vipa_nodes_only_reloads_nothing", two()) else {
        return;
    };
    let disabled = configuration(json!({
        "a": group(1, json!({ "disable": {} })),
        "b": group(2, json!({ "address": "10.99.0.102", "interface": "eth0" }))
    }));
    commit_silently(&mut router, &disabled, 2);
    assert_eq!(router.asked(), [START_AGENT]);
    // A leaf is deleted.
    let before = fs::read(CONFIG).expect("read");
    let mut less = disabled;
    less["high-availability"]["vrrp"]["group"]["b"]["aws-vipa"].as_object_mut().expect("a node").remove("address");
    commit_silently(&mut router, &less, 1);
    assert_eq!(router.asked(), [START_AGENT]);
    assert_ne!(fs::read(CONFIG).expect("read"), before);
    assert!(router.attached());
}

#[test]
fn routes_and_elastic_ips_are_passed_on_when_added_and_removed() {
    let test = "script::routes_and_elastic_ips_are_passed_on_when_added_and_removed";
    let Some(mut router) = Router::booted(test, two()) else {
        return;
    };
    let before = fs::read(CONFIG).expect("read");
    let (one, other) = ("rtb-01234567", "rtb-89abcdef");
    let with = |nodes: Value| configuration(json!({ "a": group(1, nodes), "b": group(2, json!({})) }));
    // libvyosconfig returns a single value as a string.
    let whole = with(json!({
        "no-address": {},
        "route": {
            "10.255.0.1/32": { "route-table": one, "interface": "eth1" },
            "2001:db8::/32": { "route-table": [one, other] }
        },
        "elastic-ip": {
            "eipalloc-01234567": {},
            "eipalloc-89abcdef": { "private-address": "10.98.0.1", "interface": "eth1" }
        }
    }));
    commit_silently(&mut router, &whole, 1);
    assert_in_force(&router);
    let config: Value = serde_json::from_slice(&fs::read(CONFIG).expect("read")).expect("JSON");
    let expected = json!({
        "name": "a",
        "addresses": [],
        "interface": null,
        "network_interface_id": null,
        "disable": false,
        "no_address": true,
        "routes": [
            { "destination": "10.255.0.1/32", "tables": [one], "interface": "eth1" },
            { "destination": "2001:db8::/32", "tables": [one, other], "interface": null }
        ],
        "elastic_ips": [
            { "allocation": "eipalloc-01234567", "private_address": null, "interface": null },
            { "allocation": "eipalloc-89abcdef", "private_address": "10.98.0.1", "interface": "eth1" }
        ]
    });
    assert_eq!(config["groups"][0], expected);
    // A value and a tag are deleted.
    let less = with(json!({
        "no-address": {},
        "route": { "2001:db8::/32": { "route-table": other } },
        "elastic-ip": { "eipalloc-89abcdef": {} }
    }));
    commit_silently(&mut router, &less, 1);
    assert_in_force(&router);
    // The same at boot.
    router.effective = json!({});
    let calls = router.boot(whole.clone());
    assert_input(&calls[0], true, &whole, &json!({}));
    assert!(calls.iter().all(|call| call.answer.code == Some(0)), "{calls:?}");
    commit_silently(&mut router, &two(), 1);
    assert_eq!(fs::read(CONFIG).expect("read"), before);
    assert!(router.attached());
}

/// Each other node, with the value that the agent then reads: at commit, at boot, and when it goes.
#[test]
fn every_node_is_in_force_when_committed_and_booted_until_it_is_deleted() {
    let test = "script::every_node_is_in_force_when_committed_and_booted_until_it_is_deleted";
    let Some(mut router) = Router::booted(test, two()) else {
        return;
    };
    let config = || -> Value { serde_json::from_slice(&fs::read(CONFIG).expect("read")).expect("JSON") };
    let before = config();
    let (of_group, of_router) = ("/group/a/aws-vipa", "/global-parameters/aws-vipa");
    for (below, nodes, read_as, expected) in [
        (of_group, json!({ "address": "10.99.0.101" }), "/groups/0/addresses", json!(["10.99.0.101"])),
        (of_group, json!({ "interface": "eth1" }), "/groups/0/interface", json!("eth1")),
        (
            of_group,
            json!({ "network-interface-id": "eni-01234567" }),
            "/groups/0/network_interface_id",
            json!("eni-01234567"),
        ),
        (of_group, json!({ "disable": {} }), "/groups/0/disable", json!(true)),
        (of_router, json!({ "region": "eu-central-1" }), "/global/region", json!("eu-central-1")),
        (
            of_router,
            json!({ "endpoint-url": "https://vpce.example" }),
            "/global/endpoint_url",
            json!("https://vpce.example"),
        ),
        (of_router, json!({ "credentials-file": "/config/keys" }), "/global/credentials_file", json!("/config/keys")),
        (of_router, json!({ "credentials-file": "/config/keys", "profile": "vipa" }), "/global/profile", json!("vipa")),
        (
            of_router,
            json!({ "ca-certificate-file": "/config/ca.pem" }),
            "/global/ca_certificate_file",
            json!("/config/ca.pem"),
        ),
        (of_router, json!({ "verify-interval": "5" }), "/global/verify_interval", json!(5)),
        (of_router, json!({ "request-timeout": "30" }), "/global/request_timeout", json!(30)),
    ] {
        let mut tree = two();
        let (parent, _) = below.rsplit_once('/').expect("a parent");
        tree["high-availability"]["vrrp"].pointer_mut(parent).expect("it exists")["aws-vipa"] = nodes.clone();
        let is_set = |calls: &[Call], when: &str| {
            assert!(calls.iter().all(|call| call.answer.code == Some(0)), "{nodes}, {when}: {calls:?}");
            assert_eq!(config().pointer(read_as), Some(&expected), "{nodes}, {when}");
        };
        is_set(&router.commit(tree.clone()), "committed");
        assert_in_force(&router);
        router.effective = json!({});
        is_set(&router.boot(tree), "booted");
        let calls = router.commit(two());
        assert!(calls.iter().all(|call| call.answer.code == Some(0)), "{nodes}: {calls:?}");
        assert_eq!(config(), before, "{nodes}: deleted");
    }
}

/// Every fault of a group with routes, Elastic IPs or `no-address`: at commit, at boot, and when it goes.
#[test]
fn faults_of_routes_and_elastic_ips_fail_their_commit_and_leave_out_their_group_at_boot() {
    let test = "script::faults_of_routes_and_elastic_ips_fail_their_commit_and_leave_out_their_group_at_boot";
    let (table, allocation, prefix) = ("rtb-01234567", "eipalloc-01234567", "10.0.0.0/8");
    let with = |b: Value| {
        let nodes = json!({ "route": { prefix: { "route-table": table } }, "elastic-ip": { allocation: {} } });
        configuration(json!({ "a": group(1, nodes), "b": group(2, b) }))
    };
    let Some(mut router) = Router::booted(test, with(Value::Null)) else {
        return;
    };
    let route = |prefix: &str, tables: Value| json!({ "route": { prefix: { "route-table": tables } } });
    let many: Vec<String> = (0..200).map(|n| format!("rtb-{n:08x}")).collect();
    let before = fs::read(CONFIG).expect("read");
    for (nodes, expected) in [
        (route("10.0.0.1/8", json!(table)), " route 10.0.0.1/8: 10.0.0.1/8 has host bits: the prefix is 10.0.0.0/8"),
        (
            route("9.0.0.0/8", json!("rtb-1")),
            " route 9.0.0.0/8 route-table rtb-1: \"rtb-1\" is not the id of a route table",
        ),
        (
            route(prefix, json!(table)),
            " route 10.0.0.0/8 route-table rtb-01234567: this route is already moved by group a",
        ),
        (route("10.99.0.101/32", json!(table)), " route 10.99.0.101/32: 10.99.0.101 is already moved by group a"),
        (route("9.0.0.0/8", json!(many)), " route: this router would move 201 routes, and at most 200 are supported"),
        (
            json!({ "elastic-ip": { allocation: { "private-address": "10.99.0.5" } } }),
            " elastic-ip eipalloc-01234567: this Elastic IP is already moved by group a",
        ),
        (
            json!({ "elastic-ip": { "eipalloc-89abcdef": {} } }),
            " elastic-ip eipalloc-89abcdef: eipalloc-01234567 of group a has the same private address",
        ),
        (
            json!({ "no-address": {}, "address": "10.99.0.102", "elastic-ip": { "eipalloc-89abcdef": {} } }),
            " no-address: contradicts address: delete one of the two",
        ),
        (json!({ "no-address": {} }), " no-address: leaves nothing to move"),
    ] {
        let expected = format!("high-availability vrrp group b aws-vipa{expected}");
        let calls = router.commit(with(nodes.clone()));
        assert_eq!(outcomes(&calls), [(Owned::group("b"), false)], "{expected}");
        assert!(calls[0].answer.shown().contains(&expected), "{}: not {expected}", calls[0].answer.shown());
        assert_eq!(fs::read(CONFIG).expect("read"), before, "{expected}");
        assert_eq!(router.effective, with(Value::Null));
        // An older version may have let it pass.
        router.effective = json!({});
        let calls = router.boot(with(nodes));
        assert_eq!(outcomes(&calls), [(Owned::group("a"), true), (Owned::group("b"), true)], "{expected}");
        calls[0].answer.assert_silent();
        let shown = calls[1].answer.shown();
        assert!(shown.contains(&format!("WARNING: {expected}")) && shown.contains(": group skipped"), "{shown}");
        assert_eq!(names_in(CONFIG), ["a"], "{expected}");
        commit_silently(&mut router, &with(Value::Null), 1);
        assert_eq!(fs::read(CONFIG).expect("read"), before, "{expected}");
    }
    // Without its route an overlay address is of no use.
    let overlay = |nodes: Value| {
        let mut tree = with(nodes);
        tree["high-availability"]["vrrp"]["group"]["b"]["address"] = json!({ "10.255.0.1/32": {} });
        tree
    };
    let with_route = route("10.255.0.1/32", json!("rtb-89abcdef"));
    commit_silently(&mut router, &overlay(with_route), 1);
    let calls = router.commit(overlay(json!({})));
    assert_eq!(outcomes(&calls), [(Owned::group("b"), true)]);
    let expected = "WARNING: high-availability vrrp group b: 10.255.0.1 is not in a subnet of eth0";
    assert!(calls[0].answer.shown().contains(expected), "{}", calls[0].answer.shown());
    assert_in_force(&router);
    router.effective = json!({});
    // /run is empty then: the warning is shown anew.
    fs::remove_file("/run/vyos-aws-vipa/warned.json").expect("removed");
    let calls = router.boot(overlay(json!({})));
    assert_eq!(outcomes(&calls), [(Owned::group("a"), true), (Owned::group("b"), true)]);
    assert!(calls[1].answer.shown().contains(expected), "{calls:?}");
    assert_eq!(names_in(CONFIG), ["a", "b"]);
    assert_in_force(&router);
}

#[test]
fn a_change_of_the_global_parameters_runs_the_owner_once() {
    let Some(mut router) = Router::booted("script::a_change_of_the_global_parameters_runs_the_owner_once", two())
    else {
        return;
    };
    let mut set = two();
    set["high-availability"]["vrrp"]["global-parameters"]["aws-vipa"] = json!({ "region": "eu-central-1" });
    commit_silently(&mut router, &set, 1);
    let config: Value = serde_json::from_slice(&fs::read(CONFIG).expect("read")).expect("JSON");
    assert_eq!(config["global"]["region"], "eu-central-1");
    assert_eq!((&config["global"]["verify_interval"], &config["global"]["request_timeout"]), (&json!(30), &json!(3)));
    commit_silently(&mut router, &two(), 1);
    assert_eq!(router.asked(), [START_AGENT, START_AGENT]);
}

#[test]
fn a_change_of_other_nodes_only_is_read_by_the_hook() {
    let Some(mut router) = Router::booted("script::a_change_of_other_nodes_only_is_read_by_the_hook", two()) else {
        return;
    };
    let mut moved = two();
    moved["high-availability"]["vrrp"]["group"]["b"]["address"] = json!({ "10.99.0.150/24": {} });
    commit_silently(&mut router, &moved, 0);
    assert_eq!(router.asked(), VYOS_RELOADS);
    let groups: Value = serde_json::from_slice(&fs::read(GROUPS).expect("read")).expect("JSON");
    assert_eq!(groups["groups"][1]["addresses"][0]["address"], "10.99.0.150");
    router.wait_attached(true);
}

#[test]
fn new_groups_cause_at_most_one_reload_by_commit() {
    let first = configuration(json!({ "a": group(1, Value::Null) }));
    let Some(mut router) = Router::booted("script::new_groups_cause_at_most_one_reload_by_commit", first) else {
        return;
    };
    // The first aws-vipa nodes: VyOS reloads keepalived before the hook is attached.
    let on = configuration(json!({ "a": group(1, json!({})), "b": group(2, json!({})) }));
    commit_silently(&mut router, &on, 2);
    assert_eq!(router.asked(), vyos_then(&[START_AGENT, RELOAD]));
    router.wait_attached(true);
    // Later, the hook is attached already.
    let more = configuration(json!({ "a": group(1, json!({})), "b": group(2, json!({})), "c": group(3, json!({})) }));
    commit_silently(&mut router, &more, 1);
    assert_eq!(router.asked(), vyos_then(&[START_AGENT]));
    router.wait_attached(true);
    assert_eq!(names_in(GROUPS), ["a", "b", "c"]);
}

#[test]
fn a_running_keepalived_is_attached_by_one_reload() {
    let off = configuration(json!({ "a": group(1, Value::Null) }));
    let Some(mut router) = Router::booted("script::a_running_keepalived_is_attached_by_one_reload", off) else {
        return;
    };
    let on = configuration(json!({ "a": group(1, json!({})) }));
    commit_silently(&mut router, &on, 1);
    assert_eq!(router.asked(), [START_AGENT, RELOAD]);
    router.wait_attached(true);
    // A second call of the same commit, and one with nothing changed.
    for _ in 0..2 {
        router.run_owner().answer.assert_silent();
        assert_eq!(router.asked(), Vec::<String>::new());
    }
}

#[test]
fn removing_the_aws_vipa_nodes_leaves_vyos_as_it_was() {
    let Some(mut router) = Router::booted("script::removing_the_aws_vipa_nodes_leaves_vyos_as_it_was", two()) else {
        return;
    };
    let one = configuration(json!({ "a": group(1, json!({})), "b": group(2, Value::Null) }));
    commit_silently(&mut router, &one, 1);
    assert_eq!((router.asked(), names_in(CONFIG)), (vec![START_AGENT.to_owned()], vec!["a".to_owned()]));
    assert!(router.attached());
    let none = configuration(json!({ "a": group(1, Value::Null), "b": group(2, Value::Null) }));
    commit_silently(&mut router, &none, 1);
    assert_eq!(router.asked(), [STOP_AGENT, RELOAD]);
    router.wait_attached(false);
    assert_as_without_the_package(&router);
    assert_eq!(fs::read_to_string(KEEPALIVED_CONF).expect("read"), keepalived_conf(&none));
    // Both groups at once, with global parameters.
    let mut with_settings = two();
    with_settings["high-availability"]["vrrp"]["global-parameters"]["aws-vipa"] = json!({ "region": "eu-west-1" });
    commit_silently(&mut router, &with_settings, 3);
    router.wait_attached(true);
    assert_eq!(router.asked(), [START_AGENT, RELOAD]);
    commit_silently(&mut router, &none, 3);
    assert_eq!(router.asked(), [STOP_AGENT, RELOAD]);
    router.wait_attached(false);
    assert_as_without_the_package(&router);
}

#[test]
fn a_deleted_group_is_removed_before_vyos_renders() {
    let Some(mut router) = Router::booted("script::a_deleted_group_is_removed_before_vyos_renders", two()) else {
        return;
    };
    let one = configuration(json!({ "a": group(1, json!({})) }));
    commit_silently(&mut router, &one, 1);
    assert_eq!(router.asked(), then_vyos(&[START_AGENT], &VYOS_RELOADS));
    assert_eq!((names_in(CONFIG), names_in(GROUPS)), (vec!["a".to_owned()], vec!["a".to_owned()]));
    router.wait_attached(true);
    // The last group with aws-vipa is deleted; one without it stays.
    let mixed = configuration(json!({ "a": group(1, json!({})), "z": group(9, Value::Null) }));
    commit_silently(&mut router, &mixed, 0);
    router.asked();
    let without = configuration(json!({ "z": group(9, Value::Null) }));
    commit_silently(&mut router, &without, 1);
    assert_eq!(router.asked(), then_vyos(&[STOP_AGENT, RELOAD], &VYOS_RELOADS));
    router.wait_attached(false);
    assert_as_without_the_package(&router);
    assert_eq!(fs::read_to_string(KEEPALIVED_CONF).expect("read"), keepalived_conf(&without));
}

#[test]
fn the_whole_tree_is_deleted_and_set_again() {
    let Some(mut router) = Router::booted("script::the_whole_tree_is_deleted_and_set_again", two()) else {
        return;
    };
    let mut gone = two();
    gone.as_object_mut().expect("a tree").remove("high-availability");
    commit_silently(&mut router, &gone, 2);
    assert_eq!(router.asked(), then_vyos(&[STOP_AGENT, RELOAD], &VYOS_STOPS));
    assert_as_without_the_package(&router);
    // It is set again.
    commit_silently(&mut router, &two(), 2);
    assert_eq!(router.asked(), vyos_then(&[START_AGENT, RELOAD]));
    router.wait_attached(true);
}

#[test]
fn every_error_is_shown_with_its_node_and_nothing_is_changed() {
    let test = "script::every_error_is_shown_with_its_node_and_nothing_is_changed";
    let Some(mut router) = Router::booted(test, two()) else {
        return;
    };
    let files = || [CONFIG, GROUPS, INCLUDE, KEEPALIVED_CONF].map(|path| fs::read(path).expect("read"));
    let before = files();
    let wrong = configuration(json!({
        "a": group(1, json!({ "address": ["10.99.0.7", "10.99.0.101"] })),
        "b": group(2, json!({ "interface": "eth7", "network-interface-id": "eni-xyz" }))
    }));
    let calls = router.commit(wrong);
    let expected: [&[&str]; 2] =
        [&["a aws-vipa address 10.99.0.7:"], &["b aws-vipa interface:", "b aws-vipa network-interface-id:"]];
    assert_eq!(outcomes(&calls), [(Owned::group("a"), false), (Owned::group("b"), false)]);
    for (call, starts) in calls.iter().zip(expected) {
        assert_eq!(call.answer.err, "");
        let faults: Vec<&str> = call.answer.out.split("high-availability vrrp group ").skip(1).collect();
        assert_eq!(faults.len(), starts.len(), "{}", call.answer.out);
        for (fault, start) in faults.iter().zip(starts) {
            assert!(fault.starts_with(start) && fault.ends_with('\n'), "{}", call.answer.out);
        }
    }
    assert_eq!((files(), router.asked()), (before, vec![]));
    assert!(router.attached());
    // An error in a node that this commit does not change is a warning.
    router.effective =
        configuration(json!({ "a": group(1, json!({})), "b": group(2, json!({ "interface": "eth7" })) }));
    let other = configuration(json!({
        "a": group(1, json!({ "disable": {} })),
        "b": group(2, json!({ "interface": "eth7" }))
    }));
    let calls = router.commit(other);
    assert_eq!((calls.len(), calls[0].answer.code), (1, Some(0)), "{calls:?}");
    assert!(calls[0].answer.shown().starts_with("WARNING: high-availability vrrp group b aws-vipa interface:"));
}

/// VyOS shows each error below the node that has it, in whatever order the owner scripts run.
#[test]
fn an_error_of_one_group_fails_no_call_for_another() {
    let Some(mut router) = Router::booted("script::an_error_of_one_group_fails_no_call_for_another", two()) else {
        return;
    };
    let off = || group(2, Value::Null);
    let faulty = || json!({ "interface": "eth7" });
    let fault = "high-availability vrrp group a aws-vipa interface: interface eth7 does not exist";
    let (a, b, c) = (|| Owned::group("a"), || Owned::group("b"), || Owned::group("c"));
    let with_other_nodes = |mut group: Value| {
        group["priority"] = json!("150");
        group
    };
    for is_reversed in [false, true] {
        router.is_reversed = is_reversed;
        let set =
            |nodes: [(Owned, bool); 2]| if is_reversed { nodes.into_iter().rev().collect() } else { nodes.to_vec() };
        for (row, groups, expected) in [
            (
                "only aws-vipa nodes",
                json!({ "a": group(1, faulty()), "b": group(2, json!({ "disable": {} })) }),
                set([(a(), false), (b(), true)]),
            ),
            ("aws-vipa is deleted", json!({ "a": group(1, faulty()), "b": off() }), vec![(b(), true), (a(), false)]),
            ("the group is deleted", json!({ "a": group(1, faulty()) }), vec![(b(), true), (a(), false)]),
            (
                "both",
                json!({ "a": with_other_nodes(group(1, faulty())), "b": with_other_nodes(group(2, json!({ "disable": {} }))) }),
                set([(a(), false), (b(), true)]),
            ),
            (
                "both, and aws-vipa is deleted",
                json!({ "a": with_other_nodes(group(1, faulty())), "b": with_other_nodes(off()) }),
                vec![(b(), true), (a(), false)],
            ),
            (
                "a new group takes the VRID of a deleted one",
                json!({ "a": group(1, faulty()), "c": group(2, json!({})) }),
                [(b(), true)].into_iter().chain(set([(a(), false), (c(), true)])).collect(),
            ),
        ] {
            let calls = router.commit(configuration(groups));
            assert_eq!(outcomes(&calls), expected, "{row}: {calls:?}");
            for call in calls {
                if call.node == a() {
                    assert_eq!(call.answer.shown().trim(), fault, "{row}");
                } else {
                    call.answer.assert_silent();
                }
            }
            assert_in_force(&router);
            // Both groups again, without errors.
            let calls = router.commit(two());
            assert!(calls.iter().all(|call| call.answer.code == Some(0)), "{row}: {calls:?}");
            assert_in_force(&router);
        }
    }
    // The last group is deleted, and a new one has an error: nothing of the package is left.
    let calls = router.commit(configuration(json!({ "a": group(1, json!({})), "n": group(3, Value::Null) })));
    assert_eq!(outcomes(&calls), [(b(), true)]);
    router.wait_attached(true);
    router.asked();
    let calls = router.commit(configuration(json!({ "n": group(3, faulty()) })));
    assert_eq!(outcomes(&calls), [(a(), true), (Owned::group("n"), false)]);
    calls[0].answer.assert_silent();
    assert_eq!(router.asked(), then_vyos(&[STOP_AGENT, RELOAD], &VYOS_RELOADS));
    router.wait_attached(false);
    assert_as_without_the_package(&router);
}

#[test]
fn an_error_of_the_global_parameters_fails_only_their_call() {
    let Some(mut router) = Router::booted("script::an_error_of_the_global_parameters_fails_only_their_call", two())
    else {
        return;
    };
    let mut tree = configuration(json!({ "a": group(1, json!({ "disable": {} })) }));
    tree["high-availability"]["vrrp"]["global-parameters"]["aws-vipa"] = json!({ "profile": "router" });
    let calls = router.commit(tree);
    let expected = [(Owned::group("b"), true), (Owned::Settings, false), (Owned::group("a"), true)];
    assert_eq!(outcomes(&calls), expected, "{calls:?}");
    let shown = calls[1].answer.shown();
    assert!(shown.trim().starts_with("high-availability vrrp global-parameters aws-vipa profile: "), "{shown}");
    for call in [&calls[0], &calls[2]] {
        call.answer.assert_silent();
    }
    assert_in_force(&router);
    // An error of a group does not affect the global parameters.
    let mut tree = configuration(json!({ "a": group(1, json!({ "interface": "eth7" })) }));
    tree["high-availability"]["vrrp"]["global-parameters"]["aws-vipa"] = json!({ "region": "eu-west-1" });
    let calls = router.commit(tree);
    assert_eq!(outcomes(&calls), [(Owned::Settings, true), (Owned::group("a"), false)]);
    calls[0].answer.assert_silent();
    assert_in_force(&router);
}

/// Two groups on different interfaces may have the same VRID. The script cannot tell which of them a call is for.
#[test]
fn groups_with_the_same_vrid_fail_together() {
    let Some(mut router) = Router::booted("script::groups_with_the_same_vrid_fail_together", two()) else {
        return;
    };
    let on_eth1 = |nodes| {
        let mut group = group(1, nodes);
        group["interface"] = json!("eth1");
        group["address"] = json!({ "10.98.0.101/24": {} });
        group["hello-source-address"] = json!("10.98.0.1");
        group
    };
    let calls = router.commit(configuration(json!({
        "a": group(1, json!({ "disable": {} })),
        "b": group(2, json!({ "disable": {} })),
        "c": on_eth1(json!({ "interface": "eth7" }))
    })));
    assert_eq!(outcomes(&calls), [(Owned::group("a"), false), (Owned::group("b"), true), (Owned::group("c"), false)]);
    calls[1].answer.assert_silent();
    assert_in_force(&router);
    // If only one of them is changed, the call is for that one.
    let calls = router.commit(configuration(json!({
        "a": group(1, json!({})),
        "b": group(2, json!({})),
        "c": on_eth1(json!({ "interface": "eth7" }))
    })));
    assert_eq!(outcomes(&calls), [(Owned::group("b"), true), (Owned::group("c"), false)]);
    assert_in_force(&router);
}

#[test]
fn warnings_are_shown_under_the_group_that_they_are_about() {
    let Some(mut router) = Router::enter("script::warnings_are_shown_under_the_group_that_they_are_about") else {
        return;
    };
    let multicast = |vrid, nodes| {
        let mut group = group(vrid, nodes);
        group.as_object_mut().expect("a node").remove("hello-source-address");
        group["rfc3768-compatibility"] = json!({});
        group
    };
    let mut tree = configuration(json!({
        "a": group(1, json!({})), "b": multicast(2, json!({})), "c": multicast(3, json!({})), "d": group(4, json!({}))
    }));
    tree["high-availability"]["vrrp"]["global-parameters"]["aws-vipa"] = json!({ "credentials-file": "/run/lab/keys" });
    let assert_shown = |calls: &[Call]| {
        for call in calls {
            assert_eq!(call.answer.code, Some(0), "{call:?}");
            let (name, expected) = match &call.node {
                Owned::Settings => ("global-parameters aws-vipa credentials-file", 2),
                Owned::Group(name) if ["b", "c"].contains(&name.as_str()) => (&*format!("group {name}"), 2),
                Owned::Group(_) => ("", 0),
            };
            let start = format!("WARNING: high-availability vrrp {name}: ");
            assert_eq!(call.answer.shown().matches("WARNING: ").count(), expected, "{call:?}");
            assert_eq!(call.answer.shown().matches(&start).count(), expected, "{call:?}");
            // VyOS prints a blank line before and after; there is none in between.
            let blank = call.answer.out.trim_matches('\n').lines().filter(|line| line.is_empty()).count();
            assert_eq!(blank, 0, "{}", call.answer.out);
        }
    };
    for is_reversed in [false, true] {
        router.is_reversed = is_reversed;
        let calls = router.boot(tree.clone());
        assert_eq!(calls.len(), 5);
        assert_shown(&calls);
        // Everything is deleted, and set again.
        for call in router.commit(configuration(json!({}))) {
            call.answer.assert_silent();
        }
        let calls = router.commit(tree.clone());
        assert_eq!(calls.len(), 5);
        assert_shown(&calls);
        // Warnings are not printed again.
        router.run_owner().answer.assert_silent();
        router.commit(configuration(json!({})));
    }
}

#[test]
fn a_warning_is_shown_once_while_it_holds() {
    let Some(mut router) = Router::enter("script::a_warning_is_shown_once_while_it_holds") else {
        return;
    };
    let multicast = |vrid, nodes| {
        let mut group = group(vrid, nodes);
        group.as_object_mut().expect("a node").remove("hello-source-address");
        group["rfc3768-compatibility"] = json!({});
        group
    };
    let tree = configuration(json!({ "a": multicast(1, json!({})), "b": group(2, json!({})) }));
    let calls = router.boot(tree);
    assert_eq!((calls.len(), calls[0].answer.code), (2, Some(0)), "{calls:?}");
    let shown = calls[0].answer.shown();
    let warnings: Vec<&str> = shown.split("WARNING: ").skip(1).collect();
    assert_eq!(warnings.len(), 2, "{shown}");
    assert!(warnings[0].starts_with("high-availability vrrp group a: no hello-source-address: "), "{shown}");
    assert!(warnings[1].starts_with("high-availability vrrp group a: rfc3768-compatibility: "), "{shown}");
    assert!(calls[0].answer.out.lines().all(|line| line.len() <= 72), "{}", calls[0].answer.out);
    calls[1].answer.assert_silent();
    let later = configuration(json!({ "a": multicast(1, json!({})), "b": group(2, json!({ "disable": {} })) }));
    router.commit(later)[0].answer.assert_silent();
}

/// Shows that the statement of the warning about keepalived is true.
#[test]
fn keepalived_removes_an_address_of_the_router_itself() {
    let Some(mut router) = Router::enter("script::keepalived_removes_an_address_of_the_router_itself") else {
        return;
    };
    let on_eth1 = |address: &str| {
        let shown = Command::new("ip").args(["-4", "-o", "address", "show", "dev", "eth1"]).output().expect("ip(8)");
        String::from_utf8_lossy(&shown.stdout).contains(address)
    };
    let mut group = group(1, json!({ "address": "10.98.0.100" }));
    group["interface"] = json!("eth1");
    group["address"] = json!({ "10.98.0.100/24": {}, "10.98.0.1/24": {} });
    let calls = router.boot(configuration(json!({ "a": group })));
    assert_eq!(calls[0].answer.code, Some(0), "{calls:?}");
    let shown = calls[0].answer.shown();
    let expected = "WARNING: high-availability vrrp group a: 10.98.0.1 is also configured on interface eth1; \
                    keepalived removes it from there";
    assert_eq!(shown.matches("WARNING: ").count(), 1, "{shown}");
    assert!(shown.trim().starts_with(expected), "{shown}");
    router.wait("keepalived to remove the address", || !on_eth1("10.98.0.1/24"));
}

#[test]
fn unusual_names_reach_keepalived_and_no_shell() {
    let Some(mut router) = Router::enter("script::unusual_names_reach_keepalived_and_no_shell") else {
        return;
    };
    let names = ["odd$(n)ame", "$(touch${IFS}/run/lab/shell)", "a;touch\\b", "`reboot`", "~a@b&|<>*?", "größe", "-rf"];
    // A name that keepalived cannot have is an error, below; the others work.
    let usable: Vec<&str> = names.iter().copied().filter(|name| !name.contains('{')).collect();
    let tree = |names: &[&str]| {
        let groups = names.iter().zip(1..).map(|(name, vrid)| ((*name).to_owned(), group(vrid, json!({}))));
        configuration(Value::Object(groups.collect()))
    };
    let calls = router.boot(tree(&usable));
    assert_eq!(calls.len(), usable.len());
    for call in &calls {
        assert_input(call, true, &tree(&usable), &json!({}));
        call.answer.assert_silent();
    }
    let mut sorted = usable.clone();
    sorted.sort_unstable();
    assert_eq!((names_in(CONFIG), names_in(GROUPS)), (sorted.iter().map(|n| (*n).into()).collect(), names_in(CONFIG)));
    router.wait_attached(true);
    let mut fifo = OpenOptions::new()
        .read(true)
        .custom_flags(rustix::fs::OFlags::NONBLOCK.bits() as i32)
        .open(FIFO)
        .expect("opened");
    // On a busy machine the groups may be MASTER before the FIFO is attached; keepalived does not repeat the notify event.
    router.restart_keepalived();
    let mut lines = String::new();
    router.wait("every group to be MASTER", || {
        // An empty FIFO and one without a writer are errors of the read.
        let _ = fifo.read_to_string(&mut lines);
        usable.iter().all(|name| lines.contains(&format!("INSTANCE \"{name}\" MASTER 100\n")))
    });

    router.asked();
    let before = fs::read(CONFIG).expect("read");
    for name in ["a b", "a\u{a0}b", "a#b", "a!b", "$(touch${IFS}/run/lab/shell)", "a\u{1b}[31mb"] {
        let mut more = tree(&usable);
        // Only aws-vipa nodes are new, so VyOS's own owner script does not run.
        let mut one = group(99, Value::Null);
        router.effective = more.clone();
        router.effective["high-availability"]["vrrp"]["group"][name] = one.clone();
        one["aws-vipa"] = json!({});
        more["high-availability"]["vrrp"]["group"][name] = one;
        let calls = router.commit(more.clone());
        assert_eq!((calls.len(), calls[0].answer.code), (1, Some(1)), "{calls:?}");
        assert_eq!(calls[0].input["proposed"], passed_on(&more));
        let expected = format!("high-availability vrrp group {} aws-vipa: ", name.escape_debug());
        let shown = calls[0].answer.shown();
        assert!(shown.starts_with(&expected) && shown.ends_with("rename the group"), "{shown}");
    }
    assert_eq!((fs::read(CONFIG).expect("read"), router.asked()), (before, vec![]));
    assert!(!Path::new("/run/lab/shell").exists(), "a shell has evaluated a name");
}

#[test]
fn interfaces_of_every_kind_are_passed_on() {
    let Some(mut router) = Router::enter("script::interfaces_of_every_kind_are_passed_on") else {
        return;
    };
    let mut tree = two();
    tree["interfaces"] = json!({
        "bonding": { "bond0": { "address": ["192.0.2.1/24", "2001:db8::1/64"], "member": { "interface": "eth2" } } },
        "dummy": { "dum0": { "address": "192.0.2.129/32" } },
        "ethernet": {
            "eth0": {
                "address": ["10.99.0.1/24", "dhcpv6"],
                "vif": { "10": { "address": "10.10.0.1/24" }, "11": {} },
                "vif-s": { "20": { "address": "dhcp", "vif-c": { "30": { "address": ["10.30.0.1/24"] } } } }
            },
            "eth1": { "address": "dhcp" }
        },
        "loopback": { "lo": {} },
        "wireguard": { "wg0": { "address": "10.40.0.1/24", "peer": { "address": { "address": "192.0.2.9" } } } }
    });
    let calls = router.boot(tree);
    calls[0].answer.assert_silent();
    let expected = json!({
        "bond0": ["192.0.2.1/24", "2001:db8::1/64"],
        "dum0": ["192.0.2.129/32"],
        "eth0": ["10.99.0.1/24"],
        "eth0.10": ["10.10.0.1/24"],
        "eth0.11": [],
        "eth0.20": [],
        "eth0.20.30": ["10.30.0.1/24"],
        "eth1": [],
        "lo": [],
        "wg0": ["10.40.0.1/24"]
    });
    assert_eq!(calls[0].input["interface-addresses"], expected);
    let mut bare = two();
    bare.as_object_mut().expect("a tree").remove("interfaces");
    let calls = router.commit(bare);
    assert_eq!(calls.len(), 0, "{calls:?}");
    assert_eq!(router.run_owner().input["interface-addresses"], json!({}));
}

#[test]
fn the_fifo_keeps_its_inode() {
    use std::os::unix::fs::MetadataExt;
    let Some(mut router) = Router::booted("script::the_fifo_keeps_its_inode", two()) else {
        return;
    };
    let fifo = || fs::metadata(FIFO).expect("a FIFO");
    let before = fifo();
    assert_eq!(before.mode() & 0o7777, 0o640);
    let none = configuration(json!({ "a": group(1, Value::Null), "b": group(2, Value::Null) }));
    let other = configuration(json!({ "a": group(1, json!({})), "c": group(3, json!({})) }));
    for tree in [none, two(), other] {
        router.commit(tree);
        assert_eq!(fifo().ino(), before.ino());
    }
    router.wait_attached(true);
}

/// Runs the tests of a Python module in this directory.
fn python_tests(module: &str) {
    let done = Command::new("python3")
        .args(["-m", "unittest", "-v", module])
        .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/owner"))
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .output()
        .expect("python3");
    let said = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success() && !said.contains("Ran 0 tests"), "{}:\n{said}", done.status);
}

/// The program is missing, hangs, crashes or prints garbage (failures.py).
#[test]
fn a_failure_of_the_program_is_reported_clearly() {
    python_tests("failures");
}

/// Inside vyos-configd and vyos-commitd, with a static route in the same commit (daemon.py).
#[test]
fn the_script_works_inside_the_daemons_of_vyos() {
    python_tests("daemon");
}

/// For each call of a commit: whether it was made in full, and whether it failed.
fn full_and_failed(calls: &[Call]) -> Vec<(bool, bool)> {
    calls.iter().map(|call| (call.is_full, call.answer.code != Some(0))).collect()
}

/// Three groups with these nodes.
fn tree(a: Value, b: Value, c: Value) -> Value {
    configuration(json!({ "a": group(1, a), "b": group(2, b), "c": group(3, c) }))
}

fn plain() -> Value {
    json!({})
}

fn disabled() -> Value {
    json!({ "disable": {} })
}

fn faulty() -> Value {
    json!({ "interface": "eth7" })
}

fn all(node: fn() -> Value) -> Value {
    tree(node(), node(), node())
}

/// The configuration for the agent. Unlike [`assert_in_force`], after which each call is made in full, this changes nothing.
fn config() -> Value {
    serde_json::from_slice(&fs::read(CONFIG).expect("read")).expect("JSON")
}

/// Commits, and asserts that only the first call was made in full, and the resulting config.json.
fn commit_with_one_full_call(router: &mut Router, after: Value, expected: &Value) {
    let calls = router.commit(after);
    let first_alone: Vec<(bool, bool)> = (0..calls.len()).map(|n| (n == 0, false)).collect();
    assert_eq!(full_and_failed(&calls), first_alone, "{calls:?}");
    assert_eq!(config(), *expected);
}

/// A router that has booted with three enabled groups; and config.json if all of them are disabled, and if none is.
fn with_three(test: &str) -> Option<(Router, Value, Value)> {
    let mut router = Router::enter(test)?;
    router.is_run_by_its_interpreter = true;
    router.boot(all(disabled));
    let is_disabled = config();
    router.boot(all(plain));
    let is_plain = config();
    assert_ne!(is_disabled, is_plain);
    Some((router, is_disabled, is_plain))
}

/// VyOS calls the script once for each group. The later calls skip what the first one has done.
#[test]
fn later_calls_of_a_commit_end_at_once() {
    let Some(mut router) = Router::enter("script::later_calls_of_a_commit_end_at_once") else {
        return;
    };
    router.is_run_by_its_interpreter = true;
    let (done, skipped, failed) = ((true, false), (false, false), (true, true));
    // If no commit holds the lock, each call is made in full, and calls.json is not written.
    let calls = router.boot(tree(plain(), plain(), plain()));
    assert_eq!(full_and_failed(&calls), [done, done, done]);
    assert!(!Path::new(CALLS).exists());
    assert_eq!(router.asked(), vyos_then(&[START_AGENT, RELOAD]));

    router.begin_commit();
    let calls = router.commit(tree(disabled(), disabled(), disabled()));
    assert_eq!(full_and_failed(&calls), [done, skipped, skipped]);
    calls.iter().for_each(|call| call.answer.assert_silent());
    assert_in_force(&router);
    router.end_commit();

    // The next commit has an error in one group: the call for that group fails, in any order.
    for (is_reversed, changes, expected) in [
        (false, tree(plain(), faulty(), plain()), vec![done, failed, skipped]),
        (true, tree(plain(), faulty(), plain()), vec![done, failed, skipped]),
        (false, tree(faulty(), disabled(), plain()), vec![failed, done]),
        (true, tree(faulty(), disabled(), plain()), vec![done, failed]),
    ] {
        router.effective = tree(disabled(), disabled(), disabled());
        router.is_reversed = is_reversed;
        router.begin_commit();
        let mut calls = router.commit(changes);
        assert_eq!(full_and_failed(&calls), expected, "reversed: {is_reversed}");
        calls.retain(|call| call.answer.code != Some(0));
        assert!(calls.len() == 1 && calls[0].answer.shown().contains("interface eth7 does not exist"), "{calls:?}");
        assert_in_force(&router);
        router.end_commit();
    }
    router.is_reversed = false;

    // A commit is aborted after its first call: the next one applies its own configuration.
    router.effective = tree(disabled(), disabled(), disabled());
    router.begin_commit();
    let calls = router.commit(tree(plain(), disabled(), disabled()));
    assert_eq!(full_and_failed(&calls), [done]);
    router.end_commit();
    router.begin_commit();
    let calls = router.commit(tree(disabled(), disabled(), disabled()));
    assert_eq!(full_and_failed(&calls), [done]);
    assert_in_force(&router);
    // keepalived has been restarted since the first call of the commit.
    router.restart_keepalived();
    router.wait_attached(true);
    router.effective = tree(plain(), disabled(), disabled());
    let calls = router.commit(tree(disabled(), disabled(), disabled()));
    assert_eq!(full_and_failed(&calls), [done]);
    // Nothing has happened since.
    router.effective = tree(plain(), disabled(), disabled());
    let calls = router.commit(tree(disabled(), disabled(), disabled()));
    assert_eq!(full_and_failed(&calls), [skipped]);
    // A file has been removed.
    fs::remove_file(CONFIG).expect("removed");
    router.effective = tree(plain(), disabled(), disabled());
    let calls = router.commit(tree(disabled(), disabled(), disabled()));
    assert_eq!(full_and_failed(&calls), [done]);
    assert_in_force(&router);
    router.end_commit();

    // Deleted groups come first, then VyOS renders keepalived.conf, then the new groups follow.
    router.begin_commit();
    let calls = router.commit(configuration(json!({ "d": group(4, plain()), "e": group(5, plain()) })));
    assert_eq!(full_and_failed(&calls), [done, skipped, skipped, done, skipped]);
    assert_in_force(&router);
    router.wait_attached(true);
    assert_eq!(names_in(GROUPS), ["d", "e"]);
    let calls = router.commit(configuration(json!({})));
    assert_eq!(calls.len(), 2);
    assert!(calls[0].is_full && !calls[1].is_full, "{calls:?}");
    assert_as_without_the_package(&router);
    router.end_commit();
}

/// The call for a group shows its warning, once.
#[test]
fn a_call_for_a_group_with_a_warning_is_made_in_full() {
    let Some(mut router) = Router::enter("script::a_call_for_a_group_with_a_warning_is_made_in_full") else {
        return;
    };
    router.is_run_by_its_interpreter = true;
    let mut loud = group(3, json!({}));
    loud.as_object_mut().expect("a node").remove("hello-source-address");
    router.begin_commit();
    let calls = router.boot(configuration(
        json!({ "a": group(1, json!({})), "b": group(2, json!({})), "c": loud, "d": group(4, json!({})) }),
    ));
    assert_eq!(calls.iter().map(|call| call.is_full).collect::<Vec<_>>(), [true, false, true, false]);
    assert!(calls[2].answer.shown().starts_with("WARNING: high-availability vrrp group c: "), "{calls:?}");
    for call in [&calls[0], &calls[1], &calls[3]] {
        call.answer.assert_silent();
    }
}

/// Commits follow one another at once, each in its own process, and two of them are killed.
#[test]
fn commits_within_the_same_second_are_distinguished() {
    let test = "script::commits_within_the_same_second_are_distinguished";
    let Some((mut router, is_disabled, is_plain)) = with_three(test) else {
        return;
    };
    for _ in 0..2 {
        for (node, expected) in [(disabled as fn() -> Value, &is_disabled), (plain, &is_plain)] {
            router.begin_commit();
            commit_with_one_full_call(&mut router, all(node), expected);
            router.end_commit();
        }
    }
    router.begin_commit();
    commit_with_one_full_call(&mut router, all(disabled), &is_disabled);
    router.kill_commit();
    // VyOS repeats all of it.
    router.effective = all(plain);
    router.begin_commit();
    commit_with_one_full_call(&mut router, all(disabled), &is_disabled);
    router.kill_commit();
    // VyOS commits something else.
    router.effective = tree(plain(), disabled(), disabled());
    router.begin_commit();
    commit_with_one_full_call(&mut router, all(plain), &is_plain);
    router.end_commit();
}

/// Another session, or the installation of the package, calls the script with the configuration in effect there. The next
/// call of the commit repairs what that has changed.
#[test]
fn a_call_from_outside_the_commit_replaces_no_call_of_it() {
    let test = "script::a_call_from_outside_the_commit_replaces_no_call_of_it";
    let Some((mut router, is_disabled, is_plain)) = with_three(test) else {
        return;
    };
    for in_daemon in [false, true] {
        if in_daemon {
            router.start_daemon()
        } else {
            router.begin_commit()
        }
        commit_with_one_full_call(&mut router, all(disabled), &is_disabled);
        // Calls that undo the commit, that have the same configuration, and that remove everything.
        for effective in [all(plain), all(disabled), configuration(json!({}))] {
            router.run_owner_beside(&effective, &effective).assert_silent();
            router.effective = all(plain);
            commit_with_one_full_call(&mut router, all(disabled), &is_disabled);
        }
        router.wait_attached(true);
        // A failed call changes nothing.
        let answer = router.run_owner_beside(&tree(faulty(), plain(), plain()), &all(plain));
        assert!(answer.code == Some(1) && answer.shown().contains("interface eth7 does not exist"), "{answer:?}");
        router.effective = all(plain);
        assert_eq!(full_and_failed(&router.commit(all(disabled))), [(false, false); 3]);
        assert_eq!(config(), is_disabled);
        // None of these counts as a call of the commit.
        router.run_owner_beside(&all(plain), &all(plain)).assert_silent();
        assert!(!Path::new(CALLS).exists());
        assert_eq!(config(), is_plain);
        router.end_commit();
        router.effective = all(plain);
    }
}

/// In the daemon, with the real program: daemon.py has a stand-in for it.
#[test]
fn later_calls_in_the_daemon_end_at_once() {
    let test = "script::later_calls_in_the_daemon_end_at_once";
    let Some((mut router, is_disabled, is_plain)) = with_three(test) else {
        return;
    };
    let (done, skipped, failed) = ((true, false), (false, false), (true, true));
    router.start_daemon();
    commit_with_one_full_call(&mut router, all(disabled), &is_disabled);
    // The next commit, and one that is aborted after its first call.
    router.next_commit_of_the_daemon();
    commit_with_one_full_call(&mut router, all(plain), &is_plain);
    router.effective = tree(plain(), disabled(), disabled());
    router.next_commit_of_the_daemon();
    commit_with_one_full_call(&mut router, all(plain), &is_plain);
    // The daemon is restarted in the middle of a commit.
    router.end_commit();
    router.start_daemon();
    router.effective = tree(plain(), disabled(), disabled());
    commit_with_one_full_call(&mut router, all(plain), &is_plain);
    for (is_reversed, changes, expected) in [
        (false, tree(disabled(), faulty(), disabled()), vec![done, failed, skipped]),
        (true, tree(faulty(), plain(), disabled()), vec![done, failed]),
    ] {
        router.effective = all(plain);
        router.is_reversed = is_reversed;
        router.next_commit_of_the_daemon();
        let calls = router.commit(changes);
        assert_eq!(full_and_failed(&calls), expected, "reversed: {is_reversed}");
        assert_in_force(&router);
    }
    router.is_reversed = false;
    // VyOS renders keepalived.conf between two calls.
    router.next_commit_of_the_daemon();
    let calls = router.commit(configuration(json!({ "d": group(4, plain()), "e": group(5, plain()) })));
    assert_eq!(full_and_failed(&calls), [done, skipped, skipped, done, skipped]);
    assert_in_force(&router);
    router.end_commit();
}

/// How long VyOS's library takes, in seconds, and in total: a whole call took 0.3 to 0.75 s on a booted VyOS 1.4. The
/// stand-in sleeps, which takes no processor time.
const VYOS: (&str, Duration) = ("0.2 0.3 0.05", Duration::from_millis(650));

/// The benchmark limits the released program to 2 s more for 200 groups than for none, and to 50 ms for a call with nothing
/// left to do. This test runs an unoptimised build, perhaps on a busy machine, so it limits the processor time, to 5 s; 200
/// calls in full would take minutes. The elapsed times are only printed.
#[test]
fn two_hundred_groups_take_little_more_time_than_none() {
    let Some(mut router) = Router::enter("script::two_hundred_groups_take_little_more_time_than_none") else {
        return;
    };
    router.is_run_by_its_interpreter = true;
    router.vyos_seconds = VYOS.0;
    let tree = |nodes: Value| {
        let groups = (1..=200_u8).map(|n| {
            let mut group = group(n, nodes.clone());
            group["address"] = json!({ format!("10.99.0.{}/24", u16::from(n) + 2): {} });
            (format!("group-{n}"), group)
        });
        configuration(Value::Object(groups.collect()))
    };
    let none = configuration(json!({}));
    for in_daemon in [false, true] {
        let mut measured = |after: Value| {
            let before = processor_time_of_children();
            if in_daemon {
                router.start_daemon()
            } else {
                router.begin_commit()
            }
            let calls = router.commit(after);
            router.end_commit();
            (processor_time_of_children() - before, calls)
        };
        let without = [tree(Value::Null), none.clone()].map(|after| measured(after).0);
        for (what, after, without) in [("added", tree(json!({})), without[0]), ("deleted", none.clone(), without[1])] {
            let (cost, calls) = measured(after);
            assert_eq!(calls.len(), 200);
            let (full, short): (Vec<&Call>, Vec<&Call>) = calls.iter().partition(|call| call.is_full);
            short.iter().for_each(|call| call.answer.assert_silent());
            // keepalived with 200 groups may be too slow for one call: then the next one is made in full as well.
            let late = full.iter().filter(|call| call.answer.shown().contains("FIFO")).count();
            assert!(full.iter().all(|call| call.answer.code == Some(0)) && full.len() <= 1 + late, "{full:?}");
            let mut took: Vec<Duration> = short.iter().map(|call| call.took).collect();
            took.sort();
            let more = cost.saturating_sub(without) + VYOS.1 * u32::try_from(full.len()).expect("a few");
            println!(
                "{what}, in the daemon: {in_daemon}: {more:?} more; {:?}, median {:?}",
                took[0],
                took[took.len() / 2]
            );
            assert!(cost / 200 < Duration::from_millis(50), "{cost:?}");
            assert!(more < Duration::from_secs(5), "{more:?}");
        }
    }
}

/// tests/aws-account/router/on-debian renders what VyOS would render, and calls `commit` as VyOS's owner script does.
#[test]
fn the_debian_routers_of_the_acceptance_commit_their_group() {
    let Some(router) = Router::enter("script::the_debian_routers_of_the_acceptance_commit_their_group") else {
        return;
    };
    ip("address add 10.99.0.70/24 dev eth0");
    ip("route add default via 10.99.0.254 dev eth0");
    // systemd-run would start the program that answers the clients.
    fs::create_dir("/run/lab/acceptance").expect("a directory");
    symlink("/bin/true", "/run/lab/acceptance/systemd-run").expect("a link");
    let output = Command::new("bash")
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/aws-account/router/on-debian"))
        .args(["start", "10.99", "10.255.0.1", "4070", "rtb-01234567", "rtb-89abcdef", "eipalloc-01234567"])
        .env("PATH", format!("/run/lab/acceptance:{}", env::var("PATH").expect("a path")))
        .output()
        .expect("bash");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    router.wait_attached(true);
    let config: Value = serde_json::from_slice(&fs::read(CONFIG).expect("read")).expect("JSON");
    assert_eq!(config["skipped"], json!([]));
    let group = &config["groups"][0];
    assert_eq!(group["name"], "acceptance");
    assert_eq!(
        group["routes"],
        json!([{ "destination": "10.255.0.1/32", "tables": ["rtb-01234567", "rtb-89abcdef"], "interface": null }])
    );
    assert_eq!(
        group["elastic_ips"],
        json!([{ "allocation": "eipalloc-01234567", "private_address": "10.99.0.72", "interface": null }])
    );
    let groups: Value = serde_json::from_slice(&fs::read(GROUPS).expect("read")).expect("JSON");
    let addresses = ["10.99.0.100", "10.255.0.1"].map(|address| json!({ "address": address, "interface": null }));
    assert_eq!(groups["groups"][0]["addresses"], json!(addresses));
}
