//! What a guest of any kind can do with files, by a word: `read:/static/a.txt`, `write:/data/a:text`.

use std::ffi::{CString, c_char};
use std::fs;
use std::io::{self, Read, Write};
use std::time::{Duration, Instant};

unsafe extern "C" {
    fn symlink(target: *const c_char, path: *const c_char) -> i32;
    fn link(target: *const c_char, path: *const c_char) -> i32;
}

/// Does what the words say, and tells what came of it: `error KIND` where it did not work.
pub fn run(words: &str) -> String {
    let mut parts = words.splitn(4, ':');
    let mut part = || parts.next().unwrap_or_default();
    let (verb, path, argument) = (part(), part(), part());
    let done = || "done".to_owned();
    let outcome = match verb {
        "read" => fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()),
        "list" => list(path),
        "length" => fs::metadata(path).map(|metadata| metadata.len().to_string()),
        "modified" => modified(path),
        "write" => fs::write(path, argument).map(|()| done()),
        "append" => append(path, argument).map(|()| done()),
        "truncate" => fs::OpenOptions::new().write(true).open(path).and_then(|file| file.set_len(0)).map(|()| done()),
        "remove" => fs::remove_file(path).map(|()| done()),
        "rename" => fs::rename(path, argument).map(|()| done()),
        "make-folder" => fs::create_dir(path).map(|()| done()),
        "symlink" => by_names(symlink, path, argument).map(|()| done()),
        "link" => by_names(link, path, argument).map(|()| done()),
        "increment" => increment(path, argument),
        // What takes room: bytes one after the other, a length, a byte at a place, files, names of one file, a file without one.
        "fill" => fill(path, argument).map(|()| done()),
        "extend" => fs::File::create(path).and_then(|file| file.set_len(number(argument))).map(|()| done()),
        "seek" => seek(path, argument).map(|()| done()),
        "many" => Ok(many(path, argument)),
        "links" => Ok(links(path, argument)),
        "nameless" => nameless(path, argument),
        "time" => time(path, argument),
        "hold" => Ok(hold(path, argument)),
        // Files open at once, kept so for a while; and one after the other.
        "open" => Ok(open(path, argument, part())),
        "reopen" => Ok(reopen(path, argument)),
        verb => panic!("no verb {verb}"),
    };
    outcome.unwrap_or_else(|error| format!("error {}", kind(&error)))
}

/// Its kind; the standard library has none for some of WASI's errors.
fn kind(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(29) => "EIO".to_owned(),
        Some(51) => "ENOSPC".to_owned(),
        _ => format!("{:?}", error.kind()),
    }
}

fn list(path: &str) -> io::Result<String> {
    let mut names = Vec::new();
    for entry in fs::read_dir(path)? {
        names.push(entry?.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    Ok(names.join(" "))
}

fn modified(path: &str) -> io::Result<String> {
    let modified = fs::metadata(path)?.modified()?;
    let since = modified.duration_since(std::time::SystemTime::UNIX_EPOCH).map_err(io::Error::other)?;
    Ok(since.as_secs().to_string())
}

fn append(path: &str, text: &str) -> io::Result<()> {
    fs::OpenOptions::new().append(true).create(true).open(path)?.write_all(text.as_bytes())
}

fn by_names(call: unsafe extern "C" fn(*const c_char, *const c_char) -> i32, one: &str, other: &str) -> io::Result<()> {
    let (one, other) = (CString::new(one)?, CString::new(other)?);
    // SAFETY: both are C strings, and live until the call is over.
    match unsafe { call(one.as_ptr(), other.as_ptr()) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

fn number(text: &str) -> u64 {
    text.parse().expect("it is a number")
}

fn fill(path: &str, bytes: &str) -> io::Result<()> {
    let mut file = fs::File::create(path)?;
    let block = [b'x'; 1000];
    let mut left = number(bytes) as usize;
    while left > 0 {
        file.write_all(&block[..left.min(block.len())])?;
        left = left.saturating_sub(block.len());
    }
    Ok(())
}

fn seek(path: &str, place: &str) -> io::Result<()> {
    let mut file = fs::File::create(path)?;
    io::Seek::seek(&mut file, io::SeekFrom::Start(number(place)))?;
    file.write_all(b"x")
}

fn many(folder: &str, count: &str) -> String {
    for made in 0..number(count) {
        if let Err(error) = fs::write(format!("{folder}/file-{made}"), "") {
            return format!("{made}, then {}", kind(&error));
        }
    }
    count.to_owned()
}

fn links(path: &str, count: &str) -> String {
    for made in 0..number(count) {
        if let Err(error) = by_names(link, path, &format!("{path}-{made}")) {
            return format!("{made}, then {}", kind(&error));
        }
    }
    count.to_owned()
}

/// Writes to a file that has no name any more, and says how far it came.
fn nameless(path: &str, bytes: &str) -> io::Result<String> {
    let mut file = fs::File::create(path)?;
    fs::remove_file(path)?;
    for written in 0..number(bytes) / 1000 {
        if let Err(error) = file.write_all(&[b'x'; 1000]) {
            return Ok(format!("{written} KB, then {}", kind(&error)));
        }
    }
    Ok("all of it".to_owned())
}

/// Does it again and again with what it has open, until that fails.
fn hold(path: &str, how: &str) -> String {
    let mut file = fs::OpenOptions::new().read(true).append(how == "write").open(path).expect("it is there");
    // Of a program, standard output is its answer.
    eprintln!("holding {path}");
    for _ in 0..2000 {
        let done = match how {
            "write" => file.write_all(b"x"),
            "read" => io::Seek::rewind(&mut file).and_then(|()| file.read_exact(&mut [0])),
            "look" => fs::read_dir(path.rsplit_once('/').map_or("/", |(folder, _)| folder)).map(|_| ()),
            how => panic!("no way {how}"),
        };
        if let Err(error) = done {
            return format!("error {}", kind(&error));
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    "nothing happened".to_owned()
}

/// Reads a number, waits, writes one more: two at once lose a count.
fn increment(path: &str, wait_ms: &str) -> io::Result<String> {
    let number: u64 = fs::read_to_string(path).map_or(0, |text| text.parse().expect("a number was written"));
    std::thread::sleep(Duration::from_millis(wait_ms.parse().unwrap_or(0)));
    fs::write(path, (number + 1).to_string())?;
    Ok((number + 1).to_string())
}

/// Opens a file so often, and says how far it came when it has had them for a while.
fn open(path: &str, count: &str, hold_ms: &str) -> String {
    let mut files = Vec::new();
    let mut said = count.to_owned();
    while files.len() < number(count) as usize {
        match fs::File::open(path) {
            Ok(file) => files.push(file),
            Err(error) => {
                said = format!("{}, then {}", files.len(), kind(&error));
                break;
            }
        }
    }
    std::thread::sleep(Duration::from_millis(hold_ms.parse().unwrap_or(0)));
    said
}

/// Opens and closes it so often.
fn reopen(path: &str, count: &str) -> String {
    for opened in 0..number(count) {
        if let Err(error) = fs::File::open(path) {
            return format!("{opened}, then {}", kind(&error));
        }
    }
    count.to_owned()
}

/// Nanoseconds for opening and reading a file, and for reading an open one, on average.
fn time(path: &str, rounds: &str) -> io::Result<String> {
    let rounds: u32 = rounds.parse().unwrap_or(1000);
    let mut block = vec![0; 4096];
    let begin = Instant::now();
    for _ in 0..rounds {
        fs::File::open(path)?.read_exact(&mut block)?;
    }
    let opened = begin.elapsed() / rounds;
    let mut file = fs::File::open(path)?;
    let begin = Instant::now();
    for _ in 0..rounds {
        io::Seek::rewind(&mut file)?;
        file.read_exact(&mut block)?;
    }
    Ok(format!("open and read {} ns, read {} ns", opened.as_nanos(), (begin.elapsed() / rounds).as_nanos()))
}
