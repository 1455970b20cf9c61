//! Whole sessions over pipes, without a process: what an editor sees.
//!
//! The binary over stdio is driven from outside by `tests/lsp/conversation.py`.

mod editor;

mod context;
mod documents;
mod fates;
mod frames;
mod lifecycle;
mod model;
mod order;
mod requests;
mod settings;
mod status;
