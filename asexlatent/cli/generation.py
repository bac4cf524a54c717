"""Where the candidates of ``asexlatent-generate`` come from."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from asexlatent.cli.settings import Settings, UsageError

if TYPE_CHECKING:
    from asexlatent.descriptor import LocalEnvironment
    from asexlatent.latent import Condition, LatentModel
    from asexlatent.symmetry import CrystalError, RandomCrystals, SymmetricCrystal

Candidates = list["SymmetricCrystal | CrystalError"]


class Draw(Protocol):
    """Makes candidates by their numbers; can be sent to other processes.

    Attributes
    ----------
    conditions : sequence of Condition or None
        Taken in turn; None where the source chooses by itself.
    """

    conditions: Sequence[Condition] | None

    def __call__(self, first: int, conditions: Sequence[Condition | None]) -> Candidates:
        """Candidates with the numbers from `first` on, one under each condition."""


_SPREAD = (0.68, 1.36)  # of the volume per atom around that of a target; graphite: 6 to 12 Å^3
_SHOWN = 3  # problems that are named
_EFFORT = 64  # conditions asked of a model for each one of the wanted composition


def source_of(options: argparse.Namespace) -> tuple[str, Draw]:
    """Name of the source and what makes its candidates, as the command line asks for them.

    Raises
    ------
    UsageError
    """
    conditions = None
    if options.conditions:
        conditions = read_conditions(options.conditions)
    if options.random:
        return "random", _random(options, conditions)
    return _from_model(options, conditions)


def read_conditions(name: str) -> list[Condition]:
    """Conditions of structures, of the rows of a table, or of the lines of a text file.

    Structures and rows that are no crystals are counted on the terminal and left out.

    Raises
    ------
    UsageError
        The file cannot be read, there is no condition in it, or a line of a text file is none.
    """
    from asexlatent.latent.conditions import Condition
    from asexlatent.symmetry import CrystalError

    if name.lower().endswith(".txt"):
        return _condition_lines(Path(name))
    from asexlatent.cli.inputs import read_inputs

    problems: list[str] = []
    conditions = []
    settings = Settings.from_mapping({"inputs": [name]}, "command line")
    for entry in read_inputs(settings, ["C"], problems.append):
        try:
            conditions.append(Condition.from_crystal(_crystal(entry.candidate)))
        except CrystalError as error:
            problems.append(f"{entry.source}: {error}")
    if not conditions:
        raise UsageError(f"--conditions {'; '.join(problems[:_SHOWN]) or f'{name} is empty'}")
    if problems:
        text = f"{len(problems)} of {name} are no conditions, such as {problems[0]}"
        print(f"asexlatent-generate: {text}", file=sys.stderr)
    return conditions


def _condition_lines(path: Path) -> list[Condition]:
    from asexlatent.latent.conditions import Condition
    from asexlatent.symmetry import CrystalError

    conditions = []
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"--conditions {path}: {error}") from None
    for number, line in enumerate(lines, 1):
        text = line.partition("#")[0].strip()
        try:
            if text:
                conditions.append(Condition.parse(text))
        except CrystalError as error:
            raise UsageError(f"--conditions {path}, line {number}: {error}") from None
    if not conditions:
        raise UsageError(f"--conditions {path}: there is no condition in it")
    return conditions


def _crystal(candidate: Any) -> SymmetricCrystal:
    from asexlatent.symmetry import SymmetricCrystal

    if isinstance(candidate, Exception):
        raise candidate
    if isinstance(candidate, SymmetricCrystal):
        return candidate
    return SymmetricCrystal.from_atoms(candidate)


# ------------------------------------------------------------------------------ random


def _random(options: argparse.Namespace, conditions: Sequence[Condition] | None) -> Draw:
    from asexlatent.symmetry import CrystalError, RandomCrystals

    try:
        source = RandomCrystals(**_random_settings(options, conditions is None))
        if conditions is None:
            source.crystal(0)  # what is impossible is said before anything is written
    except CrystalError as error:
        raise UsageError(str(error)) from None
    return RandomDraw(source, conditions)


@dataclass(frozen=True, eq=False)
class RandomDraw:
    """Random crystals, or random ones under given conditions; a `Draw`."""

    source: RandomCrystals
    conditions: Sequence[Condition] | None

    def __call__(self, first: int, conditions: Sequence[Condition | None]) -> Candidates:
        """Candidates with the numbers from `first` on; an error where there is none."""
        from asexlatent.symmetry import CrystalError

        made: Candidates = []
        for index, one in enumerate(conditions, first):
            try:
                made.append(self._one(index, one))
            except CrystalError as error:
                made.append(error)
        return made

    def _one(self, index: int, condition: Condition | None) -> SymmetricCrystal:
        if condition is None:
            return self.source.crystal(index)
        species = (symbol for symbol, _ in condition.sites)
        sites = list(zip(species, condition.positions, strict=True))
        return self.source.under(condition.space_group, sites, index)


def _random_settings(options: argparse.Namespace, choose: bool) -> dict[str, Any]:
    """Arguments of `RandomCrystals`; `choose` says whether it chooses positions too."""
    settings: dict[str, Any] = {
        "max_sites": options.max_sites,
        "max_atoms": options.max_atoms,
        "formula_units": options.formula_units,
        "min_distance": options.min_distance,
        "seed": options.seed,
    }
    if options.space_group:
        settings["space_groups"] = options.space_group
    composition, volume, near = options.composition, options.volume, options.neighbors
    target = options.target or ("sp2" if choose and composition is None else None)
    if target is not None:
        environment = _environment(target)
        composition, own_volume, own_near = from_target(environment, composition)
        volume, near = volume or own_volume, near or own_near
    settings["composition"] = composition or "C"
    return settings | {"volume": volume and tuple(volume), "neighbors": near}


def _environment(target: str) -> LocalEnvironment:
    from asexlatent.cli.target import resolve_target

    return resolve_target(Settings.from_mapping({"target": target}, "command line"))[0]


def from_target(
    environment: LocalEnvironment, composition: str | None
) -> tuple[str, tuple[float, float] | None, dict[str, tuple[int, ...]]]:
    """Composition, volumes per atom (Å^3) and numbers of neighbours that a target suggests.

    The volumes are those around its reference structure, where the composition is the same.

    Raises
    ------
    UsageError
        When the target cannot say what the crystals are made of.
    """
    from asexlatent.symmetry import RandomCrystals

    structure = environment.structure
    if structure is None and composition is None:
        raise UsageError("the target has no reference structure: say --composition")
    if composition is None:
        composition = str(structure.symbols.formula.reduce()[0].convert("metal"))
    formula = RandomCrystals(composition).formula
    rule = {s: tuple(n) for s, n in environment.rule.coordination.items() if s in formula}
    volume = None
    if structure is not None and structure.pbc.all():
        counts = {s: structure.get_chemical_symbols().count(s) for s in set(structure.symbols)}
        units = {counts.get(s, 0) / n for s, n in formula.items()}
        if set(counts) == set(formula) and len(units) == 1:
            mean = structure.get_volume() / len(structure)
            volume = (_SPREAD[0] * mean, _SPREAD[1] * mean)
    return composition, volume, rule


# ------------------------------------------------------------------------------- model


def _from_model(
    options: argparse.Namespace, conditions: Sequence[Condition] | None
) -> tuple[str, Draw]:
    from asexlatent.latent import ModelError, load_model
    from asexlatent.symmetry import CrystalError

    try:
        model = load_model(options.model)
    except ModelError as error:
        raise UsageError(f"{error} (--random needs no model)") from None
    label = "model" if options.model is None else options.model.name
    try:
        return label, ModelDraw(model, options.seed, _conditions(model, options, conditions))
    except CrystalError as error:
        raise UsageError(str(error)) from None


@dataclass(frozen=True, eq=False)
class ModelDraw:
    """Samples of a model; a `Draw`."""

    model: LatentModel
    seed: int
    conditions: Sequence[Condition] | None

    def __call__(self, first: int, conditions: Sequence[Condition | None]) -> Candidates:
        """Samples with the numbers from `first` on."""
        n = len(conditions)
        if self.conditions is None:
            return self.model.sample(None, n, self.seed, first=first)
        # The model takes conditions in turn, counted from sample 0.
        turned = [conditions[(k - first) % n] for k in range(n)]
        return self.model.sample(turned, n, self.seed, first=first)


def _conditions(
    model: LatentModel, options: argparse.Namespace, conditions: Sequence[Condition] | None
) -> Sequence[Condition] | None:
    """Conditions to draw under; None for a model that has none."""
    if not model.is_conditional:
        for name in ("conditions", "space_group", "composition"):
            if getattr(options, name):
                flag = "--" + name.replace("_", "-")
                raise UsageError(f"{flag}: this model is unconditional, it draws what it likes")
        return None
    if conditions is None and options.composition:
        conditions = _of_composition(model, options)
    if conditions is not None:
        return conditions
    return model.sample_conditions(options.number, options.seed, space_groups=options.space_group)


def _of_composition(model: LatentModel, options: argparse.Namespace) -> list[Condition] | None:
    """Conditions with the wanted composition; None where the model knows no other."""
    from asexlatent.symmetry import RandomCrystals

    wanted = RandomCrystals(options.composition).formula
    known = model.vocabulary.species
    if set(wanted) - set(known):
        raise UsageError(
            f"--composition {options.composition}: the model was trained on {', '.join(known)}; "
            "train another one, or use --random"
        )
    if len(known) == 1:
        return None
    asked = options.number
    while True:
        proposed = model.sample_conditions(asked, options.seed, space_groups=options.space_group)
        found = [one for one in proposed if _has_composition(one, wanted)]
        if len(found) >= options.number or asked >= _EFFORT * options.number:
            break
        asked *= 4
    if not found:
        raise UsageError(
            f"--composition {options.composition}: none of {asked} conditions proposed by the "
            "model has it; give --conditions, or use --random"
        )
    return found[: options.number]


def _has_composition(condition: Condition, wanted: dict[str, int]) -> bool:
    counts: dict[str, int] = {}
    for (species, _), position in zip(condition.sites, condition.positions, strict=True):
        counts[species] = counts.get(species, 0) + position.multiplicity
    units = {counts.get(species, 0) / n for species, n in wanted.items()}
    return set(counts) == set(wanted) and len(units) == 1
