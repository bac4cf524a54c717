"""Scratch arrays for the pairs that `PairKernel` handles at a time."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING

from torch import Tensor

if TYPE_CHECKING:
    from asexlatent.descriptor.kernel import PairKernel


@dataclass
class Memory:
    """Scratch that all chunks of one call share; flat, so that any part of it is contiguous."""

    shapes: dict[str, tuple[int, ...]]
    arrays: dict[str, Tensor]

    @classmethod
    def new(cls, kernel: PairKernel, places: int, like: Tensor) -> Memory:
        """Room for the largest chunk."""
        degrees, radial = kernel.lmax + 1, kernel.n_radial
        shapes = {
            "vectors": (3,),
            "polynomials": (kernel.series.shape[1],),
            "radial": (2, radial, degrees),
            "angular": (kernel.n_harmonics,),
            "spare": (kernel.n_harmonics,),
            "values": (radial, degrees),
            "slopes": (3, radial, degrees),
            "derivative": (kernel.n_components, 3),
        }
        return cls(shapes, {k: like.new_empty(prod(v) * places) for k, v in shapes.items()})

    def part(self, places: int) -> dict[str, Tensor]:
        """Arrays (..., places)."""
        return {
            name: self.arrays[name][: prod(shape) * places].view(*shape, places)
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
        self.vectors, self.radial = arrays["vectors"], arrays["radial"]
        self.angular, self.spare = arrays["angular"], arrays["spare"]
        self.polynomials, self.derivative = arrays["polynomials"], arrays["derivative"]
        self.values, self.slopes = arrays["values"], arrays["slopes"]

    def in_slots(self, array: Tensor) -> Tensor:
        """View (..., p) as (..., S, W)."""
        return array.unflatten(-1, (-1, self.width))
