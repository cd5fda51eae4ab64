//! `wasgi build`: an app → one `.wasm` file. The Rust app in the current folder with cargo: what cargo prints stays visible; what
//! it cannot know (the target that is missing, the kind of library) is said in words. A Python app with the Python SDK.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context, bail};
use clap::Args;
use serde::Deserialize;
use wasgi_host::bundle::{self, archive};
use wasgi_host::deploy::inspect;

use super::python::PythonBuild;
use super::{check, say};

const TARGET: &str = "wasm32-wasip2";

/// Build an app into one .wasm file: the Rust app in the current folder, or a Python app
#[derive(Args)]
#[command(after_help = "Examples:
  wasgi build                 Rust: writes NAME.wasm, named as the package
  wasgi build -o ../apps      writes ../apps/NAME.wasm, in one step: a running wasgi takes it at once
  wasgi build --include www   lets the app carry the folder ./www, which it finds at /www
  wasgi build -- -p cart      Rust: hands arguments to cargo
  wasgi build hello:app       Python: as gunicorn takes it; needs the Python package of wasgi
  wasgi build                 Python: a Django project, in the folder of its manage.py

The environment variables CARGO and RUSTC choose the programs, as they do for cargo. Python is python3.")]
pub(crate) struct Build {
    #[command(flatten)]
    python: PythonBuild,

    /// Write the component to FILE, or into it where it is a directory [default: NAME.wasm]
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,

    /// Let the app carry a file or folder, by its name from here; may be given several times
    #[arg(long, value_name = "PATH")]
    include: Vec<PathBuf>,

    /// Arguments for cargo
    #[arg(last = true, value_name = "ARGS")]
    cargo: Vec<OsString>,
}

/// The messages of `cargo build --message-format=json` that matter here.
#[derive(Deserialize)]
#[serde(tag = "reason", rename_all = "kebab-case")]
enum Message {
    CompilerArtifact {
        manifest_path: PathBuf,
        target: Target,
        filenames: Vec<PathBuf>,
    },
    #[serde(other)]
    Other,
}

#[derive(Deserialize)]
struct Target {
    crate_types: Vec<String>,
}

struct Artifact {
    /// The package's name, with its hyphens, unlike the file's.
    package: String,
    path: PathBuf,
}

impl Build {
    pub(crate) fn run(self) -> anyhow::Result<ExitCode> {
        let is_rust = Path::new("Cargo.toml").is_file();
        if self.python.is_meant() || (!is_rust && Path::new("manage.py").is_file()) {
            return self.python.run(self.output.as_deref(), &self.include);
        }
        if !is_rust {
            bail!(
                "there is no Cargo.toml here: go to the folder of an app, or make one with `wasgi new NAME --lang rust`; \
                 for a Python app say which, as in `wasgi build hello:app`"
            );
        }
        let rustc = env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
        check_target(&rustc)?;
        let artifact = one(cargo_build(&self.cargo)?)?;
        let mut bytes = fs::read(&artifact.path).with_context(|| artifact.path.display().to_string())?;
        let inspection = match inspect::inspect(&bytes) {
            Ok(inspection) => inspection,
            Err(refusal) => bail!("{} was built, but would not deploy: {refusal}", artifact.path.display()),
        };
        if !self.include.is_empty() {
            bundle::append(&mut bytes, bundle::FILES_SECTION, &archive::pack(&self.include)?);
        }
        let output = output_path(self.output.as_deref(), &artifact.package);
        write_whole(&output, &bytes)?;
        say(&check::report(&output.display().to_string(), &inspection))?;
        Ok(ExitCode::SUCCESS)
    }
}

/// cargo would say "can't find crate for `core`", once for each dependency.
fn check_target(rustc: &OsString) -> anyhow::Result<()> {
    let asked = Command::new(rustc).args(["--print", "sysroot"]).stderr(Stdio::inherit()).output();
    let asked = asked.with_context(|| {
        format!("{} cannot be started: install Rust from https://rustup.rs", Path::new(rustc).display())
    })?;
    let sysroot = PathBuf::from(String::from_utf8_lossy(&asked.stdout).trim_end());
    let library = sysroot.join("lib/rustlib").join(TARGET).join("lib");
    let has_std = fs::read_dir(&library).is_ok_and(|mut files| {
        files.any(|file| file.is_ok_and(|file| file.file_name().to_string_lossy().starts_with("libstd-")))
    });
    if !has_std {
        bail!(
            "{} has no target {TARGET}: run `rustup target add {TARGET}` (where rustup cannot download, \
             guest-sdk/wasm-target.sh of wasgi's source knows other ways)",
            Path::new(rustc).display()
        );
    }
    Ok(())
}

/// Builds; returns the libraries that could be the app.
fn cargo_build(arguments: &[OsString]) -> anyhow::Result<Vec<Artifact>> {
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut child = Command::new(&cargo)
        .args(["build", "--release", "--target", TARGET, "--message-format=json-render-diagnostics"])
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| {
            format!("{} cannot be started: install Rust from https://rustup.rs", Path::new(&cargo).display())
        })?;
    let stdout = child.stdout.take().context("cargo has no output")?;
    let mut artifacts = Vec::new();
    for line in BufReader::new(stdout).lines() {
        // A line that is no message is what a build script printed.
        let Ok(message) = serde_json::from_str::<Message>(&line?) else {
            continue;
        };
        let Message::CompilerArtifact { manifest_path, target, filenames } = message else {
            continue;
        };
        if !target.crate_types.iter().any(|kind| kind == "cdylib") {
            continue;
        }
        for path in filenames.into_iter().filter(|path| path.extension().is_some_and(|extension| extension == "wasm")) {
            artifacts.push(Artifact { package: package_name(&manifest_path)?, path });
        }
    }
    let status = child.wait()?;
    if !status.success() {
        bail!("cargo could not build the app ({status}): what it says is above");
    }
    Ok(artifacts)
}

fn package_name(manifest: &Path) -> anyhow::Result<String> {
    let text = fs::read_to_string(manifest).with_context(|| manifest.display().to_string())?;
    let table: toml::Table = text.parse().with_context(|| manifest.display().to_string())?;
    let name = table.get("package").and_then(|package| package.get("name")).and_then(toml::Value::as_str);
    Ok(name.with_context(|| format!("{}: the package has no name", manifest.display()))?.to_owned())
}

fn one(mut artifacts: Vec<Artifact>) -> anyhow::Result<Artifact> {
    match artifacts.len() {
        1 => Ok(artifacts.remove(0)),
        0 => bail!(
            "the package has no library of crate type cdylib: put `[lib]` and `crate-type = [\"cdylib\"]` into Cargo.toml"
        ),
        _ => {
            let names: Vec<_> = artifacts.iter().map(|artifact| artifact.package.as_str()).collect();
            bail!("there are several apps here ({}): choose one with `wasgi build -- -p NAME`", names.join(", "))
        }
    }
}

fn output_path(output: Option<&Path>, package: &str) -> PathBuf {
    let file = format!("{package}.wasm");
    match output {
        None => PathBuf::from(file),
        Some(folder) if folder.is_dir() => folder.join(file),
        Some(path) => path.to_owned(),
    }
}

/// Writes beside and renames: a host that watches the directory sees the old file or the whole new one.
fn write_whole(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let failed = || format!("{} cannot be written", path.display());
    let mut file = tempfile::Builder::new().prefix(".wasgi-build-").tempfile_in(folder).with_context(failed)?;
    file.write_all(bytes).with_context(failed)?;
    // A temporary file is for its maker alone; what is built is as readable as what cargo builds.
    use std::os::unix::fs::PermissionsExt;
    file.as_file().set_permissions(fs::Permissions::from_mode(0o644)).with_context(failed)?;
    file.persist(path).map_err(|error| error.error).with_context(failed)?;
    Ok(())
}
