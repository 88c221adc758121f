"""Upsampled scores under fuse are, to all that code can do with them, the tensor that PyTorch would have made."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from fcn_kernels import fuse
from fcn_kernels.fusion.lazy import is_lazy
from tests.kernels.fusing import COARSE, SKIP, TARGET, Program, assert_as_pytorch, assert_same, run, up
from tests.kernels.programs import PROGRAMS

LAYOUTS: dict[str, Program] = {
    "contiguous": lambda x: x * 1,
    "channels_last": lambda x: x.contiguous(memory_format=torch.channels_last),
    "some channels of channels_last": lambda x: torch.cat([x, x], 1).contiguous(memory_format=torch.channels_last)[
        :, :3
    ],
    "rows turned": lambda x: x.transpose(2, 3).contiguous().transpose(2, 3),
}


@pytest.mark.filterwarnings("ignore:size_average and reduce")
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", PROGRAMS)
def test_as_pytorch(name: str, layout: str) -> None:
    lazy = []

    def program(x: Tensor) -> Any:
        y = up(LAYOUTS[layout](x))
        lazy.append(is_lazy(y))
        return PROGRAMS[name](y)

    try:
        want = run(program, False)
    except RuntimeError as error:  # a view of another layout
        with pytest.raises(RuntimeError, match=str(error)[:20]):
            run(program, True)
    else:
        assert_as_pytorch(program, want)
    assert lazy == [False, True]


@pytest.mark.parametrize("wrong", [
    lambda y: F.cross_entropy(y, TARGET + 5),
    lambda y: F.cross_entropy(y, TARGET[:, 1:]),
    lambda y: F.cross_entropy(y, TARGET.to(torch.int16)),
    lambda y: F.cross_entropy(y, TARGET, torch.ones(4)),
    lambda y: F.cross_entropy(y, TARGET, label_smoothing=2.0),
    lambda y: F.cross_entropy(y, TARGET, reduction="average"),
    lambda y: F.cross_entropy(y, TARGET, nonsense=1),
    lambda y: y[:, :, ::-1],
    lambda y: y[5],
    lambda y: y[0, 0, 0, 0, 0],
    lambda y: y.argmax(7),
    lambda y: y + SKIP[:, :, 1:],
    lambda y: y.view(7, -1),
    lambda y: F.interpolate(y, (3, 3), scale_factor=2, mode="bilinear"),
    lambda y: F.interpolate(y, mode="bilinear"),
    lambda y: F.interpolate(y, (3,), mode="bilinear"),
    lambda y: y.numpy(),
    lambda y: y.no_such_attribute,
    lambda y: bool(y),
])  # fmt: skip
def test_errors_are_pytorchs(wrong: Program) -> None:
    with pytest.raises(Exception) as want:
        wrong(up(COARSE.clone().requires_grad_()))
    with fuse():
        y = up(COARSE.clone().requires_grad_())
    with pytest.raises(type(want.value)) as got:
        wrong(y)
    assert str(got.value).splitlines()[0] == str(want.value).splitlines()[0].replace(
        "'Tensor'", f"'{type(y).__name__}'"
    )


def test_errors_of_a_call_that_upsamples() -> None:
    for arguments in ({"size": (0, 3)}, {"size": (9, 9), "scale_factor": 2.0}, {"scale_factor": (2.0, 2.0, 2.0)}):
        with pytest.raises(Exception) as want:
            F.interpolate(COARSE, **arguments, mode="bilinear")  # type: ignore[arg-type]
        with fuse(), pytest.raises(type(want.value)) as got:
            F.interpolate(COARSE, **arguments, mode="bilinear")  # type: ignore[arg-type]
        assert str(got.value) == str(want.value)


def test_becomes_a_plain_tensor_when_it_is_made() -> None:
    with fuse():
        y = up(COARSE)
    assert is_lazy(y)
    before = id(y)
    y.add_(1)
    assert type(y) is Tensor
    assert id(y) == before


def test_scores_changed_in_place_are_refused() -> None:
    coarse = COARSE.clone()
    with fuse():
        y, kept = up(coarse), up(coarse)
        kept.add_(0)
        coarse.add_(1)
        with pytest.raises(RuntimeError, match="were changed in place before the upsampled ones were used"):
            y.argmax(1)
        with pytest.raises(RuntimeError, match="were changed in place before the upsampled ones were used"):
            y.relu()
    assert_same(kept, up(COARSE))


def test_inference_tensors_may_change() -> None:
    with torch.inference_mode(), fuse():
        coarse = COARSE.clone()
        y = up(coarse)
        coarse.zero_()
        assert is_lazy(y)
        assert_same(y.argmax(1), up(COARSE).argmax(1))
        assert y.is_inference()
        assert_same(y.relu(), up(COARSE).relu())


@pytest.mark.parametrize("inside", [torch.no_grad, torch.inference_mode, torch.enable_grad])
@pytest.mark.parametrize("outside", [torch.no_grad, torch.enable_grad])
def test_gradients_as_where_it_was_upsampled(inside: Any, outside: Any) -> None:
    """Whether upsampled scores have a gradient is settled when they are upsampled, wherever they are made or read."""

    def program(read: Program) -> Program:
        def call(x: Tensor) -> Any:
            with inside():
                y = up(x)
            with outside():
                return read(y)

        return call

    for read in (lambda y: y.relu(), lambda y: y, lambda y: F.cross_entropy(y, TARGET), lambda y: y[:, :, 1:].double()):
        assert_as_pytorch(program(read))


def test_a_gradient_of_the_upsampled_scores_must_be_asked_for_before_the_loss() -> None:
    """As the docs say."""
    with fuse():
        y = up(COARSE.clone().requires_grad_())
        loss = F.cross_entropy(y, TARGET)
    with pytest.raises(RuntimeError, match="appears to not have been used in the graph"):
        torch.autograd.grad(loss, y)


def test_excluded_classes() -> None:
    """As the docs say: where PyTorch's interpolation makes NaN, the operators leave the class out."""
    coarse = COARSE.clone()
    coarse[:, 1] = -torch.inf
    target = torch.where(TARGET == 1, 0, TARGET)
    assert F.cross_entropy(up(coarse), target).isnan()
    with fuse():
        loss = F.cross_entropy(up(coarse), target)
    two = F.cross_entropy(up(coarse[:, [0, 2]]), target // 2)
    torch.testing.assert_close(loss, two)
