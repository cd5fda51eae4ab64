//! The attackers' programs: text that is assembled when it is needed, so that an operator can read what is run.

use anyhow::{Context, anyhow};
use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};
use wit_parser::Resolve;

/// A program as text.
pub(super) enum Source {
    /// The core module of a component for `wasgi:gateway`; `prelude.wat` stands before it.
    Wsgi(String),
    /// The core module of a component for `wasi:http` 0.2: what its `handle` does, after `http.wat`. The response's place is local 1.
    Http(String),
    /// A core module that is a CGI program, whole.
    Cgi(String),
    /// A component, whole.
    Component(String),
    /// No program, or one that no text can say.
    Bytes(Box<dyn Fn() -> Vec<u8>>),
}

/// The contract, and what else the attackers ask for.
const CONTRACT: &str = include_str!("../../../wit/wasgi.wit");
const WISHES: &str = include_str!("wishes.wit");
const PRELUDE: &str = include_str!("prelude.wat");
const HTTP: &str = include_str!("http.wat");

const APPLICATION: &str = "wasgi:gateway/application@0.1.0";

impl Source {
    pub(super) fn wsgi(core: impl Into<String>) -> Self {
        Self::Wsgi(core.into())
    }

    /// A WSGI guest whose `call` does this, and then answers "ok".
    pub(super) fn call(body: &str) -> Self {
        Self::Wsgi(format!(
            r#"(func (export "call") (param i32 i32 i32 i32 i32) (result i32) {body} (global.get $ok))"#
        ))
    }

    /// To be read.
    pub(super) fn text(&self) -> &str {
        match self {
            Self::Wsgi(text) | Self::Http(text) | Self::Cgi(text) | Self::Component(text) => text,
            Self::Bytes(_) => "",
        }
    }

    /// A guest of `wasi:http` whose `handle` does this. `(local.get 1)` is where its response goes.
    pub(super) fn http(body: &str) -> Self {
        Self::Http(format!(r#"(func (export "wasi:http/incoming-handler@0.2.0#handle") (param i32 i32) {body})"#))
    }

    /// As a `.wasm` file.
    pub(super) fn assemble(&self) -> anyhow::Result<Vec<u8>> {
        match self {
            Self::Wsgi(core) => component(core),
            Self::Http(core) => encoded(wat::parse_str(format!("(module {HTTP}\n{core})"))?, "http-attacker"),
            Self::Cgi(text) | Self::Component(text) => Ok(wat::parse_str(text)?),
            Self::Bytes(make) => Ok(make()),
        }
    }
}

/// A component around a core module. Imports stand first in a module, so the prelude follows them; what the module has itself,
/// the prelude leaves out.
fn component(core: &str) -> anyhow::Result<Vec<u8>> {
    let (imports, rest) = core.split_once(";; IMPORTS END").unwrap_or(("", core));
    let parts = PRELUDE.split(";; PART ").filter(|part| {
        let name = part.lines().next().unwrap_or_default().trim();
        name.is_empty() || !rest.contains(&format!("(export \"{name}\")"))
    });
    let prelude: String = parts.map(|part| part.split_once('\n').map_or("", |(_, text)| text)).collect();
    let mut text = format!("(module {imports}\n{prelude}\n{rest})");
    for function in ["call", "next", "close"] {
        text = text.replace(&format!("(export \"{function}\")"), &format!("(export \"{APPLICATION}#{function}\")"));
    }
    encoded(wat::parse_str(&text)?, "attacker")
}

/// A component of this world of `wishes.wit` around a core module.
fn encoded(mut module: Vec<u8>, world: &str) -> anyhow::Result<Vec<u8>> {
    let mut resolve = Resolve::default();
    resolve.push_str("wasgi.wit", CONTRACT)?;
    let wishes = resolve.push_str("wishes.wit", WISHES)?;
    let world = resolve.select_world(&[wishes], Some(world))?;
    embed_component_metadata(&mut module, &resolve, world, StringEncoding::UTF8)?;
    let encoded = ComponentEncoder::default().module(&module)?.encode();
    encoded.context("the module is no component").map_err(|error| anyhow!("{error:#}"))
}

/// A part of a response, laid out in the guest's memory: `(some(head), blocks, more)`, and a global `$NAME` that points to it.
/// Status, names and values are what they are: also what no SDK would let through.
pub(super) fn part(name: &str, address: u32, head: Option<(&str, &[(&str, &str)])>, block: &str, more: bool) -> String {
    let mut at = address + 64;
    let mut data = String::new();
    let mut lay = |bytes: &[u8]| {
        let (begin, text) = (at, escaped(bytes));
        data.push_str(&format!("(data (i32.const {begin}) \"{text}\")\n"));
        at = (at + u32::try_from(bytes.len()).expect("texts are short") + 3) & !3;
        begin
    };
    let word = |number: usize| u32::try_from(number).expect("texts are short").to_le_bytes();
    let mut record = vec![0_u8; 4];
    match head {
        None => record.extend([0; 20]),
        Some((status, headers)) => {
            let status_at = lay(status.as_bytes());
            let mut fields = Vec::new();
            for (name, value) in headers {
                for text in [name, value] {
                    fields.extend(lay(text.as_bytes()).to_le_bytes());
                    fields.extend(word(text.len()));
                }
            }
            let fields_at = lay(&fields);
            record.extend([1, 0, 0, 0]);
            record.extend(status_at.to_le_bytes());
            record.extend(word(status.len()));
            record.extend(fields_at.to_le_bytes());
            record.extend(word(headers.len()));
        }
    }
    let block_at = lay(block.as_bytes());
    let mut blocks = block_at.to_le_bytes().to_vec();
    blocks.extend(word(block.len()));
    let blocks_at = lay(&blocks);
    record.extend(blocks_at.to_le_bytes());
    record.extend(word(1));
    record.extend([u8::from(more), 0, 0, 0]);
    format!("(global ${name} i32 (i32.const {address}))\n(data (i32.const {address}) \"{}\")\n{data}", escaped(&record))
}

fn escaped(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("\\{byte:02x}")).collect()
}
