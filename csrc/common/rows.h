// Maps as rows, and finished rows on their way to memory: for kernels that are bound by it.
//
// Maps are seen as rows of `width` items of `inner` numbers each: a plane [H, W] of one channel has inner = 1; with
// channels_last an image is one plane whose items are pixels and inner = C.
#pragma once

#include <type_traits>

#include "convert.h"
#include "simd.h"
#include "tensor.h"

namespace fcn::FCN_ISA {

template <class S>
struct Planes {
    S* data;
    int64_t stride_n, stride_c, stride_row, stride_item;
    int64_t channels;  // planes of an image: C, or 1 with channels_last

    Planes(const Tensor& t, bool channels_last)
        : data(static_cast<S*>(t.data)),
          stride_n(t.stride[0]),
          stride_c(channels_last ? 0 : t.stride[1]),
          stride_row(t.stride[2]),
          stride_item(t.stride[3]),
          channels(channels_last ? 1 : t.size[1]) {}

    S* row(int64_t plane, int64_t y) const {
        return data + plane / channels * stride_n + plane % channels * stride_c + y * stride_row;
    }
};

// `row`, plus `skip` unless that is null, to `out` in its dtype; the whole result has `total` numbers.
template <class T, class S>
inline void finish_row(S* out, const T* row, const S* skip, int64_t count, int64_t total) {
    if constexpr (sizeof(S) == sizeof(float) && sizeof(T) == sizeof(float)) {
        if (large(total) && aligned(out) && count % kLanes<T> == 0) {
            for (int64_t i = 0; i < count; i += kLanes<T>) stream(out + i, skip ? load(row + i) + load(skip + i) : load(row + i));
            return;
        }
    }
    if (skip) {
        for (int64_t i = 0; i < count; ++i) from_number(row[i] + T(to_number(skip[i])), out[i]);
    } else {
        for (int64_t i = 0; i < count; ++i) from_number(row[i], out[i]);
    }
}

// Calls f with null pointers of the type that is computed in and of the type that is stored.
template <class F>
inline void with_types(DType dtype, const F& f) {
    with_float_dtype(dtype, [&](auto* type) {
        using S = std::remove_pointer_t<decltype(type)>;
        using T = std::conditional_t<std::is_same_v<S, double>, double, float>;
        f((T*)nullptr, type);
    });
}

}  // namespace fcn::FCN_ISA
