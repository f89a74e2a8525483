//! The hook in keepalived.conf and the FIFO in keepalived: present when they should be, and never an obstacle to
//! keepalived.

use std::time::Duration;

use lab::{GROUP, Lab, Router, THIRD_PARTY, VIP};

use crate::credentials::{COPY, FILE, KEYS, NOTICED, SECRET, put_keys};
use crate::ownership_loss::SEEN;
use crate::{BINARY, ELECTION, SLACK};

const INCLUDE: &str = "include /run/vyos-aws-vipa/keepalived.conf";

fn holds_the_fifo(router: &Router) -> bool {
    let Some(pid) = router.vrrp_pid() else {
        return false;
    };
    let fds = std::fs::read_dir(format!("/proc/{}/fd", pid.as_raw_pid())).into_iter().flatten().flatten();
    fds.filter_map(|fd| std::fs::read_link(fd.path()).ok()).any(|file| file.ends_with("vyos-aws-vipa/notify.fifo"))
}

/// Without `aws-vipa` nodes VyOS is as it was, and a MASTER group stays MASTER.
#[test]
fn deleting_the_last_node_leaves_vyos_as_it_was() {
    lab::scenario(BINARY, |lab: &mut Lab| {
        lab.bring_up();
        assert!(lab.r1.read("/run/keepalived/keepalived.conf").contains(INCLUDE) && holds_the_fifo(&lab.r1));
        let reloads = lab.r1.systemctl_calls("reload keepalived.service");
        lab.r1.set([
            "delete high-availability vrrp group vyos-aws aws-vipa",
            "delete high-availability vrrp global-parameters aws-vipa",
        ]);
        lab.r1.commit();
        lab.wait("the agent ends", SLACK, |lab| lab.r1.main_pid("vyos-aws-vipa").is_none());
        assert_eq!(lab.r1.read("/run/keepalived/keepalived.conf"), lab.r1.configuration().keepalived_conf());
        lab.wait("keepalived lets go of the FIFO", SLACK, |lab| !holds_the_fifo(&lab.r1));
        assert_eq!(lab.r1.systemctl_calls("reload keepalived.service") - reloads, 1, "one reload");
        assert!(lab.r1.has_local(VIP), "MASTER all the time");
        assert_eq!(lab.claims(None).len(), 1);
        let said = lab.r1.command("vyos-aws-vipa").args(["show", "status"]).output().expect("show status");
        assert!(!said.status.success() && lab::said(&said).contains("not configured"), "{}", lab::said(&said));
    });
}

/// The directory of /run is removed: a reload of keepalived creates it again and attaches the hook, and so does a
/// commit.
#[test]
fn directory_of_run_removed() {
    lab::scenario(BINARY, |lab: &mut Lab| {
        lab.bring_up();
        let found = |lab: &Lab| {
            let said =
                lab.r1.call(&["stat", "--format=%U:%G %a %F", "/run/vyos-aws-vipa", "/run/vyos-aws-vipa/notify.fifo"]);
            said.lines().map(str::to_owned).collect::<Vec<_>>()
        };
        let before = found(lab);
        assert_eq!(before.first().map(String::as_str), Some("root:root 755 directory"));
        lab.r1.call(&["rm", "-r", "/run/vyos-aws-vipa"]);
        lab.r1.systemctl(&["reload", "keepalived.service"]);
        lab.wait("the hook is attached", SLACK, |lab| holds_the_fifo(&lab.r1));
        assert_eq!(found(lab), before);
        lab.watch("MASTER", Duration::from_secs(3), |lab| lab.r1.shown(GROUP, VIP).vrrp() == "MASTER");
        // And the agent reads what keepalived writes.
        lab.r1.systemctl(&["restart", "keepalived.service"]);
        lab.wait_for_owner(VIP, &lab.r2, ELECTION + SLACK);
        lab.wait_for_owner(VIP, &lab.r1, ELECTION + SLACK);
        lab.r1.call(&["rm", "-r", "/run/vyos-aws-vipa"]);
        lab.r1.set(["set high-availability vrrp global-parameters aws-vipa verify-interval 5"]);
        lab.r1.commit();
        lab.wait("the hook is attached", SLACK, |lab| holds_the_fifo(&lab.r1));
        assert_eq!(found(lab), before);
        assert!(lab.r1.path("/run/vyos-aws-vipa/config.json").exists());
        lab.wait_for_verdict(&lab.r1, GROUP, VIP, "OK", SLACK);
    });
}

/// The copy of the credentials file goes with it. The agent keeps its keys until a commit has made everything again.
#[test]
fn directory_of_run_removed_with_a_credentials_file() {
    lab::scenario(BINARY, |lab: &mut Lab| {
        lab.set_global("verify-interval 5");
        lab.set_global(&format!("credentials-file {FILE}"));
        for router in [&lab.r1, &lab.r2] {
            put_keys(router, KEYS[0], SECRET);
        }
        lab.bring_up();
        // Until the reads that confirm the claim are over.
        lab.watch("one claim", Duration::from_secs(11), |lab| lab.claims(None).len() == 1);
        lab.r1.call(&["rm", "-r", "/run/vyos-aws-vipa"]);
        // The timer does so twice a minute.
        lab.r1.call(&["vyos-aws-vipa", "credentials"]);
        let noticed = |lab: &Lab| lab.r1.logged(&["no credentials for EC2", "Credentials.NotCopied"]);
        lab.wait("the agent misses the copy", NOTICED, |lab| noticed(lab) == 1);
        lab.simulator.steal(VIP, THIRD_PARTY[0]).expect("stolen");
        lab.wait("another claim", SEEN + SLACK, |lab| lab.claims(None).len() >= 2);
        lab.wait_for_owner(VIP, &lab.r1, SLACK);
        assert_eq!(lab.claims(None)[1].access_key.as_deref(), Some(KEYS[0]), "{:#?}", lab.claims(None));
        lab.r1.set(["set high-availability vrrp global-parameters aws-vipa verify-interval 10"]);
        lab.r1.commit();
        assert!(lab.r1.path(COPY).exists());
        let calls = lab.r1.read("/run/lab/systemctl.log");
        let timer = calls.lines().rev().find(|call| call.contains("vyos-aws-vipa-credentials.timer"));
        assert!(timer.is_some_and(|call| call.contains(" start ")), "{calls}");
        lab.wait_for_verdict(&lab.r1, GROUP, VIP, "OK", SLACK);
    });
}

/// A commit without a change of an `aws-vipa` node causes neither a reload nor a start.
#[test]
fn nothing_to_change() {
    lab::scenario(BINARY, |lab: &mut Lab| {
        lab.bring_up();
        let calls = |lab: &Lab| lab.r1.read("/run/lab/systemctl.log").lines().count();
        let before = calls(lab);
        let handed_over = lab.r1.handed_over(false).to_string();
        lab.r1.write("/run/lab/again.json", &handed_over);
        let file = std::fs::File::open(lab.r1.path("/run/lab/again.json")).expect("just written");
        let output = lab.r1.command("vyos-aws-vipa").arg("commit").stdin(file).output().expect("commit");
        assert!(output.status.success(), "{output:?}");
        assert_eq!(lab::said(&output), "", "warnings were said before");
        assert_eq!(calls(lab), before, "{}", lab.r1.read("/run/lab/systemctl.log"));
    });
}

/// Replaces the binary by a script.
fn replace_binary(router: &Router, script: &str) {
    router.write("/run/lab/other", script);
    router.call(&["chmod", "755", "/run/lab/other"]);
    router.call(&["mount", "--bind", "/run/lab/other", BINARY]);
}

/// keepalived starts and reloads whether the hook works or not, and the job of its unit ends.
fn keepalived_lives_with(lab: &mut Lab, systemctl: &str) {
    let bound = Duration::from_secs(5) + SLACK;
    let job = |lab: &Lab, verb: &str| {
        let mut job = lab.r1.command(systemctl).args([verb, "keepalived.service"]).spawn().expect("systemctl");
        lab.wait(&format!("the end of a {verb}"), bound, |_| {
            job.try_wait().expect("a job").is_some_and(|s| s.success())
        });
    };
    job(lab, "reload");
    let reloaded = |lab: &Lab| lab.r1.read("/run/lab/keepalived.service.log").contains("Reloading ...");
    lab.wait("a reload", SLACK, reloaded);
    assert!(lab.r1.has_local(VIP), "MASTER all the time");
    job(lab, "restart");
    lab.wait("MASTER again", ELECTION + SLACK, |lab| lab.r1.has_local(VIP));
}

/// keepalived with a group without `aws-vipa`.
fn without_us(lab: &mut Lab) {
    lab.r1.set_group(GROUP, 10, "10.99.0.100/24", 200);
    lab.r1.high_availability();
    lab.wait("MASTER", ELECTION + SLACK, |lab| lab.r1.has_local(VIP));
}

#[test]
fn hook_that_hangs() {
    lab::scenario(BINARY, |lab: &mut Lab| {
        without_us(lab);
        replace_binary(&lab.r1, "#!/bin/sh\ntrap '' TERM\nwhile :; do sleep 1; done\n");
        keepalived_lives_with(lab, "systemctl");
    });
}

#[test]
fn hook_that_crashes() {
    lab::scenario(BINARY, |lab: &mut Lab| {
        without_us(lab);
        replace_binary(&lab.r1, "#!/bin/sh\nkill -SEGV $$\n");
        keepalived_lives_with(lab, "systemctl");
    });
}

#[test]
fn hook_that_is_missing() {
    lab::scenario(BINARY, |lab: &mut Lab| {
        without_us(lab);
        lab.r1.call(&["umount", "--lazy", "/usr/bin"]);
        assert!(!lab.r1.path("/usr/bin/vyos-aws-vipa").exists(), "this machine has none of its own");
        keepalived_lives_with(lab, "/run/lab/bin/systemctl");
    });
}

/// keepalived.conf stays as VyOS wrote it while nothing is configured.
#[test]
fn hook_with_nothing_configured() {
    lab::scenario(BINARY, |lab: &mut Lab| {
        without_us(lab);
        lab.r1.systemctl(&["reload", "keepalived.service"]);
        assert_eq!(lab.r1.read("/run/keepalived/keepalived.conf"), lab.r1.configuration().keepalived_conf());
        assert!(!lab.r1.path("/run/vyos-aws-vipa/notify.fifo").exists());
    });
}
