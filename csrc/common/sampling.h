// Where output pixels of one axis sample the input, for kernels on a GPU: the whole-number arithmetic of a BilinearGrid,
// exact at any size, without a division.
#pragma once

#include <cstdint>
#include <numeric>

#include "cuda.h"
#include "tensor.h"

namespace fcn {

// Division of numbers below 2^31 by one that is known before a kernel starts: a multiplication, an addition, a shift.
struct Divisor {
    uint32_t divisor, multiplier, shift;

    Divisor() = default;
    explicit Divisor(int64_t d) : divisor(uint32_t(d)), multiplier(0), shift(0) {
        while ((uint64_t(1) << shift) < divisor) ++shift;
        multiplier = uint32_t(((uint64_t(1) << 32) * ((uint64_t(1) << shift) - divisor)) / divisor + 1);
    }

    FCN_HD uint32_t divide(uint32_t n) const { return (uint32_t(uint64_t(n) * multiplier >> 32) + n) >> shift; }
};

// A pixel lies `t` of the way from input `cell` to the next; `rest` is t in units of 1 / denominator.
struct Sample {
    int cell;
    float t;
    int64_t rest;
};

constexpr int kMargin = 16;  // pixels in front of an axis and behind it that may be asked for, too

struct Sampling {
    int64_t step, origin, denominator;  // origin is such that no pixel asked for lies below 0; `bias` cells are taken off
    Divisor narrow_denominator;
    float inverse;
    int size, input_size, bias;
    bool clamp, narrow;  // narrow: 32 bits are enough

    Sampling() = default;
    Sampling(const Axis& axis, int64_t input, bool clamped) : size(int(axis.size)), input_size(int(input)), clamp(clamped) {
        const int64_t common = std::gcd(std::gcd(axis.step, axis.origin), axis.denominator);
        step = axis.step / common, origin = axis.origin / common, denominator = axis.denominator / common;
        const int64_t lowest = origin - kMargin * step;
        const int64_t cells = lowest < 0 ? (-lowest + denominator - 1) / denominator : 0;
        origin += cells * denominator;
        bias = int(cells);
        inverse = float(1.0 / double(denominator));
        narrow = double(step) * double(axis.size + kMargin) + double(origin) < 2147483648.0;
        if (narrow) narrow_denominator = Divisor(denominator);
    }

    FCN_HD Sample at(int y) const {
        const int64_t numerator = step * y + origin;
        const int64_t cell = narrow ? narrow_denominator.divide(uint32_t(numerator)) : numerator / denominator;
        const int64_t rest = numerator - cell * denominator;
        return {int(cell) - bias, float(rest) * inverse, rest};
    }

    FCN_HD bool inside(int cell) const { return unsigned(cell) < unsigned(input_size); }
    FCN_HD int clamped(int cell) const { return cell < 0 ? 0 : cell < input_size ? cell : input_size - 1; }
    // The input that a tap reads, and whether it counts.
    FCN_HD bool counts(int cell) const { return clamp || inside(cell); }
};

}  // namespace fcn
