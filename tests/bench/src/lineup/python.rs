//! Apps in Python: each under wasgi, with every policy on instances, and under the servers that it would have natively.

use std::process::Command;

use super::{Against, Dialect, Instances, PythonServer, Row, Side, Work, keep};
use crate::machine::Programs;
use crate::python::{APPS, App, STATE};

/// What [`python_rows`] are compared with.
pub(crate) const COMPARED: &[Against] = &[
    Against::Python(PythonServer::Gunicorn),
    Against::Python(PythonServer::UwsgiRouter),
    Against::Python(PythonServer::UwsgiWorker),
];

/// Threads of gunicorn's one worker. It has a poll for idle connections, so that there may be fewer than those.
const GUNICORN_THREADS: &str = "4";

/// All rows in Python whose name contains `wanted`, and those that they are compared with.
pub(crate) fn python_rows<'p>(programs: &'p Programs, wanted: &str, connections: usize) -> Vec<Row<'p>> {
    let mut rows = Vec::new();
    for app in &APPS {
        rows.extend([gunicorn(programs, app), uwsgi_router(programs, app), uwsgi_worker(programs, app, connections)]);
        // A page of a framework takes so long in a fresh interpreter that a turn is over before all connections have their first.
        let policies =
            Instances::ALL.into_iter().filter(|instances| app.work == Work::Hello || *instances == Instances::Reuse);
        rows.extend(policies.map(|instances| wasgi(programs, app, instances)));
    }
    keep(&mut rows, wanted, COMPARED);
    rows
}

/// The page that the Flask app and the Django project make.
pub(super) fn page() -> String {
    let mut page = String::from("<!doctype html>\n<title>Rows</title>\n<h1>20 rows</h1>\n<ul>");
    for row in 0..20 {
        page.push_str(&format!("\n  <li>&lt;row {row}&gt; costs {}</li>", row * 3));
    }
    page + "\n</ul>"
}

pub(super) fn goal(work: Work, instances: Instances, against: Against) -> Option<f64> {
    match (work, instances, against) {
        (Work::Hello, Instances::Reuse, Against::Python(PythonServer::Gunicorn)) => Some(2.0),
        (Work::Hello, Instances::Reuse, Against::Python(PythonServer::UwsgiRouter | PythonServer::UwsgiWorker)) => {
            Some(1.0)
        }
        (Work::FlaskPage, Instances::Reuse, Against::Python(PythonServer::Gunicorn)) => Some(0.5),
        _ => None,
    }
}

fn wasgi<'p>(programs: &'p Programs, app: &'static App, instances: Instances) -> Row<'p> {
    Row {
        name: format!("{}: wasgi, {}", app.work.name(), instances.name()),
        work: app.work,
        side: Side::Wasgi(Dialect::Python, instances),
        path: app.path,
        command: Box::new(move |port| programs.wasgi_serve(&app.folder(programs, instances), STATE, port)),
    }
}

fn gunicorn<'p>(programs: &'p Programs, app: &'static App) -> Row<'p> {
    Row {
        name: format!("{}: gunicorn, gthread", app.work.name()),
        work: app.work,
        side: Side::Native(PythonServer::Gunicorn),
        path: "/",
        command: Box::new(move |port| {
            let mut command = Command::new("python3");
            command.args(["-m", "gunicorn"]);
            in_place(&mut command, programs, app);
            command.args(["--workers", "1", "--worker-class", "gthread", "--threads", GUNICORN_THREADS]);
            command.args(["--bind", &format!("127.0.0.1:{port}"), app.target]);
            command
        }),
    }
}

/// What uWSGI's documentation has for a server that the world reaches ("Native HTTP support", "Things to know"): a router, which keeps
/// connections open with the headers that it wants for that, in front of one worker.
fn uwsgi_router<'p>(programs: &'p Programs, app: &'static App) -> Row<'p> {
    uwsgi(programs, app, "uWSGI router (http)", PythonServer::UwsgiRouter, |command, place| {
        command.args(["--http", place, "--http-keepalive", "--add-header", "Connection: Keep-Alive"]);
    })
}

/// What it has for a server behind another one: the worker speaks HTTP itself, and gives a connection that is kept open a thread of
/// its own. Nothing protects it against slow or hostile clients.
fn uwsgi_worker<'p>(programs: &'p Programs, app: &'static App, connections: usize) -> Row<'p> {
    uwsgi(programs, app, "uWSGI worker (http11-socket)", PythonServer::UwsgiWorker, move |command, place| {
        command.args(["--http11-socket", place, "--threads", &connections.to_string()]);
    })
}

/// Without log, as gunicorn is by default.
fn uwsgi<'p>(
    programs: &'p Programs,
    app: &'static App,
    name: &str,
    server: PythonServer,
    listen: impl Fn(&mut Command, &str) + 'p,
) -> Row<'p> {
    Row {
        name: format!("{}: {name}", app.work.name()),
        work: app.work,
        side: Side::Native(server),
        path: "/",
        command: Box::new(move |port| {
            let mut command = Command::new(programs.python.native.join("bin/uwsgi"));
            in_place(&mut command, programs, app);
            command.args(["--master", "--die-on-term", "--disable-logging", "--need-app", "--processes", "1"]);
            command.args(["--module", app.target]);
            listen(&mut command, &format!("127.0.0.1:{port}"));
            command
        }),
    }
}

/// In the app's folder, with the packages of the benchmark.
fn in_place(command: &mut Command, programs: &Programs, app: &App) {
    command.env("PYTHONPATH", &programs.python.native);
    command.arg("--chdir").arg(programs.python.sources.join(app.name));
}
