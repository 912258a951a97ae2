"""Our keys and napari's."""

from __future__ import annotations

from typing import Any

import pytest
from app_model.types import KeyBinding

from napari_slnpredict.plugin.keys import KEYS, help_text


def napari_keys() -> set[str]:
    """Return every key napari binds by default: shortcuts of viewer and layer tools, and of its menus."""
    from napari._qt._qapp_model.qactions import _debug, _file, _help, _layers_actions, _plugins, _view, _window
    from napari.utils.shortcuts import default_shortcuts

    found = {str(binding) for bindings in default_shortcuts.values() for binding in bindings}
    for module in (_file, _help, _layers_actions, _plugins, _view, _window, _debug):
        for name in dir(module):
            for action in getattr(module, name) if name.endswith("ACTIONS") else ():
                for rule in getattr(action, "keybindings", None) or ():
                    for key in (rule.primary, rule.win, rule.linux, rule.mac):
                        if key:
                            found.add(str(KeyBinding.from_int(int(key))))
    return found


def test_no_key_of_ours_shadows_one_of_naparis() -> None:
    """A user's habit from napari would do something else, or ours would be silent in a layer tool."""
    theirs = napari_keys()
    assert len(theirs) > 60
    ours = {str(KeyBinding.from_str(key.key)) for key in KEYS}
    assert len(ours) == len(KEYS)
    assert not ours & theirs


def test_no_key_opens_a_menu(opened: Any) -> None:
    """Alt with a letter would open a menu instead."""
    bar = opened.viewer.window._qt_window.menuBar()
    letters = {action.text().partition("&")[2][:1].upper() for action in bar.actions() if "&" in action.text()}
    ours = {key.key.removeprefix("Alt+") for key in KEYS if key.key.startswith("Alt+")}
    assert not ours & letters


def test_help_lists_every_key() -> None:
    """A key could not be found out."""
    text = help_text()
    assert all(key.key in text and key.does in text for key in KEYS)


def test_magnification_keys(opened: Any) -> None:
    """A key would show another magnification than it says."""
    for key, times in (("Alt+1", 1), ("Alt+4", 10), ("Alt+6", 40)):
        opened.viewer.window._qt_viewer._key_map_handler.press_key(key)
        assert opened.viewer.canvas.overlays.text.text.startswith(f"{times}")
        assert opened.viewer.scene.camera.zoom == pytest.approx(times / 10)


def test_run_and_click_by_key(opened: Any, wait: Any) -> None:
    """The keys would not reach the controller."""
    handler = opened.viewer.window._qt_viewer._key_map_handler
    handler.press_key("Q")
    assert opened.controller.click_mode.on
    assert opened.dock.run.click.isChecked()
    handler.press_key("Ctrl+Enter")
    assert opened.controller.runs.running
    handler.press_key("Ctrl+.")
    wait(lambda: not opened.controller.runs.running)


def test_hold_to_look_at_the_tissue(opened: Any, wait: Any) -> None:
    """The overlays would stay hidden after the key is let go."""
    opened.controller.run()
    wait(lambda: opened.controller.answered is not None)
    handler = opened.viewer.window._qt_viewer._key_map_handler
    handler.press_key("H")
    assert not opened.viewer.layers["attention"].visible
    handler.release_key("H")
    assert opened.viewer.layers["attention"].visible
