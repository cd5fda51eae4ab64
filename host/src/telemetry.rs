//! Logs, access log, counters. It observes; it never steers control flow.

/// What an app has done since the host started.
#[derive(Default)]
pub struct Stats;

/// Where an app's own lines go.
pub struct AppLog;
