"""``asexlatent-refine``: candidate crystals in, refined crystals out."""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Sequence
from typing import Any

from asexlatent.cli.exits import exit_code
from asexlatent.cli.settings import Settings, UsageError

_DESCRIPTION = """\
Steer candidate crystals to a wanted local environment, with their space groups exact.

INPUT is anything that ase.io.read takes, with an index if wanted (file.traj@:100), a folder of
CIF files, an ASE database, or a CSV table of rows (spg,a,b,c,alpha,beta,gamma,wp0,x0,y0,z0,...)."""

_EPILOG = """\
The folder DIR gets refined.extxyz (every input, in order), valid.extxyz, table.csv, summary.json,
config.yaml (the settings, for --config) and log; with --screen also ranked.db (an ASE database,
one row for each distinct crystal), ranked.csv, screened.csv and cif/ (the best). A run that was
killed or interrupted goes on when the same command is given again; its results are those of one
that was not.

exit codes: 0 done, 1 nothing could be refined or ranked, 2 wrong usage, 130 interrupted (Ctrl-C;
what was finished is written)"""


def build_parser() -> argparse.ArgumentParser:
    """Parser of the command; options that are not given are absent from its result."""
    parser = argparse.ArgumentParser(
        prog="asexlatent-refine",
        usage="asexlatent-refine INPUT... [-o DIR] [options]",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        argument_default=argparse.SUPPRESS,
    )
    parser.add_argument("inputs", nargs="*", metavar="INPUT", help="candidate crystals")
    groups: dict[str, argparse._ArgumentGroup] = {}
    for option in dataclasses.fields(Settings):
        if option.name != "inputs":
            name = option.metadata["group"]
            if name not in groups:
                groups[name] = parser.add_argument_group(name)
            _add(groups[name], option)
    output = groups["output"]
    output.add_argument(
        "-o", dest="output", metavar="DIR", help="output folder (default: INPUT-asexlatent)"
    )
    output.add_argument(
        "--overwrite",
        action="store_true",
        help="replace the results of an earlier run in DIR, finished or not",
    )
    output.add_argument("--config", metavar="FILE", help="settings as YAML; options here win")
    volume = output.add_mutually_exclusive_group()
    volume.add_argument("-q", "--quiet", action="store_true", help="print errors only")
    volume.add_argument("-v", "--verbose", action="store_true", help="print every failure")
    return parser


def _add(group: argparse._ArgumentGroup, option: dataclasses.Field) -> None:
    name = "--" + option.name.replace("_", "-")
    help_text = option.metadata["help"]
    if isinstance(option.default, bool):
        group.add_argument(name, action="store_true", help=help_text)
        return
    if option.default is not None:
        help_text += f" (default: {option.default})"
    read = option.metadata["read"]

    def checked(text: str) -> object:
        try:
            return read(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    group.add_argument(name, type=checked, help=help_text, metavar=option.metadata["metavar"])


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command.

    Parameters
    ----------
    argv
        Arguments without the program's name; those of the process when not given.

    Returns
    -------
    int
        Exit code: 0 done, 1 nothing could be refined, 2 wrong usage, 130 interrupted.
    """
    parser = build_parser()
    try:
        given = vars(parser.parse_intermixed_args(argv))
    except SystemExit as stop:  # argparse has printed what there is to say
        return int(stop.code or 0)
    return exit_code(parser.prog, lambda: _run(given))


def _run(given: dict[str, Any]) -> int:
    own = {f.name for f in dataclasses.fields(Settings)}
    chosen = {k: v for k, v in given.items() if k in own and not (k == "inputs" and not v)}
    if "config" in given:
        settings = Settings.load(given["config"], **chosen)
    else:
        settings = Settings.from_mapping(chosen, "command line")
    if not settings.inputs:
        raise UsageError("no INPUT: name a file or a folder of candidates (see --help)")

    from asexlatent.cli.run import run

    return run(
        settings,
        output=given.get("output"),
        overwrite=given.get("overwrite", False),
        quiet=given.get("quiet", False),
        verbose=given.get("verbose", False),
    )


if __name__ == "__main__":
    sys.exit(main())
