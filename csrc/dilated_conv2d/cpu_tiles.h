// Tiles on their way from a map to the points and from the points to a map, a vector of channels at a time.
#pragma once

#include <limits>

#include "cpu_geometry.h"
#include "cpu_product.h"
#include "cpu_transforms.h"

namespace fcn::FCN_ISA {

constexpr int kSquare = kPoints * kPoints;

// Reads squares of kSide x kSide pixels of a map, with zeros around it. Channels may lie anywhere.
template <class T, int kSide>
class TileReader {
public:
    static constexpr int L = kLanes<T>;

    TileReader(const Tensor& map, const int64_t* dilation) : map(map), dilation(dilation), channels(map.size[1]) {}

    // The square whose first pixel is (row, column): the values at point p of channels [c, c + L) to to(c / L) + p * point_step.
    template <class To>
    void read(int64_t image, int64_t row, int64_t column, const To& to, int64_t point_step) const {
        const T* pixels[kSide * kSide];
        const T* origin = static_cast<const T*>(map.data) + image * map.stride[0];
        bool inside = true;
        for (int i = 0; i < kSide; ++i) {
            const int64_t y = row + i * dilation[0];
            for (int j = 0; j < kSide; ++j) {
                const int64_t x = column + j * dilation[1];
                const bool here = y >= 0 && y < map.size[2] && x >= 0 && x < map.size[3];
                pixels[i * kSide + j] = here ? origin + y * map.stride[2] + x * map.stride[3] : nullptr;
                inside &= here;
            }
        }
        const int64_t whole = map.stride[1] == 1 ? channels / L : 0;
        if (inside) {
            // Tiles mostly follow one another: what the next one does not share with this one comes while this is computed.
            const int64_t next = kOutputs * dilation[1] * map.stride[3];
            for (int64_t c = 0; c < whole; ++c) {
                transform([&](int p) {
                    if (p % kSide >= kSide - kOutputs) __builtin_prefetch(pixels[p] + c * L + next);
                    return load(pixels[p] + c * L);
                }, to(c), point_step);
            }
        } else {
            for (int64_t c = 0; c < whole; ++c) {
                transform([&](int p) { return pixels[p] ? load(pixels[p] + c * L) : Vec<T>{}; }, to(c), point_step);
            }
        }
        for (int64_t c = whole * L; c < channels; c += L) {
            transform([&](int p) {
                Vec<T> v = {};
                if (pixels[p]) {
                    for (int64_t i = 0; i < imin(L, channels - c); ++i) v[i] = pixels[p][(c + i) * map.stride[1]];
                }
                return v;
            }, to(c / L), point_step);
        }
    }

private:
    template <class Pixel>
    static inline void transform(const Pixel& pixel, T* to, int64_t point_step) {
        Vec<T> half[kPoints * kSide];
#pragma GCC unroll 6
        for (int j = 0; j < kSide; ++j) {
            Vec<T> column[kSide];
#pragma GCC unroll 6
            for (int i = 0; i < kSide; ++i) column[i] = pixel(i * kSide + j);
            to_points(column, half + j, kSide);
        }
#pragma GCC unroll 6
        for (int i = 0; i < kPoints; ++i) {
            Vec<T> points[kPoints];
            to_points(half + i * kSide, points, 1);
#pragma GCC unroll 6
            for (int j = 0; j < kPoints; ++j) store(to + (i * kPoints + j) * point_step, points[j]);
        }
    }

    static inline void to_points(const Vec<T>* numbers, Vec<T>* points, int step) {
        if constexpr (kSide == kPoints) input_to_points(numbers, points, step);
        else gradient_to_points(numbers, points, step);
    }

    const Tensor& map;
    const int64_t* const dilation;
    const int64_t channels;
};

// The outputs of a tile of products, point p at product + p * point_step: sums with a bias, ReLU, and into a map whose
// channels lie next to each other. Returns 0, or NaN in lanes where a sum was not finite.
template <class T>
inline Vec<T> write_tile(const T* product, int64_t point_step, T* to, int64_t row_step, int64_t column_step, int rows, int columns, int lanes,
                         Vec<T> bias, bool relu) {
    Vec<T> half[kOutputs * kPoints], finite = {};
#pragma GCC unroll 6
    for (int j = 0; j < kPoints; ++j) {
        Vec<T> points[kPoints];
#pragma GCC unroll 6
        for (int i = 0; i < kPoints; ++i) points[i] = load(product + (i * kPoints + j) * point_step);
        points_to_output(points, half + j, kPoints);
    }
    const Vec<T> least = relu ? Vec<T>{} : splat(-std::numeric_limits<T>::infinity());
    for (int i = 0; i < rows; ++i) {
        Vec<T> y[kOutputs];
        points_to_output(half + i * kPoints, y, 1);
        for (int j = 0; j < columns; ++j) {
            finite += T(0) * y[j];
            const Vec<T> sum = y[j] + bias, v = least > sum ? least : sum;
            T* pixel = to + i * row_step + j * column_step;
            if (lanes == kLanes<T>) store(pixel, v);
            else store_some(pixel, v, lanes);
        }
    }
    return finite;
}

}  // namespace fcn::FCN_ISA
