"""A person adds lines in the middle of a file: the keys, the pauses between them, what a ghost text is worth.

In: a file's text. Out: [`Stretch`]: the document before, the keys in their order; pauses from a seeded model.
"""

import bisect
import itertools
import random
import re

# Medians of log-normal pauses, in seconds. 160 ms inside a word is a practised typist (Dhakal et al., Observations on
# Typing from 136 Million Keystrokes, 2018: the mean is 239 ms, the fastest tenth is under 130); a new word, a new line
# and a new block are thought about.
WITHIN_WORD_S, WORD_S, SIGN_S, LINE_S, BLOCK_S = 0.160, 0.230, 0.260, 0.700, 1.500
SPREAD = 0.35
MOST_S = 5.0
# Between seeing that a ghost text is right and having pressed Tab.
READING_S = 0.35


class Stretch:
    """The lines that are typed, taken out of a file's middle; Enter inserts the next line's indentation too."""

    def __init__(self, text, n_keys):
        lines = text.splitlines()
        first = start_line(lines)
        self.keys = []
        last = first
        while last < len(lines) and len(self.keys) < n_keys:
            line = lines[last]
            code = line.lstrip()
            self.keys.append("\n" + line[: len(line) - len(code)])
            self.keys.extend(code)
            last += 1
        self.keys = self.keys[:n_keys]
        self._ends = list(itertools.accumulate(map(len, self.keys)))
        self.head = "\n".join(lines[:first])
        self.tail = "\n" + "\n".join(lines[last:]) + "\n"
        self.typed = "".join(self.keys)
        self.n_lines = len(lines)

    def next_key(self, at):
        """The index of the key at a character of the typed text, and what of it is to be typed: Tab may have inserted
        a part of an Enter's indentation."""
        key_idx = bisect.bisect_right(self._ends, at)
        return key_idx, self.typed[at : self._ends[key_idx]]

    def pauses(self, seed):
        """The pause before each key, in seconds."""
        rng = random.Random(seed)
        pauses, before = [], "\n"
        for key in self.keys:
            is_word, was_word = key.isalnum() or key == "_", before[-1].isalnum() or before[-1] == "_"
            if before[0] == "\n":
                middle = BLOCK_S if before == "\n" else LINE_S
            elif is_word:
                middle = WITHIN_WORD_S if was_word else WORD_S
            else:
                middle = WITHIN_WORD_S if key == " " else SIGN_S
            pauses.append(min(middle * rng.lognormvariate(0.0, SPREAD), MOST_S))
            before = key
        return pauses


def start_line(lines):
    """The first line behind the middle that begins something: there is a blank line above it."""
    middle = len(lines) // 2
    starts = (idx for idx in range(max(middle, 1), len(lines)) if lines[idx].strip() and not lines[idx - 1].strip())
    return next(starts, max(middle, 1))


def first_word(text):
    """The first word, or the first sign, of a text; white space before it is not looked at."""
    found = re.match(r"\s*(\w+|\S)?", text)
    return found.group(1) or ""


def is_wrong(ghost_text, following):
    """Whether the first word that a ghost text shows is not the one that is typed next."""
    return first_word(ghost_text) != first_word(following)


def n_right(ghost_text, following):
    """How many characters of a ghost text are those that follow, up to the last whole word."""
    n_same = 0
    for mine, theirs in zip(ghost_text, following):
        if mine != theirs:
            break
        n_same += 1
    while n_same and not is_boundary(following, n_same):
        n_same -= 1
    return n_same


def acceptable(ghost_text, following):
    """What a person accepts of a ghost text: all of it if it is exactly what would be typed, else its whole lines that
    are; of nothing less than a word."""
    n_same = n_right(ghost_text, following)
    if n_same < len(ghost_text):
        n_same = ghost_text.rfind("\n", 0, n_same + 1)
        # Where the line goes on, a person types on.
        if n_same < 0 or following[n_same : n_same + 1] != "\n":
            return ""
    right = ghost_text[:n_same]
    return right if right.strip() else ""


def is_boundary(text, at):
    is_word = [char.isalnum() or char == "_" for char in text[at - 1 : at + 1]]
    return len(is_word) < 2 or not all(is_word)


def n_keys(text):
    """How many keys a text takes: Enter brings its line's indentation."""
    return len(re.sub(r"\n[ \t]*", "\n", text))
