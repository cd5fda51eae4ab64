//! The numbers among the settings: one table a section, with each key's unit and useful range. Reading, checking, comparing
//! with the operator's ceiling and printing all go by these tables, so that no key can be forgotten in one of them.

use std::time::Duration;

use bytesize::ByteSize;
use toml::Value;

use super::Config;
use crate::limits::{Budget, EdgeLimits, Limits};

/// One numeric setting of a `T`. Its value passes through a `u64`: bytes, nanoseconds or a count.
pub(super) struct Field<T: 'static> {
    pub(super) key: &'static str,
    unit: Unit,
    min: u64,
    max: u64,
    get: fn(&T) -> u64,
    set: fn(&mut T, u64),
    bound: Bound,
}

/// What the operator's value is for apps.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Bound {
    /// They may have less.
    Most,
    /// They may have more.
    Least,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Unit {
    Bytes,
    Nanoseconds,
    Count,
}

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
const TIB: u64 = 1 << 40;

const MILLISECOND: u64 = 1_000_000;
const SECOND: u64 = 1_000 * MILLISECOND;
const MINUTE: u64 = 60 * SECOND;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;

macro_rules! size {
    ($key:literal, $field:ident, $min:expr, $max:expr) => {
        Field {
            key: $key,
            unit: Unit::Bytes,
            min: $min,
            max: $max,
            get: |of| of.$field,
            set: |of, value| of.$field = value,
            bound: Bound::Most,
        }
    };
}

macro_rules! time {
    ($key:literal, $field:ident, $min:expr, $max:expr) => {
        Field {
            key: $key,
            unit: Unit::Nanoseconds,
            min: $min,
            max: $max,
            // Settings are at most some days, and 2^64 nanoseconds are 584 years.
            get: |of| of.$field.as_nanos() as u64,
            set: |of, value| of.$field = Duration::from_nanos(value),
            bound: Bound::Most,
        }
    };
}

macro_rules! count {
    ($key:literal, $field:ident, $min:expr, $max:expr) => {
        Field {
            key: $key,
            unit: Unit::Count,
            min: $min,
            max: $max,
            get: |of| of.$field as u64,
            // The range was checked before, and every range fits its field's type.
            set: |of, value| of.$field = value as _,
            bound: Bound::Most,
        }
    };
}

/// The top level of `wasgi.toml`.
pub(super) static TOP: &[Field<Config>] = &[
    count!("workers", workers, 1, 1024),
    count!("sandboxes", sandboxes, 1, 100_000),
    size!("sandbox_memory", sandbox_memory_bytes, 16 * MIB, 64 * TIB),
    size!("stack", stack_bytes, 64 * KIB, 16 * MIB),
    time!("app_idle_time", app_idle_time, 100 * MILLISECOND, 7 * DAY),
    time!("rescan_time", rescan_time, 100 * MILLISECOND, HOUR),
    time!("settle_time", settle_time, 0, MINUTE),
    count!("reuse_requests", reuse_requests_max, 1, 1_000_000_000),
    time!("reuse_idle_time", reuse_idle_time, 10 * MILLISECOND, DAY),
    size!("reuse_memory", reuse_memory_bytes, 64 * KIB, 4 * GIB),
    count!("capsules_count", capsules_count, 1, 100_000),
    size!("capsules_size", capsules_bytes, 64 * KIB, TIB),
    size!("capsules_body_size", capsules_body_bytes, 0, 16 * MIB),
    size!("capsules_module_size", capsules_module_bytes, 0, TIB),
];

/// `[limits]`, of the operator and of an app. Zero never means "no limit".
pub(super) static LIMITS: &[Field<Limits>] = &[
    size!("memory", memory_bytes, 64 * KIB, 4 * GIB),
    count!("table_elements", table_elements, 1, 10_000_000),
    time!("cpu_time", cpu_time, MILLISECOND, HOUR),
    time!("wall_time", wall_time, 10 * MILLISECOND, 7 * DAY),
    time!("first_byte_time", first_byte_time, 10 * MILLISECOND, DAY),
    time!("idle_time", idle_time, 10 * MILLISECOND, DAY),
    count!("concurrent_calls", concurrent_calls, 1, 100_000),
    count!("queued_calls", queued_calls, 0, 1_000_000),
    time!("queue_time", queue_time, MILLISECOND, HOUR),
    size!("request_body_size", request_body_bytes, 1, TIB),
    count!("response_headers", response_headers, 1, 10_000),
    size!("response_header_size", response_header_bytes, 256, MIB),
    size!("host_call_size", host_call_bytes, 4 * KIB, GIB),
    count!("handles", handles, 8, 1_000_000),
    size!("log_line_size", log_line_bytes, 64, MIB),
    size!("log_rate", log_bytes_per_second, KIB, GIB),
    size!("module_size", module_bytes, KIB, GIB),
    time!("compile_time", compile_time, 100 * MILLISECOND, HOUR),
    size!("compile_memory", compile_memory_bytes, 64 * MIB, 256 * GIB),
    size!("bundle_size", bundle_bytes, KIB, 64 * GIB),
    count!("bundle_files", bundle_files, 1, 1_000_000),
    count!("concurrent_assets", concurrent_assets, 1, 100_000),
    count!("outbound_connections", outbound_connections, 1, 10_000),
    time!("outbound_connect_time", outbound_connect_time, 10 * MILLISECOND, 10 * MINUTE),
    time!("outbound_time", outbound_time, 10 * MILLISECOND, DAY),
    size!("outbound_sent_size", outbound_sent_bytes, KIB, TIB),
    size!("outbound_received_size", outbound_received_bytes, KIB, TIB),
    size!("data_size", data_bytes, 4 * KIB, 64 * TIB),
    count!("data_files", data_files, 1, 1_000_000_000),
    size!("keyvalue_size", keyvalue_bytes, KIB, TIB),
    count!("keyvalue_keys", keyvalue_keys, 1, 1_000_000_000),
    size!("keyvalue_key_size", keyvalue_key_bytes, 1, 64 * KIB),
    size!("keyvalue_value_size", keyvalue_value_bytes, 1, GIB),
    Field::<Limits>::at_least(time!("clock_resolution", clock_resolution, 1, SECOND)),
];

/// `[budget]`, of each tenant.
pub(super) static BUDGET: &[Field<Budget>] = &[
    count!("concurrent_calls", concurrent_calls, 1, 100_000),
    count!("queued_calls", queued_calls, 0, 1_000_000),
    count!("call_rate", calls_per_second, 1, 10_000_000),
    count!("weight", weight, 1, 1000),
    size!("memory", memory_bytes, 64 * KIB, 64 * TIB),
    time!("cpu_time", cpu_time, MILLISECOND, DAY),
    time!("cpu_window", cpu_window, 100 * MILLISECOND, HOUR),
    size!("disk", disk_bytes, 4 * KIB, 1024 * TIB),
    count!("disk_files", disk_names, 1, 10_000_000_000),
    count!("descriptors", descriptors, 8, 10_000_000),
    size!("log_rate", log_bytes_per_second, KIB, GIB),
    count!("outbound_connections", outbound_connections, 1, 100_000),
    size!("outbound_rate", outbound_bytes_per_second, KIB, TIB),
    count!("faults", faults, 1, 1_000_000),
    time!("fault_pause", fault_pause, SECOND, HOUR),
];

/// `[edge]`.
pub(super) static EDGE: &[Field<EdgeLimits>] = &[
    count!("connections", connections, 1, 1_000_000),
    count!("connections_per_address", connections_per_address, 1, 1_000_000),
    count!("streams", streams, 1, 1000),
    size!("request_target_size", request_target_bytes, 256, MIB),
    count!("request_headers", request_headers, 1, 1000),
    size!("request_head_size", request_head_bytes, 8 * KIB, MIB),
    time!("header_time", header_time, 100 * MILLISECOND, 10 * MINUTE),
    time!("client_idle_time", client_idle_time, 100 * MILLISECOND, DAY),
    time!("half_closed_time", half_closed_time, 0, DAY),
    time!("drain_time", drain_time, 0, HOUR),
];

impl<T> Field<T> {
    /// The same where the operator's value is the least that an app may have.
    const fn at_least(field: Self) -> Self {
        Self { bound: Bound::Least, ..field }
    }

    /// Whether the operator's value is the least that an app may have.
    pub(super) fn is_least(&self) -> bool {
        self.bound == Bound::Least
    }

    /// Sets the field to `value`, or says what would be allowed.
    pub(super) fn assign(&self, of: &mut T, value: &Value) -> Result<(), String> {
        (self.set)(of, self.amount(value)?);
        Ok(())
    }

    /// What `value` says in its unit, if that is allowed.
    pub(super) fn amount(&self, value: &Value) -> Result<u64, String> {
        let amount = self.parse(value)?;
        match (self.min..=self.max).contains(&amount) {
            true => Ok(amount),
            false => Err(format!("{} to {} is allowed", self.text_of(self.min), self.text_of(self.max))),
        }
    }

    /// The field's value as it would be written: `128MiB`, `1m 30s`, `64`.
    pub(super) fn text(&self, of: &T) -> String {
        self.text_of((self.get)(of))
    }

    /// The same as a TOML value.
    pub(super) fn toml(&self, of: &T) -> String {
        match self.unit {
            Unit::Count => self.text(of),
            Unit::Bytes | Unit::Nanoseconds => format!("\"{}\"", self.text(of)),
        }
    }

    /// Whether what the host has laid out at its start depends on it: nobody can have more than that.
    pub(super) fn lays_out_the_pool(&self) -> bool {
        ["memory", "table_elements"].contains(&self.key)
    }

    /// Whether it is what no app may have where the operator has this.
    pub(super) fn exceeds(&self, of: &T, operators: &T) -> bool {
        let (own, operators) = ((self.get)(of), (self.get)(operators));
        match self.bound {
            Bound::Most => own > operators,
            Bound::Least => own < operators,
        }
    }

    /// Brings it to what the operator has, where it is more.
    pub(super) fn keep_within(&self, of: &mut T, operators: &T) {
        if self.exceeds(of, operators) {
            (self.set)(of, (self.get)(operators));
        }
    }

    pub(super) fn differs(&self, of: &T, other: &T) -> bool {
        (self.get)(of) != (self.get)(other)
    }

    fn parse(&self, value: &Value) -> Result<u64, String> {
        let wanted = || match self.unit {
            Unit::Bytes => "a size is wanted, such as \"64KiB\" or \"1.5MiB\"".to_owned(),
            Unit::Nanoseconds => "a time with its unit is wanted, such as \"500ms\", \"5s\" or \"1m 30s\"".to_owned(),
            Unit::Count => "a whole number is wanted".to_owned(),
        };
        match (self.unit, value) {
            (Unit::Bytes | Unit::Count, Value::Integer(number)) => {
                u64::try_from(*number).map_err(|_| "it must not be negative".to_owned())
            }
            (Unit::Count, Value::String(text)) => text.trim().parse().map_err(|_| wanted()),
            (Unit::Bytes, Value::String(text)) => {
                text.trim().parse::<ByteSize>().map(|size| size.as_u64()).map_err(|_| wanted())
            }
            (Unit::Nanoseconds, Value::String(text)) => {
                let time = humantime::parse_duration(text.trim()).map_err(|_| wanted())?;
                Ok(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX))
            }
            _ => Err(wanted()),
        }
    }

    fn text_of(&self, amount: u64) -> String {
        match self.unit {
            Unit::Count => amount.to_string(),
            Unit::Bytes => size_text(amount),
            Unit::Nanoseconds => humantime::format_duration(Duration::from_nanos(amount)).to_string(),
        }
    }
}

/// Exact, unlike the usual display of sizes, which rounds: what is printed can be read back.
pub(super) fn size_text(bytes: u64) -> String {
    let units = [("TiB", TIB), ("GiB", GIB), ("MiB", MIB), ("KiB", KIB)];
    match units.iter().find(|(_, unit)| bytes >= *unit && bytes.is_multiple_of(*unit)) {
        Some((name, unit)) => format!("{}{name}", bytes / unit),
        None => format!("{bytes}B"),
    }
}

/// "memory, table_elements, …": what an unknown key could have been.
pub(super) fn keys<T>(fields: &[Field<T>]) -> String {
    fields.iter().map(|field| field.key).collect::<Vec<_>>().join(", ")
}
