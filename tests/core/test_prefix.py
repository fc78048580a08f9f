from __future__ import annotations

from penstock.core import prefix


def test_names_are_fixed_for_every_process_and_version() -> None:
    parent = prefix.root("model", "salt")
    assert parent.hex() == "567d61a242ae90b658e74f3ecd3cc725"
    assert prefix.block_hash(parent, [1, 2, 3, -1]).hex() == "41f83ad0b39edb0ef0dcf0aad084118d"


def test_keys_do_not_run_into_each_other() -> None:
    assert prefix.root("ab", "c") != prefix.root("a", "bc")
    assert prefix.root("a") != prefix.root("a", "")


def test_a_name_depends_on_all_before_it() -> None:
    one: list[bytes] = []
    two: list[bytes] = []
    prefix.extend(one, prefix.root(), [1, 2, 3, 4], 2)
    prefix.extend(two, prefix.root(), [9, 2, 3, 4], 2)
    assert one[1] != two[1]


def test_only_full_blocks_have_names_and_extending_goes_on() -> None:
    hashes: list[bytes] = []
    tokens = [5, 6, 7, 8, 9]
    prefix.extend(hashes, prefix.root(), tokens[:3], 2)
    assert len(hashes) == 1
    prefix.extend(hashes, prefix.root(), tokens, 2)
    whole: list[bytes] = []
    prefix.extend(whole, prefix.root(), tokens, 2)
    assert hashes == whole
    assert len(whole) == 2
