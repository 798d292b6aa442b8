"""The real meter code through the node, on NVML and RAPL stand-ins: resets, wraps, MIG, losses and refusals."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

from hypothesis import given, settings
from hypothesis import strategies as st

from metering.node import NodeMeter
from metering.node_settings import NodeSettings
from metering.power.nvml import NvmlMeter
from metering.power.rapl import RaplMeter
from metering.settlement import IntensityStamp
from metering.work import WorkBatch, WorkRecord

RANGE = 262_143_328_850


class Lost(Exception):
    pass


class Nvml(SimpleNamespace):
    """One whole GPU and one with two MIG slices; ``millijoules`` by GPU, None for one that is lost."""

    def __init__(self) -> None:
        self.millijoules: list[int | None] = [10_000, 10_000]

        def energy(index):
            if self.millijoules[index] is None:
                raise Lost("GPU is lost")
            return self.millijoules[index]

        def mig(index, slot):
            if slot > 1:
                raise Lost("Not Found")
            return f"MIG-{slot}"

        super().__init__(
            NVMLError=Lost,
            nvmlInit=lambda: None,
            nvmlShutdown=lambda: None,
            nvmlDeviceGetCount=lambda: 2,
            nvmlDeviceGetHandleByIndex=lambda index: index,
            nvmlDeviceGetUUID=lambda handle: handle if isinstance(handle, str) else f"GPU-{handle}",
            nvmlDeviceGetName=lambda handle: "NVIDIA H100 80GB HBM3",
            nvmlDeviceGetMigMode=lambda handle: [handle, handle],
            nvmlDeviceGetMaxMigDeviceCount=lambda handle: 7,
            nvmlDeviceGetMigDeviceHandleByIndex=mig,
            nvmlDeviceGetAttributes=lambda handle: SimpleNamespace(computeInstanceSliceCount=3),
            nvmlDeviceGetTotalEnergyConsumption=energy,
        )


class Package:
    def __init__(self, root: Path) -> None:
        self.zone = root / "intel-rapl:0"
        self.zone.mkdir()
        (self.zone / "name").write_text("package-0")
        (self.zone / "max_energy_range_uj").write_text(str(RANGE))
        self.microjoules = RANGE - 50_000_000
        self.set(0)

    def set(self, drawn: int) -> None:
        self.microjoules = (self.microjoules + drawn) % RANGE
        (self.zone / "energy_uj").write_text(str(self.microjoules))

    def refuse(self) -> None:
        (self.zone / "energy_uj").unlink(missing_ok=True)


seconds = st.lists(
    st.tuples(
        st.sampled_from(["runs", "runs", "runs", "gpu lost", "driver reloaded", "rapl refused"]),
        st.integers(0, 700_000),  # millijoules of each GPU
        st.integers(0, 200_000_000),  # microjoules of the package
        st.booleans(),  # a request runs
    ),
    min_size=1,
    max_size=25,
)


@settings(max_examples=60, deadline=None)
@given(day=seconds)
def test_only_readable_joules_are_booked_and_they_balance(tmp_path_factory, day):
    nvml, package = Nvml(), Package(tmp_path_factory.mktemp("powercap"))
    node = NodeMeter(
        [NvmlMeter(nvml), RaplMeter(0, 4, root=package.zone.parent)],
        NodeSettings(pue=1.2),
        clock=lambda: 0.0,
        wall_clock=lambda: 0.0,
    )
    node.set_intensity(IntensityStamp(381.0, "DEU", "codecarbon 2023"))
    node.start(0.0)
    drawn_gpu = drawn_package = 0  # since the last reading whose difference is known, and booked
    booked_gpu = booked_package = 0
    counter = [10_000, 10_000]
    for second, (what, millijoules, microjoules, busy) in enumerate(day, start=1):
        reloaded = what == "driver reloaded" and counter[0] > 0
        # A reload starts both counters at nothing; what they show afterwards cannot be told apart from a pause.
        counter = [0, 0] if reloaded else [value + millijoules for value in counter]
        nvml.millijoules = [None, None] if what == "gpu lost" else list(counter)
        drawn_gpu = 0 if reloaded else drawn_gpu + millijoules * 10**6
        drawn_package += microjoules * 1000
        package.set(microjoules)
        if what == "rapl refused":
            package.refuse()
        else:
            booked_package, drawn_package = booked_package + drawn_package, 0
        if what != "gpu lost":
            booked_gpu, drawn_gpu = booked_gpu + drawn_gpu, 0
        now = float(second)
        records = (WorkRecord(f"r{second}", "m", "t", now - 0.8, now - 0.1, decode_tokens=9),) if busy else ()
        node.submit(WorkBatch("a", second, now, records, (), (f"r{second}",)), now)
        node.tick(now)
        assert node.books().balanced
    meters = {entry.component.name: entry.meter.energy_nanojoules for entry in node.books().components}
    assert set(meters) == {"GPU-0", "MIG-0", "MIG-1", "host"}
    assert meters["host"] == booked_package
    # A reload while the GPU is lost leaves less on the counter than was drawn: too little is booked, never too much.
    assert meters["GPU-0"] <= booked_gpu
    if not any(what == "driver reloaded" for what, *_ in day):
        assert meters["GPU-0"] == booked_gpu
    # Three of seven slices each, within the nanojoules that flooring a cumulative counter leaves.
    assert abs(meters["MIG-0"] - meters["GPU-0"] * 3 / 7) <= len(day) + 1
    assert meters["MIG-0"] == meters["MIG-1"]
