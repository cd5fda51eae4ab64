//! What is kept in files, with many tenants and while others change what is granted.

use std::time::Duration;

use tokio::task::JoinSet;

use super::*;
use crate::config::{AppNames, Grants, StoreGrant, Tenant};
use crate::limits::Budget;

fn granting(folder: &std::path::Path, tenants: &[String]) -> Arc<Config> {
    let grant = StoreGrant { apps: AppNames::all(), sharing: Sharing::Own, backend: StoreBackend::Embedded };
    let grants = || Grants { keyvalue: [("default".to_owned(), grant.clone())].into(), ..Grants::default() };
    let tenant = |name: &String| {
        let (limits, budget) = (Limits::default(), Budget::default());
        (name.clone(), Tenant { name: name.clone(), routes: Vec::new(), limits, budget, grants: grants() })
    };
    let tenants = tenants.iter().map(tenant).collect();
    Arc::new(Config { data_dir: folder.to_owned(), grants: grants(), tenants, ..Config::default() })
}

fn store(stores: &Arc<Stores>, app: &str, limits: &Limits) -> Store {
    let keyvalue = Keyvalue::new(stores, app, &["default".to_owned()], limits, &Account::of_nobody());
    keyvalue.open("default").expect("it is granted")
}

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().expect("a temporary directory can be made")
}

async fn put(store: &Store, key: &str, value: &str) -> Result<(), Failure> {
    store.set(vec![(key.to_owned(), value.as_bytes().to_vec())]).await
}

async fn value(store: &Store, key: &str) -> Option<Vec<u8>> {
    store.get_one(key).await.expect("it can be read").map(|entry| entry.value)
}

#[tokio::test]
async fn files_that_were_used_longest_ago_are_closed_and_found_again() {
    let folder = folder();
    let tenants: Vec<String> = (0..70).map(|number| format!("tenant-{number}")).collect();
    let stores = Stores::new(granting(folder.path(), &tenants));
    let of = |tenant: &String| store(&stores, &format!("{tenant}/app"), &Limits::default());
    for tenant in &tenants {
        put(&of(tenant), "who", tenant).await.expect("there is room");
    }
    assert!(stores.embedded.open_files() <= 64, "{} are open", stores.embedded.open_files());
    for tenant in &tenants {
        assert_eq!(value(&of(tenant), "who").await, Some(tenant.clone().into_bytes()));
    }
    assert!(stores.embedded.open_files() <= 64);
}

#[tokio::test]
async fn what_waits_goes_together_and_a_limit_stops_only_its_own() {
    let folder = folder();
    let stores = Stores::new(granting(folder.path(), &[]));
    let limits = Limits { keyvalue_keys: 30, ..Limits::default() };
    let mut changes = JoinSet::new();
    for number in 0..100 {
        let store = store(&stores, "app", &limits);
        changes.spawn(async move { put(&store, &format!("{number}"), "x").await });
    }
    let outcomes = changes.join_all().await;
    assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), 30);
    assert!(outcomes.iter().all(|outcome| matches!(outcome, Ok(()) | Err(Failure::Keys(30)))));
    let page = store(&stores, "app", &limits).keys(None).await.expect("it can be read");
    assert_eq!((page.keys.len(), page.goes_on), (30, false));
}

#[tokio::test]
async fn a_change_that_waited_is_not_made_when_the_grant_is_gone() {
    let folder = folder();
    let config = granting(folder.path(), &[]);
    let stores = Stores::new(Arc::clone(&config));
    let store = store(&stores, "app", &Limits::default());
    let busy = stores.embedded.occupy().await;
    let waits = tokio::spawn({
        let store = store.clone();
        async move { put(&store, "a", "x").await }
    });
    while stores.embedded.waiting("") == 0 {
        tokio::task::yield_now().await;
    }
    stores.change(Arc::new(Config { grants: Grants::default(), ..(*config).clone() }));
    drop(busy);
    assert_eq!(waits.await.expect("it ends"), Err(Failure::Denied));
    assert_eq!(store.get_one("a").await, Err(Failure::Denied));
    stores.change(config);
    assert_eq!(value(&store, "a").await, None);
}

#[tokio::test]
async fn a_call_that_is_gone_leaves_nothing_to_do() {
    let folder = folder();
    let stores = Stores::new(granting(folder.path(), &[]));
    let store = store(&stores, "app", &Limits::default());
    let busy = stores.embedded.occupy().await;
    let waits = tokio::spawn({
        let store = store.clone();
        async move { put(&store, "a", "x").await }
    });
    while stores.embedded.waiting("") == 0 {
        tokio::task::yield_now().await;
    }
    waits.abort();
    let _ = waits.await;
    drop(busy);
    put(&store, "b", "x").await.expect("there is room");
    assert_eq!(value(&store, "a").await, None);
}

/// Keeps the files of some tenants from being opened, as a repair does.
fn while_repaired(embedded: &Embedded, tenants: &[String], meanwhile: &mut dyn FnMut()) {
    match tenants {
        [] => meanwhile(),
        [first, rest @ ..] => embedded.repair(first, || while_repaired(embedded, rest, meanwhile)),
    }
}

#[test]
fn files_that_are_being_repaired_keep_no_other_tenant_waiting() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = runtime.expect("it starts");
    let folder = folder();
    // Together they may have more threads than there are for all.
    let damaged: Vec<String> = (0..5).map(|number| format!("damaged-{number}")).collect();
    let tenants: Vec<String> = damaged.iter().cloned().chain(["sound", "other"].map(str::to_owned)).collect();
    let _runtime = runtime.enter();
    let stores = Stores::new(granting(folder.path(), &tenants));
    let of = |tenant: &str| store(&stores, &format!("{tenant}/app"), &Limits::default());
    runtime.block_on(put(&of("sound"), "a", "x")).expect("there is room");
    while_repaired(&stores.embedded, &damaged, &mut || {
        for tenant in &damaged {
            for number in 0..5 {
                let store = of(tenant);
                runtime.spawn(async move { store.get_one("a").await });
                let store = of(tenant);
                runtime.spawn(async move { put(&store, &format!("{number}"), "x").await });
            }
        }
        let done = runtime.block_on(async {
            // They have begun to wait.
            while stores.embedded.waiting(&damaged[4]) < 5 {
                tokio::task::yield_now().await;
            }
            tokio::time::timeout(Duration::from_secs(20), async {
                assert_eq!(value(&of("sound"), "a").await, Some(b"x".to_vec()));
                // One that has to be opened first.
                put(&of("other"), "a", "x").await
            })
            .await
        });
        done.expect("nobody waits").expect("there is room");
        stores.embedded.measure(&Account::of("other"));
    });
    runtime.block_on(put(&of("damaged-0"), "b", "x")).expect("it is whole again");
}

#[test]
fn what_does_not_grow_always_fits() {
    let bounds = Bounds { bytes_max: 100, keys_max: 1, ..Bounds::of(&Limits::default()) };
    let usage = |bytes, keys| Usage { bytes, keys };
    for (before, after, fits) in [
        (usage(0, 0), usage(100, 1), true),
        (usage(0, 0), usage(101, 1), false),
        (usage(0, 0), usage(50, 2), false),
        (usage(500, 9), usage(400, 9), true),
        (usage(500, 9), usage(501, 9), false),
        (usage(500, 9), usage(500, 8), true),
    ] {
        assert_eq!(after.check(before, bounds).is_ok(), fits, "{before:?} {after:?}");
    }
}
