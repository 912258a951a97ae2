"""Our keys: one table that binds them, lists them in the dock's help, and is checked against napari's own.

napari holds the digits, C, O, Space and Escape inside its layer tools, so those are left alone.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .view import MAGNIFICATIONS

if TYPE_CHECKING:
    from .controller import Controller


@dataclass(frozen=True)
class Key:
    """A key and what it does.

    Attributes
    ----------
    key : str
        In napari's notation.
    does : str
        For the help.
    act : callable
        Given the controller; a generator function's second half runs when the key is let go.
    """

    key: str
    does: str
    act: Callable[[Controller], Any]


def _hold_overlays(controller: Controller) -> Generator[None, None, None]:
    controller.show_overlays(False)
    yield
    controller.show_overlays(True)


def _switch_link(controller: Controller) -> None:
    controller.beside.switch_link(not controller.beside.linked)


def _magnify(times: int) -> Callable[[Controller], None]:
    return lambda controller: controller.camera.magnify(times)


KEYS: tuple[Key, ...] = (
    Key("Ctrl+Enter", "run", lambda controller: controller.run()),
    Key("Ctrl+.", "cancel", lambda controller: controller.cancel()),
    Key("Q", "click to predict on or off", lambda controller: controller.switch_click(not controller.click_mode.on)),
    Key("N", "next of the tiles that count most", lambda controller: controller.step_tile(1)),
    Key("Shift+N", "previous of them", lambda controller: controller.step_tile(-1)),
    Key("H", "hold: hide the overlays, look at the tissue", _hold_overlays),
    Key("Shift+H", "overlays on or off", lambda controller: controller.show_overlays(None)),
    *(
        Key(f"Alt+{number}", f"{times}x", _magnify(times))
        for number, times in enumerate(MAGNIFICATIONS, start=1)
    ),
    Key("Alt+0", "fit the slide", lambda controller: controller.camera.fit()),
    Key("Alt+M", "measure in µm, on or off", lambda controller: controller.measure.switch(not controller.measure.on)),
    Key("Alt+B", "a second view beside, or close it", lambda controller: controller.beside.toggle()),
    Key("Alt+K", "link or unlink the two views", _switch_link),
    Key("Alt+E", "edit the tissue (brush; the next run respects it)", lambda controller: controller.edit_tissue()),
)  # fmt: skip


def bind(viewer: Any, find: Callable[[Any], Controller | None]) -> None:
    """Bind every key on one viewer; `find` gives its controller at the time of the press."""
    for key in KEYS:
        viewer.bind_key(key.key, _bound(key, find), overwrite=True)


def _bound(key: Key, find: Callable[[Any], Controller | None]) -> Callable[[Any], Any]:
    if inspect.isgeneratorfunction(key.act):

        def held(viewer: Any) -> Generator[None, None, None]:
            controller = find(viewer)
            if controller is not None:
                yield from key.act(controller)

        return held

    def pressed(viewer: Any) -> None:
        controller = find(viewer)
        if controller is not None:
            key.act(controller)

    return pressed


def help_text() -> str:
    """Return the list of keys as lines of rich text."""
    rows = "".join(f"<tr><td><b>{key.key}</b>&nbsp;&nbsp;</td><td>{key.does}</td></tr>" for key in KEYS)
    return f"<table>{rows}</table><p>Drag to pan, wheel to zoom. Esc in this panel cancels too.</p>"
