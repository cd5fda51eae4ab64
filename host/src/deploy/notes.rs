//! What an app would do and will not be able to, in words: said when it is deployed, and by `wasgi check`. It is no reason to refuse it.

use crate::config::{Access, AppSpec, Held, Protocol, Want};
use crate::guest::clocks::WITHHELD_TEXT;
use crate::sandbox::Uses;

/// What is to be said of an app with these imports that has this at the moment.
pub fn notes(uses: Uses, spec: &AppSpec, held: Held) -> Vec<String> {
    let writes = spec.data.is_some() || spec.directories.iter().any(|directory| directory.access == Access::Write);
    let connects = spec.outbound.speak(Protocol::Tcp);
    // What it declines itself it knows.
    let misses = |uses: bool, want: Want, has: bool| uses && want != Want::Declined && !has;
    let mut notes = Vec::new();
    if uses.newer_files && writes {
        notes.push(
            "it imports wasi:filesystem/types of WASI 0.3, so that it only reads its data and directories: nothing counts yet what \
             0.3 writes; an app that imports those of 0.2 alone can write"
                .to_owned(),
        );
    }
    if uses.newer_sockets && connects {
        notes.push(
            "it imports wasi:sockets/types of WASI 0.3, so that it has no TCP connections: nothing counts yet what goes over those \
             of 0.3; an app that imports those of 0.2 alone can connect"
                .to_owned(),
        );
    }
    if misses(uses.wall_clock, spec.wall_clock, held.wall_clock) {
        notes.push(format!(
            "it asks what time it is, and is told {WITHHELD_TEXT} for ever: the operator has not granted it wall_clock"
        ));
    }
    if misses(uses.randomness, spec.randomness, held.randomness) {
        notes.push(
            "calls in which it asks for randomness are stopped: the operator has not granted it randomness".to_owned(),
        );
    }
    notes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bundle::Manifest;
    use crate::config::Config;

    #[test]
    fn what_an_app_does_not_want_is_not_said() {
        let all = Uses { newer_files: true, newer_sockets: true, wall_clock: true, randomness: true };
        let nothing = Held { wall_clock: false, randomness: false, files: true };
        let count = |uses, held, sidecar| {
            let spec = Config::default().app_spec("shop", Some(sidecar), &Manifest::default());
            notes(uses, &spec.expect("it is right"), held).len()
        };
        assert_eq!(count(all, nothing, ""), 2, "it writes nothing, and connects to nobody");
        assert_eq!(count(Uses::default(), nothing, ""), 0);
        assert_eq!(count(all, nothing, "wall_clock = false"), 1);
        assert_eq!(count(all, Held { wall_clock: true, randomness: true, files: true }, ""), 0);
    }
}
