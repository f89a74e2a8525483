//! keepalived, as far as an add-on of VyOS has to know it.

pub mod groups;
pub mod vitality;
