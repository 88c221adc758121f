// What the bindings of all modules share: tensors from Python, and checks of what memory safety hangs on.
#pragma once

#include <pybind11/pybind11.h>

#include <initializer_list>
#include <stdexcept>
#include <string>
#include <tuple>

#include "arguments.h"
#include "dlpack.h"

namespace py = pybind11;

namespace fcn {

inline void want(bool condition, const char* what) {
    if (!condition) throw std::invalid_argument(what);
}

// How PyTorch's tensors are looked at; Python hands it over when the module is loaded.
inline const dlpack::ExchangeApi* exchange_api = nullptr;

inline void use_exchange_api(const py::capsule& capsule) {
    const auto* api = static_cast<const dlpack::ExchangeApi*>(PyCapsule_GetPointer(capsule.ptr(), "dlpack_exchange_api"));
    if (!api) throw py::error_already_set();
    while (api && api->version.major != dlpack::kMajor) api = api->previous;
    if (!api || !api->tensor_from_object) throw std::runtime_error("this PyTorch does not speak version 1 of DLPack's exchange API");
    exchange_api = api;
}

inline DType dtype_of(const dlpack::DataType& type, const char* name) {
    if (type.lanes == 1) {
        switch (type.code << 8 | type.bits) {
            case dlpack::kFloat << 8 | 32: return DType::float32;
            case dlpack::kFloat << 8 | 64: return DType::float64;
            case dlpack::kBfloat << 8 | 16: return DType::bfloat16;
            case dlpack::kFloat << 8 | 16: return DType::float16;
            case dlpack::kUInt << 8 | 8: return DType::uint8;
            case dlpack::kInt << 8 | 16: return DType::int16;
            case dlpack::kInt << 8 | 32: return DType::int32;
            case dlpack::kInt << 8 | 64: return DType::int64;
        }
    }
    throw std::invalid_argument(std::string(name) + ": no such dtype is known here");
}

// A tensor of that many dimensions, or None.
inline Tensor tensor(const py::object& object, const char* name, int dims) {
    Tensor t{};
    if (object.is_none()) return t;
    want(exchange_api, "use_exchange_api comes before all else");
    dlpack::Tensor given{};
    if (exchange_api->tensor_from_object(object.ptr(), &given) != 0) throw py::error_already_set();
    if (!given.data) throw std::invalid_argument(std::string(name) + ": null pointer");
    t.data = static_cast<char*>(given.data) + given.byte_offset;
    t.dtype = dtype_of(given.dtype, name);
    t.dims = given.dims;
    if (t.dims != dims) {
        throw std::invalid_argument(std::string(name) + ": has " + std::to_string(t.dims) + " dimensions, want " +
                                    std::to_string(dims));
    }
    for (int i = 0; i < t.dims; ++i) {
        t.size[i] = given.shape[i];
        t.stride[i] = given.strides[i];
        if (t.size[i] < 0 || t.stride[i] < 0) throw std::invalid_argument(std::string(name) + ": negative size or stride");
        // Positions along an axis are kept in 32 bits; offsets are 64-bit.
        if (t.size[i] > (int64_t(1) << 30)) throw std::invalid_argument(std::string(name) + ": an axis is longer than 2^30");
    }
    return t;
}

inline Grid grid(const py::sequence& ints) {
    if (ints.size() != 9) throw std::invalid_argument("grid: want 9 integers, got " + std::to_string(ints.size()));
    int64_t v[9];
    for (int i = 0; i < 9; ++i) v[i] = py::cast<int64_t>(ints[i]);
    const Grid g{{v[0], v[2], v[3], v[4]}, {v[1], v[5], v[6], v[7]}, v[8] == 1};
    for (const Axis& axis : {g.rows, g.columns}) {
        if (axis.size < 1 || axis.step < 0 || axis.denominator < 1) throw std::invalid_argument("grid: bad axis");
    }
    return g;
}

inline void want_sizes(const Tensor& t, const char* name, std::initializer_list<int64_t> sizes) {
    int i = 0;
    for (int64_t size : sizes) {
        if (t.size[i] != size) {
            throw std::invalid_argument(std::string(name) + ": size " + std::to_string(t.size[i]) + " of dimension " +
                                        std::to_string(i) + ", want " + std::to_string(size));
        }
        ++i;
    }
}

inline void check_upsample_add(const UpsampleAddArgs& args) {
    want_sizes(args.out, "out", {args.x.size[0], args.x.size[1], args.grid.rows.size, args.grid.columns.size});
    if (args.skip.data) {
        want_sizes(args.skip, "skip", {args.out.size[0], args.out.size[1], args.out.size[2], args.out.size[3]});
        want(args.skip.dtype == args.out.dtype, "skip: dtype differs from out's");
    }
    want(args.x.dtype == args.out.dtype, "x: dtype differs from out's");
}

inline void check_upsample_add_backward(const UpsampleAddArgs& args) {
    want_sizes(args.x, "grad", {args.out.size[0], args.out.size[1], args.grid.rows.size, args.grid.columns.size});
    want(args.x.dtype == args.out.dtype, "grad: dtype differs from out's");
}

inline void check_conv_transpose_add(const ConvTransposeAddArgs& args) {
    const Tensor &in = args.x, &result = args.out;
    const int64_t n = in.size[0], c = in.size[1], k = args.weight.size[2], stride = args.stride, crop = args.crop;
    want(n > 0 && c > 0 && in.size[2] > 0 && in.size[3] > 0 && k > 0, "x and weight: want no empty axis");
    want(stride > 0 && stride <= (int64_t(1) << 30) && crop >= 0, "stride and crop: out of range");
    want_sizes(args.weight, "weight", {c, 1, k, k});
    want_sizes(result, "out", {n, c, result.size[2], result.size[3]});
    for (int axis = 2; axis < 4; ++axis) {
        want(result.size[axis] > 0 && crop + result.size[axis] <= (in.size[axis] - 1) * stride + k, "out: want a size that x feeds");
    }
    for (const Tensor* t : {&in, &args.weight, &args.skip}) want(!t->data || t->dtype == result.dtype, "dtypes differ");
    if (args.skip.data) want_sizes(args.skip, "skip", {n, c, result.size[2], result.size[3]});
}

inline void want_numbers(const Tensor& t, const char* name, const Tensor& like) {
    want(like.dtype == DType::float32 || like.dtype == DType::float64, "Winograd's algorithm: want float32 or float64");
    if (t.dtype != like.dtype) throw std::invalid_argument(std::string(name) + ": dtype differs");
}

// What convolutions on CPUs have in common.
template <class Args>
void want_convolution(const Args& args) {
    const Tensor &x = args.x, &out = args.out;
    for (int i = 0; i < 4; ++i) want(x.size[i] > 0 && out.size[i] > 0, "x and out: want no empty axis");
    want_sizes(out, "out", {x.size[0], out.size[1], out.size[2], out.size[3]});
    want(out.stride[1] == 1 || out.size[1] == 1, "out: want channels next to each other");
    want_numbers(out, "out", x);
    if (args.bias.data) {
        want_numbers(args.bias, "bias", x);
        want_sizes(args.bias, "bias", {out.size[1]});
        want(args.bias.stride[0] == 1 || out.size[1] == 1, "bias: want contiguous numbers");
    }
    for (int axis = 0; axis < 2; ++axis) want(args.dilation[axis] > 0 && args.dilation[axis] <= (int64_t(1) << 30), "dilation: out of range");
}

// Filters of 3 x 3 taps over `x` with `before` zeros above and left of it; below and right of it there are as many as it takes.
inline void check_winograd(const WinogradArgs& args, int64_t filters_size) {
    want_convolution(args);
    want_numbers(args.filters, "filters", args.x);
    want_sizes(args.filters, "filters", {filters_size});
    want(args.filters.stride[0] == 1, "filters: want contiguous numbers");
}

inline void check_few_inputs(const FewInputsArgs& args) {
    const Tensor &x = args.x, &weight = args.weight;
    want_convolution(args);
    want_numbers(weight, "weight", x);
    want_sizes(weight, "weight", {args.out.size[1], x.size[1], weight.size[2], weight.size[3]});
    want(weight.size[2] > 0 && weight.size[3] > 0, "weight: want no empty axis");
}

inline void check_winograd_filters(const WinogradFiltersArgs& args, int64_t filters_size) {
    want_sizes(args.weight, "weight", {args.weight.size[0], args.weight.size[1], 3, 3});
    want(args.weight.size[0] > 0 && args.weight.size[1] > 0, "weight: want no empty axis");
    want_numbers(args.transformed, "transformed", args.weight);
    want_sizes(args.transformed, "transformed", {filters_size});
    want(args.transformed.stride[0] == 1, "transformed: want contiguous numbers");
}

inline void check_winograd_weight(const WinogradWeightArgs& args) {
    const Tensor &x = args.x, &grad = args.grad;
    for (int i = 0; i < 4; ++i) want(x.size[i] > 0 && grad.size[i] > 0, "x and grad: want no empty axis");
    want_sizes(grad, "grad", {x.size[0], grad.size[1], grad.size[2], grad.size[3]});
    want_sizes(args.grad_weight, "grad_weight", {grad.size[1], x.size[1], 3, 3});
    want_numbers(grad, "grad", x);
    want_numbers(args.grad_weight, "grad_weight", x);
    for (int axis = 0; axis < 2; ++axis) want(args.dilation[axis] > 0 && args.dilation[axis] <= (int64_t(1) << 30), "dilation: out of range");
}

inline void check_upsample_argmax(const UpsampleArgmaxArgs& args) {
    want_sizes(args.labels, "labels", {args.x.size[0], args.grid.rows.size, args.grid.columns.size});
    want(args.labels.dtype == DType::int64 || (args.labels.dtype == DType::uint8 && args.x.size[1] <= 256),
         "labels: want uint8 (up to 256 classes) or int64");
    if (args.confidence.data) {
        want_sizes(args.confidence, "confidence", {args.labels.size[0], args.labels.size[1], args.labels.size[2]});
        want(args.confidence.dtype == (args.x.dtype == DType::float64 ? DType::float64 : DType::float32), "confidence: dtype");
    }
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

inline void check_upsample_cross_entropy(const UpsampleCrossEntropyArgs& args) {
    const DType sums = args.x.dtype == DType::float64 ? DType::float64 : DType::float32;
    want_sizes(args.target, "target", {args.x.size[0], args.grid.rows.size, args.grid.columns.size});
    if (args.grad.data) {
        want_sizes(args.grad, "grad", {args.x.size[0], args.x.size[1], args.x.size[2], args.x.size[3]});
        want(args.grad.dtype == sums, "grad: want the sums' dtype");
    }
    want_loss_options(args, args.x);
}

inline void check_upsample_region_sums(const UpsampleRegionSumsArgs& args) {
    const DType sums = args.x.dtype == DType::float64 ? DType::float64 : DType::float32;
    const int64_t n = args.x.size[0], c = args.x.size[1];
    want_sizes(args.target, "target", {n, args.grid.rows.size, args.grid.columns.size});
    want(bool(args.grad.data) == bool(args.weights.data), "weights and grad: want both or none");
    for (const auto& [t, name, count] : {std::tuple{&args.sums, "sums", 3}, std::tuple{&args.weights, "weights", 2}}) {
        if (!t->data) continue;
        want_sizes(*t, name, {count, n, c});
        const bool contiguous = (t->stride[2] == 1 || c == 1) && (t->stride[1] == c || n == 1) && t->stride[0] == n * c;
        want(t->dtype == sums && contiguous, "sums and weights: want contiguous numbers of the sums' dtype");
    }
    if (args.grad.data) {
        want_sizes(args.grad, "grad", {n, c, args.x.size[2], args.x.size[3]});
        want(args.grad.dtype == sums, "grad: want the sums' dtype");
    }
}

inline void check_cross_entropy(const CrossEntropyArgs& args) {
    const Tensor& x = args.logits;
    want_sizes(args.target, "target", {x.size[0], x.size[2], x.size[3]});
    if (args.grad.data) {
        want_sizes(args.grad, "grad", {x.size[0], x.size[1], x.size[2], x.size[3]});
        want(args.grad.dtype == x.dtype, "grad: want the dtype of logits");
    }
    want_loss_options(args, x);
}

}  // namespace fcn
