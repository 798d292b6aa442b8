"""What one step of continuous batching holds: decode in every step, prompts in chunks in what room is left.

One code for the simulator and for the simulated engine, so that both take the same time for the same requests.
"""

from __future__ import annotations

from collections import deque

SMALLEST_CHUNK = 16
MAX_BATCHED_TOKENS = 2048
"""In one step, where nothing else is said: vLLM's choice on a CPU."""


def pack_prompts(
    prefilling: deque[list[int]], room: int, computed: list[int] | dict[int, int], cached: list[int] | dict[int, int]
) -> tuple[int, float, list[int]]:
    """Take chunks, first come first served, until ``room`` tokens are full.

    ``prefilling``: key and tokens computed so far, moved on in place, and left out once all of ``computed[key]`` are.
    ``cached[key]``: tokens before those. Gives the tokens, their attention pairs, and the keys that are through.
    """
    tokens, pairs, done = 0, 0.0, []
    while prefilling and tokens < room:
        entry = prefilling[0]
        key, before = entry
        whole = computed[key]
        chunk = min(whole - before, room - tokens)
        tokens += chunk
        # each token attends to the cached part, to what was computed before, and to half its own chunk
        pairs += chunk * (cached[key] + before + (chunk + 1) / 2)
        entry[1] = before + chunk
        if entry[1] == whole:
            done.append(key)
            prefilling.popleft()
    return tokens, pairs, done
