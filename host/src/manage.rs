//! `wasgi manage`: one command of an app, with what the app has when it is served. It is for the operator, who may run it beside a
//! host that serves the same app: they take turns at the app's data.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, anyhow, bail};

use crate::config::Config;
use crate::deploy::{self, Loaded};
use crate::guest::command::{self, Command};
use crate::sandbox::Engine;

/// After this long it is said that somebody else has the data.
const PATIENCE: Duration = Duration::from_secs(1);

/// Runs a command of the app in `file`. `say` gets lines for whoever waits. Returns the command's exit status.
///
/// # Errors
/// If the file is no app in the apps directory, would not deploy, has no command, or the command traps.
pub async fn run(config: Config, file: &Path, command: Command, say: impl Fn(&str)) -> anyhow::Result<u8> {
    let name = app_name(&config.apps_dir, file)?;
    // One sandbox is all that runs here; the pool counts core instances and tables, of which one may take as many as several.
    let config = Arc::new(Config { sandboxes: 32, ..config });
    let engine = Arc::new(Engine::new(&config)?);
    let Loaded { spec, component, own } = deploy::load_one(&config, &engine, &name).await?;
    let _turn = match &own.data {
        Some(data) => {
            let mut turn = std::pin::pin!(data.turn());
            let turn = match tokio::time::timeout(PATIENCE, &mut turn).await {
                Ok(turn) => turn,
                Err(_) => {
                    say("waiting for calls of the app, which have its data");
                    turn.await
                }
            };
            Some(turn.with_context(|| format!("{} cannot be locked", data.path().display()))?)
        }
        None => None,
    };
    command::run(&engine, &component, &spec, own, command).await
}

/// The name of an app by its file, which says what it may have.
///
/// # Errors
/// Where it is no file of the apps directory.
pub fn app_name(apps_dir: &Path, file: &Path) -> anyhow::Result<String> {
    let real = |path: &Path| path.canonicalize().map_err(|error| anyhow!("{}: {error}", path.display()));
    let folder =
        file.parent().filter(|folder| !folder.as_os_str().is_empty()).map_or(PathBuf::from("."), Path::to_owned);
    let Some(place) = file.file_name().map(|name| real(&folder).map(|folder| folder.join(name))) else {
        bail!("{} is no file", file.display());
    };
    let inside = place?.strip_prefix(real(apps_dir)?).map(Path::to_owned);
    let inside = inside.ok().with_context(|| {
        format!(
            "{} does not lie in the apps directory {}: name the directory that is served with --apps-dir",
            file.display(),
            apps_dir.display()
        )
    })?;
    let name = inside.to_str().and_then(|name| name.strip_suffix(".wasm"));
    Ok(name.with_context(|| format!("{}: its name does not end in .wasm", file.display()))?.to_owned())
}
