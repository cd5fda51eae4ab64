//! The wasgi host: takes HTTP requests and calls sandboxed WebAssembly guests.
//!
//! Reading order, which is also the way of a request:
//!
//! | module | sole responsibility |
//! | --- | --- |
//! | [`config`] | raw settings → validated [`config::Config`]; the only reader of settings, the only home of defaults |
//! | [`limits`] | every number that a guest or a client can exhaust |
//! | [`server`] | listeners, connection caps, header time-outs, signals' effects, drain |
//! | [`origin`] | where a request comes from: addresses, scheme |
//! | [`gateway`] | one request end to end; the file to read first |
//! | [`route`] | pure: host + path → app, `SCRIPT_NAME`, `PATH_INFO` |
//! | [`assets`] | static files, served without waking a guest |
//! | [`apps`] | what is live: the immutable table that is swapped atomically |
//! | [`admission`] | who may run now: an app's, its tenant's and the host's places, queues → a permit |
//! | [`account`] | what a tenant has in use, and whether it may have more |
//! | [`descriptors`] | who may have how many of this process's |
//! | [`sandbox`] | engine, stores, meters, the guest's task |
//! | [`guest`] | the ways of talking to a guest; chosen once, when a release is loaded |
//! | [`body`] | capped, back-pressured bodies, both directions |
//! | [`bundle`] | what a `.wasm` carries beside its code: a manifest and files |
//! | [`data`] | the directory of an app's data, for one sandbox at a time |
//! | [`keyvalue`] | key-value stores, by name: who may use which, and where entries are kept |
//! | [`outbound`] | what apps reach beyond the host: destinations, judged addresses, connections |
//! | [`manage`] | a command of an app, run by its operator |
//! | [`capsule`] | crash capsules: what is kept of calls that their apps failed, and running them again |
//! | [`confine`] | the walls around this process and those for strangers' bytes: users, files, system calls |
//! | [`deploy`] | the apps directory → the table: scan, watch, inspect, compile, cache |
//! | [`rebuild`] | development mode: builds apps again when their sources change |
//! | [`admin`] | the local admin socket: what `wasgi apps` asks |
//! | [`selftest`] | the host, attacked by programs, files and clients of our own: `wasgi selftest` |
//! | [`telemetry`] | logs, access log, counters; it never steers control flow |
//! | `unlinked` | opens directories on whose way no link is followed |
//! | [`error`] | one [`error::Error`]: cause → status, public text, metric label |

pub mod account;
pub mod admin;
pub mod admission;
pub mod apps;
pub mod assets;
pub mod body;
pub mod bundle;
pub mod capsule;
pub mod config;
pub mod confine;
pub mod data;
pub mod deploy;
pub mod descriptors;
pub mod error;
pub mod gateway;
pub mod granted;
pub mod guest;
pub mod keyvalue;
pub mod limits;
pub mod manage;
pub mod origin;
pub mod outbound;
#[cfg(test)]
mod properties;
pub mod rebuild;
pub mod route;
pub mod sandbox;
pub mod selftest;
pub mod server;
pub mod telemetry;
mod unlinked;
