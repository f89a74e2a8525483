//! `hook`, before a start or a reload of keepalived.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

use crate::router::{
    CONFIG, FIFO, GROUPS, INCLUDE, KEEPALIVED_CONF, Router, configuration, group, keepalived_conf,
    processor_time_of_children, vipa,
};

/// A configuration of these groups, as `commit` writes it.
fn write_config(names: &[&str]) {
    let groups: Vec<Value> = names
        .iter()
        .map(|name| json!({ "name": name, "addresses": [], "interface": null, "network_interface_id": null, "disable": false }))
        .collect();
    let global = json!({
        "region": null, "endpoint_url": null, "credentials_file": null, "profile": null, "ca_certificate_file": null,
        "verify_interval": 30, "request_timeout": 3
    });
    let config = json!({ "format": 1, "global": global, "groups": groups, "skipped": [], "interface_addresses": [] });
    fs::write(CONFIG, config.to_string()).expect("written");
}

fn included(conf: &str) -> String {
    format!("{conf}include {INCLUDE}\n")
}

#[test]
fn with_nothing_configured_keepalived_conf_stays_as_vyos_wrote_it() {
    let test = "hook::with_nothing_configured_keepalived_conf_stays_as_vyos_wrote_it";
    let Some(_router) = Router::enter(test) else {
        return;
    };
    vipa(&["hook"], b"").assert_silent();
    assert!(!Path::new(KEEPALIVED_CONF).exists());
    let conf =
        [b"# caf\xe9\n".as_slice(), keepalived_conf(&configuration(json!({ "a": group(1, Value::Null) }))).as_bytes()]
            .concat();
    fs::write(KEEPALIVED_CONF, &conf).expect("written");
    let before = fs::metadata(KEEPALIVED_CONF).expect("there").ino();
    vipa(&["hook"], b"").assert_silent();
    assert_eq!(fs::metadata(KEEPALIVED_CONF).expect("there").ino(), before, "not touched");
    // It removes the line that it added earlier, and keeps every other byte.
    write_config(&["a"]);
    vipa(&["hook"], b"").assert_silent();
    assert_eq!(fs::read(KEEPALIVED_CONF).expect("read"), [&conf[..], included("").as_bytes()].concat());
    for gone in [|| write_config(&[]), || fs::remove_file(CONFIG).expect("removed")] {
        gone();
        vipa(&["hook"], b"").assert_silent();
        assert_eq!(fs::read(KEEPALIVED_CONF).expect("read"), conf);
        write_config(&["a"]);
        vipa(&["hook"], b"").assert_silent();
    }
}

#[test]
fn it_attaches_once_and_writes_what_keepalived_runs() {
    let Some(_router) = Router::enter("hook::it_attaches_once_and_writes_what_keepalived_runs") else {
        return;
    };
    write_config(&["a"]);
    // The FIFO exists even before VyOS has rendered keepalived.conf.
    vipa(&["hook"], b"").assert_silent();
    let fifo = fs::metadata(FIFO).expect("a FIFO");
    assert!(fifo.file_type().is_fifo() && fifo.mode() & 0o7777 == 0o640, "{fifo:?}");
    assert!(!Path::new(GROUPS).exists());
    let conf = keepalived_conf(&configuration(json!({ "a": group(1, json!({})), "b": group(2, Value::Null) })));
    fs::write(KEEPALIVED_CONF, &conf).expect("written");
    vipa(&["hook"], b"").assert_silent();
    assert_eq!(fs::read_to_string(KEEPALIVED_CONF).expect("read"), included(&conf));
    assert!(fs::read_to_string(INCLUDE).expect("read").contains(&format!("vrrp_notify_fifo {FIFO}\n")));
    let groups: Value = serde_json::from_slice(&fs::read(GROUPS).expect("read")).expect("JSON");
    let expected = |name: &str, vrid: u8, address: &str| {
        json!({
            "name": name, "interface": "eth0", "vrid": vrid, "priority": 100, "peers": ["10.99.0.2"],
            "addresses": [{ "address": address, "interface": null }]
        })
    };
    let both = [expected("a", 1, "10.99.0.101"), expected("b", 2, "10.99.0.102")];
    assert_eq!(groups, json!({ "format": 1, "groups": both }));
    // A second call changes nothing: a rename would make the agent read the file again.
    let inodes = || [KEEPALIVED_CONF, GROUPS, INCLUDE, FIFO].map(|path| fs::metadata(path).expect("there").ino());
    let before = inodes();
    vipa(&["hook"], b"").assert_silent();
    assert_eq!((inodes(), fs::read_to_string(KEEPALIVED_CONF).expect("read")), (before, included(&conf)));
    for path in [CONFIG, GROUPS, INCLUDE] {
        let file = fs::metadata(path).expect("there");
        assert_eq!((file.mode() & 0o022, file.uid()), (0, 0), "{path} can be written by others");
    }
}

#[test]
fn a_keepalived_conf_that_is_not_whole_leaves_the_groups_as_they_were() {
    let test = "hook::a_keepalived_conf_that_is_not_whole_leaves_the_groups_as_they_were";
    let Some(_router) = Router::enter(test) else {
        return;
    };
    write_config(&["a"]);
    let conf = keepalived_conf(&configuration(json!({ "a": group(1, json!({})), "b": group(2, json!({})) })));
    fs::write(KEEPALIVED_CONF, &conf).expect("written");
    vipa(&["hook"], b"").assert_silent();
    let groups = fs::read(GROUPS).expect("read");
    let rubbish: Vec<u8> = (0..=255).cycle().take(100_000).collect();
    let half = &conf.as_bytes()[..conf.find("unicast_peer").expect("there")];
    for (bytes, expected) in [
        (&b""[..], "incomplete: it is empty, or ends inside a block"),
        (half, "incomplete: it is empty, or ends inside a block"),
        (&rubbish, "line 1: zero byte: not written by VyOS"),
    ] {
        fs::write(KEEPALIVED_CONF, bytes).expect("written");
        let answer = vipa(&["hook"], b"");
        assert_eq!((answer.code, answer.out.as_str()), (Some(1), ""), "{answer:?}");
        assert!(answer.err.contains(KEEPALIVED_CONF) && answer.err.contains(expected), "{}", answer.err);
        assert_eq!(fs::read(GROUPS).expect("read"), groups, "{expected}");
        assert!(fs::read(KEEPALIVED_CONF).expect("read").starts_with(bytes), "{expected}");
    }
    fs::write(KEEPALIVED_CONF, &conf).expect("written");
    vipa(&["hook"], b"").assert_silent();
    assert_eq!(fs::read(GROUPS).expect("read"), groups);
}

/// Groups without `aws-vipa` may have any name and password that VyOS accepts, and keepalived still runs.
#[test]
fn an_odd_group_costs_no_other_one() {
    let Some(_router) = Router::enter("hook::an_odd_group_costs_no_other_one") else {
        return;
    };
    write_config(&["a"]);
    let mut passed_over = None;
    for (name, expected) in [
        ("x{y", &["a", "z"][..]),
        ("x}y", &["a", "z"]),
        ("x y", &["a", "z"]),
        ("a'", &["a", "z"]),
        ("x", &["a", "x", "z"]),
        // keepalived ignores the text after it, and runs the groups before it.
        ("a{", &["a"]),
    ] {
        let mut odd = group(2, Value::Null);
        // Its brace would end the ignored text.
        if name != "a{" {
            odd["authentication"] = json!({ "password": "{\t\"}", "type": "plaintext-password" });
        }
        let conf =
            keepalived_conf(&configuration(json!({ "a": group(1, json!({})), name: odd, "z": group(3, Value::Null) })));
        fs::write(KEEPALIVED_CONF, &conf).expect("written");
        let answer = vipa(&["hook"], b"");
        assert_eq!((answer.code, answer.out.as_str()), (Some(0), ""), "{answer:?}");
        let groups: Value = serde_json::from_slice(&fs::read(GROUPS).expect("read")).expect("JSON");
        let names: Vec<&str> =
            groups["groups"].as_array().expect("groups").iter().filter_map(|g| g["name"].as_str()).collect();
        assert_eq!(names, expected, "{name:?}: {}", answer.err);
        let line = conf.lines().position(|line| line == format!("vrrp_instance {name} {{")).expect("there") + 1;
        let told = format!("vyos-aws-vipa: {KEEPALIVED_CONF}: line {line}: vrrp_instance {name} skipped: ");
        assert_eq!(answer.err.starts_with(&told), name != "x", "{answer:?}");
        assert_eq!(answer.err.lines().count(), usize::from(name != "x"), "{answer:?}");
        passed_over = Some(conf);
    }
    let conf = passed_over.expect("the last one");
    let first = format!("include {INCLUDE}\n{conf}");
    assert_eq!(fs::read_to_string(KEEPALIVED_CONF).expect("read"), first, "where keepalived reads it");
    let before = fs::metadata(KEEPALIVED_CONF).expect("there").ino();
    vipa(&["hook"], b"");
    assert_eq!(fs::metadata(KEEPALIVED_CONF).expect("there").ino(), before, "not touched again");
    write_config(&[]);
    vipa(&["hook"], b"").assert_silent();
    assert_eq!(fs::read_to_string(KEEPALIVED_CONF).expect("read"), conf);
}

#[test]
fn a_config_json_that_cannot_be_read_is_reported_and_keepalived_stays_attached() {
    let test = "hook::a_config_json_that_cannot_be_read_is_reported_and_keepalived_stays_attached";
    let Some(_router) = Router::enter(test) else {
        return;
    };
    let conf = keepalived_conf(&configuration(json!({ "a": group(1, json!({})) })));
    for (text, expected) in [
        (&br#"{"format":2,"new":true}"#[..], "has format 2, and this version of vyos-aws-vipa reads up to 1"),
        (b"{", "does not have the expected content"),
        (b"\x00\xff", "does not have the expected content"),
        (br#"{"format":1,"surprise":1}"#, "unknown field `surprise`"),
    ] {
        fs::write(CONFIG, text).expect("written");
        fs::write(KEEPALIVED_CONF, &conf).expect("written");
        let answer = vipa(&["hook"], b"");
        assert_eq!((answer.code, answer.out.as_str()), (Some(1), ""), "{answer:?}");
        assert!(answer.err.contains(CONFIG) && answer.err.contains(expected), "{}", answer.err);
        assert_eq!(fs::read(CONFIG).expect("read"), text, "the file is kept");
        assert_eq!(fs::read_to_string(KEEPALIVED_CONF).expect("read"), included(&conf));
    }
}

/// It was removed without a commit of VyOS.
#[test]
fn a_directory_that_is_gone_is_made_anew_and_keepalived_stays_attached() {
    let test = "hook::a_directory_that_is_gone_is_made_anew_and_keepalived_stays_attached";
    let Some(_router) = Router::enter(test) else {
        return;
    };
    let conf = keepalived_conf(&configuration(json!({ "a": group(1, json!({})) })));
    let directory = Path::new(CONFIG).parent().expect("a directory");
    let is_right = || {
        let found = fs::symlink_metadata(directory).expect("there");
        assert!(found.is_dir() && (found.uid(), found.gid(), found.mode() & 0o7777) == (0, 0, 0o755), "{found:?}");
    };
    // Without a configuration, no agent runs.
    fs::write(KEEPALIVED_CONF, &conf).expect("written");
    fs::remove_dir(directory).expect("removed");
    vipa(&["hook"], b"").assert_silent();
    is_right();
    assert_eq!(fs::read_to_string(KEEPALIVED_CONF).expect("read"), conf);
    fs::create_dir_all("/run/vyos-aws-vipa-agent").expect("made");
    fs::write("/run/vyos-aws-vipa-agent/agent.sock", "").expect("written");
    fs::create_dir("/run/lab/elsewhere").expect("made");
    let in_its_place: [fn(&Path); 4] = [
        |_| {},
        |directory| std::os::unix::fs::symlink("/run/lab/elsewhere", directory).expect("a link"),
        |directory| std::os::unix::fs::symlink("/run/lab/nowhere", directory).expect("a link"),
        |directory| fs::write(directory, "").expect("written"),
    ];
    for put in in_its_place {
        fs::remove_dir_all(directory).expect("removed");
        put(directory);
        for _ in 0..2 {
            // VyOS may have rewritten its file meanwhile.
            fs::write(KEEPALIVED_CONF, &conf).expect("written");
            let answer = vipa(&["hook"], b"");
            assert_eq!((answer.code, answer.out.as_str()), (Some(1), ""), "{answer:?}");
            assert!(answer.err.contains("config.json was removed while the agent is running"), "{}", answer.err);
            is_right();
            assert_eq!(fs::read_to_string(KEEPALIVED_CONF).expect("read"), included(&conf));
            assert!(fs::symlink_metadata(FIFO).expect("there").file_type().is_fifo() && Path::new(GROUPS).exists());
        }
        assert_eq!(fs::read_dir("/run/lab/elsewhere").expect("there").count(), 0, "no link is followed");
        assert!(!Path::new("/run/lab/nowhere").exists());
    }
    // Other users could write there for a while: keepalived must not include their files.
    fs::set_permissions(directory, std::os::unix::fs::PermissionsExt::from_mode(0o777)).expect("changed");
    fs::rename(INCLUDE, "/run/lab/include").expect("moved");
    std::os::unix::fs::symlink("/run/lab/include", INCLUDE).expect("a link");
    vipa(&["hook"], b"");
    is_right();
    assert!(fs::symlink_metadata(INCLUDE).expect("there").is_file(), "no link");
}

#[test]
fn what_stands_in_the_place_of_the_fifo_is_put_right() {
    let Some(_router) = Router::enter("hook::what_stands_in_the_place_of_the_fifo_is_put_right") else {
        return;
    };
    write_config(&["a"]);
    fs::write(FIFO, "no FIFO").expect("written");
    vipa(&["hook"], b"").assert_silent();
    assert!(fs::metadata(FIFO).expect("there").file_type().is_fifo());
    // A FIFO that was made accessible to all keeps its inode, and gets its permissions back.
    let before = fs::metadata(FIFO).expect("there").ino();
    fs::set_permissions(FIFO, std::os::unix::fs::PermissionsExt::from_mode(0o666)).expect("changed");
    vipa(&["hook"], b"").assert_silent();
    let after = fs::metadata(FIFO).expect("there");
    assert_eq!((after.ino(), after.mode() & 0o7777), (before, 0o640));
    // A link is not followed.
    fs::remove_file(FIFO).expect("removed");
    std::os::unix::fs::symlink("/run/lab/elsewhere", FIFO).expect("a link");
    vipa(&["hook"], b"").assert_silent();
    assert!(fs::symlink_metadata(FIFO).expect("there").file_type().is_fifo());
    assert!(!Path::new("/run/lab/elsewhere").exists());
    // Without the agent's group, the agent could not read it.
    fs::write("/etc/group", "root:x:0:\n").expect("written");
    let answer = vipa(&["hook"], b"");
    assert_eq!(answer.code, Some(1), "{answer:?}");
    assert!(answer.err.contains("there is no group vyos-aws-vipa-agent: `systemd-sysusers`"), "{}", answer.err);
}

/// The bound is 10 ms on a router, which the benchmark checks. Here it is the processor time of an unoptimised build.
#[test]
fn it_is_quick_with_200_groups() {
    let Some(_router) = Router::enter("hook::it_is_quick_with_200_groups") else {
        return;
    };
    let names: Vec<String> = (1..=200).map(|n| format!("group-{n}")).collect();
    write_config(&names.iter().map(String::as_str).collect::<Vec<_>>());
    let groups = names.iter().zip(1..=200_u8).map(|(name, vrid)| {
        let mut group = group(1, Value::Null);
        group["vrid"] = json!(vrid.to_string());
        (name.clone(), group)
    });
    fs::write(KEEPALIVED_CONF, keepalived_conf(&configuration(Value::Object(groups.collect())))).expect("written");
    let before = processor_time_of_children();
    for _ in 0..10 {
        vipa(&["hook"], b"").assert_silent();
    }
    let cost = (processor_time_of_children() - before) / 10;
    println!("hook with 200 groups: {cost:?} of processor time");
    assert!(cost < Duration::from_millis(100), "{cost:?}");
    let groups: Value = serde_json::from_slice(&fs::read(GROUPS).expect("read")).expect("JSON");
    assert_eq!(groups["groups"].as_array().expect("groups").len(), 200);
}
