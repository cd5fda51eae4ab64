//! The micro benchmark: one call taken apart into its steps, in a loop, without a server.
//! Usage: `micro CALLS FILE…`; prints a table, in microseconds.

use std::time::Duration;

use anyhow::{Context, Result};
use wasgi_host::config::{Config, Passes};
use wasgi_host::deploy;
use wasgi_host::guest::probe::{Probe, Steps};

#[path = "../table.rs"]
mod table;

use table::{Table, median};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const ROUNDS: usize = 21;

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let calls = arguments.next().context("usage: micro CALLS FILE…")?.parse()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut table = Table::new(&["", "environ", "store", "instantiate", "call", "drop", "total", "median"]);
    for file in arguments {
        let wasm = std::fs::read(&file).with_context(|| format!("cannot read {file}"))?;
        let name = file.rsplit('/').next().unwrap_or(&file);
        let prepared = deploy::prepare(&wasm, Passes::All)?;
        let probe = Probe::load(&Config::default(), &prepared.component);
        let probe = probe.with_context(|| format!("cannot load {file}"))?;
        table.row(row(name, &runtime.block_on(measure(&probe, calls))?));
        if prepared.reports.iter().any(|report| report.outcome.is_ok()) {
            let needed = deploy::prepare(&wasm, Passes::Needed)?;
            let probe = Probe::load(&Config::default(), &needed.component)?;
            table.row(row(&format!("{name}, without passes"), &runtime.block_on(measure(&probe, calls))?));
        }
    }
    print!("{table}");
    Ok(())
}

/// The mean of each step, for each round, in microseconds.
async fn measure(probe: &Probe, calls: u32) -> Result<Vec<[f64; 5]>> {
    let mut rounds = Vec::new();
    // The first round warms up.
    for _ in 0..=ROUNDS {
        let mut sums = [Duration::ZERO; 5];
        for _ in 0..calls {
            let Steps { environ, store, instantiate, call, drop } = probe.call().await?;
            for (sum, step) in sums.iter_mut().zip([environ, store, instantiate, call, drop]) {
                *sum += step;
            }
        }
        rounds.push(sums.map(|sum| sum.as_secs_f64() * 1e6 / f64::from(calls)));
    }
    rounds.remove(0);
    Ok(rounds)
}

/// The steps of the quickest round, its total, and the median of the totals.
fn row(name: &str, rounds: &[[f64; 5]]) -> Vec<String> {
    let total = |round: &[f64; 5]| round.iter().sum::<f64>();
    let best = rounds.iter().min_by(|one, other| total(one).total_cmp(&total(other))).expect("there are rounds");
    let mut cells = vec![name.to_owned()];
    cells.extend(best.iter().map(|step| format!("{step:.2}")));
    cells.push(format!("{:.2}", total(best)));
    cells.push(format!("{:.2}", median(rounds.iter().map(total))));
    cells
}
