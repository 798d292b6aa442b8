"""Grid intensity: every source's traps, against recorded answers; no network."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from metering.errors import BadInput, UnknownZone
from metering.intensity import (
    CsvTrace,
    ElectricityMaps,
    IntensityReading,
    IntensityUnavailable,
    Quality,
    ResilientIntensity,
    ScriptedIntensity,
    StaticIntensity,
    UkCarbonIntensity,
    WattTime,
    choose_intensity,
    find_zone,
    zones,
)

NOON = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
Answer = Callable[[httpx.Request], httpx.Response]


def client(answer: Answer) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.MockTransport(answer))


def json(content: Any, status: int = 200) -> httpx.Response:
    return httpx.Response(status, json=content)


# the static table


@pytest.mark.parametrize(
    ("code", "grams"),
    [
        ("USA", 369.5), ("FRA", 56.0), ("DEU", 381.0), ("GBR", 237.6), ("SWE", 40.7), ("NOR", 30.1), ("IND", 713.4),
        ("CHN", 582.3), ("JPN", 485.4), ("BRA", 98.3), ("AUS", 548.7), ("WORLD", 475.0),
    ],
)  # fmt: skip
def test_annual_means_to_the_digits_published(code: str, grams: float) -> None:
    assert abs(find_zone(code).grams_per_kwh - grams) <= 0.051


def test_every_zone_keeps_its_year_in_its_label() -> None:
    assert len(zones()) == 214
    assert all(str(zone.year) in zone.label and 2000 < zone.year < 2030 for zone in zones().values())
    assert find_zone("FRA").label == "codecarbon 3.3.2 global_energy_mix (2023)"


@pytest.mark.parametrize("name", ["usa", "US", "United States", " Usa ", "US-CAL-CISO"])
def test_a_country_goes_by_code_name_or_grid_zone(name: str) -> None:
    assert find_zone(name).code == "USA"


@pytest.mark.parametrize(("name", "near"), [("Frnace", "France"), ("Germny", "Germany"), ("USB", "USA")])
def test_unknown_zone_suggests_the_nearest(name: str, near: str) -> None:
    with pytest.raises(UnknownZone, match=f"nearest: .*{near}"):
        find_zone(name)


async def test_static_source_is_labelled_static_with_its_carbon_free_share() -> None:
    reading = await StaticIntensity("FRA").latest()
    assert (reading.quality, reading.signal, reading.at) == (Quality.STATIC, "average", None)
    assert reading.carbon_free_ratio is not None
    assert 0.9 < reading.carbon_free_ratio < 1


async def test_a_configured_constant_needs_no_known_zone() -> None:
    assert (await StaticIntensity("my-roof", grams_per_kwh=12.0).latest()).grams_per_kwh == 12.0
    with pytest.raises(BadInput, match="at least 0"):
        StaticIntensity("x", grams_per_kwh=-1.0)


# Electricity Maps

MAPS = {
    "zone": "DE", "carbonIntensity": 302, "datetime": "2026-03-01T12:00:00.000Z", "updatedAt": "2026-03-01T12:44:00Z",
    "emissionFactorType": "lifecycle", "isEstimated": False, "estimationMethod": None,
}  # fmt: skip


def maps(latest: Any = MAPS, breakdown: Any = None, seen: list[httpx.Request] | None = None) -> ElectricityMaps:
    def answer(request: httpx.Request) -> httpx.Response:
        if seen is not None:
            seen.append(request)
        if request.url.path == "/v3/power-breakdown/latest":
            return json(breakdown) if breakdown is not None else json({"error": "plan"}, 403)
        return latest if isinstance(latest, httpx.Response) else json(latest)

    return ElectricityMaps(client(answer), "DE", "secret")


async def test_electricity_maps_reads_the_hour_and_never_lets_the_caller_s_place_answer() -> None:
    seen: list[httpx.Request] = []
    reading = await maps(breakdown={"zone": "DE", "fossilFreePercentage": 61}, seen=seen).latest()
    assert reading == IntensityReading(
        302.0, "DE", "electricitymaps lifecycle", Quality.LIVE, "average", NOON, carbon_free_ratio=0.61
    )
    assert all(request.url.params["disableCallerLookup"] == "true" for request in seen)
    assert all(request.headers["auth-token"] == "secret" for request in seen)


async def test_electricity_maps_estimate_is_labelled() -> None:
    assert (await maps({**MAPS, "isEstimated": True}).latest()).quality is Quality.ESTIMATED


async def test_a_plan_without_power_breakdown_still_has_its_intensity() -> None:
    assert (await maps().latest()).carbon_free_ratio is None


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        ({**MAPS, "carbonIntensity": None}, "no carbonIntensity now"),
        ({**MAPS, "carbonIntensity": -4}, "gave -4"),
        ({**MAPS, "carbonIntensity": "302"}, "gave '302'"),
        ({**MAPS, "carbonIntensity": True}, "gave True"),
        ({**MAPS, "zone": "FR"}, "answered for zone 'FR', not 'DE'"),
        ({**MAPS, "datetime": "yesterday"}, "as a time"),
        (httpx.Response(429, json={}), "answered 429"),
        (httpx.Response(401, json={}), "refused the credentials"),
        (httpx.Response(200, text="<html>"), "not JSON"),
        (httpx.Response(200, json=[]), "not an object"),
    ],
)
async def test_an_answer_without_a_usable_figure_is_unavailable_never_zero(answer: Any, says: str) -> None:
    with pytest.raises(IntensityUnavailable, match=says) as caught:
        await maps(answer).latest()
    assert "secret" not in str(caught.value)


async def test_electricity_maps_forecast_skips_nulls() -> None:
    def answer(_: httpx.Request) -> httpx.Response:
        return json({"zone": "DE", "forecast": [
            {"carbonIntensity": 290, "datetime": "2026-03-01T13:00:00Z"},
            {"carbonIntensity": None, "datetime": "2026-03-01T14:00:00Z"},
        ]})  # fmt: skip

    (point,) = await ElectricityMaps(client(answer), "DE", "t").forecast()
    assert (point.grams_per_kwh, point.quality, point.at) == (290.0, Quality.FORECAST, NOON + timedelta(hours=1))


async def test_an_unreachable_source_is_unavailable() -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectTimeout("slow", request=request)

    with pytest.raises(IntensityUnavailable, match="unreachable"):
        await ElectricityMaps(client(answer), "DE", "t").latest()


# WattTime


class WattTimeServer:
    """Tokens good for one use less than asked, so that a renewal is seen."""

    def __init__(self, units: str = "lbs_co2_per_mwh", values: tuple[Any, ...] = (400.0, 412.5, 420.0)) -> None:
        self.logins = 0
        self.valid: set[str] = set()
        self.units, self.values = units, values

    def __call__(self, request: httpx.Request) -> httpx.Response:
        if request.url.path == "/login":
            assert request.headers["authorization"] == "Basic " + base64.b64encode(b"ada:pw").decode()
            self.logins += 1
            self.valid.add(f"token-{self.logins}")
            return json({"token": f"token-{self.logins}"})
        assert dict(request.url.params) == {"region": "CAISO_NORTH", "signal_type": "co2_moer"}
        if request.headers["authorization"].removeprefix("Bearer ") not in self.valid:
            return json({"error": "expired"}, 401)
        points = [
            {"point_time": (NOON + timedelta(minutes=5 * (i - 1))).isoformat(), "value": value}
            for i, value in enumerate(self.values)
        ]
        return json({"data": points, "meta": {"region": "CAISO_NORTH", "units": self.units}})


def watttime(server: WattTimeServer) -> WattTime:
    return WattTime(client(server), "CAISO_NORTH", "ada", "pw", now=lambda: NOON + timedelta(minutes=1))


async def test_watttime_converts_pounds_per_mwh_and_is_marginal() -> None:
    reading = await watttime(WattTimeServer()).latest()
    assert round(reading.grams_per_kwh, 3) == 187.107
    assert (reading.signal, reading.at, reading.quality) == ("marginal", NOON, Quality.ESTIMATED)


async def test_watttime_logs_in_once_and_renews_an_expired_token() -> None:
    server = WattTimeServer()
    source = watttime(server)
    await source.latest()
    await source.latest()
    assert server.logins == 1
    server.valid.clear()
    assert (await source.latest()).signal == "marginal"
    assert server.logins == 2


async def test_watttime_refuses_units_that_it_does_not_know() -> None:
    with pytest.raises(IntensityUnavailable, match="kg_per_mwh"):
        await watttime(WattTimeServer(units="kg_per_mwh")).latest()


async def test_watttime_skips_null_points() -> None:
    assert len(await watttime(WattTimeServer(values=(400.0, None, 420.0))).forecast()) == 2
    with pytest.raises(IntensityUnavailable, match="no value now"):
        await watttime(WattTimeServer(values=(None,))).latest()


# Great Britain


def uk(actual: Any, forecast: Any = 266) -> UkCarbonIntensity:
    row = {"from": "2026-03-01T12:00Z", "to": "2026-03-01T12:30Z",
           "intensity": {"forecast": forecast, "actual": actual, "index": "moderate"}}  # fmt: skip

    def answer(request: httpx.Request) -> httpx.Response:
        assert request.url.path in ("/intensity", "/intensity/2026-03-01T12:01Z/fw48h")
        return json({"data": [row]})

    return UkCarbonIntensity(client(answer), now=lambda: NOON + timedelta(minutes=1))


async def test_uk_actual_is_live() -> None:
    reading = await uk(263).latest()
    assert (reading.grams_per_kwh, reading.quality, reading.at) == (263.0, Quality.LIVE, NOON)


async def test_uk_null_actual_is_the_forecast_labelled_estimated_not_zero() -> None:
    reading = await uk(None).latest()
    assert (reading.grams_per_kwh, reading.quality) == (266.0, Quality.ESTIMATED)


async def test_uk_zero_is_a_figure_and_two_nulls_are_none() -> None:
    assert (await uk(0).latest()).grams_per_kwh == 0.0
    with pytest.raises(IntensityUnavailable):
        await uk(None, None).latest()


async def test_uk_forecast() -> None:
    (point,) = await uk(None).forecast()
    assert (point.grams_per_kwh, point.quality) == (266.0, Quality.FORECAST)


# traces


def trace(tmp_path: Path, text: str, when: datetime = NOON, **options: Any) -> CsvTrace:
    (tmp_path / "ca.csv").write_text(text)
    return CsvTrace(tmp_path / "ca.csv", "US-CAL-CISO", now=lambda: when, **options)


HOURS = "time,grams_per_kwh\n2026-03-01T11:00Z,210\n2026-03-01T12:00Z,220\n2026-03-01T13:00Z,230\n"
HOLED = HOURS + "2026-03-01T15:00Z,250\n2026-03-01T16:00Z,260\n"


async def test_trace_gives_the_row_of_the_moment_and_the_rows_ahead(tmp_path: Path) -> None:
    source = trace(tmp_path, HOURS, NOON + timedelta(minutes=59))
    assert (await source.latest()).grams_per_kwh == 220
    assert [point.grams_per_kwh for point in await source.forecast()] == [230]


def test_trace_repeats_when_asked(tmp_path: Path) -> None:
    assert trace(tmp_path, HOURS, repeat=True).at(NOON + timedelta(hours=3)).grams_per_kwh == 220
    with pytest.raises(IntensityUnavailable):
        trace(tmp_path, HOURS).at(NOON + timedelta(hours=3))


def test_trace_with_a_hole_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="hole: nothing between 2026-03-01T13:00:00"):
        trace(tmp_path, HOLED)


async def test_marked_hole_falls_back_under_its_own_label(tmp_path: Path) -> None:
    source = trace(tmp_path, HOLED, NOON + timedelta(hours=2, minutes=5), holes="mark")
    resilient = ResilientIntensity(source, StaticIntensity("USA"), now=lambda: NOON)
    reading = await resilient.latest()
    assert (reading.quality, reading.fallback_from) == (Quality.STATIC, "trace ca.csv")
    assert resilient.failures["latest"] == 1


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a,b\n1,2\n", "no column 'time'"),
        ("time,grams_per_kwh\n2026-03-01T11:00Z,210\n", "at least two"),
        (HOURS.replace("220", "many"), "line 3: grams_per_kwh 'many' is not a number"),
        (HOURS.replace("220", "-3"), "line 3: grams_per_kwh must be at least 0"),
        (HOURS.replace("220", ""), "line 3: no figure"),
        (HOURS.replace("2026-03-01T12:00Z", "noon"), "line 3: 'noon' is not an ISO 8601 time"),
        (HOURS.replace("T12:00Z", "T10:00Z"), "does not follow"),
    ],
)
def test_bad_trace_is_refused_with_its_line(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(BadInput, match=says):
        trace(tmp_path, text)


# caching and falling back


class Hand:
    """A clock turned by hand."""

    def __init__(self) -> None:
        self.time = NOON

    def __call__(self) -> datetime:
        return self.time

    def turn(self, **by: float) -> None:
        self.time += timedelta(**by)


async def test_readings_are_cached_and_then_asked_again() -> None:
    hand, source = Hand(), ScriptedIntensity(100.0)
    resilient = ResilientIntensity(source, None, now=hand)
    for _ in range(3):
        await resilient.latest()
    assert source.calls == 1
    hand.turn(minutes=6)
    source.grams_per_kwh = 90.0
    assert (await resilient.latest()).grams_per_kwh == 90.0
    assert resilient.served == {Quality.SCRIPTED: 4}


async def test_many_waiters_ask_the_source_once() -> None:
    source = ScriptedIntensity(100.0)
    resilient = ResilientIntensity(source, None, now=Hand())
    await asyncio.gather(*(resilient.latest() for _ in range(20)))
    assert source.calls == 1


async def test_failing_source_is_stale_first_then_static_and_counted() -> None:
    hand, source = Hand(), ScriptedIntensity(100.0)
    resilient = ResilientIntensity(source, StaticIntensity("FRA"), now=hand)
    await resilient.latest()
    source.grams_per_kwh = None
    hand.turn(minutes=10)
    stale = await resilient.latest()
    assert (stale.grams_per_kwh, stale.quality) == (100.0, Quality.STALE)
    hand.turn(hours=2)
    fallen = await resilient.latest()
    assert (fallen.grams_per_kwh, fallen.quality, fallen.fallback_from) == (56.039, Quality.STATIC, "scripted")
    assert resilient.failures["latest"] == 2
    source.grams_per_kwh = 70.0
    hand.turn(minutes=1)
    assert (await resilient.latest()).fallback_from is None


async def test_a_failing_source_is_not_hammered() -> None:
    hand, source = Hand(), ScriptedIntensity(None)
    resilient = ResilientIntensity(source, StaticIntensity("FRA"), now=hand)
    for _ in range(5):
        await resilient.latest()
    assert source.calls == 1
    hand.turn(seconds=31)
    await resilient.latest()
    assert source.calls == 2


async def test_an_old_figure_from_a_healthy_source_is_labelled_stale() -> None:
    hand = Hand()
    hand.turn(hours=5)
    assert (await ResilientIntensity(maps(), None, now=hand).latest()).quality is Quality.STALE


async def test_a_hanging_source_times_out() -> None:
    class Hanging(ScriptedIntensity):
        async def latest(self) -> IntensityReading:
            await asyncio.Event().wait()
            raise AssertionError

    resilient = ResilientIntensity(Hanging(1.0), StaticIntensity("FRA"), now=Hand(), timeout_seconds=0.001)
    assert (await resilient.latest()).quality is Quality.STATIC


def test_average_never_stands_in_for_marginal() -> None:
    with pytest.raises(BadInput, match="never mixed"):
        ResilientIntensity(ScriptedIntensity(1.0, signal="marginal"), StaticIntensity("USA"))


async def test_marginal_source_without_fallback_fails_openly() -> None:
    with pytest.raises(IntensityUnavailable, match="no fallback of the same signal"):
        await ResilientIntensity(ScriptedIntensity(None, signal="marginal"), None, now=Hand()).latest()


async def test_forecast_is_cached_and_drops_what_has_passed() -> None:
    ahead = [
        IntensityReading(float(hour), "x", "s", Quality.FORECAST, at=NOON + timedelta(hours=hour)) for hour in range(3)
    ]
    hand = Hand()
    resilient = ResilientIntensity(ScriptedIntensity(1.0, forecast=ahead), None, now=hand)
    assert len(await resilient.forecast()) == 3
    hand.turn(minutes=90)
    assert [point.grams_per_kwh for point in await resilient.forecast()] == [2.0]


# choosing by name


@pytest.mark.parametrize(
    ("source", "zone", "options", "label", "signal"),
    [
        ("static", "FRA", {}, "codecarbon 3.3.2 global_energy_mix (2023)", "average"),
        ("static", "roof", {"grams_per_kwh": 5.0}, "configured", "average"),
        ("electricitymaps", "US-CAL-CISO", {"token": "t"}, "electricitymaps", "average"),
        ("uk", "", {}, "carbonintensity.org.uk", "average"),
        ("watttime", "CAISO_NORTH", {"username": "u", "password": "p"}, "watttime co2_moer", "marginal"),
    ],
)
def test_a_source_is_chosen_by_name(source: str, zone: str, options: dict[str, Any], label: str, signal: str) -> None:
    chosen = choose_intensity(source, zone, client=client(lambda _: json({})), **options)
    assert (chosen.source, chosen.signal) == (label, signal)


async def test_a_chosen_live_source_that_fails_gives_its_country_s_mean() -> None:
    chosen = choose_intensity("electricitymaps", "DE", client=client(lambda _: json({}, 500)), token="t")
    reading = await chosen.latest()
    assert (reading.grams_per_kwh, reading.fallback_from) == (380.95, "electricitymaps")


@pytest.mark.parametrize(
    ("source", "zone", "options", "says"),
    [
        ("electricitymap", "DE", {}, "unknown intensity source 'electricitymap'; nearest: electricitymaps"),
        ("electricitymaps", "DE", {}, "needs a token"),
        ("watttime", "CAISO_NORTH", {"username": "u"}, "needs a username and a password"),
        ("trace", "DE", {}, "needs a CSV file"),
        ("electricitymaps", "Atlantis", {"token": "t"}, "unknown zone 'Atlantis'"),
    ],
)
def test_a_choice_that_cannot_work_is_refused(source: str, zone: str, options: dict[str, Any], says: str) -> None:
    with pytest.raises(BadInput, match=says):
        choose_intensity(source, zone, client=client(lambda _: json({})), **options)


def test_a_live_source_needs_a_client() -> None:
    with pytest.raises(BadInput, match="needs an HTTP client"):
        choose_intensity("uk", "")
