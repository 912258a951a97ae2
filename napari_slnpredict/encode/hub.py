"""One file of one commit from the Hugging Face hub, only when asked for by name (promise R9).

With the standard library's client alone: the hub's own library reads configuration, caches and tokens from places
nobody named. A download continues where it was cut, is checked by its SHA-256 before anybody reads it, and the token
is shown to the hub only, never to the storage it redirects to.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from napari_slnpredict.errors import MissingWeights, ResourceError, UnsafeFile, one_line
from napari_slnpredict.events import Job, Meter, Stage, Throttle
from napari_slnpredict.files import check_writable, digest_file, extend_file, work_lock

if TYPE_CHECKING:
    from urllib.request import Request

HUB = "https://huggingface.co"
#: The environment variable that holds the user's token, as the hub's own tools name it.
TOKEN = "HF_TOKEN"
_PIECE = 1 << 20
_TIMEOUT_SECONDS = 60
_MEGABYTE = 1_000_000


@dataclass(frozen=True)
class HubFile:
    """A file on the hub that can be only one file.

    Attributes
    ----------
    source : str
        Repository, ``owner/name``.
    revision : str
        Commit, 40 hexadecimal digits: a branch would be another file tomorrow.
    file : str
    sha256 : str
    gated : bool
        The repository gives nothing without a token.
    """

    source: str
    revision: str
    file: str
    sha256: str
    gated: bool = False

    def __post_init__(self) -> None:
        rules = (
            (r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", self.source, "a repository is OWNER/NAME"),
            (r"[0-9a-f]{40}", self.revision, "a revision is a commit: 40 digits and letters a to f, no branch"),
            (r"[A-Za-z0-9][\w.-]*", self.file, "a file is a plain name"),
            (r"[0-9a-f]{64}", self.sha256, "a SHA-256 has 64 digits and letters a to f"),
        )
        for rule, value, says in rules:
            if not re.fullmatch(rule, value, re.ASCII):
                raise UnsafeFile(
                    f"{value!r} cannot be downloaded: {says}", do="copy it from the file's page on the hub"
                )

    @property
    def page(self) -> str:
        """The repository's page, for messages."""
        return f"{HUB}/{self.source}"

    @property
    def url(self) -> str:
        """Where the bytes are."""
        return f"{self.page}/resolve/{self.revision}/{self.file}"


class Answer(Protocol):
    """What a server answers: the part of `http.client.HTTPResponse` that is used."""

    status: int
    headers: Mapping[str, str]

    def read(self, amount: int, /) -> bytes:
        """Return the next bytes; none at the end."""

    def close(self) -> None:
        """Hang up."""


#: Sends a request; raises `OSError` where no answer comes, `urllib.error.HTTPError` (an `OSError`) for a refusal.
Opener = Callable[["Request"], Answer]


def hub_opener() -> Opener:
    """Return the real opener."""
    from urllib.request import build_opener

    opener = build_opener(_redirects()())
    return lambda request: opener.open(request, timeout=_TIMEOUT_SECONDS)


def _redirects() -> Any:
    """Return the handler of redirects: to https only, and the token stays with the host it was meant for."""
    from urllib.error import URLError
    from urllib.parse import urlsplit
    from urllib.request import HTTPRedirectHandler

    class Redirects(HTTPRedirectHandler):
        def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
            there = urlsplit(newurl)
            if there.scheme != "https":
                raise URLError(f"redirected to {there.scheme or 'nowhere'}, not to https")
            request = super().redirect_request(req, fp, code, msg, headers, newurl)
            if request is not None and there.netloc != urlsplit(req.full_url).netloc:
                request.remove_header("Authorization")
            return request

    return Redirects


def download(
    place: HubFile, folder: Path, most_bytes: int, *, opener: Opener | None = None, token: str | None = None
) -> Job[Path]:
    """Fetch a file into a folder; returns where its verified bytes lie, under a name nobody looks for.

    Parameters
    ----------
    place : HubFile
    folder : Path
        Holds the growing file between attempts.
    most_bytes : int
        A file larger than this is not what was asked for.
    opener : callable, optional
        By default the network.
    token : str, optional
        By default the environment variable `TOKEN`.

    Raises
    ------
    MissingWeights
        No network, no such file, no access.
    UnsafeFile
        Larger than it can be, or another hash.
    ResourceError
        No space; or another process downloads it now.
    """
    check_writable(folder)
    growing = folder / f".{place.sha256[:16]}.download"
    lock = folder / f"{growing.name}.lock"
    with work_lock(lock) as mine:
        if not mine:
            raise ResourceError(
                "is being downloaded by another process",
                file=place.file,
                do=f"wait for its end, or delete {lock.name} in the models folder when there is none",
            )
        # Complete and not yet put in its place: nothing is asked for again.
        if not (growing.is_file() and digest_file(growing) == place.sha256):
            yield from _grow(place, growing, most_bytes, opener or hub_opener(), token or os.environ.get(TOKEN, ""))
            yield Stage("check", f"Checking {place.file}")
            if digest_file(growing) != place.sha256:
                growing.unlink()
                raise UnsafeFile(
                    "is not the file that was asked for (its SHA-256 differs)",
                    file=place.file,
                    do=f"compare revision and SHA-256 with {place.page}; what came was deleted",
                )
        return growing


def _grow(place: HubFile, growing: Path, most_bytes: int, opener: Opener, token: str) -> Job[None]:
    """Bring a growing file to its full length."""
    have = growing.stat().st_size if growing.is_file() else 0
    answer = _ask(place, growing, have, opener, token)
    try:
        if answer.status != 206 and have:
            # The server starts from the beginning, and so must the file.
            growing.unlink()
            have = 0
        total = have + _length(answer, place)
        _check_room(place, growing.parent, total - have, total, most_bytes)
        yield Stage("download", f"Downloading {place.source}", max(1, total // _MEGABYTE), "MB")
        meter, tell = Meter(max(1, total // _MEGABYTE), have // _MEGABYTE, have // _MEGABYTE), Throttle(0.2)
        size = have
        for size in extend_file(growing, _pieces(answer, place, total - have)):
            meter.done = size // _MEGABYTE
            if tell():
                yield meter.progress()
    finally:
        answer.close()
    if size < total:
        raise _unreachable(place, f"the connection ended after {size} of {total} bytes")


def _ask(place: HubFile, growing: Path, have: int, opener: Opener, token: str) -> Answer:
    from urllib.error import HTTPError
    from urllib.request import Request

    from napari_slnpredict import __version__

    request = Request(place.url, headers={"User-Agent": f"napari-slnpredict/{__version__}"})
    if token:
        request.add_header("Authorization", f"Bearer {token}")
    if have:
        request.add_header("Range", f"bytes={have}-")
    try:
        return opener(request)
    except HTTPError as error:
        error.close()
        if error.code == 416:
            growing.unlink(missing_ok=True)
        raise _refusal(place, error.code, bool(token)) from error
    except OSError as error:
        raise _unreachable(place, one_line(getattr(error, "reason", None) or error, 120)) from error


def _refusal(place: HubFile, code: int, with_token: bool) -> MissingWeights:
    """Say what a refusal means and what opens the door."""
    if code in (401, 403):
        how = (
            f"the token in {TOKEN} has no access: accept the terms at {place.page} with its account"
            if with_token
            else f"accept the terms at {place.page}, make a token in your account there, and put it into {TOKEN}"
        )
        return MissingWeights(f"the hub gives {place.source} to nobody without consent ({code})", do=how)
    if code == 404:
        return MissingWeights(
            f"the hub has no {place.file} in {place.source} at {place.revision[:12]}",
            do=f"look at {place.page}; or download it by hand and give it with --weights",
        )
    if code == 416:
        return MissingWeights("the hub's file is shorter than what had come", file=place.file, do="run it again")
    return MissingWeights(f"the hub answered {code} for {place.source}", do="try again later; what came so far is kept")


def _unreachable(place: HubFile, why: str) -> MissingWeights:
    return MissingWeights(
        f"{place.source} did not come from the hub: {why}",
        do="run the same command again to continue; or download it by hand elsewhere and give it with --weights",
    )


def _length(answer: Answer, place: HubFile) -> int:
    text = answer.headers.get("Content-Length") or ""
    if not text.isdecimal():
        raise _unreachable(place, "the answer does not say how long it is")
    return int(text)


def _check_room(place: HubFile, folder: Path, coming: int, total: int, most_bytes: int) -> None:
    if total > most_bytes:
        raise UnsafeFile(
            f"has {total / 1e6:.0f} MB; the weights of this network have {most_bytes / 1e6:.0f} at most",
            file=place.file,
            do="check revision and repository",
        )
    free = shutil.disk_usage(folder).free
    if free < coming:
        raise ResourceError(
            f"needs {coming / 1e6:.0f} MB; {free / 1e6:.0f} are free",
            file=place.file,
            do="free some space or choose another models folder (SLNPREDICT_MODELS)",
        )


def _pieces(answer: Answer, place: HubFile, coming: int) -> Iterator[bytes]:
    """Yield what comes, never more than was announced; an end before that is told by whoever counts."""
    from http.client import HTTPException

    while coming > 0:
        try:
            piece = answer.read(min(_PIECE, coming))
        except (OSError, HTTPException) as error:
            raise _unreachable(place, one_line(error, 120)) from error
        if not piece:
            return
        coming -= len(piece)
        yield piece
