"""``asexlatent-net``: which nets are the crystals in these files?"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

from ase import Atoms
from ase.io import iread

from asexlatent.topology import identify_net
from asexlatent.topology.crystalnets import CrystalNetsMissing
from asexlatent.topology.identify import Backend
from asexlatent.topology.names import ARCHIVE_VARIABLE, NetArchive, open_archive

_EPILOG = f"""\
Every line is one net of one frame: file@frame, dimension (3 framework, 2 layer, 1 chain,
0 molecule), how often it occurs (a framework: in the whole crystal; anything else: in a primitive
cell), its name or a short key, and remarks. A short key that starts with ~ rests on coordination
sequences alone.
Names come from the shipped table and from the Systre archive in --archive or ${ARCHIVE_VARIABLE}.
Exit status: 0 done, 1 no frame could be identified, 2 wrong usage.
"""


def main(argv: list[str] | None = None) -> int:
    """Run the command.

    Parameters
    ----------
    argv : list of str or None
        Arguments; default those of the process.

    Returns
    -------
    int
        0 done, 1 no frame could be identified. Wrong usage exits with 2 through ``SystemExit``.
    """
    parser = _parser()
    options = parser.parse_args(argv)
    try:
        archive = open_archive(options.archive)
    except (OSError, ValueError) as error:
        parser.error(str(error))
    cutoff = _merge(options.cutoff, parser)
    rows = []
    try:
        for row in _rows(options, cutoff, archive):
            rows.append(row)
            if not options.json:
                _print(row, options.keys)
        if options.json:
            print(json.dumps(rows, indent=1, ensure_ascii=False), flush=True)
    except CrystalNetsMissing as error:
        parser.error(str(error))
    except BrokenPipeError:  # the reader has seen enough (head)
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0 if any("error" not in row for row in rows) else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="asexlatent-net",
        description="Identify the nets of crystals: dimension, name or key, multiplicity.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "files",
        nargs="+",
        metavar="FILE",
        help="anything ASE reads; all frames, or some: FILE@:10, FILE@3",
    )
    parser.add_argument(
        "--cutoff",
        action="append",
        type=_cutoff,
        metavar="Å",
        help="longest bond, for all pairs (1.85) or for one (C-H=1.3); may be repeated",
    )
    parser.add_argument("--archive", metavar="ARC", help="Systre archive with names of nets")
    parser.add_argument(
        "--backend", choices=("native", "crystalnets"), default="native", help="who names the nets"
    )
    parser.add_argument("--keys", action="store_true", help="print the full keys too")
    parser.add_argument("--json", action="store_true", help="print one JSON list")
    return parser


def _cutoff(text: str) -> tuple[str, float]:
    pair, _, value = text.rpartition("=")
    try:
        length = float(value)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r}: write 1.85 or C-H=1.3") from None
    if not 0 < length < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r}: must be a positive length")
    return pair, length


def _merge(
    cutoffs: list[tuple[str, float]] | None, parser: argparse.ArgumentParser
) -> float | dict[str, float] | None:
    if not cutoffs:
        return None
    pairs = dict(cutoffs)
    if "" not in pairs:
        return pairs  # type: ignore[return-value]
    if len(pairs) > 1:
        parser.error("--cutoff: give one length for all pairs, or lengths for pairs, not both")
    return pairs[""]


def _rows(
    options: argparse.Namespace,
    cutoff: float | dict[str, float] | None,
    archive: NetArchive | None,
) -> Iterator[dict[str, Any]]:
    """One dictionary per frame, or per file that cannot be read; errors do not stop the rest."""
    for given in options.files:
        name, index = _split(given)
        number = _numbers(index)
        where = {"file": name, "frame": next(number)}
        empty = True
        try:
            for atoms in iread(name, index=index, do_not_split_by_at_sign=True):
                yield where | _identify(atoms, cutoff, archive, options.backend)
                where = where | {"frame": next(number)}
                empty = False
        except CrystalNetsMissing:
            raise
        except Exception as error:  # ASE's readers raise anything
            yield where | {"error": f"cannot be read: {str(error) or type(error).__name__}"}
        else:
            if empty:
                yield where | {"error": "no frames"}


def _split(given: str) -> tuple[str, str]:
    """File name and index: ASE's ``FILE@INDEX``, all frames without one."""
    name, at, index = given.rpartition("@")
    if not at or Path(given).exists():
        return given, ":"
    return name, index or ":"


def _numbers(index: str) -> Iterator[int]:
    """Numbers of the chosen frames in their file (negative where counted from its end)."""
    try:
        start, _, rest = index.partition(":")
        first = int(start or 0)
        step = int(rest.partition(":")[2] or 1)
    except ValueError:  # some other kind of index (a database query)
        first, step = 0, 1
    return count(first, step)


def _identify(
    atoms: Atoms,
    cutoff: float | dict[str, float] | None,
    archive: NetArchive | None,
    backend: Backend,
) -> dict[str, Any]:
    try:
        found = identify_net(atoms, cutoff, archive=archive, backend=backend)
    except CrystalNetsMissing:
        raise
    except ValueError as error:
        return {"error": str(error)}
    except Exception as error:  # a defect here must not cost the other frames either
        return {"error": f"{type(error).__name__}: {error}"}
    return {"formula": atoms.get_chemical_formula(), **found.to_dict()}


def _print(row: dict[str, Any], keys: bool) -> None:
    where = f"{row['file']}@{row['frame']}"
    if "error" in row:
        print(f"{where}: {row['error']}", file=sys.stderr, flush=True)
        return
    for net in row["components"]:
        remarks = []
        if not net["exact"]:
            remarks.append(f"inexact: {net['reason']}")
        if row["gap"] and row["gap"]["narrow"]:
            gap = row["gap"]
            remarks.append(
                f"narrow gap: {gap['pair']} bonds up to {gap['longest_bond']:.3f} Å,"
                f" next distance {gap['width']:.3f} Å more"
            )
        name = net["name"] or net["short_key"]
        line = f"{where}\t{net['dimension']}\t{net['multiplicity']}\t{name}"
        print("\t".join([line, *(["; ".join(remarks)] if remarks else [])]), flush=True)
        if keys:
            print(f"\t{net['key']}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
