//! The command `generate iam-policy`: with and without answers of IMDS.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::{env, fs};

use serde_json::{Value, json};
use simulator::{Fault, On, Simulator, World};
use vipa_core::model::config::{Config, ElasticIpConfig, Global, GroupConfig, RouteConfig};
use vipa_core::report::iam_policy::{PolicyInputs, policy};
use vyos_aws_vipa::aws::Imds;
use vyos_aws_vipa::commands::iam_policy::{IamPolicy, IamPolicyError};
use vyos_aws_vipa::fs::json_file;

use crate::router::{Router, inside, nowhere};

/// The printed policy and notes.
fn generate(router: &Router, imds: &str, tag: Option<&str>) -> (Value, String) {
    let (mut out, mut notes) = (Vec::new(), Vec::new());
    let command = IamPolicy { tag: tag.map(|tag| tag.parse().expect("a tag")) };
    command.run(&router.paths, &Imds::at(imds), &mut out, &mut notes).expect("a policy");
    let notes = String::from_utf8(notes).expect("UTF-8");
    assert!(notes.lines().all(|line| line.chars().count() <= 80), "{notes}");
    (serde_json::from_slice(&out).expect("JSON"), notes.split_whitespace().collect::<Vec<_>>().join(" "))
}

/// Compares with the files of that name in tests/status; `BLESS=1` rewrites them.
fn pinned(name: &str, facts: &PolicyInputs, tag: Option<&str>) {
    let (policy, notes) = policy(facts, tag.map(|tag| tag.parse().expect("a tag")).as_ref());
    let text = format!("{}\n{}\n", serde_json::to_string_pretty(&policy).expect("JSON"), notes.join("\n"));
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/status").join(name);
    if env::var_os("BLESS").is_some() {
        fs::write(&path, &text).expect("the pinned file is written");
    }
    let pinned = fs::read_to_string(&path).unwrap_or_default();
    assert!(pinned == text, "{name} differs from what is printed now (BLESS=1 rewrites it):\n{text}");
}

#[test]
fn the_policy_has_what_is_known_and_notes_name_what_is_missing() {
    let all = PolicyInputs {
        partition: Some("aws-cn".try_into().expect("a partition")),
        region: Some("cn-north-1".try_into().expect("a region")),
        account: Some("123456789012".try_into().expect("an account")),
        claims_addresses: true,
        enis: ["eni-0123456789abcdef0", "eni-0123456789abcdef1"].map(|id| id.try_into().expect("an ENI")).into(),
        ..PolicyInputs::default()
    };
    pinned("iam-policy.txt", &all, None);
    pinned("iam-policy-tag.txt", &all, Some("vrrp=router a"));
    let missing = vec!["ENI of eth1 unknown, not in the policy: Timeout: no answer.".to_owned()];
    let no_imds = PolicyInputs { partition: None, region: None, account: None, missing, ..all.clone() };
    pinned("iam-policy-no-partition.txt", &no_imds, None);
    pinned("iam-policy-no-partition-tag.txt", &no_imds, Some("vrrp=yes"));
    let no_eni = PolicyInputs { enis: BTreeSet::new(), region: None, account: None, ..all.clone() };
    pinned("iam-policy-no-eni.txt", &no_eni, None);
    let table = |n: usize| format!("rtb-{n:017x}").try_into().expect("a route table");
    let across_zones = PolicyInputs {
        route_tables: (1..=2).map(table).collect(),
        elastic_ips: ["eipalloc-0123456789abcdef0".try_into().expect("an allocation")].into(),
        elastic_ip_enis: ["eni-0123456789abcdef1".try_into().expect("an ENI")].into(),
        ..all
    };
    pinned("iam-policy-across-zones.txt", &across_zones, None);
    pinned("iam-policy-across-zones-tag.txt", &across_zones, Some("vrrp=yes"));
    let overlay =
        PolicyInputs { claims_addresses: false, elastic_ips: BTreeSet::new(), partition: None, ..across_zones.clone() };
    pinned("iam-policy-routes.txt", &overlay, None);
    // With 200 route tables it is too long for one policy.
    let many = PolicyInputs { route_tables: (1..=200).map(table).collect(), ..across_zones };
    let (_, notes) = policy(&many, None);
    let too_long = notes.iter().find(|note| note.contains("IAM allows 6144 in a managed policy"));
    assert!(too_long.is_some_and(|note| note.starts_with("The policy has 1")), "{notes:?}");
}

#[test]
fn the_policy_has_only_what_the_configuration_needs() {
    if !inside("iam_policy::the_policy_has_only_what_the_configuration_needs") {
        return;
    }
    let any = "127.0.0.1:0".parse().expect("an address");
    let cloud = Simulator::start(World::two_zones()).expect("a simulator");
    let imds = cloud.serve_imds("i-0a000000000000001", any, None).expect("IMDS").url();
    let router = Router::new().configured(Global::default(), [10, 255, 0, 1], "eth0");
    let arn = |id: &str| format!("arn:aws:ec2:eu-west-1:123456789012:{id}");
    let interface = arn("network-interface/eni-0a000000000000001");
    let table = arn("route-table/rtb-0a000000000000001");
    let statements = |policy: &Value| -> Vec<(String, Value, Value)> {
        let statements = policy["Statement"].as_array().expect("statements").iter();
        let text = |value: &Value| value.as_str().expect("text").to_owned();
        statements.map(|s| (text(&s["Sid"]), s["Action"].clone(), s["Resource"].clone())).collect()
    };
    let route = |prefix: &str| RouteConfig {
        destination: prefix.parse().expect("a prefix"),
        tables: ["rtb-0a000000000000001".try_into().expect("a table")].into(),
        interface: None,
    };
    let configure = |change: &dyn Fn(&mut GroupConfig)| {
        let mut config: Config = json_file::read(&router.paths.config).expect("read");
        change(&mut config.groups[0]);
        json_file::write(&router.paths.config, 0o644, &config).expect("written");
    };
    let routes = ("ClaimRoutes".to_owned(), json!(["ec2:ReplaceRoute", "ec2:CreateRoute"]), json!([table]));
    let read = |actions: Value| ("ReadOwners".to_owned(), actions, json!(["*"]));
    // The route alone moves an overlay address.
    configure(&|group| group.routes = vec![route("10.255.0.1/32")]);
    let (policy, notes) = generate(&router, &imds, None);
    let reads = json!(["ec2:DescribeNetworkInterfaces", "ec2:DescribeRouteTables"]);
    assert_eq!(statements(&policy), [routes.clone(), read(reads)], "{policy}");
    assert!(!notes.contains("ENI"), "no statement is about one: {notes}");
    // Beside an address and an Elastic IP.
    configure(&|group| {
        group.routes = vec![route("10.254.0.0/16")];
        group.elastic_ips = vec![ElasticIpConfig {
            allocation: "eipalloc-0a000000000000001".try_into().expect("an allocation"),
            private_address: None,
            interface: None,
        }];
    });
    let (policy, notes) = generate(&router, &imds, None);
    let mut expected = vec![
        ("ClaimAddresses".to_owned(), json!("ec2:AssignPrivateIpAddresses"), json!([interface])),
        routes,
        (
            "ClaimElasticIps".to_owned(),
            json!("ec2:AssociateAddress"),
            json!([arn("elastic-ip/eipalloc-0a000000000000001")]),
        ),
        ("ClaimElasticIpsForInterfaces".to_owned(), json!("ec2:AssociateAddress"), json!([interface])),
        read(json!([
            "ec2:DescribeNetworkInterfaces",
            "ec2:DescribeInstanceTypes",
            "ec2:DescribeRouteTables",
            "ec2:DescribeAddresses"
        ])),
    ];
    assert_eq!(statements(&policy), expected, "{policy}");
    assert!(notes.contains("has only this router's ENIs"), "{notes}");
    configure(&|group| group.no_address = true);
    let (policy, _) = generate(&router, &imds, None);
    expected[4] = read(json!(["ec2:DescribeNetworkInterfaces", "ec2:DescribeRouteTables", "ec2:DescribeAddresses"]));
    assert_eq!(statements(&policy), expected[1..], "{policy}");
    // Without groups.json the interface is not known, and no ENI with it.
    fs::remove_file(&router.paths.groups).expect("removed");
    let (policy, notes) = generate(&router, &imds, None);
    assert_eq!(policy["Statement"][2]["Resource"], json!(["arn:aws:ec2:eu-west-1:*:network-interface/*"]), "{policy}");
    assert!(notes.contains("No ENI found") && notes.contains("Cannot read which interfaces"), "{notes}");
}

#[test]
fn partition_account_and_enis_are_read_from_imds() {
    if !inside("iam_policy::partition_account_and_enis_are_read_from_imds") {
        return;
    }
    let any = "127.0.0.1:0".parse().expect("an address");
    let world = World { partition: "aws-us-gov".to_owned(), ..World::two_routers() };
    let cloud = Simulator::start(world).expect("a simulator");
    let imds = cloud.serve_imds("i-0a000000000000001", any, None).expect("IMDS").url();
    let router = Router::new().configured(Global::default(), [10, 99, 0, 100], "eth0");
    let (policy, notes) = generate(&router, &imds, None);
    let claim = &policy["Statement"][0];
    assert_eq!(claim["Action"], "ec2:AssignPrivateIpAddresses");
    let arn = "arn:aws-us-gov:ec2:eu-west-1:123456789012:network-interface/eni-0a000000000000001";
    assert_eq!(claim["Resource"], json!([arn]), "{policy}");
    assert!(notes.contains("has only this router's ENIs") && notes.ends_with("prints there."), "{notes}");
    let actions = ["ec2:DescribeNetworkInterfaces", "ec2:DescribeInstanceTypes"];
    let read = json!({"Sid": "ReadOwners", "Effect": "Allow", "Action": actions, "Resource": ["*"]});
    assert_eq!(policy["Statement"][1], read);

    let (policy, notes) = generate(&router, &imds, Some("vrrp=yes"));
    let arn = "arn:aws-us-gov:ec2:eu-west-1:123456789012:network-interface/*";
    assert_eq!(policy["Statement"][0]["Resource"], json!([arn]), "{policy}");
    assert_eq!(policy["Statement"][0]["Condition"], json!({"StringEquals": {"aws:ResourceTag/vrrp": ["yes"]}}));
    assert!(notes.contains("the tag vrrp=yes"), "{notes}");

    // Without a partition from IMDS, the region's name determines it.
    cloud.add_fault(Fault::on(On::imds_path("/latest/meta-data/services/")).error(404, ""));
    let (policy, _) = generate(&router, &imds, None);
    let arn = "arn:aws:ec2:eu-west-1:123456789012:network-interface/eni-0a000000000000001";
    assert_eq!(policy["Statement"][0]["Resource"], json!([arn]), "{policy}");
}

#[test]
fn without_imds_a_policy_is_printed_too() {
    let region = Some("eusc-de-east-1".try_into().expect("a region"));
    let router = Router::new().configured(Global { region, ..Global::default() }, [10, 99, 0, 100], "lo");
    let (policy, notes) = generate(&router, &nowhere(), None);
    assert_eq!(policy["Statement"][0]["Resource"], json!(["arn:aws-eusc:ec2:eusc-de-east-1:*:network-interface/*"]));
    for expected in ["ENI of lo unknown", "No ENI found", "Account unknown; using \"*\"."] {
        assert!(notes.contains(expected), "{expected}: {notes}");
    }
    let mut config: Config = json_file::read(&router.paths.config).expect("read");
    config.groups[0].network_interface_id = Some("eni-0123456789abcdef0".try_into().expect("an ENI"));
    config.global.region = None;
    json_file::write(&router.paths.config, 0o644, &config).expect("written");
    let (policy, notes) = generate(&router, &nowhere(), None);
    assert_eq!(policy["Statement"][0]["Resource"], json!(["*"]));
    let named = json!({"StringEquals": {"ec2:NetworkInterfaceID": ["eni-0123456789abcdef0"]}});
    assert_eq!(policy["Statement"][0]["Condition"], named, "{policy}");
    assert!(notes.contains("Partition unknown: ") && !notes.contains("ENI of"), "{notes}");
    fs::remove_file(&router.paths.groups).expect("removed");
    let (policy, notes) = generate(&router, &nowhere(), Some("a=b"));
    assert_eq!(policy["Statement"][0]["Condition"], json!({"StringEquals": {"aws:ResourceTag/a": ["b"]}}));
    assert!(notes.contains("the tag a=b"), "{notes}");
}

#[test]
fn without_a_configuration_there_is_no_policy() {
    let command = IamPolicy { tag: None };
    let error = command.run(&Router::new().paths, &Imds::at(&nowhere()), &mut Vec::new(), &mut Vec::new());
    assert!(matches!(error, Err(IamPolicyError::Configuration(_))), "{error:?}");
}

#[test]
fn a_tag_needs_no_configuration() {
    let any = "127.0.0.1:0".parse().expect("an address");
    let cloud = Simulator::start(World::two_routers()).expect("a simulator");
    let imds = cloud.serve_imds("i-0a000000000000001", any, None).expect("IMDS").url();
    let (policy, notes) = generate(&Router::new(), &imds, Some("vrrp=yes"));
    assert_eq!(policy["Statement"][0]["Resource"], json!(["arn:aws:ec2:eu-west-1:*:network-interface/*"]), "{policy}");
    assert_eq!(policy["Statement"][0]["Condition"], json!({"StringEquals": {"aws:ResourceTag/vrrp": ["yes"]}}));
    assert!(notes.contains("the tag vrrp=yes") && notes.contains("Account unknown; using \"*\"."), "{notes}");
    let (policy, notes) = generate(&Router::new(), &nowhere(), Some("vrrp=yes"));
    assert_eq!(policy["Statement"][0]["Resource"], json!(["*"]), "{policy}");
    assert!(notes.contains("Partition unknown: "), "{notes}");
    // An unreadable configuration may have another region.
    let router = Router::new();
    fs::write(&router.paths.config, "{\"format\":2}").expect("written");
    let command = IamPolicy { tag: Some("vrrp=yes".parse().expect("a tag")) };
    let error = command.run(&router.paths, &Imds::at(&imds), &mut Vec::new(), &mut Vec::new()).expect_err("no policy");
    assert!(error.to_string().contains("config.json has format 2"), "{error}");
}
