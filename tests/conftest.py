"""For every test: no deadlines, because the machines that run this are slow at times and timing is no test."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

settings.register_profile("wattgate", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("wattgate")
