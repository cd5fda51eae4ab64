//! Interleaved rounds: each row has a short turn in each round, so that a machine's bad moments hit all of them alike; and
//! rows are compared round by round, before the middle of the rounds is taken.

use std::fmt::Write;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::client::{Client, free_port};
use crate::lineup::{Against, Row};
use crate::load::Load;
use crate::machine::{Machine, Programs};
use crate::server::{Memory, Server};
use crate::table::{Table, median};

/// How much is measured.
pub(crate) struct Rounds {
    pub(crate) count: usize,
    /// A row's turn in a round.
    pub(crate) time: Duration,
    pub(crate) connections: usize,
}

/// A server may compile what it serves before it answers, and slow machines take their time.
const START_PATIENCE: Duration = Duration::from_secs(120);

/// Caches fill and pages are touched before anything counts.
const WARM_UP: Duration = Duration::from_secs(1);

/// One row's figures from one round.
struct Turn {
    /// Per second.
    requests: f64,
    /// Microseconds of processor time for each of them.
    cpu: f64,
    latency_p50: Duration,
    latency_p99: Duration,
    memory: Memory,
}

/// The section with the table.
pub(crate) fn measure(
    machine: &Machine,
    programs: &Programs,
    rows: &[Row<'_>],
    compared: &[Against],
    rounds: &Rounds,
) -> Result<String> {
    let load = Load::new(&programs.scratch, rounds.connections)?;
    let mut turns: Vec<Vec<Turn>> = rows.iter().map(|_| Vec::new()).collect();
    for round in 1..=rounds.count {
        eprintln!("bench: round {round} of {}", rounds.count);
        for (row, turns) in rows.iter().zip(&mut turns) {
            turns.push(turn(machine, programs, row, &load, rounds.time).with_context(|| row.name.clone())?);
        }
    }
    let mut section = String::new();
    let _ = writeln!(
        section,
        "{} rounds of {} s for each row, taking turns; {} connections. Rows of the same work (and the same policy) are compared\n\
         round by round, by requests per second and by processor time per request; medians. wasgi runs as operators run it:\n\
         limits, admission, access log to a file, counters.\n",
        rounds.count,
        rounds.time.as_secs(),
        rounds.connections
    );
    let _ = write!(section, "{}", table(rows, &turns, compared));
    section.push_str(&goals(rows, &turns, compared));
    Ok(section)
}

/// Starts the server, looks at its answer, warms it up, measures, looks again, ends it.
fn turn(machine: &Machine, programs: &Programs, row: &Row<'_>, load: &Load, time: Duration) -> Result<Turn> {
    let port = free_port()?;
    let client = Client::new(port);
    let (upload, answer) = (row.work.upload(), row.work.answer());
    let log = programs.scratch.join("server.log");
    programs.remove_access_logs()?;
    let mut server = Server::start(&(row.command)(port), &machine.server_cpu.to_string(), log)?;
    client.wait_for(&mut server, row.path, 200, Instant::now(), START_PATIENCE)?;
    client.check(row.path, upload, &answer)?;
    let url = client.url(row.path);
    load.run(&url, upload, WARM_UP)?;

    let before = server.cpu();
    let answered = load.run(&url, upload, time)?;
    let cpu = server.cpu().saturating_sub(before);

    client.check(row.path, upload, &answer)?;
    server.still_runs()?;
    ensure!(!cpu.is_zero(), "the kernel accounts no processor time to the server");
    Ok(Turn {
        requests: answered.requests / answered.time.as_secs_f64(),
        cpu: cpu.as_secs_f64() * 1e6 / answered.requests,
        latency_p50: answered.latency_p50,
        latency_p99: answered.latency_p99,
        memory: server.memory(),
    })
}

/// How a row compares with another: by requests per second, and by processor time. Above 1 it is better.
fn compare(row: &[Turn], other: &[Turn]) -> (f64, f64) {
    let rounds = || row.iter().zip(other);
    (
        median(rounds().map(|(row, other)| row.requests / other.requests)),
        median(rounds().map(|(row, other)| other.cpu / row.cpu)),
    )
}

/// The turns of the row that this one is compared with.
fn counterpart<'t>(rows: &[Row<'_>], turns: &'t [Vec<Turn>], row: &Row<'_>, against: Against) -> Option<&'t [Turn]> {
    let found = rows.iter().position(|other| row.is_compared_with(other, against))?;
    Some(&turns[found])
}

fn table(rows: &[Row<'_>], turns: &[Vec<Turn>], compared: &[Against]) -> Table {
    let mut headings = vec!["", "requests/s", "best", "CPU µs/request", "least"];
    headings.extend(compared.iter().flat_map(|against| [against.name(), "by CPU"]));
    headings.extend(["p50 ms", "p99 ms", "RSS MiB"]);
    let mut table = Table::new(&headings);
    for (row, own) in rows.iter().zip(turns) {
        let middle = |figure: fn(&Turn) -> f64| median(own.iter().map(figure));
        let best = own.iter().map(|turn| turn.requests).fold(0.0, f64::max);
        let least = own.iter().map(|turn| turn.cpu).fold(f64::INFINITY, f64::min);
        let mut cells = vec![
            row.name.clone(),
            thousands(middle(|turn| turn.requests)),
            thousands(best),
            format!("{:.1}", middle(|turn| turn.cpu)),
            format!("{least:.1}"),
        ];
        for against in compared {
            cells.extend(match counterpart(rows, turns, row, *against) {
                Some(other) => {
                    let (requests, cpu) = compare(own, other);
                    [format!("{requests:.2}"), format!("{cpu:.2}")]
                }
                None => [String::new(), String::new()],
            });
        }
        cells.push(format!("{:.2}", middle(|turn| turn.latency_p50.as_secs_f64() * 1e3)));
        cells.push(format!("{:.2}", middle(|turn| turn.latency_p99.as_secs_f64() * 1e3)));
        cells.push(format!("{:.0}", middle(|turn| turn.memory.resident as f64 / f64::from(1 << 20))));
        table.row(cells);
    }
    table
}

/// What was to be reached, beside what was.
fn goals(rows: &[Row<'_>], turns: &[Vec<Turn>], compared: &[Against]) -> String {
    let mut text = String::from("\n");
    for (row, own) in rows.iter().zip(turns) {
        for against in compared {
            let goal = row.goal(*against);
            let other = counterpart(rows, turns, row, *against);
            let (Some(goal), Some(other)) = (goal, other) else { continue };
            let (requests, cpu) = compare(own, other);
            // By requests per second alone, wrk's own limit or a busy core would pass for a quick server.
            let verdict = if requests.min(cpu) >= goal { "reached" } else { "missed" };
            let _ = writeln!(
                text,
                "- {}: {goal:.2} {} {verdict}: {requests:.2} by requests per second, {cpu:.2} by CPU",
                row.name,
                against.name(),
            );
        }
    }
    text
}

/// 12345.6 → "12,346"
fn thousands(figure: f64) -> String {
    let digits = format!("{figure:.0}");
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_figures_are_grouped() {
        assert_eq!(thousands(999.4), "999");
        assert_eq!(thousands(1_234_567.0), "1,234,567");
    }
}
