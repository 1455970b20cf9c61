//! Reads a patch, whoever wrote it.
//!
//! Never: panics, allocates by a count the patch claims, or lets a path leave the repository.

mod name;

use crate::patch::{ContextLine, FilePatch};
use crate::{Error, Hunk};

/// Returns what `patch` does to each file, in its order; text around the files is skipped.
///
/// Renames and modes are read; copies, binary patches and text other than UTF-8 are refused.
///
/// ```
/// let files = text::parse(b"--- a/f\n+++ b/f\n@@ -1 +1 @@\n-a\n+b\n")?;
/// assert_eq!(files[0].new_path.as_deref(), Some("f"));
/// assert_eq!(files[0].apply("a\n")?, "b\n");
/// # Ok::<(), text::Error>(())
/// ```
///
/// # Errors
///
/// [`Error::Patch`] with the line at which the patch is wrong; whoever made it must fix it.
pub fn parse(patch: &[u8]) -> Result<Vec<FilePatch>, Error> {
    let mut reader = Reader { rest: patch, line: 0 };
    let mut files = Vec::new();
    while let Some(line) = reader.peek() {
        if line.starts_with(b"diff --git ") {
            files.push(git_file(&mut reader)?);
        } else if reader.is_at_names() {
            let mut file = FileReader::default();
            file.names(&mut reader)?;
            files.push(file.hunks(&mut reader)?);
        } else if line.starts_with(b"@@ -") {
            reader.next();
            return Err(reader.error("a hunk with no file named ahead of it"));
        } else {
            reader.next();
        }
    }
    Ok(files)
}

/// The lines not read yet, and the number of the last one read, 1-based.
#[derive(Debug, Clone, Copy)]
struct Reader<'a> {
    rest: &'a [u8],
    line: usize,
}

impl<'a> Reader<'a> {
    fn peek(&self) -> Option<&'a [u8]> {
        self.rest.split_inclusive(|&byte| byte == b'\n').next()
    }

    fn next(&mut self) -> Option<&'a [u8]> {
        let line = self.peek()?;
        self.rest = &self.rest[line.len()..];
        self.line += 1;
        Some(line)
    }

    fn error(&self, reason: &'static str) -> Error {
        let line = self.line.max(1);
        Error::Patch { line, reason }
    }

    fn is_at_names(&self) -> bool {
        let mut ahead = *self;
        ahead.next().is_some_and(|line| line.starts_with(b"--- "))
            && ahead.next().is_some_and(|line| line.starts_with(b"+++ "))
    }
}

/// Reads a file that starts with `diff --git`.
fn git_file(reader: &mut Reader<'_>) -> Result<FilePatch, Error> {
    let mut file = FileReader::default();
    let header = reader.next().unwrap_or_default();
    let both = name::both(trim_end(&header[b"diff --git ".len()..]));
    let (mut is_new, mut is_deleted) = (false, false);
    let (mut rename_from, mut rename_to) = (None, None);
    while let Some(line) = reader.peek() {
        let line = trim_end(line);
        if line.starts_with(b"--- ") {
            break;
        }
        let at_line = |reason| Error::Patch { line: reader.line + 1, reason };
        if let Some(mode) = line.strip_prefix(b"new file mode ") {
            is_new = true;
            file.new_mode = Some(octal(mode).ok_or_else(|| at_line("not a file mode"))?);
        } else if let Some(mode) = line.strip_prefix(b"new mode ") {
            file.new_mode = Some(octal(mode).ok_or_else(|| at_line("not a file mode"))?);
        } else if line.starts_with(b"deleted file mode ") {
            is_deleted = true;
        } else if let Some(name) = line.strip_prefix(b"rename from ") {
            rename_from = Some(name::plain(name).map_err(at_line)?);
        } else if let Some(name) = line.strip_prefix(b"rename to ") {
            rename_to = Some(name::plain(name).map_err(at_line)?);
        } else if line.starts_with(b"copy ") {
            return Err(at_line("copied files are not supported"));
        } else if line.starts_with(b"GIT binary patch") || line.starts_with(b"Binary files ") {
            return Err(at_line("binary patches are not supported"));
        } else if ![&b"index "[..], b"old mode ", b"similarity ", b"dissimilarity "]
            .iter()
            .any(|known| line.starts_with(known))
        {
            break;
        }
        reader.next();
    }
    if reader.is_at_names() {
        file.names(reader)?;
    } else {
        let path = |renamed: &Option<String>| match renamed {
            Some(path) => Ok(path.clone()),
            None => both.clone().map_err(|reason| reader.error(reason)),
        };
        file.old_path = Some(path(&rename_from)?);
        file.new_path = Some(path(&rename_to)?);
        if is_new {
            file.old_path = None;
        }
        if is_deleted {
            file.new_path = None;
        }
    }
    let disagrees = is_new && file.old_path.is_some()
        || is_deleted && file.new_path.is_some()
        || rename_from.is_some_and(|name| file.old_path.as_ref() != Some(&name))
        || rename_to.is_some_and(|name| file.new_path.as_ref() != Some(&name));
    if disagrees {
        return Err(reader.error("the lines of the file's header disagree about its name"));
    }
    file.hunks(reader)
}

/// One file of a patch as far as it is read.
#[derive(Default)]
struct FileReader {
    old_path: Option<String>,
    new_path: Option<String>,
    new_mode: Option<u32>,
    hunks: Vec<Hunk>,
    context: Vec<ContextLine>,
    /// The hunk the next `-` or `+` belongs to.
    open: Option<Hunk>,
    /// The next base line.
    base_line: usize,
    old: Side,
    new: Side,
}

/// What a hunk header claims of one side, and how that side of the file ended.
#[derive(Default)]
struct Side {
    /// Lines that are still to come in this hunk.
    n_left: usize,
    has_lines: bool,
    /// A line without line end came: nothing may follow.
    is_ended: bool,
}

impl Side {
    fn take(&mut self, has_no_end: bool) -> Result<(), &'static str> {
        if self.is_ended {
            return Err("a line after one that has no line end");
        }
        self.n_left = (self.n_left.checked_sub(1)).ok_or("more lines than the hunk's header says")?;
        self.has_lines = true;
        self.is_ended = has_no_end;
        Ok(())
    }
}

impl FileReader {
    /// Reads the `---` and `+++` lines.
    fn names(&mut self, reader: &mut Reader<'_>) -> Result<(), Error> {
        for (side, path) in [(&b"a/"[..], &mut self.old_path), (b"b/", &mut self.new_path)] {
            let line = trim_end(reader.next().unwrap_or_default());
            *path = name::of_side(&line[b"--- ".len()..], side).map_err(|e| reader.error(e))?;
        }
        if self.old_path.is_none() && self.new_path.is_none() {
            return Err(reader.error("both names are /dev/null"));
        }
        match reader.peek() {
            Some(line) if line.starts_with(b"@@ -") => Ok(()),
            _ => Err(reader.error("no hunk after the file's names")),
        }
    }

    /// Reads the hunks up to the next file or other text.
    fn hunks(mut self, reader: &mut Reader<'_>) -> Result<FilePatch, Error> {
        while reader.peek().is_some_and(|line| line.starts_with(b"@@ -")) {
            let header = reader.next().unwrap_or_default();
            self.header(header).map_err(|reason| reader.error(reason))?;
            while self.old.n_left > 0 || self.new.n_left > 0 {
                let Some(line) = reader.next() else {
                    return Err(reader.error("fewer lines than the hunk's header says"));
                };
                let has_no_end = (reader.peek()).is_some_and(|next| next.starts_with(b"\\ "));
                self.body(line, has_no_end).map_err(|reason| reader.error(reason))?;
                if has_no_end {
                    reader.next();
                }
            }
            self.close();
            let is_body = |line: &[u8]| matches!(line.first(), Some(b' ' | b'+' | b'-'));
            let is_signature = |line: &[u8]| matches!(trim_end(line), b"-- " | b"--");
            if !reader.is_at_names() && reader.peek().is_some_and(|line| is_body(line) && !is_signature(line))
            {
                reader.next();
                return Err(reader.error("more lines than the hunk's header says"));
            }
        }
        let made_of_lines = self.old_path.is_none() && self.old.has_lines;
        let leaves_lines = self.new_path.is_none() && self.new.has_lines;
        if made_of_lines || leaves_lines {
            return Err(reader.error("a hunk has lines of a file that is /dev/null"));
        }
        Ok(FilePatch {
            old_path: self.old_path,
            new_path: self.new_path,
            new_mode: self.new_mode,
            hunks: self.hunks,
            context: self.context,
        })
    }

    fn header(&mut self, line: &[u8]) -> Result<(), &'static str> {
        const NOT_A_HEADER: &str = "not a hunk header of the form @@ -1,2 +1,2 @@";
        let parts = || {
            let line = trim_end(line).strip_prefix(b"@@ -")?;
            let (old, line) = split_once(line, b" +")?;
            let (new, tail) = split_once(line, b" @@")?;
            (tail.is_empty() || tail.starts_with(b" ")).then_some(())?;
            Some((range(old)?, range(new)?))
        };
        let ((start, n_old), (_, n_new)) = parts().ok_or(NOT_A_HEADER)?;
        let base_start = match n_old {
            0 => start,
            _ => start.checked_sub(1).ok_or("lines count from 1")?,
        };
        if base_start < self.base_line {
            return Err("a hunk overlaps the one ahead of it");
        }
        base_start.checked_add(n_old).ok_or(NOT_A_HEADER)?;
        self.base_line = base_start;
        self.old.n_left = n_old;
        self.new.n_left = n_new;
        Ok(())
    }

    /// Reads one line of a hunk; `has_no_end` says that a mark takes its line end away.
    fn body(&mut self, line: &[u8], has_no_end: bool) -> Result<(), &'static str> {
        if !line.ends_with(b"\n") && !line.starts_with(b"\\") {
            return Err("the patch ends inside a line");
        }
        let (sign, text) = match line {
            // Mail programs and editors cut the space off an empty line of context.
            b"\n" | b"\r\n" => (b' ', line),
            [sign, text @ ..] => (*sign, text),
            [] => return Ok(()),
        };
        if sign == b'\\' {
            return Err("a mark for a missing line end with no line ahead of it");
        }
        let text = std::str::from_utf8(text).map_err(|_| "text that is not UTF-8")?;
        let text = if has_no_end { text.strip_suffix('\n').unwrap_or(text) } else { text };
        if text.is_empty() {
            return Err("an empty line marked as having no line end");
        }
        if !matches!(sign, b' ' | b'-' | b'+') {
            return Err("a line of a hunk starts with none of space, + and -");
        }
        if sign != b'+' {
            self.old.take(has_no_end)?;
        }
        if sign != b'-' {
            self.new.take(has_no_end)?;
        }
        self.push(sign, text.to_owned());
        Ok(())
    }

    fn push(&mut self, sign: u8, text: String) {
        let base_line = self.base_line;
        if sign != b'+' {
            self.base_line += 1;
        }
        if sign == b' ' {
            self.close();
            self.context.push(ContextLine { base_line, text });
            return;
        }
        let hunk = self.open.get_or_insert_with(|| Hunk {
            base_start: base_line,
            base_lines: Vec::new(),
            new_lines: Vec::new(),
        });
        match sign {
            b'-' => hunk.base_lines.push(text),
            _ => hunk.new_lines.push(text),
        }
    }

    fn close(&mut self) {
        self.hunks.extend(self.open.take());
    }
}

/// Returns `line` without its line end.
fn trim_end(line: &[u8]) -> &[u8] {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    line.strip_suffix(b"\r").unwrap_or(line)
}

fn split_once<'a>(bytes: &'a [u8], separator: &[u8]) -> Option<(&'a [u8], &'a [u8])> {
    let at = bytes.windows(separator.len()).position(|window| window == separator)?;
    Some((&bytes[..at], &bytes[at + separator.len()..]))
}

/// Returns the start and count of `1,2`, or of `1`, whose count is 1.
fn range(bytes: &[u8]) -> Option<(usize, usize)> {
    match split_once(bytes, b",") {
        Some((start, count)) => Some((number(start, 10)?, number(count, 10)?)),
        None => Some((number(bytes, 10)?, 1)),
    }
}

fn octal(bytes: &[u8]) -> Option<u32> {
    u32::try_from(number(bytes, 8)?).ok()
}

fn number(digits: &[u8], radix: u32) -> Option<usize> {
    // A sign, which `from_str_radix` takes, is no digit.
    let digits = std::str::from_utf8(digits).ok().filter(|digits| !digits.starts_with('+'))?;
    usize::from_str_radix(digits, radix).ok()
}
