//! The agent's calls of EC2 and IMDS: with the real SDK over real sockets.

mod across_zones;
mod hedged;
mod scripted;
mod simulated;

use std::net::Ipv4Addr;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};
use scripted::{Answer, Request, Scripted, assigned, dated, no_interface, ok, refused, serve};
use vipa_core::model::config::Global;
use vipa_core::model::credentials::CredentialsChange;
use vipa_core::model::ec2::{Acknowledgement, ErrorClass};
use vipa_core::model::ids::EniId;
use vyos_aws_vipa::aws::{Ec2, Imds};

/// A time limit that no answered call reaches.
const AMPLE: Duration = Duration::from_secs(10);
/// The time that a busy machine may add to a limit.
const SLACK: Duration = Duration::from_secs(2);
const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 100);

fn eni() -> EniId {
    "eni-0123456789abcdef0".try_into().expect("an ENI")
}

/// The URL of a port on which nothing listens.
fn nowhere() -> String {
    let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    format!("http://{}", listener.local_addr().expect("its address"))
}

fn keys(id: &str) -> String {
    format!("[default]\naws_access_key_id = {id}\naws_secret_access_key = {id}-secret\n")
}

/// A router whose credentials are in a file.
struct Router {
    ec2: Ec2,
    dir: tempfile::TempDir,
}

impl Router {
    fn new(endpoint: &str) -> Self {
        Self::with(Global { endpoint_url: Some(endpoint.to_owned()), ..Global::default() })
    }

    fn with(mut global: Global) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("credentials");
        std::fs::write(&file, keys("AKIAONE")).expect("written");
        global.credentials_file = Some(file);
        let ec2 = Ec2::new(&global, "eu-central-1".try_into().expect("a region"), &Imds::at(&nowhere()));
        Self { ec2, dir }
    }

    fn file(&self) -> std::path::PathBuf {
        self.dir.path().join("credentials")
    }

    /// Replaces the credentials file by a new file.
    fn rotate(&self, text: &str) {
        rotate(&self.file(), text);
    }
}

fn rotate(file: &Path, text: &str) {
    let new = file.with_extension("new");
    std::fs::write(&new, text).expect("written");
    std::fs::rename(new, file).expect("renamed");
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + AMPLE;
    while !holds() {
        assert!(Instant::now() < deadline, "not within {AMPLE:?}: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Checks the files for changes as the agent does, until the test ends.
fn watch_files(ec2: &Ec2) {
    let mut watch = ec2.credentials_watch();
    tokio::spawn(async move {
        loop {
            watch.changed().await;
        }
    });
}

#[tokio::test]
async fn a_claim_is_one_signed_request() {
    let server = serve(assigned);
    let router = Router::new(&server.url);
    let addresses = [ADDRESS, Ipv4Addr::new(10, 0, 0, 101)];
    let acknowledged = router.ec2.claim(&eni(), &addresses, AMPLE).await.expect("claimed");
    assert_eq!(acknowledged.request_id.map(String::from).as_deref(), Some("0f0e-1d"));
    assert_eq!(acknowledged.unlisted, [].into());
    let [request] = &server.log()[..] else { panic!("{:?}", server.log()) };
    assert_eq!(request.parameter("Action"), Some("AssignPrivateIpAddresses"));
    assert_eq!(request.parameter("NetworkInterfaceId"), Some(eni().as_str()));
    assert_eq!(request.parameter("AllowReassignment"), Some("true"));
    assert_eq!(request.parameter("PrivateIpAddress.2"), Some("10.0.0.101"));
    assert_eq!(request.key(), "AKIAONE");
    assert!(request.headers["authorization"].contains("/eu-central-1/ec2/aws4_request"), "{request:?}");
    assert_eq!(router.ec2.endpoint(), server.url);
}

#[tokio::test]
async fn without_addresses_nothing_is_sent() {
    let server = serve(assigned);
    let router = Router::new(&server.url);
    assert_eq!(router.ec2.claim(&eni(), &[], AMPLE).await.expect("nothing to claim"), Acknowledgement::default());
    assert!(router.ec2.owners(None, &[], AMPLE).await.expect("nothing to ask").is_empty());
    assert_eq!(server.log().len(), 0);
}

/// The list of the answer may be missing, or have only newly assigned addresses.
#[tokio::test]
async fn addresses_missing_from_the_answer_are_acknowledged_but_not_proven() {
    let all = [ADDRESS, Ipv4Addr::new(10, 0, 0, 101), Ipv4Addr::new(10, 0, 0, 102)];
    let server = serve(|request| {
        // As if the second and the third address had not been requested.
        assigned(&Request { body: request.body.replace("PrivateIpAddress.2=", "Other="), ..request.clone() })
    });
    let router = Router::new(&server.url);
    let acknowledged = router.ec2.claim(&eni(), &all, AMPLE).await.expect("acknowledged");
    assert_eq!(acknowledged.unlisted, all[1..].iter().copied().collect());
    assert_eq!(acknowledged.request_id.map(String::from).as_deref(), Some("0f0e-1d"));
    assert_eq!(server.log().len(), 1, "more than one attempt");

    for list in ["", "<assignedPrivateIpAddressesSet/>"] {
        let server = serve(move |_| {
            let end = "<return>true</return></AssignPrivateIpAddressesResponse>";
            scripted::ok(format!("<AssignPrivateIpAddressesResponse>{list}{end}"))
        });
        let router = Router::new(&server.url);
        let acknowledged = router.ec2.claim(&eni(), &all, AMPLE).await.expect("acknowledged");
        assert_eq!(acknowledged.unlisted, all.into(), "{list}");
    }
}

#[tokio::test]
async fn every_refusal_has_its_class_and_remedy_and_is_sent_once() {
    let blob = "x".repeat(1200);
    let cases = [
        ("RequestLimitExceeded", 503, ErrorClass::Throttled, "slow"),
        ("InternalError", 500, ErrorClass::Transient, "slow"),
        ("Unavailable", 503, ErrorClass::Transient, "slow"),
        ("InvalidParameterValue", 400, ErrorClass::BadResource, "slow"),
        ("PrivateIpAddressLimitExceeded", 400, ErrorClass::BadResource, "slow"),
        ("InvalidNetworkInterfaceID.NotFound", 400, ErrorClass::NoSuchInterface, "slow"),
        ("InvalidClientTokenId", 403, ErrorClass::Denied, "read again, no new credentials"),
        ("ExpiredToken", 400, ErrorClass::Denied, "read again, no new credentials"),
        ("AuthFailure", 401, ErrorClass::Denied, "read again, no new credentials"),
        ("UnauthorizedOperation", 403, ErrorClass::Denied, "allow ec2:AssignPrivateIpAddresses to file /"),
    ];
    let server = serve(move |request| {
        let n: usize =
            request.parameter("PrivateIpAddress.1").and_then(|a| a.rsplit('.').next()?.parse().ok()).expect("n");
        let (code, status, ..) = cases[n];
        refused(status, code, &format!("slow\n\tdown {blob}"))
    });
    let router = Router::new(&server.url);
    for (n, (code, _, class, hint)) in cases.into_iter().enumerate() {
        let address = Ipv4Addr::new(10, 0, 0, n as u8);
        let error = router.ec2.claim(&eni(), &[address], AMPLE).await.expect_err(code);
        assert_eq!((error.class(), error.code()), (class, code), "{error:?}");
        assert!(error.message.starts_with("slow down") && error.message.contains(hint), "{error:?}");
        assert!(error.message.len() < 600 && !error.message.contains(char::is_control), "{error:?}");
        assert_eq!(error.request_id.map(String::from).as_deref(), Some("0f0e-2d"), "{code}");
        assert_eq!(server.log().len(), n + 1, "more than one attempt: {code}");
    }
}

#[tokio::test]
async fn a_denial_names_the_policy_that_caused_it() {
    // As long as EC2's own message, which names the policy after its first 300 characters.
    let who = format!("arn:aws:sts::123456789012:assumed-role/{}/i-0123456789abcdef0", "r".repeat(64));
    let what = "ec2:AssignPrivateIpAddresses on resource: \
                arn:aws:ec2:eu-central-1:123456789012:network-interface/eni-0123456789abcdef0";
    for (reason, remedy) in [
        (
            "because no VPC endpoint policy allows the",
            "allow ec2:AssignPrivateIpAddresses in the policy of the VPC endpoint",
        ),
        (
            "with an explicit deny in a service control policy for the",
            "change the service control policy of the AWS org",
        ),
        ("because no permissions boundary allows the", "in the permissions boundary of file /"),
        (
            "with an explicit deny in an identity-based policy for the",
            "remove the Deny of ec2:AssignPrivateIpAddresses",
        ),
        ("because no identity-based policy allows the", "allow ec2:AssignPrivateIpAddresses to file /"),
    ] {
        let message = format!(
            "You are not authorized to perform this operation. User: {who} is not authorized to perform: {what} {reason} \
             ec2:AssignPrivateIpAddresses action. Encoded authorization failure message: {}",
            "x".repeat(900)
        );
        let server = serve(move |_| refused(403, "UnauthorizedOperation", &message));
        let error = Router::new(&server.url).ec2.claim(&eni(), &[ADDRESS], AMPLE).await.expect_err(reason);
        assert_eq!((error.class(), error.code()), (ErrorClass::Denied, "UnauthorizedOperation"), "{error}");
        assert!(error.message.contains(remedy), "{reason}: {error}");
    }
}

#[tokio::test]
async fn an_invalid_answer_is_an_error() {
    for (status, body) in [
        (200, ""),
        (200, "<html>It works!</html>"),
        (200, "\u{0}\u{1}"),
        (200, "<AssignPrivateIpAddressesResponse><assignedPrivateIpAddressesSet><item>"),
        (
            200,
            "<AssignPrivateIpAddressesResponse><assignedPrivateIpAddressesSet><item><privateIpAddress>x</privateIpAddress></item></assignedPrivateIpAddressesSet></AssignPrivateIpAddressesResponse>",
        ),
        (200, "<DescribeNetworkInterfacesResponse></DescribeNetworkInterfacesResponse>"),
        (
            200,
            "<AssignPrivateIpAddressesResponse><assignedPrivateIpAddressesSet><item><privateIpAddress>10.0.0.100</privateIpAddress></item>",
        ),
        (302, ""),
        (403, "<html>Forbidden</html>"),
        (502, "<html>Bad Gateway</html>"),
        (500, "<Response><Errors><Error><Code>a b</Code></Error></Errors></Response>"),
    ] {
        let server = serve(move |_| Answer::Text(status, String::new(), body.to_owned()));
        let router = Router::new(&server.url);
        let error = router.ec2.claim(&eni(), &[ADDRESS], AMPLE).await.expect_err(body);
        assert_eq!((error.class(), error.code()), (ErrorClass::Transient, "Answer"), "{status} {body:?}: {error}");
        assert!(!error.message.is_empty() && !error.message.contains(char::is_control), "{error:?}");
        assert_eq!(server.log().len(), 1);
    }
}

#[tokio::test]
async fn an_endless_answer_is_cut_off() {
    let server = serve(|_| Answer::Endless);
    let router = Router::new(&server.url);
    let error = router.ec2.claim(&eni(), &[ADDRESS], AMPLE).await.expect_err("too long");
    assert_eq!((error.class(), error.code()), (ErrorClass::Transient, "AnswerTooLong"), "{error}");
    assert!(error.message.ends_with("cannot be read: it is longer than 2048 KiB"), "{error}");
}

#[tokio::test]
async fn endless_pages_are_cut_off() {
    let server = serve(|_| {
        ok(
            "<DescribeNetworkInterfacesResponse><networkInterfaceSet/><nextToken>more</nextToken></DescribeNetworkInterfacesResponse>",
        )
    });
    let router = Router::new(&server.url);
    let error = router.ec2.owners(None, &[ADDRESS], AMPLE).await.expect_err("no end");
    assert_eq!((error.class(), error.code()), (ErrorClass::Transient, "Answer"), "{error}");
    assert!(error.message.contains("the token for the next page repeats"), "{error}");
    assert_eq!(server.log().len(), 2);

    let server = serve(|_| {
        let token = "t".repeat(9000);
        ok(format!(
            "<DescribeNetworkInterfacesResponse><networkInterfaceSet/><nextToken>{token}</nextToken></DescribeNetworkInterfacesResponse>"
        ))
    });
    let error = Router::new(&server.url).ec2.owners(None, &[ADDRESS], AMPLE).await.expect_err("a long token");
    assert!(error.message.contains("the token for the next page is longer than 8192 bytes"), "{error}");
    assert_eq!(server.log().len(), 1);
}

/// A column of /proc/net/tcp has the state of TCP's keepalive: `02` and a time mean that its timer is running.
#[tokio::test]
async fn an_idle_connection_is_kept_alive() {
    let server = serve(assigned);
    let router = Router::new(&server.url);
    router.ec2.claim(&eni(), &[ADDRESS], AMPLE).await.expect("claimed");
    let port: u16 = server.url.rsplit(':').next().and_then(|port| port.parse().ok()).expect("a port");
    let far_end = format!("0100007F:{port:04X}");
    let timer = || {
        let table = std::fs::read_to_string("/proc/self/net/tcp").expect("the connections");
        let ours = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
        ours.filter(|columns| columns.get(2) == Some(&far_end.as_str())).map(|columns| columns[5].to_owned()).next()
    };
    until("the timer of keepalive runs", || timer().is_some_and(|timer| timer.starts_with("02:"))).await;
    let (_, when) =
        timer().and_then(|timer| timer.split_once(':').map(|(a, b)| (a.to_owned(), b.to_owned()))).expect("it runs");
    let hundredths = u64::from_str_radix(&when, 16).expect("a time");
    assert!(Duration::from_millis(10 * hundredths) <= Duration::from_secs(60), "{when}");
}

#[tokio::test]
async fn an_unreadable_owner_is_an_error_and_not_unassigned() {
    let server = serve(|_| {
        ok(
            "<DescribeNetworkInterfacesResponse><networkInterfaceSet><item><networkInterfaceId>eni-x</networkInterfaceId></item></networkInterfaceSet></DescribeNetworkInterfacesResponse>",
        )
    });
    let router = Router::new(&server.url);
    let error = router.ec2.owners(None, &[ADDRESS], AMPLE).await.expect_err("no ENI");
    assert_eq!((error.class(), error.code()), (ErrorClass::Transient, "Answer"), "{error}");
}

#[tokio::test]
async fn a_request_on_a_dropped_connection_is_not_repeated() {
    let server = serve(|_| Answer::Close);
    let router = Router::new(&server.url);
    let error = router.ec2.claim(&eni(), &[ADDRESS], AMPLE).await.expect_err("dropped");
    assert_eq!((error.class(), error.code()), (ErrorClass::Transient, "Connection"), "{error}");
    assert_eq!(server.log().len(), 1);
}

#[tokio::test]
async fn a_failed_connection_is_reported_with_its_reason() {
    let router = Router::new(&nowhere());
    let error = router.ec2.claim(&eni(), &[ADDRESS], AMPLE).await.expect_err("refused");
    assert_eq!((error.class(), error.code()), (ErrorClass::Transient, "Connection"), "{error}");
    assert!(error.message.contains("Connection refused"), "{error}");

    let router = Router::new("https://ec2.nowhere.invalid");
    let error = router.ec2.claim(&eni(), &[ADDRESS], AMPLE).await.expect_err("no such name");
    assert_eq!((error.class(), error.code()), (ErrorClass::Transient, "Connection"), "{error}");
    assert!(error.message.contains("failed to lookup address information"), "{error}");
}

#[tokio::test]
async fn unusable_settings_are_an_error() {
    for url in
        ["", "ec2", "ftp://ec2", "http://", "http:// a", "https://[::", "http://a:99999", "http://\u{0}", "file:///etc"]
    {
        let router = Router::new(url);
        let error = router.ec2.claim(&eni(), &[ADDRESS], AMPLE).await.expect_err(url);
        assert!((error.class(), error.code()) == (ErrorClass::Denied, "Settings"), "{url:?}: {error}");
    }
}

#[tokio::test]
async fn a_hanging_call_times_out_and_the_next_attempt_uses_a_new_connection() {
    let dead = Arc::new(AtomicBool::new(false));
    let server = serve({
        let dead = dead.clone();
        move |request| match request.connection {
            1 | 2 if dead.load(Ordering::SeqCst) => Answer::Hang,
            // Slow enough for two requests at once to need two connections.
            1 | 2 => {
                std::thread::sleep(Duration::from_millis(100));
                no_interface()
            }
            _ => assigned(request),
        }
    });
    let router = Router::new(&server.url);
    let (one, two) =
        tokio::join!(router.ec2.owners(None, &[ADDRESS], AMPLE), router.ec2.owners(None, &[ADDRESS], AMPLE));
    one.and(two).expect("answers over two connections");
    dead.store(true, Ordering::SeqCst);

    let bound = Duration::from_millis(300);
    let began = Instant::now();
    let error = router.ec2.claim(&eni(), &[ADDRESS], bound).await.expect_err("no answer");
    let took = began.elapsed();
    assert_eq!((error.class(), error.code()), (ErrorClass::TimedOut, "Timeout"), "{error}");
    assert!((bound..bound + SLACK).contains(&took), "{took:?}");

    router.ec2.claim(&eni(), &[ADDRESS], AMPLE).await.expect("claimed over a new connection");
    let connections: Vec<_> = server.log().iter().map(|r| r.connection).collect();
    assert_eq!((connections.len(), connections[3]), (4, 3), "{connections:?}");
}

#[tokio::test]
async fn a_claim_does_not_wait_for_a_read() {
    let server = serve(|request| match request.parameter("Action") {
        Some("AssignPrivateIpAddresses") => assigned(request),
        _ => Answer::Hang,
    });
    let router = Router::new(&server.url);
    let reader = tokio::spawn({
        let ec2 = router.ec2.clone();
        async move { ec2.owners(None, &[ADDRESS], AMPLE).await }
    });
    until("the read is under way", || server.log().len() == 1).await;
    let began = Instant::now();
    router.ec2.claim(&eni(), &[ADDRESS], AMPLE).await.expect("claimed");
    assert!(began.elapsed() < SLACK, "{:?}", began.elapsed());
    assert!(!reader.is_finished(), "the read has ended");
    reader.abort();
}

#[tokio::test]
async fn a_connection_is_reused() {
    let server = serve(assigned);
    let router = Router::new(&server.url);
    for _ in 0..5 {
        router.ec2.claim(&eni(), &[ADDRESS], AMPLE).await.expect("claimed");
    }
    assert!(server.log().iter().all(|r| r.connection == 1), "{:?}", server.log());
}

#[tokio::test]
async fn after_a_refusal_caused_by_the_clock_ec2s_time_is_used() {
    // EC2's clock is 10 minutes ahead, and EC2 refuses signatures that are more than a minute off.
    let ec2s_time = || Timestamp::now() + SignedDuration::from_mins(10);
    let server = serve(move |request| {
        let off = request.signed_at().duration_until(ec2s_time()).unsigned_abs();
        let answer = if off > Duration::from_secs(60) {
            refused(400, "RequestExpired", "Request has expired.")
        } else {
            assigned(request)
        };
        dated(answer, ec2s_time())
    });
    let router = Router::new(&server.url);
    assert_eq!(router.ec2.clock_skew(), None);
    let error = router.ec2.claim(&eni(), &[ADDRESS], AMPLE).await.expect_err("expired");
    assert_eq!((error.class(), error.code()), (ErrorClass::Clock, "RequestExpired"), "{error}");
    assert!(error.message.contains("behind EC2's"), "{error}");
    let skew = router.ec2.clock_skew().expect("measured");
    assert!((SignedDuration::from_secs(597)..=SignedDuration::from_secs(601)).contains(&skew), "{skew:?}");
    router.ec2.claim(&eni(), &[ADDRESS], AMPLE).await.expect("signed with EC2's time");
    // Both requests were sent once.
    assert_eq!(server.log().len(), 2);
}

#[tokio::test]
async fn a_refusal_not_caused_by_the_clock_is_about_the_credentials() {
    // The Date of the answers is wrong, perhaps by a proxy, but the signatures are accepted.
    let date = || Timestamp::now() - SignedDuration::from_mins(10);
    let refuse = Arc::new(AtomicBool::new(false));
    let server = serve({
        let refuse = refuse.clone();
        move |request| {
            let off = request.signed_at().duration_until(Timestamp::now()).unsigned_abs();
            if off > Duration::from_secs(60) || refuse.load(Ordering::SeqCst) {
                return refused(401, "AuthFailure", "AWS was not able to validate the provided access credentials");
            }
            dated(assigned(request), date())
        }
    });
    let router = Router::new(&server.url);
    for _ in 0..3 {
        router.ec2.claim(&eni(), &[ADDRESS], AMPLE).await.expect("a wrong Date breaks nothing");
    }
    assert!(router.ec2.clock_skew().expect("measured") < SignedDuration::from_mins(-9));

    let server = serve(|_| dated(refused(401, "AuthFailure", "no"), Timestamp::now()));
    let router = Router::new(&server.url);
    let error = router.ec2.claim(&eni(), &[ADDRESS], AMPLE).await.expect_err("refused");
    assert_eq!((error.class(), error.code()), (ErrorClass::Denied, "AuthFailure"), "{error}");
}

#[tokio::test]
async fn a_missing_file_is_reported_and_read_when_it_appears() {
    let server = serve(assigned);
    let router = Router::new(&server.url);
    let mut watch = router.ec2.credentials_watch();
    std::fs::remove_file(router.file()).expect("removed");
    let error = router.ec2.claim(&eni(), &[ADDRESS], AMPLE).await.expect_err("no file");
    assert_eq!((error.class(), error.code()), (ErrorClass::Denied, "Credentials.File"), "{error}");
    let source = format!("file {}, profile default", router.file().display());
    assert!(error.message.starts_with(&format!("{source}: No such file")), "{error}");
    assert_eq!(server.log().len(), 0);
    let facts = router.ec2.credentials();
    assert_eq!((facts.source, facts.loaded_at, facts.error), (source, None, Some(error)));

    router.rotate(&keys("AKIATWO"));
    // Other events in the agent's loop cancel the wait.
    let deadline = Instant::now() + AMPLE;
    while tokio::time::timeout(Duration::from_secs(1), watch.changed()).await.is_err() {
        assert!(Instant::now() < deadline, "not reported without any call within {AMPLE:?}");
    }
    router.ec2.claim(&eni(), &[ADDRESS], AMPLE).await.expect("claimed");
    assert_eq!(server.log()[0].key(), "AKIATWO");
    let facts = router.ec2.credentials();
    assert!(facts.error.is_none() && facts.expires_at.is_none(), "{facts:?}");
    let age = Timestamp::now().duration_since(facts.loaded_at.expect("loaded"));
    assert!(age < SignedDuration::from_secs(30), "{age:?}");
}

#[tokio::test]
async fn files_without_usable_keys_are_rejected_and_never_quoted() {
    let server = serve(assigned);
    let router = Router::new(&server.url);
    for (text, reason) in [
        ("", "there is no such profile in it"),
        ("s3cret", "could not parse profile file"),
        ("[default]\naws_secret_access_key s3cret\n", "could not parse profile file"),
        ("[default]\naws_secret_access_key = s3cret\n", "aws_access_key_id"),
        ("[other]\naws_access_key_id = A\naws_secret_access_key = s3cret\n", "there is no such profile in it"),
        ("[default]\ncredential_process = /bin/echo s3cret\n", "credentials-process"),
        ("[default]\nsource_profile = absent\nrole_arn = arn:aws:iam::123456789012:role/a\n", "absent"),
        ("[default]\nsource_profile = default\nrole_arn = s3cret\n", "role_arn of profile \"default\" is not an ARN"),
    ] {
        router.rotate(text);
        let error = router.ec2.claim(&eni(), &[ADDRESS], AMPLE).await.expect_err(text);
        assert_eq!(error.code(), "Credentials.Profile", "{text:?}: {error}");
        assert!(error.message.contains(reason) && !error.message.contains("s3cret"), "{text:?}: {error}");
        assert_eq!(error.class(), ErrorClass::Denied, "{text:?}: {error}");
    }
    assert_eq!(server.log().len(), 0);
}

#[tokio::test]
async fn rotated_keys_are_used_after_one_refusal() {
    let server = serve(|request| match request.key() {
        "AKIATWO" => assigned(request),
        _ => refused(401, "AuthFailure", "no"),
    });
    let router = Router::new(&server.url);
    let error = router.ec2.claim(&eni(), &[ADDRESS], AMPLE).await.expect_err("old keys");
    assert_eq!(error.class(), ErrorClass::Denied, "{error}");
    router.rotate(&keys("AKIATWO"));
    let error = router.ec2.claim(&eni(), &[ADDRESS], AMPLE).await.expect_err("the old keys once more");
    assert_eq!(error.class(), ErrorClass::Transient, "{error}");
    router.ec2.claim(&eni(), &[ADDRESS], AMPLE).await.expect("new keys");
}

#[tokio::test]
async fn rotated_keys_are_used_without_a_refusal_once_the_change_is_noticed() {
    let server = serve(assigned);
    let router = Router::new(&server.url);
    router.ec2.claim(&eni(), &[ADDRESS], AMPLE).await.expect("claimed");
    watch_files(&router.ec2);
    router.rotate(&keys("AKIATWO"));
    until("the new keys", || router.ec2.credentials().access_key_id.as_deref() == Some("AKIATWO")).await;
    router.ec2.claim(&eni(), &[ADDRESS], AMPLE).await.expect("claimed");
    assert_eq!(server.log()[1].key(), "AKIATWO");
}

#[tokio::test]
async fn another_key_is_other_credentials_and_another_secret_of_the_same_key_is_not() {
    let server = serve(assigned);
    let router = Router::new(&server.url);
    let mut watch = router.ec2.credentials_watch();
    let mut change = async || tokio::time::timeout(AMPLE, watch.changed()).await.expect("it is noticed");
    router.ec2.claim(&eni(), &[ADDRESS], AMPLE).await.expect("claimed");
    assert_eq!(change().await, CredentialsChange::Others, "the first");
    router.rotate(&keys("AKIATWO"));
    assert_eq!(change().await, CredentialsChange::Others);
    router.rotate(&keys("AKIATWO").replace("-secret", "-correct-secret"));
    assert_eq!(change().await, CredentialsChange::NewKeys);
}

#[tokio::test]
async fn a_refusal_is_transient_if_the_keys_have_changed_since_the_request() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("credentials");
    std::fs::write(&file, keys("AKIAONE")).expect("written");
    let server = serve({
        let file = file.clone();
        move |request| match request.key() {
            "AKIATWO" => assigned(request),
            _ => {
                rotate(&file, &keys("AKIATWO"));
                refused(403, "InvalidClientTokenId", "no")
            }
        }
    });
    let global = Global { endpoint_url: Some(server.url.clone()), credentials_file: Some(file), ..Global::default() };
    let ec2 = Ec2::new(&global, "eu-central-1".try_into().expect("a region"), &Imds::at(&nowhere()));
    let error = ec2.claim(&eni(), &[ADDRESS], AMPLE).await.expect_err("old keys");
    assert_eq!((error.class(), error.code()), (ErrorClass::Transient, "InvalidClientTokenId"), "{error}");
    assert!(error.message.ends_with("read again, new credentials found"), "{error}");
    ec2.claim(&eni(), &[ADDRESS], AMPLE).await.expect("new keys");
}

#[tokio::test]
async fn the_agent_reads_the_copy_of_the_credentials_file_only() {
    let server = serve(assigned);
    let directory = tempfile::tempdir().expect("a directory");
    let (file, copy) = (directory.path().join("file"), directory.path().join("credentials.json"));
    std::fs::write(&file, keys("AKIAFILE")).expect("written");
    let put = |of: &Path, content: serde_json::Value| {
        let text = serde_json::json!({ "format": 1, "file": of, "content": content }).to_string();
        rotate(&copy, &text);
    };
    let endpoint_url = Some(server.url.clone());
    let global = Global { endpoint_url, credentials_file: Some(file.clone()), ..Global::default() };
    let region = "eu-central-1".try_into().expect("a region");
    let ec2 = Ec2::with_credentials_copy(&global, region, &Imds::at(&nowhere()), Some(&copy));
    let refused = async |expected: &str, code: &str, class: ErrorClass| {
        let error = ec2.claim(&eni(), &[ADDRESS], AMPLE).await.expect_err("no credentials");
        let source = format!("file {}, profile default: ", file.display());
        assert_eq!((error.code(), error.class()), (code, class), "{error}");
        assert!(error.message.starts_with(&source) && error.message.contains(expected), "{error}");
        assert!(!format!("{error:?}").contains("s3cret"), "{error:?}");
    };
    refused("has not been copied to", "Credentials.NotCopied", ErrorClass::Transient).await;
    put(&file, serde_json::json!({ "text": keys("AKIACOPY") }));
    ec2.claim(&eni(), &[ADDRESS], AMPLE).await.expect("claimed");
    watch_files(&ec2);
    let gone = async || until("the keys are dropped", || ec2.credentials().access_key_id.is_none()).await;
    let back = async |key: &'static str| {
        put(&file, serde_json::json!({ "text": keys(key) }));
        until("the keys are back", || ec2.credentials().access_key_id.as_deref() == Some(key)).await;
        ec2.claim(&eni(), &[ADDRESS], AMPLE).await.expect("claimed");
    };
    // Each of these ends the use of the previous keys.
    put(&file, serde_json::json!({ "unreadable": { "other": "No such file or directory (os error 2)" } }));
    gone().await;
    refused("No such file or directory (os error 2)", "Credentials.File", ErrorClass::Denied).await;
    back("AKIABACK").await;
    put(&directory.path().join("other"), serde_json::json!({ "text": keys("AKIAOTHER") }));
    gone().await;
    refused("has not been copied to", "Credentials.NotCopied", ErrorClass::Transient).await;
    back("AKIAAGAIN").await;
    rotate(&copy, &format!(r#"{{"format":1,"file":"s3cret","content":"{}"}}"#, "s3cret"));
    gone().await;
    refused("credentials.json cannot be read", "Credentials.Copy", ErrorClass::Denied).await;
    back("AKIALAST").await;
    // Without a copy, nothing is known of the file, and the keys stay in use.
    std::fs::remove_file(&copy).expect("removed");
    until("it is noticed", || ec2.credentials().error.is_some()).await;
    ec2.claim(&eni(), &[ADDRESS], AMPLE).await.expect("claimed");
    put(&file, serde_json::json!({ "unreadable": { "other": "No such file or directory (os error 2)" } }));
    gone().await;
    let log = server.log();
    let used: Vec<&str> = log.iter().map(|request| request.key()).collect();
    assert_eq!(used, ["AKIACOPY", "AKIABACK", "AKIAAGAIN", "AKIALAST", "AKIALAST"]);
    let source = ec2.credentials().source;
    assert!(
        source.ends_with("/file, profile default"),
        "the message names the operator's file, not the copy: {source}"
    );
}

#[tokio::test]
async fn a_configured_profile_is_used() {
    let server = serve(assigned);
    let router = Router::with(Global {
        endpoint_url: Some(server.url.clone()),
        profile: Some("vipa".to_owned()),
        ..Global::default()
    });
    router.rotate(&format!("{}{}", keys("AKIAONE"), keys("AKIATWO").replace("default", "vipa")));
    router.ec2.claim(&eni(), &[ADDRESS], AMPLE).await.expect("claimed");
    assert_eq!(server.log()[0].key(), "AKIATWO");
}

/// An IMDS with a role whose credentials are valid for `seconds`. Each answer has the next access key id.
fn imds_with_role(seconds: i64, up: Arc<AtomicBool>) -> Scripted {
    slow_imds_with_role(Duration::ZERO, seconds, up)
}

/// The same, with answers that take `delay`.
fn slow_imds_with_role(delay: Duration, seconds: i64, up: Arc<AtomicBool>) -> Scripted {
    let given = AtomicUsize::new(0);
    serve(move |request| {
        std::thread::sleep(delay);
        if !up.load(Ordering::SeqCst) {
            return Answer::Close;
        }
        let path = request.line.split(' ').nth(1).expect("a path").to_owned();
        match path.as_str() {
            "/latest/api/token" => {
                Answer::Text(200, "x-aws-ec2-metadata-token-ttl-seconds: 21600\r\n".to_owned(), "t".to_owned())
            }
            _ if request.headers.get("x-aws-ec2-metadata-token").is_none_or(|t| t != "t") => {
                Answer::Text(401, String::new(), String::new())
            }
            "/latest/meta-data/iam/security-credentials/" => ok("vipa\n"),
            "/latest/meta-data/iam/security-credentials/vipa" => {
                let n = given.fetch_add(1, Ordering::SeqCst);
                let until = Timestamp::now() + SignedDuration::from_secs(seconds);
                ok(format!(
                    r#"{{"Code":"Success","AccessKeyId":"ASIA{n}","SecretAccessKey":"s3cret","Token":"t0ken","Expiration":"{until:.0}"}}"#
                ))
            }
            _ => Answer::Text(404, String::new(), String::new()),
        }
    })
}

fn with_role(ec2: &Scripted, imds: &str) -> Ec2 {
    let global = Global { endpoint_url: Some(ec2.url.clone()), ..Global::default() };
    Ec2::new(&global, "eu-central-1".try_into().expect("a region"), &Imds::at(imds))
}

#[tokio::test]
async fn credentials_of_a_role_are_cached_and_used_while_imds_is_down() {
    let up = Arc::new(AtomicBool::new(true));
    let (server, imds) = (serve(assigned), imds_with_role(6 * 3600, up.clone()));
    let ec2 = with_role(&server, &imds.url);
    for _ in 0..3 {
        ec2.claim(&eni(), &[ADDRESS], AMPLE).await.expect("claimed");
    }
    up.store(false, Ordering::SeqCst);
    ec2.claim(&eni(), &[ADDRESS], AMPLE).await.expect("claimed without IMDS");
    assert!(server.log().iter().all(|r| r.key() == "ASIA0" && r.headers["x-amz-security-token"] == "t0ken"));
    let facts = ec2.credentials();
    assert_eq!((facts.source.as_str(), facts.error), ("instance role vipa", None));
    let left = facts.expires_at.expect("an end").duration_since(Timestamp::now());
    assert!(left > SignedDuration::from_hours(5), "{left:?}");
}

#[tokio::test]
async fn credentials_that_load_longer_than_a_call_are_used_by_a_later_one() {
    let delay = Duration::from_millis(400);
    let (server, imds) = (serve(assigned), slow_imds_with_role(delay, 6 * 3600, Arc::new(AtomicBool::new(true))));
    let ec2 = with_role(&server, &imds.url);
    let bound = Duration::from_secs(1);
    let error = ec2.claim(&eni(), &[ADDRESS], bound).await.expect_err("three answers take 1.2 s");
    assert_eq!((error.class(), error.code()), (ErrorClass::Transient, "Credentials.IMDS"), "{error}");
    assert_eq!(server.log().len(), 0);
    let deadline = Instant::now() + AMPLE;
    while let Err(error) = ec2.claim(&eni(), &[ADDRESS], bound).await {
        assert!(Instant::now() < deadline, "not within {AMPLE:?}: {error}");
    }
    assert_eq!(server.log()[0].key(), "ASIA0", "not the credentials that the first call has loaded");
    assert_eq!(imds.log().len(), 3, "a token, the role's name and its credentials");
}

#[tokio::test]
async fn loading_credentials_counts_towards_the_time_limit_of_the_call() {
    // The time left is too short for a second request.
    let delay = Duration::from_millis(700);
    let (server, imds) =
        (serve(|_| Answer::Hang), slow_imds_with_role(delay, 6 * 3600, Arc::new(AtomicBool::new(true))));
    let (bound, began) = (Duration::from_secs(3), Instant::now());
    let error = with_role(&server, &imds.url).claim(&eni(), &[ADDRESS], bound).await.expect_err("no answer");
    let took = began.elapsed();
    assert_eq!((error.class(), server.log().len()), (ErrorClass::TimedOut, 1), "{error}");
    // Three answers of IMDS come first. If they did not count, the call would take another 2.1 s.
    assert!(took < bound + 2 * delay, "{took:?}");
}

#[tokio::test]
async fn near_their_expiry_credentials_are_not_requested_for_each_claim() {
    let (server, imds) = (serve(assigned), imds_with_role(600, Arc::new(AtomicBool::new(true))));
    let ec2 = with_role(&server, &imds.url);
    for _ in 0..3 {
        ec2.claim(&eni(), &[ADDRESS], AMPLE).await.expect("claimed");
    }
    assert!(server.log().iter().all(|r| r.key() == "ASIA0"), "{:?}", server.log());
    assert_eq!(imds.log().len(), 3, "a token, the role's name and its credentials");
}

#[tokio::test]
async fn keys_of_a_removed_file_are_no_longer_used() {
    let server = serve(assigned);
    let router = Router::new(&server.url);
    router.ec2.claim(&eni(), &[ADDRESS], AMPLE).await.expect("claimed");
    std::fs::remove_file(router.file()).expect("removed");
    watch_files(&router.ec2);
    until("it is noticed", || router.ec2.credentials().error.is_some()).await;
    for _ in 0..2 {
        let error = router.ec2.claim(&eni(), &[ADDRESS], AMPLE).await.expect_err("no keys");
        assert_eq!((error.class(), error.code()), (ErrorClass::Denied, "Credentials.File"), "{error}");
    }
    assert_eq!(server.log().len(), 1);
}

#[tokio::test]
async fn expired_credentials_are_replaced_before_use_and_still_tried_while_imds_is_down() {
    let up = Arc::new(AtomicBool::new(true));
    let (server, imds) = (serve(assigned), imds_with_role(-10, up.clone()));
    let ec2 = with_role(&server, &imds.url);
    for n in 0..2 {
        ec2.claim(&eni(), &[ADDRESS], AMPLE).await.expect("claimed");
        assert_eq!(server.log()[n].key(), format!("ASIA{n}"));
    }
    up.store(false, Ordering::SeqCst);
    ec2.claim(&eni(), &[ADDRESS], AMPLE).await.expect("claimed with the old ones");
    assert_eq!(server.log()[2].key(), "ASIA1");
    let error = ec2.credentials().error.expect("IMDS is down");
    assert_eq!((error.class(), error.code()), (ErrorClass::Transient, "Credentials.IMDS"), "{error}");
    assert!(error.message.starts_with("instance role: "), "{error}");
}

#[tokio::test]
async fn after_a_refusal_of_expired_credentials_new_ones_are_requested() {
    let imds = imds_with_role(6 * 3600, Arc::new(AtomicBool::new(true)));
    let server = serve(|request| match request.key() {
        "ASIA0" => refused(400, "RequestExpired", "Request has expired."),
        _ => assigned(request),
    });
    let ec2 = with_role(&server, &imds.url);
    let error = ec2.claim(&eni(), &[ADDRESS], AMPLE).await.expect_err("expired");
    assert_eq!(error.class(), ErrorClass::Transient, "{error}");
    ec2.claim(&eni(), &[ADDRESS], AMPLE).await.expect("claimed");
}

#[tokio::test]
async fn missing_credentials_of_a_role_are_reported_with_their_cause() {
    let imds = serve(|request| match request.line.starts_with("PUT ") {
        true => Answer::Text(200, "x-aws-ec2-metadata-token-ttl-seconds: 21600\r\n".to_owned(), "t".to_owned()),
        false => Answer::Text(404, String::new(), String::new()),
    });
    let server = serve(assigned);
    let error = with_role(&server, &imds.url).claim(&eni(), &[ADDRESS], AMPLE).await.expect_err("no role");
    assert_eq!((error.class(), error.code()), (ErrorClass::Transient, "Credentials.Role"), "{error}");
    assert!(error.message.contains("the instance has no role"), "{error}");

    let error = with_role(&server, &nowhere()).claim(&eni(), &[ADDRESS], AMPLE).await.expect_err("no IMDS");
    assert_eq!((error.class(), error.code()), (ErrorClass::Transient, "Credentials.IMDS"), "{error}");

    let hanging = serve(|_| Answer::Hang);
    let (bound, began) = (Duration::from_millis(300), Instant::now());
    let error = with_role(&server, &hanging.url).claim(&eni(), &[ADDRESS], bound).await.expect_err("IMDS hangs");
    assert_eq!((error.class(), error.code()), (ErrorClass::Transient, "Credentials.IMDS"), "{error}");
    assert!(error.message.contains("no answer from IMDS within 300ms"), "{error}");
    assert!(began.elapsed() < bound + SLACK, "{:?}", began.elapsed());
    assert_eq!(server.log().len(), 0, "EC2 was called");
}

#[tokio::test]
async fn an_unusable_certificate_file_is_named_by_errors_of_tls() {
    let server = serve(assigned);
    let dir = tempfile::tempdir().expect("a directory");
    let ca = dir.path().join("ca.pem");
    let global =
        |url: String| Global { endpoint_url: Some(url), ca_certificate_file: Some(ca.clone()), ..Global::default() };
    for text in [None, Some("no PEM"), Some("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")] {
        if let Some(text) = text {
            std::fs::write(&ca, text).expect("written");
        }
        let router = Router::with(global(server.url.clone()));
        router.ec2.claim(&eni(), &[ADDRESS], AMPLE).await.expect("not needed without TLS");
        let router = Router::with(global(server.url.replace("http:", "https:")));
        let error = router.ec2.claim(&eni(), &[ADDRESS], AMPLE).await.expect_err("the server has no TLS");
        assert_eq!((error.class(), error.code()), (ErrorClass::Transient, "Connection"), "{error}");
        assert!(error.message.contains(&format!("ca-certificate-file {}: ", ca.display())), "{error}");
    }
}

#[tokio::test]
async fn imds_is_queried_with_a_token_and_its_answers_are_parsed() {
    let imds = serve(|request| {
        let path = request.line.split(' ').nth(1).expect("a path").to_owned();
        if path == "/latest/api/token" {
            return Answer::Text(200, "x-aws-ec2-metadata-token-ttl-seconds: 21600\r\n".to_owned(), "t".to_owned());
        }
        if request.headers.get("x-aws-ec2-metadata-token").is_none_or(|t| t != "t") {
            return Answer::Text(401, String::new(), String::new());
        }
        match path.trim_start_matches("/latest/meta-data/") {
            "instance-id" => ok("i-0123456789abcdef0"),
            "placement/region" => ok("eu-central-1"),
            "placement/availability-zone" => ok("eu-central-1a\n"),
            "network/interfaces/macs/02:00:00:00:00:01/interface-id" => ok("eni-0123456789abcdef0"),
            "network/interfaces/macs/02:00:00:00:00:01/subnet-id" => ok("subnet-0123abcd"),
            "network/interfaces/macs/02:00:00:00:00:01/vpc-id" => ok("vpc-0123abcd"),
            "network/interfaces/macs/02:00:00:00:00:01/local-ipv4s" => ok("10.0.0.10\n10.0.0.100"),
            "network/interfaces/macs/02:00:00:00:00:01/subnet-ipv4-cidr-block" => ok("10.0.0.0/24"),
            "network/interfaces/macs/02:00:00:00:00:02/interface-id" => ok("<html>"),
            _ => Answer::Text(404, String::new(), String::new()),
        }
    });
    let client = Imds::at(&imds.url);
    let instance = client.instance().await.expect("the instance");
    assert_eq!(instance.id.as_str(), "i-0123456789abcdef0");
    assert_eq!(instance.region.as_str(), "eu-central-1");
    assert_eq!(instance.availability_zone, "eu-central-1a");
    let mac = |text: &str| text.to_owned().try_into().expect("a MAC address");
    let found = client.eni(mac("02:00:00:00:00:01")).await.expect("the ENI");
    assert_eq!((found.id, found.primary), (eni(), Ipv4Addr::new(10, 0, 0, 10)));
    assert_eq!((found.subnet.as_str(), found.vpc.as_str()), ("subnet-0123abcd", "vpc-0123abcd"));
    assert_eq!(found.block, Some("10.0.0.0/24".parse().expect("a block")));
    let error = client.eni(mac("02:00:00:00:00:02")).await.expect_err("an invalid id");
    assert_eq!((error.class(), error.code()), (ErrorClass::Transient, "Answer"), "{error}");
    let error = client.eni(mac("02:00:00:00:00:03")).await.expect_err("unknown");
    assert_eq!((error.class(), error.code()), (ErrorClass::NoSuchInterface, "NotFound"), "{error}");
    assert!(error.message.contains("02:00:00:00:00:03"), "{error}");
    let tokens = imds.log().iter().filter(|r| r.line.starts_with("PUT ")).count();
    assert_eq!(tokens, 1, "the token was not kept");
}

#[tokio::test]
async fn a_token_that_imds_rejects_is_replaced_in_the_same_call() {
    let given = AtomicUsize::new(0);
    let forgotten = Arc::new(AtomicUsize::new(0));
    let imds = serve({
        let forgotten = forgotten.clone();
        move |request| {
            if request.line.starts_with("PUT ") {
                let token = given.fetch_add(1, Ordering::SeqCst) + 1;
                let ttl = "x-aws-ec2-metadata-token-ttl-seconds: 21600\r\n";
                return Answer::Text(200, ttl.to_owned(), token.to_string());
            }
            let token: usize = request.headers["x-aws-ec2-metadata-token"].parse().expect("a token of ours");
            match (token > forgotten.load(Ordering::SeqCst), request.line.split('/').next_back()) {
                (false, _) => Answer::Text(401, String::new(), String::new()),
                (true, Some("instance-id HTTP")) | (true, None) => ok("i-0123abcd"),
                (true, _) if request.line.contains("instance-id") => ok("i-0123abcd"),
                (true, _) => ok("eu-central-1"),
            }
        }
    });
    let client = Imds::at(&imds.url);
    client.instance().await.expect("with the first token");
    forgotten.store(1, Ordering::SeqCst);
    client.instance().await.expect("with the second token");
    forgotten.store(usize::MAX, Ordering::SeqCst);
    let before = imds.log().len();
    let error = client.instance().await.expect_err("every token is refused");
    assert_eq!((error.class(), error.code()), (ErrorClass::Transient, "Answer"), "{error}");
    assert!(imds.log().len() - before <= 3, "more than two requests and one for a token: {:?}", &imds.log()[before..]);
}

#[tokio::test]
async fn failures_of_imds_have_their_class_and_time_limit() {
    for (answer, class, code) in [
        (403, ErrorClass::Denied, "Forbidden"),
        (429, ErrorClass::Throttled, "TooManyRequests"),
        (500, ErrorClass::Transient, "Answer"),
        (200, ErrorClass::Transient, "Answer"),
    ] {
        let imds = serve(move |_| Answer::Text(answer, String::new(), String::new()));
        let error = Imds::at(&imds.url).instance().await.expect_err("no token");
        assert_eq!((error.class(), error.code()), (class, code), "{answer}: {error}");
        assert_eq!(imds.log().len(), 1, "more than one attempt");
    }
    let imds = serve(|_| Answer::Hang);
    let began = Instant::now();
    let error = Imds::at(&imds.url).instance().await.expect_err("no answer");
    assert_eq!((error.class(), error.code()), (ErrorClass::TimedOut, "Timeout"), "{error}");
    assert!(began.elapsed() < Duration::from_secs(3) + SLACK, "{:?}", began.elapsed());
    let error = Imds::at(&nowhere()).instance().await.expect_err("nothing listens");
    assert_eq!((error.class(), error.code()), (ErrorClass::Transient, "Connection"), "{error}");
}

/// IMDS does not return the role's credentials, with 404 or 403: at boot, and after the role was removed.
#[tokio::test]
async fn a_role_that_has_not_appeared_yet_is_a_transient_failure_and_a_removed_one_is_not() {
    let role = |status: &Arc<AtomicUsize>| {
        let status = status.clone();
        serve(move |request| {
            match (status.load(Ordering::SeqCst), request.line.split(' ').nth(1).unwrap_or_default()) {
                (_, "/latest/api/token") => {
                    Answer::Text(200, "x-aws-ec2-metadata-token-ttl-seconds: 21600\r\n".to_owned(), "t".to_owned())
                }
                (200, path) if path.ends_with('/') => ok("vipa"),
                (200, _) => ok(
                    r#"{"Code":"Success","AccessKeyId":"ASIA","SecretAccessKey":"s","Token":"t","Expiration":"2026-01-01T00:00:00Z"}"#,
                ),
                (status, _) => Answer::Text(status as u16, String::new(), String::new()),
            }
        })
    };
    let server = serve(assigned);
    for (refusal, code) in [(404, "Credentials.Role"), (403, "Credentials.IMDSDisabled")] {
        let status = Arc::new(AtomicUsize::new(refusal));
        let imds = role(&status);
        let ec2 = with_role(&server, &imds.url);
        let error = ec2.claim(&eni(), &[ADDRESS], AMPLE).await.expect_err("no role yet");
        assert_eq!((error.class(), error.code()), (ErrorClass::Transient, code), "{error}");
        assert!(error.message.contains("may appear minutes later"), "{error}");
        status.store(200, Ordering::SeqCst);
        ec2.claim(&eni(), &[ADDRESS], AMPLE).await.expect("claimed with the credentials that have appeared");
        status.store(refusal, Ordering::SeqCst);
        // They have expired, so they are requested again, and used on if IMDS returns none.
        ec2.claim(&eni(), &[ADDRESS], AMPLE).await.expect("claimed with the old ones");
        let error = ec2.credentials().error.expect("the role is gone");
        assert_eq!((error.class(), error.code()), (ErrorClass::Denied, code), "{error}");
    }
}

#[tokio::test]
async fn answers_of_imds_are_limited_in_size_and_time() {
    let long = |length: usize| {
        serve(move |request| match request.line.starts_with("PUT ") {
            true => Answer::Text(200, "x-aws-ec2-metadata-token-ttl-seconds: 21600\r\n".to_owned(), "t".to_owned()),
            false if length == usize::MAX => Answer::Endless,
            false => ok("x".repeat(length)),
        })
    };
    for length in [65 * 1024, 8 << 20, usize::MAX] {
        let error = Imds::at(&long(length).url).instance().await.expect_err("too long");
        assert_eq!((error.class(), error.code()), (ErrorClass::Transient, "Answer"), "{length}: {error}");
        let expected = "unexpected answer to the request for /latest/meta-data/instance-id: it is longer than 64 KiB";
        assert!(error.message.ends_with(expected), "{length}: {error}");
    }
    let slow = serve(move |request| match request.line.starts_with("PUT ") {
        true => Answer::Text(200, "x-aws-ec2-metadata-token-ttl-seconds: 21600\r\n".to_owned(), "t".to_owned()),
        false => {
            std::thread::sleep(Duration::from_millis(900));
            ok("i-0123abcd")
        }
    });
    let mac = "02:00:00:00:00:01".to_owned().try_into().expect("a MAC address");
    let error = Imds::at(&slow.url).eni(mac).await.expect_err("a time-out: four answers take 3.6 s");
    assert!(error.message.contains(&format!("IMDS at {} did not answer", slow.url)), "{error}");
}

/// Opening such a path never waits: it would block the only thread of this runtime.
#[tokio::test]
async fn a_path_that_is_not_a_regular_file_is_rejected_at_once() {
    let server = serve(assigned);
    let dir = tempfile::tempdir().expect("a directory");
    let fifo = dir.path().join("fifo");
    let made = Command::new("mkfifo").arg(&fifo).status().expect("mkfifo runs");
    assert!(made.success());
    for path in [fifo.as_path(), Path::new("/dev/zero"), Path::new("/dev/tty"), dir.path()] {
        let region = || "eu-central-1".try_into().expect("a region");
        let global = Global {
            endpoint_url: Some(server.url.clone()),
            credentials_file: Some(path.to_owned()),
            ..Global::default()
        };
        let ec2 = Ec2::new(&global, region(), &Imds::at(&nowhere()));
        for _ in 0..2 {
            let error = ec2.claim(&eni(), &[ADDRESS], AMPLE).await.expect_err("no file");
            assert_eq!((error.class(), error.code()), (ErrorClass::Denied, "Credentials.File"), "{path:?}: {error}");
            assert!(error.message.contains("it is not a regular file"), "{path:?}: {error}");
        }
        let global = Global {
            endpoint_url: Some(server.url.replace("http:", "https:")),
            ca_certificate_file: Some(path.to_owned()),
            ..Global::default()
        };
        let router = Router::with(global);
        let error = router.ec2.claim(&eni(), &[ADDRESS], AMPLE).await.expect_err("the server has no TLS");
        assert_eq!(error.code(), "Connection", "{path:?}: {error}");
        assert!(error.message.contains("ca-certificate-file /") && error.message.contains("not a regular"), "{error}");
        router.ec2.probe_endpoint(AMPLE).await.expect_err("the server has no TLS");
        // Paths that a profile names are not opened either.
        let router = Router::new(&server.url);
        for key in ["web_identity_token_file", "credential_source"] {
            for chain in
                ["[default]\n", "[default]\nrole_arn = arn:aws:iam::123456789012:role/b\nsource_profile = b\n[b]\n"]
            {
                router.rotate(&format!(
                    "{chain}role_arn = arn:aws:iam::123456789012:role/a\n{key} = {}\n",
                    path.display()
                ));
                let error = router.ec2.claim(&eni(), &[ADDRESS], AMPLE).await.expect_err("not supported");
                assert_eq!((error.class(), error.code()), (ErrorClass::Denied, "Credentials.Profile"), "{error}");
                assert!(error.message.contains(&format!("has {key}, which is not supported")), "{error}");
            }
        }
    }
    assert_eq!(server.log().len(), 0);
}

/// Runs this test again with the environment variables of other AWS tools, all of which name a port on which nothing listens.
#[test]
fn the_environment_has_no_effect() {
    const MARK: &str = "VIPA_TEST_OF_THE_ENVIRONMENT";
    if std::env::var_os(MARK).is_none() {
        let home = tempfile::tempdir().expect("a directory");
        std::fs::create_dir(home.path().join(".aws")).expect("a directory");
        let elsewhere = format!(
            "[default]\nregion = us-east-1\nendpoint_url = {0}\nec2_metadata_service_endpoint = {0}\n",
            nowhere()
        );
        std::fs::write(home.path().join(".aws/config"), elsewhere).expect("written");
        std::fs::write(home.path().join(".aws/credentials"), keys("AKIAHOME")).expect("written");
        let output = Command::new(std::env::current_exe().expect("this program"))
            .args(["--exact", "the_environment_has_no_effect"])
            .env(MARK, "1")
            .env("HOME", home.path())
            .env("AWS_ACCESS_KEY_ID", "AKIAENV")
            .env("AWS_SECRET_ACCESS_KEY", "env")
            .env("AWS_SESSION_TOKEN", "env")
            .env("AWS_PROFILE", "other")
            .env("AWS_REGION", "us-east-1")
            .env("AWS_EC2_METADATA_DISABLED", "true")
            .env("AWS_USE_FIPS_ENDPOINT", "true")
            .envs(
                [
                    "AWS_ENDPOINT_URL",
                    "AWS_ENDPOINT_URL_EC2",
                    "AWS_EC2_METADATA_SERVICE_ENDPOINT",
                    "HTTP_PROXY",
                    "http_proxy",
                    "ALL_PROXY",
                ]
                .map(|name| (name, nowhere())),
            )
            .output()
            .expect("it runs");
        let printed = String::from_utf8_lossy(&output.stdout);
        assert!(
            output.status.success() && printed.contains("1 passed"),
            "{printed}{}",
            String::from_utf8_lossy(&output.stderr)
        );
        return;
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let server = serve(assigned);
        let router = Router::new(&server.url);
        router.ec2.claim(&eni(), &[ADDRESS], AMPLE).await.expect("claimed with the file's keys");
        let ec2 = with_role(&server, &imds_with_role(3600, Arc::new(AtomicBool::new(true))).url);
        ec2.claim(&eni(), &[ADDRESS], AMPLE).await.expect("claimed with the role's keys");
        let keys: Vec<_> = server.log().iter().map(|r| r.key().to_owned()).collect();
        assert_eq!(keys, ["AKIAONE", "ASIA0"]);
        let plain = Global::default();
        let ec2 = Ec2::new(&plain, "eu-central-1".try_into().expect("a region"), &Imds::new());
        assert_eq!(ec2.endpoint(), "https://ec2.eu-central-1.amazonaws.com");
    });
}
