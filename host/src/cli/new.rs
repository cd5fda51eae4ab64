//! `wasgi new`: the smallest project that `wasgi build` builds.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, bail};
use clap::{Args, ValueEnum};

use super::say;

/// Make a new app in a folder of its own
#[derive(Args)]
#[command(after_help = "Examples:
  wasgi new hello --lang rust && cd hello && wasgi build -o ../apps
  wasgi new hello --lang python && cd hello && wasgi build app -r requirements.txt -o ../apps/hello.wasm")]
pub(crate) struct New {
    /// The app's name, or the path of its folder, which must not exist yet
    name: PathBuf,

    /// The language to write it in
    #[arg(long, value_enum, default_value_t = Language::Rust)]
    lang: Language,

    /// The folder of the Rust SDK (crate wasgi) to depend on [default: the one that this wasgi was built beside, where it
    /// is still there; else the released crate]
    #[arg(long, value_name = "DIR", env = "WASGI_SDK", hide_env_values = true)]
    sdk: Option<PathBuf>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Language {
    Rust,
    Python,
}

/// The SDK's folder at the time of this build. A wasgi that was built from a checkout offers the SDK of that checkout, which
/// fits its contract; an installed one does not find it and leaves the choice to the registry.
const SDK_BESIDE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../guest-sdk");

const APP: &str = r#"//! A web app for wasgi.

use wasgi::{Body, Environ, StartResponse};

#[wasgi::application]
fn app(_environ: Environ, start_response: StartResponse) -> wasgi::Result<Body> {
    start_response.call("200 OK", &[("Content-Type", "text/plain")])?;
    Ok(Body::from("This is a sample WSGI Application."))
}
"#;

const PYTHON_APP: &str = r#""""A web app for wasgi."""


def app(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"This is a sample WSGI Application."]
"#;

/// A sandbox that grows its memory while it serves a request pays for it at every request.
const CARGO_CONFIG: &str = r#"# `cargo build` builds for wasgi. For unit tests on this machine: cargo test --target HOST (`rustc -vV` names it).
[build]
target = "wasm32-wasip2"

# The stack first, and small; and memory enough for most requests, so that none has to grow it.
[target.wasm32-wasip2]
rustflags = ["-Clink-arg=-zstack-size=131072", "-Clink-arg=--initial-heap=131072"]
"#;

impl New {
    pub(crate) fn run(self) -> anyhow::Result<ExitCode> {
        let folder = &self.name;
        let name = folder.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        check_name(name)?;
        if folder.symlink_metadata().is_ok() {
            bail!("{} exists: choose another name, or remove it first", folder.display());
        }
        let (app, build) = match self.lang {
            Language::Rust => {
                let sdk = self.sdk.as_deref().map(sdk_folder).transpose()?;
                let sdk = sdk.or_else(|| sdk_folder(Path::new(SDK_BESIDE)).ok());
                write(folder, ".cargo/config.toml", CARGO_CONFIG)?;
                write(folder, "Cargo.toml", &manifest(name, sdk.as_deref()))?;
                write(folder, "src/lib.rs", APP)?;
                write(folder, ".gitignore", "/target\n*.wasm\n")?;
                write(folder, "README.md", &readme(name))?;
                ("src/lib.rs", "wasgi build".to_owned())
            }
            Language::Python => {
                write(folder, "app.py", PYTHON_APP)?;
                write(folder, "requirements.txt", "# What the app depends on, a line each: flask==3.1.3\n")?;
                write(folder, ".gitignore", "__pycache__/\n*.wasm\n")?;
                ("app.py", format!("wasgi build app -r requirements.txt -o {name}.wasm"))
            }
        };
        let folder = folder.display();
        say(&format!("made {folder}: the app is {folder}/{app}\nnext: cd {folder} && {build}\n"))?;
        Ok(ExitCode::SUCCESS)
    }
}

/// Writes a file of the project, making its folder.
fn write(folder: &Path, file: &str, text: &str) -> anyhow::Result<()> {
    let path = folder.join(file);
    let place = path.parent().unwrap_or(folder);
    fs::create_dir_all(place).with_context(|| format!("{} cannot be made", place.display()))?;
    fs::write(&path, text).with_context(|| format!("{} cannot be written", path.display()))
}

/// What cargo takes as the name of a package, and a route shows as it is.
fn check_name(name: &str) -> anyhow::Result<()> {
    let starts_well = name.starts_with(|first: char| first.is_ascii_lowercase());
    let well = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-_".contains(&byte);
    if !starts_well || name.len() > 64 || !name.bytes().all(well) {
        bail!(
            "\"{}\": a name has lower-case letters, digits, \"-\" and \"_\", and begins with a letter",
            name.escape_debug()
        );
    }
    // A package cannot depend on one of its own name, and these are the compiler's.
    const TAKEN: &[&str] =
        &["alloc", "build", "core", "deps", "examples", "incremental", "proc_macro", "std", "test", "wasgi"];
    const KEYWORDS: &[&str] = &[
        "abstract", "as", "async", "await", "become", "box", "break", "const", "continue", "crate", "do", "dyn",
        "else", "enum", "extern", "false", "final", "fn", "for", "gen", "if", "impl", "in", "let", "loop", "macro",
        "match", "mod", "move", "mut", "override", "priv", "pub", "ref", "return", "self", "static", "struct", "super",
        "trait", "true", "try", "type", "typeof", "unsafe", "unsized", "use", "virtual", "where", "while", "yield",
    ];
    if TAKEN.contains(&name) || KEYWORDS.contains(&name) {
        bail!("\"{name}\" means something to Rust already: choose another name");
    }
    Ok(())
}

/// Whether the SDK is there: its absolute path.
fn sdk_folder(path: &Path) -> anyhow::Result<PathBuf> {
    let real = path.canonicalize().with_context(|| format!("--sdk {}", path.display()))?;
    if !real.join("Cargo.toml").is_file() {
        bail!("--sdk {}: there is no Cargo.toml in it; name the folder guest-sdk of wasgi's source", path.display());
    }
    Ok(real)
}

fn manifest(name: &str, sdk: Option<&Path>) -> String {
    let version = env!("CARGO_PKG_VERSION");
    let dependency = match sdk {
        Some(path) => {
            let path = toml::Value::String(path.to_string_lossy().into_owned());
            format!(
                "# The path wins over the version, as long as it is there.\nwasgi = {{ version = \"{version}\", path = {path}, features = [] }}"
            )
        }
        None => format!("wasgi = {{ version = \"{version}\", features = [] }}"),
    };
    format!(
        r#"[package]
name = "{name}"
version = "0.1.0"
edition = "2024"

[lib]
crate-type = ["cdylib"]

# Features: "form" (forms and uploads), "cookie", "http" (http::Request in, http::Response out), and "quiet": without standard
# output and standard error the app imports no WASI and starts in half the time, but println! and panics are silent.
[dependencies]
{dependency}

# What makes a component small and quick to start. The names of functions stay in, for the log of a trap.
[profile.release]
opt-level = "s"
lto = true
codegen-units = 1
panic = "abort"
strip = "debuginfo"

# A workspace of its own, wherever the folder lies.
[workspace]
"#
    )
}

fn readme(name: &str) -> String {
    format!(
        "# {name}\n\nA web app for wasgi: `wasgi build` makes `{name}.wasm` of it; copied into the apps directory of a running\n\
         `wasgi serve`, it is live at `/{name}`.\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_what_cargo_and_a_route_take() {
        for name in ["hello", "my-app", "a1_b"] {
            assert!(check_name(name).is_ok(), "{name}");
        }
        for name in ["", "Hello", "1a", "-a", "a b", "a/b", "..", "é", "fn", "test", "wasgi", &"a".repeat(65)] {
            assert!(check_name(name).is_err(), "{name}");
        }
    }

    #[test]
    fn the_manifest_is_toml_with_and_without_sdk() {
        let dependency = |sdk: Option<&Path>| {
            let manifest: toml::Table = manifest("hello", sdk).parse().expect("it is TOML");
            manifest["dependencies"]["wasgi"].clone()
        };
        assert_eq!(dependency(None)["version"].as_str(), Some(env!("CARGO_PKG_VERSION")));
        let path = Path::new("/a \"b\"\\c");
        assert_eq!(dependency(Some(path))["path"].as_str(), path.to_str());
    }
}
