//! FILE:LINE:COL, as people and compilers write a place in a file.
//!
//! In: a command line's word. Out: [`Place`], its file's text, a byte of that.

use text::{ByteOffset, Document};

use crate::failure::Failure;

/// A place as people write it: counted from 1.
pub(crate) struct Place {
    pub(crate) file: String,
    line: usize,
    column: usize,
}

impl Place {
    pub(crate) fn parse(text: &str) -> Result<Self, Failure> {
        let malformed = || {
            Failure::usage(format!("`{text}` is not FILE:LINE:COL"))
                .hint("for example `src/main.rs:12:5`, counted from 1")
        };
        let (rest, column) = text.rsplit_once(':').ok_or_else(malformed)?;
        let (file, line) = rest.rsplit_once(':').ok_or_else(malformed)?;
        let number = |text: &str| text.parse::<usize>().ok().filter(|&n| n > 0);
        match (number(line), number(column)) {
            (Some(line), Some(column)) if !file.is_empty() => {
                Ok(Self { file: file.to_owned(), line, column })
            }
            _ => Err(malformed()),
        }
    }

    pub(crate) fn read(&self) -> Result<String, Failure> {
        let bytes = if self.file == "-" {
            let mut bytes = Vec::new();
            std::io::Read::read_to_end(&mut std::io::stdin().lock(), &mut bytes).map(|_| bytes)
        } else {
            std::fs::read(&self.file)
        };
        let bytes = bytes.map_err(|error| Failure::usage(format!("cannot read {}: {error}", self.file)))?;
        String::from_utf8(bytes).map_err(|error| {
            Failure::usage(format!("{} is not UTF-8 at byte {}", self.file, error.utf8_error().valid_up_to()))
                .hint("Tandem completes UTF-8 text only")
        })
    }

    pub(crate) fn offset(&self, text: &str) -> Result<ByteOffset, Failure> {
        let document = Document::open(text, 1).snapshot();
        let line_idx = u32::try_from(self.line - 1).unwrap_or(u32::MAX);
        let (Ok(line), Ok(line_start)) = (document.line_text(line_idx), document.line_start(line_idx)) else {
            return Err(Failure::usage(format!(
                "{} has {} lines, not {}",
                self.file,
                document.n_lines(),
                self.line
            )));
        };
        let n_before: usize = line.chars().take(self.column - 1).map(char::len_utf8).sum();
        if self.column - 1 > line.chars().count() {
            let n_columns = line.chars().count() + 1;
            return Err(Failure::usage(format!("line {} ends at column {n_columns}", self.line)));
        }
        Ok(ByteOffset(line_start.0 + n_before))
    }
}
