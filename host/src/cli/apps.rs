//! `wasgi apps`: what the running host serves, and what it refuses and why.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use wasgi_host::admin::{self, AppStatus};
use wasgi_host::config::{Config, Settings};

use super::say;

/// List the apps of the running wasgi: state, release, route, requests, and what is wrong
#[derive(Args)]
pub(crate) struct Apps {
    /// The state directory of the wasgi to ask [default: as `wasgi serve` would choose it here]
    #[arg(long, value_name = "DIR")]
    state_dir: Option<PathBuf>,

    /// The settings that it was started with [default: wasgi.toml, where there is one]
    #[arg(short = 'c', long = "config", value_name = "FILE")]
    file: Option<PathBuf>,

    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl Apps {
    pub(crate) fn run(self) -> anyhow::Result<ExitCode> {
        let state_dir = match self.state_dir {
            Some(state_dir) => state_dir,
            None => {
                let mut settings = Settings::from_environment()?;
                settings.file = self.file.or(settings.file);
                Config::load(&settings)?.state_dir
            }
        };
        let apps = admin::ask_apps(&state_dir)?;
        if self.json {
            say(&(serde_json::to_string_pretty(&apps)? + "\n"))?;
        } else if apps.is_empty() {
            say("no apps yet: put a .wasm file into the apps directory\n")?;
        } else {
            say(&table(&apps))?;
        }
        Ok(ExitCode::SUCCESS)
    }
}

const HEADINGS: [&str; 9] = ["NAME", "TENANT", "STATE", "RELEASE", "KIND", "ROUTES", "INSTANCES", "SINCE", "REQUESTS"];

/// A line for each app; what is wrong with it stands on a line of its own, since it is long and matters whole.
fn table(apps: &[AppStatus]) -> String {
    let rows: Vec<[String; 9]> = apps.iter().map(row).collect();
    let mut widths = HEADINGS.map(str::len);
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut text = line(&HEADINGS.map(str::to_owned), &widths);
    for (app, row) in apps.iter().zip(&rows) {
        text.push_str(&line(row, &widths));
        if let Some(problem) = &app.problem {
            let since = app.problem_since.as_deref().unwrap_or("?");
            text.push_str(&format!("  ! {} (since {since})\n", printable(problem)));
        }
        if let Some(throttled) = &app.throttled {
            text.push_str(&format!("  ! it keeps failing: its calls are refused for another {throttled}\n"));
        }
        for rival in &app.rivals {
            text.push_str(&format!("  ! {}\n", printable(rival)));
        }
    }
    text
}

fn row(app: &AppStatus) -> [String; 9] {
    let or_dash = |text: &Option<String>| text.as_deref().map_or_else(|| "-".to_owned(), printable);
    let release = app.release.as_ref().map(|hash| hash.chars().take(12).collect());
    [
        printable(&app.name),
        or_dash(&app.tenant),
        app.state.as_str().to_owned(),
        or_dash(&release),
        or_dash(&app.kind),
        if app.routes.is_empty() { "-".to_owned() } else { printable(&app.routes.join(" ")) },
        or_dash(&app.instances),
        or_dash(&app.since),
        app.requests.to_string(),
    ]
}

fn line(cells: &[String; 9], widths: &[usize; 9]) -> String {
    let cells = cells.iter().zip(widths).map(|(cell, width)| {
        let gap = width.saturating_sub(cell.chars().count());
        format!("{cell}{}", " ".repeat(gap))
    });
    cells.collect::<Vec<_>>().join("  ").trim_end().to_owned() + "\n"
}

/// File names are others' text, and a terminal obeys control characters.
fn printable(text: &str) -> String {
    text.chars().map(|character| if character.is_control() { char::REPLACEMENT_CHARACTER } else { character }).collect()
}

#[cfg(test)]
mod tests {
    use wasgi_host::admin::State;

    use super::*;

    #[test]
    fn columns_are_aligned_and_reasons_are_whole() {
        let live = AppStatus {
            name: "hello".to_owned(),
            tenant: None,
            state: State::Live,
            release: Some("0123456789abcdef0123".to_owned()),
            kind: Some("wsgi".to_owned()),
            routes: vec!["/hello".to_owned(), "*.example.com/".to_owned()],
            instances: Some("fresh".to_owned()),
            since: Some("2026-11-22T10:00:00Z".to_owned()),
            requests: 42,
            throttled: Some("8s".to_owned()),
            problem: None,
            problem_since: None,
            rivals: Vec::new(),
        };
        let refused = AppStatus {
            name: "a\x1b[2J".to_owned(),
            tenant: Some("acme".to_owned()),
            state: State::Refused,
            release: None,
            kind: None,
            routes: Vec::new(),
            instances: None,
            since: None,
            requests: 0,
            throttled: None,
            problem: Some("apps/a.wasm: not a component".to_owned()),
            problem_since: Some("2026-11-22T10:00:01Z".to_owned()),
            rivals: Vec::new(),
        };
        assert_eq!(
            table(&[refused, live]),
            "\
NAME   TENANT  STATE    RELEASE       KIND  ROUTES                 INSTANCES  SINCE                 REQUESTS
a\u{fffd}[2J  acme    refused  -             -     -                      -          -                     0
  ! apps/a.wasm: not a component (since 2026-11-22T10:00:01Z)
hello  -       live     0123456789ab  wsgi  /hello *.example.com/  fresh      2026-11-22T10:00:00Z  42
  ! it keeps failing: its calls are refused for another 8s
"
        );
    }
}
