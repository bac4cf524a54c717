"""``asexlatent-generate``: candidate crystals, from a trained model or at random."""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

from asexlatent.cli.exits import EXIT_DONE, EXIT_NOTHING, exit_code
from asexlatent.cli.file_run import Content, FileRun, check_new
from asexlatent.cli.options import add_machine, checked, neighbors, numbers
from asexlatent.cli.settings import UsageError, positive, whole
from asexlatent.cli.tables import crystal_text, is_table_name, table_head

if TYPE_CHECKING:
    from asexlatent.cli.generation import Draw
    from asexlatent.latent import Condition

SUFFIXES = (".csv", ".csv.gz", ".extxyz", ".xyz")
GENERATED = "asx_generated"
"""Where a candidate comes from: kind, seed and index."""

_SHOWN = 10  # reasons that are printed
_CHUNK = 2048  # candidates that are made and kept together
_FEW = 4  # chunks that are not worth starting processes for

_DESCRIPTION = """\
Make candidate crystals for asexlatent-refine: samples of a trained model, or random crystals.

The model is that of --model DIR, by default the sp2 carbon model that ships with the package.
With --random no model is needed: space groups, Wyckoff positions, coordinates and cells are drawn
at random, for any composition."""

_EPILOG = """\
Conditions (space group and occupied Wyckoff positions) are proposed by the model or drawn at
random, in all groups or in those of --space-group, or read from --conditions FILE: any structures
or rows, of which only group and positions are used, or a .txt file with lines such as
"166: C 6c, C 18h". Conditions of a file are taken in turn until there are -n candidates.
Candidate k depends on the seed, k and the options only. FILE is written at the end; a run that was
killed goes on when the same command is given again.

exit codes: 0 done, 1 no candidate could be made, 2 wrong usage, 130 interrupted"""

RANDOM_ONLY = {
    "target": None,
    "max_sites": 8,
    "max_atoms": 200,
    "formula_units": None,
    "volume": None,
    "min_distance": 0.0,
    "neighbors": None,
}
"""Options that go with ``--random``, and their values when they are not given."""


def build_parser() -> argparse.ArgumentParser:
    """Parser of the command."""
    parser = argparse.ArgumentParser(
        prog="asexlatent-generate",
        usage="asexlatent-generate [-n 1000] [--random | --model DIR] [options]",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("-n", dest="number", type=checked(whole(1)), default=1000, help="candidates (1000)")
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--random", action="store_true", help="random crystals, no model")
    source.add_argument("--model", metavar="DIR", type=Path, help="folder of a trained model")
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--conditions", metavar="FILE", help="conditions to draw crystals under")
    help_text = "draw conditions in these groups only, such as 166,194 or 16-74 (all)"
    groups = checked(numbers(1, 230))
    where.add_argument("--space-group", type=groups, metavar="LIST", help=help_text)
    help_text = "formula unit, such as C or SiO2 (that of the model or of the target)"
    add("--composition", metavar="FORMULA", help=help_text)
    add("--seed", type=checked(whole(0)), default=0, metavar="N", help="of the random numbers (0)")
    default = Path("candidates.csv")
    help_text = f"{', '.join(SUFFIXES)} (candidates.csv)"
    add("-o", dest="output", type=Path, default=default, metavar="FILE", help=help_text)
    add_machine(parser)
    add("--overwrite", action="store_true", help="replace FILE, finished or not")
    add("-q", "--quiet", action="store_true", help="print errors only")
    _add_random(parser.add_argument_group("with --random"))
    return parser


def _add_random(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    help_text = (
        "take composition, density and numbers of neighbours from a target of asexlatent-refine "
        "(a name or a file; sp2 unless there is a --composition)"
    )
    add("--target", metavar="NAME|FILE", help=help_text)
    add("--max-sites", type=checked(whole(1)), metavar="N", help="inequivalent sites (8)")
    help_text = "in the conventional cell (200)"
    add("--max-atoms", type=checked(whole(1)), metavar="N", help=help_text)
    help_text = "formula units in the conventional cell, such as 1-8 (any)"
    add("--formula-units", type=checked(numbers(1)), metavar="LIST", help=help_text)
    help_text = "volume per atom in Å³ (by covalent radii, or 0.68 to 1.36 of the target's)"
    volume = {"nargs": 2, "metavar": ("MIN", "MAX"), "type": checked(positive)}
    add("--volume", help=help_text, **volume)
    help_text = "Å, no two atoms nearer than this (they may be)"
    add("--min-distance", type=checked(positive), metavar="D", help=help_text)
    help_text = (
        "use only Wyckoff positions whose site symmetry allows so many neighbours, such as 3 or "
        "Si=4,O=2 (those of the target)"
    )
    add("--neighbors", type=checked(neighbors), metavar="N", help=help_text)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command.

    Returns
    -------
    int
        Exit code: 0 done, 1 no candidate could be made, 2 wrong usage, 130 interrupted.
    """
    parser = build_parser()
    try:
        options = parser.parse_args(argv)
    except SystemExit as stop:  # argparse has printed what there is to say
        return int(stop.code or 0)

    def work() -> int:
        _check(options)
        return _run(options)

    return exit_code(parser.prog, work)


def _check(options: argparse.Namespace) -> None:
    """Refuse what does not go together; fill in the defaults."""
    check_new(options.output, options.overwrite, SUFFIXES)
    given = [name for name in RANDOM_ONLY if getattr(options, name) is not None]
    if given and not options.random:
        names = ", ".join("--" + name.replace("_", "-") for name in given)
        raise UsageError(f"{names}: goes with --random only")
    if options.conditions:
        fixed = [name for name in given if name in ("max_sites", "max_atoms", "formula_units")]
        fixed += ["composition"] if options.composition else []
        if fixed:
            names = ", ".join("--" + name.replace("_", "-") for name in fixed)
            raise UsageError(f"{names}: --conditions say this already")
    if options.max_sites is not None and options.max_sites > 8 and "csv" in options.output.name:
        raise UsageError("--max-sites: a table holds 8 sites; write -o FILE.extxyz")
    for name, value in RANDOM_ONLY.items():
        if getattr(options, name) is None:
            setattr(options, name, value)


def _run(options: argparse.Namespace) -> int:
    from tqdm import tqdm

    from asexlatent.cli.engine import Engine
    from asexlatent.cli.generation import source_of

    identity = _identity(options)
    label, draw = source_of(options)
    hide = True if options.quiet else None
    bar = tqdm(total=options.number, unit="crystal", disable=hide, leave=False)
    errors: Counter[str] = Counter()
    written = 0
    with (
        bar,
        Engine(options.workers, options.scheduler) as engine,
        FileRun(options.output, identity, options.overwrite) as run,
    ):
        job = GenerateJob(draw, label, options.seed, is_table_name(options.output))
        run.work(job, _chunks(options.number, draw), engine, lambda c: bar.update(c["n"]), _FEW)
        for content in run.contents():
            written += content["written"]
            errors.update(content["errors"])
        head = table_head([GENERATED]) if job.table else ""
        if written:
            run.finish(chain([head], (content["text"] for content in run.contents())))
        else:
            run.give_up()
    for why, count in errors.most_common(_SHOWN):
        print(f"asexlatent-generate: {count} candidates left out: {why}", file=sys.stderr)
    if len(errors) > _SHOWN:
        rest = sum(errors.values()) - sum(count for _, count in errors.most_common(_SHOWN))
        print(f"asexlatent-generate: {rest} left out for other reasons", file=sys.stderr)
    if not written:
        print("asexlatent-generate: error: no candidate could be made", file=sys.stderr)
        return EXIT_NOTHING
    if not options.quiet:
        print(f"{written} candidates: {options.output}")
    return EXIT_DONE


def _identity(options: argparse.Namespace) -> dict:
    """What decides the result, the contents of files that are named included."""
    from asexlatent.cli.fingerprint import fingerprint
    from asexlatent.cli.versions import versions
    from asexlatent.latent.storage import DEFAULT_MODEL

    neutral = ("output", "overwrite", "quiet", "workers", "scheduler")
    chosen = {k: v for k, v in vars(options).items() if k not in neutral}
    model = None
    if not options.random:
        folder = options.model or DEFAULT_MODEL
        chosen["model"] = str(folder)
        files = (folder / "model.json", folder / "model.safetensors")
        model = fingerprint([path.read_bytes() for path in files if path.is_file()])
    target = None
    if options.target and Path(options.target).is_file():
        target = fingerprint(Path(options.target).read_bytes())
    return {
        "settings": chosen,
        "the model sha256": model,
        "the target sha256": target,
        "versions": versions(),
    }


Item = tuple[int, "Condition | None"]
"""Number of a candidate and the condition that it is drawn under."""


def _chunks(number: int, draw: Draw) -> Iterator[list[Item]]:
    given = draw.conditions
    for start in range(0, number, _CHUNK):
        numbers = range(start, min(start + _CHUNK, number))
        yield [(k, None if given is None else given[k % len(given)]) for k in numbers]


@dataclass(frozen=True)
class GenerateJob:
    """Makes candidates and their text; an `asexlatent.parallel.Job`."""

    draw: Draw
    label: str
    seed: int
    table: bool

    def work(self, items: Sequence[Item]) -> Content:
        """Candidates with consecutive numbers."""
        errors: Counter[str] = Counter()
        texts = []
        first = items[0][0]
        made = self.draw(first, [condition for _, condition in items])
        for index, crystal in enumerate(made, first):
            if isinstance(crystal, Exception):
                errors[str(crystal)] += 1
                continue
            crystal.info[GENERATED] = f"{self.label}:{self.seed}:{index}"
            texts.append(crystal_text(crystal, self.table, [GENERATED]))
        return {"text": "".join(texts), "written": len(texts), "errors": errors, "n": len(items)}

    def join(self, first: Content, second: Content) -> Content:
        """Results of two lists one after the other."""
        return {name: first[name] + second[name] for name in first}

    def lost(self, item: Item, reason: str) -> Content:
        """Result of one that kills the process that makes it."""
        return {"text": "", "written": 0, "errors": Counter({reason: 1}), "n": 1}


if __name__ == "__main__":  # under its own name, so that other processes find what it sends them
    from asexlatent.cli import generate

    sys.exit(generate.main())
