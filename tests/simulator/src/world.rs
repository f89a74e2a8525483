//! The world to simulate, which a test builds or a JSON file contains. Its texts are checked by
//! [`Simulator::start`](crate::Simulator::start).

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A region of one account: VPCs, subnets, route tables, instances with their network interfaces, Elastic
/// IPs, access keys.
///
/// In JSON, the field names are in kebab case, and fields with a default are optional.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct World {
    /// The region; signatures for another one are refused.
    pub region: String,
    /// The partition in IMDS; `aws` by default.
    pub partition: String,
    /// The domain in IMDS; `amazonaws.com` by default.
    pub domain: String,
    /// The account: 12 digits.
    pub account: String,
    /// The VPCs.
    pub vpcs: Vec<Vpc>,
    /// The subnets.
    pub subnets: Vec<Subnet>,
    /// The instances with the network interfaces attached to them.
    pub instances: Vec<Instance>,
    /// Network interfaces without an instance.
    pub network_interfaces: Vec<NetworkInterface>,
    /// The route tables.
    pub route_tables: Vec<RouteTable>,
    /// Elastic IPs, in addition to those of the network interfaces.
    pub elastic_ips: Vec<ElasticIp>,
    /// Access keys of users. Those of instance roles are made at the start.
    pub access_keys: Vec<AccessKey>,
    /// How old the state may be that reads show.
    pub stale_reads: StaleReads,
    /// The effect of a claim of several addresses, one of which cannot be assigned.
    pub batch: Batch,
    /// Whether assigning an address to an interface that already has it is an error. It probably succeeds, but this is not
    /// documented.
    pub refuse_reassignment_to_same_interface: bool,
    /// What the answer to a claim of several addresses lists.
    pub claim_answers: ClaimAnswers,
    /// A dry run that a policy denies is answered with what else is wrong with it, if something is; otherwise with the
    /// denial, whatever else is wrong.
    pub deny_dry_runs_last: bool,
    /// An assignment that a policy denies is answered with what is wrong with it if it names primary addresses only, which never
    /// move; otherwise with the denial, whatever else is wrong.
    pub deny_claims_last: bool,
    /// Dry runs do not count in the rate limits of [`throttling`](World::throttling).
    pub free_dry_runs: bool,
    /// How many values the filters of one call can have together.
    pub filter_value_limit: usize,
    /// The order of IMDS `local-ipv4s`.
    pub imds_addresses: ImdsAddresses,
    /// How long, in milliseconds, a connection to EC2 can be idle before it is dropped silently, as a NAT gateway does;
    /// `None` keeps every connection.
    pub idle_timeout_ms: Option<u64>,
    /// The keys of instance roles.
    pub role_keys: RoleKeys,
    /// How long `AssociateAddress` refuses an address after it was assigned to the interface, in milliseconds. The real time is
    /// unknown.
    pub association_lag_ms: u64,
    /// The limit of routes of an address family in a route table, without propagated ones. EC2's quota can be raised.
    pub routes_per_table: usize,
    /// The throttling of each action; `None`: no throttling.
    pub throttling: Option<Throttling>,
    /// The limit for the difference between `X-Amz-Date` and the simulator's clock, in seconds; `None`: no limit.
    pub clock_tolerance_seconds: Option<u64>,
    /// How many seconds EC2's clock is ahead of this machine's. Signatures are checked with that clock, and answers have its
    /// time as Date.
    pub clock_ahead_seconds: i64,
    /// The error code for a session token that has expired. Users of EC2 report `RequestExpired`;
    /// other services answer `ExpiredToken`.
    pub expired_token_code: String,
    /// The error code for an access key that does not exist: `AuthFailure` (EC2's own) or
    /// `InvalidClientTokenId`.
    pub unknown_key_code: String,
}

impl Default for World {
    fn default() -> Self {
        World {
            region: "eu-west-1".to_owned(),
            partition: "aws".to_owned(),
            domain: "amazonaws.com".to_owned(),
            account: "123456789012".to_owned(),
            vpcs: Vec::new(),
            subnets: Vec::new(),
            instances: Vec::new(),
            network_interfaces: Vec::new(),
            route_tables: Vec::new(),
            elastic_ips: Vec::new(),
            access_keys: Vec::new(),
            stale_reads: StaleReads::default(),
            batch: Batch::default(),
            refuse_reassignment_to_same_interface: false,
            claim_answers: ClaimAnswers::default(),
            deny_dry_runs_last: false,
            deny_claims_last: false,
            free_dry_runs: false,
            filter_value_limit: 200,
            imds_addresses: ImdsAddresses::default(),
            idle_timeout_ms: None,
            role_keys: RoleKeys::default(),
            association_lag_ms: 300,
            routes_per_table: 50,
            throttling: Some(Throttling::default()),
            clock_tolerance_seconds: Some(300),
            clock_ahead_seconds: 0,
            expired_token_code: "RequestExpired".to_owned(),
            unknown_key_code: "AuthFailure".to_owned(),
        }
    }
}

/// How old the state is that `Describe…` and IMDS `local-ipv4s` show. Users have seen IMDS lag by 30 to 60 s, and EC2 is
/// documented as eventually consistent without a time limit, so the default is the longest delay that was seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StaleReads {
    /// Each read shows the state of this many milliseconds ago; 0: the current state.
    ExactlyMs(u64),
    /// Each read shows the state of a random time, at most this many milliseconds ago. Later reads may show older states.
    UpToMs(u64),
}

impl Default for StaleReads {
    fn default() -> Self {
        StaleReads::UpToMs(60_000)
    }
}

/// The effect of `AssignPrivateIpAddresses` with several addresses, one of which is refused. It is not documented.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Batch {
    /// No address moves. The default, as it is the worse one for a client.
    #[default]
    AllOrNothing,
    /// The others move, and the answer is the error.
    OthersMove,
}

/// What the answer to `AssignPrivateIpAddresses` lists. The API's model has a list of the addresses; examples show answers
/// without it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ClaimAnswers {
    /// All addresses, and all move (the default).
    #[default]
    All,
    /// The first address alone; all move.
    FirstListed,
    /// The first address alone, and it alone moves.
    FirstMoves,
}

/// The order of the addresses in IMDS `local-ipv4s`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ImdsAddresses {
    /// The primary address is the first (the default).
    #[default]
    PrimaryFirst,
    /// From the lowest to the highest.
    Ascending,
}

/// The keys that IMDS gives out for instance roles.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct RoleKeys {
    /// How long a key is valid.
    pub valid_seconds: u64,
    /// How long before a key expires IMDS gives out a new one; `None`: only
    /// [`Simulator::rotate_credentials`](crate::Simulator::rotate_credentials) makes new keys.
    pub renewed_seconds_before_expiry: Option<u64>,
}

impl Default for RoleKeys {
    fn default() -> Self {
        RoleKeys { valid_seconds: 6 * 3600, renewed_seconds_before_expiry: None }
    }
}

/// A token bucket for each action of the account (EC2 developer guide, "Request throttling"). EC2's own are larger for
/// some actions.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Throttling {
    /// The burst of requests that change something.
    pub mutating_burst: f64,
    /// Their refill, per second.
    pub mutating_per_second: f64,
    /// The burst of reads.
    pub reading_burst: f64,
    /// Their refill, per second.
    pub reading_per_second: f64,
}

impl Default for Throttling {
    fn default() -> Self {
        Throttling { mutating_burst: 50.0, mutating_per_second: 5.0, reading_burst: 100.0, reading_per_second: 20.0 }
    }
}

/// A VPC.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Vpc {
    /// `vpc-…`
    pub id: String,
    /// Its IPv4 CIDR block.
    pub cidr: String,
    /// Its IPv6 CIDR block.
    #[serde(default)]
    pub ipv6_cidr: Option<String>,
}

/// A subnet in one availability zone.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Subnet {
    /// `subnet-…`
    pub id: String,
    /// The VPC's id.
    pub vpc: String,
    /// Its IPv4 CIDR block, inside the VPC's.
    pub cidr: String,
    /// Its IPv6 CIDR block, inside the VPC's.
    #[serde(default)]
    pub ipv6_cidr: Option<String>,
    /// Such as `eu-west-1a`.
    pub availability_zone: String,
}

/// A route table. It also has the local routes of its VPC.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct RouteTable {
    /// `rtb-…`
    pub id: String,
    /// The VPC's id.
    pub vpc: String,
    /// Whether it is the main route table of its VPC.
    #[serde(default)]
    pub main: bool,
    /// The subnets that are associated with it.
    #[serde(default)]
    pub subnets: Vec<String>,
    /// The target of each destination: `10.0.0.0/8`, `2001:db8::/32` or `pl-…` to `eni-…`, `igw-…`, `vpce-…`, `nat-…`,
    /// `tgw-…` and so on.
    #[serde(default)]
    pub routes: BTreeMap<String, String>,
    /// The routes that a virtual private gateway has propagated: destination and `vgw-…`.
    #[serde(default)]
    pub propagated: BTreeMap<String, String>,
}

impl RouteTable {
    /// A route table with only the local routes.
    pub fn new(id: &str, vpc: &str) -> RouteTable {
        RouteTable { id: id.to_owned(), vpc: vpc.to_owned(), ..RouteTable::default() }
    }

    /// Makes it the main route table of its VPC.
    pub fn main(mut self) -> RouteTable {
        self.main = true;
        self
    }

    /// Associates a subnet with it.
    pub fn subnet(mut self, id: &str) -> RouteTable {
        self.subnets.push(id.to_owned());
        self
    }

    /// Adds a route.
    pub fn route(mut self, destination: &str, target: &str) -> RouteTable {
        self.routes.insert(destination.to_owned(), target.to_owned());
        self
    }

    /// Adds a route that a virtual private gateway has propagated.
    pub fn propagated(mut self, destination: &str, gateway: &str) -> RouteTable {
        self.propagated.insert(destination.to_owned(), gateway.to_owned());
        self
    }
}

/// An Elastic IP.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct ElasticIp {
    /// `eipalloc-…`
    pub id: String,
    /// The public address.
    pub public: Ipv4Addr,
    /// The network interface that it is associated with at the start.
    #[serde(default)]
    pub network_interface: Option<String>,
    /// Its private address; the primary one by default.
    #[serde(default)]
    pub private: Option<Ipv4Addr>,
    /// Its account, if that differs from the world's.
    #[serde(default)]
    pub account: Option<String>,
    /// It belongs to a managed resource, such as a NAT gateway or a load balancer.
    #[serde(default)]
    pub managed: bool,
}

impl ElasticIp {
    /// An Elastic IP without an association.
    pub fn new(id: &str, public: Ipv4Addr) -> ElasticIp {
        ElasticIp { id: id.to_owned(), public, network_interface: None, private: None, account: None, managed: false }
    }

    /// Associates it with a private address of an interface.
    pub fn on(mut self, eni: &str, private: Ipv4Addr) -> ElasticIp {
        self.network_interface = Some(eni.to_owned());
        self.private = Some(private);
        self
    }

    /// Sets its account.
    pub fn of_account(mut self, account: &str) -> ElasticIp {
        self.account = Some(account.to_owned());
        self
    }

    /// Makes it one of a managed resource.
    pub fn managed(mut self) -> ElasticIp {
        self.managed = true;
        self
    }
}

/// An instance.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Instance {
    /// `i-…`
    pub id: String,
    /// The name of its role, for which IMDS returns keys.
    #[serde(default)]
    pub role: Option<String>,
    /// Its network interfaces in the order of their device index.
    pub network_interfaces: Vec<NetworkInterface>,
}

impl Instance {
    /// An instance without a role and interfaces.
    pub fn new(id: &str) -> Instance {
        Instance { id: id.to_owned(), ..Instance::default() }
    }

    /// Sets its role.
    pub fn role(mut self, name: &str) -> Instance {
        self.role = Some(name.to_owned());
        self
    }

    /// Attaches an interface with the next device index.
    pub fn interface(mut self, interface: NetworkInterface) -> Instance {
        self.network_interfaces.push(interface);
        self
    }
}

/// An elastic network interface (ENI).
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct NetworkInterface {
    /// `eni-…`
    pub id: String,
    /// Its MAC address.
    pub mac: String,
    /// The subnet's id.
    pub subnet: String,
    /// Its primary private address, which cannot move.
    pub primary: Ipv4Addr,
    /// Its secondary private addresses at the start.
    #[serde(default)]
    pub secondary: Vec<Ipv4Addr>,
    /// Elastic IPs by the private address with which they are associated and move. The allocation id is
    /// `eipalloc-` and the public address as 17 hexadecimal digits.
    #[serde(default)]
    pub elastic_ips: BTreeMap<Ipv4Addr, Ipv4Addr>,
    /// The prefixes that are delegated to it at the start, each of 16 addresses.
    #[serde(default)]
    pub prefixes: Vec<String>,
    /// The source/destination check, which is off on routers.
    #[serde(default)]
    pub source_dest_check: bool,
    /// The limit of its private IPv4 addresses, including the primary one; a prefix counts as one. In EC2 it depends on the instance type. By default
    /// 30, as for an m5.4xlarge.
    #[serde(default = "default_address_limit")]
    pub address_limit: usize,
}

fn default_address_limit() -> usize {
    30
}

impl NetworkInterface {
    /// An interface with only a primary address, without the source/destination check.
    pub fn new(id: &str, mac: &str, subnet: &str, primary: Ipv4Addr) -> NetworkInterface {
        NetworkInterface {
            id: id.to_owned(),
            mac: mac.to_owned(),
            subnet: subnet.to_owned(),
            primary,
            secondary: Vec::new(),
            elastic_ips: BTreeMap::new(),
            prefixes: Vec::new(),
            source_dest_check: false,
            address_limit: default_address_limit(),
        }
    }

    /// Adds a secondary address.
    pub fn secondary(mut self, address: Ipv4Addr) -> NetworkInterface {
        self.secondary.push(address);
        self
    }

    /// Associates an Elastic IP with a private address of this interface.
    pub fn elastic_ip(mut self, private: Ipv4Addr, public: Ipv4Addr) -> NetworkInterface {
        self.elastic_ips.insert(private, public);
        self
    }

    /// Delegates a prefix of 16 addresses to it.
    pub fn prefix(mut self, prefix: &str) -> NetworkInterface {
        self.prefixes.push(prefix.to_owned());
        self
    }

    /// Sets the limit of its private addresses.
    pub fn address_limit(mut self, limit: usize) -> NetworkInterface {
        self.address_limit = limit;
        self
    }

    /// Sets the source/destination check.
    pub fn source_dest_check(mut self, on: bool) -> NetworkInterface {
        self.source_dest_check = on;
        self
    }
}

/// An access key.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct AccessKey {
    /// The access key id, `AKIA…` or `ASIA…`.
    pub id: String,
    /// The secret. Without it, the signature's value is not checked.
    #[serde(default)]
    pub secret: Option<String>,
    /// The session token that requests must have, for a temporary key.
    #[serde(default)]
    pub session_token: Option<String>,
    /// When it expires, in seconds from the start.
    #[serde(default)]
    pub expires_after_seconds: Option<u64>,
}

impl World {
    /// An empty world in `region`.
    pub fn new(region: &str) -> World {
        World { region: region.to_owned(), ..World::default() }
    }

    /// Two routers and a third party in one subnet, `10.99.0.0/24` of `eu-west-1a`:
    ///
    /// | instance | role | interface | MAC | primary |
    /// |---|---|---|---|---|
    /// | `i-0a000000000000001` | `router` | `eni-0a000000000000001` | `02:00:00:00:00:01` | `10.99.0.11` |
    /// | `i-0a000000000000002` | `router` | `eni-0a000000000000002` | `02:00:00:00:00:02` | `10.99.0.12` |
    /// | `i-0a000000000000003` | | `eni-0a000000000000003` | `02:00:00:00:00:03` | `10.99.0.13` |
    ///
    /// Subnet `subnet-0a000000000000001`, VPC `vpc-0a000000000000001` (`10.99.0.0/16`), each
    /// interface with room for 50 addresses, and the user's key `AKIAVIPAEXAMPLE00001` with the secret
    /// `vipa-example-secret`.
    pub fn two_routers() -> World {
        let subnet = "subnet-0a000000000000001";
        let instance = |number: u8| {
            let interface = NetworkInterface::new(
                &format!("eni-0a00000000000000{number}"),
                &format!("02:00:00:00:00:0{number}"),
                subnet,
                Ipv4Addr::new(10, 99, 0, 10 + number),
            );
            Instance::new(&format!("i-0a00000000000000{number}")).interface(interface.address_limit(50))
        };
        World::new("eu-west-1")
            .vpc("vpc-0a000000000000001", "10.99.0.0/16")
            .subnet(subnet, "vpc-0a000000000000001", "10.99.0.0/24", "eu-west-1a")
            .instance(instance(1).role("router"))
            .instance(instance(2).role("router"))
            .instance(instance(3))
            .access_key("AKIAVIPAEXAMPLE00001", "vipa-example-secret")
    }

    /// Two routers in two availability zones, and a third party in the first one's subnet:
    ///
    /// | instance | role | interface | MAC | primary | subnet |
    /// |---|---|---|---|---|---|
    /// | `i-0a000000000000001` | `router` | `eni-0a000000000000001` | `02:00:00:00:00:01` | `10.99.0.11` | `subnet-0a000000000000001` |
    /// | `i-0a000000000000002` | `router` | `eni-0a000000000000002` | `02:00:00:00:00:02` | `10.99.1.12` | `subnet-0a000000000000002` |
    /// | `i-0a000000000000003` | | `eni-0a000000000000003` | `02:00:00:00:00:03` | `10.99.0.13` | `subnet-0a000000000000001` |
    ///
    /// The subnets are `10.99.0.0/24` and `2001:db8:99::/64` in `eu-west-1a`, `10.99.1.0/24` and
    /// `2001:db8:99:1::/64` in `eu-west-1b`, each with a route table, `rtb-0a000000000000001` (the main one) and
    /// `rtb-0a000000000000002`, whose default route leads to `igw-0a000000000000001`. The VPC
    /// `vpc-0a000000000000001` has `10.99.0.0/16` and `2001:db8:99::/56`. The Elastic IP
    /// `eipalloc-0a000000000000001`, `203.0.113.10`, is not associated. The access key is that of
    /// [`two_routers`](World::two_routers).
    pub fn two_zones() -> World {
        let (vpc, first, second) = ("vpc-0a000000000000001", "subnet-0a000000000000001", "subnet-0a000000000000002");
        let instance = |number: u8, subnet: &str, primary: [u8; 4]| {
            let interface = NetworkInterface::new(
                &format!("eni-0a00000000000000{number}"),
                &format!("02:00:00:00:00:0{number}"),
                subnet,
                primary.into(),
            );
            Instance::new(&format!("i-0a00000000000000{number}")).interface(interface.address_limit(50))
        };
        let table = |number: u8, subnet: &str| {
            RouteTable::new(&format!("rtb-0a00000000000000{number}"), vpc)
                .subnet(subnet)
                .route("0.0.0.0/0", "igw-0a000000000000001")
        };
        let mut world = World::new("eu-west-1")
            .vpc(vpc, "10.99.0.0/16")
            .subnet(first, vpc, "10.99.0.0/24", "eu-west-1a")
            .subnet(second, vpc, "10.99.1.0/24", "eu-west-1b")
            .instance(instance(1, first, [10, 99, 0, 11]).role("router"))
            .instance(instance(2, second, [10, 99, 1, 12]).role("router"))
            .instance(instance(3, first, [10, 99, 0, 13]))
            .route_table(table(1, first).main())
            .route_table(table(2, second))
            .elastic_ip(ElasticIp::new("eipalloc-0a000000000000001", Ipv4Addr::new(203, 0, 113, 10)))
            .access_key("AKIAVIPAEXAMPLE00001", "vipa-example-secret");
        world.vpcs[0].ipv6_cidr = Some("2001:db8:99::/56".to_owned());
        world.subnets[0].ipv6_cidr = Some("2001:db8:99::/64".to_owned());
        world.subnets[1].ipv6_cidr = Some("2001:db8:99:1::/64".to_owned());
        world
    }

    /// Adds a VPC.
    pub fn vpc(mut self, id: &str, cidr: &str) -> World {
        self.vpcs.push(Vpc { id: id.to_owned(), cidr: cidr.to_owned(), ipv6_cidr: None });
        self
    }

    /// Adds a subnet.
    pub fn subnet(mut self, id: &str, vpc: &str, cidr: &str, availability_zone: &str) -> World {
        self.subnets.push(Subnet {
            id: id.to_owned(),
            vpc: vpc.to_owned(),
            cidr: cidr.to_owned(),
            ipv6_cidr: None,
            availability_zone: availability_zone.to_owned(),
        });
        self
    }

    /// Adds an instance.
    pub fn instance(mut self, instance: Instance) -> World {
        self.instances.push(instance);
        self
    }

    /// Adds a network interface without an instance.
    pub fn unattached(mut self, interface: NetworkInterface) -> World {
        self.network_interfaces.push(interface);
        self
    }

    /// Adds a route table.
    pub fn route_table(mut self, table: RouteTable) -> World {
        self.route_tables.push(table);
        self
    }

    /// Adds an Elastic IP.
    pub fn elastic_ip(mut self, elastic_ip: ElasticIp) -> World {
        self.elastic_ips.push(elastic_ip);
        self
    }

    /// Adds a user's access key.
    pub fn access_key(mut self, id: &str, secret: &str) -> World {
        self.access_keys.push(AccessKey { id: id.to_owned(), secret: Some(secret.to_owned()), ..AccessKey::default() });
        self
    }

    /// Makes each read show the state of exactly `age` ago; [`Duration::ZERO`]: the current state.
    pub fn stale_reads(mut self, age: Duration) -> World {
        self.stale_reads = StaleReads::ExactlyMs(age.as_millis() as u64);
        self
    }

    /// Sets the effect of a claim with a bad address.
    pub fn batch(mut self, batch: Batch) -> World {
        self.batch = batch;
        self
    }

    /// Sets how long `AssociateAddress` refuses an address after it was assigned.
    pub fn association_lag(mut self, lag: Duration) -> World {
        self.association_lag_ms = lag.as_millis() as u64;
        self
    }

    /// Sets the limit of routes of an address family in a route table.
    pub fn routes_per_table(mut self, limit: usize) -> World {
        self.routes_per_table = limit;
        self
    }

    /// Sets the throttling; `None`: none.
    pub fn throttling(mut self, throttling: Option<Throttling>) -> World {
        self.throttling = throttling;
        self
    }

    /// Sets how many seconds EC2's clock is ahead of this machine's.
    pub fn clock_ahead(mut self, seconds: i64) -> World {
        self.clock_ahead_seconds = seconds;
        self
    }

    /// Sets the limit for the client's clock; `None`: no limit.
    pub fn clock_tolerance(mut self, tolerance: Option<Duration>) -> World {
        self.clock_tolerance_seconds = tolerance.map(|tolerance| tolerance.as_secs());
        self
    }
}
