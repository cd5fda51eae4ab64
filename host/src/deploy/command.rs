//! A core module (`wasm32-wasip1`): whether it is a WASI command, and so a CGI program.
//!
//! Core modules have no contract of their own that could be told by an interface, so this is what is asked of them: the
//! function that runs a program, and no imports but WASI 0.1's.

use std::fmt;

use wasmparser::ExternalKind;

use super::inspect::{Form, Grant, Inspection, NAMES_MAX, Package, Refusal, list};
use crate::guest::Kind;
use crate::sandbox::{Abi, Uses};

const START: &str = "_start";
const WASI: &str = "wasi_snapshot_preview1";

/// What a core module shows to the outside. A hostile one may show a million names, so that not all are kept.
#[derive(Default)]
pub(super) struct Core {
    imports: Vec<Import>,
    exports: Vec<String>,
    has_start: bool,
}

struct Import {
    module: String,
    name: String,
}

impl fmt::Display for Import {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.module.escape_debug(), self.name.escape_debug())
    }
}

impl Core {
    pub(super) fn add_import(&mut self, import: &wasmparser::Import<'_>) {
        // One from elsewhere decides, however many there are before it.
        if self.imports.len() < NAMES_MAX || (import.module != WASI && self.imports.len() < 2 * NAMES_MAX) {
            self.imports.push(Import { module: import.module.to_owned(), name: import.name.to_owned() });
        }
    }

    pub(super) fn add_export(&mut self, export: &wasmparser::Export<'_>) {
        self.has_start |= export.name == START && export.kind == ExternalKind::Func;
        if self.exports.len() < NAMES_MAX {
            self.exports.push(export.name.escape_debug().to_string());
        }
    }

    /// What it is, if it is a program. `bytes` is its size.
    pub(super) fn inspection(&self, bytes: u64) -> Result<Inspection, Refusal> {
        // What is in the way goes first.
        let (strange, usual): (Vec<_>, Vec<_>) = self.imports.iter().partition(|import| import.module != WASI);
        if !self.has_start || !strange.is_empty() {
            let imports: Vec<_> = strange.into_iter().chain(usual).collect();
            return Err(Refusal::CoreModule { exports: list(&self.exports), imports: list(&imports) });
        }
        Ok(Inspection {
            kind: Kind::Cgi,
            form: Form::CoreModule,
            speaks: WASI.to_owned(),
            abi: Abi::Sync,
            // By the adapter it has them of WASI 0.2.
            uses: Uses {
                wall_clock: self.has("clock_time_get"),
                randomness: self.has("random_get"),
                ..Uses::default()
            },
            bytes,
            core_modules: 1,
            imports: self.packages(),
            exports: self.exports.clone(),
        })
    }

    fn has(&self, function: &str) -> bool {
        self.imports.iter().any(|import| import.name == function)
    }

    /// The functions that it imports, by what they would need.
    fn packages(&self) -> Vec<Package> {
        let grant = |name: &str| match name {
            _ if name.starts_with("path_") => Some(Grant::Directory),
            _ if name.starts_with("sock_") => Some(Grant::Network),
            _ => None,
        };
        let of = |wanted: Option<Grant>| {
            let names = self.imports.iter().map(|import| import.name.as_str()).filter(|name| grant(name) == wanted);
            Package { name: WASI.to_owned(), interfaces: names.map(str::to_owned).collect(), grant: wanted }
        };
        let packages = [None, Some(Grant::Directory), Some(Grant::Network)].map(of);
        packages.into_iter().filter(|package| !package.interfaces.is_empty()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::deploy::inspect::inspect;

    fn look(text: &str) -> Result<Inspection, Refusal> {
        inspect(&wat::parse_str(text).expect("the test's own text is valid"))
    }

    #[test]
    fn a_program_is_recognised_with_its_imports_by_what_they_need() {
        let text = r#"(module
            (import "wasi_snapshot_preview1" "fd_write" (func (param i32 i32 i32 i32) (result i32)))
            (import "wasi_snapshot_preview1" "path_open" (func))
            (import "wasi_snapshot_preview1" "sock_recv" (func))
            (memory (export "memory") 1) (func (export "_start")))"#;
        let found = look(text).expect("deployable");
        assert_eq!((found.kind, found.form, found.core_modules), (Kind::Cgi, Form::CoreModule, 1));
        assert_eq!(found.exports, ["memory", "_start"]);
        let imports: Vec<_> =
            found.imports.iter().map(|package| (package.interfaces.join(" "), package.grant)).collect();
        let expected = [
            ("fd_write".to_owned(), None),
            ("path_open".to_owned(), Some(Grant::Directory)),
            ("sock_recv".to_owned(), Some(Grant::Network)),
        ];
        assert_eq!(imports, expected);
    }

    #[test]
    fn what_is_no_program_is_refused_with_what_it_shows() {
        for (text, expected) in [
            ("(module)", "exports nothing and imports nothing"),
            (r#"(module (func (export "_initialize")))"#, "exports _initialize and imports nothing"),
            (r#"(module (global (export "_start") i32 (i32.const 0)))"#, "exports _start and imports nothing"),
            (
                r#"(module (import "wasi_snapshot_preview1" "a" (func)) (import "env" "b" (func)) (func (export "_start")))"#,
                "exports _start and imports env.b, wasi_snapshot_preview1.a",
            ),
            (r#"(module (import "wasi_unstable" "a" (func)) (func (export "_start")))"#, "imports wasi_unstable.a"),
            (r#"(module (func (export "a\nb")))"#, "exports a\\nb"),
        ] {
            let reason = look(text).expect_err("it is no program").to_string();
            assert!(reason.contains(expected) && reason.contains("only as a CGI program"), "{reason}");
        }
    }
}
