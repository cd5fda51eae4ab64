//! How many connections each client's address has: one that has its share gets no further one, so that there are some for the others.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Of all connections one address has no more than this part.
const PART: usize = 2;

/// The operator is told of clients that want more no more often than this.
const SAID_AGAIN: Duration = Duration::from_secs(60);

/// Those that are open, by address.
#[derive(Default)]
pub(super) struct Addresses(Mutex<Open>);

#[derive(Default)]
struct Open {
    by_address: HashMap<IpAddr, usize>,
    said: Option<Instant>,
}

/// A connection that is counted, until this is dropped.
pub(super) struct Counted {
    address: IpAddr,
    addresses: Arc<Addresses>,
}

/// Whom an address stands for: who has one of IPv6 has the lower half of them all for itself (RFC 6177).
fn holder(address: IpAddr) -> IpAddr {
    const NETWORK: u128 = !0 << 64;
    match address.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & NETWORK).into(),
        address => address,
    }
}

impl Addresses {
    fn open(&self) -> MutexGuard<'_, Open> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts one more of an address, where it may have so many, and all together `all`. None if it has them.
    pub(super) fn enter(self: &Arc<Self>, address: IpAddr, max: u32, all: usize) -> Option<Counted> {
        let address = holder(address);
        let max = usize::try_from(max).unwrap_or(usize::MAX).min((all / PART).max(1));
        let mut open = self.open();
        let had = open.by_address.entry(address).or_default();
        if *had < max {
            *had += 1;
            return Some(Counted { address, addresses: Arc::clone(self) });
        }
        if open.said.is_none_or(|said| said.elapsed() >= SAID_AGAIN) {
            open.said = Some(Instant::now());
            tracing::warn!(
                "the client at {address} has {max} connections open, and gets no further one before it closes some: \
                 edge.connections_per_address, or half of all; a proxy belongs in forwarded_allow_ips"
            );
        }
        None
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let mut open = self.addresses.open();
        if let Some(had) = open.by_address.get_mut(&self.address) {
            *had -= 1;
            if *had == 0 {
                open.by_address.remove(&self.address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_its_part_and_no_more_and_what_is_closed_is_free() {
        let addresses = Arc::<Addresses>::default();
        let enter = |address: &str, max, all| addresses.enter(address.parse().expect("an address"), max, all);
        let (one, two) = (enter("192.0.2.1", 2, 100), enter("::ffff:192.0.2.1", 2, 100));
        assert!(one.is_some() && two.is_some());
        assert!(enter("192.0.2.1", 2, 100).is_none() && enter("192.0.2.2", 2, 100).is_some());
        drop(one);
        assert!(enter("192.0.2.1", 2, 100).is_some(), "and closed again at once");
        drop(two);
        assert!(addresses.open().by_address.is_empty(), "nothing is kept of who has none");
        // Half of all, however many it might have; one in any case.
        let some: Vec<_> = std::iter::from_fn(|| enter("192.0.2.1", 1000, 10)).collect();
        assert_eq!(some.len(), 5);
        assert!(enter("192.0.2.3", 1000, 1).is_some());
    }

    #[test]
    fn a_network_of_ipv6_is_one_client() {
        let addresses = Arc::<Addresses>::default();
        let enter = |address: &str| addresses.enter(address.parse().expect("an address"), 1, 100);
        let _one = enter("2001:db8:1:2::1").expect("the first");
        assert!(enter("2001:db8:1:2:ffff::1").is_none());
        assert!(enter("2001:db8:1:3::1").is_some());
    }
}
