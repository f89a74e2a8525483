//! AWS credential sources: the keys in a file that may change, or the instance role.

use std::collections::HashSet;
use std::error::Error;
use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use aws_config::profile::ProfileFileCredentialsProvider;
use aws_config::provider_config::ProviderConfig;
use aws_credential_types::Credentials;
use aws_credential_types::provider::error::CredentialsError;
use aws_credential_types::provider::{ProvideCredentials, future};
use aws_runtime::env_config::file::{EnvConfigFileKind, EnvConfigFiles};
use aws_smithy_async::time::TimeSource;
use aws_smithy_runtime_api::client::http::SharedHttpClient;
use jiff::Timestamp;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until, timeout};
use vipa_core::model::credentials::{CredentialFacts, CredentialsChange, Identity};
use vipa_core::model::ec2::{CallError, ErrorClass, Failure, NoCredentials};
use vipa_core::model::ids::Region;
use vipa_core::report::remedies;

use super::assumptions::REFRESH_BEFORE_EXPIRY;
use super::clock::Clock;
use super::ec2::Ec2;
use super::errors::{failed, root_cause};
use super::imds::Imds;
use crate::fs::credentials_file::CredentialsFile;
use crate::fs::operator_file::FileFingerprint;
use crate::log_messages::log;
use crate::systemd::log_throttle::LogThrottle;

/// How often [`CredentialsWatch`] checks the file.
const FILE_POLL_INTERVAL: Duration = Duration::from_secs(5);
/// The least time between two refreshes of credentials that are still valid.
const MIN_REFRESH_INTERVAL: Duration = Duration::from_secs(60);
/// The least time between two attempts to replace expired credentials. While IMDS does not answer, the expired ones stay in
/// use: AWS may accept them longer than it says, and an outage of IMDS need not be one of the router.
const MIN_REPLACE_INTERVAL: Duration = Duration::from_secs(10);
/// The time limit for reading a profile, which may need a call of STS. No other reading starts before its end.
const PROFILE_READ_TIMEOUT: Duration = Duration::from_secs(5);

/// The credentials of one EC2 client. Clones are the same credentials.
#[derive(Clone)]
pub(super) struct Keys(Arc<KeysInner>);

struct KeysInner {
    source: Source,
    clock: Clock,
    state: Mutex<KeysState>,
    /// Held while credentials are read, so that concurrent calls read them once.
    reading: tokio::sync::Mutex<()>,
    changed: watch::Sender<Generation>,
}

enum Source {
    /// One shared credentials file. A profile with `role_arn` is supported if its keys are in another profile of the file
    /// (`source_profile`): AssumeRole at STS's public endpoint for the region. No other kind of profile
    /// (`credential_source`, `credential_process`, web identity, SSO) and no other endpoint is supported.
    File {
        file: CredentialsFile,
        profile: String,
        region: Region,
        /// For calls of STS.
        http: Mutex<SharedHttpClient>,
    },
    Role(Imds),
}

#[derive(Default)]
struct KeysState {
    current: Option<Loaded>,
    /// Why the last reading failed.
    error: Option<CallError>,
    /// Limits the log lines about `error`, by its message.
    throttle: LogThrottle<String>,
    /// The fingerprint of the file at the last reading.
    fingerprint: FileFingerprint,
    /// How many readings have ended, and when the last one did.
    readings: u64,
    read_at: Option<Instant>,
    generation: Generation,
}

struct Loaded {
    credentials: Credentials,
    at: SystemTime,
    /// The instance role's name, or the ARN of the role that the profile assumes; none for the keys in a file.
    role: Option<String>,
}

/// A number that grows with each change of the credentials.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(super) struct Generation(u64);

/// The action needed before the credentials are used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Before {
    Nothing,
    /// They are valid; newer ones are read in the background.
    StartReading,
    Read,
}

impl Keys {
    pub(super) fn file(
        path: PathBuf,
        copy: Option<PathBuf>,
        profile: String,
        region: Region,
        http: SharedHttpClient,
        clock: Clock,
    ) -> Self {
        let file = CredentialsFile::new(path, copy);
        Self::new(Source::File { file, profile, region, http: Mutex::new(http) }, clock)
    }

    /// Replaces the HTTP client for STS.
    pub(super) fn set_http(&self, new: &SharedHttpClient) {
        if let Source::File { http, .. } = &self.0.source {
            *http.lock().unwrap_or_else(PoisonError::into_inner) = new.clone();
        }
    }

    pub(super) fn role(imds: Imds, clock: Clock) -> Self {
        Self::new(Source::Role(imds), clock)
    }

    fn new(source: Source, clock: Clock) -> Self {
        Self(Arc::new(KeysInner {
            source,
            clock,
            state: Mutex::default(),
            reading: tokio::sync::Mutex::default(),
            changed: watch::Sender::default(),
        }))
    }

    /// Makes sure that there are credentials to sign with, and returns their generation. Waits only if there are no valid
    /// ones. Does not check the file for changes: [`CredentialsWatch`] and [`Keys::read_after_refusal`] do.
    ///
    /// # Errors
    /// [`Failure::Credentials`]: there are none, with the reason.
    pub(super) async fn ready(&self) -> Result<Generation, CallError> {
        let (before, readings) = self.look();
        match before {
            Before::Nothing => {}
            Before::StartReading => drop(self.start_reading(readings)),
            Before::Read => self.read(readings).await,
        }
        let state = self.state();
        match (&state.current, &state.error) {
            (Some(_), _) => Ok(state.generation),
            (None, Some(error)) => Err(error.clone()),
            (None, None) => Err(self.0.source.no_answer("not yet")),
        }
    }

    /// The failure of a call that ended while credentials were read.
    pub(super) fn no_answer(&self, within: Duration) -> CallError {
        self.0.source.no_answer(&format!("within {within:?}"))
    }

    /// Call after a refusal of the credentials `used`: reads them again, unless that has been done, and returns whether other
    /// ones are in use now.
    pub(super) async fn read_after_refusal(&self, used: Generation) -> bool {
        let readings = {
            let state = self.state();
            if state.generation != used {
                return state.current.is_some();
            }
            state.readings
        };
        self.read(readings).await;
        let state = self.state();
        state.generation != used && state.current.is_some()
    }

    pub(super) fn facts(&self) -> CredentialFacts {
        let state = self.state();
        let loaded = state.current.as_ref();
        CredentialFacts {
            source: self.0.source.describe(loaded.and_then(|l| l.role.as_deref())),
            access_key_id: loaded.map(|l| l.credentials.access_key_id().to_owned()),
            loaded_at: loaded.and_then(|l| Timestamp::try_from(l.at).ok()),
            expires_at: loaded.and_then(|l| l.credentials.expiry()).and_then(|at| Timestamp::try_from(at).ok()),
            error: state.error.clone(),
        }
    }

    pub(super) fn watch(&self, roots: Ec2) -> CredentialsWatch {
        let changed = self.0.changed.subscribe();
        CredentialsWatch {
            keys: self.clone(),
            roots,
            changed,
            identity: None,
            next_look: Instant::now() + FILE_POLL_INTERVAL,
        }
    }

    fn state(&self) -> MutexGuard<'_, KeysState> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn look(&self) -> (Before, u64) {
        let state = self.state();
        let before = match &state.current {
            None => Before::Read,
            Some(loaded) => loaded.credentials.expiry().map_or(Before::Nothing, |expiry| {
                let left = expiry.duration_since(self.0.clock.now()).unwrap_or_default();
                before_expiry(left, state.read_at.map(|at| at.elapsed()), state.error.is_some())
            }),
        };
        (before, state.readings)
    }

    /// Reads the credentials, unless a reading has ended since `readings` were counted. A reading runs to its end even if the
    /// caller is cancelled: a call may have less time than IMDS needs.
    async fn read(&self, readings: u64) {
        // It fails when the runtime shuts down.
        let _ = self.start_reading(readings).await;
    }

    fn start_reading(&self, readings: u64) -> JoinHandle<()> {
        let keys = self.clone();
        tokio::spawn(async move { keys.read_here(readings).await })
    }

    async fn read_here(&self, readings: u64) {
        let _one = self.0.reading.lock().await;
        if self.state().readings != readings {
            return;
        }
        let (read, fingerprint) = self.0.source.read().await;
        let mut state = self.state();
        let other_file = std::mem::replace(&mut state.fingerprint, fingerprint) != fingerprint;
        state.readings += 1;
        state.read_at = Some(Instant::now());
        match read {
            Ok(loaded) => {
                state.error = None;
                let changed = state.current.as_ref().is_none_or(|old| old.credentials != loaded.credentials);
                let replaced = state.current.replace(loaded);
                if changed {
                    state.generation.0 += 1;
                    self.0.changed.send_replace(state.generation);
                    let source = self.0.source.describe(state.current.as_ref().and_then(|l| l.role.as_deref()));
                    log!(CREDENTIALS_READ, source, first = replaced.is_none());
                }
            }
            Err(error) => {
                // The current file counts, even without usable credentials. A role's credentials stay in use when IMDS fails,
                // and, while the file is unchanged, when STS fails. Without a copy, nothing is known of the file: a commit
                // that removes the copy changes the configuration, too, so this is /run that was cleared.
                let not_copied = matches!(error.failure, Failure::Credentials { cause: NoCredentials::NotCopied, .. });
                let has_no_copy = not_copied && fingerprint == FileFingerprint::default();
                if matches!(self.0.source, Source::File { .. })
                    && !has_no_copy
                    && (other_file || error.class() == ErrorClass::Denied)
                {
                    state.current = None;
                }
                if state.error.as_ref() != Some(&error)
                    && let Some(times) = state.throttle.say(error.message.clone())
                {
                    let remedy = remedies::remedy(&error.failure);
                    log!(NO_CREDENTIALS, code = error.code(), message = error.message, remedy, times);
                }
                state.error = Some(error);
            }
        }
    }
}

/// The action needed for credentials that expire after `left`, were last read `read_ago`, and whether that reading `failed`.
fn before_expiry(left: Duration, read_ago: Option<Duration>, failed: bool) -> Before {
    let read_within = |time| read_ago.is_some_and(|ago| ago < time);
    if left > REFRESH_BEFORE_EXPIRY {
        Before::Nothing
    } else if left.is_zero() {
        if failed && read_within(MIN_REPLACE_INTERVAL) { Before::Nothing } else { Before::Read }
    } else if read_within(MIN_REFRESH_INTERVAL) {
        Before::Nothing
    } else {
        Before::StartReading
    }
}

impl Source {
    fn describe(&self, role: Option<&str>) -> String {
        match (self, role) {
            (Self::File { file, profile, .. }, role) => {
                let role = role.map(|arn| format!(", role {arn}")).unwrap_or_default();
                format!("file {}, profile {profile}{role}", file.path().display())
            }
            (Self::Role(_), Some(name)) => format!("instance role {name}"),
            (Self::Role(_), None) => "instance role".to_owned(),
        }
    }

    /// Reads the credentials, and the fingerprint of their file.
    async fn read(&self) -> (Result<Loaded, CallError>, FileFingerprint) {
        let at = SystemTime::now();
        match self {
            Self::Role(imds) => {
                let loaded = imds.role().await;
                let loaded = loaded.map(|role| Loaded { credentials: role.credentials, at, role: Some(role.name) });
                let loaded = loaded.map_err(|CallError { failure, message, .. }| self.failed(failure, &message));
                (loaded, FileFingerprint::default())
            }
            Self::File { file, profile, region, http } => match file.read() {
                Err((error, fingerprint)) => (Err(self.failed(error.cause(), &error.to_string())), fingerprint),
                Ok((text, fingerprint)) => {
                    let http = http.lock().unwrap_or_else(PoisonError::into_inner).clone();
                    let loaded = from_profile(text, profile, region, &http).await;
                    let loaded = loaded.map(|(credentials, role)| Loaded { credentials, at, role });
                    (loaded.map_err(|(cause, reason)| self.failed(cause, &reason)), fingerprint)
                }
            },
        }
    }

    /// There are no credentials, because what they are read from has not answered.
    fn no_answer(&self, when: &str) -> CallError {
        match self {
            Self::Role(_) => self.failed(NoCredentials::Imds, &format!("no answer from IMDS {when}")),
            // A file is on this router; only the profile's role has to be waited for.
            Self::File { .. } => self.failed(NoCredentials::Sts, &format!("no answer from STS {when}")),
        }
    }

    fn failed(&self, failure: impl Into<Failure>, reason: &str) -> CallError {
        failed(failure.into(), format!("{}: {reason}", self.describe(None)))
    }
}

/// The credentials of a profile, by the SDK's rules for such files, and the role that the profile assumes. The SDK's provider
/// reads its file once, so each reading needs a new provider.
async fn from_profile(
    text: String,
    profile: &str,
    region: &Region,
    http: &SharedHttpClient,
) -> Result<(Credentials, Option<String>), (NoCredentials, String)> {
    let config = ProviderConfig::without_region()
        .with_region(Some(aws_sdk_ec2::config::Region::new(region.to_string())))
        .with_http_client(http.clone());
    let files = EnvConfigFiles::builder().with_contents(EnvConfigFileKind::Credentials, text).build();
    let role = role_of(&files, profile).await.map_err(|why| (NoCredentials::Profile, why))?;
    let provider =
        ProfileFileCredentialsProvider::builder().configure(&config).profile_files(files).profile_name(profile).build();
    let Ok(read) = timeout(PROFILE_READ_TIMEOUT, provider.provide_credentials()).await else {
        return Err((NoCredentials::Sts, format!("no answer from STS within {PROFILE_READ_TIMEOUT:?}")));
    };
    let read = read.map(|credentials| (credentials, role));
    read.map_err(|error| {
        let cause = match error {
            CredentialsError::CredentialsNotLoaded(_) | CredentialsError::InvalidConfiguration(_) => {
                NoCredentials::Profile
            }
            _ => NoCredentials::Sts,
        };
        let reason = error.source().map_or("there is no such profile in it, or no keys".to_owned(), root_cause);
        (cause, reason)
    })
}

/// The ARN of the role that the profile assumes, if it does.
///
/// # Errors
/// Why the SDK must not load the profile: it would open a file that the profile names, and block this thread, or call a
/// service at an address that the configuration does not name; or why the role is none.
async fn role_of(files: &EnvConfigFiles, profile: &str) -> Result<Option<String>, String> {
    // A file that cannot be parsed is refused by the provider. The file system and the environment have no effect: the
    // content and the profile are given.
    let selected = Some(profile.to_owned().into());
    let Ok(profiles) = aws_config::profile::load(&Default::default(), &Default::default(), files, selected).await
    else {
        return Ok(None);
    };
    let role = profiles.get_profile(profile).and_then(|profile| profile.get("role_arn"));
    if role.is_some_and(|role| !role.starts_with("arn:") || !role.chars().all(|c| c.is_ascii_graphic())) {
        return Err(format!("role_arn of profile {profile:?} is not an ARN"));
    }
    let mut name = profile.to_owned();
    // A chain of profiles may be circular.
    let mut seen = HashSet::new();
    while seen.insert(name.clone()) {
        let Some(profile) = profiles.get_profile(&name) else { break };
        if let Some(key) =
            ["web_identity_token_file", "credential_source"].into_iter().find(|key| profile.get(key).is_some())
        {
            return Err(format!(
                "profile {name:?} has {key}, which is not supported: only keys, and role_arn with source_profile"
            ));
        }
        let Some(source) = profile.get("source_profile") else { break };
        name = source.to_owned();
    }
    Ok(role.map(str::to_owned))
}

impl ProvideCredentials for Keys {
    /// The credentials that [`Keys::ready`] has loaded. The SDK never waits here, and caches nothing.
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        future::ProvideCredentials::ready(match &self.state().current {
            Some(loaded) => Ok(loaded.credentials.clone()),
            None => Err(CredentialsError::not_loaded_no_source()),
        })
    }
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Keys").field(&self.0.source.describe(None)).finish()
    }
}

/// Reports changes of the credentials, so that refused calls can be tried again.
#[derive(Debug)]
pub struct CredentialsWatch {
    keys: Keys,
    /// Its certificate file is checked as well.
    roots: Ec2,
    changed: watch::Receiver<Generation>,
    /// Whose permissions the credentials had at the last return.
    identity: Option<Identity>,
    /// A field, because the wait for it may be cancelled and started again more often than it fires.
    next_look: Instant,
}

impl CredentialsWatch {
    /// Waits until the credentials in use have changed since the last return, or the first have been loaded. Checks the files
    /// every 5 s. Cancel safe.
    pub async fn changed(&mut self) -> CredentialsChange {
        loop {
            tokio::select! {
                // The sender lives in `keys`.
                _ = self.changed.changed() => {
                    let identity = self.keys.facts().identity();
                    let is_same = identity.is_some() && identity == self.identity;
                    self.identity = identity;
                    return if is_same { CredentialsChange::NewKeys } else { CredentialsChange::Others };
                }
                () = sleep_until(self.next_look) => {
                    self.next_look = Instant::now() + FILE_POLL_INTERVAL;
                    self.roots.look();
                    self.keys.read_if_file_changed().await;
                }
            }
        }
    }
}

impl Keys {
    pub(super) async fn read_if_file_changed(&self) {
        let Source::File { file, .. } = &self.0.source else { return };
        // Once more, if another reading ended meanwhile that had begun before the change.
        for _ in 0..2 {
            let (readings, fingerprint) = {
                let state = self.state();
                (state.readings, state.fingerprint)
            };
            let (Ok((_, found)) | Err((_, found))) = file.read();
            if found == fingerprint {
                return;
            }
            self.read(readings).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::atomic::{AtomicBool, Ordering};

    use aws_smithy_runtime_api::client::http::{
        HttpConnector, HttpConnectorFuture, SharedHttpConnector, http_client_fn,
    };
    use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
    use aws_smithy_runtime_api::client::result::ConnectorError;
    use aws_smithy_types::body::SdkBody;
    use futures_util::FutureExt;

    use vipa_core::model::config::Global;

    use super::*;

    /// An STS whose credentials are good for less than [`REFRESH_BEFORE_EXPIRY`].
    #[derive(Debug, Clone, Default)]
    struct Sts {
        down: Arc<AtomicBool>,
        hangs: Arc<AtomicBool>,
        asked: Arc<Mutex<Vec<String>>>,
    }

    impl HttpConnector for Sts {
        fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
            let mut asked = self.asked.lock().expect("the log");
            asked.push(request.uri().to_owned());
            let number = asked.len();
            if self.hangs.load(Ordering::SeqCst) {
                return HttpConnectorFuture::new(std::future::pending());
            }
            if self.down.load(Ordering::SeqCst) {
                let error = ConnectorError::other("no way to STS".into(), None);
                return HttpConnectorFuture::ready(Err(error));
            }
            let until = Timestamp::now() + REFRESH_BEFORE_EXPIRY / 2;
            let answer = format!(
                "<AssumeRoleResponse><AssumeRoleResult><AssumedRoleUser><AssumedRoleId>AROA:vipa</AssumedRoleId>\
                 <Arn>arn:aws:sts::123456789012:assumed-role/vipa/vipa</Arn></AssumedRoleUser><Credentials>\
                 <AccessKeyId>ASIASTS</AccessKeyId><SecretAccessKey>s3cret{number}</SecretAccessKey>\
                 <SessionToken>t0ken</SessionToken><Expiration>{until:.0}</Expiration>\
                 </Credentials></AssumeRoleResult></AssumeRoleResponse>"
            );
            let status = 200.try_into().expect("a status");
            HttpConnectorFuture::ready(Ok(HttpResponse::new(status, SdkBody::from(answer))))
        }
    }

    /// Has the file name a role, for which STS gives the credentials.
    fn write(path: &Path, role: &str) {
        let text = format!(
            "[default]\nrole_arn = arn:aws:iam::123456789012:role/{role}\nsource_profile = user\n\
             [user]\naws_access_key_id = AKIAUSER\naws_secret_access_key = s3cret\n"
        );
        std::fs::write(path, text).expect("written");
    }

    fn keys_in(path: &Path, sts: &Sts) -> Keys {
        let connector = SharedHttpConnector::new(sts.clone());
        let http = http_client_fn(move |_, _| connector.clone());
        let region = "eu-west-1".try_into().expect("a region");
        Keys::file(path.to_owned(), None, "default".to_owned(), region, http, Clock::default())
    }

    #[tokio::test]
    async fn new_keys_of_a_role_are_no_other_credentials_and_another_role_is() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("credentials");
        write(&path, "vipa");
        let keys = keys_in(&path, &Sts::default());
        let known = || (keys.facts().identity().expect("credentials"), keys.state().generation);
        let region = "eu-west-1".try_into().expect("a region");
        let mut watch = keys.watch(Ec2::new(&Global::default(), region, &Imds::at("http://127.0.0.1:9")));
        let mut change = async || timeout(PROFILE_READ_TIMEOUT, watch.changed()).await.expect("a change");
        keys.ready().await.expect("STS answers");
        assert_eq!(change().await, CredentialsChange::Others, "the first");
        let (vipa, first) = known();
        let source = format!("file {}, profile default, role arn:aws:iam::123456789012:role/vipa", path.display());
        assert_eq!((&vipa, first), (&Identity { source, access_key_id: None }, Generation(1)));
        keys.read(1).await;
        assert_eq!(known(), (vipa.clone(), Generation(2)), "new keys");
        assert_eq!(change().await, CredentialsChange::NewKeys);
        write(&path, "vipa");
        keys.read_if_file_changed().await;
        assert_eq!(known(), (vipa.clone(), Generation(3)), "the file was written, with the same content");
        assert_eq!(change().await, CredentialsChange::NewKeys);
        keys.read(3).await;
        assert_eq!(change().await, CredentialsChange::NewKeys, "the next renewal");
        write(&path, "another-role");
        keys.read_if_file_changed().await;
        let (another, generation) = known();
        assert!(another != vipa && another.source.ends_with("role/another-role"), "{another:?}");
        assert_eq!((generation, change().await), (Generation(5), CredentialsChange::Others));
    }

    #[tokio::test]
    async fn credentials_from_sts_outlive_a_failure_of_sts_but_not_their_file() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("credentials");
        write(&path, "vipa");
        let sts = Sts::default();
        let keys = keys_in(&path, &sts);
        let key = || keys.facts().access_key_id;
        keys.ready().await.expect("STS answers");
        assert_eq!(key().as_deref(), Some("ASIASTS"));
        assert_eq!(*sts.asked.lock().expect("the log"), ["https://sts.eu-west-1.amazonaws.com/"]);

        sts.down.store(true, Ordering::SeqCst);
        keys.state().read_at = Instant::now().checked_sub(2 * MIN_REFRESH_INTERVAL);
        keys.ready().await.expect("they serve");
        let failed = async {
            while keys.facts().error.is_none() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), failed).await.expect("a reading beside the call");
        keys.ready().await.expect("they serve still");
        let facts = keys.facts();
        assert_eq!(key().as_deref(), Some("ASIASTS"), "{facts:?}");
        let error = facts.error.expect("STS is away");
        assert_eq!(error.failure, NoCredentials::Sts.into(), "{error:?}");
        assert!(error.class() == ErrorClass::Transient && error.message.contains("no way to STS"), "{error:?}");

        write(&path, "another-role");
        keys.read_if_file_changed().await;
        let error = keys.ready().await.expect_err("what the file said before counts no more");
        assert_eq!((error.class(), key()), (ErrorClass::Transient, None), "{error}");
        sts.hangs.store(true, Ordering::SeqCst);
        let bounded = tokio::time::timeout(2 * PROFILE_READ_TIMEOUT, keys.ready()).await;
        let error = bounded.expect("a bound").expect_err("no answer");
        assert!(
            error.class() == ErrorClass::Transient && error.message.contains("no answer from STS within"),
            "{error}"
        );
        sts.hangs.store(false, Ordering::SeqCst);
        sts.down.store(false, Ordering::SeqCst);
        keys.ready().await.expect("STS answers again");
    }

    #[test]
    fn credentials_are_asked_for_again_before_their_end_and_not_too_often() {
        let (minutes, seconds) = (|n: u64| Duration::from_secs(60 * n), Duration::from_secs);
        for (left, read_ago, failed, before) in [
            (minutes(16), None, false, Before::Nothing),
            (minutes(16), Some(minutes(300)), true, Before::Nothing),
            (minutes(15), Some(seconds(61)), false, Before::StartReading),
            (minutes(15), Some(seconds(59)), false, Before::Nothing),
            (seconds(1), Some(seconds(61)), true, Before::StartReading),
            (seconds(0), Some(seconds(1)), false, Before::Read),
            (seconds(0), Some(seconds(9)), true, Before::Nothing),
            (seconds(0), Some(seconds(11)), true, Before::Read),
        ] {
            assert_eq!(before_expiry(left, read_ago, failed), before, "{left:?} {read_ago:?} {failed}");
        }
    }

    #[tokio::test]
    async fn credentials_that_still_serve_are_not_waited_for() {
        // An IMDS that takes connections and never answers.
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        let imds = Imds::at(&format!("http://{}", listener.local_addr().expect("its address")));
        let keys = Keys::role(imds, Clock::default());
        let now = SystemTime::now();
        let expiry = now + REFRESH_BEFORE_EXPIRY / 2;
        let credentials = Credentials::new("ASIA", "secret", None, Some(expiry), "test");
        keys.state().current = Some(Loaded { credentials, at: now, role: None });
        keys.state().read_at = Instant::now().checked_sub(2 * MIN_REFRESH_INTERVAL);
        keys.ready().now_or_never().expect("nothing is waited for").expect("they serve");
        let read = async {
            while keys.state().readings == 0 {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), read).await.expect("a reading beside the call");
        let facts = keys.facts();
        assert!(facts.error.is_some() && facts.expires_at.is_some(), "kept, with the error: {facts:?}");
        assert!(!format!("{keys:?}{facts:?}").contains("secret"));
    }
}
