//! `wasgi capsule`: what is known of calls that their apps failed.

use std::fmt::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use serde::Serialize;
use wasgi_host::capsule::{Capsule, read};
use wasgi_host::config::{Config, Settings};
use wasgi_host::telemetry::{is_unprintable, printable};

use super::{complain, say};

/// Show what is known of a call that its app failed, by the request id of the log and of the client's page
#[derive(Args)]
#[command(after_help = "Examples:
  wasgi capsule                       all that there are, the newest first
  wasgi capsule 1f2e3d4c5b6a7988      one of them
  wasgi capsule --json 1f2e3d4c5b6a7988 | jq .backtrace

They are the operator's: files in the state directory, for the user that wasgi runs as.")]
pub(crate) struct Show {
    /// The request id; none lists all
    #[arg(value_name = "ID")]
    id: Option<String>,

    /// Print JSON
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    place: CapsulePlace,
}

/// Where capsules are.
#[derive(Args)]
pub(super) struct CapsulePlace {
    /// The state directory of the wasgi that wrote them [default: as `wasgi serve` would choose it here]
    #[arg(long, value_name = "DIR")]
    state_dir: Option<PathBuf>,

    /// The settings that it was started with [default: wasgi.toml, where there is one]
    #[arg(short = 'c', long = "config", value_name = "FILE")]
    file: Option<PathBuf>,
}

impl CapsulePlace {
    /// The settings of that host.
    pub(super) fn settings(self) -> anyhow::Result<Settings> {
        let mut settings = Settings::from_environment()?;
        settings.file = self.file.or(settings.file);
        settings.state_dir = self.state_dir.or(settings.state_dir);
        Ok(settings)
    }

    fn state_dir(self) -> anyhow::Result<PathBuf> {
        match self.state_dir {
            Some(state_dir) => Ok(state_dir),
            None => Ok(Config::load(&self.settings()?)?.state_dir),
        }
    }
}

impl Show {
    pub(crate) fn run(self) -> anyhow::Result<ExitCode> {
        let state_dir = self.place.state_dir()?;
        let Some(id) = self.id else {
            let mut capsules = Vec::new();
            for (id, capsule) in read::list(&state_dir)? {
                match capsule {
                    Ok(capsule) => capsules.push(capsule),
                    Err(error) => complain(&format!("the capsule of request {id}: {error:#}")),
                }
            }
            if self.json {
                say(&json(&capsules)?)?;
            } else if capsules.is_empty() {
                say("no capsules: no app has failed a call since they were last cleared\n")?;
            } else {
                say(&table(&capsules))?;
            }
            return Ok(ExitCode::SUCCESS);
        };
        let capsule = read::find(&state_dir, &id)?;
        say(&if self.json { json(&capsule)? } else { text(&capsule) })?;
        Ok(ExitCode::SUCCESS)
    }
}

fn table(capsules: &[Capsule]) -> String {
    let width = capsules.iter().map(|capsule| capsule.app.chars().count()).max().unwrap_or(0).max(3);
    let mut table = format!("{:16}  {:24}  {:width$}  {:12}  REQUEST\n", "ID", "TIME", "APP", "CAUSE");
    for capsule in capsules {
        let Capsule { id, time, app, cause, request, .. } = capsule;
        let target = one_line(&request.target, 80);
        let _ =
            writeln!(table, "{id:16}  {time:24}  {app:width$}  {cause:12}  {} {target}", one_line(&request.method, 20));
    }
    table
}

/// All of one, for people.
pub(super) fn text(capsule: &Capsule) -> String {
    let Capsule { id, time, app, tenant, cause, release, used, request, .. } = capsule;
    let mut text = String::new();
    let mut line = |name: &str, value: &str| _ = writeln!(text, "{name:9} {value}");
    line("request", &format!("{id} at {time}"));
    line(
        "app",
        &match tenant {
            Some(tenant) => format!("{app} of tenant {tenant}"),
            None => app.clone(),
        },
    );
    line("release", &format!("{} ({}, instances = \"{}\")", release.hash, release.kind, release.instances));
    line("cause", cause);
    line("error", &capsule.error);
    let memory = used
        .memory_bytes
        .map_or("an unknown amount of memory".to_owned(), |bytes| format!("{} KiB of memory", bytes >> 10));
    let millis = |micros: u64| format!("{}.{:03} ms", micros / 1000, micros % 1000);
    line(
        "used",
        &format!("{} of the processor, {} in all, {memory}", millis(used.cpu_micros), millis(used.wall_micros)),
    );
    line("host", &capsule.host);
    section(&mut text, "backtrace", &capsule.backtrace);
    let scheme = if request.https { "https" } else { "http" };
    let mut head = vec![format!(
        "{} {} ({}, {scheme}, app at \"{}\")",
        shown(request.method.as_bytes()),
        shown(request.target.as_bytes()),
        request.version,
        shown(request.script_name.as_bytes())
    )];
    head.extend(request.fields.iter().map(|field| match &field.value {
        Some(value) => format!("{}: {}", field.name, shown(&value.bytes().unwrap_or_default())),
        None => format!("{}: (not kept, {} bytes)", field.name, field.bytes),
    }));
    if request.fields_left_out > 0 {
        head.push(format!("({} further fields were left out)", request.fields_left_out));
    }
    let body = match &request.body.kept {
        _ if request.body.arrived_bytes == 0 => "(no body had arrived)".to_owned(),
        Some(kept) => shown(&kept.bytes().unwrap_or_default()),
        None => format!("(a body of which {} bytes had arrived, not kept)", request.body.arrived_bytes),
    };
    head.push(body);
    section(&mut text, "request", &head);
    let lines = capsule.log.iter().map(|line| {
        let whose = if line.own { "*" } else { " " };
        format!("{whose} {}: {}", line.stream, line.text)
    });
    section(&mut text, "last lines of the app (* in this call)", &lines.collect::<Vec<_>>());
    text
}

fn section(text: &mut String, title: &str, lines: &[String]) {
    if lines.is_empty() {
        return;
    }
    let _ = writeln!(text, "\n{title}");
    for line in lines {
        let _ = writeln!(text, "  {}", line.replace('\n', "\n  "));
    }
}

/// Clients' bytes on a terminal.
pub(super) fn shown(bytes: &[u8]) -> String {
    printable(&String::from_utf8_lossy(bytes), SHOWN_BYTES)
}

const SHOWN_BYTES: usize = 4 << 10;

fn one_line(text: &str, chars_max: usize) -> String {
    shown(text.as_bytes()).chars().take(chars_max).map(|char| if char == '\n' { ' ' } else { char }).collect()
}

/// As JSON that a terminal shows as it is: the same values, with what it would act upon written by its number.
pub(super) fn json(value: &impl Serialize) -> anyhow::Result<String> {
    let mut text = String::new();
    for char in serde_json::to_string_pretty(value)?.chars() {
        // What is not printable stands in strings alone, but for the ends of lines.
        if is_unprintable(char) && char != '\n' {
            let mut units = [0; 2];
            char.encode_utf16(&mut units).iter().for_each(|unit| _ = write!(text, "\\u{unit:04x}"));
        } else {
            text.push(char);
        }
    }
    Ok(text + "\n")
}
