//! `wasgi selftest`: is this machine, with this configuration, safe to serve strangers on?

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::bail;
use clap::Args;
use wasgi_host::config::{Config, Settings};
use wasgi_host::selftest::{self, Plan, Tally};

use super::say;

/// Attack a host that has your configuration, and report what stopped each attack
#[derive(Args)]
#[command(after_help = "Examples:
  wasgi selftest --attack                      all attacks, under ./wasgi.toml or the defaults
  wasgi selftest --attack -c /etc/wasgi.toml   another configuration
  wasgi selftest --attack --only memory        a group of attacks, or one by its name
  wasgi selftest --list                        every attack, and what it tries
  wasgi selftest --show loop-in-start          its program

The host that is attacked runs in a temporary directory, on a port of its own; the one that serves is not touched, but \
shares the machine. Exit status 1 if anything got through. What your configuration leaves \
nothing to try for is not tried; it is counted, with the reason, and is no success.")]
pub(crate) struct Selftest {
    /// Attack
    #[arg(long)]
    attack: bool,

    /// Only these attacks or groups of attacks; may be repeated
    #[arg(long, value_name = "NAME", requires = "attack")]
    only: Vec<String>,

    /// List the attacks
    #[arg(long, conflicts_with = "attack")]
    list: bool,

    /// Print the program of an attack
    #[arg(long, value_name = "NAME", conflicts_with_all = ["attack", "list"])]
    show: Option<String>,

    /// Read settings from FILE [default: wasgi.toml, where there is one]
    #[arg(short = 'c', long = "config", value_name = "FILE", env = "WASGI_CONFIG", hide_env_values = true)]
    config: Option<PathBuf>,
}

impl Selftest {
    pub(crate) fn run(self) -> anyhow::Result<ExitCode> {
        let settings = Settings { file: self.config, ..Settings::from_environment()? };
        if self.list {
            say(&selftest::list(&Config::load(&settings)?))?;
            return Ok(ExitCode::SUCCESS);
        }
        if let Some(name) = &self.show {
            let Some(text) = selftest::source(name, &Config::load(&settings)?) else {
                bail!("there is no attack {name:?}: `wasgi selftest --list` shows all of them");
            };
            say(&text)?;
            return Ok(ExitCode::SUCCESS);
        }
        if !self.attack {
            bail!("say `wasgi selftest --attack`, or `--list` to see what that would do");
        }
        let plan = Plan { only: &self.only, config: Config::load(&settings)? };
        let Tally { stopped, through, not_tried } = selftest::run(plan, &mut |text| {
            // Nobody reads on: the exit status still tells.
            let _ = say(text);
        })?;
        let all = stopped + through + not_tried;
        let mut summary = format!("{all} attacks: {stopped} stopped, {through} got through");
        if not_tried > 0 {
            summary.push_str(&format!(", {not_tried} not tried: for what those are after, this run says nothing"));
        }
        say(&(summary + "\n"))?;
        Ok(if through == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}
