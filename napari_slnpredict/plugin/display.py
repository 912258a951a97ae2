"""A slide's levels on the screen: their colours, and the one light refresh when better pixels have come in.

The arrays themselves know no window (`slide.display`). They call from their loading threads; here that becomes one
queued signal at a time, and a refresh of the layer not more often than every `LEAST_PAUSE`. It works the same whether
napari slices in its paint event or in a thread (its preference "async"): both ask the arrays again.
"""

from __future__ import annotations

import io
import threading
import time
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from qtpy.QtCore import QObject, Qt, QTimer, Signal

from napari_slnpredict.slide.display import DisplayPyramid

from .keeper import Keeper

#: A refresh uploads the whole picture again: not more often than this, seconds.
LEAST_PAUSE = 0.030


class Look:
    """How a slide's colours are shown: as stored, or through the scanner's profile to sRGB.

    Parameters
    ----------
    profile : bytes or None
        ICC profile of the scanner.
    """

    def __init__(self, profile: bytes | None) -> None:
        self._lock = threading.Lock()
        self._convert = _to_srgb(profile) if profile else None
        self._wanted = False

    @property
    def can_convert(self) -> bool:
        """Whether the file has a usable profile."""
        return self._convert is not None

    @property
    def srgb(self) -> bool:
        """Whether colours are converted."""
        return self._wanted and self._convert is not None

    @srgb.setter
    def srgb(self, on: bool) -> None:
        self._wanted = on

    @property
    def key(self) -> str | None:
        """What its tiles are remembered under; None: as stored."""
        return "srgb" if self.srgb else None

    def __call__(self, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return pixels as they shall be shown."""
        if not self.srgb or self._convert is None or not pixels.size:
            return pixels
        with self._lock:  # littlecms' cache is not made for two threads
            return self._convert(pixels)


def _to_srgb(profile: bytes) -> Callable[[NDArray[np.uint8]], NDArray[np.uint8]] | None:
    from PIL import Image, ImageCms

    try:
        transform = ImageCms.buildTransform(
            ImageCms.ImageCmsProfile(io.BytesIO(profile)), ImageCms.createProfile("sRGB"), "RGB", "RGB"
        )
    except (ImageCms.PyCMSError, OSError, ValueError):
        return None  # a profile nobody understands: colours stay as stored
    return lambda pixels: np.asarray(ImageCms.applyTransform(Image.fromarray(pixels), transform), np.uint8)


def display_pyramid(keeper: Keeper, look: Look) -> DisplayPyramid:
    """Return a slide's levels for the screen, with a first picture of the whole in memory; ended by the keeper."""
    slide = keeper.slide
    pyramid = DisplayPyramid(slide.tiles, lambda: slide.damaged, look, keeper.hold)
    keeper.when_leaving(pyramid.close)
    pyramid.prepare()
    return pyramid


class Doorbell:
    """Rung from any thread; silent once the window is gone."""

    def __init__(self, ring: Callable[..., None]) -> None:
        self._lock = threading.Lock()
        self._ring: Callable[..., None] | None = ring

    def __call__(self, *what: object) -> None:
        """Ring."""
        with self._lock:
            if self._ring is not None:
                self._ring(*what)

    def disconnect(self) -> None:
        """Ring no more."""
        with self._lock:
            self._ring = None


class Freshener(QObject):
    """Shows a slide layer again when better pixels have come in.

    Parameters
    ----------
    layer : napari Image layer
        Held weakly.
    pyramid : DisplayPyramid
        Whose levels the layer shows.
    parent : QObject, optional
    """

    silence_changed = Signal(bool)  # the drive does not answer, or does again
    _arrived = Signal()

    def __init__(self, layer: Any, pyramid: DisplayPyramid, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._layer = weakref.ref(layer)
        self._last = 0.0
        self._timer = QTimer(self)
        self._timer.setSingleShot(True)
        self._timer.setTimerType(Qt.TimerType.PreciseTimer)
        self._timer.timeout.connect(self._refresh)
        self._arrived.connect(self._soon, Qt.ConnectionType.QueuedConnection)
        bells = Doorbell(self._arrived.emit), Doorbell(self.silence_changed.emit)
        self._bells = bells
        pyramid.on_arrival, pyramid.on_silence = bells
        self.destroyed.connect(lambda: [bell.disconnect() for bell in bells])

    def leave(self) -> None:
        """Show nothing any more, and go."""
        for bell in self._bells:
            bell.disconnect()
        self._timer.stop()
        self.deleteLater()

    def _soon(self) -> None:
        pause = LEAST_PAUSE - (time.monotonic() - self._last)
        if pause <= 0:
            self._refresh()
        elif not self._timer.isActive():
            self._timer.start(max(1, round(pause * 1000)))

    def _refresh(self) -> None:
        layer = self._layer()
        if layer is not None:
            self._last = time.monotonic()
            layer.refresh(thumbnail=False, highlight=False, extent=False)
