"""The screening of section 3.5 of the method, from refined candidates to ranked crystals."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from ase import Atoms

from asexlatent.parallel import over_chunks
from asexlatent.screening.duplicates import best_of_each, iterate_duplicates
from asexlatent.screening.energies import Relaxer, make_relaxer
from asexlatent.screening.identity import one_line
from asexlatent.screening.jobs import DescribeJob, RelaxJob
from asexlatent.screening.options import ScreenOptions, ScreenProgress
from asexlatent.screening.ranking import (
    AUTO,
    CARBON,
    find_references,
    graphite,
    rank,
)
from asexlatent.screening.result import ScreenResult
from asexlatent.screening.rows import (
    DUPLICATE,
    FAILED,
    PENDING,
    RANKED,
    ScreenRow,
    make_row,
    take_description,
    take_relaxation,
)
from asexlatent.screening.store import ChunkStore, key_of
from asexlatent.symmetry import SymmetricCrystal

if TYPE_CHECKING:
    from concurrent.futures import Executor

    from ase.calculators.calculator import Calculator

    from asexlatent.descriptor import LocalEnvironment

T = TypeVar("T")
Candidate = Atoms | SymmetricCrystal | Exception

NOT_REFINED = "not refined"
"""How the reason begins of a candidate that failed before the screening."""

DESCRIBED_TOGETHER = 200
RELAXED_TOGETHER = 32
"""Crystals that are relaxed, and kept in a file, together: what a kill can cost."""


def screen(
    atoms: Sequence[Candidate],
    environment: LocalEnvironment | str = "sp2",
    calculator: Calculator | Relaxer | str | None = None,
    *,
    folder: str | Path | None = None,
    sources: Sequence[str] | None = None,
    executor: Executor | None = None,
    progress: Callable[[ScreenProgress], None] | None = None,
    **options: Any,
) -> ScreenResult:
    """Find which candidates are valid, different and low in energy.

    The order is that of section 3.5 of the method: the motif rule; nets; of equal nets the
    candidate of lowest loss; relaxation with the space group kept, and energies; motif and net
    again; of equal structures the one of lowest energy; the ranking.

    Parameters
    ----------
    atoms : sequence of Atoms, SymmetricCrystal or exceptions
        Refined candidates, with the ``asx_`` info of ``asexlatent-refine`` or without. An
        exception stands for a candidate that could not be read; it keeps its place.
    environment : LocalEnvironment or str
        The target whose motif rule holds, or the name of one.
    calculator : Calculator, str or None
        As for `get_calculator`; by default the carbon model that ships with the package. Or a
        `Relaxer` of your own.
    folder : path, optional
        Where finished chunks are kept; a run that was killed goes on there. The result is not
        written by itself: `ScreenResult.write`.
    sources : sequence of str, optional
        Where each candidate comes from, for the record; ``asx_source`` of a candidate wins.
    executor : concurrent.futures.Executor, optional
        Where chunks are worked on, such as `asexlatent.parallel.LocalWorkers(2)`; in this
        process if not given. Results do not depend on it.
    progress : callable, optional
        Called with a `ScreenProgress` now and then.
    **options
        As for `ScreenOptions`.

    Returns
    -------
    ScreenResult
        One row per candidate, in order. A candidate or calculator that fails costs its own row
        and no other. Ctrl-C (KeyboardInterrupt) ends the run early and returns what there is;
        what was not reached has the status ``pending``.

    Raises
    ------
    ValueError
        For a setting, environment or calculator that cannot be.
    """
    where = {"folder": folder, "sources": sources, "executor": executor}
    run = ScreenRun(atoms, environment, calculator, **where, **options)
    try:
        for state in run:
            if progress is not None:
                progress(state)
    except KeyboardInterrupt:
        pass
    return run.result()


class ScreenRun:
    """A screening that can be watched and interrupted; iterate over it, then ask for the result.

    Parameters are those of `screen`, and `in_flight`, which is that of
    `asexlatent.parallel.over_chunks`.
    """

    def __init__(
        self,
        candidates: Sequence[Candidate],
        environment: LocalEnvironment | str = "sp2",
        calculator: Calculator | Relaxer | str | None = None,
        *,
        folder: str | Path | None = None,
        sources: Sequence[str] | None = None,
        executor: Executor | None = None,
        in_flight: int | Callable[[], int] | None = None,
        **options: Any,
    ):
        from asexlatent.descriptor import LocalEnvironment

        if isinstance(environment, str):
            environment = LocalEnvironment.named(environment)
        self.environment = environment
        self.options = ScreenOptions(**options)
        self.candidates = list(candidates)
        self.relaxer = self._relaxer(calculator)
        self.executor, self.in_flight = executor, in_flight
        chunks = None if folder is None else Path(folder)
        target = _target(environment)
        self._described = ChunkStore(
            chunks, "nets", {"target": target, "symprec": self.options.symprec}
        )
        self._relaxed = ChunkStore(chunks, "relaxed", {"target": target, **self._energy_settings()})
        self.rows = [make_row(k, candidate) for k, candidate in enumerate(self.candidates)]
        for row, source in zip(self.rows, sources or [], strict=sources is not None):
            row.source = row.source or source
        self._groups: dict[int, list[int]] = {}
        self._matched: dict[int, int] = {}

    def __iter__(self) -> Iterator[ScreenProgress]:
        yield from self._describe()
        self._group()
        yield from self._relax()
        yield from self._match()

    def settings(self) -> dict[str, Any]:
        """All settings, as JSON can hold them."""
        return {
            "environment": self.environment.name,
            "calculator": self.relaxer.name,
            **asdict(self.options),
        }

    def result(self) -> ScreenResult:
        """Ranking of what there is; usable at any time."""
        for _ in self._match():
            pass
        relaxed = [row for row in self.rows if row.relaxed is not None]
        references = find_references(relaxed, self.options.reference, self._graphite_energy)
        for row in relaxed:
            row.above_reference = row.energy - references[row.composition].energy
        self._point_to_representatives()
        rank([row for row in self.rows if row.status == RANKED])
        return ScreenResult(
            self.rows, references, self.relaxer.name, self.options.emax, self.settings()
        )

    # ------------------------------------------------------------------ stages

    def _describe(self) -> Iterator[ScreenProgress]:
        """Motif, symmetry, net and loss of every candidate."""
        keys = {k: key_of(c) for k, c in enumerate(self.candidates) if self._readable(k)}
        job = DescribeJob(self.environment, self.options.symprec)
        items = {keys[k]: self.candidates[k] for k in keys}
        try:
            for done in self._work(job, items, self._described, DESCRIBED_TOGETHER):
                yield ScreenProgress("nets", done, len(items))
        finally:  # also what was finished before Ctrl-C
            for k, key in keys.items():
                if key in self._described:
                    take_description(self.rows[k], self._described[key])

    def _work(self, job: Any, items: dict[str, Any], store: ChunkStore, size: int) -> Iterator[int]:
        """Do what is not in the store yet, chunks fixed by the items alone; yields how many are."""
        chunks = [dict(part) for part in _cut(list(items.items()), size)]
        missing = [
            (number, [(key, item) for key, item in chunk.items() if key not in store])
            for number, chunk in enumerate(chunks)
        ]
        done = sum(key in store for key in items)
        if done:
            yield done
        todo = [(number, chunk) for number, chunk in missing if chunk]
        for _, records in over_chunks(job, todo, self.executor, in_flight=self.in_flight):
            store.add(records)
            done += len(records)
            yield done

    def _readable(self, k: int) -> bool:
        """Whether there is a structure; the row of one that is none says why."""
        candidate, row = self.candidates[k], self.rows[k]
        info = getattr(candidate, "info", {})
        if isinstance(candidate, Exception):
            row.status, row.reason = FAILED, one_line(candidate)
        elif info.get("asx_status") == "failed":
            row.status = FAILED
            row.reason = f"{NOT_REFINED}: {info.get('asx_reason', 'no reason given')}"
        return row.status != FAILED

    def _group(self) -> None:
        """Candidates of one net, dimension and composition, the one of lowest loss first."""
        valid = [row for row in self.rows if row.valid]
        signatures = [
            (r.net_key, r.dimension, r.composition) if self.options.net_duplicates else r.index
            for r in valid
        ]
        groups: dict[int, list[int]] = {}
        for row, best in zip(valid, best_of_each(signatures, [r.loss for r in valid]), strict=True):
            groups.setdefault(valid[best].index, []).append(row.index)
        order = {k: (math.inf if math.isnan(r.loss) else r.loss) for k, r in enumerate(self.rows)}
        self._groups = {
            best: sorted(members, key=lambda k: (order[k], k)) for best, members in groups.items()
        }

    def _relax(self) -> Iterator[ScreenProgress]:
        """Relax one candidate of each group; the next one where that fails."""
        waiting = [members[0] for members in self._groups.values()]
        job = RelaxJob(self.relaxer, self.environment)
        before, total = 0, len(waiting)
        if self.options.reference == AUTO and any(
            self.rows[k].composition == CARBON for k in waiting
        ):
            self._relaxed_now(job, graphite())
        while waiting:
            keys = {k: key_of(self.rows[k].crystal) for k in waiting}
            items = {key: self.rows[k].crystal for k, key in keys.items()}
            try:
                for done in self._work(job, items, self._relaxed, RELAXED_TOGETHER):
                    yield ScreenProgress("relaxations", before + done, total)
            finally:  # also what was finished before Ctrl-C
                for k, key in keys.items():
                    if key in self._relaxed:
                        take_relaxation(self.rows[k], self._relaxed[key])
            before += len(waiting)
            if all(self.rows[k].relaxed is None for k in waiting):
                break  # the calculator is at fault, not the crystals
            waiting = [self._next_of(k) for k in waiting if self.rows[k].relaxed is None]
            waiting = [k for k in waiting if k is not None]
            total += len(waiting)

    def _relaxed_now(self, job: RelaxJob, crystal: SymmetricCrystal) -> None:
        key = key_of(crystal)
        if key not in self._relaxed:
            self._relaxed.add(job.work([(key, crystal)]))

    def _next_of(self, k: int) -> int | None:
        """The candidate of the same net that is tried after this one has failed."""
        members = next(m for m in self._groups.values() if k in m)
        place = members.index(k) + 1
        return members[place] if place < len(members) else None

    def _match(self) -> Iterator[ScreenProgress]:
        """Of equal relaxed structures, the one of lowest energy."""
        rows = [row for row in self.rows if row.relaxed is not None]
        if set(self._matched) == {row.index for row in rows}:
            return
        matched = {}
        found = iterate_duplicates(
            [row.relaxed.to_atoms() for row in rows],
            [row.net_key_relaxed for row in rows],
            [row.energy for row in rows],
            self.options.tolerances,
        )
        for done, (place, kept) in enumerate(found, 1):
            matched[rows[place].index] = rows[kept].index
            yield ScreenProgress("matching", done, len(rows))
        self._matched = matched

    # ------------------------------------------------------------------ the end

    def _point_to_representatives(self) -> None:
        """Status of everything valid; a duplicate points to the crystal that is ranked for it."""
        for row in self.rows:
            row.duplicates, row.duplicate_of, row.duplicate_by = 0, None, ""
        for members in self._groups.values():
            relaxed = [k for k in members if self.rows[k].relaxed is not None]
            first = relaxed[0] if relaxed else members[0]
            for k in members:
                row = self.rows[k]
                if row.relaxed is not None:
                    self._point(row, self._matched[k], "structure", RANKED)
                elif not row.relax_status:
                    self._point(row, k if k == first else self._matched.get(first, first), "net")
        for row in self.rows:
            if row.duplicate_of is not None:
                self.rows[row.duplicate_of].duplicates += 1

    def _point(self, row: ScreenRow, to: int, by: str, otherwise: str = PENDING) -> None:
        row.status = otherwise
        if to != row.index:
            row.status, row.duplicate_of, row.duplicate_by = DUPLICATE, to, by

    def _graphite_energy(self) -> tuple[float, str]:
        key = key_of(graphite())
        if key not in self._relaxed:
            return math.nan, "interrupted"
        record = self._relaxed[key]
        return record.get("energy", math.nan), record["relax_reason"]

    def _energy_settings(self) -> dict[str, Any]:
        names = ("fmax", "smax", "steps", "dtype", "device", "memory")
        return {"calculator": self.relaxer.name} | {n: getattr(self.options, n) for n in names}

    def _relaxer(self, calculator: Calculator | Relaxer | str | None) -> Relaxer:
        if isinstance(calculator, Relaxer):
            return calculator
        names = ("fmax", "smax", "steps", "device", "dtype", "memory")
        return make_relaxer(calculator, **{name: getattr(self.options, name) for name in names})


def _target(environment: LocalEnvironment) -> dict[str, Any]:
    """What records depend on in a target, as JSON can hold it."""
    return {
        "rule": environment.rule.to_dict(),
        "descriptor": environment.descriptor,
        "spectra": environment.spectra.tolist(),
    }


def _cut(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]
