"""What a setting is tried on: a gateway that runs, or the simulator."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np

from metering.errors import BadInput
from metering.hardware.device import DetectedHardware
from metering.intensity.static import StaticIntensity
from metering.shape import ModelArchitecture
from metering.site import Prices, Site
from serving.config import GatewayConfig
from serving.engines.settings import EngineSettings
from serving.tuning.engine_fit import UNKNOWN_DEVICE, fit_engine_model
from serving.tuning.engine_model import EngineModel
from serving.tuning.fitting import records_of
from serving.tuning.forecast import forecast
from serving.tuning.outcome import Outcome
from serving.tuning.setting import Setting
from serving.tuning.simulation import Limits, simulate
from serving.tuning.slo import Slo
from serving.tuning.statistics import DevicePeaks, summarise
from serving.tuning.step_log import StepRecord, read_steps
from serving.tuning.workload import Workload
from serving.without_secrets import address_alone

_Seen = TypeVar("_Seen")
_UNDECIDED = 10
"""Answers before a run may be called hopeless."""
_BATCHED_TOKENS = 2048
"""Tokens in a step where the configuration leaves them to vLLM (its choice on a CPU)."""
_NOT_SIMULATED = ("chunked_prefill", "dtype", "model")
_SLOWEST = 3.0
"""In a closed loop the same requests are over sooner the more tokens/s there are. A run that takes this many times
the shortest is ended: it has under a third of the tokens/s, and an engine draws more than a third of its power."""


class CannotStart(Exception):
    """No gateway with this setting; one readable line."""


class Bench(Protocol):
    """Runs workloads under settings; figures have the names of :func:`serving.tuning.statistics.summarise`."""

    @property
    def identity(self) -> str:
        """Model, device and method: a study of another is not continued."""

    def run(self, setting: Setting, workload: Workload, *, seed: int, hopeless: bool) -> dict[str, Any]:
        """One run; ``hopeless``: may end early (and says ``stopped_early``) once the SLO cannot be met any more."""

    def predict(self, settings: Sequence[Setting], workload: Workload) -> list[dict[str, Any]] | None:
        """Figures under each setting by an engine model of the runs so far; None while there is none."""

    def close(self) -> None: ...


class RunningGateway(Protocol):
    """A started gateway; ``serving.placement.supervisor.Supervisor`` is one."""

    @property
    def url(self) -> str: ...

    @property
    def run_folder(self) -> Path | None:
        """Where its engine's steps are; None: out of reach."""

    def apply(self, config: GatewayConfig) -> object:
        """Change the live settings."""

    def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Elsewhere:
    """What a bench has to know of a gateway that is not its own."""

    name: str
    """Of the model and its place: a study of another is not continued."""
    model: str
    api_key: str | None = field(default=None, repr=False)
    admin_key: str | None = field(default=None, repr=False)
    """For its MFU and MBU: what it runs on is not known here."""
    confirm: Callable[[], None] = lambda: None
    """Raises ``GatewayAway`` where a run that is over does not count."""


Starter = Callable[[GatewayConfig, Callable[[str], None]], RunningGateway]


def start_supervised(config: GatewayConfig, tell: Callable[[str], None]) -> RunningGateway:
    """A whole gateway on this machine, ready; nothing is left of one that did not start.

    Raises:
        CannotStart: with the cause and the mend.
    """
    from serving.placement.supervisor import StartError, Supervisor

    supervisor = Supervisor(config, tell)
    try:
        supervisor.start()
    except BaseException as error:
        supervisor.close()
        if isinstance(error, StartError):
            raise CannotStart(str(error)) from error
        raise
    return supervisor


class Hopeless:
    """Counts answers that break a bound; true once more of them have than the percentile allows of all."""

    def __init__(self, slo: Slo, requests: int) -> None:
        self._slo = slo
        self._requests = requests
        self._broken = dict.fromkeys(slo.bounds, 0)
        self._seen = 0

    def __call__(self, outcome: Outcome) -> None:
        self._seen += 1
        values = {"ttft": outcome.ttft_seconds, "e2e": outcome.e2e_seconds, "itl": outcome.per_token_seconds}
        for bound in self._slo.bounds:
            # percentiles of gaps are over tokens, not requests: a mean that is far above tells enough
            allowed = bound.seconds * (2 if bound.metric == "itl" else 1)
            value = values[bound.metric]
            if outcome.error is not None or (value is not None and value > allowed):
                self._broken[bound] += 1

    def __bool__(self) -> bool:
        if self._seen < min(_UNDECIDED, self._requests):
            return False
        return any(count > (1 - bound.percentile / 100) * self._requests + 1 for bound, count in self._broken.items())


def predicted(
    engine: EngineModel, setting: Setting, workload: Workload, clients: int | None, slo: Slo, site: Site
) -> dict[str, Any]:
    """A setting's figures by simulation; precision is not known to it."""
    replicas = setting.replicas or 1
    limits = Limits(
        setting.cap,
        max(setting.cap, setting.max_batched_tokens or _BATCHED_TOKENS),
        prefix_caching=setting.prefix_caching is not False,
    )
    loop = None if clients is None else max(clients, replicas)
    return forecast(workload, engine, simulate(workload, engine, limits, replicas=replicas, clients=loop), slo, site)


def _as_counted(workload: Workload, run: Mapping[str, Any]) -> Workload:
    """With prompts longer by what the chat template and the tokeniser added in that run, in the mean."""
    if not run["completed"]:
        return workload
    added = round(run["prompt_tokens"] / run["completed"] - float(workload.prompt_tokens.mean()))
    prompts = np.maximum(1, np.maximum(workload.prompt_tokens + added, workload.prefix_tokens))
    return replace(workload, prompt_tokens=prompts)


@dataclass
class SimulatedBench:
    """The simulator behind a fitted engine model. Precision and chunked prefill are not in it: a setting's figures
    name, under ``ignored``, those that it has.
    """

    engine: EngineModel
    site: Site
    slo: Slo
    clients: int | None = None
    """Closed loop of so many; None: the workload's own arrivals."""

    @property
    def identity(self) -> str:
        return f"simulated: {self.engine.model} on {self.engine.devices} x {self.engine.device}"

    def run(self, setting: Setting, workload: Workload, *, seed: int, hopeless: bool) -> dict[str, Any]:
        figures = predicted(self.engine, setting, workload, self.clients, self.slo, self.site)
        ignored = [name for name in _NOT_SIMULATED if getattr(setting, name) not in (None, "auto")]
        return {**figures, "ignored": ignored, "stopped_early": False}

    def predict(self, settings: Sequence[Setting], workload: Workload) -> list[dict[str, Any]] | None:
        # a simulation that guides itself would know the answer
        return None

    def close(self) -> None:
        return None


def _what_answers(engine: EngineSettings) -> str:
    """The model or the server, not only the name that clients ask for: two may be served under one name."""
    name = engine.served_model_name
    if engine.kind == "simulated":
        return name or engine.model
    found = engine.model if engine.kind == "vllm" else address_alone(engine.upstream.url)
    return found if name is None else f"{found} as {name}"


def _like(setting: Setting | None, pairs: Sequence[tuple[Setting, _Seen]]) -> list[_Seen]:
    """What was seen under the restarting knobs of ``setting``; None: under any."""
    return [seen for under, seen in pairs if setting is None or not setting.restarts(under)]


class GatewayBench:
    """A gateway of its own on this machine: started once, its cap moved live, restarted only for the other knobs. Or
    one ``elsewhere``, of which ``start`` moves the cap only.

    Use from the main thread. ``clients``: closed loop of so many, None for the workload's own arrivals.
    """

    def __init__(
        self,
        config: GatewayConfig,
        slo: Slo,
        hardware: DetectedHardware | None,
        most_cap: int,
        tell: Callable[[str], None],
        *,
        architecture: ModelArchitecture | None = None,
        clients: int | None = None,
        warm_up_requests: int = 8,
        start: Starter = start_supervised,
        elsewhere: Elsewhere | None = None,
        on_outcome: Callable[[Outcome], None] = lambda outcome: None,
    ) -> None:
        self._config = config
        self._slo = slo
        self._hardware = hardware
        self._architecture = architecture
        self._most_cap = most_cap
        self._tell = tell
        self.clients = clients
        self.warm_up_requests = warm_up_requests
        peak = None if hardware is None else hardware.peak_for(self._precision(config.engine.vllm.dtype))
        # whatever the number of replicas: on a CPU they compute on the same cores, and this is those cores' peak
        self._peaks = DevicePeaks(peak.value if peak else None)
        self._on_outcome = on_outcome
        self._start = start
        self._elsewhere = elsewhere
        self._gateway: RunningGateway | None = None
        self._setting: Setting | None = None
        self._shortest: dict[int, float] = {}
        """Seconds of the shortest complete run, by requests."""
        self._runs: list[tuple[Setting, dict[str, Any]]] = []
        self.last_outcomes: Sequence[Outcome] = ()
        self._engine_steps: list[tuple[Setting, StepRecord]] = []
        self._seen_steps: list[tuple[Setting, StepRecord]] = []

    def _precision(self, asked: str) -> str:
        """The engine's own choice, where the configuration leaves it to it."""
        on_cpu = self._hardware is not None and self._hardware.kind == "cpu"
        return ("float32" if on_cpu else "bfloat16") if asked == "auto" else asked

    @property
    def steps(self) -> list[StepRecord]:
        """Of all runs so far: the engine's own, or, where it tells none, as the clients saw them."""
        return self._steps_like(None)

    def _steps_like(self, setting: Setting | None) -> list[StepRecord]:
        """Those under the restarting knobs of ``setting``; None: all."""
        own = _like(setting, self._engine_steps + self._running_steps())
        return own or _like(setting, self._seen_steps)

    def _running_steps(self) -> list[tuple[Setting, StepRecord]]:
        if self._gateway is None or self._setting is None or self._gateway.run_folder is None:
            return []
        steps = read_steps(self._gateway.run_folder).values()
        return [(self._setting, record) for records in steps for record in records]

    @property
    def identity(self) -> str:
        if self._elsewhere is not None:
            return self._elsewhere.name
        engine = self._config.engine
        device = UNKNOWN_DEVICE if self._hardware is None else self._hardware.name
        return f"{engine.kind}: {_what_answers(engine)} on {device}"

    def run(self, setting: Setting, workload: Workload, *, seed: int, hopeless: bool) -> dict[str, Any]:
        """
        Raises:
            CannotStart: the gateway does not start with this setting.
            GatewayAway: it went away.
        """
        from serving.tuning.measure import Drive, measure
        from serving.tuning.utilisation import UtilisationWatch

        gateway = self._prepare(setting)
        lost = Hopeless(self._slo, len(workload))

        def told(outcome: Outcome) -> None:
            lost(outcome)
            self._on_outcome(outcome)

        there = self._elsewhere
        drive = Drive(
            clients=self.clients,
            warm_up_requests=self.warm_up_requests,
            use_cache=False,
            api_key=self._own_key() if there is None else there.api_key,
            seed=seed,
        )
        watch = None if there is None else UtilisationWatch(there.admin_key)
        began = time.monotonic()
        longest = _SLOWEST * self._shortest.get(len(workload), math.inf) if self.clients is not None else math.inf

        def stop() -> bool:
            return hopeless and (bool(lost) or time.monotonic() - began > longest)

        model = None if there is None else there.model
        _, outcomes = asyncio.run(measure(gateway.url, workload, drive, told, model=model, stop=stop, watch=watch))
        if there is not None:
            there.confirm()
        self.last_outcomes = outcomes
        self._seen_steps += [(setting, record) for record in records_of(outcomes)]
        figures = summarise(outcomes, self._slo, self._peaks) | ({} if watch is None else watch.figures())
        stopped = len(outcomes) < len(workload)
        if not stopped:
            self._shortest[len(workload)] = min(figures["seconds"], self._shortest.get(len(workload), math.inf))
        self._runs.append((setting, {**figures, "clients": self.clients}))
        return {**figures, "stopped_early": stopped}

    def _own_key(self) -> str | None:
        keys = self._config.access.api_keys
        return next(iter(keys.values())).get_secret_value() if keys else None

    def engine_model(self, setting: Setting | None = None) -> EngineModel | None:
        """Fitted to the runs under the restarting knobs of ``setting``, as another precision is another engine; None:
        to all so far. None where their steps are too few or too alike.
        """
        engine = self._config.engine
        dtype = engine.vllm.dtype if setting is None or setting.dtype is None else setting.dtype
        variant = None if setting is None else setting.model
        named = Path((variant or engine.model).removeprefix("bundled:")).name
        try:
            return fit_engine_model(
                self._steps_like(setting),
                # a variant is another engine, whatever name it is served under
                model=named if variant is not None else engine.served_model_name or named,
                hardware=self._hardware,
                precision=self._precision(dtype),
                # the configured model's: a variant's MFU is better unknown than another model's
                architecture=self._architecture if variant is None else None,
                runs=_like(setting, self._runs),
                source="the runs of wattgate tune",
            )
        except BadInput:
            return None

    def predict(self, settings: Sequence[Setting], workload: Workload) -> list[dict[str, Any]] | None:
        # all runs: a rough guide to settings of which none may have run yet
        model = self.engine_model()
        if model is None:
            return None
        metering = self._config.metering
        prices = Prices(metering.price_per_device_hour, metering.price_per_kwh)
        site = Site(StaticIntensity("WORLD").reading, prices=prices)
        workload = _as_counted(workload, self._runs[-1][1])
        return [predicted(model, setting, workload, self.clients, self._slo, site) for setting in settings]

    def _prepare(self, setting: Setting) -> RunningGateway:
        config = setting.applied(self._config, self._most_cap)
        if self._gateway is not None and self._setting is not None and not setting.restarts(self._setting):
            if setting != self._setting:
                self._gateway.apply(config)
        else:
            self.close()
            if self._elsewhere is None:
                self._tell(f"starting a gateway: {setting}")
            self._gateway = self._start(config, self._tell)
        self._setting = setting
        return self._gateway

    def close(self) -> None:
        if self._gateway is not None:
            self._engine_steps += self._running_steps()
            self._gateway.close()
            self._gateway = None
            self._setting = None
