//! `instances`: which sandbox serves a call, and how long one is kept that may serve again.

use std::time::Duration;

use super::Config;

/// Which sandbox serves a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Instances {
    /// A new one for each call (`wsgi.run_once` is true).
    Fresh,
    /// One that has served before and was put back to where it began; a new one where that can't be (`wsgi.run_once` is true).
    Rewind(Kept),
    /// One that has served before, as long as nothing ever went wrong in it (`wsgi.run_once` is false).
    Reuse(Kept),
}

/// How long instances are kept that may serve again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kept {
    /// Calls after which an instance is retired.
    pub requests_max: u32,
    /// An instance unused for this long is retired.
    pub idle_time: Duration,
    /// An instance whose memory is larger than this is retired after its response.
    pub memory_bytes_max: u64,
}

/// The values of `instances`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Policy {
    Fresh,
    Rewind,
    Reuse,
}

impl Instances {
    pub(super) fn policy(self) -> Policy {
        match self {
            Self::Fresh => Policy::Fresh,
            Self::Rewind(_) => Policy::Rewind,
            Self::Reuse(_) => Policy::Reuse,
        }
    }
}

impl std::fmt::Display for Instances {
    /// As in `wasgi.toml`.
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (word, _) = INSTANCES.iter().find(|(_, policy)| *policy == self.policy()).expect("each policy has a word");
        formatter.write_str(word)
    }
}

pub(super) const INSTANCES: &[(&str, Policy)] =
    &[("fresh", Policy::Fresh), ("rewind", Policy::Rewind), ("reuse", Policy::Reuse)];

impl Config {
    /// A policy with the numbers of this configuration.
    pub(super) fn policy(&self, policy: Policy) -> Instances {
        let kept = Kept {
            requests_max: self.reuse_requests_max,
            idle_time: self.reuse_idle_time,
            memory_bytes_max: self.reuse_memory_bytes,
        };
        match policy {
            Policy::Fresh => Instances::Fresh,
            Policy::Rewind => Instances::Rewind(kept),
            Policy::Reuse => Instances::Reuse(kept),
        }
    }
}
