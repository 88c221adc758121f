"""What importing waits for: no more than is used; and a package that is not there is named, with how to get it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import fcn

REPOSITORY = Path(__file__).parents[2]

# What torch imports is there, and what comes with Python; every other package is as if it were not installed.
KERNELS_ALONE = """
import sys
import numpy, torch, torch._dynamo
class Knows:
    packages = {name.partition(".")[0] for name in sys.modules} | {"fcn", "fcn_kernels"}
    def __init__(self, finder):
        self.finder = finder
    def find_spec(self, name, *more):
        found = self.finder.find_spec(name, *more)
        other = found is not None and "site-packages" in (found.origin or "")
        return None if other and name.partition(".")[0] not in self.packages else found
sys.meta_path[:] = map(Knows, sys.meta_path)
"""

HEAVY = "torch", "numpy", "PIL", "scipy", "matplotlib", "pytorch_lightning", "jsonargparse", "rich"


def python(code: str) -> subprocess.CompletedProcess[str]:
    inherited = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    environment = {**inherited, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}
    return subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        ("--help", 0),
        ("train --help", 0),
        ("predict --help", 0),
        ("evaluate --help", 0),
        ("serve --help", 0),
        ("", 2),
        ("nonsense", 2),
        ("predict weights", 2),
        ("info weights --nonsense", 2),
        ("train", 2),  # neither a recipe nor a run
    ],
)
def test_help_and_usage_errors_wait_for_no_package(arguments: str, code: int) -> None:
    done = python(f"""
import sys
from fcn.cli import main
try:
    code = main({arguments.split()!r})
except SystemExit as stop:
    code = stop.code
loaded = [name for name in {HEAVY!r} if name in sys.modules]
assert not loaded, loaded
sys.exit(code)
""")
    assert done.returncode == code, done.stderr
    assert "Error" not in done.stderr


def test_a_name_brings_what_it_needs_and_no_more() -> None:
    """Measured, ``import fcn`` with a name in use adds 0.1 to 0.25 s to torch's own: none of these is why."""
    done = python(f"""
import sys
import fcn
assert "torch" not in sys.modules
for name in fcn.__all__:
    getattr(fcn, name)
unwanted = {set(HEAVY) - {"torch", "numpy", "PIL"} | {"torchmetrics", "triton", "tensorboard"}!r} & set(sys.modules)
assert not unwanted, unwanted
""")
    assert done.returncode == 0, done.stderr


def test_a_missing_package_is_named_in_one_line() -> None:
    done = python(f"""{KERNELS_ALONE}
import fcn
from fcn.cli import main
fcn.build_model(fcn.ModelConfig(backbone="small", stride=32, classes=2))  # networks are torch's
for wanted, needs in (("Predictor", "pillow"), ("save_weights", "pillow")):
    try:
        getattr(fcn, wanted)
    except ImportError as error:
        told = f"fcn.{{wanted}} needs {{needs}}, which is not installed: pip install {{needs}} ("
        assert str(error).startswith(told), error
        assert error.__suppress_context__
    else:
        raise AssertionError(wanted)
sys.exit(main(["train", "recipe.yaml"]))
""")
    assert done.returncode == 2, done.stderr
    (line,) = done.stderr.splitlines()
    assert line.startswith("fcn train: this needs pytorch-lightning, which is not installed: pip install pytorch-")


def test_what_is_missing_from_fcn_itself_is_no_package_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(fcn._HOMES, ".gone", ("lost",))
    with pytest.raises(ModuleNotFoundError, match=r"No module named 'fcn\.gone'"):
        fcn.lost  # noqa: B018
    with pytest.raises(AttributeError, match="no attribute 'unknown'"):
        fcn.unknown  # noqa: B018
