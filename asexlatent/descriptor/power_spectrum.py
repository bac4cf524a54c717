"""SO(3) power spectra of many centres at once, from flat lists of neighbour pairs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from asexlatent.descriptor.harmonics import gradient_matrices, solid_harmonics
from asexlatent.descriptor.radial import CUTOFFS, chebyshev_table

WEIGHTINGS = ("Z", "unit", "species")
_TOLERANCE = {torch.float64: 1e-13, torch.float32: 1e-8}
_MAX_NUMBER = 120  # atomic numbers are below this


class PowerSpectrum(torch.nn.Module):
    """Power spectrum of the neighbour density around every centre.

    Each neighbour at ``v`` adds a Gaussian ``exp(-alpha |x - v|^2)`` of weight ``w fc(|v|)`` to the
    density of its centre. The density is expanded in ``nmax`` orthonormal radial functions and real
    spherical harmonics up to ``lmax``, and the power spectrum is

        P[k, k', l] = 2 sqrt(2) pi / sqrt(2 l + 1) * sum_m c[k, lm] c[k', lm],   k >= k'

    where ``k = (channel, n)`` with the channel outermost (one channel, ``k = n``, unless
    ``weighting="species"``). Components run over ``k``, then ``k' <= k``, then ``l`` fastest: nmax
    2, lmax 4 gives the 15 numbers (1,1,0..4), (2,1,0..4), (2,2,0..4). Formulas:
    ``docs/descriptor.md``.

    Parameters
    ----------
    nmax
        Number of radial functions, 1 or more.
    lmax
        Highest degree of the harmonics, 0 or more.
    rcut
        Cutoff in Å. Pairs at ``rcut`` or beyond contribute exactly nothing, so a list made with a
        skin may be used.
    alpha
        Exponent of the Gaussians in 1/Å^2.
    weighting
        "Z": weight is the neighbour's atomic number; "unit": 1; "species": as "Z", with the density
        of each of ``species`` kept apart as a channel (the coefficients of all channels add up to
        those of "Z").
    cutoff
        "cosine" (cos(pi r / rcut) + 1) / 2 or "polynomial" (1 - (r / rcut)^2)^3.
    species
        Chemical symbols or atomic numbers of the channels, in order; needed for, and only for,
        "species".
    dtype, device
        Of the tables and of the result; vectors must have the same. float64 and float32.

    Raises
    ------
    ValueError
        For settings that make no sense.
    """

    def __init__(
        self,
        nmax: int = 2,
        lmax: int = 4,
        rcut: float = 2.1,
        alpha: float = 1.5,
        weighting: str = "Z",
        cutoff: str = "cosine",
        species: Sequence[str | int] | None = None,
        dtype: torch.dtype = torch.float64,
        device: torch.device | str | None = None,
    ) -> None:
        super().__init__()
        self.nmax, self.lmax = int(nmax), int(lmax)
        self.rcut, self.alpha = float(rcut), float(alpha)
        self.weighting, self.cutoff = weighting, cutoff
        self.species = None if species is None else tuple(_atomic_number(s) for s in species)
        self._check(dtype)
        self.n_channels = len(self.species) if self.species else 1
        self.n_radial = self.n_channels * self.nmax
        table = chebyshev_table(
            self.nmax, self.lmax, self.rcut, self.alpha, cutoff, _TOLERANCE[dtype]
        )
        rows, columns = np.tril_indices(self.n_radial)
        factors = 2.0 * np.sqrt(2.0) * np.pi / np.sqrt(2.0 * np.arange(self.lmax + 1) + 1.0)
        degree = np.repeat(np.arange(self.lmax + 1), 2 * np.arange(self.lmax + 1) + 1)
        self._buffer("series", table.reshape(-1, table.shape[-1]), dtype, device)
        slopes = np.polynomial.chebyshev.chebder(table, axis=-1) * 2.0  # d/du = 2 d/dt
        self._buffer("slopes", slopes.reshape(-1, slopes.shape[-1]), dtype, device)
        self._buffer("factors", factors, dtype, device)
        self._buffer("degree", degree, torch.long, device)
        sums = np.arange(self.lmax + 1)[:, None] == degree
        self._buffer("sum_over_m", sums.astype(float), dtype, device)
        self._buffer("gradients", gradient_matrices(self.lmax), dtype, device)
        self._buffer("rows", rows, torch.long, device)
        self._buffer("columns", columns, torch.long, device)
        self._buffer("weights", self._weight_table(), dtype, device)

    def _check(self, dtype: torch.dtype) -> None:
        if self.nmax < 1 or self.lmax < 0:
            raise ValueError(
                f"nmax {self.nmax}, lmax {self.lmax}: nmax must be 1 or more, lmax 0 or more"
            )
        if not (0 < self.rcut < np.inf and 0 < self.alpha < np.inf):
            raise ValueError(f"rcut {self.rcut} Å and alpha {self.alpha} 1/Å^2 must be positive")
        if self.weighting not in WEIGHTINGS:
            raise ValueError(
                f"unknown weighting {self.weighting!r}; choose one of {', '.join(WEIGHTINGS)}"
            )
        if self.cutoff not in CUTOFFS:
            raise ValueError(f"unknown cutoff {self.cutoff!r}; choose one of {', '.join(CUTOFFS)}")
        if (self.weighting == "species") != bool(self.species):
            raise ValueError('give species=[...] with weighting="species", and only then')
        if self.species and len(set(self.species)) != len(self.species):
            raise ValueError("species holds the same element twice")
        if dtype not in _TOLERANCE:
            raise ValueError(f"dtype {dtype} is not supported; use torch.float64 or torch.float32")

    def _buffer(self, name: str, value: np.ndarray, dtype: torch.dtype, device: Any) -> None:
        tensor = torch.tensor(np.ascontiguousarray(value), dtype=dtype, device=device)
        self.register_buffer("_" + name, tensor, persistent=False)

    def _weight_table(self) -> np.ndarray:
        """(channels, 120): weight of an element in each channel."""
        table = np.zeros((self.n_channels, _MAX_NUMBER))
        if self.weighting == "species":
            table[np.arange(self.n_channels), list(self.species)] = self.species
        else:
            table[0] = np.arange(_MAX_NUMBER) if self.weighting == "Z" else 1.0
        return table

    @property
    def n_components(self) -> int:
        """Numbers per centre: k (k + 1) / 2 * (lmax + 1) with k = channels * nmax."""
        return self.n_radial * (self.n_radial + 1) // 2 * (self.lmax + 1)

    def settings(self) -> dict[str, Any]:
        """JSON-able settings, ``PowerSpectrum(**settings)``, without dtype and device."""
        from ase.data import chemical_symbols

        symbols = None if self.species is None else [chemical_symbols[z] for z in self.species]
        return {
            "nmax": self.nmax,
            "lmax": self.lmax,
            "rcut": self.rcut,
            "alpha": self.alpha,
            "weighting": self.weighting,
            "cutoff": self.cutoff,
            "species": symbols,
        }

    def extra_repr(self) -> str:
        """What ``print`` shows."""
        return ", ".join(f"{key}={value!r}" for key, value in self.settings().items())

    def forward(self, vectors: Tensor, centers: Tensor, numbers: Tensor, n_centers: int) -> Tensor:
        """Power spectra.

        Parameters
        ----------
        vectors
            (P, 3) from centre to neighbour, in Å.
        centers
            (P,) long, which centre (0 .. n_centers - 1) the pair belongs to; any order.
        numbers
            (P,) long, atomic number of the neighbour.
        n_centers
            Number of centres. A centre without pairs has the zero spectrum.

        Returns
        -------
        Tensor
            (n_centers, n_components).
        """
        coefficients = self.coefficients(vectors, centers, numbers, n_centers)
        return self._contract(coefficients.reshape(n_centers, self.n_radial, -1))

    def coefficients(
        self, vectors: Tensor, centers: Tensor, numbers: Tensor, n_centers: int
    ) -> Tensor:
        """Expansion coefficients c of the density, in real spherical harmonics.

        Parameters as in `forward`.

        Returns
        -------
        Tensor
            (n_centers, nmax, (lmax + 1)**2), (l, m) at l * l + l + m; with ``weighting="species"``
            (n_centers, channels, nmax, (lmax + 1)**2).
        """
        scaled, square = self._scaled(vectors)
        angular = solid_harmonics(scaled, self.lmax)
        radial = self._radial(square, numbers, self._series)
        products = radial[:, self._degree] * angular
        total = products.new_zeros(n_centers, self.n_radial * len(self._degree))
        total = total.index_add(0, centers, products.reshape(total.shape[1], -1).T)
        shape = (self.nmax, len(self._degree))
        return total.reshape(n_centers, *((self.n_channels,) if self.species else ()), *shape)

    def with_pair_jacobian(
        self, vectors: Tensor, centers: Tensor, numbers: Tensor, n_centers: int
    ) -> tuple[Tensor, Tensor]:
        """Power spectra and, analytically, the derivative of each spectrum for each of its pairs.

        Parameters as in `forward`. Nothing is recorded for autograd.

        Returns
        -------
        spectra
            (n_centers, n_components).
        jacobian
            (P, n_components, 3), d spectra[centers[p]] / d vectors[p], in 1/Å times the unit of the
            spectra.
        """
        with torch.no_grad():
            return self._spectra_and_jacobian(vectors, centers, numbers, n_centers)

    def _spectra_and_jacobian(
        self, vectors: Tensor, centers: Tensor, numbers: Tensor, n_centers: int
    ) -> tuple[Tensor, Tensor]:
        scaled, square = self._scaled(vectors)
        angular = solid_harmonics(scaled, self.lmax)
        radial = self._radial(square, numbers, self._series)  # h
        slope = self._radial(square, numbers, self._slopes)  # dh/du
        products = (radial[:, self._degree] * angular).reshape(-1, len(centers))
        total = products.new_zeros(n_centers, len(products)).index_add(0, centers, products.T)
        total = total.reshape(n_centers, self.n_radial, -1)
        # sum_m c_k,lm R_lm and its gradient, for the centre of each pair
        own = total.permute(1, 2, 0)[..., centers]
        value = torch.einsum("la,kap->klp", self._sum_over_m, own * angular)
        lowered = torch.einsum("xab,ika->xkbi", self._gradients, total)[..., centers]
        lower = angular[: self.lmax**2]
        gradient = torch.einsum(
            "la,xkap->xklp", self._sum_over_m[:-1, : self.lmax**2], lowered * lower
        )
        gradient = torch.nn.functional.pad(gradient, (0, 0, 1, 0))
        factors = self._factors[:, None] / self.rcut
        jacobian = []
        for axis in range(3):
            one = (factors * radial)[:, None] * gradient[axis]
            one = one + (factors * slope)[:, None] * (2.0 * scaled[axis]) * value  # [k, k', l, p]
            jacobian.append(
                (one[self._rows, self._columns] + one[self._columns, self._rows]).flatten(0, 1)
            )
        return self._contract(total), torch.stack(jacobian).permute(2, 1, 0)

    def _scaled(self, vectors: Tensor) -> tuple[Tensor, Tensor]:
        """Vectors over rcut as contiguous rows (3, P), and their squares (P,)."""
        scaled = (vectors.T * (1.0 / self.rcut)).contiguous()
        return scaled, (scaled * scaled).sum(0)

    def _radial(self, square: Tensor, numbers: Tensor, series: Tensor) -> Tensor:
        """Weighted radial functions, (n_radial, lmax + 1, P); zero from the cutoff on."""
        polynomials = chebyshev_polynomials(2.0 * square.clamp(max=1.0) - 1.0, series.shape[1])
        values = series @ polynomials
        weights = self._weights[:, numbers] * (square < 1.0)
        return (weights[:, None] * values).reshape(self.n_radial, self.lmax + 1, -1)

    def _contract(self, coefficients: Tensor) -> Tensor:
        """Power spectra (M, n_components) of coefficients (M, n_radial, (lmax + 1)**2)."""
        products = coefficients[:, self._rows] * coefficients[:, self._columns]
        return ((products @ self._sum_over_m.T) * self._factors).flatten(1)


def chebyshev_polynomials(t: Tensor, count: int) -> Tensor:
    """T_0 .. T_(count - 1) of ``t`` (P,), as (count, P); by doubling, so in few operations."""
    table = torch.stack((torch.ones_like(t), t))
    while len(table) < count:
        # T_(n + k) = 2 T_n T_k - T_(n - k) for k = 1 .. n
        table = torch.cat((table, 2.0 * table[-1] * table[1:] - table[:-1].flip(0)))
    return table[:count]


def _atomic_number(species: str | int) -> int:
    from ase.data import atomic_numbers

    if isinstance(species, str):
        if species not in atomic_numbers:
            raise ValueError(f"{species!r} is not a chemical symbol")
        return atomic_numbers[species]
    if not 0 < int(species) < _MAX_NUMBER:
        raise ValueError(f"{species} is not an atomic number")
    return int(species)
