//! Every number that a guest or a client can exhaust. It does not read settings (`config` does) and enforces nothing:
//! each field's comment names the module that does.

use std::time::Duration;

/// The limits of one app. The operator's are the ceiling and the default; an app's sidecar may only lower them (and raise
/// `clock_resolution`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// All linear memories of a sandbox together, in bytes, and its tables at 8 bytes an element (`sandbox`).
    pub memory_bytes: u64,
    /// Elements in all tables of a sandbox together (`sandbox`).
    pub table_elements: u64,
    /// Guest code running, per call; waiting is not charged (`sandbox`).
    pub cpu_time: Duration,
    /// From admission to the end of the body, per call (`sandbox`).
    pub wall_time: Duration,
    /// From admission to the response head (`sandbox`).
    pub first_byte_time: Duration,
    /// Between two blocks of a response body that the client is waiting for, and between two pieces of a request
    /// body that the guest is waiting for (`sandbox`, `body`).
    pub idle_time: Duration,
    /// Calls of the app at the same time (`admission`).
    pub concurrent_calls: u32,
    /// Requests that wait for one of them to end (`admission`).
    pub queued_calls: u32,
    /// How long they wait (`admission`).
    pub queue_time: Duration,
    /// Request body, in bytes (`body`).
    pub request_body_bytes: u64,
    /// Response header fields (`guest`).
    pub response_headers: u32,
    /// Names and values of the response header fields together, in bytes (`guest`).
    pub response_header_bytes: u64,
    /// What a guest may hand to the host in one call, or take from it: blocks, log text, lists; in bytes (`sandbox`).
    pub host_call_bytes: u64,
    /// Host resources that a sandbox holds open at once: handles (`sandbox`).
    pub handles: u32,
    /// A longer line of an app's log is cut, in bytes (`telemetry`).
    pub log_line_bytes: u64,
    /// What an app may log per second; the rest is dropped and counted (`telemetry`).
    pub log_bytes_per_second: u64,
    /// The `.wasm` file, in bytes (`deploy`).
    pub module_bytes: u64,
    /// Compiling it: wall time and CPU time of the compiler's process (`deploy`).
    pub compile_time: Duration,
    /// Address space of the compiler's process, in bytes (`deploy`).
    pub compile_memory_bytes: u64,
    /// The files that the `.wasm` carries, as an uncompressed archive, in bytes (`bundle`).
    pub bundle_bytes: u64,
    /// Files and folders in it (`bundle`).
    pub bundle_files: u32,
    /// Static files on their way to clients at the same time; more wait in a queue as calls do (`assets`).
    pub concurrent_assets: u32,
    /// Connections to elsewhere at the same time, of all calls of the app together (`outbound`).
    pub outbound_connections: u32,
    /// From a name to a connection with it, and with TLS the handshake (`outbound`).
    pub outbound_connect_time: Duration,
    /// The whole of an outgoing request with its response, or of a connection (`outbound`).
    pub outbound_time: Duration,
    /// What the guest sends elsewhere during one call, in bytes (`outbound`).
    pub outbound_sent_bytes: u64,
    /// What the guest gets from elsewhere during one call, in bytes (`outbound`).
    pub outbound_received_bytes: u64,
    /// What the app's data takes on the disk, in bytes, in whole blocks (`data`).
    pub data_bytes: u64,
    /// Files, folders and links in it (`data`).
    pub data_files: u64,
    /// What a key-value store holds that the app writes to, in bytes (`keyvalue`).
    pub keyvalue_bytes: u64,
    /// Keys in such a store (`keyvalue`).
    pub keyvalue_keys: u64,
    /// A key, in bytes (`keyvalue`).
    pub keyvalue_key_bytes: u64,
    /// A value, in bytes (`keyvalue`).
    pub keyvalue_value_bytes: u64,
    /// What tells moments apart by any of its clocks: an app may have coarser ones (`guest::clocks`).
    pub clock_resolution: Duration,
}

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;

impl Default for Limits {
    fn default() -> Self {
        Self {
            memory_bytes: 128 * MIB,
            table_elements: 100_000,
            cpu_time: Duration::from_secs(5),
            wall_time: Duration::from_secs(600),
            first_byte_time: Duration::from_secs(30),
            idle_time: Duration::from_secs(60),
            concurrent_calls: 64,
            queued_calls: 256,
            queue_time: Duration::from_secs(5),
            request_body_bytes: 16 * MIB,
            response_headers: 100,
            response_header_bytes: 32 * KIB,
            host_call_bytes: 16 * MIB,
            handles: 256,
            log_line_bytes: 8 * KIB,
            log_bytes_per_second: 64 * KIB,
            module_bytes: 64 * MIB,
            compile_time: Duration::from_secs(60),
            compile_memory_bytes: 4096 * MIB,
            bundle_bytes: 256 * MIB,
            bundle_files: 20_000,
            concurrent_assets: 256,
            outbound_connections: 32,
            outbound_connect_time: Duration::from_secs(10),
            outbound_time: Duration::from_secs(120),
            outbound_sent_bytes: 16 * MIB,
            outbound_received_bytes: 64 * MIB,
            data_bytes: 1024 * MIB,
            data_files: 100_000,
            keyvalue_bytes: 64 * MIB,
            keyvalue_keys: 100_000,
            keyvalue_key_bytes: KIB,
            keyvalue_value_bytes: MIB,
            clock_resolution: Duration::from_nanos(1),
        }
    }
}

/// What one tenant may use, of all its apps together. Only the operator says it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Budget {
    /// Calls at the same time (`admission`).
    pub concurrent_calls: u32,
    /// Requests that wait for one of them to end, or for another budget (`admission`).
    pub queued_calls: u32,
    /// Calls that begin in a second; as many may come together (`admission`).
    pub calls_per_second: u32,
    /// Its share of what tenants compete for: places for calls, and processor time of guests that compute for long. Twice the
    /// weight, twice as much (`admission`, `sandbox`).
    pub weight: u32,
    /// Linear memories and tables of live sandboxes, in bytes; never more than its part of the host's `sandbox_memory`
    /// (`sandbox`).
    pub memory_bytes: u64,
    /// Guest code running, in each `cpu_window` (`admission`, `sandbox`).
    pub cpu_time: Duration,
    pub cpu_window: Duration,
    /// What its apps keep, data and key-value stores together, in bytes (`data`, `keyvalue`).
    pub disk_bytes: u64,
    /// Files, folders and links among their data (`data`).
    pub disk_names: u64,
    /// What is open for its guests: files and folders, sockets, connections to elsewhere, spooled bodies, static files on their way;
    /// never more than its part of what the process may have (`guest`, `outbound`, `body`, `assets`, `deploy`).
    pub descriptors: u64,
    /// What its apps may log per second; the rest is dropped and counted (`telemetry`).
    pub log_bytes_per_second: u64,
    /// Connections to elsewhere at the same time (`outbound`).
    pub outbound_connections: u32,
    /// What its apps send elsewhere and get from there in a second, together (`outbound`).
    pub outbound_bytes_per_second: u64,
    /// Calls of an app that may fail one after the other before it is left alone for a while (`admission`).
    pub faults: u32,
    /// For how long at most (`admission`).
    pub fault_pause: Duration,
}

impl Default for Budget {
    fn default() -> Self {
        Self {
            concurrent_calls: 1000,
            queued_calls: 4096,
            calls_per_second: 1_000_000,
            weight: 1,
            memory_bytes: 64 * 1024 * MIB,
            // More than any machine has: tenants share what there is by their weights, and one that is alone has all of it.
            cpu_time: Duration::from_secs(3600),
            cpu_window: Duration::from_secs(10),
            disk_bytes: 1024 * 1024 * MIB,
            disk_names: 10_000_000,
            descriptors: 16_384,
            log_bytes_per_second: MIB,
            outbound_connections: 256,
            outbound_bytes_per_second: 64 * MIB,
            faults: 20,
            fault_pause: Duration::from_secs(60),
        }
    }
}

/// The limits of connections and request heads, before it is known which app a request is for (`server`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EdgeLimits {
    /// Open client connections; further ones wait in the kernel's backlog.
    pub connections: u32,
    /// Those of one client's address, if it is no proxy that is trusted; never more than half of all. Further ones are closed at once.
    pub connections_per_address: u32,
    /// The request target, in bytes: more is a 414.
    pub request_target_bytes: u64,
    /// Requests of a connection at the same time, with HTTP/2.
    pub streams: u32,
    /// Header fields of a request: more is a 431.
    pub request_headers: u32,
    /// The whole request head, in bytes: more is a 431. Never below 8 KiB.
    pub request_head_bytes: u64,
    /// From the first byte of a request head to its last; also how long an idle connection is kept.
    pub header_time: Duration,
    /// A client that takes nothing for this long is cut off.
    pub client_idle_time: Duration,
    /// A client that has stopped sending, and may be gone, is given up after this long in which nothing of its response was
    /// sent.
    pub half_closed_time: Duration,
    /// From the signal to stop until calls still running are cut off.
    pub drain_time: Duration,
}

impl Default for EdgeLimits {
    fn default() -> Self {
        Self {
            connections: 10_000,
            connections_per_address: 2000,
            streams: 100,
            request_target_bytes: 8 * KIB,
            request_headers: 100,
            request_head_bytes: 64 * KIB,
            header_time: Duration::from_secs(15),
            client_idle_time: Duration::from_secs(60),
            half_closed_time: Duration::from_secs(5),
            drain_time: Duration::from_secs(30),
        }
    }
}
