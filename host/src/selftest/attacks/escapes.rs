//! Programs that have a directory, and would leave it: by dots, by links of either kind that they make, and by names that they give to
//! files. What is out there to be found is a file of the stand's, beside the directory.

use std::fs;

use super::kept::answer;
use super::reach::program;
use super::{Attack, Outcome, no_attack};
use crate::selftest::guests::Source;
use crate::selftest::stand::{KEEPER, Stand};

pub(super) fn attacks() -> Vec<Attack> {
    vec![
        Attack::hand("leave-by-dots", "a file beside its directory, by dots in every place of a path", leave_by_dots),
        Attack::hand("leave-by-symlink", "links that it makes to files and folders outside", leave_by_symlink),
        Attack::hand("leave-by-hard-link", "a second name for a file outside, in its directory", leave_by_hard_link),
        Attack::hand(
            "leave-by-rename",
            "its own file under a name outside, and one from outside under its own",
            leave_by_rename,
        ),
    ]
}

/// What lies beside the directories that apps have.
const OUTSIDE: &str = "outside.txt";

/// A CGI program with a directory, descriptor 3, in which it makes the file `inside` first: else it says that there was no try. Paths of
/// `paths` lie at 2048 and every 128 bytes from there; `$opens` tells whether the one of that length can be read.
fn leaving(paths: &[&str], reach: &str) -> Source {
    let imports = r#"(import "wasi_snapshot_preview1" "path_open"
          (func $path_open (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)))
        (import "wasi_snapshot_preview1" "path_symlink" (func $symlink (param i32 i32 i32 i32 i32) (result i32)))
        (import "wasi_snapshot_preview1" "path_link" (func $link (param i32 i32 i32 i32 i32 i32 i32) (result i32)))
        (import "wasi_snapshot_preview1" "path_rename" (func $rename (param i32 i32 i32 i32 i32 i32) (result i32)))"#;
    let mut data = String::from(
        r#"(data (i32.const 1024) "inside") (data (i32.const 1056) "mine")
        (func $opens (param $at i32) (param $length i32) (result i32)
          (i32.eqz (call $path_open (i32.const 3) (i32.const 1) (local.get $at) (local.get $length) (i32.const 0)
            (i64.const 2) (i64.const 0) (i32.const 0) (i32.const 8))))
        (func $makes (result i32)
          (i32.eqz (call $path_open (i32.const 3) (i32.const 0) (i32.const 1024) (i32.const 6) (i32.const 1)
            (i64.const 0x400044) (i64.const 0) (i32.const 0) (i32.const 8))))"#,
    );
    let mut tries = String::new();
    for (index, path) in paths.iter().enumerate() {
        let at = 2048 + 128 * index;
        data.push_str(&format!("(data (i32.const {at}) \"{path}\")\n"));
        let one = reach.replace("PATH", &format!("(i32.const {at}) (i32.const {})", path.len()));
        tries.push_str(&format!("(if {one} (then (local.set $reached (i32.const 1))))\n"));
    }
    Source::Cgi(program(
        imports,
        &data,
        &format!(
            "(local $reached i32)
            (if (i32.eqz (call $makes)) (then (return (i32.const 2))))
            {tries} (local.get $reached)"
        ),
    ))
}

/// Runs it, and looks whether anything outside has changed.
fn leave(stand: &mut Stand, app: &str, source: &Source) -> Outcome {
    let outside = stand.folder().join("data").join(OUTSIDE);
    let folder = stand.folder().join("data").join(format!("{KEEPER}+{app}"));
    fs::create_dir_all(stand.folder().join("data")).map_err(no_attack)?;
    fs::write(&outside, "nobody's").map_err(no_attack)?;
    let outcome = answer(stand, app, source, "data = true", "it stays where it is", &[]);
    let is_there = fs::read_to_string(&outside).is_ok_and(|text| text == "nobody's");
    let came_out = ["inside", "mine"].map(|name| stand.folder().join("data").join(name).exists());
    let _ = fs::remove_file(outside);
    let _ = fs::remove_dir_all(folder);
    match outcome {
        _ if !is_there => Err("it has taken or changed a file outside".into()),
        _ if came_out.contains(&true) => Err("a file of its directory is outside".into()),
        outcome => outcome,
    }
}

/// Ways to the file outside, and to one that every machine has.
const WAYS: [&str; 6] = [
    "../outside.txt",
    "./../outside.txt",
    "inside/../../outside.txt",
    "x/../../outside.txt",
    "../../../../../../../../../../etc/passwd",
    "/etc/passwd",
];

fn leave_by_dots(stand: &mut Stand) -> Outcome {
    leave(stand, "leave-by-dots", &leaving(&WAYS, "(call $opens PATH)"))
}

/// Whether the link can be made is the host's business; what counts is where it leads.
fn leave_by_symlink(stand: &mut Stand) -> Outcome {
    let reach = "(block (result i32)
        (drop (call $symlink PATH (i32.const 3) (i32.const 1056) (i32.const 4)))
        (call $opens (i32.const 1056) (i32.const 4)))";
    leave(stand, "leave-by-symlink", &leaving(&WAYS, reach))
}

fn leave_by_hard_link(stand: &mut Stand) -> Outcome {
    let reach = "(i32.eqz (call $link (i32.const 3) (i32.const 0) PATH (i32.const 3) (i32.const 1056) (i32.const 4)))";
    leave(stand, "leave-by-hard-link", &leaving(&WAYS, reach))
}

fn leave_by_rename(stand: &mut Stand) -> Outcome {
    let out = "(i32.or
        (i32.eqz (call $rename (i32.const 3) (i32.const 1024) (i32.const 6) (i32.const 3) PATH))
        (i32.eqz (call $rename (i32.const 3) PATH (i32.const 3) (i32.const 1056) (i32.const 4))))";
    // Not a file of the machine's: it would be gone where this command is root's.
    leave(stand, "leave-by-rename", &leaving(&["../outside.txt", "./../mine", "inside/../../mine"], out))
}
