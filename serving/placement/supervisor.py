"""A whole gateway on this machine, from nothing to ready and back to nothing."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import platformdirs
import psutil
from pydantic import SecretStr

from serving.config import GatewayConfig
from serving.engines.base import EngineStartError
from serving.engines.settings import EngineSettings
from serving.engines.vllm import engine_cores, has_gpu, look_for
from serving.placement import ray_runtime
from serving.placement.applications import GATEWAY, Application, ApplicationFailed, run_applications
from serving.placement.caching import new_secret
from serving.placement.calibration import ensure_calibration
from serving.placement.gpus import check_gpus, gpus_here
from serving.placement.janitor import RUN_VARIABLE
from serving.placement.kept_events import keep_events
from serving.placement.model_replica import model_deployment
from serving.placement.placed import InternalLink, PlacedModel, placed_models
from serving.placement.processes import adopt_orphans, reap_adopted
from serving.placement.redis_servers import AccountsUnavailable, RedisServers, RedisUrls
from serving.placement.replica import serve_deployment
from serving.placement.run_folder import RunFolder, Started
from serving.reload import told, with_live

log = logging.getLogger("wattgate")


class StartError(Exception):
    """The gateway did not start; one readable line."""


class Supervisor(Started):
    """Starts Redis, Ray, Serve and the replicas; ``close`` ends all of it and removes its files.

    Use it as a context manager from the main thread. ``tell`` gets progress, a line at a time.
    """

    def __init__(self, config: GatewayConfig, tell: Callable[[str], None], start_timeout_seconds: float = 900) -> None:
        self.config = config
        self._asked = config
        """Without what is drawn and found at the start, and with what was applied since."""
        self._tell = tell
        self._start_timeout_seconds = start_timeout_seconds
        self._folder: RunFolder | None = None
        self._redis: RedisServers | None = None
        self._redis_urls = RedisUrls()
        self._own: frozenset[int] = frozenset()
        """Children that others here wait for."""
        self._notices_read = 0
        self._placed: tuple[PlacedModel, ...] = ()
        self._link: InternalLink | None = None

    @property
    def url(self) -> str:
        host = self.config.server.host
        return f"http://{'127.0.0.1' if host in ('0.0.0.0', '::') else host}:{self.config.server.port}"

    @property
    def run_folder(self) -> Path:
        assert self._folder is not None, "not started"
        return self._folder.path

    def start(self) -> None:
        """Returns when the engine can answer.

        Raises:
            StartError: with the cause and the mend.
            ConfigError: more GPUs than this machine has.
        """
        config = self.config
        check_gpus(config, gpus_here())
        adopt_orphans()
        any_port = config.server.port == 0
        if any_port:
            port = ray_runtime.lasting_port(config.server.host)
            config = config.model_copy(update={"server": config.server.model_copy(update={"port": port})})
        if config.cache.tenant_secret is None:
            drawn = config.cache.model_copy(update={"tenant_secret": SecretStr(new_secret())})
            config = config.model_copy(update={"cache": drawn})
        self.config = config
        self._check_port()
        self._placed = placed_models(config)
        engines = [one.settings.engine for one in self._placed] or [config.engine]
        _check_models(engines)
        self._folder = RunFolder()
        if any_port:
            self.config = config = _ends_with_the_run(config, self.run_folder)
        else:
            self._keep_events()
        os.environ[RUN_VARIABLE] = str(self.run_folder)
        self._calibrate(engines)
        self._redis = RedisServers(config, self.run_folder, self._tell)
        try:
            self._redis_urls = self._redis.start()
        except AccountsUnavailable as error:
            raise StartError(str(error)) from None
        self._tell("starting Ray Serve and its HAProxy")
        variables = ray_runtime.environment(
            self.run_folder,
            longest_request_seconds=config.server.request_timeout_seconds,
            affinity=config.server.affinity if config.server.replicas > 1 else "none",
        )
        try:
            ray_runtime.start_ray(self.run_folder, variables)
            ray_runtime.start_serve(config.server.host, config.server.port)
        # Ray raises no type of its own where a process of it is late
        except Exception as error:
            raise StartError(
                f"Ray did not start: {ray_runtime.reason(error)}\n  with other work on the machine (load "
                f"{os.getloadavg()[0]:.0f} on {os.cpu_count()} cores) it may only have been late: start again once "
                "that is done"
            ) from error
        self._own = frozenset(child.pid for child in psutil.Process().children())
        self._deploy()

    def _calibrate(self, engines: Iterable[EngineSettings]) -> None:
        if has_gpu():
            return
        available = sorted(os.sched_getaffinity(0))
        # the same cores are measured once
        for cores in {engine_cores(engine.vllm, available): None for engine in engines if engine.kind == "vllm"}:
            ensure_calibration(cores, self._tell)

    def _keep_events(self) -> None:
        try:
            keep_events(self.run_folder, Path(platformdirs.user_data_dir("wattgate")), self.config)
        except OSError as error:
            self._tell(f"the events end with this run: {error}")

    def _check_port(self) -> None:
        server = self.config.server
        try:
            ray_runtime.free_port(server.host, server.port)
        except OSError as error:
            raise StartError(
                f"cannot listen on {server.host}:{server.port}: {error.strerror}; "
                "choose another with --port, or 0 for a free one"
            ) from None

    def _deploy(self) -> None:
        self._link = link = InternalLink(self.url, SecretStr(new_secret()))
        models = [
            Application(one.application, one.route, model_deployment(self.config, one, self.run_folder, link))
            for one in self._placed
            if one.apart
        ]
        gateway = Application(GATEWAY, "/", self._gateway())

        until = time.monotonic() + self._start_timeout_seconds

        def look() -> None:
            # Ray Serve retries a failing constructor for long; the notices say at once why
            if failure := self._read_notices():
                raise StartError(failure)
            if time.monotonic() > until:
                raise StartError(f"not ready after {self._start_timeout_seconds:.0f} s; see {self.run_folder}/ray")

        try:
            # the gateway looks for the models when it starts
            run_applications(models, look)
            run_applications([gateway], look)
        except ApplicationFailed as error:
            look()
            raise StartError(f"Ray Serve could not start the gateway: {error}") from None
        look()

    def _read_notices(self) -> str | None:
        """Pass progress on; return the reason if a replica failed."""
        path = self.run_folder / "notices.jsonl"
        if not path.exists():
            return None
        lines = path.read_text(encoding="utf-8").splitlines()
        for line in lines[self._notices_read :]:
            with contextlib.suppress(json.JSONDecodeError):
                notice = json.loads(line)
                if notice["kind"] == "detail":
                    log.error("%s", notice["text"])
                if notice["kind"] == "failed":
                    return str(notice["text"])
                if notice["kind"] == "progress":
                    self._tell(notice["text"])
        self._notices_read = len(lines)
        return None

    def watch(self) -> None:
        """Pass on what replicas have to say while they run (a replacement loading, say), bury adopted dead, and bring
        back what has died and nobody else looks after.
        """
        reap_adopted(self._own)
        if self._redis is not None:
            self._redis.watch()
        if failure := self._read_notices():
            self._tell(f"a replica failed to start: {failure}")

    def apply(self, config: GatewayConfig) -> list[str]:
        """Change the live settings (admission, the controller, the tenants' grants) without a restart; says in lines
        what was changed, and what was not.
        """
        lines = told(self._asked, config, accounts_shared=self._redis_urls.accounts is not None)
        self._asked, self.config = with_live(self._asked, config), with_live(self.config, config)
        run_applications([Application(GATEWAY, "/", self._gateway())])
        return lines

    def _gateway(self) -> Any:
        return serve_deployment(self.config, self._redis_urls, self._link)

    def close(self) -> None:
        """Idempotent; ends every process below this one and removes the run's files."""
        if self._folder is None:
            return
        with contextlib.suppress(Exception):
            # the gateway first: what it has accepted still needs the models
            ray_runtime.stop_all([GATEWAY, *(one.application for one in self._placed if one.apart)])
        if self._redis is not None:
            self._redis.close()
            self._redis = None
        os.environ.pop(RUN_VARIABLE, None)
        self._folder.close()
        self._folder = None


def _ends_with_the_run(config: GatewayConfig, run_folder: Path) -> GatewayConfig:
    """What would be kept by port goes below the run: nobody can come back to a port that was free by chance."""
    batches, limits = config.batches, config.limits
    return config.model_copy(
        update={
            "batches": batches.model_copy(update={"folder": batches.folder or run_folder / "batches"}),
            "limits": limits.model_copy(update={"folder": limits.folder or run_folder / "accounts"}),
        }
    )


def _check_models(engines: Iterable[EngineSettings]) -> None:
    """A wrong folder is told at once, and not after Ray's start."""
    try:
        for engine in engines:
            if engine.kind == "vllm":
                look_for(engine.model)
    except EngineStartError as error:
        raise StartError(str(error)) from None
