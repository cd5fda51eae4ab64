//! The operator's numbers as attacks see them: which of them protect anybody, how an attack is made shorter by them, and which of two
//! protections comes first.

use std::time::Duration;

use super::attack::{Cause, Unstopped};
use super::stand::PATIENCE;
use crate::config::{Config, Instances};

/// A limit above this protects nobody from an attack that computes.
pub(super) const PROTECTS_UP_TO: Duration = Duration::from_secs(60);

/// Waiting costs little: it takes a call's place, and a limit above this gives it back too late.
const WAITING_PROTECTS_UP_TO: Duration = Duration::from_secs(3600);

/// A compiler that may have more takes the machine's memory.
const COMPILER_PROTECTS_UP_TO: u64 = 16 << 30;

/// What a guest hands over at once without anybody minding.
pub(super) const HOST_CALL_PROTECTS_UP_TO: u64 = 64 << 20;

pub(super) const ONE_SECOND: Duration = Duration::from_secs(1);

/// How long an attack is looked at that no limit ends in time: long enough to see that it goes on.
pub(super) const BRIEFLY: Duration = Duration::from_secs(2);

/// Compilers are given up sooner than an operator's limits may say.
const COMPILE_TIME: Duration = Duration::from_secs(2);
const COMPILE_MEMORY: u64 = 320 << 20;

/// Limits that an attacker has in its sidecar. They shorten what the operator's would end as well; where the operator's protect nobody,
/// they are left out, and the attack shows it.
pub(super) struct Shorter {
    /// Lines of `[limits]`.
    pub(super) lines: String,
    /// How long its answer is waited for.
    pub(super) patience: Duration,
}

impl Default for Shorter {
    fn default() -> Self {
        Self { lines: String::new(), patience: PATIENCE }
    }
}

/// A clock that ends an attack.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Clock {
    Cpu,
    Wall,
    FirstByte,
    Idle,
    Compile,
}

pub(super) fn shorter(config: &Config, clock: Clock) -> Shorter {
    let limits = &config.limits;
    let (key, operators, wanted, protects_up_to) = match clock {
        Clock::Cpu => ("cpu_time", limits.cpu_time, cpu_time(config), PROTECTS_UP_TO),
        Clock::Wall => ("wall_time", limits.wall_time, ONE_SECOND, WAITING_PROTECTS_UP_TO),
        Clock::FirstByte => ("first_byte_time", limits.first_byte_time, ONE_SECOND, WAITING_PROTECTS_UP_TO),
        Clock::Idle => ("idle_time", limits.idle_time, ONE_SECOND, WAITING_PROTECTS_UP_TO),
        Clock::Compile => ("compile_time", limits.compile_time, COMPILE_TIME, PROTECTS_UP_TO),
    };
    if operators > protects_up_to {
        return Shorter { lines: String::new(), patience: BRIEFLY };
    }
    let line = format!("{key} = \"{}\"\n", humantime::format_duration(operators.min(wanted)));
    Shorter { lines: line, ..Shorter::default() }
}

/// The least that the operator allows a compiler to have in an attack on its memory.
pub(super) fn shorter_of_compile_memory(config: &Config) -> Shorter {
    match config.limits.compile_memory_bytes {
        operators if operators > COMPILER_PROTECTS_UP_TO => Shorter::default(),
        operators => {
            Shorter { lines: format!("compile_memory = {}\n", operators.min(COMPILE_MEMORY)), ..Shorter::default() }
        }
    }
}

/// Processor time for an attack: so little that no clock ends it before, and that a tenant's budget is not used up by it.
fn cpu_time(config: &Config) -> Duration {
    let wanted = ONE_SECOND.min(nearest_clock(config) / 4).min(config.budget.cpu_time / 2);
    wanted.max(Duration::from_millis(1))
}

/// The clock that ends a call first which says nothing.
fn nearest_clock(config: &Config) -> Duration {
    let limits = &config.limits;
    limits.wall_time.min(limits.first_byte_time).min(limits.idle_time)
}

/// What stops an attack as well as this cause, since by this configuration it may come first.
pub(super) fn instead_of(config: &Config, cause: &str) -> Vec<Cause> {
    let limits = &config.limits;
    let is_hasty = nearest_clock(config) < ONE_SECOND;
    let has_little_time = limits.cpu_time < ONE_SECOND || config.budget.cpu_time < ONE_SECOND;
    let mut causes = Vec::new();
    match cause {
        "cpu" => causes.extend(is_hasty.then_some((504, "wall"))),
        "memory" | "host_call" | "response_head" | "handles" => {
            causes.extend(has_little_time.then_some((504, "cpu")));
            causes.extend(is_hasty.then_some((504, "wall")));
        }
        _ => {}
    }
    if cause == "memory" && memory_of_tenant(config) < limits.memory_bytes {
        causes.push((503, "busy"));
    }
    if cause == "response_head" && limits.host_call_bytes < 2 << 20 {
        causes.push((502, "host_call"));
    }
    causes
}

/// What a tenant alone may have of memory: four fifths of the host's, if its budget is not less.
fn memory_of_tenant(config: &Config) -> u64 {
    config.budget.memory_bytes.min(config.sandbox_memory_bytes / 5 * 4)
}

/// What one guest may have of it.
pub(super) fn memory_of_guest(config: &Config) -> u64 {
    config.limits.memory_bytes.min(memory_of_tenant(config))
}

/// Calls of one tenant at once, as many as are wanted and it may have.
pub(super) fn calls_at_once(config: &Config, wanted: usize) -> usize {
    let calls = config.limits.concurrent_calls.min(config.budget.concurrent_calls).min(config.sandboxes / 2).max(1);
    wanted.min(calls as usize)
}

/// Connections of one client, as many as are wanted and it may have beside others.
pub(super) fn connections_at_once(config: &Config, wanted: usize) -> usize {
    let connections = config.edge.connections_per_address.min(config.edge.connections / 2);
    wanted.min((connections / 2).max(1) as usize)
}

/// Calls of an app that are to take place, if a tenant may have so many soon.
pub(super) fn many_calls(config: &Config) -> Result<(), Unstopped> {
    match config.budget.calls_per_second {
        rate if rate < 100 => {
            Err(Unstopped::NotTried(format!("budget.call_rate = {rate} lets no app be asked so often")))
        }
        _ => Ok(()),
    }
}

/// Whether an app that is asked in turns for a fault and for an answer is asked on.
pub(super) fn faults_between_answers(config: &Config) -> Result<(), Unstopped> {
    match config.budget.faults {
        1 => Err(Unstopped::NotTried("budget.faults = 1 leaves an app alone after each fault".into())),
        _ => many_calls(config),
    }
}

/// Whether calls of one app are kept from each other: it is what the operator chose.
pub(super) fn calls_are_apart(config: &Config) -> Result<(), Unstopped> {
    match config.instances {
        Instances::Reuse(_) => {
            Err(Unstopped::NotTried("instances = \"reuse\" lets an app's calls meet each other".into()))
        }
        _ => Ok(()),
    }
}
