"""Tissue edits on disk."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from napari_slnpredict.plugin import edits


def test_newest_edit_comes_back(tmp_path: Path) -> None:
    """A correction by hand would be lost with the window."""
    first = edits.TissueEdit(np.eye(7, 5, dtype=bool), 8.0)
    second = edits.TissueEdit(~first.pixels, 8.0)
    edits.save(tmp_path, "abc", first)
    edits.save(tmp_path, "abc", second)
    found = edits.load(tmp_path, "abc")
    assert found is not None
    assert np.array_equal(found.pixels, second.pixels)
    assert found.mpp == 8.0


def test_five_versions_are_kept(tmp_path: Path) -> None:
    """The disk would fill with strokes, or one bad stroke would destroy the rest."""
    for k in range(8):
        edits.save(tmp_path, "abc", edits.TissueEdit(np.full((3, 3), k % 2 == 0), 8.0))
    names = sorted(path.name for path in edits.folder_of(tmp_path, "abc").iterdir())
    assert len(names) == edits.KEPT
    assert names[-1] == "tissue-00008.npz"


def test_torn_and_foreign_versions_are_skipped(tmp_path: Path) -> None:
    """One unreadable file would hide the good ones, or keep the slide from opening."""
    edits.save(tmp_path, "abc", edits.TissueEdit(np.ones((2, 2), bool), 8.0))
    (edits.folder_of(tmp_path, "abc") / "tissue-00009.npz").write_bytes(b"PK torn")
    found = edits.load(tmp_path, "abc")
    assert found is not None
    assert found.pixels.all()
    assert edits.load(tmp_path, "nobody") is None


def test_forgetting(tmp_path: Path) -> None:
    """There would be no way back to the tissue that was found."""
    edits.save(tmp_path, "abc", edits.TissueEdit(np.ones((2, 2), bool), 8.0))
    edits.forget(tmp_path, "abc")
    assert edits.load(tmp_path, "abc") is None
