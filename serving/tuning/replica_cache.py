"""What one replica's prefix cache still holds of a workload's repeats and of its shared prefix."""

from __future__ import annotations

import math

import numpy as np

from serving.tuning.workload import Integers, Workload

_SHARED = -1
"""Key of the common prefix; other keys are indices of originals."""


class ReplicaCache:
    """The least recently used is evicted, as in vLLM: an entry is lost once the tokens that the replica has written
    since its last use, and the entry itself, exceed the memory for keys and values. It is kept or lost as a whole.
    """

    def __init__(self, workload: Workload, mine: Integers, kv_tokens: int | None) -> None:
        """``mine``: indices of the requests that come to this replica."""
        self._prefix: list[int] = workload.prefix_tokens[mine].tolist()
        originals = workload.repeat_of[mine]
        keys = np.where(originals >= 0, originals, mine)
        # only what comes again here is remembered: an original may run on this replica, or only its repeats
        _, inverse, counts = np.unique(keys, return_inverse=True, return_counts=True)
        self._keys: list[int] = np.where(counts[inverse] > 1, keys, _SHARED).tolist()
        self._memory: float = math.inf if kv_tokens is None else kv_tokens
        self._written = 0
        self._used: dict[int, int] = {}
        """Tokens written when each entry was last used."""
        self._longest_prefix = 0

    @classmethod
    def needed(cls, workload: Workload) -> bool:
        """Whether any request has something to find."""
        return bool(np.any(workload.repeat_of >= 0) or np.any(workload.prefix_tokens > 0))

    def admit(self, position: int, prompt_tokens: int, output_tokens: int) -> int:
        """Tokens of its prompt that a request has to compute; it starts now, and what it writes is cached."""
        key, prefix = self._keys[position], self._prefix[position]
        if not self._holds(_SHARED, self._longest_prefix):
            self._longest_prefix = 0
        # the last token of a prompt is always computed
        cached = min(prefix, self._longest_prefix, prompt_tokens - 1)
        if key != _SHARED and self._holds(key, prompt_tokens):
            cached = prompt_tokens - 1
        self._written += prompt_tokens - cached + output_tokens
        if key != _SHARED:
            self._used[key] = self._written
        if prefix:
            self._used[_SHARED] = self._written
            self._longest_prefix = max(prefix, self._longest_prefix)
        return prompt_tokens - cached

    def _holds(self, key: int, tokens: int) -> bool:
        used = self._used.get(key)
        return used is not None and self._written - used + tokens <= self._memory
