//! What keeps a session from starting.

/// Why the server could not start; once it runs, it answers the editor and not its caller.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The system gives us no runtime or no thread; nothing in the request is wrong.
    #[error("cannot start the language server")]
    Start(#[from] std::io::Error),
}
