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

// The pixels begin, begin + 1, ... of an axis that lie between two neighbouring inputs; pixel `begin + k` is
// `t + k * slope` of the way.
struct Cell {
    int begin, end;
    float t, slope;
};

constexpr int kMargin = 16;  // pixels in front of an axis and behind it that may be asked for, too

struct Sampling {
    int64_t step, origin, denominator;  // origin is such that no pixel asked for lies below 0; `bias` cells are taken off
    Divisor narrow_denominator, narrow_step;
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
        narrow = double(step) * double(axis.size + kMargin) + double(origin) < 2147483648.0 &&
                 double(denominator) * double(input + bias + 1) < 2147483648.0;
        if (narrow) narrow_denominator = Divisor(denominator), narrow_step = Divisor(step > 0 ? step : 1);
    }

    FCN_HD Sample at(int y) const {
        const int64_t numerator = step * y + origin;
        const int64_t cell = narrow ? narrow_denominator.divide(uint32_t(numerator)) : numerator / denominator;
        const int64_t rest = numerator - cell * denominator;
        return {int(cell) - bias, float(rest) * inverse, rest};
    }

    // Cell c lies between inputs c and c + 1, c = -1 ... input_size - 1. Under `clamp` the cells at the ends hold all pixels
    // beyond, at the input that is there; otherwise the input that is not there counts for nothing.
    FCN_HD Cell cell(int c) const {
        const bool first = c < 0, last = c == input_size - 1;
        Cell r;
        r.begin = clamp && first ? 0 : first_in(c);
        r.end = clamp && last ? size : first_in(c + 1);
        r.t = clamp && (first || last) ? float(first) : float(step * r.begin + origin - (int64_t(c) + bias) * denominator) * inverse;
        r.slope = clamp && (first || last) ? 0 : float(step) * inverse;
        return r;
    }

    // The first pixel that lies in cell c or behind it.
    FCN_HD int first_in(int c) const {
        const int64_t ahead = (int64_t(c) + bias) * denominator - origin;
        if (ahead <= 0) return 0;
        if (step == 0) return size;
        const int64_t pixel = narrow ? narrow_step.divide(uint32_t(ahead + step - 1)) : (ahead + step - 1) / step;
        return pixel < size ? int(pixel) : size;
    }

    FCN_HD bool inside(int cell) const { return unsigned(cell) < unsigned(input_size); }
    FCN_HD int clamped(int cell) const { return cell < 0 ? 0 : cell < input_size ? cell : input_size - 1; }
    // The input that a tap reads, and whether it counts.
    FCN_HD bool counts(int cell) const { return clamp || inside(cell); }
};

}  // namespace fcn
