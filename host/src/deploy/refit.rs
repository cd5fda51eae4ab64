//! A live release → the same with less, when the operator has lowered a ceiling or taken something away. It is made of what is live: its file
//! and its sidecar, which are its tenant's, have no say in it.

use std::sync::Arc;
use std::time::Instant;

use super::load::{Loader, Origin, Outcome, Parts, Ready};
use super::own::Opened;
use super::sleeper::Recipe;
use crate::apps::App;
use crate::config::{AppSpec, Config};

/// What is to be brought in line.
pub(super) struct Refit {
    pub(super) name: String,
    pub(super) ticket: u64,
    pub(super) live: Arc<App>,
    /// As it may be from now on.
    pub(super) spec: AppSpec,
}

impl Loader {
    /// Makes it what it may be from now on, with its secrets as they are now.
    pub(super) async fn refit(self: &Arc<Self>, config: Arc<Config>, live: Arc<App>, spec: AppSpec) -> Outcome {
        let tenant = spec.tenant.clone();
        let done = self.by_hand(&tenant, move |loader| loader.refitted(&config, &live, spec));
        match done.await {
            Ok(outcome) => outcome,
            // What it was may not go on.
            Err(Outcome::Refused(reason) | Outcome::Passing(reason)) => Outcome::Closed(reason),
            Err(outcome) => outcome,
        }
    }

    fn refitted(self: &Arc<Self>, config: &Config, live: &Arc<App>, spec: AppSpec) -> Result<Outcome, Outcome> {
        let began = Instant::now();
        let secrets = spec.read_secrets().map_err(Outcome::Closed)?;
        spec.check_environment(&secrets).map_err(Outcome::Closed)?;
        if spec == *live.spec && secrets == *live.secrets {
            return Ok(Outcome::Unchanged);
        }
        let Recipe { shelf, kind, own, .. } = live.guest.recipe();
        let account = Arc::clone(&own.account);
        let opened = Opened::kept(&spec, own)?;
        let keyvalue = self.keyvalue(&spec, &account);
        let release = &live.release;
        let parts = Parts {
            spec,
            secrets: Arc::new(secrets),
            kind: *kind,
            uses: own.uses,
            shelf: Arc::clone(shelf),
            code: None,
            not_rewound: release.not_rewound.clone(),
            files: own.files.clone(),
            hash: release.hash.clone(),
            code_hash: release.code_hash.clone(),
            bytes: release.bytes,
            origin: Origin::Shared,
        };
        let app = self.app(config, Some(live), parts, opened, (account, keyvalue))?;
        Ok(Outcome::Ready(Box::new(Ready { app, origin: Origin::Shared, took: began.elapsed() })))
    }
}
