"""Coefficients, gradients and Jacobians of many pairs, by hand, for first derivatives.

Nothing here is recorded by autograd: `PowerSpectrum` wraps it. What makes it fast on a CPU:

* Arrays hold one contiguous row per component, for a few thousand pairs at a time, so that they
  stay in cache; they are written in place.
* Pairs stand in slots (`asexlatent.descriptor.slots`), so that every sum over neighbours or over m
  is a batched matrix product instead of gathers and scattered additions.
* The gradient of solid harmonics is made of solid harmonics: derivatives need no others.

Notation: ``x = v / rcut``, ``u = |x|^2``, ``Q_lm`` the unscaled harmonics of x, ``w`` the weight of
the neighbour, ``k = (channel, n)``; c_k,lm = scale_lm sum_p w_p h_nl(u_p) Q_lm(x_p).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from asexlatent.descriptor.chunk import Chunk, Memory, Motions
from asexlatent.descriptor.harmonics import (
    harmonic_scales,
    recurrence_factors,
    write_unscaled_harmonics,
)
from asexlatent.descriptor.slots import Slots
from asexlatent.descriptor.tables import BLOCK, groups, lift, signed_series

_PLACES_CPU, _PLACES_ELSEWHERE = 4096, 131072  # handled at a time


class PairKernel(torch.nn.Module):
    """Work on pairs; holds the tables.

    Parameters
    ----------
    rcut
        Å.
    table
        (nmax, lmax + 1, T) Chebyshev coefficients of h_nl in 2 u - 1.
    weights
        (channels, elements) weight of each element in each channel.
    factors
        (lmax + 1,) factors of the power spectrum.
    dtype, device
        Of everything.
    """

    def __init__(
        self,
        rcut: float,
        table: np.ndarray,
        weights: np.ndarray,
        factors: np.ndarray,
        dtype: torch.dtype,
        device: torch.device | str | None,
    ) -> None:
        super().__init__()
        self.rcut, self.lmax = rcut, table.shape[1] - 1
        self.n_channels = len(weights)
        self.n_radial = self.n_channels * table.shape[0]
        self.n_harmonics = (self.lmax + 1) ** 2
        self.groups = groups(self.lmax)
        self.n_components = self.n_radial * (self.n_radial + 1) // 2 * (self.lmax + 1)
        scales = harmonic_scales(self.lmax)
        degree = np.repeat(np.arange(self.lmax + 1), 2 * np.arange(self.lmax + 1) + 1)
        buffers = {
            "series": signed_series(table),
            "weights": weights,
            "scales": scales,
            "factors": factors[degree],
            "sum_over_m": factors * (degree[:, None] == np.arange(self.lmax + 1)),
        }
        for i, factor in enumerate(recurrence_factors(self.lmax)):
            buffers[f"recurrence{i}"] = factor
        for i, group in enumerate(self.groups):
            buffers[f"lift{i}"] = lift(group, self.lmax, scales) / rcut
        # Scratch is kept: memory fresh from the system costs as much as all the arithmetic.
        self._memory: Memory | None = None
        for name, value in buffers.items():
            tensor = torch.tensor(np.ascontiguousarray(value), dtype=dtype, device=device)
            self.register_buffer(name, tensor, persistent=False)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_memory": None}

    @property
    def recurrence(self) -> list[Tensor]:
        """Factors of the harmonics for l = 2 .. lmax."""
        return [getattr(self, f"recurrence{i}") for i in range(max(self.lmax - 1, 0))]

    @torch.no_grad()
    def spectra(self, vectors: Tensor, numbers: Tensor, slots: Slots) -> tuple[Tensor, Tensor]:
        """Power spectra (M, L) and coefficients c (M, K, (lmax + 1)**2).

        Parameters
        ----------
        vectors
            (P, 3) in Å.
        numbers
            (P,) long, atomic numbers of the neighbours.
        slots
            Of the pairs.
        """
        coefficients = vectors.new_zeros(len(slots.ends), self.n_radial, self.n_harmonics)
        spectra = vectors.new_zeros(len(slots.ends), self.n_components)
        for chunk in self._chunks(vectors, numbers, slots, slopes=False):
            total = self._sum(chunk)
            coefficients[chunk.centers] = total
            spectra[chunk.centers] = self.contract(total)
        return spectra, coefficients

    @torch.no_grad()
    def gradient(
        self, vectors: Tensor, numbers: Tensor, slots: Slots, coefficients: Tensor, seeds: Tensor
    ) -> Tensor:
        """Gradient (P, 3) of sum(seeds * spectra) for the vectors; seeds (M, L)."""
        result = vectors.new_empty(3, len(slots.source))
        for chunk in self._chunks(vectors, numbers, slots, slopes=True):
            inner = self._uncontract(coefficients[chunk.centers], seeds[chunk.centers])
            values, slopes = self._project(chunk, inner)
            radial, steepness = chunk.radial
            part = slopes.mul_(radial).sum((1, 2))
            along = values.mul_(steepness).sum((0, 1)).mul_(2.0)
            result[:, chunk.places] = part.addcmul_(along, chunk.vectors)
        return result.index_select(1, slots.place).T

    @torch.no_grad()
    def jacobian(
        self, vectors: Tensor, numbers: Tensor, slots: Slots, tangents: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Power spectra and their derivative.

        Parameters
        ----------
        vectors, numbers, slots
            The pairs.
        tangents
            (P, 3, V): derivative of the vectors for V parameters of their centres.

        Returns
        -------
        spectra
            (M, L).
        jacobian
            Without ``tangents`` (3, L, P), for the vectors; with them (M, L, V), for the
            parameters.
        """
        n_centers = len(slots.ends)
        spectra = vectors.new_zeros(n_centers, self.n_components)
        if tangents is None:
            jacobian = vectors.new_empty(3, self.n_components, len(vectors))
        else:
            jacobian = vectors.new_zeros(n_centers, self.n_components * tangents.shape[2])
        for chunk in self._chunks(vectors, numbers, slots, slopes=True):
            spectra[chunk.centers], part = self._derivative(chunk)
            if tangents is not None:
                moved = self._contract_tangents(chunk, part, tangents, slots)
                jacobian[chunk.centers].index_add_(0, chunk.owner, moved)
                continue
            pairs = slots.pairs(chunk.centers)
            places = slots.place[pairs] - chunk.places.start
            jacobian[:, :, pairs] = part.index_select(2, places)
        if tangents is not None:
            jacobian = jacobian.view(n_centers, self.n_components, -1)
        return spectra, jacobian

    @torch.no_grad()
    def motions(
        self, vectors: Tensor, numbers: Tensor, slots: Slots, pieces: Slots, maps: Tensor
    ) -> Iterator[Motions]:
        """Power spectra and what they change by when neighbours move, some centres at a time.

        Parameters
        ----------
        vectors, numbers, slots
            The pairs.
        pieces
            Slots of the same pairs for the sums in `Motions.own`.
        maps
            (P, 3, 3): Cartesian movement i of the neighbour for a unit of its coordinate x.
        """
        maps = maps.flatten(1)
        for chunk in self._chunks(vectors, numbers, slots, slopes=True):
            spectra, derivative = self._derivative(chunk)
            # one row for each pair: then the products below are few and their operands contiguous
            derivative = derivative.flatten(0, 1).T.contiguous()  # (p, 3 L)
            chunk.with_one[3].fill_(1.0)
            left = chunk.in_slots(chunk.with_one).permute(1, 0, 2)
            moments = torch.bmm(left, derivative.view(-1, chunk.width, derivative.shape[1]))
            common = moments.new_zeros(len(spectra), moments[0].numel())
            common.index_add_(0, chunk.owner, moments.flatten(1))
            common = common.view(len(spectra), 4, 3, -1)
            common[:, :3] *= self.rcut  # the vectors of a chunk are in units of it
            these = pieces.of(chunk.centers)
            places = slice(these.start * pieces.width, these.stop * pieces.width)
            pairs = pieces.source[places]
            left = maps.index_select(0, pairs) * pieces.real[places, None]
            left = left.view(-1, 3 * pieces.width, 3)
            rows = slots.place.index_select(0, pairs) - chunk.places.start
            right = derivative.index_select(0, rows).view(len(left), 3 * pieces.width, -1)
            own = torch.bmm(left.transpose(1, 2), right)
            yield Motions(chunk.centers, these, spectra, common, own)

    def contract(self, coefficients: Tensor) -> Tensor:
        """Power spectra (M, L) of coefficients (M, K, (lmax + 1)**2); autograd may record it."""
        rows = [coefficients[:, k : k + 1] * coefficients[:, : k + 1] for k in range(self.n_radial)]
        return (torch.cat(rows, 1) @ self.sum_over_m).flatten(1)

    def _uncontract(self, coefficients: Tensor, seeds: Tensor) -> Tensor:
        """Gradient (M, K, (lmax + 1)**2) of sum(seeds * spectra) for the coefficients."""
        seeds = seeds.view(len(seeds), -1, self.lmax + 1) @ self.sum_over_m.T
        result = torch.zeros_like(coefficients)
        row = 0
        for k in range(self.n_radial):
            for other in range(k + 1):
                result[:, k].addcmul_(seeds[:, row], coefficients[:, other])
                result[:, other].addcmul_(seeds[:, row], coefficients[:, k])
                row += 1
        return result

    def _chunks(
        self, vectors: Tensor, numbers: Tensor, slots: Slots, slopes: bool
    ) -> Iterator[Chunk]:
        """The chunks one after the other, in the same memory."""
        limit = _PLACES_CPU if vectors.device.type == "cpu" else _PLACES_ELSEWHERE
        width = slots.width
        parts = [part for part in slots.chunks(limit) if part[3] > part[2]]  # others stay zero
        if not parts:
            return
        most = max(last - first for _, _, first, last in parts) * width
        memory, self._memory = self._memory, None  # so that nobody else works in it meanwhile
        if memory is None or not memory.serves(most, vectors):
            memory = Memory.new(self, most, vectors)
        weights = self.weights[:, numbers]
        for center, stop, first, last in parts:
            places = slice(first * width, last * width)
            source = slots.source[places]
            chunk = Chunk(
                slice(center, stop),
                slots.center[first:last] - center,
                places,
                width,
                memory.part(last * width - first * width),
            )
            x = chunk.vectors
            torch.mul(vectors[source].T, 1.0 / self.rcut, out=x)
            square = torch.mul(x[0], x[0]).addcmul_(x[1], x[1]).addcmul_(x[2], x[2])
            weight = weights[:, source] * (slots.real[places] & (square < 1.0))
            self._write_radial(chunk, square, weight, slopes)
            write_unscaled_harmonics(
                chunk.angular, x, square, self.lmax, self.recurrence, chunk.spare
            )
            yield chunk
        self._memory = memory

    def _write_radial(self, chunk: Chunk, square: Tensor, weight: Tensor, slopes: bool) -> None:
        """w h_nl and, if asked for, w dh_nl/du."""
        table = chunk.polynomials
        double = square.clamp(max=1.0).mul_(4.0).sub_(2.0)  # 2 t
        table[0].fill_(1.0)
        torch.mul(double, 0.5, out=table[1])
        for k in range(2, 2 * BLOCK):
            torch.mul(double, table[k - 1], out=table[k]).sub_(table[k - 2])
        # T_n+b = 2 T_b T_n - T_n-b, with signs such that it is one fused operation a block
        factor, sign = 2.0 * table[BLOCK], -1.0
        for k in range(2 * BLOCK, len(table), BLOCK):
            last, before = table[k - BLOCK : k], table[k - 2 * BLOCK : k - BLOCK]
            torch.addcmul(before, factor, last, value=sign, out=table[k : k + BLOCK])
            sign = -sign
        kinds = 2 if slopes else 1
        rows = self.series[: kinds * len(self.series) // 2]
        values = (rows @ table).view(kinds, 1, -1, self.lmax + 1, len(square))
        target = chunk.radial[:kinds].view(kinds, self.n_channels, -1, *values.shape[3:])
        torch.mul(values, weight[:, None, None], out=target)

    def _sum(self, chunk: Chunk) -> Tensor:
        """Coefficients (centres of the chunk, K, (lmax + 1)**2)."""
        radial, angular = chunk.in_slots(chunk.radial[0]), chunk.in_slots(chunk.angular)
        parts = []
        for degree in range(self.lmax + 1):
            left = radial[:, degree].permute(1, 0, 2)
            right = angular[degree**2 : (degree + 1) ** 2].permute(1, 2, 0)
            parts.append(torch.bmm(left, right))
        slots = torch.cat(parts, -1).flatten(1)
        count = chunk.centers.stop - chunk.centers.start
        total = slots.new_zeros(count, slots.shape[1]).index_add_(0, chunk.owner, slots)
        return total.view(count, self.n_radial, -1).mul_(self.scales)

    def _project(self, chunk: Chunk, seeds: Tensor) -> tuple[Tensor, Tensor]:
        """Sums over m with given numbers for the centres, divided by rcut.

        Parameters
        ----------
        chunk
        seeds
            s (centres of the chunk, K, (lmax + 1)**2).

        Returns
        -------
        values
            (K, lmax + 1, p): sum_m s_k,lm R_lm / rcut for the centre of each place.
        slopes
            (3, K, lmax + 1, p): its gradient for x.
        """
        values, slopes = chunk.in_slots(chunk.values), chunk.in_slots(chunk.slopes)
        angular = chunk.in_slots(chunk.angular)
        slopes[:, :, 0].zero_()
        for i, group in enumerate(self.groups):
            inputs = seeds[..., group.inputs].reshape(-1, group.inputs.stop - group.inputs.start)
            lift = getattr(self, f"lift{i}")
            width = group.harmonics.stop - group.harmonics.start
            matrices = (inputs @ lift).view(len(seeds), -1, width)
            right = angular[group.harmonics].permute(1, 0, 2)
            sums = torch.bmm(matrices.index_select(0, chunk.owner), right)
            sums = sums.view(len(sums), self.n_radial, -1, chunk.width)
            count = group.last - group.first
            values[:, group.first : group.last] = sums[:, :, :count].permute(1, 2, 0, 3)
            if group.upper > group.first:
                gradient = sums[:, :, count:].unflatten(2, (3, -1)).permute(2, 1, 3, 0, 4)
                slopes[:, :, group.first + 1 : group.upper + 1] = gradient
        return chunk.values, chunk.slopes

    def _derivative(self, chunk: Chunk) -> tuple[Tensor, Tensor]:
        """Power spectra (centres of the chunk, L), and `_pair_derivative`."""
        total = self._sum(chunk)
        part = self._pair_derivative(chunk, *self._project(chunk, total * self.factors))
        return self.contract(total), part

    def _pair_derivative(self, chunk: Chunk, values: Tensor, slopes: Tensor) -> Tensor:
        """(3, L, p): derivative of the power spectrum of the centre of each place for its vector.

        For k > k', h_k ∇A_k' + h_k' ∇A_k + 2 x (h'_k A_k' + h'_k' A_k) with A, ∇A the projections
        of the factored coefficients.
        """
        radial, steepness = chunk.radial
        twice = (2.0 * chunk.vectors)[:, None]
        degrees, row = self.lmax + 1, 0
        along = torch.empty_like(radial[0])
        for k in range(self.n_radial):
            double = 2.0 * radial[k]
            for other in range(k + 1):
                part = chunk.derivative[:, row : row + degrees]
                torch.mul(steepness[k], values[other], out=along)
                if other == k:
                    along.mul_(2.0)
                    torch.mul(double, slopes[:, k], out=part)
                else:
                    along.addcmul_(steepness[other], values[k])
                    torch.mul(radial[k], slopes[:, other], out=part)
                    part.addcmul_(radial[other], slopes[:, k])
                part.addcmul_(along, twice)
                row += degrees
        return chunk.derivative

    def _contract_tangents(
        self, chunk: Chunk, part: Tensor, tangents: Tensor, slots: Slots
    ) -> Tensor:
        """(S, L * V): derivative of the spectra for the parameters, one row for each slot."""
        moves = tangents[slots.source[chunk.places]].unflatten(0, (-1, chunk.width))
        left = chunk.in_slots(part)
        total = torch.bmm(left[0].permute(1, 0, 2), moves[:, :, 0])
        for axis in (1, 2):
            total.baddbmm_(left[axis].permute(1, 0, 2), moves[:, :, axis])
        return total.flatten(1)
