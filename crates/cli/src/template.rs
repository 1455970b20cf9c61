//! A template folder becomes a git repository of its own.
//!
//! In: a folder whose `tandem.toml` says `template = true`. Out: a copy of it under the system's temporary folder,
//! committed once, so that a fix can be proposed and accepted there. The copy stays: it is the user's to look at.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::failure::Failure;

/// Folders that are built, not written.
const NOT_COPIED: [&str; 5] = ["target", "node_modules", "__pycache__", ".git", ".venv"];

/// Copies a template and commits the copy; returns where it is.
pub(crate) fn copy(template: &Path) -> Result<PathBuf, Failure> {
    let template = template.canonicalize()?;
    let name =
        template.file_name().map_or_else(|| "template".into(), |name| name.to_string_lossy().into_owned());
    let folder = tempfile::Builder::new().prefix("tandem-").tempdir()?.keep();
    let to = folder.join(&name);
    copy_folder(&template, &to)?;
    agent::repo::init_with_everything(&to, "Start").map_err(Failure::from)?;
    Ok(to)
}

fn copy_folder(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let name = entry.file_name();
        if NOT_COPIED.iter().any(|other| name == *other) {
            continue;
        }
        let kind = entry.file_type()?;
        if kind.is_dir() {
            copy_folder(&entry.path(), &to.join(name))?;
        } else if kind.is_file() {
            fs::copy(entry.path(), to.join(name))?;
        }
    }
    Ok(())
}
