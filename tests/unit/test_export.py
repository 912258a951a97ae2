"""The files of a prediction: every field the contract names, at the right place, with nothing that should not leave."""

from __future__ import annotations

import csv
import io
import json
import re
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tell_fakes import Predicted, predicted

from napari_slnpredict.errors import ResourceError
from napari_slnpredict.export import (
    Sheet,
    csv_text,
    failures_csv,
    prediction_record,
    predictions_csv,
    safe_cell,
    tiles_csv,
    write_prediction,
)
from napari_slnpredict.export_pictures import map_extent, map_ome_tiff, overlay_png, round_length
from napari_slnpredict.export_qupath import origin_offset, tiles_geojson
from napari_slnpredict.slide.grid import GridSpec, TileGrid

FILES = ("prediction.json", "tiles.csv", "tiles.geojson", "overlay.png", "map.ome.tif", "report.html", "run.json")


@pytest.fixture
def found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Predicted]:
    yield from predicted(tmp_path / "slides", monkeypatch)


@pytest.fixture
def empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Predicted]:
    yield from predicted(tmp_path / "slides", monkeypatch, tissue=False)


def write(found: Predicted, out: Path, **sheet: Any) -> dict[str, Any]:
    return write_prediction(found.slide, found.prediction, out, Sheet(sheet.pop("name", "one"), **sheet))


def test_every_file_is_written(found: Predicted, tmp_path: Path) -> None:
    """A file missing from the folder that other programs and people rely on."""
    record = write(found, tmp_path / "out")
    for name in FILES:
        assert (tmp_path / "out" / name).stat().st_size > 0, name
    assert json.loads((tmp_path / "out" / "prediction.json").read_text()) == record
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == sorted(FILES), "part files left behind"


def test_prediction_json_holds_the_contract(found: Predicted, tmp_path: Path) -> None:
    """A field that later work reads is missing or of another kind."""
    record = write(found, tmp_path / "out")
    assert record["format"] == 1
    assert record["slide_id"] == "one"
    assert record["classes"] == ["negative", "positive"]
    assert sum(record["probabilities"].values()) == pytest.approx(1)
    assert list(record["probabilities"]) == record["classes"]
    assert (record["interval"], record["set"], record["out_of_domain"]) == (None, None, None)
    assert record["answer"] == found.prediction.answer
    assert {"name", "digest"} <= set(record["model"])
    assert {"name", "digest", "precision"} <= set(record["encoder"])
    assert record["tiles"] == len(found.prediction.grid)
    assert record["content_id"] == found.slide.content_id
    assert set(record["seconds"]) >= {"tissue", "grid", "embed", "judge", "write"}


def test_run_json_says_what_ran(found: Predicted, tmp_path: Path) -> None:
    """A result nobody could reproduce: no versions, no digests, no seconds per part."""
    write(found, tmp_path / "out", settings={"device": "auto"})
    run = json.loads((tmp_path / "out" / "run.json").read_text())
    assert set(run["seconds"]) >= {"read", "decode", "encode", "write"}
    assert run["seconds"]["resize"] >= 0
    assert run["settings"] == {"origin": "qupath", "device": "auto"}
    assert run["versions"]["napari-slnpredict"]
    assert run["slide"]["reader"] == found.slide.reader
    assert run["grid"]["digest"] == found.prediction.grid.digest
    assert run["model"]["digest"] == found.prediction.bundle.digest


def test_the_licences_stand_wherever_the_model_is_named(found: Predicted, tmp_path: Path) -> None:
    """A result of an encoder for research alone would be passed on by somebody who was never told."""
    covered = replace(found.prediction.encoder, licence="CC-BY-NC-ND-4.0", notice="for research only")
    record = write(replace(found, prediction=replace(found.prediction, encoder=covered)), tmp_path / "out")
    assert (record["encoder"]["licence"], record["encoder"]["notice"]) == ("CC-BY-NC-ND-4.0", "for research only")
    assert record["model"]["licence"] == found.prediction.bundle.licence == "BSD-3-Clause"
    run = json.loads((tmp_path / "out" / "run.json").read_text())
    assert (run["encoder"]["licence"], run["model"]["licence"]) == ("CC-BY-NC-ND-4.0", "BSD-3-Clause")
    report = (tmp_path / "out" / "report.html").read_text()
    assert "licence CC-BY-NC-ND-4.0" in report
    assert "for research only" in report
    assert "licence BSD-3-Clause" in report


def test_nothing_names_the_machine(found: Predicted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A path or a host name in a file that is sent to others (promise R10)."""
    monkeypatch.setattr("socket.gethostname", lambda: "planted-host-name")
    write(found, tmp_path / "out")
    for name in FILES:
        data = (tmp_path / "out" / name).read_bytes()
        for word in (str(tmp_path), str(Path.home()) + "/", "planted-host-name"):
            assert word.encode() not in data, f"{name} holds {word}"


def test_tiles_csv(found: Predicted) -> None:
    """A table whose numbers do not belong to its tiles."""
    prediction = found.prediction
    verdict = prediction.verdict
    assert verdict is not None
    assert verdict.attention is not None
    rows = list(csv.DictReader(io.StringIO(tiles_csv(prediction))))
    assert list(rows[0])[:9] == ["x", "y", "size", "tissue", "attention", "share", "rank", "evidence_negative",
                                 "evidence_positive"]  # fmt: skip
    assert [(int(r["x"]), int(r["y"])) for r in rows] == [tuple(p) for p in prediction.grid.locations]
    assert sum(float(r["attention"]) for r in rows) == pytest.approx(1, abs=1e-6)
    assert float(rows[3]["share"]) == pytest.approx(float(rows[3]["attention"]) * len(rows))
    assert sorted(int(r["rank"]) for r in rows) == list(range(1, len(rows) + 1))
    best = min(rows, key=lambda r: int(r["rank"]))
    assert float(best["attention"]) == pytest.approx(verdict.attention.max())
    assert rows[0]["anomaly"] == ""


def corners(feature: dict[str, Any]) -> tuple[float, float, float, float]:
    ring = feature["geometry"]["coordinates"][0]
    assert ring[0] == ring[-1]
    xs, ys = [p[0] for p in ring], [p[1] for p in ring]
    return min(xs), min(ys), max(xs), max(ys)


@pytest.mark.parametrize("origin", ["qupath", "level0"])
def test_geojson_lies_where_qupath_draws_it(found: Predicted, origin: str) -> None:
    """Tiles beside the tissue on slides whose scanner names a part of the glass (qupath#1278)."""
    found.slide.bounds = (37, 21, 500, 400)
    dx, dy = (37, 21) if origin == "qupath" else (0, 0)
    assert origin_offset(found.slide, origin) == (dx, dy)
    read = json.loads(tiles_geojson(found.slide, found.prediction, "one", origin))
    assert read["type"] == "FeatureCollection"
    assert (read["metadata"]["origin"], read["metadata"]["origin_x"], read["metadata"]["origin_y"]) == (
        origin,
        str(dx),
        str(dy),
    )
    grid = found.prediction.grid
    assert len(read["features"]) == len(grid)
    for k, feature in enumerate(read["features"]):
        left, top, right, bottom = corners(feature)
        x, y = grid.locations[k]
        assert max(abs(left + dx - x), abs(top + dy - y)) < 0.5
        assert max(abs(right + dx - x - grid.size_level0), abs(bottom + dy - y - grid.size_level0)) < 0.5


def test_geojson_has_qupaths_fields(found: Predicted) -> None:
    """QuPath would refuse the file, or hang on 20,000 annotations."""
    text = tiles_geojson(found.slide, found.prediction, "one")
    assert text == tiles_geojson(found.slide, found.prediction, "one"), "ids must not change from run to run"
    features = json.loads(text)["features"]
    assert len({feature["id"] for feature in features}) == len(features)
    assert re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", features[0]["id"])
    properties = features[0]["properties"]
    assert properties["objectType"] == "tile"
    assert {"Attention share", "Evidence: positive", "Tissue"} <= set(properties["measurements"])
    assert all(isinstance(value, (int, float)) for value in properties["measurements"].values())


def test_an_unknown_origin_is_an_error(found: Predicted) -> None:
    """A misspelt origin would silently shift every tile."""
    with pytest.raises(ValueError, match="origin is"):
        origin_offset(found.slide, "bounds")


def ome_place(path: Path) -> tuple[float, float, float, float]:
    """Return x, y of the first pixel's corner and the step, um, as another program reads them."""
    import tifffile

    with tifffile.TiffFile(path) as tif:
        assert tif.is_ome
        root = ET.fromstring(tif.ome_metadata or "")
    pixels = next(e for e in root.iter() if e.tag.endswith("Pixels"))
    plane = next(e for e in root.iter() if e.tag.endswith("Plane"))
    assert (pixels.get("PhysicalSizeXUnit"), plane.get("PositionXUnit")) == ("µm", "µm")
    return (
        float(plane.get("PositionX", "nan")),
        float(plane.get("PositionY", "nan")),
        float(pixels.get("PhysicalSizeX", "nan")),
        float(pixels.get("PhysicalSizeY", "nan")),
    )


def lattice(spec: GridSpec, mpp: float, shape: tuple[int, int] = (5, 7)) -> TileGrid:
    """Every second tile of a lattice, as `lay_grid` places them."""
    cells = np.argwhere(np.indices(shape).sum(0) % 2 == 0).astype(np.int32)
    stride = (spec.tile_px - spec.overlap_px) * spec.mpp / mpp
    return TileGrid(
        spec=spec,
        slide_id="one",
        slide_mpp=mpp,
        extent=(10_000, 8_000),
        size_level0=spec.tile_um / mpp,
        locations=np.rint(cells[:, ::-1] * stride).astype(np.int64),
        tissue=np.ones(len(cells), np.float32),
        component=np.ones(len(cells), np.int32),
        cells=cells,
        shape=shape,
    )


@pytest.mark.parametrize("origin", ["qupath", "level0"])
@pytest.mark.parametrize("mpp", [1.0, 0.4991, 0.2528])
@pytest.mark.parametrize("overlap", [0, 16, 32])
def test_ome_tiff_lies_on_its_tiles(found: Predicted, tmp_path: Path, origin: str, mpp: float, overlap: int) -> None:
    """A heat map that drifts from its tissue (slideflow#440): every pixel's centre is its tile's centre."""
    import tifffile

    grid = lattice(GridSpec(64, 1.0, overlap), mpp)
    prediction = replace(found.prediction, grid=grid, verdict=None, bag=None)
    found.slide.bounds = (31, 17, 5000, 5000)
    path = tmp_path / "map.ome.tif"
    map_ome_tiff(path, found.slide, prediction, Sheet("one", origin))
    x, y, step_x, step_y = ome_place(path)
    dx, dy = (31, 17) if origin == "qupath" else (0, 0)
    assert tifffile.imread(path).shape[-2:] == grid.shape
    for (row, column), location in zip(grid.cells, grid.locations, strict=True):
        centre = location + grid.size_level0 / 2
        assert abs((x + (column + 0.5) * step_x) / mpp + dx - centre[0]) < 0.5
        assert abs((y + (row + 0.5) * step_y) / mpp + dy - centre[1]) < 0.5
    left, top, width, height = map_extent(grid)
    assert width / grid.shape[1] == pytest.approx(step_x / mpp)
    assert height / grid.shape[0] == pytest.approx(step_y / mpp)
    assert (left - dx) * mpp == pytest.approx(x)
    assert (top - dy) * mpp == pytest.approx(y)


def test_ome_tiff_holds_the_maps(found: Predicted, tmp_path: Path) -> None:
    """Values of another map, or zeros where nothing is known."""
    import tifffile

    write(found, tmp_path / "out")
    planes = tifffile.imread(tmp_path / "out" / "map.ome.tif")
    grid, verdict = found.prediction.grid, found.prediction.verdict
    assert verdict is not None
    assert verdict.evidence is not None
    assert planes.dtype == np.float32
    assert planes.shape == (3, *grid.shape)
    share = verdict.share()
    assert share is not None
    np.testing.assert_allclose(planes[0][grid.cells[:, 0], grid.cells[:, 1]], share, rtol=1e-5)
    np.testing.assert_allclose(planes[2][grid.cells[:, 0], grid.cells[:, 1]], verdict.evidence[:, 1], rtol=1e-5)
    assert np.isfinite(planes[0]).sum() == len(grid)


def test_the_overlay_shows_the_map_on_the_tissue(found: Predicted) -> None:
    """A picture without the map, without its colour bar, or with colour on glass."""
    from PIL import Image

    picture = np.asarray(Image.open(io.BytesIO(overlay_png(found.slide, found.prediction))).convert("RGB")).astype(int)
    width, height = found.slide.dimensions
    band = picture.shape[0] - picture.shape[1] * height / width
    assert band > 60, "no room for the colour bar"
    assert overlay_png(found.slide, found.prediction) == overlay_png(found.slide, found.prediction)
    scale = picture.shape[1] / width
    glass = picture[: int(20 * scale), : int(20 * scale)]
    assert np.abs(glass - 245).max() <= 2
    middle = picture[int(height * scale / 2) - 20 :, int(width * scale / 2) - 20 :][:40, :40].reshape(-1, 3).mean(0)
    assert middle[1] > middle[0] - 40, "attention must pull pink tissue towards green"


def test_an_empty_slide_has_every_file(empty: Predicted, tmp_path: Path) -> None:
    """A batch whose empty slides lack files, or carry a probability into the table."""
    record = write(empty, tmp_path / "out")
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == sorted(FILES)
    assert record["answer"] == "No tissue found on this slide."
    assert (record["tiles"], record["reason"], record["sure"]) == (0, "no tissue", False)
    assert record["probabilities"] == {"negative": 0.5, "positive": 0.5}
    assert len((tmp_path / "out" / "tiles.csv").read_text().splitlines()) == 1
    assert json.loads((tmp_path / "out" / "tiles.geojson").read_text())["features"] == []
    row = next(csv.DictReader(io.StringIO(predictions_csv([record]))))
    assert (row["probability_positive"], row["reason"]) == ("", "no tissue")
    assert "no probability to show" in (tmp_path / "out" / "report.html").read_text()


def test_predictions_csv_has_one_row_a_slide(found: Predicted, tmp_path: Path) -> None:
    """Rows of slides with different models would shift into each other's columns."""
    record = prediction_record(found.slide, found.prediction, Sheet("b"))
    other = {**record, "slide_id": "a", "classes": ["0", "3+"], "probabilities": {"0": 0.25, "3+": 0.75}}
    rows = list(csv.DictReader(io.StringIO(predictions_csv([record, other]))))
    assert [row["slide_id"] for row in rows] == ["a", "b"]
    assert rows[0]["probability_3+"] == "0.75"
    assert rows[0]["probability_positive"] == ""
    assert float(rows[1]["probability_positive"]) == pytest.approx(record["probabilities"]["positive"])


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@SUM(A1)", "=cmd|' /C calc'!A0"])
def test_a_spreadsheet_runs_nothing(text: str) -> None:
    """A slide named like a formula would be run by whoever opens the table."""
    assert safe_cell(text) == f"'{text}"
    assert next(csv.reader(io.StringIO(csv_text([text], [])))) == [f"'{text}"]


def test_numbers_stay_numbers() -> None:
    """Negative evidence written as text could not be plotted."""
    assert safe_cell(-0.53) == "-0.53"
    assert safe_cell(None) == ""
    assert safe_cell(float("nan")) == ""
    assert safe_cell(-3) == -3
    assert safe_cell("line\nfeed") == "line\\nfeed"


def test_failures_csv_names_each() -> None:
    """A failed slide without its cause in the table."""
    table = list(csv.reader(io.StringIO(failures_csv([("=x.svs", "CorruptSlide", "ends early")]))))
    assert table == [["slide", "error", "message"], ["'=x.svs", "CorruptSlide", "ends early"]]


def test_a_pseudonym_hides_the_file_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A patient's name in a file name would travel with the results (promise R10)."""
    encoder = {"warning": "Meier_Anna.svs is odd, Meier_Anna too"}
    for found in predicted(tmp_path / "s", monkeypatch, name="Meier_Anna.svs", encoder=encoder):
        name = found.slide.content_id
        record = write(found, tmp_path / name, name=name)
        assert record["warnings"] == [f"{name} is odd, {name} too"]
        for path in (tmp_path / name).iterdir():
            assert b"Meier" not in path.read_bytes(), path.name


def test_no_space_leaves_the_old_result(found: Predicted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full disk would destroy the result of an earlier run (promise R5)."""
    write(found, tmp_path / "out")
    before = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    real = Path.replace

    def full(self: Path, target: Path) -> Path:
        if Path(target).name == "map.ome.tif":
            raise OSError(28, "No space left on device")
        return real(self, target)

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(ResourceError, match="disk is full"):
        write(found, tmp_path / "out", origin="level0")
    assert (tmp_path / "out" / "map.ome.tif").read_bytes() == before["map.ome.tif"]
    assert (tmp_path / "out" / "prediction.json").read_bytes() == before["prediction.json"]
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == sorted(FILES)


@pytest.mark.parametrize(("um", "length"), [(830, 500), (500, 500), (199, 100), (1e4, 1e4), (3.2, 2)])
def test_scale_bars_have_round_lengths(um: float, length: float) -> None:
    """A scale bar of 437 um is of no use to an eye."""
    assert round_length(um) == pytest.approx(length)
