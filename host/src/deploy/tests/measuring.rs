//! What tenants have kept, counted before their first app can write.

use super::super::cache::Cache;
use super::super::library::Library;
use super::super::load::{Common, Loader};
use super::*;
use crate::granted::Granted;
use crate::keyvalue::Stores;
use crate::outbound::Network;

fn loader(config: &Arc<Config>) -> Arc<Loader> {
    let compiler = compiler(config);
    let cache = Cache::open(&config.state_dir, config.passes).expect("the directory is ours");
    let library = Library::open(&config.state_dir, compiler.unpacker()).expect("the directory is ours");
    let plan = Plan::of(config).expect("nothing is granted");
    let (network, stores) = (Network::new(plan), Stores::new(Arc::clone(config)));
    let granted = Granted::new(Arc::clone(config)).expect("nothing is granted");
    let common = Common { network, stores, capsules: Capsules::off(), granted };
    let engine = Arc::new(Engine::new(config).expect("the machine has address space"));
    Arc::new(Loader::new(engine, cache, library, compiler, stand_in, common, &config.data_dir))
}

#[tokio::test]
async fn it_is_counted_to_the_end_whoever_comes_and_goes() {
    let root = tempfile::tempdir().expect("a temporary directory can be made");
    let config = Arc::new(Config { data_dir: root.path().join("data"), ..config(root.path()) });
    std::fs::create_dir_all(config.data_dir.join("acme+one/folder")).expect("folders can be made");
    let loader = loader(&config);
    let account = loader.accounts.of(&config, "acme/x");
    let turn = loader.measuring.take("acme").await;
    for _ in 0..3 {
        let cancelled = tokio::time::timeout(Duration::from_millis(20), loader.measure(&account));
        assert!(cancelled.await.is_err(), "it has had no turn");
    }
    assert_eq!(account.disk_names(), 0);
    drop(turn);
    let began = Instant::now();
    while account.disk_names() == 0 {
        assert!(began.elapsed() < Duration::from_secs(10), "nobody counts it");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(loader.measure(&account).await.is_ok());
    assert_eq!(account.disk_names(), 2, "it was counted once");
}

#[tokio::test]
async fn nobody_goes_on_while_it_cannot_be_counted() {
    let root = tempfile::tempdir().expect("a temporary directory can be made");
    let config = Arc::new(Config { data_dir: root.path().join("data"), ..config(root.path()) });
    std::fs::write(&config.data_dir, "no directory").expect("files can be written");
    let loader = loader(&config);
    let account = loader.accounts.of(&config, "acme/x");
    assert!(loader.measure(&account).await.is_err());
    std::fs::remove_file(&config.data_dir).expect("it is there");
    assert!(loader.measure(&account).await.is_ok());
}

#[tokio::test]
async fn stores_whose_file_the_operator_has_removed_count_no_more() {
    let root = tempfile::tempdir().expect("a temporary directory can be made");
    let config = Arc::new(Config { data_dir: root.path().join("data"), ..config(root.path()) });
    let file = config.data_dir.join(".keyvalue/tenants/acme.redb");
    std::fs::create_dir_all(file.parent().expect("it has one")).expect("folders can be made");
    std::fs::write(&file, "this is no file of stores").expect("files can be written");
    let loader = loader(&config);
    let account = loader.accounts.of(&config, "acme/x");
    assert!(loader.measure(&account).await.is_ok());
    assert_eq!(account.disk_bytes(), 25, "all of what cannot be read");
    std::fs::remove_file(&file).expect("it is there");
    loader.common.stores.measure(&account);
    assert_eq!(account.disk_bytes(), 0);
}
