//! Development mode: apps that this user has built on this machine are built again when their sources change. What is run is
//! what the user ran: the builder left a record of it, by the hash of the file that it made. Nothing that a file or a sidecar
//! says is ever run (docs/decisions/0019-rebuild.md).

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::task::JoinHandle;

use crate::apps::Apps;
use crate::deploy::Complaints;

/// How often it is looked which apps are live.
const LOOK_TIME: Duration = Duration::from_secs(1);

/// The only version of a record that there is.
const VERSION: u32 = 1;
const RECORD_BYTES_MAX: u64 = 1 << 20;

/// What a builder may say in one line.
const EVENT_BYTES_MAX: u64 = 1 << 20;

/// How to keep a file up to date: a program that watches the sources, and builds. It ends when its standard input does.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
struct Record {
    version: u32,
    command: Vec<String>,
    /// What it was built with, of the environment variables that matter to the builder; the others are not to be set.
    environment: BTreeMap<String, Option<String>>,
    folder: PathBuf,
    /// Says of which state of the sources the file was made.
    built: String,
}

impl Record {
    /// Whether it is how the other one is made, of whatever state of the same sources.
    fn is_like(&self, other: &Self) -> bool {
        Self { built: String::new(), ..self.clone() } == Self { built: String::new(), ..other.clone() }
    }
}

/// What a builder says, a line of JSON each.
#[derive(Deserialize)]
#[serde(tag = "event", rename_all = "lowercase")]
enum Event {
    Building,
    Built { seconds: f64 },
    Failed { reason: String },
}

/// A builder that watches.
struct Watcher {
    /// The release that it looks after.
    hash: String,
    record: Record,
    /// Dropping it ends the builder.
    task: JoinHandle<()>,
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Starts and ends builders as apps come and go, until it is dropped.
pub async fn run(records: PathBuf, apps_dir: PathBuf, apps: Arc<Apps>, complaints: Complaints) {
    let mut watchers = BTreeMap::new();
    let mut looks = tokio::time::interval(LOOK_TIME);
    loop {
        looks.tick().await;
        let table = apps.snapshot();
        let live = table.entries.iter().filter_map(|(name, entry)| Some((name, &entry.live.as_ref()?.release.hash)));
        let live: Vec<(String, String)> = live.map(|(name, hash)| (name.clone(), hash.clone())).collect();
        drop(table);
        let names: BTreeSet<&String> = live.iter().map(|(name, _)| name).collect();
        watchers.retain(|name, _| names.contains(name));
        for (name, hash) in live {
            look_after(&mut watchers, name, hash, &records, &apps_dir, &complaints);
        }
    }
}

fn look_after(
    watchers: &mut BTreeMap<String, Watcher>,
    name: String,
    hash: String,
    records: &Path,
    apps_dir: &Path,
    complaints: &Complaints,
) {
    if watchers.get(&name).is_some_and(|watcher| watcher.hash == hash) {
        return;
    }
    let Some(record) = read(records, &hash) else {
        watchers.remove(&name);
        return;
    };
    if let Some(watcher) = watchers.get_mut(&name).filter(|watcher| watcher.record.is_like(&record)) {
        // Its own work, most likely.
        watcher.hash = hash;
        return;
    }
    let output = std::path::absolute(apps_dir.join(format!("{name}.wasm"))).unwrap_or_default();
    match start(&record, &output) {
        Ok(child) => {
            tracing::info!(app = %name, "its sources are watched: {}", record.folder.display());
            let task = tokio::spawn(follow(name.clone(), child, complaints.clone()));
            watchers.insert(name, Watcher { hash, record, task });
        }
        Err(error) => {
            tracing::warn!(app = %name, "{} cannot be started, so nothing rebuilds it: {error}", record.command.join(" "));
            // Said once for each release.
            let task = tokio::spawn(std::future::ready(()));
            watchers.insert(name, Watcher { hash, record, task });
        }
    }
}

/// The record of a file with this hash; none if there is none that can be trusted. It is this user's own, in a folder of this
/// user's own: what is in it is run.
fn read(records: &Path, hash: &str) -> Option<Record> {
    let path = records.join(format!("{hash}.json"));
    let file = File::open(&path).ok()?;
    let trusted = [std::fs::symlink_metadata(records), file.metadata()].into_iter().all(|metadata| {
        metadata.is_ok_and(|metadata| {
            metadata.uid() == rustix::process::geteuid().as_raw()
                && metadata.mode() & 0o022 == 0
                && !metadata.is_symlink()
        })
    });
    let found = if trusted {
        let mut text = Vec::new();
        let read = file.take(RECORD_BYTES_MAX).read_to_end(&mut text).map_err(|error| error.to_string());
        read.and_then(|_| serde_json::from_slice::<Record>(&text).map_err(|error| error.to_string()))
    } else {
        Err("others may write it, or its folder".to_owned())
    };
    match found {
        Ok(record) if record.version == VERSION && !record.command.is_empty() => Some(record),
        Ok(record) => {
            tracing::warn!("{}: version {} is not known here: build the app again", path.display(), record.version);
            None
        }
        Err(reason) => {
            tracing::warn!("{} is not used: {reason}", path.display());
            None
        }
    }
}

fn start(record: &Record, output: &Path) -> io::Result<Child> {
    let mut command = Command::new(&record.command[0]);
    command.args(&record.command[1..]).args(["--built", &record.built, "--output"]).arg(output);
    for (name, value) in &record.environment {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    command.current_dir(&record.folder).kill_on_drop(true);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn()
}

/// Passes on what a builder says, until it ends.
async fn follow(name: String, mut child: Child, complaints: Complaints) {
    // Kept open: that it is closed is how the builder learns that this host is gone.
    let _input = child.stdin.take();
    let Some(output) = child.stdout.take() else { return };
    let mut output = BufReader::new(output);
    loop {
        let mut line = String::new();
        match (&mut output).take(EVENT_BYTES_MAX).read_line(&mut line).await {
            Ok(0) | Err(_) => break,
            Ok(_) => {}
        }
        match serde_json::from_str(&line) {
            Ok(Event::Building) => tracing::info!(app = %name, "its sources have changed: building it again"),
            Ok(Event::Built { seconds }) => tracing::info!(app = %name, "built in {seconds} s"),
            Ok(Event::Failed { reason }) => {
                let (first, rest) = reason.split_once('\n').unwrap_or((&reason, ""));
                complaints.complain(&name, format!("the rebuild failed: {first}")).await;
                if !rest.trim().is_empty() {
                    tracing::warn!(app = %name, "the rebuild failed: {reason}");
                }
            }
            Err(_) => tracing::debug!(app = %name, "the builder said {line:?}"),
        }
    }
    let status = child.wait().await.map_or_else(|error| error.to_string(), |status| status.to_string());
    tracing::warn!(app = %name, "its builder has ended ({status}): a change of its sources is not noticed any more");
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_record_that_others_can_write_is_not_run() {
        let folder = tempfile::tempdir().expect("there is a temporary directory");
        let path = folder.path().join("ab.json");
        fs::write(&path, r#"{"version": 1, "command": ["true"], "environment": {}, "folder": "/", "built": "x"}"#)
            .expect("it can be written");
        let mode = |path: &Path, mode| fs::set_permissions(path, Permissions::from_mode(mode)).expect("it is ours");
        mode(&path, 0o600);
        let record = read(folder.path(), "ab").expect("it is ours");
        assert!(record.is_like(&Record { built: "y".to_owned(), ..record.clone() }));
        assert!(!record.is_like(&Record { folder: "/tmp".into(), ..record.clone() }));
        mode(&path, 0o620);
        assert_eq!(read(folder.path(), "ab"), None);
        mode(&path, 0o600);
        mode(folder.path(), 0o770);
        assert_eq!(read(folder.path(), "ab"), None);
        mode(folder.path(), 0o700);
        assert!(read(folder.path(), "ab").is_some());
        fs::write(&path, r#"{"version": 2, "command": ["true"], "environment": {}, "folder": "/", "built": "x"}"#)
            .expect("it can be written");
        assert_eq!(read(folder.path(), "ab"), None);
        assert_eq!(read(folder.path(), "cd"), None);
    }
}
