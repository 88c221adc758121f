// upsample_add on CPUs, bound by memory: each input row is expanded once, in cache, and two at a time make output rows.
#include "cpu.h"

#include "../common/cells.h"
#include "../common/parallel.h"
#include "../common/rows.h"
#include "doubling.h"

namespace fcn::FCN_ISA {
namespace {

// One row from the values at the column corners. inner = 1.
template <class T>
void expand_plane(T* out, const T* corner, const Runs& columns) {
    const T step = T(columns.slope);
    for (int p = 0; p < columns.count; ++p) {
        const Run& run = columns.run[p];
        const T left = corner[run.top], slope = corner[run.top + 1] - left, t = T(run.t);
        T* pixel = out + run.first;
        if (run.count == kMaxRun) {
            for (int k = 0; k < kMaxRun; ++k) pixel[k] = left + (t + T(k) * step) * slope;
        } else {
            for (int k = 0; k < run.count; ++k) pixel[k] = left + (t + T(k) * step) * slope;
        }
    }
}

// The adjoint of expand_plane, added to `corner`.
template <class T>
void gather_plane(T* corner, const T* row, const Runs& columns, const Doubling& doubling) {
    constexpr int L = kLanes<T>;
    const T step = T(columns.slope);
    const auto gather = [&](int from, int to) {
        for (int p = from; p < to; ++p) {
            const Run& run = columns.run[p];
            const T* pixel = row + run.first;
            T total = 0, right = 0;
            for (int k = 0; k < run.count; ++k) {
                total += pixel[k];
                right += (T(run.t) + T(k) * step) * pixel[k];
            }
            corner[run.top] += total - right;
            corner[run.top + 1] += right;
        }
    };
    int p = doubling.first;
    gather(0, p);
    if (doubling.count >= L) {
        const T t = T(columns.run[p].t);
        Vec<T> before = {};
        before[L - 1] = corner[p];
        for (; p + L <= doubling.first + doubling.count; p += L) {
            Vec<T> even, odd;
            const T* pixel = row + columns.run[p].first;
            deinterleave<T>(load(pixel), load(pixel + L), even, odd);
            const Vec<T> right = t * even + (t + step) * odd;
            // Each corner is one cell's left and the right of the cell before.
            store(corner + p, ((even + odd) - right) + moved_in<T>(before, right));
            before = right;
        }
        corner[p] += before[L - 1];
    }
    gather(p, columns.count);
}

template <class T, class S>
class UpsampleAdd {
public:
    // In backward x is the gradient of the output and out that of the input.
    UpsampleAdd(const UpsampleAddArgs& args, bool backward)
        : a(args),
          channels_last(args.channels_last),
          inner(channels_last ? args.out.size[1] : 1),
          planes(args.out.size[0] * (channels_last ? 1 : args.out.size[1])),
          height(backward ? args.out.size[2] : args.x.size[2]),
          width(backward ? args.out.size[3] : args.x.size[3]) {}

    void forward() {
        const Memory plan_memory([&](Arena& arena) { allocate_plan(arena); });
        build_plan();
        const int64_t out_rows = a.grid.rows.size, count = a.grid.columns.size * inner;
        const Planes<const S> x(a.x, channels_last), skip(a.skip, channels_last);
        const Planes<S> out(a.out, channels_last);
        const int64_t chunk = imax(1, (32 << 10) / count), chunks = ceil_div(out_rows, chunk);
        const int threads = int(imax(1, imin(a.threads, planes * out_rows * count / 8192)));
        Scratch* scratch;
        const Memory memory([&](Arena& arena) {
            scratch = arena.take<Scratch>(threads);
            for (int i = 0; i < threads; ++i) {
                const Scratch s = {Ring<T>::take(arena, 3, inner == 1 ? row_size() : 0), arena.take<T>(columns.corners)};
                if (scratch) scratch[i] = s;
            }
            zeros = arena.take<T>(imax(inner, row_size()));
        });
        std::memset(zeros, 0, sizeof(T) * imax(inner, row_size()));
        parallel_for(planes * chunks, threads, [&](int64_t task, int thread) {
            const int64_t plane = task / chunks, first = task % chunks * chunk;
            const S *const from = x.plane(plane), *added = a.skip.data ? skip.plane(plane) + first * skip.stride_row : nullptr;
            S* to = out.plane(plane) + first * out.stride_row;
            scratch[thread].ring.clear();
            for (int64_t y = first; y < imin(first + chunk, out_rows); ++y, to += out.stride_row) {
                inner == 1 ? mix_planes(to, from, x, added, y, scratch[thread]) : mix_pixels(to, from, x, added, y);
                if (added) added += skip.stride_row;
            }
        });
    }

    void backward() {
        const Memory plan_memory([&](Arena& arena) { allocate_plan(arena); });
        build_plan();
        mark_feeding_runs();
        const Planes<const S> grad(a.x, channels_last);
        const Planes<S> out(a.out, channels_last);
        const int64_t chunk = imax(1, (8 << 10) / (width * inner)), chunks = ceil_div(height, chunk);
        const int threads = int(imax(1, imin(a.threads, planes * chunks)));
        BackwardScratch* scratch;
        const Memory memory([&](Arena& arena) {
            scratch = arena.take<BackwardScratch>(threads);
            for (int i = 0; i < threads; ++i) {  // lines of the cache that two threads write would go to and fro
                const BackwardScratch s = {arena.take<T>(row_size()), arena.take<T>(columns.corners * inner), arena.take<T>(width * inner)};
                if (scratch) scratch[i] = s;
            }
        });
        parallel_for(planes * chunks, threads, [&](int64_t task, int thread) {
            const int64_t plane = task / chunks, first = task % chunks * chunk;
            const BackwardScratch s = scratch[thread];
            const S* const from = grad.plane(plane);
            S* const to = out.plane(plane);
            for (int64_t i = first; i < imin(first + chunk, height); ++i) {
                gather_rows(s.gathered, from, grad.stride_row, int(i));
                std::memset(s.corner, 0, sizeof(T) * columns.corners * inner);
                gather_row(s.corner, s.gathered);
                fold(s.input, s.corner);
                finish_row<T, S>(to + i * out.stride_row, s.input, nullptr, width * inner, 0);
            }
        });
    }

private:
    struct Scratch {
        Ring<T> ring;  // expanded rows
        T* corner;
    };

    struct BackwardScratch {
        T *gathered, *corner, *input;  // rows: at the output's columns, at the column corners, at the input's columns
    };

    int64_t row_size() const { return a.grid.columns.size * inner + kLanes<T>; }

    void allocate_plan(Arena& arena) {
        allocate_runs(rows, arena, a.grid.rows.size);
        allocate_runs(columns, arena, a.grid.columns.size);
        row_run = arena.take<int32_t>(a.grid.rows.size);
        feeding = arena.take<int32_t>(2 * height);
    }

    void build_plan() {
        build_runs(rows, a.grid.rows, height, a.grid.clamp);
        build_runs(columns, a.grid.columns, width, a.grid.clamp);
        doubling.find(columns);
        for (int r = 0; r < rows.count; ++r) {
            for (int k = 0; k < rows.run[r].count; ++k) row_run[rows.run[r].first + k] = r;
        }
    }

    // The first and last run of output rows that each input row feeds.
    void mark_feeding_runs() {
        for (int64_t i = 0; i < height; ++i) feeding[2 * i] = 0, feeding[2 * i + 1] = -1;
        for (int r = 0; r < rows.count; ++r) {
            for (int side = 0; side < 2; ++side) {
                const int i = rows.corner[rows.run[r].top + side];
                if (i < 0) continue;
                if (feeding[2 * i + 1] < 0) feeding[2 * i] = r;
                feeding[2 * i + 1] = r;
            }
        }
    }

    // Where an output row lies: the input rows around it, -1 where those are outside, and the weight of the lower one.
    struct Place {
        int up, down;
        T t;
    };

    Place place(int64_t y) const {
        const Run& run = rows.run[row_run[y]];
        return {rows.corner[run.top], rows.corner[run.top + 1], T(run.t + double(y - run.first) * rows.slope)};
    }

    // Row y of a plane, of two expanded input rows.
    void mix_planes(S* to, const S* from, const Planes<const S>& x, const S* added, int64_t y, const Scratch& s) const {
        const auto expanded = [&](int i) -> const T* {
            return i < 0 ? zeros : s.ring.get(i, [&](T* row) { expand(row, from + i * x.stride_row, s.corner); });
        };
        const Place at = place(y);
        const T *const up = expanded(at.up), *const down = expanded(at.down);
        // What was just stored is slow to load in other pieces, so rows are expanded one before their turn.
        if (rows.slope <= 0.5 && at.down >= 0 && at.down + 1 < height) expanded(at.down + 1);
        const auto mixed = [&](int64_t i) { return (T(1) - at.t) * load(up + i) + at.t * load(down + i); };
        const int64_t count = a.grid.columns.size, total = planes * a.grid.rows.size * count;
        if (added) {
            write_row<T>(to, count, total, [&](int64_t i, int n) { return mixed(i) + load_numbers<T>(added + i, n); });
        } else {
            write_row<T>(to, count, total, [&](int64_t i, int) { return mixed(i); });
        }
    }

    // Row y of an image in channels_last, pixel by pixel of the four around it.
    void mix_pixels(S* to, const S* from, const Planes<const S>& x, const S* added, int64_t y) const {
        const Place at = place(y);
        const int64_t total = planes * a.grid.rows.size * a.grid.columns.size * inner;
        const auto input = [&](int row, int column) {
            return row < 0 || column < 0 ? reinterpret_cast<const S*>(zeros) : from + row * x.stride_row + column * x.stride_item;
        };
        for (int p = 0; p < columns.count; ++p) {
            const Run& run = columns.run[p];
            const int left = columns.corner[run.top], right = columns.corner[run.top + 1];
            const S *const around[4] = {input(at.up, left), input(at.up, right), input(at.down, left), input(at.down, right)};
            for (int64_t k = 0; k < run.count; ++k) {
                const T t = T(run.t + k * columns.slope);
                const T weight[4] = {(1 - at.t) * (1 - t), (1 - at.t) * t, at.t * (1 - t), at.t * t};
                const int64_t pixel = (run.first + k) * inner;
                write_row<T>(to + pixel, inner, total, [&](int64_t i, int n) {
                    Vec<T> v = {};
                    for (int j = 0; j < 4; ++j) v += weight[j] * load_numbers<T>(around[j] + i, n);
                    return added ? v + load_numbers<T>(added + pixel + i, n) : v;
                });
            }
        }
    }

    // An input row of a plane at the columns of the output.
    void expand(T* row, const S* from, T* corner) const {
        if (doubling.count >= kLanes<T>) return double_row(row, from, columns, doubling);
        for (int q = 0; q < columns.corners; ++q) corner[q] = columns.corner[q] < 0 ? T(0) : T(to_number(from[columns.corner[q]]));
        expand_plane(row, corner, columns);
    }

    // The output gradient's rows that input row i fed, weighed and summed, four at a time.
    void gather_rows(T* sum, const S* plane, int64_t stride_row, int i) const {
        constexpr int kGroup = 4;
        const S* row[kGroup];
        T weight[kGroup];
        int held = 0;
        bool begun = false;
        const auto add = [&](auto group) {
            const int64_t count = a.grid.columns.size * inner;
            for (int64_t c = 0; c < count; c += kLanes<T>) {
                const int n = int(imin(count - c, kLanes<T>));
                Vec<T> v = begun ? load(sum + c) : Vec<T>{};
                for (int g = 0; g < group; ++g) {
                    // What the next group reads; never faults. Rows of whole pixels are too long for it.
                    if (inner == 1) __builtin_prefetch(row[g] + kGroup * stride_row + c, 0, 2);
                    v += weight[g] * load_numbers<T>(row[g] + c, n);
                }
                store(sum + c, v);
            }
            begun = true, held = 0;
        };
        for (int r = feeding[2 * i]; r <= feeding[2 * i + 1]; ++r) {
            const Run& run = rows.run[r];
            const bool up = rows.corner[run.top] == i, down = rows.corner[run.top + 1] == i;
            for (int k = 0; k < run.count; ++k) {
                const T t = T(run.t + k * rows.slope);
                weight[held] = (up ? T(1) - t : T(0)) + (down ? t : T(0));
                row[held] = plane + (run.first + k) * stride_row;
                if (++held == kGroup) add(std::integral_constant<int, kGroup>());
            }
        }
        if (held > 0 || !begun) add(held);
    }

    // From the corners to the input's columns; those outside of it are dropped.
    void fold(T* input, const T* corner) const {
        std::memset(input, 0, sizeof(T) * width * inner);
        const auto add = [&](int begin, int end) {
            for (int q = begin; q < end; ++q) {
                if (columns.corner[q] < 0) continue;
                for (int64_t c = 0; c < inner; ++c) input[columns.corner[q] * inner + c] += corner[q * inner + c];
            }
        };
        add(0, columns.straight);
        if (columns.straight < columns.straight_end) {
            T* const to = input + columns.corner[columns.straight] * inner;
            const T* const from = corner + columns.straight * inner;
            for (int64_t c = 0; c < (columns.straight_end - columns.straight) * inner; ++c) to[c] += from[c];
        }
        add(columns.straight_end, columns.corners);
    }

    void gather_row(T* corner, const T* row) const {
        if (inner == 1) return gather_plane(corner, row, columns, doubling);
        for (int p = 0; p < columns.count; ++p) {
            const Run& run = columns.run[p];
            T *left = corner + run.top * inner, *right = left + inner;
            for (int k = 0; k < run.count; ++k) {
                const T t = T(run.t + k * columns.slope);
                const T* pixel = row + (run.first + k) * inner;
                for (int64_t c = 0; c < inner; ++c) left[c] += (T(1) - t) * pixel[c], right[c] += t * pixel[c];
            }
        }
    }

    const UpsampleAddArgs& a;
    const bool channels_last;
    const int64_t inner, planes, height, width;
    Runs rows, columns;
    Doubling doubling;
    int32_t *row_run, *feeding;  // run of each output row; [input row][first, last]
    T* zeros;  // what lies outside of x
};

}  // namespace

void upsample_add(const UpsampleAddArgs& args) {
    with_types(args.x.dtype, [&](auto* number, auto* storage) {
        UpsampleAdd<std::remove_pointer_t<decltype(number)>, std::remove_pointer_t<decltype(storage)>>(args, false).forward();
    });
}

void upsample_add_backward(const UpsampleAddArgs& args) {
    with_types(args.x.dtype, [&](auto* number, auto* storage) {
        UpsampleAdd<std::remove_pointer_t<decltype(number)>, std::remove_pointer_t<decltype(storage)>>(args, true).backward();
    });
}

}  // namespace fcn::FCN_ISA
