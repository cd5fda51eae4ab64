//! A tenant whose files take all that it may have of the deployer, and others beside it.

use super::*;
use crate::error::{Busy, Error};

/// Turns that one tenant has at once.
fn of_one() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

impl Site {
    /// From now on nothing called `stuck` is linked, until [`Self::let_go`].
    fn hold(&self) {
        std::fs::create_dir(self.config.state_dir.join(STUCK)).expect("folders can be made");
    }

    fn let_go(&self) {
        std::fs::remove_dir_all(self.config.state_dir.join(STUCK)).expect("it was made");
    }

    /// Threads that have begun to link what is called so.
    fn held(&self) -> usize {
        std::fs::read_dir(self.config.state_dir.join(STUCK)).expect("it was made").count()
    }

    fn folder(&self, name: &str) {
        std::fs::create_dir(self.config.apps_dir.join(name)).expect("folders can be made");
    }

    async fn until_held(&self, count: usize) {
        self.until(&format!("{count} are held"), |_| self.held() == count).await;
    }

    async fn until_asleep(&self, path: &str) -> Arc<App> {
        let app = self.until_live(path).await;
        self.until("asleep", |_| !app.guest.is_awake()).await;
        app
    }
}

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(10)
}

#[tokio::test]
async fn a_thread_whose_job_was_cancelled_keeps_its_turn_and_other_tenants_have_theirs() {
    let site = Site::new().await;
    site.hold();
    site.folder("a");
    let of_one = of_one();
    // Each replaces one that is being linked, and cancels its job.
    for number in 1..=of_one {
        site.put("a/stuck.wasm", wasm(number as u32));
        site.until_held(number).await;
    }
    for number in 1..=3 {
        site.put("a/stuck.wasm", wasm(1000 + number));
        site.look(2000 + number).await;
    }
    assert_eq!(site.held(), of_one);
    site.let_go();
    site.until_live("/a/stuck").await;
}

#[tokio::test]
async fn who_has_the_same_bytes_does_not_wait_in_another_tenants_line() {
    let Site { root, config, handle, .. } = Site::new().await;
    handle.stop().await;
    let (compiler, turn) = compiler(&config).busy_for("a").await;
    let (apps, handle) = start(&config, compiler);
    let site = Site { root, config, apps, handle };
    for folder in ["a", "b"] {
        site.folder(folder);
    }
    site.put("a/same.wasm", wasm(1));
    site.until("a/same waits", |table| table.entries.get("a/same").is_some_and(|entry| entry.loading)).await;
    site.look(1000).await;
    site.put("b/same.wasm", wasm(1));
    site.until_live("/b/same").await;
    assert!(at(&site.apps.snapshot(), "/a/same").is_none(), "its tenant has no turn");
    drop(turn);
    site.until_live("/a/same").await;
    assert_eq!(site.compiled(), 2, "it was compiled once");
}

#[tokio::test]
async fn a_call_wakes_its_app_however_many_files_wait_to_be_read() {
    let site = Site::configured(|config| config.app_idle_time = Duration::from_millis(1), |_| ()).await;
    for folder in ["a", "b", "c"] {
        site.folder(folder);
    }
    site.put("b/app.wasm", wasm(1));
    let app = site.until_asleep("/b/app").await;
    site.hold();
    for number in 0..of_one() {
        site.put(&format!("a/stuck{number}.wasm"), wasm(1000 + number as u32));
    }
    site.put("c/stuck.wasm", wasm(2));
    site.until_held(of_one() + 1).await;
    for number in 0..10 {
        site.put(&format!("a/more{number}.wasm"), wasm(2000 + number));
    }
    assert!(app.guest.awake_by(soon()).await.is_ok());
    site.let_go();
}

#[tokio::test]
async fn an_app_is_woken_once_whoever_comes_and_goes_meanwhile() {
    let site = Site::configured(|config| config.app_idle_time = Duration::from_millis(1), |_| ()).await;
    site.put("stuck.wasm", wasm(1));
    let app = site.until_asleep("/stuck").await;
    site.hold();
    for _ in 0..10 {
        let gone = tokio::time::timeout(Duration::from_millis(5), app.guest.awake_by(soon()));
        assert!(gone.await.is_err());
    }
    let late = app.guest.awake_by(Instant::now()).await;
    assert!(matches!(late, Err(Error::Busy(Busy::Asleep))));
    site.until("woken", |_| site.held() > 0).await;
    assert_eq!(site.held(), 1);
    let (first, second) = (app.guest.awake_by(soon()), app.guest.awake_by(soon()));
    site.let_go();
    let (first, second) = tokio::join!(first, second);
    assert!(Arc::ptr_eq(&first.expect("it wakes"), &second.expect("it wakes")));
}
