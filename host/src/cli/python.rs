//! `wasgi build` of a Python app: the Python SDK does it, with the same arguments.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context, bail};
use clap::Args;

const PYTHON: &str = "python3";

/// What can be said of a Python app alone.
#[derive(Args)]
#[command(next_help_heading = "Python")]
pub(crate) struct PythonBuild {
    /// The app: module:name, module:create_app("argument"), or module alone
    #[arg(value_name = "TARGET")]
    target: Option<String>,

    /// Install these dependencies for it [default: those of the active virtual environment]
    #[arg(short, long, value_name = "FILE")]
    requirements: Option<PathBuf>,

    /// The app's folder [default: the current one]
    #[arg(long, value_name = "FOLDER")]
    chdir: Option<PathBuf>,

    /// An environment variable while the app is imported, which is when it is built; may be given several times
    #[arg(short, long, value_name = "NAME=VALUE")]
    env: Vec<String>,

    /// Let the app answer GET requests of this path once it is imported, so that a new instance knows the way: what that
    /// leaves in memory is in the file; may be given several times
    #[arg(long, value_name = "PATH")]
    warm: Vec<String>,

    /// Stay, and build again whenever something changes that the app is made of
    #[arg(long)]
    watch: bool,
}

impl PythonBuild {
    /// Whether something was said that makes no sense for another language.
    pub(crate) fn is_meant(&self) -> bool {
        self.target.is_some()
            || self.requirements.is_some()
            || self.chdir.is_some()
            || !self.env.is_empty()
            || !self.warm.is_empty()
            || self.watch
    }

    pub(crate) fn run(&self, output: Option<&Path>, include: &[PathBuf]) -> anyhow::Result<ExitCode> {
        find_sdk()?;
        let mut command = Command::new(PYTHON);
        command.args(["-m", "wasgi", "build"]);
        let mut option = |name: &str, value: &OsStr| {
            command.arg(name).arg(value);
        };
        for (name, path) in [("--output", output), ("--requirements", self.requirements.as_deref())] {
            path.iter().for_each(|path| option(name, path.as_os_str()));
        }
        self.chdir.iter().for_each(|path| option("--chdir", path.as_os_str()));
        include.iter().for_each(|path| option("--include", path.as_os_str()));
        self.env.iter().for_each(|pair| option("--env", OsStr::new(pair)));
        self.warm.iter().for_each(|path| option("--warm", OsStr::new(path)));
        if self.watch {
            command.arg("--watch");
        }
        if let Some(target) = &self.target {
            // It may not be taken for an option.
            command.arg("--").arg(target);
        }
        let status = command.status().with_context(|| format!("{PYTHON} cannot be started"))?;
        // It has said why.
        Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}

/// Python would say "No module named wasgi", and leave it at that.
fn find_sdk() -> anyhow::Result<()> {
    let found = Command::new(PYTHON).args(["-c", "import wasgi.cli"]).stdin(Stdio::null()).output();
    let found = found.with_context(|| {
        format!("{PYTHON} cannot be started, and a Python app is built with it: install Python 3.11 or newer")
    })?;
    if !found.status.success() {
        bail!(
            "{PYTHON} does not find the package wasgi: activate the virtual environment that has it, or install it there \
             (pip install guest-sdk/python, in wasgi's source). It said: {}",
            String::from_utf8_lossy(&found.stderr).lines().last().unwrap_or_default()
        );
    }
    Ok(())
}
