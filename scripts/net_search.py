"""Search for three-coordinated nets among random symmetric crystals; see make_training_set.py."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count

import numpy as np

from asexlatent import LocalEnvironment, SymmetricCrystal, identify_net
from asexlatent.optimize import CrystalBatch, DescriptorLoss, Refinement, RefinementRun, Restarts
from asexlatent.symmetry import CrystalError, RandomCrystals
from asexlatent.symmetry.normalizer import operations
from asexlatent.symmetry.rows import MAX_SITES

CHUNK = 512  # candidates that are drawn and refined together
EXPLORED = 0.5  # share of the candidates whose condition is drawn anew
PER_CONDITION = 24  # nets from one condition; then it has had its share
SHARE = 0.03  # of the new conditions that one space group can get at most
EXACT = 0.001  # Å, within which a symmetry counts as there
DETECTION = (0.3, 0.1, 0.03, 0.01, EXACT)  # Å, tolerances at which it is looked for again


@dataclass(frozen=True)
class Limits:
    """What counts as a find."""

    max_atoms: int = 384
    max_loss: float = 0.1
    seed: int = 0


@dataclass
class Tried:
    """What has come of a condition or of a space group: candidates, valid ones, new nets."""

    drawn: int = 0
    valid: int = 0
    new: int = 0


@dataclass(frozen=True, eq=False)
class Find:
    """One net, in the crystal that shows it."""

    crystal: SymmetricCrystal
    net: str
    dimension: int
    loss: float


@dataclass
class State:
    """Everything that the search has learned; what comes next follows from it."""

    chunk: int = 0
    index: int = 0
    candidates: int = 0
    seconds: float = 0.0  # CPU time
    nets: dict[str, int] = field(default_factory=dict)  # net -> times met
    conditions: dict[str, Tried] = field(default_factory=dict)  # "166:0,0,2"
    groups: dict[int, Tried] = field(default_factory=dict)
    skipped: Counter[str] = field(default_factory=Counter)


def condition_of(crystal: SymmetricCrystal) -> str:
    """Space group and Wyckoff indices as a text."""
    indices = sorted(site.position.index for site in crystal.sites)
    return f"{crystal.space_group}:{','.join(map(str, indices))}"


def with_condition(condition: str) -> SymmetricCrystal:
    """Any crystal of this condition (to be drawn anew)."""
    from asexlatent.symmetry import lattice_variables, wyckoff_positions

    group, _, indices = condition.partition(":")
    positions = wyckoff_positions(int(group))
    sites = [("C", int(i), np.zeros(positions[int(i)].dof)) for i in indices.split(",")]
    cell = lattice_variables(int(group)).project([9.0, 9.0, 9.0, 1.5, 1.5, 1.5])
    return SymmetricCrystal.build(int(group), cell, sites)


class NetSearch:
    """Draw, refine, identify, learn; one chunk after the other."""

    def __init__(self, limits: Limits, state: State):
        self.limits, self.state = limits, state
        self.environment = LocalEnvironment.named("sp2")

    def chunk(self) -> list[Find]:
        """Search one chunk; returns what is new and updates the state."""
        started = time.process_time()
        rng = np.random.default_rng([self.limits.seed, self.state.chunk])
        explored = list(self._explore(round(CHUNK * EXPLORED), rng))
        known = list(self._exploit(CHUNK - len(explored), rng))
        explored += list(self._explore(CHUNK - len(explored) - len(known), rng))
        first = self.state.index
        run = RefinementRun(
            explored + known,
            self.environment,
            restarts=Restarts(1, seed=self.limits.seed),
            steps=60,
            first_index=first,
        )
        for _ in run:
            pass
        results = run.results()
        finds = self._judge(results, len(explored))
        finds = self._lift(finds)
        self.state.seconds += time.process_time() - started
        self.state.chunk += 1
        self.state.candidates += len(results)
        return finds

    # ------------------------------------------------------------------ candidates

    def _explore(self, number: int, rng: np.random.Generator) -> Iterator[SymmetricCrystal]:
        """Crystals under conditions drawn anew, more often in groups that have been good."""
        groups = np.arange(1, 231)
        tried = [self.state.groups.get(int(g), Tried()) for g in groups]
        rate = np.array([(t.new + 0.5) / (t.drawn + 2.0) for t in tried])
        share = np.minimum(rate / rate.sum(), SHARE)
        share = 0.7 * share / share.sum() + 0.3 / len(groups)
        for group in rng.choice(groups, size=number, p=share / share.sum()):
            yield self._even(int(group), int(rng.integers(1, MAX_SITES + 1)))

    def _even(self, group: int, max_sites: int) -> SymmetricCrystal:
        """A crystal with an even number of atoms: three bonds for each, two atoms for a bond.

        Few sites are asked for as often as many, of which there are so many more ways; where they
        make odd numbers only (one atom in P1), more are allowed.
        """
        for attempt in count():
            allowed = min(max_sites + attempt // 20, MAX_SITES)
            self.state.index += 1
            try:
                crystal = self._source((group,), allowed).crystal(self.state.index)
            except CrystalError:  # no position with so few sites
                continue
            if _n_primitive(crystal) % 2 == 0:
                return crystal

    def _exploit(self, number: int, rng: np.random.Generator) -> Iterator[SymmetricCrystal]:
        """Known conditions, each as often as it promises most: new nets per site.

        A share of new nets is drawn from what is known of it (Thompson sampling) and divided by the
        number of sites, since simple nets are few and complicated ones without end.
        """
        names = [
            name
            for name, tried in self.state.conditions.items()
            if tried.valid and tried.new < PER_CONDITION
        ]
        if not names:
            return
        tried = [self.state.conditions[name] for name in names]
        new = np.array([t.new for t in tried], dtype=float)
        drawn = np.array([t.drawn for t in tried], dtype=float)
        sites = np.array([name.count(",") + 1 for name in names])
        source = self._source((1,), MAX_SITES)
        for _ in range(number):
            share = rng.beta(1 + new, 1 + np.maximum(drawn - new, 0))
            best = int((share / sites).argmax())
            drawn[best] += 1  # as if it had failed, so that not all go to one
            self.state.index += 1
            yield source.redrawn(with_condition(names[best]), self.state.index)

    def _source(self, groups: tuple[int, ...], max_sites: int) -> RandomCrystals:
        return RandomCrystals(
            "C",
            groups,
            max_sites=max_sites,
            max_atoms=self.limits.max_atoms,
            neighbors=3,
            seed=self.limits.seed,
        )

    # ------------------------------------------------------------------ results

    def _judge(self, results: list[Refinement], n_explored: int) -> list[Find]:
        """Finds among the results, with their nets; statistics are updated."""
        finds = []
        for number, result in enumerate(results):
            tried = [self.state.conditions.setdefault(condition_of(result.source), Tried())]
            if number < n_explored:
                group = result.source.space_group
                tried.append(self.state.groups.setdefault(group, Tried()))
            find = self._find(result) if result.valid else None
            new = find is not None and find.net not in self.state.nets
            if find is not None:
                self.state.nets[find.net] = self.state.nets.get(find.net, 0) + 1
            for one in tried:
                one.drawn += 1
                one.valid += find is not None
                one.new += new
            if new:
                finds.append(find)
        # A condition that has never worked is not looked at again: its record can go.
        self.state.conditions = {k: t for k, t in self.state.conditions.items() if t.valid}
        return finds

    def _find(self, result: Refinement) -> Find | None:
        """The net of a valid crystal, None (and counted) if it is none of those wanted."""
        identity = identify_net(result.crystal.to_atoms())
        net = identity.components[0]
        if identity.dimension < 2:
            reason = "molecule or chain"
        elif len(identity.components) > 1:
            reason = "several different nets"
        elif net.dimension == 3 and net.multiplicity > 1:
            reason = "interpenetrated"
        elif not net.exact:
            reason = "no exact key"
        elif result.loss > self.limits.max_loss:
            reason = "high loss"
        else:
            return Find(result.crystal, net.short_key, net.dimension, result.loss)
        self.state.skipped[reason] += 1
        return None

    def _lift(self, finds: list[Find]) -> list[Find]:
        """Describe each find in the highest group in which it is the same net and still good."""
        described = [_descriptions(find.crystal) for find in finds]
        flat = [crystal for crystals in described for crystal in crystals]
        run = RefinementRun(flat, self.environment, steps=200, fmax=0.01)
        for _ in run:
            pass
        results = iter(run.results())
        lifted = []
        for find, crystals in zip(finds, described, strict=True):
            refined = [next(results) for _ in crystals]
            best = next((r for r in refined if self._still(r, find)), None)
            if best is None:
                self.state.skipped["not stable in its own symmetry"] += 1
                del self.state.nets[find.net]  # it may come again, in a better crystal
                continue
            crystal = _in_highest_group(best.crystal)
            lifted.append(Find(crystal, find.net, find.dimension, self._loss(crystal)))
            self.state.conditions.setdefault(condition_of(crystal), Tried(1, 1, 0))
        return lifted

    def _loss(self, crystal: SymmetricCrystal) -> float:
        """Eq. 1 as it is described now: in another group other sites are averaged over."""
        batch = CrystalBatch.from_crystals([crystal])
        problem = DescriptorLoss(self.environment).bind(batch)
        return float(problem.evaluate(batch.variables).value)

    def _still(self, result: Refinement, find: Find) -> bool:
        limit = min(1.5 * find.loss + 0.01, self.limits.max_loss)
        if not (result.valid and result.loss <= limit and result.crystal.n_sites <= MAX_SITES):
            return False
        identity = identify_net(result.crystal.to_atoms())
        return [c.short_key for c in identity.components] == [find.net]


def _descriptions(crystal: SymmetricCrystal) -> list[SymmetricCrystal]:
    """Descriptions from the coarsest tolerance to the finest, each group once."""
    atoms = crystal.to_atoms()
    found: dict[str, SymmetricCrystal] = {}
    for symprec in DETECTION:
        try:
            other = SymmetricCrystal.from_atoms(atoms, symprec=symprec, space_group="detect")
        except CrystalError:
            continue
        found.setdefault(condition_of(other), other)
    return list(found.values())


def _in_highest_group(crystal: SymmetricCrystal) -> SymmetricCrystal:
    """The same crystal, where refinement has ended in more symmetry than it began with."""
    other = SymmetricCrystal.from_atoms(crystal.to_atoms(), symprec=EXACT, space_group="detect")
    return crystal if other.space_group == crystal.space_group else other


def _n_primitive(crystal: SymmetricCrystal) -> int:
    return crystal.n_atoms // len(operations(crystal.space_group).centring)
