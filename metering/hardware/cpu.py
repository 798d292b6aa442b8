"""What a CPU's own identification says: vendor, family, model, flags, cores and clock."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

CPUINFO = Path("/proc/cpuinfo")


@dataclass(frozen=True, slots=True)
class CpuIdentity:
    """As the kernel reports it in ``/proc/cpuinfo``."""

    vendor: str
    family: int
    model: int
    stepping: int
    model_name: str
    flags: frozenset[str]
    threads: int
    cores: int
    """Physical cores that the machine shows; a virtual machine may show each thread as a core."""
    clock_hz: float | None
    """Highest clock reported; in a virtual machine usually the base clock."""

    @property
    def is_x86(self) -> bool:
        """Linux calls the feature list ``flags`` on x86; ``Features`` or ``features`` on ARM, s390 and others."""
        return bool(self.flags)

    @property
    def virtual(self) -> bool:
        return "hypervisor" in self.flags


def read_cpu(path: Path = CPUINFO) -> CpuIdentity | None:
    """The first socket's identity and the totals of all sockets; None where the kernel tells nothing (not Linux)."""
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    blocks = [_fields(block) for block in text.split("\n\n") if "processor" in block]
    if not blocks:
        return None
    first = blocks[0]
    cores = {(block.get("physical id", "0"), block.get("core id", str(index))) for index, block in enumerate(blocks)}
    clocks = [float(block["cpu MHz"]) for block in blocks if block.get("cpu MHz")]
    return CpuIdentity(
        vendor=first.get("vendor_id", ""),
        family=int(first.get("cpu family", "0") or 0),
        model=int(first.get("model", "0") or 0),
        stepping=int(first.get("stepping", "0") or 0),
        model_name=first.get("model name", "").strip(),
        flags=frozenset(first.get("flags", "").split()),
        threads=len(blocks),
        cores=len(cores),
        clock_hz=max(clocks) * 1e6 if clocks else None,
    )


def _fields(block: str) -> dict[str, str]:
    pairs = (line.partition(":") for line in block.splitlines())
    return {key.strip(): value.strip() for key, _, value in pairs}


AMX_SOURCE = "Intel AMX, one tile unit a core: 2,048 int8 or 1,024 16-bit operations a cycle (Intel, 4th Gen Xeon)"
_AMX = {"bf16": ("amx_bf16", 1024), "fp16": ("amx_fp16", 1024), "int8": ("amx_int8", 2048)}


def amx_flops_per_cycle(flags: Collection[str]) -> dict[str, int]:
    """Operations of one core's tile unit a cycle, by precision, a multiply-add being two. A 16 x 16 x 32 product of
    16-bit numbers takes 16 cycles; of int8, 16 x 16 x 64.

    >>> amx_flops_per_cycle({"amx_tile", "amx_bf16"})
    {'bf16': 1024}
    """
    return {precision: per_cycle for precision, (flag, per_cycle) in _AMX.items() if flag in flags}


def fp32_flops_per_cycle(flags: Collection[str], *, avx512_units: int = 1) -> tuple[int, str] | None:
    """Fused multiply-adds of one core in fp32: FLOPs per cycle, and why. None without AVX2 and FMA.

    A vector of 256 bits holds 8 fp32; two FMA units x 8 x 2 FLOPs = 32. AVX-512 doubles the width: 32 with one
    unit, 64 with two; how many units a model has is not among its flags, so the catalogue says.
    """
    if "avx512f" in flags:
        return 32 * avx512_units, f"AVX-512 with {avx512_units} FMA unit{'s' if avx512_units > 1 else ''}"
    if "avx2" in flags and "fma" in flags:
        return 32, "AVX2 with two FMA units"
    return None
