//! `wasgi check`: whether files would deploy, and what the configuration comes to, without serving anything.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Args;
use wasgi_host::admin;
use wasgi_host::bundle::archive::{self, Bounds};
use wasgi_host::bundle::{Manifest, Refusal, Sections};
use wasgi_host::config::{Access, AppSpec, Config, DirectorySpec, Held, Instances, Settings};
use wasgi_host::confine::host;
use wasgi_host::deploy::Report;
use wasgi_host::deploy::inspect::{self, Form, Grant, Inspection};
use wasgi_host::guest::Kind;
use wasgi_host::limits::Limits;
use wasgi_host::manage;
use wasgi_host::sandbox::{Uses, Variant};
use wasgi_host::{deploy, sandbox};

use super::{complain, say};

/// Say what .wasm files are and whether they would deploy, or print the configuration
#[derive(Args)]
#[command(after_help = "Examples:
  wasgi check hello.wasm     kind, contract, imports; hello.toml beside it is checked too
  wasgi check --config       the configuration as `wasgi serve` would see it here

The exit code is 1 where something would not deploy or not load.")]
pub(crate) struct Check {
    /// Files to inspect
    #[arg(value_name = "FILE", required_unless_present = "config")]
    files: Vec<PathBuf>,

    /// Check the configuration and print all of it, defaults too
    #[arg(long)]
    config: bool,

    /// Say, too, what is done to a file before it is compiled
    #[arg(short, long)]
    verbose: bool,

    /// The configuration file [default: wasgi.toml, where there is one]
    #[arg(short = 'c', value_name = "FILE")]
    file: Option<PathBuf>,
}

impl Check {
    pub(crate) fn run(self) -> anyhow::Result<ExitCode> {
        let mut settings = Settings::from_environment()?;
        settings.file = self.file.or(settings.file);
        let config = Config::load(&settings)?;
        let mut outcome = ExitCode::SUCCESS;
        if self.config {
            say(&config.to_toml())?;
            let scans = sandbox::kernel_finds_written_pages();
            say(&format!("\n# Memories of sandboxes: {}\n", sandbox::reset_text(scans)))?;
            say(&format!("# Confinement: {}\n", host::forecast(&config)))?;
            for line in config.linked_directories() {
                complain(&line);
                outcome = ExitCode::FAILURE;
            }
        }
        for path in &self.files {
            match check(&config, path, self.verbose) {
                Ok(report) => say(&report)?,
                Err(error) => {
                    complain(&format!("{}: {error:#}", path.display()));
                    outcome = ExitCode::FAILURE;
                }
            }
        }
        Ok(outcome)
    }
}

/// What the file is, or why it would not deploy.
fn check(config: &Config, path: &Path, verbose: bool) -> anyhow::Result<String> {
    let metadata = fs::metadata(path)?;
    if !metadata.is_file() {
        bail!("not a file");
    }
    if path.extension().is_none_or(|extension| extension != "wasm") {
        bail!("its name does not end in .wasm, so that `wasgi serve` would not see it");
    }
    let stem = path.file_stem().and_then(|stem| stem.to_str()).context("its name is not UTF-8: rename it")?;
    // In the apps directory it is a tenant's; anywhere else it is taken for an app of the operator's own.
    let name = &manage::app_name(&config.apps_dir, path).unwrap_or_else(|_| stem.to_owned());
    let sidecar_path = path.with_extension("toml");
    let sidecar = match fs::read_to_string(&sidecar_path) {
        Ok(text) => Some(text),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
        Err(error) => return Err(error).with_context(|| sidecar_path.display().to_string()),
    };
    let place = || if sidecar.is_some() { sidecar_path.display().to_string() } else { "its name".to_owned() };
    let limits = config.app_limits(name, sidecar.as_deref()).with_context(place)?;
    let bytes_max = limits.module_bytes;
    if metadata.len() > bytes_max {
        bail!("{} bytes: more than limits.module_size = {bytes_max} bytes", metadata.len());
    }
    let wasm = fs::read(path)?;
    let inspection = inspect::inspect(&wasm)?;
    let sections = Sections::find(&wasm)?;
    let manifest = sections.manifest(&wasm)?;
    let spec = config.app_spec(name, sidecar.as_deref(), &manifest).with_context(place)?;
    let spec = inspection.kind.settle(spec).with_context(|| sidecar_path.display().to_string())?;
    if let Some(reason) = spec.directories.iter().find_map(DirectorySpec::linked) {
        bail!("{reason}");
    }
    let mut report = report(&path.display().to_string(), &inspection);
    let held = config.held_by(&spec);
    report.push_str(&needs_line(inspection.uses, held));
    for note in deploy::notes(inspection.uses, &spec, held) {
        report.push_str(&format!("  note: {note}\n"));
    }
    report.push_str(&bundle_lines(&manifest, sections.files(&wasm), &limits)?);
    if sidecar.is_some() {
        report.push_str(&spec_lines(&sidecar_path, &spec));
    }
    let rewinds = matches!(spec.instances, Instances::Rewind(_));
    if verbose || rewinds {
        let variant = Variant::of(inspection.abi, spec.instances, config.passes);
        let prepared = deploy::prepare(&wasm, variant, config.passes)?;
        if verbose {
            prepared.reports.iter().for_each(|pass| report.push_str(&pass_line(pass)));
        }
        if inspection.kind == Kind::Wsgi {
            report.push_str(&rewind_line(&prepared.component));
        }
    }
    Ok(report)
}

/// What a file is, for people.
pub(super) fn report(path: &str, inspection: &Inspection) -> String {
    let form = match inspection.form {
        Form::Component => "",
        Form::CoreModule => "core module, adapted, ",
    };
    let mut text =
        format!("{path}: {} app, {form}speaks {}, {}\n", inspection.kind, inspection.speaks, size(inspection.bytes));
    for package in &inspection.imports {
        let grant = match package.grant {
            Some(Grant::Directory) => "  (of use with files in its bundle, or with data)".to_owned(),
            Some(grant) => format!("  (of use only with {grant}: {})", place_of(grant)),
            None => String::new(),
        };
        text.push_str(&format!("  imports {}: {}{grant}\n", package.name, package.interfaces.join(", ")));
    }
    if inspection.imports.is_empty() {
        text.push_str("  imports nothing\n");
    }
    text
}

/// What it needs that every app has unless the operator says otherwise.
fn needs_line(uses: Uses, held: Held) -> String {
    let needs = [(uses.wall_clock, "wall_clock", held.wall_clock), (uses.randomness, "randomness", held.randomness)];
    let text =
        |(_, key, is_held): &(bool, &str, bool)| format!("{key} ({}granted)", if *is_held { "" } else { "not " });
    let needs: Vec<_> = needs.iter().filter(|(is_used, ..)| *is_used).map(text).collect();
    if needs.is_empty() { String::new() } else { format!("  needs {} of [grant]\n", needs.join(", ")) }
}

/// Where an operator grants it, and an app asks for it.
fn place_of(grant: Grant) -> &'static str {
    match grant {
        Grant::Directory => "data or directories of [grant], and the same in the sidecar",
        Grant::Network | Grant::OutboundHttp => "[grant.outbound], and outbound in the sidecar",
        Grant::Keyvalue => "[grant.keyvalue], and keyvalue in the sidecar",
    }
}

/// What a file carries beside its code.
fn bundle_lines(manifest: &Manifest, archive: Option<&[u8]>, limits: &Limits) -> anyhow::Result<String> {
    let mut text = String::new();
    if let Some(language) = &manifest.language {
        text.push_str(&format!("  written in {language}\n"));
    }
    if let Some(archive) = archive {
        let folder = tempfile::tempdir()?;
        let bounds = Bounds { bytes_max: limits.bundle_bytes, entries_max: limits.bundle_files.into() };
        let unpacked = archive::unpack(archive, folder.path(), bounds);
        let unpacked = unpacked.map_err(|error| Refusal::Files(format!("{error:#}")))?;
        let bytes = unpacked.files.iter().map(|file| file.bytes).sum();
        text.push_str(&format!(
            "  carries {} files and {} folders, {} ({} packed)\n",
            unpacked.files.len(),
            unpacked.folders,
            size(bytes),
            size(archive.len() as u64)
        ));
    }
    if let Some(reuse) = manifest.reuse {
        text.push_str(&format!("  asks for instances = \"{}\"\n", if reuse { "reuse" } else { "fresh" }));
    }
    for (path, target) in &manifest.assets {
        text.push_str(&format!("  static {} from {}\n", path.escape_debug(), target.escape_debug()));
    }
    if manifest.data {
        text.push_str("  asks for a directory for its data\n");
    }
    for note in &manifest.notes {
        text.push_str(&format!("  note: {note}\n"));
    }
    Ok(text)
}

fn spec_lines(sidecar: &Path, spec: &AppSpec) -> String {
    let routes: Vec<_> = spec.routes.iter().map(ToString::to_string).collect();
    let mut text = format!(
        "  {}: routes {}; instances {}\n",
        sidecar.display(),
        routes.join(", "),
        admin::instances_text(spec.instances)
    );
    if !spec.env.is_empty() {
        // Names only: values may be secrets.
        let names: Vec<_> = spec.env.iter().map(|(name, _)| name.as_str()).collect();
        text.push_str(&format!("    env {}\n", names.join(", ")));
    }
    if !spec.secrets.is_empty() {
        let names: Vec<_> = spec.secrets.iter().map(|(name, _)| name.as_str()).collect();
        text.push_str(&format!("    secrets {}\n", names.join(", ")));
    }
    if !spec.keyvalue.is_empty() {
        text.push_str(&format!("    key-value stores {}\n", spec.keyvalue.join(", ")));
    }
    for directory in &spec.directories {
        let access = match directory.access {
            Access::Read => "read only".to_owned(),
            Access::Write => {
                format!("to read and write, {} and {} files", size(directory.bytes_max), directory.names_max)
            }
        };
        text.push_str(&format!("    {} is {}, {access}\n", directory.place, directory.path.display()));
    }
    text
}

/// What a pass did, and what it saved.
fn pass_line(pass: &Report) -> String {
    let Report { pass: name, outcome, bytes_before, bytes_after, took } = pass;
    let time = humantime::format_duration(Duration::from_millis(took.as_millis() as u64));
    match outcome {
        Ok(done) => {
            let (before, after) = (size(*bytes_before as u64), size(*bytes_after as u64));
            format!("  {name}: {done}; {before} are {after} ({time})\n")
        }
        Err(reason) => format!("  {name}: left as it is: {reason} ({time})\n"),
    }
}

/// Whether its instances could be rewound.
fn rewind_line(wasm: &[u8]) -> String {
    match deploy::prepare_for_rewinding(wasm) {
        Ok(prepared) => {
            let added = prepared.len().saturating_sub(wasm.len()) as u64;
            format!("  its instances can be rewound ({} of code are added for it)\n", size(added))
        }
        Err(refusal) => format!("  its instances cannot be rewound, each call would have a fresh one: {refusal}\n"),
    }
}

fn size(bytes: u64) -> String {
    bytesize::ByteSize::b(bytes).display().iec().to_string()
}
