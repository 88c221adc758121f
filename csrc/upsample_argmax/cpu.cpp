// upsample_argmax on CPUs: lanes are coarse cells, pixels of a cell's row sit in registers, classes are looped. Classes
// whose corner scores prove that they cannot win in any cell of a vector leave the loop first.
#include "cpu.h"

#include "../common/cells.h"
#include "../common/parallel.h"

namespace fcn::FCN_ISA {
namespace {

// One class's scores in a vector of cells: at the upper left corners, their slope along the row, and how much both
// change on the way to the lower corners.
template <class T>
struct Patch {
    Vec<T> left, slope, left_down, slope_down;
};

// Where the pixels of a lane's cell are written: the index of its first one, and how many it has.
struct Cell {
    int64_t first;
    int32_t rows, columns;
};

// A vector of cells, up to 8 x 8 pixels a cell.
template <class T>
struct Block {
    Cell cell[kLanes<T>];
    int cells;  // lanes that have one
    const T *left, *slope;  // upper corners, class 0 (see Packed); lower corners `below` further on
    int64_t class_stride, below;
    int classes;
    Vec<T> t_column, t_row;
    T column_step, row_step;
    T columns_end, rows_end;  // from a cell's first pixel to its last
    Patch<T>* patch;  // of the classes that can win, which are `label`, ascending: adjacent, where packed scores lie apart
    int32_t* label;
    int count;
};

// With `finite` false scores may be infinite or NaN, here and below.
template <bool finite, class T>
inline Patch<T> patch_of(const Block<T>& b, int c) {
    const int64_t at = c * b.class_stride;
    const Vec<T> left = load(b.left + at), slope = load(b.slope + at);
    return {left, slope, difference<finite>(left, load(b.left + at + b.below)), difference<finite>(slope, load(b.slope + at + b.below))};
}

template <class T>
struct Range {
    Vec<T> least, greatest;

    Range(Vec<T> a, Vec<T> b, Vec<T> c, Vec<T> d) : least(vmin(vmin(a, b), vmin(c, d))), greatest(vmax(vmax(a, b), vmax(c, d))) {}
};

// A bilinear function lies between its least and greatest corner. Over whole cells:
template <class T>
inline Range<T> range_in_cells(const Block<T>& b, int c) {
    const int64_t at = c * b.class_stride;
    const Vec<T> l0 = load(b.left + at), r0 = l0 + load(b.slope + at);
    const Vec<T> l1 = load(b.left + at + b.below), r1 = l1 + load(b.slope + at + b.below);
    return {l0, r0, l1, r1};
}

// A class's scores along one row of the cells' pixels.
template <class T, bool finite>
struct Line {
    Vec<T> score, slope;

    Line(const Patch<T>& p, Vec<T> t_row)
        : score(along<finite>(p.left, t_row, p.left_down)), slope(along<finite>(p.slope, t_row, p.slope_down)) {}

    Vec<T> at(Vec<T> t) const { return along<finite>(score, t, slope); }
};

// Over the block's own pixels, where cells are cut into pieces.
template <class T>
inline Range<T> range_in_pieces(const Block<T>& b, int c) {
    const Patch<T> patch = patch_of<true>(b, c);
    const Line<T, true> top(patch, b.t_row), bottom(patch, b.t_row + b.rows_end);
    const Vec<T> t0 = b.t_column, t1 = t0 + b.columns_end;
    return {top.at(t0), top.at(t1), bottom.at(t0), bottom.at(t1)};
}

// Classes that can win somewhere in the block: one whose greatest score is below another's least never does. The margin
// covers rounding of the interpolated score, so no winner is lost, ties included.
template <class T, bool pieces>
void prune(Block<T>& b) {
    using V = Vec<T>;
    V bound = {}, size = {};
    for (int c = 0; c < b.classes; ++c) {
        const Range<T> cell = range_in_cells(b, c);
        const V least = pieces ? range_in_pieces(b, c).least : cell.least;
        bound = c == 0 ? least : vmax(bound, least);
        size = vmax(size, vmax(cell.greatest, -cell.least));
    }
    bound -= size * T(sizeof(T) == 4 ? 2e-6 : 4e-15);
    b.count = 0;
    for (int c = 0; c < b.classes; ++c) {
        if (any((pieces ? range_in_pieces(b, c) : range_in_cells(b, c)).greatest >= bound)) {
            b.patch[b.count] = patch_of<true>(b, c);
            b.label[b.count++] = c;
        }
    }
}

template <class T, bool finite>
void keep_all(Block<T>& b) {
    for (b.count = 0; b.count < b.classes; ++b.count) {
        b.patch[b.count] = patch_of<finite>(b, b.count);
        b.label[b.count] = b.count;
    }
}

// Pixels at a time: their scores, winners and positions fit the registers.
constexpr int kPixels = kVectorBytes == 64 ? 8 : 4;
static_assert(kMaxRun % kPixels == 0);

// Winner and its score for pixels [first, first + kPixels) of the row at t_row. A NaN wins.
template <class T, bool finite>
void find_winners(const Block<T>& b, Vec<T> t_row, int first, Vec<T>* best, Vec<Int<T>>* winner) {
    Vec<T> t[kPixels], top[kPixels];
    Vec<Int<T>> index[kPixels];
    const Line<T, finite> line(b.patch[0], t_row);
    for (int k = 0; k < kPixels; ++k) {
        t[k] = b.t_column + T(first + k) * b.column_step;
        top[k] = line.at(t[k]);
        index[k] = splat(Int<T>(b.label[0]));
    }
    for (int i = 1; i < b.count; ++i) {
        const Line<T, finite> line(b.patch[i], t_row);
        const Vec<Int<T>> c = splat(Int<T>(b.label[i]));
        for (int k = 0; k < kPixels; ++k) {
            const Vec<T> v = line.at(t[k]);
            auto wins = v > top[k];
            if (!finite) wins |= (v != v) & (top[k] == top[k]);
            top[k] = wins ? v : top[k];
            index[k] = wins ? c : index[k];
        }
    }
    for (int k = 0; k < kPixels; ++k) best[k] = top[k], winner[k] = index[k];
}

template <class T>
struct Scratch {
    Packed<T> packed;
    T *t_column, *t_row;
    Patch<T>* patch;
    int32_t* label;
};

template <class T>
class Argmax {
public:
    explicit Argmax(const UpsampleArgmaxArgs& args) : a(args), images(a.x.size[0]), classes(int(a.x.size[1])) {}

    void run() {
        Memory plan_memory([&](Arena& arena) {
            allocate_runs(rows, arena, a.grid.rows.size);
            allocate_runs(columns, arena, a.grid.columns.size);
        });
        build_runs(rows, a.grid.rows, a.x.size[2], a.grid.clamp);
        build_runs(columns, a.grid.columns, a.x.size[3], a.grid.clamp);
        bands = plan_bands(rows, columns, images, classes, sizeof(T));
        const int64_t tasks = images * bands.count;
        const int threads = int(imax(1, imin(a.threads, tasks)));
        Memory memory([&](Arena& arena) {
            scratch = arena.take<Scratch<T>>(threads);
            for (int i = 0; i < threads; ++i) {
                Scratch<T> s;
                constexpr int L = kLanes<T>;
                allocate_packed(s.packed, arena, classes, a.x.size[3], columns, bands.corners);
                s.t_column = arena.take<T>(int64_t(columns.count) * bands.runs + L);
                s.t_row = arena.take<T>(int64_t(columns.count) * bands.runs + L);
                s.patch = arena.take<Patch<T>>(classes);
                s.label = arena.take<int32_t>(classes);
                if (scratch) scratch[i] = s;
            }
        });
        parallel_for(tasks, threads, [&](int64_t task, int thread) {
            run_band(scratch[thread], task / bands.count, int(task % bands.count));
        });
    }

private:
    void run_band(Scratch<T>& s, int64_t n, int band) const {
        const int first_run = band * bands.runs, end = int(imin(first_run + bands.runs, rows.count));
        const int first_corner = rows.run[first_run].top, corners = rows.run[end - 1].top + 2 - first_corner;
        for (int r = 0; r < corners; ++r) pack_row(s.packed, a.x, columns, n, rows.corner[first_corner + r], r, false);
        clear_tail(s.packed, s.packed.left, classes, corners);
        clear_tail(s.packed, s.packed.slope, classes, corners);
        for (int first = first_run; first < end;) {
            int last = first;
            while (last + 1 < end && rows.run[last + 1].top == rows.run[last].top + 1) ++last;
            run_segment(s, n, first_corner, first, last + 1);
            first = last + 1;
        }
    }

    void run_segment(Scratch<T>& s, int64_t n, int first_corner, int first, int end) const {
        constexpr int L = kLanes<T>;
        const int lanes = s.packed.lanes, total = lanes * (end - first);
        int longest = 0;
        for (int r = first, i = 0; r < end; ++r) {
            longest = int(imax(longest, rows.run[r].count));
            for (int p = 0; p < lanes; ++p, ++i) s.t_column[i] = T(columns.run[p].t), s.t_row[i] = T(rows.run[r].t);
        }
        for (int i = total; i < total + L; ++i) s.t_column[i] = s.t_row[i] = 0;
        const int64_t origin = int64_t(rows.run[first].top - first_corner) * lanes;
        Block<T> b{};
        b.class_stride = s.packed.class_stride;
        b.below = lanes;
        b.classes = classes;
        b.column_step = T(columns.slope);
        b.row_step = T(rows.slope);
        b.columns_end = T(columns.longest - 1) * b.column_step;
        b.rows_end = T(longest - 1) * b.row_step;
        b.patch = s.patch;
        b.label = s.label;
        for (int i = 0; i < total; i += L) {
            b.left = s.packed.left + origin + i;
            b.slope = s.packed.slope + origin + i;
            b.t_column = load(s.t_column + i);
            b.t_row = load(s.t_row + i);
            find_cells(b, n, first + i / lanes, i % lanes, int(imin(L, total - i)));
            const bool finite = all_finite(b);
            if (!finite) keep_all<T, false>(b);
            else if (a.confidence.data) keep_all<T, true>(b);
            else columns.one_per_cell && rows.one_per_cell ? prune<T, false>(b) : prune<T, true>(b);
            if (b.count == 1 && !a.confidence.data) {
                fill(b);
                continue;
            }
            for (int row = 0; row < longest; ++row) {
                finite ? run_row<true>(b, row) : run_row<false>(b, row);
            }
        }
    }

    template <bool finite>
    void run_row(const Block<T>& b, int row) const {
        Vec<T> best[kMaxRun];
        Vec<Int<T>> winner[kMaxRun];
        const Vec<T> t_row = b.t_row + T(row) * b.row_step;
        for (int k = 0; k < columns.longest; k += kPixels) find_winners<T, finite>(b, t_row, k, best + k, winner + k);
        write_row(b, row, winner);
        if (a.confidence.data) write_confidence<finite>(b, row, t_row, best);
    }

    bool all_finite(const Block<T>& b) const {
        Vec<T> poison = {};
        for (int c = 0; c < classes; ++c) {
            const int64_t at = c * b.class_stride;
            const Vec<T> up = load(b.left + at) + load(b.slope + at);
            const Vec<T> down = load(b.left + at + b.below) + load(b.slope + at + b.below);
            poison += (up - up) + (down - down);
        }
        return !any(poison != poison);
    }

    void find_cells(Block<T>& b, int64_t n, int row, int column, int count) const {
        b.cells = count;
        for (int lane = 0; lane < count; ++lane) {
            const Run &y = rows.run[row], &x = columns.run[column];
            b.cell[lane] = {(n * a.labels.size[1] + y.first) * a.labels.size[2] + x.first, y.count, x.count};
            if (++column == columns.count) column = 0, ++row;
        }
    }

    // f(to, lane, count) of each cell that has a row y: `to` is the place of its first pixel there among `pixels`.
    template <class P, class F>
    void for_each_cell(const Block<T>& b, int y, P* pixels, const F& f) const {
        P* const row = pixels + y * a.labels.size[2];
        for (int lane = 0; lane < b.cells; ++lane) {
            if (y < b.cell[lane].rows) f(row + b.cell[lane].first, lane, b.cell[lane].columns);
        }
    }

    // One label everywhere.
    void fill(const Block<T>& b) const {
        const int label = b.label[0];
        for (int y = 0; y < rows.longest; ++y) {
            if (a.labels.dtype == DType::uint8) {
                for_each_cell(b, y, static_cast<uint8_t*>(a.labels.data), [&](uint8_t* to, int, int count) { std::memset(to, label, count); });
            } else {
                for_each_cell(b, y, static_cast<int64_t*>(a.labels.data), [&](int64_t* to, int, int count) {
                    for (int x = 0; x < count; ++x) to[x] = label;
                });
            }
        }
    }

    void write_row(const Block<T>& b, int y, const Vec<Int<T>>* winner) const {
        constexpr int L = kLanes<T>;
        if (a.labels.dtype == DType::uint8) {
            // Bytes of 8 pixels side by side in one word per lane.
            uint32_t low[L], high[L];
            for (int lane = 0; lane < L; ++lane) low[lane] = high[lane] = 0;
            for (int k = 0; k < imin(4, columns.longest); ++k) {
                for (int lane = 0; lane < L; ++lane) low[lane] |= uint32_t(winner[k][lane]) << (8 * k);
            }
            for (int k = 4; k < columns.longest; ++k) {
                for (int lane = 0; lane < L; ++lane) high[lane] |= uint32_t(winner[k][lane]) << (8 * (k - 4));
            }
            uint8_t bytes[L][kMaxRun];
            for (int lane = 0; lane < L; ++lane) {
                const uint64_t word = low[lane] | uint64_t(high[lane]) << 32;
                std::memcpy(bytes[lane], &word, 8);
            }
            for_each_cell(b, y, static_cast<uint8_t*>(a.labels.data), [&](uint8_t* to, int lane, int count) {
                count == kMaxRun ? std::memcpy(to, bytes[lane], kMaxRun) : std::memcpy(to, bytes[lane], count);
            });
        } else {
            for_each_cell(b, y, static_cast<int64_t*>(a.labels.data), [&](int64_t* to, int lane, int count) {
                for (int x = 0; x < count; ++x) to[x] = winner[x][lane];
            });
        }
    }

    template <bool finite>
    void write_confidence(const Block<T>& b, int y, Vec<T> t_row, const Vec<T>* best) const {
        constexpr int L = kLanes<T>;
        Vec<T> sums[kMaxRun] = {};
        for (int c = 0; c < classes; ++c) {
            const Line<T, finite> line(b.patch[c], t_row);
            for (int k = 0; k < columns.longest; ++k) {
                sums[k] += vexp(line.at(b.t_column + T(k) * b.column_step) - best[k]);
            }
        }
        T probability[kMaxRun][L];
        for (int k = 0; k < columns.longest; ++k) store(probability[k], T(1) / sums[k]);
        for_each_cell(b, y, static_cast<T*>(a.confidence.data), [&](T* to, int lane, int count) {
            for (int x = 0; x < count; ++x) to[x] = probability[x][lane];
        });
    }

    const UpsampleArgmaxArgs& a;
    const int64_t images;
    const int classes;
    Runs rows, columns;
    Bands bands;
    Scratch<T>* scratch;
};

}  // namespace

void upsample_argmax(const UpsampleArgmaxArgs& args) {
    if (args.x.dtype == DType::float64) return Argmax<double>(args).run();
    Argmax<float>(args).run();
}

}  // namespace fcn::FCN_ISA
