//! Reads the names of files in a patch.
//!
//! In: the bytes after `---`, `rename from` and the like.
//! Out: a path inside the repository, or what is wrong with it.
//! Source: git's `quote.c` and, for a header without other lines, `apply.c`'s `git_header_name`.

use std::borrow::Cow;

/// Returns the path of a `---` or `+++` line without its prefix, or `None` for `/dev/null`.
pub(super) fn of_side(name: &[u8], prefix: &[u8]) -> Result<Option<String>, &'static str> {
    let name = match unquoted(name)? {
        Some(name) => Cow::Owned(name),
        // A date may follow, after a tab.
        None => Cow::Borrowed(name.split(|&byte| byte == b'\t').next().unwrap_or(name)),
    };
    if *name == *b"/dev/null" {
        return Ok(None);
    }
    inside(name.strip_prefix(prefix).unwrap_or(&name)).map(Some)
}

/// Returns the path of a line whose paths have no prefix.
pub(super) fn plain(name: &[u8]) -> Result<String, &'static str> {
    match unquoted(name)? {
        Some(name) => inside(&name),
        None => inside(name),
    }
}

/// Returns the one path that `a/PATH b/PATH` names.
pub(super) fn both(names: &[u8]) -> Result<String, &'static str> {
    const UNKNOWN: &str = "the file's name cannot be told from its header";
    let bare = |name: &[u8], prefix: &[u8]| -> Option<Vec<u8>> {
        let name = unquoted(name).ok()?.unwrap_or_else(|| name.to_vec());
        name.strip_prefix(prefix).map(<[u8]>::to_vec)
    };
    // The two names are as long as each other, so a space inside the name does not matter.
    let half = names.len() / 2;
    if names.get(half) != Some(&b' ') {
        return Err(UNKNOWN);
    }
    let (old, new) = (bare(&names[..half], b"a/"), bare(&names[half + 1..], b"b/"));
    match (old, new) {
        (Some(old), Some(new)) if old == new => inside(&old),
        _ => Err(UNKNOWN),
    }
}

/// Returns `path` if it stays inside the repository and out of git's own folder.
fn inside(path: &[u8]) -> Result<String, &'static str> {
    let path = std::str::from_utf8(path).map_err(|_| "a file's name that is not UTF-8")?;
    let is_outside = |part: &str| {
        matches!(part, "" | "." | "..") || part.eq_ignore_ascii_case(".git") || part.contains('\0')
    };
    if path.split('/').any(is_outside) {
        return Err("a file's name that leaves the repository or enters .git");
    }
    Ok(path.to_owned())
}

/// Returns the name in C quotes that `bytes` starts with, or `None`.
fn unquoted(bytes: &[u8]) -> Result<Option<Vec<u8>>, &'static str> {
    const BAD_ESCAPE: &str = "a quoted file's name with an unknown escape";
    let Some(mut rest) = bytes.strip_prefix(b"\"") else {
        return Ok(None);
    };
    let mut name = Vec::new();
    loop {
        let (byte, tail) = match rest {
            [b'"', ..] => return Ok(Some(name)),
            [b'\\', a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', tail @ ..] => {
                ((a - b'0') << 6 | (b - b'0') << 3 | (c - b'0'), tail)
            }
            [b'\\', escape, tail @ ..] => (escaped(*escape).ok_or(BAD_ESCAPE)?, tail),
            [byte, tail @ ..] => (*byte, tail),
            [] => return Err("a quoted file's name with no closing quote"),
        };
        name.push(byte);
        rest = tail;
    }
}

fn escaped(escape: u8) -> Option<u8> {
    Some(match escape {
        b'a' => 0x07,
        b'b' => 0x08,
        b't' => b'\t',
        b'n' => b'\n',
        b'v' => 0x0b,
        b'f' => 0x0c,
        b'r' => b'\r',
        b'"' | b'\\' => escape,
        _ => return None,
    })
}
