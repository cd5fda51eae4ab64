//! The bytes of a file → what it is, or why it cannot be deployed. It compiles and runs nothing; `wasgi check` prints what
//! it finds.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;
use wasmparser::{
    CanonicalFunction, CanonicalOption, ComponentExternalKind, Encoding, Parser, Payload, ValidPayload, Validator,
    WasmFeatures,
};

use super::command::Core;
use crate::guest::Kind;
use crate::sandbox::{Abi, Uses};

/// The version of `wit/wasgi.wit` that this host speaks.
pub const CONTRACT_VERSION: &str = "0.1.0";
/// What makes a component an app: the interface that it exports, in the order in which they count, and the line of versions
/// that this host speaks.
const DIALECTS: &[Dialect] = &[
    Dialect { interface: "wasgi:gateway/application", version: CONTRACT_VERSION, kind: Kind::Wsgi },
    Dialect { interface: "wasi:http/handler", version: WASI_0_3, kind: Kind::Http },
    Dialect { interface: "wasi:http/incoming-handler", version: WASI_0_2, kind: Kind::Http },
    Dialect { interface: "wasi:cli/run", version: WASI_0_2, kind: Kind::Cgi },
];
const CONTRACT_PACKAGE: &str = "wasgi:gateway";
/// The lines of WASI that the host implements.
const WASI_0_2: &str = "0.2.0";
const WASI_0_3: &str = "0.3.0";
/// Of both lines: who imports them asks what time it is.
const WALL_CLOCKS: &[&str] = &["wasi:clocks/wall-clock", "wasi:clocks/system-clock"];
/// A proposal still: its versions are compatible with nothing but themselves.
const KEYVALUE_PACKAGE: &str = "wasi:keyvalue";
const KEYVALUE_INTERFACES: &[&str] = &["store", "atomics", "batch"];
const KEYVALUE_VERSIONS: &[&str] = &["0.2.0-draft2", "0.2.0-draft"];
/// Names that are listed in a message or an [`Inspection`]; a hostile file may have 100,000.
pub(super) const NAMES_MAX: usize = 1000;

struct Dialect {
    interface: &'static str,
    version: &'static str,
    kind: Kind,
}

/// What a deployable file is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Inspection {
    pub kind: Kind,
    pub form: Form,
    /// The interface that it is called through, with the version that it was built for:
    /// `wasgi:gateway/application@0.1.0`. For a core module the WASI that it is a program for.
    pub speaks: String,
    pub abi: Abi,
    /// What it imports that is treated apart.
    #[serde(skip)]
    pub uses: Uses,
    /// The size of the file.
    pub bytes: u64,
    /// Core modules in it, at any depth: each costs time at every instantiation.
    pub core_modules: u32,
    /// The interfaces that it imports, by package.
    pub imports: Vec<Package>,
    /// The interfaces that it exports, with versions; the functions and so on of a core module.
    pub exports: Vec<String>,
}

/// What the bytes are, whatever they say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Form {
    Component,
    /// It is made a component before it is compiled.
    CoreModule,
}

/// What is imported from one package.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Package {
    /// With its version: `wasi:io@0.2.3`.
    pub name: String,
    /// `streams`, `poll`.
    pub interfaces: Vec<String>,
    /// What the operator would have to grant for it to be of use.
    pub grant: Option<Grant>,
}

/// A capability that guests don't have by themselves. Without a grant the calls exist, and are denied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Grant {
    /// Directories: what the app carries with it, and a place for data that was granted.
    Directory,
    /// Sockets and name look-ups.
    Network,
    /// HTTP requests to other servers.
    #[serde(rename = "outbound_http")]
    OutboundHttp,
    /// Key-value stores.
    Keyvalue,
}

impl fmt::Display for Grant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Directory => "a directory",
            Self::Network => "network access",
            Self::OutboundHttp => "outgoing HTTP requests",
            Self::Keyvalue => "key-value stores",
        })
    }
}

/// Why a file cannot be deployed. Each message says what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("the file is empty")]
    Empty,
    #[error(
        "not WebAssembly: it starts with {start}, not with \\0asm: build for wasm32-wasip2 or wasm32-wasip1 and put the .wasm file here"
    )]
    NotWasm { start: String },
    #[error("WebAssembly text: this is the source of a component; turn it into a binary (wasm-tools parse)")]
    Text,
    #[error(
        "core module that exports {exports} and imports {imports}, but a core module is served only as a CGI program: one \
         that exports _start and imports nothing but wasi_snapshot_preview1 (a program, not a library, built for \
         wasm32-wasip1); for anything else build a component (wasm32-wasip2)"
    )]
    CoreModule { exports: String, imports: String },
    #[error(
        "an unknown kind of WebAssembly file (version {version}, layer {layer}); a component is version 13, layer 1, a core \
         module version 1, layer 0"
    )]
    UnknownLayer { version: u16, layer: u16 },
    #[error("truncated: it ends in the middle; if it is still being copied, it is taken when that is done")]
    Truncated,
    #[error("not valid WebAssembly: {reason}")]
    Invalid { reason: String },
    #[error(
        "{direction} {interface}@{found}, but this host speaks {ours} of it: build against that version, or upgrade the host"
    )]
    Version { direction: &'static str, interface: String, found: String, ours: &'static str },
    #[error("imports {import}, which this host does not offer")]
    UnknownImport { import: String },
    #[error(
        "exports {exports}, but an app exports one of {}: build it with the wasgi SDK, for world wasgi:gateway/app, or as a \
         program for WASI",
        dialects()
    )]
    NoApplication { exports: String },
}

/// Reads and validates a file, function bodies included.
///
/// # Errors
/// If it would not deploy.
pub fn inspect(bytes: &[u8]) -> Result<Inspection, Refusal> {
    read(bytes, Bodies::Validate)
}

/// As [`inspect`], without function bodies: the compiler validates them, or has done so when the file was compiled.
///
/// # Errors
/// If it would not deploy.
pub fn outline(bytes: &[u8]) -> Result<Inspection, Refusal> {
    read(bytes, Bodies::Skip)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Bodies {
    Validate,
    Skip,
}

fn read(bytes: &[u8], bodies: Bodies) -> Result<Inspection, Refusal> {
    check_header(bytes)?;
    let outside = walk(bytes, bodies)?;
    if let Some(core) = &outside.core {
        return core.inspection(bytes.len() as u64);
    }
    if let Some((dialect, name)) = dialect(&outside.exports)? {
        return Ok(Inspection {
            kind: dialect.kind,
            form: Form::Component,
            speaks: name.to_string(),
            abi: outside.abi(),
            uses: outside.uses(),
            bytes: bytes.len() as u64,
            core_modules: outside.core_modules,
            imports: packages(&outside.imports)?,
            exports: outside.exports.iter().map(ToString::to_string).collect(),
        });
    }
    Err(Refusal::NoApplication { exports: list(&outside.exports) })
}

fn check_header(bytes: &[u8]) -> Result<(), Refusal> {
    if bytes.is_empty() {
        return Err(Refusal::Empty);
    }
    let text = bytes.trim_ascii_start();
    if text.starts_with(b"(component") || text.starts_with(b"(module") {
        return Err(Refusal::Text);
    }
    let Some(rest) = bytes.strip_prefix(b"\0asm") else {
        return Err(Refusal::NotWasm { start: start(bytes) });
    };
    match *rest {
        [13, 0, 1, 0, ..] | [1, 0, 0, 0, ..] => Ok(()),
        [a, b, c, d, ..] => {
            Err(Refusal::UnknownLayer { version: u16::from_le_bytes([a, b]), layer: u16::from_le_bytes([c, d]) })
        }
        _ => Err(Refusal::Truncated),
    }
}

/// The first bytes, so that a shell script, a gzip file or an HTML error page is recognised.
fn start(bytes: &[u8]) -> String {
    format!("\"{}\"", bytes[..bytes.len().min(8)].escape_ascii())
}

/// What a file shows to the outside.
#[derive(Default)]
struct Outside {
    imports: Vec<Name>,
    exports: Vec<Name>,
    core_modules: u32,
    /// Some function in it, at any depth, is called or calls with the async ABI.
    is_async: bool,
    /// Where the file is not a component but a core module.
    core: Option<Core>,
}

impl Outside {
    fn uses(&self) -> Uses {
        let imports = |path: &str, ours: Option<&str>| {
            self.imports.iter().any(|name| name.path() == path && ours.is_none_or(|ours| name.is_compatible(ours)))
        };
        Uses {
            newer_files: imports("wasi:filesystem/types", Some(WASI_0_3)),
            newer_sockets: imports("wasi:sockets/types", Some(WASI_0_3)),
            wall_clock: WALL_CLOCKS.iter().any(|path| imports(path, None)),
            randomness: imports("wasi:random/random", None),
        }
    }

    /// What has to do with WASI 0.3 needs the engine for it, even where no call of its own is asynchronous.
    fn abi(&self) -> Abi {
        let names = || self.imports.iter().chain(&self.exports);
        if self.is_async || names().any(|name| name.is_wasi() && name.is_compatible(WASI_0_3)) {
            return Abi::Async;
        }
        Abi::Sync
    }
}

/// Whether it belongs to the component model's asynchronous part.
fn is_async(function: &CanonicalFunction) -> bool {
    match function {
        CanonicalFunction::Lift { options, .. } | CanonicalFunction::Lower { options, .. } => {
            options.contains(&CanonicalOption::Async)
        }
        CanonicalFunction::ResourceNew { .. }
        | CanonicalFunction::ResourceDrop { .. }
        | CanonicalFunction::ResourceRep { .. } => false,
        _ => true,
    }
}

fn walk(bytes: &[u8], bodies: Bodies) -> Result<Outside, Refusal> {
    let mut outside = Outside::default();
    let mut validator = Validator::new_with_features(WasmFeatures::default());
    let mut allocations = wasmparser::FuncValidatorAllocations::default();
    // Modules and components around the payload.
    let mut depth = 0_u32;
    for payload in Parser::new(0).parse_all(bytes) {
        let payload = payload.map_err(invalid)?;
        match validator.payload(&payload).map_err(invalid)? {
            ValidPayload::Func(function, body) if bodies == Bodies::Validate => {
                let mut validator = function.into_validator(allocations);
                validator.validate(&body).map_err(invalid)?;
                allocations = validator.into_allocations();
            }
            _ => {}
        }
        match payload {
            Payload::Version { encoding, .. } => {
                depth += 1;
                outside.core_modules += u32::from(encoding == Encoding::Module);
                if depth == 1 && encoding == Encoding::Module {
                    outside.core = Some(Core::default());
                }
            }
            Payload::End(_) => depth = depth.saturating_sub(1),
            Payload::ComponentCanonicalSection(section) => {
                for function in section {
                    outside.is_async |= is_async(&function.map_err(invalid)?);
                }
            }
            Payload::ImportSection(section) => {
                for import in section.into_imports() {
                    let import = import.map_err(invalid)?;
                    outside.core.iter_mut().for_each(|core| core.add_import(&import));
                }
            }
            Payload::ExportSection(section) => {
                for export in section {
                    let export = export.map_err(invalid)?;
                    outside.core.iter_mut().for_each(|core| core.add_export(&export));
                }
            }
            Payload::ComponentImportSection(section) if depth == 1 => {
                for import in section {
                    outside.imports.push(Name::parse(import.map_err(invalid)?.name.name));
                }
            }
            Payload::ComponentExportSection(section) if depth == 1 => {
                for export in section {
                    let export = export.map_err(invalid)?;
                    // A function or type of that name would not be the interface.
                    if export.kind == ComponentExternalKind::Instance {
                        outside.exports.push(Name::parse(export.name.name));
                    }
                }
            }
            _ => {}
        }
    }
    Ok(outside)
}

fn invalid(error: wasmparser::BinaryReaderError) -> Refusal {
    if error.message().starts_with("unexpected end") {
        return Refusal::Truncated;
    }
    Refusal::Invalid { reason: format!("{} (at offset {:#x})", one_line(error.message()), error.offset()) }
}

/// A message of the validator's may have several lines, and names of the file's in it: a reason is one line of the log.
fn one_line(message: &str) -> String {
    let words = message.split_whitespace().collect::<Vec<_>>().join(" ");
    words.chars().map(|char| if char.is_control() { char::REPLACEMENT_CHARACTER } else { char }).collect()
}

/// `wasi:io/streams@0.2.3`, or a plain name.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Name {
    /// `wasi:io`; none for a plain name.
    package: Option<String>,
    /// `streams`, or the plain name.
    interface: String,
    version: Option<String>,
}

impl Name {
    fn parse(text: &str) -> Self {
        let (path, version) = match text.split_once('@') {
            Some((path, version)) => (path, Some(version.to_owned())),
            None => (text, None),
        };
        match path.split_once('/') {
            Some((package, interface)) => {
                Self { package: Some(package.to_owned()), interface: interface.to_owned(), version }
            }
            None => Self { package: None, interface: path.to_owned(), version },
        }
    }

    fn path(&self) -> String {
        match &self.package {
            Some(package) => format!("{package}/{}", self.interface),
            None => self.interface.clone(),
        }
    }

    fn is_wasi(&self) -> bool {
        self.package.as_deref().is_some_and(|package| package.starts_with("wasi:"))
    }

    fn version(&self) -> &str {
        self.version.as_deref().unwrap_or("no version")
    }

    /// The same, or a release that semver calls compatible with `ours`.
    fn is_compatible(&self, ours: &str) -> bool {
        let line = |version: &str| version.split(['-', '+']).next()?.rsplit_once('.').map(|(line, _)| line.to_owned());
        // A pre-release is compatible with nothing but itself.
        self.version
            .as_deref()
            .is_some_and(|found| found == ours || (!found.contains('-') && line(found) == line(ours)))
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.path())?;
        match &self.version {
            Some(version) => write!(f, "@{version}"),
            None => Ok(()),
        }
    }
}

/// What the component speaks. An interface that exists in other versions too is refused only if none of them fits.
fn dialect(exports: &[Name]) -> Result<Option<(&'static Dialect, &Name)>, Refusal> {
    let mut misfit = None;
    for dialect in DIALECTS {
        for name in exports.iter().filter(|name| name.path() == dialect.interface) {
            if name.is_compatible(dialect.version) {
                return Ok(Some((dialect, name)));
            }
            misfit.get_or_insert_with(|| version_refusal(name, "exports", dialect.version));
        }
    }
    misfit.map_or(Ok(None), Err)
}

fn dialects() -> String {
    let names: Vec<_> = DIALECTS.iter().map(|dialect| format!("{}@{}", dialect.interface, dialect.version)).collect();
    names.join(", ")
}

fn version_refusal(name: &Name, direction: &'static str, ours: &'static str) -> Refusal {
    Refusal::Version { direction, interface: name.path(), found: name.version().to_owned(), ours }
}

/// Groups the imports by package, and refuses those that the host has nothing for.
fn packages(imports: &[Name]) -> Result<Vec<Package>, Refusal> {
    let mut packages: BTreeMap<(String, bool), Package> = BTreeMap::new();
    for import in imports {
        let grant = match import.package.as_deref() {
            Some(CONTRACT_PACKAGE) if import.is_compatible(CONTRACT_VERSION) => None,
            Some(CONTRACT_PACKAGE) => return Err(version_refusal(import, "imports", CONTRACT_VERSION)),
            Some("wasi:cli" | "wasi:clocks" | "wasi:io" | "wasi:random") => None,
            // Its types are needed for the app's own answers.
            Some("wasi:http") if import.interface == "types" => None,
            Some("wasi:http") => Some(Grant::OutboundHttp),
            Some("wasi:filesystem") => Some(Grant::Directory),
            Some("wasi:sockets") => Some(Grant::Network),
            Some(KEYVALUE_PACKAGE) if KEYVALUE_INTERFACES.contains(&import.interface.as_str()) => Some(Grant::Keyvalue),
            _ => {
                return Err(Refusal::UnknownImport { import: import.to_string() });
            }
        };
        if grant == Some(Grant::Keyvalue) {
            if !KEYVALUE_VERSIONS.contains(&import.version()) {
                return Err(version_refusal(import, "imports", "0.2.0-draft2 and 0.2.0-draft"));
            }
        } else if import.is_wasi() && !import.is_compatible(WASI_0_2) && !import.is_compatible(WASI_0_3) {
            return Err(version_refusal(import, "imports", "0.2.0 and 0.3.0"));
        }
        let package = import.package.clone().unwrap_or_default();
        let name = format!("{package}@{}", import.version());
        // What needs a grant stands apart from what does not.
        let entry = packages.entry((name.clone(), grant.is_some())).or_insert_with(|| Package {
            name,
            interfaces: Vec::new(),
            grant,
        });
        if entry.interfaces.len() < NAMES_MAX {
            entry.interfaces.push(import.interface.clone());
        }
    }
    Ok(packages.into_values().collect())
}

/// The first few names, for a message of one line.
pub(super) fn list(names: &[impl ToString]) -> String {
    const SHOWN: usize = 4;
    if names.is_empty() {
        return "nothing".to_owned();
    }
    let mut text: Vec<String> = names.iter().take(SHOWN).map(ToString::to_string).collect();
    if names.len() > SHOWN {
        text.push(format!("{} more", names.len() - SHOWN));
    }
    text.join(", ")
}

#[cfg(test)]
mod tests;
