import asyncio
import json
import threading
from dataclasses import replace

import pytest
from aiohttp import web

from metering.architecture import load_architecture
from metering.hardware.device import DetectedHardware, Device
from metering.work import EngineSteps
from serving.bundled_model import bundled_model_folder
from serving.config_sources import load_config
from serving.tuning import measure
from serving.tuning.bench import Elsewhere, GatewayBench
from serving.tuning.lengths import Lengths
from serving.tuning.measure import GatewayAway
from serving.tuning.outcome import Outcome
from serving.tuning.setting import Setting
from serving.tuning.slo import Slo
from serving.tuning.step_log import StepLog, StepRecord
from serving.tuning.synthetic import Synthetic

WORKLOAD = Synthetic(30, 300.0, Lengths("fixed", 8), Lengths("fixed", 3)).workload()


class FakeGateway:
    """An HTTP server in a thread that answers at once; remembers the configs that it was given."""

    def __init__(self, config, run_folder):
        self.configs, self.closed, self.asked = [config], False, 0
        self.run_folder = run_folder
        self._loop = asyncio.new_event_loop()
        ready = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(ready,), daemon=True)
        self._thread.start()
        ready.wait(10)

    def _run(self, ready):
        asyncio.set_event_loop(self._loop)
        app = web.Application()
        app.router.add_get("/v1/models", self._models)
        app.router.add_post("/v1/chat/completions", self._chat)
        self._runner = web.AppRunner(app)
        self._loop.run_until_complete(self._runner.setup())
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        self._loop.run_until_complete(site.start())
        self.url = f"http://127.0.0.1:{site._server.sockets[0].getsockname()[1]}"
        ready.set()
        self._loop.run_forever()
        self._loop.run_until_complete(self._runner.cleanup())
        self._loop.close()

    async def _models(self, request):
        return web.json_response({"data": [{"id": "m"}]})

    async def _chat(self, request):
        self.asked += 1
        frames = b'data: {"choices":[{"delta":{"content":"x"}}]}\n\n' * 3
        usage = json.dumps({"choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": 3}}).encode()
        return web.Response(body=frames + b"data: " + usage + b"\n\ndata: [DONE]\n\n", content_type="text/event-stream")

    def apply(self, config):
        self.configs.append(config)

    def close(self):
        self.closed = True
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)


@pytest.fixture
def started(monkeypatch):
    monkeypatch.setattr(measure, "SETTLE_SECONDS", 0.0)
    return []


@pytest.fixture
def folder(tmp_path):
    return tmp_path


def bench_of(started, folder, slo=None, architecture=None):
    def start(config, tell):
        run_folder = folder / str(len(started))
        run_folder.mkdir()
        started.append(FakeGateway(config, run_folder))
        return started[-1]

    config = load_config(None, {"cache.tier": "off"}, environment={}).config
    return GatewayBench(
        config,
        slo or Slo(),
        DetectedHardware(Device("a cpu", "cpu")),
        48,
        lambda text: None,
        architecture=architecture,
        clients=4,
        warm_up_requests=2,
        start=start,
    )


def test_the_cap_moves_on_the_running_gateway_and_other_knobs_restart_it(started, folder):
    bench = bench_of(started, folder)
    for setting in (Setting(4), Setting(8), Setting(8), Setting(8, max_batched_tokens=64)):
        figures = bench.run(setting, WORKLOAD, seed=0, hopeless=False)
        assert figures["completed"] == 30
    bench.close()
    assert len(started) == 2
    assert [config.admission.max_concurrency for config in started[0].configs] == [4, 8]
    assert all(config.engine.vllm.max_batch == 48 for config in started[0].configs)
    assert started[1].configs[0].engine.vllm.max_batched_tokens == 64
    assert started[0].closed
    assert started[1].closed


def test_warm_up_requests_come_before_every_run(started, folder):
    bench = bench_of(started, folder)
    bench.run(Setting(4), WORKLOAD, seed=0, hopeless=False)
    bench.close()
    assert started[0].asked == 32


def test_a_hopeless_run_ends_early_and_says_so(started, folder):
    slo = Slo.parse(["e2e_p95<=0.000001s"])
    bench = bench_of(started, folder, slo)
    figures = bench.run(Setting(4), WORKLOAD, seed=0, hopeless=True)
    patient = bench.run(Setting(4), WORKLOAD, seed=0, hopeless=False)
    bench.close()
    assert figures["stopped_early"]
    assert figures["requests"] < 30
    assert not patient["stopped_early"]


def test_the_identity_names_model_and_device(started, folder):
    assert bench_of(started, folder).identity == "vllm: bundled:smollm2-135m-instruct on a cpu"


def test_the_engines_own_steps_are_gathered_over_restarts(started, folder):
    bench = bench_of(started, folder)
    for number, setting in enumerate((Setting(4), Setting(4, max_batched_tokens=64))):
        bench.run(setting, WORKLOAD, seed=0, hopeless=False)
        StepLog(folder / str(number)).add(EngineSteps("m", 1.0, 1.0 + number + 1, 2, 8, 10, 6, 300))
    bench.close()
    assert [record.seconds for record in bench.steps] == [1.0, 2.0]
    assert bench.steps[0] == StepRecord(6, 10, 300, 1.0, steps=2)


@pytest.mark.parametrize(
    ("changes", "identity"),
    [
        ({"engine.model": "org/a", "engine.served_model_name": "chat"}, "vllm: org/a as chat on a cpu"),
        (
            {"engine.kind": "upstream", "engine.upstream.url": "http://u:secret@there:8001"},
            "upstream: http://there:8001 on a cpu",
        ),
        ({"engine.kind": "simulated", "engine.served_model_name": "chat"}, "simulated: chat on a cpu"),
    ],
)
def test_two_models_under_one_name_are_two_and_no_password_is_in_an_identity(changes, identity):
    config = load_config(None, changes, environment={}).config
    device = DetectedHardware(Device("a cpu", "cpu"))
    assert GatewayBench(config, Slo(), device, 8, lambda text: None).identity == identity


def test_an_engine_model_is_of_the_steps_under_one_settings_restarting_knobs(started, folder):
    bench = bench_of(started, folder)
    settings = (Setting(4, dtype="float32"), Setting(4, dtype="bfloat16"))
    for number, setting in enumerate(settings):
        bench.run(setting, WORKLOAD, seed=0, hopeless=False)
        log = StepLog(folder / str(number))
        for size in range(1, 60):
            step_seconds = (number + 1) * (0.010 + 0.001 * size)
            log.add(EngineSteps("m", 1.0, 1.0 + step_seconds, 1, size, 3 * size % 11, size, 30 * size))
    one, other = (bench.engine_model(replace(setting, cap=9)) for setting in settings)
    bench.close()
    assert other.planes[0].fixed == pytest.approx(2 * one.planes[0].fixed, rel=0.05)


def test_where_the_engine_tells_none_the_clients_view_of_its_steps_stands_in(started, folder):
    bench = bench_of(started, folder)
    bench.run(Setting(4), WORKLOAD, seed=0, hopeless=False)
    bench.close()
    assert bench.steps


def test_of_a_gateway_elsewhere_the_model_the_key_and_its_own_mfu_are_used_and_a_lost_hold_ends_it(
    started, folder, monkeypatch
):
    asked, said = [], []

    async def measured(url, workload, drive, told, *, model, stop, watch):
        asked.append((url, model, drive.api_key))
        watch._seen["mfu_ratio"].append(0.25)
        return model, [Outcome(0.0, 0.0, 1.0, 0.5, prompt_tokens=8, output_tokens=3)]

    class There:
        url, run_folder = "http://there", None

        def apply(self, config):
            return None

        def close(self):
            return None

    def lost():
        if len(asked) > 1:
            raise GatewayAway("no longer held")

    monkeypatch.setattr(measure, "measure", measured)
    config = load_config(None, {"cache.tier": "off"}, environment={}).config
    elsewhere = Elsewhere("running: b at there", "b", api_key="key", confirm=lost)
    bench = GatewayBench(config, Slo(), None, 8, said.append, start=lambda config, tell: There(), elsewhere=elsewhere)
    assert bench.run(Setting(4), WORKLOAD, seed=0, hopeless=True)["mfu_ratio"] == 0.25
    assert asked == [("http://there", "b", "key")]
    assert bench.identity == "running: b at there"
    assert bench.steps == []
    with pytest.raises(GatewayAway, match="no longer held"):
        bench.run(Setting(8), WORKLOAD, seed=0, hopeless=True)
    bench.close()
    # none is started there
    assert said == []


def test_a_variant_of_the_model_restarts_the_gateway_with_it_and_is_an_engine_of_its_own(started, folder):
    bench = bench_of(started, folder, architecture=load_architecture(bundled_model_folder()))
    for setting in (Setting(4), Setting(4, model="org/quantised")):
        bench.run(setting, WORKLOAD, seed=0, hopeless=False)
        log = StepLog(started[-1].run_folder)
        for size in range(1, 40):
            log.add(EngineSteps("m", 1.0, 1.01 + 0.001 * size, 1, size, 3 * size % 11, size, 30 * size))
    own, variant = (bench.engine_model(setting) for setting in (Setting(4), Setting(4, model="org/quantised")))
    bench.close()
    assert [gateway.configs[0].engine.model for gateway in started] == [
        "bundled:smollm2-135m-instruct",
        "org/quantised",
    ]
    assert started[1].configs[0].engine.revision is None
    assert (own.model, variant.model) == ("smollm2-135m-instruct", "quantised")
    assert own.flops is not None
    assert variant.flops is None
