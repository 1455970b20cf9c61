//! The training steps: how the adapter's data is made and how it is patched in, and on request a tiny model's training.
//!
//! In: Python, pip. Out: what the tests print. Never: a GPU, or a fetched corpus.

use std::path::Path;
use std::process::Command;

use super::Closing;
use crate::measure::{python_with, succeed};

/// Tests the data's making on this repository's own files, and patches.
pub(super) fn run_data(root: &Path) -> Result<Closing, String> {
    let python = python_with(root, "training-data", "training/requirements-data.txt")?;
    let tests = ["-m", "unittest", "--quiet", "test_prepare", "test_patch"];
    succeed(Command::new(&python).args(tests).current_dir(root.join("training")))?;
    succeed(Command::new(&python).args(["training/prepare.py", "--tiny"]).current_dir(root))?;
    Ok(Closing::new())
}

/// Trains a model of two layers in every mode and patches the result in. PyTorch's package is 3 GB.
pub(super) fn run_tiny(root: &Path) -> Result<Closing, String> {
    let python = python_with(root, "training", "training/requirements.txt")?;
    succeed(
        Command::new(&python)
            .args(["-m", "unittest", "--quiet", "test_train"])
            .current_dir(root.join("training")),
    )?;
    succeed(Command::new(&python).args(["training/train.py", "--tiny"]).current_dir(root))?;
    Ok(Closing::new())
}
