//! VyOS's configuration, as its owner hands it over: the one module that knows VyOS's JSON.

pub mod input;
pub mod verify;
