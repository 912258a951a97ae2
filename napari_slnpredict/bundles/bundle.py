"""A model as a folder: ``bundle.json``, ``weights.safetensors``, ``README.md`` (its card), perhaps ``training/``.

Loading trusts nothing: every file named is inside the folder and has the hash that ``bundle.json`` gives, nothing is a
pickle, the format is known. This module knows no model; what `Bundle.model` means is for `encode` and `mil`.
"""

from __future__ import annotations

import json
import re
import secrets
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_slnpredict.errors import MissingWeights, ResourceError, SlnPredictError, UnsafeFile, one_line
from napari_slnpredict.files import digest_file, digest_json, write_file
from napari_slnpredict.settings import Settings

from .terms import inherit
from .weights import read_tensors, refuse_pickles

FORMAT = 1
KINDS = ("encoder", "mil", "anomaly")
MANIFEST = "bundle.json"
WEIGHTS = "weights.safetensors"
CARD = "README.md"
MAX_MANIFEST = 16 << 20
SHIPPED = Path(__file__).parent / "shipped"
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,79}")
_HASH = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Bundle:
    """A model on disk, verified.

    Attributes
    ----------
    folder : Path
    name : str
        Lower case, as in ``--model name``.
    kind : str
        ``encoder``, ``mil`` or ``anomaly``.
    task : dict
        ``name``, ``classes`` (list of str), ``positive`` (one of them or None), ``ordered`` (bool).
    encoder : dict
        ``name`` and ``digest`` of the encoder whose features the model takes; empty for an encoder.
    grid : dict
        ``tile_px``, ``mpp`` (um/px), ``overlap_px``, ``min_tissue``.
    model : dict
        ``type`` and ``parameters``.
    calibration, training : dict
    licence, notice : str
        `notice` is what a user must read beside every answer.
    files : dict
        File name, relative to the folder, to SHA-256.
    card : str
        The model card, Markdown with YAML front matter.
    digest : str
        SHA-256 of the manifest, and by its hashes of every file.
    """

    folder: Path
    name: str
    kind: str
    task: Mapping[str, Any]
    encoder: Mapping[str, Any]
    grid: Mapping[str, Any]
    model: Mapping[str, Any]
    calibration: Mapping[str, Any]
    training: Mapping[str, Any]
    licence: str
    notice: str
    files: Mapping[str, str]
    card: str = field(repr=False)
    digest: str

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, in the order of the model's outputs."""
        return tuple(self.task.get("classes", ()))

    @property
    def positive(self) -> str | None:
        """The class an answer is about, where the task has one."""
        return self.task.get("positive")

    def tensors(self, file: str = WEIGHTS) -> dict[str, NDArray[Any]]:
        """Read the tensors of one of its files, its hash checked again on the bytes that are used."""
        if file not in self.files:
            raise MissingWeights(f"has no file {file}", file=self.folder, do="copy the model again")
        return read_tensors(self.folder / file, self.files[file])


@dataclass(frozen=True)
class BrokenBundle:
    """A folder that wants to be a model and is refused; `error` says why."""

    name: str
    folder: Path
    error: SlnPredictError


def load_bundle(folder: Path | str) -> Bundle:
    """Open a bundle and verify everything about it but the meaning of its model.

    Raises
    ------
    MissingWeights
        No such folder, or no ``bundle.json`` in it, or a file it names is absent.
    UnsafeFile
        Wrong hash, a pickle, a path that leaves the folder, an unknown format, a manifest that is not one.
    """
    folder = Path(folder)
    manifest = folder / MANIFEST
    if not manifest.is_file():
        raise MissingWeights(f"is not a model: no {MANIFEST} in it", file=folder, do="give the folder of a model")
    refuse_pickles(folder)
    content = _read_manifest(manifest)
    files = _checked_files(folder, content.get("files"))
    for name, expected in files.items():
        if digest_file(folder / name) != expected:
            raise UnsafeFile(
                f"{name} is not the file {MANIFEST} names (its SHA-256 differs)", file=folder, do="copy the model again"
            )
    card = (folder / CARD).read_text(encoding="utf-8", errors="replace") if CARD in files else ""
    return _bundle(folder, content, files, card)


def read_json(path: Path) -> Any:
    """Return the content of a stranger's JSON file, of bounded size.

    Raises
    ------
    UnsafeFile
        Too large, or not JSON.
    """
    try:
        if path.stat().st_size > MAX_MANIFEST:
            raise UnsafeFile(f"is larger than {MAX_MANIFEST >> 20} MB", file=path, do="check its source")
        return json.loads(path.read_text(encoding="utf-8"), parse_constant=_no_constant)
    except (OSError, ValueError, RecursionError) as error:
        raise UnsafeFile("is not a JSON file", file=path, do="copy it again") from error


def _read_manifest(path: Path) -> dict[str, Any]:
    content = read_json(path)
    if not isinstance(content, dict) or type(content.get("format")) is not int:
        raise UnsafeFile("names no format", file=path, do="give a model made for this program")
    if content["format"] != FORMAT:
        raise UnsafeFile(
            f"has format {content['format']}; this version reads format {FORMAT}",
            file=path,
            do="update napari-slnpredict",
        )
    return content


def _no_constant(text: str) -> float:
    raise ValueError(f"{text} is not JSON")


def _checked_files(folder: Path, files: Any) -> dict[str, str]:
    """Return the table of files after checking that each is a plain file inside the folder."""
    if not isinstance(files, dict) or not files:
        raise UnsafeFile(f"{MANIFEST} names no files", file=folder, do="copy the model again")
    root = folder.resolve()
    for name, expected in files.items():
        if not isinstance(expected, str) or not _HASH.fullmatch(expected):
            raise UnsafeFile(f"{MANIFEST} gives no SHA-256 for {name}", file=folder, do="copy the model again")
        pure = PurePosixPath(name)
        outside = pure.is_absolute() or ".." in pure.parts or "\\" in name or ":" in name or not pure.parts
        try:
            outside = outside or not (root / pure).resolve().is_relative_to(root)
            here = not outside and (folder / name).is_file()
        except (OSError, ValueError, RuntimeError) as error:  # a NUL, a name too long, links in a circle
            raise UnsafeFile(
                f"{one_line(name, 60)!r} is no name of a file", file=folder, do="check its source"
            ) from error
        if outside:
            raise UnsafeFile(f"{name} points outside the model's folder", file=folder, do="check its source")
        if not here:
            raise MissingWeights(f"{name} is missing", file=folder, do="copy the model again")
    return dict(files)


def _bundle(folder: Path, content: Mapping[str, Any], files: Mapping[str, str], card: str) -> Bundle:
    parts = {name: _table(folder, content, name) for name in _TABLES}
    texts = {name: _text(folder, content, name) for name in ("name", "kind", "licence", "notice")}
    if not _NAME.fullmatch(texts["name"]):
        raise UnsafeFile(f"the name {texts['name']!r} is not lower-case letters, digits, . _ -", file=folder)
    if texts["kind"] not in KINDS:
        raise UnsafeFile(f"is of kind {texts['kind']!r}; known are {', '.join(KINDS)}", file=folder)
    if not isinstance(parts["model"].get("type"), str) or not isinstance(parts["model"].get("parameters", {}), dict):
        raise UnsafeFile("does not say what its model is (type and parameters)", file=folder)
    if texts["kind"] == "mil":
        _check_task(folder, parts["task"])
    return Bundle(
        folder=folder,
        name=texts["name"],
        kind=texts["kind"],
        task=parts["task"],
        encoder=parts["encoder"],
        grid=parts["grid"],
        model=parts["model"],
        calibration=parts["calibration"],
        training=parts["training"],
        licence=texts["licence"],
        notice=texts["notice"],
        files=files,
        card=card,
        digest=digest_json(content),
    )


_TABLES = ("task", "encoder", "grid", "model", "calibration", "training")


def _table(folder: Path, content: Mapping[str, Any], name: str) -> dict[str, Any]:
    value = content.get(name, {})
    if not isinstance(value, dict):
        raise UnsafeFile(f"{name} in {MANIFEST} is not a table", file=folder, do="copy the model again")
    return value


def _text(folder: Path, content: Mapping[str, Any], name: str) -> str:
    value = content.get(name, "")
    if not isinstance(value, str):
        raise UnsafeFile(f"{name} in {MANIFEST} is not a text", file=folder, do="copy the model again")
    return value


def _check_task(folder: Path, task: Mapping[str, Any]) -> None:
    classes = task.get("classes")
    plain = isinstance(classes, list) and classes and all(isinstance(name, str) and name for name in classes)
    if not plain or len(set(classes or ())) != len(classes or ()):
        raise UnsafeFile("its task names no classes, or one of them twice", file=folder)
    if task.get("positive") is not None and task["positive"] not in (classes or ()):
        raise UnsafeFile(f"its positive class {task['positive']!r} is none of its classes", file=folder)


def save_bundle(
    folder: Path | str,
    *,
    name: str,
    kind: str,
    model: Mapping[str, Any],
    tensors: Mapping[str, NDArray[Any]],
    card: str,
    task: Mapping[str, Any] | None = None,
    encoder: Mapping[str, Any] | None = None,
    grid: Mapping[str, Any] | None = None,
    calibration: Mapping[str, Any] | None = None,
    training: Mapping[str, Any] | None = None,
    licence: str = "",
    notice: str = "",
    extra_files: Mapping[str, bytes] | None = None,
) -> Bundle:
    """Write a bundle and load it back.

    The folder is written aside and renamed: an old bundle of that name stays whole until the new one is.

    Parameters
    ----------
    tensors : mapping of str to array
        Goes to ``weights.safetensors``.
    card : str
        Markdown; front matter (``---``) is put before it when it has none.
    extra_files : mapping of str to bytes, optional
        Further files (``training/folds.csv``, ``check/tiles.safetensors``), hashed like the others.
    encoder : mapping, optional
        As `Encoder.entry` gives it: its terms go on to the model (`terms.inherit`).
    """
    folder = Path(folder)
    licence, notice = inherit(encoder or {}, licence, notice)
    if not card.startswith("---\n"):
        card = (
            front_matter({"license": _hub_licence(licence), "library_name": "napari-slnpredict", "tags": [kind]}) + card
        )
    contents: dict[str, bytes] = {WEIGHTS: tensor_bytes(tensors), CARD: card.encode()}
    contents.update(extra_files or {})
    manifest = {
        "format": FORMAT, "name": name, "kind": kind, "task": dict(task or {}), "encoder": dict(encoder or {}),
        "grid": dict(grid or {}), "model": dict(model), "calibration": dict(calibration or {}),
        "training": dict(training or {}), "licence": licence, "notice": notice,
        "files": {file: _sha256(data) for file, data in sorted(contents.items())},
    }  # fmt: skip
    text = json.dumps(manifest, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    aside = folder.with_name(f".{folder.name}.{secrets.token_hex(4)}.part")
    try:
        for file, data in contents.items():
            write_file(aside / file, data)
        write_file(aside / MANIFEST, text)
        load_bundle(aside)
        _put_in_place(aside, folder)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return load_bundle(folder)


def _put_in_place(aside: Path, folder: Path) -> None:
    old = folder.with_name(f".{folder.name}.{secrets.token_hex(4)}.old.part")
    try:
        if folder.exists():
            folder.rename(old)
        aside.rename(folder)
    except OSError as error:
        if old.exists() and not folder.exists():
            old.rename(folder)
        raise ResourceError("the model cannot be put in its place", file=folder, do="choose another folder") from error
    shutil.rmtree(old, ignore_errors=True)


def tensor_bytes(tensors: Mapping[str, NDArray[Any]]) -> bytes:
    """Return the content of a safetensors file."""
    from safetensors.numpy import save

    # The library writes whatever bytes lie in memory: a transposed view would come out scrambled.
    content: bytes = save({name: np.asarray(value, order="C") for name, value in tensors.items()})
    return content


def _sha256(data: bytes) -> str:
    import hashlib

    return hashlib.sha256(data).hexdigest()


def front_matter(fields: Mapping[str, Any]) -> str:
    """Return YAML front matter for a model card (every JSON value is YAML)."""
    lines = [f"{name}: {json.dumps(value, ensure_ascii=False)}" for name, value in fields.items()]
    return "\n".join(["---", *lines, "---", "", ""])


def _hub_licence(licence: str) -> str:
    return licence.split()[0].strip(",;").lower() if licence else "other"


def find_bundle(name: str | Path, settings: Settings) -> Bundle:
    """Find a bundle by a shipped name, a name in the user's models folder, or its folder.

    Raises
    ------
    MissingWeights
        Nothing of that name; the message lists what there is and where models go.
    """
    text = str(name)
    if _NAME.fullmatch(text):
        for home in (SHIPPED, settings.models_dir):
            if (home / text / MANIFEST).is_file():
                return load_bundle(home / text)
    if (Path(text) / MANIFEST).is_file():
        return load_bundle(text)
    if Path(text).is_dir() or len(Path(text).parts) > 1:
        return load_bundle(text)
    known = [entry.name for entry in list_bundles(settings)]
    raise MissingWeights(
        f"there is no model named {text!r}",
        do=f"known are {', '.join(known) or 'none'}; give a model's folder, or put it into {settings.models_dir}",
    )


def list_bundles(settings: Settings, kinds: Sequence[str] = KINDS) -> list[Bundle | BrokenBundle]:
    """Return the shipped bundles and the user's, by name; broken ones with the reason."""
    found: dict[str, Bundle | BrokenBundle] = {}
    for home in (SHIPPED, settings.models_dir):
        if not home.is_dir():
            continue
        for manifest in sorted(home.glob(f"*/{MANIFEST}")):
            folder = manifest.parent
            if folder.name.startswith(".") or folder.name in found:
                continue
            try:
                found[folder.name] = load_bundle(folder)
            except SlnPredictError as error:
                found[folder.name] = BrokenBundle(folder.name, folder, error)
    return [entry for entry in found.values() if isinstance(entry, BrokenBundle) or entry.kind in kinds]


__all__ = [
    "CARD", "FORMAT", "KINDS", "MANIFEST", "SHIPPED", "WEIGHTS", "BrokenBundle", "Bundle", "find_bundle",
    "front_matter", "list_bundles", "load_bundle", "read_json", "save_bundle", "tensor_bytes",
]  # fmt: skip
