from __future__ import annotations

from collections.abc import Iterator

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

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
RUNNABLE = tuple(name for name in backends.BACKENDS[1:] if backends.why_not(name, DEVICE) is None)


@pytest.fixture(params=RUNNABLE)
def backend(request: pytest.FixtureRequest) -> str:
    """Every backend that can run here but the reference, which is what they are held to."""
    return str(request.param)


@pytest.fixture(params=backends.CPU_EXTENSION.supported_isas() if backends.CPU_EXTENSION else [])
def isa(request: pytest.FixtureRequest) -> Iterator[str]:
    """Every instruction set that this CPU has, in turn."""
    extension = backends.CPU_EXTENSION
    assert extension is not None
    before = extension.isa()
    extension.use_isa(request.param)
    yield request.param
    extension.use_isa(before)
