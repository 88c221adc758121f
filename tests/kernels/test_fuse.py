"""Under fuse the operators answer, and their answers are those of PyTorch in float64, to rounding."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from fcn_kernels import fuse, use_backend
from fcn_kernels.fusion.losses import _any_counts
from tests.kernels.fusing import COARSE, SKIP, TARGET, Program, assert_as_pytorch, run, up

WEIGHT = torch.tensor([0.5, 2.0, 0.0])


def validated(y: Tensor) -> Tensor:
    """What a validation loop does with a batch."""
    return torch.stack([(image.argmax(0) == target).float().mean() for image, target in zip(y, TARGET, strict=True)])


# Programs of upsampled scores [2, 3, 16, 20], and what the report must say: how often an operator answered, and how
# many full tensors were made.
ANSWERED: dict[str, tuple[Program, int, int]] = {
    "cross_entropy": (lambda y: F.cross_entropy(y, TARGET), 1, 0),
    "cross_entropy, by name": (lambda y: F.cross_entropy(input=y, target=TARGET), 1, 0),
    "CrossEntropyLoss": (lambda y: nn.CrossEntropyLoss(WEIGHT, ignore_index=1, label_smoothing=0.1)(y, TARGET), 1, 0),
    "cross_entropy, sum": (lambda y: F.cross_entropy(y, TARGET, WEIGHT, reduction="sum"), 1, 0),
    "cross_entropy, none": (lambda y: F.cross_entropy(y, TARGET, ignore_index=2, reduction="none"), 1, 0),
    "several losses": (lambda y: F.cross_entropy(y, TARGET) + F.cross_entropy(y, 2 - TARGET), 2, 0),
    "loss and accuracy": (lambda y: (F.cross_entropy(y, TARGET), y.topk(1, dim=1)[1] == TARGET[:, None]), 2, 0),
    "NLLLoss": (lambda y: nn.NLLLoss(WEIGHT, ignore_index=1)(F.log_softmax(y, 1), TARGET), 1, 0),
    "nll_loss of LogSoftmax": (lambda y: F.nll_loss(nn.LogSoftmax(dim=1)(y), TARGET, reduction="sum"), 1, 0),
    "argmax": (lambda y: y.argmax(1), 1, 0),
    "argmax, a dim from behind": (lambda y: torch.argmax(y, dim=-3, keepdim=True), 1, 0),
    "argmax of softmax": (lambda y: y.softmax(1).argmax(1), 1, 0),
    "argmax of log_softmax": (lambda y: torch.log_softmax(y, -3).argmax(dim=1), 1, 0),
    "argmax of one image": (lambda y: y[1].argmax(0), 1, 0),
    "argmax of each image": (lambda y: torch.stack([y[i].argmax(0) for i in range(len(y))]), 2, 0),
    "argmax of the last image": (lambda y: y[-1].argmax(dim=0, keepdim=True), 1, 0),
    "labels of max": (lambda y: y.max(1)[1], 1, 0),
    "labels of torch.max": (lambda y: torch.max(y, dim=1, keepdim=True).indices, 1, 0),
    "values of max": (lambda y: y.max(1).values.relu(), 1, 1),
    "probability": (lambda y: tuple(y.detach().softmax(1).max(1)), 1, 0),
    "probability, amax": (lambda y: y.detach().softmax(dim=1).amax(1, keepdim=True), 1, 0),
    "probability of one image": (lambda y: tuple(F.softmax(y.detach()[0], dim=0).max(0)), 1, 0),
    "probability, topk": (lambda y: tuple(torch.topk(y.detach().softmax(1), 1, 1)), 1, 0),
    "probability with a gradient": (lambda y: y.softmax(1).max(1)[0].sqrt(), 1, 1),
    "logarithm of a probability": (lambda y: y.log_softmax(1).max(1)[0].exp(), 1, 1),
    "crop": (lambda y: F.cross_entropy(y[:, :, 1:-2, :13], TARGET[:, 1:-2, :13]), 1, 0),
    "crop of a crop": (lambda y: y[..., 3:][:, :, 2:9, 1:8].argmax(1), 1, 0),
    "every other pixel": (lambda y: y[:, :, ::2, 1::3].argmax(1), 1, 0),
    "some classes": (lambda y: y[:, 1:].argmax(1), 1, 0),
    "some images": (lambda y: F.cross_entropy(y[1:], TARGET[1:]), 1, 0),
    "squeezed": (lambda y: y[:1].squeeze(0).argmax(0), 1, 0),
    "one image and back": (lambda y: y[0].unsqueeze(0).argmax(1), 1, 0),
    "sum": (lambda y: y + SKIP, 1, 0),
    "torch.add": (lambda y: torch.add(SKIP, y), 1, 0),
    "sum of two": (lambda y: y + up(SKIP[:, :, :4, :5]), 1, 1),
    "float": (lambda y: y.float().contiguous().argmax(1), 1, 0),
    "double": (lambda y: F.cross_entropy(y.double(), TARGET), 1, 0),
    "like another": (lambda y: y.type_as(SKIP.double()).argmax(1), 1, 0),
    "another like it": (lambda y: (SKIP.double().type_as(y), y.argmax(1)), 1, 0),
    "detached": (lambda y: y.detach().cpu().argmax(1), 1, 0),
    "resized to its size": (lambda y: F.cross_entropy(up(y), TARGET), 1, 0),
    "twice, the loss last": (lambda y: (y.argmax(1), y.softmax(1).argmax(1), F.cross_entropy(y, TARGET)), 3, 0),
    "validation": (validated, 0, 1),
}


@pytest.mark.parametrize("name", ANSWERED)
def test_answers(name: str) -> None:
    program, fused, made = ANSWERED[name]
    report = assert_as_pytorch(lambda x: program(up(x))).report
    assert (report.fused.total(), report.made.total(), report.left.total()) == (fused, made, 0), report


def test_answers_with_the_chosen_backend(backend: str) -> None:
    with torch.device("cpu"), use_backend(backend):
        report = assert_as_pytorch(lambda x: up(x).argmax(1)).report
    assert report.fused.total() == 1


@st.composite
def upsamplings(draw: st.DrawFn) -> tuple[tuple[int, int], dict[str, Any]]:
    """The size of coarse scores, and what ``F.interpolate`` is told."""
    h, w = draw(st.integers(1, 6)), draw(st.integers(2, 6))  # of one pixel there is no layout
    options: dict[str, Any] = {"mode": "bilinear", "align_corners": draw(st.sampled_from([None, False, True]))}
    if draw(st.booleans()):
        options["size"] = (draw(st.integers(h, 20)), draw(st.integers(w + 1, 20)))
    else:
        factors = st.sampled_from([1.5, 2, 2.3, 7 / 3, 3.7, 8])
        options["scale_factor"] = draw(st.one_of(factors, st.tuples(factors, factors)))
        options["recompute_scale_factor"] = draw(st.sampled_from([None, False, True]))
    return (h, w), options


@given(upsampling=upsamplings(), data=st.data())
def test_against_float64(upsampling: tuple[tuple[int, int], dict[str, Any]], data: st.DataObject) -> None:
    """No further from float64 than PyTorch is, but for a small factor, in results and gradients."""
    draw = data.draw
    (size, options), n, c = upsampling, draw(st.integers(1, 2)), draw(st.integers(2, 6))
    dtype = draw(st.sampled_from([torch.float32, torch.float32, torch.bfloat16, torch.float64]))
    format = draw(st.sampled_from([torch.contiguous_format, torch.channels_last]))
    x = torch.randn(n, c, *size).to(dtype).contiguous(memory_format=format)
    height, width = F.interpolate(x, **options).shape[2:]
    crop = (
        ...,
        slice(draw(st.integers(0, height - 1)), None, draw(st.integers(1, 3))),
        slice(draw(st.integers(1, width))),
    )
    shape = torch.empty(n, height, width)[crop].shape
    target = torch.randint(-1, c, shape)
    target[0, 0, 0] = 0  # else nothing may count, and PyTorch's mean is NaN
    weight = draw(st.sampled_from([None, torch.rand(c) + 0.1]))
    loss = {
        "ignore_index": -1,
        "reduction": draw(st.sampled_from(["mean", "sum", "none"])),
        "label_smoothing": draw(st.sampled_from([0.0, 0.2])),
    }
    skip = torch.randn(n, c, height, width)
    read: Callable[[Tensor], Tensor] = draw(st.sampled_from([
        lambda y: F.cross_entropy(y[crop], target, None if weight is None else weight.to(y.dtype), **loss),
        lambda y: y + skip.to(y.dtype).contiguous(memory_format=format),
        lambda y: y.detach()[crop].softmax(1).amax(1),
        lambda y: y[crop].argmax(1),
    ]))  # fmt: skip

    def result(x: Tensor) -> tuple[Tensor, Tensor]:
        leaf = x.detach().clone().requires_grad_()
        out = read(F.interpolate(leaf, **options))
        if not out.requires_grad:
            return out, torch.zeros(())
        cotangent = torch.linspace(-1, 1, out.numel()).view(out.shape).to(out.dtype)
        return out.detach(), torch.autograd.grad(out, leaf, cotangent if out.dim() else None)[0]

    fuse.clear()
    with fuse():
        got = result(x)
    assert fuse.report().fused.total() == (height * width > size[0] * size[1]), fuse.report()
    want, exact = result(x), result(x.double())
    step = torch.finfo(dtype).eps
    if got[0].dtype == torch.int64:
        scores = F.interpolate(x.double(), **options)[crop]
        chosen = scores.gather(1, got[0].unsqueeze(1)).squeeze(1)
        assert (scores.amax(1) - chosen).max() <= 8 * step * x.abs().max()
        return
    for ours, theirs, right in zip(got, want, exact, strict=True):
        bound = 2 * (theirs - right).abs().max() + 16 * step * (1 + right.abs().max())
        assert (ours - right).abs().max() <= bound


@pytest.mark.parametrize(("options", "why"), [
    ({"size": (4, 5)}, "is no upsampling"),
    ({"size": (8, 2)}, "is no upsampling"),
    ({"scale_factor": torch.pi}, "is no fraction with a denominator up to 16384"),
    ({"size": (9, 9), "antialias": True}, "with antialias"),
    ({"size": (9, 9), "mode": "bicubic"}, "mode='bicubic'"),
])  # fmt: skip
def test_left_to_pytorch(options: dict[str, Any], why: str) -> None:
    run_ = assert_as_pytorch(lambda x: F.interpolate(x, **{"mode": "bilinear", **options}).relu())
    (said,) = run_.report.left
    assert why in said
    assert run_.report.fused.total() == run_.report.made.total() == 0


def test_devices_and_subclasses_without_operators() -> None:
    class Mine(Tensor):
        pass

    fuse.clear()
    with fuse():
        assert up(COARSE.to("meta")).device.type == "meta"
        assert type(up(COARSE.as_subclass(Mine))) is Mine
        with use_backend("reference"):
            torch.testing.assert_close(up(COARSE).argmax(1), up(COARSE).argmax(1))
    assert fuse.report().fused.total() == 0
    assert fuse.report().left.total() == 4


def test_scale_factors_are_pytorchs() -> None:
    """``scale_factor`` is the scale itself unless the sizes' quotient is asked for: two different results."""
    results = []
    for recompute in (None, True):
        options = {"scale_factor": 2.3, "mode": "bilinear", "recompute_scale_factor": recompute}
        done = assert_as_pytorch(lambda x, options=options: F.interpolate(x, **options) + torch.zeros(2, 3, 9, 11))
        assert done.report.fused.total() == 1
        results.append(done.result)
    assert (results[0] - results[1]).abs().max() > 0.01


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_under_autocast(dtype: torch.dtype) -> None:
    """Dtypes are those of PyTorch's autocast."""
    if dtype == torch.float16 and not torch.amp.is_autocast_available("cpu"):
        pytest.skip("no autocast to float16 here")
    convolution = nn.Conv2d(3, 3, 1)

    def program(read: Program) -> Program:
        def call(x: Tensor) -> Any:
            with torch.autocast("cpu", dtype):
                return read(up(convolution(x)))

        return call

    for read, fused in (
        (lambda y: F.cross_entropy(y, TARGET), 1),
        (lambda y: F.nll_loss(y.log_softmax(1), TARGET), 1),
        (lambda y: F.cross_entropy(y.float(), TARGET), 1),
        (lambda y: y, 0),
        (lambda y: y.softmax(1), 0),
        (lambda y: F.conv2d(y, SKIP[:, :, :3, :3]), 0),
    ):
        want, got = run(program(read), False), run(program(read), True)
        assert got.report.fused.total() == fused
        assert got.result.dtype == want.result.dtype
        torch.testing.assert_close(got.result, want.result, rtol=1e-2, atol=1e-2)
        torch.testing.assert_close(got.grad, want.grad, rtol=2e-2, atol=1e-2)


def test_half_precision_scores() -> None:
    """Without autocast: the loss has the scores' dtype, and casting up comes before rounding."""
    for dtype in (torch.bfloat16, torch.float16):
        for read in (
            lambda y: F.cross_entropy(y, TARGET),
            lambda y: F.cross_entropy(y.float(), TARGET),
            lambda y: y.detach().softmax(1).amax(1),
        ):
            program = lambda x, read=read, dtype=dtype: read(up(x.to(dtype)))  # noqa: E731
            want, got = run(program, False), run(program, True)
            assert got.report.fused.total() == 1
            assert got.result.dtype == want.result.dtype
            torch.testing.assert_close(got.result, want.result, rtol=2e-2, atol=1e-2)


def test_no_pixel_counts() -> None:
    """PyTorch's mean of nothing is NaN, and so is it here; the operator's is 0."""
    for options in ({"ignore_index": 1}, {"weight": torch.tensor([1.0, 0.0, 1.0])}):
        program = lambda x, options=options: F.cross_entropy(up(x), torch.ones_like(TARGET), **options)  # noqa: E731
        want, got = run(program, False), run(program, True)
        assert want.result.isnan()
        assert got.result.isnan()
    # What decides it where the loss is not looked at, on a GPU.
    nothing = torch.full((1, 2, 2), -100)
    some = nothing.clone()
    some[0, 1, 1] = 2
    assert not _any_counts(nothing, None, -100)
    assert _any_counts(some, None, -100)
    assert _any_counts(some, torch.tensor([0.0, 0.0, 1.0]), -100)
    assert not _any_counts(some, torch.tensor([1.0, 1.0, 0.0]), -100)
    assert not _any_counts(torch.full_like(some, 2), None, 2)


def test_memory_of_a_loss() -> None:
    """No tensor of full size is allocated: what ``fuse`` is for."""
    coarse, target = torch.randn(1, 21, 16, 16, requires_grad=True), torch.randint(0, 21, (1, 256, 256))
    allocated = {}
    for fused in (False, True):
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
            if fused:
                with fuse():
                    F.cross_entropy(up(coarse, (256, 256)), target).backward()
            else:
                F.cross_entropy(up(coarse, (256, 256)), target).backward()
        allocated[fused] = max(event.cpu_memory_usage for event in profile.events())
    full = 4 * 21 * 256 * 256
    assert allocated[False] >= full
    assert allocated[True] < full / 20
