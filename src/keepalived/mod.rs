//! keepalived, as far as an add-on of VyOS has to know it.

pub mod attachment;
pub mod conf;
pub mod groups;
pub mod include;
pub mod notify;
mod statements;
pub mod vitality;
