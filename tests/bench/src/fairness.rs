//! Fairness: how a small app fares whose neighbours of another tenant do their worst, on both cores.

use std::fmt::Write as _;
use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result, anyhow, ensure};

use crate::client::{Client, free_port};
use crate::lineup::Work;
use crate::machine::{Machine, Programs};
use crate::server::Server;
use crate::table::{Table, median};

/// How often the neighbour is asked in a second: far less than it could answer.
const RATE: u32 = 250;

/// Connections of one kind of attack. Each asks again as soon as it was answered.
const ATTACKERS: usize = 64;

/// After a refusal an attacker rests for this long: what is measured is guests, and not how quickly a host can refuse.
const REST: Duration = Duration::from_millis(50);

/// As many as cores on the machine that the figures are of.
const WORKERS: usize = 2;

/// What may take long on a busy host.
const PATIENCE: Duration = Duration::from_secs(60);

/// The machine below may take so much of both cores' time in a turn. What it takes is in the tail, whoever runs: a turn in which it took more is tried again.
const STOLEN_MAX: f64 = 0.01;

/// So often, after a rest: a machine that takes time from a busy guest stops when that has been idle.
const TRIES: usize = 4;
const CALM: Duration = Duration::from_secs(10);

/// A slow body sends a byte so often.
const DRIP: Duration = Duration::from_millis(250);

/// What the app `hog` does, by its path.
const KINDS: [&str; 5] = ["loop", "burst", "memory", "log", "body"];

/// And what whoever may write to the tenant's folder does.
const DEPLOYS: &str = "deploys";

/// Names of one file that cannot be deployed, which is as large as this: it is read for each of them whenever it has changed.
const LINKS: usize = 200;
const LINKED_BYTES: usize = 4 << 20;

/// It changes so often, and an app is renamed.
const DEPLOY_PAUSE: Duration = Duration::from_millis(20);

/// What neighbours do at once.
const ATTACKS: [(&str, &[&str]); 7] = [
    ("loops of 2 s", &["loop"]),
    ("calls of 1.5 ms", &["burst"]),
    ("100 MiB filled by each call", &["memory"]),
    ("log floods", &["log"]),
    ("slow bodies", &["body"]),
    ("all of these together", &KINDS),
    ("files that change without end", &[DEPLOYS]),
];

/// One round of one row.
struct Fared {
    p50: Duration,
    p99: Duration,
    worst: Duration,
    /// Attackers' requests that were answered with 200, and with anything else, in a second.
    served: f64,
    refused: f64,
    /// The part of both cores' time that the machine below took.
    stolen: f64,
}

/// Turns that were not counted, and those that were though the machine below took too much.
#[derive(Default)]
struct Disturbed {
    repeated: usize,
    counted: usize,
}

/// The attacks whose names contain `rows`.
pub(crate) fn measure(
    machine: &Machine,
    programs: &Programs,
    rows: &str,
    rounds: usize,
    time: Duration,
) -> Result<String> {
    let attacks: Vec<_> = ATTACKS.iter().filter(|(name, _)| name.contains(rows)).collect();
    ensure!(!attacks.is_empty(), "no attack's name contains \"{rows}\"");
    let mut host = start(machine, programs)?;
    let mut rows: Vec<Vec<(Fared, f64)>> = attacks.iter().map(|_| Vec::new()).collect();
    let mut alone = Vec::new();
    let mut disturbed = Disturbed::default();
    for round in 1..=rounds {
        eprintln!("bench: fairness, round {round} of {rounds}");
        let quiet = calm_turn(&mut host, &[], time, &mut disturbed)?;
        for ((_, paths), row) in attacks.iter().zip(&mut rows) {
            let fared = calm_turn(&mut host, paths, time, &mut disturbed)?;
            let ratio = fared.p99.as_secs_f64() / quiet.p99.as_secs_f64();
            row.push((fared, ratio));
        }
        alone.push((quiet, 1.0));
    }
    let who = match std::thread::spawn(go_first).join() {
        Ok(true) => "a thread that goes first (SCHED_FIFO)",
        _ => "a thread like any other (chrt was refused: its own waits are in the tail)",
    };
    let mut section = String::from("\n## Fairness\n\n");
    let _ = writeln!(
        section,
        "{WORKERS} workers on all cores; a hello of one tenant is asked {RATE} times a second on one connection by {who}, and its latency\n\
         counted from when it should have been asked. Beside it, on the same cores, apps of another tenant are asked by {ATTACKERS} connections for each kind of attack, as fast as they\n\
         answer. The default configuration. {rounds} rounds of {} s in turns; medians of the rounds, \"worst\" is of all.\n\
         A turn in which the machine below took more than {:.0} % of the cores' time was tried again after {} s of rest, {TRIES} times at most, and the one in which it took least is counted:\n\
         {} turns were tried again, {} are counted though it took more.\n",
        time.as_secs(),
        STOLEN_MAX * 100.0,
        CALM.as_secs(),
        disturbed.repeated,
        disturbed.counted,
    );
    let mut table =
        Table::new(&["", "p50 ms", "p99 ms", "worst ms", "p99 × alone", "served/s", "refused/s", "stolen %"]);
    table_row(&mut table, "alone", &alone);
    for ((name, _), row) in attacks.iter().zip(&rows) {
        table_row(&mut table, name, row);
    }
    let _ = write!(section, "{table}");
    Ok(section)
}

fn table_row(table: &mut Table, name: &str, row: &[(Fared, f64)]) {
    let middle = |figure: fn(&Fared) -> f64| median(row.iter().map(|(fared, _)| figure(fared)));
    let worst = row.iter().map(|(fared, _)| fared.worst).max().unwrap_or_default();
    table.row(vec![
        name.to_owned(),
        format!("{:.2}", middle(|fared| fared.p50.as_secs_f64() * 1e3)),
        format!("{:.2}", middle(|fared| fared.p99.as_secs_f64() * 1e3)),
        format!("{:.1}", worst.as_secs_f64() * 1e3),
        format!("{:.2}", median(row.iter().map(|(_, ratio)| *ratio))),
        format!("{:.0}", middle(|fared| fared.served)),
        format!("{:.0}", middle(|fared| fared.refused)),
        format!("{:.1}", middle(|fared| fared.stolen * 100.0)),
    ]);
}

struct Host {
    server: Server,
    address: SocketAddr,
    /// The folder of the tenant that attacks.
    folder: PathBuf,
}

fn start(machine: &Machine, programs: &Programs) -> Result<Host> {
    let apps = programs.scratch.join("fairness");
    fs::create_dir_all(apps.join("good"))?;
    fs::create_dir_all(apps.join("bad"))?;
    fs::copy(programs.app("hello"), apps.join("good/hello.wasm"))?;
    // An app for each kind, with as many calls at once as an app may have.
    for kind in KINDS {
        fs::copy(programs.app("hog"), apps.join(format!("bad/{kind}.wasm")))?;
    }
    let port = free_port()?;
    let command = programs.wasgi_serve_with(&apps, "fairness-state", port, WORKERS);
    let mut server = Server::start(&command, &machine.all_cpus, programs.scratch.join("fairness.log"))?;
    let client = Client::new(port);
    for kind in KINDS {
        client.wait_for(&mut server, &format!("/bad/{kind}"), 200, Instant::now(), PATIENCE)?;
    }
    client.wait_for(&mut server, "/good/hello", 200, Instant::now(), PATIENCE)?;
    client.check("/good/hello", None, &Work::Hello.answer())?;
    Ok(Host { server, address: SocketAddr::from((Ipv4Addr::LOCALHOST, port)), folder: apps.join("bad") })
}

/// A turn from which the machine below took little, if there is one among the tries.
fn calm_turn(host: &mut Host, paths: &[&'static str], time: Duration, disturbed: &mut Disturbed) -> Result<Fared> {
    let mut calmest = turn(host, paths, time)?;
    for _ in 1..TRIES {
        if calmest.stolen <= STOLEN_MAX {
            return Ok(calmest);
        }
        disturbed.repeated += 1;
        std::thread::sleep(CALM);
        let again = turn(host, paths, time)?;
        if again.stolen < calmest.stolen {
            calmest = again;
        }
    }
    disturbed.counted += usize::from(calmest.stolen > STOLEN_MAX);
    Ok(calmest)
}

/// The neighbour asked for `time`, while these paths are attacked.
fn turn(host: &mut Host, paths: &[&'static str], time: Duration) -> Result<Fared> {
    let attack = Attack::begin(host, paths);
    // What an attack is at its beginning is not what it is later.
    std::thread::sleep(Duration::from_secs(1));
    attack.counted.reset();
    let (began, before) = (Instant::now(), Processors::now()?);
    // On a thread of its own: whoever goes first must start none of the others.
    let mut took = std::thread::scope(|scope| scope.spawn(|| visit(host.address, time)).join())
        .map_err(|_| anyhow!("the neighbour's thread has failed"))??;
    let stolen = Processors::now()?.stolen_since(&before);
    let (served, refused) = attack.counted.rates(began.elapsed());
    attack.end();
    host.server.still_runs()?;
    took.sort_unstable();
    let at = |part: f64| took[((took.len() - 1) as f64 * part) as usize];
    Ok(Fared { p50: at(0.5), p99: at(0.99), worst: at(1.0), served, refused, stolen })
}

/// What the kernel has counted of all processors' time, in ticks.
struct Processors {
    all: u64,
    stolen: u64,
}

impl Processors {
    fn now() -> Result<Self> {
        let text = fs::read_to_string("/proc/stat").context("cannot read /proc/stat")?;
        let line =
            text.lines().next().and_then(|line| line.strip_prefix("cpu ")).context("no line of all processors")?;
        let ticks: Vec<u64> = line.split_whitespace().map_while(|ticks| ticks.parse().ok()).collect();
        // user, nice, system, idle, iowait, irq, softirq, steal; guests' time is in the first.
        let (all, stolen) = (ticks.iter().take(8).sum(), ticks.get(7).copied().unwrap_or(0));
        Ok(Self { all, stolen })
    }

    fn stolen_since(&self, before: &Self) -> f64 {
        self.stolen.saturating_sub(before.stolen) as f64 / self.all.saturating_sub(before.all).max(1) as f64
    }
}

/// What is measured is the host, whose neighbour's visitors are on other machines: so who asks waits for nobody here, but for an answer. A thread
/// of usual priority would wait for the kernel's next tick, in a turn that the attackers' clients or the host have. False where that is not allowed.
fn go_first() -> bool {
    let thread = fs::read_link("/proc/thread-self").ok().and_then(|thread| Some(thread.file_name()?.to_owned()));
    let set = thread.and_then(|thread| Command::new("chrt").args(["--fifo", "--pid", "1"]).arg(thread).output().ok());
    set.is_some_and(|set| set.status.success())
}

/// Asks at a fixed rate. Who is late asks at once, and the delay counts: a client that waits for answers would ask less often when
/// they are slow.
fn visit(address: SocketAddr, time: Duration) -> Result<Vec<Duration>> {
    go_first();
    let mut stream = connect(address)?;
    let count = RATE * u32::try_from(time.as_secs()).unwrap_or(1);
    let began = Instant::now();
    let mut took = Vec::new();
    for number in 0..count {
        let due = began + (Duration::from_secs(number.into()) + unsteady(number)) / RATE;
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        stream.write_all(b"GET /good/hello HTTP/1.1\r\nHost: bench\r\n\r\n")?;
        let status = answer(&mut stream)?;
        ensure!(status == 200, "the neighbour was answered {status}");
        took.push(due.elapsed());
    }
    Ok(took)
}

/// A part of a second, another one for each number and evenly spread: who asks in step with the kernel's tick (some have 250 in a second,
/// too) meets it at the same moment for seconds.
fn unsteady(number: u32) -> Duration {
    // The golden ratio's, of 2^32.
    Duration::from_secs_f64(f64::from(number.wrapping_mul(0x9e37_79b9)) / f64::from(u32::MAX) / 2.0)
}

fn connect(address: SocketAddr) -> Result<TcpStream> {
    let stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    Ok(stream)
}

/// Reads one response, of a length that is said.
fn answer(stream: &mut TcpStream) -> Result<u16> {
    let (mut read, mut buffer) = (Vec::new(), [0; 4096]);
    loop {
        let head = read.windows(4).position(|bytes| bytes == b"\r\n\r\n");
        if let Some(head) = head {
            let text = String::from_utf8_lossy(&read[..head]).to_ascii_lowercase();
            let status = text.split(' ').nth(1).and_then(|status| status.parse().ok()).context("no status")?;
            let length = text.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse::<usize>().ok());
            if read.len() >= head + 4 + length.unwrap_or(0) {
                return Ok(status);
            }
        }
        let bytes = stream.read(&mut buffer)?;
        ensure!(bytes > 0, "the connection ended");
        read.extend_from_slice(&buffer[..bytes]);
    }
}

/// Neighbours that do their worst, until this is ended.
struct Attack {
    stop: Arc<AtomicBool>,
    counted: Arc<Counted>,
    attackers: Vec<JoinHandle<()>>,
}

#[derive(Default)]
struct Counted {
    served: AtomicU64,
    refused: AtomicU64,
}

impl Counted {
    fn reset(&self) {
        self.served.store(0, Ordering::Relaxed);
        self.refused.store(0, Ordering::Relaxed);
    }

    fn rates(&self, time: Duration) -> (f64, f64) {
        let rate = |count: &AtomicU64| count.load(Ordering::Relaxed) as f64 / time.as_secs_f64();
        (rate(&self.served), rate(&self.refused))
    }
}

impl Attack {
    fn begin(host: &Host, paths: &[&'static str]) -> Self {
        let (stop, counted) = (Arc::<AtomicBool>::default(), Arc::<Counted>::default());
        let address = host.address;
        let all = paths.iter().filter(|path| **path != DEPLOYS);
        let mut attackers: Vec<_> = all
            .flat_map(|path| std::iter::repeat_n(*path, ATTACKERS))
            .map(|path| {
                let (stop, counted) = (Arc::clone(&stop), Arc::clone(&counted));
                std::thread::spawn(move || {
                    while !stop.load(Ordering::Relaxed) {
                        let done = connect(address).and_then(|stream| attack(stream, path, &stop, &counted));
                        if done.is_err() {
                            std::thread::sleep(REST);
                        }
                    }
                })
            })
            .collect();
        if paths.contains(&DEPLOYS) {
            let (folder, stop) = (host.folder.clone(), Arc::clone(&stop));
            attackers.push(std::thread::spawn(move || {
                if let Err(error) = deploy_without_end(&folder, &stop) {
                    eprintln!("bench: fairness: files did not change to the end: {error:#}");
                }
            }));
        }
        Self { stop, counted, attackers }
    }

    fn end(self) {
        self.stop.store(true, Ordering::Relaxed);
        for attacker in self.attackers {
            let _ = attacker.join();
        }
    }
}

/// Changes one file of many names, and renames an app, as often as a host may notice.
fn deploy_without_end(folder: &Path, stop: &AtomicBool) -> Result<()> {
    let link = |number: usize| folder.join(format!("link-{number}.wasm"));
    let (mut there, mut elsewhere) = (folder.join("one.wasm"), folder.join("other.wasm"));
    fs::copy(folder.join("loop.wasm"), &there)?;
    fs::write(link(0), vec![0; LINKED_BYTES])?;
    for number in 1..LINKS {
        fs::hard_link(link(0), link(number))?;
    }
    let changed = fs::File::options().write(true).open(link(0))?;
    while !stop.load(Ordering::Relaxed) {
        changed.set_modified(SystemTime::now())?;
        fs::rename(&there, &elsewhere)?;
        std::mem::swap(&mut there, &mut elsewhere);
        std::thread::sleep(DEPLOY_PAUSE);
    }
    fs::remove_file(there)?;
    (0..LINKS).try_for_each(|number| fs::remove_file(link(number)))?;
    Ok(())
}

/// Asks again and again on one connection.
fn attack(mut stream: TcpStream, path: &str, stop: &AtomicBool, counted: &Counted) -> Result<()> {
    while !stop.load(Ordering::Relaxed) {
        if path == "body" {
            write!(stream, "POST /bad/body/body HTTP/1.1\r\nHost: bench\r\nContent-Length: 1000\r\n\r\n")?;
            while !stop.load(Ordering::Relaxed) {
                std::thread::sleep(DRIP);
                stream.write_all(b"x")?;
            }
            return Ok(());
        }
        write!(stream, "GET /bad/{path}/{path} HTTP/1.1\r\nHost: bench\r\n\r\n")?;
        if answer(&mut stream)? == 200 {
            counted.served.fetch_add(1, Ordering::Relaxed);
        } else {
            counted.refused.fetch_add(1, Ordering::Relaxed);
            std::thread::sleep(REST);
        }
    }
    Ok(())
}
