#!/usr/bin/env python3
"""Makes training data out of fetched packages: token ids of documents, by length, and a card that says what they are.

In: CACHE, which fetch.py filled; a GGUF of the model, for its tokenizer; what the evaluations are made of.
Out, in OUT, little-endian: for each T of 256, 512, 1024 `train-T.u16` (documents back to back) and `train-T.len.u16`
(pairs of n_tokens and n_target), the same for `valid`; `held-out/` (the files of the held-out projects), `card.json`.
With --tiny the repository's own examples and scripts are the package, and bytes the vocabulary: seconds, no network.
"""

import argparse
import array
import collections
import itertools
import json
import multiprocessing
import os
import pathlib
import random
import re
import shutil
import sys
import tempfile
import time

import corpus
import examples
import spans
import vocabulary

ROOT = pathlib.Path(__file__).parent.parent
EVALUATIONS = ["bench/data/humaneval-infilling-single-line.jsonl.gz", "../shared/eval", ".tools/packages"]
SHARES = {"python": 0.34, "web": 0.24, "rust": 0.20, "go": 0.11, "c": 0.11}
HELD_OUT_SHARE, N_LEAST_HELD_OUT = 0.03, 6
# Of a language's tokens, one project has at most this share.
MOST_OF_PROJECT = 0.05
N_MEAN_TOKENS = 400
N_BYTES_A_TOKEN = 3.1
BATCH_FILES = 60


def group(language):
    return "web" if language in ("javascript", "typescript") else language


class Run:
    """What the processes share: they are forked after it is made."""

    cache = None
    evaluations = None
    tokenizer = None


def look_at(project):
    return project, *corpus.look_at(Run.cache, project, Run.evaluations)


def choose(found):
    """Returns the files that are no copies, by project, and the reasons why the others were dropped."""
    copies, dropped, kept = corpus.Copies(), collections.Counter(), {}
    for project, files, reasons in found:
        dropped.update(reasons)
        for source, text_hash, shingles in files:
            reason = copies.reason_to_drop(text_hash, shingles)
            if reason:
                dropped[reason] += 1
            else:
                kept.setdefault(project, []).append(source)
    return kept, dropped


def chosen_before(path, make):
    """Returns what `choose` found; it is the same for any number of tokens, and so is stored for the next time."""
    if path and path.exists():
        stored = json.loads(path.read_text())
        return {project: [corpus.Source(*one) for one in files] for project, files in stored["kept"].items()}, stored[
            "dropped"
        ]
    kept, dropped = make()
    if path:
        path.write_text(json.dumps({"kept": kept, "dropped": dict(dropped.most_common())}))
    return kept, dropped


def family(project):
    """What a project is of: packages of one repository share the first part of their name, or their scope or owner."""
    client, name = project.split("/", 1)
    name = name.rsplit("@", 1)[0]
    if name.startswith("@"):
        return f"{client}/{name.split('+')[0]}"
    parts = re.split("[-_.]", name)
    return f"{client}/{'-'.join(parts[:3] if client == 'deb' else parts[:1])}"


def held_out(kept, rng):
    """Returns the projects that nothing is trained on: in each language six families or more, about 3 % of its bytes."""
    sizes, families = collections.defaultdict(collections.Counter), collections.defaultdict(set)
    for project, files in kept.items():
        families[family(project)].add(project)
        for source in files:
            sizes[group(source.language)][family(project)] += source.n_bytes
    chosen = set()
    for language in SHARES:
        # A family counts for its main language; very large ones and crumbs make no fair sample.
        total = sum(sizes[language].values())
        main = sorted(one for one, n in sizes[language].items() if n == max(some[one] for some in sizes.values()))
        rng.shuffle(main)
        fits = lambda one: min(20_000, total // 50) < sizes[language][one] < max(120_000, total * 0.008)
        n_bytes = n = 0
        for one in sorted(main, key=lambda one: (not fits(one), 0 if fits(one) else sizes[language][one])):
            if n >= min(N_LEAST_HELD_OUT, len(main) // 2) and (n_bytes > HELD_OUT_SHARE * total or not fits(one)):
                break
            chosen |= families[one]
            n_bytes, n = n_bytes + sizes[language][one], n + 1
    return chosen


def plan(kept, chosen, n_tokens, rng):
    """Returns for each file how many documents are cut from it: [(project, [(source, n)])]."""
    weights = {}
    for language in SHARES:
        some = {
            project: [(one, weight(one)) for one in files if group(one.language) == language]
            for project, files in kept.items()
            if project in chosen
        }
        totals = {project: sum(w for _, w in files) for project, files in some.items()}
        most = MOST_OF_PROJECT * sum(totals.values())
        scaled = {
            one: w * min(1, most / max(totals[project], 1)) for project, files in some.items() for one, w in files
        }
        n_documents = n_tokens * SHARES[language] / N_MEAN_TOKENS
        rate = n_documents / max(sum(scaled.values()), 1e-9)
        weights.update({one: (w * rate, most_of(one)) for one, w in scaled.items()})
    planned = []
    for project in sorted(chosen & kept.keys()):
        counts = [(one, min(int(weights[one][0] + rng.random()), weights[one][1])) for one in kept[project]]
        planned.append((project, [(one, n) for one, n in counts if n]))
    return planned


def weight(source):
    """A file's part: by its tokens, but of a long file less, so that there are as many different ones as possible."""
    n_tokens = source.n_bytes / N_BYTES_A_TOKEN
    return min(n_tokens, 1200) + 0.5 * max(0, n_tokens - 1200)


def most_of(source):
    """Most documents of a file: about two holes for each window's text."""
    return 1 + int(source.n_bytes / N_BYTES_A_TOKEN / 250)


def cut(task):
    """Returns the documents of some files of one project: [(language, Document)]."""
    files, seed = task
    made = []
    texts = [corpus.text_of(Run.cache, source) for source, _ in files]
    for (source, n), text in zip(files, texts):
        rng = random.Random(f"{seed} {source.project} {source.path}")
        page = spans.Page(text, source.language)
        made += [(source.language, draft) for draft in examples.drafts(page, n, rng)]
    documents = []
    for language, some in itertools.groupby(sorted(made, key=lambda pair: pair[0]), key=lambda pair: pair[0]):
        documents += [(language, one) for one in examples.documents([draft for _, draft in some], Run.tokenizer)]
    return [
        (language, one.kind, one.length_class(), array.array("H", one.ids).tobytes(), one.n_target)
        for language, one in documents
    ]


def write(planned, out, split, pool, seed):
    """Writes one split; returns what was counted."""
    counts = {
        "documents": 0,
        "tokens": 0,
        "targets": 0,
        "by_language": collections.Counter(),
        "by_kind": collections.Counter(),
        "by_class": collections.Counter(),
        "by_client": collections.Counter(),
        "files": sum(len(files) for _, files in planned),
        "projects": sum(bool(files) for _, files in planned),
    }
    tasks = [
        (project, files[at : at + BATCH_FILES])
        for project, files in planned
        for at in range(0, len(files), BATCH_FILES)
    ]
    with open_all(out, split) as streams:
        for (project, _), documents in zip(tasks, pool.imap(cut, [(files, seed) for _, files in tasks])):
            for language, kind, longest, content, n_target in documents:
                n_tokens = len(content) // 2
                streams[longest][0].write(content)
                streams[longest][1].write(array.array("H", [n_tokens, n_target]).tobytes())
                counts["documents"] += 1
                counts["tokens"] += n_tokens
                counts["targets"] += n_target if kind != "plain" else 0
                counts["by_language"][language] += n_tokens
                counts["by_kind"][kind] += 1
                counts["by_class"][str(longest)] += n_tokens
                counts["by_client"][project.split("/")[0]] += n_tokens
    return counts


class open_all:
    """The files of a split, for each length: its tokens and its lengths."""

    def __init__(self, out, split):
        self.streams = {
            longest: (open(out / f"{split}-{longest}.u16", "wb"), open(out / f"{split}-{longest}.len.u16", "wb"))
            for longest in examples.CLASSES
        }

    def __enter__(self):
        return self.streams

    def __exit__(self, *_):
        for pair in self.streams.values():
            for stream in pair:
                stream.close()


def copy_held_out(cache, kept, chosen, out):
    shutil.rmtree(out / "held-out", ignore_errors=True)
    for project in sorted(chosen):
        for source in kept[project]:
            to = out / "held-out" / group(source.language) / project.replace("/", "-", 1) / source.path
            to.parent.mkdir(parents=True, exist_ok=True)
            to.write_text(corpus.text_of(cache, source), encoding="utf-8")


def tiny_cache(folder):
    """A cache made of the repository's own examples and scripts, each folder a package."""
    for name in ("examples", "bench", "training", "crates/text", "crates/complete", "editors", "tests"):
        project = folder / "repository" / f"{name.replace('/', '+')}@0"
        paths = [
            path
            for path in sorted((ROOT / name).rglob("*"))
            if path.suffix in corpus.LANGUAGES and "node_modules" not in path.parts
        ]
        for path in paths:
            to = project / path.relative_to(ROOT / name)
            to.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, to)
        record = {
            "client": "repository",
            "name": name,
            "version": "0",
            "licence": "Apache-2.0",
            "is_permissive": True,
            "n_files": len(paths),
        }
        (folder / "repository" / f"{name.replace('/', '+')}@0.json").write_text(json.dumps(record))
    return folder


def prepare(
    cache, out, n_tokens, tokenizer, evaluations, seed=1, n_jobs=os.cpu_count(), chosen=None, valid_share=HELD_OUT_SHARE
):
    """Prepares everything; returns the card."""
    started = time.monotonic()
    out.mkdir(parents=True, exist_ok=True)
    records = corpus.projects(cache)
    Run.cache, Run.tokenizer = cache, tokenizer
    Run.evaluations = corpus.Evaluations([path for path in evaluations if pathlib.Path(path).exists()])
    say = lambda text: print(f"{time.monotonic() - started:6.0f} s  {text}", file=sys.stderr, flush=True)
    say(
        f"{len(records)} packages; of the evaluations {len(Run.evaluations.grams)} runs of words and "
        f"{len(Run.evaluations.windows)} of lines"
    )
    with multiprocessing.Pool(n_jobs) as pool:
        kept, dropped = chosen_before(chosen, lambda: choose(pool.imap(look_at, sorted(records), chunksize=4)))
        say(f"{sum(map(len, kept.values()))} files kept, {sum(dropped.values())} dropped")
        rng = random.Random(seed)
        aside = held_out(kept, rng)
        splits = {"train": (kept.keys() - aside, n_tokens), "valid": (aside, n_tokens * valid_share)}
        card = {"seed": seed, "vocabulary": vocabulary.fingerprint(tokenizer), "dropped": dropped}
        card["sources"] = {split: sources(kept, projects) for split, (projects, _) in splits.items()}
        for split, (projects, n) in splits.items():
            card[split] = write(plan(kept, projects, n, rng), out, split, pool, seed)
            say(
                ", ".join([split, *(f"{card[split][what]} {what}" for what in ("tokens", "documents", "files"))])
            )
    copy_held_out(cache, kept, aside, out)
    card["packages"] = [
        {key: record[key] for key in ("client", "name", "version", "licence")}
        | {"split": "valid" if project in aside else "train"}
        for project, record in records.items()
        if project in kept
    ]
    (out / "card.json").write_text(json.dumps(card, indent=1) + "\n")
    return card


def sources(kept, projects):
    sums = collections.defaultdict(lambda: {"projects": set(), "files": 0, "bytes": 0})
    for project in projects:
        for source in kept[project]:
            one = sums[group(source.language)]
            one["projects"].add(project)
            one["files"] += 1
            one["bytes"] += source.n_bytes
    return {language: one | {"projects": len(one["projects"])} for language, one in sorted(sums.items())}


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("cache", type=pathlib.Path, nargs="?")
    arguments.add_argument("out", type=pathlib.Path, nargs="?")
    arguments.add_argument("--tokens", type=float, default=130e6, help="about how many tokens to train on")
    arguments.add_argument("--model", help="a GGUF with the model's vocabulary")
    arguments.add_argument(
        "--evaluations",
        nargs="*",
        default=[str(ROOT / path) for path in EVALUATIONS],
        help="files and folders whose text must not be in the data",
    )
    arguments.add_argument("--chosen", type=pathlib.Path, help="where the choice of files is stored, or was")
    arguments.add_argument("--seed", type=int, default=1)
    arguments.add_argument("--tiny", action="store_true")
    args = arguments.parse_args()
    if args.tiny:
        with tempfile.TemporaryDirectory() as scratch:
            scratch = pathlib.Path(scratch)
            tokenizer = vocabulary.read(args.model) if args.model else vocabulary.of_bytes()
            card = prepare(
                tiny_cache(scratch / "cache"),
                args.out or args.cache or scratch / "out",
                200_000,
                tokenizer,
                args.evaluations,
                args.seed,
                valid_share=0.5,
            )
            print(json.dumps({split: card[split]["tokens"] for split in ("train", "valid")}))
        return
    if not (args.cache and args.out and args.model):
        raise SystemExit("error: no CACHE, OUT or --model\nhint: prepare.py CACHE OUT --model MODEL.gguf")
    prepare(
        args.cache, args.out, args.tokens, vocabulary.read(args.model), args.evaluations, args.seed, chosen=args.chosen
    )


if __name__ == "__main__":
    main()
