//! What of an app's imports its host treats apart.

/// Found by `deploy::inspect`, which reads all imports anyway.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Uses {
    /// Files by WASI 0.3, which nothing counts yet. A resource of 0.2 can be handed to a function of 0.3, since both have the same type
    /// in the host: so 0.2's are had without what is counted.
    pub newer_files: bool,
    /// Sockets by WASI 0.3; the same.
    pub newer_sockets: bool,
    /// What time it is.
    pub wall_clock: bool,
    /// Randomness that nobody can foresee.
    pub randomness: bool,
}
