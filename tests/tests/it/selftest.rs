//! `wasgi selftest --attack`: everything is stopped where limits are sane, and what is switched off shows.

use std::fs;
use std::process::Output;
use std::sync::atomic::{AtomicUsize, Ordering};

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

/// Arguments for some of the attacks, or groups of them.
fn only<'a>(attacks: &[&'a str]) -> Vec<&'a str> {
    ["--attack"].into_iter().chain(attacks.iter().flat_map(|attack| ["--only", attack])).collect()
}

#[test]
fn every_attack_is_stopped() {
    let config = "sandboxes = 200\n[limits]\ncpu_time = '500ms'\n[edge]\nheader_time = '1s'\n";
    let (output, text) = selftest(config, &["--attack"]);
    assert!(output.status.success(), "{text}");
    assert!(lines(&text, "  GOT THROUGH").is_empty(), "{text}");
    assert!(lines(&text, "  not tried").is_empty(), "{text}");
    assert!(lines(&text, "  stopped").len() >= 60, "{text}");
}

/// Whose programs and patience depend on the operator's numbers.
const BY_NUMBERS: &[&str] = &[
    "time",
    "clocks",
    "memory",
    "payloads",
    "protocol",
    "components",
    "clients",
    "sharing",
    "kept",
    "descriptors",
    "canary-for-a-neighbour",
    "canary-before-a-trap",
    "compile-for-long",
    "compile-in-memory",
    "giant-data",
    "file-of-zeros",
];

/// Little of everything, clocks that run out before the processor time, budgets that are smaller than limits, and one tenant who has the
/// whole site.
const TIGHT: &str = "
    sandboxes = 40
    sandbox_memory = '256MiB'
    [limits]
    memory = '16MiB'
    table_elements = 20000
    cpu_time = '200ms'
    wall_time = '5s'
    first_byte_time = '800ms'
    idle_time = '900ms'
    concurrent_calls = 8
    host_call_size = '512KiB'
    handles = 64
    response_headers = 20
    response_header_size = '2KiB'
    log_rate = '4KiB'
    module_size = '16MiB'
    compile_time = '20s'
    compile_memory = '1GiB'
    request_body_size = '256KiB'
    keyvalue_value_size = '4KiB'
    [budget]
    cpu_time = '500ms'
    memory = '12MiB'
    faults = 5
    [edge]
    connections = 400
    connections_per_address = 150
    header_time = '1s'
    [grant]
    randomness = false
    [tenant.everything]
    routes = ['/']";

/// Much of everything, and still less than what protects nobody.
const WIDE: &str = "
    sandboxes = 100
    [limits]
    memory = '1GiB'
    table_elements = 1000000
    cpu_time = '30s'
    wall_time = '30m'
    first_byte_time = '10m'
    idle_time = '10m'
    concurrent_calls = 1000
    host_call_size = '48MiB'
    handles = 10000
    response_headers = 1000
    response_header_size = '256KiB'
    log_rate = '1MiB'
    module_size = '100MiB'
    compile_memory = '8GiB'
    request_body_size = '64MiB'
    keyvalue_value_size = '4MiB'
    [budget]
    faults = 100
    [edge]
    request_headers = 500
    request_target_size = '64KiB'
    request_head_size = '512KiB'
    connections_per_address = 3000
    header_time = '2s'";

#[track_caller]
fn check_none_gets_through(config: &str) {
    let (output, text) = selftest(config, &only(BY_NUMBERS));
    assert!(output.status.success(), "{text}");
    assert!(lines(&text, "  stopped").len() >= 80, "{text}");
}

#[test]
fn limits_that_are_tight_stop_every_attack() {
    check_none_gets_through(TIGHT);
}

#[test]
fn limits_that_are_wide_stop_every_attack() {
    check_none_gets_through(WIDE);
}

/// What nobody could try is no success, and not counted as one.
#[test]
fn what_a_configuration_leaves_nothing_to_try_for_is_said_not_to_be_tried() {
    let config = "instances = 'reuse'\nsandboxes = 50\nconfine = 'strict'\n[limits]\nmemory = '4MiB'\n";
    let (output, text) = selftest(config, &only(&["canaries", "giant-log-line"]));
    assert!(output.status.success(), "{text}");
    let untried = lines(&text, "  not tried");
    assert_eq!(untried.len(), 6, "{text}");
    assert!(untried.iter().any(|line| line.contains("giant-log-line") && line.contains("limits.memory")), "{text}");
    assert!(text.contains("8 attacks: 2 stopped, 0 got through, 6 not tried"), "{text}");
    assert!(text.starts_with("attacked with confine = \"on\" (yours is \"strict\""), "{text}");
}

/// A protection that is switched off by this alone, and the attacks that then get through. Where there are two keys, one stands behind the
/// other, and either alone would stop them.
const SWITCHED_OFF: &[(&str, &[&str])] = &[
    (
        "[limits]\ncpu_time = '1h'",
        &[
            "loop-in-call",
            "loop-in-start",
            "loop-in-second-start",
            "loop-in-initialize",
            "loop-in-realloc",
            "loop-in-next",
            "loop-in-close",
            "loop-in-post-return",
            "loop-of-host-calls",
            "loop-of-fills",
            "loop-of-tables",
            "empty-blocks-for-ever",
            "loop-in-program",
            "http-loop",
            "http-loop-in-the-body",
            "http-loop-afterwards",
        ],
    ),
    ("[limits]\nfirst_byte_time = '1d'", &["sleep-before-the-head"]),
    ("[limits]\nidle_time = '1d'", &["sleep-in-the-body"]),
    ("[limits]\nwall_time = '7d'", &["drip-for-ever", "slow-bodies"]),
    (
        "[limits]\nmemory = '4GiB'",
        &["grow-step-by-step", "grow-at-once", "two-memories", "large-from-the-start", "http-memory"],
    ),
    ("[limits]\ntable_elements = 10000000", &["grow-table"]),
    ("[limits]\nhandles = 1000000", &["handles", "http-handles", "many-buckets"]),
    ("[limits]\nhost_call_size = '1GiB'", &["million-empty-blocks", "giant-log-line", "giant-exception"]),
    ("[limits]\nresponse_headers = 10000", &["thousands-of-headers"]),
    ("[limits]\nresponse_header_size = '1MiB'", &["giant-header"]),
    ("[limits]\nlog_rate = '1GiB'\n[budget]\nlog_rate = '1GiB'", &["log-flood"]),
    ("[limits]\nrequest_body_size = '1TiB'", &["endless-body", "announced-body"]),
    ("[limits]\nmodule_size = '1GiB'", &["file-of-zeros"]),
    ("[limits]\ncompile_time = '1h'", &["compile-for-long"]),
    ("[limits]\ncompile_memory = '256GiB'", &["compile-in-memory"]),
    ("[limits]\ndata_size = '64TiB'\n[budget]\ndisk = '1024TiB'", &["fill-the-disk", "sparse-file", "nameless-file"]),
    ("[limits]\ndata_files = 1000000000\n[budget]\ndisk_files = 10000000000", &["many-files"]),
    ("[limits]\nkeyvalue_size = '1TiB'\n[budget]\ndisk = '1024TiB'", &["fill-the-store"]),
    ("[limits]\nkeyvalue_value_size = '1GiB'", &["large-values"]),
    ("[budget]\nfaults = 1000000", &["crash-loop"]),
    ("[edge]\nheader_time = '10m'", &["slow-head"]),
    // Peers whose word counts have as many connections as there are.
    ("forwarded_allow_ips = ['*']\n[edge]\nconnections = 100", &["connections"]),
    (
        "[tenant.selftest-thief]\nroutes = ['/selftest-thief', '/selftest-victim/free', 'selftest-victim.example/free', '/']",
        &["claim-anothers-path", "claim-anothers-host", "claim-the-root"],
    ),
    ("[tenant.selftest-thief.grant.secrets]\nKEY = { env = 'PATH' }", &["ask-for-anothers-secret"]),
    ("[tenant.selftest-thief.grant]\ndata = ['*']", &["ask-for-anothers-folder"]),
    ("[tenant.selftest-thief.grant.keyvalue]\ndefault = {}\nsessions = {}", &["ask-for-anothers-store"]),
    ("[tenant.selftest-crowd.budget]\nweight = 1000", &["crowd-the-processors"]),
];

/// Which of these attacks do not get through, or do for another reason: that the neighbour was not served.
fn missing(config: &str, attacks: &[&str]) -> Option<String> {
    let (output, text) = selftest(config, &only(attacks));
    let through = lines(&text, "  GOT THROUGH");
    let is_through = |attack: &&&str| {
        through
            .iter()
            .any(|line| line.split_whitespace().nth(2) == Some(attack) && !line.contains("did not take place"))
    };
    let missing: Vec<_> = attacks.iter().filter(|attack| !is_through(attack)).collect();
    let is_told = output.status.code() == Some(1);
    (!missing.is_empty() || !is_told).then(|| format!("{missing:?} are stopped with {config}: {text}"))
}

/// Each protection alone. The rest is as it is by default, but for what makes the pool small and does not depend on the machine.
#[test]
fn what_is_switched_off_shows() {
    assert!(SWITCHED_OFF.iter().map(|(_, attacks)| attacks.len()).sum::<usize>() >= 30);
    let next = AtomicUsize::new(0);
    let run = || {
        let rows = std::iter::from_fn(|| SWITCHED_OFF.get(next.fetch_add(1, Ordering::Relaxed)));
        rows.filter_map(|(line, attacks)| {
            missing(&format!("workers = 2\nsandboxes = 50\nsandbox_memory = '64GiB'\n{line}\n"), attacks)
        })
        .collect::<Vec<_>>()
    };
    let wrong: Vec<_> = std::thread::scope(|scope| {
        let runs: Vec<_> = (0..3).map(|_| scope.spawn(run)).collect();
        runs.into_iter().flat_map(|run| run.join().expect("it does not panic")).collect()
    });
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
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
