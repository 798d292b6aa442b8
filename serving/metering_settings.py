"""Settings of the meter. Each field is documented beneath it: meaning, unit, effect, how to size it."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, SecretStr, model_validator


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class IntensitySettings(_Section):
    """Where the grid's carbon intensity comes from. Read off the request path; a failing source falls back to the
    annual mean of its country, under that label, and is counted."""

    source: Literal["static", "electricitymaps", "watttime", "uk", "trace"] = "static"
    """static: annual mean of `metering.zone`, or `metering.intensity_grams_per_kwh`. electricitymaps, watttime, uk:
    asked live. trace: a CSV file. watttime is marginal, all others are averages; the two are never in one series."""
    zone: str | None = None
    """As the source spells it: `DE`, `US-CAL-CISO` (Electricity Maps), `CAISO_NORTH` (WattTime). None: `metering.zone`,
    which also names the country of the fallback."""
    token: SecretStr | None = None
    """Electricity Maps: the API token. WattTime: the account's password. Environment: WATTGATE_INTENSITY_TOKEN."""
    username: str | None = None
    """WattTime: the account's name."""
    trace: Path | None = None
    """CSV with the columns `time` (ISO 8601), `grams_per_kwh` and, if known, `carbon_free_ratio`."""
    repeat_trace: bool = False
    """Start the trace again at its end."""
    refresh_seconds: float = Field(default=60.0, ge=1)
    """How often the figure in use is renewed. Live answers are kept for 5 minutes whatever this says."""

    @model_validator(mode="after")
    def _has_what_it_needs(self) -> Self:
        if self.source in ("electricitymaps", "watttime") and self.token is None:
            what = "an API token" if self.source == "electricitymaps" else "a password"
            raise ValueError(f"source {self.source} needs {what}: set WATTGATE_INTENSITY_TOKEN")
        if self.source == "watttime" and not self.username:
            raise ValueError("source watttime needs username")
        if self.source in ("electricitymaps", "watttime") and self.zone is None:
            raise ValueError(f"source {self.source} needs zone, as {self.source} spells it")
        if self.source == "trace" and self.trace is None:
            raise ValueError("source trace needs trace: the path of a CSV file")
        return self


class HistorySettings(_Section):
    """The node's own record of what was used, for `wattgate report`; it survives restarts."""

    enabled: bool = True
    """Off: nothing is written, and reports have nothing to read."""
    path: Path | None = None
    """SQLite file. None: `history.sqlite3` in the user's data folder."""
    keep_days: float = Field(default=400.0, gt=0)
    """Older minutes are deleted. A minute takes about 0.3 kB for each model and tenant that was busy in it."""


class MeteringSettings(_Section):
    """How joules and grams are made."""

    window_seconds: float = Field(default=1.0, ge=1.0)
    """Energy is read per window of this length and attributed within it."""
    leave_idle_node_seconds: float | None = Field(default=None, gt=0)
    """Where a cluster gives nodes back: a node's meter ends after so long without a replica, for the autoscaler takes a
    node with an actor on it for busy. The next replica there starts it again, and what the devices drew meanwhile is
    booked to nobody. The head keeps its own. None: meters stay, but on KubeRay 180."""
    zone: str = "WORLD"
    """Grid zone (ISO-3 country) for the static intensity table."""
    intensity_grams_per_kwh: float | None = Field(default=None, ge=0)
    """Fixed grid intensity that overrides the zone's."""
    pue: float = Field(default=1.0, ge=1.0)
    """Power usage effectiveness of the site: total energy over IT energy. 1.1 is Google Cloud's mean (2024);
    1.0 books no overhead."""
    idle_policy: Literal["none", "by_flops", "by_time", "reserved"] = "reserved"
    """Who bears idle energy; see the README's page on numbers. `reserved` conforms to SCI."""
    weight: Literal["roofline_time", "flops", "tokens", "time"] = "roofline_time"
    """How a window's busy energy is split over the requests that worked in it."""
    device: str | None = None
    """Name in the hardware catalogue. None: detected."""
    peak_flops: float | None = Field(default=None, gt=0)
    """Peak of the device at the precision in use, FLOP/s; overrides the catalogue. Covers the engine's cores only."""
    bandwidth_bytes_per_second: float | None = Field(default=None, gt=0)
    """Memory bandwidth; overrides the catalogue."""
    idle_watts: float | None = Field(default=None, ge=0)
    """Idle power of what the engine runs on (all its cores, or the accelerator), watts; overrides the catalogue."""
    max_watts: float | None = Field(default=None, gt=0)
    """Full power of the same, watts; overrides the catalogue."""
    embodied_kilograms: float | None = Field(default=None, ge=0)
    """Embodied carbon of the device (its whole, kg CO2e); overrides the catalogue."""
    host_idle_watts: float | None = Field(default=None, ge=0)
    """Beside a GPU: idle power of the machine's CPUs together, watts; overrides the catalogue. What the memory draws
    is added. Where RAPL can be read, only the division into work and idle follows it."""
    host_max_watts: float | None = Field(default=None, gt=0)
    """Beside a GPU: full power of the same, watts; overrides the catalogue."""
    host_embodied_kilograms: float | None = Field(default=None, ge=0)
    """Embodied carbon of the server around the engine's device, kg CO2e. None: the catalogue's share of a server per
    vCPU, of the vCPUs that the engine does not compute on; not where `embodied_kilograms` is that of a CPU, which may
    hold the server already. Counted only beside a device whose own is known."""
    lifetime_years: float = Field(default=4.0, gt=0)
    """Embodied carbon is spread over this."""
    price_per_device_hour: float | None = Field(default=None, ge=0)
    """Your price of an hour of one accelerator (of the engine's cores, on a CPU), in a currency of yours. With it, or
    the next, cost stands beside grams in receipts, metrics and reports. None: no cost of devices."""
    price_per_kwh: float | None = Field(default=None, ge=0)
    """Your price of a kWh, same currency; also of what PUE adds. None: no cost of electricity."""
    intensity: IntensitySettings = IntensitySettings()
    history: HistorySettings = HistorySettings()

    @model_validator(mode="after")
    def _one_intensity(self) -> Self:
        if self.intensity_grams_per_kwh is not None and self.intensity.source != "static":
            raise ValueError(
                f"intensity_grams_per_kwh fixes the intensity and intensity.source asks {self.intensity.source}: "
                "leave one of them away"
            )
        return self
