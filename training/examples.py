"""Training documents out of files: fill-in-the-middle in the two orders that Tandem asks in, plain code, and repairs.

In: files, the model's tokenizer. Out: `Document`s of at most `LONGEST` tokens.

 * suffix first: `[8] after [9] before+head+middle [0]`; the text from `before` on is encoded in one go;
 * prefix first: `[9] before [8] after [10] head+middle [0]`, `before` being whole lines;
 * plain: a file's text, and `[0]` where the file ends;
 * repair: a conversation as the model's chat template writes it (see repairs.py).

What is to be learned starts at the last token boundary that the product backs up to: crates/complete/src/prompt.rs
backs up over the last token, and further while that is inside a word, four tokens at most.
"""

import typing

import repairs
import spans
from vocabulary import END_OF_TEXT, MIDDLE, PREFIX, SUFFIX, TURN_END, TURN_START

CLASSES = [256, 512, 1024]
LONGEST = CLASSES[-1]
# By documents, so that by tokens they are 15, 60 and 25 %.
CLASS_WEIGHTS = {256: 29, 512: 58, 1024: 13}
# Where there is no function to repair, a repair becomes a document with its suffix first: about a third of them.
KINDS = {"suffix first": 50, "prefix first": 20, "plain": 15, "repair": 15}
N_MAX_BEFORE_BYTES, N_MAX_BACKED_UP = 2048, 4


class Document(typing.NamedTuple):
    """Token ids, of which the last `n_target` are to be learned; `kind` of KINDS."""

    kind: str
    ids: list
    n_target: int

    def length_class(self):
        return next(longest for longest in CLASSES if len(self.ids) <= longest)


class Draft(typing.NamedTuple):
    """A document's texts, before they are tokens: `parts` are encoded each on its own."""

    kind: str
    parts: list
    # The text before the cursor of the part that holds the middle, and whether the file ends with the text.
    head: str = ""
    is_end: bool = True


def drafts(page, n, rng):
    """Returns up to `n` documents' drafts from different places of a file."""
    found = []
    n_lines = len(page.lines)
    for idx in range(n):
        kind = spans.draw(KINDS, rng)
        first, last = n_lines * idx // n, max(n_lines * idx // n, n_lines * (idx + 1) // n - 1)
        drawn = spans.draw(CLASS_WEIGHTS, rng)
        # A function stands in a repair twice.
        n_longest = int((max(drawn, 512) if kind == "repair" else drawn) / spans.TOKENS_A_START[page.language])
        if kind == "repair":
            one = repair(page, first, last, n_longest, rng) or fill(page, "suffix first", first, last, n_longest, rng)
        elif kind == "plain":
            one = plain(page, first, n_longest, rng)
        else:
            one = fill(page, kind, first, last, n_longest, rng)
        if one:
            found.append(one)
    return found


def fill(page, kind, first, last, n_longest, rng):
    cut = spans.span(page, first, last, rng)
    if cut is None:
        return None
    _, start, end = cut
    n_left = n_longest - 5 - page.n_tokens(start, end)
    after = after_of(page, end, n_left, rng)
    n_left -= page.n_tokens(end, end + len(after)) + 3
    if n_left < 8:
        return None
    begin = begin_of(page, start, n_left, rng)
    if begin is None:
        return None
    line_start = int(page.lines[page.line_of(start)])
    before, head, middle = page.text[begin:line_start], page.text[line_start:start], page.text[start:end]
    if kind == "suffix first":
        return Draft(kind, [after, before + head + middle], head=before + head)
    return Draft(kind, [before, after, head + middle], head=head)


def after_of(page, end, n_left, rng):
    """What follows the cursor, cut by bytes as the product cuts it."""
    drawn = rng.random()
    n_bytes = 0 if drawn < 0.1 else 1024 if drawn < 0.18 else 512 if drawn < 0.7 else rng.randint(16, 512)
    after = page.text[end : end + n_bytes].encode()[:n_bytes].decode(errors="ignore")
    while after and page.n_tokens(end, end + len(after)) > 0.5 * n_left:
        after = after[: int(len(after) * 0.8)]
    return after


def begin_of(page, start, n_left, rng):
    """Where the window starts: at a line, as many tokens before the cursor as fit, now and then fewer."""
    if rng.random() < 0.12:
        n_left = int(n_left * rng.random())
    cursor_line = page.line_of(start)
    most_bytes = N_MAX_BEFORE_BYTES
    least = int(page.tokens[max(0, int(page.tokens.searchsorted(start)) - n_left)]) if len(page.tokens) else 0
    line_idx = page.line_of(max(least, start - most_bytes))
    if page.lines[line_idx] < max(least, start - most_bytes):
        line_idx += 1
    return int(page.lines[min(line_idx, cursor_line)]) if start - int(page.lines[cursor_line]) <= most_bytes else None


def plain(page, first, n_longest, rng):
    """A part of the file: from its start or, in three of ten, up to its end or from another line on."""
    drawn = rng.random()
    begin = 0 if drawn < 0.7 else int(page.lines[first])
    n_first = int(page.tokens.searchsorted(begin))
    if drawn > 0.85:
        n_first = max(0, len(page.tokens) - n_longest + 8)
        line_idx = page.line_of(int(page.tokens[n_first])) + (n_first > 0)
        begin = int(page.lines[min(line_idx, len(page.lines) - 1)])
        n_first = int(page.tokens.searchsorted(begin))
    stop = n_first + n_longest - 8
    end = int(page.tokens[stop]) if stop < len(page.tokens) else len(page.text)
    if end < len(page.text):
        end = int(page.lines[page.line_of(end)])
    text = page.text[begin:end]
    return Draft("plain", [text], is_end=end == len(page.text)) if text.strip() else None


def repair(page, first, last, n_longest, rng):
    made = repairs.conversation(page, first, last, n_longest, rng)
    return Draft("repair", list(made)) if made else None


def documents(some, tokenizer):
    """Encodes drafts; a document that came out longer than the longest class is left out."""
    texts, tails = [], []
    for draft in some:
        texts += draft.parts
        tails.append(tail(draft.head))
    encoded = iter(tokenizer.encode_batch(texts, add_special_tokens=False))
    heads = tokenizer.encode_batch(tails, add_special_tokens=False)
    made = []
    for draft, head, head_text in zip(some, heads, tails):
        parts = [next(encoded) for _ in draft.parts]
        document = assembled(draft, parts, head, head_text, tokenizer)
        if len(document.ids) <= LONGEST:
            made.append(document)
    return made


def tail(head):
    """The end of what is before the cursor, from a line's start on: enough to see what is backed up over."""
    line = head.rfind("\n", 0, max(0, len(head) - 80))
    return head[line + 1 :]


def assembled(draft, parts, head, head_text, tokenizer):
    ids = [part.ids for part in parts]
    if draft.kind == "plain":
        whole = ids[0] + [END_OF_TEXT] * draft.is_end
        return Document("plain", whole, len(whole))
    if draft.kind == "repair":
        whole, n_target = repairs.assembled(ids, TURN_START, TURN_END, tokenizer)
        return Document("repair", whole, n_target)
    n_backed_up_chars = len(head_text) - backed_up_to(head, head_text)
    n_target = n_tokens_from(parts[-1], len(draft.head) - n_backed_up_chars) + 1
    if draft.kind == "suffix first":
        whole = [SUFFIX, *ids[0], PREFIX, *ids[1], END_OF_TEXT]
    else:
        whole = [PREFIX, *ids[0], SUFFIX, *ids[1], MIDDLE, *ids[2], END_OF_TEXT]
    return Document(draft.kind, whole, n_target)


def backed_up_to(head, text):
    """Returns the character that the product backs up to from the text's end."""
    starts = [start for start, _ in head.offsets]
    at = len(text)
    for _ in range(N_MAX_BACKED_UP):
        if not starts:
            break
        at = starts.pop()
        if not (0 < at < len(text) and is_word(text[at - 1]) and is_word(text[at])):
            break
    return at


def is_word(char):
    return char == "_" or not char.isascii() or char.isalnum()


def n_tokens_from(encoded, at):
    """Returns how many tokens there are from the last boundary at or before a character."""
    n_before = 0
    for idx, (start, _) in enumerate(encoded.offsets):
        if start > at:
            break
        n_before = idx
    # A character of several tokens starts with the first of them.
    while n_before and encoded.offsets[n_before][0] == encoded.offsets[n_before - 1][0]:
        n_before -= 1
    return len(encoded.ids) - n_before
