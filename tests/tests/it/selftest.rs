//! `wasgi selftest --attack`: everything is stopped where limits are sane, and what is switched off shows.

use std::fs;
use std::process::Output;

use tests::wasgi;

/// Runs it under a configuration. The attacks themselves are waited for, however long they take.
fn selftest(config: &str, arguments: &[&str]) -> (Output, String) {
    let folder = tempfile::tempdir().expect("there is a temporary directory");
    let file = folder.path().join("wasgi.toml");
    fs::write(&file, config).expect("the directory is ours");
    let mut command = wasgi();
    command.arg("selftest").args(arguments).arg("--config").arg(&file).current_dir(folder.path());
    let output = command.output().expect("the binary can be run");
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    (output, text)
}

fn lines<'a>(text: &'a str, begin: &str) -> Vec<&'a str> {
    text.lines().filter(|line| line.starts_with(begin)).collect()
}

#[test]
fn every_attack_is_stopped() {
    let config = "sandboxes = 200\n[limits]\ncpu_time = '500ms'\n[edge]\nheader_time = '1s'\n";
    let (output, text) = selftest(config, &["--attack"]);
    assert!(output.status.success(), "{text}");
    assert!(lines(&text, "  GOT THROUGH").is_empty(), "{text}");
    assert!(lines(&text, "  stopped").len() >= 60, "{text}");
}

/// Which of these attacks get through, all in one run.
#[track_caller]
fn check_all_get_through(config: &str, attacks: &[&str]) {
    let only: Vec<_> = attacks.iter().flat_map(|attack| ["--only", attack]).collect();
    let (output, text) = selftest(config, &[&["--attack"], &only[..]].concat());
    assert_eq!(output.status.code(), Some(1), "{text}");
    let through = lines(&text, "  GOT THROUGH");
    let missing: Vec<_> = attacks
        .iter()
        .filter(|attack| !through.iter().any(|line| line.split_whitespace().nth(2) == Some(attack)))
        .collect();
    assert!(missing.is_empty(), "{missing:?} are stopped by nothing that anybody knows of: {text}");
}

/// Limits so high that they are none: each attack has to show it.
#[test]
fn what_is_switched_off_shows() {
    let config = "
        sandboxes = 50
        [limits]
        cpu_time = '1h'
        memory = '4GiB'
        table_elements = 10000000
        handles = 1000000
        host_call_size = '1GiB'
        response_header_size = '1MiB'
        log_rate = '1GiB'
        request_body_size = '1TiB'
        [budget]
        log_rate = '1GiB'
        faults = 1000000";
    let attacks = [
        "loop-in-call",
        "grow-step-by-step",
        "grow-at-once",
        "two-memories",
        "large-from-the-start",
        "grow-table",
        "million-empty-blocks",
        "handles",
        "giant-log-line",
        "log-flood",
        "giant-exception",
        "giant-header",
        "endless-body",
        "crash-loop",
    ];
    check_all_get_through(config, &attacks);
}

/// Peers whose word counts have as many connections as there are.
#[test]
fn connections_that_one_client_may_take_all_of_show() {
    let config = "[edge]\nconnections = 100\n";
    let (output, text) = selftest(config, &["--attack", "--only", "connections"]);
    assert!(output.status.success(), "{text}");
    check_all_get_through(&format!("forwarded_allow_ips = ['*']\n{config}"), &["connections"]);
}

/// Quotas of more than any disk has.
#[test]
fn quotas_that_are_none_show() {
    let config = "
        sandboxes = 50
        [limits]
        data_size = '64TiB'
        data_files = 1000000000
        keyvalue_size = '1TiB'
        keyvalue_keys = 1000000000
        keyvalue_value_size = '1GiB'
        [budget]
        disk = '1024TiB'
        disk_files = 10000000000";
    let attacks = ["fill-the-disk", "sparse-file", "many-files", "nameless-file", "fill-the-store", "large-values"];
    check_all_get_through(config, &attacks);
}

/// A weight with which a tenant's many loops leave nothing to another's.
#[test]
fn what_tenants_do_not_share_shows() {
    let config = "workers = 2\nsandboxes = 100\n[limits]\ncpu_time = '100ms'\n";
    let attack = ["--attack", "--only", "crowd-the-processors"];
    let (output, text) = selftest(config, &attack);
    assert!(output.status.success(), "{text}");
    let (output, text) = selftest(&format!("{config}[tenant.selftest-crowd.budget]\nweight = 1000\n"), &attack);
    assert_eq!(output.status.code(), Some(1), "{text}");
}

#[test]
fn attacks_can_be_listed_and_read() {
    let (output, list) = selftest("", &["--list"]);
    assert!(output.status.success());
    assert!(list.contains("loop-in-start"), "{list}");
    let (output, program) = selftest("", &["--show", "loop-in-start"]);
    assert!(output.status.success());
    assert!(program.contains("(start $start)"), "{program}");
    let (output, text) = selftest("", &["--attack", "--only", "no-such-attack"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text.contains("--list"), "{text}");
    assert_eq!(selftest("", &[]).0.status.code(), Some(1), "nothing is attacked unasked");
}

#[test]
fn the_threat_model_names_every_attack() {
    let page = fs::read_to_string(tests::repository().join("docs/threat-model.md")).expect("it is there");
    let (_, list) = selftest("", &["--list"]);
    let missing: Vec<_> = lines(&list, "  ")
        .into_iter()
        .filter_map(|line| line.split_whitespace().next())
        .filter(|name| !page.contains(&format!("`{name}`")))
        .collect();
    assert!(missing.is_empty(), "docs/threat-model.md does not say which promise these try: {missing:?}");
}
