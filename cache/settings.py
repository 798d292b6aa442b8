"""Settings of the response cache: each with its unit and how to size it."""

from __future__ import annotations

from dataclasses import dataclass, field

from cache.admission import Limits


@dataclass(frozen=True, slots=True)
class CacheSettings:
    ttl_seconds: float = 24 * 3600.0
    """Life of an entry from the moment it was made; reading does not prolong it."""
    local_entries: int = 4096
    """In-process answers at most; 0 switches the tier off."""
    local_bytes: int = 64 * 1024 * 1024
    """In-process answers at most, bytes; per replica."""
    local_ttl_seconds: float = 60.0
    """Life in process: how long a replica cut off from Redis may serve what others have removed."""
    redis_budget_seconds: float = 0.040
    """Redis time of one request, all its calls together; then the request goes on without."""
    epoch_check_seconds: float = 1.0
    """A replica serves from its own memory without asking for invalidations for at most so long."""
    candidates: int = 5
    """Neighbours judged."""
    index_capacity: int = 200_000
    """Vectors of one partition at most: about 2.3 kB each at 384 dimensions."""
    conversation_sightings: int = 2
    """A history is embedded and indexed from its n-th request on: most histories occur once. 1: at once."""
    sighting_ttl_seconds: float = 3600.0
    """A history not asked for again within this time is forgotten."""
    tombstone_seconds: float = 24 * 3600.0
    """How long nothing is stored where an answer was voted down."""
    limits: Limits = field(default_factory=Limits)
