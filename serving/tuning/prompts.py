"""Prompts of a wanted length: common words that most tokenisers keep whole."""

from __future__ import annotations

import random

from serving.tuning.workload import Workload

_WORDS = (
    *("time", "year", "people", "way", "day", "man", "thing", "woman", "life", "child", "world", "school", "state"),
    *("family", "group", "country", "hand", "part", "place", "case", "week", "company", "system", "program", "work"),
    *("question", "number", "night", "point", "home", "water", "room", "mother", "area", "money", "story", "fact"),
    *("month", "lot", "right", "study", "book", "eye", "job", "word", "business", "issue", "side", "kind", "head"),
    *("house", "service", "friend", "father", "power", "hour", "game", "line", "end", "member", "law", "car", "city"),
)


NONCE_WORDS = 4
"""Before each text of a file: 65 words to the 4th are 18 million runs. It is in front, as prefix caches compare from
there, and in the words, as not every server knows a salt (vLLM's ``cache_salt``)."""


class PromptMaker:
    """Text of request ``index``. Repeats are equal word for word; shared prefixes are equal beginnings; all others
    are drawn apart, so that no cache answers what the workload did not mean it to. Another seed makes other prompts:
    a file's texts begin with ``NONCE_WORDS`` of that seed, so that no run finds another's in a cache; the server's
    count of prompt tokens has them.
    """

    def __init__(self, workload: Workload, seed: int = 0, overhead_tokens: int = 0) -> None:
        """``overhead_tokens``: what the model's chat template adds to each prompt."""
        self._workload = workload
        self._seed = seed
        self._overhead_tokens = overhead_tokens

    def text(self, index: int) -> str:
        workload = self._workload
        original = int(workload.repeat_of[index])
        index = original if original >= 0 else index
        if workload.texts is not None:
            nonce = random.Random(f"nonce {self._seed}")
            return " ".join([*nonce.choices(_WORDS, k=NONCE_WORDS), workload.texts[index]])
        wanted = max(1, int(workload.prompt_tokens[index]) - self._overhead_tokens)
        shared = min(int(workload.prefix_tokens[index]), wanted)
        common = random.Random(f"prefix {self._seed}")
        own = random.Random(f"{self._seed} {index}")
        words = [common.choice(_WORDS) for _ in range(shared)]
        words += [own.choice(_WORDS) for _ in range(wanted - shared)]
        return " ".join(words)
