//! A Redis of a test's own.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use crate::eventually;
use crate::guests::root;

/// A running server, on a Unix socket. Dropping it kills it.
pub struct Redis {
    child: Child,
    folder: TempDir,
}

impl Redis {
    /// Starts the real one: the machine's, or what `make test-servers` has fetched.
    ///
    /// # Panics
    /// If there is none, or it does not come up.
    pub fn start() -> Self {
        let folder = tempfile::Builder::new().prefix("wasgi-redis-").tempdir().expect("there is a temporary directory");
        let child = Self::spawn(folder.path());
        let redis = Self { child, folder };
        redis.wait();
        redis
    }

    fn spawn(folder: &Path) -> Child {
        let fetched = root().join("tests/servers/target");
        let program = fetched.join("usr/bin/redis-server");
        let mut command = match program.exists() {
            true => Command::new(program),
            false => Command::new("redis-server"),
        };
        let libraries: Vec<PathBuf> =
            ["usr/lib/x86_64-linux-gnu", "usr/lib/aarch64-linux-gnu"].map(|path| fetched.join(path)).to_vec();
        command.env("LD_LIBRARY_PATH", std::env::join_paths(libraries).expect("paths have no colon"));
        // On the disk at once, as an operator would have it who cannot lose anything.
        command.args(["--port", "0", "--unixsocket", "redis.sock", "--appendonly", "yes", "--appendfsync", "always"]);
        command.args(["--save", "", "--daemonize", "no"]).current_dir(folder);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command.spawn().expect("there is a redis-server: run `make test-servers`")
    }

    fn wait(&self) {
        eventually("redis-server answers", || self.say(&["PING"]).filter(|answer| answer == "+PONG"));
    }

    /// As `keyvalue_redis` has it.
    pub fn url(&self) -> String {
        format!("redis+unix://{}", self.socket().display())
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join("redis.sock")
    }

    /// The first line of what it answers; none where it does not.
    pub fn say(&self, words: &[&str]) -> Option<String> {
        let mut stream = UnixStream::connect(self.socket()).ok()?;
        let mut text = format!("*{}\r\n", words.len());
        words.iter().for_each(|word| text.push_str(&format!("${}\r\n{word}\r\n", word.len())));
        stream.write_all(text.as_bytes()).ok()?;
        let mut line = String::new();
        BufReader::new(stream).read_line(&mut line).ok()?;
        Some(line.trim_end().to_owned())
    }

    /// Kills it, as the power does.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Starts it again, with what it has kept.
    pub fn start_again(&mut self) {
        self.child = Self::spawn(self.folder.path());
        self.wait();
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.kill();
    }
}
