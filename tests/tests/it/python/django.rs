//! A Django project, from `migrate` to the admin: built from its folder without a word, as its users write it.

use std::process::Output;

use tests::{Client, Host, Request, Response, eventually, guest, wasgi};

use super::frameworks::{check, form, upload};

/// One test, since the component takes a while to load.
#[test]
fn a_django_project_works_from_migrate_to_admin() {
    let host = Host::start(|host| {
        // Hashing passwords is work on purpose, and machines that test are busy.
        host.app("mysite", guest("django")).config("[grant]\ndata = ['mysite']\n").limit("cpu_time=60s")
    });
    migrates_and_makes_a_user(&host);
    let mut visitor = Visitor::new(&host);
    sessions_forms_and_uploads_work(&mut visitor);
    static_files_are_the_hosts(&host);
    the_admin_works(&mut visitor);
    fails_alone(&host);
    // In a database of its own, which the import made beside the code.
    check(&host.get("/mysite/visits"), 200, "visit 1 of all");
    let host = host.restart();
    check(&host.get("/mysite/visits"), 200, "visit 2 of all");
    check(&host.get("/mysite/"), 200, "<li>a note</li>");
    a_new_release_has_the_old_data(&host);
}

fn a_new_release_has_the_old_data(host: &Host) {
    let release = || host.listed("mysite").map(|app| app.text("release")).expect("it is listed");
    let (old, mut wasm) = (release(), guest("django"));
    // The same code, which need not be compiled again, in a file of another hash.
    let (said, otherwise) = (b"{\"version\": 1", b"{\"version\" :1");
    let at = wasm.windows(said.len()).position(|window| window == said).expect("it has a manifest");
    wasm[at..at + said.len()].copy_from_slice(otherwise);
    host.drop_in("mysite.wasm", wasm);
    eventually("the new release is live", || (release() != old).then_some(()));
    check(&host.get("/mysite/"), 200, "<li>a note</li>");
    check(&host.get("/mysite/visits"), 200, "visit 3 of all");
    let mut visitor = Visitor::new(host);
    check(&visitor.get("/mysite/admin/login/"), 200, "Django administration");
    let login = visitor.post("/mysite/admin/login/?next=/mysite/admin/", "username=ann&password=open+sesame");
    assert_eq!(login.status(), 302, "{}", login.text());
}

/// The database lies beside the code by the settings: it is in /data, and whoever has none is told so.
#[test]
fn a_project_without_data_says_what_is_missing_and_development_mode_why_it_failed() {
    let host = Host::start(|host| host.app("mysite", guest("django")).config("dev = true\n").limit("cpu_time=60s"));
    let (done, said) = manage(&host, &["migrate"]);
    assert!(!done && said.contains("put \"mysite\" into `data` of [grant]"), "{said}");
    assert!(host.listed("mysite").is_some_and(|app| app.text("problem").contains("into `data` of [grant]")));
    host.write_config("dev = true\n[grant]\ndata = ['mysite']\n");
    host.signal(rustix::process::Signal::HUP);
    eventually("it is served", || (host.get("/mysite/fail").status() == 500).then_some(()));
    let ask = |name: &str| host.ask(&Request::get("/mysite/fail").header("Host", name));
    let page = ask("localhost");
    check(&page, 500, "ValueError: secret reason");
    assert!(page.text().contains("notes/views.py") && page.text().contains("by development mode"), "{}", page.text());
    let hidden = ask("shop.example");
    check(&hidden, 500, "Server Error (500)");
    assert!(!hidden.text().contains("secret"), "{}", hidden.text());
}

#[track_caller]
fn manage(host: &Host, arguments: &[&str]) -> (bool, String) {
    run(host, "apps/mysite.wasm", arguments)
}

/// `wasgi manage`: whether it went well, and what it said.
pub(super) fn run(host: &Host, file: &str, arguments: &[&str]) -> (bool, String) {
    let mut command = wasgi();
    command.current_dir(host.folder()).args(["manage", "--state-dir"]).arg(host.state_dir());
    command.args(["-e", "DJANGO_SUPERUSER_PASSWORD=open sesame", file]).args(arguments);
    let Output { status, stdout, stderr } = command.output().expect("the binary can be run");
    (status.success(), String::from_utf8_lossy(&[stdout, stderr].concat()).into_owned())
}

fn migrates_and_makes_a_user(host: &Host) {
    let (done, said) = manage(host, &["migrate"]);
    assert!(done && said.contains("Applying notes.0001_initial... OK"), "{said}");
    let user = ["createsuperuser", "--noinput", "--username", "ann", "--email", "ann@example.org"];
    let (done, said) = manage(host, &user);
    assert!(done && said.contains("Superuser created successfully"), "{said}");
    let (done, said) = manage(host, &user);
    assert!(!done && said.contains("already taken"), "{said}");
    let (done, said) = manage(host, &["no-such-command"]);
    assert!(!done && said.contains("Unknown command: 'no-such-command'"), "{said}");
}

/// A browser, as far as cookies go.
struct Visitor {
    client: Client,
    cookies: Vec<(String, String)>,
}

impl Visitor {
    fn new(host: &Host) -> Self {
        Self { client: host.connect(), cookies: Vec::new() }
    }

    fn ask(&mut self, request: Request) -> Response {
        let cookies: Vec<String> = self.cookies.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let response = self.client.ask(&request.header("Cookie", cookies.join("; ")));
        for cookie in response.head.all("set-cookie") {
            let (name, value) = cookie.split(';').next().and_then(|pair| pair.split_once('=')).expect("it is a cookie");
            self.cookies.retain(|(known, _)| known != name);
            self.cookies.push((name.to_owned(), value.to_owned()));
        }
        response
    }

    fn get(&mut self, target: &str) -> Response {
        self.ask(Request::get(target))
    }

    /// What every form of Django's wants.
    fn token(&self) -> String {
        let token = self.cookies.iter().find(|(name, _)| name == "csrftoken");
        token.expect("a form was shown").1.clone()
    }

    fn post(&mut self, target: &str, fields: &str) -> Response {
        let token = self.token();
        self.ask(form(target, &format!("csrfmiddlewaretoken={token}&{fields}")))
    }
}

fn sessions_forms_and_uploads_work(visitor: &mut Visitor) {
    check(&visitor.get("/mysite/"), 200, "<p>visit 1</p>");
    check(&visitor.get("/mysite/"), 200, "<p>visit 2</p>");
    check(&visitor.ask(form("/mysite/", "text=forged")), 403, "");
    let kept = visitor.post("/mysite/", "text=a+note");
    assert_eq!((kept.status(), kept.header("location").as_deref()), (302, Some("/mysite/")), "{}", kept.text());
    let page = visitor.get("/mysite/");
    check(&page, 200, "<p>kept: a note</p>");
    check(&page, 200, "<li>a note</li>");
    check(&page, 200, r#"href="/mysite/static/notes/style.css""#);
    // More than Django keeps in memory: it is a temporary file first.
    let token = visitor.token();
    let picture = upload(
        "/mysite/",
        ("picture", "p.png"),
        &vec![7; 3_000_000],
        &[("text", "large"), ("csrfmiddlewaretoken", &token)],
    );
    assert_eq!(visitor.ask(picture).status(), 302);
    check(&visitor.get("/mysite/"), 200, "<li>large (3000000 bytes)</li>");
}

fn static_files_are_the_hosts(host: &Host) {
    let style = host.get("/mysite/static/notes/style.css");
    check(&style, 200, "color: navy");
    assert!(style.header("etag").is_some(), "the host serves it");
    check(&host.get("/mysite/static/admin/css/base.css"), 200, "DJANGO Admin");
}

fn the_admin_works(visitor: &mut Visitor) {
    let away = visitor.get("/mysite/admin/");
    assert_eq!(away.header("location").as_deref(), Some("/mysite/admin/login/?next=/mysite/admin/"));
    check(&visitor.get("/mysite/admin/login/"), 200, "Django administration");
    check(&visitor.post("/mysite/admin/login/", "username=ann&password=wrong"), 200, "Please enter the correct");
    let login = visitor.post("/mysite/admin/login/?next=/mysite/admin/", "username=ann&password=open+sesame");
    assert_eq!(login.status(), 302, "{}", login.text());
    check(&visitor.get("/mysite/admin/"), 200, "Site administration");
    let added = visitor.post("/mysite/admin/notes/note/add/", "text=by+the+admin");
    assert_eq!(added.status(), 302, "{}", added.text());
    check(&visitor.get("/mysite/admin/notes/note/"), 200, "by the admin</a>");
}

fn fails_alone(host: &Host) {
    let failed = host.get("/mysite/fail");
    check(&failed, 500, "Server Error (500)");
    assert!(!failed.text().contains("secret"), "{}", failed.text());
    host.log_contains("ValueError: secret reason");
    check(&host.get("/mysite/"), 200, "<p>visit 1</p>");
}
