//! A client of the instance metadata service, version 2 only (Amazon EC2 User Guide, "Instance metadata and user data").

use std::error::Error;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use aws_config::imds::client::Client;
use aws_config::imds::client::error::{ImdsError, TokenError};
use aws_config::provider_config::ProviderConfig;
use aws_credential_types::Credentials;
use aws_smithy_async::future::timeout::TimedOutError;
use aws_smithy_runtime_api::client::http::SharedHttpClient;
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use aws_smithy_runtime_api::client::result::SdkError;
use serde::Deserialize;
use tokio::time::timeout;
use vipa_core::model::ec2::{CallError, Eni, EniNetwork, ErrorClass, Failure, Instance, NoCredentials};
use vipa_core::model::endpoint::Endpoint;
use vipa_core::model::ids::{InstanceId, InstanceType, InvalidId, MacAddress, Partition, Region};

use vipa_core::report::remedies;

use super::errors::{chain, failed, root_cause};
use super::transport::{self, TooLong};

/// The address of IMDS on every instance, in every partition.
const ADDRESS: &str = "http://169.254.169.254";
/// The time limit for connecting, and for each answer: IMDS is on the same host.
const IMDS_REQUEST_TIMEOUT: Duration = Duration::from_secs(1);
/// The time limit for one call: the request for a token and all other requests together.
const IMDS_CALL_TIMEOUT: Duration = Duration::from_secs(3);
/// Why IMDS refuses every request.
const DISABLED: &str = "IMDS is disabled on this instance";
/// The time limit for an answer that a claim can do without: the claim waits for it.
const SUBNET_BLOCK_TIMEOUT: Duration = Duration::from_millis(200);
/// How long after our start a missing role may still appear: at boot, IMDS shows an instance's role minutes after the
/// instance has started.
const ROLE_APPEARS_WITHIN: Duration = Duration::from_mins(5);

/// A client of IMDSv2, cheap to clone. It keeps its session token and its connection. It does not retry, but replaces a
/// session token that IMDS rejects, once per request.
///
/// IMDS may return data that is a minute old. A failed request is never treated as an empty answer.
#[derive(Debug, Clone)]
pub struct Imds(Arc<ImdsInner>);

#[derive(Debug)]
struct ImdsInner {
    address: String,
    http: SharedHttpClient,
    /// Made at the first use, and again when its token has been rejected.
    client: Mutex<Option<Client>>,
    since: Instant,
    /// Whether IMDS has ever returned the role's credentials.
    had_credentials: AtomicBool,
}

impl Default for Imds {
    fn default() -> Self {
        Self::new()
    }
}

impl Imds {
    /// IMDS at its address. Uses no network.
    pub fn new() -> Self {
        Self::at(ADDRESS)
    }

    /// Its address, unless that is a name.
    pub fn address(&self) -> Option<SocketAddr> {
        let (host, port) = Endpoint::parse(&self.0.address).ok()?.host_and_port();
        Some((host.parse::<IpAddr>().ok()?, port).into())
    }

    /// A service with the API of IMDS at another `http://` address. Uses no network.
    pub fn at(address: &str) -> Self {
        Self(Arc::new(ImdsInner {
            address: address.to_owned(),
            http: transport::imds(),
            client: Mutex::new(None),
            since: Instant::now(),
            had_credentials: AtomicBool::new(false),
        }))
    }

    /// Which instance this is.
    ///
    /// # Errors
    /// See [`Imds::eni`]; a 404 is `Answer`.
    pub async fn instance(&self) -> Result<Instance, CallError> {
        self.bounded(async {
            let id = self.get("/latest/meta-data/instance-id").await?;
            let region = self.get("/latest/meta-data/placement/region").await?;
            let availability_zone = self.get("/latest/meta-data/placement/availability-zone").await?;
            Ok(Instance {
                id: InstanceId::try_from(id).map_err(unreadable)?,
                region: Region::try_from(region).map_err(unreadable)?,
                // A zone's name is a region's name with a suffix, and follows the same rules.
                availability_zone: Region::try_from(availability_zone).map_err(unreadable)?.to_string(),
            })
        })
        .await
    }

    /// The ENI whose MAC address this is.
    ///
    /// # Errors
    /// - [`ErrorClass::NoSuchInterface`]: the instance has no such ENI attached (404)
    /// - [`ErrorClass::TimedOut`], code `Timeout`: no answer within 3 s
    /// - [`ErrorClass::Transient`], code `Connection` or `Answer`: no connection, or an invalid answer
    /// - [`ErrorClass::Denied`], code `Forbidden`: IMDS is disabled on the instance
    pub async fn eni(&self, mac: MacAddress) -> Result<Eni, CallError> {
        let below = |item: &str| format!("/latest/meta-data/network/interfaces/macs/{mac}/{item}");
        let eni = self
            .bounded(async {
                let id = self.get(below("interface-id")).await.map_err(|error| match error {
                    Failed::NotFound(_) => failed(
                        Failure::UnknownMac,
                        format!("IMDS lists no network interface with MAC address {mac} on this instance"),
                    ),
                    error => error.into(),
                })?;
                let subnet = self.get(below("subnet-id")).await?;
                let vpc = self.get(below("vpc-id")).await?;
                let addresses = self.get(below("local-ipv4s")).await?;
                let first = addresses.lines().next().unwrap_or_default().trim();
                Ok(Eni {
                    id: id.try_into().map_err(unreadable)?,
                    subnet: subnet.try_into().map_err(unreadable)?,
                    vpc: vpc.try_into().map_err(unreadable)?,
                    primary: first
                        .parse::<Ipv4Addr>()
                        .map_err(|_| answer(format!("{first:?} is not an IPv4 address")))?,
                    block: None,
                })
            })
            .await?;
        // Only the readiness of a standby depends on it: without it the ENI is known all the same.
        let block = timeout(SUBNET_BLOCK_TIMEOUT, self.get(below("subnet-ipv4-cidr-block"))).await;
        Ok(Eni { block: block.ok().and_then(Result::ok).and_then(|block| block.parse().ok()), ..eni })
    }

    /// The block of the subnet of the ENI whose MAC address this is, and the account that the ENI belongs to.
    ///
    /// # Errors
    /// See [`Imds::eni`]; a 404 is `Answer`.
    pub async fn eni_network(&self, mac: MacAddress) -> Result<EniNetwork, CallError> {
        let below = |item: &str| format!("/latest/meta-data/network/interfaces/macs/{mac}/{item}");
        self.bounded(async {
            let block = self.get(below("subnet-ipv4-cidr-block")).await?;
            let account = self.get(below("owner-id")).await?;
            Ok(EniNetwork {
                block: block.parse().map_err(|_| answer(format!("{block:?} is not an IPv4 block")))?,
                account: account.try_into().map_err(unreadable)?,
            })
        })
        .await
    }

    /// The partition that the instance is in.
    ///
    /// # Errors
    /// See [`Imds::eni`]; a 404 is `Answer`.
    pub async fn partition(&self) -> Result<Partition, CallError> {
        self.bounded(async { self.get("/latest/meta-data/services/partition").await?.try_into().map_err(unreadable) })
            .await
    }

    /// The type of the instance, which determines how many addresses an ENI may have.
    ///
    /// # Errors
    /// See [`Imds::eni`]; a 404 is `Answer`.
    pub async fn instance_type(&self) -> Result<InstanceType, CallError> {
        self.bounded(async { self.get("/latest/meta-data/instance-type").await?.try_into().map_err(unreadable) }).await
    }

    /// The credentials of the instance's role.
    ///
    /// # Errors
    /// [`NoCredentials::Role`], [`NoCredentials::ImdsDisabled`] or [`NoCredentials::Imds`]. What is
    /// [`ErrorClass::Denied`] is [`ErrorClass::Transient`] in the first 5 minutes, until IMDS has returned credentials once.
    pub(super) async fn role(&self) -> Result<Role, CallError> {
        const ROLES: &str = "/latest/meta-data/iam/security-credentials/";
        let role = self.bounded(async {
            let names = self.get(ROLES).await.map_err(|error| match error {
                Failed::NotFound(_) => failed(NoCredentials::Role.into(), "the instance has no role"),
                error => error.into(),
            })?;
            let name = names.lines().next().unwrap_or_default().trim();
            if !is_role_name(name) {
                return Err(answer("the instance's role has an invalid name"));
            }
            let document = self.get(format!("{ROLES}{name}")).await?;
            let credentials = read_role(&document).map_err(|(cause, reason)| {
                let failure = Failure::Credentials { cause, class: ErrorClass::Transient };
                failed(failure, format!("IMDS returned no credentials for the role {name}: {reason}"))
            })?;
            Ok(Role { name: name.to_owned(), credentials })
        });
        match role.await.map_err(|error| self.without_credentials(error)) {
            Ok(role) => {
                self.0.had_credentials.store(true, Ordering::Relaxed);
                Ok(role)
            }
            Err(mut error) => {
                if let Failure::Credentials { class: class @ ErrorClass::Denied, .. } = &mut error.failure
                    && self.may_be_late()
                {
                    *class = ErrorClass::Transient;
                    error.message += "; the role of an instance that has just started may appear minutes later";
                }
                Err(error)
            }
        }
    }

    /// The failure of a request for credentials.
    fn without_credentials(&self, error: CallError) -> CallError {
        let class = match error.class() {
            // A request for credentials changes nothing in EC2, so a late answer is harmless.
            ErrorClass::TimedOut => ErrorClass::Transient,
            class => class,
        };
        let (cause, message) = match error.failure {
            Failure::Credentials { .. } => return error,
            Failure::ImdsDisabled => (NoCredentials::ImdsDisabled, DISABLED.to_owned()),
            Failure::Timeout => (NoCredentials::Imds, did_not_answer(&self.0.address)),
            _ => (NoCredentials::Imds, error.message),
        };
        CallError::new(Failure::Credentials { cause, class }, message)
    }

    /// Whether credentials that IMDS does not return yet may still appear.
    fn may_be_late(&self) -> bool {
        may_be_late(self.0.had_credentials.load(Ordering::Relaxed), self.0.since.elapsed())
    }

    /// Ends the call after [`IMDS_CALL_TIMEOUT`].
    async fn bounded<T>(&self, call: impl Future<Output = Result<T, CallError>>) -> Result<T, CallError> {
        timeout(IMDS_CALL_TIMEOUT, call).await.unwrap_or_else(|_| Err(no_answer(&self.0.address)))
    }

    async fn get(&self, path: impl Into<String>) -> Result<String, Failed> {
        let path = path.into();
        match self.client()?.get(path.clone()).await {
            Err(ImdsError::ErrorResponse(refused)) if refused.response().status().as_u16() == 401 => {
                // The SDK keeps a token until it expires by the local clock; IMDS has lost the token, or the clock was set
                // back.
                self.0.client.lock().unwrap_or_else(PoisonError::into_inner).take();
                self.client()?.get(path.clone()).await
            }
            got => got,
        }
        .map(|text| text.as_ref().trim_end().to_owned())
        .map_err(|error| Failed::of(&error, &path, &self.0.address))
    }

    fn client(&self) -> Result<Client, CallError> {
        let mut client = self.0.client.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = &*client {
            return Ok(client.clone());
        }
        let new = Client::builder()
            .configure(&ProviderConfig::without_region().with_http_client(self.0.http.clone()))
            .endpoint(&self.0.address)
            .map_err(|e| failed(Failure::Settings, format!("invalid address of IMDS {}: {e}", self.0.address)))?
            .connect_timeout(IMDS_REQUEST_TIMEOUT)
            .read_timeout(IMDS_REQUEST_TIMEOUT)
            .max_attempts(1)
            .build();
        Ok(client.insert(new).clone())
    }
}

/// The credentials of an instance's role.
#[derive(Debug)]
pub(super) struct Role {
    pub(super) name: String,
    pub(super) credentials: Credentials,
}

/// How a request failed. Callers may give `NotFound` a meaning of its own.
enum Failed {
    NotFound(CallError),
    Otherwise(CallError),
}

impl Failed {
    fn of(error: &ImdsError, path: &str, address: &str) -> Self {
        let status = match error {
            ImdsError::ErrorResponse(refused) => Some(refused.response().status().as_u16()),
            ImdsError::FailedToLoadToken(_) => error
                .source()
                .and_then(|e| e.downcast_ref::<SdkError<TokenError, HttpResponse>>())
                .and_then(SdkError::raw_response)
                .map(|answer| answer.status().as_u16()),
            _ => None,
        };
        let token = matches!(error, ImdsError::FailedToLoadToken(_));
        match status {
            Some(404) if !token => Self::NotFound(answer(format!("there is no {path} (HTTP status 404)"))),
            Some(403) => {
                Self::Otherwise(failed(Failure::ImdsDisabled, format!("{DISABLED}: {}", remedies::ENABLE_IMDS)))
            }
            Some(429) => {
                Self::Otherwise(failed(Failure::TooManyRequests, "IMDS limits the request rate (HTTP status 429)"))
            }
            Some(status) => {
                let asked = if token { "a session token" } else { path };
                Self::Otherwise(answer(format!("unexpected answer to the request for {asked} (HTTP status {status})")))
            }
            None if timed_out(error) => Self::Otherwise(no_answer(address)),
            None if let Some(too_long) = chain(error).find_map(|e| e.downcast_ref::<TooLong>()) => {
                let asked = if token { "a session token" } else { path };
                Self::Otherwise(answer(format!("unexpected answer to the request for {asked}: {too_long}")))
            }
            None => Self::Otherwise(failed(
                Failure::Connection,
                format!("no connection to IMDS at {address}: {}", root_cause(error)),
            )),
        }
    }
}

impl From<Failed> for CallError {
    fn from(failed: Failed) -> Self {
        match failed {
            Failed::NotFound(error) | Failed::Otherwise(error) => error,
        }
    }
}

impl From<CallError> for Failed {
    fn from(error: CallError) -> Self {
        Self::Otherwise(error)
    }
}

fn timed_out(error: &ImdsError) -> bool {
    chain(error).any(|e| e.is::<TimedOutError>())
}

fn may_be_late(had_credentials: bool, after: Duration) -> bool {
    !had_credentials && after < ROLE_APPEARS_WITHIN
}

fn no_answer(address: &str) -> CallError {
    failed(Failure::Timeout, format!("{}: {}", did_not_answer(address), remedies::WAY_TO_IMDS))
}

fn did_not_answer(address: &str) -> String {
    format!("IMDS at {address} did not answer")
}

fn answer(what: impl Into<String>) -> CallError {
    failed(Failure::InvalidResponse, format!("IMDS: {}", what.into()))
}

fn unreadable(error: InvalidId) -> CallError {
    answer(error.to_string())
}

/// Whether it is a valid role name (IAM API, `roleNameType`), which is safe in a URL's path.
fn is_role_name(name: &str) -> bool {
    (1..=64).contains(&name.len())
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'+' | b'=' | b',' | b'.' | b'@' | b'-'))
}

/// The document below `iam/security-credentials/`. Without `Debug`: it holds secrets.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct RoleDocument {
    code: Option<String>,
    message: Option<String>,
    access_key_id: Option<String>,
    secret_access_key: Option<String>,
    token: Option<String>,
    expiration: Option<jiff::Timestamp>,
}

/// The error has the document's code and message, which hold no secrets, and quotes nothing else of it.
fn read_role(document: &str) -> Result<Credentials, (NoCredentials, String)> {
    let document: RoleDocument = serde_json::from_str(document)
        .map_err(|e| (NoCredentials::Imds, format!("invalid document, line {} column {}", e.line(), e.column())))?;
    match document.code.as_deref() {
        None | Some("Success") => {}
        Some(code) => {
            return Err((NoCredentials::Role, format!("{code}: {}", document.message.unwrap_or_default())));
        }
    }
    match (document.access_key_id, document.secret_access_key, document.token, document.expiration) {
        (Some(id), Some(secret), Some(token), Some(expiration)) => {
            Ok(Credentials::new(id, secret, Some(token), Some(SystemTime::from(expiration)), "instance role"))
        }
        _ => {
            let reason = "the document lacks one of AccessKeyId, SecretAccessKey, Token, Expiration";
            Err((NoCredentials::Imds, reason.to_owned()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_roles_document_is_read_and_never_quoted() {
        let good = r#"{"Code":"Success","LastUpdated":"2026-01-01T00:00:00Z","Type":"AWS-HMAC","AccessKeyId":"ASIAX",
            "SecretAccessKey":"s3cret","Token":"t0ken","Expiration":"2026-01-01T06:00:00Z"}"#;
        let credentials = read_role(good).expect("credentials");
        assert_eq!(credentials.access_key_id(), "ASIAX");
        assert_eq!(credentials.session_token(), Some("t0ken"));
        let expected: jiff::Timestamp = "2026-01-01T06:00:00Z".parse().expect("a time");
        assert_eq!(credentials.expiry(), Some(SystemTime::from(expected)));
        use NoCredentials::{Imds, Role};
        for (bad, cause, reason) in [
            (good.replace("Success", "AssumeRoleUnauthorizedAccess"), Role, "AssumeRoleUnauthorizedAccess: "),
            (good.replace("2026-01-01T06:00:00Z", "s3cret"), Imds, "invalid document"),
            (good.replace("\"t0ken\"", "[\"s3cret\"]"), Imds, "invalid document"),
            (good.replace("Expiration", "Else"), Imds, "the document lacks one of"),
            ("<html>s3cret".to_owned(), Imds, "invalid document"),
        ] {
            let (found, error) = read_role(&bad).expect_err(&bad);
            assert!(found == cause && error.starts_with(reason) && !error.contains("s3cret"), "{found:?} {error}");
        }
    }

    #[test]
    fn a_role_may_be_late_for_five_minutes_and_until_it_was_there_once() {
        let seconds = Duration::from_secs;
        for (had, after, late) in [
            (false, seconds(0), true),
            (false, seconds(299), true),
            (false, seconds(300), false),
            (true, seconds(1), false),
        ] {
            assert_eq!(may_be_late(had, after), late, "{had} {after:?}");
        }
    }

    #[test]
    fn a_role_name_is_safe_in_a_path() {
        for good in ["vipa", "a_b+c=d,e.f@g-h", &"x".repeat(64)] {
            assert!(is_role_name(good), "{good:?}");
        }
        for bad in ["", "a b", "a/b", "a?b", "a#b", "<html>", "ü", &"x".repeat(65)] {
            assert!(!is_role_name(bad), "{bad:?}");
        }
    }
}
