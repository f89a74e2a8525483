//! The HTTP client under the SDK: TLS by rustls, connections kept warm, answers of bounded length.
//!
//! Names are resolved by the system (getaddrinfo on tokio's threads for blocking work), no proxy is looked for in the
//! environment, and a request that finds every connection in use opens another: a claim never waits behind a read.

use std::path::Path;
use std::time::Duration;

use aws_smithy_http_client::tls::rustls_provider::CryptoMode;
use aws_smithy_http_client::tls::{Provider, TlsContext, TrustStore};
use aws_smithy_runtime_api::box_error::BoxError;
use aws_smithy_runtime_api::client::connector_metadata::ConnectorMetadata;
use aws_smithy_runtime_api::client::http::{
    HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpClient, SharedHttpConnector,
};
use aws_smithy_runtime_api::client::orchestrator::HttpRequest;
use aws_smithy_runtime_api::client::runtime_components::{RuntimeComponents, RuntimeComponentsBuilder};
use aws_smithy_types::body::SdkBody;
use aws_smithy_types::config_bag::ConfigBag;
use http_body_util::Limited;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use crate::operator_file::{self, Version};

/// How long a connection without a request is kept: longer than the longest time between two reads, which is 300 s and a
/// fifth of that.
const IDLE: Duration = Duration::from_secs(400);
/// Connections kept without a request: two claims and a read at once, and one to spare.
const MAX_IDLE: usize = 4;
/// The longest answer: 100 network interfaces with 50 addresses each are a third of it.
const MAX_ANSWER: usize = 6 * 1024 * 1024;
/// The longest file of certificates.
const MAX_CA_FILE: u64 = 1024 * 1024;

/// A client that trusts the system's roots and those in `extra`.
pub(super) fn https(extra: Option<&Roots>) -> SharedHttpClient {
    let mut trust = TrustStore::default();
    if let Some(Roots(pem)) = extra {
        trust.add_pem_certificate(pem.as_bytes());
    }
    client(trust)
}

/// A client for what is never asked over TLS.
pub(super) fn http() -> SharedHttpClient {
    client(TrustStore::empty())
}

fn client(trust: TrustStore) -> SharedHttpClient {
    let mut builder = aws_smithy_http_client::Builder::new()
        .pool_idle_timeout(IDLE)
        .pool_max_idle_per_host(MAX_IDLE)
        .tls_provider(Provider::Rustls(CryptoMode::Ring));
    // The builder of the context cannot fail (aws-smithy-http-client 1.5); if that ever changes, the system's roots stay.
    if let Ok(context) = TlsContext::builder().with_trust_store(trust).build() {
        builder = builder.tls_context(context);
    }
    SharedHttpClient::new(Bounded(builder.build_https()))
}

/// Certificates of authorities in PEM that the TLS library takes: the SDK's client panics over any that it does not.
#[derive(Debug, Clone)]
pub(super) struct Roots(String);

impl Roots {
    /// Reads a PEM file.
    ///
    /// # Errors
    /// The reason, and the state of the file that it is true of.
    pub(super) fn read(path: &Path) -> (Result<Self, String>, Version) {
        match operator_file::read(path, MAX_CA_FILE) {
            Ok((pem, version)) => (Self::parse(pem), version),
            Err((reason, version)) => (Err(reason), version),
        }
    }

    fn parse(pem: String) -> Result<Self, String> {
        let mut store = rustls::RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
            let certificate = certificate.map_err(|e| format!("it is not PEM: {e}"))?;
            store.add(certificate).map_err(|e| format!("a certificate in it is not usable: {e}"))?;
        }
        if store.is_empty() { Err("there is no certificate in it".to_owned()) } else { Ok(Self(pem)) }
    }
}

/// A client whose answers end with an error where they grow too long.
#[derive(Debug)]
struct Bounded<T>(T);

impl HttpClient for Bounded<SharedHttpClient> {
    fn http_connector(&self, settings: &HttpConnectorSettings, components: &RuntimeComponents) -> SharedHttpConnector {
        SharedHttpConnector::new(Bounded(self.0.http_connector(settings, components)))
    }

    fn validate_base_client_config(
        &self,
        components: &RuntimeComponentsBuilder,
        cfg: &ConfigBag,
    ) -> Result<(), BoxError> {
        self.0.validate_base_client_config(components, cfg)
    }

    fn validate_final_config(&self, components: &RuntimeComponents, cfg: &ConfigBag) -> Result<(), BoxError> {
        self.0.validate_final_config(components, cfg)
    }

    fn connector_metadata(&self) -> Option<ConnectorMetadata> {
        self.0.connector_metadata()
    }
}

impl HttpConnector for Bounded<SharedHttpConnector> {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let answer = self.0.call(request);
        HttpConnectorFuture::new(async move {
            let answer = answer.await?;
            Ok(answer.map(|body| SdkBody::from_body_1_x(Limited::new(body, MAX_ANSWER))))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
