//! What is known of the files around a document, kept from one cursor to the next.
//!
//! In: the open documents, the newest first; files on the disk. Out: the context a cursor should have.
//! Never: parses what has not changed, or keeps more than a bounded number of files.
//! Thread: any, but not the one that types: it reads files.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use syntax::{Import, Language, SyntaxTree};
use text::{ByteOffset, Document, Snapshot};

use super::item::{File, Item};
use super::plan::{Candidate, Rank};
use super::read::{self, Stamp};
use super::resolve::{self, Meant};
use super::{Context, ContextScope, shown_path};
use crate::window::window_start;
use crate::{Options, Request, Trigger};

/// Longest parse of one file.
const PARSE: Duration = Duration::from_millis(100);
/// Most files looked at for one cursor.
const N_MAX_FILES: usize = 32;
/// Most files kept.
const N_MAX_KEPT: usize = 256;
/// Most things of one module that is imported whole.
const N_MAX_OF_MODULE: usize = 16;

/// A document that is open in the editor.
#[derive(Clone, Debug)]
pub struct OpenFile {
    /// Where it is stored, or would be.
    pub path: PathBuf,
    /// Its language.
    pub language: Language,
    /// Its text.
    pub document: Snapshot,
}

impl OpenFile {
    /// Returns a document in the language its editor or its name says; `None` if it has no grammar.
    #[must_use]
    pub fn new(path: &Path, language_id: &str, document: Snapshot) -> Option<Self> {
        let language = Language::of_id(language_id).or_else(|| Language::of(path))?;
        Some(Self { path: path.to_owned(), language, document })
    }
}

/// The files around the documents.
#[derive(Debug, Default)]
pub struct Index {
    roots: Vec<PathBuf>,
    kept: HashMap<PathBuf, Kept>,
    /// The document that was asked for last, and its tree.
    here: Option<(PathBuf, SyntaxTree)>,
    secrets: Secrets,
}

/// Which files hold secrets by their user's word, besides those whose names say it themselves.
#[derive(Clone, Default)]
pub struct Secrets(Option<Arc<IsSecret>>);

type IsSecret = dyn Fn(&Path) -> bool + Send + Sync;

impl Secrets {
    /// Returns the files of which `is_secret` is true.
    pub fn new(is_secret: impl Fn(&Path) -> bool + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(is_secret)))
    }

    fn hold(&self, path: &Path) -> bool {
        self.0.as_ref().is_some_and(|is_secret| is_secret(path))
    }
}

impl std::fmt::Debug for Secrets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secrets")
    }
}

#[derive(Debug)]
struct Kept {
    source: Source,
    file: Arc<File>,
}

/// What a file's text was read from.
#[derive(Debug)]
enum Source {
    Disk(Stamp),
    Editor(Snapshot),
}

/// The document, its tree, and what is looked for.
struct Here<'a> {
    path: &'a Path,
    root: Option<&'a Path>,
    tree: &'a SyntaxTree,
    /// Names near the cursor.
    near: HashSet<String>,
    /// The bytes that the model sees anyway.
    seen: std::ops::Range<usize>,
}

impl Index {
    /// Returns an index of files under workspace folders, which is empty.
    #[must_use]
    pub fn new(roots: Vec<PathBuf>) -> Self {
        Self { roots, ..Self::default() }
    }

    /// Says which files hold secrets, from now on.
    pub fn set_secrets(&mut self, secrets: Secrets) {
        self.secrets = secrets;
    }

    /// Returns the context of a cursor in the first of `open`, given the one it has so far.
    ///
    /// The other documents stand in the order in which they were looked at, the newest first.
    pub fn context(
        &mut self,
        so_far: &Context,
        open: &[OpenFile],
        offset: ByteOffset,
        options: &Options,
    ) -> Context {
        let Some((document, others)) = open.split_first().filter(|_| options.context != ContextScope::Off)
        else {
            return Context::default();
        };
        let root = self
            .roots
            .iter()
            .filter(|root| document.path.starts_with(root))
            .max_by_key(|root| root.as_os_str().len());
        let root = root.cloned();
        let root = root.as_deref();
        let repo = root.and_then(Path::file_name).map(|name| name.to_string_lossy().into_owned());
        let path = shown_path(&document.path, root);
        let so_far = if so_far.path == path {
            so_far.clone()
        } else {
            Context::of(path, repo.unwrap_or_default(), document.language)
        };
        let Some(tree) = self.tree(document) else { return so_far };
        let here = Here::new(document, &tree, root, offset, options);
        let mut candidates = here.own();
        if options.context == ContextScope::Repo {
            candidates.extend(self.imported(&here, others));
            candidates.extend(self.others(&here, others));
        }
        self.here = Some((document.path.clone(), tree.clone()));
        self.forget_old(open);
        so_far.next(candidates, options.n_max_context_bytes)
    }

    fn tree(&mut self, document: &OpenFile) -> Option<SyntaxTree> {
        match self.here.take() {
            Some((path, tree)) if path == document.path && tree.language() == document.language => {
                tree.updated(&document.document, PARSE)
            }
            _ => SyntaxTree::parse(document.language, &document.document, PARSE),
        }
    }

    /// Returns what the document's imports may mean.
    fn imported(&mut self, here: &Here<'_>, open: &[OpenFile]) -> Vec<Candidate> {
        let Some(root) = here.root else { return Vec::new() };
        let mut candidates = Vec::new();
        let mut n_files = 0;
        for import in here.imports() {
            let mut is_whole_found = false;
            for Meant { path, module_name } in resolve::meant(&import, here.tree.language(), here.path, root)
            {
                if is_whole_found || n_files == N_MAX_FILES || path == here.path {
                    continue;
                }
                let Some(file) = self.file(&path, root, open) else { continue };
                n_files += 1;
                is_whole_found = module_name.is_none();
                let shown = shown_path(&path, Some(root));
                candidates.extend(here.of_import(&file, &import, module_name.is_some(), &shown));
            }
        }
        if resolve::sees_neighbours(here.tree.language()) {
            for path in read::beside(here.path, N_MAX_FILES) {
                if path != here.path
                    && let Some(file) = self.file(&path, root, open)
                {
                    candidates.extend(here.near_in(&file, &shown_path(&path, Some(root))));
                }
            }
        }
        candidates
    }

    /// Returns what of the other open documents is used near the cursor.
    fn others(&mut self, here: &Here<'_>, open: &[OpenFile]) -> Vec<Candidate> {
        let mut candidates = Vec::new();
        let same = open.iter().filter(|other| other.language.shares_names_with(here.tree.language()));
        for other in same.take(N_MAX_FILES) {
            if let Some(file) = self.open_file(other) {
                candidates.extend(here.near_in(&file, &shown_path(&other.path, here.root)));
            }
        }
        candidates
    }

    /// Returns what a file defines: one that is open as it is there, else as it is on the disk.
    fn file(&mut self, path: &Path, root: &Path, open: &[OpenFile]) -> Option<Arc<File>> {
        if self.secrets.hold(path) {
            return None;
        }
        if let Some(other) = open.iter().find(|other| other.path == path) {
            return self.open_file(other);
        }
        let stamp = read::stamp(path)?;
        if let Some(Kept { source: Source::Disk(kept), file }) = self.kept.get(path)
            && *kept == stamp
        {
            return Some(Arc::clone(file));
        }
        let language = Language::of(path)?;
        // What may not be read is empty, and not looked at again before it changes.
        let text = read::text(path, root);
        let file = text.and_then(|text| parsed(language, &Document::open(&text, 0).snapshot()));
        Some(self.keep(path, Source::Disk(stamp), file.unwrap_or_default()))
    }

    fn open_file(&mut self, open: &OpenFile) -> Option<Arc<File>> {
        if self.secrets.hold(&open.path) || read::is_secret(Path::new(open.path.file_name()?)) {
            return None;
        }
        if let Some(Kept { source: Source::Editor(kept), file }) = self.kept.get(&open.path)
            && kept.is_same(&open.document)
        {
            return Some(Arc::clone(file));
        }
        let file = parsed(open.language, &open.document).unwrap_or_default();
        Some(self.keep(&open.path, Source::Editor(open.document.clone()), file))
    }

    fn keep(&mut self, path: &Path, source: Source, file: File) -> Arc<File> {
        let file = Arc::new(file);
        self.kept.insert(path.to_owned(), Kept { source, file: Arc::clone(&file) });
        file
    }

    /// Lets go of documents that are not open any more, and of all files if they are too many.
    fn forget_old(&mut self, open: &[OpenFile]) {
        let is_open = |path: &PathBuf| open.iter().any(|other| other.path == *path);
        self.kept.retain(|path, kept| matches!(kept.source, Source::Disk(_)) || is_open(path));
        if self.kept.len() > N_MAX_KEPT {
            self.kept.clear();
        }
    }
}

fn parsed(language: Language, document: &Snapshot) -> Option<File> {
    Some(File::of(&SyntaxTree::parse(language, document, PARSE)?))
}

impl<'a> Here<'a> {
    fn new(
        document: &'a OpenFile,
        tree: &'a SyntaxTree,
        root: Option<&'a Path>,
        offset: ByteOffset,
        options: &Options,
    ) -> Self {
        let request = Request {
            document: &document.document,
            offset,
            trigger: Trigger::Automatic,
            tree: None,
            context: None,
        };
        let seen = window_start(&request, options, 0)..offset.0;
        let range = ByteOffset(seen.start)..ByteOffset(offset.0 + options.n_max_after_bytes);
        let names = tree.identifiers(range).into_iter();
        let near = names.map(|name| document.document.slice(name)).collect();
        Self { path: &document.path, root, tree, near, seen }
    }

    /// Returns the document's imports; in Rust a module declared here is one.
    fn imports(&self) -> Vec<Import> {
        let mut imports = self.tree.imports();
        if self.tree.language() == Language::Rust {
            let root = self.tree.root();
            let mut cursor = root.walk();
            let declared = root
                .named_children(&mut cursor)
                .filter(|node| node.kind() == "mod_item" && node.child_by_field_name("body").is_none());
            let names = declared.filter_map(|node| node.child_by_field_name("name"));
            imports.extend(names.map(|name| {
                let name =
                    self.tree.snapshot().slice(ByteOffset(name.start_byte())..ByteOffset(name.end_byte()));
                Import { module: "self".to_owned(), names: vec![name] }
            }));
        }
        imports
    }

    fn is_near(&self, item: &Item) -> bool {
        self.near.contains(&item.name) || item.members.iter().any(|member| self.near.contains(member))
    }

    /// Returns what the document itself defines; where the model sees it anyway it is not asked for.
    fn own(&self) -> Vec<Candidate> {
        let path = shown_path(self.path, self.root);
        let rank = |item: &Item| {
            let start = item.bytes.start.0;
            let is_beyond = start < self.seen.start || start > self.seen.end;
            if is_beyond && self.is_near(item) { Rank::Near } else { Rank::Unasked }
        };
        File::of(self.tree).items.iter().map(|item| candidate(rank(item), &path, item)).collect()
    }

    /// Returns what an import takes from a file, which is the module's, or that of one of the names.
    fn of_import(&self, file: &File, import: &Import, is_of_name: bool, path: &str) -> Vec<Candidate> {
        let is_whole = is_of_name || import.names.is_empty() || import.names.iter().any(|name| name == "*");
        let mut n_public = 0;
        let mut rank = |item: &Item| match (import.names.contains(&item.name), self.near.contains(&item.name))
        {
            (true, true) if !is_whole => Rank::ImportedNear,
            (true, false) if !is_whole => Rank::Imported,
            (false, _) if !is_whole => Rank::Unasked,
            _ if self.is_near(item) => Rank::Near,
            _ if item.is_public() && n_public < N_MAX_OF_MODULE => {
                n_public += 1;
                Rank::OfModule
            }
            _ => Rank::Unasked,
        };
        file.items.iter().map(|item| candidate(rank(item), path, item)).collect()
    }

    /// Returns what a file defines; what is used near the cursor is asked for.
    fn near_in(&self, file: &File, path: &str) -> Vec<Candidate> {
        let rank = |item: &Item| if self.near.contains(&item.name) { Rank::Near } else { Rank::Unasked };
        file.items.iter().map(|item| candidate(rank(item), path, item)).collect()
    }
}

fn candidate(rank: Rank, path: &str, item: &Item) -> Candidate {
    Candidate { rank, path: path.to_owned(), text: item.text.clone() }
}
