//! Files: those of this package, with a format number, and those that an operator names.

pub mod credentials_file;
pub(crate) mod group;
pub mod json_file;
pub(crate) mod operator_file;
