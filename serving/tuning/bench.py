"""What a setting is tried on: a gateway that runs, or the simulator."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from metering.site import Site
from serving.config import GatewayConfig
from serving.tuning.engine_model import EngineModel
from serving.tuning.fitting import StepRecord, records_of
from serving.tuning.forecast import forecast
from serving.tuning.outcome import Outcome
from serving.tuning.setting import Setting
from serving.tuning.simulation import Limits, simulate
from serving.tuning.slo import Slo
from serving.tuning.statistics import DevicePeaks, summarise
from serving.tuning.workload import Workload

_UNDECIDED = 10
"""Answers before a run may be called hopeless."""


class Bench(Protocol):
    """Runs workloads under settings; figures have the names of :func:`serving.tuning.statistics.summarise`."""

    @property
    def identity(self) -> str:
        """Model, device and method: a study of another is not continued."""

    def run(self, setting: Setting, workload: Workload, *, seed: int, hopeless: bool) -> dict[str, Any]:
        """One run; ``hopeless``: may end early (and says ``stopped_early``) once the SLO cannot be met any more."""

    def close(self) -> None: ...


class RunningGateway(Protocol):
    """A started gateway; ``serving.placement.supervisor.Supervisor`` is one."""

    @property
    def url(self) -> str: ...

    def apply(self, config: GatewayConfig) -> None:
        """Change the live settings."""

    def close(self) -> None: ...


Starter = Callable[[GatewayConfig, Callable[[str], None]], RunningGateway]


def start_supervised(config: GatewayConfig, tell: Callable[[str], None]) -> RunningGateway:
    """A whole gateway on this machine, ready; nothing is left of one that did not start.

    Raises:
        StartError: with the cause and the mend.
    """
    from serving.placement.supervisor import Supervisor

    supervisor = Supervisor(config, tell)
    try:
        supervisor.start()
    except BaseException:
        supervisor.close()
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


@dataclass
class SimulatedBench:
    """The simulator behind a fitted engine model; knobs it does not know are ignored and said so by its figures."""

    engine: EngineModel
    site: Site
    slo: Slo

    @property
    def identity(self) -> str:
        return f"simulated: {self.engine.model} on {self.engine.devices} x {self.engine.device}"

    def run(self, setting: Setting, workload: Workload, *, seed: int, hopeless: bool) -> dict[str, Any]:
        limits = Limits(
            setting.cap,
            max(setting.cap, setting.max_batched_tokens or 2048),
            prefix_caching=setting.prefix_caching is not False,
        )
        run = simulate(workload, self.engine, limits, replicas=setting.replicas or 1)
        return {**forecast(workload, self.engine, run, self.slo, self.site), "stopped_early": False}

    def close(self) -> None:
        return None


class GatewayBench:
    """A gateway of its own on this machine: started once, its cap moved live, restarted only for the other knobs.

    Use from the main thread. ``clients``: closed loop of so many, None for the workload's own arrivals.
    """

    def __init__(
        self,
        config: GatewayConfig,
        slo: Slo,
        device: str,
        most_cap: int,
        tell: Callable[[str], None],
        *,
        clients: int | None = None,
        warm_up_requests: int = 8,
        peaks: DevicePeaks | None = None,
        start: Starter = start_supervised,
        on_outcome: Callable[[Outcome], None] = lambda outcome: None,
    ) -> None:
        self._config = config
        self._slo = slo
        self._device = device
        self._most_cap = most_cap
        self._tell = tell
        self.clients = clients
        self.warm_up_requests = warm_up_requests
        self._peaks = peaks or DevicePeaks()
        self._on_outcome = on_outcome
        self._start = start
        self._gateway: RunningGateway | None = None
        self._setting: Setting | None = None
        self.last_outcomes: Sequence[Outcome] = ()
        self.steps: list[StepRecord] = []
        """Of all runs so far: what an engine model is fitted to."""

    @property
    def identity(self) -> str:
        engine = self._config.engine
        return f"{engine.kind}: {engine.served_model_name or engine.model} on {self._device}"

    def run(self, setting: Setting, workload: Workload, *, seed: int, hopeless: bool) -> dict[str, Any]:
        """
        Raises:
            StartError: the gateway does not start with this setting.
            GatewayAway: it went away.
        """
        from serving.tuning.measure import Drive, measure

        gateway = self._prepare(setting)
        lost = Hopeless(self._slo, len(workload))

        def told(outcome: Outcome) -> None:
            lost(outcome)
            self._on_outcome(outcome)

        keys = self._config.access.api_keys
        key = next(iter(keys.values())).get_secret_value() if keys else None
        drive = Drive(
            clients=self.clients, warm_up_requests=self.warm_up_requests, use_cache=False, api_key=key, seed=seed
        )
        _, outcomes = asyncio.run(measure(gateway.url, workload, drive, told, stop=lambda: hopeless and bool(lost)))
        self.last_outcomes = outcomes
        self.steps += records_of(outcomes)
        stopped = len(outcomes) < len(workload)
        return {**summarise(outcomes, self._slo, self._peaks), "stopped_early": stopped}

    def _prepare(self, setting: Setting) -> RunningGateway:
        config = setting.applied(self._config, self._most_cap)
        if self._gateway is not None and self._setting is not None and not setting.restarts(self._setting):
            if setting != self._setting:
                self._gateway.apply(config)
        else:
            self.close()
            self._tell(f"starting a gateway: {setting}")
            self._gateway = self._start(config, self._tell)
        self._setting = setting
        return self._gateway

    def close(self) -> None:
        if self._gateway is not None:
            self._gateway.close()
            self._gateway = None
            self._setting = None
