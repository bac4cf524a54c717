"""``asexlatent-screen``: refined crystals in, a ranked database out."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from asexlatent.cli.exits import exit_code
from asexlatent.cli.options import checked
from asexlatent.cli.settings import (
    CALCULATOR_HELP,
    EMAX_HELP,
    TOP_HELP,
    one_of,
    positive,
    real,
    whole,
)

_DESCRIPTION = """\
Find which refined crystals have the wanted local environment, are different from each other, and
are low in energy.

INPUT is the refined.extxyz of asexlatent-refine or anything else that ase.io.read takes, with an
index if wanted (file.traj@:100), a folder of CIF files, an ASE database, or a CSV table of rows."""

_EPILOG = """\
The folder DIR gets ranked.db (an ASE database, one row for each distinct crystal), ranked.csv,
screened.csv (every input, in order), cif/ (the best), summary.json and log. Finished work is kept
in DIR/chunks: the same command goes on after an interruption.

exit codes: 0 done, 1 nothing to rank, 2 wrong usage, 130 interrupted (Ctrl-C; what was finished is
written)"""


def reference(text: str) -> str | float:
    """Read ``auto``, ``lowest`` or an energy."""
    if text in ("auto", "lowest"):
        return text
    try:
        number = float(text)
        if number - number == 0:  # finite
            return number
    except ValueError:
        pass
    raise ValueError(f"{text!r}: write auto, lowest or an energy in eV/atom")


def _add_screening(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add("--calculator", metavar="NAME|PATH", default=None, help=CALCULATOR_HELP)
    add("--emax", type=checked(real), default=0.55, metavar="E", help=f"{EMAX_HELP} (0.55)")
    add("--top", type=checked(whole(0)), default=20, metavar="N", help=f"{TOP_HELP} (20)")


@dataclass(frozen=True)
class ScreenSettings:
    """Everything that decides the results of ``asexlatent-screen``; see its help."""

    inputs: tuple[str, ...]
    target: str = "sp2"
    calculator: str | None = None
    emax: float = 0.55
    top: int = 20
    reference: str | float = "auto"
    every: bool = False
    fmax: float = 0.02
    smax: float | None = None
    steps: int = 300
    symprec: float = 1e-2
    space_group: int | None = None
    bad_sites: str = "fail"
    degrees: bool = False
    device: str = "cpu"
    dtype: str = "float64"
    memory: float = 2.0
    workers: int | None = None
    scheduler: str | None = None
    threads: int = 1
    plot: bool = False


def build_parser() -> argparse.ArgumentParser:
    """Parser of the command."""
    parser = argparse.ArgumentParser(
        prog="asexlatent-screen",
        usage="asexlatent-screen INPUT... [-o DIR] [options]",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("inputs", nargs="+", metavar="INPUT", help="refined crystals")
    screening = parser.add_argument_group("screening")
    help_text = "local environment: a name, a structure file or a JSON file (sp2)"
    screening.add_argument("--target", default="sp2", metavar="NAME|FILE[:SITE]", help=help_text)
    _add_screening(screening)
    help_text = (
        "zero of the energies: auto is graphite by the same calculator for carbon, else the lowest "
        "crystal (auto)"
    )
    screening.add_argument(
        "--reference",
        type=checked(reference),
        default="auto",
        metavar="auto|lowest|E",
        help=help_text,
    )
    help_text = "relax every valid crystal, not only the best of each net"
    screening.add_argument("--every", action="store_true", help=help_text)
    _add_relaxation(parser.add_argument_group("relaxation"))
    _add_reading(parser.add_argument_group("reading the input"))
    _add_machine(parser.add_argument_group("machine"))
    output = parser.add_argument_group("output")
    help_text = "output folder (default: INPUT-screened)"
    output.add_argument("-o", dest="output", metavar="DIR", help=help_text)
    help_text = "replace the results of a run with other inputs or settings in DIR"
    output.add_argument("--overwrite", action="store_true", help=help_text)
    help_text = "write energies, yields and densities as PNG and PDF"
    output.add_argument("--plot", action="store_true", help=help_text)
    volume = output.add_mutually_exclusive_group()
    volume.add_argument("-q", "--quiet", action="store_true", help="print errors only")
    volume.add_argument("-v", "--verbose", action="store_true", help="print every failure")
    return parser


def _add_relaxation(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    help_text = "largest force in eV/Å at which a crystal has converged (0.02)"
    add("--fmax", type=checked(positive), default=0.02, metavar="F", help=help_text)
    help_text = "largest stress in eV/Å³ (default: as suits --fmax)"
    add("--smax", type=checked(positive), default=None, metavar="S", help=help_text)
    help_text = "step limit of one crystal (300)"
    add("--steps", type=checked(whole(0)), default=300, metavar="N", help=help_text)


def _add_reading(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    help_text = "tolerance of the symmetry detection in Å (0.01)"
    add("--symprec", type=checked(positive), default=1e-2, metavar="D", help=help_text)
    help_text = "a table row with a site that cannot be: fail the row, or drop the site (fail)"
    add("--bad-sites", type=checked(one_of("fail", "drop")), default="fail", help=help_text,
        metavar="fail|drop")  # fmt: skip
    add("--degrees", action="store_true", help="angles of CSV tables are in degrees")


def _add_machine(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add("--device", default="cpu", metavar="NAME", help="torch device, such as cuda (cpu)")
    precision = checked(one_of("float64", "float32"))
    add("--dtype", type=precision, default="float64", metavar="float64|float32",
        help="precision (float64)")  # fmt: skip
    help_text = "budget for the tensors of one batch in GiB (2)"
    add("--memory", type=checked(positive), default=2.0, metavar="GIB", help=help_text)
    help_text = (
        "processes that share the work (default: one per usable core; none for a few candidates or "
        "on an accelerator)"
    )
    add("--workers", type=checked(whole(1)), default=None, metavar="N", help=help_text)
    help_text = "address of a Dask scheduler whose workers share the work"
    add("--scheduler", default=None, metavar="ADDRESS", help=help_text)
    help_text = "threads of each process (1)"
    add("--threads", type=checked(whole(1)), default=1, metavar="N", help=help_text)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command.

    Returns
    -------
    int
        Exit code: 0 done, 1 nothing to rank, 2 wrong usage, 130 interrupted.
    """
    parser = build_parser()
    try:
        options = vars(parser.parse_intermixed_args(argv))
    except SystemExit as stop:  # argparse has printed what there is to say
        return int(stop.code or 0)
    how = {name: options.pop(name) for name in ("output", "overwrite", "quiet", "verbose")}
    settings = ScreenSettings(**options | {"inputs": tuple(options["inputs"])})
    folder = how.pop("output")

    def work() -> int:
        from asexlatent.cli.screening_run import run

        return run(settings, None if folder is None else Path(folder), **how)

    return exit_code(parser.prog, work)


if __name__ == "__main__":
    sys.exit(main())
