"""From names to an encoder on disk: what `slnpredict pretrain` and the viewer's dock both run.

`Training` says all that is wanted; `train_encoder` opens the tiles, trains, and leaves a bundle. While it works the
folder holds ``training/checkpoint.safetensors``; the same `Training` goes on from it, another one is refused.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from napari_slnpredict.bundles.bundle import MANIFEST, Bundle, load_bundle
from napari_slnpredict.errors import DataError
from napari_slnpredict.events import Job, Partial, Stage, Warn
from napari_slnpredict.files import check_writable
from napari_slnpredict.settings import Settings
from napari_slnpredict.torch_door import import_torch

from .checkpoint import FILE, WORK, refuse_other
from .devices import PRECISIONS, process_number
from .encoder import DEFAULT, load_encoder
from .joined_tiles import JoinedTiles
from .method import Method, Schedule
from .methods import METHODS
from .option import check_options, option, spelt
from .pretrain import Probe, identity_of, pretrain
from .probing import joined_looks, labelled_look, near_far_look
from .record import Encoder, for_tiles
from .similarity import PairSpec, SimilaritySettings
from .tile_inputs import open_tiles
from .trained import save_pretrained

#: um/px of the tiles where neither the user nor the start says it: 20x.
USUAL_MPP = 0.5
EVERY_SPLIT = "all"


@dataclass(frozen=True)
class TrainingOptions:
    """What is chosen for any training, whatever its method."""

    start: str = option(
        DEFAULT,
        "Encoder to begin from: a name, timm:NAME, local:FOLDER, or random:NAME for untrained weights",
        main=True,
    )
    tile_px: int = option(0, "Side of a tile; 0 takes the start's", "px", low=0)
    mpp: float = option(0.0, "Resolution of the tiles; 0 takes the start's, 0.5 where it has none", "um/px", low=0)
    split: str = option("train", "Which rows of a table with a column split; all takes every row")
    stain: str = option("", "Only slides whose column stain says this")
    labels: str = option("label", "Column of the table that holds the classes")
    most: int = option(0, "Tiles of one slide at most; 0 takes all", low=0)
    probe: str = option("", "Labelled tiles (folder, zip or h5) to judge the encoder by on the way")
    device: str = option("auto", "Where to compute: auto, cpu, cuda, cuda:1, mps")
    precision: str = option("no", "Mixed precision", choices=PRECISIONS)
    workers: int = option(1, "Threads that read tiles ahead", low=1)
    threads: int = option(0, "Threads that compute on a CPU; 0 takes one a core", low=0)


@dataclass(frozen=True)
class Training:
    """One training, wholly described.

    Attributes
    ----------
    method : str
        Of `METHODS`.
    tiles : tuple of str
        As `open_tiles` takes them.
    out : Path
        The bundle's folder.
    options : TrainingOptions
    settings : Schedule
        The method's.
    """

    method: str
    tiles: tuple[str, ...]
    out: Path
    options: TrainingOptions
    settings: Schedule

    @property
    def name(self) -> str:
        """What the encoder will be called: its folder's name, as bundles spell names."""
        plain = re.sub(r"[^a-z0-9._-]+", "-", self.out.resolve().name.lower()).strip("._-")
        return plain[:80] or self.method

    def command(self) -> str:
        """Return the command that does the same."""
        words = ["slnpredict", "pretrain", self.method, *self.tiles, "--out", str(self.out)]
        return shlex.join([*words, *spelt(self.options), *spelt(self.settings)])


@dataclass(frozen=True)
class Trained:
    """What came of a training.

    Attributes
    ----------
    bundle : Bundle or None
        None in the processes that only help the first one.
    left_out : tuple of (name, kind of error, message)
        Slides that could not be used.
    already : bool
        The folder held this very encoder, finished; nothing was done.
    early : bool
        Patience ended it.
    """

    bundle: Bundle | None
    left_out: tuple[tuple[str, str, str], ...] = ()
    already: bool = False
    early: bool = False


def train_encoder(training: Training, settings: Settings) -> Job[Trained]:
    """Train an encoder and write its bundle.

    Yields what `open_tiles` and `pretrain` yield, and a `Warn` for whatever was decided that the user did not say.

    Raises
    ------
    SlnPredictError
        An option that cannot be, an encoder that is not here, tiles that do not do, a folder of something else, a
        collapse.
    """
    options = training.options
    check_options(options)
    check_options(training.settings)
    method = METHODS[training.method].make(training.settings)
    check_folder(training.out)
    yield Stage("encoder", f"Loading {options.start}")
    start = load_encoder(options.start, settings)
    if start.warning:
        yield Warn(start.warning)
    data = yield from _tiles(training.tiles, start, options)
    with data:
        yield Partial("note", _what(data, training))
        if not options.mpp and bool((data.table.slide < 0).any()):
            yield Warn(f"tiles without a slide are taken to be at {data.mpp:g} µm/px; say --mpp if they are not")
        start = for_tiles(start, data.tile_px)
        finished = _finished(training.out, method, start, data)
        if finished is not None:
            return Trained(finished, data.left_out, already=True)
        probe = yield from _probe(data, training)
        with _threads(options.threads):
            device = options.device if options.device != "auto" else settings.device
            trained = yield from pretrain(
                data, start, method, training.out / WORK,
                probe=probe, device=device, precision=options.precision, readers=options.workers,
            )  # fmt: skip
        for note in data.notes:
            yield Warn(note)
        if process_number():
            return Trained(None, data.left_out, early=trained.early)
        yield Stage("save", "Writing the encoder")
        bundle = save_pretrained(
            training.out, training.name, start, replace(trained, notes=(*trained.notes, *data.notes)), method,
            data.table, tile_px=data.tile_px, mpp=float(data.mpp or USUAL_MPP),
        )  # fmt: skip
        return Trained(bundle, data.left_out, early=trained.early)


def check_folder(out: Path) -> None:
    """Refuse a folder with anything in it but this program's training: in the end the bundle takes its place."""
    check_writable(out)
    if (out / MANIFEST).is_file():
        return
    foreign = sorted(path.name for path in out.iterdir() if path.name not in (WORK, "failures.csv"))
    if foreign:
        raise DataError(
            f"holds other files ({foreign[0]} for one), which the encoder would replace",
            file=out,
            do="name a new folder for --out",
        )


def kept_steps(out: Path) -> bool:
    """Whether a folder holds a training that was stopped."""
    return (out / WORK / FILE).is_file()


def _finished(out: Path, method: Method, start: Encoder, data: JoinedTiles) -> Bundle | None:
    """Return the encoder that a folder holds already when it is the one asked for; refuse another one."""
    if not (out / MANIFEST).is_file():
        return None
    bundle = load_bundle(out)
    refuse_other(bundle.training.get("identity") or {}, identity_of(method, start, data), out)
    return bundle


def resolution(start: Encoder, wanted: float) -> float:
    """Return the um/px to train at: as wanted, else as the start was published, else as near to 20x as it takes."""
    low, high = start.mpp
    return wanted or start.tile_mpp or min(max(USUAL_MPP, low), high)


def _tiles(tiles: tuple[str, ...], start: Encoder, options: TrainingOptions) -> Job[JoinedTiles]:
    return (
        yield from open_tiles(
            tiles,
            tile_px=options.tile_px or start.tile_px,
            mpp=resolution(start, options.mpp),
            split=None if options.split == EVERY_SPLIT else options.split,
            label=options.labels,
            stain=options.stain or None,
            most=options.most or None,
        )
    )


def _what(data: JoinedTiles, training: Training) -> str:
    """Say what is trained on: how many tiles, of how many slides, of which split."""
    table, split = data.table, training.options.split
    count = len(table.slides)
    slides = f" of {count} slide{'s' if count > 1 else ''}" if count else ""
    tables = any(Path(name).suffix.lower() in (".csv", ".zip") for name in training.tiles)
    chosen = f"; of tables with splits only {split!r}" if tables and split != EVERY_SPLIT else ""
    return f"{len(table)} tiles{slides}, {data.tile_px} px at {data.mpp or USUAL_MPP:g} µm/px{chosen}"


def _probe(data: JoinedTiles, training: Training) -> Job[Probe | None]:
    """Return what judges the encoder on the way: labelled tiles where they were given, near and far pairs."""
    looks, options, own = [], training.options, training.settings
    if options.probe:
        labelled = yield from open_tiles(
            [options.probe], tile_px=data.tile_px, mpp=data.mpp, split=None, label=options.labels
        )
        with labelled:
            looks.append(labelled_look(labelled))
    yield Stage("probe", "Reading tiles to judge by")
    # Near and far mean what the method means by them, where it means anything.
    spec = PairSpec(own.near_um, own.far_um) if isinstance(own, SimilaritySettings) else PairSpec()
    near_far = near_far_look(data, spec)
    return joined_looks([*looks, *([near_far] if near_far is not None else [])])


@contextmanager
def _threads(wanted: int) -> Iterator[None]:
    """Compute with so many threads, and give the process its own number back."""
    torch = import_torch()
    before = torch.get_num_threads()
    if wanted:
        torch.set_num_threads(wanted)
    try:
        yield
    finally:
        torch.set_num_threads(before)
