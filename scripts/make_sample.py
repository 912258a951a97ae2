"""Make the sample slide that File > Open Sample and `slnpredict demo` show: a synthetic positive, the same every time.

python scripts/make_sample.py
"""

from __future__ import annotations

from pathlib import Path

import napari_slnpredict
from napari_slnpredict.phantom.tasks import make_slide, write_slide

FOLDER = Path(napari_slnpredict.__file__).parent / "sample_data"
#: Not among the seeds of any cohort the shipped models were trained on. Chosen by eye: glands, fat, seven aggressive
#: nests of thirty-five, no ink across them.
SEED = 202_406


def main() -> None:
    """Write the slide."""
    slide = make_slide("sln", "positive", SEED, "A", size=3.6)
    path = write_slide(slide, FOLDER / "phantom-sln-positive.svs")
    print(f"{path.name}: {path.stat().st_size / 1e6:.1f} MB, {slide.pixels.shape[1]} x {slide.pixels.shape[0]} px")


if __name__ == "__main__":
    main()
