"""Real code to measure on: the sources of pinned published packages, fetched by the ordinary clients.

In: pip, npm, cargo; nothing when they are here already. Out: source files under .tools/packages.
Never: a package whose sources are not those that were pinned: their sha256 is compared each time.
"""

import hashlib
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tarfile
import tempfile
import typing
import zipfile

ROOT = pathlib.Path(__file__).parent.parent / ".tools" / "packages"


class Package(typing.NamedTuple):
    """A package, where its sources are in it, and the sha256 of their paths and contents."""

    client: str
    name: str
    version: str
    folder: str
    ending: str
    language: str
    sha256: str


PACKAGES = [
    Package("pip", "requests", "2.32.5", "requests", ".py", "python", "014cf8104da13bb663e9f9f8766f333fc3b51d3be54ae6018b976ecf90388b55"),
    Package("pip", "flask", "3.1.2", "flask", ".py", "python", "0c09ea99b6d73f8fad4279b3e7370423eeab1b3a6d0d1c6cf578e84538195c36"),
    Package("npm", "express", "5.1.0", "package/lib", ".js", "javascript", "dca81c160cd27f090d7ac00d6ec11cf25d10edcd0cf7fabd007eebef05255b68"),
    Package("npm", "commander", "14.0.1", "package/lib", ".js", "javascript", "a02cc747bf84be40ba8dbaef25e0638a79160d8c8aa1f89a5228fbfeaa454451"),
    Package("npm", "zod", "4.1.12", "package/src/v4/classic", ".ts", "typescript", "2c85cf981c430e0677303477307462a6ad1e0e989437c6882a47a002cc238c7a"),
    Package("cargo", "anyhow", "1.0.105", "src", ".rs", "rust", "4f7db9d626f8aababd696d3c7b4e20c73831d05680ef9fdef94f10dd3be571b7"),
    Package("cargo", "ropey", "1.6.1", "src", ".rs", "rust", "cab6405b4d3ed470f18fe96b40c9ec5213043a1d93bcd385db27176986165e3d"),
]


def package(name):
    return next(one for one in PACKAGES if one.name == name)


def folder_of(one):
    """The folder that holds the package."""
    return ROOT / f"{one.client}-{one.name}-{one.version}"


def sources(one):
    """The package's source files, sorted; tests are left out: they repeat themselves."""
    folder = folder_of(one)
    if not folder.is_dir():
        fetch(one, folder)
    paths = sorted(path for path in folder.rglob("*" + one.ending) if "tests" not in path.parts)
    digest = hashlib.sha256()
    for path in paths:
        digest.update(path.relative_to(folder).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    if digest.hexdigest() != one.sha256:
        raise SystemExit(
            f"error: the sources of {one.name} {one.version} have the sha256 {digest.hexdigest()}, not {one.sha256}\n"
            f"hint: remove {folder} and let it be fetched again"
        )
    return paths


def source(name, path):
    """One source file of a package, by its path under the package's folder."""
    one = package(name)
    found = [file for file in sources(one) if file.as_posix().endswith(f"/{one.folder}/{path}")]
    if len(found) != 1:
        raise SystemExit(f"error: {one.name} {one.version} has no {path}")
    return found[0]


def fetch(one, folder):
    print(f"fetching {one.name} {one.version} with {one.client}", file=sys.stderr)
    ROOT.mkdir(parents=True, exist_ok=True)
    # Beside its final place, which it gets only whole.
    with tempfile.TemporaryDirectory(dir=ROOT) as scratch:
        scratch = pathlib.Path(scratch)
        unpacked = {"pip": by_pip, "npm": by_npm, "cargo": by_cargo}[one.client](one, scratch)
        whole = scratch / "whole"
        for path in (unpacked / one.folder).rglob("*" + one.ending):
            to = whole / path.relative_to(unpacked)
            to.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, to)
        os.rename(whole, folder)


def by_pip(one, scratch):
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:"]
    run(command + ["--dest", str(scratch), f"{one.name}=={one.version}"])
    with zipfile.ZipFile(next(scratch.glob("*.whl"))) as wheel:
        wheel.extractall(scratch / "unpacked")
    return scratch / "unpacked"


def by_npm(one, scratch):
    run(["npm", "pack", "--silent", "--pack-destination", str(scratch), f"{one.name}@{one.version}"])
    with tarfile.open(next(scratch.glob("*.tgz"))) as archive:
        archive.extractall(scratch / "unpacked", filter="data")
    return scratch / "unpacked"


def by_cargo(one, scratch):
    manifest = scratch / "Cargo.toml"
    manifest.write_text(
        f'[package]\nname = "fetch"\nedition = "2024"\n[lib]\npath = "fetch.rs"\n[workspace]\n'
        f'[dependencies]\n{one.name} = {{ version = "={one.version}", default-features = false }}\n'
    )
    (scratch / "fetch.rs").touch()
    said = run(["cargo", "metadata", "--format-version", "1", "--manifest-path", str(manifest)])
    found = next(package for package in json.loads(said)["packages"] if package["name"] == one.name)
    return pathlib.Path(found["manifest_path"]).parent


def run(command):
    done = subprocess.run(command, stdout=subprocess.PIPE, check=False)
    if done.returncode:
        raise SystemExit(f"error: {' '.join(command)} failed ({done.returncode})")
    return done.stdout
