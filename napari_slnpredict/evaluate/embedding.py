"""Features of tiles that are pictures, by an encoder, as the rest of the program computes them."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from napari_slnpredict.encode.engines import Engine, make_engine
from napari_slnpredict.encode.record import ANY_SCALE, Encoder
from napari_slnpredict.errors import BundleMismatch
from napari_slnpredict.settings import Settings
from napari_slnpredict.torch_door import import_torch

#: Resolutions this close are one; sides a network is asked to take in place of its own, relative to that.
_SAME_SCALE, _SIDES = 1.1, (0.5, 2.0)


def input_side(encoder: Encoder, tile_px: int, mpp: float | None) -> int:
    """Return the side to which tiles are brought for an encoder, px.

    An encoder made for a resolution gets it, if the tiles' is known and the side stays near its own; one made for
    photographs gets its own size.
    """
    if encoder.mpp == ANY_SCALE or mpp is None:
        return encoder.tile_px
    low, high = encoder.mpp
    if low / _SAME_SCALE <= mpp <= high * _SAME_SCALE:
        side = tile_px
    else:
        side = round(tile_px * mpp / min(max(mpp, low), high))
    least, most = (share * encoder.tile_px for share in _SIDES)
    return side if least <= side <= most else encoder.tile_px


def resized(tiles: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """Return tiles (k, p, p, 3) brought to a side, by area when smaller, bilinear when larger."""
    if tiles.shape[1:3] == (side, side):
        return tiles
    torch = import_torch()
    planes = torch.from_numpy(np.ascontiguousarray(tiles)).permute(0, 3, 1, 2)
    scaled = torch.nn.functional.interpolate(planes, size=(side, side), mode="bilinear", antialias=True)
    return np.ascontiguousarray(scaled.permute(0, 2, 3, 1).numpy())


def encode_tiles(
    encoder: Encoder, settings: Settings
) -> Callable[[NDArray[np.uint8], float | None], NDArray[np.float32]]:
    """Return a function from tiles (k, p, p, 3) uint8 and their um/px to features (k, d) float32."""
    engines: dict[int, Engine] = {}

    def engine_for(side: int) -> Engine:
        if side not in engines:
            engines[side] = make_engine(encoder, settings=settings, tile_px=side)
        return engines[side]

    def embed(tiles: NDArray[np.uint8], mpp: float | None) -> NDArray[np.float32]:
        side = input_side(encoder, tiles.shape[1], mpp)
        try:
            engine = engine_for(side)
        except BundleMismatch:  # a network for one size alone
            if side == encoder.tile_px:
                raise
            engine = engines[side] = engine_for(encoder.tile_px)
        return _run(engine, resized(tiles, engine.tile_px))

    return embed


def _run(engine: Engine, tiles: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Run an engine on all the threads it wants."""
    step = max(1, engine.batch)
    parts = [tiles[start : start + step] for start in range(0, len(tiles), step)]
    try:
        with ThreadPoolExecutor(max(1, engine.streams), initializer=engine.enter_thread) as pool:
            found = list(pool.map(engine, parts))
    finally:
        engine.release()
    return np.concatenate([np.empty((0, engine.dim), np.float32), *found])
