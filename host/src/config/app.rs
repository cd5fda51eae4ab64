//! What one app is to be, once its sidecar is read.

use std::path::PathBuf;

use super::sidecar::ENV_BYTES_MAX;
use super::{ChunkedBodies, Destinations, DirectorySpec, Instances, RouteSpec, SecretSource, Secrets};
use crate::limits::Limits;

/// What one app is to be: its sidecar, checked against the operator's [`Config`].
#[derive(Clone, Debug, PartialEq)]
pub struct AppSpec {
    /// Its path in the apps directory without `.wasm`: `hello`, `shop/cart`.
    pub name: String,
    /// Whose it is: the first folder of its name; "" where it lies in none.
    pub tenant: String,
    pub routes: Vec<RouteSpec>,
    /// Environment variables for the guest, by name; they go into environ as they are.
    pub env: Vec<(String, String)>,
    /// The names of those that are its tenant's, and go when they are taken away.
    pub env_granted: Vec<String>,
    /// Variables that are secrets, and where to find them.
    pub secrets: Vec<(String, SecretSource)>,
    pub instances: Instances,
    pub chunked_bodies: ChunkedBodies,
    /// Where spooled bodies go that are too large for memory.
    pub spool_dir: PathBuf,
    /// Whether the sidecar chose `instances`, or the manifest or the operator's default did.
    pub instances_chosen: bool,
    /// What the host serves by itself: paths below the app's place, and the folder or file of its bundle.
    pub assets: Vec<AssetSpec>,
    /// The directory of its data, if it asks for one and may have it.
    pub data: Option<PathBuf>,
    /// Whether it is to know what time it is.
    pub wall_clock: Want,
    /// Whether it is to have randomness.
    pub randomness: Want,
    /// Where it asks to go, and may: it reaches that, as far as it is granted at that moment, and nothing else.
    pub outbound: Destinations,
    /// Directories that it asks for and may have.
    pub directories: Vec<DirectorySpec>,
    /// The key-value stores that it asks for, by name: it has those that are granted at that moment.
    pub keyvalue: Vec<String>,
    pub limits: Limits,
}

impl AppSpec {
    /// Reads its secrets.
    ///
    /// # Errors
    /// Which one cannot be read, and why.
    pub fn read_secrets(&self) -> Result<Secrets, String> {
        let read = |(name, source): &(String, SecretSource)| match source.read() {
            Ok(secret) => Ok((name.clone(), secret)),
            Err(reason) => Err(format!("the secret {name} cannot be read: {reason}")),
        };
        self.secrets.iter().map(read).collect()
    }

    /// Whether its variables and these secrets go into an environment together.
    ///
    /// # Errors
    /// If they do not.
    pub fn check_environment(&self, secrets: &Secrets) -> Result<(), String> {
        let given = secrets.iter().map(|(name, secret)| name.len() + secret.expose().len());
        let own = self.env.iter().map(|(name, value)| name.len() + value.len());
        match given.chain(own).sum::<usize>() <= ENV_BYTES_MAX {
            true => Ok(()),
            false => Err("its variables and secrets together are too large for an environment".to_owned()),
        }
    }
}

/// Whether an app is to have what it has anyway, unless the operator keeps it from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Want {
    /// As the operator says at each moment.
    AsGranted,
    /// Not without it.
    Needed,
    /// Not at all.
    Declined,
}

/// What an app has at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held {
    pub wall_clock: bool,
    pub randomness: bool,
    /// All of its data and directories, as they were granted.
    pub files: bool,
}

/// A part of an app's URL space that is files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AssetSpec {
    /// "" for all, else `/static`: as a route's prefix, without a slash at its end.
    pub prefix: String,
    /// From the root of the archive, without slashes around: `static`; "" for the root.
    pub target: String,
}
