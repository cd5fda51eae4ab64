//! `wasgi manage`: a command of an app, run in its sandbox by its operator.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::Args;
use wasgi_host::config::{Config, Settings};
use wasgi_host::guest::command::Command;
use wasgi_host::manage;

use super::complain;

/// Run a command of an app, such as a migration, with its files, data and variables
#[derive(Args)]
#[command(after_help = "Examples:
  wasgi manage apps/shop.wasm migrate
  wasgi manage -e DJANGO_SUPERUSER_PASSWORD=… apps/shop.wasm createsuperuser --noinput
  wasgi manage --apps-dir sites sites/blog/one.wasm check

The app exports wasi:cli/run. What follows FILE is the command's; its exit code is passed on. A host may serve the app \
meanwhile: calls of an app with data wait for the command, and the command for them.")]
pub(crate) struct Manage {
    /// The settings that the app is served with [default: wasgi.toml, where there is one]
    #[arg(short = 'c', long = "config", value_name = "FILE")]
    config: Option<PathBuf>,

    /// The directory that is served [default: as `wasgi serve` would choose it here]
    #[arg(long, value_name = "DIR")]
    apps_dir: Option<PathBuf>,

    /// Where compiled code is kept [default: as `wasgi serve` would choose it here]
    #[arg(long, value_name = "DIR")]
    state_dir: Option<PathBuf>,

    /// A variable for this command, on top of the app's own; may be repeated
    #[arg(short, long, value_name = "NAME=VALUE", value_parser = variable)]
    env: Vec<(String, String)>,

    /// The app, in the apps directory
    #[arg(value_name = "FILE")]
    app: PathBuf,

    /// What the command is told
    #[arg(value_name = "ARGS", trailing_var_arg = true, allow_hyphen_values = true)]
    args: Vec<String>,
}

fn variable(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("NAME=VALUE is wanted".to_owned()),
    }
}

impl Manage {
    pub(crate) fn run(self) -> anyhow::Result<ExitCode> {
        let mut settings = Settings::from_environment()?;
        settings.file = self.config.or(settings.file);
        settings.apps_dir = self.apps_dir.or(settings.apps_dir);
        settings.state_dir = self.state_dir.or(settings.state_dir);
        let config = Config::load(&settings)?;
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.context("a thread cannot be started")?;
        let command = Command { args: self.args, env: self.env };
        let status = runtime.block_on(manage::run(config, &self.app, command, complain))?;
        // A read from the terminal that nobody waits for any more cannot be interrupted.
        runtime.shutdown_background();
        Ok(ExitCode::from(status))
    }
}
