"""Every real slide at hand: level 0 as OpenSlide has it, every stored level as tifffile has it."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from napari_slnpredict.errors import SlideError
from napari_slnpredict.slide.slide import Slide, open_slide

from .made_slides import stored

pytestmark = pytest.mark.shared

LARGEST = 400


def slides(data: Path) -> Iterator[Path]:
    """Yield every sound slide of the development data, of a DICOM slide one file."""
    yield from sorted(path for path in (data / "slides").iterdir() if path.suffix in (".svs", ".tiff", ".tif", ".ndpi"))
    yield from sorted((data / "cohort" / "slides").iterdir())
    yield from (min(folder.iterdir()) for folder in sorted((data / "slides").glob("*dicom*")))


def places(slide: Slide, level: int, count: int, rng: np.random.Generator) -> Iterator[tuple[int, int, int, int]]:
    """Yield x, y (level 0) and w, h of regions that may reach over the right and lower edge."""
    width, height = slide.level_dimensions[level]
    for _ in range(count):
        w, h = int(rng.integers(1, min(width, LARGEST) + 1)), int(rng.integers(1, min(height, LARGEST) + 1))
        yield int(rng.integers(0, slide.dimensions[0])), int(rng.integers(0, slide.dimensions[1])), w, h


def openslide_differences(slide: Slide, path: Path, count: int, rng: np.random.Generator) -> int:
    """Return the largest difference of level 0 from OpenSlide's, inside the slide."""
    import openslide

    worst = 0
    with openslide.OpenSlide(str(path)) as other:
        for x, y, w, h in places(slide, 0, count, rng):
            w, h = min(w, slide.dimensions[0] - x), min(h, slide.dimensions[1] - y)
            theirs = np.asarray(other.read_region((x, y), 0, (w, h)))
            ours = slide.read_region((x, y), 0, (w, h))
            worst = max(worst, int(np.abs(ours.astype(int) - theirs[..., :3])[theirs[..., 3] == 255].max(initial=0)))
    return worst


def stored_differences(slide: Slide, path: Path, level: int, count: int, rng: np.random.Generator) -> int:
    """Return the largest difference of a level from what tifffile decodes of the stored image; white outside."""
    truth, downsample, worst = stored(path, *slide.level_dimensions[level]), slide.level_downsamples[level], 0
    for x, y, w, h in places(slide, level, count, rng):
        column, row = math.floor(x / downsample), math.floor(y / downsample)
        expected = np.full((h, w, 3), 255, np.uint8)
        part = truth[row : row + h, column : column + w]
        expected[: part.shape[0], : part.shape[1]] = part
        pixels = slide.read_region((x, y), level, (w, h))
        worst = max(worst, int(np.abs(pixels.astype(int) - expected).max(initial=0)))
    return worst


def compare(data: Path, count: int) -> list[str]:
    """Return what differs, over all slides."""
    rng, wrong = np.random.default_rng(7), []
    for path in slides(data):
        with open_slide(path) as slide, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # tifffile's remarks on vendors' tags
            if worst := openslide_differences(slide, path, count, rng):
                wrong.append(f"{path.name} level 0: {worst} from OpenSlide")
            if path.suffix == ".dcm":
                continue
            levels = range(slide.stored_level_count)
            found = {level: stored_differences(slide, path, level, count, rng) for level in levels}
            wrong.extend(
                f"{path.name} level {level}: {worst} from the stored one" for level, worst in found.items() if worst
            )
    return wrong


def test_every_level_of_every_slide_equals_what_is_stored(shared: Path) -> None:
    """Somewhere on a real slide our pixels are not the file's, or lie at another place than OpenSlide says."""
    assert not compare(shared, 4)


@pytest.mark.soak
def test_every_level_of_every_slide_equals_what_is_stored_fifty_times(shared: Path) -> None:
    """As above, with 50 regions a level."""
    assert not compare(shared, 50)


def test_every_good_slide_opens_without_a_warning_but_for_its_scale(shared: Path) -> None:
    """A sound slide was suspected of damage."""
    for path in slides(shared):
        with open_slide(path) as slide:
            assert not [warning for warning in slide.warnings if "pixel size" not in warning], path.name
            assert slide.damaged == ()
            assert slide.bounds == (0, 0, *slide.dimensions)


def test_scales_of_real_slides(shared: Path) -> None:
    """A real file's pixel size was read wrongly, or made up where it has none."""
    expected = {
        "CMU-1-Small-Region.svs": (0.499, "file"),
        "TCGA-CR-7395-01A-01-TS1.svs": (None, "missing"),
        "duodenum_celiac_HE_level15.svs": (0.5, "file"),
        "lymphangiectasia-generic.tiff": (1.0, "resolution tags"),
        "lymphangiectasia.ome.tiff": (1.0, "OME-XML"),
        "openslide-python-boxes.tiff": (None, "missing: 72 dpi is a print setting"),
        "openslide-python-small.svs": (0.499, "file"),
        "test3-TRITC-560.ndpi": (0.2282, ""),
        "openslide-python-boxes-dicom": (0.499, "file"),
        "dicom-CMU-1-Small-Region": (0.499, "file"),
    }
    for name, (mpp, source) in expected.items():
        with open_slide(shared / "slides" / name) as slide:
            assert slide.mpp == (None if mpp is None else pytest.approx(mpp, abs=1e-4)), name
            assert slide.mpp_source.startswith(source), name


def test_fluorescence_is_told_from_brightfield(shared: Path) -> None:
    """Fluorescence passed as brightfield, or a stained slide as fluorescence."""
    for path in slides(shared):
        with open_slide(path) as slide:
            assert slide.brightfield == (path.suffix != ".ndpi"), path.name


def test_broken_files_name_their_cause(shared: Path) -> None:
    """A broken file opened, or failed without saying what is wrong with it."""
    causes = {
        "histolab-broken.svs": "text file",
        "openslide-python-unopenable.tiff": "compression",
        "openslide-python-unreadable.svs": "decode",
    }
    for name, words in causes.items():
        with pytest.raises(SlideError, match=words) as caught:
            open_slide(shared / "slides" / "broken" / name)
        assert name in str(caught.value)
