//! The status report and the counters in Prometheus's text format (version 0.0.4).
//!
//! A word, such as a verdict, is the value of a label, and the series with the present word is 1; those with other words are
//! absent. So the size does not depend on how many words there are. What is not known is absent too.

use std::fmt::{self, Display, Write};

use jiff::Timestamp;
use serde::Serialize;

use super::model::{CallsReport, GroupReport, LocalAddressReport, OwnerReport, Report, ResourceReport};
use crate::model::calls::Outcomes;
use crate::model::counters::{Bounds, Claims, Counters, Histogram};
use crate::model::ec2::{ErrorClass, Taker};
use crate::model::resource::{Kind, Resource};
use crate::model::verdict::Verdict;
use crate::printable;

/// A metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Metric {
    /// Its name.
    pub name: &'static str,
    /// What its `# TYPE` line says.
    pub kind: MetricKind,
    /// The names of its labels, in the order of their values; without the `le` of a histogram.
    pub labels: &'static [&'static str],
    /// What it means.
    pub help: &'static str,
}

/// The type of a metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MetricKind {
    /// A number that goes up and down.
    Gauge,
    /// A number that only goes up, and starts at 0 with the agent.
    Counter,
    /// Counts of durations.
    Histogram,
}

impl MetricKind {
    /// As the text format has it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Gauge => "gauge",
            Self::Counter => "counter",
            Self::Histogram => "histogram",
        }
    }
}

macro_rules! metrics {
    ($($id:ident = $kind:ident $name:literal [$($label:ident),*] $help:literal;)*) => {
        $(
            const $id: Metric = Metric {
                name: concat!("vyos_aws_vipa_", $name),
                kind: MetricKind::$kind,
                labels: &[$(stringify!($label)),*],
                help: $help,
            };
        )*

        /// All metrics, in the order of the text.
        pub const ALL: &[Metric] = &[$($id),*];
    };
}

metrics! {
    BUILD_INFO = Gauge "build_info" [version] "1, with the version of the agent.";
    START_TIME = Gauge "start_time_seconds" [] "When the agent started.";
    INSTANCE_INFO = Gauge "instance_info" [instance_id, region] "1, with this instance and the region that is called.";
    CONFIGURATION_ERROR = Gauge "configuration_error" [] "1 if the agent cannot load the current config.json or groups.json.";
    HOOK_ATTACHED = Gauge "hook_attached" [] "Whether keepalived has the FIFO of notify events open.";
    FIFO_FULL = Counter "fifo_full_total" [] "How often the FIFO was full, so that notify events may be lost.";
    NOTIFY_EVENT = Gauge "last_notify_event_timestamp_seconds" [] "When the last notify event was read.";
    ACTIVITY = Gauge "last_keepalived_activity_timestamp_seconds" [] "When keepalived was last seen active.";
    VRRP_STATE = Gauge "vrrp_state" [group, state] "1, with the VRRP state of the group.";
    VRRP_STATE_SINCE = Gauge "vrrp_state_change_timestamp_seconds" [group] "Since when the group has its VRRP state.";
    TRANSITIONS = Counter "vrrp_transitions_total" [group] "Changes of the VRRP state.";
    GROUP_ERRORS = Gauge "group_errors" [group] "Configuration errors because of which the group, or some of what it moves, is skipped.";
    GROUP_PAUSED = Gauge "group_paused" [group] "Whether an operator has paused the claims of the group.";
    STANDBY_READY = Gauge "standby_ready" [group] "1 if nothing that is known prevents a failover to this router, else 0; absent while the group is not standby, or something is unknown.";
    CONTESTED = Gauge "contested_resources" [group] "How many resources of the group are contested.";
    LOSSES = Counter "ownership_losses_total" [group, taker] "Resources of the group that another owner took while the group was MASTER.";
    VERDICT = Gauge "resource_verdict" [group, kind, resource, verdict] "1, with the verdict on the resource.";
    REASON = Gauge "resource_reason" [group, kind, resource, reason] "1, with the code of the reason for the verdict; absent without one.";
    LOCAL = Gauge "resource_local" [group, kind, resource] "Whether the address is on an interface of this router; absent for routes and Elastic IPs.";
    OWNER = Gauge "resource_owner" [group, kind, resource, owner, eni, instance_id] "1, with the owner of the resource by the last read; absent if it was never read.";
    OWNER_READ = Gauge "resource_owner_read_timestamp_seconds" [group, kind, resource] "When the owner of the resource was last read.";
    CLAIMS = Counter "claims_total" [kind, outcome, class] "Claims, by kind of resource, outcome and class of the failure.";
    CLAIM_DURATION = Histogram "claim_duration_seconds" [kind] "How long acknowledged claims took.";
    NOTIFY_TO_REQUEST = Histogram "notify_to_request_seconds" [] "Time from reading a notify event until the first request for each resource is handed to its connection. Retries do not count.";
    CALLS = Counter "ec2_calls_total" [operation, outcome] "Calls of EC2, by API operation and outcome.";
    CALLS_SENT_AGAIN = Counter "ec2_requests_sent_again_total" [operation] "Requests to EC2 that were late and were sent again on a new connection.";
    LAST_SUCCESS = Gauge "ec2_last_success_timestamp_seconds" [] "When EC2 last answered a claim or a read with success.";
    LAST_CALL_FAILED = Gauge "ec2_last_call_failed" [] "Whether the last claim or read failed; absent before one has ended.";
    CREDENTIALS_LOADED = Gauge "credentials_loaded_timestamp_seconds" [] "When the credentials were loaded.";
    CREDENTIALS_EXPIRY = Gauge "credentials_expiry_timestamp_seconds" [] "When the credentials expire; absent if they do not, or are not loaded.";
    CREDENTIALS_ERROR = Gauge "credentials_error" [] "Whether the last attempt to load credentials failed; earlier ones may still be in use. Absent before an attempt.";
    CLOCK_SKEW = Gauge "clock_skew_seconds" [] "EC2's clock minus this router's; 0 below 5 seconds, absent before an answer has shown EC2's clock.";
}

/// About how many bytes a group with one resource takes.
const BYTES_PER_GROUP: usize = 1_400;

/// The text of an agent's report with its counters.
pub fn render(report: &Report, counters: &Counters) -> String {
    let mut text = Text(String::with_capacity(8_192 + report.groups.len() * BYTES_PER_GROUP));
    agent(&mut text, report);
    groups(&mut text, report, counters);
    resources(&mut text, report);
    claims(&mut text, report, counters);
    ec2(&mut text, report);
    text.0
}

fn agent(text: &mut Text, report: &Report) {
    if let Some(agent) = &report.agent {
        text.family(&BUILD_INFO).sample(&[&agent.version], 1);
        text.time(&START_TIME, Some(agent.since));
    }
    let instance = report.ec2.instance.as_ref().map_or("", |instance| instance.as_str());
    let region = report.ec2.region.as_ref().map_or("", |region| region.as_str());
    text.family(&INSTANCE_INFO).sample(&[&instance, &region], 1);
    if let Some(agent) = &report.agent {
        text.value(&CONFIGURATION_ERROR, u8::from(agent.file_error.is_some()));
    }
    text.known(&HOOK_ATTACHED, report.hook.attached.map(u8::from));
    text.value(&FIFO_FULL, report.hook.fifo_full_count);
    text.time(&NOTIFY_EVENT, report.hook.last_notify_event_at);
    text.time(&ACTIVITY, report.hook.last_activity_at);
}

fn groups(text: &mut Text, report: &Report, counters: &Counters) {
    let groups = report.groups.iter();
    let groups: Vec<_> = groups.map(|group| (Labels::new(&VRRP_STATE, &[&group.name]), group)).collect();
    let mut each = |metric, value: &dyn Fn(&GroupReport) -> Option<u64>| {
        let mut family = text.family(metric);
        for (labels, group) in &groups {
            if let Some(value) = value(group) {
                family.after(labels, &[], value);
            }
        }
    };
    let counted = |group: &GroupReport| counters.groups.get(&group.name);
    each(&TRANSITIONS, &|group| Some(counted(group).map_or(0, |counters| counters.transitions)));
    each(&GROUP_ERRORS, &|group| Some(group.errors.len() as u64));
    each(&GROUP_PAUSED, &|group| Some(group.paused_until.is_some().into()));
    each(&STANDBY_READY, &|group| is_ready(group).map(u64::from));
    each(&CONTESTED, &|group| Some(verdicts(group).filter(|verdict| *verdict == Verdict::Contested).count() as u64));

    let mut states = text.family(&VRRP_STATE);
    for (labels, group) in &groups {
        states.after(labels, &[&group.vrrp], 1);
    }
    let mut since = text.family(&VRRP_STATE_SINCE);
    for (labels, group) in &groups {
        if let Some(at) = group.vrrp_since {
            since.after(labels, &[], Seconds(at));
        }
    }
    let mut losses = text.family(&LOSSES);
    for (labels, group) in &groups {
        for taker in [Taker::Peer, Taker::ThirdParty] {
            let count = counted(group).and_then(|counters| counters.losses.get(&taker).copied());
            losses.after(labels, &[&Word(taker)], count.unwrap_or_default());
        }
    }
}

fn verdicts(group: &GroupReport) -> impl Iterator<Item = Verdict> {
    group.items().map(|item| item.verdict)
}

/// Whether nothing prevents a failover to a standby; absent if the group is no standby, or if something is not known.
fn is_ready(group: &GroupReport) -> Option<bool> {
    let has = |verdict| verdicts(group).any(|other| other == verdict);
    let all_are_ready =
        verdicts(group).next().is_some() && verdicts(group).all(|verdict| verdict == Verdict::StandbyReady);
    if has(Verdict::StandbyNotReady) { Some(false) } else { all_are_ready.then_some(true) }
}

/// What the series about one resource show. Addresses, routes and Elastic IPs have the same series.
struct ResourceSeries<'a> {
    /// Group, kind and resource.
    labels: Labels,
    verdict: Verdict,
    reason: Option<&'a str>,
    local: Option<bool>,
    owner: Option<&'a OwnerReport>,
}

fn resource_series(group: &GroupReport) -> Vec<ResourceSeries<'_>> {
    let labels = |resource: Resource| {
        let kind = Word(resource.kind());
        Labels::new(&VERDICT, &[&group.name, &kind, &resource])
    };
    let mut all = Vec::new();
    for address in &group.addresses {
        let (verdict, reason) = (address.verdict, address.reason_code.as_deref());
        let (local, owner) = (address.local, address.owner.as_ref());
        all.push(ResourceSeries { labels: labels(address.address.into()), verdict, reason, local, owner });
    }
    for (resource, state) in other_resources(group) {
        let (verdict, reason) = (state.verdict, state.reason_code.as_deref());
        let (labels, owner) = (labels(resource), state.owner.as_ref());
        all.push(ResourceSeries { labels, verdict, reason, local: None, owner });
    }
    all
}

fn other_resources(group: &GroupReport) -> impl Iterator<Item = (Resource, &ResourceReport)> {
    let routes = group.routes.iter().map(|route| (Resource::Route(route.route.clone()), &route.state));
    let elastic_ips = group.elastic_ips.iter();
    routes.chain(elastic_ips.map(|elastic_ip| (Resource::ElasticIp(elastic_ip.allocation.clone()), &elastic_ip.state)))
}

fn resources(text: &mut Text, report: &Report) {
    let all: Vec<_> = report.groups.iter().flat_map(resource_series).collect();
    let mut verdicts = text.family(&VERDICT);
    for one in &all {
        verdicts.after(&one.labels, &[&one.verdict], 1);
    }
    let mut reasons = text.family(&REASON);
    for one in &all {
        if let Some(reason) = one.reason {
            reasons.after(&one.labels, &[&reason], 1);
        }
    }
    let mut local = text.family(&LOCAL);
    for one in &all {
        if let Some(is_local) = one.local {
            local.after(&one.labels, &[], u8::from(is_local));
        }
    }
    // They show whether the group is MASTER, but no ENI has them.
    for group in &report.groups {
        for LocalAddressReport { address, local: is_local, .. } in &group.not_assigned {
            if let Some(is_local) = is_local {
                local.sample(&[&group.name, &Word(Kind::Address), address], u8::from(*is_local));
            }
        }
    }
    let owners: Vec<_> = all.iter().filter_map(|one| Some((&one.labels, one.owner?))).collect();
    let mut by_owner = text.family(&OWNER);
    for (labels, owner) in &owners {
        let eni = owner.eni.as_ref().map_or("", |eni| eni.as_str());
        let instance = owner.instance.as_ref().map_or("", |instance| instance.as_str());
        by_owner.after(labels, &[&Word(owner.who), &eni, &instance], 1);
    }
    let mut read = text.family(&OWNER_READ);
    for (labels, owner) in &owners {
        read.after(labels, &[], Seconds(owner.at));
    }
}

/// Each kind that is configured, or was claimed, has all series from the beginning, so that an increase from 0 is seen.
fn claims(text: &mut Text, report: &Report, counters: &Counters) {
    let is_configured = |kind| match kind {
        Kind::Address => report.groups.iter().any(|group| !group.addresses.is_empty()),
        Kind::Route => report.groups.iter().any(|group| !group.routes.is_empty()),
        Kind::ElasticIp => report.groups.iter().any(|group| !group.elastic_ips.is_empty()),
    };
    let kinds: Vec<(Kind, Claims)> = Kind::ALL
        .into_iter()
        .filter(|kind| is_configured(*kind) || counters.claims.contains_key(kind))
        .map(|kind| (kind, counters.claims.get(&kind).cloned().unwrap_or_default()))
        .collect();
    let mut family = text.family(&CLAIMS);
    for (kind, claims) in &kinds {
        family.sample(&[&Word(kind), &"acknowledged", &""], claims.acknowledged);
        for class in ErrorClass::ALL {
            let count = claims.failed.get(&class).copied().unwrap_or_default();
            family.sample(&[&Word(kind), &"failed", &class.as_str()], count);
        }
    }
    let mut durations = text.family(&CLAIM_DURATION);
    for (kind, claims) in &kinds {
        durations.histogram(&[&Word(kind)], &claims.durations);
    }
    text.family(&NOTIFY_TO_REQUEST).histogram(&[], &counters.notify_to_request);
}

fn ec2(text: &mut Text, report: &Report) {
    let ec2 = &report.ec2;
    let mut calls = text.family(&CALLS);
    for CallsReport { operation, outcomes } in &ec2.calls {
        let Outcomes { succeeded, throttled, refused, failed, .. } = *outcomes;
        let counts = [("succeeded", succeeded), ("throttled", throttled), ("refused", refused), ("failed", failed)];
        for (outcome, count) in counts {
            calls.sample(&[operation, &outcome], count);
        }
    }
    let mut again = text.family(&CALLS_SENT_AGAIN);
    for CallsReport { operation, outcomes } in &ec2.calls {
        again.sample(&[operation], outcomes.sent_again);
    }
    text.time(&LAST_SUCCESS, ec2.last_success_at);
    text.known(&LAST_CALL_FAILED, has_failed(ec2.last_error.is_some(), ec2.last_success_at));
    text.time(&CREDENTIALS_LOADED, ec2.credentials_loaded_at);
    text.time(&CREDENTIALS_EXPIRY, ec2.credentials_expire_at);
    text.known(&CREDENTIALS_ERROR, has_failed(ec2.credentials_error.is_some(), ec2.credentials_loaded_at));
    text.known(&CLOCK_SKEW, ec2.clock_skew);
}

/// Whether the last attempt has failed, by its error and the time of the last success; none: there was no attempt.
fn has_failed(has_error: bool, last_success: Option<Timestamp>) -> Option<u8> {
    (has_error || last_success.is_some()).then_some(has_error.into())
}

/// The text so far.
struct Text(String);

impl Text {
    /// Begins a metric. Nothing is written of one without samples.
    fn family(&mut self, metric: &'static Metric) -> Family<'_> {
        Family { metric, text: &mut self.0, has_begun: false }
    }

    fn value(&mut self, metric: &'static Metric, value: impl Display) {
        self.family(metric).sample(&[], value);
    }

    /// Nothing is written of a value that is not known.
    fn known(&mut self, metric: &'static Metric, value: Option<impl Display>) {
        if let Some(value) = value {
            self.value(metric, value);
        }
    }

    fn time(&mut self, metric: &'static Metric, at: Option<Timestamp>) {
        self.known(metric, at.map(Seconds));
    }
}

/// A metric that is being written. Writing to a String cannot fail.
struct Family<'a> {
    metric: &'static Metric,
    text: &'a mut String,
    has_begun: bool,
}

impl Family<'_> {
    fn sample(&mut self, labels: &[&dyn Display], value: impl Display) {
        self.after(&Labels::default(), labels, value);
    }

    /// A sample whose first labels are there already.
    fn after(&mut self, first: &Labels, labels: &[&dyn Display], value: impl Display) {
        self.line("", first, labels, None, value);
    }

    fn histogram<B: Bounds>(&mut self, labels: &[&dyn Display], histogram: &Histogram<B>) {
        let labels = Labels::new(self.metric, labels);
        for (bound, count) in histogram.cumulative() {
            self.line("_bucket", &labels, &[], Some(&bound.as_secs_f64()), count);
        }
        self.line("_bucket", &labels, &[], Some(&"+Inf"), histogram.count());
        self.line("_sum", &labels, &[], None, histogram.sum().as_secs_f64());
        self.line("_count", &labels, &[], None, histogram.count());
    }

    fn line(
        &mut self,
        suffix: &str,
        first: &Labels,
        labels: &[&dyn Display],
        bound: Option<&dyn Display>,
        value: impl Display,
    ) {
        let Metric { name, kind, help, .. } = self.metric;
        if !self.has_begun {
            self.has_begun = true;
            let _ = writeln!(self.text, "# HELP {name} {help}\n# TYPE {name} {}", kind.as_str());
        }
        self.text.push_str(name);
        self.text.push_str(suffix);
        let before_labels = self.text.len();
        self.text.push('{');
        self.text.push_str(&first.text);
        let more = self.metric.labels[first.count..].iter().copied().zip(labels.iter().copied());
        write_labels(self.text, first.count > 0, more.chain(bound.map(|bound| ("le", bound))));
        if self.text.len() == before_labels + 1 {
            self.text.truncate(before_labels);
        } else {
            self.text.push('}');
        }
        let _ = writeln!(self.text, " {value}");
    }
}

/// The first labels of several samples, as they stand in the text.
#[derive(Default)]
struct Labels {
    text: String,
    count: usize,
}

impl Labels {
    /// With the names of that metric's first labels.
    fn new(metric: &Metric, values: &[&dyn Display]) -> Self {
        let mut text = String::new();
        write_labels(&mut text, false, metric.labels.iter().copied().zip(values.iter().copied()));
        Self { text, count: values.len() }
    }
}

fn write_labels<'a>(
    text: &mut String,
    mut is_preceded: bool,
    labels: impl Iterator<Item = (&'static str, &'a dyn Display)>,
) {
    for (name, value) in labels {
        if is_preceded {
            text.push(',');
        }
        is_preceded = true;
        text.push_str(name);
        text.push_str("=\"");
        let _ = write!(Escaped(text), "{value}");
        text.push('"');
    }
}

/// Writes the value of a label: without characters that do not print, and then with `\` and `"` escaped. No line feed is
/// left, which the format has an escape for too.
struct Escaped<'a>(&'a mut String);

impl Write for Escaped<'_> {
    fn write_str(&mut self, value: &str) -> fmt::Result {
        if value.bytes().all(|byte| matches!(byte, b' '..=b'~') && !matches!(byte, b'\\' | b'"')) {
            self.0.push_str(value);
            return Ok(());
        }
        for c in printable::line(value).chars() {
            if matches!(c, '\\' | '"') {
                self.0.push('\\');
            }
            self.0.push(c);
        }
        Ok(())
    }
}

/// A time, as seconds since 1970 with milliseconds.
struct Seconds(Timestamp);

impl Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let milliseconds = self.0.as_millisecond();
        write!(f, "{}.{:03}", milliseconds.div_euclid(1_000), milliseconds.rem_euclid(1_000))
    }
}

/// A word as the status report has it in JSON.
struct Word<T>(T);

impl<T: Serialize> Display for Word<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.serialize(f)
    }
}
