"""Scratch arrays for the pairs that `PairKernel` handles at a time."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, NamedTuple

from torch import Tensor

if TYPE_CHECKING:
    from asexlatent.descriptor.kernel import PairKernel


_SHARED = ("polynomials", "spare", "derivative")


@dataclass
class Memory:
    """Scratch that all chunks of one call share.

    Rows are an odd number of cache lines apart. With a power of two between them, which lengths of
    chunks tend to, the same place of all rows falls into one set of the cache, and products over
    rows take three times as long.

    Attributes
    ----------
    places : int
        Pairs that a chunk may have at most, p.
    shapes : dict
        What one place holds of each array, ...
    arrays : dict of Tensor
        The arrays, (product of ..., stride) with a stride of p or a little more.
    """

    places: int
    shapes: dict[str, tuple[int, ...]]
    arrays: dict[str, Tensor]

    @classmethod
    def new(cls, kernel: PairKernel, places: int, like: Tensor) -> Memory:
        """Room for the largest chunk."""
        degrees, radial = kernel.lmax + 1, kernel.n_radial
        shapes = {
            "vectors": (4,),
            "polynomials": (kernel.series.shape[1],),
            "radial": (2, radial, degrees),
            "angular": (kernel.n_harmonics,),
            "spare": (kernel.n_harmonics,),
            "values": (radial, degrees),
            "slopes": (3, radial, degrees),
            "derivative": (3, kernel.n_components),
        }
        line = 64 // like.element_size()
        stride = line * (-(-places // line) | 1)
        rows = {k: prod(v) for k, v in shapes.items()}
        # the derivative comes when polynomials and spare are no longer needed
        early = rows["polynomials"] + rows["spare"]
        arrays = {k: like.new_empty(v, stride) for k, v in rows.items() if k not in _SHARED}
        shared = like.new_empty(max(early, rows["derivative"]), stride)
        arrays["polynomials"] = shared[: rows["polynomials"]]
        arrays["spare"] = shared[rows["polynomials"] : early]
        arrays["derivative"] = shared[: rows["derivative"]]
        return cls(places, shapes, arrays)

    def serves(self, places: int, like: Tensor) -> bool:
        """Whether this is enough, of the right kind (the kernel may have been cast)."""
        array = self.arrays["vectors"]
        return places <= self.places and (array.dtype, array.device) == (like.dtype, like.device)

    def part(self, places: int) -> dict[str, Tensor]:
        """Arrays (..., places)."""
        return {
            name: self.arrays[name][:, :places].unflatten(0, shape)
            for name, shape in self.shapes.items()
        }


class Chunk:
    """Some centres and their pairs: p places, S slots of a width.

    Attributes
    ----------
    centers, places : slice
        Which of all centres and places.
    owner : Tensor
        (S,) long, centre of each slot, counted from the first of the chunk.
    vectors : Tensor
        (3, p), x.
    with_one : Tensor
        (4, p), x and below it room for a row of ones.
    radial : Tensor
        (2, K, lmax + 1, p), w h_k,l and w dh_k,l / du.
    angular : Tensor
        ((lmax + 1)**2, p), Q_lm.
    polynomials, spare, values, slopes, derivative : Tensor
        Scratch.
    """

    def __init__(
        self, centers: slice, owner: Tensor, places: slice, width: int, arrays: dict[str, Tensor]
    ) -> None:
        self.centers, self.owner, self.places, self.width = centers, owner, places, width
        self.with_one, self.radial = arrays["vectors"], arrays["radial"]
        self.vectors = self.with_one[:3]
        self.angular, self.spare = arrays["angular"], arrays["spare"]
        self.polynomials, self.derivative = arrays["polynomials"], arrays["derivative"]
        self.values, self.slopes = arrays["values"], arrays["slopes"]

    def in_slots(self, array: Tensor) -> Tensor:
        """View (..., p) as (..., S, W)."""
        return array.unflatten(-1, (-1, self.width))


class Motions(NamedTuple):
    """Spectra of some centres, and what they change by when their neighbours move.

    With D_i the derivative of a centre's spectrum for component i of the vector of a pair:

    Attributes
    ----------
    centers, pieces : slice
        Which of all M centres and of all S pieces.
    spectra : Tensor
        (m, L).
    common : Tensor
        (m, 4, 3, L): sum over the pairs of the centre of vector_j D_i at [:, j, i] for j = 0, 1, 2,
        and of D_i at [:, 3, i]: the change per unit of deformation, and of movement of all.
    own : Tensor
        (s, 3, L): sum over the pairs of a piece and over i of maps_ix D_i at [:, x]: the change per
        unit of a coordinate of these neighbours.
    """

    centers: slice
    pieces: slice
    spectra: Tensor
    common: Tensor
    own: Tensor
