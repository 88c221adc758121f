// upsample_add on CPUs, bound by memory: rows are mixed vertically, then expanded along the row, in cache.
#include "cpu.h"

#include "../common/cells.h"
#include "../common/parallel.h"
#include "../common/rows.h"
#include "doubling.h"

namespace fcn::FCN_ISA {
namespace {

// One output row from the vertically mixed values at the column corners. inner = 1.
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
        for (; p + L <= doubling.first + doubling.count; p += L) {
            Vec<T> even, odd;
            const T* pixel = row + columns.run[p].first;
            deinterleave<T>(load(pixel), load(pixel + L), even, odd);
            const Vec<T> right = t * even + (t + step) * odd;
            // Each corner is one cell's left and the next one's right.
            store(corner + p, load(corner + p) + ((even + odd) - right));
            store(corner + p + 1, load(corner + p + 1) + right);
        }
    }
    gather(p, columns.count);
}

// A number of type T, or a vector of them, plus what is in memory at `added` unless that is null.
template <class T, class S, class V>
inline void put(S* to, V v, const S* added) {
    if constexpr (std::is_same_v<V, T>) {
        from_number(added ? v + T(to_number(*added)) : v, *to);
    } else {
        store_numbers<T>(to, added ? v + load_numbers<T>(added) : v);
    }
}

// Corners of columns that follow one another in the input too, so that a row is mixed in one long loop; item -1: zeros.
struct Span {
    int32_t corner, item, count;
};

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
        const int64_t out_rows = a.grid.rows.size, out_width = a.grid.columns.size;
        const Planes<const S> x(a.x, channels_last), skip(a.skip, channels_last);
        const Planes<S> out(a.out, channels_last);
        const int64_t chunk = imax(1, (32 << 10) / (out_width * inner)), chunks = ceil_div(out_rows, chunk);
        const int threads = int(imax(1, imin(a.threads, planes * out_rows * out_width * inner / 8192)));
        T *mixed_rows, *expanded_rows;
        const Memory memory([&](Arena& arena) {
            mixed_rows = arena.take<T>(threads * columns.corners * inner);
            expanded_rows = arena.take<T>(threads * row_size());
        });
        const int64_t total = planes * out_rows * out_width * inner;
        const bool doubled = inner == 1 && doubling.count >= kLanes<T>;
        const bool streamed = std::is_same_v<S, float> && large(total);  // whole rows, for the sake of alignment
        parallel_for(planes * chunks, threads, [&](int64_t task, int thread) {
            const int64_t plane = task / chunks, first = task % chunks * chunk;
            T* mixed = mixed_rows + thread * columns.corners * inner;
            T* expanded = expanded_rows + thread * row_size();
            const S *from = x.plane(plane), *added = a.skip.data ? skip.plane(plane) + first * skip.stride_row : nullptr;
            S* to = out.plane(plane) + first * out.stride_row;
            for (int64_t y = first; y < imin(first + chunk, out_rows); ++y, to += out.stride_row) {
                const Mix<T, S> mix = mix_of(from, x.stride_row, y);
                if (doubled && !streamed) {
                    double_row(mix, columns, doubling, [&](int64_t i, auto v) { put<T>(to + i, v, added ? added + i : nullptr); });
                } else {
                    if (doubled) {
                        double_row(mix, columns, doubling, [&](int64_t i, auto v) { put<T, T>(expanded + i, v, nullptr); });
                    } else {
                        mix_rows(mixed, mix, x.stride_item);
                        expand_row(expanded, mixed);
                    }
                    finish_row<T, S>(to, expanded, added, out_width * inner, total);
                }
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
        T *gathered_rows, *corner_rows, *input_rows;
        const Memory memory([&](Arena& arena) {
            gathered_rows = arena.take<T>(threads * row_size());
            corner_rows = arena.take<T>(threads * columns.corners * inner);
            input_rows = arena.take<T>(threads * width * inner);
        });
        parallel_for(planes * chunks, threads, [&](int64_t task, int thread) {
            const int64_t plane = task / chunks, first = task % chunks * chunk;
            T* gathered = gathered_rows + thread * row_size();
            T* corner = corner_rows + thread * columns.corners * inner;
            T* input = input_rows + thread * width * inner;
            for (int64_t i = first; i < imin(first + chunk, height); ++i) {
                gather_rows(gathered, grad, plane, int(i));
                std::memset(corner, 0, sizeof(T) * columns.corners * inner);
                gather_row(corner, gathered);
                std::memset(input, 0, sizeof(T) * width * inner);
                for (int q = 0; q < columns.corners; ++q) {
                    if (columns.corner[q] < 0) continue;
                    for (int64_t c = 0; c < inner; ++c) input[columns.corner[q] * inner + c] += corner[q * inner + c];
                }
                finish_row<T, S>(out.row(plane, i), input, nullptr, width * inner, 0);
            }
        });
    }

private:
    int64_t row_size() const { return a.grid.columns.size * inner + kLanes<T>; }

    void allocate_plan(Arena& arena) {
        allocate_runs(rows, arena, a.grid.rows.size);
        allocate_runs(columns, arena, a.grid.columns.size);
        row_run = arena.take<int32_t>(a.grid.rows.size);
        feeding = arena.take<int32_t>(2 * height);
        spans = arena.take<Span>(2 * a.grid.columns.size);
    }

    void build_plan() {
        build_runs(rows, a.grid.rows, height, a.grid.clamp);
        build_runs(columns, a.grid.columns, width, a.grid.clamp);
        doubling.find(columns);
        span_count = 0;
        for (int q = 0; q < columns.corners; ++q) {
            const int item = columns.corner[q];
            Span* last = span_count > 0 ? &spans[span_count - 1] : nullptr;
            if (last && item >= 0 && last->item >= 0 && item == last->item + last->count) {
                ++last->count;
            } else {
                spans[span_count++] = {q, item, 1};
            }
        }
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

    Mix<T, S> mix_of(const S* plane, int64_t stride_row, int64_t y) const {
        const Run& run = rows.run[row_run[y]];
        const T t = T(run.t + double(y - run.first) * rows.slope);
        const int up = rows.corner[run.top], down = rows.corner[run.top + 1];
        return {plane + (up < 0 ? 0 : up) * stride_row, plane + (down < 0 ? 0 : down) * stride_row, up < 0 ? T(0) : T(1) - t,
                down < 0 ? T(0) : t};
    }

    // The input mixed vertically, at the column corners.
    void mix_rows(T* mixed, const Mix<T, S>& mix, int64_t stride_item) const {
        for (int i = 0; i < span_count; ++i) {
            const Span& span = spans[i];
            T* to = mixed + span.corner * inner;
            if (span.item < 0) {
                std::memset(to, 0, sizeof(T) * span.count * inner);
            } else {
                for (int64_t c = 0; c < span.count * inner; ++c) to[c] = mix.at(span.item * stride_item + c);
            }
        }
    }

    void expand_row(T* row, const T* corner) const {
        if (inner == 1) return expand_plane(row, corner, columns);
        for (int p = 0; p < columns.count; ++p) {
            const Run& run = columns.run[p];
            const T *left = corner + run.top * inner, *right = left + inner;
            for (int k = 0; k < run.count; ++k) {
                const T t = T(run.t + k * columns.slope);
                T* pixel = row + (run.first + k) * inner;
                for (int64_t c = 0; c < inner; ++c) pixel[c] = left[c] + t * (right[c] - left[c]);
            }
        }
    }

    // The output gradient's rows that input row i fed, weighed and summed.
    void gather_rows(T* sum, const Planes<const S>& grad, int64_t plane, int i) const {
        const int64_t count = a.grid.columns.size * inner;
        std::memset(sum, 0, sizeof(T) * count);
        for (int r = feeding[2 * i]; r <= feeding[2 * i + 1]; ++r) {
            const Run& run = rows.run[r];
            const bool up = rows.corner[run.top] == i, down = rows.corner[run.top + 1] == i;
            for (int k = 0; k < run.count; ++k) {
                const T t = T(run.t + k * rows.slope);
                const T w = (up ? T(1) - t : T(0)) + (down ? t : T(0));
                const S* row = grad.row(plane, run.first + k);
                for (int64_t c = 0; c < count; ++c) sum[c] += w * T(to_number(row[c]));
            }
        }
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
    Span* spans;
    int span_count;
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
