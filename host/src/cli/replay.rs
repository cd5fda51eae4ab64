//! `wasgi replay`: runs the request of a capsule again, against the release that failed.

use std::fmt::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::Args;
use serde_json::json as object;
use wasgi_host::capsule::replay::{self, Replayed};
use wasgi_host::capsule::{Capsule, read};
use wasgi_host::config::Config;

use super::capsule::{CapsulePlace, json, shown};
use super::say;

/// Run the request of a capsule again, against the release that failed, and say whether it fails in the same way
#[derive(Args)]
#[command(after_help = "Examples:
  wasgi replay 1f2e3d4c5b6a7988

The app has its limits, variables, secrets and files. It reaches no destination, and finds its data, its key-value stores, and directories that it may \
write to, empty: nothing is changed by it. What was not kept of the request is replaced by as much of something else, which is said. \
The exit code is 0 where the cause is the same, else 1.")]
pub(crate) struct Replay {
    /// The request id
    #[arg(value_name = "ID")]
    id: String,

    /// The directory that is served [default: as `wasgi serve` would choose it here]
    #[arg(long, value_name = "DIR")]
    apps_dir: Option<PathBuf>,

    /// Print JSON
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    place: CapsulePlace,
}

impl Replay {
    pub(crate) fn run(self) -> anyhow::Result<ExitCode> {
        let mut settings = self.place.settings()?;
        settings.apps_dir = self.apps_dir.or(settings.apps_dir);
        let config = Config::load(&settings)?;
        let capsule = read::find(&config.state_dir, &self.id)?;
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.context("a thread cannot be started")?;
        let replayed = runtime.block_on(replay::run(config, &capsule))?;
        runtime.shutdown_background();
        let is_same = replayed.cause() == Some(capsule.cause.as_str());
        say(&if self.json { json_text(&capsule, &replayed)? } else { text(&capsule, &replayed) })?;
        Ok(if is_same { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}

fn verdict(capsule: &Capsule, replayed: &Replayed) -> String {
    match &replayed.fault {
        None => format!("no: it did not fail, where it had failed with \"{}\"", capsule.cause),
        Some(fault) if fault.cause != capsule.cause => {
            format!("no: the cause was \"{}\", and now is \"{}\"", capsule.cause, fault.cause)
        }
        Some(fault) if fault.backtrace != capsule.backtrace => "yes, though not at the same place".to_owned(),
        Some(_) => "yes".to_owned(),
    }
}

fn text(capsule: &Capsule, replayed: &Replayed) -> String {
    let mut text = format!(
        "request   {} {} of {}\n",
        shown(capsule.request.method.as_bytes()),
        shown(capsule.request.target.as_bytes()),
        capsule.app
    );
    for difference in &replayed.differences {
        let _ = writeln!(text, "note      {difference}");
    }
    match &replayed.response {
        None => text.push_str("response  none: the connection broke off\n"),
        Some(response) => {
            let _ = writeln!(text, "response  {}", response.status);
            for (name, value) in &response.fields {
                let _ = writeln!(text, "          {name}: {}", shown(value.as_bytes()));
            }
            let cut = if response.is_cut { ", broken off" } else { "" };
            let _ = writeln!(text, "body      {} bytes{cut}", response.body_bytes);
            if !response.body.is_empty() {
                let _ = writeln!(text, "  {}", shown(&response.body));
            }
        }
    }
    if let Some(fault) = &replayed.fault {
        let _ = writeln!(text, "cause     {}\nerror     {}", fault.cause, fault.error);
        for frame in &fault.backtrace {
            let _ = writeln!(text, "  {frame}");
        }
        for line in &fault.log {
            let _ = writeln!(text, "{:9} {}", line.stream, line.text);
        }
    }
    let _ = writeln!(text, "the same  {}", verdict(capsule, replayed));
    text
}

fn json_text(capsule: &Capsule, replayed: &Replayed) -> anyhow::Result<String> {
    let response = replayed.response.as_ref().map(|response| {
        object!({
            "status": response.status,
            "fields": response.fields,
            "body_bytes": response.body_bytes,
            "body": String::from_utf8_lossy(&response.body),
            "broken_off": response.is_cut,
        })
    });
    let value = object!({
        "same": replayed.cause() == Some(capsule.cause.as_str()),
        "verdict": verdict(capsule, replayed),
        "differences": replayed.differences,
        "response": response,
        "fault": replayed.fault,
    });
    json(&value)
}
