"""Carbon intensity of electricity: sources, their caching and their fallbacks."""

from metering.intensity.reading import CarbonIntensity, IntensityReading, IntensityUnavailable, Quality, Signal
from metering.intensity.static import StaticIntensity, Zone, find_zone, zones

__all__ = [
    "CarbonIntensity",
    "IntensityReading",
    "IntensityUnavailable",
    "Quality",
    "Signal",
    "StaticIntensity",
    "Zone",
    "find_zone",
    "zones",
]
