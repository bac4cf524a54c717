"""Training: epochs, early stop, and going on where an interrupted run was.

Random numbers are keyed by (seed, epoch), so that a checkpoint needs no state of a generator. On a
CPU training is deterministic for a given number of torch threads, and a resumed run ends exactly
like an uninterrupted one; on an accelerator sums have no fixed order, and last digits differ.
"""

from __future__ import annotations

import math
import os
import resource
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from asexlatent.latent.columns import column_names
from asexlatent.latent.condition_model import EmpiricalConditions, train_conditions
from asexlatent.latent.conditions import Vocabulary
from asexlatent.latent.dataset import Dataset
from asexlatent.latent.model import LatentModel, transformed
from asexlatent.latent.networks import Losses, Rows
from asexlatent.latent.presets import PRESETS, TrainingSettings
from asexlatent.latent.storage import ModelError, has_pair, make_network, read_pair, write_pair
from asexlatent.latent.streams import stream
from asexlatent.latent.transform import MixtureTransform
from asexlatent.symmetry import CrystalError

CHECKPOINT = "asexlatent-checkpoint"


@dataclass(frozen=True)
class Epoch:
    """Losses of one epoch, means per crystal in nats.

    Attributes
    ----------
    epoch : 1 for the first.
    component, residual, kl : terms of the objective on the training rows.
    held_out : negative evidence lower bound of the held-out rows; NaN without any.
    held_component, held_residual, held_kl : its terms.
    kl_weight : weight of the KL term in this epoch.
    seconds : wall time of the epoch.
    """

    epoch: int
    component: float
    residual: float
    kl: float
    held_out: float
    held_component: float
    held_residual: float
    held_kl: float
    kl_weight: float
    seconds: float


class Training:
    """A training run; iterate over it epoch by epoch, then ask for the model.

    Parameters
    ----------
    data : Dataset
    settings : TrainingSettings, optional
        By default the preset "small".
    kind : str
        "cvae" or "tabular".
    folder : path, optional
        Where checkpoints are kept. A checkpoint there is taken up if data, settings, kind of
        device, number of threads and version of torch are the same.
    checkpoint_every : float
        Seconds between checkpoints, at ends of epochs.
    device : torch.device or str, optional
        Where the network is trained; the CPU by default. The model comes back on the CPU.

    Raises
    ------
    CrystalError
        The data set is empty, or nothing of it is left to train on.
    ModelError
        The folder holds a checkpoint of other data or settings, or a damaged one.
    """

    def __init__(
        self,
        data: Dataset,
        settings: TrainingSettings | None = None,
        kind: str = "cvae",
        folder: str | os.PathLike | None = None,
        checkpoint_every: float = 20.0,
        device: torch.device | str | None = None,
    ):
        self.device = torch.device("cpu" if device is None else device)
        settings = PRESETS["small"] if settings is None else settings
        self.settings, self.kind = settings, kind
        self.folder = None if folder is None else Path(folder)
        self.checkpoint_every = checkpoint_every
        self.data_hash = data.hash()
        self.train, self.held_out = data.split(settings.held_out, settings.seed)
        if not len(self.train):
            raise CrystalError("there is no row to train on")
        self.vocabulary = Vocabulary.of(self.train.conditions, data.max_sites)
        known = [self.vocabulary.problem(c) is None for c in self.held_out.conditions]
        self.unknown_held_out = known.count(False)
        self.held_out = self.held_out.pick(np.array(known, dtype=bool))
        self.transform = MixtureTransform.fit(
            self.train.values,
            self.train.mask,
            column_names(data.max_sites),
            settings.components,
            settings.seed,
            settings.concentration,
        )
        self.rows = self._rows(self.train)
        self.held_rows = self._rows(self.held_out) if known.count(True) else None
        self.network = make_network(
            kind, self.vocabulary, self.transform, settings.network, settings.seed
        ).to(self.device)
        self.optimizer = torch.optim.AdamW(
            self.network.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay
        )
        self.history: list[Epoch] = []
        self.best, self.best_epoch, self.best_loss = self._weights(), 0, math.inf
        self.resumed = self.folder is not None and self._resume()
        self._end = self._state()

    def _rows(self, data: Dataset) -> Rows:
        return transformed(data, self.transform, self.vocabulary).to(self.device)

    # ------------------------------------------------------------------ running

    def __iter__(self) -> Iterator[Epoch]:
        saved = time.monotonic()
        try:
            while not self.finished:
                self._epoch()
                if time.monotonic() - saved > self.checkpoint_every:
                    self.save_checkpoint()
                    saved = time.monotonic()
                yield self.history[-1]
        finally:
            self.save_checkpoint()

    @property
    def finished(self) -> bool:
        """Whether all epochs are done or the held-out loss has not improved for long enough."""
        if len(self.history) >= self.settings.epochs:
            return True
        warm = math.ceil(self.settings.kl_warmup * self.settings.epochs)
        waited = len(self.history) - max(self.best_epoch, warm)
        return self.held_rows is not None and waited >= self.settings.patience

    def _epoch(self) -> None:
        settings, number, started = self.settings, len(self.history), time.perf_counter()
        weight = settings.kl_weight_at(number)
        self._set_rate(number)
        self.network.train()
        numbers = stream(settings.seed, number, "epoch")
        order = torch.from_numpy(numbers.permutation(self.rows.n)).to(self.device)
        sums = torch.zeros(3, dtype=torch.float64, device=self.device)
        with torch.random.fork_rng(devices=[self.device] if self.device.type == "cuda" else []):
            torch.manual_seed(int(numbers.integers(2**31)))  # dropout
            for part in order.split(settings.batch):
                noise = self._normal(numbers, len(part))
                losses = self.network.losses(self.rows.pick(part), noise)
                self.optimizer.zero_grad()
                losses.total(weight).mean().backward()
                torch.nn.utils.clip_grad_norm_(self.network.parameters(), 10.0)
                self.optimizer.step()
                sums += _sums(losses)
        held = self._held_out(number)
        mean = (sums / self.rows.n).tolist()
        seconds = time.perf_counter() - started
        self.history.append(Epoch(number + 1, *mean, sum(held), *held, weight, seconds))
        self._keep_best()
        self._end = self._state()

    def _set_rate(self, epoch: int) -> None:
        rate = (
            self.settings.learning_rate
            * 0.5
            * (1 + math.cos(math.pi * epoch / self.settings.epochs))
        )
        for group in self.optimizer.param_groups:
            group["lr"] = rate

    @torch.no_grad()
    def _held_out(self, epoch: int) -> list[float]:
        """Terms of the bound on the held-out rows, with the same noise in every epoch."""
        if self.held_rows is None:
            return [math.nan] * 3
        self.network.eval()
        noise = self._normal(stream(self.settings.seed, 0, "held out"), self.held_rows.n)
        sums = torch.zeros(3, dtype=torch.float64, device=self.device)
        for part in torch.arange(self.held_rows.n, device=self.device).split(4096):
            sums += _sums(self.network.losses(self.held_rows.pick(part), noise[part]))
        return (sums / self.held_rows.n).tolist()

    def _normal(self, numbers: np.random.Generator, n: int) -> Tensor:
        noise = numbers.standard_normal((n, self.settings.network.latent), np.float32)
        return torch.from_numpy(noise).to(self.device)

    def _keep_best(self) -> None:
        """Remember the weights of the best held-out objective since the KL weight is full."""
        last = self.history[-1]
        loss = last.held_component + last.held_residual + last.kl_weight * last.held_kl
        loss = loss if self.held_rows is not None else -last.epoch
        if last.kl_weight < self.settings.kl_weight:
            self.best, self.best_epoch = self._weights(), last.epoch
        elif loss < self.best_loss:
            self.best, self.best_epoch, self.best_loss = self._weights(), last.epoch, loss

    def _weights(self) -> dict[str, Tensor]:
        return {k: v.detach().to("cpu", copy=True) for k, v in self.network.state_dict().items()}

    def model(self, progress: Callable[[str], None] | None = None) -> LatentModel:
        """Return the model at its best epoch, with its condition model.

        Parameters
        ----------
        progress : callable, optional
            Called with a line before the condition model is trained.
        """
        network = make_network(self.kind, self.vocabulary, self.transform, self.settings.network)
        network.load_state_dict(self.best)
        proposer = None
        if self.settings.condition_epochs and self.kind == "cvae":
            if progress is not None:
                progress("training the condition model")
            proposer = train_conditions(
                self.train.conditions,
                self.vocabulary,
                epochs=self.settings.condition_epochs,
                seed=self.settings.seed,
            )
        return LatentModel(
            network.eval(),
            self.transform,
            self.vocabulary,
            EmpiricalConditions.of(self.train.conditions),
            proposer,
            self.info(),
        )

    def info(self) -> dict[str, Any]:
        """Provenance of the model, JSON-able."""
        best = self.history[self.best_epoch - 1] if self.best_epoch else None
        return {
            "data_sha256": self.data_hash,
            "rows": len(self.train),
            "parents": len(set(self.train.parents)),
            "held_out_rows": len(self.held_out),
            "held_out_unknown": self.unknown_held_out,
            "settings": self.settings.to_dict(),
            "epochs": len(self.history),
            "best": None if best is None else {k: _json(v) for k, v in asdict(best).items()},
            "seconds": round(sum(epoch.seconds for epoch in self.history), 1),
            "peak_memory_mib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
        }

    # ------------------------------------------------------------------ checkpoints

    def save_checkpoint(self) -> None:
        """Write the state at the end of the last epoch into the folder, if there is one."""
        if self.folder is None:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        tensors, best = self._end
        description = self._identity() | best
        history = self.history[: best["epochs"]]
        description["history"] = [{k: _json(v) for k, v in asdict(e).items()} for e in history]
        write_pair(self.folder, "checkpoint", CHECKPOINT, tensors, description)

    def _state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """All that the next epoch depends on; an epoch that is broken off leaves no trace."""
        if self.folder is None:
            return {}, {}
        tensors = {f"network.{k}": v for k, v in self._weights().items()}
        tensors |= {f"best.{k}": v for k, v in self.best.items()}
        for number, parts in self.optimizer.state_dict()["state"].items():
            copies = {k: v.detach().to("cpu", copy=True) for k, v in parts.items()}
            tensors |= {f"optimizer.{number}.{k}": v for k, v in copies.items()}
        best = {"best_epoch": self.best_epoch, "best_loss": _json(self.best_loss)}
        return tensors, best | {"epochs": len(self.history)}

    def _identity(self) -> dict[str, Any]:
        return {
            "kind": self.kind,
            "settings": self.settings.to_dict(),
            "data_sha256": self.data_hash,
            "device": self.device.type,
            "threads": torch.get_num_threads(),
            "torch": torch.__version__,
        }

    def _resume(self) -> bool:
        if not has_pair(self.folder, "checkpoint"):
            return False
        tensors, saved = read_pair(self.folder, "checkpoint", CHECKPOINT)
        saved = {"device": "cpu"} | saved  # not written by earlier versions
        for key, value in self._identity().items():
            if saved.get(key) != value:
                what = "data" if key == "data_sha256" else key
                raise ModelError(
                    f"{self.folder} holds an unfinished training with other {what}: go on with "
                    "that, choose another folder, or delete checkpoint.json there to start afresh"
                )
        try:
            self._take_over(tensors, saved)
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise ModelError(
                f"{self.folder / 'checkpoint.json'} is damaged ({error}): delete it to start afresh"
            ) from error
        return True

    def _take_over(self, tensors: dict[str, Tensor], saved: dict[str, Any]) -> None:
        self.network.load_state_dict(_named(tensors, "network"))
        self.best = _named(tensors, "best")
        state: dict[int, dict[str, Tensor]] = {}
        for name, tensor in _named(tensors, "optimizer").items():
            number, _, part = name.partition(".")
            state.setdefault(int(number), {})[part] = tensor
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": state, "param_groups": groups})
        self.history = [Epoch(**{k: _number(v) for k, v in e.items()}) for e in saved["history"]]
        self.best_epoch = int(saved["best_epoch"])
        self.best_loss = math.inf if saved["best_loss"] is None else float(saved["best_loss"])


def train(
    data: Dataset,
    settings: TrainingSettings | None = None,
    kind: str = "cvae",
    folder: str | os.PathLike | None = None,
    progress: Callable[[Epoch], None] | None = None,
    device: torch.device | str | None = None,
) -> LatentModel:
    """Train a model in one call; parameters as for `Training`.

    Parameters
    ----------
    progress : callable, optional
        Called after each epoch.
    """
    run = Training(data, settings, kind, folder, device=device)
    for epoch in run:
        if progress is not None:
            progress(epoch)
    return run.model()


def _sums(losses: Losses) -> Tensor:
    return torch.stack([part.detach().double().sum() for part in losses])


def _named(tensors: dict[str, Tensor], name: str) -> dict[str, Tensor]:
    return {k[len(name) + 1 :]: v for k, v in tensors.items() if k.startswith(f"{name}.")}


def _json(value: float) -> float | None:
    """JSON has no NaN and no infinity."""
    return value if math.isfinite(value) else None


def _number(value: float | None) -> float:
    return math.nan if value is None else value
