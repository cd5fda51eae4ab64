//! Which rows there are. To add one: a `Row` with its work, its side, the path to ask for and the command that serves it.

use std::process::Command;

use crate::machine::Programs;

/// What a server is asked to do. The same for all sides, so that rows with the same work can be compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Work {
    /// The classic sample's sentence.
    Hello,
    /// A page of 100,000 bytes, made anew for each request.
    Page,
    /// A POST of 1,000,000 bytes, which the app reads and counts.
    Upload,
}

impl Work {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Hello => "hello",
            Self::Page => "100 KB page",
            Self::Upload => "1 MB upload",
        }
    }

    /// Size of the request body in bytes; none for a GET.
    pub(crate) fn upload(self) -> Option<usize> {
        match self {
            Self::Hello | Self::Page => None,
            Self::Upload => Some(1_000_000),
        }
    }

    /// The body of the right answer.
    pub(crate) fn answer(self) -> Vec<u8> {
        match self {
            Self::Hello => b"This is a sample WSGI Application.".to_vec(),
            Self::Page => vec![b'x'; 100_000],
            Self::Upload => b"1000000".to_vec(),
        }
    }
}

/// What a row is compared as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    Yardstick,
    Wasgi(Dialect, Instances),
    WasmtimeServe(Wasi, Instances),
}

/// What the guest speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dialect {
    Wsgi,
    /// Started anew for each request.
    Cgi,
    /// The very component that `wasmtime serve` runs.
    Http(Wasi),
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

/// What a row is to reach.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Goal {
    /// The part of the yardstick.
    pub(crate) yardstick: Option<f64>,
    /// The multiple of `wasmtime serve`.
    pub(crate) neighbour: Option<f64>,
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
    const ALL: [Self; 3] = [Self::Fresh, Self::Rewind, Self::Reuse];

    /// What others have to offer for the same promise.
    fn of_neighbour(self) -> Self {
        match self {
            Self::Fresh | Self::Rewind => Self::Fresh,
            Self::Reuse => Self::Reuse,
        }
    }

    fn name(self) -> &'static str {
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
    /// The native row with the same work.
    pub(crate) fn is_yardstick_of(&self, other: &Self) -> bool {
        self.work == other.work && self.side == Side::Yardstick
    }

    /// `wasmtime serve` with the same work and the same policy on instances (fresh ones for rewound ones): with the same
    /// component where it can run it.
    pub(crate) fn is_neighbour_of(&self, other: &Self) -> bool {
        let Side::Wasgi(dialect, instances) = other.side else { return false };
        let wasi = match dialect {
            Dialect::Wsgi | Dialect::Cgi => Wasi::P2,
            Dialect::Http(wasi) => wasi,
        };
        self.work == other.work && self.side == Side::WasmtimeServe(wasi, instances.of_neighbour())
    }

    pub(crate) fn goal(&self) -> Option<Goal> {
        let goal = |yardstick, neighbour| Some(Goal { yardstick, neighbour });
        match (self.work, self.side) {
            (Work::Hello, Side::Wasgi(Dialect::Wsgi, Instances::Fresh)) => goal(Some(0.30), Some(5.0)),
            (Work::Hello, Side::Wasgi(Dialect::Wsgi, Instances::Rewind)) => goal(Some(0.70), None),
            (Work::Hello, Side::Wasgi(Dialect::Wsgi, Instances::Reuse)) => goal(Some(0.60), Some(2.0)),
            (Work::Hello, Side::Wasgi(Dialect::Http(Wasi::P2), _)) => goal(None, Some(2.0)),
            (Work::Hello, Side::Wasgi(Dialect::Http(Wasi::P3), _)) => goal(None, Some(1.0)),
            _ => None,
        }
    }
}

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
    let compared = |row: &Row<'_>| {
        let named = rows.iter().filter(|row| row.name.contains(wanted));
        named
            .into_iter()
            .any(|named| named.name == row.name || row.is_yardstick_of(named) || row.is_neighbour_of(named))
    };
    let kept: Vec<bool> = rows.iter().map(compared).collect();
    let mut kept = kept.into_iter();
    rows.retain(|_| kept.next() == Some(true));
    rows
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
