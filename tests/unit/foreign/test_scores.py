"""Score files of each kind, in the exact layout of the program that writes them."""

from __future__ import annotations

import pickle
import time
from pathlib import Path
from typing import Any

import h5py
import made_scores as made
import numpy as np
import pytest

from napari_slnpredict.errors import MissingScale
from napari_slnpredict.events import run
from napari_slnpredict.foreign.child import is_scores, read_raw
from napari_slnpredict.foreign.explain import explain, on_scale, ranks, scales
from napari_slnpredict.foreign.raw import ScoresError, pack, unpack
from napari_slnpredict.foreign.scores import (
    Answers,
    ForeignScores,
    MissingPlaces,
    SlideFacts,
    lay_scores,
    read_scores,
)

FACTS = SlideFacts("slide", 0.25, (20000, 10000), ((20000, 10000), (4999, 2499)), (1.0, 4.00100050025))


def lay(path: Path, answers: Answers | None = None, facts: SlideFacts = FACTS) -> ForeignScores:
    """Read in this process: what a child reads is the same (tested once)."""
    return lay_scores(read_raw(path), path.name, facts, answers or Answers())


def corners_drawn(scores: ForeignScores) -> np.ndarray[Any, Any]:
    """Return the top-left and bottom-right corners at which each tile is drawn, (n, 4), level-0 px."""
    places = scores.places
    found = np.empty((len(places), 4))
    for tile in range(len(places)):
        rows, columns = np.nonzero(places.owner == tile)
        x, y = places.origin
        found[tile] = (
            x + columns.min() * places.step,
            y + rows.min() * places.step,
            x + (columns.max() + 1) * places.step,
            y + (rows.max() + 1) * places.step,
        )
    return found


def assert_in_place(scores: ForeignScores, corners: np.ndarray[Any, Any], size: float, slack: float = 0.5) -> None:
    np.testing.assert_allclose(scores.places.locations, corners, atol=1e-3)
    drawn = corners_drawn(scores)
    assert np.abs(drawn[:, :2] - corners).max() <= slack
    assert np.abs(drawn[:, 2:] - (corners + size)).max() <= slack


def test_clam_block_map_asks_for_the_size(tmp_path: Path) -> None:
    """CLAM's block map says nothing of its tiles: a guess would draw them at a quarter of their size."""
    corners = made.square(5, 4, 1024, 2048, 1024)
    path = made.clam_blockmap(tmp_path / "slide_blockmap.h5", corners, np.linspace(-7, 3, 20))
    with pytest.raises(MissingPlaces, match="it lacks patch_size and patch_level") as caught:
        lay(path)
    assert caught.value.missing == ("size",)
    assert caught.value.suggestion == 1024
    assert caught.value.unit == "px"
    scores = lay(path, Answers(size=1024))
    assert_in_place(scores, corners, 1024)
    assert scores.program == "CLAM"
    (column,) = scores.columns
    assert (column.name, column.unit, column.is_share) == ("attention_scores", "as in the file", False)
    np.testing.assert_allclose(column.values, np.linspace(-7, 3, 20), rtol=1e-6)


def test_clam_attributes_give_the_size_at_their_level(tmp_path: Path) -> None:
    """A patch of 256 px at level 1 is 1024 px wide on the slide, not 256."""
    corners = made.square(4, 4, 1024)
    path = made.clam_patches(
        tmp_path / "slide.h5", corners, patch_size=256, level=1, downsample=4.001, level_dim=(4999, 2499),
        scores=made.attention(16),
    )  # fmt: skip
    scores = lay(path)
    assert scores.places.size_level0 == pytest.approx(1024.256)
    assert_in_place(scores, corners, 1024)
    assert scores.columns[0].is_share


def test_clam_tiles_of_several_pieces_of_tissue_stay_exact(tmp_path: Path) -> None:
    """CLAM lays a lattice of its own over each piece of tissue: one lattice for all would shift some."""
    parts = [made.square(3, 2, 512, 1024, 512), made.square(2, 2, 512, 3200, 736), made.square(2, 3, 512, 6016, 4128)]
    corners = np.concatenate(parts)
    scores = lay(made.clam_blockmap(tmp_path / "map.h5", corners, np.arange(16)), Answers(size=512))
    assert scores.places.exact
    assert scores.places.step == 32
    assert_in_place(scores, corners, 512, slack=0)
    assert not any("irregular" in note for note in scores.notes)


def test_irregular_tiles_say_how_exact_they_are(tmp_path: Path) -> None:
    """Tiles without any common step would be drawn beside their place without a word."""
    corners = np.random.default_rng(0).permutation(400)[:40, None] * [47.0, 23.0] + [0.37, 0.11]
    path = made.table(tmp_path / "t.csv", {"x_px": corners[:, 0], "y_px": corners[:, 1], "score": np.arange(40)})
    scores = lay(path, Answers(size=33.3))
    assert not scores.places.exact
    assert "irregularly" in scores.notes[0]
    for tile, (x, y) in enumerate(corners):
        assert scores.places.tile_at(x + 16, y + 16) == tile


def test_overlapping_tiles_are_one_pixel_each(tmp_path: Path) -> None:
    """CLAM's fine heat maps overlap by 90 %: as squares the map would be a hundred times as large."""
    corners = made.square(30, 20, 51, 500, 700)
    scores = lay(made.clam_blockmap(tmp_path / "map.h5", corners, np.arange(600)), Answers(size=512))
    places = scores.places
    assert places.owner.shape == (20, 30)
    assert places.step == pytest.approx(51)
    # A pixel stands in the middle of its tile.
    assert places.origin == pytest.approx((500 + (512 - 51) / 2, 700 + (512 - 51) / 2))


@pytest.mark.parametrize("size", [447.0, 448.1857, 512.0])
def test_trident_tiles_lie_where_they_are(tmp_path: Path, size: float) -> None:
    """A stride that is no whole number of pixels would drift over a slide (STAMP#54)."""
    corners = np.rint(made.square(38, 18, size, 37, 11))
    path = made.trident(
        tmp_path / "slide_patches.h5", corners, size_level0=round(size), extent=FACTS.dimensions,
        scores={"attention": made.attention(684)}, features=96,
    )  # fmt: skip
    scores = lay(path)
    assert scores.places.owner.shape == (18, 38)
    assert_in_place(scores, corners, size, slack=1.01)  # both are rounded by half a pixel
    exact = made.square(38, 18, size, 37, 11)
    assert np.abs(corners_drawn(scores)[:, :2] - exact).max() <= 0.5
    assert scores.columns[0].unit == "weight, all tiles sum to 1"


def test_trident_slide_of_another_size_is_refused(tmp_path: Path) -> None:
    """A map of another slide would be shown as if it were this one's."""
    path = made.trident(
        tmp_path / "other.h5", made.square(3, 3, 512), size_level0=512, extent=(30000, 10000),
        scores={"attention": np.arange(9)},
    )  # fmt: skip
    with pytest.raises(ScoresError, match=r"30,000 × 10,000 px, this one has 20,000 × 10,000"):
        lay(path)


def test_trident_missing_attribute_is_named(tmp_path: Path) -> None:
    """The user could not find what to add (TRIDENT#55, #170)."""
    path = made.trident(
        tmp_path / "s.h5", made.square(3, 3, 512), size_level0=512, extent=FACTS.dimensions,
        scores={"attention": np.arange(9)}, leave_out=("patch_size_level0", "patch_size"),
    )  # fmt: skip
    with pytest.raises(MissingPlaces, match=r"\(it lacks patch_size_level0\); its places lie 512 apart"):
        lay(path)


def test_several_columns_of_one_data_set(tmp_path: Path) -> None:
    """The attention of the second class would be lost (CLAM#256)."""
    branches = np.stack([made.attention(12), made.attention(12)[::-1]])  # (classes, tiles), as CLAM-MB has it
    path = made.trident(
        tmp_path / "s.h5", made.square(4, 3, 512), size_level0=512, extent=FACTS.dimensions,
        scores={"attn": branches[None], "prob": branches.T, "label": np.array([b"a"] * 12)},
    )  # fmt: skip
    scores = lay(path)
    assert [column.name for column in scores.columns] == ["attn 0", "attn 1", "prob 0", "prob 1"]
    np.testing.assert_allclose(scores.columns[1].values, branches[1], rtol=1e-6)
    np.testing.assert_allclose(scores.columns[2].values, branches[0], rtol=1e-6)


@pytest.mark.parametrize("old", [False, True])
def test_stamp_places_are_um(tmp_path: Path, old: bool) -> None:
    """um taken for pixels would draw the map four times too small."""
    corners = made.square(8, 5, 256.0, 512.0, 256.0)
    path = made.stamp(tmp_path / "s.h5", corners, tile_um=256.0, scores={"scores": np.linspace(0, 1, 40)}, old=old)
    scores = lay(path)
    assert_in_place(scores, corners / 0.25, 1024)
    assert scores.program == "STAMP"


def test_historic_stamp_asks_for_unit_and_size(tmp_path: Path) -> None:
    """Places without a unit would be taken for pixels; 224 of theirs are 256 um."""
    path = made.stamp(tmp_path / "s.h5", made.square(4, 4, 224), tile_um=None, scores={"scores": np.arange(16)})
    with pytest.raises(MissingPlaces) as caught:
        lay(path)
    assert caught.value.missing == ("unit", "size")
    scores = lay(path, Answers(size=224, unit="1.142857143"))
    assert_in_place(scores, made.square(4, 4, 1024), 1024)


def test_wsinfer_table(tmp_path: Path) -> None:
    """The commonest table of scores would not open."""
    corners = made.square(6, 6, 350, 700, 350)
    prob = np.linspace(0, 1, 36)
    path = made.wsinfer(tmp_path / "slide.csv", corners, 350, {"tumor": prob, "stroma": 1 - prob})
    scores = lay(path)
    assert scores.kind == "wsinfer"
    assert_in_place(scores, corners, 350)
    assert [(column.name, column.unit) for column in scores.columns] == [
        ("prob_tumor", "probability"), ("prob_stroma", "probability"),
    ]  # fmt: skip
    assert on_scale(scores.columns[0], "value").high == 1.0


@pytest.mark.parametrize(("delimiter", "decimal"), [(",", "."), (";", ","), ("\t", ".")])
def test_plain_table_in_any_dialect(tmp_path: Path, delimiter: str, decimal: str) -> None:
    """A German spreadsheet's table would read 0,5 as a text."""
    corners = made.square(3, 3, 100.5)
    cells = [[str(v).replace(".", decimal) for v in column] for column in (*corners.T, np.linspace(0, 1, 9))]
    path = made.table(tmp_path / "t.txt", {"X_um": cells[0], "Y_um": cells[1], "Score": cells[2]}, delimiter)
    path.write_bytes(b"\xef\xbb\xbf# made by hand\n" + path.read_bytes())
    scores = lay(path, Answers(size=100.5))
    assert_in_place(scores, corners / 0.25, 402)
    assert scores.columns[0].values[-1] == 1.0


def test_plain_table_asks_for_unit_and_size(tmp_path: Path) -> None:
    """x and y alone may be pixels or um: a guess is wrong by a factor that nobody sees."""
    corners = made.square(3, 3, 100)
    path = made.table(tmp_path / "t.csv", {"x": corners[:, 0], "y": corners[:, 1], "score": np.arange(9)})
    with pytest.raises(MissingPlaces, match="in which unit its places are and how large its tiles are") as caught:
        lay(path)
    assert pickle.loads(pickle.dumps(caught.value)).missing == ("unit", "size")
    assert_in_place(lay(path, Answers(100, "um")), corners * 4, 400)
    assert_in_place(lay(path, Answers(100, "px")), corners, 100)
    with pytest.raises(ScoresError, match="no unit of places"):
        lay(path, Answers(100, "furlong"))


def test_middles_and_far_edges(tmp_path: Path) -> None:
    """QuPath's centroids taken for corners would shift the map by half a tile."""
    corners = made.square(3, 3, 50)
    middles = {"Centroid X µm": corners[:, 0] + 25, "Centroid Y µm": corners[:, 1] + 25, "Tumour": np.arange(9)}
    assert_in_place(lay(made.table(tmp_path / "q.csv", middles), Answers(size=50)), corners * 4, 200)
    far = {"xmin_px": corners[:, 0], "ymin_px": corners[:, 1], "xmax": corners[:, 0] + 50, "ymax": corners[:, 1] + 50}
    assert_in_place(lay(made.table(tmp_path / "f.csv", far | {"p": np.arange(9)})), corners, 50)


def test_table_of_several_slides_gives_this_ones_rows(tmp_path: Path) -> None:
    """The scores of all slides would lie on one another."""
    corners = np.concatenate([made.square(2, 2, 100), made.square(2, 2, 100)])
    names = ["a/slide.svs"] * 4 + ["other.svs"] * 4
    columns = {"slide": names, "x_px": corners[:, 0], "y_px": corners[:, 1], "size_px": [100] * 8, "p": np.arange(8)}
    path = made.table(tmp_path / "t.csv", columns)
    assert lay(path).columns[0].values.tolist() == [0, 1, 2, 3]
    elsewhere = SlideFacts("third", 0.25, (20000, 10000), ((20000, 10000),), (1.0,))
    with pytest.raises(ScoresError, match="rows of 2 slides, none named third"):
        lay(path, facts=elsewhere)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("x_px,y_px,size_px,p\n0,0,10,1\n10,zero,10,1\n", "line 3: y_px is not a number: 'zero'"),
        ("x_px,y_px,size_px,p\n0,0,10,1\n\n10,0,10\n", "line 4 has 3 cells, the header 4"),
        ("x_px,y_px,size_px,p\n" + "0,0,10,1\n" * 11 + "0,0,10,lots\n", "line 13: p is not a number: 'lots'"),
        ("x_px,y_px,size_px,p\n0,0,10,1\n10,0,20,1\n", "tiles differ in size"),
        ("x_px,y_px,size_px,p\n0,0,0,1\n", "a tile has the size 0"),
        ("0,0,10,1\n10,0,10,1\n", "no line with the names of its columns"),
        ("path,patient,label\na.svs,p1,0\n", "no columns for the places of tiles among: path, patient, label"),
        ("x_px,y_um,p\n0,0,1\n", "different units"),
        ("x_px,y_px,size_px,p\n", "no rows"),
        ("x_px,y_px,size_px,p\ninf,0,10,1\n", "line 2: x_px is not a number"),
        ("x_px,y_px,size_px,p\n" + "0,0,10,1\n" * 5, "rows repeat a place"),
        ('x_px,y_px,size_px,p\n0,0,10,"1\n', "line 2: unexpected end of data"),
    ],
)
def test_wrong_tables_name_the_line(tmp_path: Path, text: str, words: str) -> None:
    """The user would search a table of a hundred thousand lines for the wrong one."""
    path = tmp_path / "t.csv"
    path.write_text(text)
    with pytest.raises(ScoresError, match=words):
        lay(path)


def test_features_without_scores_show_where_tiles_lie(tmp_path: Path) -> None:
    """A file of features would be shown as scores, or refused without saying what it is."""
    path = made.trident(
        tmp_path / "slide.h5", made.square(3, 3, 512), size_level0=512, extent=FACTS.dimensions, features=1024
    )
    scores = lay(path)
    assert scores.coverage_only
    assert scores.notes[0].startswith("It holds features, 9 × 1,024, but no score per tile")
    assert explain(scores, 0, 700, 700).reason == "a tile, without a score"


def test_real_features_say_what_they_are(shared: Path) -> None:
    """A real file without any attribute would be given a size out of the air."""
    path = shared / "mil" / "TCGA-AD-6964_features_f16.h5"
    big = SlideFacts("TCGA-AD-6964", 0.25, (80000, 60000), ((80000, 60000),), (1.0,))
    with pytest.raises(MissingPlaces, match="its places lie 512 apart"):
        lay(path, facts=big)
    scores = lay(path, Answers(512, "px"), big)
    assert scores.coverage_only
    assert "features, 777 × 512" in scores.notes[0]
    assert scores.places.exact
    assert len(scores.places) == 777


def test_tiles_beyond_the_slide(tmp_path: Path) -> None:
    """Scores of a larger slide would be cut off in silence."""
    corners = made.square(40, 3, 512)  # 20,480 px wide on 20,000: the last column reaches over the edge
    assert lay(made.wsinfer(tmp_path / "s.csv", corners, 512, {"t": np.arange(120) / 120})).notes == ()
    corners[-2:] += [1024, 0]
    stray = lay(made.wsinfer(tmp_path / "s.csv", corners, 512, {"t": np.arange(120) / 120}))
    assert stray.notes == ("2 of 120 tiles lie beyond the slide's edge and are left out.",)
    assert len(stray.columns[0].values) == len(stray.places) == 118
    far = made.wsinfer(tmp_path / "far.csv", made.square(40, 3, 1536), 1536, {"t": np.arange(120) / 120})
    with pytest.raises(ScoresError, match=r"65 % of its tiles lie beyond the slide: they reach to 61,440 × 4,608 px"):
        lay(far)


def test_values_that_are_no_numbers_and_repeated_places(tmp_path: Path) -> None:
    """A NaN would rank first, a place given twice would hide its first value."""
    corners = made.square(4, 1, 100)
    rows = np.concatenate([corners, corners[:1]])
    values = np.array([1.0, np.nan, np.inf, 4.0, 3.0])
    scores = lay(made.wsinfer(tmp_path / "s.csv", rows, 100, {"t": values}))
    np.testing.assert_array_equal(scores.columns[0].values, np.array([2, np.nan, np.nan, 4], np.float32))
    assert scores.notes == (
        "1 rows repeat a place: the mean stands there.", "prob_t: 2 values are not a finite number.",
    )  # fmt: skip
    assert ranks(scores.columns[0].values).tolist()[0] == 0.0


def test_slide_without_a_scale(tmp_path: Path) -> None:
    """A map without a scale would have no place in a world of um."""
    path = made.wsinfer(tmp_path / "s.csv", made.square(2, 2, 10), 10, {"t": np.arange(4)})
    with pytest.raises(MissingScale):
        lay(path, facts=SlideFacts("slide", None, (100, 100), ((100, 100),), (1.0,)))


def test_hostile_hdf5_is_refused(tmp_path: Path) -> None:
    """A score file could bring another file of the user's onto the screen, or fill the memory."""
    secret = tmp_path / "secret.bin"
    secret.write_bytes(bytes(range(256)) * 4)

    def refused(words: str, fill: Any) -> None:
        path = tmp_path / f"{words.split()[0]}.h5"
        with h5py.File(path, "w") as file:
            fill(file)
        with pytest.raises(ScoresError, match=words):
            lay(path, Answers(10, "px"))

    def link(file: h5py.File) -> None:
        file["coords"] = made.square(2, 2, 10)
        file["scores"] = h5py.ExternalLink("other.h5", "scores")

    def outside(file: h5py.File) -> None:
        file["coords"] = made.square(2, 2, 10)
        file.create_dataset("scores", (4,), "f4", external=[(str(secret), 0, 16)])

    def endless(file: h5py.File) -> None:
        file.create_dataset("coords", (1 << 50, 2), "f8", chunks=(1024, 2))

    def fat(file: h5py.File) -> None:
        file.create_dataset("coords", (1 << 20, 2), "f8", maxshape=(None, 2), chunks=(1 << 27, 2))

    refused("is a link", link)
    refused("values from elsewhere", outside)
    refused("holds 1,125,899,906,842,624 tiles", endless)
    refused("impossible blocks", fat)
    refused("no data set coords", lambda file: file.create_dataset("x", data=[1]))
    refused(r"coords has the shape \(4,\)", lambda file: file.create_dataset("coords", data=[1, 2, 3, 4]))


def test_damaged_files_are_refused(tmp_path: Path) -> None:
    """A file cut off while it was copied would end in a traceback."""
    whole = made.clam_blockmap(tmp_path / "s.h5", made.square(9, 9, 512), np.arange(81)).read_bytes()
    for name, content, words in (
        ("cut.h5", whole[: len(whole) // 2], "damaged"),
        ("picture.h5", b"\x89PNG\r\n\x1a\n" + bytes(100), "neither HDF5 nor a table"),
        ("empty.csv", b"", "empty, 0 bytes"),
        ("latin.csv", b"x_px,y_px,gr\xf6\xdfe\n0,0,1\n" + b" " * 10, "neither|UTF-8"),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ScoresError, match=words):
            lay(tmp_path / name)
    with pytest.raises(ScoresError, match="no such file"):
        lay(tmp_path / "absent.csv")


def test_child_reads_the_same_and_brings_errors_back(tmp_path: Path) -> None:
    """What is tested here in this process would not be what users get."""
    path = made.wsinfer(tmp_path / "s.csv", made.square(3, 3, 100), 100, {"t": np.linspace(0, 1, 9)})
    scores = run(read_scores(path, FACTS))
    np.testing.assert_array_equal(scores.columns[0].values, lay(path).columns[0].values)
    bad = tmp_path / "bad.csv"
    bad.write_text("x_px,y_px,size_px,p\n0,0,ten,1\n")
    with pytest.raises(ScoresError, match=r"bad.csv: line 2: size_px is not a number: 'ten'. Mend the line"):
        run(read_scores(bad, FACTS))


def test_packing_keeps_everything(tmp_path: Path) -> None:
    """A field would be lost between the processes."""
    path = made.clam_patches(
        tmp_path / "s.h5",
        made.square(3, 3, 512),
        patch_size=256,
        level=1,
        downsample=4.0,
        level_dim=(5, 6),
        features=80,
    )
    raw = read_raw(path)
    back = unpack(pack(raw))
    for name in raw.__dataclass_fields__:
        np.testing.assert_array_equal(getattr(back, name), getattr(raw, name))
    with pytest.raises(ValueError):
        unpack(pack(raw)[:-8])


def test_scores_are_told_from_slides_by_content(tmp_path: Path) -> None:
    """A slide dropped on the dock would be read as a table, a table with a strange name as a slide."""
    assert is_scores(made.clam_blockmap(tmp_path / "a.svs", made.square(2, 2, 9), np.arange(4)))
    assert is_scores(made.wsinfer(tmp_path / "b.dat", made.square(2, 2, 9), 9, {"t": np.arange(4)}))
    tiff = tmp_path / "c.csv"
    tiff.write_bytes(b"II*\x00" + bytes(100))
    assert not is_scores(tiff)
    assert not is_scores(tmp_path / "absent.csv")
    assert not is_scores(tmp_path)


def test_explain_tells_value_rank_and_share(tmp_path: Path) -> None:
    """The click panel would give the wrong rank, or call any number a share."""
    weights = made.attention(12)
    path = made.trident(
        tmp_path / "s.h5", made.square(4, 3, 512), size_level0=512, extent=FACTS.dimensions,
        scores={"attention": weights, "logit": np.arange(12.0)},
    )  # fmt: skip
    scores = lay(path)
    tile = int(weights.argmax())
    x, y = scores.places.locations[tile] + 200
    answer = explain(scores, 0, x, y)
    assert (answer.tile, answer.rank, answer.of, answer.percentile) == (tile, 1, 12, 100.0)
    assert answer.value == pytest.approx(weights.max())
    assert answer.times_mean == pytest.approx(12 * weights.max())
    assert answer.others == (("logit", float(tile)),)
    assert explain(scores, 1, x, y).times_mean is None
    assert explain(scores, 0, 15000, 9000).reason == "no tile here"
    assert scales(scores.columns[0]) == ("times", "value", "rank")
    assert scales(scores.columns[1]) == ("value", "rank")


def test_hundred_thousand_tiles_are_fast(tmp_path: Path) -> None:
    """A large slide's table would keep the user waiting."""
    big = SlideFacts("slide", 0.25, (200_000, 200_000), ((200_000, 200_000),), (1.0,))
    corners = made.square(320, 320, 512)
    path = made.clam_blockmap(tmp_path / "s.h5", corners, np.arange(len(corners)))
    raw = read_raw(path)
    start = time.perf_counter()
    scores = lay_scores(raw, "s.h5", big, Answers(size=512))
    scores.places.image(scores.columns[0].values)
    assert time.perf_counter() - start < 1.5  # 0.1 s on a quiet machine
    shifted = corners + 32 * np.random.default_rng(0).integers(0, 3, len(corners))[:, None]
    raw = read_raw(made.clam_blockmap(tmp_path / "t.h5", shifted, np.arange(len(corners))))
    start = time.perf_counter()
    irregular = lay_scores(raw, "t.h5", big, Answers(size=512))
    assert time.perf_counter() - start < 10  # 1.5 s on a quiet machine
    assert irregular.places.owner.size <= 8_100_000


def test_real_level_of_no_whole_factor(shared: Path) -> None:
    """A downsample of 4.0011 taken for 4 would shift a map by a tile over a large slide (slideflow#440)."""
    from napari_slnpredict.foreign.raw import RawScores
    from napari_slnpredict.foreign.scores import facts_of
    from napari_slnpredict.slide.slide import open_slide

    path = shared / "cohort" / "slides" / "ln01a.svs"
    if not path.is_file():
        pytest.skip("the slide is not here")
    with open_slide(path) as slide:
        facts = facts_of(slide)
    size = 56 * facts.level_downsamples[1]
    assert size != 56 * 4
    corners = np.floor(made.square(12, 12, size))
    raw = RawScores("clam", corners, ("a",), np.zeros((144, 1)), unit="px", size=56, size_level=1)
    scores = lay_scores(raw, "ln01a.h5", facts, Answers())
    assert scores.places.size_level0 == pytest.approx(size)
    first, last = corners_drawn(scores)[[0, -1]]
    assert np.abs(first[:2] - corners[0]).max() <= 0.5
    assert np.abs(last[2:] - (corners[-1] + size)).max() <= 0.5
