"""Bad input to the metering library: the message names the thing and the mend, in one line."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class BadInput(ValueError):
    """The caller's input cannot give a right figure, so none is given."""


class UnknownArchitecture(BadInput):
    """A model config whose layers are not known here."""


class UnknownZone(BadInput):
    """No grid figure for this zone."""


class UnknownDevice(BadInput):
    """The hardware catalogue has no such device."""


def nearest(name: str, known: Iterable[str], count: int = 3) -> str:
    """``"; nearest: a, b"`` for a message, or an empty string where nothing is near.

    >>> nearest("qwen22", ["qwen2", "llama"])
    '; nearest: qwen2'
    """
    by_fold = {candidate.casefold(): candidate for candidate in known}
    close = difflib.get_close_matches(name.casefold(), by_fold, n=count, cutoff=0.5)
    return "; nearest: " + ", ".join(by_fold[one] for one in close) if close else ""


def require_tokens(name: str, value: int, minimum: int = 0) -> int:
    """``value`` if it is a whole number >= ``minimum``; else ``BadInput`` naming it."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise BadInput(f"{name} must be a whole number, got {value!r}")
    if value < minimum:
        raise BadInput(f"{name} must be at least {minimum}, got {value}")
    return value
