//! Ghost text with the real models.

mod choice;
mod late;

use std::path::PathBuf;

use engine::{Engine, EngineOptions};

/// Loads the model that a variable names, or says how to set it.
fn engine(variable: &str, hint: &str) -> Engine {
    let path = std::env::var_os(variable).unwrap_or_else(|| panic!("{variable} is not set: {hint}"));
    Engine::load(&PathBuf::from(path), EngineOptions::default(), &mut |_| {}).expect("the model loads")
}

/// The default model.
fn default_model() -> Engine {
    engine("TANDEM_TEST_MODEL", "`cargo xtask model` fetches the model and prints its path")
}
