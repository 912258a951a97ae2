"""Our own tile source: a tiled TIFF read by `os.pread` and one decoder call a tile.

The directories come from the scan, so the file is parsed once. JPEG is decoded strictly: of the decoders at hand only
a strict one notices half-written and zeroed tiles, and it costs no more. Anything whose pixels depend on rules we do
not implement is left to the libraries (`own_source_reads` says what), and what is read here is compared with a library
at opening (`witness.compare_with_libraries`).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .codestream import BadStream, j2k_frame
from .directory import Directory
from .handle import SlideFile
from .jpeg import Completer, Frame, jpeg2000_is_whole, table_segments
from .source import WHITE, Tile, TileFault, over_white, white_tile

JPEG = 7
APERIO_JP2K_RGB = 33005
#: Longest a tile's stream may be for its decoded size: noise compresses badly, but not this badly.
STREAM_SLACK = 65536

_RGB, _YCBCR = 2, 6
_ASSOCIATED, _UNASSOCIATED = 1, 2


def _plain(data: bytes, length: int) -> bytes:
    return data[:length]


def _zlib(data: bytes, length: int) -> bytes:
    import imagecodecs

    return bytes(imagecodecs.zlib_decode(data, out=length))


def _lzw(data: bytes, length: int) -> bytes:
    import imagecodecs

    return bytes(imagecodecs.lzw_decode(data, out=length))


def _zstd(data: bytes, length: int) -> bytes:
    import imagecodecs

    return bytes(imagecodecs.zstd_decode(data, out=length))


#: Compression tag -> decoder to at most `length` bytes. A bomb is an error of the decoder, not a full memory.
BYTE_CODECS: Mapping[int, Callable[[bytes, int], bytes]] = {
    1: _plain,
    5: _lzw,
    8: _zlib,
    32946: _zlib,
    50000: _zstd,
}


def own_source_reads(directory: Directory) -> bool:
    """Whether the tile source decodes this image exactly as the libraries do."""
    d = directory
    if not d.tiled or d.fault or d.sample_format != 1 or any(bits != 8 for bits in d.bits) or d.orientation != 1:
        return False
    if d.compression == JPEG:
        return d.samples == 3 and d.planar == 1 and d.photometric in (_RGB, _YCBCR)
    if d.compression == APERIO_JP2K_RGB:
        return d.samples == 3 and d.planar == 1 and d.photometric == _RGB
    return (
        d.compression in BYTE_CODECS
        and d.photometric == _RGB
        and d.samples in (3, 4)
        and d.planar in (1, 2)
        and d.predictor in (1, 2)
    )


class TileSource:
    """Reads the tiles of the given levels; thread-safe without a lock around reads.

    Parameters
    ----------
    file : SlideFile
    levels : sequence of Directory
        From the finest to the coarsest; `own_source_reads` holds for all.
    """

    reader = "tiles"

    def __init__(self, file: SlideFile, levels: Sequence[Directory]) -> None:
        self._levels = tuple(_StoredLevel(file, level) for level in levels)
        self.level_dimensions = tuple((level.width, level.height) for level in levels)
        self.tile_sizes = tuple((level.tile_width, level.tile_height) for level in levels)
        self.raw_properties: Mapping[str, str] = {}
        self._scratch = threading.local()

    def tile(self, level: int, column: int, row: int) -> Tile:
        """Read one tile; a tile without bytes was never scanned and is white. Raises `TileFault`."""
        return self._levels[level].tile(column, row, None)

    def fleeting_tile(self, level: int, column: int, row: int) -> Tile:
        """Read one tile that holds until this thread asks for the next one in this way.

        It is decoded into memory that is used again and again: fresh memory costs a page fault each 4 KB, which the
        threads of a process take one after the other (measured: a third of the time, on two threads).
        """
        shape = self._levels[level].shape
        scratch: NDArray[np.uint8] | None = getattr(self._scratch, "pixels", None)
        if scratch is None or scratch.shape != shape:
            scratch = self._scratch.pixels = np.empty(shape, np.uint8)
        return self._levels[level].tile(column, row, scratch)

    def tile_rough(self, level: int, column: int, row: int, factor: int) -> Tile:
        """Read one tile `factor` (2, 4 or 8) times smaller, for a first look: nearly its means, and cheaper.

        Parameters
        ----------
        level, column, row : int
        factor : int

        Returns
        -------
        Tile
            Of ceil(side / factor) px. Raises `TileFault`.
        """
        return self._levels[level].rough(column, row, factor)

    def close(self) -> None:
        """Nothing of its own to close: the file belongs to the slide."""


class _StoredLevel:
    """The tiles of one image of the file.

    What a tile needs is worked out once: a tile decodes in 150 us, and lookups through properties took 5 of them.

    Parameters
    ----------
    file : SlideFile
    directory : Directory
    """

    def __init__(self, file: SlideFile, directory: Directory) -> None:
        self._file, self._offsets, self._counts = file, directory.offsets, directory.byte_counts
        self._width, self._height = directory.width, directory.height
        self._tile_width, self._tile_height, self._across = (
            directory.tile_width,
            directory.tile_height,
            directory.across,
        )
        self.shape = (self._tile_height, self._tile_width, 3)
        self._most = 2 * directory.raw_block_bytes + STREAM_SLACK
        plane = directory.across * directory.down
        self._planes = tuple(k * plane for k in range(directory.samples)) if directory.planar == 2 else ()
        self._extra_samples = directory.extra_samples
        self._jpeg = JpegDecoder(directory) if directory.compression == JPEG else None
        self._decode = self._jpeg or _decoder(directory)

    def tile(self, column: int, row: int, scratch: NDArray[np.uint8] | None) -> Tile:
        """Read one tile, into `scratch` if it likes. Raises `TileFault`."""
        index = row * self._across + column
        if self._planes:
            stored = [self._bytes(index + plane) for plane in self._planes]
            if not all(stored):
                return white_tile(*self._extent(column, row))
            pixels = np.concatenate([self._decode(plane, None) for plane in stored], axis=-1)
        else:
            data = self._bytes(index)
            if not data:
                return white_tile(*self._extent(column, row))
            pixels = self._decode(data, scratch)
        height, width = self._extent(column, row)
        if height != self._tile_height or width != self._tile_width:
            pixels = pixels[:height, :width]
            pixels = np.ascontiguousarray(pixels) if scratch is None else pixels
        return Tile(pixels) if pixels.shape[2] == 3 else _opaque(pixels, self._extra_samples)

    def rough(self, column: int, row: int, factor: int) -> Tile:
        """Read one tile smaller."""
        from PIL import Image

        height, width = (-(-side // factor) for side in self._extent(column, row))
        if self._jpeg is not None:
            data = self._bytes(row * self._across + column)
            return Tile(self._jpeg.rough(data, factor)[:height, :width]) if data else white_tile(height, width)
        tile = self.tile(column, row, None)
        if not tile.nbytes:
            return white_tile(height, width)
        return Tile(np.asarray(Image.fromarray(tile.pixels).reduce(factor), np.uint8))

    def _extent(self, column: int, row: int) -> tuple[int, int]:
        """Return height and width of a tile, cut at the level's edge."""
        return (
            min(self._tile_height, self._height - row * self._tile_height),
            min(self._tile_width, self._width - column * self._tile_width),
        )

    def _bytes(self, index: int) -> bytes:
        length: int = self._counts.item(index)
        if length == 0:
            return b""
        if length > self._most:
            raise TileFault("it claims more bytes than a tile can have")
        try:
            data = self._file.read_at(self._offsets.item(index), length)
        except OSError as error:
            raise TileFault(f"the drive or share cannot read it ({error.strerror})") from error
        if len(data) < length:
            raise TileFault("the file ends inside it")
        return data


#: (stored bytes, memory to decode into if it can) -> (tile_height, tile_width, samples) uint8.
_Decode = Callable[[bytes, NDArray[np.uint8] | None], NDArray[np.uint8]]


def _decoder(directory: Directory) -> _Decode:
    """Return the decoder of one level that is not JPEG."""
    return _jpeg2000_decoder(directory) if directory.compression == APERIO_JP2K_RGB else _bytes_decoder(directory)


class JpegDecoder:
    """Decodes the JPEG tiles of one level, strictly.

    Parameters
    ----------
    directory : Directory
    """

    def __init__(self, directory: Directory) -> None:
        import simplejpeg

        self._decode_jpeg = simplejpeg.decode_jpeg
        self._size = (directory.tile_width, directory.tile_height)
        try:
            tables, self._fault = table_segments(directory.jpeg_tables), ""
        except TileFault as error:
            tables, self._fault = b"", str(error)
        self._complete = Completer(tables, 0 if directory.photometric == _RGB else 1, self._check)

    def __call__(self, data: bytes, into: NDArray[np.uint8] | None) -> NDArray[np.uint8]:
        """Return (tile_height, tile_width, 3), lying in `into` where that is given. Raises `TileFault`."""
        return self._decode(data, buffer=into)

    def rough(self, data: bytes, factor: int) -> NDArray[np.uint8]:
        """Return the tile `factor` (2, 4, 8) times smaller, from the coarse part of its frequencies."""
        width, height = (-(-side // factor) for side in self._size)
        # The decoder scales only when it is told what must be left.
        return self._decode(data, min_factor=factor, min_width=width, min_height=height)

    def _decode(self, data: bytes, **options: Any) -> NDArray[np.uint8]:
        if self._fault:
            raise TileFault(self._fault)
        stream = self._complete(data)
        try:
            pixels: NDArray[np.uint8] = self._decode_jpeg(stream, "RGB", strict=True, **options)
        except ValueError as error:
            raise TileFault("its JPEG data are damaged") from error
        return pixels

    def _check(self, frame: Frame) -> None:
        # Before decoding: a header may declare 65,500 x 65,500 px and cost 12 GB.
        if (frame.width, frame.height) != self._size or frame.components != 3 or frame.bits != 8:
            raise TileFault(
                f"its JPEG frame is {frame.width} x {frame.height} x {frame.components}, "
                f"not {self._size[0]} x {self._size[1]} x 3"
            )


def _jpeg2000_decoder(directory: Directory) -> _Decode:
    import imagecodecs

    shape = (directory.tile_height, directory.tile_width, 3)

    def decode(data: bytes, into: NDArray[np.uint8] | None) -> NDArray[np.uint8]:
        if _jpeg2000_shape(data) != shape:
            raise TileFault("its JPEG 2000 header is damaged or of another size")
        if not jpeg2000_is_whole(data):
            raise TileFault("its JPEG 2000 data end early")
        try:
            pixels = imagecodecs.jpeg2k_decode(data, numthreads=1)
        except (RuntimeError, ValueError) as error:  # imagecodecs' own errors are RuntimeErrors
            raise TileFault("its JPEG 2000 data are damaged") from error
        if pixels.shape != shape or pixels.dtype != np.uint8:
            raise TileFault("its JPEG 2000 data are of another kind")
        decoded: NDArray[np.uint8] = pixels
        return decoded

    return decode


def _jpeg2000_shape(data: bytes) -> tuple[int, int, int] | None:
    """Return (height, width, components) as a codestream declares them, None where there is none."""
    try:
        frame = j2k_frame(data)
    except BadStream:
        return None
    return frame and (frame.height, frame.width, frame.components)


def _bytes_decoder(directory: Directory) -> _Decode:
    unpack = BYTE_CODECS[directory.compression]
    samples = 1 if directory.planar == 2 else directory.samples
    shape = (directory.tile_height, directory.tile_width, samples)
    length = int(np.prod(shape))

    def decode(data: bytes, into: NDArray[np.uint8] | None) -> NDArray[np.uint8]:
        try:
            raw = unpack(data, length)
        except (RuntimeError, ValueError) as error:
            raise TileFault("its data are damaged or longer than a tile") from error
        if len(raw) != length:
            raise TileFault("its data are shorter than a tile")
        pixels = np.frombuffer(raw, np.uint8).reshape(shape)
        if directory.predictor == 2:
            pixels = np.add.accumulate(pixels, axis=1, dtype=np.uint8)
        return pixels

    return decode


def _opaque(pixels: NDArray[np.uint8], extra_samples: tuple[int, ...]) -> Tile:
    """Return the tile with its fourth component taken as what the file says it is: transparent is white."""
    colour, alpha = pixels[..., :3], pixels[..., 3]
    kind = extra_samples[0] if extra_samples else 0
    if kind not in (_ASSOCIATED, _UNASSOCIATED) or (alpha == WHITE).all():
        return Tile(np.ascontiguousarray(colour))
    valid = alpha > 0
    return Tile(over_white(colour, alpha, premultiplied=kind == _ASSOCIATED), None if valid.all() else valid)
