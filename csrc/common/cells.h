// How output pixels are cut up: into coarse cells, the patches of pixels that sample the same four scores.
//
// Inside a cell every class's score is bilinear in the pixel's index, for any BilinearGrid. The kernels give each vector
// lane a cell (a piece of one, if it has more than 8 x 8 pixels) and loop over its pixels: no shuffles, no gathers.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <limits>
#include <new>
#include <type_traits>
#if defined(__linux__)
#include <sys/mman.h>
#endif

#include "convert.h"
#include "simd.h"
#include "tensor.h"

namespace fcn::FCN_ISA {

constexpr int kMaxRun = 8;  // pixels a lane handles along one axis

// Interpolation between scores that may be infinite (a class may be excluded by -inf): along(a, t, difference(a, b)) for t
// in [0, 1). What has weight 0 counts for nothing, whatever it is; an infinite score with a weight is the result, and NaN
// or infinities of both signs make NaN. Of vectors and of numbers. With `finite`, where all scores are, it is what one
// would write without these.
template <bool finite = false, class V>
inline V difference(V a, V b) {
    if (finite) return b - a;
    const auto lasts = (a - a != V{}) & ((b - b == V{}) | (a == b));  // a is infinite, and stays so on the way to b
    return lasts ? V{} : b - a;
}

template <bool finite = false, class V>
inline V along(V a, V t, V d) {
    if (finite) return a + t * d;
    return t != V{} ? a + t * d : a;
}

// A score that counts with a weight, for nothing if that is 0.
template <bool finite = false, class V>
inline V times(V weight, V score) {
    if (finite) return weight * score;
    return weight != V{} ? weight * score : V{};
}

inline int64_t imin(int64_t a, int64_t b) { return a < b ? a : b; }
inline int64_t imax(int64_t a, int64_t b) { return a > b ? a : b; }
inline int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

// Carves arrays out of a workspace; with a null base it only counts the bytes.
class Arena {
public:
    explicit Arena(void* base) : base_(static_cast<char*>(base)) {}

    template <class T>
    T* take(int64_t count) {
        const int64_t at = used_;
        used_ += ceil_div(count * int64_t(sizeof(T)), 64) * 64;
        return base_ ? reinterpret_cast<T*>(base_ + at) : nullptr;
    }

    int64_t used() const { return used_; }

private:
    char* base_;
    int64_t used_ = 0;
};

// Asks for large pages where some fit: memory that is fresh from the system otherwise costs a fault for every 4 KB.
inline void want_large_pages([[maybe_unused]] void* data, [[maybe_unused]] int64_t bytes) {
#if defined(MADV_HUGEPAGE)
    constexpr intptr_t kLarge = 2 << 20;
    const intptr_t first = (reinterpret_cast<intptr_t>(data) + kLarge - 1) / kLarge * kLarge;
    const intptr_t last = (reinterpret_cast<intptr_t>(data) + bytes) / kLarge * kLarge;
    if (first < last) madvise(reinterpret_cast<void*>(first), last - first, MADV_HUGEPAGE);
#endif
}

// Working memory of one call: `layout` is run twice, to count the bytes and to carve them out.
class Memory {
public:
    template <class F>
    explicit Memory(const F& layout) {
        Arena sizes(nullptr);
        layout(sizes);
        data_ = std::aligned_alloc(64, imax(64, sizes.used()));
        if (!data_) throw std::bad_alloc();
        want_large_pages(data_, sizes.used());
        Arena arena(data_);
        layout(arena);
    }
    ~Memory() { std::free(data_); }
    Memory(const Memory&) = delete;
    Memory& operator=(const Memory&) = delete;

private:
    void* data_;
};

// Consecutive pixels of one axis in one cell. Pixel k of the run lies at t + k * slope between corners top and top + 1.
struct Run {
    int32_t first, count, top;
    double t;
};

// One axis cut into runs. corner[i] is the input index of corner i, or -1 where the border makes it zero.
struct Runs {
    Run* run;
    int32_t* corner;
    int count, corners, longest;
    int straight, straight_end;  // corners that follow one another in the input too, inside it
    double slope;
    bool one_per_cell;  // run i lies between corners i and i + 1
};

inline void allocate_runs(Runs& runs, Arena& arena, int64_t size) {
    runs.run = arena.take<Run>(size);
    runs.corner = arena.take<int32_t>(2 * size);
}

inline void build_runs(Runs& runs, const Axis& axis, int64_t input_size, bool clamp) {
    runs.count = runs.corners = runs.longest = 0;
    runs.slope = double(axis.step) / double(axis.denominator);
    runs.one_per_cell = true;
    int64_t cell = axis.origin / axis.denominator, rest = axis.origin % axis.denominator;
    if (rest < 0) rest += axis.denominator, --cell;
    int64_t last_cell = cell - 2;
    for (int64_t y = 0; y < axis.size;) {
        const int64_t here = cell, first = y;
        Run run{int32_t(first), 0, 0, double(rest) / double(axis.denominator)};
        while (y < axis.size && cell == here) {
            ++y;
            rest += axis.step;
            if (rest >= axis.denominator) cell += rest / axis.denominator, rest %= axis.denominator;
        }
        if (here != last_cell + 1) ++runs.corners;  // corners are not shared with the run before
        if (runs.count > 0 && here != last_cell + 1) runs.one_per_cell = false;
        run.top = runs.corners - 1;
        for (int i = 0; i < 2; ++i) {
            const int64_t index = here + i;
            const bool inside = index >= 0 && index < input_size;
            runs.corner[run.top + i] = int32_t(inside ? index : clamp ? imin(imax(index, 0), input_size - 1) : -1);
        }
        ++runs.corners;
        last_cell = here;
        const int64_t pixels = y - first, pieces = ceil_div(pixels, kMaxRun), piece = ceil_div(pixels, pieces);
        if (pieces > 1) runs.one_per_cell = false;
        for (int64_t at = 0; at < pixels; at += piece) {
            Run part = run;
            part.first += int32_t(at);
            part.count = int32_t(imin(piece, pixels - at));
            part.t += double(at) * runs.slope;
            runs.run[runs.count++] = part;
            if (part.count > runs.longest) runs.longest = part.count;
        }
    }
    runs.straight = 0;
    while (runs.straight + 1 < runs.corners && runs.corner[runs.straight + 1] != runs.corner[runs.straight] + 1) ++runs.straight;
    if (runs.corner[runs.straight] < 0) ++runs.straight;
    runs.straight_end = runs.straight;
    while (runs.straight_end < runs.corners && runs.corner[runs.straight_end] == runs.corner[runs.straight] + runs.straight_end - runs.straight) {
        ++runs.straight_end;
    }
}

// A band: consecutive runs of rows, the unit of parallel work. Bands depend on the shape alone, never on the number of
// threads, so that sums come out the same bit for bit.
struct Bands {
    int count, runs, corners;  // number of bands; runs and corners of the largest one
};

inline Bands plan_bands(const Runs& rows, const Runs& columns, int64_t images, int64_t classes, int64_t item_size) {
    // Four arrays of classes x corners x lanes should stay in a core's second-level cache, and there should be tasks
    // enough to go round.
    const int64_t row_bytes = 4 * classes * imax(columns.count, 1) * item_size;
    const int64_t fits = imax(1, (768 << 10) / row_bytes - 1);
    const int64_t wanted = imax(1, ceil_div(rows.count, ceil_div(32, imax(images, 1))));
    int64_t runs = imin(imin(fits, wanted), imax(rows.count, 1));
    const int64_t in_cell = rows.one_per_cell ? 1 : ceil_div(rows.count, imax(1, rows.corners - 1));
    runs = ceil_div(runs, in_cell) * in_cell;  // keeps the pieces of a cell together, mostly
    Bands bands{int(ceil_div(rows.count, runs)), int(runs), 0};
    for (int64_t first = 0; first < rows.count; first += runs) {
        const int64_t last = imin(first + runs, rows.count) - 1;
        bands.corners = int(imax(bands.corners, rows.run[last].top + 2 - rows.run[first].top));
    }
    return bands;
}

// The scores of a band, ready for lanes. For class c, corner row r and run of columns (lane) p:
//   left[at(c, r) + p]   the score at the run's left corner,
//   slope[at(c, r) + p]  right corner less left corner (see `difference`).
// Runs of rows that share corners only with their neighbours are flattened: lane index p may run on into the next row
// of corners, which is the next run of rows, so vectors are full for any width.
template <class T>
struct Packed {
    T *left, *slope;
    // Of one row: scores [C][w]; those of one class at the column corners, and their differences; class maxima.
    T *row, *padded, *between, *peak;
    int lanes;               // runs of columns
    int64_t class_stride;

    int64_t at(int64_t c, int64_t r) const { return c * class_stride + r * lanes; }
};

template <class T>
inline int64_t packed_class_stride(int lanes, int corner_rows) {
    // One more vector at the end: the last block of lanes reads beyond.
    return ceil_div(int64_t(lanes) * corner_rows, kLanes<T>) * kLanes<T> + 2 * kLanes<T> + lanes;
}

template <class T>
inline void allocate_packed(Packed<T>& packed, Arena& arena, int classes, int64_t width, const Runs& columns, int corner_rows) {
    packed.lanes = columns.count;
    packed.class_stride = packed_class_stride<T>(columns.count, corner_rows);
    packed.left = arena.take<T>(classes * packed.class_stride);
    packed.slope = arena.take<T>(classes * packed.class_stride);
    packed.row = arena.take<T>(classes * width);
    packed.padded = arena.take<T>(2 * int64_t(columns.count) + 2);
    packed.between = arena.take<T>(2 * int64_t(columns.count) + 2);
    packed.peak = arena.take<T>(width);
}

// Row y of image n as [C][w] in the dtype computed in.
template <class T>
inline void read_row(T* out, const Tensor& x, int64_t n, int64_t y) {
    const int64_t classes = x.size[1], width = x.size[3];
    const int64_t sc = x.stride[1], sx = x.stride[3];
    with_float_dtype(x.dtype, [&](auto* type) {
        using S = std::remove_pointer_t<decltype(type)>;
        const S* base = static_cast<const S*>(x.data) + n * x.stride[0] + y * x.stride[2];
        for (int64_t c = 0; c < classes; ++c) {
            const S* from = base + c * sc;
            T* to = out + c * width;
            if (sx == 1) {
                for (int64_t i = 0; i < width; ++i) to[i] = T(to_number(from[i]));
            } else {
                for (int64_t i = 0; i < width; ++i) to[i] = T(to_number(from[i * sx]));
            }
        }
    });
}

// From each number to the next.
template <class T>
inline void differences(T* out, const T* in, int count) {
    constexpr int L = kLanes<T>;
    int i = 0;
    for (; i + L <= count; i += L) store(out + i, difference(load(in + i), load(in + i + 1)));
    for (; i < count; ++i) out[i] = difference(in[i], in[i + 1]);
}

// Packs corner row `corner` (an index of rows.corner) of image n as row r of the band. With `below_peak` every score is
// taken relative to the largest class at its coarse pixel: interpolation weights are the same for all classes, so the
// softmax does not change, and no score is above 0 any more.
template <class T>
void pack_row(Packed<T>& packed, const Tensor& x, const Runs& columns, int64_t n, int input_row, int r, bool below_peak) {
    const int64_t classes = x.size[1], width = x.size[3];
    const int lanes = packed.lanes;
    if (input_row < 0) {
        for (int64_t c = 0; c < classes; ++c) {
            std::memset(packed.left + packed.at(c, r), 0, lanes * sizeof(T));
            std::memset(packed.slope + packed.at(c, r), 0, lanes * sizeof(T));
        }
        return;
    }
    read_row(packed.row, x, n, input_row);
    T* peak = packed.peak;
    if (below_peak) {
        for (int64_t i = 0; i < width; ++i) peak[i] = packed.row[i];
        for (int64_t c = 1; c < classes; ++c) {
            const T* scores = packed.row + c * width;
            for (int64_t i = 0; i < width; ++i) peak[i] = peak[i] > scores[i] ? peak[i] : scores[i];
        }
        // Where every class is excluded: -inf less itself is no number.
        for (int64_t i = 0; i < width; ++i) peak[i] = peak[i] == -std::numeric_limits<T>::infinity() ? T(0) : peak[i];
    }
    const bool straight = columns.one_per_cell;
    for (int64_t c = 0; c < classes; ++c) {
        T* scores = packed.row + c * width;
        if (below_peak) {
            for (int64_t i = 0; i < width; ++i) scores[i] -= peak[i];
        }
        T* padded = packed.padded;
        const auto pad = [&](int from, int to) {
            for (int i = from; i < to; ++i) padded[i] = columns.corner[i] < 0 ? T(0) : scores[columns.corner[i]];
        };
        pad(0, columns.straight);
        if (columns.straight < columns.straight_end) {
            std::memcpy(padded + columns.straight, scores + columns.corner[columns.straight], sizeof(T) * (columns.straight_end - columns.straight));
        }
        pad(columns.straight_end, columns.corners);
        T* left = packed.left + packed.at(c, r);
        T* slope = packed.slope + packed.at(c, r);
        if (straight) {
            std::memcpy(left, padded, sizeof(T) * lanes);
            differences(slope, padded, lanes);
        } else {
            differences(packed.between, padded, columns.corners - 1);
            for (int p = 0; p < lanes; ++p) {
                const int top = columns.run[p].top;
                left[p] = padded[top], slope[p] = packed.between[top];
            }
        }
    }
}

// Clears what vectors may read beyond the last packed row.
template <class T>
inline void clear_tail(const Packed<T>& packed, T* array, int64_t classes, int corner_rows) {
    const int64_t used = int64_t(packed.lanes) * corner_rows;
    for (int64_t c = 0; c < classes; ++c) {
        std::memset(array + c * packed.class_stride + used, 0, (packed.class_stride - used) * sizeof(T));
    }
}

}  // namespace fcn::FCN_ISA
