"""What every test shares: the development data (where they exist), no network, a cache of one's own."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

# Before any test imports the torch stack or napari.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("NAPARI_ENSURE_PLUGIN_MAIN_THREAD", "1")
# Converting a network for OpenVINO takes seconds; the tests that are about it ask for it. Before fixtures of any scope.
os.environ["SLNPREDICT_ENGINE"] = "float32"

SHARED = Path(os.environ.get("SLNPREDICT_SHARED", Path(__file__).resolve().parents[2] / "shared"))


@pytest.fixture(scope="session")
def shared_root() -> Path:
    """The folder of development material beside the checkout; tests that need it skip where it is absent."""
    if not SHARED.is_dir():
        pytest.skip("no shared development data beside this checkout")
    return SHARED


@pytest.fixture(scope="session")
def shared(shared_root: Path) -> Path:
    """The real slides, cohort, tiles and weights."""
    return shared_root / "data"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what reaches the shared data, directly or through a fixture."""
    for item in items:
        if "shared_root" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.shared)


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Any attempt to reach another machine fails the test (promise R9)."""

    def refuse(*args: object, **kwargs: object) -> None:
        raise AssertionError(f"a test tried to use the network: {args[:2]}")

    real_connect = socket.socket.connect

    def connect(self: socket.socket, address: object) -> None:
        if self.family != getattr(socket, "AF_UNIX", None):
            refuse(address)
        real_connect(self, address)  # type: ignore[arg-type]

    monkeypatch.setattr(socket.socket, "connect", connect)
    monkeypatch.setattr(socket, "create_connection", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


@pytest.fixture(autouse=True)
def _own_places(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """No test reads or writes the user's own cache, models or settings."""
    places = tmp_path_factory.mktemp("places")
    for name in ("cache", "models"):
        monkeypatch.setenv(f"SLNPREDICT_{name.upper()}", str(places / name))
    monkeypatch.setenv("SLNPREDICT_SETTINGS", str(places / "settings.json"))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Count tests with a window and tests on shared data: CI refuses a run where they were skipped."""
    passed = [report for report in terminalreporter.stats.get("passed", []) if report.when == "call"]
    gui = sum("gui" in report.keywords for report in passed)
    on_shared = sum("shared" in report.keywords for report in passed)
    terminalreporter.write_line(f"GUI tests run: {gui}")
    terminalreporter.write_line(f"Tests on shared data run: {on_shared}")
