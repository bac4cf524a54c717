"""Many rows from one crystal: its subgroups, and other descriptions of each."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace

import numpy as np

from asexlatent.symmetry.crystal import SymmetricCrystal
from asexlatent.symmetry.descriptions import random_description
from asexlatent.symmetry.rows import MAX_SITES
from asexlatent.symmetry.subgroups import (
    MANY_ATOMS,
    MANY_SITES,
    MISMATCH,
    Original,
    subgroup_crystals,
)

PARENT, PATH = "asx_parent", "asx_subgroup"
"""Keys of ``info`` that say where a description comes from."""


@dataclass(frozen=True)
class Augmentation:
    """What to make of each crystal.

    Attributes
    ----------
    max_index, max_atoms, max_sites, kinds : as for :func:`subgroup_crystals`.
    descriptions : further random descriptions of every row, as in :func:`random_description`.
    seed : random numbers are keyed by (seed, index of the crystal).
    """

    max_index: int = 8
    max_atoms: int = 400
    max_sites: int = MAX_SITES
    kinds: str = "tk"
    descriptions: int = 0
    seed: int = 0


@dataclass(frozen=True, eq=False)
class Augmented:
    """Rows made of one crystal, itself first, and how many were left out for which reason."""

    crystals: list[SymmetricCrystal]
    skipped: Counter[str] = field(default_factory=Counter)


def augment(
    crystal: SymmetricCrystal, settings: Augmentation, index: int = 0, name: str | None = None
) -> Augmented:
    """Describe a crystal in its own group and in subgroups.

    Every row carries in ``info`` what the crystal carries, `name` (by default the index) as
    ``asx_parent`` and the chain of subgroups as ``asx_subgroup`` (``194 t3 63 k2 36``).

    Parameters
    ----------
    crystal : the parent.
    settings : what to make of it.
    index : place of the parent in the input, the key of its random numbers.
    name : what to call it.
    """
    own = {**crystal.info, PARENT: str(index) if name is None else name}
    crystal = replace(crystal, info=own)
    found = subgroup_crystals(
        crystal, settings.max_index, settings.max_atoms, settings.max_sites, settings.kinds
    )
    skipped = Counter(found.skipped)
    rows = []
    if crystal.n_sites > settings.max_sites:
        skipped[MANY_SITES] += 1
    elif crystal.n_atoms > settings.max_atoms:
        skipped[MANY_ATOMS] += 1
    else:
        rows.append(_with_path(crystal, str(crystal.space_group)))
    for child, relation in zip(found.crystals, found.relations, strict=True):
        steps = " ".join(f"{kind}{times} {number}" for times, kind, number in relation.path)
        rows.append(_with_path(child, f"{crystal.space_group} {steps}"))
    if settings.descriptions:
        rng = np.random.Generator(np.random.Philox(key=np.array([settings.seed, index], np.uint64)))
        rows = [one for row in rows for one in _described(row, settings, rng, skipped)]
    return Augmented(rows, skipped)


def _with_path(crystal: SymmetricCrystal, path: str) -> SymmetricCrystal:
    return replace(crystal, info={**crystal.info, PATH: path})


def _described(
    crystal: SymmetricCrystal,
    settings: Augmentation,
    rng: np.random.Generator,
    skipped: Counter[str],
) -> list[SymmetricCrystal]:
    """A crystal and other descriptions of it, as many as wanted or as there seem to be."""
    original = Original(crystal)
    found = {_text(crystal): crystal}
    for _ in range(4 * settings.descriptions):
        if len(found) > settings.descriptions:
            break
        other = random_description(crystal, rng)
        if original.is_same(*other):
            found.setdefault(_text(other.crystal), other.crystal)
        else:
            skipped[MISMATCH] += 1
    return list(found.values())


def _text(crystal: SymmetricCrystal) -> str:
    indices = [site.position.index for site in crystal.sites]
    values = np.round(crystal.free_variables, 5) + 0.0  # no negative zeros
    return f"{indices} {values.tolist()}"
