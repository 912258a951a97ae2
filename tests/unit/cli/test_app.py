"""The command line's frame: exit codes, one line for every error, light help."""

from __future__ import annotations

import subprocess
import sys
import threading
from typing import Any

import pytest

from napari_slnpredict import __version__
from napari_slnpredict.cli import app as app_module
from napari_slnpredict.cli.app import main
from napari_slnpredict.errors import CorruptSlide, MissingWeights, ResourceError


def leave(arguments: list[str]) -> int:
    """Run the command line in this process and return its exit code."""
    with pytest.raises(SystemExit) as left:
        main(arguments)
    return int(left.value.code or 0)


@pytest.fixture
def probe() -> Any:
    """Register a command for one test."""
    before = list(app_module.app.registered_commands)

    def register(run: Any) -> None:
        app_module.app.command("probe")(run)

    yield register
    app_module.app.registered_commands[:] = before


def test_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    """A command nobody could find."""
    assert leave(["--help"]) == 0
    out = capsys.readouterr().out
    commands = "view predict embed index search info doctor demo models encoders phantom"
    for name in commands.split():
        assert f" {name} " in out


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    """Nobody could say which version made a result."""
    assert leave(["--version"]) == 0
    assert capsys.readouterr().out.strip() == f"napari-slnpredict {__version__}"


@pytest.mark.parametrize(
    "arguments",
    ["predict", "predict --nonsense x.svs", "nothing", "predict x.svs --origin nowhere", "predict x --mpp abc"],
)
def test_usage_errors_exit_2(arguments: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A script could not tell a misspelt option from a failed slide."""
    assert leave(arguments.split()) == 2


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (CorruptSlide("ends early", file="/secret/folder/x.svs", do="copy it again"), 1),
        (MissingWeights("no weights", do="put them there"), 3),
        (ResourceError("the disk is full"), 3),
        (MemoryError(), 3),
        (RuntimeError("surprise\nwith a second line"), 1),
        (KeyboardInterrupt(), 130),
    ],
)
def test_errors_are_one_line_with_an_exit_code(
    error: BaseException, code: int, probe: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    """A traceback for a user, or an exit code a job script misreads (promise R11)."""

    def fail() -> None:
        raise error

    probe(fail)
    assert leave(["probe"]) == code
    said = capsys.readouterr().err
    assert "Traceback" not in said
    assert "/secret" not in said
    if code != 130:
        assert len(said.strip().splitlines()) == 1
        assert said.startswith("slnpredict: ")


def test_debug_shows_the_traceback(probe: Any) -> None:
    """A developer could not find a fault."""

    def fail() -> None:
        raise RuntimeError("surprise")

    probe(fail)
    with pytest.raises(RuntimeError, match="surprise"):
        main(["probe", "--debug"])


def test_a_failing_thread_surfaces(
    probe: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker that died would leave a run that claims success."""

    def boom() -> None:
        raise ValueError("in a worker")

    def fail() -> None:
        thread = threading.Thread(target=boom)
        thread.start()
        thread.join()

    monkeypatch.setattr(threading, "excepthook", threading.excepthook)
    probe(fail)
    assert leave(["probe"]) == 1
    assert "a worker failed: ValueError: in a worker" in capsys.readouterr().err


def test_the_command_line_starts_quickly() -> None:
    """Half a second before the first word of help."""
    # The processor's time, not the clock's: the machine may be busy with other things.
    code = "import time; t = time.process_time(); import napari_slnpredict.cli.app; print(time.process_time() - t)"
    spent = []
    for _ in range(3):
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
        spent.append(float(done.stdout))
        if min(spent) < 0.5:
            return
    pytest.fail(f"importing the command line takes {min(spent):.2f} s")


@pytest.mark.parametrize(
    "command", ["predict", "embed", "index", "search", "view", "demo", "info", "doctor", "models", "phantom"]
)
def test_help_of_commands_is_light(command: str) -> None:
    """`slnpredict predict --help` must not load the torch stack either."""
    code = (
        "import sys\n"
        "from napari_slnpredict.cli.app import main\n"
        f"try:\n    main([{command!r}, '--help'])\nexcept SystemExit as left:\n    assert not left.code\n"
        "heavy = {'torch', 'timm', 'tiffslide', 'zarr', 'dask', 'napari', 'skimage'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr[-400:]
