//! The attacks, by what they are after.

mod canaries;
mod clients;
mod clocks;
mod compiler;
mod deploying;
mod descriptors;
mod kept;
mod memory;
mod payloads;
mod protocol;
mod reach;
mod sharing;
mod tenants;
mod time;

use std::time::Duration;

use super::PROTECTS_UP_TO;
use super::attack::{Attack, Expected, Group, NOTHING, Outcome};

/// Limits by which attacks are made shorter.
const ONE_SECOND: Duration = Duration::from_secs(1);
const SOON: &[(&str, Duration)] = &[("cpu_time", ONE_SECOND)];

pub(super) fn all() -> Vec<Group> {
    vec![
        Group { title: "time", attacks: time::attacks() },
        Group { title: "clocks", attacks: clocks::attacks() },
        Group { title: "memory", attacks: memory::attacks() },
        Group { title: "payloads", attacks: payloads::attacks() },
        Group { title: "protocol", attacks: protocol::attacks() },
        Group { title: "reach", attacks: reach::attacks() },
        Group { title: "canaries", attacks: canaries::attacks() },
        Group { title: "compiler", attacks: compiler::attacks() },
        Group { title: "deploying", attacks: deploying::attacks() },
        Group { title: "clients", attacks: clients::attacks() },
        Group { title: "tenants", attacks: tenants::attacks() },
        Group { title: "sharing", attacks: sharing::attacks() },
        Group { title: "kept", attacks: kept::attacks() },
        Group { title: "descriptors", attacks: descriptors::attacks() },
    ]
}
