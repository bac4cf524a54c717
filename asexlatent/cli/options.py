"""Readers of command-line values shared by commands, free of heavy imports."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any


def checked(read: Callable[[Any], Any]) -> Callable[[str], Any]:
    """Make a reader that raises ValueError one whose message argparse shows."""

    def reader(text: str) -> Any:
        try:
            return read(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return reader


def numbers(minimum: int, maximum: int | None = None) -> Callable[[str], tuple[int, ...]]:
    """Return a reader of whole numbers and ranges of them, such as ``166,194`` or ``1-15,225``."""

    def read(text: str) -> tuple[int, ...]:
        found: dict[int, None] = {}
        for part in text.split(","):
            first, dash, last = part.strip().partition("-")
            try:
                low = int(first)
                high = int(last) if dash else low
            except ValueError:
                raise ValueError(f"{text!r}: write numbers and ranges, such as 2,5-9") from None
            if low > high:
                raise ValueError(f"{part!r} is an empty range")
            if low < minimum or (maximum is not None and high > maximum):
                limits = f"at least {minimum}" if maximum is None else f"{minimum} to {maximum}"
                raise ValueError(f"must be {limits}, not {part.strip()}")
            found.update(dict.fromkeys(range(low, high + 1)))
        return tuple(found)

    return read


def neighbors(text: str) -> int | dict[str, tuple[int, ...]]:
    """Read ``3``, or ``Si=4,O=2`` for each of some elements (``Ti=6,O=3,O=2`` allows two)."""
    if "=" not in text:
        return _neighbor_count(text, text)
    found: dict[str, tuple[int, ...]] = {}
    for part in text.split(","):
        symbol, equals, count = part.partition("=")
        if not equals:
            raise ValueError(f"{text!r}: write 3, or Si=4,O=2")
        symbol = symbol.strip()
        found[symbol] = (*found.get(symbol, ()), _neighbor_count(count, text))
    return found


def _neighbor_count(word: str, text: str) -> int:
    try:
        count = int(word)
        if count < 1:
            raise ValueError
    except ValueError:
        raise ValueError(f"{text!r}: write 3, or Si=4,O=2") from None
    return count


def add_machine(group: argparse._ActionsContainer) -> None:
    """Add ``--workers`` and ``--scheduler``."""
    from asexlatent.cli.settings import whole

    help_text = "processes that share the work (default: one per usable core; none for little work)"
    group.add_argument(
        "--workers", type=checked(whole(1)), default=None, metavar="N", help=help_text
    )
    help_text = "address of a Dask scheduler whose workers share the work"
    group.add_argument("--scheduler", default=None, metavar="ADDRESS", help=help_text)
