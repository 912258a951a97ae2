"""Downloads: only what was asked for, resumed where they were cut, the token shown to nobody else."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping
from dataclasses import dataclass, field
from email.message import Message
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.request import Request

import pytest

from napari_slnpredict.encode import hub as module
from napari_slnpredict.encode.hub import HubFile, download
from napari_slnpredict.errors import MissingWeights, ResourceError, UnsafeFile
from napari_slnpredict.events import run

CONTENT = bytes(range(256)) * 12_000  # three megabytes
REVISION = "0123456789abcdef0123456789abcdef01234567"


def place(content: bytes = CONTENT, **changes: Any) -> HubFile:
    values = {"source": "nobody/tiny", "revision": REVISION, "file": "model.safetensors"}
    return HubFile(**{**values, "sha256": hashlib.sha256(content).hexdigest(), **changes})


@dataclass
class Stored:
    """What a server would answer."""

    status: int
    headers: Mapping[str, str]
    body: io.BytesIO
    cut_after: int | None = None
    closed: bool = False

    def read(self, amount: int, /) -> bytes:
        if self.cut_after is not None:
            if self.cut_after <= 0:
                raise TimeoutError("timed out")
            amount = min(amount, self.cut_after)
            self.cut_after -= amount
        return self.body.read(amount)

    def close(self) -> None:
        self.closed = True


@dataclass
class Hub:
    """Answers requests for one file from memory."""

    content: bytes = CONTENT
    ranges: bool = True
    refuses: int = 0
    cut_after: int | None = None
    asked: list[Request] = field(default_factory=list)
    answers: list[Stored] = field(default_factory=list)

    def __call__(self, request: Request) -> Stored:
        self.asked.append(request)
        if self.refuses:
            raise HTTPError(request.full_url, self.refuses, "no", Message(), io.BytesIO())
        start = int((request.get_header("Range") or "bytes=0-")[6:-1])
        if start and self.ranges and start >= len(self.content):
            raise HTTPError(request.full_url, 416, "no", Message(), io.BytesIO())
        start = start if self.ranges else 0
        rest = self.content[start:]
        answer = Stored(206 if start else 200, {"Content-Length": str(len(rest))}, io.BytesIO(rest), self.cut_after)
        self.answers.append(answer)
        return answer


def get(hub: Hub, folder: Path, wanted: HubFile | None = None, token: str = "", most: int = 10**9) -> Path:
    return run(download(wanted or place(), folder, most, opener=hub, token=token))


def test_what_comes_is_what_was_asked_for(tmp_path: Path) -> None:
    """Weights would be fetched from somewhere else, or come with a name that the program already trusts."""
    hub = Hub()
    got = get(hub, tmp_path)
    assert got.read_bytes() == CONTENT
    assert got.suffix == ".download"
    request = hub.asked[0]
    assert request.full_url == f"{module.HUB}/nobody/tiny/resolve/{REVISION}/model.safetensors"
    assert not request.has_header("Authorization")
    assert hub.answers[0].closed
    assert get(hub, tmp_path) == got
    assert len(hub.asked) == 1, "what is here whole was asked for again"


def test_a_cut_download_goes_on_where_it_was(tmp_path: Path) -> None:
    """Four gigabytes begin anew after every cut, or the two halves do not fit."""
    broken = Hub(cut_after=2_000_000)
    with pytest.raises(MissingWeights, match=r"timed out.*same command again"):
        get(broken, tmp_path)
    assert broken.answers[0].closed
    hub = Hub()
    assert get(hub, tmp_path).read_bytes() == CONTENT
    assert hub.asked[0].get_header("Range") == "bytes=2000000-"
    # The other cut: the connection ends without an error.
    short = Stored(200, {"Content-Length": str(len(CONTENT))}, io.BytesIO(CONTENT[:1000]))
    with pytest.raises(MissingWeights, match=r"ended after 1000 of 3072000 bytes"):
        run(download(place(), tmp_path / "other", 10**9, opener=lambda request: short, token=""))


def test_a_server_that_knows_no_ranges_begins_anew(tmp_path: Path) -> None:
    """The beginning would be appended to the beginning."""
    with pytest.raises(MissingWeights):
        get(Hub(cut_after=1_500_000), tmp_path)
    assert get(Hub(ranges=False), tmp_path).read_bytes() == CONTENT


def test_a_stopped_download_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C would throw an hour away, or leave the connection open."""
    monkeypatch.setattr(module, "_PIECE", 100_000)
    monkeypatch.setattr(module, "Throttle", lambda seconds: lambda: True)
    hub = Hub()
    job = download(place(), tmp_path, 10**9, opener=hub, token="")
    for _ in range(8):
        next(job)
    job.close()
    assert hub.answers[0].closed
    (growing,) = tmp_path.glob(".*.download")
    assert 0 < growing.stat().st_size < len(CONTENT)
    assert get(Hub(), tmp_path).read_bytes() == CONTENT
    assert not list(tmp_path.glob("*.lock*"))


def test_another_content_is_deleted(tmp_path: Path) -> None:
    """Weights that somebody exchanged on the hub would be used."""
    with pytest.raises(UnsafeFile, match=r"SHA-256 differs"):
        get(Hub(content=CONTENT[::-1]), tmp_path)
    assert list(tmp_path.iterdir()) == []
    # And what was left longer than the file ever was.
    wanted = place()
    (tmp_path / f".{wanted.sha256[:16]}.download").write_bytes(CONTENT + b"more")
    with pytest.raises(MissingWeights, match="shorter than what had come"):
        get(Hub(), tmp_path)
    assert get(Hub(), tmp_path).read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("code", "token", "says"),
    [
        (401, "", r"without consent.*make a token.*HF_TOKEN"),
        (403, "secret", r"token in HF_TOKEN has no access"),
        (404, "", r"has no model\.safetensors in nobody/tiny.*--weights"),
        (503, "", r"answered 503.*again later"),
    ],
)
def test_a_refusal_says_what_to_do(code: int, token: str, says: str, tmp_path: Path) -> None:
    """ "HTTP Error 401" helps nobody, and a token must not be printed."""
    with pytest.raises(MissingWeights, match=says) as caught:
        get(Hub(refuses=code), tmp_path, token=token)
    assert "secret" not in str(caught.value)


def test_without_a_network_it_says_so(tmp_path: Path) -> None:
    """A traceback of the resolver."""

    def nowhere(request: Request) -> Any:
        raise URLError(OSError(-2, "Name or service not known"))

    with pytest.raises(MissingWeights, match=r"Name or service not known.*by hand"):
        run(download(place(), tmp_path, 10**9, opener=nowhere, token=""))


def test_the_token_is_shown_to_the_hub_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The storage behind the hub, or whoever redirects, would get the user's token."""
    monkeypatch.setenv(module.TOKEN, "secret")
    hub = Hub()
    run(download(place(), tmp_path, 10**9, opener=hub))
    request = hub.asked[0]
    assert request.get_header("Authorization") == "Bearer secret"
    redirects = module._redirects()()
    kept = redirects.redirect_request(request, None, 307, "", Message(), f"{module.HUB}/Nobody/tiny")
    assert kept.get_header("Authorization") == "Bearer secret"
    away = redirects.redirect_request(request, None, 302, "", Message(), "https://storage.example/x?signed")
    assert not away.has_header("Authorization")
    for elsewhere in ("http://huggingface.co/x", "file:///etc/hostname", "ftp://huggingface.co/x"):
        with pytest.raises(URLError, match="not to https"):
            redirects.redirect_request(request, None, 302, "", Message(), elsewhere)


@pytest.mark.parametrize(
    "changes",
    [
        {"source": "nobody"}, {"source": "../../etc"}, {"source": "a/b/c"}, {"revision": "main"}, {"revision": ""},
        {"file": "../x"}, {"file": "a/b"}, {"sha256": "abc"}, {"sha256": "G" * 64}, {"source": "a/b?x=1"},
    ],
)  # fmt: skip
def test_nothing_unpinned_is_fetched(changes: dict[str, str]) -> None:
    """A branch is another file tomorrow; a crafted name leads to another place."""
    with pytest.raises(UnsafeFile, match="cannot be downloaded"):
        place(**changes)


def test_a_file_too_large_or_a_full_disk_is_refused_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk would be full after an hour."""
    with pytest.raises(UnsafeFile, match="3 MB; the weights of this network have 1 at most"):
        get(Hub(), tmp_path, most=10**6)
    monkeypatch.setattr(module.shutil, "disk_usage", lambda folder: type("Usage", (), {"free": 5}))
    with pytest.raises(ResourceError, match="needs 3 MB; 0 are free"):
        get(Hub(), tmp_path)
    assert not list(tmp_path.glob("*.safetensors"))


def test_two_downloads_of_one_file_do_not_mix(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two processes would write into one file."""
    job = download(place(), tmp_path, 10**9, opener=Hub(), token="")
    next(job)
    try:
        with pytest.raises(ResourceError, match="another process"):
            get(Hub(), tmp_path)
    finally:
        job.close()


def test_an_answer_without_a_length_is_not_trusted(tmp_path: Path) -> None:
    """Half a file could not be told from a whole one."""
    answer = Stored(200, {}, io.BytesIO(CONTENT))
    with pytest.raises(MissingWeights, match="how long"):
        run(download(place(), tmp_path, 10**9, opener=lambda request: answer, token=""))
    assert answer.closed
