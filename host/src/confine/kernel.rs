//! Which walls this kernel has.

use std::path::Path;

use landlock::{ABI, Access, AccessFs, AccessNet, CompatLevel, Compatible, Ruleset, RulesetAttr, Scope};

/// The system calls that the compiler's process makes are filtered on these processors.
const FILTERED: bool = cfg!(any(target_arch = "x86_64", target_arch = "aarch64"));

/// A wall that a kernel may have, and who is behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wall {
    /// Landlock, of Linux 6.2: which files are opened, changed and truncated.
    Files,
    /// Landlock, of Linux 6.7: no new TCP port is bound, and the compiler connects to none.
    Ports,
    /// Landlock, of Linux 6.12: no signals and no abstract sockets of other processes.
    Scopes,
    /// seccomp: the compiler makes the system calls that it needs.
    Calls,
}

impl Wall {
    pub const ALL: [Self; 4] = [Self::Files, Self::Ports, Self::Scopes, Self::Calls];

    /// As an operator reads it.
    pub fn text(self) -> &'static str {
        match self {
            Self::Files => "files (Landlock of Linux 6.2)",
            Self::Ports => "TCP ports (Landlock of Linux 6.7)",
            Self::Scopes => "signals and abstract sockets (Landlock of Linux 6.12)",
            Self::Calls => "the compiler's system calls (seccomp)",
        }
    }

    /// Whether this kernel has it. Nothing is confined by asking.
    pub fn is_there(self) -> bool {
        let strict = || Ruleset::default().set_compatibility(CompatLevel::HardRequirement);
        match self {
            Self::Files => strict().handle_access(AccessFs::from_all(ABI::V3)).is_ok(),
            Self::Ports => strict().handle_access(AccessNet::from_all(ABI::V4)).is_ok(),
            Self::Scopes => strict().scope(Scope::from_all(ABI::V6)).is_ok(),
            Self::Calls => FILTERED && Path::new("/proc/sys/kernel/seccomp/actions_avail").exists(),
        }
    }
}

/// The walls that there are, and those that are missing.
pub fn walls() -> (Vec<Wall>, Vec<Wall>) {
    Wall::ALL.into_iter().partition(|wall| wall.is_there())
}

/// `files (…), TCP ports (…)`.
pub fn texts(walls: &[Wall]) -> String {
    match walls {
        [] => "nothing".to_owned(),
        walls => walls.iter().map(|wall| wall.text()).collect::<Vec<_>>().join(", "),
    }
}
