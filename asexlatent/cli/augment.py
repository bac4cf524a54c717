"""``asexlatent-augment``: known crystals in, rows of a table out, many for each."""

from __future__ import annotations

import argparse
import os
import sys
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from asexlatent.cli.chunks import cut
from asexlatent.cli.options import checked
from asexlatent.cli.refine import EXIT_DONE, EXIT_INTERRUPTED, EXIT_NOTHING, EXIT_USAGE
from asexlatent.cli.settings import Settings, UsageError, positive, whole
from asexlatent.cli.tables import SPECIES, CrystalWriter, check_output, table_texts

if TYPE_CHECKING:
    from asexlatent.cli.inputs import Entry
    from asexlatent.symmetry import SymmetricCrystal
    from asexlatent.symmetry.augmentation import Augmentation

SUFFIXES = (".csv", ".csv.gz")
_BATCH = 4  # crystals that a process takes at a time
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

exit codes: 0 done, 1 no crystal could be read, 2 wrong usage, 130 interrupted (Ctrl-C; what was
finished is written)"""


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
    help_text = "processes (default: all usable cores)"
    add("--workers", type=checked(whole(1)), default=None, metavar="N", help=help_text)
    add("--overwrite", action="store_true", help="replace FILE")
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
    try:
        check_output(options.output, options.overwrite, SUFFIXES)
        return _Run(options).go()
    except UsageError as error:
        print(f"{parser.prog}: error: {error}", file=sys.stderr)
        return EXIT_USAGE
    except KeyboardInterrupt:
        print(
            f"{parser.prog}: interrupted; {options.output} has what was finished", file=sys.stderr
        )
        return EXIT_INTERRUPTED
    except OSError as error:
        print(f"{parser.prog}: error: {error}", file=sys.stderr)
        return EXIT_NOTHING


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

        from asexlatent.cli.inputs import count_inputs, table_extras
        from asexlatent.symmetry.augmentation import PARENT, PATH

        options = self.options
        own = {SPECIES, PARENT, PATH}
        extras = [name for name in table_extras(self.settings) if name not in own]
        extras = [PARENT, PATH, *extras]
        bar = tqdm(
            total=count_inputs(self.settings),
            unit="crystal",
            disable=True if options.quiet else None,
            dynamic_ncols=True,
            leave=False,
        )
        with CrystalWriter(options.output, extras) as out, bar:
            for texts, skipped, problem in self._results(extras):
                if problem:
                    self._problem(problem)
                else:
                    self.parents += 1
                    out.write_texts(texts)
                    self.skipped.update(skipped)
                bar.set_postfix_str(f"{out.written} rows", refresh=False)
                bar.update()
        return self._report(out.written)

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

    def _results(self, extras: list[str]) -> Iterator[tuple]:
        """What each input became, in order: (rows, left out, what is wrong with it)."""
        from asexlatent.cli.inputs import read_inputs
        from asexlatent.symmetry.augmentation import Augmentation

        o = self.options
        settings = Augmentation(
            o.max_index, o.max_atoms, o.max_sites, o.kinds, o.descriptions, o.seed
        )
        entries = read_inputs(self.settings, [o.species], self._problem)
        workers = o.workers or _usable_cores()
        batches = cut(entries, _BATCH)
        if workers == 1:
            for batch in batches:
                yield from _work(batch, settings, extras, o.symprec)
            return
        with ProcessPoolExecutor(workers) as pool:
            waiting: deque[Future] = deque()
            try:
                for batch in batches:
                    waiting.append(pool.submit(_work, batch, settings, extras, o.symprec))
                    if len(waiting) > 4 * workers:
                        yield from waiting.popleft().result()
                while waiting:
                    yield from waiting.popleft().result()
            finally:
                pool.shutdown(wait=False, cancel_futures=True)


def _usable_cores() -> int:
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def _work(
    entries: list[Entry], settings: Augmentation, extras: list[str], symprec: float
) -> list[tuple[list[list[str]], Counter[str], str | None]]:
    """Rows of some inputs, as text; also run in other processes."""
    from asexlatent.symmetry.augmentation import augment

    results = []
    for entry in entries:
        try:
            crystal = _understand(entry, symprec)
        except ValueError as error:
            results.append(([], Counter(), f"{entry.source}: {error}"))
            continue
        found = augment(crystal, settings, entry.index, entry.source)
        rows = [table_texts(row, extras) for row in found.crystals]
        results.append((rows, found.skipped, None))
    return results


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


if __name__ == "__main__":
    sys.exit(main())
