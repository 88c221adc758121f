"""The ways in which fuse is put around code, and what it leaves alone."""

from __future__ import annotations

import copy
import inspect
import pickle
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fcn_kernels import fuse
from fcn_kernels.fusion.context import Context
from fcn_kernels.fusion.lazy import is_lazy
from fcn_kernels.fusion.report import _LIBRARIES
from tests.kernels.fusing import COARSE, TARGET, Net, assert_same, fused, loss_of, up


@pytest.fixture(autouse=True)
def _new_report() -> None:
    fuse.clear()


def test_context() -> None:
    with fuse():
        inside = up(COARSE)
    assert is_lazy(inside)
    assert not is_lazy(up(COARSE))
    F.cross_entropy(inside, TARGET)  # is answered outside, too
    assert fused() == 1


def test_decorator() -> None:
    @fuse
    def step(x: Tensor, scale: float = 1.0) -> Tensor:
        """A step."""
        return scale * loss_of(x)

    torch.testing.assert_close(step(COARSE, scale=2.0), 2 * loss_of(COARSE))
    assert fused() == 1
    assert (step.__name__, step.__doc__) == ("step", "A step.")
    assert list(inspect.signature(step).parameters) == ["x", "scale"]


def test_decorator_of_a_method_and_of_a_recursion() -> None:
    class Trainer:
        @fuse
        def step(self, x: Tensor, times: int) -> Tensor:
            return loss_of(x) + (self.step(x, times - 1) if times else 0)

    torch.testing.assert_close(Trainer().step(COARSE, 2), 3 * loss_of(COARSE))
    assert fused() == 3
    assert not is_lazy(up(COARSE))


def test_forward_replaced_keeps_its_signature() -> None:
    """What the docs tell those whose trainer looks at it."""
    net = Net()
    before = inspect.signature(net.forward)
    net.forward = fuse(net.forward)  # type: ignore[method-assign]
    assert inspect.signature(net.forward) == before
    assert is_lazy(net(COARSE))


def test_module() -> None:
    torch.manual_seed(0)
    net = Net()
    plain = copy.deepcopy(net)
    wrapped = fuse(net)
    want, got = F.cross_entropy(plain(COARSE), TARGET), F.cross_entropy(wrapped(COARSE), TARGET)
    assert fused() == 1
    torch.testing.assert_close(got, want)
    want.backward()
    got.backward()
    for ours, theirs in zip(wrapped.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad)
    assert wrapped(COARSE, size=(9, 9)).shape == (2, 3, 9, 9)
    assert not is_lazy(up(COARSE))


def test_module_is_the_module_to_others() -> None:
    net = Net()
    wrapped = fuse(net)
    assert wrapped.score is net.score
    assert_same(wrapped.labels(COARSE), net.labels(COARSE))
    with pytest.raises(AttributeError, match="'Net' object has no attribute 'nothing'"):
        wrapped.nothing  # noqa: B018
    wrapped.eval()
    assert not net.norm.training
    assert next(wrapped.double().parameters()).dtype == next(net.parameters()).dtype == torch.float64


def test_state_dicts_are_those_of_the_module() -> None:
    net, other = Net(), Net()
    wrapped = fuse(net)
    assert list(wrapped.state_dict()) == list(net.state_dict())
    wrapped.load_state_dict(other.state_dict())
    assert torch.equal(net.score.weight, other.score.weight)
    other.load_state_dict(wrapped.state_dict())
    outer = nn.ModuleDict({"a": fuse(Net()), "b": nn.Conv2d(1, 1, 1)})
    plain = nn.ModuleDict({"a": Net(), "b": nn.Conv2d(1, 1, 1)})
    assert list(outer.state_dict()) == list(plain.state_dict())
    assert outer.load_state_dict(plain.state_dict()) == plain.load_state_dict(outer.state_dict())
    assert torch.equal(outer["a"].score.weight, plain["a"].score.weight)  # type: ignore[union-attr, arg-type]
    state = net.state_dict()
    del state["score.bias"]
    missing, unexpected = wrapped.load_state_dict({**state, "more": torch.zeros(1)}, strict=False)
    assert (len(missing), len(unexpected)) == (1, 1)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda module: pickle.loads(pickle.dumps(module))])
def test_modules_are_copied(copied: Callable[[nn.Module], nn.Module]) -> None:
    wrapped = fuse(Net().eval())
    again = copied(wrapped)
    assert is_lazy(again(COARSE))
    assert list(again.state_dict()) == list(wrapped.state_dict())
    torch.testing.assert_close(again(COARSE).relu(), wrapped(COARSE).relu())


def generator() -> Iterator[Tensor]:
    yield COARSE


async def coroutine() -> Tensor:
    return COARSE


@pytest.mark.parametrize(("target", "why"), [
    (generator, "fuse: generator has not run when it returns"),
    (coroutine, "fuse: coroutine has not run when it returns"),
    (Net, "fuse: give nothing, a function or an nn.Module, got the class Net"),
    (3, "fuse: give nothing, a function or an nn.Module, got int"),
])  # fmt: skip
def test_what_cannot_be_fused(target: Any, why: str) -> None:
    with pytest.raises(TypeError, match=why):
        fuse(target)


def test_nested() -> None:
    with fuse(), fuse():
        y = up(COARSE)
        F.interpolate(COARSE, (2, 2), mode="bilinear")
    assert is_lazy(y)
    assert fuse.report().left.total() == 1  # not once for each
    context = Context()
    with context:
        with context:
            pass
        assert is_lazy(up(COARSE))
    assert not is_lazy(up(COARSE))


def test_errors_leave_the_context() -> None:
    with pytest.raises(ZeroDivisionError), fuse():
        1 / 0  # noqa: B018
    assert not is_lazy(up(COARSE))

    @fuse
    def fails() -> None:
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        fails()
    assert not is_lazy(up(COARSE))


def test_holds_for_its_thread() -> None:
    seen = {}

    def other() -> None:
        seen["without"] = is_lazy(up(COARSE))
        with fuse():
            seen["within"] = is_lazy(up(COARSE))

    with fuse():
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
        assert is_lazy(up(COARSE))
    assert seen == {"without": False, "within": True}


@pytest.fixture
def _hasty_threads() -> Iterator[None]:
    """Threads take turns after every few instructions of Python."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("_hasty_threads")
def test_one_tensor_made_by_several_threads() -> None:
    want = up(COARSE)
    for _ in range(20):
        with fuse():
            y = up(COARSE)
        results: list[Any] = []
        start = threading.Barrier(4)

        def read(y: Tensor = y, results: list[Any] = results, start: threading.Barrier = start) -> None:
            start.wait()
            try:
                results.append((y.argmax(1), y + 0, y[:, :, 1:].float(), tuple(y.shape)))
            except Exception as error:
                results.append(error)

        threads = [threading.Thread(target=read) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for result in results:
            assert_same(result, (want.argmax(1), want, want[:, :, 1:], (2, 3, 16, 20)))


def test_repeats_bit_for_bit() -> None:
    def once(threads: int) -> tuple[Tensor, Tensor]:
        torch.set_num_threads(threads)
        x = COARSE.clone().requires_grad_()
        with fuse():
            loss = loss_of(x)
        return loss.detach(), torch.autograd.grad(loss, x)[0]

    before = torch.get_num_threads()
    deterministic = torch.are_deterministic_algorithms_enabled()
    try:
        torch.use_deterministic_algorithms(True)
        first = once(1)
        for threads in (1, 2, 2):
            assert all(map(torch.equal, once(threads), first))
    finally:
        torch.use_deterministic_algorithms(deterministic)
        torch.set_num_threads(before)
    assert fused() == 4


@pytest.mark.filterwarnings("ignore:.*is deprecated")
def test_other_spellings() -> None:
    upsampled = up(COARSE, (8, 10))
    spellings: list[Callable[[Tensor], Tensor]] = [
        nn.Upsample((8, 10), mode="bilinear"),
        nn.Upsample(scale_factor=2, mode="bilinear"),
        lambda x: F.upsample(x, (8, 10), mode="bilinear"),
    ]
    for spelling in spellings:
        with fuse():
            y = spelling(COARSE)
        assert is_lazy(y)
        assert_same(y.argmax(1), upsampled.argmax(1))
    with fuse():
        y = nn.UpsamplingBilinear2d(scale_factor=2)(COARSE)
    assert is_lazy(y)
    assert_same(y.argmax(1), F.interpolate(COARSE, (8, 10), mode="bilinear", align_corners=True).argmax(1))


def test_report() -> None:
    def line() -> int:
        return inspect.stack()[1].lineno

    with fuse():
        y = up(COARSE)
        y.argmax(1)
        y.argmax(1)
        y.relu(); here = line()  # fmt: skip  # noqa: E702
        y.relu()  # is made by now
        up(up(COARSE), (30, 30))
        F.interpolate(COARSE, (8, 8))
    report = fuse.report()
    assert report.fused == {"argmax of [2, 3, 16, 20]": 2}
    made, resized = report.made
    assert made == f"relu (no operator answers it): float32 [2, 3, 16, 20], at {__file__}:{here}"
    assert resized.startswith("interpolate (of upsampled scores, to another size): float32 [2, 3, 16, 20], at ")
    (left,) = report.left
    assert left == f"mode='nearest', at {__file__}:{here + 3}"
    assert str(report) == (
        f"fused:\n  2 x argmax of [2, 3, 16, 20]\nmade in full:\n  1 x {made}\n  1 x {resized}\n"
        f"interpolate left to PyTorch:\n  1 x {left}"
    )
    report.fused.clear()  # a copy
    assert fused() == 2
    fuse.clear()
    assert str(fuse.report()) == "fused: nothing\nmade in full: nothing\ninterpolate left to PyTorch: nothing"


def test_the_report_names_libraries_whose_name_begins_like_torch() -> None:
    package = Path(torch.__file__).parent
    assert str(package / "nn" / "functional.py").startswith(_LIBRARIES)
    assert not str(package.parent / "torchvision" / "ops.py").startswith(_LIBRARIES)
