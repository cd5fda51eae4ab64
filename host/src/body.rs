//! Capped, back-pressured bodies, both directions.

/// What goes to the client.
pub struct ResponseBody;
