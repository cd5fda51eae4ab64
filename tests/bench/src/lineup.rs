//! Which rows there are. To add one: a `Row` with its work, its side, the path to ask for and the command that serves it.
//! The rows in Python are in `python`.

use std::process::Command;

use crate::machine::Programs;
pub(crate) use python::{COMPARED as COMPARED_IN_PYTHON, python_rows};

mod python;

/// What a server is asked to do. The same for all sides, so that rows with the same work can be compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Work {
    /// The classic sample's sentence.
    Hello,
    /// A page of 100,000 bytes, made anew for each request.
    Page,
    /// A POST of 1,000,000 bytes, which the app reads and counts.
    Upload,
    /// A page with twenty rows, by Flask and Jinja.
    FlaskPage,
    /// The same by Django and its templates, with the middleware of a new project.
    DjangoPage,
}

impl Work {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Hello => "hello",
            Self::Page => "100 KB page",
            Self::Upload => "1 MB upload",
            Self::FlaskPage => "Flask page",
            Self::DjangoPage => "Django page",
        }
    }

    /// Size of the request body in bytes; none for a GET.
    pub(crate) fn upload(self) -> Option<usize> {
        match self {
            Self::Upload => Some(1_000_000),
            Self::Hello | Self::Page | Self::FlaskPage | Self::DjangoPage => None,
        }
    }

    /// The body of the right answer.
    pub(crate) fn answer(self) -> Vec<u8> {
        match self {
            Self::Hello => b"This is a sample WSGI Application.".to_vec(),
            Self::Page => vec![b'x'; 100_000],
            Self::Upload => b"1000000".to_vec(),
            Self::FlaskPage => python::page().into_bytes(),
            // Jinja leaves out a template's last newline.
            Self::DjangoPage => (python::page() + "\n").into_bytes(),
        }
    }
}

/// What a row is compared as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    Yardstick,
    Wasgi(Dialect, Instances),
    WasmtimeServe(Wasi, Instances),
    /// A server of CPython's, on this machine as it is.
    Native(PythonServer),
}

/// What Python apps are usually served by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PythonServer {
    Gunicorn,
    /// Its HTTP server for the public: a router in front of the worker.
    UwsgiRouter,
    /// The worker alone, which speaks HTTP to a web server in front.
    UwsgiWorker,
}

/// What the guest speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dialect {
    Wsgi,
    /// Started anew for each request.
    Cgi,
    /// The very component that `wasmtime serve` runs.
    Http(Wasi),
    /// WSGI, by the SDK for Python.
    Python,
}

/// Which `wasi:http`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wasi {
    P2,
    P3,
}

impl Wasi {
    const BOTH: [Self; 2] = [Self::P2, Self::P3];

    fn name(self) -> &'static str {
        match self {
            Self::P2 => "wasi:http 0.2",
            Self::P3 => "wasi:http 0.3",
        }
    }
}

/// Which row another one is compared with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Against {
    /// The native row with the same work.
    Yardstick,
    /// `wasmtime serve` with the same work and the same policy on instances (fresh ones for rewound ones): with the same
    /// component where it can run it.
    WasmtimeServe,
    /// The same app, with one worker.
    Python(PythonServer),
}

impl Against {
    /// What a ratio is called, above a column and in a sentence.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Yardstick => "of yardstick",
            Self::WasmtimeServe => "× wasmtime serve",
            Self::Python(PythonServer::Gunicorn) => "× gunicorn",
            Self::Python(PythonServer::UwsgiRouter) => "× uWSGI router",
            Self::Python(PythonServer::UwsgiWorker) => "× uWSGI worker",
        }
    }
}

/// Which sandbox serves a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Instances {
    Fresh,
    /// Up to 1,000 requests by the same one, put back after each.
    Rewind,
    /// Up to 1,000 requests by the same one.
    Reuse,
}

impl Instances {
    pub(crate) const ALL: [Self; 3] = [Self::Fresh, Self::Rewind, Self::Reuse];

    /// What others have to offer for the same promise.
    fn of_neighbour(self) -> Self {
        match self {
            Self::Fresh | Self::Rewind => Self::Fresh,
            Self::Reuse => Self::Reuse,
        }
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Fresh => "fresh",
            Self::Rewind => "rewind",
            Self::Reuse => "reuse",
        }
    }
}

/// One server doing one work.
pub(crate) struct Row<'p> {
    pub(crate) name: String,
    pub(crate) work: Work,
    pub(crate) side: Side,
    /// What to ask for.
    pub(crate) path: &'static str,
    /// What serves it on a port of 127.0.0.1, on one core.
    pub(crate) command: Box<dyn Fn(u16) -> Command + 'p>,
}

impl Row<'_> {
    pub(crate) fn is_compared_with(&self, other: &Self, against: Against) -> bool {
        self.work == other.work && self.counterpart(against) == Some(other.side)
    }

    fn counterpart(&self, against: Against) -> Option<Side> {
        match (against, self.side) {
            (Against::Yardstick, _) => Some(Side::Yardstick),
            (Against::WasmtimeServe, Side::Wasgi(dialect, instances)) => {
                let wasi = match dialect {
                    Dialect::Wsgi | Dialect::Cgi | Dialect::Python => Wasi::P2,
                    Dialect::Http(wasi) => wasi,
                };
                Some(Side::WasmtimeServe(wasi, instances.of_neighbour()))
            }
            (Against::Python(server), Side::Wasgi(..)) => Some(Side::Native(server)),
            _ => None,
        }
    }

    /// What is to be reached of the other one.
    pub(crate) fn goal(&self, against: Against) -> Option<f64> {
        let Side::Wasgi(dialect, instances) = self.side else { return None };
        if dialect == Dialect::Python {
            return python::goal(self.work, instances, against);
        }
        if self.work != Work::Hello {
            return None;
        }
        match (dialect, instances, against) {
            (Dialect::Wsgi, Instances::Fresh, Against::Yardstick) => Some(0.30),
            (Dialect::Wsgi, Instances::Fresh, Against::WasmtimeServe) => Some(5.0),
            (Dialect::Wsgi, Instances::Rewind, Against::Yardstick) => Some(0.70),
            (Dialect::Wsgi, Instances::Reuse, Against::Yardstick) => Some(0.60),
            (Dialect::Wsgi, Instances::Reuse, Against::WasmtimeServe) => Some(2.0),
            (Dialect::Http(Wasi::P2), _, Against::WasmtimeServe) => Some(2.0),
            (Dialect::Http(Wasi::P3), _, Against::WasmtimeServe) => Some(1.0),
            _ => None,
        }
    }
}

/// What [`rows`] are compared with.
pub(crate) const COMPARED: &[Against] = &[Against::Yardstick, Against::WasmtimeServe];

/// All rows whose name contains `wanted`, and those that they are compared with.
pub(crate) fn rows<'p>(programs: &'p Programs, wanted: &str) -> Vec<Row<'p>> {
    let mut rows = Vec::new();
    for work in [Work::Hello, Work::Page, Work::Upload] {
        rows.push(yardstick(programs, work));
        for instances in Instances::ALL {
            rows.extend(wasgi(programs, work, instances));
            for wasi in Wasi::BOTH.into_iter().filter(|_| instances != Instances::Rewind) {
                rows.extend(wasmtime_serve(programs, work, wasi, instances));
            }
        }
    }
    keep(&mut rows, wanted, COMPARED);
    rows
}

fn keep(rows: &mut Vec<Row<'_>>, wanted: &str, compared: &[Against]) {
    let is_kept = |row: &Row<'_>| {
        rows.iter()
            .filter(|named| named.name.contains(wanted))
            .any(|named| named.name == row.name || compared.iter().any(|against| named.is_compared_with(row, *against)))
    };
    let kept: Vec<bool> = rows.iter().map(is_kept).collect();
    let mut kept = kept.into_iter();
    rows.retain(|_| kept.next() == Some(true));
}

fn yardstick(programs: &Programs, work: Work) -> Row<'_> {
    Row {
        name: format!("{}: hyper alone (yardstick)", work.name()),
        work,
        side: Side::Yardstick,
        path: if work == Work::Page { "/page" } else { "/" },
        command: Box::new(|port| {
            let mut command = Command::new(&programs.yardstick);
            command.arg(port.to_string());
            command
        }),
    }
}

fn wasgi(programs: &Programs, work: Work, instances: Instances) -> Vec<Row<'_>> {
    let row = |path, dialect, guest: &str| Row {
        name: format!("{}: wasgi, {}{guest}", work.name(), instances.name()),
        work,
        side: Side::Wasgi(dialect, instances),
        path,
        command: Box::new(move |port| {
            // One state directory for each policy: compiled code is cached across the rounds.
            let mut command = programs.wasgi_serve(&programs.apps(), &format!("state-{}", instances.name()), port);
            command.args(["--instances", instances.name(), "--reuse-requests", "1000"]);
            command
        }),
    };
    if work != Work::Hello {
        return vec![row("/work", Dialect::Wsgi, "")];
    }
    let mut rows = vec![row("/hello", Dialect::Wsgi, ""), row("/hello-lean", Dialect::Wsgi, ", guest without std")];
    // Other kinds of guests are not rewound.
    if instances != Instances::Rewind {
        rows.push(row("/wasi-http", Dialect::Http(Wasi::P2), ", wasi:http 0.2"));
        rows.push(row("/wasi-http-p3", Dialect::Http(Wasi::P3), ", wasi:http 0.3"));
    }
    if instances == Instances::Fresh {
        rows.push(row("/hello-cgi", Dialect::Cgi, ", CGI program"));
    }
    rows
}

fn wasmtime_serve(programs: &Programs, work: Work, wasi: Wasi, instances: Instances) -> Option<Row<'_>> {
    let wasmtime = programs.wasmtime.as_ref()?;
    if wasi == Wasi::P3 && work != Work::Hello {
        return None;
    }
    Some(Row {
        name: format!("{}: wasmtime serve, {}, {}", work.name(), instances.name(), wasi.name()),
        work,
        side: Side::WasmtimeServe(wasi, instances),
        path: if work == Work::Page { "/page" } else { "/" },
        command: Box::new(move |port| {
            let mut command = Command::new(wasmtime);
            command.args(["serve", "--addr", &format!("127.0.0.1:{port}")]);
            command.args(match instances {
                Instances::Fresh | Instances::Rewind => ["--max-instance-reuse-count", "1"],
                Instances::Reuse => ["--max-instance-reuse-count", "1000"],
            });
            match wasi {
                Wasi::P2 => command.args(["-S", "cli"]).arg(&programs.wasi_http),
                Wasi::P3 => command.args(["-S", "cli,p3", "-W", "component-model-async"]).arg(&programs.wasi_http_p3),
            };
            command
        }),
    })
}
