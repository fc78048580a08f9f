from __future__ import annotations

import pytest
import torch

from penstock.attention.torch_fast import TorchFast
from penstock.core.plan import KVGroup
from penstock.engine.kv import allocate_caches, available_bytes, block_bytes, choose_num_blocks
from penstock.errors import ConfigError
from penstock.kernels import cpu
from penstock.registry import ATTENTION_BACKENDS

CPU = torch.device("cpu")
GROUPS = (KVGroup((0, 2, 3)), KVGroup((1,), window=8))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.int8])
@pytest.mark.parametrize("name", ["torch", "cpu"])
def test_bytes_of_a_block_are_what_the_tensors_take(name: str, dtype: torch.dtype) -> None:
    if name == "cpu" and (reason := cpu.available()) is not None:
        pytest.skip(reason)
    backend = ATTENTION_BACKENDS.load(name)()
    each = block_bytes(GROUPS, 16, 2, 32, dtype)
    caches = allocate_caches(backend, GROUPS, 10, 16, 2, 32, dtype, CPU)
    distinct = {c.data_ptr(): c.nbytes for c in caches}
    assert sum(distinct.values()) == 10 * each


def test_groups_share_tensors_but_layers_of_a_group_do_not() -> None:
    caches = allocate_caches(TorchFast(), GROUPS, 2, 16, 2, 8, torch.float32, CPU)
    assert len(caches) == 4
    assert caches[0].data_ptr() == caches[1].data_ptr()
    assert len({caches[i].data_ptr() for i in (0, 2, 3)}) == 3


def test_a_wanted_size_is_taken_as_it_is() -> None:
    assert choose_num_blocks(1000, 100, 5, CPU) == (10, "as --kv-cache-memory-bytes says")


def test_automatic_takes_no_more_than_can_be_used() -> None:
    assert choose_num_blocks(None, 100, 5, CPU)[0] == 5


def test_automatic_leaves_memory_to_others() -> None:
    blocks, _ = choose_num_blocks(None, 2**20, 10**9, CPU)
    assert blocks * 2**20 < 0.75 * available_bytes(CPU)


def test_engines_that_start_together_share_what_is_free() -> None:
    alone, _ = choose_num_blocks(None, 2**20, 10**9, CPU)
    shared, why = choose_num_blocks(None, 2**20, 10**9, CPU, sharers=4)
    assert 0.2 * alone < shared < 0.3 * alone
    assert "4 engines" in why


@pytest.mark.parametrize(("wanted", "says"), [(2**60, "only"), (10, "no block")])
def test_what_cannot_be_is_refused(wanted: int, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        choose_num_blocks(wanted, 100, 5, CPU)
