#!/usr/bin/env python3
"""Tests of the training data's making; `python3 -m unittest` in this folder, with requirements-data.txt installed."""

import json
import pathlib
import random
import re
import tempfile
import unittest

import numpy as np

import corpus
import examples
import fetch
import licence
import prepare
import repairs
import spans
import vocabulary

PROBLEM = '''def quartile_spread(numbers, is_sorted):
    """Return how far apart the lower and the upper quartile of a list of numbers are from one another."""
    ordered = numbers if is_sorted else sorted(numbers)
    lower, upper = ordered[len(ordered) // 4], ordered[3 * len(ordered) // 4]
    return upper - lower
'''
CODE = '''"""Shelves, and the books on them."""

import dataclasses


@dataclasses.dataclass
class Shelf:
    """Holds books in the order in which they were put there."""

    books: list

    def find(self, title, author=None):
        """Return the first book with this title, or None."""
        for book in self.books:
            if book.title == title and (author is None or book.author == author):
                return book
        return None

    def put(self, book, before=None):
        """Put a book on the shelf, at its end or before another one."""
        if before is None:
            self.books.append(book)
        else:
            self.books.insert(self.books.index(before), book)
        return len(self.books)
'''


def shingles(text):
    return corpus.shingles(corpus.line_hashes(text))


def package(cache, client, name, files):
    for path, text in files.items():
        to = cache / client / f"{name}@1" / path
        to.parent.mkdir(parents=True, exist_ok=True)
        to.write_text(text)
    record = {
        "client": client,
        "name": name,
        "version": "1",
        "licence": "MIT",
        "is_permissive": True,
        "n_files": len(files),
    }
    (cache / client / f"{name}@1.json").write_text(json.dumps(record))


class Documents(unittest.TestCase):
    def setUp(self):
        self.tokenizer = vocabulary.of_bytes()
        text = CODE + CODE.replace("Shelf", "Box").replace("book", "toy")
        page = spans.Page(text, "python")
        some = [draft for seed in range(60) for draft in examples.drafts(page, 3, random.Random(seed))]
        self.text, self.made = text, examples.documents(some, self.tokenizer)
        self.kinds = {one.kind for one in self.made}

    def decoded(self, ids):
        return self.tokenizer.decode([one for one in ids if one >= vocabulary.N_SPECIALS])

    def test_parts_of_a_filled_document_are_the_file_again(self):
        n = 0
        for one in self.made:
            if one.kind == "suffix first":
                at = one.ids.index(vocabulary.PREFIX)
                before, after = one.ids[at:], one.ids[:at]
            elif one.kind == "prefix first":
                at, mid = one.ids.index(vocabulary.SUFFIX), one.ids.index(vocabulary.MIDDLE)
                before, after = one.ids[:at] + one.ids[mid:], one.ids[at:mid]
            else:
                continue
            self.assertIn(self.decoded(before) + self.decoded(after), self.text)
            self.assertEqual(one.ids[-1], vocabulary.END_OF_TEXT)
            n += 1
        self.assertGreater(n, 40)

    def test_every_kind_is_made(self):
        self.assertEqual(self.kinds, set(examples.KINDS) - ({"repair"} - self.kinds))
        self.assertIn("plain", self.kinds)

    def test_a_document_fits_its_class(self):
        for one in self.made:
            self.assertLessEqual(len(one.ids), one.length_class())
            self.assertTrue(one.length_class() == 256 or 2 * len(one.ids) > one.length_class())
            self.assertTrue(0 < one.n_target <= len(one.ids))

    def test_the_target_starts_at_the_boundary_before_the_cursor(self):
        for head, middle, expected in [
            ("x = pri", "nt(1)", "print(1)"),  # Inside a word: up to four tokens, here of one byte, back.
            ("x = ", "1", " 1"),
            ("return foo(", "bar)", "(bar)"),
            ("", "import os", "import os"),
            ("a = abcdefgh", "ij", "efghij"),
            ("é = 'ü", "'", "ü'"),
        ]:
            draft = examples.Draft("suffix first", ["\n", "line\n" + head + middle], head="line\n" + head)
            (one,) = examples.documents([draft], self.tokenizer)
            expected = "\n" + expected if not head else expected
            self.assertEqual(self.decoded(one.ids[-one.n_target :]), expected, head)
            self.assertEqual(one.ids[-1], vocabulary.END_OF_TEXT)

    def test_plain_text_that_was_cut_has_no_end(self):
        for is_end in (True, False):
            (one,) = examples.documents([examples.Draft("plain", ["x = 1\n"], is_end=is_end)], self.tokenizer)
            self.assertEqual(one.ids[-1] == vocabulary.END_OF_TEXT, is_end)


class Spans(unittest.TestCase):
    def test_every_kind_of_span_is_inside_any_text(self):
        texts = [CODE, "", "\n", " \n\t\n  x\n \n", "x", "é" * 30 + "\n" + "ü = 1\n" * 5, "\n\n   \n" + CODE]
        found = set()
        for text in texts:
            for language in spans.GRAMMARS:
                page = spans.Page(text, language)
                for kind, cut in spans.CUTS.items():
                    for line_idx in range(len(page.lines)):
                        for seed in range(3):
                            span = cut(page, line_idx, random.Random(seed))
                            if span:
                                self.assertTrue(0 <= span[0] <= span[1] <= len(text), (kind, text, span))
                                found.add(kind)
        self.assertEqual(found, set(spans.KINDS))


class Repairs(unittest.TestCase):
    def test_the_answer_is_the_function_as_it_was(self):
        tokenizer = vocabulary.of_bytes()
        page = spans.Page(CODE, "python")
        n = 0
        for seed in range(40):
            made = repairs.conversation(page, 0, len(page.lines) - 1, 4000, random.Random(seed))
            if made:
                _, question, answer = made
                right = answer.split("python\n", 1)[1].removesuffix("\n```")
                self.assertIn(right, CODE)
                self.assertNotIn(right, question)
                ids, n_target = repairs.assembled([tokenizer.encode(part).ids for part in made], 1, 2, tokenizer)
                self.assertEqual(tokenizer.decode(ids[-n_target:-1]), answer.split("\n", 1)[1])
                self.assertEqual((ids[0], ids[-1]), (vocabulary.TURN_START, vocabulary.TURN_END))
                n += 1
        self.assertGreater(n, 20)


class Corpus(unittest.TestCase):
    def test_what_is_not_wanted_is_dropped(self):
        for text, expected in [
            (CODE, None),
            ("# Generated by a tool. DO NOT EDIT.\n" + CODE, "generated"),
            (CODE + "key = 'AKIA" + "ABCDEFGHIJ234567'\n", "secret"),
            (CODE + "api_key = '" + "0aB1" * 8 + "'\n", "secret"),
            (CODE + "name = '" + "0aB1" * 8 + "'\n", None),
            ("# Under the GNU General Public License\n" + CODE, "licence header"),
            (CODE + "x = '" + "a" * 2000 + "'\n", "long lines"),
            (CODE + "x = '<|im_start|>'\n", "control characters"),
            ("x = [\n" + "    0x12, 0x34, 0x56, 0x78, 0x9a,\n" * 60 + "]\n", "data"),
            ("x = 1\n", "size"),
        ]:
            self.assertEqual(corpus.reason_to_drop("a.py", text), expected, text[:40])

    def test_evaluations_are_found_inside_other_files(self):
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder) / "problems.jsonl"
            head, line, rest = PROBLEM.partition("    return upper")
            path.write_text(json.dumps({"prompt": head, "canonical_solution": line + rest}) + "\n")
            evaluations = corpus.Evaluations([path])
        self.assertFalse(self.are_in(evaluations, CODE))
        self.assertTrue(self.are_in(evaluations, CODE + PROBLEM))
        # By its words alone, and by its lines alone.
        docstring = PROBLEM.split('"""')[1]
        self.assertTrue(self.are_in(evaluations, f"{CODE}# {docstring}\n"))
        lines = "\n    # Nothing.\n".join(PROBLEM.splitlines()[2:])
        self.assertTrue(self.are_in(evaluations, f"{CODE}\n\n{lines}"))

    def are_in(self, evaluations, text):
        return evaluations.have(text, corpus.line_hashes(text))

    def test_copies_are_found(self):
        copies = corpus.Copies()
        longer = CODE + CODE.replace("book", "toy")
        self.assertIsNone(copies.reason_to_drop(1, shingles(CODE)))
        self.assertEqual(copies.reason_to_drop(1, shingles("")), "copy")
        self.assertEqual(copies.reason_to_drop(2, shingles("import os\n" + CODE + "x_value = other\n")), "near copy")
        self.assertIsNone(copies.reason_to_drop(3, shingles(longer.replace("self", "this").replace("None", "null"))))

    def test_held_out_packages_and_projects_are_in_no_training_document(self):
        marks, held = {}, {"requests", "ropey"}
        rng = random.Random(5)
        with tempfile.TemporaryDirectory() as folder:
            cache, out = pathlib.Path(folder) / "cache", pathlib.Path(folder) / "out"
            for name in [f"package{idx}" for idx in range(14)] + sorted(held):
                marks[name] = f"mark_of_{name}_here"
                words = ["".join(rng.choices("etaoinshr", k=9)) for _ in range(2400)]
                lines = [f"    {a} = {marks[name]}({b}, {c})" for a, b, c in zip(words[::3], words[1::3], words[2::3])]
                package(cache, "pip", name, {"a.py": "def one():\n" + "\n".join(lines) + "\n"})
            card = prepare.prepare(cache, out, 400_000, vocabulary.of_bytes(), [], n_jobs=1)
            read = {
                split: b"".join(
                    path.read_bytes() for path in sorted(out.glob(f"{split}-???*.u16")) if ".len" not in path.name
                )
                for split in ("train", "valid")
            }
            lengths = [np.fromfile(path, "<u2").reshape(-1, 2) for path in sorted(out.glob("train-*.len.u16"))]
        tokenizer = vocabulary.of_bytes()
        texts = {split: tokenizer.decode(np.frombuffer(content, "<u2").tolist()) for split, content in read.items()}
        aside = {one["name"] for one in card["packages"] if one["split"] == "valid"}
        self.assertGreaterEqual(len(aside), prepare.N_LEAST_HELD_OUT)
        for name, mark in marks.items():
            self.assertEqual(mark in texts["train"], name not in aside | held, name)
            self.assertFalse(name in held and mark in texts["valid"])
        self.assertEqual(sum(int(one[:, 0].sum()) for one in lengths), len(read["train"]) // 2)
        self.assertEqual(card["train"]["tokens"], len(read["train"]) // 2)

    def test_packages_of_one_repository_are_on_the_same_side(self):
        for one, other, expected in [
            ("cargo/bevy_ui@1", "cargo/bevy_render@2", True),
            ("npm/@antv+g2@1", "npm/@antv+x6@1", True),
            ("deb/golang-github-docker-a-dev@1", "deb/golang-github-docker-b-dev@1", True),
            ("cargo/serde@1", "pip/serde@1", False),
            ("npm/three@1", "npm/rxjs@1", False),
        ]:
            self.assertEqual(prepare.family(one) == prepare.family(other), expected, (one, other))
        kept = {
            f"cargo/{name}@1": [corpus.Source(f"cargo/{name}@1", "a.rs", "rust", 50_000)]
            for name in [f"{letter}-{part}" for letter in "abcdefghijklmnopqrst" for part in ("one", "two")]
        }
        for seed in range(5):
            aside = prepare.held_out(kept, random.Random(seed))
            self.assertGreaterEqual(len(aside), 2 * prepare.N_LEAST_HELD_OUT)
            for project in aside:
                self.assertIn(re.sub("one|two", lambda at: {"one": "two", "two": "one"}[at.group()], project), aside)


class Licences(unittest.TestCase):
    def test_what_may_be_trained_on(self):
        for said, expected in [
            ("MIT", True),
            ("MIT OR Apache-2.0", True),
            ("MIT/Apache-2.0", True),
            ("Apache-2.0 WITH LLVM-exception", True),
            ("GPL-3.0 OR MIT", True),
            ("GPL-3.0", False),
            ("MIT AND LGPL-2.1", False),
            ("BSD License", True),
            ("Apache Software License", True),
            ("", False),
            ("SEE LICENSE IN LICENSE.md", False),
            ("BSD-3-Clause", True),
            ("(MIT OR EUPL-1.1+)", True),
            ("MPL-2.0", False),
            ("Expat and BSD-3-clause", True),
            ("BlueOak-1.0.0", False),
            ("Permit-everything", False),
            ("(MIT OR Apache-2.0) AND MPL-2.0", False),
            ("(GPL-2.0 OR MIT) AND ISC", True),
            ("ISC AND (GPL-2.0 OR LGPL-2.1)", False),
            ("ISC", True),
            ("Python Software Foundation License", True),
            ("BUSL-1.1", False),
        ]:
            self.assertEqual(licence.is_permissive(said), expected, said)

    def test_a_debian_copyright_tells_of_each_file(self):
        rights = licence.DebianCopyright(
            "Format: 1.0\n\nFiles: *\nCopyright: A\nLicense: Own\n\nFiles: gpl/*\nCopyright: B\nLicense: GPL-2+\n\n"
            "License: Own\n Redistribution and use in source\n and binary forms are permitted\n"
        )
        self.assertTrue(rights.is_permissive("a.c"))
        self.assertFalse(rights.is_permissive("gpl/a.c"))


class Fetched(unittest.TestCase):
    def test_one_of_several_compiled_forms_is_kept(self):
        files = {path: b"" for path in ("dist/esm/a.js", "lib/a.js", "src/a.ts", "lib/b/c.js", "dist/b/c.js")}
        self.assertEqual(list(fetch.best_of_each(files)), ["lib/b/c.js", "src/a.ts"])

    def test_tests_data_and_what_a_machine_wrote_stay_out(self):
        for path, expected in [
            ("a/b.py", True),
            ("a/testdata/b.go", False),
            ("x_pb2.py", False),
            ("a.min.js", False),
            ("vendor/x.go", False),
        ]:
            self.assertEqual(any(fetch.is_source(client, path) for client in fetch.ENDINGS), expected, path)


if __name__ == "__main__":
    unittest.main()
