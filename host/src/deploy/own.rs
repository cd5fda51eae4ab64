//! What belongs to an app beside its code: static files, data, directories.

use std::sync::Arc;

use anyhow::Context;

use super::load::Outcome;
use crate::account::Account;
use crate::apps::App;
use crate::assets::Assets;
use crate::bundle::Tree;
use crate::config::{AppSpec, DirectorySpec, Secrets};
use crate::data::{DataDir, Directory, Volumes};

/// Whether an app with the same bytes already is what it should be.
pub(super) fn is_settled(spec: &AppSpec, secrets: &Secrets, live: &App) -> bool {
    *live.secrets == *secrets && live.release.kind.settle(spec.clone()).is_ok_and(|spec| spec == *live.spec)
}

/// What it serves without its guest.
pub(super) fn assets(spec: &AppSpec, files: Option<&Arc<Tree>>) -> anyhow::Result<Option<Assets>> {
    if spec.assets.is_empty() {
        return Ok(None);
    }
    let tree = files.context("static files are named, but it carries no files: build it with --include")?;
    let assets = Assets::new(Arc::clone(tree), &spec.assets, &spec.limits);
    assets.map(Some).map_err(anyhow::Error::msg)
}

/// The directory of its data, if it has one: the very one of the release before, whose calls and its own take turns.
pub(super) fn open_data(
    spec: &AppSpec,
    live: Option<&Arc<App>>,
    account: &Arc<Account>,
) -> Result<Option<Arc<DataDir>>, Outcome> {
    let Some(path) = &spec.data else { return Ok(None) };
    if let Some(data) = live.and_then(|live| live.data.as_ref()).filter(|data| data.path() == path) {
        return Ok(Some(Arc::clone(data)));
    }
    match DataDir::open(path, account) {
        Ok(data) => Ok(Some(Arc::new(data))),
        Err(error) => Err(Outcome::Passing(format!("the directory {} of its data: {error}", path.display()))),
    }
}

/// Directories that it was granted beside that.
pub(super) fn open_directories(
    spec: &AppSpec,
    volumes: &Volumes,
    account: &Arc<Account>,
) -> Result<Arc<[Directory]>, Outcome> {
    let open = |spec: &DirectorySpec| {
        Directory::open(spec, volumes, account).map_err(|error| {
            Outcome::Passing(format!(
                "the directory {} that it was granted at {}: {error}",
                spec.path.display(),
                spec.place
            ))
        })
    };
    spec.directories.iter().map(open).collect()
}
