"""CPU kernels in C++ with intrinsics, chosen at run time by instruction set.

`program` records and runs them; `pack` lays weights out for them; `twin` is the same in plain
torch, for machines without them and for the tests.
"""

from __future__ import annotations

from types import ModuleType

_native: ModuleType | None
try:
    from penstock.kernels.cpu import _native
except ImportError as error:
    _native, _failure = None, str(error)


def isas() -> tuple[str, ...]:
    """Instruction sets that this machine and this build can run, best last: of avx2, avx512, vnni
    (AVX-512 with VNNI and BF16) and amx."""
    return tuple(_native.isas()) if _native is not None else ()


def available() -> str | None:
    """None where the kernels run; otherwise the reason why they do not."""
    if _native is None:
        return (
            f"the CPU kernels were not built ({_failure}): install a C++20 compiler and "
            "reinstall Penstock"
        )
    if not isas():
        return "this processor has no AVX2, FMA and F16C"
    return None
