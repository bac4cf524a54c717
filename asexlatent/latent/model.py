"""Trained models as a user meets them: conditions in, crystals out, and back to z."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from asexlatent.latent.columns import (
    FreeVariableMap,
    from_columns,
)
from asexlatent.latent.condition_model import ConditionNetwork, EmpiricalConditions
from asexlatent.latent.conditions import Condition, Vocabulary
from asexlatent.latent.cvae import ConditionalVAE
from asexlatent.latent.dataset import Dataset
from asexlatent.latent.features import condition_vectors
from asexlatent.latent.networks import Rows
from asexlatent.latent.standard import standard_form
from asexlatent.latent.streams import stream
from asexlatent.latent.tabular_vae import TabularVAE
from asexlatent.latent.transform import MixtureTransform
from asexlatent.symmetry import CrystalError, SymmetricCrystal

_CHUNK = 2048  # samples decoded at a time


class PreparedConditions(NamedTuple):
    """What decoding needs of a list of conditions, worked out once; B crystals.

    Attributes
    ----------
    conditions : tuple of Condition, as asked for.
    embedded : (B, embedding) condition embeddings e_c.
    variables : maps to their free variables.
    """

    conditions: tuple[Condition, ...]
    embedded: Tensor
    variables: FreeVariableMap


@dataclass(eq=False)
class LatentModel:
    """A trained autoencoder with all that is needed to use it.

    Attributes
    ----------
    network : ConditionalVAE or TabularVAE
    transform : MixtureTransform
        Of the continuous columns.
    vocabulary : Vocabulary
        Elements, groups and number of sites that it was trained on.
    empirical : EmpiricalConditions
        Conditions of the training set, standard ones.
    proposer : ConditionNetwork or None
        Model that proposes new conditions.
    info : dict
        Provenance: settings, data hash, figures of the training. JSON can hold it.
    """

    network: ConditionalVAE | TabularVAE
    transform: MixtureTransform
    vocabulary: Vocabulary
    empirical: EmpiricalConditions
    proposer: ConditionNetwork | None = None
    info: dict[str, Any] = field(default_factory=dict)

    @property
    def is_conditional(self) -> bool:
        """Whether it is a conditional model; the tabular baseline is not."""
        return isinstance(self.network, ConditionalVAE)

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        return next(self.network.parameters()).device

    # ------------------------------------------------------------------ crystals in

    def rows(self, data: Dataset) -> Rows:
        """Tensors of a data set as the network takes them, on its device."""
        self.vocabulary.check(data.conditions)
        return transformed(data, self.transform, self.vocabulary).to(self.device)

    def problem(self, crystal: SymmetricCrystal) -> str | None:
        """Why the model cannot take a crystal; None if it can."""
        return self.vocabulary.problem(Condition.from_crystal(crystal))

    @torch.no_grad()
    def encode(self, crystals: Sequence[SymmetricCrystal]) -> tuple[Tensor, Tensor]:
        """Mean and log variance of q(z | crystal), each (B, latent).

        The description of a crystal does not matter: it is brought to the standard one.

        Raises
        ------
        CrystalError
            A crystal is outside the vocabulary (see `problem`).
        """
        if not crystals:
            empty = torch.zeros((0, self.network.settings.latent), device=self.device)
            return empty, empty.clone()
        self.vocabulary.check([Condition.from_crystal(crystal) for crystal in crystals])
        data = Dataset.from_candidates(crystals, max_sites=self.vocabulary.max_sites)
        return self.network.encode(self.rows(data))

    # ------------------------------------------------------------------ crystals out

    def prepare(self, conditions: Sequence[Condition]) -> PreparedConditions:
        """Work out what decoding under these conditions needs.

        Raises
        ------
        CrystalError
            A condition is outside the vocabulary, or the model is not conditional.
        """
        if not isinstance(self.network, ConditionalVAE):
            raise CrystalError("this is an unconditional model: it decodes under no condition")
        self.vocabulary.check(conditions)
        like = next(self.network.parameters())
        vectors = condition_vectors(
            self.vocabulary, [standard_form(condition).condition for condition in conditions]
        )
        with torch.no_grad():
            embedded = self.network.embed(vectors.to(like))
        return PreparedConditions(
            tuple(conditions), embedded, FreeVariableMap.of(conditions).to(like.device)
        )

    def decode_free_variables(
        self,
        z: Tensor,
        conditions: Sequence[Condition] | PreparedConditions,
        mode: str = "straight_through",
    ) -> Tensor:
        """Decode to the free variables R of the method, differentiable in z.

        Parameters
        ----------
        z : Tensor, shape (B, latent)
            One for each condition.
        conditions : sequence of Condition, or what `prepare` returned
            In any description; prepare them once when decoding again and again.
        mode : str
            How mixture components become values, see `MixtureTransform.values`.

        Returns
        -------
        Tensor, shape (V,), float64
            Å, radians and fractions, crystal after crystal, in the order of
            `CrystalBatch.variables` for crystals of these conditions.
        """
        if not isinstance(conditions, PreparedConditions):
            conditions = self.prepare(conditions)
        z = z.to(conditions.embedded)
        logits, residuals = self.network.decode(z, conditions.embedded)
        columns = self.transform.values(logits.double(), residuals.double(), mode)
        return conditions.variables(columns)

    @torch.no_grad()
    def decode(
        self, z: Tensor, conditions: Sequence[Condition]
    ) -> list[SymmetricCrystal | CrystalError]:
        """Crystals decoded from z (B, latent), the most probable component of each column."""
        free = self.decode_free_variables(z, conditions, "hard").cpu().numpy()
        ends = np.cumsum([condition.n_free for condition in conditions])
        return [
            _attempt(condition, values)
            for condition, values in zip(conditions, np.split(free, ends[:-1]), strict=True)
        ]

    def sample(
        self,
        conditions: Sequence[Condition] | None = None,
        n: int | None = None,
        seed: int = 0,
        temperature: float = 1.0,
        first: int = 0,
        **options: Any,
    ) -> list[SymmetricCrystal | CrystalError]:
        """Draw crystals: z from the prior, columns from what the decoder says of them.

        Sample k depends on (seed, k) and its condition only.

        Parameters
        ----------
        conditions : sequence of Condition, optional
            Taken in turn, in any description. By default those of `sample_conditions`.
        n : int, optional
            Number of crystals; by default one for each condition.
        seed : int, 0 or more
        temperature : float
            Of the columns, given z: 1 draws mixture components and residuals as the decoder gives
            them, 0 takes the most probable component and the mean of its residual.
        first : int
            Number of the first sample, for drawing many of them piece by piece.
        **options
            Of `sample_conditions` (space_groups, source), where there are no conditions.

        Returns
        -------
        list of SymmetricCrystal or CrystalError
            The error stands for a sample that is no crystal, or a condition that the model does
            not know, and says why.
        """
        if n is None:
            if conditions is None:
                raise ValueError("say how many crystals: n=...")
            n = len(conditions)
        if n and conditions is not None and not conditions:
            raise ValueError("there is no condition to draw crystals under")
        if not isinstance(self.network, ConditionalVAE):
            if conditions is not None:
                raise CrystalError("this is an unconditional model: it samples without conditions")
            return self._sample_tabular(n, seed, temperature, first, **options)
        if conditions is None:
            conditions = self.sample_conditions(first + n, seed, **options)
        numbers = range(first, first + n)
        made: list[SymmetricCrystal | CrystalError] = []
        for start in range(0, n, _CHUNK):
            part = numbers[start : start + _CHUNK]
            wanted = [conditions[k % len(conditions)] for k in part]
            made += self._sample_chunk(wanted, part[0], seed, temperature)
        return made

    def sample_conditions(
        self,
        n: int,
        seed: int = 0,
        source: str = "proposed",
        space_groups: Sequence[int] | None = None,
    ) -> list[Condition]:
        """Draw conditions.

        Parameters
        ----------
        source : str
            "proposed": new ones too, from the autoregressive model; "training": those of the
            training set, in proportion to their numbers.
        space_groups : sequence of int, optional
            Only these.
        """
        if source not in ("proposed", "training"):
            raise ValueError(f"source must be 'proposed' or 'training', not {source!r}")
        if source == "proposed" and self.proposer is not None:
            return self.proposer.sample(n, seed, space_groups)
        return self.empirical.restricted(space_groups).sample(n, seed)

    def _sample_chunk(
        self, conditions: Sequence[Condition], first: int, seed: int, temperature: float
    ) -> list[SymmetricCrystal | CrystalError]:
        problems = [self.vocabulary.problem(condition) for condition in conditions]
        made: list[SymmetricCrystal | CrystalError] = [
            CrystalError(problem or "") for problem in problems
        ]
        good = [k for k, problem in enumerate(problems) if problem is None]
        if not good:
            return made
        noise = Noise.draw([first + k for k in good], seed, self)
        prepared = self.prepare([conditions[k] for k in good])
        with torch.no_grad():
            logits, residuals = self.network.decode(
                noise.z.to(prepared.embedded), prepared.embedded
            )
            columns = torch.as_tensor(self._columns(logits, residuals, noise, temperature))
            free = prepared.variables(columns.to(prepared.embedded.device)).cpu().numpy()
        ends = np.cumsum([condition.n_free for condition in prepared.conditions])
        for k, values in zip(good, np.split(free, ends[:-1]), strict=True):
            made[k] = _attempt(conditions[k], values)
        return made

    def _columns(
        self, logits: Tensor, residuals: Tensor, noise: Noise, temperature: float
    ) -> NDArray[np.float64]:
        """Columns (n, C): a component drawn from its probabilities, its residual with noise."""
        if temperature:
            share = torch.softmax(logits.double() / temperature, dim=2).cumsum(dim=2).cpu().numpy()
            component = (noise.component[..., None] > share[..., :-1]).sum(axis=2)
        else:
            component = logits.argmax(dim=2).cpu().numpy()
        mean = residuals.double().cpu().numpy()
        mean = np.take_along_axis(mean, component[..., None], axis=2)[..., 0]
        scale = self.network.head.scale().detach().double().cpu().numpy()
        return self.transform.inverse(component, mean + temperature * scale * noise.residual)

    def _sample_tabular(
        self, n: int, seed: int, temperature: float, first: int = 0
    ) -> list[SymmetricCrystal | CrystalError]:
        made: list[SymmetricCrystal | CrystalError] = []
        for start in range(first, first + n, _CHUNK):
            index = range(start, min(start + _CHUNK, first + n))
            noise = Noise.draw(index, seed, self)
            with torch.no_grad():
                decoded = self.network.decode(noise.z.to(self.device))
            columns = self._columns(decoded.logits, decoded.residuals, noise, temperature)
            for choice, row in zip(self.network.choices(decoded), columns, strict=True):
                try:
                    condition, slots = self.network.condition(choice)
                    made.append(from_columns(condition, _slots(row, slots)))
                except CrystalError as error:
                    made.append(error)
        return made


@dataclass(frozen=True, eq=False)
class Noise:
    """Random numbers of n samples with C columns.

    Attributes
    ----------
    z : (n, latent) standard normal.
    component : (n, C) uniform.
    residual : (n, C) standard normal.
    """

    z: Tensor
    component: NDArray[np.float64]
    residual: NDArray[np.float64]

    @classmethod
    def draw(cls, index: Sequence[int], seed: int, model: LatentModel) -> Noise:
        """Draw for the samples with these numbers."""
        latent, columns = model.network.settings.latent, len(model.transform.columns)
        streams = [stream(seed, k, "crystals") for k in index]
        z = np.array([generator.standard_normal(latent) for generator in streams])
        component = np.array([generator.random(columns) for generator in streams])
        residual = np.array([generator.standard_normal(columns) for generator in streams])
        return cls(torch.as_tensor(z, dtype=torch.float32), component, residual)


def transformed(data: Dataset, transform: MixtureTransform, vocabulary: Vocabulary) -> Rows:
    """Tensors of a data set of n crystals under a transform; see `Rows` for their shapes."""
    component, residual = transform.forward(data.values)
    return Rows(
        condition_vectors(vocabulary, data.conditions),
        torch.as_tensor(np.where(data.mask, component, 0)),
        torch.as_tensor(np.where(data.mask, residual, 0.0), dtype=torch.float32),
        torch.as_tensor(data.mask),
    )


def _attempt(condition: Condition, values: NDArray) -> SymmetricCrystal | CrystalError:
    try:
        return condition.crystal(values)
    except CrystalError as error:
        return error


def _slots(row: NDArray[np.float64], slots: Sequence[int]) -> NDArray[np.float64]:
    """Columns with the used slots moved to the front."""
    cell, sites = row[:6], row[6:].reshape(-1, 3)
    rest = [k for k in range(len(sites)) if k not in slots]
    return np.concatenate([cell, sites[[*slots, *rest]].ravel()])
