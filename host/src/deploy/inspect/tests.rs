//! What files are, and why some are refused.

use super::*;

fn refusal(wat: &str) -> String {
    inspect(&wat::parse_str(wat).expect("the test's own text is valid")).expect_err("it should be refused").to_string()
}

/// A component that exports and imports empty interfaces of these names.
fn component(imports: &[&str], exports: &[&str]) -> String {
    let imports: String = imports.iter().map(|name| format!("(import {name:?} (instance))")).collect();
    let exports: String = exports
        .iter()
        .enumerate()
        .map(|(i, name)| format!("(instance $i{i}) (export {name:?} (instance $i{i}))"))
        .collect();
    format!("(component {imports} {exports})")
}

#[test]
fn an_application_is_recognised_with_its_imports_by_package() {
    let text = component(
        &["wasgi:gateway/types@0.1.0", "wasi:io/streams@0.2.6", "wasi:io/poll@0.2.6", "wasi:sockets/tcp@0.2.6"],
        &["wasgi:gateway/application@0.1.0"],
    );
    let found = inspect(&wat::parse_str(text).expect("valid")).expect("deployable");
    assert_eq!(
        (found.kind, found.speaks.as_str(), found.core_modules),
        (Kind::Wsgi, "wasgi:gateway/application@0.1.0", 0)
    );
    let packages: Vec<_> = found.imports.iter().map(|p| (p.name.as_str(), p.interfaces.join(" "), p.grant)).collect();
    assert_eq!(
        packages,
        [
            ("wasgi:gateway@0.1.0", "types".to_owned(), None),
            ("wasi:io@0.2.6", "streams poll".to_owned(), None),
            ("wasi:sockets@0.2.6", "tcp".to_owned(), Some(Grant::Network)),
        ]
    );
}

#[test]
fn a_program_is_recognised() {
    let check = |text: &str| inspect(&wat::parse_str(text).expect("valid")).expect("deployable");
    let found = check(&component(&["wasi:io/streams@0.2.6"], &["wasi:cli/run@0.2.6"]));
    assert_eq!((found.kind, found.form, found.speaks.as_str()), (Kind::Cgi, Form::Component, "wasi:cli/run@0.2.6"));
    let both = check(&component(&[], &["wasi:cli/run@0.2.0", "wasgi:gateway/application@0.1.0"]));
    assert_eq!(both.kind, Kind::Wsgi, "what can be called often is not started anew");
}

#[test]
fn a_patch_of_the_contract_is_compatible_and_other_versions_are_named() {
    let exports = |version: &str| component(&[], &[&format!("wasgi:gateway/application@{version}")]);
    assert!(inspect(&wat::parse_str(exports("0.1.7")).expect("valid")).is_ok());
    for version in ["0.2.0", "1.0.0", "0.1.0-draft"] {
        let reason = refusal(&exports(version));
        assert!(reason.contains(&format!("@{version}")) && reason.contains("0.1.0 of it"), "{reason}");
    }
    let reason = refusal(&component(&["wasgi:gateway/gateway@0.2.0"], &["wasgi:gateway/application@0.1.0"]));
    assert!(reason.contains("imports wasgi:gateway/gateway@0.2.0"), "{reason}");
}

#[test]
fn what_is_no_app_says_what_it_is_instead() {
    for (text, expected) in [
        ("(module)".to_owned(), "core module that exports nothing and imports nothing"),
        ("(component)".to_owned(), "exports nothing"),
        (component(&[], &["wasi:http/client@0.3.0"]), "exports wasi:http/client@0.3.0"),
        (component(&[], &["wasi:http/incoming-handler@0.1.0"]), "but this host speaks 0.2.0"),
        (component(&[], &["wasi:http/handler@0.3.0-rc-2026-01-06"]), "but this host speaks 0.3.0"),
        (component(&["acme:x/y@1.0.0"], &["wasgi:gateway/application@0.1.0"]), "imports acme:x/y@1.0.0"),
        (component(&["wasi:cli/stdout@0.4.0"], &["wasgi:gateway/application@0.1.0"]), "speaks 0.2.0 and 0.3.0"),
        (
            component(&["wasi:messaging/producer@0.2.0-draft"], &["wasi:http/incoming-handler@0.2.0"]),
            "imports wasi:messaging/producer@0.2.0-draft, which this host does not offer",
        ),
    ] {
        let reason = refusal(&text);
        assert!(reason.contains(expected), "{reason}");
    }
}

#[test]
fn what_speaks_wasi_http_is_recognised_with_the_engine_that_it_needs() {
    let check = |imports: &[&str], exports: &[&str]| {
        let found = inspect(&wat::parse_str(component(imports, exports)).expect("valid")).expect("deployable");
        let grants: Vec<_> = found.imports.iter().filter_map(|package| package.grant).collect();
        (found.kind, found.speaks, found.abi, grants)
    };
    let (old, new) = ("wasi:http/incoming-handler@0.2.12", "wasi:http/handler@0.3.0");
    assert_eq!(check(&["wasi:http/types@0.2.12"], &[old]), (Kind::Http, old.to_owned(), Abi::Sync, vec![]));
    assert_eq!(check(&[], &[new]), (Kind::Http, new.to_owned(), Abi::Async, vec![]));
    assert_eq!(check(&[], &[old, new]), (Kind::Http, new.to_owned(), Abi::Async, vec![]), "the newer one counts");
    let imports = ["wasi:http/types@0.2.0", "wasi:http/outgoing-handler@0.2.0", "wasi:cli/stdout@0.3.0"];
    let found = check(&imports, &[old]);
    assert_eq!((found.2, found.3), (Abi::Async, vec![Grant::OutboundHttp]));
}

#[test]
fn asynchronous_functions_are_found_at_any_depth() {
    let check = |canon: &str| {
        let text = format!(
            r#"(component
                (component (core module $m (func (export "f") (result i32) unreachable) (func (export "g")))
                    (core instance $i (instantiate $m)) {canon})
                (instance $i) (export "wasgi:gateway/application@0.1.0" (instance $i)))"#
        );
        inspect(&wat::parse_str(text).expect("valid")).expect("deployable").abi
    };
    assert_eq!(check(r#"(func (canon lift (core func $i "g")))"#), Abi::Sync);
    assert_eq!(check("(core func (canon backpressure.inc))"), Abi::Async);
    assert_eq!(check("(core func (canon task.return))"), Abi::Async);
}

#[test]
fn garbage_is_refused_in_words() {
    let whole = wat::parse_str(component(&[], &["wasgi:gateway/application@0.1.0"])).expect("valid");
    let zeros = vec![0; 1 << 20];
    for (bytes, expected) in [
        (&b""[..], "empty"),
        (b"\0", "not WebAssembly"),
        (b"\0asm", "truncated"),
        (b"\0asm\x0d\0\x02\0", "layer 2"),
        (b"#!/bin/sh\n", "\"#!/bin/s\""),
        (b"  (component)", "WebAssembly text"),
        (b"\0asm\x0d\0\x01\0\xff\xff\xff\xff\xff", "not valid WebAssembly"),
        (&zeros, "not WebAssembly"),
        (&whole[..whole.len() - 3], "truncated"),
    ] {
        let reason = inspect(bytes).expect_err("it should be refused").to_string();
        assert!(reason.contains(expected), "{reason:?} should contain {expected:?}");
    }
}

#[test]
fn every_truncation_and_every_flipped_byte_is_survived() {
    // Without names, so that nothing follows the export.
    let text = r#"(component (core module (func (export "f") (drop (i32.const 1)))) (core instance (instantiate 0))
        (instance) (export "wasgi:gateway/application@0.1.0" (instance 0)))"#;
    let whole = wat::parse_str(text).expect("valid");
    assert_eq!(inspect(&whole).expect("deployable").core_modules, 1);
    for end in 0..whole.len() {
        // Cut between two sections it is a valid component, but it lacks the export at the end.
        assert!(inspect(&whole[..end]).is_err(), "cut at {end}");
    }
    for place in 0..whole.len() {
        for bit in 0..8 {
            let mut bytes = whole.clone();
            bytes[place] ^= 1 << bit;
            let _ = inspect(&bytes);
        }
    }
}
