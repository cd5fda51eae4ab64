//! How the descriptors that this process may have are shared out: to clients' connections, to what guests have open, and to the host
//! itself. The parts add up to what there is, and nobody takes of another's: so whatever guests and clients do, there is one for the
//! next connection, the admin socket, a compiler, a log.

use rustix::process::Resource;

/// The host's own part: this much of all, and never less than the number after it. It is for listeners, the admin socket, files of
/// settings and logs, pipes to compilers, files that are scanned, loaded or compiled, look-ups of names, stores of values.
const OWN_PART: u64 = 8;
const OWN_MIN: u64 = 128;

/// Clients have no more than half of what is left then, so that there is something for guests.
const CLIENTS_PART: u64 = 2;

/// Where the kernel knows no limit.
const UNLIMITED: u64 = 1 << 20;

/// Who may have how many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shares {
    /// All that the process may have.
    pub all: u64,
    /// Connections of clients.
    pub clients: u32,
    /// What guests of all tenants may have open together.
    pub guests: u64,
}

impl Shares {
    /// Of what this process may have now. `connections` is what the operator wants for clients.
    pub fn of_process(connections: u32) -> Self {
        Self::of(rustix::process::getrlimit(Resource::Nofile).current.unwrap_or(UNLIMITED), connections)
    }

    /// Of what a host has that this process starts: it takes all that it may.
    pub(crate) fn of_host(connections: u32) -> Self {
        Self::of(rustix::process::getrlimit(Resource::Nofile).maximum.unwrap_or(UNLIMITED), connections)
    }

    fn of(all: u64, connections: u32) -> Self {
        let left = all.saturating_sub((all / OWN_PART).max(OWN_MIN));
        let clients = (left / CLIENTS_PART).min(connections.into()).max(1);
        let guests = left.saturating_sub(clients);
        // It is not more than the connections that were wanted.
        Self { all, clients: u32::try_from(clients).unwrap_or(connections), guests }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parts_add_up_and_the_host_has_its_own() {
        for all in [0, 64, 128, 256, 1024, 4096, 20_000, 524_288, 1 << 30] {
            for wanted in [1, 100, 10_000, 1_000_000] {
                let Shares { clients, guests, .. } = Shares::of(all, wanted);
                let clients = u64::from(clients);
                assert!((1..=u64::from(wanted)).contains(&clients), "{clients} of {all} for clients");
                let given = clients + guests;
                assert!(all <= OWN_MIN || given + OWN_MIN <= all, "{given} of {all} are given away");
                assert!(all < 256 || guests >= all / 4, "{guests} of {all} for guests");
            }
        }
        assert_eq!(Shares::of(524_288, 10_000), Shares { all: 524_288, clients: 10_000, guests: 448_752 });
        assert_eq!(Shares::of(1024, 10_000), Shares { all: 1024, clients: 448, guests: 448 });
    }
}
