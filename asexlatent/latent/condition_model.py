"""Where conditions come from: the training set itself, or a model that proposes new ones."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from ase.data import atomic_numbers
from torch import Tensor, nn

from asexlatent.latent.conditions import Condition, Vocabulary
from asexlatent.latent.networks import mlp
from asexlatent.latent.streams import stream
from asexlatent.symmetry import CrystalError, WyckoffPosition, wyckoff_positions


@dataclass(frozen=True, eq=False)
class EmpiricalConditions:
    """The multiset of conditions of the training set.

    Attributes
    ----------
    conditions : tuple of Condition
        Different ones.
    counts : tuple of int
        How often each occurs.
    """

    conditions: tuple[Condition, ...]
    counts: tuple[int, ...]

    @classmethod
    def of(cls, conditions: Iterable[Condition]) -> EmpiricalConditions:
        """Count conditions."""
        counted = Counter(conditions)
        return cls(tuple(counted), tuple(counted.values()))

    def restricted(self, space_groups: Sequence[int] | None) -> EmpiricalConditions:
        """Return those of some space groups, all for None; CrystalError if none is left."""
        if space_groups is None:
            return self
        kept = [k for k, c in enumerate(self.conditions) if c.space_group in space_groups]
        if not kept:
            wanted = ", ".join(map(str, space_groups))
            raise CrystalError(f"the training data of the model have no space group {wanted}")
        return EmpiricalConditions(
            tuple(self.conditions[k] for k in kept), tuple(self.counts[k] for k in kept)
        )

    def sample(self, n: int, seed: int = 0) -> list[Condition]:
        """Draw n conditions in proportion to their counts; number k depends on (seed, k) only."""
        share = np.cumsum(self.counts) / sum(self.counts)
        draws = [stream(seed, k, "conditions").random() for k in range(n)]
        return [self.conditions[k] for k in np.searchsorted(share, draws, side="right")]


class ConditionNetwork(nn.Module):
    """Autoregressive model of conditions: a group, then site after site, then stop.

    p(C) = p(group) prod_s p(site s | group, sites before). The group is drawn with the shares of
    the training data; a small network scores every possible next site from what it is
    (multiplicity, free coordinates, learned vectors of the group and of the position) and from
    what is there already. Only valid conditions can come out: positions of that group, sites in
    the order of the standard description, fixed positions once, no more atoms and sites than the
    limits.

    Parameters
    ----------
    vocabulary : Vocabulary
    max_atoms : int
        Atoms per conventional cell.
    counts : sequence of int
        Training rows of each group of the vocabulary.
    hidden : int
        Width of the network.
    """

    def __init__(
        self, vocabulary: Vocabulary, max_atoms: int, counts: Sequence[int], hidden: int = 64
    ):
        super().__init__()
        self.vocabulary, self.max_atoms, self.hidden = vocabulary, max_atoms, hidden
        self.counts = tuple(int(count) for count in counts)
        self.tables = {g: _options(g, vocabulary.species) for g in vocabulary.space_groups}
        self.first = {}
        total = 0
        for group, table in self.tables.items():
            self.first[group] = total
            total += len(table)
        self.group_vector = nn.Embedding(len(vocabulary.space_groups), 16)
        self.option_vector = nn.Embedding(total + 1, 8)  # the last one: stop
        nn.init.normal_(self.group_vector.weight, std=0.1)
        nn.init.normal_(self.option_vector.weight, std=0.1)
        self.score = mlp([16 + 8 + _N_FEATURES + len(vocabulary.species), hidden, hidden, 1])

    def options(self, group: int, taken: Sequence[int]) -> tuple[list[int], np.ndarray]:
        """What may come next: places in the group's table (its length: stop), and features.

        Parameters
        ----------
        group : space group.
        taken : places in the table that are taken, ascending.
        """
        table = self.tables[group]
        left = self.max_atoms - sum(table[k][1].multiplicity for k in taken)
        fixed = {table[k][1].index for k in taken if not table[k][1].dof}
        places = []
        if len(taken) < self.vocabulary.max_sites:
            places = [
                k
                for k in range(taken[-1] if taken else 0, len(table))
                if table[k][1].multiplicity <= left and table[k][1].index not in fixed
            ]
        if taken:
            places.append(len(table))
        return places, self._features(group, taken, places, left)

    def _features(
        self, group: int, taken: Sequence[int], places: Sequence[int], left: int
    ) -> np.ndarray:
        """(options, F) numbers that describe the options in their context."""
        table, species = self.tables[group], self.vocabulary.species
        order = table[-1][1].multiplicity
        made = np.zeros((len(places), _N_FEATURES + len(species)), dtype=np.float32)
        used = self.max_atoms - left
        made[:, 0] = len(taken) / self.vocabulary.max_sites
        made[:, 1], made[:, 2] = used / self.max_atoms, np.log1p(used) / 5
        made[:, 3] = sum(table[k][1].dof for k in taken) / 24
        for row, place in zip(made, places, strict=True):
            if place == len(table):
                row[4] = 1
                continue
            symbol, position = table[place]
            row[5 + position.dof] = 1
            row[9] = position.multiplicity / order
            row[10] = np.log(position.multiplicity) / 5
            row[11] = position.multiplicity / max(left, 1)
            row[12] = sum(k == place for k in taken) / 4
            row[_N_FEATURES + species.index(symbol)] = 1
        return made

    def logits(self, groups: Tensor, options: Tensor, features: Tensor) -> Tensor:
        """Scores (n, O): groups (n,), options (n, O) as places among all, features (n, O, F)."""
        context = self.group_vector(groups)[:, None].expand(-1, options.shape[1], -1)
        given = torch.cat((context, self.option_vector(options), features), dim=2)
        return self.score(given)[..., 0]

    def steps(self, conditions: Iterable[Condition]) -> Steps:
        """Every choice that leads to these (standard) conditions, as tensors for training."""
        rows = []
        for condition in conditions:
            taken: list[int] = []
            for place in [*self._places(condition), len(self.tables[condition.space_group])]:
                places, features = self.options(condition.space_group, taken)
                if place in places:
                    rows.append((condition.space_group, places, features, places.index(place)))
                taken.append(place)
        return self._packed(rows)

    def _places(self, condition: Condition) -> list[int]:
        table = self.tables[condition.space_group]
        place = {(symbol, position.index): k for k, (symbol, position) in enumerate(table)}
        return sorted(place[site] for site in condition.sites)

    def _packed(self, rows: list[tuple[int, list[int], np.ndarray, int]]) -> Steps:
        most = max(len(places) for _, places, _, _ in rows)
        options = torch.zeros((len(rows), most), dtype=torch.int64)
        features = torch.zeros((len(rows), most, rows[0][2].shape[1]))
        open_ = torch.zeros((len(rows), most), dtype=torch.bool)
        group_of = {group: k for k, group in enumerate(self.vocabulary.space_groups)}
        stop = self.option_vector.num_embeddings - 1
        for k, (group, places, part, _) in enumerate(rows):
            end, first = len(self.tables[group]), self.first[group]
            options[k, : len(places)] = torch.tensor(
                [stop if place == end else first + place for place in places]
            )
            features[k, : len(places)] = torch.from_numpy(part)
            open_[k, : len(places)] = True
        groups = torch.tensor([group_of[group] for group, *_ in rows])
        return Steps(groups, options, features, open_, torch.tensor([row[3] for row in rows]))

    def loss(self, steps: Steps) -> Tensor:
        """Mean cross-entropy of the choices, in nats."""
        logits = self.logits(steps.groups, steps.options, steps.features)
        return nn.functional.cross_entropy(logits.masked_fill(~steps.open, -1e9), steps.chosen)

    @torch.no_grad()
    def sample(
        self, n: int, seed: int = 0, space_groups: Sequence[int] | None = None
    ) -> list[Condition]:
        """Propose n conditions; number k depends on (seed, k) only.

        Parameters
        ----------
        space_groups : sequence of int, optional
            Draw from these groups only, with their shares of the training data.
        """
        groups = self._draw_groups(n, seed, space_groups)
        draws = [stream(seed, k, "sites").random(self.vocabulary.max_sites + 1) for k in range(n)]
        taken: list[list[int]] = [[] for _ in range(n)]
        going = list(range(n))
        for step in range(self.vocabulary.max_sites + 1):
            if not going:
                break
            found = [self.options(groups[k], taken[k]) for k in going]
            packed = self._packed(
                [(groups[k], *part, 0) for k, part in zip(going, found, strict=True)]
            )
            logits = self.logits(packed.groups, packed.options, packed.features)
            share = torch.softmax(logits.double().masked_fill(~packed.open, -1e9), dim=1)
            share = share.cumsum(1).numpy()
            still = []
            for row, (k, (places, _)) in enumerate(zip(going, found, strict=True)):
                pick = int(np.searchsorted(share[row, : len(places)], draws[k][step], "right"))
                place = places[min(pick, len(places) - 1)]
                if place < len(self.tables[groups[k]]):
                    taken[k].append(place)
                    still.append(k)
            going = still
        return [self._condition(group, places) for group, places in zip(groups, taken, strict=True)]

    def _draw_groups(self, n: int, seed: int, wanted: Sequence[int] | None) -> list[int]:
        known = np.array(self.vocabulary.space_groups)
        share = np.array(self.counts, dtype=float)
        # A group without any position of few enough atoms can have no crystal.
        share *= [min(p.multiplicity for _, p in self.tables[g]) <= self.max_atoms for g in known]
        if wanted is not None:
            strange = sorted(set(wanted) - set(self.vocabulary.space_groups))
            if strange:
                raise CrystalError(
                    f"space group {strange[0]} was not in the training data of the model"
                )
            share = np.where(np.isin(known, list(wanted)), share, 0.0)
        if not share.sum():
            raise CrystalError(f"no space group has a position of at most {self.max_atoms} atoms")
        ends = np.cumsum(share) / share.sum()
        draws = [stream(seed, k, "group").random() for k in range(n)]
        return [int(known[k]) for k in np.searchsorted(ends, draws, side="right")]

    def _condition(self, group: int, places: Sequence[int]) -> Condition:
        table = self.tables[group]
        return Condition(group, tuple((table[k][0], table[k][1].index) for k in places))


@dataclass(frozen=True, eq=False)
class Steps:
    """Choices of the autoregressive model; n choices among up to O options.

    Attributes
    ----------
    groups : (n,) place of the group in the vocabulary.
    options, open : (n, O) options as places among all positions, and which entries are options.
    features : (n, O, F).
    chosen : (n,) which option was taken.
    """

    groups: Tensor
    options: Tensor
    features: Tensor
    open: Tensor
    chosen: Tensor

    def pick(self, index: Tensor) -> Steps:
        """Choices with these indices."""
        return Steps(*(getattr(self, name)[index] for name in self.__dataclass_fields__))


_N_FEATURES = 13


@cache
def _options(group: int, species: tuple[str, ...]) -> tuple[tuple[str, WyckoffPosition], ...]:
    """Species and position of every kind of site, in the order of standard descriptions."""
    return tuple(
        (symbol, position)
        for symbol in sorted(species, key=lambda symbol: atomic_numbers[symbol])
        for position in reversed(wyckoff_positions(group))
    )


def train_conditions(
    conditions: Sequence[Condition],
    vocabulary: Vocabulary,
    max_atoms: int | None = None,
    epochs: int = 40,
    seed: int = 0,
) -> ConditionNetwork:
    """Fit the autoregressive model; deterministic for a given number of threads.

    Parameters
    ----------
    conditions : standard conditions, repeated as often as they count.
    vocabulary : Vocabulary
    max_atoms : int, optional
        By default the largest number of the conditions.
    epochs, seed : int
    """
    groups = Counter(condition.space_group for condition in conditions)
    if max_atoms is None:
        max_atoms = max(condition.n_atoms for condition in conditions)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = ConditionNetwork(
            vocabulary, max_atoms, [groups[g] for g in vocabulary.space_groups]
        )
    steps = network.steps(conditions)
    optimizer = torch.optim.AdamW(network.parameters(), lr=3e-3, weight_decay=1e-2)
    batch = 256
    per_epoch = -(-len(steps.chosen) // batch)
    if not epochs:
        return network.eval()
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=epochs * per_epoch)
    for epoch in range(epochs):
        order = torch.from_numpy(stream(seed, epoch, "order").permutation(len(steps.chosen)))
        for part in order.split(batch):
            optimizer.zero_grad()
            network.loss(steps.pick(part)).backward()
            optimizer.step()
            schedule.step()
    return network.eval()
