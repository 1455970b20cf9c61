//! A folder becomes a repository with one commit.

use std::path::Path;

use crate::Error;
use crate::error::Doing as _;

/// Makes `dir` a repository and commits everything in it.
///
/// For copies of ours (templates, tests), never for a folder of the user's.
///
/// # Errors
/// [`Error::Git`] if git cannot write there.
pub fn init_with_everything(dir: &Path, message: &str) -> Result<(), Error> {
    let repository = git2::Repository::init(dir).doing("make a repository")?;
    let commit = || -> Result<(), git2::Error> {
        let mut index = repository.index()?;
        index.add_all(["."], git2::IndexAddOption::DEFAULT, None)?;
        index.write()?;
        let tree = repository.find_tree(index.write_tree()?)?;
        // The user's own name if git knows it; the copy is theirs.
        let author =
            repository.signature().or_else(|_| git2::Signature::now("Tandem", "tandem@localhost"))?;
        repository.commit(Some("HEAD"), &author, &author, message, &tree, &[])?;
        Ok(())
    };
    commit().doing("commit the copy")
}
