// Maps as rows, and finished rows on their way to memory: for kernels that are bound by it.
//
// Maps are seen as rows of `width` items of `inner` numbers each: a plane [H, W] of one channel has inner = 1; with
// channels_last an image is one plane whose items are pixels and inner = C.
#pragma once

#include <type_traits>

#include "cells.h"
#include "convert.h"
#include "half.h"
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

    // The first row of a plane. To be found once for many rows: a division costs as much as a few vectors.
    S* plane(int64_t plane) const { return data + plane / channels * stride_n + plane % channels * stride_c; }
    S* row(int64_t p, int64_t y) const { return plane(p) + y * stride_row; }
};

// How many of the numbers left go into one vector.
template <class T>
inline int clamp_count(int left) {
    return left < 0 ? 0 : left < kLanes<T> ? left : kLanes<T>;
}

// A vector of numbers, of which `count` are in memory; the others are 0.
template <class T, class S>
inline Vec<T> load_numbers(const S* from, int count = kLanes<T>) {
    if constexpr (std::is_same_v<S, T>) {
        return count == kLanes<T> ? load(from) : load_some(from, count);
    } else {
        return count == kLanes<T> ? load_halves(from) : load_some_halves(from, count);
    }
}

template <class T, class S>
inline void store_numbers(S* to, Vec<T> v, int count = kLanes<T>) {
    if constexpr (std::is_same_v<S, T>) {
        count == kLanes<T> ? store(to, v) : store_some(to, v, count);
    } else {
        count == kLanes<T> ? store_halves(to, v) : store_some_halves(to, v, count);
    }
}

// Adjacent numbers to memory, past the cache where that is aligned: at(i, n) makes those from i on, n of them.
template <class F>
inline void stream_all(float* to, int64_t count, const F& at) {
    constexpr int L = kLanes<float>;
    const int64_t ahead = int64_t(reinterpret_cast<uintptr_t>(to) / sizeof(float)) % L;
    int64_t i = ahead == 0 ? 0 : L - ahead < count ? L - ahead : count;
    if (i > 0) store_some(to, at(0, int(i)), int(i));
    for (; i + L <= count; i += L) stream(to + i, at(i, L));
    if (i < count) store_some(to + i, at(i, int(count - i)), int(count - i));
}

// at(i, n), the numbers from i on, n of them, of a row to `out` in its dtype; the whole result has `total` numbers.
template <class T, class S, class F>
inline void write_row(S* out, int64_t count, int64_t total, const F& at) {
    constexpr int L = kLanes<T>;
    if constexpr (std::is_same_v<S, float>) {
        if (large(total)) return stream_all(out, count, at);
    }
    int64_t i = 0;
    for (; i + L <= count; i += L) store_numbers<T>(out + i, at(i, L));
    if (i == count) return;
    if (count > L) {
        store_numbers<T>(out + count - L, at(count - L, L));  // some of them again: cheaper than a part of a vector
    } else {
        store_numbers<T>(out, at(0, int(count)), int(count));
    }
}

// The same of a row in memory, plus `skip` unless that is null.
template <class T, class S>
inline void finish_row(S* out, const T* row, const S* skip, int64_t count, int64_t total) {
    write_row<T>(out, count, total, [&](int64_t i, int n) {
        const Vec<T> v = load_numbers<T>(row + i, n);
        return skip ? v + load_numbers<T>(skip + i, n) : v;
    });
}

// The last rows of one plane that were made ready: a row stays until another takes its place.
template <class T>
struct Ring {
    T* rows;
    int64_t* held;  // the row in each place, or -1
    int64_t places, row_size;  // places: a power of two, for the price of a remainder

    static Ring take(Arena& arena, int64_t least, int64_t row_size) {
        int64_t places = 1;
        while (places < least) places *= 2;
        return {arena.take<T>(places * row_size), arena.take<int64_t>(places), places, row_size};
    }

    void clear() const {
        for (int64_t i = 0; i < places; ++i) held[i] = -1;
    }

    template <class F>
    const T* get(int64_t row, const F& make) const {
        const int64_t place = row & (places - 1);
        T* at = rows + place * row_size;
        if (held[place] != row) make(at), held[place] = row;
        return at;
    }
};

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
