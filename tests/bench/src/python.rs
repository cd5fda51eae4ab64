//! Apps in Python: how long a build takes, what comes of it, and how soon it answers.

use std::fmt::Write;
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::client::{Client, free_port};
use crate::lineup::{Instances, Work};
use crate::machine::{Machine, Programs};
use crate::server::Server;
use crate::table::{Table, median};

/// An app of tests/bench/python.
pub(crate) struct App {
    /// Its folder, and what it is called where it is served.
    pub(crate) name: &'static str,
    pub(crate) work: Work,
    /// As gunicorn takes it.
    pub(crate) target: &'static str,
    pub(crate) path: &'static str,
    /// Beside the folder.
    requirements: Option<&'static str>,
}

pub(crate) const APPS: [App; 3] = [
    App { name: "hello", work: Work::Hello, target: "hello:application", path: "/hello", requirements: None },
    App { name: "flask", work: Work::FlaskPage, target: "page:app", path: "/flask/", requirements: Some("flask.txt") },
    App {
        name: "django",
        work: Work::DjangoPage,
        target: "mysite.wsgi:application",
        path: "/django/",
        requirements: Some("django.txt"),
    },
];

/// A machine that is busy compiles one of these components for a minute.
const PATIENCE: Duration = Duration::from_secs(180);

/// The state directory of every host of this part: what was compiled once is compiled.
pub(crate) const STATE: &str = "python-state";

/// How often a host is started with what it has compiled.
const STARTS: usize = 5;

impl App {
    /// The apps directory in which it lies alone, with a sidecar for this policy.
    pub(crate) fn folder(&self, programs: &Programs, instances: Instances) -> PathBuf {
        programs.scratch.join("python").join(self.name).join(instances.name())
    }

    fn file(&self, programs: &Programs) -> PathBuf {
        programs.scratch.join("python").join(self.name).join(format!("{}.wasm", self.name))
    }

    /// Builds it as its users do.
    fn build(&self, programs: &Programs) -> Result<Duration> {
        let sources = &programs.python.sources;
        let file = self.file(programs);
        let folders = Instances::ALL.map(|instances| (instances, self.folder(programs, instances)));
        for (_, folder) in &folders {
            fs::create_dir_all(folder)?;
        }
        let mut command = Command::new("python3");
        command.args(["-m", "wasgi", "build", self.target, "-o"]).arg(&file);
        command.current_dir(sources.join(self.name)).env("PYTHONPATH", &programs.python.sdk).env_remove("VIRTUAL_ENV");
        if let Some(requirements) = self.requirements {
            command.arg("--requirements").arg(sources.join(requirements));
        }
        let began = Instant::now();
        let output = command.output().context("cannot run python3")?;
        let took = began.elapsed();
        ensure!(output.status.success(), "{}: {}", self.name, String::from_utf8_lossy(&output.stderr));
        for (instances, folder) in folders {
            fs::hard_link(&file, folder.join(format!("{}.wasm", self.name)))?;
            let sidecar = format!("instances = \"{}\"\n", instances.name());
            fs::write(folder.join(format!("{}.toml", self.name)), sidecar)?;
        }
        Ok(took)
    }
}

/// What they are served by, and with which interpreter.
pub(crate) fn versions(programs: &Programs) -> Result<String> {
    let text = "import platform, sysconfig, importlib.metadata as m; print(f'CPython {platform.python_version()} natively (configured with \
                {sysconfig.get_config_var(\"CONFIG_ARGS\") or \"nothing\"}), ' + ', '.join(f'{n} {m.version(n)}' for n in ('gunicorn', \
                'uwsgi', 'flask', 'django')))";
    let output = Command::new("python3").args(["-c", text]).env("PYTHONPATH", &programs.python.native).output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(format!("{}.\n\n", String::from_utf8_lossy(&output.stdout).trim()))
}

/// From source to file. The parts after this one serve what was built.
pub(crate) fn builds(programs: &Programs, apps: &[&App]) -> Result<String> {
    let mut section =
        String::from("### Building\n\nOnce each, by `wasgi build`, with pip's downloads in its cache.\n\n");
    let mut table = Table::new(&["", "s", "MiB"]);
    for app in apps {
        eprintln!("bench: building {}", app.name);
        let took = app.build(programs)?;
        let bytes = fs::metadata(app.file(programs))?.len();
        table.row(vec![
            app.work.name().to_owned(),
            format!("{:.1}", took.as_secs_f64()),
            format!("{:.1}", bytes as f64 / f64::from(1 << 20)),
        ]);
    }
    let _ = write!(section, "{table}");
    Ok(section)
}

/// From a host that is started to the first answer: with nothing compiled, and with everything.
pub(crate) fn starts(machine: &Machine, programs: &Programs, apps: &[&App]) -> Result<String> {
    let mut section = String::from(
        "\n### Cold start\n\nFrom the start of a host with this one app to its first 200, host and compiler on one core.\n\n",
    );
    let mut table = Table::new(&["s", "nothing compiled", "compiled before"]);
    for app in apps {
        eprintln!("bench: starting {}", app.name);
        let first = start(machine, programs, app)?;
        let mut again = Vec::new();
        for _ in 0..STARTS {
            again.push(start(machine, programs, app)?.as_secs_f64());
        }
        table.row(vec![
            app.work.name().to_owned(),
            format!("{:.2}", first.as_secs_f64()),
            format!("{:.3}", median(again)),
        ]);
    }
    let _ = write!(section, "{table}");
    Ok(section)
}

fn start(machine: &Machine, programs: &Programs, app: &App) -> Result<Duration> {
    let port = free_port()?;
    let command = programs.wasgi_serve(&app.folder(programs, Instances::Reuse), STATE, port);
    let client = Client::new(port);
    let began = Instant::now();
    let log = programs.scratch.join("server.log");
    let mut server = Server::start(&command, &machine.server_cpu.to_string(), log)?;
    let took = client.wait_for(&mut server, app.path, 200, began, PATIENCE)?;
    client.check(app.path, None, &app.work.answer())?;
    Ok(took)
}
