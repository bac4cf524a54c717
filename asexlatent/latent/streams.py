"""Random numbers that belong to a place, not to a moment."""

from __future__ import annotations

import zlib

import numpy as np


def stream(seed: int, index: int, purpose: str) -> np.random.Generator:
    """Return the generator of one sample: the same whatever else is drawn, in any order.

    Parameters
    ----------
    seed, index : int
        Of the run and of the sample, 0 or more.
    purpose : str
        What the numbers are for; streams of different purposes are independent.
    """
    bits = np.random.Philox(key=np.array([seed, index], dtype=np.uint64))
    return np.random.Generator(bits.advance(zlib.crc32(purpose.encode()) << 64))
