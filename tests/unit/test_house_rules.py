"""Rules of the house that no tool checks: each fails with the file and line that breaks it."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

import napari_slnpredict

PACKAGE = Path(napari_slnpredict.__file__).parent
SOURCES = sorted(PACKAGE.rglob("*.py"))


def lines_matching(pattern: str, *, but: tuple[str, ...] = ()) -> list[str]:
    """Return ``file:line: text`` of every source line that matches, outside the files named in `but`."""
    rule = re.compile(pattern)
    found = []
    for source in SOURCES:
        name = source.relative_to(PACKAGE).as_posix()
        if name in but:
            continue
        for number, line in enumerate(source.read_text(encoding="utf-8").splitlines(), 1):
            if rule.search(line):
                found.append(f"{name}:{number}: {line.strip()}")
    return found


def test_one_function_writes_files() -> None:
    """A second way to write files would leave torn ones behind after a crash (promise R5)."""
    opening = r"""open\([^)]*["'][wax]b?\+?["']"""
    calling = r"\.write_text\(|\.write_bytes\(|np\.save\w*\((?!raw|buffer)|imsave\(|\.to_csv\(|savefig\((?!part|buffer)"
    pattern = f"{opening}|{calling}"
    assert lines_matching(pattern, but=("files.py",)) == []


def test_one_door_for_torch() -> None:
    """An import of timm past the door crashes the process once a napari window has drawn."""
    pattern = r"^\s*(import|from)\s+(torch|torchvision|timm|triton)\b"
    guarded = [line for line in lines_matching(pattern, but=("torch_door.py",)) if "TYPE_CHECKING" not in line]
    in_type_checking_only = [line for line in guarded if not is_for_type_checking(line)]
    assert in_type_checking_only == []


def is_for_type_checking(found: str) -> bool:
    """An indented import directly below ``if TYPE_CHECKING:`` is for the type checker alone."""
    name, number, _ = found.split(":", 2)
    lines = (PACKAGE / name).read_text(encoding="utf-8").splitlines()
    for line in reversed(lines[: int(number) - 1]):
        if line.strip() == "if TYPE_CHECKING:":
            return True
        if line.strip() and not line.startswith((" ", "\t")):
            return False
    return False


def test_nothing_is_unpickled() -> None:
    """A model file must never be able to run code (promise R8)."""
    found = lines_matching(
        r"weights_only\s*=\s*False|\bpickle\.load|torch\.load\(|allow_pickle\s*=\s*True|trust_remote_code"
    )
    # The one place, for foreign checkpoints, runs in a child process and by torch's restricted loader alone.
    (converter,) = found
    assert converter.startswith("bundles/pickled.py:")
    assert "weights_only=True" in converter


def test_one_address_outside() -> None:
    """A second way to the network would be asked by nobody (promise R9)."""
    assert [line.split(":")[0] for line in lines_matching(r"https://huggingface")] == ["encode/hub.py"]
    library = lines_matching(r"^\s*(import|from)\s+(huggingface_hub|requests|httpx|urllib3|aiohttp)\b")
    assert library == []
    opening = lines_matching(r"urllib\.request import|urlopen|http\.client|build_opener", but=("encode/hub.py",))
    assert opening == []


def test_no_print_in_the_core() -> None:
    """Results go to stdout through the command line only; the core tells by events."""
    assert [line for line in lines_matching(r"(?<![\w.])print\(") if not line.startswith("cli/")] == []


@pytest.mark.parametrize(
    "start", ["from napari_slnpredict.cli.app import main; main(['--help'])", "import napari_slnpredict"]
)
def test_help_is_light(start: str) -> None:
    """Asking for help must not take the ten seconds that torch and timm take to load."""
    code = (
        "import sys\n"
        f"try:\n    {start}\nexcept SystemExit:\n    pass\n"
        "heavy = {'torch', 'timm', 'tiffslide', 'zarr', 'dask', 'napari', 'skimage', 'scipy'} & set(sys.modules)\n"
        "sys.stderr.write('HEAVY:' + ','.join(sorted(heavy)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.stderr.strip().endswith("HEAVY:"), done.stderr[-500:]
