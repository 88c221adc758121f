"""upsample_region_sums: every backend against the reference in float64."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from fcn_kernels import BilinearGrid, launch, upsample_add, upsample_region_sums
from fcn_kernels.backend import CPU_EXTENSION, implementation
from tests.kernels.conftest import classes_of, emulated, images_of, interpreted, side_of
from tests.kernels.test_not_finite import GRIDS, excluded
from tests.strategies import assert_as_good_as_torch, assert_fences_hold, dtypes_of, fenced, grids, scores, targets

OPERATOR = "upsample_region_sums"


@pytest.fixture(params=["switching", "exact"])
def path(request: pytest.FixtureRequest, backend: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both ways to the exponentials: the kernel's own choice for each block, and the exact path everywhere."""
    launcher = implementation(OPERATOR, backend)
    if hasattr(launcher, "force_exact"):
        monkeypatch.setattr(launcher, "force_exact", request.param == "exact")
    elif request.param == "exact":
        pytest.skip("this backend has one path")
    return str(request.param)


def side(backend: str) -> int:
    """The most rows and columns of results worth drawing."""
    return 10 if interpreted(backend) else side_of(backend)


def classes(backend: str) -> int:
    """The most classes worth drawing: Triton's interpreter goes through each of them many times."""
    return 3 if interpreted(backend) else classes_of(backend)


def sums_and_grad(
    x: Tensor, dtype: torch.dtype, backend: str, target: Tensor, weights: Tensor, **options: object
) -> tuple[Tensor, Tensor]:
    """The sums ``[3, N, C]``, and the gradient of the first two weighed by ``weights``."""
    x = x.detach().to(dtype).requires_grad_()
    sums = torch.stack(upsample_region_sums(x, target, backend=backend, **options))  # type: ignore[arg-type]
    (grad,) = torch.autograd.grad((sums[:2] * weights.to(sums.dtype)).sum(), x)
    return sums.detach(), grad


@given(data=st.data())
def test_sums_and_gradient(backend: str, path: str, data: st.DataObject) -> None:
    x = data.draw(scores(dtypes=dtypes_of(backend), max_images=images_of(backend), max_classes=classes(backend)))
    grid = data.draw(grids((x.shape[2], x.shape[3]), side(backend)))
    ignore_index = data.draw(st.sampled_from((255, -100, 0)))
    target = data.draw(targets(x.shape[0], x.shape[1], grid.size, ignore_index))
    options = {"grid": grid, "ignore_index": ignore_index, "squared": data.draw(st.booleans())}
    weights = torch.randn(2, x.shape[0], x.shape[1], generator=torch.Generator().manual_seed(1))
    ours, torchs, oracle = (
        sums_and_grad(x, dtype, which, target, weights, **options)
        for dtype, which in ((x.dtype, backend), (x.dtype, "reference"), (torch.float64, "reference"))
    )
    spread = float((x.double().amax(1) - x.double().amin(1)).max()) if x.numel() else 0.0
    # A probability changes by as much as the scores' differences do when they are rounded.
    scale = max(1.0, spread / 8)
    assert ours[0].dtype == (torch.float64 if x.dtype == torch.float64 else torch.float32)
    for i, name in enumerate(("intersection", "prediction", "target")):
        assert_as_good_as_torch(ours[0][i], torchs[0][i], oracle[0][i], name, scale * grid.size[0] * grid.size[1])
    assert torch.equal(ours[0][2].double(), oracle[0][2])
    # The sum over the pixels around a score may cancel: what is rounded is as large as the terms.
    ones = torch.ones(1, 1, *x.shape[2:], dtype=torch.float64, requires_grad=True)
    (around,) = torch.autograd.grad(upsample_add(ones, grid=grid, backend="reference").sum(), ones)
    assert ours[1].dtype == x.dtype
    assert_as_good_as_torch(ours[1], torchs[1], oracle[1], "gradient", scale * float(around.max()))


@pytest.mark.parametrize("squared", [False, True])
def test_is_interpolate_softmax_and_sums(backend: str, squared: bool) -> None:
    dtype = torch.float64 if torch.float64 in dtypes_of(backend) else torch.float32
    tolerance = 1e-12 if dtype == torch.float64 else 2e-6
    n, c, h, w, size = (1, 3, 2, 3, (7, 9)) if interpreted(backend) else (2, 7, 6, 5, (43, 38))
    x = torch.randn(n, c, h, w, dtype=dtype, requires_grad=True)
    target = torch.randint(0, c, (n, *size))
    target[:, ::7] = 255
    p = F.interpolate(x, size, mode="bilinear").softmax(1) * (target != 255)[:, None]
    y = F.one_hot(torch.where(target == 255, c, target), c + 1)[..., :-1].permute(0, 3, 1, 2)
    want = (p * y).sum((2, 3)), (p**2 if squared else p).sum((2, 3)), y.sum((2, 3))
    got = upsample_region_sums(x, target, squared=squared, ignore_index=255, backend=backend)
    for a, b in zip(got, want, strict=True):
        torch.testing.assert_close(a, b.to(dtype), rtol=tolerance, atol=tolerance)
    dice = [(2 * s[0] / (s[1] + s[2])).sum() for s in (got, want)]
    grads = [torch.autograd.grad(loss, x)[0] for loss in dice]
    torch.testing.assert_close(*grads, rtol=tolerance * 10, atol=tolerance)


def test_samples_as_interpolate_does_with_align_corners() -> None:
    x, target, grid = (
        torch.randn(1, 3, 4, 5),
        torch.zeros(1, 9, 12).long(),
        BilinearGrid.interpolate((4, 5), (9, 12), True),
    )
    named, given_ = upsample_region_sums(x, target, align_corners=True), upsample_region_sums(x, target, grid=grid)
    assert torch.equal(named.prediction, given_.prediction)
    with pytest.raises(
        ValueError, match=r"upsample_region_sums: grid makes \(9, 12\) pixels, and target wants \(8, 12\)"
    ):
        upsample_region_sums(x, target[:, 1:], grid=grid)


def test_gradcheck(backend: str, path: str) -> None:
    if torch.float64 not in dtypes_of(backend):
        pytest.skip("numerical gradients need float64, which this backend leaves to the reference")
    x = torch.randn(1, 3, 3, 4, dtype=torch.float64, requires_grad=True)
    target = torch.randint(0, 3, (1, 17, 19))
    target[:, 4] = 255
    for grid in (None, BilinearGrid.transposed(5, 2, (17, 19)), BilinearGrid.interpolate((3, 4), (17, 19), True)):
        for squared in (False, True):
            assert torch.autograd.gradcheck(
                lambda a, g=grid, s=squared: upsample_region_sums(
                    a, target, grid=g, squared=s, ignore_index=255, backend=backend
                )[:2],
                (x,),
            )


def test_the_reference_has_second_derivatives() -> None:
    x, target = torch.randn(1, 2, 2, 3, dtype=torch.float64, requires_grad=True), torch.randint(0, 2, (1, 5, 7))
    assert torch.autograd.gradgradcheck(
        lambda a: upsample_region_sums(a, target, squared=True, backend="reference")[:2], (x,)
    )


@given(data=st.data())
def test_writes_every_element_and_no_other(backend: str, path: str, data: st.DataObject) -> None:
    x = data.draw(
        scores(
            dtypes=(torch.float32,),
            kinds=("normal", "wide"),
            min_images=1,
            max_images=images_of(backend),
            max_classes=classes(backend),
        )
    )
    grid = data.draw(grids((x.shape[2], x.shape[3]), side(backend)))
    target = data.draw(targets(x.shape[0], x.shape[1], grid.size, 255))
    kernels, squared = implementation(OPERATOR, backend), data.draw(st.booleans())
    sums, buffer = fenced((3, x.shape[0], x.shape[1]), torch.float32)
    kernels.upsample_region_sums(x, target, grid.as_ints(), 255, squared, sums)
    assert_fences_hold(buffer)
    assert bool(sums.isfinite().all())
    grad, buffer = fenced(tuple(x.shape), torch.float32, data.draw(st.sampled_from(("contiguous", "channels_last"))))
    weights = torch.randn(2, x.shape[0], x.shape[1])
    kernels.upsample_region_sums_backward(x, target, weights, grid.as_ints(), 255, squared, grad)
    assert_fences_hold(buffer)
    assert bool(grad.isfinite().all())


def test_repeats_bit_for_bit_whatever_the_threads(backend: str) -> None:
    if interpreted(backend):
        pytest.skip("the interpreter knows no threads")
    n, c, h, w = (2, 3, 9, 12) if emulated(backend) else (3, 21, 33, 41)
    x, target = torch.randn(n, c, h, w), torch.randint(0, c, (n, 8 * h, 8 * w))
    weights = torch.randn(2, n, c)
    first = sums_and_grad(x, x.dtype, backend, target, weights)
    threads = torch.get_num_threads()
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            again = sums_and_grad(x, x.dtype, backend, target, weights)
            assert torch.equal(first[0], again[0])
            assert torch.equal(first[1], again[1])
    finally:
        torch.set_num_threads(threads)


def test_fast_path_is_taken_where_it_holds_and_only_there(isa: str) -> None:
    assert CPU_EXTENSION is not None

    def blocks(x: Tensor, squared: bool) -> tuple[int, int]:
        target, sums = torch.zeros(1, 128, 512, dtype=torch.int64), torch.empty(3, 1, 5)
        grid = BilinearGrid.interpolate((16, 64), (128, 512)).as_ints()
        result = CPU_EXTENSION.upsample_region_sums(x, target, sums, None, None, grid, -100, squared, False, 1)
        return result[1], result[2]

    x = torch.randn(1, 5, 16, 64)
    assert blocks(x, True)[0] == blocks(x, False)[0] == 0
    x[0, 2, 8, 32] = -50  # the squares leave float32's range earlier
    assert blocks(x, False)[0] == 0
    assert 0 < blocks(x, True)[0] <= 4
    x[0, 2, 8, 32] = torch.nan
    exact, total = blocks(x, False)
    assert 0 < exact <= 4 < total


def test_every_instruction_set_agrees(isa: str) -> None:
    for stride, size in ((8, (75, 130)), (32, (100, 80)), (3, (51, 99)), (2, (34, 66))):
        x, target, weights = torch.randn(1, 7, 17, 33), torch.randint(0, 7, (1, *size)), torch.randn(2, 1, 7)
        grid = BilinearGrid.transposed(stride, stride // 2, size)
        for squared in (False, True):
            options = {"grid": grid, "squared": squared}
            ours = sums_and_grad(x, x.dtype, "cpu", target, weights, **options)
            oracle = sums_and_grad(x, torch.float64, "reference", target, weights, **options)
            assert float((ours[0] - oracle[0]).norm() / oracle[0].norm()) < 2e-7
            assert float((ours[1] - oracle[1]).norm() / oracle[1].norm()) < 1e-6


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("squared", [False, True])
def test_excluded_classes_count_for_nothing(backend: str, grid: BilinearGrid, squared: bool) -> None:
    if interpreted(backend) and (squared or grid is not GRIDS[3]):
        pytest.skip("the interpreter takes its time: one is enough")
    x = excluded()
    target = torch.randint(0, 5, (2, *grid.size))
    target[upsample_all_excluded(x, grid)] = 255
    weights, options = torch.randn(2, 2, 5), {"grid": grid, "squared": squared, "ignore_index": 255}
    ours = sums_and_grad(x, x.dtype, backend, target, weights, **options)
    oracle = sums_and_grad(x, torch.float64, "reference", target, weights, **options)
    assert bool(oracle[1].isfinite().all())
    torch.testing.assert_close(ours[0].double(), oracle[0], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(ours[1].double(), oracle[1].double(), rtol=1e-4, atol=1e-5)
    assert not ours[0][:2, :, 2].any()
    assert not ours[1][:, 2].any()


def upsample_all_excluded(x: Tensor, grid: BilinearGrid) -> Tensor:
    return upsample_add(x.double(), grid=grid, backend="reference").isneginf().all(1)


@pytest.mark.parametrize("value", [torch.inf, torch.nan])
def test_nan_and_infinity_show_in_their_image(backend: str, value: float) -> None:
    if interpreted(backend) and value == torch.inf:
        pytest.skip("the interpreter takes its time: one is enough")
    x, target, weights = torch.randn(2, 3, 3, 4), torch.zeros(2, 9, 12, dtype=torch.int64), torch.randn(2, 2, 3)
    x[0, 1, 1, 2] = value
    sums, grad = sums_and_grad(x, x.dtype, backend, target, weights)
    assert sums[0, 0].isnan().tolist() == [True, False, False]  # every label is 0: other classes meet nothing
    assert sums[1, 0].isnan().all()
    assert sums[:, 1].isfinite().all()
    assert sums[2].isfinite().all()
    assert torch.equal(sums.isnan(), torch.stack(upsample_region_sums(x, target, backend="reference")).isnan())
    assert not grad[0].isfinite().all()
    assert grad[1].isfinite().all()


def test_all_ignored_is_zero(backend: str, path: str) -> None:
    x, target = torch.randn(2, 2, 2, 3), torch.full((2, 9, 8), 255)
    x[0, 0, 0, 0] = torch.nan
    sums, grad = sums_and_grad(x, x.dtype, backend, target, torch.randn(2, 2, 2), ignore_index=255)
    assert not sums.any()
    assert not grad.any()


def test_label_out_of_range(backend: str) -> None:
    """On a CPU it is named; on a GPU, as in the reference, its image's sums are NaN."""
    x, target = torch.randn(2, 3, 3, 3), torch.zeros(2, 10, 21, dtype=torch.int16)
    target[1, 7, 20], target[1, 9, 2] = 3, -5
    message = r"upsample_region_sums: target\[1, 7, 20\] is 3; labels must lie in \[0, 3\) or be ignore_index = -100"
    if backend == "cpu":
        with pytest.raises(ValueError, match=message):
            upsample_region_sums(x, target, backend=backend)
    for which in ("reference", *({backend} - {"cpu"})):
        for sums in upsample_region_sums(x, target, backend=which):
            assert torch.equal(sums.isnan().all(1), torch.tensor([False, True]))
            assert sums[0].isfinite().all()


def test_offsets_of_64_bits(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if backend != "triton":
        pytest.skip("other backends' offsets always have 64 bits")
    monkeypatch.setattr(launch, "force_wide", True)
    x, target, weights = torch.randn(2, 2, 2, 3), torch.randint(0, 2, (2, 5, 7)), torch.randn(2, 2, 2)
    ours = sums_and_grad(x, x.dtype, backend, target, weights)
    oracle = sums_and_grad(x, torch.float64, "reference", target, weights)
    torch.testing.assert_close(ours[0].double(), oracle[0], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(ours[1].double(), oracle[1], rtol=1e-4, atol=1e-5)
