from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, register_random, settings

from fcn_kernels import backend as backends


class _TorchRandom:
    """PyTorch's generator in Hypothesis's hands: seeded for each example, so that failures replay."""

    seed = staticmethod(torch.manual_seed)
    getstate = staticmethod(torch.get_rng_state)
    setstate = staticmethod(torch.set_rng_state)


TORCH_RANDOM = _TorchRandom()
register_random(TORCH_RANDOM)  # type: ignore[arg-type]

settings.register_profile(
    "kernels", deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
settings.load_profile("kernels")

# Kernels are held to full float32; where they may round to tf32, the test that wants it says so.
torch.backends.cudnn.allow_tf32 = False

EXAMPLES = int(os.environ.get("FCN_KERNELS_EXAMPLES", "60"))
EXAMPLES_EMULATED = 8  # a GPU's threads one after the other, in software, take their time
EXAMPLES_INTERPRETED = 4  # and Triton's interpreter a minute for some tests


def device_of(backend: str) -> str:
    """The type of device that the tests of ``backend`` put tensors on."""
    return "cuda" if torch.cuda.is_available() and backend != "cpu" else "cpu"


def emulated(backend: str) -> bool:
    """Whether ``backend`` is a GPU's, run in software."""
    return backend != "cpu" and device_of(backend) == "cpu"


def approximates(backend: str) -> bool:
    """Whether exponentials of ``backend`` may be off by 2^-22: a GPU's, or the emulator's where it is told so."""
    if backend == "cpu" or interpreted(backend):
        return False
    extension: Any = backends.CUDA_EXTENSION
    return not emulated(backend) or extension.approximation() != extension.Approximation.exact


def classes_of(backend: str) -> int:
    """The most classes worth drawing: a class has its own programs, each of which takes Triton's interpreter long."""
    return 4 if interpreted(backend) else 23


def images_of(backend: str) -> int:
    """The most images worth drawing."""
    return 2 if interpreted(backend) else 3


def side_of(backend: str) -> int:
    """The most rows and columns of results worth drawing."""
    return 18 if interpreted(backend) else 40


def interpreted(backend: str) -> bool:
    """Whether ``backend`` is Triton's interpreter, which takes its time for every operation of a kernel."""
    return backend == "triton" and emulated(backend)


# What upsample_cross_entropy may take besides its results on a GPU, in float32 maps of its scores: sums at the four
# corners of every cell, the scores themselves, and borders around small maps.
WORKSPACE_OF_LOSS = 8

OPERATORS = sorted(path.parent.name for path in Path(backends.__file__).parent.glob("ops/*/reference.py"))

# Every backend that can run here but the reference, which is what they are held to.
RUNNABLE = [name for name in backends.BACKENDS[1:] if backends.why_not(name, device_of(name)) is None]


@pytest.fixture(params=RUNNABLE)
def backend(request: pytest.FixtureRequest) -> Iterator[str]:
    """The name of a backend; tensors are made on a device that it runs on unless a test says otherwise."""
    name = str(request.param)
    function = getattr(request.function, "__func__", request.function)
    if hasattr(function, "hypothesis"):
        examples = EXAMPLES_INTERPRETED if interpreted(name) else EXAMPLES_EMULATED if emulated(name) else EXAMPLES
        # Hypothesis has no public way to let a fixture choose the number of examples.
        function._hypothesis_internal_use_settings = settings(
            function._hypothesis_internal_use_settings, max_examples=examples
        )
    with torch.device(device_of(name)):
        yield name


@pytest.fixture(params=backends.CPU_EXTENSION.supported_isas() if backends.CPU_EXTENSION else [])
def isa(request: pytest.FixtureRequest) -> Iterator[str]:
    """Every instruction set that this CPU has, in turn."""
    extension = backends.CPU_EXTENSION
    assert extension is not None
    before = extension.isa()
    extension.use_isa(request.param)
    yield request.param
    extension.use_isa(before)
