// fcn_kernels._CUDA: the GPU kernels, given tensors. Nothing here is built against torch, allocates, or waits for the device.
// The same file makes fcn_kernels._EMULATOR, in which those kernels run on a CPU.
#include "common/binding.h"
#include "common/cuda.h"
#include "conv_transpose_add/cuda.h"
#include "cross_entropy/cuda.h"
#include "dilated_conv2d/cuda.h"
#include "upsample_add/cuda.h"
#include "upsample_argmax/cuda.h"
#include "upsample_cross_entropy/cuda.h"
#include "upsample_region_sums/cuda.h"
#if defined(FCN_EMULATE)
#include "emulator/planted.h"
#endif

namespace fcn {
namespace {

using Named = std::pair<Tensor*, const char*>;

#if defined(FCN_EMULATE)

class OnDevice {
public:
    OnDevice(int, uintptr_t) {}
    cudaStream_t stream() const { return nullptr; }
    void take(const Named& tensor) { guarded_.add(*tensor.first, tensor.second); }
    void finish() { guarded_.finish(); }

private:
    emulator::Guarded guarded_;
};

#else

// Of tensors on a GPU the kernels use what they are given.
struct OnDevice : Device {
    using Device::Device;
    void take(const Named&) {}
    void finish() {}
};

#endif

// Calls kernels(null pointer of the dtype, stream) on the device of the tensors.
template <class F>
void run(const char* operator_name, DType dtype, int device, uintptr_t stream, std::initializer_list<Named> tensors, const F& kernels) {
    const py::gil_scoped_release release;
    try {
        OnDevice on(device, stream);
        for (const Named& tensor : tensors) on.take(tensor);
        switch (dtype) {
            case DType::float32: kernels(static_cast<float*>(nullptr), on.stream()); break;
            case DType::bfloat16: kernels(static_cast<bfloat16*>(nullptr), on.stream()); break;
            case DType::float16: kernels(static_cast<float16*>(nullptr), on.stream()); break;
            default: throw std::invalid_argument("want float32, bfloat16 or float16");
        }
        on.finish();
    } catch (const std::invalid_argument& error) {
        throw std::invalid_argument(std::string(operator_name) + ": " + error.what());
    } catch (const std::exception& error) {
        throw std::runtime_error(std::string(operator_name) + ": " + error.what());
    }
}

// The dtype in which kernels(number, stream) is called.
template <class Pointer>
using Number = std::remove_pointer_t<Pointer>;

void cross_entropy_(const py::object& logits, const py::object& target, const py::object& weight, const py::object& pixel_weight,
                    const py::object& grad, const py::object& pixel_loss, const py::object& loss, const py::object& scale,
                    const py::object& sums, int most_blocks, int64_t ignore_index, bool mean, double label_smoothing, int device,
                    uintptr_t stream) {
    CrossEntropyArgs args{tensor(logits, "logits", 4),
                          tensor(target, "target", 3),
                          tensor(weight, "weight", 1),
                          tensor(pixel_weight, "pixel_weight", 3),
                          tensor(grad, "grad", 4),
                          tensor(pixel_loss, "pixel_loss", 3),
                          ignore_index,
                          mean,
                          label_smoothing,
                          0};
    CrossEntropyTotals totals{tensor(loss, "loss", 0), tensor(scale, "scale", 0), tensor(sums, "sums", 2), most_blocks};
    check_cross_entropy(args);
    want(args.logits.size[0] * args.logits.size[2] * args.logits.size[3] > 0, "logits: want no empty axis");
    want(!totals.loss.data == !totals.sums.data, "loss and sums: want both or neither");
    want(most_blocks > 0, "most_blocks: want at least 1");
    if (totals.sums.data) want_sizes(totals.sums, "sums", {2, most_blocks});
    for (const Tensor* t : {&totals.loss, &totals.scale, &totals.sums}) {
        want(!t->data || t->dtype == DType::float32, "loss, scale and sums: want float32");
    }
    run("cross_entropy", args.logits.dtype, device, stream,
        {{&args.logits, "logits"}, {&args.target, "target"}, {&args.weight, "weight"}, {&args.pixel_weight, "pixel_weight"},
         {&args.grad, "grad"}, {&args.pixel_loss, "pixel_loss"}, {&totals.loss, "loss"}, {&totals.scale, "scale"},
         {&totals.sums, "sums"}},
        [&](auto* number, cudaStream_t s) { cross_entropy<Number<decltype(number)>>(args, totals, s); });
}

using Pair = std::pair<int64_t, int64_t>;

void want_channels_last(const Tensor& t, const char* name) {
    int64_t stride = 1;
    for (int axis : {1, 3, 2, 0}) {
        if (t.size[axis] < 1 || (t.size[axis] > 1 && t.stride[axis] != stride)) {
            throw std::invalid_argument(std::string(name) + ": want a dense channels_last tensor with no empty axis");
        }
        stride *= t.size[axis];
    }
}

// Filters of this size, [O, I, k, l], make `out` of `x`.
void check_convolution(const Tensor& x, const int64_t (&filters)[4], const Tensor& out, const Pair& dilation, const Pair& padding) {
    constexpr int64_t kMost = int64_t(1) << 28;  // positions along an axis are added to each other in 32 bits
    want(x.dtype == out.dtype, "x: dtype differs from out's");
    want_sizes(x, "x", {out.size[0], filters[1], x.size[2], x.size[3]});
    const int64_t step[] = {dilation.first, dilation.second}, zeros[] = {padding.first, padding.second};
    for (int i = 0; i < 2; ++i) {
        want(step[i] >= 1 && zeros[i] >= 0, "dilation and padding: out of range");
        want(step[i] < kMost / filters[2 + i] && zeros[i] < kMost && x.size[2 + i] < kMost, "an axis is too long");
    }
    want_sizes(out, "out", {x.size[0], filters[0], x.size[2] + 2 * zeros[0] - step[0] * (filters[2] - 1),
                            x.size[3] + 2 * zeros[1] - step[1] * (filters[3] - 1)});
}

void dilated_conv2d_(const py::object& x, const py::object& weight, const py::object& bias, const py::object& out, Pair dilation,
                     Pair padding, bool transposed, bool relu, bool tf32, Pair tile, int device, uintptr_t stream) {
    DilatedConv2dArgs args{tensor(x, "x", 4),
                           tensor(weight, "weight", 4),
                           tensor(bias, "bias", 1),
                           tensor(out, "out", 4),
                           {dilation.first, dilation.second},
                           {padding.first, padding.second},
                           transposed,
                           relu,
                           tf32,
                           int(tile.first),
                           int(tile.second)};
    want_channels_last(args.x, "x");
    want_channels_last(args.weight, "weight");
    want_channels_last(args.out, "out");
    want(args.weight.dtype == args.x.dtype, "weight: dtype differs from x's");
    const auto& w = args.weight.size;
    if (transposed) {
        check_convolution(args.out, {w[1], w[0], w[2], w[3]}, args.x, dilation, padding);
    } else {
        check_convolution(args.x, {w[0], w[1], w[2], w[3]}, args.out, dilation, padding);
    }
    if (args.bias.data) {
        want_sizes(args.bias, "bias", {args.out.size[1]});
        want(args.bias.dtype == args.x.dtype && (args.bias.stride[0] == 1 || w[0] == 1), "bias: want it dense, of x's dtype");
    }
    run("dilated_conv2d", args.out.dtype, device, stream,
        {{&args.x, "x"}, {&args.weight, "weight"}, {&args.bias, "bias"}, {&args.out, "out"}},
        [&](auto* number, cudaStream_t s) { dilated_conv2d<Number<decltype(number)>>(args, s); });
}

void dilated_conv2d_backward_weight_(const py::object& grad, const py::object& x, const py::object& grad_weight,
                                     const py::object& parts, Pair dilation, Pair padding, bool tf32, int tile, int device,
                                     uintptr_t stream) {
    DilatedConv2dWeightArgs args{tensor(grad, "grad", 4),
                                 tensor(x, "x", 4),
                                 tensor(grad_weight, "grad_weight", 4),
                                 tensor(parts, "parts", 2),
                                 {dilation.first, dilation.second},
                                 {padding.first, padding.second},
                                 tf32,
                                 tile};
    want_channels_last(args.grad, "grad");
    want_channels_last(args.x, "x");
    want_channels_last(args.grad_weight, "grad_weight");
    want(args.grad_weight.dtype == args.x.dtype, "grad_weight: dtype differs from x's");
    const auto& w = args.grad_weight.size;
    check_convolution(args.x, {w[0], w[1], w[2], w[3]}, args.grad, dilation, padding);
    if (args.parts.data) {
        const Tensor& t = args.parts;
        want_sizes(t, "parts", {t.size[0], w[0] * w[1] * w[2] * w[3]});
        want(t.size[0] >= 1 && t.size[0] <= 65535, "parts: want 1 to 65535");
        want(t.dtype == DType::float32 && t.stride[1] == 1 && t.stride[0] == t.size[1], "parts: want dense float32");
    }
    run("dilated_conv2d_backward_weight", args.x.dtype, device, stream,
        {{&args.grad, "grad"}, {&args.x, "x"}, {&args.grad_weight, "grad_weight"}, {&args.parts, "parts"}},
        [&](auto* number, cudaStream_t s) { dilated_conv2d_backward_weight<Number<decltype(number)>>(args, s); });
}

void upsample_add_(const py::object& x, const py::object& skip, const py::object& out, const py::sequence& g, bool channels_last,
                   int device, uintptr_t stream) {
    UpsampleAddArgs args{tensor(x, "x", 4), tensor(skip, "skip", 4), tensor(out, "out", 4), grid(g), channels_last, 0};
    check_upsample_add(args);
    run("upsample_add", args.out.dtype, device, stream, {{&args.x, "x"}, {&args.skip, "skip"}, {&args.out, "out"}},
        [&](auto* number, cudaStream_t s) { upsample_add<Number<decltype(number)>>(args, s); });
}

void upsample_add_backward_(const py::object& grad, const py::object& out, const py::sequence& g, bool channels_last, int device,
                            uintptr_t stream) {
    UpsampleAddArgs args{tensor(grad, "grad", 4), Tensor{}, tensor(out, "out", 4), grid(g), channels_last, 0};
    check_upsample_add_backward(args);
    run("upsample_add_backward", args.out.dtype, device, stream, {{&args.x, "grad"}, {&args.out, "out"}},
        [&](auto* number, cudaStream_t s) { upsample_add_backward<Number<decltype(number)>>(args, s); });
}

void upsample_argmax_(const py::object& x, const py::object& labels, const py::object& confidence, const py::sequence& g, int device,
                      uintptr_t stream) {
    UpsampleArgmaxArgs args{tensor(x, "x", 4), tensor(labels, "labels", 3), tensor(confidence, "confidence", 3), grid(g), 0};
    check_upsample_argmax(args);
    run("upsample_argmax", args.x.dtype, device, stream,
        {{&args.x, "x"}, {&args.labels, "labels"}, {&args.confidence, "confidence"}},
        [&](auto* number, cudaStream_t s) { upsample_argmax<Number<decltype(number)>>(args, s); });
}

void upsample_cross_entropy_(const py::object& x, const py::object& target, const py::object& weight, const py::object& pixel_weight,
                             const py::object& grad, const py::object& pixel_loss, const py::object& loss, const py::object& scale,
                             const py::object& workspace, const py::sequence& g, int64_t ignore_index, bool mean,
                             double label_smoothing, bool exact, int rows_of_a_patch, int device, uintptr_t stream) {
    UpsampleCrossEntropyArgs args{tensor(x, "x", 4), tensor(target, "target", 3), tensor(weight, "weight", 1),
                                  tensor(pixel_weight, "pixel_weight", 3), tensor(grad, "grad", 4),
                                  tensor(pixel_loss, "pixel_loss", 3), grid(g), ignore_index, mean, label_smoothing, exact, 0};
    LossOutputs out{tensor(loss, "loss", 0), tensor(scale, "scale", 0), tensor(workspace, "workspace", 1), rows_of_a_patch};
    check_upsample_cross_entropy(args);
    want(out.loss.data || args.pixel_loss.data, "loss or pixel_loss: missing");
    want(out.scale.data || !args.grad.data, "scale: missing beside grad");
    want(rows_of_a_patch == 0 || rows_of_a_patch == 2 || rows_of_a_patch == 4 || rows_of_a_patch == 8, "rows_of_a_patch: want 0, 2, 4 or 8");
    for (const Tensor* t : {&out.loss, &out.scale, &out.workspace}) want(!t->data || t->dtype == DType::float32, "want float32");
    want_sizes(out.workspace, "workspace", {upsample_cross_entropy_workspace<float>(args, args.grad.data, rows_of_a_patch)});
    run("upsample_cross_entropy", args.x.dtype, device, stream,
        {{&args.x, "x"}, {&args.target, "target"}, {&args.weight, "weight"}, {&args.pixel_weight, "pixel_weight"}, {&args.grad, "grad"},
         {&args.pixel_loss, "pixel_loss"}, {&out.loss, "loss"}, {&out.scale, "scale"}, {&out.workspace, "workspace"}},
        [&](auto* number, cudaStream_t s) { upsample_cross_entropy<Number<decltype(number)>>(args, out, s); });
}

int64_t upsample_cross_entropy_workspace_(const py::object& x, const py::sequence& g, bool with_grad, int rows_of_a_patch) {
    UpsampleCrossEntropyArgs args{};
    args.x = tensor(x, "x", 4), args.grid = grid(g);
    return upsample_cross_entropy_workspace<float>(args, with_grad, rows_of_a_patch);
}

void upsample_region_sums_(const py::object& x, const py::object& target, const py::object& sums, const py::object& weights,
                           const py::object& grad, const py::object& workspace, const py::sequence& g, int64_t ignore_index,
                           bool squared, int device, uintptr_t stream) {
    UpsampleRegionSumsArgs args{tensor(x, "x", 4), tensor(target, "target", 3), tensor(sums, "sums", 3), tensor(weights, "weights", 3),
                                tensor(grad, "grad", 4), grid(g), ignore_index, squared, true, 0};
    Tensor to_work_with = tensor(workspace, "workspace", 1);
    check_upsample_region_sums(args);
    want(args.sums.data || args.grad.data, "sums or grad: missing");
    want(to_work_with.dtype == DType::float32, "workspace: want float32");
    want_sizes(to_work_with, "workspace", {upsample_region_sums_workspace<float>(args, args.grad.data)});
    run("upsample_region_sums", args.x.dtype, device, stream,
        {{&args.x, "x"}, {&args.target, "target"}, {&args.sums, "sums"}, {&args.weights, "weights"}, {&args.grad, "grad"},
         {&to_work_with, "workspace"}},
        [&](auto* number, cudaStream_t s) { upsample_region_sums<Number<decltype(number)>>(args, to_work_with, s); });
}

int64_t upsample_region_sums_workspace_(const py::object& x, const py::sequence& g, bool with_grad) {
    UpsampleRegionSumsArgs args{};
    args.x = tensor(x, "x", 4), args.grid = grid(g);
    return upsample_region_sums_workspace<float>(args, with_grad);
}

// The forward and both backward passes take the same tensors; they differ in which of them is written.
template <class Kernels>
void conv_transpose_add_(const char* name, ConvTransposeAddArgs args, Tensor* parts, int device, uintptr_t stream, const Kernels& kernels) {
    check_conv_transpose_add(args);
    want(args.stride * args.x.size[2] + args.weight.size[2] + args.crop < (int64_t(1) << 30) &&
             args.stride * args.x.size[3] + args.weight.size[2] + args.crop < (int64_t(1) << 30),
         "stride and crop: the output before the crop has 2^30 rows or columns or more");
    run(name, args.out.dtype, device, stream,
        {{&args.x, "x"}, {&args.weight, "weight"}, {&args.skip, "skip"}, {&args.out, "out"}, {parts, "parts"}},
        [&](auto* number, cudaStream_t s) { kernels(number, args, s); });
}

void conv_transpose_add_forward_(const py::object& x, const py::object& weight, const py::object& skip, const py::object& out,
                                 int64_t stride, int64_t crop, bool channels_last, int device, uintptr_t stream) {
    Tensor none{};
    conv_transpose_add_("conv_transpose_add",
                        {tensor(x, "x", 4), tensor(weight, "weight", 4), tensor(skip, "skip", 4), tensor(out, "out", 4),
                         stride, crop, channels_last, 0},
                        &none, device, stream, [](auto* number, const ConvTransposeAddArgs& args, cudaStream_t s) {
                            conv_transpose_add<Number<decltype(number)>>(args, s);
                        });
}

void conv_transpose_add_backward_x_(const py::object& x, const py::object& weight, const py::object& out, int64_t stride,
                                    int64_t crop, bool channels_last, int device, uintptr_t stream) {
    Tensor none{};
    conv_transpose_add_("conv_transpose_add_backward_x",
                        {tensor(x, "x", 4), tensor(weight, "weight", 4), none, tensor(out, "out", 4), stride, crop, channels_last, 0},
                        &none, device, stream, [](auto* number, const ConvTransposeAddArgs& args, cudaStream_t s) {
                            conv_transpose_add_backward_x<Number<decltype(number)>>(args, s);
                        });
}

void conv_transpose_add_backward_weight_(const py::object& x, const py::object& weight, const py::object& out, const py::object& parts,
                                         int64_t stride, int64_t crop, bool channels_last, int device, uintptr_t stream) {
    const ConvTransposeAddArgs args{tensor(x, "x", 4), tensor(weight, "weight", 4), Tensor{}, tensor(out, "out", 4),
                                    stride, crop, channels_last, 0};
    Tensor sums = tensor(parts, "parts", 4);
    const int64_t k = args.weight.size[2];
    want_sizes(sums, "parts", {sums.size[0], args.x.size[1], k, k});
    want(sums.dtype == DType::float32 && sums.size[0] >= 1 && sums.size[0] <= 65535, "parts: want float32, 1 to 65535 of them");
    conv_transpose_add_("conv_transpose_add_backward_weight", args, &sums, device, stream,
                        [&](auto* number, const ConvTransposeAddArgs& a, cudaStream_t s) {
                            conv_transpose_add_backward_weight<Number<decltype(number)>>(a, sums, s);
                        });
}

#if defined(FCN_EMULATE)
void planted_(const py::object& in, const py::object& out, Fault fault) {
    Tensor from = tensor(in, "in", 1), to = tensor(out, "out", 1);
    run("planted", from.dtype, 0, 0, {{&from, "in"}, {&to, "out"}}, [&](auto*, cudaStream_t) { planted(from, to, fault); });
}
#endif

}  // namespace
}  // namespace fcn

#if defined(FCN_EMULATE)
PYBIND11_MODULE(_EMULATOR, m) {
#else
PYBIND11_MODULE(_CUDA, m, py::mod_gil_not_used()) {
#endif
    using namespace fcn;
    m.def("use_exchange_api", &use_exchange_api, "To be called first, with torch.Tensor.__dlpack_c_exchange_api__.");
    m.def("build_info", [] {
        py::dict info;
        info["compiler"] = FCN_COMPILER;
        info["flags"] = FCN_FLAGS;
        return info;
    });
#if defined(FCN_EMULATE)
    m.doc() = "The GPU kernels of fcn_kernels, emulated on a CPU.";
    py::enum_<emulator::Order>(m, "Order")
        .value("forward", emulator::Order::forward)
        .value("reverse", emulator::Order::reverse)
        .value("random", emulator::Order::random);
    m.def("set_order", &emulator::set_order, py::arg("order"), py::arg("seed") = 0,
          "The order in which a block's threads take turns from now on.");
    py::enum_<Fault>(m, "Fault")
        .value("none", Fault::none)
        .value("race", Fault::race)
        .value("outside", Fault::outside)
        .value("divergence", Fault::divergence)
        .value("lane", Fault::lane)
        .value("alignment", Fault::alignment)
        .value("unset", Fault::unset);
    py::enum_<emulator::Approximation>(m, "Approximation")
        .value("exact", emulator::Approximation::exact)
        .value("random", emulator::Approximation::random)
        .value("high", emulator::Approximation::high)
        .value("low", emulator::Approximation::low);
    m.def("approximation", &emulator::approximation, "How approximations are off.");
    m.def("set_approximation", &emulator::set_approximation, "How they are from now on.");
    m.def("set_most_shared", &emulator::set_most_shared, py::arg("bytes") = emulator::kMostShared,
          "The shared memory that a block of the emulated GPU may have from now on.");
    m.def("planted", &planted_, "Reverses every 64 numbers, or does what is wrong with it: see csrc/emulator/planted.h.");
#else
    m.doc() = "GPU kernels of fcn_kernels.";
#endif
    m.def("conv_transpose_add", &conv_transpose_add_forward_);
    m.def("conv_transpose_add_backward_x", &conv_transpose_add_backward_x_);
    m.def("conv_transpose_add_backward_weight", &conv_transpose_add_backward_weight_);
    m.def("cross_entropy", &cross_entropy_);
    m.def("dilated_conv2d", &dilated_conv2d_);
    m.def("dilated_conv2d_backward_weight", &dilated_conv2d_backward_weight_);
    m.def("upsample_add", &upsample_add_);
    m.def("upsample_add_backward", &upsample_add_backward_);
    m.def("upsample_argmax", &upsample_argmax_);
    m.def("upsample_cross_entropy", &upsample_cross_entropy_);
    m.def("upsample_cross_entropy_workspace", &upsample_cross_entropy_workspace_, "How many float32 numbers the workspace has.");
    m.def("upsample_region_sums", &upsample_region_sums_);
    m.def("upsample_region_sums_workspace", &upsample_region_sums_workspace_, "How many float32 numbers the workspace has.");
}
