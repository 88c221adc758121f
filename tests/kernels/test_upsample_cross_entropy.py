"""upsample_cross_entropy: every backend against the reference in float64."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from fcn_kernels import BilinearGrid, launch, upsample_add, upsample_cross_entropy
from fcn_kernels.backend import CPU_EXTENSION, implementation
from fcn_kernels.loss import LossCall
from tests.kernels.conftest import approximates, images_of, interpreted, side_of
from tests.strategies import assert_as_good_as_torch, assert_fences_hold, dtypes_of, fenced, grids, scores, targets


@pytest.fixture(params=["switching", "exact"])
def path(request: pytest.FixtureRequest, backend: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both ways to the exponentials: the kernel's own choice for each block, and the exact path everywhere."""
    launcher = implementation("upsample_cross_entropy", backend)
    monkeypatch.setattr(launcher, "force_exact", request.param == "exact", raising=False)
    return str(request.param)


def loss_and_grad(
    x: Tensor, dtype: torch.dtype, backend: str, *args: object, **options: object
) -> tuple[Tensor, Tensor]:
    x = x.detach() if x.dtype == dtype else x.detach().to(dtype)
    x.requires_grad_()
    loss = upsample_cross_entropy(x, *args, backend=backend, **options)  # type: ignore[arg-type]
    (grad,) = torch.autograd.grad(loss.sum(), x)
    x.requires_grad_(False)
    return loss.detach(), grad


@given(data=st.data())
def test_loss_and_gradient(backend: str, path: str, data: st.DataObject) -> None:
    x = data.draw(
        scores(dtypes=dtypes_of(backend), max_images=images_of(backend), max_classes=5 if interpreted(backend) else 23)
    )
    grid = data.draw(grids((x.shape[2], x.shape[3]), side_of(backend)))
    ignore_index = data.draw(st.sampled_from((255, -100, 0)))
    target = data.draw(targets(x.shape[0], x.shape[1], grid.size, ignore_index))
    options = {
        "grid": grid,
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
    # A loss is a difference of scores, so it cannot be closer than they are.
    spread = float((x.double().amax(1) - x.double().amin(1)).max()) if x.numel() else 0.0
    pixels_in_sum = target.numel() if options["reduction"] == "sum" else 1
    assert ours[0].dtype == (torch.float64 if x.dtype == torch.float64 else torch.float32)
    assert_as_good_as_torch(ours[0], torchs[0], oracle[0], "loss", spread * pixels_in_sum)
    # The sum over the pixels around a score may cancel: what is rounded is as large as the terms. Where a grid leaves
    # the map, and is clamped to it, most pixels are around a few scores.
    ones = torch.ones(1, 1, *x.shape[2:], dtype=torch.float64, requires_grad=True)
    (around,) = torch.autograd.grad(upsample_add(ones, grid=grid, backend="reference").sum(), ones)
    scale = float(around.max()) * (1 / max(1, target.numel()) if options["reduction"] == "mean" else 1)
    # A probability changes by as much as the scores' differences do when they are rounded.
    scale *= max(1.0, spread / 8)
    assert ours[1].dtype == x.dtype
    assert_as_good_as_torch(ours[1], torchs[1], oracle[1], "gradient", scale)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("weighted", [False, True])
def test_is_interpolate_and_cross_entropy(backend: str, smoothing: float, weighted: bool) -> None:
    dtype = torch.float64 if torch.float64 in dtypes_of(backend) else torch.float32
    tolerance = 1e-12 if dtype == torch.float64 else 2e-6
    x = torch.randn(2, 7, 6, 5, dtype=dtype)
    target = torch.randint(0, 7, (2, 43, 38))
    target[:, ::7] = 255
    weight = torch.rand(7, dtype=dtype) if weighted else None
    for reduction in ("mean", "sum", "none"):
        options = {"ignore_index": 255, "reduction": reduction, "label_smoothing": smoothing}
        want = F.cross_entropy(F.interpolate(x, (43, 38), mode="bilinear"), target, weight, **options)  # type: ignore[arg-type]
        got = upsample_cross_entropy(x, target, weight, backend=backend, **options)  # type: ignore[arg-type]
        torch.testing.assert_close(got, want, rtol=tolerance, atol=tolerance)


def test_gradcheck(backend: str, path: str) -> None:
    if torch.float64 not in dtypes_of(backend):
        pytest.skip("numerical gradients need float64, which this backend leaves to the reference")
    x = torch.randn(1, 3, 3, 4, dtype=torch.float64, requires_grad=True)
    target = torch.randint(0, 3, (1, 17, 19))
    pixel_weight, weight = torch.rand(1, 17, 19, dtype=torch.float64), torch.rand(3, dtype=torch.float64)
    for grid in (None, BilinearGrid.transposed(5, 2, (17, 19)), BilinearGrid.interpolate((3, 4), (17, 19), True)):
        for which in (backend, "reference"):
            for reduction in ("mean", "sum", "none"):
                assert torch.autograd.gradcheck(
                    lambda a, g=grid, w=which, r=reduction: upsample_cross_entropy(
                        a,
                        target,
                        weight,
                        grid=g,
                        pixel_weight=pixel_weight,
                        reduction=r,
                        label_smoothing=0.2,
                        backend=w,
                    ),
                    (x,),
                )


def test_all_ignored_is_zero_and_not_nan(backend: str) -> None:
    x = torch.randn(2, 3, 4, 4)
    target = torch.full((2, 32, 32), 255)
    for reduction in ("mean", "sum"):
        loss, grad = loss_and_grad(x, x.dtype, backend, target, ignore_index=255, reduction=reduction)
        assert loss == 0
        assert not grad.any()
    assert F.cross_entropy(F.interpolate(x, (32, 32)), target, ignore_index=255, reduction="sum") == 0


def test_one_class_has_no_loss(backend: str, path: str) -> None:
    loss, grad = loss_and_grad(
        torch.randn(1, 1, 5, 5) * 50, torch.float32, backend, torch.zeros(1, 40, 40, dtype=torch.uint8)
    )
    assert abs(float(loss)) < 1e-6
    assert float(grad.abs().max()) < 1e-7


@pytest.mark.parametrize("value", [torch.nan, torch.inf])  # of -inf: test_not_finite.py
def test_scores_that_are_not_finite_show(backend: str, value: float) -> None:
    x = torch.randn(1, 3, 5, 5)
    x[0, 1, 2, 2] = value
    loss, grad = loss_and_grad(x, x.dtype, backend, torch.zeros(1, 40, 40, dtype=torch.int64))
    assert not loss.isfinite()
    assert not grad.isfinite().all()


@given(data=st.data())
def test_writes_every_element_and_no_other(backend: str, path: str, data: st.DataObject) -> None:
    few = 5 if interpreted(backend) else 23
    x = data.draw(
        scores(
            dtypes=(torch.float32,),
            kinds=("normal", "wide"),
            min_images=1,
            max_images=images_of(backend),
            max_classes=few,
        )
    )
    grid = data.draw(grids((x.shape[2], x.shape[3]), side_of(backend)))
    target = data.draw(targets(x.shape[0], x.shape[1], grid.size, 255))
    kernels = implementation("upsample_cross_entropy", backend)
    layout = data.draw(st.sampled_from(("contiguous", "channels_last")))
    grad, buffer = fenced(tuple(x.shape), torch.float32, layout)
    loss = torch.full((), torch.nan)
    factor = {} if backend == "cpu" else {"scale": torch.full((), torch.nan)}  # a CPU's gradient lacks none
    call = LossCall(x, target, None, None, 255, "sum", 0.0, backend)
    kernels.upsample_cross_entropy(call, grid.as_ints(), loss, grad, **factor)
    assert_fences_hold(buffer)
    assert bool(grad.isfinite().all())
    assert bool(loss.isfinite())
    assert all(scale == 1 for scale in factor.values())
    pixels, buffer = fenced(tuple(target.shape), torch.float32)
    kernels.upsample_cross_entropy_pixels(call, grid.as_ints(), pixels)
    assert_fences_hold(buffer)
    torch.testing.assert_close(pixels.double().sum().float(), loss, rtol=1e-4, atol=1e-3)


def test_repeats_bit_for_bit_whatever_the_threads(backend: str) -> None:
    n, classes, h, w = (2, 3, 4, 9) if interpreted(backend) else (3, 21, 33, 41)
    x, target = torch.randn(n, classes, h, w), torch.randint(0, classes, (n, 8 * h, 8 * w))
    first = loss_and_grad(x, x.dtype, backend, target)
    threads = torch.get_num_threads()
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            again = loss_and_grad(x, x.dtype, backend, target)
            assert torch.equal(first[0], again[0])
            assert torch.equal(first[1], again[1])
    finally:
        torch.set_num_threads(threads)


def test_fast_path_is_taken_where_it_holds_and_only_there(isa: str) -> None:
    """Cells of scores that span more than the fast path's range switch, block by block; both kinds are accurate."""
    assert CPU_EXTENSION is not None

    def blocks(x: Tensor) -> tuple[int, int]:
        target = torch.zeros(1, 128, 512, dtype=torch.int64)
        grid = BilinearGrid.interpolate((16, 64), (128, 512)).as_ints()
        result = CPU_EXTENSION.upsample_cross_entropy(
            x, target, None, None, None, None, None, grid, -100, False, 0.0, False, 1
        )
        return result[1], result[2]

    x = torch.randn(1, 5, 16, 64)
    assert blocks(x)[0] == 0
    assert blocks(x + 1e4 * torch.rand(1, 1, 16, 64))[0] == 0  # only differences between classes count
    x[0, 2, 8, 32] = -80
    exact, total = blocks(x)
    assert 0 < exact <= 4 < total
    x[0, 2, 8, 32] = torch.nan
    assert 0 < blocks(x)[0] <= 4
    x[0] = torch.randn(5, 16, 64) * 1e4
    exact, total = blocks(x)
    assert exact == total


def test_every_instruction_set_agrees(isa: str) -> None:
    for stride, size in ((8, (136, 264)), (32, (544, 544)), (3, (51, 99)), (2, (34, 66))):
        x, target = torch.randn(1, 21, 17, 33), torch.randint(0, 21, (1, *size))
        grid = BilinearGrid.transposed(stride, stride // 2, size)
        ours = loss_and_grad(x, x.dtype, "cpu", target, grid=grid)
        oracle = loss_and_grad(x, torch.float64, "reference", target, grid=grid)
        torch.testing.assert_close(ours[0].double(), oracle[0], rtol=2e-7, atol=0)
        assert float((ours[1] - oracle[1]).norm() / oracle[1].norm()) < 6e-7


@pytest.mark.parametrize("rows", [2, 4, 8])
def test_every_patch_agrees(backend: str, path: str, rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    launcher = implementation("upsample_cross_entropy", backend)
    if backend == "cuda":  # where the size of the map suggests one
        monkeypatch.setattr(launcher, "force_rows", rows)
    elif backend == "triton" and rows == 4:  # its interpreter takes smaller ones by default, and its time
        monkeypatch.setattr(launcher, "MOST_ROWS", rows)
        monkeypatch.setattr(launcher, "MOST_COLUMNS", 8)
    else:
        pytest.skip("a GPU's lanes take patches of several sizes")
    # The exponential of pixel k of row r is a product of (1 + k)(1 + r) approximations: so many in a patch's mean.
    off = (1 + 7 / 2) * (1 + (rows - 1) / 2) * 2**-22 if approximates(backend) else 0.0
    for stride, size in ((8, (75, 130)), (32, (100, 80)), (300, (90, 320)), (5, (36, 48))):
        n, classes = (1, 3) if interpreted(backend) else (2, 6)
        x, target = torch.randn(n, classes, 10, 19), torch.randint(0, classes, (n, *size))
        target = target.repeat_interleave(3, 2)[:, :, : size[1]]
        grid = BilinearGrid.transposed(stride, stride // 2, size)
        ours = loss_and_grad(x, x.dtype, backend, target, grid=grid)
        oracle = loss_and_grad(x, torch.float64, "reference", target, grid=grid)
        torch.testing.assert_close(ours[0].double(), oracle[0], rtol=2e-6, atol=off)
        assert float((ours[1] - oracle[1]).norm() / oracle[1].norm()) < 3e-6 + 2 * off  # of itself, and of the sum


@pytest.mark.parametrize("wide", [False, True])
def test_offsets_of_64_bits(backend: str, wide: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if backend != "triton":
        pytest.skip("other backends' offsets always have 64 bits")
    monkeypatch.setattr(launch, "force_wide", wide)
    x, target = torch.randn(2, 4, 3, 5), torch.randint(0, 4, (2, 7, 60))
    grid = BilinearGrid((7, 60), (3, 2), (-(10**11) if wide else -10, -3), (1, 24), "clamp")
    ours = loss_and_grad(x, x.dtype, backend, target, grid=grid, label_smoothing=0.1)
    oracle = loss_and_grad(x, torch.float64, "reference", target, grid=grid, label_smoothing=0.1)
    torch.testing.assert_close(ours[0].double(), oracle[0], rtol=1e-6, atol=0)
    torch.testing.assert_close(ours[1].double(), oracle[1], rtol=1e-5, atol=1e-6)


def test_label_out_of_range(backend: str) -> None:
    """On a CPU it is named; on a GPU, where reading its position back would synchronize, the loss is NaN."""
    x, target = torch.randn(2, 3, 4, 4), torch.zeros(2, 32, 32, dtype=torch.int16)
    target[1, 7, 20], target[1, 9, 2] = 3, -5
    if backend == "cpu":
        message = r"target\[1, 7, 20\] is 3; labels must lie in \[0, 3\) or be ignore_index = -100"
        with pytest.raises(ValueError, match=message):
            upsample_cross_entropy(x, target, backend=backend)
        return
    for reduction in ("mean", "sum"):
        assert upsample_cross_entropy(x, target, backend=backend, reduction=reduction).isnan()
    pixels = upsample_cross_entropy(x, target, backend=backend, reduction="none")
    assert torch.equal(pixels.isnan().nonzero().cpu(), torch.tensor([[1, 7, 20], [1, 9, 2]], device="cpu"))
