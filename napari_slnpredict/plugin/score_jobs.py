"""What anyone's scores need done beside the window; nothing here touches napari or Qt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_slnpredict.events import Job, Stage

if TYPE_CHECKING:
    from napari_slnpredict.foreign.explain import ScoreAnswer
    from napari_slnpredict.foreign.places import Places
    from napari_slnpredict.foreign.scores import Answers, ForeignScores, SlideFacts

#: Side of the picture of a clicked tile, px.
PICTURE_PX = 224


def sort_job(paths: Sequence[Path]) -> Job[tuple[list[Path], list[Path]]]:
    """Tell slides from score files by what is in them: (slides, score files)."""
    yield Stage("scores", "Looking at what was dropped")
    from napari_slnpredict.foreign.child import is_scores

    scores = [path for path in paths if is_scores(path)]
    return [path for path in paths if path not in scores], scores


def scores_job(path: Path, facts: SlideFacts, answers: Answers) -> Job[ForeignScores]:
    """Read a score file and lay it on a slide."""
    from napari_slnpredict.foreign.scores import read_scores

    scores = yield from read_scores(path, facts, answers)
    return scores


def score_click_job(slide: Any, scores: ForeignScores, column: int, place: tuple[float, float]) -> Job[ScoreAnswer]:
    """Say what is known of the tile at a place (level-0 px), with its picture."""
    yield Stage("click", "Looking here")
    from napari_slnpredict.foreign.explain import explain

    answer = explain(scores, column, *place)
    if answer.tile is None:
        return answer
    return replace(answer, picture=tile_picture(slide, scores.places, answer.tile))


def tile_picture(slide: Any, places: Places, tile: int) -> NDArray[np.uint8]:
    """Read a tile at no more detail than a picture of it shows, (p, p, 3) uint8."""
    from PIL import Image

    x, y = places.locations[tile]
    level = slide.best_level(max(1.0, places.size_level0 / PICTURE_PX))
    down = float(slide.level_downsamples[level])
    side = max(1, round(places.size_level0 / down))
    pixels, _ = slide.read_level(level, round(x / down), round(y / down), side, side)
    if side <= PICTURE_PX:
        return np.asarray(pixels, np.uint8)
    small = Image.fromarray(np.ascontiguousarray(pixels)).resize((PICTURE_PX, PICTURE_PX), Image.Resampling.BOX)
    return np.asarray(small, np.uint8)
