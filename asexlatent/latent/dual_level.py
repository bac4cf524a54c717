"""Rounds of latent and representation-space refinement (section 3.4.3 of the method)."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

import torch

from asexlatent.descriptor import LocalEnvironment
from asexlatent.latent.model import LatentModel
from asexlatent.latent.placement import placed_model
from asexlatent.latent.stage import LatentOptions, LatentStage
from asexlatent.optimize import (
    DescriptorLoss,
    Objective,
    Progress,
    Refinement,
    RefinementRun,
    Restarts,
    Status,
)
from asexlatent.optimize.memory import plan_batches
from asexlatent.optimize.obstacles import obstacle
from asexlatent.optimize.result import Candidate
from asexlatent.optimize.starts import DESCENT
from asexlatent.symmetry import CrystalError, SymmetricCrystal

LATENT = "latent"


@dataclass
class Round:
    """What one round brought.

    Attributes
    ----------
    round : int
        0 is the refinement of the candidates themselves.
    tried : int
        Crystals that were not valid when it began.
    latent : int
        Those of them that went through the latent stage.
    skipped : dict
        How many did not, by reason.
    new, valid : int
        Crystals that became valid in it, and all valid ones after it.
    cpu_seconds, wall_seconds : float
    """

    round: int
    tried: int
    latent: int = 0
    skipped: dict[str, int] = field(default_factory=dict)
    new: int = 0
    valid: int = 0
    cpu_seconds: float = 0.0
    wall_seconds: float = 0.0

    def __add__(self, other: Round) -> Round:
        """Sum of the same round over two lists of candidates."""
        sums = {f.name: getattr(self, f.name) + getattr(other, f.name) for f in _COUNTS}
        skipped = dict(Counter(self.skipped) + Counter(other.skipped))
        return Round(self.round, skipped=skipped, **sums)

    def to_dict(self) -> dict[str, Any]:
        """As JSON can hold it; times to the millisecond."""
        times = {name: round(getattr(self, name), 3) for name in ("cpu_seconds", "wall_seconds")}
        return asdict(self) | times


_COUNTS = [f for f in fields(Round) if f.name not in ("round", "skipped")]


def refine_dual_level(
    candidates: Sequence[Candidate],
    environment: LocalEnvironment | str = "sp2",
    *,
    progress: Callable[[Progress], None] | None = None,
    **options: object,
) -> list[Refinement]:
    """Refine candidates in rounds: those that are not valid go through the latent space.

    Round 0 is `refine` of the candidates. In each further round every crystal that is not valid
    keeps its condition (space group, Wyckoff positions, species) and nothing else: its latent
    variables are refined, and what is decoded from them is refined in the representation space.
    Valid crystals are set aside at once. The loop ends after `rounds` rounds, or when one brings
    nothing.

    Parameters
    ----------
    candidates : sequence of Atoms, SymmetricCrystal or CrystalError
    environment : LocalEnvironment or str
    progress : callable, optional
        Called with a `Progress` after each step.
    **options
        As for `DualLevelRun`.

    Returns
    -------
    list of Refinement
        One per candidate, in order; ``round`` and ``path`` say when and how it became valid (see
        `DualLevelRun`). Ctrl-C ends the run early and returns what there is.
    """
    run = DualLevelRun(candidates, environment, **options)  # type: ignore[arg-type]
    try:
        for state in run:
            if progress is not None:
                progress(state)
    except KeyboardInterrupt:
        pass
    return run.results()


class DualLevelRun:
    """A dual-level refinement that can be watched and interrupted, as `RefinementRun`.

    A crystal that becomes valid in a round r > 0 has ``round`` r and a ``path`` that begins with
    "latent": "latent" is the decoded crystal refined, "latent-perturbed" and "latent-fresh" are
    later attempts from it. Crystals that the model cannot take (a space group or an element that
    it was not trained on, too many sites) get further attempts in the representation space
    instead, as do all without a model; their paths are those of a search, and for one that stays
    invalid the reason says why it had no latent stage.

    Parameters
    ----------
    candidates, environment
        As for `RefinementRun`.
    rounds : int
        Rounds after round 0, at most.
    model : LatentModel or path, optional
        By default the model that ships with the package.
    latent : LatentOptions or None
        None: no latent stage, every round is further attempts in the representation space.
    restarts : int or Restarts
        Attempts after the first in round 0.
    round_restarts : int
        Attempts after the first in each further round.
    objective, seed, first_index, steps, fmax, batch_size, memory, device, dtype, **options
        As for `RefinementRun`.

    Attributes
    ----------
    rounds : list of Round
        Those that are done.
    """

    def __init__(
        self,
        candidates: Sequence[Candidate],
        environment: LocalEnvironment | str = "sp2",
        *,
        rounds: int = 3,
        model: LatentModel | str | os.PathLike | None = None,
        latent: LatentOptions | None = LatentOptions(),  # noqa: B008 (it is frozen)
        restarts: int | Restarts = 5,
        round_restarts: int = 1,
        objective: Objective | None = None,
        seed: int = 0,
        first_index: int = 0,
        batch_size: int | str = "auto",
        memory: float = 2.0,
        device: torch.device | str | None = None,
        dtype: torch.dtype = torch.float64,
        **options: Any,
    ):
        if isinstance(environment, str):
            environment = LocalEnvironment.named(environment)
        if rounds < 0 or round_restarts < 0:
            raise ValueError("rounds and round_restarts must not be negative")
        self.environment = environment
        self.objective = DescriptorLoss(environment) if objective is None else objective
        self.restarts = Restarts(restarts, seed=seed) if isinstance(restarts, int) else restarts
        self.n_rounds, self.round_restarts = rounds, round_restarts
        self.latent = latent
        self.model = None if latent is None or not rounds else placed_model(model, device)
        self.seed, self.first_index = seed, first_index
        self._plan = {
            "batch_size": batch_size, "memory": memory, "dtype": dtype, "device": device,
        }  # fmt: skip
        self._options = {"objective": self.objective, **self._plan, **options}
        self.device, self.dtype = device, dtype
        self.rounds: list[Round] = []
        self._first = RefinementRun(
            candidates,
            environment,
            restarts=self.restarts,
            first_index=first_index,
            **self._options,
        )
        self._results = self._first.results()
        self._begun = [None if failed(r) else r.crystal for r in self._results]
        self._newest = list(self._begun)
        self._open: _Open | None = None

    # -- running ------------------------------------------------------------------------------

    def __iter__(self) -> Iterator[Progress]:
        ready = [k for k, crystal in enumerate(self._begun) if crystal is not None]
        for number in range(self.n_rounds + 1):
            if number == 1:
                ready = [k for k in ready if not self._barred(k)]
            tried = [k for k in ready if not self._results[k].valid]
            if not tried:
                return
            self._start_round(number, len(tried))
            if number == 0:
                self._open = _Open(self._first, ready, DESCENT)
                yield from self._first
                self._merge()
            else:
                yield from self._later_round(number, tried)
            row = self._end_round()
            if number and not row.new:
                return

    def results(self) -> list[Refinement]:
        """Results in input order; usable at any time."""
        if self._open is not None:  # interrupted
            self._merge()
        if self._clock is not None:
            self._end_round()
        return self._results

    def losses(self) -> list[float]:
        """Losses known so far; for a display."""
        if self._open is not None and self._open.run is self._first:
            return self._first.losses()
        return [result.loss for result in self._results if result.loss == result.loss]

    def _later_round(self, number: int, tried: list[int]) -> Iterator[Progress]:
        problems = {k: self._problem(k) for k in tried}
        known = [k for k in tried if problems[k] is None]
        others = [k for k in tried if problems[k] is not None]
        if self.model is not None:
            self._row.skipped = dict(Counter(problems[k] for k in others))
        self._row.latent = len(known)
        if known:
            crystals: list[SymmetricCrystal] = []
            for part in self._batches(known):
                stage = self._stage(part, number)
                for step, good in enumerate(stage, 1):
                    yield self._progress(len(tried), 0, step, good)
                crystals += stage.finish()
                for k, steps in zip(part, stage.steps(), strict=True):
                    self._results[k].steps += steps
            restarts = replace(self.restarts, count=self.round_restarts, first=0)
            yield from self._refine(crystals, known, restarts, LATENT, len(tried))
        if others:
            first = self.restarts.first + self.restarts.count + 1
            first += (number - 1) * (self.round_restarts + 1)
            restarts = replace(self.restarts, count=self.round_restarts, first=first)
            crystals = [self._begun[k] for k in others]
            yield from self._refine(crystals, others, restarts, DESCENT, len(tried))
            if self.model is not None:
                for k in others:
                    self._say(k, f"no latent stage: {problems[k]}")

    def _refine(
        self,
        crystals: list[SymmetricCrystal],
        indices: list[int],
        restarts: Restarts,
        path: str,
        tried: int,
    ) -> Iterator[Progress]:
        """Representation-space part of a round, of the candidates with these indices."""
        run = RefinementRun(
            crystals,
            self.environment,
            restarts=restarts,
            keys=[self.first_index + k for k in indices],
            **self._options,
        )
        self._open = _Open(run, indices, path)
        for state in run:
            yield self._progress(tried, state.done, state.step, state.valid)
        self._merge()

    def _stage(self, indices: list[int], number: int) -> LatentStage:
        return LatentStage(
            self.model,
            [self._newest[k] for k in indices],
            [self.first_index + k for k in indices],
            self.environment,
            self.objective,
            self.latent,
            self.seed,
            number,
            self.device,
            self.dtype,
        )

    def _batches(self, indices: list[int]) -> list[list[int]]:
        plan = dict(self._plan)
        plan["memory"] /= self.latent.samples
        crystals = [self._newest[k] for k in indices]
        batches = plan_batches(crystals, self.environment, **plan)
        return [[indices[i] for i in batch] for batch in batches]

    def _barred(self, k: int) -> bool:
        """Whether symmetry has no room for the motif, whatever the coordinates."""
        reason = obstacle(self._begun[k], self.environment.rule)
        if reason:
            self._say(k, reason)
        return bool(reason)

    def _problem(self, k: int) -> str | None:
        """Why a crystal gets no latent stage; None if it does."""
        if self.model is None:
            return ""
        try:
            return self.model.problem(self._newest[k])
        except CrystalError as error:  # such as two atoms on one point
            return str(error)

    # -- bookkeeping --------------------------------------------------------------------------

    _clock: tuple[float, float] | None = None

    def _start_round(self, number: int, tried: int) -> None:
        self._row = Round(number, tried)
        self._clock = time.process_time(), time.perf_counter()

    def _end_round(self) -> Round:
        row, (cpu, wall) = self._row, self._clock
        row.cpu_seconds, row.wall_seconds = time.process_time() - cpu, time.perf_counter() - wall
        before = self.rounds[-1].valid if self.rounds else 0
        row.valid = sum(result.valid for result in self._results)
        row.new = row.valid - before
        self.rounds.append(row)
        self._clock = None
        return row

    def _progress(self, tried: int, done: int, step: int, valid: int) -> Progress:
        total = len(self._results)
        before = self.rounds[-1].valid
        return Progress(total - tried + done, total, step, before + valid)

    def _merge(self) -> None:
        """Take over what the open refinement brought, where it is better than what is known."""
        opened, self._open = self._open, None
        found = opened.run.results()
        if opened.run is self._first:  # these are the results themselves
            self._newest = [result.crystal for result in found]
            return
        for k, new in zip(opened.indices, found, strict=True):
            old = self._results[k]
            old.steps += new.steps
            old.round = self._row.round
            if new.crystal is None or failed(new):
                continue
            self._newest[k] = new.crystal
            if new.valid or not old.loss <= new.loss:
                for name in ("crystal", "status", "reason", "loss", "gradient", "valid"):
                    setattr(old, name, getattr(new, name))
            if new.valid:
                old.path = opened.name(new.path)

    def _say(self, k: int, what: str) -> None:
        result = self._results[k]
        if not result.valid and what not in result.reason:
            result.reason = "; ".join(filter(None, (result.reason, what)))


def failed(result: Refinement) -> bool:
    """Whether nothing could be done with a candidate."""
    return result.status is Status.FAILED


@dataclass(frozen=True, eq=False)
class _Open:
    """A refinement at work: of which candidates, and from where they start."""

    run: RefinementRun
    indices: list[int]
    path: str

    def name(self, path: str) -> str:
        """Path to report for one of the refinement itself."""
        if self.path == LATENT:
            return LATENT if path == DESCENT else f"{LATENT}-{path}"
        return path
