//! The agent: the event loop around the claim state machine.
//!
//! One task owns the machine, and everything that happens reaches it as an [`Event`]. Calls to EC2 and IMDS run as
//! tasks of their own and return their results through a channel, so that the loop never waits for the network. Every
//! future of the loop's `select!` is safe to drop: each documents why, timers hold no state, and a channel's `recv`
//! loses nothing.

mod config_watch;
mod effects;
mod failovers;
mod hook_log;
mod liveness;
mod log;
mod metrics_writer;
mod proofs;
mod requests;
pub mod state;
mod state_writer;
mod watchdog;

use std::future::pending;
use std::io;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio::time::sleep_until;
use vipa_core::claim::{Action, BootInstant, Event, Machine, RestoredState};
use vipa_core::keepalived::groups::Groups;
use vipa_core::keepalived::notify_line::Splitter;
use vipa_core::model::config::Config;
use vipa_core::model::counters::Counters;
use vipa_core::model::history::{Record, RecordKind};
use vipa_core::model::pause::Now;
use vipa_core::model::vrrp::NotifyEvent;
use vipa_core::report::model::FileErrorKind;
use vipa_core::report::reasons;

use self::effects::{EffectResult, Effects};
use self::hook_log::HookLog;
use self::liveness::Liveness;
use self::log::{AgentLog, LoggedChange};
use self::metrics_writer::{MetricsStep, MetricsWriter};
use self::proofs::Proving;
use self::requests::PendingReplies;
use self::state_writer::StateWriter;
use self::watchdog::Watchdog;
use crate::agent::config_watch::{Changed, ConfigWatch};
use crate::agent::state::PersistentState;
use crate::control::server::{self, BindError, Server};
use crate::fs::json_file::{self, FileError};
use crate::keepalived::fifo::{self, Fifo};
use crate::log_messages::log;
use crate::netlink::addresses::{self, Addresses, Local, Puts};
use crate::paths::Paths;

/// Identifies this boot of the router (random(4)).
const BOOT_ID_PATH: &str = "/proc/sys/kernel/random/boot_id";

/// Why the agent could not start.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// Another agent runs.
    #[error("another agent is running and holds {path}: see `systemctl status vyos-aws-vipa`")]
    Running {
        /// The lock that it holds.
        path: PathBuf,
    },
    /// The control socket cannot be created.
    #[error("cannot listen on {path}: {source}; the unit's RuntimeDirectory creates its directory")]
    Socket {
        /// The socket's path.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// The signal handlers cannot be installed.
    #[error("cannot listen for SIGTERM: {0}")]
    Signal(io::Error),
}

/// Runs until SIGTERM or SIGINT. The addresses stay assigned.
///
/// # Errors
/// [`AgentError`]: only failures that a retry cannot solve. The agent waits for missing files, IMDS and EC2.
pub async fn run(paths: &Paths) -> Result<(), AgentError> {
    let mut terminate = signal(SignalKind::terminate()).map_err(AgentError::Signal)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(AgentError::Signal)?;
    let (calls, mut called) = mpsc::channel(2 * server::MAX_CONNECTIONS);
    let server = Server::bind(&paths.socket).map_err(|error| match error {
        BindError::Running(path) => AgentError::Running { path },
        BindError::Io(source) => AgentError::Socket { path: paths.socket.clone(), source },
    })?;
    tokio::spawn(server.run(calls));
    let mut fifo = Fifo::new(&paths.fifo);
    let mut watch = ConfigWatch::new(paths);
    let mut addresses = Addresses::new();
    let (answered, mut answers) = mpsc::unbounded_channel();
    let state = PersistentState::load(&paths.state);
    let effects = Effects::new(answered, &state, paths.credentials.clone());
    let mut agent = Agent::new(paths, state, effects);
    // Before the first notify event is read: if the two disagree, the interface is right.
    match addresses::list().await {
        Ok(addresses) => agent.local(addresses, false),
        Err(error) => log!(LOCAL_ADDRESSES_NOT_READ, %error),
    }
    agent.restore_ownership_losses();
    agent.report_instance();
    agent.restore_pauses();
    agent.read_config();
    agent.read_groups();
    // Ready before any access to the network: the start of the unit never waits for AWS.
    if let Err(error) = sd_notify::notify(&[sd_notify::NotifyState::Ready]) {
        log!(SD_NOTIFY_FAILED, %error);
    }
    let version = env!("CARGO_PKG_VERSION");
    log!(AGENT_STARTED, version);
    let started = Record::new(Timestamp::now(), RecordKind::Started { version: version.to_owned() });
    agent.state.record(started);
    agent.state_writer.notice(&agent.state, Instant::now());
    let mut watchdog = Watchdog::new();
    agent.effects.identify();
    loop {
        let deadline = agent.machine.deadline().map(|moment| agent.clock.instant(moment));
        let look_again = agent.look_again();
        let hook_lasts = agent.hook.log.due().map(|moment| agent.clock.instant(moment));
        tokio::select! {
            biased;
            () = watchdog.due() => watchdog.feed(),
            // Before the FIFO: keepalived writes about a group only after its configuration is in place, so every notify event
            // is about a known group.
            changed = watch.changed() => match changed {
                Changed::Config => agent.read_config(),
                Changed::Groups => agent.read_groups(),
            },
            event = fifo.next() => agent.fifo(event, fifo.times_full()),
            Some(answer) = answers.recv() => agent.answer(answer),
            (local, puts) = addresses.changed() => agent.addresses(local.clone(), puts.clone()),
            Some(call) = called.recv() => agent.handle_request(call),
            () = at(deadline) => agent.handle(Event::Tick),
            () = at(hook_lasts) => agent.log_missing_hook(),
            () = agent.liveness.due(look_again) => agent.check_liveness(),
            change = agent.effects.credentials_changed() => {
                // First, so that what was denied to the new ones is not ready in between.
                agent.denials_changed();
                agent.handle(Event::Credentials(change));
            }
            () = agent.waiters.due() => agent.reply(),
            step = agent.state_writer.due() => {
                agent.state_writer.step(&mut agent.state, step);
                agent.reply();
            }
            step = agent.metrics.due() => agent.metrics_step(step),
            () = agent.log.due() => agent.log.write_due(),
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
        }
    }
    agent.log.write_rest();
    log!(AGENT_STOPS);
    // There is no one left to report a failure to.
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Stopping]);
    agent.metrics.end().await;
    if let Err(error) = agent.state_writer.end(&mut agent.state).await {
        log!(STATE_NOT_WRITTEN, %error);
    }
    Ok(())
}

async fn at(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline.into()).await,
        None => pending().await,
    }
}

/// The boot clock. It includes the time in which the router was suspended, which timers do not: after a suspension a
/// timer is late, and the state machine detects that.
#[derive(Debug, Clone, Copy)]
struct BootClock {
    started: BootInstant,
}

impl BootClock {
    fn start() -> Self {
        Self { started: Self::read() }
    }

    fn read() -> BootInstant {
        let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        BootInstant::after_boot(time.try_into().unwrap_or_default())
    }

    fn now(self) -> BootInstant {
        Self::read()
    }

    fn instant(self, moment: BootInstant) -> Instant {
        let left = self.now().until(moment);
        Instant::now() + left
    }

    /// The time of day of a boot instant, by the current setting of the clock.
    fn timestamp(self, moment: BootInstant) -> Timestamp {
        let now = self.now();
        let wall = Timestamp::now();
        if moment <= now {
            wall.saturating_sub(moment.until(now)).unwrap_or(Timestamp::MIN)
        } else {
            wall.saturating_add(now.until(moment)).unwrap_or(Timestamp::MAX)
        }
    }
}

struct Agent<'a> {
    paths: &'a Paths,
    clock: BootClock,
    /// The id of this boot; empty: unknown. Then only the time of day counts.
    boot: String,
    machine: Machine,
    effects: Effects,
    state: PersistentState,
    state_writer: StateWriter,
    /// What happened since the start; the calls of EC2 are counted by `effects`.
    counters: Counters,
    metrics: MetricsWriter,
    log: AgentLog,
    liveness: Liveness,
    waiters: PendingReplies,
    /// What an operator has proved.
    proving: Proving,
    /// When the last fresh report was requested.
    fresh_asked: Option<BootInstant>,
    splitter: Splitter,
    /// The origin of local addresses, as last reported to the machine.
    puts: Puts,
    config: Config,
    groups: Groups,
    config_file: ReadFile,
    groups_file: ReadFile,
    hook: HookState,
}

/// The transition hook.
#[derive(Debug, Default)]
struct HookState {
    attached: Option<(bool, BootInstant)>,
    log: HookLog,
    last_notify_event: Option<BootInstant>,
    /// When the last bytes were read that were neither in a backlog nor discarded.
    last_news: Option<BootInstant>,
    fifo_full_count: u64,
    /// The FIFO was found full and has not been drained yet: what it holds is outdated.
    discarding: bool,
}

impl<'a> Agent<'a> {
    fn new(paths: &'a Paths, state: PersistentState, effects: Effects) -> Self {
        let clock = BootClock::start();
        Self {
            paths,
            clock,
            boot: std::fs::read_to_string(BOOT_ID_PATH).unwrap_or_default().trim().to_owned(),
            machine: Machine::new(clock.started, fastrand::u64(..)),
            effects,
            state,
            state_writer: StateWriter::default(),
            counters: Counters::default(),
            metrics: MetricsWriter::new(paths.metrics.clone()),
            log: AgentLog::default(),
            liveness: Liveness::new(paths),
            waiters: PendingReplies::default(),
            proving: Proving::default(),
            fresh_asked: None,
            splitter: Splitter::default(),
            puts: Puts::default(),
            config: Config::default(),
            groups: Groups::default(),
            config_file: ReadFile::default(),
            groups_file: ReadFile::default(),
            hook: HookState::default(),
        }
    }

    /// Passes an event to the state machine, and carries out its actions.
    fn handle(&mut self, event: Event) {
        self.handle_at(self.clock.now(), event);
    }

    fn handle_at(&mut self, now: BootInstant, event: Event) {
        for action in self.machine.handle(now, event) {
            match action {
                Action::Claim { id, request, timeout, notified } => {
                    let resources = request.resources();
                    self.effects.claim(id, request, timeout, notified);
                    self.record_request(now, &resources);
                }
                Action::Read { id, request, timeout } => self.effects.read(id, request, timeout),
                Action::DryRun { id, request, timeout } => self.effects.dry_run(id, request, timeout),
                Action::Inspect { wants_limit, enis, timeout } => self.effects.inspect(wants_limit, enis, timeout),
                Action::Resolve(interface) => self.effects.resolve(interface),
                Action::ReadLocalAddresses => self.effects.list_addresses(),
                Action::ReadNetwork => self.effects.read_network(),
                Action::Log(note) => self.note(now, note),
            }
        }
        self.effects.withdraw_claims(|resource| self.machine.wants(resource));
        self.liveness.wanted(self.look_again(), now);
        self.state_writer.notice(&self.state, Instant::now());
        self.metrics.notice(Instant::now());
        self.reply();
    }

    fn metrics_step(&mut self, step: MetricsStep) {
        match step {
            MetricsStep::Write => self.metrics.write(self.report(0), self.counted(), Instant::now()),
            MetricsStep::Completed(result) => self.metrics.completed(result),
        }
    }

    /// What happened since the start, with what the calls of EC2 show.
    fn counted(&self) -> Counters {
        Counters { notify_to_request: self.effects.notify_to_request(), ..self.counters.clone() }
    }

    fn restore_ownership_losses(&mut self) {
        let (now, wall) = (self.clock.now(), Timestamp::now());
        let moment = |time: &Timestamp| now.earlier(wall.duration_since(*time).try_into().unwrap_or_default());
        let ownership_losses = self.state.loss_history.get().ownership_losses().into_iter();
        let past = ownership_losses.map(|((group, resource), ownership_losses)| RestoredState {
            group: group.clone(),
            resource: resource.clone(),
            losses: ownership_losses.times.iter().filter_map(|(time, by)| Some((moment(time)?, *by))).collect(),
            contested: ownership_losses.contested,
        });
        self.handle(Event::Restored(past.collect()));
    }

    fn restore_pauses(&mut self) {
        let now = self.of_both_kinds(self.clock.now());
        let lasting: Vec<_> =
            self.state.pauses.get().lasting(&now).map(|(group, left)| (group.clone(), left)).collect();
        for (group, left) in lasting {
            self.handle(Event::Pause { group, until: self.clock.now() + left });
        }
    }

    fn addresses(&mut self, local: Local, puts: Puts) {
        self.local(local, false);
        if puts != self.puts {
            self.puts.clone_from(&puts);
            self.handle(Event::PutBy(puts));
        }
    }

    fn local(&mut self, addresses: Local, asked: bool) {
        self.handle(Event::LocalAddresses { addresses, requested: asked });
    }

    fn fifo(&mut self, event: fifo::FifoEvent, times_full: u64) {
        self.hook.fifo_full_count = times_full;
        match event {
            fifo::FifoEvent::Backlog { bytes, was_full } => {
                self.splitter = Splitter::default();
                let lines = self.lines(&bytes);
                self.handle(Event::Backlog { lines, was_full });
            }
            fifo::FifoEvent::Full => {
                self.log.change(LoggedChange::FifoFull, "");
                self.hook.discarding = true;
            }
            fifo::FifoEvent::Bytes(bytes) => {
                let read = self.clock.now();
                let lines = self.lines(&bytes);
                if !self.hook.discarding {
                    self.hook.last_news = self.hook.last_notify_event;
                    self.handle_at(read, Event::Notify(lines));
                }
                self.metrics.put_off(Instant::now());
            }
            fifo::FifoEvent::Drained => {
                self.hook.discarding = false;
                self.handle(Event::FifoFull);
            }
            fifo::FifoEvent::Hup => self.handle(Event::Hup),
            fifo::FifoEvent::WriterGone { why } => {
                self.hook.log.gone(self.clock.now(), why.to_string());
                self.writer(false);
            }
            fifo::FifoEvent::WriterBack => {
                if self.hook.log.back() {
                    self.log.change(LoggedChange::Hook { gone: None }, "");
                }
                self.writer(true);
            }
        }
    }

    fn lines(&mut self, bytes: &[u8]) -> Vec<NotifyEvent> {
        if !bytes.is_empty() {
            self.hook.last_notify_event = Some(self.clock.now());
        }
        self.splitter.push(bytes)
    }

    fn writer(&mut self, there: bool) {
        self.hook.attached = Some((there, self.clock.now()));
        self.handle(Event::Writer(there));
    }

    fn log_missing_hook(&mut self) {
        if let Some(reason) = self.hook.log.lasts(self.clock.now()) {
            self.log.change(LoggedChange::Hook { gone: Some(reason) }, "");
        }
    }

    /// How soon keepalived's liveness is sampled again, if it may run.
    fn look_again(&self) -> Option<Duration> {
        let is_attached = matches!(self.hook.attached, Some((true, _)));
        self.machine.liveness_poll_interval(self.clock.now()).or(is_attached.then_some(liveness::STATUS_INTERVAL))
    }

    fn check_liveness(&mut self) {
        if let Some(event) = self.liveness.look(self.clock.now()) {
            self.handle(event);
        }
    }

    fn answer(&mut self, answer: EffectResult) {
        let read = match &answer {
            EffectResult::Read { result: Ok(_), request_id, .. } => Some(request_id.clone()),
            _ => None,
        };
        if let EffectResult::Proved(findings) = answer {
            return self.proved(findings);
        }
        let event = self.effects.answered(answer, &mut self.state, self.clock);
        self.report_instance();
        let before = self.clock.now();
        if let Some(event) = event {
            self.handle(event);
        }
        if let Some(request_id) = read {
            self.record_owners(before, request_id.as_ref());
            self.state_writer.notice(&self.state, Instant::now());
        }
    }

    /// An instant by both clocks.
    fn of_both_kinds(&self, at: BootInstant) -> Now {
        Now { wall: self.clock.timestamp(at), boot: self.boot.clone(), since_boot: at.since_boot() }
    }

    /// Passes the instance id to the machine once it is known.
    fn report_instance(&mut self) {
        if let Some(instance) = self.effects.instance_id()
            && self.machine.instance() != Some(&instance)
        {
            self.handle(Event::Instance(instance));
            self.denials_changed();
        }
    }

    fn read_config(&mut self) {
        match json_file::read::<Config>(&self.paths.config) {
            Ok(config) => {
                self.config_file.is_read();
                self.effects.configure(&config.global);
                self.state.forget_unconfigured(&config, &self.groups);
                self.counters.retain(|name| config.groups.iter().any(|group| group.name.as_str() == name));
                self.config = config.clone();
                log!(CONFIGURATION_READ, groups = config.groups.len(), skipped = config.skipped.len());
                self.handle(Event::Config(config));
                self.denials_changed();
                self.effects.retain(|resource| self.machine.group_of(resource).is_some());
            }
            Err(error) => self.config_file.is_unread(&error),
        }
    }

    fn read_groups(&mut self) {
        match json_file::read::<Groups>(&self.paths.groups) {
            Ok(groups) => {
                self.groups_file.is_read();
                if self.config_file.was_read {
                    self.state.forget_unconfigured(&self.config, &groups);
                }
                self.groups = groups.clone();
                log!(GROUPS_READ, groups = groups.groups.len());
                self.handle(Event::Groups(groups));
            }
            Err(error) => self.groups_file.is_unread(&error),
        }
    }
}

/// The state of a file that `commit` or the hook writes.
#[derive(Debug, Default)]
struct ReadFile {
    /// It was loaded once: that version stays in force until the file can be loaded again.
    was_read: bool,
    /// Why the current content of the file is not in force, if so.
    unread: Option<(String, FileErrorKind)>,
}

impl ReadFile {
    fn is_read(&mut self) {
        *self = Self { was_read: true, unread: None };
    }

    fn is_unread(&mut self, error: &FileError) {
        let kind = match error {
            FileError::Newer { .. } => FileErrorKind::Newer,
            _ if self.was_read => FileErrorKind::UsingPrevious,
            _ => FileErrorKind::NoConfiguration,
        };
        match error {
            FileError::Missing(_) if !self.was_read => log!(FILE_MISSING, %error),
            _ => log!(FILE_NOT_LOADED, %error, effect = reasons::file_error(kind).0),
        }
        self.unread = Some((error.to_string(), kind));
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::path::Path;

    use vipa_core::keepalived::groups::{AdvertiseInterval, RunningGroup, VirtualAddress};
    use vipa_core::model::config::GroupConfig;
    use vipa_core::model::ids::{GroupName, InterfaceName};
    use vipa_core::model::vrrp::NotifyState;

    use super::*;

    /// An agent whose 200 groups, with an address each, have just become MASTER. It keeps its state in that directory, and
    /// only logs: nothing else of what the machine wants is done.
    pub(super) fn agent_of_two_hundred_masters<'a>(paths: &'a Paths, directory: &Path) -> Agent<'a> {
        let state = PersistentState::load(directory);
        let effects = Effects::new(tokio::sync::mpsc::unbounded_channel().0, &state, paths.credentials.clone());
        let mut agent = Agent::new(paths, state, effects);
        let names = (0..200).map(|n| GroupName::try_from(format!("group-of-customer-{n:03}")).expect("a name"));
        let names: Vec<GroupName> = names.collect();
        let run = |(name, n): (&GroupName, u8)| RunningGroup {
            name: name.clone(),
            interface: InterfaceName::try_from("eth0").expect("a name"),
            vrid: n,
            priority: 100,
            advertise_interval: AdvertiseInterval::default(),
            peers: Vec::new(),
            addresses: vec![VirtualAddress { address: Ipv4Addr::new(10, 0, 0, n), interface: None }],
        };
        agent.groups = Groups { groups: names.iter().zip(0..).map(run).collect() };
        agent.config = Config { groups: names.iter().cloned().map(GroupConfig::new).collect(), ..Config::default() };
        let master = |group: &GroupName| NotifyEvent { group: group.clone(), state: NotifyState::Master };
        let now = agent.clock.now();
        for event in [
            Event::Config(agent.config.clone()),
            Event::Groups(agent.groups.clone()),
            Event::Notify(names.iter().map(master).collect()),
        ] {
            for action in agent.machine.handle(now, event) {
                if let Action::Log(note) = action {
                    agent.note(now, note);
                }
            }
        }
        agent
    }

    #[test]
    fn what_was_read_once_is_old_and_never_nothing() {
        let newer = || FileError::Newer { path: "config.json".into(), found: 2 };
        let rubbish = || FileError::Content { path: "config.json".into(), reason: "rubbish".to_owned() };
        let mut file = ReadFile::default();
        let mut kind_after = |error: FileError| {
            file.is_unread(&error);
            file.unread.as_ref().map(|(_, kind)| *kind)
        };
        assert_eq!(kind_after(FileError::Missing("config.json".into())), Some(FileErrorKind::NoConfiguration));
        assert_eq!(kind_after(newer()), Some(FileErrorKind::Newer));
        assert_eq!(kind_after(rubbish()), Some(FileErrorKind::NoConfiguration));
        file.is_read();
        assert!(file.unread.is_none());
        let mut kind_after = |error: FileError| {
            file.is_unread(&error);
            file.unread.as_ref().map(|(_, kind)| *kind)
        };
        assert_eq!(kind_after(newer()), Some(FileErrorKind::Newer));
        assert_eq!(kind_after(rubbish()), Some(FileErrorKind::UsingPrevious));
    }
}
