"""How a list of slides is shared out."""

from __future__ import annotations

from pathlib import Path

import pytest

from napari_slnpredict.many.shards import Shard, list_digest, parse_shard
from napari_slnpredict.many.slides import Input, Named, name_all


def slides(*paths: str) -> list[Named]:
    return name_all([Input(Path(path)) for path in paths], {})


@pytest.mark.parametrize("count", [1, 2, 3, 7, 30])
def test_every_slide_belongs_to_one_shard(count: int) -> None:
    """A slide done twice, or by nobody; one job of an array with all the work."""
    every = slides(*(f"/s/case{k % 3}/{k:02}.svs" for k in range(20)))
    parts = [Shard(index, count).cut(every) for index in range(1, count + 1)]
    assert sorted(slide.label.number for part in parts for slide in part) == list(range(1, 21))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_the_order_of_the_list_does_not_matter() -> None:
    """Machines whose shells or file systems list files in another order would disagree."""
    one, two = slides("/s/b.svs", "/s/a.svs", "/s/c.svs"), slides("/s/c.svs", "/s/a.svs", "/s/b.svs")
    shard = Shard(2, 2)
    assert [s.item.path for s in shard.cut(one)] == [s.item.path for s in shard.cut(two)] == [Path("/s/b.svs")]
    assert list_digest(one) == list_digest(two)
    assert list_digest(one) != list_digest(slides("/s/a.svs", "/s/b.svs"))
    assert list_digest(slides("/mnt/x/s/a.svs")) == list_digest(slides("/data/s/a.svs"))


def test_colliding_names_are_those_of_the_whole_list() -> None:
    """case1/x and case2/x, in different shards, would write to the same folder."""
    every = slides("/s/case1/x.svs", "/s/case2/x.svs", "/s/y.svs")
    (first, *_), (second, *_) = Shard(1, 2).cut(every), Shard(2, 2).cut(every)
    assert first.label.name("1a" * 16) == "x-1a1a1a1a"
    assert second.label.name("2b" * 16) == "x-2b2b2b2b"


@pytest.mark.parametrize("text", ["0/3", "4/3", "1", "a/b", "-1/3", "1/0", "1/3/5", "1.5/3"])
def test_what_is_no_shard(text: str) -> None:
    """Index 0 of a job array that counts from 0 would silently drop the last share."""
    with pytest.raises(ValueError, match="is not I/N with I from 1 to N"):
        parse_shard(text)


def test_what_is_a_shard() -> None:
    """The command line could not be read."""
    assert parse_shard(" 3 / 20") == Shard(3, 20)
    assert str(Shard(3, 20)) == "3/20"
