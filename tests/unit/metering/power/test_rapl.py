"""The RAPL meter on a tree of files: packages, DRAM, wrap-around, permission."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metering.power.base import PowerUnavailable
from metering.power.owner import DeviceLocks
from metering.power.rapl import RaplMeter

RANGE = 262_143_328_850


class Tree:
    def __init__(self, root: Path) -> None:
        self.root = root
        self.zone("intel-rapl:0", "package-0")
        self.zone("intel-rapl:0:0", "core")
        self.zone("intel-rapl:0:1", "dram")
        self.zone("intel-rapl:1", "psys")
        self.zone("intel-rapl-mmio:0", "package-0")
        (root / "intel-rapl").mkdir()

    def zone(self, folder: str, name: str, microjoules: int = 0) -> None:
        path = self.root / folder
        path.mkdir()
        (path / "name").write_text(name + "\n")
        (path / "max_energy_range_uj").write_text(f"{RANGE}\n")
        self.set(folder, microjoules)

    def set(self, folder: str, microjoules: int) -> None:
        (self.root / folder / "energy_uj").write_text(f"{microjoules}\n")


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    return Tree(tmp_path)


def nanojoules(reading):
    return {name: component.nanojoules for name, component in reading.components.items()}


def test_packages_and_dram_are_read_and_what_they_contain_is_not(tree):
    meter = RaplMeter(3, 4, root=tree.root)
    meter.read(0.0)
    for zone in ("intel-rapl:0:0", "intel-rapl:1", "intel-rapl-mmio:0"):
        tree.set(zone, 999_999)
    tree.set("intel-rapl:0", 8_000_000)
    tree.set("intel-rapl:0:1", 1_000_000)
    assert nanojoules(meter.read(1.0)) == {"cpu": 6 * 10**9, "host": 3 * 10**9}


def test_beside_a_gpu_the_whole_cpu_is_host(tree):
    meter = RaplMeter(0, 4, root=tree.root)
    meter.read(0.0)
    tree.set("intel-rapl:0", 8_000_000)
    assert nanojoules(meter.read(1.0)) == {"host": 8 * 10**9}


def test_a_counter_that_wraps_goes_on(tree):
    meter = RaplMeter(1, 1, root=tree.root)
    tree.set("intel-rapl:0", RANGE - 1_000_000)
    meter.read(0.0)
    tree.set("intel-rapl:0", 2_000_000)
    reading = meter.read(1.0)
    assert nanojoules(reading)["cpu"] == 3 * 10**9
    assert reading.components["cpu"].epoch == 0


def test_a_counter_that_starts_anew_is_not_taken_for_a_wrap(tree):
    meter = RaplMeter(1, 1, root=tree.root)
    tree.set("intel-rapl:0", 50_000_000)
    meter.read(0.0)
    tree.set("intel-rapl:0", 1_000_000)
    reading = meter.read(1.0)
    assert nanojoules(reading)["cpu"] == 0
    assert reading.components["cpu"].epoch == 1


def test_a_pause_in_which_it_may_have_wrapped_more_than_once_is_a_new_epoch(tree):
    meter = RaplMeter(1, 1, root=tree.root)
    meter.read(0.0)
    tree.set("intel-rapl:0", 1_000_000)
    assert meter.read(3600.0).components["cpu"].epoch == 1


@given(draws=st.lists(st.integers(0, 900_000_000), max_size=30), start=st.integers(0, RANGE))
def test_whatever_it_wraps_the_total_is_what_was_drawn(tmp_path_factory, draws, start):
    tree = Tree(tmp_path_factory.mktemp("powercap"))
    meter = RaplMeter(1, 1, root=tree.root)
    raw = start
    tree.set("intel-rapl:0", raw)
    meter.read(0.0)
    for second, drawn in enumerate(draws, start=1):
        raw = (raw + drawn) % RANGE
        tree.set("intel-rapl:0", raw)
        reading = meter.read(float(second))
        assert nanojoules(reading)["cpu"] == sum(draws[:second]) * 1000
        assert reading.components["cpu"].epoch == 0


def test_no_tree_is_said_to_be_no_rapl(tmp_path):
    with pytest.raises(PowerUnavailable, match=r"no RAPL package under .*virtual machines"):
        RaplMeter(1, 1, root=tmp_path / "absent")


def test_no_permission_names_the_file_and_the_mend(tree, monkeypatch):
    # As root file modes do not hold, so the refusal is staged where the file is read.
    real = Path.read_text

    def refuse(self: Path, *args, **kwargs):
        if self.name == "energy_uj":
            raise PermissionError(13, "Permission denied", str(self))
        return real(self, *args, **kwargs)

    monkeypatch.setattr(Path, "read_text", refuse)
    with pytest.raises(PowerUnavailable, match=r"intel-rapl:0/energy_uj: only root.*grant read access"):
        RaplMeter(1, 1, root=tree.root)


def test_a_file_that_goes_away_is_a_failed_reading(tree):
    meter = RaplMeter(1, 1, root=tree.root)
    (tree.root / "intel-rapl:0" / "energy_uj").unlink()
    with pytest.raises(PowerUnavailable, match="cannot read"):
        meter.read(1.0)


def test_a_package_has_one_owner(tree, tmp_path_factory):
    folder = tmp_path_factory.mktemp("locks")
    first = RaplMeter(1, 1, root=tree.root, locks=DeviceLocks(folder))
    with pytest.raises(PowerUnavailable, match=r"rapl_intel-rapl:0 is metered by process \d+"):
        RaplMeter(1, 1, root=tree.root, locks=DeviceLocks(folder))
    first.close()
    RaplMeter(1, 1, root=tree.root, locks=DeviceLocks(folder)).close()


def test_more_engine_cores_than_cores_is_refused(tree):
    with pytest.raises(PowerUnavailable, match="5 engine cores of 4"):
        RaplMeter(5, 4, root=tree.root)


def test_a_package_that_is_divided_by_cores_says_so_in_its_name(tree):
    assert [RaplMeter(cores, 4, root=tree.root).name for cores in (0, 3, 4)] == ["rapl", "rapl_by_cores", "rapl"]
