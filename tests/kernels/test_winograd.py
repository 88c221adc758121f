"""The convolutions for CPUs themselves, wherever they can run: Winograd's algorithm and the product for few inputs.

What ``dilated_conv2d`` promises is tested in test_dilated_conv2d.py; here its choice is forced to the kernels, in every
instruction set that this CPU has. One convolution in float32 is held to an error of 3e-6 (root mean square, relative
to that of the exact result) and 1e-5 (maximum, relative to the largest), in float64 to 1e-12.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from fcn_kernels import dilated_conv2d
from fcn_kernels.extension import C
from fcn_kernels.ops.dilated_conv2d import choice, cpu
from tests.strategies import LAYOUTS, assert_fences_hold, fenced, with_layout

pytestmark = pytest.mark.skipif(C is None, reason="the CPU kernels are not built")


@pytest.fixture(autouse=True)
def _kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choice, "force", "kernels")


@pytest.fixture(params=C.supported_isas() if C else [])
def _isa(request: pytest.FixtureRequest) -> Iterator[None]:
    before = C.isa()
    C.use_isa(request.param)
    yield
    C.use_isa(before)


def assert_exact(ours: Tensor, exact: Tensor, what: str) -> None:
    assert ours.shape == exact.shape, (what, ours.shape, exact.shape)
    if exact.numel() == 0:
        return
    error = ours.double() - exact
    double = ours.dtype == torch.float64
    assert float(error.abs().max()) <= (1e-12 if double else 1e-5) * float(exact.abs().max()), what
    assert float(error.norm()) <= (1e-12 if double else 3e-6) * float(exact.norm()), what


def cl(x: Tensor) -> Tensor:
    return x.contiguous(memory_format=torch.channels_last)


def heavy_tailed(*shape: int) -> Tensor:
    """As features of trained networks are: mostly small or zero, here and there hundreds of times larger."""
    return torch.randn(shape, dtype=torch.float64).relu() * torch.randn(shape, dtype=torch.float64).mul(1.5).exp()


def passes(
    x: Tensor, weight: Tensor, bias: Tensor | None, grad: Tensor, backend: str, **options: object
) -> tuple[Tensor, ...]:
    leaves = [t.detach().requires_grad_() for t in (x, weight, bias) if t is not None]
    out = dilated_conv2d(leaves[0], leaves[1], *leaves[2:], backend=backend, **options)  # type: ignore[arg-type]
    return out.detach(), *torch.autograd.grad(out, leaves, grad)


@pytest.mark.usefixtures("_isa")
@given(data=st.data())
def test_every_pass_against_float64(data: st.DataObject) -> None:
    """Any size, dilation and padding, more of it than the filter reaches included, and any layout."""
    draw = data.draw
    dtype = draw(st.sampled_from((torch.float32, torch.float64)))
    dilation = (draw(st.integers(1, 4)), draw(st.integers(1, 4)))
    padding = (draw(st.integers(0, 9)), draw(st.integers(0, 9)))
    k = draw(st.sampled_from(((3, 3), (3, 3), (3, 3), (1, 1), (2, 5))))
    inputs = draw(st.sampled_from((1, 3, 4, 5, 16, 17, 33))) if k == (3, 3) else draw(st.integers(1, 4))
    least = [max(1, dilation[axis] * (k[axis] - 1) + 1 - 2 * padding[axis]) for axis in (0, 1)]
    size = [low + draw(st.integers(0, 20)) for low in least]
    x = with_layout(torch.randn(draw(st.integers(0, 2)), inputs, *size).to(dtype), draw(st.sampled_from(LAYOUTS)))
    weight = with_layout(
        torch.randn(draw(st.sampled_from((1, 7, 32, 40))), inputs, *k).to(dtype), draw(st.sampled_from(LAYOUTS))
    )
    bias = torch.randn(weight.shape[0]).to(dtype) if draw(st.booleans()) else None
    options = {"dilation": dilation, "padding": padding}
    like = F.conv2d(x, weight, **options)
    grad = with_layout(torch.randn_like(like), draw(st.sampled_from(LAYOUTS)))
    relu = draw(st.booleans())
    if relu:  # which side of zero its argument falls on must not hang on rounding
        exact = F.conv2d(x.double(), weight.double(), None if bias is None else bias.double(), **options)
        grad = grad * (exact.abs() > 1e-3)
    ours = passes(x, weight, bias, grad, "cpu", relu=relu, **options)
    wide = [None if t is None else t.double() for t in (x, weight, bias)]
    exact = passes(wide[0], wide[1], wide[2], grad.double(), "reference", relu=relu, **options)  # type: ignore[arg-type]
    for name, a, b in zip(("out", "grad x", "grad weight", "grad bias"), ours, exact, strict=False):
        assert a.dtype == dtype
        assert_exact(a, b, name)


VGG = (
    (3, 64, 224),
    (64, 64, 224),
    (64, 128, 112),
    (128, 128, 112),
    (128, 256, 56),
    (256, 512, 28),
    (512, 512, 28),
    (512, 512, 14),
)


@pytest.mark.parametrize(("inputs", "outputs", "size"), VGG, ids=str)
def test_layers_of_vgg16_on_heavy_tails(inputs: int, outputs: int, size: int) -> None:
    torch.manual_seed(
        inputs + outputs
    )  # a maximum over random numbers is as good as their tails; over others it may pass
    size = min(size, 40)  # errors depend on channels; more pixels are more of the same
    x, grad = heavy_tailed(1, inputs, size, size), heavy_tailed(1, outputs, size, size) / 100
    weight = torch.randn(outputs, inputs, 3, 3, dtype=torch.float64) * (2 / (9 * inputs)) ** 0.5
    x, grad, weight = (t.float() for t in (x, grad, weight))
    ours = passes(x, weight, None, grad, "cpu", padding=1)
    exact = passes(x.double(), weight.double(), None, grad.double(), "reference", padding=1)
    for name, a, b in zip(("out", "grad x", "grad weight"), ours, exact, strict=True):
        assert_exact(a, b, name)


@pytest.mark.usefixtures("_isa")
def test_gradcheck() -> None:
    for inputs, padding, dilation in ((2, (1, 1), 1), (5, (2, 0), 1), (5, (3, 2), (2, 1))):
        shapes = ((1, inputs, 7, 6), (3, inputs, 3, 3), (3,))
        tensors = [torch.randn(s, dtype=torch.float64, requires_grad=True) for s in shapes]
        for relu in (False, True):
            assert torch.autograd.gradcheck(
                lambda *t, p=padding, d=dilation, r=relu: dilated_conv2d(
                    *t, dilation=d, padding=p, relu=r, backend="cpu"
                ),
                tensors,
            )


def test_second_derivatives_are_the_librarys() -> None:
    shapes = ((1, 5, 5, 6), (3, 5, 3, 3), (3,))
    tensors = [torch.randn(s, dtype=torch.float64, requires_grad=True) for s in shapes]
    assert torch.autograd.gradgradcheck(lambda *t: dilated_conv2d(*t, padding=1, backend="cpu"), tensors)


@pytest.mark.parametrize("value", [torch.inf, -torch.inf, torch.nan, 3e38, 1e37])
@pytest.mark.parametrize("where", ["x", "weight", "bias"])
def test_values_beyond_the_range_of_transforms(value: float, where: str) -> None:
    """Results are those of a plain convolution: what is not finite stays where the filter reaches, and no transform
    overflows where sums do not."""
    x, weight, bias = torch.randn(1, 6, 20, 21), torch.randn(40, 6, 3, 3), torch.randn(40)
    {"x": x, "weight": weight, "bias": bias}[where].view(-1)[11] = value
    if where == "x":
        weight /= 100
    got = dilated_conv2d(x, weight, bias, padding=1, backend="cpu")
    want = F.conv2d(x, weight, bias, padding=1)
    assert torch.equal(got.isfinite(), want.isfinite())
    assert torch.equal(got.isnan(), want.isnan())
    got, want = got[want.isfinite()], want[want.isfinite()]
    # Beside a huge number small ones are rounded as those of its size.
    assert float((got - want).double().abs().max()) <= 1e-5 * float(want.abs().max())


def test_gradients_of_what_is_not_finite() -> None:
    x, weight, grad = torch.randn(1, 6, 12, 13), torch.randn(33, 6, 3, 3), torch.randn(1, 33, 12, 13)
    for poisoned in (x, grad):
        before = float(poisoned[0, 2, 5, 5])
        poisoned[0, 2, 5, 5] = torch.inf
        ours, plain = (passes(x, weight, None, grad, backend, padding=1) for backend in ("cpu", "reference"))
        for a, b in zip(ours, plain, strict=True):
            assert torch.equal(a.isfinite(), b.isfinite())
        poisoned[0, 2, 5, 5] = before


@pytest.mark.usefixtures("_isa")
def test_results_do_not_depend_on_the_number_of_threads() -> None:
    tensors = torch.randn(2, 40, 43, 37), torch.randn(48, 40, 3, 3), torch.randn(48), torch.randn(2, 48, 43, 37)
    threads = torch.get_num_threads()
    results = []
    try:
        for count in (1, 2, 3, 2):
            torch.set_num_threads(count)
            results.append(passes(*tensors, "cpu", padding=2, dilation=2))
    finally:
        torch.set_num_threads(threads)
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


@pytest.mark.usefixtures("_isa")
def test_kernels_write_every_element_and_no_other() -> None:
    for dtype in (torch.float32, torch.float64):
        for inputs in (3, 20):
            x, weight = torch.randn(2, inputs, 9, 14).to(dtype), torch.randn(37, inputs, 3, 3).to(dtype)
            grad = torch.randn(2, 37, 7, 16).to(dtype)
            outputs, buffers = zip(*(fenced(t.shape, dtype, "channels_last") for t in (grad, x, weight)), strict=True)
            cpu.dilated_conv2d(x, weight, None, True, [2, 1], [1, 2], outputs[0])
            cpu.dilated_conv2d_backward_x(grad, weight, [2, 1], [1, 2], outputs[1])
            cpu.dilated_conv2d_backward_weight(grad, x, [2, 1], [1, 2], outputs[2])
            for output, buffer in zip(outputs, buffers, strict=True):
                assert_fences_hold(buffer)
                assert bool(output.isfinite().all())


class TestKeptFilters:
    @pytest.fixture(autouse=True)
    def _count(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.transforms = 0
        transformed = cpu._transformed

        def counted(*given: object) -> Tensor:
            self.transforms += 1
            return transformed(*given)  # type: ignore[arg-type]

        monkeypatch.setattr(cpu, "_transformed", counted)

    def test_until_the_weight_changes(self) -> None:
        x, weight = torch.randn(1, 5, 8, 8), torch.nn.Parameter(torch.randn(6, 5, 3, 3))
        kept = len(cpu._filters)

        def run() -> None:
            with torch.no_grad():
                got = dilated_conv2d(x, weight, padding=1, backend="cpu")
                torch.testing.assert_close(got, F.conv2d(x, weight, padding=1), rtol=1e-4, atol=1e-4)

        run()
        run()
        assert self.transforms == 1
        with torch.no_grad():
            weight.mul_(2)
        run()
        assert self.transforms == 2
        weight.data = torch.randn(6, 5, 3, 3)
        run()
        assert self.transforms == 3
        weight.data = weight.data.contiguous(memory_format=torch.channels_last)
        run()
        run()
        assert self.transforms == 4
        assert len(cpu._filters) == kept + 1
        kept_for = list(cpu._filters.keys())
        assert any(each is weight for each in kept_for)

    def test_no_longer_than_the_weight_lives(self) -> None:
        kept = len(cpu._filters)
        with torch.no_grad():
            weight = torch.randn(6, 5, 3, 3)
            dilated_conv2d(torch.randn(1, 5, 8, 8), weight, padding=1, backend="cpu")
        assert len(cpu._filters) == kept + 1
        del weight
        assert len(cpu._filters) == kept

    def test_not_in_training(self) -> None:
        x, weight = torch.randn(1, 5, 8, 8), torch.nn.Parameter(torch.randn(6, 5, 3, 3))
        kept = len(cpu._filters)
        for _ in range(2):
            dilated_conv2d(x, weight, padding=1, backend="cpu").sum().backward()
        assert self.transforms == 2
        assert len(cpu._filters) == kept

    def test_of_inference_tensors(self) -> None:
        with torch.inference_mode():
            x, weight = torch.randn(1, 5, 8, 8), torch.randn(6, 5, 3, 3)
            for _ in range(2):
                dilated_conv2d(x, weight, padding=1, backend="cpu")
        assert self.transforms == 1

    def test_for_the_instruction_set_in_use(self) -> None:
        x, weight, before = torch.randn(1, 5, 8, 8), torch.randn(6, 5, 3, 3), C.isa()
        try:
            for isa in C.supported_isas():
                C.use_isa(isa)
                got = dilated_conv2d(x, weight, padding=1, backend="cpu")
                torch.testing.assert_close(got, F.conv2d(x, weight, padding=1), rtol=1e-4, atol=1e-4)
        finally:
            C.use_isa(before)


def test_the_choice_leaves_the_rest_to_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choice, "force", None)
    wide, few, narrow = (torch.empty(s) for s in ((64, 64, 3, 3), (64, 3, 3, 3), (8, 8, 3, 3)))
    assert choice.may_pay(wide)
    assert choice.may_pay(few)
    for weight in (narrow, wide.double(), wide.bfloat16(), torch.empty(64, 64, 1, 1), torch.empty(64, 64, 7, 7)):
        assert not choice.may_pay(weight)
    assert choice.few_inputs_pay(few)
    assert not choice.few_inputs_pay(wide)
    large, small = torch.empty(1, 64, 64, 64), torch.empty(1, 64, 16, 16)
    assert choice.winograd_pays(wide, large, (1, 4), transform=True)
    assert choice.winograd_pays(wide, small, (1, 1), transform=False)
    assert not choice.winograd_pays(wide, small, (1, 1), transform=True)
    assert not choice.winograd_pays(wide, large, (12, 12), transform=True)
    assert choice.winograd_pays(wide, large, (12, 12), transform=True, least_use=0.4)
    # And what is left to it gives its results.
    x, weight = torch.randn(1, 8, 9, 9), torch.randn(8, 8, 3, 3)
    assert torch.equal(dilated_conv2d(x, weight, backend="cpu"), F.conv2d(cl(x), weight))


def test_bad_arguments_of_the_module_are_errors() -> None:
    x, weight, out = torch.randn(1, 5, 8, 8), torch.randn(6, 5, 3, 3), torch.randn(1, 8, 8, 6).permute(0, 3, 1, 2)
    filters = cpu._transformed(weight)
    good = (x, filters, None, out, [1, 1], [1, 1], False, 1)

    def bad(index: int, value: object, message: str) -> None:
        arguments = list(good)
        arguments[index] = value
        with pytest.raises(ValueError, match=message):
            C.winograd(*arguments)

    assert C.winograd(*good)
    bad(1, filters[:-1].clone(), "filters: size")
    bad(1, filters.double(), "filters: dtype differs")
    bad(2, torch.randn(5), "bias: size 5 of dimension 0, want 6")
    bad(3, torch.randn(1, 6, 8, 8), "out: want channels next to each other")
    bad(3, out.expand(2, 6, 8, 8), "out: size 2 of dimension 0, want 1")
    bad(4, [0, 1], "dilation: out of range")
    bad(0, x.bfloat16(), "want float32 or float64")
    with pytest.raises(ValueError, match="weight: size 2 of dimension 3, want 3"):
        C.winograd_filters(torch.randn(6, 5, 3, 2), filters, False, 1)
    with pytest.raises(ValueError, match="grad_weight: size 6 of dimension 0, want 7"):
        C.winograd_backward_weight(x, torch.randn(1, 7, 8, 8), torch.empty(6, 5, 3, 3), [1, 1], [1, 1], 1)
    with pytest.raises(ValueError, match="weight: size 4 of dimension 1, want 5"):
        C.few_inputs(x, torch.randn(6, 4, 3, 3), None, out, [1, 1], [1, 1], False, 1)


@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
@pytest.mark.parametrize("relu", [False, True])
def test_large_filters_on_small_maps(layout: str, relu: bool) -> None:
    """fc6, with fewer channels: one matrix product of the library, in every pass."""
    options = {"padding": (2, 1), "dilation": (1, 2)}
    x, weight = torch.randn(2, 130, 9, 13), with_layout(torch.randn(700, 130, 7, 7) / 80, layout)
    assert choice.product_pays(x, weight, (2, 1), (1, 2))
    assert not choice.product_pays(torch.empty(1, 130, 50, 50), weight, (2, 1), (1, 2))
    exact = F.conv2d(x.double(), weight.double(), **options)  # type: ignore[arg-type]
    bias, grad = torch.randn(700), torch.randn(exact.shape)
    if relu:
        grad = grad * ((exact + bias.double()[:, None, None]).abs() > 1e-4)
    ours = passes(x, weight, bias, grad, "cpu", relu=relu, **options)
    assert ours[0].is_contiguous(memory_format=torch.channels_last)
    wide = passes(x.double(), weight.double(), bias.double(), grad.double(), "reference", relu=relu, **options)
    for name, a, b in zip(("out", "grad x", "grad weight", "grad bias"), ours, wide, strict=True):
        assert_exact(a, b, name)
