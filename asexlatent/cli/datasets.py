"""Data sets from whatever `asexlatent-refine` reads."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

from asexlatent.cli.settings import Settings

if TYPE_CHECKING:
    from asexlatent.cli.inputs import Entry
    from asexlatent.latent import Dataset
    from asexlatent.optimize.result import Candidate

Progress = Callable[[int, int | None], None]
"""Called with the number of entries read so far and the number of all, where it is known."""


def read_dataset(
    inputs: str | os.PathLike | Iterable[str | os.PathLike],
    *,
    species: str = "C",
    max_sites: int = 8,
    symprec: float = 1e-2,
    degrees: bool = False,
    augment_index: int = 0,
    progress: Progress | None = None,
) -> Dataset:
    """Read training data: an ASE database, structure files, folders of CIFs, tables of rows.

    Parameters
    ----------
    inputs : path or paths
        As for ``asexlatent-refine``, with an index if wanted (``file.db@:100``).
    species : str
        Element of the sites of a table without a column ``species``.
    max_sites : int
        Crystals with more inequivalent sites are skipped.
    symprec : float
        Tolerance of the symmetry detection, Å.
    degrees : bool
        Angles of tables are in degrees.
    augment_index : int
        Describe every crystal in its subgroups up to this index too, as ``asexlatent-augment``
        does; 0 and 1 for not.
    progress : callable, optional

    Returns
    -------
    Dataset
        ``skipped`` names what is not in it, inputs that could not be read included.
    """
    from asexlatent.cli.inputs import count_inputs, read_inputs
    from asexlatent.latent import Dataset
    from asexlatent.latent.dataset import Skipped

    paths = [inputs] if isinstance(inputs, str | os.PathLike) else inputs
    settings = Settings(
        inputs=tuple(os.fspath(path) for path in paths), symprec=symprec, degrees=degrees
    )
    problems: list[Skipped] = []

    def problem(line: str) -> None:
        name, _, why = line.partition(": ")
        problems.append(Skipped(name, why))

    total = count_inputs(settings) if progress is not None else None
    names: list[str] = []

    def candidates() -> Iterator[Candidate]:
        for number, entry in enumerate(read_inputs(settings, [species], problem), 1):
            for one in _described(entry, augment_index, max_sites, symprec):
                names.append(entry.source)
                yield one
            if progress is not None:
                progress(number, total)

    data = Dataset.from_candidates(
        candidates(), _following(names), max_sites=max_sites, symprec=symprec
    )
    return replace(data, skipped=(*problems, *data.skipped))


def _following(names: list[str]) -> Iterator[str]:
    """Names that are appended while others are taken."""
    place = 0
    while True:
        yield names[place]
        place += 1


def _described(entry: Entry, index: int, max_sites: int, symprec: float) -> list[Candidate]:
    """One candidate, or its descriptions in its own group and in subgroups."""
    from asexlatent.symmetry import CrystalError, SymmetricCrystal

    candidate = entry.candidate
    if index < 2 or isinstance(candidate, Exception):
        return [candidate]
    from asexlatent.symmetry.augmentation import Augmentation, augment

    try:
        if not isinstance(candidate, SymmetricCrystal):
            candidate = SymmetricCrystal.from_atoms(candidate, symprec=symprec)
        if candidate.n_sites > max_sites:
            return [candidate]
        # A row that was made from another crystal keeps that crystal as its parent.
        name = next((candidate.info[k] for k in PARENTS if candidate.info.get(k)), entry.source)
        settings = Augmentation(max_index=index, max_sites=max_sites)
        return augment(candidate, settings, entry.index, str(name)).crystals
    except CrystalError as error:
        return [error]


PARENTS = ("asx_parent", "parent")
