// Between memory and a tile: numbers of kTile pixels as [C][kTile], whatever their layout and dtype outside.
#pragma once

#include "../common/rows.h"

namespace fcn::FCN_ISA {

constexpr int kTile = 128;  // pixels: whole cache lines of every class plane, and 21 of them leave room in the nearest cache

// tile[c][i] = from[c * class_stride + i], and the largest of each pixel.
template <class T, class S>
inline void read_planes(T* tile, T* peak, const S* from, int64_t class_stride, int classes, int count) {
    constexpr int L = kLanes<T>, kGroup = 4;
    static_assert(kTile % (kGroup * L) == 0);
    const auto read = [&](int i, auto numbers) {
        Vec<T> largest[kGroup];
        for (int c = 0; c < classes; ++c) {
            for (int j = 0; j < kGroup; ++j) {
                const Vec<T> v = numbers(from + c * class_stride, i + j * L);
                store(tile + c * kTile + i + j * L, v);
                largest[j] = c == 0 ? v : vmax(v, largest[j]);
            }
        }
        for (int j = 0; j < kGroup; ++j) store(peak + i + j * L, largest[j]);
    };
    for (int i = 0; i < kTile; i += kGroup * L) {
        if (i + kGroup * L <= count) {
            read(i, [](const S* plane, int at) { return load_numbers<T>(plane + at); });
        } else {
            read(i, [&](const S* plane, int at) { return load_numbers<T>(plane + at, clamp_count<T>(count - at)); });
        }
    }
}

// The largest of each pixel alone, of kTile pixels.
template <class T>
inline void find_peaks(T* peak, const T* from, int64_t class_stride, int classes) {
    constexpr int L = kLanes<T>, kGroup = 4;
    for (int i = 0; i < kTile; i += kGroup * L) {
        Vec<T> largest[kGroup];
        for (int j = 0; j < kGroup; ++j) largest[j] = load(from + i + j * L);
        for (int c = 1; c < classes; ++c) {
            for (int j = 0; j < kGroup; ++j) largest[j] = vmax(load(from + c * class_stride + i + j * L), largest[j]);
        }
        for (int j = 0; j < kGroup; ++j) store(peak + i + j * L, largest[j]);
    }
}

// The same from pixels of adjacent classes: tile[c][i] = from[i * pixel_stride + c]. Squares are transposed in registers.
template <class T, class S>
inline void read_pixels(T* tile, T* peak, const S* from, int64_t pixel_stride, int classes, int count) {
    constexpr int L = kLanes<T>;
    for (int i = 0; i < kTile; i += L) {
        Vec<T> largest = {}, square[L];
        for (int c = 0; c < classes; c += L) {
            const S* corner = from + i * pixel_stride + c;
            const int width = clamp_count<T>(classes - c), height = clamp_count<T>(count - i);
            if (width == L && height == L) {
                for (int j = 0; j < L; ++j) square[j] = load_numbers<T>(corner + j * pixel_stride);
            } else {
                for (int j = 0; j < L; ++j) square[j] = j < height ? load_numbers<T>(corner + j * pixel_stride, width) : Vec<T>{};
            }
            transpose<T>(square);
            if (c == 0) largest = square[0];
            for (int j = 0; j < width; ++j) {
                store(tile + (c + j) * kTile + i, square[j]);
                largest = vmax(square[j], largest);
            }
        }
        store(peak + i, largest);
    }
}

// Any other layout, one number at a time.
template <class T, class S>
inline void read_strided(T* tile, T* peak, const S* from, int64_t class_stride, int64_t pixel_stride, int classes, int count) {
    for (int c = 0; c < classes; ++c) {
        for (int i = 0; i < kTile; ++i) {
            const T v = i < count ? T(to_number(from[c * class_stride + i * pixel_stride])) : T(0);
            tile[c * kTile + i] = v;
            peak[i] = c == 0 || v > peak[i] ? v : peak[i];
        }
    }
}

// to[c * class_stride + i] = at(c, i), where `at` makes a vector of adjacent pixels; past the cache if `past` and aligned.
template <class T, class S, class F>
inline void write_planes(S* to, int64_t class_stride, int classes, int count, bool past, const F& at) {
    constexpr int L = kLanes<T>;
    for (int c = 0; c < classes; ++c, to += class_stride) {
        int i = 0;
        if constexpr (std::is_same_v<S, float>) {
            if (past && aligned(to)) {
                for (; i + L <= count; i += L) stream(to + i, at(c, i));
            }
        }
        for (; i < count; i += L) store_numbers<T>(to + i, at(c, i), clamp_count<T>(count - i));
    }
}

// to[i * pixel_stride + c] = at(c, i).
template <class T, class S, class F>
inline void write_pixels(S* to, int64_t pixel_stride, int classes, int count, const F& at) {
    constexpr int L = kLanes<T>;
    Vec<T> square[L];
    for (int i = 0; i < count; i += L) {
        for (int c = 0; c < classes; c += L) {
            const int width = clamp_count<T>(classes - c), height = clamp_count<T>(count - i);
            S* const corner = to + i * pixel_stride + c;
            for (int j = 0; j < L; ++j) square[j] = j < width ? at(c + j, i) : Vec<T>{};
            transpose<T>(square);
            if (width == L && height == L) {
                for (int j = 0; j < L; ++j) store_numbers<T>(corner + j * pixel_stride, square[j]);
            } else {
                for (int j = 0; j < height; ++j) store_numbers<T>(corner + j * pixel_stride, square[j], width);
            }
        }
    }
}

template <class T, class S, class F>
inline void write_strided(S* to, int64_t class_stride, int64_t pixel_stride, int classes, int count, const F& at) {
    for (int c = 0; c < classes; ++c) {
        for (int i = 0; i < count; ++i) from_number(at(c, i - i % kLanes<T>)[i % kLanes<T>], to[c * class_stride + i * pixel_stride]);
    }
}

}  // namespace fcn::FCN_ISA
