// One block: a vector of cells, all classes, up to 8 x 8 pixels a cell. What both paths through it share.
#pragma once

#include "../common/cells.h"

namespace fcn::FCN_ISA {

constexpr int kMaxPixels = kMaxRun * kMaxRun;

template <class T>
struct Block {
    using V = Vec<T>;

    // Scores of the cells' upper corners for class 0, as Packed lays them out; the lower corners lie `below` further on.
    const T *left, *slope;
    T *grad_left, *grad_slope;  // the gradient's sums, alike; null when no gradient is wanted
    int64_t class_stride, below;
    int classes;
    bool finite;  // all scores are

    V t_column, t_row;          // where each cell's first pixel lies between its corners
    V n_column, n_row;          // how many pixels each lane really has
    T column_step, row_step;    // from pixel to pixel, in cells
    int columns, rows;          // pixels looped over: the most that any lane has

    const T* coefficient;       // [pixel][lane] weight of log-sum-exp; null: 1 for each pixel that a lane has

    // Scratch.
    T* pixel;    // [pixel][lane]
    T* params;   // [class][4][lane]
    T* exps;     // [class][kMaxRun][lane]: exact path
};

// Adds a vector of column sums for one class to the corners' gradients.
template <class T>
inline void add_to(T* p, Vec<T> v) {
    store(p, load<T>(p) + v);
}

// Mask of the lanes that have pixel (row, column).
template <class T>
inline auto has_pixel(const Block<T>& b, int row, int column) {
    return (splat(T(column)) < b.n_column) & (splat(T(row)) < b.n_row);
}

// The sum of logarithms. In float32 mantissas are multiplied and exponents added, with one logarithm at the end:
// at most kMaxPixels factors in [1, 2), so the product cannot overflow.
template <class T>
class LogSum {
public:
    void add(Vec<T> s) { sum_ = sum_ + vlog(s); }
    double total() const { return sum<T>(sum_); }

private:
    Vec<T> sum_ = {};
};

template <>
class LogSum<float> {
public:
    void add(Vec<float> s) {
        const Vec<int32_t> bits = (Vec<int32_t>)s;
        exponent_ += (bits >> 23) - 127;
        product_ *= (Vec<float>)((bits & 0x007fffff) | 0x3f800000);
        poison_ += s - s;  // NaN and infinity have mantissas too
    }
    double total() const {
        double result = 0;
        const Vec<float> logs = vlog(product_);
        int64_t exponents = 0;
        for (int i = 0; i < kLanes<float>; ++i) result += logs[i] + poison_[i], exponents += exponent_[i];
        return result + double(exponents) * 0.69314718055994530942;
    }

private:
    Vec<float> product_ = splat(1.f), poison_ = {};
    Vec<int32_t> exponent_ = {};
};

// From sums of exponentials (relative to `peak`, per pixel of a row) to log-sum-exp, and to the factor that turns
// exponentials into gradients: coefficient / sum. Returns the factor.
template <class T>
inline Vec<T> normalise(const Block<T>& b, int row, int column, Vec<T> s, LogSum<T>& logs, Vec<T>& weighted) {
    if (b.coefficient) {
        const Vec<T> w = load(b.coefficient + (row * b.columns + column) * kLanes<T>);
        const auto counts = (w != T(0)) & has_pixel(b, row, column);
        s = counts ? s : splat(T(1));
        weighted += counts ? w * vlog(s) : Vec<T>{};
        return counts ? w * reciprocal(s) : Vec<T>{};
    }
    const auto counts = has_pixel(b, row, column);
    s = counts ? s : splat(T(1));
    logs.add(s);
    return counts ? reciprocal(s) : Vec<T>{};
}

}  // namespace fcn::FCN_ISA
