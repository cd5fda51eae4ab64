//! The micro benchmark: one call taken apart into its steps, in a loop, without a server.
//! Usage: `micro CALLS FILE…`; prints a table, in microseconds.

use std::time::Duration;

use anyhow::{Context, Result};
use wasgi_host::config::{Config, Passes};
use wasgi_host::deploy;
use wasgi_host::guest::probe::{Probe, Steps};
use wasgi_host::sandbox::Variant;

#[path = "../table.rs"]
mod table;

use table::{Table, median};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const ROUNDS: usize = 21;

const WAYS: [(Variant, Passes, &str); 3] = [
    (Variant::Own, Passes::All, "memories of our own"),
    (Variant::Sync, Passes::All, "wasmtime's pool"),
    (Variant::Sync, Passes::Needed, "the same without passes"),
];

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let calls = arguments.next().context("usage: micro CALLS FILE…")?.parse()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut table = Table::new(&["", "environ", "store", "instantiate", "call", "drop", "total", "median"]);
    for file in arguments {
        let wasm = std::fs::read(&file).with_context(|| format!("cannot read {file}"))?;
        let name = file.rsplit('/').next().unwrap_or(&file);
        for (variant, passes, with) in WAYS {
            let prepared = deploy::prepare(&wasm, variant, passes)?;
            let probe = Probe::load(&Config::default(), variant, &prepared);
            let probe = probe.with_context(|| format!("cannot load {file}"))?;
            for together in [1, 24] {
                let measured = runtime.block_on(measure(&probe, calls, together))?;
                table.row(row(&format!("{name}, {with}, {together} together"), &measured));
            }
        }
    }
    print!("{table}");
    Ok(())
}

/// The mean of each step, for each round, in microseconds.
async fn measure(probe: &Probe, calls: usize, together: usize) -> Result<Vec<[f64; 5]>> {
    let mut rounds = Vec::new();
    // The first round warms up.
    for _ in 0..=ROUNDS {
        let mut sums = [Duration::ZERO; 5];
        for _ in 0..calls.div_ceil(together) {
            let Steps { environ, store, instantiate, call, drop } = probe.calls(together).await?;
            for (sum, step) in sums.iter_mut().zip([environ, store, instantiate, call, drop]) {
                *sum += step;
            }
        }
        let calls = calls.div_ceil(together) * together;
        rounds.push(sums.map(|sum| sum.as_secs_f64() * 1e6 / calls as f64));
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
