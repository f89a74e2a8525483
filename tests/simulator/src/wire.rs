//! The wire protocol of the EC2 API: form parameters in, XML out, Signature Version 4.

pub(crate) mod query;
pub(crate) mod sigv4;
pub(crate) mod xml;
