//! One error for the request path: cause → status, public text, metric label. What it says inside goes to the log alone.

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("no app at this address")]
    NoRoute,
}
