"""The tasks mean what they say, and a seed is a slide."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from napari_slnpredict.errors import DataError
from napari_slnpredict.phantom.cells import PURITY, choose_atypical
from napari_slnpredict.phantom.labs import LABS
from napari_slnpredict.phantom.scene import Tissue
from napari_slnpredict.phantom.tasks import TASKS, make_slide

SMALL = 0.7


@pytest.mark.parametrize(("task", "label"), [(name, label) for name, task in TASKS.items() for label in task.labels])
def test_every_label_can_be_drawn(task: str, label: str) -> None:
    """Wrong: a task or label fails, or its truth does not lie on its pixels."""
    slide = make_slide(task, label, 3, size=SMALL)
    height, width = slide.pixels.shape[:2]
    assert slide.pixels.dtype == np.uint8
    assert slide.truth.shape == slide.artefacts.shape == (height // 8, width // 8)
    means = slide.pixels.reshape(height // 8, 8, width // 8, 8, 3).mean(axis=(1, 3, 4))
    assert means[slide.truth > 0].mean() < means[(slide.truth == 0) & (slide.artefacts == 0)].mean() - 20
    assert 0.15 < (slide.truth > 0).mean() < 0.95
    assert slide.nuclei > 100


def test_the_same_seed_is_the_same_slide() -> None:
    """Wrong: a cohort cannot be made again from its seed."""
    first, second, other = (make_slide("sln", "positive", seed, size=0.5) for seed in (5, 5, 6))
    assert (first.pixels == second.pixels).all()
    assert first.instances == second.instances
    assert first.pixels.shape != other.pixels.shape or (first.pixels != other.pixels).any()


@pytest.mark.parametrize("task", ["sln", "metastasis", "her2"])
def test_siblings_share_everything_but_the_arrangement(task: str) -> None:
    """Wrong: the label moves the outline, the artefacts or the number of nuclei."""
    labels = TASKS[task].labels
    one, other = (make_slide(task, label, 11, "B", size=1.0) for label in (labels[0], labels[-1]))
    assert ((one.truth > 0) == (other.truth > 0)).all()
    assert (one.artefacts == other.artefacts).all()
    assert one.nuclei == other.nuclei


def test_aggressive_nests_are_in_positives_only() -> None:
    """Wrong: the truth of sln does not follow its label, or ordinary nests are missing in one class."""
    for seed in range(3):
        no, yes = (make_slide("sln", label, seed, size=1.2) for label in ("negative", "positive"))
        assert (no.truth == Tissue.ALTERED).sum() == 0
        assert (yes.truth == Tissue.ALTERED).sum() > 0
        assert (yes.truth == Tissue.NEST).sum() > 0
        aggressive = [row for row in yes.instances if row.kind == "altered nest"]
        ordinary = [row for row in yes.instances if row.kind == "nest"]
        share = len(aggressive) / (len(aggressive) + len(ordinary))
        assert 0.05 < share < 0.5
        assert np.mean([row.altered for row in aggressive if row.nuclei > 20]) > 0.85
        pool = [sum(row.nuclei * row.altered for row in slide.instances) for slide in (no, yes)]
        assert pool[0] == pytest.approx(pool[1], rel=1e-6)


def test_neighbours_touch_in_positives_only() -> None:
    """Wrong: sln-relation's label is not the relation of nests and aggregates."""
    from scipy.ndimage import distance_transform_edt

    gaps = {}
    for label in ("negative", "positive"):
        slide = make_slide("sln-relation", label, 2, size=3.0)
        away = distance_transform_edt(slide.truth != Tissue.NEST) * 8
        gaps[label] = [
            away[int(row.y_um) // 8, int(row.x_um) // 8] for row in slide.instances if row.kind == "aggregate"
        ]
        assert all(row.touching == (label == "positive") for row in slide.instances if row.kind == "aggregate")
    assert max(gaps["positive"]) < 320  # a strip and the aggregate's own radius
    assert min(gaps["negative"]) > 380
    assert len(gaps["positive"]) == len(gaps["negative"])


def test_deposits_have_the_sizes_of_the_design() -> None:
    """Wrong: metastases are no longer 1 to 20 of 0.1 to 2 mm."""
    for seed in range(3):
        slide = make_slide("metastasis", "positive", seed, size=2.5)
        sizes = [row.diameter_um for row in slide.instances if row.kind == "deposit"]
        assert 1 <= len(sizes) <= 20
        assert min(sizes) > 50
        assert max(sizes) < 2000
        assert (slide.truth == Tissue.DEPOSIT).any()


def test_her2_scores_are_ordered() -> None:
    """Wrong: a higher score does not mean more altered tumour, and darker membranes in the paired section."""
    area, brown = [], []
    for label in TASKS["her2"].labels:
        slide = make_slide("her2", label, 4, size=1.5)
        area.append(int((slide.truth == Tissue.ALTERED).sum()))
        dab = make_slide("her2", label, 4, size=1.5, stain="DAB")
        assert (dab.truth == slide.truth).all()
        red, blue = dab.pixels[..., 0].astype(float), dab.pixels[..., 2].astype(float)
        brown.append(float((red - blue > 25)[np.kron(dab.artefacts == 0, np.ones((8, 8), bool))].mean()))
    assert area == sorted(area)
    assert area[0] == 0
    assert brown == sorted(brown)
    assert brown[-1] > brown[0] + 0.005


@pytest.mark.parametrize("lab", sorted(LABS))
def test_labs_look_different(lab: str) -> None:
    """Wrong: laboratories share their stain, so that nothing can be shown about stains."""
    mine, reference = (make_slide("sln", "negative", 8, name, size=0.5) for name in (lab, "A"))
    if lab != "A":
        difference = [
            slide.pixels[np.kron(slide.truth > 0, np.ones((8, 8), bool))].mean(axis=0) for slide in (mine, reference)
        ]
        assert np.abs(difference[0] - difference[1]).max() > 3
        assert mine.quality != reference.quality


def test_unknown_words_are_refused_with_the_known_ones() -> None:
    """Wrong: a typing error ends in a traceback."""
    for task, label, lab, size in (("slm", "positive", "A", 1), ("sln", "yes", "A", 1), ("sln", "positive", "Z", 1)):
        with pytest.raises(DataError, match=r"sln|positive|A, B"):
            make_slide(task, label, 0, lab, size=size)
    with pytest.raises(DataError, match="mm"):
        make_slide("sln", "positive", 0, size=0.01)


@pytest.mark.parametrize("concentrated", [True, False])
def test_the_pool_of_atypical_nuclei_does_not_depend_on_the_label(concentrated: bool) -> None:
    """Wrong: a positive slide has more atypical nuclei, which a count would show."""
    rng = np.random.default_rng(0)
    nest = np.repeat(np.arange(10), 100)
    fixed = np.zeros(10, bool)
    fixed[:2] = concentrated
    wanted = np.where(fixed, PURITY, rng.uniform(0.2, 1, 10))
    atypical = choose_atypical(rng, nest, 0.3, wanted, fixed)
    assert atypical.sum() == 300
    if concentrated:
        assert atypical[:200].mean() > 0.85


def test_half_a_millimetre_takes_a_moment(tmp_path: Path) -> None:
    """Wrong: phantoms are too slow to be the fixture of other tests."""
    import time

    make_slide("sln", "positive", 0, size=0.5)
    began = time.process_time()
    make_slide("sln", "positive", 1, size=0.5)
    assert time.process_time() - began < 0.6
