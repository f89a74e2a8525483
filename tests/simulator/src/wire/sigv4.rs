//! Signature Version 4, as a server checks it (IAM user guide, "Create a signed AWS API request").

use std::fmt::Write as _;

use hyper::http::request::Parts;
use jiff::Timestamp;
use ring::{digest, hmac};

/// The parts of an `Authorization: AWS4-HMAC-SHA256 …` header and of the headers that belong to it.
#[derive(Clone, Debug)]
pub(crate) struct Signed {
    pub(crate) access_key: String,
    pub(crate) date: String,
    pub(crate) region: String,
    pub(crate) service: String,
    pub(crate) session_token: Option<String>,
    /// `X-Amz-Date`: the client's clock.
    pub(crate) timestamp: Timestamp,
    amz_date: String,
    signed_headers: Vec<String>,
    signature: String,
}

impl Signed {
    /// Reads the headers; `None` if one is missing or malformed.
    pub(crate) fn read(parts: &Parts) -> Option<Signed> {
        let header = |name: &str| parts.headers.get(name)?.to_str().ok();
        let fields = header("authorization")?.strip_prefix("AWS4-HMAC-SHA256")?;
        let field = |name: &str| fields.split(',').find_map(|part| part.trim().strip_prefix(name)?.strip_prefix('='));
        let credential: Vec<&str> = field("Credential")?.split('/').collect();
        let [access_key, date, region, service, "aws4_request"] = credential[..] else {
            return None;
        };
        let amz_date = header("x-amz-date")?;
        let timestamp = jiff::fmt::strtime::parse("%Y%m%dT%H%M%SZ", amz_date)
            .and_then(|parsed| parsed.to_datetime())
            .and_then(|datetime| datetime.to_zoned(jiff::tz::TimeZone::UTC))
            .ok()?
            .timestamp();
        Some(Signed {
            access_key: access_key.to_owned(),
            date: date.to_owned(),
            region: region.to_owned(),
            service: service.to_owned(),
            session_token: header("x-amz-security-token").map(str::to_owned),
            timestamp,
            amz_date: amz_date.to_owned(),
            signed_headers: field("SignedHeaders")?.split(';').map(str::to_owned).collect(),
            signature: field("Signature")?.to_owned(),
        })
    }

    /// Whether `secret` gives this signature over the request.
    pub(crate) fn verifies(&self, secret: &str, parts: &Parts, body: &[u8]) -> bool {
        let mut canonical = format!("{}\n{}\n", parts.method, parts.uri.path());
        let mut query: Vec<&str> = parts.uri.query().unwrap_or("").split('&').collect();
        query.sort_unstable();
        canonical.push_str(&query.join("&"));
        canonical.push('\n');
        for name in &self.signed_headers {
            let values: Vec<String> = parts
                .headers
                .get_all(name)
                .iter()
                .map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned())
                .map(|value| value.split_whitespace().collect::<Vec<_>>().join(" "))
                .collect();
            let _ = writeln!(canonical, "{name}:{}", values.join(","));
        }
        let _ = write!(canonical, "\n{}\n{}", self.signed_headers.join(";"), sha256(body));
        let scope = format!("{}/{}/{}/aws4_request", self.date, self.region, self.service);
        let text = format!("AWS4-HMAC-SHA256\n{}\n{scope}\n{}", self.amz_date, sha256(canonical.as_bytes()));
        let mut key = hmac_sha256(format!("AWS4{secret}").as_bytes(), &self.date);
        for part in [&self.region, &self.service, "aws4_request", &text] {
            key = hmac_sha256(key.as_ref(), part);
        }
        hex(key.as_ref()) == self.signature
    }
}

fn hmac_sha256(key: &[u8], data: &str) -> hmac::Tag {
    hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), data.as_bytes())
}

fn sha256(data: &[u8]) -> String {
    hex(digest::digest(&digest::SHA256, data).as_ref())
}

/// Bytes as lower-case hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
