"""The screening of section 3.5 of the method, from refined candidates to ranked crystals."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ase import Atoms

from asexlatent.screening.duplicates import MatchTolerances, best_of_each, iterate_duplicates
from asexlatent.screening.energies import Relaxer, make_relaxer, usable
from asexlatent.screening.identity import describe_candidates, describe_crystal, one_line
from asexlatent.screening.ranking import (
    AUTO,
    CARBON,
    check_reference,
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
from asexlatent.screening.store import ChunkStore, key_of, unpack_crystal
from asexlatent.symmetry import SymmetricCrystal

if TYPE_CHECKING:
    from ase.calculators.calculator import Calculator

    from asexlatent.descriptor import LocalEnvironment

Candidate = Atoms | SymmetricCrystal | Exception

DESCRIBED_TOGETHER = 200
RELAXED_TOGETHER = 32
"""Crystals that are relaxed, and kept in a file, together: what a kill can cost."""


@dataclass(frozen=True)
class ScreenProgress:
    """State of a running screening.

    Attributes
    ----------
    stage : str
        "nets", "relaxations" or "matching".
    done, total : int
        Crystals of this stage.
    """

    stage: str
    done: int
    total: int


@dataclass(frozen=True)
class ScreenOptions:
    """Settings of a screening beside environment and calculator.

    Attributes
    ----------
    emax : float
        eV/atom above the reference up to which a crystal counts as low in energy.
    reference : "auto", "lowest" or float
        Zero of the energies: graphite relaxed with the same calculator for carbon and the lowest
        crystal for other compositions; always the lowest; or an energy in eV/atom.
    net_duplicates : bool
        Whether of all candidates of one net, dimension and composition only the one of lowest
        loss is relaxed, as published. Without it stackings of the same layers stay apart, and
        everything valid is relaxed.
    fmax, smax : float
        Thresholds of the relaxation, eV/Å and eV/Å^3; without `smax` that of `relax`.
    steps : int
        Step limit of the relaxation of one crystal.
    symprec : float
        Å, tolerance of the symmetry detection for candidates that are `Atoms`.
    tolerances : MatchTolerances
        Of the second search for duplicates.
    device, dtype, memory
        Torch device, "float64" or "float32", and GiB for a batch of the relaxation.
    """

    emax: float = 0.55
    reference: str | float = "auto"
    net_duplicates: bool = True
    fmax: float = 0.02
    smax: float | None = None
    steps: int = 300
    symprec: float = 1e-2
    tolerances: MatchTolerances = field(default_factory=MatchTolerances)
    device: str = "cpu"
    dtype: str = "float64"
    memory: float = 2.0

    def __post_init__(self) -> None:
        check_reference(self.reference)
        if not self.emax >= 0:
            raise ValueError(f"emax must not be negative, not {self.emax}")


def screen(
    atoms: Sequence[Candidate],
    environment: LocalEnvironment | str = "sp2",
    calculator: Calculator | Relaxer | str | None = None,
    *,
    folder: str | Path | None = None,
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
    run = ScreenRun(atoms, environment, calculator, folder=folder, **options)
    try:
        for state in run:
            if progress is not None:
                progress(state)
    except KeyboardInterrupt:
        pass
    return run.result()


class ScreenRun:
    """A screening that can be watched and interrupted; iterate over it, then ask for the result.

    Parameters are those of `screen`.
    """

    def __init__(
        self,
        candidates: Sequence[Candidate],
        environment: LocalEnvironment | str = "sp2",
        calculator: Calculator | Relaxer | str | None = None,
        *,
        folder: str | Path | None = None,
        **options: Any,
    ):
        from asexlatent.descriptor import LocalEnvironment

        if isinstance(environment, str):
            environment = LocalEnvironment.named(environment)
        self.environment = environment
        self.options = ScreenOptions(**options)
        self.candidates = list(candidates)
        self.relaxer = self._relaxer(calculator)
        chunks = None if folder is None else Path(folder)
        target = _target(environment)
        self._described = ChunkStore(
            chunks, "nets", {"target": target, "symprec": self.options.symprec}
        )
        self._relaxed = ChunkStore(chunks, "relaxed", {"target": target, **self._energy_settings()})
        self.rows = [make_row(k, candidate) for k, candidate in enumerate(self.candidates)]
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
        total = len(self.candidates)
        for chunk in _cut(list(keys), DESCRIBED_TOGETHER):
            new = {keys[k]: k for k in chunk if keys[k] not in self._described}
            if new:
                found = describe_candidates(
                    [self.candidates[k] for k in new.values()],
                    self.environment,
                    self.options.symprec,
                )
                self._described.add(dict(zip(new, found, strict=True)))
            for k in chunk:
                take_description(self.rows[k], self._described[keys[k]])
            yield ScreenProgress("nets", chunk[-1] + 1, total)

    def _readable(self, k: int) -> bool:
        """Whether there is a structure; the row of one that is none says why."""
        candidate, row = self.candidates[k], self.rows[k]
        info = getattr(candidate, "info", {})
        if isinstance(candidate, Exception):
            row.status, row.reason = FAILED, one_line(candidate)
        elif info.get("asx_status") == "failed":
            row.status = FAILED
            row.reason = f"not refined: {info.get('asx_reason', 'no reason given')}"
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
        done, total = 0, len(waiting)
        carbon = any(self.rows[k].composition == CARBON for k in waiting)
        if carbon and self.options.reference == AUTO:
            self._relax_crystals([graphite()])
        while waiting:
            for chunk in _cut(waiting, RELAXED_TOGETHER):
                self._relax_chunk(chunk)
                done += len(chunk)
                yield ScreenProgress("relaxations", done, total)
            if all(self.rows[k].relaxed is None for k in waiting):
                break  # the calculator is at fault, not the crystals
            waiting = [self._next_of(k) for k in waiting if self.rows[k].relaxed is None]
            waiting = [k for k in waiting if k is not None]
            total += len(waiting)

    def _next_of(self, k: int) -> int | None:
        """The candidate of the same net that is tried after this one has failed."""
        members = next(m for m in self._groups.values() if k in m)
        place = members.index(k) + 1
        return members[place] if place < len(members) else None

    def _relax_chunk(self, chunk: Sequence[int]) -> None:
        crystals = {k: self.rows[k].crystal for k in chunk}
        self._relax_crystals(list(crystals.values()))
        for k, crystal in crystals.items():
            take_relaxation(self.rows[k], self._relaxed[key_of(crystal)])

    def _relax_crystals(self, crystals: Sequence[SymmetricCrystal]) -> None:
        """Relax and judge what is not known yet, and keep it."""
        keyed = {key_of(c): c for c in crystals}
        new = {key: c for key, c in keyed.items() if key not in self._relaxed}
        records = self.relaxer.records(list(new.values()))
        for record in records:
            if usable(record):
                self._judge_relaxed(record)
        self._relaxed.add(dict(zip(new, records, strict=True)))

    def _judge_relaxed(self, record: dict[str, Any]) -> None:
        """Motif and net again; what they cannot be found of has failed."""
        try:
            crystal = unpack_crystal(record["crystal"])
            record["after"] = describe_crystal(crystal, self.environment)
        except Exception as error:  # what a relaxation leaves can be anything
            record["relax_status"] = "failed"
            record["relax_reason"] = f"after relaxation: {one_line(error)}"

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
        names = ("fmax", "smax", "steps", "dtype")
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


def _cut(items: Sequence[int], size: int) -> Iterator[Sequence[int]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]
