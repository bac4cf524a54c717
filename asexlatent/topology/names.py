"""Names of nets: a table computed by this project, and Systre archives of the user's."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import lru_cache
from importlib import resources
from pathlib import Path

from asexlatent.topology.components import connected_components
from asexlatent.topology.graph import PeriodicGraph
from asexlatent.topology.keys import net_key

#: Environment variable with the path of a Systre archive, used when no path is given.
ARCHIVE_VARIABLE = "ASEXLATENT_SYSTRE_ARCHIVE"


@lru_cache(maxsize=1)
def shipped_names() -> dict[str, str]:
    """Key to name for the nets built by ``scripts/make_net_names.py``."""
    text = resources.files("asexlatent.topology").joinpath("names.json").read_text("utf-8")
    return {entry["key"]: entry["name"] for entry in json.loads(text)["nets"]}


@dataclass(eq=False)
class NetArchive:
    """The nets of a Systre archive (``.arc``).

    Attributes
    ----------
    path : Path
    names : dict
        Key as written in the archive to name.
    """

    path: Path
    names: dict[str, str]
    _by_size: dict[tuple[int, int, int], list[str]] = field(default_factory=dict, repr=False)
    _computed: dict[str, str] = field(default_factory=dict, repr=False)

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> NetArchive:
        """Parse an archive: blocks of ``key ...``, ``id name``, ``end``; other lines are ignored.

        Raises
        ------
        FileNotFoundError
            If there is no such file.
        ValueError
            If the file has no net in it.
        """
        path = Path(path)
        if not path.is_file():
            raise FileNotFoundError(f"no Systre archive at {path}: give the path of a .arc file")
        names: dict[str, str] = {}
        key = ""
        for line in path.read_text("utf-8", errors="replace").splitlines():
            word, _, rest = line.strip().partition(" ")
            if word.lower() == "key":
                key = " ".join(rest.split())
            elif word.lower() == "id" and key:
                names.setdefault(key, rest.strip())
            elif word.lower() == "end":
                key = ""
        if not names:
            raise ValueError(f"no nets in {path}: expected blocks of 'key ...', 'id ...', 'end'")
        archive = cls(path, names)
        for key in names:
            archive._by_size.setdefault(_size(key.split()), []).append(key)
        return archive

    def lookup(self, key: str) -> str | None:
        """Name of the net with this key, or None.

        If the text is not in the archive, the archive's nets of the same size are brought into
        canonical form here and compared: an archive may come from another program or version.
        """
        if key in self.names:
            return self.names[key]
        for other in self._by_size.get(_size(key.split()), []):
            if other not in self._computed:
                self._computed[other] = _canonical_text(other)
            if self._computed[other] == key:
                return self.names[other]
        return None


def _size(numbers: list[str]) -> tuple[int, int, int]:
    """Dimension, vertices and edges of a key."""
    dimension = int(numbers[0])
    width = dimension + 2
    ends = numbers[1::width] + numbers[2::width]
    return dimension, max(map(int, ends), default=1), (len(numbers) - 1) // width


def _canonical_text(key: str) -> str:
    """Key computed here for an entry of an archive; empty if it is no single exact net."""
    parts = connected_components(PeriodicGraph.from_key(key))
    if len(parts) != 1:
        return ""
    computed = net_key(parts[0].graph)
    return computed.text if computed.exact else ""


@lru_cache(maxsize=4)
def _cached(path: str, modified: float) -> NetArchive:
    return NetArchive.read(path)


def open_archive(path: str | os.PathLike[str] | NetArchive | None = None) -> NetArchive | None:
    """The archive at ``path``, else the one the environment variable names, else None.

    Raises
    ------
    FileNotFoundError, ValueError
        As :meth:`NetArchive.read`.
    """
    if isinstance(path, NetArchive):
        return path
    chosen = path or os.environ.get(ARCHIVE_VARIABLE)
    if not chosen:
        return None
    chosen = Path(chosen)
    if not chosen.is_file():
        return NetArchive.read(chosen)  # raises
    return _cached(str(chosen.resolve()), chosen.stat().st_mtime)


def net_name(key: str, archive: NetArchive | None = None) -> str | None:
    """Name for a key: the archive's if it has one, else the shipped table's, else None."""
    if archive is not None and not key.startswith("cs"):
        name = archive.lookup(key)
        if name is not None:
            return name
    return shipped_names().get(key)


def named_table(entries: Iterable[tuple[str, str, int, bool, str]]) -> str:
    """Text of ``names.json`` from (name, key, dimension, exact, source); used by the script.

    Raises
    ------
    ValueError
        If two different names have one key.
    """
    fields = ("name", "key", "dimension", "exact", "source")
    nets = [dict(zip(fields, entry, strict=True)) for entry in entries]
    seen: dict[str, str] = {}
    for net in nets:
        other = seen.setdefault(str(net["key"]), str(net["name"]))
        if other != net["name"]:
            raise ValueError(f"{other} and {net['name']} are the same net")
    return json.dumps({"format": 1, "nets": nets}, indent=1, ensure_ascii=False) + "\n"
