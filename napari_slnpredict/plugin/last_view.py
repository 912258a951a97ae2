"""Where a slide was looked at last, and what was measured on it: one small file a slide, in the user's own folder.

The file is named by the slide's content and holds numbers only: no path, no name, nothing of the pixels. It lies beside
the settings and not in the cache, which colleagues may share. No Qt here.
"""

from __future__ import annotations

import json
import logging
import math
import re
from dataclasses import dataclass
from pathlib import Path

from napari_slnpredict.files import write_json
from napari_slnpredict.settings import settings_file

FORMAT = 1
#: Slides remembered, and lines of each.
KEPT, LINES = 500, 200
_CONTENT_ID = re.compile(r"[0-9a-f]{16,128}")
_log = logging.getLogger(__name__)

#: From x, y to x, y, level-0 px.
Line = tuple[float, float, float, float]


@dataclass(frozen=True)
class LastView:
    """What was on the screen.

    Attributes
    ----------
    x, y : float
        The screen's middle, level-0 px.
    px_per_screen_px : float
        Level-0 px that one screen px showed; the pixel size may be told differently the next time.
    fitted : bool
        The whole slide was shown: fit it again, whatever the window's size is now.
    lines : tuple of Line
        What was measured.
    """

    x: float
    y: float
    px_per_screen_px: float
    fitted: bool = False
    lines: tuple[Line, ...] = ()


def folder() -> Path:
    """Return where the files lie."""
    return settings_file().parent / "views"


def save(content_id: str, view: LastView, place: Path) -> None:
    """Write a slide's view into a folder, and drop those of slides not seen for longest."""
    if not _CONTENT_ID.fullmatch(content_id):
        return
    place.mkdir(parents=True, exist_ok=True, mode=0o700)
    numbers = {"x": round(view.x, 1), "y": round(view.y, 1), "px_per_screen_px": round(view.px_per_screen_px, 6)}
    lines = [[round(number, 1) for number in line] for line in view.lines[-LINES:]]
    write_json(place / f"{content_id}.json", {"format": FORMAT, **numbers, "fitted": view.fitted, "lines": lines})
    for old in _by_age(place)[:-KEPT]:
        old.unlink(missing_ok=True)


def load(content_id: str) -> LastView | None:
    """Return a slide's last view; None when there is none, or none that makes sense."""
    if not _CONTENT_ID.fullmatch(content_id):
        return None
    path = folder() / f"{content_id}.json"
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        if stored["format"] != FORMAT:
            return None
        numbers = [float(stored[name]) for name in ("x", "y", "px_per_screen_px")]
        lines = tuple(_line(each) for each in stored["lines"][:LINES])
        if not all(map(math.isfinite, numbers)) or numbers[2] <= 0:
            return None
        return LastView(*numbers, fitted=bool(stored["fitted"]), lines=lines)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        _log.warning("the last view %s is skipped: %s", path.name, error)
        return None


def _line(numbers: list[float]) -> Line:
    x, y, to_x, to_y = (float(number) for number in numbers)
    if not all(map(math.isfinite, (x, y, to_x, to_y))):
        raise ValueError("a line leads nowhere")
    return x, y, to_x, to_y


def _by_age(place: Path) -> list[Path]:
    aged = []
    for path in place.glob("*.json"):
        try:
            aged.append((path.stat().st_mtime, path))
        except OSError:
            continue  # another window has just dropped it
    return [path for _, path in sorted(aged)]
