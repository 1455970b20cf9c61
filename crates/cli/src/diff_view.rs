//! What a human sees of a proposal, and is asked.
//!
//! In: a proposal, a terminal or a pipe. Out: a coloured diff with a number on every hunk; the human's decisions.
//! Never: takes silence for consent: no answer, or one that is not understood, accepts nothing.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{BufRead, IsTerminal as _, Write};

use agent::accept::{self, Accepted};
use agent::proposal::{Decision, FileChange, Proposal, ReviewHunk};
use agent::repo::Repo;

use crate::failure::{Failure, code};

/// Lines shown around a hunk.
const N_CONTEXT: usize = 3;

/// The colours of a terminal, or none.
#[derive(Clone, Copy)]
pub(crate) struct Palette {
    removed: &'static str,
    added: &'static str,
    header: &'static str,
    strong: &'static str,
    plain: &'static str,
}

impl Palette {
    const NONE: Self = Self { removed: "", added: "", header: "", strong: "", plain: "" };
    const ANSI: Self = Self {
        removed: "\x1b[31m",
        added: "\x1b[32m",
        header: "\x1b[36m",
        strong: "\x1b[1m",
        plain: "\x1b[0m",
    };

    /// Returns colours if stdout is a terminal and the user has not set `NO_COLOR`.
    pub(crate) fn for_stdout() -> Self {
        // no-color.org: set and not empty.
        let is_unwanted = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let is_dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        if std::io::stdout().is_terminal() && !is_unwanted && !is_dumb { Self::ANSI } else { Self::NONE }
    }
}

/// Prints the proposal: what it is, what the tests said, every hunk with its number.
pub(crate) fn show(out: &mut dyn Write, proposal: &Proposal) -> Result<(), Failure> {
    let palette = Palette::for_stdout();
    out.write_all(render(proposal, palette).as_bytes())?;
    Ok(())
}

/// Shows every undecided hunk and asks; carries out the answers and returns the exit code.
pub(crate) fn ask(repo: &Repo, proposal: &Proposal) -> Result<u8, Failure> {
    let decisions =
        ask_on(&mut std::io::stdin().lock(), &mut std::io::stderr(), proposal, Palette::for_stdout())?;
    if decisions.is_empty() {
        say!(
            "Nothing decided. Proposal {id} waits: agent proposals accept {id} --dir {}",
            repo.root().display(),
            id = proposal.id
        );
        return Ok(code::OK);
    }
    let done = accept::decide(repo, &proposal.id, &decisions)?;
    report(&done);
    Ok(code::OK)
}

/// Says on stderr what was written.
pub(crate) fn report(done: &Accepted) {
    for path in &done.written {
        let how = if done.rebased.contains(path) { ", rebased on your changes" } else { "" };
        say!("Wrote {path}{how}.");
    }
    if done.written.is_empty() {
        say!("No file needed to change.");
    }
    say!("Proposal {} is {}.", done.proposal.id, done.proposal.state().as_str());
}

fn render(proposal: &Proposal, palette: Palette) -> String {
    let Palette { header, strong, plain, .. } = palette;
    let evidence = &proposal.draft.evidence;
    let mut text = format!("{strong}proposal {}{plain} ({})\n", proposal.id, proposal.state().as_str());
    if let Some(words) = &proposal.draft.task.words {
        let _ = writeln!(text, "  task:  {}", printable(words));
    }
    let _ = writeln!(text, "  test:  {}", printable(&proposal.draft.task.test_command));
    let _ = writeln!(text, "  was:   {}", outcome(&evidence.before));
    let _ = writeln!(text, "  now:   {}", outcome(&evidence.after));
    let _ = writeln!(
        text,
        "  model: {}, seed {}",
        printable(&proposal.draft.model.to_string()),
        proposal.draft.seed
    );
    let mut shown = None;
    for (number, file, hunk) in proposal.hunks() {
        if shown != Some(&file.path) {
            let _ = writeln!(text, "\n{strong}--- a/{path}\n+++ b/{path}{plain}", path = file.path);
            shown = Some(&file.path);
        }
        let state =
            hunk.decision.as_ref().map_or(String::new(), |decision| format!(" ({})", decision.state()));
        let _ = writeln!(text, "{header}hunk {number}{state}{plain}");
        text.push_str(&render_hunk(file, hunk, palette));
    }
    text
}

/// Returns one hunk with its context, as a unified diff has it.
fn render_hunk(file: &FileChange, ReviewHunk { hunk, .. }: &ReviewHunk, palette: Palette) -> String {
    let Palette { removed, added, header, plain, .. } = palette;
    let patch = text::to_unified(file.path.as_str(), &file.base_text, std::slice::from_ref(hunk), N_CONTEXT);
    let mut text = String::new();
    // The file's own header has been shown.
    for line in patch.split_inclusive('\n').skip_while(|line| !line.starts_with("@@")) {
        let colour = match line.as_bytes().first() {
            Some(b'-') => removed,
            Some(b'+') => added,
            Some(b'@') => header,
            _ => "",
        };
        let end = if colour.is_empty() { "" } else { plain };
        let _ = writeln!(text, "{colour}{}{end}", printable(line.strip_suffix('\n').unwrap_or(line)));
    }
    text
}

fn outcome(outcome: &agent::evidence::TestOutcome) -> String {
    let how = match outcome.exit {
        _ if outcome.timed_out => "did not end in time".to_owned(),
        Some(0) => "passes".to_owned(),
        Some(exit) => format!("fails with exit code {exit}"),
        None => "was ended by a signal".to_owned(),
    };
    format!("{how} ({} ms)", outcome.duration_ms)
}

/// Returns text that cannot give orders to a terminal: a repository's lines are data.
fn printable(line: &str) -> String {
    // A carriage return at the end is a CRLF file's; shown, it would hide what is before it.
    let (line, end) = match line.strip_suffix('\r') {
        Some(line) => (line, "␍"),
        None => (line, ""),
    };
    let is_order = |c: char| c.is_control() && c != '\t';
    let mut text: String =
        line.chars().map(|c| if is_order(c) || is_bidi(c) { '\u{fffd}' } else { c }).collect();
    text.push_str(end);
    text
}

/// Returns whether the character turns the direction of text, by which code can look like other code.
///
/// Source: CVE-2021-42574.
fn is_bidi(c: char) -> bool {
    matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Asks for every undecided hunk; the answers so far count when the human quits.
fn ask_on(
    input: &mut dyn BufRead,
    out: &mut dyn Write,
    proposal: &Proposal,
    palette: Palette,
) -> Result<BTreeMap<usize, Decision>, Failure> {
    let n_hunks = proposal.hunks().count();
    let mut decisions = BTreeMap::new();
    let mut accept_all = false;
    for (number, file, hunk) in proposal.hunks().filter(|(_, _, hunk)| hunk.decision.is_none()) {
        if accept_all {
            decisions.insert(number, Decision::Accept);
            continue;
        }
        if n_hunks > 1 {
            write!(out, "\n{}\n{}", file.path, render_hunk(file, hunk, palette))?;
        }
        match ask_one(input, out, number, n_hunks)? {
            Answer::Yes => drop(decisions.insert(number, Decision::Accept)),
            Answer::No => drop(decisions.insert(number, Decision::Reject { reason: None })),
            Answer::All => {
                accept_all = true;
                decisions.insert(number, Decision::Accept);
            }
            Answer::Quit => break,
        }
    }
    Ok(decisions)
}

enum Answer {
    Yes,
    No,
    All,
    Quit,
}

fn ask_one(
    input: &mut dyn BufRead,
    out: &mut dyn Write,
    number: usize,
    n_hunks: usize,
) -> Result<Answer, Failure> {
    loop {
        write!(out, "Accept hunk {number} of {n_hunks}? [y]es, [n]o, [a]ll, [q]uit: ")?;
        out.flush()?;
        let mut line = String::new();
        // The end of input is no answer.
        if input.read_line(&mut line)? == 0 {
            writeln!(out)?;
            return Ok(Answer::Quit);
        }
        match line.trim().to_lowercase().as_str() {
            "y" | "yes" => return Ok(Answer::Yes),
            "n" | "no" => return Ok(Answer::No),
            "a" | "all" => return Ok(Answer::All),
            "q" | "quit" => return Ok(Answer::Quit),
            _ => writeln!(
                out,
                "y accepts it, n rejects it, a accepts it and all after it, q decides nothing more."
            )?,
        }
    }
}
