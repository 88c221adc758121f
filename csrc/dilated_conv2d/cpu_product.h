// Matrix products: a block of rows and columns of the result lives in registers while the terms are gone through.
//
// The right factor comes in panels of kPanel columns, row after row; of the left one a number at a time is spread over a
// vector. Every number of the result is one chain of multiply-adds in the order of the terms, whatever block it is in, so
// results do not depend on how work is cut up.
#pragma once

#include <array>
#include <utility>

#include "../common/cells.h"
#include "../common/simd.h"

namespace fcn::FCN_ISA {

#if defined(__AVX512F__)
constexpr int kBlockRows = 14;  // of 32 registers 28 hold sums
#elif defined(__aarch64__)
constexpr int kBlockRows = 12;
#else
constexpr int kBlockRows = 6;  // of 16 registers 12
#endif
constexpr int kPanelVectors = 2;
template <class T>
constexpr int kPanel = kPanelVectors * kLanes<T>;

// How the left factor of a block lies: number (i, k)
//   chunks:  at (k / L * kBlockRows + i) * L + k % L, L lanes: what transforms of pixels store, a vector of channels at a time
//   columns: at k * step + i
enum class Left { chunks, columns };

// out[i][panel] (+)= sum over `depth` terms k of left(i, k) * right[k][panel].
template <Left kLeft, int kRows, class T>
void multiply_block(const T* left, int64_t left_step, const T* right, int64_t right_step, T* out, int64_t out_step, int64_t depth, bool add) {
    constexpr int L = kLanes<T>;
    Vec<T> sums[kRows][kPanelVectors];
#pragma GCC unroll 16
    for (int i = 0; i < kRows; ++i) {
#pragma GCC unroll 4
        for (int v = 0; v < kPanelVectors; ++v) sums[i][v] = Vec<T>{};
    }
    const int64_t chunk = kLeft == Left::chunks ? L : depth;
    for (int64_t k = 0; k < depth; k += chunk) {
        const int64_t count = imin(chunk, depth - k);
        const T* from = left + (kLeft == Left::chunks ? k * kBlockRows : 0);
        for (int64_t j = 0; j < count; ++j) {
            Vec<T> columns[kPanelVectors];
#pragma GCC unroll 4
            for (int v = 0; v < kPanelVectors; ++v) columns[v] = load(right + v * L);
#pragma GCC unroll 16
            for (int i = 0; i < kRows; ++i) {
                const Vec<T> number = splat(from[kLeft == Left::chunks ? i * L : i]);
#pragma GCC unroll 4
                for (int v = 0; v < kPanelVectors; ++v) sums[i][v] += number * columns[v];
            }
            right += right_step;
            from += kLeft == Left::chunks ? 1 : left_step;
        }
    }
#pragma GCC unroll 16
    for (int i = 0; i < kRows; ++i) {
#pragma GCC unroll 4
        for (int v = 0; v < kPanelVectors; ++v) {
            T* to = out + i * out_step + v * L;
            store(to, add ? load(to) + sums[i][v] : sums[i][v]);
        }
    }
}

template <class T>
using MultiplyBlock = void (*)(const T*, int64_t, const T*, int64_t, T*, int64_t, int64_t, bool);

template <Left kLeft, class T, int... I>
constexpr std::array<MultiplyBlock<T>, sizeof...(I)> blocks_of(std::integer_sequence<int, I...>) {
    return {multiply_block<kLeft, I + 1, T>...};
}

// By number of rows, from 1 to kBlockRows.
template <Left kLeft, class T>
inline MultiplyBlock<T> multiply_rows(int64_t rows) {
    static constexpr auto kBlocks = blocks_of<kLeft, T>(std::make_integer_sequence<int, kBlockRows>{});
    return kBlocks[rows - 1];
}

}  // namespace fcn::FCN_ISA
