"""The tables of an output folder that several processes share: predictions.csv and failures.csv.

Nothing is coordinated. Each slide's prediction.json is written by whoever predicted it, and each shard keeps the
failures of its last run in a file of its own, ``.shards/<I>of<N>.json``. Both tables are sums of such files, and any
process may rewrite them. One that writes reads the folder again afterwards, and writes once more when something was
added meanwhile; so whoever writes last has written everything, whatever the order of the others.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from napari_slnpredict.export import FORMAT, failures_csv, predictions_csv
from napari_slnpredict.files import write_file, write_json

from .shards import WHOLE, Shard

#: (name shown, kind of error, message) of a slide that failed.
Failure = tuple[str, str, str]
#: Between two slides the tables are rewritten this seldom; a run of thousands would write little else.
TABLE_SECONDS = 2.0


class Predictions:
    """predictions.csv: one row for each prediction.json below the folder.

    Parameters
    ----------
    out : Path
    """

    def __init__(self, out: Path) -> None:
        self._out = Path(out)
        self._records: dict[str, dict[str, Any]] = {}
        self._stamps: dict[str, tuple[int, int, int]] = {}
        self._written = -TABLE_SECONDS
        self._refresh()

    def contents(self) -> dict[str, str]:
        """Return the content ids of the slides that are here, by folder name."""
        return {name: str(record.get("content_id", "")) for name, record in self._records.items()}

    def write(self, now: bool = True) -> None:
        """Rewrite the table; unless `now`, only when that was not done a moment ago."""
        if not now and time.monotonic() - self._written < TABLE_SECONDS:
            return
        self._refresh()
        changed = True
        while changed:
            write_file(self._out / "predictions.csv", predictions_csv(self._records.values()))
            changed = self._refresh()
        self._written = time.monotonic()

    def _refresh(self) -> bool:
        """Read what is new; return whether anything was. A folder of ten thousand slides is only listed."""
        stamps = {}
        for path in self._out.glob("*/prediction.json"):
            with contextlib.suppress(OSError):
                found = path.stat()
                stamps[path.parent.name] = (found.st_mtime_ns, found.st_size, found.st_ino)
        if stamps == self._stamps:
            return False
        for name in self._stamps.keys() - stamps.keys():
            self._records.pop(name, None)
        for name in sorted(stamps):
            if stamps[name] != self._stamps.get(name):
                self._records.pop(name, None)
                record = _read_json(self._out / name / "prediction.json")
                if record is not None and record.get("format") == FORMAT:
                    self._records[name] = record
        self._records = dict(sorted(self._records.items()))
        self._stamps = stamps
        return True


class Failures:
    """failures.csv: what failed in the last run of each shard.

    Parameters
    ----------
    out : Path
    shard : Shard
    digest : str
        Of the whole list of slides; see `shards.list_digest`.
    """

    def __init__(self, out: Path, shard: Shard = WHOLE, digest: str = "") -> None:
        self._out, self._shard, self._digest = Path(out), shard, digest
        self._folder = self._out / ".shards"

    def write(self, failures: Sequence[Failure]) -> None:
        """Write failures.csv with these failures of this run, or remove it when nothing failed anywhere."""
        if self._shard.count == 1:
            for path in self._folder.glob("*of*.json"):
                path.unlink(missing_ok=True)
            with contextlib.suppress(OSError):
                self._folder.rmdir()
            _write_or_remove(self._out / "failures.csv", failures)
            return
        part = {"format": FORMAT, "list": self._digest, "failures": [list(failure) for failure in failures]}
        write_json(self._folder / f"{self._shard.stem}.json", part)
        merged = self._merged()
        while True:
            _write_or_remove(self._out / "failures.csv", merged)
            again = self._merged()
            if again == merged:
                return
            merged = again

    def other_lists(self) -> list[str]:
        """Return the shards (as "2/5") that cut their share from another list of slides than this one."""
        return [
            stem.replace("of", "/")
            for stem, part in self._parts().items()
            if part.get("list") not in ("", self._digest)
        ]

    def _merged(self) -> list[Failure]:
        found = []
        for part in self._parts().values():
            found += [(str(name), str(kind), str(text)) for name, kind, text in part.get("failures", ())]
        return sorted(found)

    def _parts(self) -> dict[str, dict[str, Any]]:
        """Read the parts of this number of shards; those of another number are of an earlier run, and go."""
        parts = {}
        for path in sorted(self._folder.glob("*of*.json")):
            if not path.stem.endswith(f"of{self._shard.count}"):
                path.unlink(missing_ok=True)
            elif (part := _read_json(path)) is not None:
                parts[path.stem] = part
        return parts


def _write_or_remove(path: Path, failures: Sequence[Failure]) -> None:
    if failures:
        write_file(path, failures_csv(failures))
    else:
        path.unlink(missing_ok=True)


def _read_json(path: Path) -> dict[str, Any] | None:
    with contextlib.suppress(OSError, ValueError):
        value = json.loads(path.read_text(encoding="utf-8"))
        return value if isinstance(value, dict) else None
    return None
