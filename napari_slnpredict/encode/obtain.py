"""Weights of a named encoder brought to this machine, by hand or by download, and kept with where they came from.

Both ways end the same: the tensors are compared with the network the name means (every name, every shape, every value
finite), written whole as ``<models>/<name>.safetensors``, and recorded in ``<name>.origin.json``: source, commit,
hashes, licence. From then on the encoder is that file and no other.
"""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from napari_slnpredict.bundles.bundle import read_json
from napari_slnpredict.bundles.pickled import convert_pickle
from napari_slnpredict.bundles.weights import PICKLE_SUFFIXES, kind_of, map_tensors
from napari_slnpredict.errors import MissingWeights, UnsafeFile
from napari_slnpredict.events import Job, Stage
from napari_slnpredict.files import digest_file, write_file, write_json
from napari_slnpredict.provenance import now
from napari_slnpredict.settings import Settings
from napari_slnpredict.torch_door import import_timm

from .architecture import Architecture, build_network, check_architecture, check_shapes
from .hub import HUB, TOKEN, HubFile, Opener, download
from .presets import PRESETS, SAFETENSORS, Preset

FORMAT = 1
_ORIGIN = ".origin.json"
#: How much longer than its parameters at 4 bytes a file of weights may be: names and a classifier.
_ROOM = 1.5


@dataclass(frozen=True)
class Named:
    """An encoder's name and what it says about weights that are not here yet.

    Attributes
    ----------
    name : str
    stem : str
        Of the files in the models folder.
    architecture : Architecture
    head : tuple of str
        Prefixes of tensors the encoder has no use for.
    source, file, revision, sha256 : str
        As `Preset`.
    gated : bool
    licence, notice : str
    """

    name: str
    stem: str
    architecture: Architecture
    head: tuple[str, ...] = ()
    source: str = ""
    file: str = SAFETENSORS
    revision: str = ""
    sha256: str = ""
    gated: bool = False
    licence: str = ""
    notice: str = ""

    def path(self, settings: Settings) -> Path:
        """Return where its weights go."""
        return settings.models_dir / f"{self.stem}.safetensors"


def named(name: str) -> Named:
    """Return what a preset's name or ``timm:<name>`` means.

    Raises
    ------
    MissingWeights
        A name that has no place for weights.
    """
    kind, colon, rest = name.partition(":")
    if colon and kind == "timm":
        return _named_timm(rest)
    if name not in PRESETS:
        raise MissingWeights(
            f"no weights can be brought for {name!r}",
            do=f"names that take weights are timm:NAME and {', '.join(PRESETS)}; a bundle goes into the models folder",
        )
    return _named_preset(PRESETS[name])


def _named_preset(preset: Preset) -> Named:
    return Named(
        preset.name, preset.name, Architecture(preset.timm, preset.kwargs, preset.pooling), (), preset.source,
        preset.file, preset.revision, preset.sha256, preset.gated, preset.licence, preset.notice,
    )  # fmt: skip


def _named_timm(name: str) -> Named:
    architecture = Architecture(name)
    check_architecture(architecture)
    config = import_timm().models.get_pretrained_cfg(name, allow_unregistered=False)
    return Named(
        f"timm:{name}",
        name,
        architecture,
        head_prefixes(config),
        str((config.hf_hub_id if config else "") or ""),
        licence=str((config.license if config else "") or ""),
    )


def head_prefixes(config: Any) -> tuple[str, ...]:
    """Return the prefixes of the classifier's tensors, by timm's record of a network."""
    classifier = (config.classifier if config else None) or ()
    prefixes = (classifier,) if isinstance(classifier, str) else tuple(classifier)
    return tuple(f"{prefix}." for prefix in prefixes)


def take_weights(name: str, file: Path, settings: Settings, sha256: str = "") -> Job[Path]:
    """Bring a file the user has: safetensors, or a pickled checkpoint, which is converted in a child process.

    Parameters
    ----------
    sha256 : str
        What the file's page says; compared when given, or when the preset knows one.

    Raises
    ------
    MissingWeights, UnsafeFile, BundleMismatch, ModelError, ResourceError
    """
    wanted = named(name)
    if not file.is_file():
        raise MissingWeights("no such file", file=file, do="check the path")
    yield Stage("check", f"Checking {file.name}")
    found, expected = digest_file(file), sha256.lower() or wanted.sha256
    if expected and found != expected:
        raise UnsafeFile(
            "is not the file that was asked for (its SHA-256 differs)", file=file, do="download it again and compare"
        )
    # Whoever brought it says what it is: only its hash, where one was given, proves more than its shapes.
    known = {"source": wanted.source, "revision": wanted.revision} if wanted.sha256 == found else {}
    origin = {"source": "", "revision": "", **known, "brought": "by hand", "file": file.name, "file_sha256": found}
    return (yield from _put(wanted, file, settings, origin, found))


def download_weights(
    name: str, settings: Settings, revision: str = "", sha256: str = "", *, opener: Opener | None = None
) -> Job[Path]:
    """Fetch the weights of a name from the hub: one file of one commit with one hash.

    Parameters
    ----------
    revision, sha256 : str
        Where the preset knows none: the commit and the hash the user read on the file's page.
    opener : callable, optional
        As `hub.download`.

    Raises
    ------
    MissingWeights
        Nothing pinned, no network, no access.
    UnsafeFile, BundleMismatch, ModelError, ResourceError
        What came is not what was asked for, or there is no room.
    """
    wanted = named(name)
    place = _pinned(wanted, revision, sha256)
    got = yield from download(place, settings.models_dir, _most_bytes(wanted), opener=opener)
    origin = {
        "source": place.source, "revision": place.revision, "brought": "by download", "file": place.file,
        "file_sha256": place.sha256,
    }  # fmt: skip
    path = yield from _put(wanted, got, settings, origin, place.sha256, mine=True)
    got.unlink(missing_ok=True)
    return path


def _pinned(wanted: Named, revision: str, sha256: str) -> HubFile:
    revision, sha256 = revision.lower() or wanted.revision, sha256.lower() or wanted.sha256
    if not wanted.source:
        raise MissingWeights(f"no source of {wanted.name} is known", do="give a file with --weights")
    if not revision or not sha256:
        raise MissingWeights(
            f"no verified commit and SHA-256 of {wanted.name} are known here, and an unpinned file is never fetched",
            do=f"give --revision and --sha256 as {HUB}/{wanted.source} shows them (history, and the page of "
            f"{wanted.file}), or download it by hand and give it with --weights",
        )
    return HubFile(wanted.source, revision, wanted.file, sha256, wanted.gated)


def _most_bytes(wanted: Named) -> int:
    elements = sum(value.numel() for value in build_network(wanted.architecture, "meta").state_dict().values())
    return int(_ROOM * 4 * elements) + (64 << 20)


def _put(
    wanted: Named, file: Path, settings: Settings, origin: Mapping[str, str], sha256: str, mine: bool = False
) -> Job[Path]:
    """Check a file of weights and put it in its place; `mine` files are moved, others copied."""
    target = wanted.path(settings)
    with file.open("rb") as source:
        head = source.read(64)
    if kind_of(head) == "" and file.suffix.lower() not in PICKLE_SUFFIXES:
        yield Stage("check", f"Comparing {file.name} with the network")
        _check_fit(wanted, file)
        write_file(target, file.replace if mine else lambda part: shutil.copyfile(file, part), _same_as(sha256))
    else:
        # A name of its own: whatever stops the conversion leaves the old weights as they are.
        aside = settings.models_dir / f".{wanted.stem}.{secrets.token_hex(4)}.converted.safetensors"
        try:
            settings.models_dir.mkdir(parents=True, exist_ok=True)
            yield from convert_pickle(file, aside)
            yield Stage("check", f"Comparing {file.name} with the network")
            _check_fit(wanted, aside)
            sha256 = digest_file(aside)
            write_file(target, aside.replace)
        finally:
            aside.unlink(missing_ok=True)
    record = {
        "format": FORMAT, "name": wanted.name, "weights": sha256, **origin,
        "licence": wanted.licence, "notice": wanted.notice, "date": now(),
    }  # fmt: skip
    write_json(origin_path(target), record)
    return target


def _same_as(sha256: str) -> Any:
    def check(part: Path) -> None:
        if digest_file(part) != sha256:
            raise OSError(0, "it changed while it was copied")

    return check


def _check_fit(wanted: Named, file: Path) -> None:
    """Compare a safetensors file with the network its name means; nothing is built but shapes."""
    tensors = map_tensors(file)
    for name in [name for name in tensors if name.startswith(wanted.head)] if wanted.head else []:
        del tensors[name]
    check_shapes(build_network(wanted.architecture, "meta"), {n: v.shape for n, v in tensors.items()}, file.name)
    for name, value in tensors.items():
        if value.dtype.kind == "f" and not np.isfinite(value).all():
            raise UnsafeFile(f"tensor {name!r} holds values that are not finite", file=file, do="download it again")


def origin_path(weights: Path) -> Path:
    """Return where the origin of a file of weights is recorded."""
    return weights.with_name(weights.name.removesuffix(".safetensors") + _ORIGIN)


def read_origin(weights: Path) -> dict[str, str]:
    """Return where weights came from; empty when nobody recorded it.

    Raises
    ------
    UnsafeFile
        A record that is none.
    """
    path = origin_path(weights)
    if not path.is_file():
        return {}
    try:
        record = read_json(path)
        if record["format"] != FORMAT or not all(isinstance(record[key], str) for key in ("name", "weights", "source")):
            raise ValueError
    except (UnsafeFile, ValueError, KeyError, TypeError) as error:
        raise UnsafeFile("is not the record of where weights came from", file=path, do="bring them again") from error
    return {key: str(value) for key, value in record.items()}


def how_to_obtain(wanted: Named) -> str:
    """Return what a user does to get weights, for messages and lists."""
    if not wanted.source:
        return f"slnpredict encoders {wanted.name} --weights FILE"
    page = f"{HUB.removeprefix('https://')}/{wanted.source}"
    gate = " (accept its terms there with an account)" if wanted.gated else ""
    token = f", {TOKEN} set" if wanted.gated else ""
    pins = "" if wanted.revision and wanted.sha256 else " --revision COMMIT --sha256 HASH"
    command = f"slnpredict encoders {wanted.name}"
    return (
        f"download {wanted.file} from {page}{gate}, then {command} --weights FILE; or {command} --download{pins}{token}"
    )


__all__ = [
    "Named", "download_weights", "head_prefixes", "how_to_obtain", "named", "origin_path", "read_origin",
    "take_weights",
]  # fmt: skip
