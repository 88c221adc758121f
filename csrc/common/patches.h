// How output pixels are cut up for a GPU's threads: into coarse cells, the patches of pixels that sample the same four
// scores, in which every class's score is bilinear in the pixel's index. A thread has a run of a cell's rows and of its
// columns. Whole-number arithmetic, exact for any BilinearGrid.
#pragma once

#include <numeric>

#include "cuda.h"
#include "sampling.h"

namespace fcn {

inline int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
inline int64_t floor_div(int64_t a, int64_t b) { return a / b - (a % b != 0 && (a < 0) != (b < 0)); }

// Division of whole numbers in [0, 2^62), with a quotient below 2^31, by one that is known before a kernel starts.
struct WideDivisor {
    int64_t divisor;
    double inverse;

    WideDivisor() = default;
    explicit WideDivisor(int64_t d) : divisor(d), inverse(1.0 / double(d)) {}

    FCN_HD int64_t divide(int64_t n) const {
        const int64_t estimate = int64_t(double(n) * inverse), rest = n - estimate * divisor;  // off by one at most
        return estimate + (rest >= divisor) - (rest < 0);
    }
};

// Consecutive pixels of one axis in one cell; pixel k lies at t + k * slope between the cell's two corners.
struct Run {
    int first, count;
    float t;
};

// One axis in units, and units in runs. A unit is a cell, with up to kMaxPieces runs; longer cells are several units. Where
// pixels are a cell apart or more, each is a unit. So unit u lies between corners u and u + 1 of the axis (`shared`), or
// has two corners of its own.
struct AxisPatches {
    static constexpr int kMaxPieces = 16;

    int64_t step, origin, denominator, first_cell, last_cell;
    WideDivisor by_step, by_denominator;
    Divisor by_per_cell;
    int size, input_size;
    int units, pieces, length;  // a unit's runs, and the pixels of a run, at most
    int per_cell;               // units of a cell; 0 where a unit is a pixel
    float slope, inverse;       // 1 / denominator
    bool clamp;

    AxisPatches() = default;
    AxisPatches(const Axis& axis, int64_t input, bool clamped, int longest_run)
        : size(int(axis.size)), input_size(int(input)), clamp(clamped) {
        const int64_t common = std::gcd(std::gcd(axis.step, axis.origin), axis.denominator);
        step = axis.step / common, origin = axis.origin / common, denominator = axis.denominator / common;
        slope = float(double(step) / double(denominator));
        inverse = float(1.0 / double(denominator));
        first_cell = floor_div(origin, denominator);
        last_cell = floor_div(step * (size - 1) + origin, denominator);
        by_step = WideDivisor(step > 0 ? step : 1), by_denominator = WideDivisor(denominator);
        if (step >= denominator) {
            units = size, pieces = length = 1, per_cell = 0;
        } else {
            const int64_t longest = step > 0 && ceil_div(denominator, step) < size ? ceil_div(denominator, step) : size;
            pieces = int(ceil_div(longest, longest_run));
            length = int(ceil_div(longest, pieces));
            if (pieces > kMaxPieces) pieces = kMaxPieces;
            per_cell = int(ceil_div(longest, int64_t(pieces) * length));
            units = int(last_cell - first_cell + 1) * per_cell;
        }
        by_per_cell = Divisor(per_cell > 0 ? per_cell : 1);
    }

    FCN_HD bool shared() const { return per_cell == 1; }

    FCN_HD int64_t cell_of_unit(int unit) const {
        if (per_cell > 0) return first_cell + by_per_cell.divide(uint32_t(unit));
        return first_cell + by_denominator.divide(step * unit + origin - first_cell * denominator);
    }

    // The first pixel that lies in `cell` or beyond.
    FCN_HD int begin_of_cell(int64_t cell) const {
        const int64_t distance = cell * denominator - origin;
        if (cell <= first_cell || distance <= 0) return 0;
        if (cell > last_cell) return size;
        return int(by_step.divide(distance + step - 1));
    }

    FCN_HD Run run(int unit, int piece) const {
        const int64_t cell = cell_of_unit(unit);
        int first = unit, end = unit + 1;
        if (per_cell > 0) {
            first = begin_of_cell(cell) + ((unit - int(cell - first_cell) * per_cell) * pieces + piece) * length;
            end = begin_of_cell(cell + 1);
            end = end < first + length ? end : first + length;
        }
        return {first, end > first ? end - first : 0, float(step * first + origin - cell * denominator) * inverse};
    }

    FCN_HD int nearest(int64_t cell) const { return int(cell < 0 ? 0 : cell < input_size ? cell : input_size - 1); }

    // The input pixel at corner `cell`, or -1 where the border makes it zero.
    FCN_HD int corner(int64_t cell) const { return clamp || (cell >= 0 && cell < input_size) ? nearest(cell) : -1; }
};

}  // namespace fcn
