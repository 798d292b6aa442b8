"""Settings of the response cache. Each field is documented beneath it: meaning, unit, effect, how to size it."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator, model_validator

from cache.identity import LEAST_SECRET_BYTES


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class CacheSettings(_Section):
    """The response cache."""

    tier: Literal["off", "exact", "semantic"] = "exact"
    """off: none. exact: equal requests. semantic: also paraphrases, within the wrong-answer budget `max_wrong`."""

    @field_validator("tier", mode="before")
    @classmethod
    def _off_is_no_boolean(cls, tier: object) -> object:
        # YAML 1.1 reads a bare `off` as false
        return "off" if tier is False else tier

    redis: str = "embedded"
    """`redis://host:port/db`, or embedded: a Redis 8 of our own. Environment: WATTGATE_REDIS_URL."""
    redis_budget_seconds: float = Field(default=0.04, gt=0)
    """Redis time of one request, all its calls together; then it goes on without the cache."""
    redis_memory_mib: int = Field(default=1024, ge=16)
    """The embedded Redis: memory for answers and vectors, MiB, taken as it is needed. When it is full, what has not
    been asked for longest goes. An answer takes about twice its text, and its receipt; a vector 2.3 kB."""
    ttl_seconds: float = Field(default=3600.0, gt=0)
    """Absolute life of an answer; being asked for does not prolong it."""
    local_entries: int = Field(default=1024, ge=0)
    """In-process exact tier: entries a replica keeps; 0 turns that tier off."""
    local_ttl_seconds: float = Field(default=60.0, gt=0)
    """In-process exact tier: life of an entry; short, because other replicas' deletions are not seen here."""
    max_answer_bytes: int = Field(default=256 * 1024, ge=1)
    """Larger answers are not stored."""
    max_wrong: float = Field(default=0.02, gt=0, lt=1)
    """Semantic tier: the budget, wrong semantic answers over semantic answers served."""
    policy: Literal["conformal", "vcache", "threshold"] = "conformal"
    """Semantic tier: how the score's threshold is found. conformal: from labels, for `max_wrong`. vcache: each entry
    learns by itself, so nothing is served before it has been verified a few times; needs `shadow_share`, and what a
    replica has learned is its own and ends with it. threshold: `score_threshold`."""
    score_threshold: float = Field(default=0.95, ge=0, le=1)
    """Semantic tier, policy threshold: what scores higher is served, whatever that does to `max_wrong`."""
    calibration: Path | None = None
    """Semantic tier: labels to start from, as `wattgate cache export-labels` writes them. None: the shipped ones,
    which know nothing of your traffic."""
    embedder: str = "minilm-int8"
    """Semantic tier: `minilm-int8` or `minilm-fp32` (both bundled), or a local sentence-transformers model."""
    index_capacity: int = Field(default=200_000, ge=1)
    """Semantic tier: vectors among which a paraphrase is looked for, those of one tenant's requests that differ in the
    last user text only; beyond it one near its expiry goes for each that comes. 2.3 kB each: keep it within half of
    `redis_memory_mib`, because a full Redis may drop them all at once, and misses until they come again."""
    embed_deadline_seconds: float = Field(default=0.05, gt=0)
    """Semantic tier: a text not embedded by then is a miss; its vector is kept for the next time."""
    shadow_share: float = Field(default=0.0, ge=0, le=1)
    """Semantic tier: share of its hits that also run on the model, off the client's path and only into free slots,
    booked as tenant `shadow`; near misses are verified by their own run. 0: none. The agreement of the answers is a
    label; from 200 labels on the threshold rests on your traffic. Costs about that share of what the hits save."""
    shadow_labels: Path | None = None
    """Semantic tier: file that labels are appended to, and read from at start where Redis holds none; JSON lines, as
    `wattgate cache export-labels` takes them. Lines of another judge or embedder are left out. None: kept in Redis
    only, where all replicas share them; the embedded Redis ends with the gateway."""
    grey_zone_floor: float | None = Field(default=None, ge=0, le=1)
    """Semantic tier: neighbours that score above this and were refused by the threshold alone are put to the served
    model as one yes or no, where a slot is free and the expected saving exceeds the cost; that token is booked to the
    tenant. The request waits for it, at most 2 s, also where the answer is no. 0.3 is a start. What the model lets
    through is outside the promise of `max_wrong`: small models say yes to almost everything. None: never."""
    reveal_similarity: bool = False
    """Tell clients the similarity of what was served and the guard that refused (`x-cache-similarity`,
    `x-cache-guard`): for debugging. It tells a client how near its question is to others of its tenant."""
    tenant_secret: SecretStr | None = None
    """Keys the hash that separates tenants, at least 16 bytes (`openssl rand -hex 32`). None: drawn at start, so that
    entries of an earlier run are not found. Environment: WATTGATE_CACHE_SECRET."""

    @field_validator("tenant_secret")
    @classmethod
    def _secret_is_long_enough(cls, secret: SecretStr | None) -> SecretStr | None:
        # here too: the cache itself would refuse it only after the engine has been loaded
        if secret is not None and len(secret.get_secret_value().encode()) < LEAST_SECRET_BYTES:
            raise ValueError(f"at least {LEAST_SECRET_BYTES} bytes are needed: `openssl rand -hex 32` makes a good one")
        return secret

    @model_validator(mode="after")
    def _vcache_learns_from_verified_answers(self) -> CacheSettings:
        if self.tier == "semantic" and self.policy == "vcache" and self.shadow_share <= 0.0:
            raise ValueError(
                "cache.policy vcache serves nothing that was not verified before, and cache.shadow_share is 0: "
                "set a share, as 0.1, or policy conformal"
            )
        return self
