"""Carbon intensity of electricity: sources, their caching and their fallbacks."""

from metering.intensity.choose import choose_intensity
from metering.intensity.electricity_maps import ElectricityMaps
from metering.intensity.reading import CarbonIntensity, IntensityReading, IntensityUnavailable, Quality, Signal
from metering.intensity.resilient import ResilientIntensity
from metering.intensity.static import CREDIT, StaticIntensity, Zone, find_zone, zones
from metering.intensity.trace import CsvTrace, ScriptedIntensity
from metering.intensity.uk import UkCarbonIntensity
from metering.intensity.watttime import WattTime

__all__ = [
    "CREDIT",
    "CarbonIntensity",
    "CsvTrace",
    "ElectricityMaps",
    "IntensityReading",
    "IntensityUnavailable",
    "Quality",
    "ResilientIntensity",
    "ScriptedIntensity",
    "Signal",
    "StaticIntensity",
    "UkCarbonIntensity",
    "WattTime",
    "Zone",
    "choose_intensity",
    "find_zone",
    "zones",
]
