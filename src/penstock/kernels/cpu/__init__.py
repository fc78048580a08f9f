"""CPU kernels in C++ with intrinsics, chosen at run time by instruction set.

`program` records and runs them, `ops` is what they are told, `pack` lays weights out for them, and
`twin` is the same in plain torch, for machines without them and for the tests.
"""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec
from types import ModuleType

from penstock.errors import UnsupportedError

_failure: str | None = None
if find_spec("penstock.kernels.cpu._native") is None:
    _failure = "they were not compiled when Penstock was installed"
else:
    try:
        from penstock.kernels.cpu import _native
    except ImportError as error:  # built for another Python or machine
        _failure = str(error)


@cache
def isas() -> tuple[str, ...]:
    """Instruction sets that this machine and this build can run, best last: of avx2, avx512, vnni
    (AVX-512 with VNNI and BF16) and amx."""
    return () if _failure is not None else tuple(_native.isas())


def available() -> str | None:
    """None where the kernels run; otherwise the reason why they do not."""
    if _failure is not None:
        return _failure
    if not isas():
        return "this processor has no AVX2, FMA and F16C"
    return None


def native() -> ModuleType:
    """The extension. Raises UnsupportedError where the kernels do not run."""
    reason = available()
    if reason is not None:
        raise UnsupportedError(
            f"The CPU kernels cannot run: {reason}.",
            cure="Install a C++20 compiler and CMake, then reinstall Penstock; or use torch.",
        )
    return _native
