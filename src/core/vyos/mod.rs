//! VyOS's configuration, as the owner script passes it: the only module that parses VyOS's JSON.

pub mod input;
mod resources;
pub mod verify;
