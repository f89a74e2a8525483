//! The HTTP client under the SDK: TLS by rustls, connections kept warm, answers of bounded length.
//!
//! Names are resolved by the system (getaddrinfo on tokio's threads for blocking work), or by the last answer while the name
//! server is silent, and addresses that did not answer are tried last. Proxy variables of the environment are ignored, and a
//! request that finds every connection in use opens another: a claim never waits behind a read.

use std::collections::HashMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use std::{fmt, io};

use aws_smithy_http_client::pool::{Client, ConnectionPool, DriverSpawner, Partition, PartitionId};
use aws_smithy_http_client::tls::rustls_provider::CryptoMode;
use aws_smithy_http_client::tls::{Provider, TlsContext, TrustStore};
use aws_smithy_runtime_api::box_error::BoxError;
use aws_smithy_runtime_api::client::connector_metadata::ConnectorMetadata;
use aws_smithy_runtime_api::client::dns::{DnsFuture, ResolveDns, ResolveDnsError};
use aws_smithy_runtime_api::client::http::{
    HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpClient, SharedHttpConnector,
};
use aws_smithy_runtime_api::client::orchestrator::HttpRequest;
use aws_smithy_runtime_api::client::runtime_components::{RuntimeComponents, RuntimeComponentsBuilder};
use aws_smithy_types::body::SdkBody;
use aws_smithy_types::config_bag::ConfigBag;
use futures_util::stream;
use http_body_util::{BodyExt, StreamBody};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use crate::fs::operator_file::OperatorFile;

/// How long an idle connection is kept. NAT gateways and VPC endpoints silently drop it after 350 s (VPC User Guide, "NAT
/// gateway basics"; AWS PrivateLink Guide, "Interface endpoints"): a claim on it would time out.
const IDLE_TIMEOUT: Duration = Duration::from_secs(300);
const _: () = assert!(IDLE_TIMEOUT.as_secs() < 350 && KEEPALIVE_INTERVAL.as_secs() < IDLE_TIMEOUT.as_secs());
/// How long a connection is idle before the kernel sends a TCP keepalive probe. Probes also refresh the state of firewalls
/// on the path, and a dead connection is found before a request times out on it.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(60);
/// The longest answer of EC2: a page of 30 network interfaces, each with 64 addresses that have names and
/// Elastic IP addresses (700 bytes an address) and with 50 tags (20 KiB), stays below it.
const MAX_EC2_ANSWER_BYTES: usize = 2 * 1024 * 1024;
/// The longest answer of IMDS: a role's document is 2 KiB.
const MAX_IMDS_ANSWER_BYTES: usize = 64 * 1024;
/// An answer up to this length is read at once, whatever else is being read. The answer to a claim is always shorter, and the
/// answer to a read unless it has more than some hundred addresses.
const MAX_SHORT_ANSWER_BYTES: usize = 64 * 1024;
/// How many longer answers are read at the same time. Others wait in the kernel's buffers.
const MAX_LONG_ANSWERS: usize = 2;
/// How long a lookup may take where the last answer for the name is known: a claim has to arrive also while the name server
/// does not answer.
const LOOKUP_TIMEOUT: Duration = Duration::from_millis(200);
/// How many addresses without an answer are remembered.
const MAX_SILENT_ADDRESSES: usize = 16;
/// The longest file of certificates.
const MAX_CA_FILE_BYTES: u64 = 1024 * 1024;

/// Limits how much all requests of one EC2 client read from the network at the same time. Clones are the same budget.
#[derive(Debug, Clone)]
pub(super) struct Budget {
    longest: usize,
    long: Arc<Semaphore>,
}

impl Budget {
    /// For EC2 and STS.
    pub(super) fn ec2() -> Self {
        Self::new(MAX_EC2_ANSWER_BYTES)
    }

    fn new(longest: usize) -> Self {
        Self { longest, long: Arc::new(Semaphore::new(MAX_LONG_ANSWERS)) }
    }

    /// The same answer, read within the budget. It fails with [`TooLong`] when it exceeds the limit, and before the first byte
    /// if its announced length does.
    fn limit(&self, body: SdkBody, announced: Option<usize>) -> SdkBody {
        let Self { longest, long } = self.clone();
        let answer =
            LimitedAnswer { body: Box::pin(body), length: announced.unwrap_or_default(), read: 0, _long: None };
        let frames = stream::try_unfold(answer, move |mut answer| {
            let long = long.clone();
            async move {
                if answer.length > longest {
                    return Err(BoxError::from(TooLong(longest)));
                }
                if answer.length > MAX_SHORT_ANSWER_BYTES && answer._long.is_none() {
                    // The semaphore is never closed.
                    answer._long = long.acquire_owned().await.ok();
                }
                let Some(frame) = answer.body.frame().await.transpose()? else { return Ok(None) };
                answer.read += frame.data_ref().map_or(0, |data| data.len());
                answer.length = answer.length.max(answer.read);
                Ok(Some((frame, answer)))
            }
        });
        SdkBody::from_body_1_x(StreamBody::new(frames))
    }
}

/// An answer that is being read.
struct LimitedAnswer {
    body: Pin<Box<SdkBody>>,
    /// The announced length, or the length read so far if that is greater.
    length: usize,
    read: usize,
    /// Held by a long answer until it has been read.
    _long: Option<OwnedSemaphorePermit>,
}

/// An answer exceeds the length limit.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct TooLong(usize);

impl fmt::Display for TooLong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "it is longer than {} KiB", self.0 / 1024)
    }
}

impl std::error::Error for TooLong {}

/// Resolves names by the system, remembers the answers, and tries addresses that did not answer last. Clones are the same resolver; it outlives the
/// connections.
#[derive(Debug, Clone, Default)]
pub(super) struct Resolver(Arc<Mutex<KnownAddresses>>);

#[derive(Debug, Default)]
struct KnownAddresses {
    /// The last answer for each name: those of EC2's and STS's endpoints.
    last: HashMap<String, Vec<IpAddr>>,
    /// Those that did not answer, the latest last.
    silent: Vec<IpAddr>,
}

impl Resolver {
    fn addresses(&self) -> MutexGuard<'_, KnownAddresses> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The addresses by the last answer for a name.
    pub(super) fn known(&self, name: &str) -> Vec<IpAddr> {
        self.addresses().last.get(name).cloned().unwrap_or_default()
    }

    /// The address that a new connection tries first, where the name has more than one.
    pub(super) fn first_of_several(&self, name: &str) -> Option<IpAddr> {
        self.addresses().last.get(name).filter(|addresses| addresses.len() > 1)?.first().copied()
    }

    /// Tries this address last from now on.
    pub(super) fn avoid(&self, address: IpAddr) {
        let silent = &mut self.addresses().silent;
        silent.retain(|other| *other != address);
        silent.push(address);
        if silent.len() > MAX_SILENT_ADDRESSES {
            silent.remove(0);
        }
    }

    /// The addresses by `lookup`; the last answer if there is one and the lookup fails or takes longer than
    /// [`LOOKUP_TIMEOUT`].
    async fn resolve(
        &self,
        name: &str,
        lookup: impl Future<Output = io::Result<Vec<IpAddr>>> + Send + 'static,
    ) -> io::Result<Vec<IpAddr>> {
        let last = self.addresses().last.get(name).cloned();
        let Some(last) = last else { return Ok(self.order(name, lookup.await?)) };
        let (resolver, asked) = (self.clone(), name.to_owned());
        // An answer that is late for this connection serves the next one.
        let lookup = tokio::spawn(async move { lookup.await.map(|found| resolver.order(&asked, found)) });
        match timeout(LOOKUP_TIMEOUT, lookup).await {
            Ok(Ok(Ok(found))) => Ok(found),
            _ => Ok(self.order(name, last)),
        }
    }

    fn order(&self, name: &str, mut found: Vec<IpAddr>) -> Vec<IpAddr> {
        let mut addresses = self.addresses();
        found.sort_by_key(|address| addresses.silent.iter().position(|silent| silent == address));
        addresses.last.insert(name.to_owned(), found.clone());
        found
    }
}

impl ResolveDns for Resolver {
    fn resolve_dns<'a>(&'a self, name: &'a str) -> DnsFuture<'a> {
        let asked = name.to_owned();
        let lookup = async move {
            let found = tokio::net::lookup_host((asked, 0)).await?;
            Ok(found.map(|address| address.ip()).collect())
        };
        DnsFuture::new(async move { self.resolve(name, lookup).await.map_err(ResolveDnsError::new) })
    }
}

/// A client that trusts the system's roots and those in `extra`, and reads within `budget`.
pub(super) fn https(extra: Option<&Roots>, budget: &Budget, resolver: &Resolver) -> SharedHttpClient {
    let mut trust = TrustStore::default();
    if let Some(Roots(pem)) = extra {
        trust.add_pem_certificate(pem.as_bytes());
    }
    client(trust, budget.clone(), resolver.clone())
}

/// A client for IMDS, which does not use TLS.
pub(super) fn imds() -> SharedHttpClient {
    client(TrustStore::empty(), Budget::new(MAX_IMDS_ANSWER_BYTES), Resolver::default())
}

fn client(trust: TrustStore, budget: Budget, resolver: Resolver) -> SharedHttpClient {
    let id = PartitionId::from_index(0);
    // The tasks end with their connections.
    let tasks = DriverSpawner::from_fn(|task| drop(tokio::spawn(task)));
    // The builder of the context cannot fail (aws-smithy-http-client 1.5); if that ever changes, the system's roots stay.
    let context = TlsContext::builder().with_trust_store(trust).build().unwrap_or_default();
    let builder = ConnectionPool::builder()
        .idle_timeout(IDLE_TIMEOUT)
        .tcp_keepalive(KEEPALIVE_INTERVAL)
        .dns_resolver(resolver.clone())
        .partitions([Partition::new(id, tasks)])
        .tls_provider(Provider::Rustls(CryptoMode::Ring))
        .tls_context(context.clone());
    let pool = builder.build_https().ok().and_then(|pool| Client::from_partition(&pool, id).ok());
    let inner = match pool {
        Some(client) => SharedHttpClient::new(client),
        // Building a pool with these settings cannot fail (aws-smithy-http-client 1.5). If that ever changes, connections have
        // no keepalive.
        None => aws_smithy_http_client::Builder::new()
            .pool_idle_timeout(IDLE_TIMEOUT)
            .tls_provider(Provider::Rustls(CryptoMode::Ring))
            .tls_context(context)
            .build_with_resolver(resolver),
    };
    SharedHttpClient::new(Bounded { inner, budget })
}

/// CA certificates in PEM that the TLS library accepts: the SDK's client panics on others.
#[derive(Debug, Clone)]
pub(super) struct Roots(String);

impl Roots {
    pub(super) fn file(path: PathBuf) -> OperatorFile {
        OperatorFile::new(path, MAX_CA_FILE_BYTES)
    }

    pub(super) fn parse(pem: String) -> Result<Self, String> {
        let mut store = rustls::RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
            let certificate = certificate.map_err(|e| format!("it is not PEM: {e}"))?;
            store.add(certificate).map_err(|e| format!("a certificate in it is not usable: {e}"))?;
        }
        if store.is_empty() { Err("there is no certificate in it".to_owned()) } else { Ok(Self(pem)) }
    }
}

/// A client whose answers are read within a budget.
#[derive(Debug)]
struct Bounded<T> {
    inner: T,
    budget: Budget,
}

impl HttpClient for Bounded<SharedHttpClient> {
    fn http_connector(&self, settings: &HttpConnectorSettings, components: &RuntimeComponents) -> SharedHttpConnector {
        let inner = self.inner.http_connector(settings, components);
        SharedHttpConnector::new(Bounded { inner, budget: self.budget.clone() })
    }

    fn validate_base_client_config(
        &self,
        components: &RuntimeComponentsBuilder,
        cfg: &ConfigBag,
    ) -> Result<(), BoxError> {
        self.inner.validate_base_client_config(components, cfg)
    }

    fn validate_final_config(&self, components: &RuntimeComponents, cfg: &ConfigBag) -> Result<(), BoxError> {
        self.inner.validate_final_config(components, cfg)
    }

    fn connector_metadata(&self) -> Option<ConnectorMetadata> {
        self.inner.connector_metadata()
    }
}

impl HttpConnector for Bounded<SharedHttpConnector> {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let answer = self.inner.call(request);
        let budget = self.budget.clone();
        HttpConnectorFuture::new(async move {
            let answer = answer.await?;
            let announced = answer.headers().get("content-length").and_then(|length| length.parse().ok());
            Ok(answer.map(|body| budget.limit(body, announced)))
        })
    }
}

#[cfg(test)]
mod tests {
    use futures_util::{FutureExt, StreamExt};
    use tokio::time::Instant;

    use super::*;

    type Body = Pin<Box<SdkBody>>;

    /// An answer of so many pieces of 50 KiB, read within the budget.
    fn answer(budget: &Budget, pieces: usize, announced: bool) -> Body {
        const PIECE_BYTES: usize = 50 * 1024;
        let frames = stream::unfold(0, move |n| async move {
            let mut piece = Box::pin(SdkBody::from(vec![0; PIECE_BYTES]));
            if n < pieces { Some((piece.frame().await?, n + 1)) } else { None }
        });
        let body = SdkBody::from_body_1_x(StreamBody::new(frames.fuse()));
        Box::pin(budget.limit(body, announced.then(|| pieces * PIECE_BYTES)))
    }

    /// How many pieces come without waiting.
    fn ready(body: &mut Body, at_most: usize) -> usize {
        (0..at_most).take_while(|_| matches!(body.frame().now_or_never(), Some(Some(Ok(_))))).count()
    }

    #[test]
    fn two_long_answers_are_read_at_a_time_and_short_ones_meanwhile() {
        let budget = Budget::new(1024 * 1024);
        let [mut first, mut second, mut third, mut fourth] = [true, false, true, false].map(|a| answer(&budget, 10, a));
        assert_eq!((ready(&mut first, 5), ready(&mut second, 5)), (5, 5));
        assert_eq!(ready(&mut third, 10), 0, "it is known to be long");
        assert_eq!(ready(&mut fourth, 10), 2, "it turns out to be long");
        assert_eq!(ready(&mut answer(&budget, 1, true), 10), 1, "a short one");
        drop(first);
        assert_eq!(ready(&mut fourth, 20), 0, "the third was there before it");
        assert_eq!((ready(&mut third, 20), ready(&mut fourth, 20)), (10, 8), "each makes room at its end");
        assert_eq!(ready(&mut second, 20), 5);
    }

    #[test]
    fn an_answer_ends_where_it_grows_too_long() {
        let budget = Budget::new(500 * 1024);
        assert_eq!(ready(&mut answer(&budget, 10, true), 20), 10);
        assert_eq!(ready(&mut answer(&budget, 11, true), 20), 0, "it announces so");
        let mut endless = answer(&budget, usize::MAX, false);
        assert_eq!(ready(&mut endless, 20), 11);
    }

    #[test]
    fn addresses_that_did_not_answer_come_last() {
        let resolver = Resolver::default();
        let addresses = |last: &[u8]| last.iter().map(|n| IpAddr::from([10, 0, 0, *n])).collect::<Vec<_>>();
        assert_eq!(resolver.first_of_several("ec2"), None);
        assert_eq!(resolver.order("one", addresses(&[9])), addresses(&[9]));
        assert_eq!(resolver.first_of_several("one"), None);
        for (silent, order) in [(0, [3, 1, 2]), (3, [1, 2, 3]), (1, [2, 3, 1]), (2, [3, 1, 2]), (1, [3, 2, 1])] {
            resolver.avoid([10, 0, 0, silent].into());
            assert_eq!(resolver.order("ec2", addresses(&[3, 1, 2])), addresses(&order), "{silent}");
            assert_eq!(resolver.first_of_several("ec2"), Some([10, 0, 0, order[0]].into()));
        }
        (0..100).for_each(|n| resolver.avoid([10, 0, 1, n].into()));
        assert_eq!(resolver.addresses().silent.len(), MAX_SILENT_ADDRESSES);
    }

    #[tokio::test]
    async fn the_last_answer_for_a_name_is_used_while_the_name_server_is_silent() {
        let resolver = Resolver::default();
        let addresses = |last: &[u8]| last.iter().map(|n| IpAddr::from([10, 0, 0, *n])).collect::<Vec<_>>();
        let failure = || std::future::ready(Err(io::Error::other("no name server")));
        resolver.resolve("ec2", failure()).await.expect_err("no answer is known");
        let answer = addresses(&[1, 2]);
        let found = resolver.resolve("ec2", std::future::ready(Ok(answer))).await;
        assert_eq!(found.expect("an answer"), addresses(&[1, 2]));
        resolver.avoid([10, 0, 0, 1].into());
        assert_eq!(resolver.resolve("ec2", failure()).await.expect("the last answer"), addresses(&[2, 1]));
        resolver.resolve("sts", failure()).await.expect_err("no answer for this name is known");

        let (send, late) = tokio::sync::oneshot::channel();
        let began = Instant::now();
        let found = resolver.resolve("ec2", async { late.await.map_err(io::Error::other) }).await;
        assert_eq!(found.expect("the last answer"), addresses(&[2, 1]));
        assert!(began.elapsed() >= LOOKUP_TIMEOUT, "{:?}", began.elapsed());
        send.send(addresses(&[1, 3])).expect("the lookup goes on");
        let last = || resolver.addresses().last["ec2"].clone();
        let kept = timeout(Duration::from_secs(30), async {
            while last() != addresses(&[3, 1]) {
                tokio::task::yield_now().await;
            }
        });
        kept.await.unwrap_or_else(|_| panic!("{:?}", last()));
    }

    #[test]
    fn certificates_that_the_sdk_would_panic_over_are_refused() {
        for (pem, reason) in [
            ("", "there is no certificate in it"),
            ("no PEM at all", "there is no certificate in it"),
            ("-----BEGIN CERTIFICATE-----\n!!\n-----END CERTIFICATE-----\n", "it is not PEM"),
            ("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "a certificate in it is not usable"),
            ("-----BEGIN CERTIFICATE-----\nAAAA\n", "it is not PEM"),
        ] {
            let refused = Roots::parse(pem.to_owned()).expect_err(pem);
            assert!(refused.starts_with(reason), "{pem:?}: {refused}");
        }
    }
}
