"""The intensity in use: renewed in the background, honest about what stands in for it."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from metering.intensity.reading import IntensityReading, Quality
from metering.intensity.resilient import ResilientIntensity
from metering.intensity.static import StaticIntensity
from metering.intensity.trace import ScriptedIntensity
from metering.settlement import IntensityStamp
from serving.config import ConfigError
from serving.config_sources import load_config
from serving.placement.intensity import IntensityFeed, configured_intensity, first_stamp


class Rig:
    def __init__(self, source: Any) -> None:
        self.stamps: list[IntensityStamp | None] = []
        self.faults: list[str] = []
        self.feed = IntensityFeed(source, self.stamps.append, self.faults.append, refresh_seconds=60)


def settings(**flags: Any) -> Any:
    return load_config(None, {f"metering.{key}": value for key, value in flags.items()}, {}).config.metering


async def test_a_live_figure_is_used_as_it_is() -> None:
    rig = Rig(ScriptedIntensity(123.0, "DE"))
    await rig.feed.refresh()
    assert rig.stamps == [IntensityStamp(123.0, "DE", "scripted (scripted)", "average", "scripted")]
    assert rig.faults == []


async def test_a_failing_source_falls_back_under_its_own_label_and_is_counted() -> None:
    now = datetime(2026, 1, 1, tzinfo=UTC)
    live = ScriptedIntensity(123.0, "DE")
    clock = [now]
    source = ResilientIntensity(live, StaticIntensity("DEU"), now=lambda: clock[0])
    rig = Rig(source)
    await rig.feed.refresh()
    live.grams_per_kwh = None
    for after in (timedelta(minutes=10), timedelta(hours=3)):
        clock[0] = now + after
        await rig.feed.refresh()
    assert rig.faults == ["intensity_stale", "intensity_fallback"]
    stale, mean = rig.stamps[1:]
    assert stale is not None
    assert mean is not None
    assert (stale.grams_per_kwh, stale.quality) == (123.0, "stale")
    assert (mean.zone, mean.quality) == ("DEU", "static")
    assert "in place of scripted" in mean.source


async def test_a_marginal_source_that_fails_leaves_no_figure_rather_than_an_average() -> None:
    rig = Rig(ResilientIntensity(ScriptedIntensity(None, signal="marginal"), None))
    await rig.feed.refresh()
    assert rig.stamps == [None]
    assert rig.faults == ["intensity_unavailable"]


async def test_a_source_that_breaks_leaves_the_last_figure_in_use() -> None:
    class Broken:
        async def latest(self) -> IntensityReading:
            raise KeyError("defect")

    rig = Rig(Broken())
    await rig.feed.refresh()
    assert rig.stamps == []
    assert rig.faults == ["intensity_unavailable"]


async def test_the_last_figure_of_a_source_that_breaks_is_live_no_more() -> None:
    class Breaks(ScriptedIntensity):
        async def latest(self) -> IntensityReading:
            if self.calls:
                raise KeyError("defect")
            return replace(await super().latest(), quality=Quality.LIVE)

    rig = Rig(Breaks(123.0, "DE"))
    for _ in range(2):
        await rig.feed.refresh()
    assert [stamp and (stamp.grams_per_kwh, stamp.quality) for stamp in rig.stamps] == [
        (123.0, "live"),
        (123.0, "stale"),
    ]


async def test_the_feed_asks_again_after_each_pause() -> None:
    class Enough(Exception):
        pass

    waits: list[float] = []

    async def sleep(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == 3:
            raise Enough

    source = ScriptedIntensity(100.0)
    feed = IntensityFeed(source, lambda _: None, lambda _: None, refresh_seconds=7, sleep=sleep)
    with pytest.raises(Enough):
        await feed.run()
    assert waits == [7, 7, 7]
    assert source.calls == 3


async def test_a_trace_is_read_and_its_holes_fall_back(tmp_path: Path) -> None:
    hour = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
    rows = "\n".join(f"{(hour + timedelta(hours=h)).isoformat()},{300 + h},0.5" for h in range(3))
    path = tmp_path / "trace.csv"
    path.write_text(f"time,grams_per_kwh,carbon_free_ratio\n{rows}\n")
    wanted = settings(**{"zone": "DEU", "intensity.source": "trace", "intensity.trace": str(path)})
    reading = await configured_intensity(wanted).latest()
    assert (reading.grams_per_kwh, reading.carbon_free_ratio) == (300.0, 0.5)
    path.write_text("time,grams_per_kwh\n2020-01-01T00:00,1\n2020-01-01T01:00,2\n")
    past = await configured_intensity(wanted).latest()
    assert (past.zone, past.quality) == ("DEU", Quality.STATIC)


def test_the_first_windows_have_the_annual_mean_and_a_marginal_source_none() -> None:
    live = {"intensity.source": "electricitymaps", "intensity.token": "s", "intensity.zone": "FR"}
    stamp = first_stamp(settings(**live))
    assert stamp is not None
    assert (stamp.zone, stamp.signal) == ("FRA", "average")
    uk = first_stamp(settings(**{"intensity.source": "uk"}))
    assert uk is not None
    assert uk.zone == "GBR"
    watttime = {"intensity.source": "watttime", "intensity.token": "s", "intensity.username": "me"}
    assert first_stamp(settings(**watttime, **{"intensity.zone": "CAISO_NORTH"})) is None
    fixed = first_stamp(settings(intensity_grams_per_kwh=12.0))
    assert fixed is not None
    assert (fixed.grams_per_kwh, fixed.source) == (12.0, "configured")


@pytest.mark.parametrize(
    ("flags", "names"),
    [
        ({"intensity.source": "electricitymaps", "intensity.zone": "DE"}, "WATTGATE_INTENSITY_TOKEN"),
        ({"intensity.source": "electricitymaps", "intensity.token": "s"}, "zone"),
        ({"intensity.source": "watttime", "intensity.token": "s", "intensity.zone": "X"}, "username"),
        ({"intensity.source": "trace"}, "CSV"),
        ({"intensity.source": "uk", "intensity_grams_per_kwh": 5}, "leave one of them away"),
        ({"intensity.source": "guess"}, "source"),
    ],
)
def test_a_source_without_what_it_needs_is_refused_by_name(flags: dict[str, Any], names: str) -> None:
    with pytest.raises(ConfigError, match=names):
        settings(**flags)


def test_the_token_comes_from_the_environment_and_is_not_shown() -> None:
    flags = {"metering.intensity.source": "electricitymaps", "metering.intensity.zone": "DE"}
    loaded = load_config(None, flags, {"WATTGATE_INTENSITY_TOKEN": "secret-token"})
    token = loaded.config.metering.intensity.token
    assert token is not None
    assert token.get_secret_value() == "secret-token"
    assert "secret-token" not in repr(loaded.config)
