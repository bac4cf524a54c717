"""``asexlatent-train``: known crystals in, a generative model out."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from asexlatent.cli.exits import exit_code
from asexlatent.cli.options import checked
from asexlatent.cli.settings import positive, real, whole

_DESCRIPTION = """\
Train a model that proposes crystals like those of a data set, under given space groups and Wyckoff
positions, and whose latent space asexlatent-refine --rounds works in.

DATA is anything that ase.io.read takes, with an index if wanted (file.traj@:100), a folder of
CIF files, an ASE database, or a CSV table of rows, compressed (.csv.gz) or not."""

_EPILOG = """\
The folder DIR gets model.json and model.safetensors (the model, for --model DIR of other commands),
history.csv and curves.png (losses), reconstruction.json (errors on held-out crystals by crystal
system) and skipped.csv (what of the data could not be used, and why). While training goes on it
holds a checkpoint: the same command goes on after an interruption.

exit codes: 0 done, 1 nothing to train on, 2 wrong usage, 130 interrupted (Ctrl-C; the checkpoint
is written)"""


def build_parser() -> argparse.ArgumentParser:
    """Parser of the command; options of the training that are not given are None."""
    parser = argparse.ArgumentParser(
        prog="asexlatent-train",
        usage="asexlatent-train DATA... -o DIR [options]",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("inputs", nargs="+", metavar="DATA", help="known crystals")
    add("-o", dest="output", required=True, type=Path, metavar="DIR", help="folder of the model")
    help_text = "small trains in minutes, paper has the published sizes (small)"
    add("--preset", choices=("small", "paper"), default="small", help=help_text)
    help_text = "cvae: under conditions; tabular: the unconditional baseline (cvae)"
    add("--kind", choices=("cvae", "tabular"), default="cvae", help=help_text)
    help_text = "describe every crystal in its subgroups up to this index too (without N: 4)"
    add("--augment", type=checked(whole(2)), nargs="?", const=4, default=0, metavar="N",
        help=help_text)  # fmt: skip
    _add_reading(parser.add_argument_group("reading the data"))
    _add_training(parser.add_argument_group("training, in place of what the preset says"))
    help_text = "CPU threads; results are the same for the same number (default: torch's choice)"
    add("--threads", type=checked(whole(1)), default=None, metavar="N", help=help_text)
    add("--device", default="cpu", metavar="NAME", help="torch device, such as cuda (cpu)")
    add("--overwrite", action="store_true", help="replace the model or checkpoint in DIR")
    add("-q", "--quiet", action="store_true", help="print errors only")
    return parser


def _add_reading(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    help_text = "element of the sites of a table without a column 'species' (C)"
    add("--species", default="C", metavar="E", help=help_text)
    help_text = "inequivalent sites of a crystal at most; others are skipped (8)"
    add("--max-sites", type=checked(whole(1, 64)), default=8, metavar="N", help=help_text)
    add("--symprec", type=checked(positive), default=1e-2, metavar="D", help="in Å (0.01)")
    add("--degrees", action="store_true", help="angles of CSV tables are in degrees")


def _share(value: object) -> float:
    number = real(value)
    if number >= 1:
        raise ValueError(f"must be below 1, not {number:g}")
    return number


TRAINING = {
    "epochs": (whole(1), "N", "passes over the data at most"),
    "batch": (whole(1), "N", "rows per step"),
    "latent": (whole(1), "N", "dimension of z"),
    "embedding": (whole(1), "N", "dimension of the condition embedding"),
    "hidden": (whole(1), "N", "width of the hidden layers"),
    "components": (whole(1), "N", "mixture components per column at most"),
    "learning_rate": (positive, "R", "of AdamW at the beginning"),
    "kl_weight": (real, "W", "weight of the KL term at the end of its warm-up"),
    "dropout": (_share, "P", "in the hidden layers"),
    "held_out": (_share, "F", "share of the crystals that is held out"),
    "patience": (whole(1), "N", "epochs without a better held-out loss before stopping"),
    "seed": (whole(0), "N", "of everything random"),
}
"""Options that replace a setting of the preset: reader, metavar, help."""


def _add_training(group: argparse._ArgumentGroup) -> None:
    for name, (read, metavar, help_text) in TRAINING.items():
        flag = "--" + name.replace("_", "-")
        group.add_argument(flag, type=checked(read), default=None, metavar=metavar, help=help_text)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command.

    Returns
    -------
    int
        Exit code: 0 done, 1 nothing to train on, 2 wrong usage, 130 interrupted.
    """
    parser = build_parser()
    try:
        options = parser.parse_intermixed_args(argv)
    except SystemExit as stop:  # argparse has printed what there is to say
        return int(stop.code or 0)

    def work() -> int:
        from asexlatent.cli.training_run import run

        return run(options)

    return exit_code(parser.prog, work)


if __name__ == "__main__":
    sys.exit(main())
