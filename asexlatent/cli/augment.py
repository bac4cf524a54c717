"""``asexlatent-augment``: known crystals in, rows of a table out, many for each."""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from asexlatent.cli.chunks import cut
from asexlatent.cli.exits import EXIT_DONE, EXIT_NOTHING, exit_code
from asexlatent.cli.file_run import Content, FileRun, check_new
from asexlatent.cli.options import add_machine, checked
from asexlatent.cli.settings import Settings, UsageError, positive, whole
from asexlatent.cli.tables import SPECIES, rows_text, table_head, table_texts

if TYPE_CHECKING:
    from asexlatent.cli.inputs import Entry
    from asexlatent.symmetry import SymmetricCrystal
    from asexlatent.symmetry.augmentation import Augmentation

SUFFIXES = (".csv", ".csv.gz")
_CHUNK = 16  # crystals that are worked on and kept together
_SHOWN = 10  # unreadable inputs that are named

_DESCRIPTION = """\
Describe known crystals in subgroups of their space groups: each becomes many rows of a table.

INPUT is anything that ase.io.read takes, with an index if wanted (file.traj@:100), a folder of
CIF files, an ASE database, or a CSV table of rows, compressed (.csv.gz) or not."""

_EPILOG = """\
The first row of each crystal is itself, in its own group; the column asx_parent names it in all of
its rows, asx_subgroup has the chain of subgroups (194 t3 63 k2 36: index 3, same translations, to
group 63, then index 2, same rotations, to group 36). Rows are canonical, different from each other,
and rebuilt and compared with the crystal that they come from.

FILE is written at the end. A run that was killed or interrupted goes on when the same command is
given again; what is finished is kept in FILE.parts until then.

exit codes: 0 done, 1 no crystal could be read, 2 wrong usage, 130 interrupted (Ctrl-C)"""


def build_parser() -> argparse.ArgumentParser:
    """Parser of the command."""
    parser = argparse.ArgumentParser(
        prog="asexlatent-augment",
        usage="asexlatent-augment INPUT... -o ROWS.csv [options]",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("inputs", nargs="+", metavar="INPUT", help="known crystals")
    add("-o", dest="output", required=True, metavar="FILE", type=Path, help=".csv or .csv.gz")
    add("--max-index", type=checked(whole(1)), default=8, metavar="N", help="of a subgroup (8)")
    help_text = "in the conventional cell (400)"
    add("--max-atoms", type=checked(whole(1)), default=400, metavar="N", help=help_text)
    help_text = "inequivalent sites of a row (8, which is what a row holds)"
    add("--max-sites", type=checked(whole(1, 8)), default=8, metavar="N", help=help_text)
    help_text = "subgroups with the same translations (t), the same rotations (k), or both (tk)"
    add("--kinds", choices=("t", "k", "tk"), default="tk", help=help_text)
    help_text = "other random descriptions of each row: origins, axes, representative atoms (0)"
    add("--descriptions", type=checked(whole(0)), default=0, metavar="N", help=help_text)
    add("--seed", type=checked(whole(0)), default=0, metavar="N", help="of the descriptions (0)")
    add("--symprec", type=checked(positive), default=1e-2, metavar="D", help="in Å (0.01)")
    help_text = "element of the sites of a table without a column 'species' (C)"
    add("--species", default="C", metavar="E", help=help_text)
    add("--degrees", action="store_true", help="angles of CSV tables are in degrees")
    add_machine(parser)
    add("--overwrite", action="store_true", help="replace FILE, finished or not")
    add("-q", "--quiet", action="store_true", help="print errors only")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command.

    Returns
    -------
    int
        Exit code: 0 done, 1 no crystal could be read, 2 wrong usage, 130 interrupted.
    """
    parser = build_parser()
    try:
        options = parser.parse_intermixed_args(argv)
    except SystemExit as stop:  # argparse has printed what there is to say
        return int(stop.code or 0)

    def work() -> int:
        check_new(options.output, options.overwrite, SUFFIXES)
        return _Run(options).go()

    return exit_code(parser.prog, work)


class _Run:
    """One run of the command."""

    def __init__(self, options: argparse.Namespace):
        self.options = options
        self.settings = Settings.from_mapping(
            {
                "inputs": options.inputs,
                "symprec": options.symprec,
                "degrees": options.degrees,
            },
            "command line",
        )
        for name in options.inputs:
            if Path(name).resolve() == options.output.resolve():
                raise UsageError(f"the input {name} would be overwritten: choose another -o")
        self.problems: list[str] = []
        self.skipped: Counter[str] = Counter()
        self.parents = 0

    def go(self) -> int:
        from tqdm import tqdm

        from asexlatent.cli.engine import Engine
        from asexlatent.cli.inputs import count_inputs, read_inputs, table_extras
        from asexlatent.symmetry.augmentation import PARENT, PATH, Augmentation

        o = self.options
        own = {SPECIES, PARENT, PATH}
        extras = [name for name in table_extras(self.settings) if name not in own]
        extras = [PARENT, PATH, *extras]
        settings = Augmentation(
            o.max_index, o.max_atoms, o.max_sites, o.kinds, o.descriptions, o.seed
        )
        bar = tqdm(
            total=count_inputs(self.settings),
            unit="crystal",
            disable=True if o.quiet else None,
            dynamic_ncols=True,
            leave=False,
        )

        def seen(content: Content) -> None:
            bar.update(content["parents"] + len(content["problems"]))

        with (
            bar,
            Engine(o.workers, o.scheduler) as engine,
            FileRun(o.output, self._identity(), o.overwrite) as run,
        ):
            if run.resumed and not o.quiet:
                print("going on with what is finished")
            entries = read_inputs(self.settings, [o.species], self._problem)
            job = AugmentJob(settings, tuple(extras), o.symprec)
            run.work(job, cut(entries, _CHUNK), engine, seen)
            rows = sum(map(self._count, run.contents()))
            if self.parents:
                texts = (content["text"] for content in run.contents())
                run.finish(_headed(table_head(extras), texts))
            else:
                run.give_up()
        return self._report(rows)

    def _identity(self) -> dict:
        from asexlatent.cli.versions import versions

        neutral = ("output", "overwrite", "quiet", "workers", "scheduler")
        chosen = {k: v for k, v in vars(self.options).items() if k not in neutral}
        return {"command": "asexlatent-augment", "settings": chosen, "versions": versions()}

    def _count(self, content: Content) -> int:
        """Take notice of a chunk; returns the number of its rows."""
        self.parents += content["parents"]
        self.skipped.update(content["skipped"])
        for line in content["problems"]:
            self._problem(line)
        return content["rows"]

    def _report(self, rows: int) -> int:
        left = len(self.problems) - _SHOWN
        if left > 0:
            print(f"asexlatent-augment: {left} more could not be read", file=sys.stderr)
        if not self.parents:
            print("asexlatent-augment: error: no crystal could be read", file=sys.stderr)
            return EXIT_NOTHING
        if not self.options.quiet:
            print(f"{self.parents} crystals, {rows} rows: {self.options.output}")
            for why, number in self.skipped.most_common():
                print(f"  {number} subgroups left out: {why}")
            if self.problems:
                print(f"  {len(self.problems)} inputs could not be read")
        return EXIT_DONE

    def _problem(self, line: str) -> None:
        self.problems.append(line)
        if len(self.problems) <= _SHOWN:
            print(f"asexlatent-augment: {line}", file=sys.stderr)


def _headed(head: str, texts: Iterator[str]) -> Iterator[str]:
    yield head
    yield from texts


@dataclass(frozen=True)
class AugmentJob:
    """Rows of some inputs, as text; an `asexlatent.parallel.Job`."""

    settings: Augmentation
    extras: tuple[str, ...]
    symprec: float

    def work(self, entries: Sequence[Entry]) -> Content:
        """Rows of a chunk, and what is to be said about it."""
        from asexlatent.symmetry.augmentation import augment

        result = _nothing()
        for entry in entries:
            try:
                crystal = _understand(entry, self.symprec)
                found = augment(crystal, self.settings, entry.index, entry.source)
            except ValueError as error:
                result["problems"].append(f"{entry.source}: {error}")
                continue
            texts = [table_texts(row, self.extras) for row in found.crystals]
            result["text"] += rows_text(texts)
            result["rows"] += len(texts)
            result["parents"] += 1
            result["skipped"] = dict(Counter(result["skipped"]) + Counter(found.skipped))
        return result

    def join(self, first: Content, second: Content) -> Content:
        """Results of two lists one after the other."""
        both = {name: first[name] + second[name] for name in first if name != "skipped"}
        return both | {"skipped": dict(Counter(first["skipped"]) + Counter(second["skipped"]))}

    def lost(self, entry: Entry, reason: str) -> Content:
        """Result of one that kills the process that works on it."""
        return _nothing() | {"problems": [f"{entry.source}: {reason}"]}


def _nothing() -> Content:
    return {"text": "", "rows": 0, "parents": 0, "skipped": {}, "problems": []}


def _understand(entry: Entry, symprec: float) -> SymmetricCrystal:
    from dataclasses import replace

    from asexlatent.symmetry import SymmetricCrystal

    candidate = entry.candidate
    if isinstance(candidate, Exception):
        raise candidate
    if not isinstance(candidate, SymmetricCrystal):
        candidate = SymmetricCrystal.from_atoms(candidate, symprec=symprec)
    # Rows carry what the table says of the crystal; what Atoms carry is not for a table.
    return replace(candidate, info=dict(entry.extra))


if __name__ == "__main__":  # under its own name, so that other processes find what it sends them
    from asexlatent.cli import augment

    sys.exit(augment.main())
