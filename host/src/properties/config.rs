//! Settings and sidecars: never a panic, an error that names its place, and what was printed says the same when read.

use std::path::Path;

use proptest::prelude::*;

use super::text_like;
use crate::bundle::Manifest;
use crate::config::{Config, Settings};

/// Pieces of which settings are made, right and wrong.
const TOML: &[&str] = &[
    "\n",
    " = ",
    "[limits]\n",
    "[edge]\n",
    "[log]\n",
    "[access_log]\n",
    "[env]\n",
    "memory",
    "cpu_time",
    "routes",
    "bind",
    "instances",
    "workers",
    "\"1MiB\"",
    "\"5s\"",
    "\"reuse\"",
    "\"fresh\"",
    "[",
    "]",
    "\"",
    "1",
    "-1",
    "0",
    "true",
    "1e9",
    "\"/a\"",
    "\"example.com/x\"",
    "\"*.\"",
    "'",
    "#",
    ",",
    "{",
    "}",
    "\u{feff}",
    "9999999999999999999",
    "\"99999999999years\"",
    "\\u0000",
    "=",
    "reuse_requests = 3\n",
    "connections = 7\n",
    "drain_time = \"0s\"\n",
    "A = \"b\"\n",
    "[env]\nB = \"\\u0000\"\n",
    "dev = true\n",
];

/// Whole lines, most of which are right, and right together.
const LINES: &[&str] = &[
    "routes = [\"/a/b\", \"*.example.com\"]\n",
    "routes = [\"/a/../b\"]\n",
    "instances = \"reuse\"\n",
    "instances = \"rewind\"\n",
    "reuse_requests = 2\n",
    "env.A = \"b\"\n",
    "env.B = \"\\u0000\"\n",
    "env.HTTP_X = \"b\"\n",
    "limits.memory = \"1MiB\"\n",
    "limits.memory = \"1GiB\"\n",
    "limits.cpu_time = \"1s\"\n",
    "limits.cpu_time = \"1h\"\n",
];

fn sidecar() -> impl Strategy<Value = String> {
    prop_oneof![prop::sample::subsequence(LINES, 0..=4).prop_map(|lines| lines.concat()), text_like(TOML, 30)]
}

fn load(folder: &Path, text: &str) -> Result<Config, String> {
    let path = folder.join("wasgi.toml");
    std::fs::write(&path, text).expect("the file is written");
    let loaded = Config::load(&Settings { file: Some(path), ..Settings::default() });
    loaded.map_err(|error| error.to_string().replace(&format!("{}/", folder.display()), ""))
}

proptest! {
    #[test]
    fn any_file_is_read_or_refused_by_place(text in text_like(TOML, 30)) {
        let folder = tempfile::tempdir().expect("a folder");
        match load(folder.path(), &text) {
            Err(reason) => {
                let place = ["wasgi.toml line ", "wasgi.toml: ", "edge.", "state_dir ", "apps_dir ", "dev", "tenant", "data_dir "];
                prop_assert!(place.iter().any(|place| reason.starts_with(place)), "{}", reason);
                prop_assert!(!reason.chars().any(|char| char == '\n' || char == '\0'), "{reason:?}");
            }
            Ok(config) => {
                // Without the keys these stand in the current directory, which is not the file's.
                let (apps_dir, state_dir) = (folder.path().join(&config.apps_dir), folder.path().join(&config.state_dir));
                let data_dir = folder.path().join(&config.data_dir);
                let config = Config { apps_dir, state_dir, data_dir, ..config };
                prop_assert_eq!(load(folder.path(), &config.to_toml()), Ok(config));
            }
        }
    }

    #[test]
    fn numbers_within_their_range_survive_printing(
        workers in 1_usize..=1024,
        memory in (64_u64 << 10)..=(4 << 30),
        cpu_nanos in 1_000_000_u64..3_600_000_000_000,
        settle_nanos in 0_u64..60_000_000_000,
    ) {
        let mut config = Config { apps_dir: "/srv/apps".into(), state_dir: "/srv/state".into(), data_dir: "/srv/data".into(), workers, ..Config::default() };
        config.limits.memory_bytes = memory;
        config.limits.cpu_time = std::time::Duration::from_nanos(cpu_nanos);
        config.settle_time = std::time::Duration::from_nanos(settle_nanos);
        let folder = tempfile::tempdir().expect("a folder");
        prop_assert_eq!(load(folder.path(), &config.to_toml()), Ok(config));
    }

    #[test]
    fn any_sidecar_is_read_or_refused_by_place(name in "[a-z/. é%]{1,12}", text in sidecar()) {
        let operator = Config::default();
        match operator.app_spec(&name, Some(&text), &Manifest::default()) {
            Err(error) => {
                let reason = error.to_string();
                prop_assert!(["line ", "app \"", "sidecar: "].iter().any(|place| reason.starts_with(place)), "{}", reason);
                prop_assert!(!reason.chars().any(|char| char == '\n' || char == '\0'), "{reason:?}");
            }
            Ok(spec) => {
                prop_assert!(spec.limits.memory_bytes <= operator.limits.memory_bytes);
                prop_assert!(spec.limits.cpu_time <= operator.limits.cpu_time);
                prop_assert!(!spec.routes.is_empty());
                for route in &spec.routes {
                    let prefix = route.prefix.as_str();
                    prop_assert!(prefix.is_empty() || prefix.starts_with('/'));
                    let bad = |segment: &str| segment.is_empty() || segment == "." || segment == "..";
                    prop_assert!(!prefix.split('/').skip(1).any(bad), "{}", prefix);
                }
                for (name, value) in &spec.env {
                    prop_assert!(!name.contains(['\0', '=']) && !value.contains('\0') && !name.starts_with("HTTP_"));
                }
            }
        }
    }
}
