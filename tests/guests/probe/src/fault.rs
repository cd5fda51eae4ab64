//! Everything that a guest can do wrong, by name.

use std::hint::black_box;

use crate::{KEPT, Query, raised, spin_for};

pub(crate) fn run(kind: &str, query: &Query) -> wasgi::Result<()> {
    match kind {
        "raise" => Err(raised("secret reason")),
        "panic" => panic!("secret panic"),
        "spin" => loop {
            black_box(());
        },
        "spin-for" => {
            spin_for(query.time("ms"));
            Ok(())
        }
        "sleep" => {
            std::thread::sleep(query.time("ms"));
            Ok(())
        }
        "memory" => {
            take_memory(query.number("bytes", usize::MAX));
            Ok(())
        }
        "recurse" => {
            black_box(recurse_without_end(0));
            Ok(())
        }
        kind => panic!("no fault {kind}"),
    }
}

/// In pieces of a megabyte, each touched.
fn take_memory(bytes: usize) {
    for _ in 0..bytes.div_ceil(1 << 20) {
        KEPT.with_borrow_mut(|kept| kept.push(vec![1; 1 << 20]));
    }
}

#[inline(never)]
fn recurse_without_end(depth: u64) -> u64 {
    let here = black_box([depth; 16]);
    if black_box(depth) == u64::MAX {
        return 0;
    }
    black_box(recurse_without_end(depth + 1)) + here[black_box(3)]
}
