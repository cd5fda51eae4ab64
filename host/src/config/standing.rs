//! What an app that is live may keep, and what of it, when the operator says something else than when it was loaded. Its sidecar has no
//! part in that: a sidecar that is refused, or cannot be read, keeps nothing in force.

use super::field::LIMITS;
use super::tenant::name_within;
use super::{AppSpec, Config, DirectorySpec, Grants, Held, Instances, Kept, SecretSource, Want};

/// The app as it may be from now on: with ceilings, quotas and variables that are its tenant's now. None if it has a place or a grant that
/// was taken away.
pub(super) fn fitted(config: &Config, spec: &AppSpec) -> Option<AppSpec> {
    if !still_allows(config, spec) {
        return None;
    }
    let tenant = config.tenant_of(&spec.name);
    let mut fitted = spec.clone();
    for field in LIMITS {
        field.keep_within(&mut fitted.limits, &tenant.limits);
    }
    for directory in &mut fitted.directories {
        let grant = tenant.grants.directories.get(&directory.place)?;
        directory.bytes_max = directory.bytes_max.min(grant.bytes_max.unwrap_or(tenant.limits.data_bytes));
        directory.names_max = directory.names_max.min(grant.names_max.unwrap_or(tenant.limits.data_files));
    }
    if let Instances::Rewind(kept) | Instances::Reuse(kept) = &mut fitted.instances {
        *kept = Kept {
            requests_max: kept.requests_max.min(config.reuse_requests_max),
            idle_time: kept.idle_time.min(config.reuse_idle_time),
            memory_bytes_max: kept.memory_bytes_max.min(config.reuse_memory_bytes),
        };
    }
    // Only what is its own stays whatever the tenant's are.
    let granted = &tenant.grants.env;
    fitted.env_granted.retain(|name| granted.contains_key(name));
    fitted.env.retain_mut(|(name, value)| match (spec.env_granted.contains(name), granted.get(name)) {
        (false, _) => true,
        (true, None) => false,
        (true, Some(now)) => {
            now.clone_into(value);
            true
        }
    });
    Some(fitted)
}

fn still_allows(config: &Config, spec: &AppSpec) -> bool {
    let tenant = config.tenant_of(&spec.name);
    let (name, grants) = (name_within(&spec.name), &tenant.grants);
    let has_secret = |(key, source): &(String, SecretSource)| {
        grants.secrets.get(key).is_some_and(|grant| grant.apps.contain(name) && grant.source == *source)
    };
    spec.routes.iter().all(|route| config.gives(&tenant, route))
        && (spec.wall_clock != Want::Needed || grants.wall_clock.contain(name))
        && (spec.randomness != Want::Needed || grants.randomness.contain(name))
        && spec.secrets.iter().all(has_secret)
        && has_files(grants, spec)
}

pub(super) fn held(config: &Config, spec: &AppSpec) -> Held {
    let grants = &config.tenant_of(&spec.name).grants;
    let name = name_within(&spec.name);
    Held {
        wall_clock: spec.wall_clock != Want::Declined && grants.wall_clock.contain(name),
        randomness: spec.randomness != Want::Declined && grants.randomness.contain(name),
        files: has_files(grants, spec),
    }
}

/// Whether it has its data and directories still, as they were.
fn has_files(grants: &Grants, spec: &AppSpec) -> bool {
    let name = name_within(&spec.name);
    let has_directory = |directory: &DirectorySpec| {
        grants.directories.get(&directory.place).is_some_and(|grant| {
            grant.apps.contain(name) && (&grant.path, grant.access) == (&directory.path, directory.access)
        })
    };
    (spec.data.is_none() || grants.data.contain(name)) && spec.directories.iter().all(has_directory)
}
