"""What fuse leaves to PyTorch: code that is run again, compiled, exported, traced or transformed."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from fcn_kernels import fuse
from fcn_kernels.fusion.lazy import is_lazy
from tests.kernels.fusing import COARSE, TARGET, Net, assert_same, fused, loss_of, up


class WithLoss(Net):
    def forward(self, x: Tensor, *, size: tuple[int, int] = (16, 20)) -> Tensor:
        return F.cross_entropy(super().forward(x, size=size), TARGET)


@pytest.fixture(autouse=True)
def _new_report() -> None:
    fuse.clear()


@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize("backward_within", [False, True])
@pytest.mark.parametrize("function", [loss_of, lambda x: up(x).square().mean(), lambda x: (up(x) + up(x)).sum()])
def test_checkpoint(function: Callable[[Tensor], Tensor], backward_within: bool, reentrant: bool) -> None:
    """Backward runs the code again, within fuse or not; it must save the same tensors."""
    x, y = COARSE.clone().requires_grad_(), COARSE.clone().requires_grad_()
    function(y).backward()
    with fuse():
        loss = checkpoint(function, x, use_reentrant=reentrant)
        if backward_within:
            loss.backward()
    if not backward_within:
        loss.backward()
    torch.testing.assert_close(x.grad, y.grad)
    if not reentrant:
        assert all("inside a checkpoint" in why for why in fuse.report().left)


def test_checkpoint_of_what_reads_upsampled_scores() -> None:
    x, y = COARSE.clone().requires_grad_(), COARSE.clone().requires_grad_()
    loss_of(y).backward()
    with fuse():
        loss = checkpoint(lambda scores: F.cross_entropy(scores, TARGET), up(x), use_reentrant=False)
    loss.backward()
    torch.testing.assert_close(x.grad, y.grad)


@pytest.mark.parametrize("around", ["function", "module", "call"])
def test_compiled_code_steps_aside(around: str) -> None:
    x = COARSE.clone().requires_grad_()
    torch.compiler.reset()
    context: Any = nullcontext()
    if around == "function":
        call = torch.compile(fuse(loss_of), backend="aot_eager")
    elif around == "module":
        call = torch.compile(fuse(WithLoss().eval()), backend="aot_eager")
        want = call.module(x)
    else:
        call, context = torch.compile(loss_of, backend="aot_eager", fullgraph=True), fuse()
    if around != "module":
        want = loss_of(x)
    with context:
        got = call(x)
    torch.testing.assert_close(got, want)
    ours, theirs = torch.autograd.grad(got, x)[0], torch.autograd.grad(want, x)[0]
    torch.testing.assert_close(ours, theirs)
    assert fused() == 0
    assert not is_lazy(up(COARSE))


def test_a_lazy_tensor_goes_into_compiled_code() -> None:
    x = COARSE.clone().requires_grad_()
    with fuse():
        y = up(x)
    compiled = torch.compile(lambda y: F.cross_entropy(2 * y, TARGET), backend="aot_eager")
    got, want = compiled(y), F.cross_entropy(2 * up(x), TARGET)
    torch.testing.assert_close(got, want)
    torch.testing.assert_close(torch.autograd.grad(got, x)[0], torch.autograd.grad(want, x)[0])


@pytest.mark.filterwarnings("ignore:While compiling, we found certain side effects")
@pytest.mark.parametrize("strict", [False, True])
def test_exported_code_steps_aside(strict: bool) -> None:
    net = fuse(Net().eval())
    program = torch.export.export(net, (COARSE,), strict=strict)
    assert not any("fcn_kernels" in str(node.target) for node in program.graph.nodes)
    assert_same(program.module()(COARSE).detach(), net.module(COARSE).detach())
    with fuse():
        program = torch.export.export(net.module, (COARSE,), strict=strict)
    assert_same(program.module()(COARSE).detach(), net.module(COARSE).detach())


@pytest.mark.filterwarnings("ignore")
def test_onnx_steps_aside() -> None:
    program = torch.onnx.export(fuse(Net().eval()), (COARSE,), dynamo=True, verbose=False)
    assert program is not None
    assert "Resize" in {node.op_type for node in program.model.graph}
    assert fused() == 0


@pytest.mark.filterwarnings("ignore:.*is deprecated")
def test_traced_code_steps_aside() -> None:
    net = fuse(Net().eval())
    traced = torch.jit.trace(net, COARSE)
    assert_same(traced(2 * COARSE).detach(), net.module(2 * COARSE).detach())
    with fuse():
        graph = torch.fx.symbolic_trace(net.module)
    assert any(node.target is F.interpolate for node in graph.graph.nodes)
    assert fused() == 0


def test_function_transforms_step_aside() -> None:
    x = COARSE.clone().requires_grad_()
    want = torch.autograd.grad(loss_of(x), x)[0]
    with fuse():
        torch.testing.assert_close(torch.func.grad(loss_of)(COARSE), want)
        _, along = torch.func.jvp(loss_of, (COARSE,), (COARSE,))
        each = torch.func.vmap(lambda x: up(x[None]).argmax(1)[0])(COARSE)
    torch.testing.assert_close(along, (want * COARSE).sum())
    assert_same(each, up(COARSE).argmax(1))
    assert fused() == 0


def test_second_derivatives_are_refused() -> None:
    """As the docs say; never silently wrong."""
    x = COARSE.clone().requires_grad_()
    with fuse():
        (grad,) = torch.autograd.grad(loss_of(x), x, create_graph=True)
    with pytest.raises(RuntimeError, match="has no second derivative"):
        torch.autograd.grad(grad.sum(), x)
