"""The run behind ``asexlatent-train``: read, train, measure, write."""

from __future__ import annotations

import argparse
import json
import math
import sys
from dataclasses import asdict, fields
from pathlib import Path
from typing import TYPE_CHECKING

from asexlatent.cli.datasets import read_dataset
from asexlatent.cli.engine import check_device
from asexlatent.cli.exits import EXIT_DONE, EXIT_INTERRUPTED, EXIT_NOTHING
from asexlatent.cli.settings import UsageError
from asexlatent.cli.tables import rows_text
from asexlatent.cli.train import TRAINING
from asexlatent.whole_file import whole_file, write_whole

if TYPE_CHECKING:
    from asexlatent.latent import Dataset, LatentModel, Training, TrainingSettings
    from asexlatent.latent.reconstruction import Reconstruction
    from asexlatent.latent.training import Epoch

PAIRS = ("model", "checkpoint")
OWN_FILES = (
    *(f"{name}.{kind}" for name in PAIRS for kind in ("json", "safetensors")),
    "history.csv",
    "curves.png",
    "reconstruction.json",
    "skipped.csv",
)
"""Names that the command writes, and the only ones that ``--overwrite`` removes."""

_SHOWN = 5  # reasons for skipping that are printed


def run(options: argparse.Namespace) -> int:
    """Train a model into a folder; the exit code of `asexlatent.cli.train.main`."""
    import torch

    from asexlatent.latent import ModelError, Training

    check_device(options.device)
    folder = _prepare(options)
    if options.threads:
        torch.set_num_threads(options.threads)
    data = _read(options)
    _report_data(data, folder, options.quiet)
    if not len(data):
        print("asexlatent-train: error: there is no crystal to train on", file=sys.stderr)
        return EXIT_NOTHING
    try:
        training = Training(data, _settings(options), options.kind, folder, device=options.device)
    except ModelError as error:
        raise UsageError(f"{error} (--overwrite does that)") from None
    if training.resumed and not options.quiet:
        print(f"going on after epoch {len(training.history)}")
    try:
        _train(training, options.quiet)
    except KeyboardInterrupt:
        print(
            f"asexlatent-train: interrupted after epoch {len(training.history)}; the same command "
            "goes on from there",
            file=sys.stderr,
        )
        return EXIT_INTERRUPTED
    model = training.model(None if options.quiet else print)
    _write(model, training, folder, options.quiet)
    return EXIT_DONE


def _prepare(options: argparse.Namespace) -> Path:
    """Folder of the model, made if need be."""
    from asexlatent.latent.storage import has_pair, remove_pair

    folder = options.output
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"-o {folder}: it is a file")
    for name in options.inputs:
        if Path(name).resolve() in {(folder / own).resolve() for own in OWN_FILES}:
            raise UsageError(f"the input {name} would be overwritten: choose another folder (-o)")
    if options.overwrite:
        for name in PAIRS:
            remove_pair(folder, name)
        for name in OWN_FILES:
            (folder / name).unlink(missing_ok=True)
    # With a checkpoint beside it the model is what a run has left that was killed at its end.
    if (folder / "model.json").exists() and not has_pair(folder, "checkpoint"):
        raise UsageError(f"{folder} has a model: choose another folder (-o) or --overwrite")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"cannot write to {folder}: {error.strerror or error}") from None
    return folder


def _settings(options: argparse.Namespace) -> TrainingSettings:
    from asexlatent.latent import PRESETS

    given = {name: getattr(options, name) for name in TRAINING}
    changes = {name: value for name, value in given.items() if value is not None}
    try:
        return PRESETS[options.preset].but(**changes, max_sites=options.max_sites)
    except ValueError as error:
        raise UsageError(str(error)) from None


def _read(options: argparse.Namespace) -> Dataset:
    from ase.data import atomic_numbers
    from tqdm import tqdm

    if options.species not in atomic_numbers:
        raise UsageError(f"--species {options.species}: unknown chemical symbol")
    bar = tqdm(
        desc="reading", unit="crystal", disable=True if options.quiet else None, leave=False,
        dynamic_ncols=True,
    )  # fmt: skip

    def show(read: int, total: int | None) -> None:
        bar.total = total
        bar.update(read - bar.n)

    with bar:
        return read_dataset(
            options.inputs,
            species=options.species,
            max_sites=options.max_sites,
            symprec=options.symprec,
            degrees=options.degrees,
            augment_index=options.augment,
            progress=show,
        )


def _report_data(data: Dataset, folder: Path, quiet: bool) -> None:
    """Say what there is, name what is left out."""
    rows = [(skipped.source, skipped.reason) for skipped in data.skipped]
    write_whole(folder / "skipped.csv", rows_text([("source", "reason"), *rows]))
    if data.skipped:
        print(
            f"asexlatent-train: {len(data.skipped)} candidates left out, see {folder}/skipped.csv",
            file=sys.stderr,
        )
        for reason, number in data.reasons().most_common(_SHOWN):
            print(f"  {number}: {reason}", file=sys.stderr)
    if not quiet:
        groups = len({condition.space_group for condition in data.conditions})
        parents = len(set(data.parents))
        print(f"{len(data)} rows of {parents} crystals in {groups} space groups")


def _train(training: Training, quiet: bool) -> None:
    from tqdm import tqdm

    bar = tqdm(
        desc="training", total=training.settings.epochs, initial=len(training.history),
        unit="epoch", disable=True if quiet else None, dynamic_ncols=True, leave=False,
    )  # fmt: skip
    with bar:
        for epoch in training:
            bar.set_postfix_str(_shown(epoch, training.best_loss), refresh=False)
            bar.update()


def _shown(epoch: Epoch, best: float) -> str:
    loss = epoch.component + epoch.residual + epoch.kl
    text = f"loss {loss:.2f}, KL {epoch.kl:.2f}"
    if math.isfinite(epoch.held_out):
        text += f", held out {epoch.held_out:.2f}"
    return text + (f" (best {best:.2f})" if math.isfinite(best) else "")


def _write(model: LatentModel, training: Training, folder: Path, quiet: bool) -> None:
    """Model, curves and errors; then the checkpoint has done its duty."""
    from asexlatent.latent import save_model
    from asexlatent.latent.reconstruction import reconstruction
    from asexlatent.latent.storage import remove_pair

    write_history(training.history, folder / "history.csv")
    _plot(training, folder / "curves.png")
    held = training.held_out
    errors = reconstruction(model, held) if len(held) else {}
    text = json.dumps({system: asdict(error) for system, error in errors.items()}, indent=1)
    write_whole(folder / "reconstruction.json", text + "\n")
    save_model(model, folder)
    remove_pair(folder, "checkpoint")
    if quiet:
        return
    info = model.info
    print(
        f"{info['epochs']} epochs in {info['seconds']:.0f} s, best {training.best_epoch}; "
        f"{info['peak_memory_mib']} MiB; model in {folder}/"
    )
    if errors:
        print(reconstruction_table(errors))
    if training.unknown_held_out:
        print(f"{training.unknown_held_out} held-out rows are of groups without a training row")


def write_history(history: list[Epoch], path: Path) -> None:
    """Losses of all epochs as a table."""
    from asexlatent.latent.training import Epoch

    names = [field.name for field in fields(Epoch)]
    rows = [[f"{asdict(epoch)[name]:.6g}" for name in names] for epoch in history]
    write_whole(path, rows_text([names, *rows]))


def reconstruction_table(errors: dict[str, Reconstruction]) -> str:
    """Plain text, one line per crystal system."""

    def number(value: float | None, digits: int) -> str:
        return "-" if value is None else f"{value:.{digits}f}"

    lines = [f"{'held out':<13}{'rows':>6}{'lengths %':>11}{'angles °':>10}{'sites Å':>9}"]
    for system, error in errors.items():
        lines.append(
            f"{system:<13}{error.rows:>6}{100 * error.length:>11.2f}{number(error.angle, 2):>10}"
            f"{number(error.coordinate, 3):>9}"
        )
    return "\n".join(lines)


def _plot(training: Training, path: Path) -> None:
    """Loss curves: terms of the objective, training and held-out rows."""
    from matplotlib.figure import Figure

    history = training.history
    epochs = [epoch.epoch for epoch in history]
    figure = Figure(figsize=(7, 3.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    left.plot(epochs, [e.component + e.residual + e.kl for e in history], label="training")
    if math.isfinite(history[-1].held_out):
        left.plot(epochs, [e.held_out for e in history], label="held out")
        left.axvline(training.best_epoch, color="0.6", lw=0.8, ls="--", label="taken")
    for name in ("component", "residual", "kl"):
        right.plot(epochs, [getattr(e, name) for e in history], label=name)
    left.set_ylabel("negative ELBO per crystal (nats)")
    right.set_ylabel("terms, training (nats)")
    for axes in (left, right):
        axes.set_xlabel("epoch")
        axes.legend(frameon=False)
    with whole_file(path) as handle:
        figure.savefig(handle, dpi=150, format="png")
