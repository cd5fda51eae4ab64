//! The attacks, by what they are after.

mod canaries;
mod clients;
mod clocks;
mod compiler;
mod components;
mod deploying;
mod descriptors;
mod escapes;
mod http2;
mod kept;
mod memory;
mod payloads;
mod protocol;
mod reach;
mod requests;
mod sharing;
mod tenants;
mod time;

use super::attack::{Attack, Cause, Expected, Group, NOTHING, Outcome, Unstopped, no_attack};
use super::terms::ONE_SECOND;
use crate::config::Config;

/// All of them, as far as their programs depend on it for this configuration.
pub(super) fn all(config: &Config) -> Vec<Group> {
    vec![
        Group { title: "time", attacks: time::attacks(config) },
        Group { title: "clocks", attacks: clocks::attacks() },
        Group { title: "memory", attacks: memory::attacks() },
        Group { title: "payloads", attacks: payloads::attacks(config) },
        Group { title: "protocol", attacks: protocol::attacks(config) },
        Group { title: "components", attacks: components::attacks(config) },
        Group { title: "reach", attacks: reach::attacks() },
        Group { title: "escapes", attacks: escapes::attacks() },
        Group { title: "canaries", attacks: canaries::attacks() },
        Group { title: "compiler", attacks: compiler::attacks(config) },
        Group { title: "deploying", attacks: deploying::attacks() },
        Group { title: "requests", attacks: requests::attacks() },
        Group { title: "clients", attacks: clients::attacks() },
        Group { title: "http2", attacks: http2::attacks() },
        Group { title: "tenants", attacks: tenants::attacks() },
        Group { title: "sharing", attacks: sharing::attacks() },
        Group { title: "kept", attacks: kept::attacks() },
        Group { title: "descriptors", attacks: descriptors::attacks() },
    ]
}
