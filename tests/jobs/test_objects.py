from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from penstock.errors import NotFoundError
from penstock.jobs.database import Database
from penstock.jobs.objects import Objects


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    opened = Database(tmp_path / "state.sqlite")
    yield opened
    opened.close()


def test_an_object_is_its_owners_alone(database: Database) -> None:
    things = Objects(database, "thing")
    things.add("ann", {"id": "a", "x": 1})
    assert things.get("ann", "a") == {"id": "a", "x": 1}
    things.replace({"id": "a", "x": 2})
    assert things.get("ann", "a")["x"] == 2
    for kind, owner in (("thing", "bob"), ("other", "ann")):
        with pytest.raises(NotFoundError):
            Objects(database, kind).get(owner, "a")
        with pytest.raises(NotFoundError):
            Objects(database, kind).delete(owner, "a")
    assert things.page("bob", None, 5).data == []
    things.delete("ann", "a")
    with pytest.raises(NotFoundError):
        things.get("ann", "a")


@pytest.mark.parametrize("newest_first", [True, False])
def test_pages_follow_each_other(database: Database, newest_first: bool) -> None:
    things = Objects(database, "thing")
    for n in range(7):
        things.add("ann", {"id": f"a{n}", "odd": "yes" if n % 2 else "no"})
        things.add("bob", {"id": f"b{n}"})
    expected = [f"a{n}" for n in range(7)]
    expected = expected[::-1] if newest_first else expected
    seen: list[str] = []
    more = True
    while more:
        page = things.page("ann", seen[-1] if seen else None, 3, newest_first)
        seen += [data["id"] for data in page.data]
        more = page.has_more
    assert seen == expected
    odd = things.page("ann", None, 9, newest_first, ("odd", "yes"))
    assert [data["id"] for data in odd.data] == [i for i in expected if int(i[1]) % 2]
    with pytest.raises(NotFoundError):
        things.page("ann", "b1", 3)


def test_everybodys_are_in_order_with_their_owners(database: Database) -> None:
    things = Objects(database, "thing")
    for owner, id in (("bob", "1"), ("ann", "2")):
        things.add(owner, {"id": id})
    assert things.everybodys() == [("bob", {"id": "1"}), ("ann", {"id": "2"})]
