//! Files that were dropped: whatever the bytes, they are judged in words, and never crash the judge.

use std::sync::LazyLock;

use proptest::prelude::*;

use crate::deploy::inspect::{inspect, outline};

/// An app, so that what is changed in it reaches every part of the judge.
static WHOLE: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let text = r#"(component
        (import "wasi:io/streams@0.2.0" (instance (export "s" (type (sub resource)))))
        (type (record (field "name" string)))
        (core module (memory 1) (table 3 funcref) (func (export "f") (drop (i32.const 1))) (data (i32.const 0) "text"))
        (core instance (instantiate 0))
        (component (core module))
        (instance $i)
        (export "wasgi:gateway/application@0.1.0" (instance $i)))"#;
    wat::parse_str(text).expect("it is valid")
});

#[derive(Clone, Debug)]
enum Change {
    Put(prop::sample::Index, u8),
    Insert(prop::sample::Index, Vec<u8>),
    Remove(prop::sample::Index, usize),
    /// A piece of it once more, somewhere else.
    Copy(prop::sample::Index, prop::sample::Index, usize),
}

fn change() -> impl Strategy<Value = Change> {
    let index = any::<prop::sample::Index>;
    prop_oneof![
        (index(), any::<u8>()).prop_map(|(at, byte)| Change::Put(at, byte)),
        (index(), prop::collection::vec(any::<u8>(), 1..6)).prop_map(|(at, bytes)| Change::Insert(at, bytes)),
        (index(), 1_usize..8).prop_map(|(at, len)| Change::Remove(at, len)),
        (index(), index(), 1_usize..24).prop_map(|(from, to, len)| Change::Copy(from, to, len)),
    ]
}

fn changed(mut bytes: Vec<u8>, changes: &[Change]) -> Vec<u8> {
    for change in changes {
        if bytes.is_empty() {
            break;
        }
        match change {
            Change::Put(at, byte) => {
                let at = at.index(bytes.len());
                bytes[at] = *byte;
            }
            Change::Insert(at, inserted) => {
                let at = at.index(bytes.len());
                bytes.splice(at..at, inserted.iter().copied());
            }
            Change::Remove(at, len) => {
                let at = at.index(bytes.len());
                bytes.drain(at..bytes.len().min(at + len));
            }
            Change::Copy(from, to, len) => {
                let (from, to) = (from.index(bytes.len()), to.index(bytes.len()));
                let piece = bytes[from..bytes.len().min(from + len)].to_vec();
                bytes.splice(to..to, piece);
            }
        }
    }
    bytes
}

fn check(bytes: &[u8]) -> Result<(), TestCaseError> {
    match (inspect(bytes), outline(bytes)) {
        (Ok(inspected), Ok(outlined)) => prop_assert_eq!(inspected.kind, outlined.kind),
        // Function bodies are left to the compiler where a file is only outlined.
        (Err(refusal), _) => {
            let reason = refusal.to_string();
            prop_assert!(!reason.is_empty() && reason.len() < 64 << 10);
            prop_assert!(!reason.chars().any(|char| char.is_control()), "{reason:?}");
        }
        (Ok(_), Err(refusal)) => prop_assert!(false, "inspected and not outlined: {}", refusal),
    }
    Ok(())
}

proptest! {
    #[test]
    fn a_changed_app_is_judged_in_words(changes in prop::collection::vec(change(), 1..6)) {
        check(&changed(WHOLE.clone(), &changes))?;
    }

    #[test]
    fn any_bytes_are_judged_in_words(
        start in prop::sample::select(vec![&b""[..], b"\0asm\x01\0\0\0", b"\0asm\x0d\0\x01\0", b"\0asm", b"(component"]),
        rest in prop::collection::vec(any::<u8>(), 0..64),
    ) {
        check(&[start, &rest].concat())?;
    }
}
