//! `wasgi serve --dev` builds a Python app again when its sources change.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use tests::{Host, Request, repository, wasgi};

/// What one build and one compilation may take where others run, too.
const PATIENCE: Duration = Duration::from_secs(240);

const SOURCE: &str = r#"
def app(environ, start_response):
    if environ["PATH_INFO"] == "/raise":
        raise ValueError("secret reason")
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"one"]
"#;

fn build(folder: &Path) {
    let mut command = wasgi();
    command.current_dir(folder).env("PYTHONPATH", repository().join("target/tools/python-sdk"));
    let built = command.args(["build", "shop:app", "--requirements", "/dev/null"]).output().expect("the binary runs");
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
}

fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let began = Instant::now();
    while !is_so() {
        assert!(began.elapsed() < PATIENCE, "waited in vain: {what}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// One test, since each build takes some seconds.
#[test]
fn a_change_of_the_sources_is_live_and_a_failed_rebuild_leaves_the_old_release_and_says_why() {
    let project = tempfile::tempdir().expect("there is a temporary directory");
    let source = project.path().join("shop.py");
    fs::write(&source, SOURCE).expect("it can be written");
    build(project.path());
    // The file is known wherever it lies.
    let wasm = fs::read(project.path().join("shop.wasm")).expect("it was built");
    let host = Host::start(|host| host.app("shop", wasm).config("dev = true\n").limit("compile_time=5m"));
    assert_eq!(host.get("/shop").text(), "one");
    host.log_contains("its sources are watched");

    fs::write(&source, SOURCE.replace("one", "two")).expect("it can be written");
    eventually("the change is live", || host.get("/shop").text() == "two");

    fs::write(&source, SOURCE.replace("one", "three") + "import nothing_of_that_name\n").expect("it can be written");
    let mut problem = String::new();
    eventually("the failure is shown", || {
        problem = host.listed("shop").map(|app| app.text("problem").to_owned()).unwrap_or_default();
        !problem.is_empty()
    });
    assert!(problem.contains("the rebuild failed: ") && problem.contains("shop.py:7: "), "{problem}");
    assert_eq!(host.get("/shop").text(), "two");
    let page = host.ask(&Request::get("/shop/raise").header("Host", "localhost").header("Accept", "text/html")).text();
    assert!(page.contains("ValueError: secret reason") && page.contains("the rebuild failed"), "{page}");
}
