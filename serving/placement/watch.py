"""What a replica looks after, round by round."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping

log = logging.getLogger("wattgate")


class Watch:
    """A step that fails holds up neither the others nor its own next round: the failure is counted, and logged where it
    is another than the round before.
    """

    def __init__(self, steps: Mapping[str, Callable[[], Awaitable[None]]], on_fault: Callable[[str], None]) -> None:
        """``steps``: in the order of a round. ``on_fault`` is told a step's name at each of its failures."""
        self._steps = dict(steps)
        self._on_fault = on_fault
        self._failing: dict[str, str] = {}

    async def round(self) -> None:
        for name, step in self._steps.items():
            try:
                await step()
            # whatever it is: the keys must still be read, and the caps still be controlled
            except Exception as error:
                self._on_fault(name)
                if self._failing.get(name) != repr(error):
                    log.exception("the replica's watch: %s failed; it is tried again each second", name)
                self._failing[name] = repr(error)
            else:
                self._failing.pop(name, None)
