//! What the operator grants at this moment, for all that look at it at each use: so that taking it away reaches calls that run, too.
//!
//! Destinations and key-value stores are looked at in `outbound` and `keyvalue`; here is the rest.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwap;

use crate::config::{AppSpec, Config, Held};

/// What is granted to all apps.
pub struct Granted {
    config: ArcSwap<Config>,
    /// How often it has changed.
    changes: AtomicU64,
    /// What guests have open that was taken away: one end of a pipe, which fails whatever is done with files and folders.
    nothing: Arc<File>,
}

impl Granted {
    /// # Errors
    /// Where there are no descriptors left.
    pub fn new(config: Arc<Config>) -> io::Result<Arc<Self>> {
        let (nothing, _) = io::pipe()?;
        let nothing = Arc::new(File::from(OwnedFd::from(nothing)));
        Ok(Arc::new(Self { config: ArcSwap::new(config), changes: AtomicU64::new(0), nothing }))
    }

    /// From now on this is granted.
    pub fn change(&self, config: Arc<Config>) {
        self.config.store(config);
        // Whoever sees the new number sees the new configuration.
        self.changes.fetch_add(1, Ordering::Release);
    }
}

/// What one app has of it.
pub struct Grip {
    granted: Arc<Granted>,
    spec: Arc<AppSpec>,
    /// What it had when it was last looked at, in three bits; above them after how many changes that was.
    known: AtomicU64,
}

const FILES: u64 = 1;
const WALL_CLOCK: u64 = 2;
const RANDOMNESS: u64 = 4;
const BITS: u32 = 3;

impl Grip {
    pub fn new(granted: &Arc<Granted>, spec: &Arc<AppSpec>) -> Arc<Self> {
        // Nobody changes a configuration so often.
        Arc::new(Self { granted: Arc::clone(granted), spec: Arc::clone(spec), known: AtomicU64::new(u64::MAX) })
    }

    /// Whether it has all of its data and directories still, as they were.
    pub(crate) fn has_files(&self) -> bool {
        self.now() & FILES != 0
    }

    /// Whether it may know what time it is.
    pub(crate) fn has_wall_clock(&self) -> bool {
        self.now() & WALL_CLOCK != 0
    }

    pub(crate) fn has_randomness(&self) -> bool {
        self.now() & RANDOMNESS != 0
    }

    /// What is there instead of what was taken away.
    pub(crate) fn nothing(&self) -> Arc<File> {
        Arc::clone(&self.granted.nothing)
    }

    fn now(&self) -> u64 {
        let changes = self.granted.changes.load(Ordering::Acquire);
        let known = self.known.load(Ordering::Relaxed);
        if known >> BITS == changes {
            return known;
        }
        let Held { wall_clock, randomness, files } = self.granted.config.load().held_by(&self.spec);
        let bit = |is_held: bool, bit: u64| if is_held { bit } else { 0 };
        let found = bit(files, FILES) | bit(wall_clock, WALL_CLOCK) | bit(randomness, RANDOMNESS);
        self.known.store(changes << BITS | found, Ordering::Relaxed);
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bundle::Manifest;

    fn config(wall_clock: bool) -> Arc<Config> {
        let mut config = Config::default();
        if !wall_clock {
            config.grants.wall_clock = Default::default();
        }
        Arc::new(config)
    }

    #[test]
    fn what_is_taken_away_is_gone_at_the_next_look_and_comes_back() {
        let granted = Granted::new(config(true)).expect("there are descriptors");
        let spec = |sidecar| {
            let spec = Config::default().app_spec("shop", Some(sidecar), &Manifest::default());
            Grip::new(&granted, &Arc::new(spec.expect("it is right")))
        };
        let (grip, modest) = (spec(""), spec("wall_clock = false"));
        for is_granted in [true, false, false, true] {
            granted.change(config(is_granted));
            assert_eq!(grip.has_wall_clock(), is_granted);
            assert!(grip.has_randomness() && grip.has_files());
            assert!(!modest.has_wall_clock() && modest.has_randomness());
        }
    }
}
