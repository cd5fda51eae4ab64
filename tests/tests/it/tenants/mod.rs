//! Tenants: what the apps of one may have, and that others neither get nor notice it.

mod budgets;
mod deploying;
mod fairness;
mod grants;
mod links;
mod places;
mod senses;
mod slow_clients;

use rustix::process::Signal;
use tests::Host;

/// Has the host read its configuration again.
fn reload(host: &Host, config: &str) {
    host.write_config(config);
    host.signal(Signal::HUP);
}
