//! `wasgi selftest`: the operator's own configuration, attacked. Each attack is run against a host of this very binary; a
//! neighbour that behaves is asked all the while.
//!
//! An attack that is not stopped by what is said to stop it got through, and so did one that leaves the neighbour unanswered
//! or the host dead.

mod attack;
mod attacks;
mod guests;
mod launch;
mod neighbour;
mod stand;
mod terms;
mod watch;
mod wire;

use std::time::{Duration, Instant};

use anyhow::{Context, bail};

use crate::config::Config;
use attack::{App, Attack, By, Group, Outcome, Unstopped};
use guests::Source;
use neighbour::{Fared, Neighbour};
use stand::{Judged, NEIGHBOUR, Stand};

/// What is run, and where from.
pub struct Plan<'a> {
    /// The names of attacks, or of groups; all where there are none.
    pub only: &'a [String],
    pub config: Config,
}

/// How it went.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tally {
    pub stopped: usize,
    pub through: usize,
    /// This configuration has nothing that they could try. Nobody knows what would have come of them.
    pub not_tried: usize,
}

/// Every attack, by group: names and what they try.
pub fn list(config: &Config) -> String {
    let mut text = String::new();
    for Group { title, attacks } in attacks::all(config) {
        text.push_str(&format!("{title}\n"));
        for Attack { name, tries, .. } in attacks {
            text.push_str(&format!("  {name:<26} {tries}\n"));
        }
    }
    text
}

/// The program of an attack under this configuration, to be read.
pub fn source(name: &str, config: &Config) -> Option<String> {
    let attack = attacks::all(config).into_iter().flat_map(|group| group.attacks).find(|attack| attack.name == name)?;
    Some(match attack.by {
        By::App(App { source: Source::Bytes(_), .. }) => "(bytes that are made when they are needed)\n".into(),
        By::App(App { source, .. }) => format!("{}\n", source.text().trim()),
        By::Hand(_) => "(a client, or whoever writes files)\n".into(),
        By::Nobody(reason) => format!("(not tried: {reason})\n"),
    })
}

/// Runs the attacks, and reports each as it ends.
///
/// # Errors
/// Where the host does not come up, or no attack has such a name.
pub fn run(plan: Plan<'_>, report: &mut dyn FnMut(&str)) -> anyhow::Result<Tally> {
    let Plan { only, config } = plan;
    let chosen = chosen(only, &config)?;
    for difference in stand::differences(&config) {
        report(&format!("attacked with {difference}\n"));
    }
    let travellers = travellers(&chosen);
    let mut stand = Stand::start(config, &travellers)?;
    let wasm = Source::call("").assemble().context("the neighbour")?;
    if let Ok(Judged::Refused(reason)) | Err(reason) = stand.deploy(NEIGHBOUR, &wasm, "") {
        bail!("a harmless app is not served under this configuration: {reason}");
    }
    let neighbour = Neighbour::visited(stand.address, NEIGHBOUR);
    std::thread::sleep(Duration::from_secs(1));
    let alone = neighbour.fared();
    if let Some(wrong) = alone.wrong {
        bail!("a harmless app is not served under this configuration: {wrong}");
    }
    let before = stand.resident_bytes();
    report(&format!("neighbour, undisturbed: {}\n", latency(&alone)));
    let (mut tally, mut most) = (Tally::default(), before);
    for Group { title, attacks } in chosen {
        report(&format!("\n{title}\n"));
        for attack in attacks {
            stand.forget_most();
            let begin = Instant::now();
            let outcome = launch::launch(&attack, &mut stand);
            let took = begin.elapsed();
            let fared = neighbour.fared();
            most = most.max(stand.most_resident_bytes());
            let outcome = judged(outcome, &fared);
            report(&line(&attack, &outcome, took, &fared));
            match outcome {
                Ok(_) => tally.stopped += 1,
                Err(Unstopped::Through(_)) => tally.through += 1,
                Err(Unstopped::NotTried(_)) => tally.not_tried += 1,
            }
            if !stand.is_up() {
                bail!("the host died of {}", attack.name);
            }
            if fared.wrong.is_some() {
                recovers(&neighbour);
            }
        }
    }
    report(&format!("\nthe host's memory: {} MiB before, {} MiB at most\n", before >> 20, most >> 20));
    Ok(tally)
}

/// What happened to the neighbour is the attack's doing, also of one that was stopped.
fn judged(outcome: Outcome, fared: &Fared) -> Outcome {
    match (outcome, &fared.wrong) {
        (Err(Unstopped::Through(what)), Some(wrong)) => Err(Unstopped::Through(format!("{what}; {wrong}"))),
        (_, Some(wrong)) => Err(wrong.clone().into()),
        (outcome, None) => outcome,
    }
}

fn line(attack: &Attack, outcome: &Outcome, took: Duration, fared: &Fared) -> String {
    let (verdict, what) = match outcome {
        Ok(by) => ("stopped", by),
        Err(Unstopped::Through(what)) => ("GOT THROUGH", what),
        Err(Unstopped::NotTried(why)) => ("not tried", why),
    };
    let Attack { name, tries, .. } = attack;
    format!("  {verdict:<12} {name:<26} {tries} — {what}, {took:.2?}; neighbour: {}\n", latency(fared))
}

/// Waits for a while until the neighbour is served again, so that the next attacker is not charged for it.
fn recovers(neighbour: &Neighbour) {
    for _ in 0..5 {
        std::thread::sleep(Duration::from_secs(1));
        if neighbour.fared().wrong.is_none() {
            return;
        }
    }
}

fn latency(fared: &Fared) -> String {
    format!("median {:.1?}, worst {:.1?}", fared.median, fared.worst)
}

fn chosen(only: &[String], config: &Config) -> anyhow::Result<Vec<Group>> {
    let mut groups = attacks::all(config);
    let known = |groups: &[Group], name: &String| {
        groups.iter().any(|group| group.title == *name || group.attacks.iter().any(|attack| attack.name == *name))
    };
    if let Some(unknown) = only.iter().find(|name| !known(&groups, name)) {
        bail!("there is no attack {unknown:?}: `wasgi selftest --list` shows all of them");
    }
    if !only.is_empty() {
        for group in &mut groups {
            group.attacks.retain(|attack| only.iter().any(|name| *name == group.title || *name == attack.name));
        }
        groups.retain(|group| !group.attacks.is_empty());
    }
    Ok(groups)
}

/// The attacks that ask to go elsewhere, with where they ask to go.
fn travellers(groups: &[Group]) -> Vec<(&'static str, &'static [&'static str])> {
    let attacks = groups.iter().flat_map(|group| &group.attacks);
    let asking = attacks.filter_map(|attack| match &attack.by {
        By::App(App { asks, .. }) if !asks.is_empty() => Some((attack.name, *asks)),
        _ => None,
    });
    asking.collect()
}
