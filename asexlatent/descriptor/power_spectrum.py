"""SO(3) power spectra of many centres at once, from flat lists of neighbour pairs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from asexlatent.descriptor.chunk import Motions
from asexlatent.descriptor.harmonics import unscaled_harmonics
from asexlatent.descriptor.kernel import PairKernel
from asexlatent.descriptor.radial import CUTOFFS, chebyshev_table
from asexlatent.descriptor.slots import Slots, make_slots

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
        factors = 2.0 * np.sqrt(2.0) * np.pi / np.sqrt(2.0 * np.arange(self.lmax + 1) + 1.0)
        degree = np.repeat(np.arange(self.lmax + 1), 2 * np.arange(self.lmax + 1) + 1)
        self._kernel = PairKernel(self.rcut, table, self._weight_table(), factors, dtype, device)
        self._buffer("series", table.reshape(-1, table.shape[-1]), dtype, device)
        self._buffer("degree", degree, torch.long, device)

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
        self._check_numbers(numbers)
        if _by_hand(vectors):
            slots = make_slots(centers, n_centers)
            return _Spectra.apply(vectors, self, centers, numbers, slots)
        return self._kernel.contract(self._plain(vectors, centers, numbers, n_centers))

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
        self._check_numbers(numbers)
        total = self._plain(vectors, centers, numbers, n_centers)
        channels = (self.n_channels,) if self.species else ()
        return total.reshape(n_centers, *channels, self.nmax, -1)

    def with_pair_jacobian(
        self, vectors: Tensor, centers: Tensor, numbers: Tensor, n_centers: int
    ) -> tuple[Tensor, Tensor]:
        """Power spectra and, analytically, the derivative of each spectrum for each of its pairs.

        Parameters as in `forward`. Nothing is recorded for autograd. Where the pairs depend on a
        few parameters each, `with_parameter_jacobian` needs much less memory and time.

        Returns
        -------
        spectra
            (n_centers, n_components).
        jacobian
            (P, n_components, 3), d spectra[centers[p]] / d vectors[p], in 1/Å times the unit of the
            spectra. A view of a contiguous (3, n_components, P).
        """
        self._check_numbers(numbers)
        slots = make_slots(centers, n_centers)
        spectra, jacobian = self._kernel.jacobian(vectors.detach(), numbers, slots)
        return spectra, jacobian.permute(2, 1, 0)

    def with_parameter_jacobian(
        self,
        vectors: Tensor,
        centers: Tensor,
        numbers: Tensor,
        n_centers: int,
        tangents: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Power spectra and their derivative for parameters that move the neighbours.

        This is what Gauss-Newton or Levenberg-Marquardt needs: the Jacobian of every centre for the
        free variables of its crystal, without an array of pairs times components.

        Parameters
        ----------
        vectors, centers, numbers, n_centers
            As in `forward`.
        tangents
            (P, 3, V): d vectors[p] / d parameter, V parameters for the centre of each pair; which
            parameter column v stands for may differ from centre to centre. Pad with zeros.

        Returns
        -------
        spectra
            (n_centers, n_components).
        jacobian
            (n_centers, n_components, V), d spectra / d parameter.
        """
        self._check_numbers(numbers)
        slots = make_slots(centers, n_centers)
        return self._kernel.jacobian(vectors.detach(), numbers, slots, tangents.detach())

    def motions(
        self, vectors: Tensor, numbers: Tensor, slots: Slots, pieces: Slots, maps: Tensor
    ) -> Iterator[Motions]:
        """Power spectra and all that their derivatives for free variables are made of.

        Faster than `with_parameter_jacobian` where the parameters are a strain, the position of the
        centre and coordinates of the neighbours; nothing grows with the number of parameters. Some
        centres at a time, so that what is made of it stays in cache, too. Centres without pairs may
        be left out: their spectra and derivatives are zero.

        Parameters
        ----------
        vectors, numbers
            As in `forward`, sorted by centre.
        slots
            ``make_slots(centers, n_centers)``.
        pieces
            ``make_slots(centers, n_centers, kind=...)``: neighbours that have no coordinates in
            common must be of different kinds.
        maps
            (P, 3, 3): movement of the neighbour in Å along i for a unit of its coordinate x, at
            [:, i, x].

        Neighbours of a species without a channel count as nothing: look before the first step.
        """
        return self._kernel.motions(vectors.detach(), numbers, slots, pieces, maps.detach())

    def _plain(self, vectors: Tensor, centers: Tensor, numbers: Tensor, n_centers: int) -> Tensor:
        """Coefficients (n_centers, n_radial, (lmax + 1)**2) in operations that autograd records."""
        kernel = self._kernel
        scaled = (vectors.T * (1.0 / self.rcut)).contiguous()
        square = (scaled * scaled).sum(0)
        angular = unscaled_harmonics(scaled, square, self.lmax, kernel.recurrence)
        polynomials = chebyshev_polynomials(
            2.0 * square.clamp(max=1.0) - 1.0, self._series.shape[1]
        )
        weights = kernel.weights[:, numbers] * (square < 1.0)
        radial = weights[:, None] * (self._series @ polynomials)
        radial = radial.reshape(self.n_radial, self.lmax + 1, -1)
        products = (radial[:, self._degree] * angular).flatten(0, 1)
        # Summed along the last axis: a transposed source is miscompiled by torch.compile on CPUs
        # up to torch 2.13 (pytorch issue 191837, writes out of bounds).
        total = products.new_zeros(len(products), n_centers).index_add(1, centers, products)
        return total.T.reshape(n_centers, self.n_radial, -1) * kernel.scales

    def _check_numbers(self, numbers: Tensor) -> None:
        """Refuse neighbours that belong to no channel (on a CPU, where looking costs nothing)."""
        if self.species is None or torch.compiler.is_compiling() or numbers.device.type != "cpu":
            return
        foreign = sorted(set(torch.unique(numbers).tolist()) - set(self.species))
        if foreign:
            from ase.data import chemical_symbols

            raise ValueError(
                f"a neighbour is {chemical_symbols[foreign[0]]}, but the descriptor has channels "
                f"for {', '.join(self.settings()['species'])} only"
            )


class _Spectra(torch.autograd.Function):
    """The spectra by `PairKernel`; a second derivative goes through plain operations."""

    @staticmethod
    def forward(
        ctx: Any,
        vectors: Tensor,
        model: PowerSpectrum,
        centers: Tensor,
        numbers: Tensor,
        slots: Slots,
    ) -> Tensor:
        spectra, coefficients = model._kernel.spectra(vectors, numbers, slots)
        ctx.save_for_backward(vectors)
        ctx.rest = (model, centers, numbers, slots, coefficients)
        return spectra

    @staticmethod
    def backward(ctx: Any, seeds: Tensor) -> tuple[Tensor | None, ...]:
        (vectors,) = ctx.saved_tensors
        model, centers, numbers, slots, coefficients = ctx.rest
        if torch.is_grad_enabled():  # create_graph: this gradient will be differentiated
            total = model._plain(vectors, centers, numbers, len(seeds))
            spectra = model._kernel.contract(total)
            (gradient,) = torch.autograd.grad(spectra, vectors, seeds, create_graph=True)
        else:
            gradient = model._kernel.gradient(vectors, numbers, slots, coefficients, seeds)
        return gradient, None, None, None, None


def _by_hand(vectors: Tensor) -> bool:
    """Whether `PairKernel` serves: eager first-order work on a CPU with MKL's batched products."""
    if torch.compiler.is_compiling() or vectors.device.type != "cpu":
        return False
    if not torch.backends.mkl.is_available():
        return False
    transforming = getattr(torch._C, "_are_functorch_transforms_active", bool)
    forward_mode = getattr(torch.autograd.forward_ad, "_current_level", -1) >= 0
    return not (transforming() or forward_mode)


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
