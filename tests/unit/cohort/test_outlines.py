"""Outlines of the Camelyon challenges: what lies inside, what is cut out, what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from napari_slnpredict.cohort.outlines import inside, read_outlines
from napari_slnpredict.errors import DataError

SQUARE = ((0, 0), (10, 0), (10, 10), (0, 10))


def drawn(group: str, corners: tuple[tuple[float, float], ...]) -> str:
    places = "".join(f'<Coordinate Order="{k}" X="{x}" Y="{y}" />' for k, (x, y) in enumerate(corners))
    name = f'Name="Annotation 0" Type="Polygon" PartOfGroup="{group}" Color="#F4FA58"'
    return f"<Annotation {name}><Coordinates>{places}</Coordinates></Annotation>"


def written(folder: Path, *annotations: str) -> Path:
    path = folder / "tumor_001.xml"
    groups = '<AnnotationGroups><Group Name="_0" PartOfGroup="None" /></AnnotationGroups>'
    body = f"<ASAP_Annotations><Annotations>{''.join(annotations)}</Annotations>{groups}</ASAP_Annotations>"
    path.write_text(f'<?xml version="1.0"?>\n{body}\n')
    return path


def test_marked_is_inside_and_not_cut_out(tmp_path: Path) -> None:
    """Group _2 holds what is not tumour inside a tumour: read as tumour, it would teach the wrong thing."""
    hole = ((4, 4), (6, 4), (6, 6), (4, 6))
    outlines = read_outlines(written(tmp_path, drawn("_0", SQUARE), drawn("Tumor", ((20, 0), (30, 0), (25, 9))),
                                     drawn("_2", hole)))  # fmt: skip
    places = np.array([[1, 1], [5, 5], [25, 3], [15, 5], [29, 8]])
    assert outlines.covers(places).tolist() == [True, False, True, False, False]


def test_inside_agrees_with_matplotlib() -> None:
    """A wrong sign at one corner labels stripes of a slide."""
    from matplotlib.path import Path as Outline

    rng = np.random.default_rng(0)
    turn = np.sort(rng.random(40)) * 2 * np.pi
    far = rng.uniform(3, 9, 40)
    polygon = np.stack([far * np.cos(turn), far * np.sin(turn)], axis=1)
    places = rng.uniform(-10, 10, (5000, 2))
    assert np.array_equal(inside(polygon, places), Outline(polygon).contains_points(places))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (drawn("blood", SQUARE), "group 'blood'"),
        (drawn("_0", SQUARE[:2]), "2 corners"),
        (drawn("_0", SQUARE).replace('X="10"', 'X="ten"'), "without numbers"),
        ("<open>", "cannot be read"),
    ],
)
def test_what_is_no_outline(tmp_path: Path, text: str, said: str) -> None:
    """A group nobody knows must not be taken for tumour, nor for nothing."""
    with pytest.raises(DataError, match=said):
        read_outlines(written(tmp_path, text))


def test_entities_are_refused(tmp_path: Path) -> None:
    """An XML file from a stranger must not read files or eat the memory."""
    path = tmp_path / "bomb.xml"
    path.write_text('<!DOCTYPE a [<!ENTITY b "x">]><ASAP_Annotations>&b;</ASAP_Annotations>')
    with pytest.raises(DataError, match="DOCTYPE"):
        read_outlines(path)
