// Which pixels of a map a filter's taps look at, and the pieces in which the work is cut.
#pragma once

#include "../common/cuda.h"

namespace fcn {

// One axis: pixel p of the map that is written looks with tap k at pixel p + origin + k * step of the map that is read.
// Forward, step is the dilation and origin minus the padding; for the gradient of x both change sign.
struct TapAxis {
    int size, read_size, taps, step, origin;

    FCN_HD int offset(int tap) const { return origin + tap * step; }

    // Whether any of the pixels [first, last] looks with this tap at a pixel that exists.
    FCN_HD bool sees(int first, int last, int tap) const {
        return last + offset(tap) >= 0 && first + offset(tap) < read_size;
    }
};

struct Convolution {
    TapAxis rows, columns;
    int images, read_channels, channels;
    int tile_rows, tile_columns;  // a block's rectangle of pixels
};

struct Range {
    int first, end;
};

// The taps with which pixels [first, last] see anything: offsets are monotonic, so they are consecutive.
FCN_HD Range seeing_taps(const TapAxis& axis, int first, int last) {
    Range taps{0, axis.taps};
    while (taps.first < taps.end && !axis.sees(first, last, taps.first)) ++taps.first;
    while (taps.end > taps.first && !axis.sees(first, last, taps.end - 1)) --taps.end;
    return taps;
}

// The pixels that see anything with this tap.
FCN_HD Range seeing_pixels(const TapAxis& axis, int tap) {
    const int low = -axis.offset(tap), high = axis.read_size - axis.offset(tap);
    const int first = low > 0 ? low : 0, end = high < axis.size ? high : axis.size;
    return {first, end > first ? end : first};
}

}  // namespace fcn
