//! The deployer over a real directory. Only the guests are stand-ins, and the compiler runs in this process.

mod crowds;
mod measuring;
mod refits;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tempfile::TempDir;
use wasmtime::component::Component;

use super::cache::Target;
use super::compile::Compiler;
use super::{DeployHandle, Deployer};
use crate::apps::{App, Apps, Entry, Table};
use crate::bundle::{self, archive};
use crate::capsule::Capsules;
use crate::config::{AppSpec, Config, Passes};
use crate::guest::{Call, Guest};
use crate::outbound::Plan;
use crate::sandbox::task::Task;
use crate::sandbox::{self, Belongings, Engine, Variant};

struct Silent;

impl Guest for Silent {
    fn call(&self, _: Call) -> Task {
        unreachable!("the deployer never calls a guest")
    }

    fn sweep(&self) {}
}

/// While there is a folder of this name in the state directory, apps that are called so are not linked; each thread that waits puts a file
/// there.
const STUCK: &str = "stuck";

fn stand_in(
    _: &Arc<Engine>,
    _: crate::guest::Kind,
    _: &Component,
    spec: &AppSpec,
    _: Belongings,
) -> anyhow::Result<Box<dyn Guest>> {
    static THREADS: AtomicUsize = AtomicUsize::new(0);
    let gate = spec.spool_dir.join(STUCK);
    if spec.name.contains(STUCK) {
        // There is no such folder if nobody holds them up.
        let _ = std::fs::write(gate.join(THREADS.fetch_add(1, Ordering::Relaxed).to_string()), "");
        while gate.exists() {
            std::thread::sleep(Duration::from_millis(2));
        }
    }
    Ok(Box::new(Silent))
}

struct Site {
    root: TempDir,
    config: Arc<Config>,
    apps: Arc<Apps>,
    handle: DeployHandle,
}

/// An app whose bytes differ for each number.
fn wasm(number: u32) -> Vec<u8> {
    let text = format!(
        r#"(component (core module (func (drop (i32.const {number})))) (instance $i)
            (export "wasgi:gateway/application@0.1.0" (instance $i)))"#
    );
    wat::parse_str(text).expect("the text is valid")
}

fn config(root: &Path) -> Config {
    Config {
        apps_dir: root.join("apps"),
        state_dir: root.join("state"),
        sandboxes: 2,
        rescan_time: Duration::from_millis(200),
        settle_time: Duration::from_millis(100),
        ..Config::default()
    }
}

fn compiler(config: &Config) -> Compiler {
    Compiler::new(config.stack_bytes, config.passes).here()
}

fn start(config: &Arc<Config>, compiler: Compiler) -> (Arc<Apps>, DeployHandle) {
    let apps = Arc::new(Apps::default());
    let engine = Arc::new(Engine::new(config).expect("the machine has address space"));
    let handle =
        Deployer::start_with(Arc::clone(config), engine, Arc::clone(&apps), Capsules::off(), compiler, stand_in);
    (apps, handle.expect("the state directory is ours"))
}

impl Site {
    async fn new() -> Self {
        Self::with(|_| ()).await
    }

    /// Starts over what `prepare` put into the apps directory.
    async fn with(prepare: impl FnOnce(&Path)) -> Self {
        Self::configured(|_| (), prepare).await
    }

    async fn configured(change: impl FnOnce(&mut Config), prepare: impl FnOnce(&Path)) -> Self {
        let root = tempfile::tempdir().expect("a temporary directory can be made");
        let mut config = config(root.path());
        change(&mut config);
        let config = Arc::new(config);
        std::fs::create_dir(&config.apps_dir).expect("folders can be made");
        prepare(&config.apps_dir);
        let (apps, handle) = start(&config, compiler(&config));
        handle.ready().await;
        Self { root, config, apps, handle }
    }

    /// Renames a file into place.
    fn put(&self, path: &str, content: impl AsRef<[u8]>) {
        let temp = self.root.path().join("upload");
        std::fs::write(&temp, content).expect("files can be written");
        std::fs::rename(temp, self.config.apps_dir.join(path)).expect("files can be renamed");
    }

    fn remove(&self, path: &str) {
        std::fs::remove_file(self.config.apps_dir.join(path)).expect("the file is there");
    }

    /// Waits for the table to be as it should.
    async fn until(&self, what: &str, mut holds: impl FnMut(&Table) -> bool) {
        let started = Instant::now();
        while !holds(&self.apps.snapshot()) {
            let entries: Vec<_> = self.apps.snapshot().entries.iter().map(|(name, entry)| show(name, entry)).collect();
            assert!(started.elapsed() < Duration::from_secs(20), "still not {what}: {entries:?}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    async fn until_live(&self, path: &str) -> Arc<App> {
        self.until(&format!("{path} is live"), |table| at(table, path).is_some()).await;
        at(&self.apps.snapshot(), path).expect("it was live just now")
    }

    async fn until_refused(&self, name: &str, reason: &str) {
        self.until(&format!("{name} is refused for {reason:?}"), |table| problem(table, name).contains(reason)).await;
    }

    /// Waits until the deployer has looked at everything once more: a new app, put last, is live.
    async fn look(&self, number: u32) {
        let name = format!("look{number}");
        self.put(&format!("{name}.wasm"), wasm(number));
        self.until_live(&format!("/{name}")).await;
    }

    fn compiled(&self) -> usize {
        std::fs::read_dir(self.config.state_dir.join("cache")).expect("there is a cache").count()
    }
}

fn at(table: &Table, path: &str) -> Option<Arc<App>> {
    table.router.resolve(None, path.as_bytes()).map(|found| Arc::clone(found.target))
}

fn problem<'a>(table: &'a Table, name: &str) -> &'a str {
    table.entries.get(name).and_then(|entry| entry.problem.as_ref()).map_or("", |problem| &problem.reason)
}

fn show(name: &str, entry: &Entry) -> String {
    format!("{name}: live {}, {:?}, loading {}", entry.live.is_some(), entry.problem, entry.loading)
}

#[tokio::test]
async fn a_file_is_served_replaced_and_removed() {
    let site = Site::new().await;
    site.put("hello.wasm", wasm(1));
    let first = site.until_live("/hello").await;
    assert_eq!(first.release.hash, super::cache::hash_bytes(&wasm(1)));
    site.put("hello.wasm", wasm(2));
    let hash = super::cache::hash_bytes(&wasm(2));
    site.until("replaced", |table| at(table, "/hello").is_some_and(|app| app.release.hash == hash)).await;
    let second = site.until_live("/hello").await;
    assert!(Arc::ptr_eq(&first.stats, &second.stats));
    site.remove("hello.wasm");
    site.until("removed", |table| at(table, "/hello").is_none() && table.entries.is_empty()).await;
    drop(second);
    assert_eq!(Arc::strong_count(&first), 1, "nothing keeps an old release");
}

#[tokio::test]
async fn what_is_there_at_the_start_is_live_when_ready() {
    let site = Site::with(|apps| {
        std::fs::create_dir(apps.join("shop")).expect("folders can be made");
        for (number, path) in ["index.wasm", "hello.wasm", "shop/index.wasm", "shop/cart.wasm"].iter().enumerate() {
            std::fs::write(apps.join(path), wasm(number as u32)).expect("files can be written");
        }
        std::fs::write(apps.join("empty.wasm"), "").expect("files can be written");
    })
    .await;
    let table = site.apps.snapshot();
    for (path, name) in [("/x", "index"), ("/hello", "hello"), ("/shop/x", "shop/index"), ("/shop/cart", "shop/cart")] {
        assert_eq!(at(&table, path).map(|app| app.spec.name.clone()).as_deref(), Some(name), "{path}");
    }
    assert_eq!(problem(&table, "empty"), "the file is empty");
}

#[tokio::test]
async fn the_same_bytes_change_nothing_and_are_compiled_once() {
    let site = Site::new().await;
    site.put("hello.wasm", wasm(1));
    let first = site.until_live("/hello").await;
    let file =
        std::fs::File::options().append(true).open(site.config.apps_dir.join("hello.wasm")).expect("it is there");
    file.set_modified(std::time::SystemTime::now()).expect("times can be set");
    site.put("copy.wasm", wasm(1));
    site.until_live("/copy").await;
    assert_eq!(site.compiled(), 1);
    site.put("hello.wasm", wasm(1));
    site.look(100).await;
    site.look(101).await;
    assert!(Arc::ptr_eq(&first, &site.until_live("/hello").await));
}

#[tokio::test]
async fn beyond_a_hundred_apps_those_that_nobody_had_to_compile_begin_asleep() {
    let site = Site::with(|apps| {
        for number in 0..120 {
            std::fs::write(apps.join(format!("app-{number}.wasm")), wasm(1)).expect("files can be written");
        }
    })
    .await;
    let all_live = |table: &Table| table.entries.values().filter(|entry| entry.live.is_some()).count() == 120;
    site.until("all live", all_live).await;
    let table = site.apps.snapshot();
    let live = table.entries.values().filter_map(|entry| entry.live.as_ref());
    let awake = live.filter(|app| app.guest.is_awake()).count();
    // Some are loaded at the same time.
    assert!((100..115).contains(&awake), "{awake} of 120 are awake");
    assert_eq!(site.compiled(), 1);
}

#[tokio::test]
async fn a_bad_file_leaves_the_old_release_and_says_why() {
    let site = Site::new().await;
    site.put("hello.wasm", wasm(1));
    let first = site.until_live("/hello").await;
    for (content, reason) in [
        (&b""[..], "empty"),
        (b"#!/bin/sh", "not WebAssembly"),
        (&wasm(2)[..50], "truncated"),
        (b"\0asm\x01\0\0\0", "core module"),
    ] {
        site.put("hello.wasm", content);
        site.until_refused("hello", reason).await;
        assert!(Arc::ptr_eq(&first, &site.until_live("/hello").await));
    }
    site.remove("hello.wasm");
    std::os::unix::fs::symlink("/etc/passwd", site.config.apps_dir.join("hello.wasm")).expect("links can be made");
    site.until("refused or gone", |table| at(table, "/hello").is_none() || problem(table, "hello").contains("link"))
        .await;
    site.remove("hello.wasm");
    site.put("hello.wasm", wasm(3));
    site.until("served again", |table| at(table, "/hello").is_some() && problem(table, "hello").is_empty()).await;
}

#[tokio::test]
async fn a_file_beyond_the_limit_is_refused_unread() {
    let site = Site::new().await;
    let file = std::fs::File::create(site.config.apps_dir.join("zeros.wasm")).expect("files can be made");
    file.set_len(1 << 30).expect("sparse files can be made");
    site.until_refused("zeros", "the limit is").await;
}

#[tokio::test]
async fn a_slow_copy_is_taken_when_it_is_whole() {
    let site = Site::new().await;
    let path = site.config.apps_dir.join("slow.wasm");
    let whole = wasm(1);
    let (head, tail) = whole.split_at(40);
    std::fs::write(&path, head).expect("files can be written");
    // Here the copy pauses for so long that its beginning is taken for a file.
    site.until_refused("slow", "truncated").await;
    std::io::Write::write_all(&mut std::fs::File::options().append(true).open(&path).expect("it is there"), tail)
        .expect("files can be written");
    site.until_live("/slow").await;
    site.until("without a problem", |table| problem(table, "slow").is_empty()).await;
}

#[tokio::test]
async fn a_sidecar_alone_changes_the_app_and_a_bad_one_refuses_it() {
    let site = Site::new().await;
    site.put("hello.wasm", wasm(1));
    let first = site.until_live("/hello").await;
    site.put("hello.toml", "routes = [\"/elsewhere\"]\n");
    let second = site.until_live("/elsewhere").await;
    assert!(at(&site.apps.snapshot(), "/hello").is_none());
    assert_eq!((&first.release.hash, first.release.live_since), (&second.release.hash, second.release.live_since));
    assert_eq!(site.compiled(), 1);
    site.put("hello.toml", "no such key = true\n");
    site.until_refused("hello", "hello.toml").await;
    assert!(Arc::ptr_eq(&second, &site.until_live("/elsewhere").await));
    site.remove("hello.toml");
    site.until_live("/hello").await;
    site.until("without a problem", |table| problem(table, "hello").is_empty()).await;
    // From the start there is nothing to go on with.
    site.put("bad.toml", "no such key = true\n");
    site.put("bad.wasm", wasm(2));
    site.until_refused("bad", "bad.toml").await;
    assert!(at(&site.apps.snapshot(), "/bad").is_none());
}

#[tokio::test]
async fn of_two_apps_on_one_route_the_older_stays_until_it_goes() {
    let site = Site::new().await;
    site.put("old.wasm", wasm(1));
    site.until_live("/old").await;
    site.put("new.toml", "routes = [\"/old\"]\n");
    site.put("new.wasm", wasm(2));
    site.until_refused("new", "old has the route /old already").await;
    assert_eq!(site.until_live("/old").await.spec.name, "old");
    site.remove("old.wasm");
    site.until("taken over", |table| at(table, "/old").is_some_and(|app| app.spec.name == "new")).await;
    assert_eq!(problem(&site.apps.snapshot(), "new"), "");
}

#[tokio::test]
async fn the_directory_may_vanish_and_come_back() {
    let site = Site::new().await;
    site.put("hello.wasm", wasm(1));
    let first = site.until_live("/hello").await;
    // Replaced in one go, nothing is ever missing.
    let (apps, away) = (&site.config.apps_dir, site.root.path().join("away"));
    std::fs::rename(apps, &away).expect("folders can be renamed");
    std::fs::rename(&away, apps).expect("folders can be renamed");
    site.look(100).await;
    assert!(Arc::ptr_eq(&first, &site.until_live("/hello").await));
    std::fs::remove_dir_all(apps).expect("folders can be removed");
    site.until("empty", |table| table.entries.is_empty()).await;
    std::fs::create_dir(apps).expect("folders can be made");
    site.put("again.wasm", wasm(2));
    site.until_live("/again").await;
}

#[tokio::test]
async fn a_restart_loads_what_was_compiled_and_rebuilds_what_was_damaged() {
    let site = Site::new().await;
    site.put("hello.wasm", wasm(1));
    site.until_live("/hello").await;
    let Site { root, config, handle, .. } = site;
    handle.stop().await;
    let restart = async |compiler: Compiler| {
        let (apps, handle) = start(&config, compiler);
        handle.ready().await;
        handle.stop().await;
        apps
    };
    let broken = || Compiler::new(config.stack_bytes, config.passes).with_program("/nonexistent".into());
    assert!(at(&restart(broken()).await.snapshot(), "/hello").is_some(), "nothing had to be compiled");
    let cache = root.path().join("state/cache");
    let entry =
        std::fs::read_dir(&cache).expect("there is a cache").next().expect("with an entry").expect("to be read").path();
    let mut code = std::fs::read(&entry).expect("it can be read");
    let middle = code.len() / 2;
    code[middle] ^= 1;
    std::fs::write(&entry, &code).expect("it can be written");
    let apps = restart(broken()).await;
    assert!(
        problem(&apps.snapshot(), "hello").contains("cannot start the compiler"),
        "{}",
        problem(&apps.snapshot(), "hello")
    );
    assert!(!entry.exists(), "what is damaged is removed");
    assert!(at(&restart(compiler(&config)).await.snapshot(), "/hello").is_some());
    assert!(entry.exists());
}

#[tokio::test]
async fn files_are_unpacked_while_others_are_compiled() {
    let site = Site::new().await;
    let mut carrying = wasm(1);
    let files = archive::pack(&[Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml")]).expect("it is there");
    bundle::append(&mut carrying, bundle::FILES_SECTION, &files);
    site.put("shop.wasm", &carrying);
    site.until_live("/shop").await;
    let Site { root, config, handle, .. } = site;
    handle.stop().await;
    std::fs::remove_dir_all(config.state_dir.join("files")).expect("they were unpacked there");
    std::fs::write(config.apps_dir.join("cold.wasm"), wasm(2)).expect("files can be written");
    let (apps, handle) = start(&config, compiler(&config).busy());
    let site = Site { root, config, apps, handle };
    site.until_live("/shop").await;
    assert!(at(&site.apps.snapshot(), "/cold").is_none(), "it waits for a turn that never comes");
}

#[tokio::test]
async fn a_reload_judges_every_app_again() {
    let site = Site::new().await;
    site.put("hello.wasm", wasm(1));
    let first = site.until_live("/hello").await;
    let mut stricter = (*site.config).clone();
    stricter.limits.module_bytes = 10;
    let plan = Plan::of(&stricter).expect("nothing is granted");
    site.handle.reload(Arc::new(stricter), plan).await;
    site.until_refused("hello", "the limit is 10 B").await;
    // What is live goes on, within the new ceilings.
    let is_within = |app: Arc<App>| app.release.hash == first.release.hash && app.spec.limits.module_bytes == 10;
    site.until("within them", |table| at(table, "/hello").is_some_and(is_within)).await;
    let mut lower = (*site.config).clone();
    lower.limits.concurrent_calls = 1;
    let plan = Plan::of(&lower).expect("nothing is granted");
    site.handle.reload(Arc::new(lower), plan).await;
    site.until("lower", |table| at(table, "/hello").is_some_and(|app| app.spec.limits.concurrent_calls == 1)).await;
}

#[test]
fn a_cache_that_others_can_write_is_refused() {
    use std::os::unix::fs::PermissionsExt;
    let root = tempfile::tempdir().expect("a temporary directory can be made");
    let cache = root.path().join("cache");
    assert!(super::cache::Cache::open(root.path(), Passes::All).is_ok());
    let mode = std::fs::metadata(&cache).expect("it was made").permissions().mode();
    assert_eq!(mode & 0o777, 0o700);
    for path in [&cache, &root.path().to_owned()] {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o777)).expect("modes can be set");
        let refused = super::cache::Cache::open(root.path(), Passes::All).err().map(|error| error.to_string());
        assert!(refused.as_ref().is_some_and(|error| error.contains("chmod 700")), "{refused:?}");
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o700)).expect("modes can be set");
    }
}

#[test]
fn compiled_code_of_one_engine_is_not_loaded_by_the_other() {
    let root = tempfile::tempdir().expect("a temporary directory can be made");
    let cache = super::cache::Cache::open(root.path(), Passes::All).expect("the directory is ours");
    let variants = [Variant::Sync, Variant::Own, Variant::Rewind, Variant::Async];
    let engines = variants.map(|variant| sandbox::compiler(1 << 20, variant).expect("this machine is supported"));
    let targets: Vec<_> =
        engines.iter().zip(variants).map(|(engine, variant)| Target { engine, variant, judge: None }).collect();
    for own in &targets {
        let temp = cache.temp().expect("the directory is ours");
        let mut code = own.engine.precompile_component(&wasm(1)).expect("it compiles");
        super::images::append(&mut code, &[]);
        std::fs::write(temp.path(), code).expect("it can be written");
        let hash = format!("hash of {:?}", own.variant);
        cache.keep(*own, &hash, temp).expect("it can be kept");
        for other in &targets {
            // What was not prepared for it is never rewound, nor is an app without its data made of code that has it, or the
            // other way round. And it is not thrown away for having been asked for.
            assert_eq!(
                cache.load(*other, &hash).is_some(),
                own.variant == other.variant,
                "{hash}: {:?}",
                other.variant
            );
        }
        assert!(cache.load(*own, &hash).is_some());
    }
}
