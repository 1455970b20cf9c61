//! The files that an import may mean.
//!
//! In: an import as it is written, the path of the file it stands in, the workspace folder. Out: paths, the likeliest
//! first; the caller looks which of them are there.
//! Never: asks a build tool or a language server: what they would need to know is often not there while one types.

use std::path::{Component, Path, PathBuf};

use syntax::{Import, Language};

/// An import's file, which is a module's or, for Python's `from . import a`, perhaps that of a name.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Meant {
    pub(super) path: PathBuf,
    /// The name that is the module itself.
    pub(super) module_name: Option<String>,
}

/// Returns the files an import may mean.
pub(super) fn meant(import: &Import, language: Language, here: &Path, root: &Path) -> Vec<Meant> {
    let paths = match language {
        Language::Python => return python(import, here, root),
        Language::Rust => return rust(import, here, root),
        Language::JavaScript | Language::TypeScript | Language::Tsx => javascript(&import.module, here),
        Language::C | Language::Cpp => c(&import.module, here, root),
        _ => Vec::new(),
    };
    paths.into_iter().map(|path| Meant { path: normal(&path), module_name: None }).collect()
}

/// Returns whether a file sees what its neighbours define, without an import.
pub(super) fn sees_neighbours(language: Language) -> bool {
    matches!(language, Language::Go | Language::Java | Language::CSharp)
}

fn python(import: &Import, here: &Path, root: &Path) -> Vec<Meant> {
    let module = import.module.trim_start_matches('.');
    let n_dots = import.module.len() - module.len();
    let below: PathBuf = module.split('.').filter(|part| !part.is_empty()).collect();
    let folder = here.parent().unwrap_or(root);
    let bases: Vec<&Path> = if n_dots > 0 {
        folder.ancestors().nth(n_dots - 1).into_iter().collect()
    } else {
        // The folder of the script, and every folder above it that may be the source root.
        folder.ancestors().take_while(|base| base.starts_with(root)).collect()
    };
    let mut meant = Vec::new();
    for base in bases {
        let target = base.join(&below);
        for name in &import.names {
            let as_module = |path| Meant { path, module_name: Some(name.clone()) };
            meant.push(as_module(target.join(format!("{name}.py"))));
            meant.push(as_module(target.join(name).join("__init__.py")));
        }
        let whole = import.names.is_empty().then(|| module.to_owned());
        if !module.is_empty() {
            meant.push(Meant { path: target.with_extension("py"), module_name: whole.clone() });
        }
        meant.push(Meant { path: target.join("__init__.py"), module_name: whole });
    }
    meant
}

fn rust(import: &Import, here: &Path, root: &Path) -> Vec<Meant> {
    let mut parts: Vec<&str> = import.module.split("::").collect();
    let is_crate_root = here.file_name().is_some_and(|name| name == "lib.rs" || name == "main.rs");
    let is_folder = is_crate_root || here.file_name().is_some_and(|name| name == "mod.rs");
    // The folder of the modules below this one.
    let below = if is_folder { here.parent().map(Path::to_path_buf) } else { Some(here.with_extension("")) };
    let Some(mut folder) = below else { return Vec::new() };
    match parts.first() {
        Some(&"crate") => {
            let sources = here.ancestors().skip(1).take_while(|above| above.starts_with(root));
            let Some(source) = sources
                .into_iter()
                .find(|above| above.join("lib.rs").is_file() || above.join("main.rs").is_file())
            else {
                return Vec::new();
            };
            folder = source.to_path_buf();
            parts.remove(0);
        }
        Some(&"self") => drop(parts.remove(0)),
        Some(&"super") => {
            while parts.first() == Some(&"super") {
                folder.pop();
                parts.remove(0);
            }
        }
        _ => return Vec::new(),
    }
    let module: PathBuf = folder.join(parts.iter().collect::<PathBuf>());
    let mut meant = Vec::new();
    for name in &import.names {
        let as_module = |path| Meant { path, module_name: Some(name.clone()) };
        meant.push(as_module(module.join(format!("{name}.rs"))));
        meant.push(as_module(module.join(name).join("mod.rs")));
    }
    let files = |module: &Path| {
        let as_file =
            if module.file_name().is_some() { module.with_extension("rs") } else { module.to_path_buf() };
        [as_file, module.join("mod.rs"), module.join("lib.rs"), module.join("main.rs")]
    };
    meant.extend(files(&module).map(|path| Meant { path, module_name: None }));
    // `use crate::a::B::{C}`: the last part may be a type.
    if parts.len() > 1
        && let Some(above) = module.parent()
    {
        meant.push(Meant { path: above.with_extension("rs"), module_name: None });
    }
    meant
}

fn javascript(module: &str, here: &Path) -> Vec<PathBuf> {
    let (Some(folder), true) = (here.parent(), module.starts_with('.')) else { return Vec::new() };
    let target = folder.join(module);
    const ENDINGS: [&str; 6] = ["ts", "tsx", "js", "jsx", "mts", "mjs"];
    let mut paths = Vec::new();
    // TypeScript is imported by the name of the JavaScript it becomes.
    for (written, meant) in [("js", "ts"), ("jsx", "tsx"), ("mjs", "mts")] {
        if target.extension().is_some_and(|ending| ending == written) {
            paths.push(target.with_extension(meant));
        }
    }
    paths.push(target.clone());
    paths.extend(ENDINGS.map(|ending| PathBuf::from(format!("{}.{ending}", target.display()))));
    paths.extend(ENDINGS.map(|ending| target.join(format!("index.{ending}"))));
    paths
}

fn c(include: &str, here: &Path, root: &Path) -> Vec<PathBuf> {
    let folder = here.parent().map(Path::to_path_buf);
    let bases = folder.into_iter().chain([root.to_path_buf(), root.join("include"), root.join("src")]);
    bases.map(|base| base.join(include)).collect()
}

/// Takes `.` and `..` out of a path, without a look at the disk.
fn normal(path: &Path) -> PathBuf {
    let mut normal = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir => drop(normal.pop()),
            Component::CurDir => {}
            part => normal.push(part),
        }
    }
    normal
}
