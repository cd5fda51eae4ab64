//! One tenant's files, as many and as large as it likes, and what the others notice of them: nothing.

use std::fs::{self, File};

use super::reload;
use tests::{Host, eventually, guest};

#[test]
fn a_folder_that_holds_too_much_is_its_tenants_matter_alone() {
    let host = Host::start(|host| host.app("b/app", guest("probe")));
    fs::create_dir_all(host.apps_dir().join("a/deep")).expect("the folder is ours");
    host.drop_in("a/app.wasm", guest("probe"));
    host.until("/a/app/hello", 200, "hello");
    let links = host.apps_dir().join("a/deep");
    for number in 0..20_001 {
        File::create(links.join(number.to_string())).expect("the folder is ours");
    }
    host.listed_problem("a/", "it holds more than 20000 files and folders");
    // What is live stays, and others deploy, replace and remove.
    host.drop_in("b/new.wasm", guest("probe"));
    host.until("/b/new/hello", 200, "hello");
    host.remove("b/new.wasm");
    host.until("/b/new/hello", 404, "");
    assert_eq!(host.get("/a/app/hello").text(), "hello");
    // A restart serves all but this tenant's.
    let host = host.restart();
    host.listed_problem("a/", "it holds more than 20000 files and folders");
    assert_eq!((host.get("/b/app/hello").status(), host.get("/a/app/hello").status()), (200, 404));
    fs::remove_dir_all(host.apps_dir().join("a/deep")).expect("it is there");
    host.until("/a/app/hello", 200, "hello");
}

#[test]
fn a_neighbour_that_sleeps_is_woken_and_deploys_while_a_tenants_files_are_read() {
    const LINKS: usize = 1000;
    let host = Host::start(|host| host.config("app_idle_time = '100ms'").app("b/app", guest("probe")));
    host.log().wait("b/app sleeps", |event| event.text("app") == "b/app" && event.message() == "asleep");
    fs::create_dir_all(host.apps_dir().join("a")).expect("the folder is ours");
    // The largest file that may be, under many names: each is read and hashed.
    let large = host.folder().join("large");
    File::create(&large).and_then(|file| file.set_len(64 << 20)).expect("the folder is ours");
    for number in 0..LINKS {
        fs::hard_link(&large, host.apps_dir().join(format!("a/{number}.wasm"))).expect("it is the same file system");
    }
    let judged = || {
        host.log().all(|event| event.text("app").starts_with("a/") && event.message().starts_with("refused: ")).len()
    };
    eventually("the first are judged", || (judged() > 0).then_some(()));
    assert_eq!(host.get("/b/app/hello").text(), "hello");
    host.drop_in("b/new.wasm", guest("probe"));
    host.until("/b/new/hello", 200, "hello");
    let judged = judged();
    assert!(judged < LINKS / 2, "{judged} of {LINKS} files were read before");
}

#[test]
fn what_the_operator_takes_away_is_gone_whatever_the_sidecar_says() {
    let config = "[tenant.acme.grant.env]\nREGION = 'eu'\n[tenant.acme.grant.secrets]\nKEY = { file = 'key' }\n";
    let host = Host::start(|host| {
        fs::write(host.folder().join("key"), "hush").expect("the folder is ours");
        let host = host.config(config).app("acme/shop", guest("probe"));
        host.app("acme/keeper", guest("probe")).sidecar("acme/keeper", "secrets = ['KEY']")
    });
    let environ = |app: &str| host.get(&format!("/acme/{app}/environ"));
    assert!(environ("shop").text().contains("REGION=eu") && environ("keeper").text().contains("KEY=hush"));
    for app in ["shop", "keeper"] {
        host.drop_in(&format!("acme/{app}.toml"), "nonsense = 1");
        host.listed_problem(&format!("acme/{app}"), "nonsense");
    }
    fs::remove_file(host.folder().join("key")).expect("it is there");
    reload(&host, &config.replace("REGION", "OTHER"));
    eventually("the variable is gone", || {
        let answer = environ("shop");
        (answer.status() == 200 && !answer.text().contains("REGION=")).then_some(())
    });
    eventually("nothing has the secret", || (environ("keeper").status() == 404).then_some(()));
    // Listed is what is wrong with its newest file, which is judged after that.
    host.log_contains("the secret KEY cannot be read");
}
