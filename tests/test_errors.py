from __future__ import annotations

import pytest

from penstock.errors import ERRORS, ConfigError, PenstockError, QueueFullError, from_dict


def test_codes_are_unique() -> None:
    def count(cls: type[PenstockError]) -> int:
        return 1 + sum(count(sub) for sub in cls.__subclasses__())

    assert len(ERRORS) == count(PenstockError)


@pytest.mark.parametrize("cls", ERRORS.values(), ids=lambda cls: cls.__name__)
def test_every_error_crosses_a_process_border(cls: type[PenstockError]) -> None:
    error = cls("Cause.", cure="Cure.", param="p", retry_after_s=2.0)
    back = from_dict(error.to_dict())
    assert type(back) is cls
    assert back.to_dict() == error.to_dict()
    assert str(back) == "Cause. Cure."


def test_every_error_is_in_the_drawn_tree() -> None:
    import penstock.errors

    drawn = penstock.errors.__doc__ or ""
    assert [cls.__name__ for cls in ERRORS.values() if cls.__name__ not in drawn] == []


def test_an_unknown_code_is_the_base_class() -> None:
    assert type(from_dict({"code": "of a later version", "message": "m"})) is PenstockError


def test_without_a_cure() -> None:
    assert str(ConfigError("Cause.")) == "Cause."
    assert QueueFullError("m").retry_after_s is None
