//! The walls around the host: users, files, and what it says where they are missing.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::Path;
use std::process::{Command, Output};

use rustix::process::{Signal, getuid};
use tests::{Host, guest, wasgi};

/// Somebody without rights, on every machine.
const NOBODY: u32 = 65534;

fn is_root() -> bool {
    getuid().is_root()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("it prints text")
}

/// What a host would have of walls on this kernel, as it says itself.
fn forecast() -> String {
    let folder = tempfile::tempdir().expect("there is a temporary directory");
    let output = wasgi().current_dir(folder.path()).args(["check", "--config"]).output().expect("it can be run");
    let said = text(&output.stdout);
    said.lines().find(|line| line.starts_with("# Confinement: ")).expect("it says so").to_owned()
}

/// A kernel may have none of it: then there is less to see.
fn lacks(wall: &str) -> bool {
    forecast().split_once("lacks").is_some_and(|(_, missing)| missing.contains(wall))
}

/// A field of `/proc/PID/status`.
#[track_caller]
fn field(host: &Host, name: &str) -> String {
    let status = host.status();
    let found = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    found.unwrap_or_else(|| panic!("there is no {name} in\n{status}")).split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn a_host_reads_what_its_settings_lead_to_and_nothing_else_not_even_as_root() {
    let outside = tempfile::tempdir().expect("there is a temporary directory");
    let plan = outside.path().join("plan.toml");
    fs::write(&plan, "routes = ['/planted']").expect("the directory is ours");
    let start = |confine: &str| {
        Host::start(|host| {
            fs::create_dir(host.folder().join("tenants.d")).expect("the directory is ours");
            host.app("hello", guest("hello")).flag("--confine", confine)
        })
    };
    let reload = |host: &Host| {
        symlink(&plan, host.folder().join("tenants.d/acme.toml")).expect("links can be made");
        host.signal(Signal::HUP);
    };
    let free = start("off");
    free.log_contains("not confined: confine = \"off\"");
    reload(&free);
    free.log_contains("the configuration was read again");

    let confined = start("on");
    reload(&confined);
    if lacks("files") {
        confined.log_contains("this kernel lacks files");
        confined.log_contains("the configuration was read again");
        return;
    }
    confined.log_contains("confined: files");
    let refused = confined.log_contains("the configuration stays as it is");
    assert!(refused.message().contains("acme.toml") && refused.message().contains("Permission denied"));
    assert_eq!(confined.get("/hello").status(), 200);
}

#[test]
fn what_a_reload_would_need_elsewhere_is_left_out_and_said() {
    let outside = tempfile::tempdir().expect("there is a temporary directory");
    let host = Host::start(|host| host.app("hello", guest("hello")));
    host.write_config(&format!("[access_log]\nfile = '{}/access.log'\n", outside.path().display()));
    host.signal(Signal::HUP);
    if lacks("files") {
        host.log_contains("the configuration was read again");
        return;
    }
    let left_out = host.log_contains("access_log.file lies outside of what this host has confined itself to");
    assert!(left_out.message().contains("a restart leads there"), "{}", left_out.message());
    host.log_contains("the configuration was read again");
    assert!(!outside.path().join("access.log").exists());
    assert_eq!(host.get("/hello").status(), 200);
}

/// Runs a host that is expected not to start, on a kernel that seems to lack Landlock, as seen from this thread.
fn without_landlock(arguments: &[&str], folder: &Path) -> Output {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            let missing = [libc::SYS_landlock_create_ruleset].map(|call| (call, vec![]));
            let filter = seccompiler::SeccompFilter::new(
                missing.into_iter().collect(),
                seccompiler::SeccompAction::Allow,
                seccompiler::SeccompAction::Errno(libc::ENOSYS as u32),
                std::env::consts::ARCH.try_into().expect("this processor is known"),
            );
            let program: seccompiler::BpfProgram = filter.expect("it is right").try_into().expect("it is short");
            seccompiler::apply_filter(&program).expect("the kernel takes it");
            // Those that are started here have the filter as well.
            let mut command = wasgi();
            command.current_dir(folder).args(["serve", "apps", "--bind", "127.0.0.1:0"]).args(arguments);
            Command::output(&mut command).expect("the binary can be run")
        });
        thread.join().expect("it ends by itself")
    })
}

#[test]
fn strict_does_not_start_half_confined_and_says_what_is_missing() {
    let folder = tempfile::tempdir().expect("there is a temporary directory");
    fs::create_dir(folder.path().join("apps")).expect("the directory is ours");
    let user: &[&str] = if is_root() { &["--user", "nobody"] } else { &[] };
    let output = without_landlock(&[&["--confine", "strict"], user].concat(), folder.path());
    assert_eq!(output.status.code(), Some(1));
    let said = text(&output.stderr);
    assert!(said.contains("confine = \"strict\": this kernel lacks files") && said.contains("TCP ports"), "{said}");
    assert!(!folder.path().join(".wasgi").exists(), "nothing was touched");

    // What would happen is said beforehand.
    fs::write(folder.path().join("wasgi.toml"), "confine = 'strict'\ndev = true\n").expect("the directory is ours");
    let output = wasgi().current_dir(folder.path()).args(["check", "--config"]).output().expect("it can be run");
    assert!(text(&output.stdout).contains("# Confinement: it does not start: confine = \"strict\": development mode"));
    let output = wasgi().current_dir(folder.path()).args(["serve", "apps"]).output().expect("it can be run");
    assert!(!output.status.success() && text(&output.stderr).contains("development mode starts builders"));
}

#[test]
fn a_host_that_root_started_becomes_the_user_for_good() {
    if !is_root() {
        // Who is not root becomes nobody else, and is told so.
        let folder = tempfile::tempdir().expect("there is a temporary directory");
        fs::create_dir(folder.path().join("apps")).expect("the directory is ours");
        let mut command = wasgi();
        let output = command.current_dir(folder.path()).args(["serve", "apps", "--user", "nobody"]).output();
        let output = output.expect("it can be run");
        assert!(!output.status.success() && text(&output.stderr).contains("only root can become somebody else"));
        return;
    }
    // An address of this test's own, with a port that is root's.
    let [.., high, low] = std::process::id().to_be_bytes();
    let place = format!("127.77.{high}.{low}:80");
    let strict = if lacks("") { "on" } else { "strict" };
    let host = Host::start(|host| {
        chown(host.folder(), Some(NOBODY), Some(NOBODY)).expect("we are root");
        let host = host.app("hello", guest("hello")).flag("--user", "nobody").flag("--confine", strict);
        host.bind(&[&place, "unix:http.sock"])
    });
    assert_eq!(host.get("/hello").status(), 200);
    let ids = [NOBODY; 4].map(|id| id.to_string()).join(" ");
    assert_eq!((field(&host, "Uid"), field(&host, "Gid")), (ids.clone(), ids));
    assert_eq!(field(&host, "Groups"), NOBODY.to_string());
    for capabilities in ["CapEff", "CapPrm", "CapAmb"] {
        assert_eq!(field(&host, capabilities), "0000000000000000", "{capabilities}");
    }
    assert_eq!(field(&host, "NoNewPrivs"), "1");
    // What it makes is the user's, also what it made before.
    for path in ["state", "state/lock", "state/admin.sock", "state/cache", "http.sock"] {
        let metadata = fs::symlink_metadata(host.folder().join(path)).expect("it is there");
        assert_eq!((metadata.uid(), metadata.gid()), (NOBODY, NOBODY), "{path}");
    }
    // Places are not taken anew, and it is said.
    host.write_config("bind = '127.0.0.1:81'\nuser = 'root'\n");
    host.signal(Signal::HUP);
    host.log_contains("the configuration was read again");
    assert_eq!((host.get("/hello").status(), field(&host, "CapEff")), (200, "0000000000000000".to_owned()));
}

#[test]
fn folders_on_the_way_to_what_is_the_users_can_be_gone_through() {
    if !is_root() {
        // Nobody else makes folders for somebody.
        return;
    }
    let host = Host::start(|host| {
        chown(host.folder(), Some(NOBODY), Some(NOBODY)).expect("we are root");
        let host = host.config("data_dir = 'on/the/way'\n[grant]\ndata = '*'\n").flag("--user", "nobody");
        host.app("site", guest("site")).sidecar("site", "data = true").started_by("umask 077; exec \"$@\"")
    });
    assert_eq!(host.get("/site?disk=write:/data/a:kept").text(), "done");
    for (path, owner, mode) in [("on", 0, 0o755), ("on/the", 0, 0o755), ("on/the/way", NOBODY, 0o700)] {
        let metadata = fs::metadata(host.folder().join(path)).expect("it is there");
        assert_eq!((metadata.uid(), metadata.mode() & 0o777), (owner, mode), "{path}");
    }
}

/// Of what leads to a folder that is granted later.
#[test]
fn a_grant_in_a_folder_that_was_named_needs_no_restart() {
    let outside = tempfile::tempdir().expect("there is a temporary directory");
    fs::create_dir(outside.path().join("media")).expect("the directory is ours");
    fs::write(outside.path().join("media/a"), "a picture").expect("the directory is ours");
    let grant =
        format!("[tenant.acme.grant.directories]\n'/media' = {{ path = '{}/media' }}\n", outside.path().display());
    for is_named in [false, true] {
        let named =
            if is_named { format!("confine_paths = ['{}']\n", outside.path().display()) } else { String::new() };
        let host = Host::start(|host| {
            host.config(&named).app("acme/site", guest("site")).sidecar("acme/site", "directories = '/media'")
        });
        host.write_config(&format!("{named}{grant}"));
        host.signal(Signal::HUP);
        if is_named || lacks("files") {
            host.until("/acme/site?disk=read:/media/a", 200, "a picture");
        } else {
            let left_out = host.log_contains("tenant.acme.grant.directories.\"/media\" = ");
            assert!(left_out.message().contains("confine_paths names folders"), "{}", left_out.message());
            host.listed_problem("acme/site", "is out of this host's reach until it is started again");
        }
    }
}

#[test]
fn what_is_taken_away_is_so_though_the_same_reload_leads_elsewhere() {
    let outside = tempfile::tempdir().expect("there is a temporary directory");
    let acme = "[tenant.acme.grant.secrets]\nKEY = { file = 'key' }\n";
    let host = Host::start(|host| {
        fs::write(host.folder().join("key"), "hush").expect("the directory is ours");
        let host = host.config(acme).app("acme/shop", guest("probe")).sidecar("acme/shop", "secrets = 'KEY'");
        host.app("hive/site", guest("site"))
            .sidecar("hive/site", "directories = '/media'")
            .app("hive/other", guest("probe"))
    });
    assert_eq!(host.get("/acme/shop/hello").text(), "hello");
    let hive = format!("[tenant.hive.grant.directories]\n'/media' = {{ path = '{}' }}\n", outside.path().display());
    host.write_config(&hive);
    host.signal(Signal::HUP);
    host.until("/acme/shop/hello", 404, "");
    if !lacks("files") {
        host.listed_problem("hive/site", "is out of this host's reach until it is started again");
    }
    assert_eq!(host.get("/hive/other/hello").text(), "hello");
}

#[test]
fn what_is_not_the_users_is_refused_before_anything_is_opened() {
    let folder = tempfile::tempdir().expect("there is a temporary directory");
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o700)).expect("the directory is ours");
    for name in ["apps", "state"] {
        fs::create_dir(folder.path().join(name)).expect("the directory is ours");
    }
    let run = |arguments: &[&str]| {
        let mut command = wasgi();
        command.current_dir(folder.path()).args(["serve", "apps", "--bind", "127.0.0.1:0", "--state-dir", "state"]);
        let output = command.args(arguments).output().expect("it can be run");
        assert_eq!(output.status.code(), Some(1));
        text(&output.stderr)
    };
    let said = run(&["--user", "no-such-user"]);
    assert!(said.contains("user = \"no-such-user\": there is no such user"), "{said}");
    let said = run(&["--group", "root"]);
    assert!(said.contains("give user as well"), "{said}");
    if is_root() {
        let said = run(&["--user", "nobody"]);
        assert!(said.contains("state_dir state belongs to user 0") && said.contains("chown it"), "{said}");
        // A directory that the user cannot come to.
        chown(folder.path().join("state"), Some(NOBODY), Some(NOBODY)).expect("we are root");
        let said = run(&["--user", "nobody"]);
        assert!(said.contains("apps cannot be read by user nobody"), "{said}");
    }
}
