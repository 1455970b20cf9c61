"""Tells from what a package's own metadata say whether its licence lets its code be trained on and passed on.

In: an SPDX expression, a trove classifier, a free text, or a Debian copyright file. Out: whether it is one of MIT,
Apache-2.0, BSD, ISC, Zlib, Unlicense, 0BSD, Python's, the public domain, or a text that asks no more than MIT's.
Never: a guess. What says nothing, or what is not in the list, is not taken.
"""

import fnmatch
import re

# curl, PostgreSQL, X11, HPND and Expat are MIT's terms in other words.
PERMISSIVE = re.compile(
    r"(?<![\w-])(?:mit(?:-0|-cmu|[ -]style)?|expat|apache(?:[ -](?:software|license,?|licence|version|v)?\s*)*2(?:\.0)?|"
    r"apache(?: software)?(?: license)?|0?bsd(?:[ -]?[0-4][ -]?clause|-like|-style)?|iscl?|zlib(?:-acknowledgement|/libpng)?|libpng(?:-2\.0)?|"
    r"unlicense|psf(?:-2\.0|l)?|python(?: software foundation)?(?:-2\.0)?|public[ -]domain|cc0(?:-1\.0)?|curl|"
    r"postgresql|x11|hpnd|openldap(?:-2\.8)?|tcltk|tcl)(?![\w])",
    re.IGNORECASE,
)
COPYLEFT = re.compile(
    r"\b(?:[al]?gpl|general public|lesser|mpl|mozilla|epl|eclipse|cddl|eupl|sspl|busl|business source|cc[- ]by|"
    r"creative commons attribution|modified|elastic|commons clause|proprietary|commercial|osl|artistic|ruby|non-?free)",
    re.IGNORECASE,
)
# A file's own header may say other than its package.
HEADER = re.compile(
    r"General Public Licen|\bGPL|Mozilla Public|SPDX-License-Identifier:\s*\(?(?:L|A)?GPL|All rights reserved\.? "
    r"Unauthorized|proprietary and confidential|Business Source License|Elastic License|Server Side Public",
    re.IGNORECASE,
)
MIT_TEXT = re.compile(
    r"permission is hereby granted,? free of charge|redistribution and use in source and binary|apache license,? version 2|"
    r"permission to use, copy, modify,? and",
    re.IGNORECASE,
)


def is_permissive(said):
    """Returns whether an expression or a name can be kept to by permissive terms alone."""
    text = re.sub(r"\s+WITH\s+[\w.-]+", "", said or "")
    # What is in brackets holds or not before what stands around it is looked at.
    while inner := re.search(r"\(([^()]*)\)", text):
        text = f"{text[: inner.start()]}{'MIT' if is_permissive(inner.group(1)) else 'GPL'}{text[inner.end() :]}"
    choices = re.split(r"\s+or\s+|/(?!libpng)|\s*\|\s*", text.strip("\"'"), flags=re.IGNORECASE)
    return any(
        all(map(is_name_permissive, re.split(r"\s+and\s+|;|,(?!\s*version)", one, flags=re.IGNORECASE)))
        for one in choices
    )


def is_name_permissive(name):
    return bool(PERMISSIVE.search(name)) and not COPYLEFT.search(name)


def of_python(metadata):
    """Returns what a wheel's METADATA say: the expression, else the classifiers, else the free text."""
    fields = {}
    for line in metadata.split("\n\n", 1)[0].splitlines():
        key, _, value = line.partition(": ")
        fields.setdefault(key, []).append(value)
    if "License-Expression" in fields:
        return fields["License-Expression"][0]
    named = [
        value.rsplit("::", 1)[-1].strip() for value in fields.get("Classifier", []) if value.startswith("License ::")
    ]
    named = [value for value in named if value != "OSI Approved"]
    if named:
        return " and ".join(named)
    text = fields.get("License", [""])[0]
    return text if len(text) < 100 else text[:60]


class DebianCopyright:
    """A Debian copyright file: the licence of each file, as far as it is machine-readable."""

    def __init__(self, text):
        self.globs, self.texts = [], {}
        for stanza in re.split(r"\n\s*\n", text):
            files = re.search(r"^Files:\s*((?:.+\n?)(?:[ \t]+.+\n?)*)", stanza, re.MULTILINE)
            licence = re.search(r"^License:[ \t]*(.*)((?:\n[ \t]+.*)*)", stanza, re.MULTILINE)
            if licence and licence.group(2):
                self.texts[licence.group(1).strip()] = " ".join(licence.group(2).split())
            if files and licence:
                self.globs += [(glob, licence.group(1).strip()) for glob in files.group(1).split()]
        self.is_readable = any(glob == "*" for glob, _ in self.globs)
        plain = " ".join(text.split())
        is_free = "General Public License" not in plain and MIT_TEXT.search(plain)
        self.said = self.of("") if self.is_readable else "BSD/MIT by its text" if is_free else "not told"

    def of(self, path):
        """Returns a file's licence: the last stanza that fits counts."""
        said = "not told"
        for glob, licence in self.globs:
            if glob == "*" or fnmatch.fnmatch(path, glob) or fnmatch.fnmatch(path, glob.rstrip("/") + "/*"):
                said = licence
        return said

    def is_permissive(self, path):
        if not self.is_readable:
            return self.said != "not told"
        said = self.of(path)
        return is_permissive(said) or self.is_text_permissive(said)

    def is_text_permissive(self, name):
        """Returns whether a licence with a name of its own, such as Go's, is one of the known texts."""
        text = self.texts.get(name, "")
        return bool(MIT_TEXT.search(text)) and not COPYLEFT.search(text) and not COPYLEFT.search(name)
