// A block of the loss: what both paths through it share.
#pragma once

#include "../common/block.h"

namespace fcn::FCN_ISA {

template <class T>
struct LossBlock : Block<T> {
    const T* coefficient;  // [pixel][lane] weight of log-sum-exp; null: 1 for each pixel that a lane has
};

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
inline Vec<T> normalise(const LossBlock<T>& b, int row, int column, Vec<T> s, LogSum<T>& logs, Vec<T>& weighted) {
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
