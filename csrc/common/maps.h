// Maps as rows of numbers, and strips of rows: for kernels on a GPU that are bound by memory.
//
// A map is seen as rows of `row_size` numbers: a plane [H, W] of one channel has rows of W; with channels_last an image is
// one plane whose rows have W * C numbers. Rows have no gaps; they lie anywhere. Offsets of rows are 64-bit, those
// within a row 32-bit.
#pragma once

#include <cstdint>

#include "cuda.h"
#include "sampling.h"
#include "tensor.h"

namespace fcn {

template <class T>
struct Map {
    T* data;
    int64_t stride_n, stride_c, stride_row;
    Divisor channels;  // planes of an image: C, or 1 with channels_last

    Map() = default;
    Map(const Tensor& t, bool channels_last)
        : data(static_cast<T*>(t.data)),
          stride_n(t.stride[0]),
          stride_c(channels_last ? 0 : t.stride[1]),
          stride_row(t.stride[2]),
          channels(channels_last || t.size[1] < 1 ? 1 : t.size[1]) {
        if (t.size[3] * (channels_last ? t.size[1] : 1) >= (int64_t(1) << 30)) {
            throw std::invalid_argument("a row has 2^30 numbers or more");
        }
    }

    FCN_HD T* row(int64_t plane, int64_t y) const {
        const uint32_t n = channels.divide(uint32_t(plane)), c = uint32_t(plane) - n * channels.divisor;
        return data + n * stride_n + c * stride_c + y * stride_row;
    }

    // Whether every row begins on a multiple of 16 bytes.
    bool aligned() const {
        return !data || (reinterpret_cast<uintptr_t>(data) % 16 == 0 && stride_n % kPack<T> == 0 && stride_c % kPack<T> == 0 &&
                         stride_row % kPack<T> == 0);
    }
};

// Rows of the output cut into strips of 16 bytes. Where rows do not begin on a multiple of 16 bytes, their first and last
// strips are partial: a strip's number 0 may lie in front of the row.
struct Strips {
    int row_size;     // numbers
    Divisor inner;    // numbers of a pixel
    Divisor per_row;  // strips
    bool aligned;

    template <class T>
    static Strips of(const Tensor& out, bool channels_last) {
        const int64_t inner = channels_last ? out.size[1] : 1, size = out.size[3] * inner;
        Strips s;
        s.row_size = int(size);
        s.inner = Divisor(inner);
        s.aligned = size % kPack<T> == 0 && Map<T>(out, channels_last).aligned();
        s.per_row = Divisor(s.aligned ? size / kPack<T> : (size + kPack<T> - 2) / kPack<T> + 1);
        if (s.per_row.divisor * out.size[2] >= (int64_t(1) << 31)) throw std::invalid_argument("a plane has too many numbers");
        return s;
    }
};

constexpr int64_t kManyBlocks = 2048;  // of 256 threads: about twice what the largest GPUs hold at once

// Blocks of 256 threads, one thread for each strip of a plane; several planes for each thread once the GPU is full.
inline dim3 strip_grid(const Strips& strips, int64_t height, int64_t planes) {
    if (planes >= (int64_t(1) << 31)) throw std::invalid_argument("a tensor has 2^31 planes or more");
    const int64_t blocks = (strips.per_row.divisor * height + 255) / 256;
    int64_t parallel = planes;
    while (parallel > 65535 || (parallel > (planes + 3) / 4 && blocks * parallel > 2 * kManyBlocks)) parallel = (parallel + 1) / 2;
    return dim3(unsigned(blocks), unsigned(parallel));
}

// Rows that a thread makes where it walks down them, `blocks` blocks to a row: many, since a walk begins with a row more,
// but few enough to fill a GPU.
inline int band_rows(int64_t blocks, int64_t height) {
    int64_t band = 32;
    while (band > 1 && blocks * ((height + band - 1) / band) < kManyBlocks) band /= 2;
    while ((height + band - 1) / band > 65535) band *= 2;
    return int(band);
}

// How many numbers in front of `row` a multiple of 16 bytes is.
template <class T>
FCN_D int misalignment(const T* row) {
    return int(reinterpret_cast<uintptr_t>(row) % 16 / sizeof(T));
}

// v, plus `skip` unless that is null, to the numbers begin, begin + 1, ... of a row, as far as the row has them.
template <class T, int kCount>
FCN_D void add_and_store(T* out, const T* skip, int begin, int row_size, float (&v)[kCount]) {
    const bool whole = begin >= 0 && begin + kCount <= row_size;
    if (skip) {
        if (whole && misalignment(skip + begin) == 0) {
            const auto added = read_pack<kCount>(skip + begin);
#pragma unroll
            for (int k = 0; k < kCount; ++k) v[k] += to_float(added.v[k]);
        } else {
#pragma unroll
            for (int k = 0; k < kCount; ++k) {
                if (unsigned(begin + k) < unsigned(row_size)) v[k] += to_float(read(skip + begin + k));
            }
        }
    }
    if (whole) {
        Pack<T, kCount> pack;
#pragma unroll
        for (int k = 0; k < kCount; ++k) pack.v[k] = from_float<T>(v[k]);
        write_pack(out + begin, pack);
    } else {
#pragma unroll
        for (int k = 0; k < kCount; ++k) {
            if (unsigned(begin + k) < unsigned(row_size)) out[begin + k] = from_float<T>(v[k]);
        }
    }
}

}  // namespace fcn
