//! Credentials that change, are missing, wrong or expired.

use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use lab::{GROUP, Lab, Router, VIP};

use crate::{BINARY, ELECTION, SLACK};

pub(crate) const KEYS: [&str; 2] = ["AKIAVIPAEXAMPLE00001", "AKIAVIPAEXAMPLE00002"];
pub(crate) const SECRET: &str = "vipa-example-secret";
pub(crate) const FILE: &str = "/run/lab/credentials";
pub(crate) const COPY: &str = "/run/vyos-aws-vipa/credentials.json";

/// The longest time until a changed file is noticed.
pub(crate) const NOTICED: Duration = Duration::from_secs(60);

#[test]
fn keys_of_the_role_end_before_their_time() {
    lab::scenario(BINARY, |lab: &mut Lab| {
        lab.bring_up();
        let instance = lab.r2.instance.clone();
        let old = lab.simulator.role_access_key(&instance).expect("a role");
        lab.r1.power_off();
        let new = lab.simulator.rotate_credentials(&instance, Duration::from_secs(3_600)).expect("a role");
        lab.simulator.expire_access_key(&old);
        lab.wait_for_owner(VIP, &lab.r2, ELECTION + SLACK);
        lab.wait_for_verdict(&lab.r2, GROUP, VIP, "OK", SLACK);
        let claims = lab.claims(Some(&lab.r2));
        let keys: Vec<&str> = claims.iter().map(|claim| claim.access_key.as_deref().unwrap_or_default()).collect();
        // A read may have detected it before the claim.
        assert!(keys == [&*old, &*new] || keys == [&*new], "{claims:#?}");
        assert!(claims.last().is_some_and(|claim| claim.succeeded()), "{claims:#?}");
    });
}

/// A file system that accepts requests and never answers, like an NFS mount whose server is gone: FUSE without a
/// program behind it. A process that accesses it hangs until the process that mounted it ends, after two minutes at the
/// latest.
fn hanging_mount(router: &Router, directory: &str) -> Child {
    let script = format!(
        "mkdir -p {directory} && exec 3<>/dev/fuse && \
         mount -i -t fuse -o fd=3,rootmode=40000,user_id=0,group_id=0,allow_other vipa {directory} && \
         echo mounted && exec sleep 120"
    );
    let mut shell = router.command("sh").args(["-c", &script]).stdout(Stdio::piped()).spawn().expect("a shell");
    let mut said = String::new();
    BufReader::new(shell.stdout.take().expect("its output")).read_line(&mut said).expect("its words");
    assert_eq!(said, "mounted\n");
    shell
}

/// Neither the agent nor a command accesses it: each would hang in the kernel.
#[test]
fn files_on_a_mount_that_hangs() {
    lab::scenario(BINARY, |lab: &mut Lab| {
        lab.bring_up();
        let mut mount = hanging_mount(&lab.r2, "/run/lab/hangs");
        lab.r2.call(&["ln", "-s", "lab/hangs", "/run/away"]);
        lab.r2.set([
            "set high-availability vrrp global-parameters aws-vipa credentials-file /run/lab/hangs/credentials",
            "set high-availability vrrp global-parameters aws-vipa ca-certificate-file /run/away/ca.pem",
        ]);
        let agent = lab.r2.main_pid("vyos-aws-vipa").expect("an agent");
        let why = "the path is on mount /run/lab/hangs of type fuse, which may hang: copy the file to /config/auth, and configure that path";
        let in_one_line = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");

        let began = Instant::now();
        let said = in_one_line(&lab.r2.commit().join("\n"));
        for (node, file) in
            [("credentials-file", "/run/lab/hangs/credentials"), ("ca-certificate-file", "/run/away/ca.pem")]
        {
            assert!(said.contains(&format!("{node}: {file} is not read: {why}")), "{said}");
        }
        assert!(began.elapsed() < Duration::from_secs(5), "commit took {:?}", began.elapsed());
        let reason = format!("file /run/lab/hangs/credentials, profile default: {why}");
        lab.wait("the standby says why it is not ready", ELECTION + SLACK, |lab| {
            let shown = lab.r2.shown(GROUP, VIP);
            shown.verdict() == "STANDBY-NOT-READY"
                && shown.address["reason"].as_str().is_some_and(|said| said.contains(&reason))
        });
        assert_eq!(lab.r2.logged(&["cannot load CA certificate file", why]), 1, "{}", lab.r2.agent_log());

        let run = |words: &[&str]| {
            let began = Instant::now();
            let mut command = lab.r2.command("vyos-aws-vipa");
            let output = command.args(words).output().expect("it runs");
            assert!(began.elapsed() < Duration::from_secs(10), "{words:?} took {:?}", began.elapsed());
            (output.status.success(), in_one_line(&String::from_utf8_lossy(&output.stdout)))
        };
        for words in [["show", "status", "--fresh"].as_slice(), &["show", "check"]] {
            let (_, said) = run(words);
            assert!(said.contains(why), "{words:?}: {said}");
        }
        assert!(run(&["credentials"]).0);
        let copy: serde_json::Value = serde_json::from_str(&lab.r2.read(COPY)).expect("JSON");
        assert_eq!(copy["content"]["unreadable"]["not-local"]["point"], "/run/lab/hangs", "{copy}");
        // The agent's event loop gave the answers above, and it is the process that was started.
        assert_eq!(lab.r2.main_pid("vyos-aws-vipa"), Some(agent), "{}", lab.r2.agent_log());
        assert!(mount.try_wait().expect("its state").is_none(), "the mount ended before the checks");

        mount.kill().expect("killed");
        mount.wait().expect("its end");
        lab.r2.call(&["umount", "/run/lab/hangs"]);
        lab.r2.call(&["cp", "/run/lab/ca.pem", "/run/lab/hangs/"]);
        let text = format!("[default]\naws_access_key_id = {}\naws_secret_access_key = {SECRET}\n", KEYS[0]);
        lab.r2.write("/run/lab/hangs/credentials", &text);
        lab.wait_for_verdict(&lab.r2, GROUP, VIP, "STANDBY-READY", NOTICED);

        // It hangs again: the agent keeps what was copied before, also across its restart.
        let mut mount = hanging_mount(&lab.r2, "/run/lab/hangs");
        assert!(run(&["credentials"]).0);
        let source = "file /run/lab/hangs/credentials, profile default";
        let read = |lab: &Lab| lab.r2.logged(&["credentials for EC2 read", source]);
        let before = read(lab);
        lab.r2.systemctl(&["restart", "vyos-aws-vipa.service"]);
        lab.wait("the copy is read again", SLACK, |lab| read(lab) == before + 1);
        assert!(mount.try_wait().expect("its state").is_none(), "the mount has ended by itself");
        mount.kill().expect("killed");
        mount.wait().expect("its end");
        assert!(!lab.r2.agent_log().contains(SECRET), "{}", lab.r2.agent_log());
    });
}

#[test]
fn file_that_is_missing_then_rubbish_then_wrong_then_right() {
    let world = lab::world().stale_reads(Duration::ZERO).access_key(KEYS[1], SECRET);
    lab::scenario_in(world, BINARY, |lab: &mut Lab| {
        lab.set_global("verify-interval 5");
        lab.set_global(&format!("credentials-file {FILE}"));
        lab.commit_pair();
        let shows = |lab: &Lab, router: &Router, verdict: &str, reason: &str| {
            lab.wait(&format!("{verdict}: {reason}"), ELECTION + NOTICED, |_| {
                let shown = router.shown(GROUP, VIP);
                let why = shown.address["reason"].as_str().unwrap_or_default().to_owned();
                shown.verdict() == verdict && why.contains(reason)
            });
        };
        let agents = [&lab.r1, &lab.r2].map(|router| router.main_pid("vyos-aws-vipa").expect("an agent"));
        let missing = format!("file {FILE}, profile default: No such file");
        shows(lab, &lab.r1, "DRIFT", &missing);
        shows(lab, &lab.r2, "STANDBY-NOT-READY", &missing);
        assert_eq!(lab.r2.logged(&["standby not ready", &missing]), 1);
        replace(&lab.r1, &[0xff, 0x00, 0xfe]);
        shows(lab, &lab.r1, "DRIFT", "it is not UTF-8");
        replace(&lab.r1, b"[default]\naws_access_key_id\n");
        lab.wait("no keys in it", NOTICED, |lab| lab.r1.logged(&["no credentials for EC2"]) == 3);
        assert!(lab.simulator.requests().is_empty(), "{}", lab.simulator);

        for (tries, (key, secret)) in [(1, ("AKIAVIPAEXAMPLE00009", SECRET)), (2, (KEYS[0], "another-secret"))] {
            replace_keys(&lab.r1, key, secret);
            lab.wait("a claim with the wrong keys", NOTICED, |lab| lab.claims(None).len() == tries);
            shows(lab, &lab.r1, "DRIFT", "AuthFailure");
        }
        for router in [&lab.r1, &lab.r2] {
            replace_keys(router, KEYS[0], SECRET);
        }
        lab.wait_for_owner(VIP, &lab.r1, NOTICED);
        lab.wait_for_verdict(&lab.r1, GROUP, VIP, "OK", SLACK);
        lab.wait_for_verdict(&lab.r2, GROUP, VIP, "STANDBY-READY", NOTICED);

        // From here on, only the timer copies the file.
        for router in [&lab.r1, &lab.r2] {
            put_keys(router, KEYS[1], SECRET);
        }
        let uses = |lab: &Lab, router: &Router, key: &str| {
            lab.reads(router).last().is_some_and(|r| r.access_key.as_deref() == Some(key))
        };
        lab.wait("the second keys are used", NOTICED, |lab| uses(lab, &lab.r1, KEYS[1]) && uses(lab, &lab.r2, KEYS[1]));
        lab.simulator.delete_access_key(KEYS[0]);
        let still = [&lab.r1, &lab.r2].map(|router| router.main_pid("vyos-aws-vipa").expect("an agent"));
        assert_eq!(still, agents, "the agents were not restarted");
        lab.r2.call(&["mv", FILE, "/run/lab/kept"]);
        shows(lab, &lab.r2, "STANDBY-NOT-READY", &missing);
        lab.r2.call(&["mv", "/run/lab/kept", FILE]);
        lab.wait_for_verdict(&lab.r2, GROUP, VIP, "STANDBY-READY", NOTICED);
        lab.r1.power_off();
        lab.wait_for_owner(VIP, &lab.r2, ELECTION + SLACK);
        let claims = lab.claims(None);
        assert_eq!(claims.len(), 4, "{claims:#?}");
        assert_eq!(claims[3].access_key.as_deref(), Some(KEYS[1]));
        for said in [lab.r1.agent_log(), lab.r2.agent_log(), lab.r2.call(&["vyos-aws-vipa", "show", "status"])] {
            assert!(!said.contains(SECRET) && !said.contains("another-secret") && !said.contains("panicked"), "{said}");
        }
    });
}

pub(crate) fn replace_keys(router: &Router, key: &str, secret: &str) {
    put_keys(router, key, secret);
    router.call(&["vyos-aws-vipa", "credentials"]);
}

pub(crate) fn put_keys(router: &Router, key: &str, secret: &str) {
    let text = format!("[default]\naws_access_key_id = {key}\naws_secret_access_key = {secret}\n");
    put(router, text.as_bytes());
}

/// Replaces the credentials file, and runs what the timer would run within half a minute.
fn replace(router: &Router, text: &[u8]) {
    put(router, text);
    router.call(&["vyos-aws-vipa", "credentials"]);
}

fn put(router: &Router, text: &[u8]) {
    fs::write(router.path("/run/lab/new"), text).expect("written");
    fs::rename(router.path("/run/lab/new"), router.path(FILE)).expect("renamed");
}
