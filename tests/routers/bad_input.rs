//! Invalid or missing input.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::process::{Output, Stdio};
use std::time::{Duration, Instant};

use lab::simulator::{Effect, Fault, On};
use lab::{GROUP, Lab, Router, Signal, VIP, said};

use crate::{BINARY, ELECTION, SLACK};

/// The bound of the whole of `show status`.
const STATUS: Duration = Duration::from_secs(4);

const RUN: &str = "/run/vyos-aws-vipa";

#[test]
fn rubbish_in_the_fifo() {
    lab::scenario(BINARY, |lab: &mut Lab| {
        lab.bring_up();
        let (r1, r2) = (&lab.r1, &lab.r2);
        let fifo = |router: &Router| -> File {
            OpenOptions::new().write(true).open(router.path(&format!("{RUN}/notify.fifo"))).expect("the FIFO")
        };
        let mut fifos = [fifo(r1), fifo(r2)];
        let unknown = format!(
            "INSTANCE \"{GROUP}\" SOMETHING_NEW 1\nINSTANCE \"nobody\" MASTER 200\nGROUP \"{GROUP}\" MASTER 1\n"
        );
        let forged =
            format!("INSTANCE \"{GROUP} MASTER 200\nINSTANCE \"{GROUP}\"MASTER 200\nINSTANCE {GROUP} MASTER 200\n");
        let binary: Vec<u8> = (0..=255).cycle().take(10_000).collect();
        for fifo in &mut fifos {
            for text in [b"garbage\n\n\0\0\n" as &[u8], unknown.as_bytes(), forged.as_bytes(), &binary, b"\n"] {
                fifo.write_all(text).expect("written");
            }
        }
        lab.watch("nothing happens", Duration::from_secs(2), |lab| lab.claims(None).len() == 1);
        assert_eq!((r1.shown(GROUP, VIP).vrrp(), r2.shown(GROUP, VIP).vrrp()), ("MASTER", "BACKUP"));

        // keepalived's next event ends this line.
        for fifo in &mut fifos {
            fifo.write_all(&vec![b'x'; 1 << 20]).expect("written");
        }
        lab.wait_for_verdict(r1, GROUP, VIP, "OK", SLACK);
        lab.wait_for_verdict(r2, GROUP, VIP, "STANDBY-READY", SLACK);
        assert_eq!(lab.claims(None).len(), 1, "{}", lab.simulator);
        r1.power_off();
        lab.wait_for_owner(VIP, r2, ELECTION + SLACK);
        lab.wait_for_verdict(r2, GROUP, VIP, "OK", SLACK);
        assert_eq!(lab.claims(Some(r2)).len(), 1, "{}", lab.simulator);
        assert_eq!(
            r2.logged(&["transition", "keepalived: MASTER"]),
            1,
            "the line itself, not what shows that it was lost"
        );
        for router in [r1, r2] {
            assert_eq!(router.logged(&["panicked"]), 0);
        }
    });
}

#[test]
fn files_of_another_format_or_rubbish() {
    lab::scenario(BINARY, |lab: &mut Lab| {
        lab.bring_up();
        let (config, groups) = (format!("{RUN}/config.json"), format!("{RUN}/groups.json"));
        let rubbish: [&[u8]; 4] =
            [b"{\"format\":99,\"groups\":\"of another kind\"}", b"{", b"\xff\xfe\0", b"{\"format\":1,\"unknown\":[]}"];
        for (n, (file, text)) in [&config, &groups].into_iter().flat_map(|f| rubbish.map(|t| (f, t))).enumerate() {
            replace(&lab.r2, file, text);
            lab.wait("it is said", SLACK, |lab| lab.r2.logged(&["cannot load file"]) == n + 1);
            let agent = lab.r2.status()["agent"].clone();
            let (error, is_newer) = (&agent["file_error"], file == &config && text == rubbish[0]);
            assert_eq!(agent["file_error_kind"], if is_newer { "newer" } else { "using-previous" });
            assert!(error.as_str().is_some_and(|error| error.contains(RUN)), "{error}");
        }
        assert!(lab.r2.call(&["vyos-aws-vipa", "show", "status"]).contains("RUNNING WITH AN OLD CONFIGURATION"));
        assert_eq!(lab.r2.shown(GROUP, VIP).verdict(), "STANDBY-READY");
        lab.r1.power_off();
        lab.wait_for_owner(VIP, &lab.r2, ELECTION + SLACK);
        lab.wait_for_verdict(&lab.r2, GROUP, VIP, "OK", SLACK);
        assert_eq!((lab.claims(Some(&lab.r2)).len(), lab.r2.logged(&["panicked"])), (1, 0));

        // The next commit corrects it.
        lab.r2.set([format!("set high-availability vrrp group {GROUP} priority 90").as_str()]);
        lab.r2.set(["set high-availability vrrp global-parameters aws-vipa verify-interval 60"]);
        lab.r2.commit();
        lab.wait("it uses the files again", SLACK, |lab| lab.r2.status()["agent"]["file_error"].is_null());
        assert_eq!(lab.r2.shown(GROUP, VIP).verdict(), "OK");

        // An agent that starts with a file of a newer version claims nothing, and logs why.
        lab.r2.kill(Signal::KILL, "vyos-aws-vipa");
        replace(&lab.r2, &config, rubbish[0]);
        let newer = ["cannot load file", "the configuration is newer than this agent"];
        let said = lab.r2.logged(&newer);
        lab.r2.start_agent();
        lab.wait("it is said", SLACK, |lab| lab.r2.logged(&newer) > said);
        assert_eq!(lab.r2.status()["agent"]["file_error_kind"], "newer");
        let text = lab.r2.call(&["vyos-aws-vipa", "show", "status"]);
        let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(
            text.contains("THE CONFIGURATION IS NEWER THAN THIS AGENT: /run/vyos-aws-vipa/config.json has format 99")
        );
        assert!(text.contains("`restart aws-vipa`") && !text.contains("OLD"), "{text}");
    });
}

/// Replaces a file that the agent reads.
fn replace(router: &Router, file: &str, text: &[u8]) {
    fs::write(router.path(&format!("{RUN}/new")), text).expect("written");
    fs::rename(router.path(&format!("{RUN}/new")), router.path(file)).expect("renamed");
}

#[test]
fn status_without_the_agent() {
    lab::scenario(BINARY, |lab: &mut Lab| {
        lab.bring_up();
        lab.r1.systemctl(&["stop", "vyos-aws-vipa.service"]);
        let before = lab.reads(&lab.r1).len();
        let text = status(lab, &[]);
        assert!(text.contains("NO ANSWER: the agent is not running") && text.contains("this router"), "{text}");
        assert_eq!(lab.reads(&lab.r1).len(), before + 1, "it asks EC2 itself");

        // Neither the request nor the one that is sent after it is answered.
        let hang = lab.simulator.add_fault(Fault::on(On::action("DescribeNetworkInterfaces")).hang());
        let text = status(lab, &["LAST CALL FAILED", "Timeout"]);
        lab.simulator.remove_fault(hang);
        assert!(!text.contains("this router"), "{text}");
        for (effect, word) in
            [(Effect::NotXml, "Answer"), (Effect::Truncated, "Answer"), (Effect::Huge(8 << 20), "AnswerTooLong")]
        {
            lab.simulator.add_fault(Fault::on(On::action("DescribeNetworkInterfaces")).effect(effect).times(1));
            status(lab, &["LAST CALL FAILED", word]);
        }
        lab.simulator.add_fault(Fault::on(On::action("DescribeNetworkInterfaces")).deny().times(1));
        status(lab, &["UnauthorizedOperation", "ec2:DescribeNetworkInterfaces"]);

        // Its address exists, accepts connections and never answers.
        lab.imds[0].stop();
        lab.imds[0].mute(true);
        lab.imds[0].start().expect("listening");
        status(lab, &["cannot read the instance id from IMDS", "EC2 not called"]);
        lab.imds[0].stop();
        status(lab, &["cannot read the instance id from IMDS", "EC2 not called"]);
        assert_eq!(lab.claims(None).len(), 1);
    });
}

#[test]
fn status_while_ec2_hangs() {
    lab::scenario(BINARY, |lab: &mut Lab| {
        lab.bring_up();
        lab.simulator.add_fault(Fault::on(On::ec2()).hang());
        let began = Instant::now();
        let text = lab.r1.call(&["vyos-aws-vipa", "show", "status"]);
        assert!(text.contains("this router") && began.elapsed() < SLACK, "{:?}: {text}", began.elapsed());
        // A call of EC2 may take 3 s, and the agent 1 s.
        let text = lab.r1.call(&["vyos-aws-vipa", "show", "status", "--fresh"]);
        assert!(began.elapsed() < Duration::from_secs(5) + SLACK, "{:?}: {text}", began.elapsed());
        assert!(text.contains("Timeout") || text.contains("EC2 did not answer the agent"), "{text}");
        assert_eq!((lab.r1.shown(GROUP, VIP).verdict(), lab.claims(None).len()), ("OK", 1));
    });
}

/// The output of `show status` on router 1, which must take a few seconds at most and contain these texts.
fn status(lab: &Lab, words: &[&str]) -> String {
    let began = Instant::now();
    let output = lab.r1.command("vyos-aws-vipa").args(["show", "status"]).output().expect("run");
    let (took, text) = (began.elapsed(), said(&output));
    assert!(output.status.success() && !text.contains("panicked"), "{text}");
    assert!(took < STATUS + SLACK, "{took:?}: {text}");
    let plain = text.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(words.iter().all(|word| plain.contains(word)), "{words:?}: {text}");
    plain
}

#[test]
fn commit_of_rubbish() {
    lab::scenario(BINARY, |lab: &mut Lab| {
        lab.bring_up();
        let before = lab.r1.read(&format!("{RUN}/config.json"));
        let good = lab.r1.handed_over(false).to_string();
        for (text, reason) in [
            ("", "EOF"),
            ("{", "EOF"),
            (&good[..good.len() / 2], "EOF"),
            ("[]", "invalid length"),
            ("\u{0}\u{1}", "expected value"),
            (&good.replacen("\"format\":1", "\"format\":99", 1), "99"),
            (&good.replacen("\"boot\":false", "\"boot\":\"perhaps\"", 1), "expected a boolean"),
        ] {
            let output = commit(&lab.r1, text.as_bytes());
            let told = String::from_utf8_lossy(&output.stderr);
            assert!(!output.status.success() && told.contains(reason), "{text}: {}", said(&output));
            assert!(!told.contains("panicked") && told.lines().count() < 5, "{told}");
            assert_eq!(lab.r1.read(&format!("{RUN}/config.json")), before);
        }
        let output = commit(&lab.r1, b"\xff\xfe");
        assert!(!output.status.success(), "{}", said(&output));
        assert_eq!(lab.r1.read(&format!("{RUN}/config.json")), before);
        assert_eq!((lab.r1.shown(GROUP, VIP).verdict(), lab.claims(None).len()), ("OK", 1));
    });
}

/// Runs `commit` with this on its standard input.
fn commit(router: &Router, input: &[u8]) -> Output {
    fs::write(router.path("/run/lab/input"), input).expect("written");
    let file = File::open(router.path("/run/lab/input")).expect("just written");
    router.command("vyos-aws-vipa").arg("commit").stdin(Stdio::from(file)).output().expect("run")
}
