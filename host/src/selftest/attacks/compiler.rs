//! Files that are made to hurt the compiler, or whatever reads them before it.

use std::fmt::Write;

use super::{Attack, Expected};
use crate::config::Config;
use crate::selftest::guests::Source;
use crate::selftest::terms::{Clock, Shorter, shorter, shorter_of_compile_memory};

const CALL: &str = r#"(func (export "call") (param i32 i32 i32 i32 i32) (result i32) (global.get $ok))"#;

/// More than the bombs have that a compiler is to get.
const LARGE_FILE: u64 = 16 << 20;

pub(super) fn attacks(config: &Config) -> Vec<Attack> {
    // Slow ones are given up sooner than an operator's limit may say.
    let bomb = |name, tries, make: fn() -> Vec<u8>, refused| {
        Attack::app(name, tries, Source::Bytes(Box::new(make)), Expected::Compiled { refused })
            .shortened(shorter(config, Clock::Compile))
    };
    let without_end = |name, tries, make: fn() -> Vec<u8>, shorter: Shorter, reason| {
        let source = match config.limits.module_bytes {
            LARGE_FILE.. => Ok(Source::Bytes(Box::new(make))),
            _ => Err("limits.module_size is too small for a file that takes a compiler long".to_owned()),
        };
        Attack::fitted(name, tries, source, Expected::Refused(reason)).shortened(shorter)
    };
    // A limit of more protects nobody.
    let module_bytes = usize::try_from(config.limits.module_bytes.min(128 << 20)).unwrap_or(usize::MAX);
    vec![
        without_end(
            "compile-for-long",
            "four thousand functions that a compiler needs long for",
            slow_functions,
            shorter(config, Clock::Compile),
            &["compile_time ="],
        ),
        without_end(
            "compile-in-memory",
            "a function for which a compiler needs more memory than it may have",
            giant_function,
            shorter_of_compile_memory(config),
            &["compile_memory ="],
        ),
        bomb("giant-function", "a function of 2,000,000 instructions", giant_function, LIMITS),
        bomb("many-functions", "200,000 functions, each another", many_functions, LIMITS),
        bomb("many-locals", "sixty functions with 45,000 variables each", many_locals, LIMITS),
        bomb("deep-nesting", "a function of 200,000 nested blocks that all branch", deep_nesting, LIMITS),
        bomb("giant-data", "20 MB of data", giant_data, LIMITS),
        bomb("many-segments", "90,000 pieces of data", many_segments, LIMITS),
        // These are refused by whoever reads them, whatever the limits are.
        bomb("wide-branches", "branches with 120,000 places to go", wide_branches, &["Unsupported feature"]),
        bomb("exponential-types", "a type that doubles thirty times", exponential_types, &["effective type size"]),
        bomb("nested-components", "components in components, 1,200 deep", nested_components, &["exports nothing"]),
        bomb("many-instances", "a component of 20,000 instances", many_instances, &["instances count exceeds"]),
        Attack::app(
            "file-of-zeros",
            "a file of zeros that is larger than allowed",
            Source::Bytes(Box::new(move || vec![0; module_bytes + (1 << 20)])),
            Expected::Refused(&["the limit is"]),
        ),
        Attack::app(
            "length-that-lies",
            "a section that says it has 4 GB",
            Source::Bytes(Box::new(|| b"\0asm\x0d\0\x01\0\x01\xff\xff\xff\xff\x0f".to_vec())),
            Expected::Refused(&["WebAssembly"]),
        ),
        Attack::app(
            "noise",
            "a file that begins like a component and goes on with noise",
            Source::Bytes(Box::new(|| {
                let mut state = 0x9e37_79b9_7f4a_7c15_u64;
                let noise = std::iter::repeat_with(move || {
                    state ^= state << 13;
                    state ^= state >> 7;
                    state ^= state << 17;
                    (state & 0xff) as u8
                });
                b"\0asm\x0d\0\x01\0".iter().copied().chain(noise.take(1 << 16)).collect()
            })),
            Expected::Refused(&["WebAssembly"]),
        ),
        Attack::app(
            "half-a-file",
            "half of a component",
            Source::Bytes(Box::new(half_a_file)),
            Expected::Refused(&["truncated"]),
        ),
    ]
}

/// What refuses a bomb for what it takes: of the compiler, of the file, of the memory that it would have.
const LIMITS: &[&str] = &[
    "compile_time =",
    "compile_memory =",
    "compiled code is unreasonably large",
    "the limit is",
    "a minimum byte size of",
];

/// What is assembled here is always the same, and right.
fn assembled(core: String) -> Vec<u8> {
    Source::wsgi(core).assemble().expect("the text is right")
}

fn giant_function() -> Vec<u8> {
    let mut body = String::from("(func (param i32) (result i32) local.get 0");
    for step in 0..500_000 {
        write!(body, " local.get 0 i32.const {step} i32.mul i32.add").expect("a text grows");
    }
    assembled(format!("{body}) {CALL}"))
}

/// Each is a chain of loops in loops over many variables: little text, much for whoever allocates registers.
fn slow_functions() -> Vec<u8> {
    let mut body = String::new();
    for step in 0..60 {
        write!(body, "(loop (local.set {0} (i32.add (local.get {1}) (i32.mul (local.get {2}) (i32.const {step})))) (br_if 0 (local.get {0}))", step % 40, (step + 7) % 40, (step + 23) % 40)
            .expect("a text grows");
    }
    body.push_str(&")".repeat(60));
    let function = format!("(func (param i32) (local {}) {body})", "i32 ".repeat(40));
    assembled(function.repeat(4000) + CALL)
}

fn many_functions() -> Vec<u8> {
    let mut core = String::new();
    for index in 0..200_000 {
        write!(core, "(func (param i32) (result i32) local.get 0 i32.const {index} i32.mul)").expect("a text grows");
    }
    assembled(core + CALL)
}

fn many_locals() -> Vec<u8> {
    let function = format!("(func (local {}) (local.set 44000 (i64.const 1)))", "i64 ".repeat(45_000));
    assembled(function.repeat(60) + CALL)
}

fn deep_nesting() -> Vec<u8> {
    let mut core = String::from("(func (param i32) ");
    core.push_str(&"block local.get 0 br_if 0 ".repeat(200_000));
    core.push_str(&"end ".repeat(200_000));
    core.push(')');
    assembled(core + CALL)
}

fn wide_branches() -> Vec<u8> {
    let targets = "0 1 ".repeat(60_000);
    let one = format!("(func (param i32) block block local.get 0 br_table {targets} end end)");
    assembled(one.repeat(8) + CALL)
}

fn exponential_types() -> Vec<u8> {
    let mut text = String::from("(component (type $t0 (tuple u64 u64))");
    for level in 1..=30 {
        write!(text, "(type $t{level} (tuple $t{0} $t{0}))", level - 1).expect("a text grows");
    }
    text.push_str("(import \"f\" (func (param \"x\" $t30))))");
    Source::Component(text).assemble().expect("the text is right")
}

fn nested_components() -> Vec<u8> {
    // Made from the inside out: a text so deep could not be read.
    let mut bytes = b"\0asm\x0d\0\x01\0".to_vec();
    for _ in 0..1200 {
        let mut outer = b"\0asm\x0d\0\x01\0\x04".to_vec();
        let mut size = bytes.len();
        loop {
            let low = (size & 0x7f) as u8;
            size >>= 7;
            outer.push(if size == 0 { low } else { low | 0x80 });
            if size == 0 {
                break;
            }
        }
        outer.extend(bytes);
        bytes = outer;
    }
    bytes
}

fn giant_data() -> Vec<u8> {
    let data = "data".repeat(5 << 20);
    assembled(format!(r#"(memory $memory (export "memory") 400) (data (i32.const 131072) "{data}") {CALL}"#))
}

fn many_segments() -> Vec<u8> {
    assembled(r#"(data (i32.const 98304) "x")"#.repeat(90_000) + CALL)
}

fn many_instances() -> Vec<u8> {
    let mut text = String::from("(component (core module $m)");
    text.push_str(&"(core instance (instantiate $m))".repeat(20_000));
    text.push(')');
    Source::Component(text).assemble().expect("the text is right")
}

fn half_a_file() -> Vec<u8> {
    let mut whole = Source::call("").assemble().expect("the text is right");
    whole.truncate(whole.len() / 2);
    whole
}
