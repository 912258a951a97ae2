"""The viewer's preferences.

napari keeps them (a Preferences page made from the manifest); the core gets them as options.
"""

from __future__ import annotations

from typing import Any

PLUGIN = "napari-slnpredict"
#: Values in the manifest that say nothing: file and environment decide.
SILENT: dict[str, Any] = {"device": "auto", "engine": "auto", "batch": 0, "memory_mb": 0, "cache": "", "models": ""}


def preferences() -> Any:
    """Return napari's settings of this plugin, or None where the manifest is not registered (tests, plain scripts)."""
    from napari.settings import get_plugin_settings

    try:
        return get_plugin_settings(PLUGIN)
    except (KeyError, ValueError):
        return None


def viewer_options(**options: Any) -> dict[str, Any]:
    """Return what the Preferences page says, as options for `settings.load_settings`; `options` win.

    Read on the GUI thread; the settings file itself is read by the job that needs it.
    """
    compute = getattr(preferences(), "compute", None)
    chosen: dict[str, Any] = {}
    for name, silent in SILENT.items():
        value = getattr(compute, name, silent)
        if value not in (silent, None):
            chosen[name] = value
    chosen.update({name: value for name, value in options.items() if value is not None})
    return chosen


def wish(section: str, name: str, default: Any) -> Any:
    """Return one preference of the viewer itself (colours, defaults), or its default."""
    return getattr(getattr(preferences(), section, None), name, default)
