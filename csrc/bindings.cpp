// fcn_kernels._C: the CPU kernels behind raw pointers. Nothing here knows torch; Python checks arguments and allocates
// results, and this file checks again what memory safety hangs on.
#include <pybind11/pybind11.h>

#include <cstdlib>
#include <stdexcept>
#include <string>

#include "common/kernels.h"

namespace py = pybind11;

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
    if (!kernels) throw std::invalid_argument("no instruction set '" + isa + "' in this build");
    if (!supported(isa)) throw std::invalid_argument("this CPU does not have the instruction set '" + isa + "'");
    active = kernels;
}

void use_best_isa() {
    for (const char* isa : {"avx512", "avx2", "baseline"}) {
        if (find(isa) && supported(isa)) return use_isa(isa);
    }
}

// (data_ptr, dtype code, shape, strides in elements), or None.
Tensor tensor(const py::object& object, const char* name, int dims) {
    Tensor t{};
    if (object.is_none()) return t;
    const py::tuple parts = py::cast<py::tuple>(object);
    if (parts.size() != 4) throw std::invalid_argument(std::string(name) + ": want (pointer, dtype, shape, strides)");
    t.data = reinterpret_cast<void*>(py::cast<uintptr_t>(parts[0]));
    t.dtype = static_cast<DType>(py::cast<int>(parts[1]));
    const py::sequence shape = parts[2], strides = parts[3];
    t.dims = int(shape.size());
    if (t.dims != dims || strides.size() != shape.size()) {
        throw std::invalid_argument(std::string(name) + ": has " + std::to_string(t.dims) + " dimensions, want " +
                                    std::to_string(dims));
    }
    for (int i = 0; i < t.dims; ++i) {
        t.size[i] = py::cast<int64_t>(shape[i]);
        t.stride[i] = py::cast<int64_t>(strides[i]);
        if (t.size[i] < 0 || t.stride[i] < 0) throw std::invalid_argument(std::string(name) + ": negative size or stride");
        // Positions along an axis are kept in 32 bits; offsets are 64-bit.
        if (t.size[i] > (int64_t(1) << 30)) throw std::invalid_argument(std::string(name) + ": an axis is longer than 2^30");
    }
    if (!t.data) throw std::invalid_argument(std::string(name) + ": null pointer");
    return t;
}

Grid grid(const py::sequence& ints) {
    if (ints.size() != 9) throw std::invalid_argument("grid: want 9 integers, got " + std::to_string(ints.size()));
    int64_t v[9];
    for (int i = 0; i < 9; ++i) v[i] = py::cast<int64_t>(ints[i]);
    const Grid g{{v[0], v[2], v[3], v[4]}, {v[1], v[5], v[6], v[7]}, v[8] == 1};
    for (const Axis& axis : {g.rows, g.columns}) {
        if (axis.size < 1 || axis.step < 0 || axis.denominator < 1) throw std::invalid_argument("grid: bad axis");
    }
    return g;
}

void want(bool condition, const char* what) {
    if (!condition) throw std::invalid_argument(what);
}

void want_sizes(const Tensor& t, const char* name, std::initializer_list<int64_t> sizes) {
    int i = 0;
    for (int64_t size : sizes) {
        if (t.size[i] != size) {
            throw std::invalid_argument(std::string(name) + ": size " + std::to_string(t.size[i]) + " of dimension " +
                                        std::to_string(i) + ", want " + std::to_string(size));
        }
        ++i;
    }
}

void upsample_add(const py::object& x, const py::object& skip, const py::object& out, const py::sequence& g, bool channels_last,
                  int threads) {
    UpsampleAddArgs args{tensor(x, "x", 4), tensor(skip, "skip", 4), tensor(out, "out", 4), grid(g), channels_last, threads};
    want_sizes(args.out, "out", {args.x.size[0], args.x.size[1], args.grid.rows.size, args.grid.columns.size});
    if (args.skip.data) {
        want_sizes(args.skip, "skip", {args.out.size[0], args.out.size[1], args.out.size[2], args.out.size[3]});
        want(args.skip.dtype == args.out.dtype, "skip: dtype differs from out's");
    }
    want(args.x.dtype == args.out.dtype, "x: dtype differs from out's");
    const py::gil_scoped_release release;
    active->upsample_add(args);
}

void upsample_add_backward(const py::object& grad, const py::object& out, const py::sequence& g, bool channels_last, int threads) {
    UpsampleAddArgs args{tensor(grad, "grad", 4), Tensor{}, tensor(out, "out", 4), grid(g), channels_last, threads};
    want_sizes(args.x, "grad", {args.out.size[0], args.out.size[1], args.grid.rows.size, args.grid.columns.size});
    want(args.x.dtype == args.out.dtype, "grad: dtype differs from out's");
    const py::gil_scoped_release release;
    active->upsample_add_backward(args);
}

// The forward and both backward passes take the same tensors; they differ in which of them is written.
template <void (*Kernels::*kernel)(const ConvTransposeAddArgs&)>
void conv_transpose_add(const py::object& x, const py::object& weight, const py::object& skip, const py::object& out,
                        int64_t stride, int64_t crop, bool channels_last, int threads) {
    const ConvTransposeAddArgs args{tensor(x, "x", 4),     tensor(weight, "weight", 4), tensor(skip, "skip", 4),
                                    tensor(out, "out", 4), stride, crop, channels_last, threads};
    const Tensor &in = args.x, &result = args.out;
    const int64_t n = in.size[0], c = in.size[1], k = args.weight.size[2];
    want(n > 0 && c > 0 && in.size[2] > 0 && in.size[3] > 0 && k > 0, "x and weight: want no empty axis");
    want(stride > 0 && stride <= (int64_t(1) << 30) && crop >= 0, "stride and crop: out of range");
    want_sizes(args.weight, "weight", {c, 1, k, k});
    want_sizes(result, "out", {n, c, result.size[2], result.size[3]});
    for (int axis = 2; axis < 4; ++axis) {
        want(result.size[axis] > 0 && crop + result.size[axis] <= (in.size[axis] - 1) * stride + k, "out: want a size that x feeds");
    }
    for (const Tensor* t : {&in, &args.weight, &args.skip}) want(!t->data || t->dtype == result.dtype, "dtypes differ");
    if (args.skip.data) want_sizes(args.skip, "skip", {n, c, result.size[2], result.size[3]});
    const py::gil_scoped_release release;
    (active->*kernel)(args);
}

void upsample_argmax(const py::object& x, const py::object& labels, const py::object& confidence, const py::sequence& g,
                     int threads) {
    UpsampleArgmaxArgs args{tensor(x, "x", 4), tensor(labels, "labels", 3), tensor(confidence, "confidence", 3), grid(g), threads};
    want_sizes(args.labels, "labels", {args.x.size[0], args.grid.rows.size, args.grid.columns.size});
    want(args.labels.dtype == DType::int64 || (args.labels.dtype == DType::uint8 && args.x.size[1] <= 256),
         "labels: want uint8 (up to 256 classes) or int64");
    if (args.confidence.data) {
        want_sizes(args.confidence, "confidence", {args.labels.size[0], args.labels.size[1], args.labels.size[2]});
        want(args.confidence.dtype == (args.x.dtype == DType::float64 ? DType::float64 : DType::float32), "confidence: dtype");
    }
    const py::gil_scoped_release release;
    active->upsample_argmax(args);
}

// Class weights, pixel weights and pixel losses: in the dtype of sums, of the shapes that the scores and labels give.
template <class Args>
void want_loss_options(const Args& args, const Tensor& scores) {
    const DType sums = scores.dtype == DType::float64 ? DType::float64 : DType::float32;
    const std::initializer_list<int64_t> pixels = {args.target.size[0], args.target.size[1], args.target.size[2]};
    if (args.weight.data) {
        want_sizes(args.weight, "weight", {scores.size[1]});
        want(args.weight.dtype == sums && args.weight.stride[0] == 1, "weight: want contiguous numbers of the sums' dtype");
    }
    if (args.pixel_weight.data) {
        want_sizes(args.pixel_weight, "pixel_weight", pixels);
        want(args.pixel_weight.dtype == sums, "pixel_weight: want the sums' dtype");
    }
    if (args.pixel_loss.data) {
        want_sizes(args.pixel_loss, "pixel_loss", pixels);
        want(args.pixel_loss.dtype == sums, "pixel_loss: want the sums' dtype");
    }
}

py::tuple upsample_cross_entropy(const py::object& x, const py::object& target, const py::object& weight,
                                 const py::object& pixel_weight, const py::object& grad, const py::object& pixel_loss,
                                 const py::sequence& g, int64_t ignore_index, double label_smoothing, bool exact, int threads) {
    UpsampleCrossEntropyArgs args{tensor(x, "x", 4),
                                  tensor(target, "target", 3),
                                  tensor(weight, "weight", 1),
                                  tensor(pixel_weight, "pixel_weight", 3),
                                  tensor(grad, "grad", 4),
                                  tensor(pixel_loss, "pixel_loss", 3),
                                  grid(g),
                                  ignore_index,
                                  label_smoothing,
                                  exact,
                                  threads};
    const DType sums = args.x.dtype == DType::float64 ? DType::float64 : DType::float32;
    const int64_t n = args.x.size[0], rows = args.grid.rows.size, columns = args.grid.columns.size;
    want_sizes(args.target, "target", {n, rows, columns});
    if (args.grad.data) {
        want_sizes(args.grad, "grad", {n, args.x.size[1], args.x.size[2], args.x.size[3]});
        want(args.grad.dtype == sums, "grad: want the sums' dtype");
    }
    want_loss_options(args, args.x);
    UpsampleCrossEntropyResult result;
    {
        const py::gil_scoped_release release;
        result = active->upsample_cross_entropy(args);
    }
    return py::make_tuple(result.loss, result.weight, result.bad_pixel, result.exact_blocks, result.blocks);
}

py::tuple cross_entropy(const py::object& logits, const py::object& target, const py::object& weight,
                        const py::object& pixel_weight, const py::object& grad, const py::object& pixel_loss,
                        int64_t ignore_index, bool mean, double label_smoothing, int threads) {
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
    const Tensor& x = args.logits;
    want_sizes(args.target, "target", {x.size[0], x.size[2], x.size[3]});
    if (args.grad.data) {
        want_sizes(args.grad, "grad", {x.size[0], x.size[1], x.size[2], x.size[3]});
        want(args.grad.dtype == x.dtype, "grad: want the dtype of logits");
    }
    want_loss_options(args, x);
    CrossEntropyResult result;
    {
        const py::gil_scoped_release release;
        result = active->cross_entropy(args);
    }
    return py::make_tuple(result.loss, result.bad_pixel);
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
    m.def("conv_transpose_add", &conv_transpose_add<&Kernels::conv_transpose_add>);
    m.def("conv_transpose_add_backward_x", &conv_transpose_add<&Kernels::conv_transpose_add_backward_x>);
    m.def("conv_transpose_add_backward_weight", &conv_transpose_add<&Kernels::conv_transpose_add_backward_weight>);
    m.def("cross_entropy", &cross_entropy);
    m.def("upsample_cross_entropy", &upsample_cross_entropy);
}
