//! What the operator lowers or takes away, where a tenant keeps its sidecar from being accepted.

use super::*;
use crate::config::{Access, AppNames, DirectoryGrant, SecretGrant, SecretSource};

const THREE_SECONDS: &str = "[limits]\ncpu_time = \"3s\"\n";

impl Site {
    async fn reload(&self, config: Config) {
        let plan = Plan::of(&config).expect("nothing is granted that needs one");
        self.handle.reload(Arc::new(config), plan).await;
    }

    fn lower(&self) -> Config {
        let mut lower = (*self.config).clone();
        lower.limits.cpu_time = Duration::from_secs(1);
        lower
    }

    async fn until_lower(&self, path: &str) {
        let is_lower = |app: Arc<App>| app.spec.limits.cpu_time == Duration::from_secs(1);
        self.until("lower", |table| at(table, path).is_some_and(is_lower)).await;
    }
}

#[tokio::test]
async fn a_ceiling_that_was_lowered_counts_whatever_became_of_the_sidecar() {
    let site = Site::new().await;
    std::fs::create_dir(site.config.apps_dir.join("a")).expect("folders can be made");
    for name in ["asks", "broken", "a/unread", "link"] {
        site.put(&format!("{name}.toml"), THREE_SECONDS);
        site.put(&format!("{name}.wasm"), wasm(1));
        let app = site.until_live(&format!("/{name}")).await;
        assert_eq!(app.spec.limits.cpu_time, Duration::from_secs(3));
    }
    site.put("broken.toml", "no such key = true\n");
    site.until_refused("broken", "broken.toml").await;
    for number in 0..20_001 {
        std::fs::write(site.config.apps_dir.join(format!("a/{number}")), "").expect("files can be written");
    }
    site.until_refused("a/", "more than 20000").await;
    site.remove("link.toml");
    std::os::unix::fs::symlink("/nowhere", site.config.apps_dir.join("link.toml")).expect("links can be made");
    site.until_refused("link", "symbolic link").await;
    site.reload(site.lower()).await;
    for name in ["asks", "broken", "a/unread", "link"] {
        site.until_lower(&format!("/{name}")).await;
    }
    site.until_refused("asks", "more than the operator's 1s").await;
    site.until_refused("broken", "broken.toml").await;
    // Other tenants deploy as ever.
    site.look(7).await;
}

#[tokio::test]
async fn a_sidecar_that_never_comes_to_rest_keeps_no_ceiling() {
    let site = Site::new().await;
    site.put("hog.toml", THREE_SECONDS);
    site.put("hog.wasm", wasm(1));
    site.until_live("/hog").await;
    // Written in place, so that it is not known to be whole.
    std::fs::write(site.config.apps_dir.join("hog.toml"), THREE_SECONDS).expect("files can be written");
    site.reload(Config { settle_time: Duration::from_secs(3600), ..site.lower() }).await;
    site.until_lower("/hog").await;
}

#[tokio::test]
async fn an_app_whose_secret_cannot_be_read_any_more_is_not_served() {
    let secret = std::cell::OnceCell::new();
    let grant = |config: &mut Config| {
        let path = config.state_dir.with_file_name("secret");
        std::fs::write(&path, "old").expect("files can be written");
        let grant = SecretGrant { source: SecretSource::File(path.clone()), apps: AppNames::all() };
        config.grants.secrets.insert("KEY".to_owned(), grant);
        secret.set(path).expect("it is set once");
    };
    let site = Site::configured(grant, |_| ()).await;
    let secret = secret.get().expect("it was set");
    for name in ["good", "broken"] {
        site.put(&format!("{name}.toml"), "secrets = [\"KEY\"]\n");
        site.put(&format!("{name}.wasm"), wasm(1));
        site.until_live(&format!("/{name}")).await;
    }
    site.put("broken.toml", "no such key = true\n");
    site.until_refused("broken", "broken.toml").await;
    // Another text reaches both.
    std::fs::write(secret, "new").expect("files can be written");
    site.reload((*site.config).clone()).await;
    for path in ["/good", "/broken"] {
        let has_new = |app: Arc<App>| app.secrets[0].1.expose() == "new";
        site.until("it has the new one", |table| at(table, path).is_some_and(has_new)).await;
    }
    std::fs::remove_file(secret).expect("it is there");
    site.reload((*site.config).clone()).await;
    for path in ["/good", "/broken"] {
        site.until("it is gone", |table| at(table, path).is_none()).await;
    }
    site.until_refused("good", "the secret KEY cannot be read").await;
    // What can be read again is in force again.
    std::fs::write(secret, "newest").expect("files can be written");
    site.reload((*site.config).clone()).await;
    site.until_live("/good").await;
}

#[tokio::test]
async fn a_sidecar_that_asks_for_a_secret_which_cannot_be_read_leaves_the_old_release() {
    let grant = |config: &mut Config| {
        let source = SecretSource::File(config.state_dir.with_file_name("not there"));
        config.grants.secrets.insert("KEY".to_owned(), SecretGrant { source, apps: AppNames::all() });
    };
    let site = Site::configured(grant, |_| ()).await;
    site.put("asks.wasm", wasm(1));
    let first = site.until_live("/asks").await;
    site.put("asks.toml", "secrets = [\"KEY\"]\n");
    site.until_refused("asks", "the secret KEY cannot be read").await;
    assert!(at(&site.apps.snapshot(), "/asks").is_some_and(|live| Arc::ptr_eq(&first, &live)));
}

#[tokio::test]
async fn what_goes_on_with_less_needs_nothing_anew() {
    let media = std::cell::OnceCell::new();
    let grant = |config: &mut Config| {
        let path = config.state_dir.canonicalize().unwrap_or_else(|_| config.state_dir.clone());
        let path = path.with_file_name("media");
        std::fs::create_dir(&path).expect("folders can be made");
        let (bytes_max, names_max, apps) = (None, None, AppNames::all());
        let grant = DirectoryGrant { path: path.clone(), access: Access::Read, bytes_max, names_max, apps };
        config.grants.directories.insert("/media".to_owned(), grant);
        config.budget.descriptors = 1;
        media.set(path).expect("it is set once");
    };
    let site = Site::configured(grant, |_| ()).await;
    let media = media.get().expect("it was set");
    site.put("sees.toml", "directories = [\"/media\"]\n");
    site.put("sees.wasm", wasm(1));
    let first = site.until_live("/sees").await;
    assert_eq!(first.guest.recipe().own.account.descriptors(), 1, "all that its tenant may have");
    // Who writes beside it has called it something else.
    std::fs::rename(media, media.with_file_name("elsewhere")).expect("folders can be renamed");
    site.put("sees.toml", "no such key = true\n");
    site.until_refused("sees", "sees.toml").await;
    site.reload(site.lower()).await;
    let mut was_gone = false;
    let is_lower = |app: Arc<App>| app.spec.limits.cpu_time == Duration::from_secs(1);
    site.until("lower", |table| {
        was_gone |= at(table, "/sees").is_none();
        was_gone || at(table, "/sees").is_some_and(is_lower)
    })
    .await;
    assert!(!was_gone, "{}", problem(&site.apps.snapshot(), "sees"));
    site.look(7).await;
    assert!(at(&site.apps.snapshot(), "/sees").is_some_and(is_lower));
}
