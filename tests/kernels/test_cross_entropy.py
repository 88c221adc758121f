"""cross_entropy: every backend against the reference in float64, and against PyTorch's own samples of
F.cross_entropy."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from fcn_kernels import cross_entropy
from fcn_kernels.backend import implementation
from fcn_kernels.loss import LossCall
from tests.kernels.conftest import emulated
from tests.strategies import (
    LAYOUTS,
    assert_as_good_as_torch,
    assert_fences_hold,
    dtypes_of,
    fenced,
    scores,
    targets,
    with_layout,
)


def loss_and_grad(
    x: Tensor, dtype: torch.dtype, backend: str, *args: object, **options: object
) -> tuple[Tensor, Tensor]:
    x = x.detach() if x.dtype == dtype else x.detach().to(dtype)
    x.requires_grad_()
    loss = cross_entropy(x, *args, backend=backend, **options)  # type: ignore[arg-type]
    (grad,) = torch.autograd.grad(loss.sum(), x)
    x.requires_grad_(False)
    return loss.detach(), grad


@given(data=st.data())
def test_loss_and_gradient(backend: str, data: st.DataObject) -> None:
    x = data.draw(scores(max_classes=40, dtypes=dtypes_of(backend)))
    ignore_index = data.draw(st.sampled_from((255, -100, 0)))
    target = data.draw(targets(x.shape[0], x.shape[1], (x.shape[2], x.shape[3]), ignore_index))
    options = {
        "ignore_index": ignore_index,
        "reduction": data.draw(st.sampled_from(("mean", "sum", "none"))),
        "label_smoothing": data.draw(st.sampled_from((0.0, 0.0, 0.1, 1.0))),
    }
    generator = torch.Generator().manual_seed(1)
    if data.draw(st.booleans()):
        options["weight"] = torch.rand(x.shape[1], generator=generator)
    if data.draw(st.booleans()):
        pixels = torch.rand(target.shape, generator=generator)
        options["pixel_weight"] = pixels * (pixels > 0.4)
    ours = loss_and_grad(x, x.dtype, backend, target, **options)
    torchs = loss_and_grad(x, x.dtype, "reference", target, **options)
    oracle = loss_and_grad(x, torch.float64, "reference", target, **options)
    spread = float((x.double().amax(1) - x.double().amin(1)).max()) if x.numel() else 0.0
    count = target.numel() if options["reduction"] == "sum" else 1
    assert_as_good_as_torch(ours[0], torchs[0], oracle[0], "loss", spread * count)
    scale = 1 / max(1, target.numel()) if options["reduction"] == "mean" else 1.0
    if x.dtype == torch.float64:  # the oracle rounds as well: probabilities are off by the rounding of scores
        scale *= max(1.0, spread)
    assert ours[1].dtype == x.dtype
    assert_as_good_as_torch(ours[1], torchs[1], oracle[1], "gradient", scale)


def test_pytorchs_own_samples(backend: str) -> None:
    """The sample inputs by which PyTorch tests F.cross_entropy with labels, each as a map: [N, C, pixels, 1]."""
    pytest.importorskip("expecttest", reason="PyTorch's testing internals need it")
    from torch.testing._internal.common_methods_invocations import op_db

    (info,) = (op for op in op_db if op.name == "nn.functional.cross_entropy")
    tried, dtype = 0, torch.float64 if torch.float64 in dtypes_of(backend) else torch.float32
    for sample in info.sample_inputs(torch.get_default_device(), dtype, requires_grad=False):
        if sample.args[0].is_floating_point():  # class probabilities, which are not supported
            continue
        x, target, options = sample.input, sample.args[0], dict(sample.kwargs)
        want = F.cross_entropy(x, target, **options)
        if want.isnan().any():  # no pixel counts: ours is 0, as documented
            want = torch.zeros_like(want)
        x, target = x.reshape(*x.shape[:2], -1, 1), target.reshape(len(x), -1, 1)
        got = cross_entropy(x, target, backend=backend, **options)
        torch.testing.assert_close(got.reshape(want.shape), want)
        tried += 1
    assert tried >= 10


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("classes", [150, 300])
def test_many_classes(backend: str, classes: int, layout: str) -> None:
    x = torch.randn(2, classes, 3, 5) * 5
    x[:, 7] = -torch.inf
    x = with_layout(x, layout)
    target, weight = torch.randint(8, classes, (2, 3, 5)), torch.rand(classes)
    for options in ({"reduction": "sum"}, {"reduction": "none", "weight": weight}):
        ours = loss_and_grad(x, torch.float32, backend, target, **options)
        want = loss_and_grad(x, torch.float64, "reference", target, **options)
        torch.testing.assert_close([t.double() for t in ours], list(want), rtol=1e-5, atol=1e-6)


def test_offsets_of_64_bits(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if backend != "triton":
        pytest.skip("no switch to force")
    x, target = torch.randn(2, 5, 6, 8), torch.randint(0, 5, (2, 6, 8))
    for logits in (x, with_layout(x, "channels_last"), with_layout(x, "sliced"), torch.randn(2, 300, 6, 8)):
        narrow = loss_and_grad(logits, torch.float32, backend, target)
        with monkeypatch.context() as patch:
            patch.setattr("fcn_kernels.launch.force_wide", True)
            wide = loss_and_grad(logits, torch.float32, backend, target)
        assert all(torch.equal(a, b) for a, b in zip(narrow, wide, strict=True))


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_large_maps(backend: str, layout: torch.memory_format, dtype: torch.dtype) -> None:
    """Many tiles, several threads, stores that bypass the cache; repeats are equal bit for bit."""
    height, width = (8, 40) if emulated(backend) else (256, 512)
    x = torch.randn(2, 21, height, width).to(dtype).contiguous(memory_format=layout)
    target = torch.randint(0, 21, (2, height, width), dtype=torch.uint8)
    target[:, 3:5] = 255
    first = loss_and_grad(x, dtype, backend, target, ignore_index=255)
    assert first[1].is_contiguous(memory_format=layout)
    want = loss_and_grad(x, torch.float64, "reference", target, ignore_index=255)
    torch.testing.assert_close(first[0].double(), want[0], rtol=1e-6, atol=0)
    atol = 2 * torch.finfo(torch.float32).eps / target.numel()
    torch.testing.assert_close(first[1].double(), want[1], rtol=2 * torch.finfo(dtype).eps, atol=atol)
    threads = torch.get_num_threads()
    try:
        for count in (1, 2, 3) if backend == "cpu" else (1,):
            torch.set_num_threads(count)
            again = loss_and_grad(x, dtype, backend, target, ignore_index=255)
            assert torch.equal(first[0], again[0])
            assert torch.equal(first[1], again[1])
    finally:
        torch.set_num_threads(threads)


def test_gradient_is_scaled_by_the_incoming_one(backend: str) -> None:
    x = torch.randn(1, 4, 5, 6, requires_grad=True)
    target = torch.randint(0, 4, (1, 5, 6))
    (one,) = torch.autograd.grad(cross_entropy(x, target, backend=backend), x)
    (three,) = torch.autograd.grad(3 * cross_entropy(x, target, backend=backend), x)
    torch.testing.assert_close(three, 3 * one)


def test_gradcheck(backend: str) -> None:
    if torch.float64 not in dtypes_of(backend):
        pytest.skip("no float64, in which numerical derivatives are exact enough")
    x = torch.randn(2, 5, 3, 4, dtype=torch.float64, requires_grad=True)
    target = torch.randint(0, 5, (2, 3, 4))
    pixel_weight, weight = torch.rand(2, 3, 4, dtype=torch.float64), torch.rand(5, dtype=torch.float64)
    for which in (backend, "reference"):
        for reduction in ("mean", "sum", "none"):
            assert torch.autograd.gradcheck(
                lambda a, w=which, r=reduction: cross_entropy(
                    a, target, weight, pixel_weight=pixel_weight, reduction=r, label_smoothing=0.2, backend=w
                ),
                (x,),
            )


@given(data=st.data())
def test_writes_every_element_and_no_other(backend: str, data: st.DataObject) -> None:
    x = data.draw(scores(dtypes=(torch.float32, torch.float16), kinds=("normal", "large"), min_images=1))
    target = data.draw(targets(x.shape[0], x.shape[1], (x.shape[2], x.shape[3]), 255))
    grad, buffer = fenced(tuple(x.shape), x.dtype, data.draw(st.sampled_from(("contiguous", "channels_last"))))
    pixels, pixel_buffer = fenced(tuple(target.shape), torch.float32)
    kernels = implementation("cross_entropy", backend)
    kernels.cross_entropy(LossCall(x, target, None, None, 255, "none", 0.0, backend), pixels, grad)
    assert_fences_hold(buffer)
    assert_fences_hold(pixel_buffer)
    assert bool(grad.isfinite().all())
    assert bool(pixels.isfinite().all())


@pytest.mark.parametrize("label", [7, -1, 2**40])
def test_label_out_of_range_is_nan_where_it_counts(backend: str, label: int) -> None:
    if backend == "cpu":
        pytest.skip("a CPU names it")
    x, target = torch.randn(2, 7, 3, 40), torch.zeros(2, 3, 40, dtype=torch.int64)
    target[1, 1, 5] = label
    pixels = cross_entropy(x, target, reduction="none", backend=backend)
    assert torch.equal(pixels.isnan().nonzero(), torch.tensor([[1, 1, 5]]))
    for reduction in ("sum", "mean"):
        assert cross_entropy(x, target, reduction=reduction, backend=backend).isnan()
        left_out = (target == 0).float()
        assert cross_entropy(x, target, pixel_weight=left_out, reduction=reduction, backend=backend).isfinite()


def test_label_out_of_range_is_named(backend: str) -> None:
    if backend != "cpu":
        pytest.skip("a GPU answers with NaN instead: reading the position back would synchronize")
    target = torch.zeros(2, 30, 40, dtype=torch.uint8)
    target[1, 9, 5] = 7
    with pytest.raises(ValueError, match=r"cross_entropy: target\[1, 9, 5\] is 7; labels must lie in \[0, 7\)"):
        cross_entropy(torch.randn(2, 7, 30, 40), target)


def test_target_of_another_size_is_refused() -> None:
    with pytest.raises(ValueError, match=r"H, W = \(4, 5\), got \(1, 4, 6\)"):
        cross_entropy(torch.randn(1, 3, 4, 5), torch.zeros(1, 4, 6, dtype=torch.int64))


def test_subnormal_half_logits_count(backend: str) -> None:
    x = torch.full((1, 2, 1, 8), 5e-5, dtype=torch.float16)
    x[:, 1] = -5e-5
    pixels = cross_entropy(x, torch.zeros(1, 1, 8, dtype=torch.uint8), reduction="none", backend=backend)
    want = F.cross_entropy(x.double(), torch.zeros(1, 1, 8, dtype=torch.int64), reduction="none")
    torch.testing.assert_close(pixels.double(), want, rtol=4e-7, atol=0)


def test_opcheck(backend: str) -> None:
    target, weights = torch.randint(0, 3, (2, 4, 5)), (torch.rand(3), torch.rand(2, 4, 5))
    for layout in (torch.contiguous_format, torch.channels_last):
        x = torch.randn(2, 3, 4, 5).contiguous(memory_format=layout)
        for reduction in ("none", "sum", "mean"):
            call = LossCall(x, target, *weights, 255, reduction, 0.1, backend)
            for with_grad in (False, True) if backend == "cpu" and reduction == "mean" else (reduction == "sum",):
                torch.library.opcheck(torch.ops.fcn_kernels.cross_entropy.default, (with_grad, *call))


def test_double_backward_is_refused(backend: str) -> None:
    x, target = torch.randn(1, 3, 4, 4, requires_grad=True), torch.zeros(1, 4, 4, dtype=torch.int64)
    for reduction in ("mean", "sum", "none"):
        loss = cross_entropy(x, target, reduction=reduction, backend=backend).sum()
        (grad,) = torch.autograd.grad(loss, x, create_graph=True)
        with pytest.raises(RuntimeError, match="cross_entropy has no second derivative"):
            grad.sum().backward()
