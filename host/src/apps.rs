//! What is live: an immutable table of apps that readers take in one step and that only `deploy` replaces.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

use arc_swap::{ArcSwap, Guard};

use crate::admission::{Admission, Throttle};
use crate::assets::Assets;
use crate::capsule::Recorder;
use crate::config::{AppSpec, Secrets};
use crate::data::DataDir;
use crate::deploy::sleeper::Sleeper;
use crate::guest::Kind;
use crate::outbound::Outbound;
use crate::route::Router;
use crate::telemetry::{AppLog, Stats};

/// An app with its live release, ready to be called.
pub struct App {
    pub spec: Arc<AppSpec>,
    pub release: Release,
    pub guest: Sleeper,
    /// What it prints.
    pub log: Arc<AppLog>,
    /// Carried over while the limits stay: a release that drains counts, too.
    pub admission: Arc<Admission>,
    /// Of this release, whatever its sidecar says.
    pub throttle: Arc<Throttle>,
    /// Carried over from release to release.
    pub stats: Arc<Stats>,
    /// What is served without the guest.
    pub assets: Option<Assets>,
    /// The directory that it was granted.
    pub data: Option<Arc<DataDir>>,
    /// The way to where it may go. Its connections count with those of the release before.
    pub outbound: Option<Arc<Outbound>>,
    /// As they were when the release was made.
    pub secrets: Arc<Secrets>,
    /// Of the calls that it fails.
    pub recorder: Arc<Recorder>,
}

/// One version of an app: the bytes with one hash.
#[derive(Clone, Debug)]
pub struct Release {
    /// SHA-256 of the file, in hex.
    pub hash: String,
    /// SHA-256 of its code: of the file without its bundle.
    pub code_hash: String,
    /// The file's size.
    pub bytes: u64,
    pub kind: Kind,
    /// Why each call has a fresh instance, though the app's were to be rewound.
    pub not_rewound: Option<String>,
    pub live_since: SystemTime,
}

/// Everything known about the apps directory at one moment.
#[derive(Default)]
pub struct Table {
    pub router: Router<Arc<App>>,
    /// By name; also the ones that are not live, with the reason.
    pub entries: BTreeMap<String, Entry>,
}

/// One app, or one file that should be one.
#[derive(Clone, Default)]
pub struct Entry {
    pub live: Option<Arc<App>>,
    /// Why the newest file (or sidecar) is not what is being served; none if it is.
    pub problem: Option<Problem>,
    /// A new release is being compiled.
    pub loading: bool,
    /// Younger apps that claim a route of this one, and so are refused: one line for each.
    pub rivals: Vec<String>,
}

#[derive(Clone, Debug)]
pub struct Problem {
    /// One line, for the operator: names the path and what to do.
    pub reason: String,
    pub since: SystemTime,
}

/// The table in force.
#[derive(Default)]
pub struct Apps {
    table: ArcSwap<Table>,
}

impl Apps {
    /// The table at this moment. Cheap; a request takes it once.
    pub fn snapshot(&self) -> Guard<Arc<Table>> {
        self.table.load()
    }

    /// Puts a new table in force. Calls that run keep the app that they started with.
    pub fn publish(&self, table: Table) {
        self.table.store(Arc::new(table));
    }
}
