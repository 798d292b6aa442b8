"""Software Carbon Intensity (ISO/IEC 21031:2024): (E x I + M) per R, and the embodied share M."""

from __future__ import annotations

from metering.errors import BadInput

YEAR_SECONDS = 365 * 86_400
"""A year of 365 days, as the specification's worked figures take it."""
DEFAULT_LIFETIME_YEARS = 4.0
"""Expected lifespan of server hardware: Cloud Carbon Footprint's methodology and the SCI guidance use four years."""


def embodied_share_grams(
    embodied_kilograms: float, reserved_seconds: float, *, lifetime_seconds: float, resource_share: float = 1.0
) -> float:
    """M = TE x (time reserved / lifetime) x (resources reserved / total resources), in grams of CO2e.

    >>> round(embodied_share_grams(1000, 3600, lifetime_seconds=4 * YEAR_SECONDS), 4)
    28.5388

    Raises:
        BadInput: a negative mass or time, a lifetime that is not positive, a share outside 0..1.
    """
    if not embodied_kilograms >= 0 or not reserved_seconds >= 0:
        raise BadInput(f"embodied mass and time must be at least 0, got {embodied_kilograms} kg, {reserved_seconds} s")
    if not lifetime_seconds > 0:
        raise BadInput(f"lifetime must be positive, got {lifetime_seconds} s")
    if not 0 <= resource_share <= 1:
        raise BadInput(f"share of the resources must be 0..1, got {resource_share}")
    return embodied_kilograms * 1000 * (reserved_seconds / lifetime_seconds) * resource_share


def sci_score(
    energy_kwh: float, intensity_grams_per_kwh: float, embodied_grams: float, functional_units: float
) -> float:
    """Grams of CO2e per functional unit R (for a language model: per token; scale as you like).

    ``energy_kwh`` covers the hardware reserved, idle included; the intensity is location-based and average.

    >>> sci_score(2.0, 400.0, 200.0, 1000)
    1.0

    Raises:
        BadInput: no functional unit, or a negative term.
    """
    if not functional_units > 0:
        raise BadInput(f"SCI needs a positive number of functional units, got {functional_units}")
    if min(energy_kwh, intensity_grams_per_kwh, embodied_grams) < 0:
        raise BadInput("energy, intensity and embodied carbon must be at least 0")
    return (energy_kwh * intensity_grams_per_kwh + embodied_grams) / functional_units
