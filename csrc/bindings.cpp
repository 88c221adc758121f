// fcn_kernels._C: the CPU kernels, given tensors. Nothing here is built against torch; Python checks arguments and allocates
// results, and this file checks again what memory safety hangs on.
#include <pybind11/stl.h>

#include <array>
#include <cstdlib>
#include <stdexcept>
#include <string>

#include "common/binding.h"
#include "common/kernels.h"

namespace fcn {
namespace {

bool supported(const std::string& isa) {
    if (isa == "baseline") return true;
#if defined(__x86_64__)
    __builtin_cpu_init();
    const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    if (isa == "avx2") return avx2;
    if (isa == "avx512") {
        return avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
               __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
    }
#endif
    return false;
}

const Kernels* find(const std::string& isa) {
    if (isa == "baseline") return &kernels_baseline;
#if defined(__x86_64__)
    if (isa == "avx2") return &kernels_avx2;
    if (isa == "avx512") return &kernels_avx512;
#endif
    return nullptr;
}

const Kernels* active = nullptr;

void use_isa(const std::string& isa) {
    const Kernels* kernels = find(isa);
    if (!kernels) throw std::invalid_argument("no instruction set '" + isa + "' in this build; want baseline, avx2 or avx512");
    if (!supported(isa)) throw std::invalid_argument("this CPU does not have the instruction set '" + isa + "'");
    active = kernels;
}

void use_best_isa() {
    for (const char* isa : {"avx512", "avx2", "baseline"}) {
        if (find(isa) && supported(isa)) return use_isa(isa);
    }
}

// A tensor of one number, or none.
Tensor number(const py::object& object, const char* name) {
    const Tensor t = tensor(object, name, 0);
    want(!t.data || t.dtype == DType::float32 || t.dtype == DType::float64, "a reduced loss: want float32 or float64");
    return t;
}

void write(const Tensor& number, double value) {
    if (!number.data) return;
    if (number.dtype == DType::float64) *static_cast<double*>(number.data) = value;
    else *static_cast<float*>(number.data) = float(value);
}

void upsample_add(const py::object& x, const py::object& skip, const py::object& out, const py::sequence& g, bool channels_last,
                  int threads) {
    const UpsampleAddArgs args{tensor(x, "x", 4), tensor(skip, "skip", 4), tensor(out, "out", 4), grid(g), channels_last, threads};
    check_upsample_add(args);
    const py::gil_scoped_release release;
    active->upsample_add(args);
}

void upsample_add_backward(const py::object& grad, const py::object& out, const py::sequence& g, bool channels_last, int threads) {
    const UpsampleAddArgs args{tensor(grad, "grad", 4), Tensor{}, tensor(out, "out", 4), grid(g), channels_last, threads};
    check_upsample_add_backward(args);
    const py::gil_scoped_release release;
    active->upsample_add_backward(args);
}

// The forward and both backward passes take the same tensors; they differ in which of them is written.
template <void (*Kernels::*kernel)(const ConvTransposeAddArgs&)>
void conv_transpose_add(const py::object& x, const py::object& weight, const py::object& skip, const py::object& out,
                        int64_t stride, int64_t crop, bool channels_last, int threads) {
    const ConvTransposeAddArgs args{tensor(x, "x", 4),     tensor(weight, "weight", 4), tensor(skip, "skip", 4),
                                    tensor(out, "out", 4), stride, crop, channels_last, threads};
    check_conv_transpose_add(args);
    const py::gil_scoped_release release;
    (active->*kernel)(args);
}

using Pair = std::array<int64_t, 2>;

int64_t winograd_filters_size(const py::object& weight, bool transposed) {
    const Tensor t = tensor(weight, "weight", 4);
    return active->winograd_filters_size(t.dtype, t.size[transposed], t.size[!transposed]);
}

void winograd_filters(const py::object& weight, const py::object& transformed, bool transposed, int threads) {
    const WinogradFiltersArgs args{tensor(weight, "weight", 4), tensor(transformed, "transformed", 1), transposed, threads};
    check_winograd_filters(args, active->winograd_filters_size(args.weight.dtype, args.weight.size[transposed], args.weight.size[!transposed]));
    const py::gil_scoped_release release;
    active->winograd_filters(args);
}

bool winograd(const py::object& x, const py::object& filters, const py::object& bias, const py::object& out, const Pair& dilation,
              const Pair& before, bool relu, int threads) {
    const WinogradArgs args{tensor(x, "x", 4),     tensor(filters, "filters", 1), tensor(bias, "bias", 1),
                            tensor(out, "out", 4), {dilation[0], dilation[1]},    {before[0], before[1]},
                            relu,                  threads};
    check_winograd(args, active->winograd_filters_size(args.x.dtype, args.out.size[1], args.x.size[1]));
    const py::gil_scoped_release release;
    return active->winograd(args);
}

void few_inputs(const py::object& x, const py::object& weight, const py::object& bias, const py::object& out, const Pair& dilation,
                const Pair& padding, bool relu, int threads) {
    const FewInputsArgs args{tensor(x, "x", 4),     tensor(weight, "weight", 4), tensor(bias, "bias", 1),
                             tensor(out, "out", 4), {dilation[0], dilation[1]},  {padding[0], padding[1]},
                             relu,                  threads};
    check_few_inputs(args);
    const py::gil_scoped_release release;
    active->few_inputs(args);
}

bool winograd_backward_weight(const py::object& x, const py::object& grad, const py::object& grad_weight, const Pair& dilation,
                              const Pair& padding, int threads) {
    const WinogradWeightArgs args{tensor(x, "x", 4),          tensor(grad, "grad", 4),    tensor(grad_weight, "grad_weight", 4),
                                  {dilation[0], dilation[1]}, {padding[0], padding[1]}, threads};
    check_winograd_weight(args);
    const py::gil_scoped_release release;
    return active->winograd_backward_weight(args);
}

void upsample_argmax(const py::object& x, const py::object& labels, const py::object& confidence, const py::sequence& g,
                     int threads) {
    const UpsampleArgmaxArgs args{tensor(x, "x", 4), tensor(labels, "labels", 3), tensor(confidence, "confidence", 3), grid(g), threads};
    check_upsample_argmax(args);
    const py::gil_scoped_release release;
    active->upsample_argmax(args);
}

py::tuple upsample_cross_entropy(const py::object& x, const py::object& target, const py::object& weight,
                                 const py::object& pixel_weight, const py::object& grad, const py::object& pixel_loss,
                                 const py::object& loss, const py::sequence& g, int64_t ignore_index, bool mean,
                                 double label_smoothing, bool exact, int threads) {
    UpsampleCrossEntropyArgs args{tensor(x, "x", 4),
                                  tensor(target, "target", 3),
                                  tensor(weight, "weight", 1),
                                  tensor(pixel_weight, "pixel_weight", 3),
                                  tensor(grad, "grad", 4),
                                  tensor(pixel_loss, "pixel_loss", 3),
                                  grid(g),
                                  ignore_index,
                                  mean,
                                  label_smoothing,
                                  exact,
                                  threads};
    check_upsample_cross_entropy(args);
    const Tensor reduced = number(loss, "loss");
    UpsampleCrossEntropyResult result;
    {
        const py::gil_scoped_release release;
        result = active->upsample_cross_entropy(args);
    }
    write(reduced, result.loss);
    return py::make_tuple(result.bad_pixel, result.exact_blocks, result.blocks);
}

py::tuple upsample_region_sums(const py::object& x, const py::object& target, const py::object& sums, const py::object& weights,
                               const py::object& grad, const py::sequence& g, int64_t ignore_index, bool squared, bool exact,
                               int threads) {
    UpsampleRegionSumsArgs args{tensor(x, "x", 4),
                                tensor(target, "target", 3),
                                tensor(sums, "sums", 3),
                                tensor(weights, "weights", 3),
                                tensor(grad, "grad", 4),
                                grid(g),
                                ignore_index,
                                squared,
                                exact,
                                threads};
    check_upsample_region_sums(args);
    UpsampleRegionSumsResult result;
    {
        const py::gil_scoped_release release;
        result = active->upsample_region_sums(args);
    }
    return py::make_tuple(result.bad_pixel, result.exact_blocks, result.blocks);
}

int64_t cross_entropy(const py::object& logits, const py::object& target, const py::object& weight,
                      const py::object& pixel_weight, const py::object& grad, const py::object& pixel_loss,
                      const py::object& loss, int64_t ignore_index, bool mean, double label_smoothing, int threads) {
    CrossEntropyArgs args{tensor(logits, "logits", 4),
                          tensor(target, "target", 3),
                          tensor(weight, "weight", 1),
                          tensor(pixel_weight, "pixel_weight", 3),
                          tensor(grad, "grad", 4),
                          tensor(pixel_loss, "pixel_loss", 3),
                          ignore_index,
                          mean,
                          label_smoothing,
                          threads};
    check_cross_entropy(args);
    const Tensor reduced = number(loss, "loss");
    const py::gil_scoped_release release;
    const CrossEntropyResult result = active->cross_entropy(args);
    write(reduced, result.loss);
    return result.bad_pixel;
}

}  // namespace
}  // namespace fcn

PYBIND11_MODULE(_C, m, py::mod_gil_not_used()) {
    using namespace fcn;
    m.doc() = "CPU kernels of fcn_kernels.";
    if (const char* isa = std::getenv("FCN_KERNELS_ISA")) {
        try {
            use_isa(isa);
        } catch (const std::invalid_argument& error) {
            throw py::import_error(std::string("FCN_KERNELS_ISA: ") + error.what());
        }
    } else {
        use_best_isa();
    }
    m.def("use_exchange_api", &use_exchange_api, "To be called first, with torch.Tensor.__dlpack_c_exchange_api__.");
    m.def("isa", [] { return std::string(active->name); }, "The instruction set in use.");
    m.def("use_isa", &use_isa, "Use another instruction set from now on: baseline, avx2, avx512. For tests and benchmarks.");
    m.def("supported_isas", [] {
        py::list names;
        for (const char* isa : {"baseline", "avx2", "avx512"}) {
            if (find(isa) && supported(isa)) names.append(isa);
        }
        return names;
    });
    m.def("build_info", [] {
        py::dict info;
        info["compiler"] = FCN_COMPILER;
        info["flags"] = FCN_FLAGS;
        info["openmp"] = bool(FCN_OPENMP);
        return info;
    });
    m.def("upsample_add", &upsample_add);
    m.def("upsample_add_backward", &upsample_add_backward);
    m.def("upsample_argmax", &upsample_argmax);
    m.def("winograd_filters_size", &winograd_filters_size, "Numbers that winograd_filters writes for these filters.");
    m.def("winograd_filters", &winograd_filters);
    m.def("winograd", &winograd, "Whether all results are finite; if not, they are not those of a convolution.");
    m.def("few_inputs", &few_inputs, "dilated_conv2d of few input channels.");
    m.def("winograd_backward_weight", &winograd_backward_weight, "Whether all results are finite, as of winograd.");
    m.def("conv_transpose_add", &conv_transpose_add<&Kernels::conv_transpose_add>);
    m.def("conv_transpose_add_backward_x", &conv_transpose_add<&Kernels::conv_transpose_add_backward_x>);
    m.def("conv_transpose_add_backward_weight", &conv_transpose_add<&Kernels::conv_transpose_add_backward_weight>);
    m.def("cross_entropy", &cross_entropy);
    m.def("upsample_cross_entropy", &upsample_cross_entropy);
    m.def("upsample_region_sums", &upsample_region_sums);
}
