//! What apps keep: data beyond its quota, by every way that takes room, and key-value stores, another's or too much of one's own.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::reach::program;
use super::tenants::{Line, all_refused};
use super::{Attack, Cause, NOTHING, Outcome, no_attack};
use crate::selftest::guests::{Source, part};
use crate::selftest::launch;
use crate::selftest::stand::{KEEPER, Stand};
use crate::selftest::terms;

pub(super) fn attacks() -> Vec<Attack> {
    vec![
        Attack::hand("fill-the-disk", "bytes, written to a file of its data without end", fill_the_disk),
        Attack::hand("sparse-file", "a file of a terabyte that is one hole", sparse_file),
        Attack::hand("many-files", "thousands of files with nothing in them", many_files),
        Attack::hand("nameless-file", "a file that is removed, and written to without end", nameless_file),
        Attack::hand("ask-for-anothers-store", "a sidecar that asks for another tenant's store", ask_for_its_store),
        Attack::hand("open-anothers-store", "names that could lead to another's store", open_its_store),
        Attack::hand("fill-the-store", "values, set without end", fill_the_store),
        Attack::hand("large-values", "a value that is larger than allowed", large_values),
        Attack::hand("many-buckets", "handles of a store without end", many_buckets),
    ]
}

/// What one of its apps may keep, where the operator's quota protects: enough to see it stop, and soon there.
const BYTES_MAX: u64 = 1 << 20;
const NAMES_MAX: u64 = 100;

/// More files than anybody wants to have in one folder, where the file system does not say how many it can have.
const NAMES_ROOM: u64 = 10_000_000;

/// Limits in a sidecar. They shorten what the operator's would end as well; where the operator's protect nobody, since the disk would be
/// full before, they are left out, and the attack shows it.
fn sidecar(stand: &Stand, asks: &str) -> String {
    let (limits, budget) = (&stand.config.limits, &stand.config.budget);
    let (bytes_room, names_room) = room(&stand.config.data_dir);
    let (data, names) = (limits.data_bytes.min(budget.disk_bytes), limits.data_files.min(budget.disk_names));
    let store = limits.keyvalue_bytes.min(budget.disk_bytes);
    let quotas = [
        ("data_size", data, data <= bytes_room, BYTES_MAX),
        ("data_files", names, names <= names_room, NAMES_MAX),
        ("keyvalue_size", store, store <= bytes_room, BYTES_MAX),
        // Keys take room of the same disk.
        ("keyvalue_keys", limits.keyvalue_keys, store <= bytes_room, NAMES_MAX),
    ];
    let protects = quotas.iter().filter(|(_, _, protects, _)| *protects);
    let lines = protects.map(|(key, operators, _, wanted)| format!("{key} = {}\n", operators.min(wanted)));
    format!("{asks}\n[limits]\n{}", lines.collect::<String>())
}

/// Bytes and names for which there is room where the operator keeps data, or will once there is some.
fn room(data_dir: &Path) -> (u64, u64) {
    let data_dir = std::path::absolute(data_dir).unwrap_or_else(|_| data_dir.to_owned());
    let found = data_dir.ancestors().find_map(|folder| rustix::fs::statvfs(folder).ok());
    let Some(found) = found else { return (u64::MAX, NAMES_ROOM) };
    let names = if found.f_files == 0 { NAMES_ROOM } else { found.f_favail };
    (found.f_bavail.saturating_mul(found.f_frsize), names)
}

/// Deploys a program, and has it answer: "nothing" where it was stopped, or a failure that is named here. Each has an app of its own: the
/// directory of an earlier one is gone.
pub(super) fn answer(
    stand: &mut Stand,
    app: &str,
    source: &Source,
    sidecar: &str,
    what: &str,
    causes: &'static [Cause],
) -> Outcome {
    let name = format!("{KEEPER}/{app}");
    stand.serve(&name, source, sidecar)?;
    let asked = stand.ask(&name);
    stand.remove(&name);
    let (reply, cause) = asked?;
    match (reply.status, reply.text().as_str()) {
        (200, NOTHING) => Ok(what.to_owned()),
        (200, "no try") => Err(no_attack("what it begins with was refused")),
        (status, _) if launch::fails(&stand.config, causes, (status, &cause)) => Ok(format!("{status} {cause}")),
        (status, text) => Err(format!("it was not stopped: {status} {text:?}, cause {cause:?}").into()),
    }
}

/// A program with data, and what lies there when it is done: something, and no more than it may.
fn keep(stand: &mut Stand, app: &str, reach: &str, names_min: u64, what: &str) -> Outcome {
    let asks = sidecar(stand, "data = true");
    let outcome = answer(stand, app, &Source::Cgi(keeping(reach)), &asks, what, &[]);
    let folder = stand.folder().join("data").join(format!("{KEEPER}+{app}"));
    let (bytes, names) = taken(&folder);
    let _ = fs::remove_dir_all(&folder);
    if bytes > BYTES_MAX || names > NAMES_MAX {
        return Err(format!("it keeps {bytes} bytes in {names} files").into());
    }
    match outcome {
        Ok(_) if names < names_min => Err(no_attack(format!("it kept {names} files, not even {names_min}"))),
        outcome => outcome.map(|what| format!("{what}, with {bytes} bytes in {names} files")),
    }
}

fn taken(folder: &Path) -> (u64, u64) {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let lengths = entries.filter_map(|entry| entry.metadata().ok()).map(|metadata| metadata.size());
    lengths.fold((0, 0), |(bytes, names), length| (bytes + length, names + 1))
}

/// A CGI program whose `$reach` has functions for its data: it is the only directory that it finds, descriptor 3.
pub(super) fn keeping(reach: &str) -> String {
    let imports = r#"(import "wasi_snapshot_preview1" "path_open"
          (func $path_open (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)))
        (import "wasi_snapshot_preview1" "path_unlink_file" (func $unlink (param i32 i32 i32) (result i32)))
        (import "wasi_snapshot_preview1" "fd_close" (func $close (param i32) (result i32)))
        (import "wasi_snapshot_preview1" "fd_filestat_set_size" (func $set_size (param i32 i64) (result i32)))"#;
    let data = r#"(data (i32.const 1024) "file-00000")
        ;; 64 KiB from where nothing stands.
        (data (i32.const 2048) "\00\00\01\00\00\00\01\00")
        ;; Opens the file of that number, made where it is missing; what it is called at 4096, zero if there is none.
        (func $open (param $number i32) (result i32)
          (local $at i32)
          (local.set $at (i32.const 1033))
          (loop
            (i32.store8 (local.get $at) (i32.add (i32.const 48) (i32.rem_u (local.get $number) (i32.const 10))))
            (local.set $number (i32.div_u (local.get $number) (i32.const 10)))
            (local.set $at (i32.sub (local.get $at) (i32.const 1)))
            (br_if 0 (local.get $number)))
          (if (call $path_open (i32.const 3) (i32.const 0) (i32.const 1024) (i32.const 10) (i32.const 1)
                (i64.const 0x400044) (i64.const 0) (i32.const 0) (i32.const 4096))
            (then (return (i32.const 0))))
          (i32.load (i32.const 4096)))
        ;; Writes 64 KiB; zero if it did.
        (func $write (param $file i32) (result i32)
          (call $fd_write (local.get $file) (i32.const 2048) (i32.const 1) (i32.const 4100)))
        ;; Writes 16 MiB, unless it is stopped: 0 then, or 2 if it did not even begin.
        (func $flood (param $file i32) (result i32) (local $count i32)
          (if (i32.eqz (local.get $file)) (then (return (i32.const 2))))
          (loop
            (if (call $write (local.get $file)) (then (return (select (i32.const 0) (i32.const 2) (local.get $count)))))
            (local.set $count (i32.add (local.get $count) (i32.const 1)))
            (br_if 0 (i32.lt_u (local.get $count) (i32.const 256))))
          (i32.const 1))"#;
    program(imports, data, reach)
}

fn fill_the_disk(stand: &mut Stand) -> Outcome {
    keep(stand, "fill-the-disk", "(call $flood (call $open (i32.const 0)))", 1, "told that the disk is full")
}

fn sparse_file(stand: &mut Stand) -> Outcome {
    let reach = "(local $file i32)
        (local.set $file (call $open (i32.const 0)))
        (if (i32.eqz (local.get $file)) (then (return (i32.const 2))))
        (if (call $set_size (local.get $file) (i64.const 10)) (then (return (i32.const 2))))
        (i32.eqz (call $set_size (local.get $file) (i64.const 0x10000000000)))";
    keep(stand, "sparse-file", reach, 1, "told that the disk is full")
}

fn many_files(stand: &mut Stand) -> Outcome {
    let reach = "(local $count i32) (local $file i32)
        (loop
          (local.set $file (call $open (local.get $count)))
          (if (i32.eqz (local.get $file)) (then (return (i32.const 0))))
          (drop (call $close (local.get $file)))
          (local.set $count (i32.add (local.get $count) (i32.const 1)))
          (br_if 0 (i32.lt_u (local.get $count) (i32.const 5000))))
        (i32.const 1)";
    keep(stand, "many-files", reach, 2, "told that the disk is full")
}

fn nameless_file(stand: &mut Stand) -> Outcome {
    let reach = "(local $file i32)
        (local.set $file (call $open (i32.const 0)))
        (if (call $unlink (i32.const 3) (i32.const 1024) (i32.const 10)) (then (return (i32.const 2))))
        (call $flood (local.get $file))";
    keep(stand, "nameless-file", reach, 0, "told that the disk is full")
}

fn ask_for_its_store(stand: &mut Stand) -> Outcome {
    let lines = ["keyvalue = \"default\"", "keyvalue = [\"sessions\", \"/sessions\"]"];
    all_refused(stand, &lines.map(|line| Line::new(line, "the operator has not granted")))
}

/// A WSGI program that has a store. Each result is laid out at 2048: 0 there means success. `$reach` says 0 where it was stopped, 1 where
/// it was not, and 2 where what it begins with was refused.
fn storing(data: &str, reach: &str) -> Source {
    Source::wsgi(format!(
        r#"(import "wasi:keyvalue/store@0.2.0-draft2" "open" (func $open (param i32 i32 i32)))
        (import "wasi:keyvalue/store@0.2.0-draft2" "[method]bucket.set" (func $set (param i32 i32 i32 i32 i32 i32)))
        ;; IMPORTS END
        (data (i32.const 4096) "default")
        {data}
        {}
        (global $store (mut i32) (i32.const 0))
        ;; Opens the store; zero if it cannot.
        (func $bucket (result i32)
          (call $open (i32.const 4096) (i32.const 7) (i32.const 2048))
          (if (i32.load8_u (i32.const 2048)) (then (return (i32.const 0))))
          (global.set $store (i32.load (i32.const 2052)))
          (i32.const 1))
        ;; Sets a value of eight bytes; zero if it did.
        (func $set-short (result i32)
          (call $set (global.get $store) (i32.const 8192) (i32.const 4) (i32.const 65536) (i32.const 8) (i32.const 2048))
          (i32.load8_u (i32.const 2048)))
        (func $reach (result i32) {reach})
        (func (export "call") (param i32 i32 i32 i32 i32) (result i32) (local $got i32)
          (local.set $got (call $reach))
          (if (i32.eqz (local.get $got)) (then (return (global.get $nothing))))
          (select (global.get $ok) (global.get $no-try) (i32.eq (local.get $got) (i32.const 1))))"#,
        part("no-try", 3072, Some(("200 OK", &[])), "no try", false)
    ))
}

/// A program with a store.
fn store(stand: &mut Stand, app: &str, source: &Source, what: &str, causes: &'static [Cause]) -> Outcome {
    let asks = sidecar(stand, "keyvalue = \"default\"");
    answer(stand, app, source, &asks, what, causes)
}

/// Its own it has, which shows that it asks as one has to.
fn open_its_store(stand: &mut Stand) -> Outcome {
    let names =
        ["selftest-victim/default", "selftest-victim/app/default", "/sessions", "sessions", "../selftest-victim"];
    let (mut data, mut reach) = (String::new(), String::from("(local $reached i32)\n"));
    reach.push_str("(if (i32.eqz (call $bucket)) (then (return (i32.const 2))))\n");
    for (index, name) in names.iter().enumerate() {
        let at = 8192 + 128 * index;
        data.push_str(&format!("(data (i32.const {at}) \"{name}\")\n"));
        reach.push_str(&format!(
            "(call $open (i32.const {at}) (i32.const {}) (i32.const 2048))
             (if (i32.eqz (i32.load8_u (i32.const 2048))) (then (local.set $reached (i32.const 1))))\n",
            name.len()
        ));
    }
    reach.push_str("(local.get $reached)");
    store(stand, "open-anothers-store", &storing(&data, &reach), "told that there is no such store", &[])
}

/// Values of 16 KiB under keys of their own, 256 of them: 4 MiB.
fn fill_the_store(stand: &mut Stand) -> Outcome {
    let reach = "(local $count i32)
        (if (i32.eqz (call $bucket)) (then (return (i32.const 2))))
        (loop
          (i32.store (i32.const 8192) (i32.or (i32.const 0x20202020) (local.get $count)))
          (i32.store8 (i32.const 8192) (i32.add (i32.const 32) (i32.and (local.get $count) (i32.const 63))))
          (i32.store8 (i32.const 8193) (i32.add (i32.const 32) (i32.shr_u (local.get $count) (i32.const 6))))
          (i32.store16 (i32.const 8194) (i32.const 0x2020))
          (call $set (global.get $store) (i32.const 8192) (i32.const 4) (i32.const 16384) (i32.const VALUE) (i32.const 2048))
          (if (i32.load8_u (i32.const 2048)) (then
            (return (select (i32.const 0) (i32.const 2) (local.get $count)))))
          (local.set $count (i32.add (local.get $count) (i32.const 1)))
          (br_if 0 (i32.lt_u (local.get $count) (i32.const COUNT))))
        (i32.const 1)";
    let value = stand.config.limits.keyvalue_value_bytes.min(16384);
    let reach = reach.replace("VALUE", &value.to_string()).replace("COUNT", &(4 * BYTES_MAX / value).to_string());
    store(stand, "fill-the-store", &storing("", &reach), "told that the store has no room", &[])
}

/// A value that is larger than those which are allowed, by a store that takes small ones.
fn large_values(stand: &mut Stand) -> Outcome {
    const BYTES: u64 = 8 << 20;
    let limits = &stand.config.limits;
    let bytes = match limits.keyvalue_value_bytes {
        operators if operators < BYTES => operators + 1,
        _ => BYTES,
    };
    if terms::memory_of_guest(&stand.config) < bytes + (1 << 20) || limits.host_call_bytes < bytes {
        let why = format!("limits.memory or limits.host_call_size is too small for a value of {bytes} bytes");
        return Err(super::Unstopped::NotTried(why));
    }
    let reach = format!(
        "(if (i32.eqz (call $bucket)) (then (return (i32.const 2))))
        (if (i32.or (call $set-short) (i32.eq (memory.grow (i32.const {})) (i32.const -1))) (then (return (i32.const 2))))
        (call $set (global.get $store) (i32.const 8192) (i32.const 4) (i32.const 65536) (i32.const {bytes}) (i32.const 2048))
        (i32.eqz (i32.load8_u (i32.const 2048)))",
        bytes.div_ceil(65536)
    );
    let source = storing("(data (i32.const 8192) \"a-key\")", &reach);
    // Not with a lower quota for the store: that would stop it as well.
    answer(stand, "large-values", &source, "keyvalue = \"default\"", "told that the value is too large", &[])
}

/// More than a limit on handles that protects.
fn many_buckets(stand: &mut Stand) -> Outcome {
    let reach = "(local $count i32)
        (loop
          (if (i32.eqz (call $bucket)) (then (return (select (i32.const 0) (i32.const 2) (local.get $count)))))
          (local.set $count (i32.add (local.get $count) (i32.const 1)))
          (br_if 0 (i32.lt_u (local.get $count) (i32.const 200000))))
        (i32.const 1)";
    let source = storing("", reach);
    store(stand, "many-buckets", &source, "told that it has enough handles", &[(502, "handles")])
}
