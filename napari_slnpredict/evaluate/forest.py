"""The picture of a comparison: a panel a figure, a line an arm, its interval, and where the baseline lies."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from typing import Any

from .comparison import FIGURES, Comparison, Score

#: Panels in a row; inches of a panel, of a line, and of what stands around them.
_ACROSS, _WIDE, _LINE, _HEAD, _LEFT, _GAP = 3, 3.1, 0.27, 0.78, 2.3, 0.35
#: The difference from the baseline lies above 0, below 0, or could be none; the baseline itself.
AHEAD, BEHIND, EVEN, BASE = "#0f5c57", "#b35c00", "#6b7684", "#1d2430"


def forest_png(
    comparison: Comparison, sets: Sequence[str] | None = None, *, titled: bool = True, dpi: int = 110
) -> bytes:
    """Draw sets below each other, with their names if `titled`; by default all of them.

    Returns
    -------
    bytes
        PNG; equal comparisons give equal bytes.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    blocks = [(name, _main_figures(comparison, name)) for name in sets or comparison.set_names]
    arms = [arm.name for arm in comparison.arms]
    high = _HEAD + _LINE * max(2, len(arms))
    rows = sum(math.ceil(len(figures) / _ACROSS) for _, figures in blocks)
    heading = 0.3 if titled else 0.0
    tall = high * rows + heading * len(blocks) + 0.55
    wide = _LEFT + _ACROSS * (_WIDE + _GAP)
    figure = Figure(figsize=(wide, tall), dpi=dpi, facecolor="white")
    top = tall - 0.1
    for name, figures in blocks:
        if titled:
            figure.text(0.12 / wide, (top - 0.2) / tall, name, fontsize=12, fontweight="bold", va="center", color=BASE)
        top -= heading
        for start in range(0, len(figures), _ACROSS):
            for column, one in enumerate(figures[start : start + _ACROSS]):
                left = _LEFT + column * (_WIDE + _GAP)
                box = (left / wide, (top - high + 0.42) / tall, _WIDE / wide, (high - _HEAD) / tall)
                _draw_panel(figure.add_axes(box), comparison, name, one, arms, named=column == 0)
            top -= high
    _draw_legend(figure, comparison.baseline, wide, tall)
    target = io.BytesIO()
    FigureCanvasAgg(figure).print_figure(target, format="png", dpi=dpi, metadata={"Software": None})
    return target.getvalue()


def _main_figures(comparison: Comparison, set_name: str) -> list[str]:
    return [name for name in comparison.figures(set_name) if FIGURES[name].main]


def _draw_panel(axes: Any, comparison: Comparison, set_name: str, figure: str, arms: list[str], *, named: bool) -> None:
    found = {arm: comparison.score(set_name, figure, arm) for arm in arms}
    scores = [score for score in found.values() if score is not None]
    less = " (less is better)" if FIGURES[figure].higher is False else ""
    axes.set_title(f"{figure}{less}", fontsize=10, loc="left", color=BASE, pad=5)
    base = found.get(comparison.baseline)
    if base is not None and math.isfinite(base.value):
        axes.axvline(base.value, color=BASE, linewidth=0.9, linestyle=(0, (4, 3)), zorder=1)
    chance = next((score.base_rate for score in scores if math.isfinite(score.base_rate)), None)
    if chance is not None:
        axes.axvline(chance, color="#a9b2bd", linewidth=0.9, linestyle=(0, (1, 2)), zorder=1)
    for line, arm in enumerate(arms):
        if (score := found[arm]) is not None and math.isfinite(score.value):
            _draw_score(axes, score, line, is_base=arm == comparison.baseline)
    low, high = _reach(scores)
    axes.set_xlim(low, high)
    axes.set_ylim(len(arms) - 0.4, -0.6)
    axes.set_yticks(range(len(arms)), [shown(arm) for arm in arms] if named else [], fontsize=9)
    axes.tick_params(axis="x", labelsize=8, length=3, colors="#5d6878")
    axes.tick_params(axis="y", length=0)
    axes.locator_params(axis="x", nbins=5)
    axes.grid(axis="x", color="#edf0f3", linewidth=0.8, zorder=0)
    axes.set_axisbelow(True)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color("#c3cad3")


def _draw_score(axes: Any, score: Score, line: int, *, is_base: bool) -> None:
    colour = BASE if is_base else verdict_colour(score)
    if math.isfinite(score.low):
        axes.plot([score.low, score.high], [line, line], color=colour, linewidth=1.8, solid_capstyle="butt", zorder=2)
    inside = "white" if is_base else colour
    axes.plot([score.value], [line], "o", color=colour, markerfacecolor=inside, markersize=5.5, zorder=3)


def verdict_colour(score: Score) -> str:
    """Return the colour of what the difference from the baseline says, by whichever way is better."""
    better = FIGURES[score.figure].higher
    if better is None or not math.isfinite(score.gain_low) or score.gain_low <= 0 <= score.gain_high:
        return EVEN
    return AHEAD if (score.gain_low > 0) == better else BEHIND


def _reach(scores: Sequence[Score]) -> tuple[float, float]:
    """Return the axis' ends: everything drawn, and a little room."""
    values = [v for s in scores for v in (s.value, s.low, s.high, s.base_rate) if math.isfinite(v)]
    low, high = (min(values), max(values)) if values else (0.0, 1.0)
    room = max(0.04 * (high - low), 0.005)
    return low - room, high + room


def shown(name: str, most: int = 30) -> str:
    """Return an arm's name as it fits beside a line."""
    name = name.removeprefix("local:")
    return name if len(name) <= most else f"{name[: most - 12]}…{name[-11:]}"


def _draw_legend(figure: Any, baseline: str, wide: float, tall: float) -> None:
    words = (
        (AHEAD, f"● ahead of {shown(baseline)}"),
        (BEHIND, "● behind"),
        (EVEN, "● difference may be none"),
        (BASE, f"○ and dashes: {shown(baseline)}"),
        ("#8b95a1", "dots: chance"),
        ("#5d6878", "lines: 95 % intervals"),
    )
    left = 0.12
    for colour, text in words:
        figure.text(left / wide, 0.22 / tall, text, color=colour, fontsize=9, va="center")
        left += 0.32 + 0.072 * len(text)
