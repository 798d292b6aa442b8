"""The catalogue and detection: sources beside figures, unknown instead of guessed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from metering.errors import BadInput, UnknownDevice
from metering.hardware import Figure, catalogue, cpu_models, detect, find_device, memory_watts_per_gb
from metering.hardware.calibrate import Calibration, calibrate
from metering.hardware.catalogue import cpu_model_of
from metering.hardware.cpu import CpuIdentity, fp32_flops_per_cycle, read_cpu
from metering.hardware.nvml import NvmlDevice

EPYC = """processor\t: {index}
vendor_id\t: AuthenticAMD
cpu family\t: 25
model\t\t: 1
model name\t: AMD EPYC
stepping\t: 1
cpu MHz\t\t: 2250.000
physical id\t: 0
core id\t\t: {core}
flags\t\t: fpu avx avx2 fma hypervisor
"""


def cpuinfo(tmp_path: Path, threads: int = 2, threads_per_core: int = 1, **change: str) -> Path:
    text = "\n".join(EPYC.format(index=index, core=index // threads_per_core) for index in range(threads))
    for old, new in change.items():
        text = text.replace({"family": "family\t: 25", "flags": "avx avx2 fma", "vendor": "AuthenticAMD"}[old], new)
    path = tmp_path / "cpuinfo"
    path.write_text(text)
    return path


def no_gpus() -> tuple[NvmlDevice, ...]:
    return ()


# the catalogue


def test_every_figure_has_a_source() -> None:
    for device in catalogue().values():
        figures = [*device.peak_flops.values(), device.max_watts, device.memory_bytes, device.embodied_kilograms]
        assert all(len(figure.source) > 5 for figure in figures if figure is not None)
        assert (device.embodied_kilograms is None) == (device.embodied_scope is None)


@pytest.mark.parametrize("name", ["A100 SXM 40GB", "A100 PCIe 40GB"])
def test_the_mass_of_another_board_is_called_a_stand_in(name: str) -> None:
    mass = find_device(name).embodied_kilograms
    assert mass is not None
    assert "80 GB" in mass.source
    assert "stand-in" in mass.source


@pytest.mark.parametrize(
    ("name", "tflops", "gb", "gb_per_second", "watts"),
    [
        ("H100 SXM5", 989.5, 80, 3350, 700), ("H100 PCIe", 756, 80, 2000, 350), ("H100 NVL", 835, 94, 3940, 400),
        ("H200 SXM", 989.5, 141, 4800, 700), ("B200", 2250, 180, 8000, 1000), ("A100 SXM 80GB", 312, 80, 2039, 407),
        ("A100 PCIe 40GB", 312, 40, 1555, 250), ("A10", 125, 24, 600, 150), ("A10G", 70, 24, 600, 153),
        ("L4", 121, 24, 300, 72), ("L40S", 362, 48, 864, 350), ("MI300X", 1307.4, 192, 5300, 750),
        ("TPU v4", 275, 32, 1200, 192), ("Trainium2", 667, 96, 2900, None), ("TPU v5e", 197, 16, 819, None),
    ],
)  # fmt: skip
def test_dense_peaks_and_board_figures(
    name: str, tflops: float, gb: float, gb_per_second: float, watts: float | None
) -> None:
    device = find_device(name)
    peak = device.peak_for("bfloat16")
    assert peak is not None
    assert peak.value == pytest.approx(tflops * 1e12)
    assert device.memory_bytes is not None
    assert device.memory_bytes.value == gb * 1e9
    assert device.bandwidth_bytes_per_second is not None
    assert device.bandwidth_bytes_per_second.value == gb_per_second * 1e9
    assert (device.max_watts.value if device.max_watts else None) == watts


def test_unpublished_figures_are_unknown() -> None:
    assert find_device("T4").peak_for("bf16") is None
    assert find_device("H100 NVL").peak_for("fp8") is None
    assert "idle_watts" in find_device("H200 SXM").unknown()
    assert find_device("TPU v5e").max_watts is None


@pytest.mark.parametrize(
    ("asked", "name"),
    [
        ("h100", "H100 SXM5"), ("NVIDIA H100 80GB HBM3", "H100 SXM5"), ("a100-sxm4-80gb", "A100 SXM 80GB"),
        ("tpuv4", "TPU v4"), ("Trillium", "TPU v6e"), ("l40s", "L40S"),
    ],
)  # fmt: skip
def test_devices_go_by_alias_in_any_spelling(asked: str, name: str) -> None:
    assert find_device(asked).name == name


def test_a_cpu_generation_is_one_vcpu_without_a_peak() -> None:
    for name in ("AMD EPYC 3rd Gen", "epyc 3rd gen"):
        device = find_device(name)
        assert (device.name, device.kind) == ("AMD EPYC 3rd Gen, 1 vCPU", "cpu")
        assert device.max_watts is not None
        assert device.max_watts.value == 2.02
        assert "peak_flops" in device.unknown()


def test_unknown_device_names_the_nearest() -> None:
    with pytest.raises(UnknownDevice, match="no device 'H10O SXM5'; nearest: H100 SXM5"):
        find_device("H10O SXM5")


@pytest.mark.parametrize(
    ("name", "idle", "full"),
    [
        ("AMD EPYC 1st Gen", 0.82, 2.55), ("AMD EPYC 2nd Gen", 0.47, 1.69), ("AMD EPYC 3rd Gen", 0.45, 2.02),
        ("Intel Haswell", 1.0, 4.74), ("Intel Broadwell", 0.71, 3.69), ("Intel Skylake", 0.65, 4.26),
        ("Intel Cascade Lake", 0.64, 3.97),
    ],
)  # fmt: skip
def test_cpu_watts_per_thread(name: str, idle: float, full: float) -> None:
    model = cpu_models()[name]
    assert (model.idle_watts.value, model.max_watts.value) == (idle, full)


def test_memory_watts() -> None:
    assert memory_watts_per_gb().value == 0.392


# detection


def test_a_cpu_is_found_by_family_and_its_peak_computed(tmp_path: Path) -> None:
    found = detect(gpus=no_gpus, cpuinfo=cpuinfo(tmp_path))
    assert (found.name, found.kind, found.threads) == ("AMD EPYC 3rd Gen, 2 vCPU", "cpu", 2)
    peak = found.peak_for("float32")
    assert peak is not None
    assert peak.value == 2 * 2.25e9 * 32
    assert "2 cores x 2.25 GHz" in peak.source
    assert found.device.idle_watts == Figure(0.9, found.device.idle_watts.source if found.device.idle_watts else "")
    assert any("calibrate" in note for note in found.device.notes)


def test_two_threads_of_one_core_share_its_units(tmp_path: Path) -> None:
    found = detect(gpus=no_gpus, cpuinfo=cpuinfo(tmp_path, threads=8, threads_per_core=2))
    peak = found.peak_for("float32")
    assert peak is not None
    assert peak.value == 4 * 2.25e9 * 32


def test_the_figures_cover_the_threads_that_the_engine_may_use(tmp_path: Path) -> None:
    path = cpuinfo(tmp_path, threads=8)
    half, whole = detect(threads=4, gpus=no_gpus, cpuinfo=path), detect(gpus=no_gpus, cpuinfo=path)
    for name in ("max_watts", "idle_watts", "embodied_kilograms"):
        assert getattr(half.device, name).value * 2 == pytest.approx(getattr(whole.device, name).value)


def test_a_cpu_without_16_bit_units_runs_them_at_its_fp32_peak_and_says_so(tmp_path: Path) -> None:
    found = detect(gpus=no_gpus, cpuinfo=cpuinfo(tmp_path))
    peak = found.peak_for("bfloat16")
    assert peak is not None
    assert "bf16 runs on the fp32 units" in peak.source
    assert found.peak_for("int8") is None


def test_a_cpu_with_tile_units_has_their_peak_at_16_and_8_bits(tmp_path: Path) -> None:
    flags = "avx2 fma avx512f amx_tile amx_bf16 amx_int8"
    found = detect(gpus=no_gpus, cpuinfo=cpuinfo(tmp_path, flags=flags))
    peaks = {precision: figure.value for precision, figure in found.device.peak_flops.items()}
    cycles = 2 * 2.25e9
    assert peaks == {"fp32": cycles * 32, "bf16": cycles * 1024, "int8": cycles * 2048}
    assert "AMX" in found.device.peak_flops["bf16"].source
    half = found.peak_for("float16")
    assert half is not None
    # these have no unit for fp16
    assert half.value == cycles * 32


def test_an_unlisted_cpu_takes_median_watts_and_says_so(tmp_path: Path) -> None:
    found = detect(gpus=no_gpus, cpuinfo=cpuinfo(tmp_path, family="family\t: 99"))
    assert found.device.max_watts is not None
    assert found.device.max_watts.value == pytest.approx(2 * 4.11)
    assert "not in the catalogue" in found.device.notes[0]
    assert found.device.embodied_kilograms is None


def test_a_cpu_that_is_no_x86_takes_no_watts_of_x86(tmp_path: Path) -> None:
    path = tmp_path / "cpuinfo"
    core = "processor\t: {}\nBogoMIPS\t: 243.75\nFeatures\t: fp asimd\nCPU implementer\t: 0x41\nCPU part\t: 0xd40\n"
    path.write_text("\n".join(core.format(index) for index in range(4)))
    found = detect(gpus=no_gpus, cpuinfo=path)
    assert found.threads == 4
    assert {"idle_watts", "max_watts", "peak_flops"} <= set(found.device.unknown())
    assert "No CPU of this architecture" in found.device.notes[0]


def test_a_cpu_without_vector_units_has_no_peak(tmp_path: Path) -> None:
    found = detect(gpus=no_gpus, cpuinfo=cpuinfo(tmp_path, flags="sse"))
    assert found.peak_for("float32") is None
    assert "peak_flops" in found.device.unknown()


def test_no_cpuinfo_leaves_everything_unknown(tmp_path: Path) -> None:
    found = detect(gpus=no_gpus, cpuinfo=tmp_path / "none")
    assert found.device.max_watts is None
    assert "configure" in found.device.notes[0]


@pytest.mark.parametrize(
    ("flags", "units", "expected"),
    [
        ({"avx2", "fma"}, 1, 32), ({"avx2", "fma", "avx512f"}, 1, 32), ({"avx2", "fma", "avx512f"}, 2, 64),
        ({"avx2"}, 1, None), (set(), 2, None),
    ],
)  # fmt: skip
def test_flops_per_cycle_by_flags(flags: set[str], units: int, expected: int | None) -> None:
    found = fp32_flops_per_cycle(flags, avx512_units=units)
    assert (found[0] if found else None) == expected


@pytest.mark.parametrize(
    ("vendor", "family", "model", "stepping", "name"),
    [
        ("GenuineIntel", 6, 85, 4, "Intel Skylake"), ("GenuineIntel", 6, 85, 7, "Intel Cascade Lake"),
        ("GenuineIntel", 6, 85, 11, None), ("GenuineIntel", 6, 143, 8, "Intel Sapphire Rapids"),
        ("AuthenticAMD", 25, 17, 1, "AMD EPYC 4th Gen"), ("AuthenticAMD", 23, 49, 0, "AMD EPYC 2nd Gen"),
    ],
)  # fmt: skip
def test_cpu_generation_by_family_model_and_stepping(
    vendor: str, family: int, model: int, stepping: int, name: str | None
) -> None:
    cpu = CpuIdentity(vendor, family, model, stepping, "", frozenset(), 1, 1, None)
    found = cpu_model_of(cpu)
    assert (found.name if found else None) == name


def gpus(*names: str, limit: float | None = None) -> Any:
    return lambda: tuple(NvmlDevice(i, name, f"GPU-{i}", 80 * 10**9, limit) for i, name in enumerate(names))


def test_gpus_come_from_nvml_and_are_counted(tmp_path: Path) -> None:
    found = detect(gpus=gpus(*["NVIDIA H100 80GB HBM3"] * 4), cpuinfo=cpuinfo(tmp_path))
    assert (found.name, found.count, found.uuids) == ("H100 SXM5", 4, ("GPU-0", "GPU-1", "GPU-2", "GPU-3"))
    peak = found.peak_for("bf16")
    assert peak is not None
    assert peak.value == 4 * 989.5e12


def test_an_unlisted_gpu_has_no_peak_rather_than_its_neighbour_s() -> None:
    found = detect(gpus=gpus("NVIDIA H100 96GB Special", limit=500.0))
    assert found.peak_for("bf16") is None
    assert found.device.max_watts == Figure(500.0, "NVML power limit")
    assert found.name == "NVIDIA H100 96GB Special"


def test_mixed_gpus_count_one_kind_and_say_so() -> None:
    found = detect(gpus=gpus("NVIDIA L4", "NVIDIA A10", "NVIDIA L4"))
    assert (found.name, found.count) == ("L4", 2)
    assert "NVIDIA A10" in found.device.notes[-1]


def test_gpus_that_cuda_hides_are_left_out_and_named() -> None:
    four = gpus(*["NVIDIA L4"] * 4)
    found = detect(gpus=four, environment={"CUDA_VISIBLE_DEVICES": "2,GPU-0"})
    assert (found.count, found.uuids) == (2, ("GPU-2", "GPU-0"))
    assert found.device.notes[-1].endswith("GPU-1, GPU-3.")
    assert detect(device="A10G", gpus=four, environment={"CUDA_VISIBLE_DEVICES": "1"}).uuids == ("GPU-1",)


def test_a_mig_slice_is_a_device_without_a_peak() -> None:
    divided = NvmlDevice(0, "NVIDIA H100 80GB HBM3", "GPU-0", is_mig=True, slices=("MIG-a", "MIG-b"))
    found = detect(gpus=lambda: (divided,), environment={"CUDA_VISIBLE_DEVICES": "MIG-b"})
    assert (found.count, found.uuids) == (1, ("MIG-b",))
    assert found.peak_for("bf16") is None
    assert found.device.bandwidth_bytes_per_second is None
    assert any("MIG-a" in note for note in found.device.notes)
    assert found.slices == ("MIG-b",)
    assert "energy, mass and cost are unknown" in found.device.notes[-1]
    given = detect(
        gpus=lambda: (divided,),
        environment={"CUDA_VISIBLE_DEVICES": "MIG-b"},
        overrides={"peak_flops": {"bf16": 1e14}},
    )
    assert given.device.peak_flops == {"bf16": Figure(1e14, "configured")}


def test_the_operator_may_name_the_device_or_ask_for_the_cpu(tmp_path: Path) -> None:
    assert detect(device="A10G", gpus=gpus("Mystery GPU")).name == "A10G"
    assert detect(device="cpu", gpus=gpus("NVIDIA L4"), cpuinfo=cpuinfo(tmp_path)).kind == "cpu"


def test_overrides_replace_figures_and_say_who_gave_them() -> None:
    found = detect(gpus=gpus("NVIDIA L4"), overrides={"idle_watts": 16, "peak_flops": {"bfloat16": 100e12}})
    assert found.device.idle_watts == Figure(16.0, "configured")
    assert found.device.peak_flops["bf16"] == Figure(100e12, "configured")
    assert found.device.peak_flops["fp8"].value == 242.5e12


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        ({"idle_wats": 3}, "no figure 'idle_wats'"),
        ({"idle_watts": "3"}, "must be a number"),
        ({"idle_watts": -1}, "at least 0"),
        ({"bandwidth_bytes_per_second": 0}, "must be positive"),
        ({"idle_watts": 500}, "exceeds its maximum"),
    ],
)
def test_senseless_overrides_are_refused(overrides: dict[str, Any], says: str) -> None:
    with pytest.raises(BadInput, match=says):
        find_device("L4").overridden(overrides)


def test_reading_this_machine_never_fails() -> None:
    assert detect().as_dict()["kind"] in ("cpu", "gpu")
    assert read_cpu() is None or read_cpu().threads >= 1  # type: ignore[union-attr]


# calibration


def test_calibration_divides_work_by_the_fastest_repeat() -> None:
    ticks = iter([0.0, 1.0, 3.0, 4.0, 4.5, 10.0, 12.0, 20.0, 20.25, 30.0])
    measured = calibrate(matrix_size=8, stream_bytes=1000, repeats=2, clock=lambda: next(ticks))
    assert measured.flops_per_second == 2 * 8**3 / 0.5
    assert measured.bandwidth_bytes_per_second == 2 * 1000 / 0.25
    assert measured.seconds == 30.0


def test_calibrated_figures_replace_computed_ones_and_say_so(tmp_path: Path) -> None:
    found = detect(gpus=no_gpus, cpuinfo=cpuinfo(tmp_path))
    measured = Calibration(2e11, 3e10, 2, 2048, 2**28, 1.0).applied(found)
    peak, bandwidth = measured.device.peak_flops["fp32"], measured.device.bandwidth_bytes_per_second
    assert bandwidth is not None
    assert (peak.value, bandwidth.value) == (2e11, 3e10)
    assert peak.source.startswith("measured")
    assert not any("calibrate" in note for note in measured.device.notes)


def test_a_calibration_on_a_busy_machine_says_so(tmp_path: Path) -> None:
    found = detect(gpus=no_gpus, cpuinfo=cpuinfo(tmp_path))
    busy, idle = (Calibration(rate, 3e10, 2, 2048, 2**28, 1.0).applied(found).device.notes for rate in (6e10, 1.4e11))
    assert "busy" in busy[-1]
    assert not idle


def test_calibration_is_for_the_same_threads_of_a_cpu(tmp_path: Path) -> None:
    measured = Calibration(2e11, 3e10, 2, 2048, 2**28, 1.0)
    with pytest.raises(BadInput, match="2 threads, the figures are for 4"):
        measured.applied(detect(gpus=no_gpus, cpuinfo=cpuinfo(tmp_path, threads=4)))
    with pytest.raises(BadInput, match="ran on the CPU"):
        measured.applied(detect(gpus=gpus("NVIDIA L4")))
    with pytest.raises(BadInput, match="at least 1"):
        calibrate(repeats=0)
