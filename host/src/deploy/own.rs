//! What belongs to an app beside its code: static files, data, directories.

use std::sync::Arc;

use anyhow::Context;

use super::load::Outcome;
use crate::account::{Account, Held};
use crate::apps::App;
use crate::assets::Assets;
use crate::bundle::Tree;
use crate::config::{AppSpec, DirectorySpec, Secrets};
use crate::data::{DataDir, Directory, Volumes};
use crate::sandbox::Belongings;

/// Whether an app with the same bytes already is what it should be.
pub(super) fn is_settled(spec: &AppSpec, secrets: &Secrets, live: &App) -> bool {
    *live.secrets == *secrets && live.release.kind.settle(spec.clone()).is_ok_and(|spec| spec == *live.spec)
}

/// What it serves without its guest.
pub(super) fn assets(
    spec: &AppSpec,
    files: Option<&Arc<Tree>>,
    account: &Arc<Account>,
) -> anyhow::Result<Option<Assets>> {
    if spec.assets.is_empty() {
        return Ok(None);
    }
    let tree = files.context("static files are named, but it carries no files: build it with --include")?;
    let assets = Assets::new(Arc::clone(tree), &spec.assets, &spec.limits, account);
    assets.map(Some).map_err(anyhow::Error::msg)
}

/// What is open as long as an app is live, beside the tree of its files.
pub(super) struct Opened {
    pub(super) data: Option<Arc<DataDir>>,
    pub(super) directories: Arc<[Directory]>,
    /// The right to all of it.
    pub(super) descriptors: Option<Arc<Held>>,
}

impl Opened {
    /// For a release that is to go live, beside or in place of what is.
    pub(super) fn new(
        spec: &AppSpec,
        files: Option<&Arc<Tree>>,
        live: Option<&Arc<App>>,
        volumes: &Volumes,
        account: &Arc<Account>,
    ) -> Result<Self, Outcome> {
        let descriptors = descriptors(spec, files, account)?;
        let data = open_data(spec, live, account)?;
        Ok(Self { data, directories: open_directories(spec, volumes, account)?, descriptors })
    }

    /// What a release that goes on with less has open already. Nothing is opened or taken for it: that could fail, and a directory's name
    /// may lead elsewhere by now.
    pub(super) fn kept(spec: &AppSpec, own: &Belongings) -> Result<Self, Outcome> {
        let kept = |spec: &DirectorySpec| own.directories.iter().find_map(|directory| directory.within(spec));
        let directories = spec.directories.iter().map(kept).collect::<Option<_>>();
        let lost = || Outcome::Closed("a directory that it was granted is another now".to_owned());
        let directories = directories.ok_or_else(lost)?;
        Ok(Self { data: own.data.clone(), directories, descriptors: own.descriptors.clone() })
    }
}

/// The right to all that is open as long as it is live: the tree of its files, its data with the number of the last turn, directories.
fn descriptors(
    spec: &AppSpec,
    files: Option<&Arc<Tree>>,
    account: &Arc<Account>,
) -> Result<Option<Arc<Held>>, Outcome> {
    let count = u64::from(files.is_some()) + 2 * u64::from(spec.data.is_some()) + spec.directories.len() as u64;
    if count == 0 {
        return Ok(None);
    }
    let refused = || {
        let reason =
            "its tenant has as many files and connections open as it may: raise budget.descriptors, or LimitNOFILE";
        Outcome::Passing(reason.to_owned())
    };
    account.take_descriptors(count).ok_or_else(refused).map(|held| Some(Arc::new(held)))
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
