"""Starting crystals again until their motif is right.

One descent under Eq. 1 with a cutoff just beyond the first shell leaves most candidates in a
wrong motif: atoms that ought to bond do not see each other yet. Two things help, in this order:
*approach* steps under the same loss with a wider cutoff (a continuation in rcut: the target's
second shell draws atoms together and holds them apart), and another start. `docs/search.md`
reports what each buys.

A step has a price that does not depend on the number of crystals. Where few are left, several of
their attempts therefore go side by side, as a batch of copies; the first one that succeeds counts,
so that the outcome is that of one attempt after the other.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from asexlatent.descriptor import LocalEnvironment
from asexlatent.optimize.batch import CrystalBatch
from asexlatent.optimize.driver import BatchMinimizer, Status
from asexlatent.optimize.molecules import molecular
from asexlatent.optimize.objective import DescriptorLoss, Objective
from asexlatent.optimize.solver import Solver
from asexlatent.optimize.starts import DESCENT, Restarts, begin, number_density

_LOST = "the descent leaves the motif again; kept where it had it"
_MOLECULES = "valid, but its atoms form separate molecules"


@dataclass(eq=False)
class Found:
    """What is known of each crystal; B crystals, V free variables.

    Attributes
    ----------
    variables : Tensor, shape (V,)
    loss, norm : Tensor, shape (B,)
        Objective and generalised gradient there.
    rank : Tensor, shape (B,)
        0 nothing yet; 1 an iterate; 2 the motif with a reservation (the descent left it again, or
        it consists of molecules); 3 the end of a descent, with the motif.
    steps : Tensor, shape (B,)
        Evaluations used over all attempts up to the one that ended with the motif.
    reports : list of (Status, str)
    paths : list of str
    """

    variables: Tensor
    loss: Tensor
    norm: Tensor
    rank: Tensor
    steps: Tensor
    reports: list[tuple[Status, str]]
    paths: list[str]

    @property
    def valid(self) -> Tensor:
        """Crystals whose motif is right, bool, shape (B,)."""
        return self.rank >= 2


class Search:
    """All attempts on the crystals of a batch; those that end with the motif leave.

    Parameters
    ----------
    batch : CrystalBatch
    environment : LocalEnvironment
    objective : Objective
        What the descents minimise.
    solver : Solver
    restarts : Restarts
    keys : sequence of int
        Index of each crystal in the whole input, shape (B,): the key of its random numbers.
    steps, fmax
        Step limit and threshold of the descent that ends an attempt.
    obstacles : sequence of str, optional
        Why symmetry has no room for the motif (`obstacle`), "" where that is not known, shape
        (B,). A crystal with such a reason has its first attempt and no other.
    abreast : callable, optional
        How many attempts at some crystals, a list of their places in the batch, may go side by
        side. Default: one.

    Attributes
    ----------
    found : Found
    initial : Tensor, shape (B,)
        Objective of the candidates.
    """

    def __init__(
        self,
        batch: CrystalBatch,
        environment: LocalEnvironment,
        objective: Objective,
        solver: Solver,
        restarts: Restarts,
        keys: Sequence[int],
        steps: int = 1000,
        fmax: float = 0.05,
        obstacles: Sequence[str] | None = None,
        abreast: Callable[[list[int]], int] = lambda places: 1,
    ):
        self.batch, self.environment = batch, environment
        self.near, self.solver, self.restarts = objective, solver, restarts
        self.far: Objective | None = None
        # An environment that does not know its structure cannot be widened: no approach then.
        if restarts.searching and restarts.approach_steps and environment.structure is not None:
            wide = environment.widened(restarts.approach_factor)
            self.far = DescriptorLoss(wide, skin=0.3)
        self.keys, self.max_steps, self.fmax = list(keys), steps, fmax
        self.abreast = abreast
        self.obstacles = [""] * batch.n_crystals if obstacles is None else list(obstacles)
        self._possible = torch.tensor([not o for o in self.obstacles], device=batch.numbers.device)
        self.density = number_density(environment) if restarts.reference_density else None
        self.initial = objective.bind(batch).evaluate(batch.variables).value
        self.found = Found(
            batch.variables.clone(),
            self.initial.clone(),
            torch.full_like(self.initial, torch.nan),
            torch.zeros_like(batch.n_cell_variables),
            torch.zeros_like(batch.n_cell_variables),
            [(Status.STEP_LIMIT, "not started")] * batch.n_crystals,
            [DESCENT] * batch.n_crystals,
        )

    def __iter__(self) -> Iterator[tuple[int, int]]:
        """Run; yields the numbers of finished and of valid crystals after every step."""
        waiting = list(self.restarts.attempts)
        while waiting:
            mask = self.found.rank < 3
            if waiting[0]:
                mask &= self._possible
            places = mask.nonzero().ravel().tolist()
            if not places:
                break
            width = self._width(waiting, places)
            self._wave = Wave(self, waiting[:width], mask)
            waiting = waiting[width:]
            settled, valid = int((~mask).sum()), int(self.found.valid.sum())
            for n_finished in self._wave:
                yield settled + n_finished // width, valid
            self._take()
        failed = f"the motif was not reached in {len(self.restarts.attempts)} attempts"
        for k, rank in enumerate(self.found.rank.tolist()):
            if self.restarts.searching and rank < 2:
                self.found.reports[k] = (Status.STALLED, self.obstacles[k] or failed)

    def _width(self, waiting: list[int], places: list[int]) -> int:
        """How many of the waiting attempts to make at once."""
        if waiting[0] == 0 or any(self.restarts.start(k).from_best for k in waiting):
            return 1  # the first looks before it approaches; the others need what came before
        return max(1, min(len(waiting), self.abreast(places)))

    def finish(self) -> Found:
        """What there is, also after an interruption."""
        self._take()
        return self.found

    def losses(self) -> Tensor:
        """Smallest loss known of each crystal so far, shape (B,); for a display."""
        losses, wave = self.found.loss.clone(), self._wave
        running = None if wave is None else wave.minimizer
        if running is not None and running.objective is self.near:
            least = running.losses.nan_to_num(nan=torch.inf).view(len(wave.numbers), -1).amin(0)
            losses[wave.mask] = torch.fmin(losses[wave.mask], least)
        return losses

    def _take(self) -> None:
        """Keep what the attempts of a wave brought, in their order, where it is better."""
        wave, self._wave = self._wave, None
        if wave is None:
            return
        found, width = self.found, len(wave.numbers)
        places = wave.mask.nonzero().ravel()
        owner = self.batch.subset(wave.mask).variables.nonzero().ravel()
        *tensors, reports = wave.outcome()
        n = len(places)
        reports = [reports[k * n : (k + 1) * n] for k in range(width)]
        for number, (variables, loss, norm, rank, steps), said in zip(
            wave.numbers, zip(*(t.chunk(width) for t in tensors), strict=True), reports, strict=True
        ):
            known = found.rank[places]
            going = known < 3  # an attempt after one that succeeded would not have been made
            better = (rank > known) | ((rank == known) & (loss < found.loss[places]))
            better &= going
            chosen = better[wave.single.variable_crystal]
            found.variables[owner] = torch.where(chosen, variables, found.variables[owner])
            for name, new in (("loss", loss), ("norm", norm), ("rank", rank)):
                whole = getattr(found, name)
                whole[places] = torch.where(better, new.to(whole), whole[places])
            found.steps[places] += torch.where(going, steps, 0)
            path = self.restarts.start(number).path
            for k, yes, report in zip(places.tolist(), better.tolist(), said, strict=True):
                if yes:
                    found.reports[k], found.paths[k] = report, path

    _wave: Wave | None = None


class Wave:
    """Attempts at some crystals, side by side: approach, descent, and settling with the motif.

    Parameters
    ----------
    search : Search
    numbers : list of int
        The attempts, A.
    mask : Tensor of bool, shape (B,)
        The crystals, n of the batch of the search.

    Attributes
    ----------
    single, batch : CrystalBatch
        The n crystals once, and A times one after the other (A n, with V free variables). All
        else is of the latter.
    starts : Tensor, shape (V,)
        Free variables at which the attempts begin.
    used : Tensor, shape (A n,)
        Evaluations in the stages before the present one.
    seen : Tensor of bool, shape (A n,)
        Crystals that had the motif on the way.
    snapshot : tuple of Tensor, shapes (V,), (A n,), (A n,)
        Variables, loss and gradient when they had it; None before.
    """

    def __init__(self, search: Search, numbers: list[int], mask: Tensor):
        self.search, self.numbers, self.mask = search, numbers, mask
        self.single = search.batch.select(mask)
        self.batch = self.single.repeat(len(numbers))
        keys = [search.keys[k] for k in mask.nonzero().ravel().tolist()]
        self.starts = torch.cat([self._start_of(number, keys) for number in numbers])
        self.minimizer: BatchMinimizer | None = None
        self.used = torch.zeros_like(self.batch.n_cell_variables)
        self.seen = self.used > 0
        self.snapshot: tuple[Tensor, Tensor, Tensor] | None = None

    def _start_of(self, number: int, keys: list[int]) -> Tensor:
        """Free variables of the n crystals at which an attempt begins."""
        search, start, origin = self.search, self.search.restarts.start(number), self.single
        if start.from_best:
            owner = search.batch.subset(self.mask).variables
            origin = replace(origin, variables=search.found.variables[owner])
        return begin(origin, start, search.restarts.seed, number, keys, search.density)

    def __iter__(self) -> Iterator[int]:
        """Run; yields the number of crystals that are finished."""
        policy, variables = self.search.restarts, self.starts
        if self.search.far is not None:
            arrived = torch.zeros_like(self.used) > 0
            if self.numbers == [0]:
                # A candidate that is nearly there needs no approach, which could lead it away.
                arrived = yield from self._stage(
                    self.search.near, variables, policy.descent_steps, arrived
                )
                variables = self._blend(arrived, self.starts)
            arrived = yield from self._stage(
                self.search.far, variables, policy.approach_steps, arrived
            )
            variables = self._blend(arrived, self.minimizer.variables)
        yield from self._settle(variables)

    def _blend(self, arrived: Tensor, others: Tensor) -> Tensor:
        """Variables of the stage where the motif is there, `others` elsewhere."""
        return torch.where(arrived[self.batch.variable_crystal], self.minimizer.variables, others)

    def _open(self, objective: Objective, variables: Tensor, fmax: float) -> BatchMinimizer:
        if self.minimizer is not None:
            self.used += self.minimizer.steps
        batch = replace(self.batch, variables=variables)
        self.minimizer = BatchMinimizer(batch, objective, self.search.solver, fmax)
        return self.minimizer

    def _stage(
        self, objective: Objective, variables: Tensor, n_steps: int, arrived: Tensor
    ) -> Generator[int, None, Tensor]:
        """Some steps; crystals that have the motif stop. Returns which have it, (A n,)."""
        minimizer = self._open(objective, variables, 1e-3)
        minimizer.stop(arrived)
        for step in range(1, n_steps + 1):
            if not minimizer.step():
                break
            if step % self.search.restarts.check_every == 0 or step == n_steps:
                arrived = self._motif()
                minimizer.stop(arrived)
            yield 0
        return self._motif()

    def _settle(self, variables: Tensor) -> Iterator[int]:
        """Descend; with restarts, only crystals that have the motif soon go on to the end."""
        minimizer = self._open(self.search.near, variables, self.search.fmax)
        policy = self.search.restarts
        for step in range(1, self.search.max_steps + 1):
            if not minimizer.step():
                break
            if policy.searching and step == policy.descent_steps:
                self.seen = self._motif()
                self.snapshot = minimizer.variables, minimizer.losses, minimizer.gradient_norms
                self.snapshot = tuple(part.clone() for part in self.snapshot)
                minimizer.stop(~self.seen)
            yield self.batch.n_crystals - minimizer.n_active

    def _motif(self) -> Tensor:
        return motif(self.search.environment, self.batch, self.minimizer.variables)

    def outcome(self) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, list]:
        """Variables, loss, gradient norm, rank (see `Found`), steps and reports."""
        minimizer = self.minimizer
        if minimizer is None:
            minimizer = self._open(self.search.near, self.starts, self.search.fmax)
        variables, loss, norm = minimizer.variables, minimizer.losses, minimizer.gradient_norms
        if minimizer.objective is not self.search.near:  # interrupted during the approach
            loss = self.search.near.bind(self.batch).evaluate(variables).value
        good, reports = self._motif(), minimizer.reports()
        rank = torch.where(good, 3, 1)
        if self.search.restarts.searching:
            lost = self.seen & ~good
            if self.snapshot is not None:
                owner = lost[self.batch.variable_crystal]
                variables = torch.where(owner, self.snapshot[0], variables)
                loss = torch.where(lost, self.snapshot[1], loss)
                norm = torch.where(lost, self.snapshot[2], norm)
            rule = self.search.environment.rule
            apart = molecular(rule, self.batch, variables, good)
            rank = torch.where(lost | apart, 2, rank)
            for k in lost.nonzero().ravel().tolist():
                reports[k] = (Status.STALLED, _LOST)
            for k in apart.nonzero().ravel().tolist():
                reports[k] = (reports[k][0], _MOLECULES)
        return variables, loss, norm, rank, self.used + minimizer.steps, reports


def motif(environment: LocalEnvironment, batch: CrystalBatch, variables: Tensor) -> Tensor:
    """Whether every site of each crystal obeys the motif rule at `variables`, shape (B,)."""
    cells, scaled = batch.geometry(variables)
    return environment.valid(scaled, cells, batch.atom_crystal, batch.site_atom, batch.numbers)
