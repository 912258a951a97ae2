"""The one place for settings: defaults < file < ``SLNPREDICT_*`` < option.

The file is ``settings.json`` in the user's configuration folder. The viewer's own preferences (colours, keys) live in
napari's settings; those that mean the same here are handed over by the plugin as options.
"""

from __future__ import annotations

import dataclasses
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import platformdirs

from .errors import DataError

APP = "napari-slnpredict"


@dataclass(frozen=True)
class Settings:
    """Values that hold for one run.

    Attributes
    ----------
    cache : str
        Folder of computed features; may be deleted at any time.
    models : str
        Folder where the user's own bundles and weights are found by name.
    device : str
        ``auto``, ``cpu``, ``cuda``, ``cuda:1``, ``mps``.
    engine : str
        What runs the network: ``auto``, ``torch``, ``openvino``, or one precision exactly (`encode.engines.CHOICES`).
    batch : int
        Tiles a forward pass; 0 lets the program choose.
    memory_mb : int
        Bound of the decoded tiles of all open slides together.
    stall_seconds : float
        How long a read from a network share or removable drive may take; 0 waits for ever.
    """

    cache: str = ""
    models: str = ""
    device: str = "auto"
    engine: str = "auto"
    batch: int = 0
    memory_mb: int = 512
    stall_seconds: float = 10.0

    @property
    def cache_dir(self) -> Path:
        """The cache folder, the platform's default when none was chosen."""
        return Path(self.cache) if self.cache else Path(platformdirs.user_cache_dir(APP))

    @property
    def models_dir(self) -> Path:
        """The folder of the user's own models."""
        return Path(self.models) if self.models else Path(platformdirs.user_data_dir(APP)) / "models"


def settings_file() -> Path:
    """Return where the settings file is looked for."""
    chosen = os.environ.get("SLNPREDICT_SETTINGS")
    return Path(chosen) if chosen else Path(platformdirs.user_config_dir(APP)) / "settings.json"


def load_settings(**options: Any) -> Settings:
    """Merge defaults, file, environment and options (an option of None counts as not given)."""
    return settings_with_origin(**options)[0]


def settings_with_origin(**options: Any) -> tuple[Settings, dict[str, str]]:
    """Return the settings and, for each name, where its value came from (`doctor` prints this).

    Raises
    ------
    DataError
        An unknown name or a value of the wrong kind, naming the file or variable.
    """
    names = {field.name: field for field in dataclasses.fields(Settings)}
    values: dict[str, Any] = {}
    origin = dict.fromkeys(names, "default")
    path = settings_file()
    if path.is_file():
        try:
            stored = json.loads(path.read_text(encoding="utf-8"))
            assert isinstance(stored, dict)
        except (OSError, ValueError, AssertionError) as error:
            raise DataError("the settings file is not a JSON object", file=path, do="mend or delete it") from error
        for name, value in stored.items():
            if name not in names:
                raise DataError(f"unknown setting {name!r}", file=path, do=f"known are {', '.join(names)}")
            values[name], origin[name] = _convert(name, value, f"settings file {path.name}"), "file"
    for name in names:
        variable = f"SLNPREDICT_{name.upper()}"
        if variable in os.environ:
            values[name], origin[name] = _convert(name, os.environ[variable], variable), variable
    for name, value in options.items():
        if value is not None:
            values[name], origin[name] = _convert(name, value, f"option {name}"), "option"
    return Settings(**values), origin


def _convert(name: str, value: Any, source: str) -> Any:
    kind = type(getattr(Settings(), name))
    try:
        return kind(str(value)) if kind is not str else str(value)
    except ValueError as error:
        raise DataError(f"{source}: {name} must be {kind.__name__}, not {value!r}", do="mend the value") from error
