#!/usr/bin/env python3
"""Fetches the packages of packages.toml into a folder, by their registries' ordinary clients, and keeps their sources.

In: packages.toml; pip, cargo, npm, apt-get. Out: CACHE/CLIENT/NAME@VERSION/, and beside it a .json with the licence
that the package's own metadata say. What is there already stays. Exit code 0 also if some packages can't be had: it
says which.
Never: a package that is not in the list; one whose licence is not permissive; a build or an installation.
"""

import argparse
import collections
import concurrent.futures
import io
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import threading
import tomllib
import zipfile

import licence

LIST = pathlib.Path(__file__).parent / "packages.toml"
LANGUAGES = {
    ".py": "python",
    ".rs": "rust",
    ".ts": "typescript",
    ".tsx": "typescript",
    ".mts": "typescript",
    ".js": "javascript",
    ".mjs": "javascript",
    ".jsx": "javascript",
    ".go": "go",
    ".c": "c",
    ".h": "c",
}
# A client's packages are taken for these; C comes along with most.
ENDINGS = {
    "pip": (".py", ".c", ".h"),
    "cargo": (".rs", ".c", ".h"),
    "npm": (".ts", ".tsx", ".mts", ".js", ".mjs", ".jsx"),
    "deb": (".go",),
    "src": (".c", ".h", ".py"),
}
N_MIN_BYTES, N_MAX_BYTES = 300, 1_500_000
# Others' code, data that look like code, and what a machine wrote.
DROPPED_PATHS = re.compile(
    r"(^|/)(node_modules|vendor|_vendor|vendored|third[_-]?party|testdata|test[_-]data|fixtures?|snapshots?|__snapshots__|"
    r"golden|locales?|l10n|lang|migrations|umd|cjs|commonjs|amd|bundles?|__pycache__|generated|_generated)/"
    r"|\.min\.|\.d\.m?ts$|\.bundle\.|[._-](pb2(_grpc)?|pb|generated|gen)\.\w+$|\.pb\.\w+\.go$|(^|/)zz_generated",
    re.IGNORECASE,
)
# Of a file that a package holds compiled in several ways the first is kept.
ROOTS = ["src", "lib", "modules", "source", "Source", "esm", "es", "fesm2022", "dist", "build", "out", "package"]
N_MAX_PACKAGE_BYTES = 40_000_000


class Failed(Exception):
    """Why a package can't be had."""


def run(command, **options):
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, check=False, **options)
    if done.returncode:
        raise Failed((done.stderr.strip().splitlines() or ["failed"])[-1][:200])
    return done.stdout


class Found:
    """A package as it came: its version, its licence, and its files by path."""

    def __init__(self, version, said, files, is_free=None):
        self.version, self.said, self.files = version, said, files
        self.is_permissive = is_free("") if is_free else licence.is_permissive(said)
        self.is_free = is_free or (lambda path: licence.is_permissive(said))


def by_pip(name, version, scratch, cache):
    wanted = name if version == "*" else f"{name}=={version}"
    run(
        [
            sys.executable,
            "-m",
            "pip",
            "download",
            "--quiet",
            "--no-deps",
            "--no-cache-dir",
            "--only-binary",
            ":all:",
            "--dest",
            str(scratch),
            wanted,
        ]
    )
    (wheel,) = scratch.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        metadata = next(one for one in names if re.fullmatch(r"[^/]+\.dist-info/METADATA", one))
        said = licence.of_python(archive.read(metadata).decode(errors="replace"))
        files = (
            {one: archive.read(one) for one in names if is_source("pip", one)} if licence.is_permissive(said) else {}
        )
    return Found(wheel.name.split("-")[1], said, files)


def by_npm(name, version, scratch, cache):
    wanted = name if version == "*" else f"{name}@{version}"
    run(
        ["npm", "pack", "--silent", "--cache", str(scratch / "cache"), "--pack-destination", str(scratch), wanted],
        cwd=scratch,
    )
    (packed,) = scratch.glob("*.tgz")
    with tarfile.open(packed) as archive:
        members = {one.name.split("/", 1)[-1]: one for one in archive if one.isfile()}
        about = json.load(archive.extractfile(members["package.json"]))
        said = about.get("license") or about.get("licenses") or ""
        said = said if isinstance(said, str) else json.dumps(said)
        files = {path: archive.extractfile(one).read() for path, one in members.items() if is_source("npm", path)}
    return Found(about["version"], said, best_of_each(files))


def by_cargo(name, version, scratch, cache):
    # A home each: the client locks its own. `info` gets the one crate and nothing that it depends on.
    wanted = name if version == "*" else f"{name}@{version}"
    home = cache / f"cargo-home-{threading.get_ident() % 1000}"
    run(
        ["cargo", "info", "--quiet", wanted],
        cwd=scratch,
        env={**os.environ, "CARGO_HOME": str(home), "RUSTUP_HOME": rustup_home()},
    )
    found = [
        one for one in home.glob(f"registry/src/*/{name}-*") if re.fullmatch(re.escape(name) + r"-\d[^/]*", one.name)
    ]
    if not found:
        raise Failed("no sources came")
    folder = found[-1]
    about = tomllib.loads((folder / "Cargo.toml").read_text())["package"]
    paths = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    files = {one: path.read_bytes() for one, path in paths.items() if is_source("cargo", one)}
    return Found(about["version"], about.get("license", ""), files)


def rustup_home():
    return os.environ.get("RUSTUP_HOME", str(pathlib.Path.home() / ".rustup"))


def by_deb(name, version, scratch, cache):
    run(["apt-get", "download", "-q", name if version == "*" else f"{name}={version}"], cwd=scratch)
    (package,) = scratch.glob("*.deb")
    members = subprocess.run(["dpkg-deb", "--fsys-tarfile", str(package)], stdout=subprocess.PIPE, check=True).stdout
    files, about = {}, ""
    with tarfile.open(fileobj=io.BytesIO(members)) as archive:
        for one in archive:
            if one.isfile() and one.name.endswith("/copyright"):
                about = archive.extractfile(one).read().decode(errors="replace")
            if one.isfile() and is_source("deb", one.name):
                path = re.sub(r"^.*?usr/share/(gocode/src/|go-[\d.]+/)?", "", one.name)
                files[path] = archive.extractfile(one).read()
    rights = licence.DebianCopyright(about)
    # The globs are relative to the source package; a Go package's path begins with where it is imported from.
    return Found(
        re.split("_", package.name)[1].replace("%3a", ":"),
        rights.said,
        files,
        lambda path: rights.is_permissive(re.sub(r"^[\w.-]+\.\w+/[^/]+/[^/]+/", "", path)),
    )


def by_src(name, version, scratch, cache):
    run(
        [
            "apt-get",
            *of_source_lists(cache),
            "source",
            "-q",
            "-t",
            stable_release(cache),
            "--download-only",
            "--only-source",
            name if version == "*" else f"{name}={version}",
        ],
        cwd=scratch,
    )
    files, about = {}, ""
    for path in sorted(scratch.glob("*.tar.*")):
        if path.suffix == ".asc":
            continue
        with tarfile.open(path) as archive:
            for one in archive:
                inner = one.name.removeprefix("./")
                if inner == "debian/copyright" or inner.endswith("/debian/copyright"):
                    about = archive.extractfile(one).read().decode(errors="replace")
                inner = inner.split("/", 1)[-1]
                if ".debian.tar" not in path.name and one.isfile() and is_source("src", inner):
                    files[inner] = archive.extractfile(one).read()
    (control,) = scratch.glob("*.dsc")
    version = re.search(r"^Version: (.*)$", control.read_text(errors="replace"), re.MULTILINE).group(1)
    rights = licence.DebianCopyright(about)
    return Found(version, rights.said, files, rights.is_permissive)


def of_source_lists(cache):
    lists = cache / "apt"
    return [
        "-o",
        f"Dir::Etc::sourcelist={lists}/source.sources",
        "-o",
        "Dir::Etc::sourceparts=-",
        "-o",
        f"Dir::State::lists={lists}/lists",
        "-o",
        "Dir::Cache::pkgcache=",
        "-o",
        "Dir::Cache::srcpkgcache=",
    ]


def stable_release(cache):
    """The release itself: of its later updates not every registry's copy has the sources."""
    return re.search(r"^Suites: (\S+)", (cache / "apt" / "source.sources").read_text(), re.MULTILINE).group(1)


def prepare_source_lists(cache):
    """The system's own sources, asked for source packages; the system's lists stay as they are."""
    lists = cache / "apt"
    (lists / "lists").mkdir(parents=True, exist_ok=True)
    own = "\n".join(path.read_text() for path in pathlib.Path("/etc/apt/sources.list.d").glob("*.sources"))
    (lists / "source.sources").write_text(own.replace("Types: deb\n", "Types: deb-src\n"))
    run(["apt-get", *of_source_lists(cache), "update", "-q"])


def is_source(client, path):
    return path.endswith(ENDINGS[client]) and not DROPPED_PATHS.search(path)


def best_of_each(files):
    """Drops what a package holds a second time, compiled; TypeScript is kept before JavaScript."""
    best = {}
    for path in sorted(files):
        parts = [part for part in path.split("/") if part not in ROOTS]
        stem = parts[-1].split(".")[0] if parts else path
        key = ("/".join(parts[-2:-1]), stem)
        root = min((ROOTS.index(part) for part in path.split("/") if part in ROOTS), default=len(ROOTS))
        rank = (not path.endswith((".ts", ".tsx", ".mts")), root, path)
        if key not in best or rank < best[key][0]:
            best[key] = (rank, path)
    kept = {path for _, path in best.values()}
    n_typed = sum(path.endswith((".ts", ".tsx", ".mts")) for path in kept)
    if n_typed >= max(5, len(kept) // 4):
        kept = {path for path in kept if path.endswith((".ts", ".tsx", ".mts"))}
    return {path: files[path] for path in sorted(kept)}


CLIENTS = {"pip": by_pip, "cargo": by_cargo, "npm": by_npm, "deb": by_deb, "src": by_src}


def fetch(client, name, version, cache):
    """Returns the package's record, fetched now or before."""
    flat = name.replace("/", "+")
    folder = cache / client
    known = sorted(folder.glob(f"{flat}@{version}.json")) if version != "*" else sorted(folder.glob(f"{flat}@*.json"))
    if known:
        return json.loads(known[-1].read_text())
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache) as scratch:
        found = CLIENTS[client](name, version, pathlib.Path(scratch), cache)
    record = {
        "client": client,
        "name": name,
        "version": found.version,
        "licence": found.said,
        "n_files": 0,
        "n_bytes": 0,
    }
    record["is_permissive"] = found.is_permissive
    if record["is_permissive"]:
        for path, content in found.files.items():
            fits = N_MIN_BYTES <= len(content) <= N_MAX_BYTES and record["n_bytes"] < N_MAX_PACKAGE_BYTES
            if fits and found.is_free(path):
                to = folder / f"{flat}@{found.version}" / path
                to.parent.mkdir(parents=True, exist_ok=True)
                to.write_bytes(content)
                record["n_files"] += 1
                record["n_bytes"] += len(content)
    (folder / f"{flat}@{found.version}.json").write_text(json.dumps(record))
    return record


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("cache", type=pathlib.Path)
    arguments.add_argument("--clients", default=",".join(CLIENTS))
    arguments.add_argument("--jobs", type=int, default=8)
    arguments.add_argument(
        "--pin", action="store_true", help="write the versions into packages.toml; drop what can't be had"
    )
    args = arguments.parse_args()
    args.cache.mkdir(parents=True, exist_ok=True)
    args.cache = args.cache.resolve()
    listed = tomllib.loads(LIST.read_text())
    wanted = [
        (client, name, version)
        for client, some in listed.items()
        if client in args.clients.split(",")
        for name, version in some.items()
    ]
    if any(client == "src" for client, _, _ in wanted):
        prepare_source_lists(args.cache)
    records, failed = [], []

    def one(item):
        try:
            records.append(fetch(*item, args.cache))
        except (
            Failed,
            OSError,
            ValueError,
            KeyError,
            StopIteration,
            tarfile.TarError,
            subprocess.CalledProcessError,
        ) as error:
            failed.append((item, error))
            print(f"not had: {item[0]} {item[1]}: {error}", file=sys.stderr, flush=True)

    with concurrent.futures.ThreadPoolExecutor(args.jobs) as pool:
        list(pool.map(one, wanted))
    for home in args.cache.glob("cargo-home-*"):
        shutil.rmtree(home)
    sums = collections.Counter()
    for record in records:
        kind = (
            "taken"
            if record["is_permissive"] and record["n_files"]
            else "other licence" if not record["is_permissive"] else "no sources"
        )
        sums[record["client"], kind] += 1
        sums[record["client"], "bytes"] += record["n_bytes"]
        if kind != "taken":
            print(
                f"{kind}: {record['client']} {record['name']} {record['version']}: {record['licence'][:80]!r}",
                file=sys.stderr,
            )
    for (client, kind), count in sorted(sums.items()):
        print(client, kind, count)
    print("not had", len(failed))
    if args.pin:
        pin(records)


def pin(records):
    versions = {
        (one["client"], one["name"]): one["version"] for one in records if one["is_permissive"] and one["n_files"]
    }
    lines, client = [], None
    for line in LIST.read_text().splitlines():
        if line.startswith("["):
            client = line.strip("[]")
        named = re.match(r'"([^"]+)" = ', line)
        if named and (client, named.group(1)) not in versions:
            continue
        lines.append(f'"{named.group(1)}" = "{versions[client, named.group(1)]}"' if named else line)
    LIST.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
