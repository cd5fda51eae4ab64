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
    Wasgi(Instances),
    /// A CGI program: started anew for each request.
    WasgiCgi,
    WasmtimeServe(Instances),
}

/// Which sandbox serves a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Instances {
    Fresh,
    /// Up to 1,000 requests by the same one.
    Reuse,
}

impl Instances {
    const BOTH: [Self; 2] = [Self::Fresh, Self::Reuse];

    fn name(self) -> &'static str {
        match self {
            Self::Fresh => "fresh",
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

    /// `wasmtime serve` with the same work and the same policy on instances.
    pub(crate) fn is_neighbour_of(&self, other: &Self) -> bool {
        let instances = match other.side {
            Side::Wasgi(instances) => instances,
            Side::WasgiCgi => Instances::Fresh,
            Side::Yardstick | Side::WasmtimeServe(_) => return false,
        };
        self.work == other.work && self.side == Side::WasmtimeServe(instances)
    }

    /// What is to be reached: the part of the yardstick, and the multiple of `wasmtime serve`.
    pub(crate) fn goal(&self) -> Option<(f64, f64)> {
        match (self.work, self.side) {
            (Work::Hello, Side::Wasgi(Instances::Fresh)) => Some((0.30, 5.0)),
            (Work::Hello, Side::Wasgi(Instances::Reuse)) => Some((0.60, 2.0)),
            _ => None,
        }
    }
}

/// All rows whose name contains `wanted`, and those that they are compared with.
pub(crate) fn rows<'p>(programs: &'p Programs, wanted: &str) -> Vec<Row<'p>> {
    let mut rows = Vec::new();
    for work in [Work::Hello, Work::Page, Work::Upload] {
        rows.push(yardstick(programs, work));
        for instances in Instances::BOTH {
            rows.extend(wasgi(programs, work, instances));
            rows.extend(wasgi_cgi(programs, work, instances));
            rows.extend(wasmtime_serve(programs, work, instances));
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
    let row = |path, guest: &str| Row {
        name: format!("{}: wasgi, {}{guest}", work.name(), instances.name()),
        work,
        side: Side::Wasgi(instances),
        path,
        command: Box::new(move |port| {
            // One state directory for each policy: compiled code is cached across the rounds.
            let mut command = programs.wasgi_serve(&programs.apps(), &format!("state-{}", instances.name()), port);
            command.args(["--instances", instances.name(), "--reuse-requests", "1000"]);
            command
        }),
    };
    match work {
        Work::Hello => vec![row("/hello", ""), row("/hello-lean", ", guest without std")],
        Work::Page | Work::Upload => vec![row("/work", "")],
    }
}

fn wasgi_cgi(programs: &Programs, work: Work, instances: Instances) -> Option<Row<'_>> {
    (work == Work::Hello && instances == Instances::Fresh).then(|| Row {
        name: format!("{}: wasgi, fresh, CGI program", work.name()),
        work,
        side: Side::WasgiCgi,
        path: "/hello-cgi",
        command: Box::new(move |port| programs.wasgi_serve(&programs.apps(), "state-fresh", port)),
    })
}

fn wasmtime_serve(programs: &Programs, work: Work, instances: Instances) -> Option<Row<'_>> {
    let wasmtime = programs.wasmtime.as_ref()?;
    Some(Row {
        name: format!("{}: wasmtime serve, {}", work.name(), instances.name()),
        work,
        side: Side::WasmtimeServe(instances),
        path: if work == Work::Page { "/page" } else { "/" },
        command: Box::new(move |port| {
            let mut command = Command::new(wasmtime);
            command
                .args(["serve", "-S", "cli", "--addr", &format!("127.0.0.1:{port}")])
                .args(match instances {
                    Instances::Fresh => ["--max-instance-reuse-count", "1"],
                    Instances::Reuse => ["--max-instance-reuse-count", "1000"],
                })
                .arg(&programs.wasi_http);
            command
        }),
    })
}
