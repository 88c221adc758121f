// The way over coarse scores that kernels of losses take: bands in parallel, blocks of cells within a band, and the
// gradient gathered behind them.
#pragma once

#include "gradient_rows.h"
#include "parallel.h"
#include "progressions.h"

namespace fcn::FCN_ISA {

// A thread's working memory.
template <class T>
struct WalkScratch {
    Packed<T> packed;
    T *grad_left, *grad_slope;  // like packed.left
    T* low;                     // smallest corner score of a lane in one row of corners
    T *t_column, *n_column, *t_row, *n_row;  // per lane of a segment
    T *pixel, *params, *exps;
    RowScratch<T> gradient_row;
};

// Which cells a block has: lane 0 is run `column` of run `row` of rows, at `at` of the packed band; more follow.
struct Place {
    int64_t at;
    int row, column, count;
};

template <class T>
class Walk {
public:
    BandedRows banded;
    Runs columns;
    const int64_t images, height, width;
    const int classes;
    bool exact = false;   // no progressions
    T lowest = T(kLowest);  // nor where a score reaches this

    // grad: of x, in the dtype of sums; without data none is made.
    Walk(const Tensor& scores, const Tensor& gradient_of_x, const Grid& sampling)
        : images(scores.size[0]), height(scores.size[2]), width(scores.size[3]), classes(int(scores.size[1])),
          x(scores), grad(gradient_of_x), grid(sampling) {}

    void allocate_plan(Arena& arena) {
        allocate_runs(banded.rows, arena, grid.rows.size);
        allocate_runs(columns, arena, grid.columns.size);
        gradient.allocate_plan(arena, height);
    }

    void plan() {
        build_runs(banded.rows, grid.rows, height, grid.clamp);
        build_runs(columns, grid.columns, width, grid.clamp);
        banded.bands = plan_bands(banded.rows, columns, images, classes, sizeof(T));
    }

    int64_t bands() const { return images * banded.bands.count; }

    void allocate(Arena& arena) {
        if (grad.data) gradient.allocate(arena, banded, grad);
    }

    void allocate(WalkScratch<T>& s, Arena& arena) const {
        constexpr int L = kLanes<T>;
        allocate_packed(s.packed, arena, classes, width, columns, banded.bands.corners);
        const int64_t stride = s.packed.class_stride;
        s.low = arena.take<T>(stride);
        s.grad_left = s.grad_slope = nullptr;
        if (grad.data) {
            s.grad_left = arena.take<T>(classes * stride);
            s.grad_slope = arena.take<T>(classes * stride);
            GradientRows<T>::allocate(s.gradient_row, arena, columns, grad);
        }
        const int64_t lanes = int64_t(columns.count) * banded.bands.runs + L;
        s.t_column = arena.take<T>(lanes);
        s.n_column = arena.take<T>(lanes);
        s.t_row = arena.take<T>(lanes);
        s.n_row = arena.take<T>(lanes);
        s.pixel = arena.take<T>(kMaxPixels * L);
        s.params = arena.take<T>(4 * L * classes);
        s.exps = arena.take<T>(int64_t(kMaxRun) * L * classes);
    }

    void prepare() {
        if (grad.data) gradient.prepare(&banded, &columns, grad);
    }

    // How many numbers the lanes of a band have in each packed class.
    int stride_rows(const WalkScratch<T>& s, int band) const { return s.packed.lanes * banded.corner_rows(band); }

    void open_band(WalkScratch<T>& s, int64_t n, int band) const {
        const int corners = banded.corner_rows(band);
        for (int r = 0; r < corners; ++r) {
            pack_row(s.packed, x, columns, n, banded.rows.corner[banded.first_corner(band) + r], r, true);
        }
        clear_tail(s.packed, s.packed.left, classes, corners);
        clear_tail(s.packed, s.packed.slope, classes, corners);
        find_lowest(s, stride_rows(s, band));
        if (grad.data) {
            std::memset(s.grad_left, 0, sizeof(T) * classes * s.packed.class_stride);
            std::memset(s.grad_slope, 0, sizeof(T) * classes * s.packed.class_stride);
        }
    }

    // f(block, place) for each block of an open band, in order; B: Block<T> or what has it as its base.
    template <class B, class F>
    void for_each_block(const WalkScratch<T>& s, int band, const F& f) const {
        const Runs& rows = banded.rows;
        const int end = banded.last_run(band) + 1;
        for (int first = band * banded.bands.runs; first < end;) {
            int last = first;  // runs between consecutive corners make one segment of lanes
            while (last + 1 < end && rows.run[last + 1].top == rows.run[last].top + 1) ++last;
            walk_segment<B>(s, band, first, last + 1, f);
            first = last + 1;
        }
    }

    // f(row, column, lane) for each cell of a block.
    template <class F>
    void for_each_cell(const Place& place, const F& f) const {
        int row = place.row, column = place.column;
        for (int lane = 0; lane < place.count; ++lane) {
            f(banded.rows.run[row], columns.run[column], lane);
            if (++column == columns.count) column = 0, ++row;
        }
    }

    void close_band(WalkScratch<T>& s, int64_t n, int band) const {
        if (grad.data) gradient.fold(s.gradient_row, s.grad_left, s.grad_slope, s.packed, n, band);
    }

    // When all bands are closed: the rows of the gradient, times a factor.
    void finish(int threads, T factor) const {
        if (!grad.data) return;
        parallel_for(images * height, threads, [&](int64_t row, int) { gradient.finish_row(row / height, row % height, factor); });
    }

private:
    // A lane of `low` is NaN where a score is not finite.
    void find_lowest(WalkScratch<T>& s, int count) const {
        T* low = s.low;
        for (int i = 0; i < count; ++i) low[i] = 0;
        for (int c = 0; c < classes; ++c) {
            const T *left = s.packed.left + c * s.packed.class_stride, *slope = s.packed.slope + c * s.packed.class_stride;
            for (int i = 0; i < count; ++i) {
                const T right = left[i] + slope[i], least = left[i] < right ? left[i] : right;
                low[i] = (least < low[i] ? least : low[i]) + (right - right);
            }
        }
        for (int64_t i = count; i < s.packed.class_stride; ++i) low[i] = 0;
    }

    template <class B, class F>
    void walk_segment(const WalkScratch<T>& s, int band, int first, int end, const F& f) const {
        const Runs& rows = banded.rows;
        constexpr int L = kLanes<T>;
        const int lanes = s.packed.lanes, total = lanes * (end - first);
        int longest = 0;
        for (int r = first, i = 0; r < end; ++r) {
            longest = int(imax(longest, rows.run[r].count));
            for (int p = 0; p < lanes; ++p, ++i) {
                s.t_column[i] = T(columns.run[p].t);
                s.n_column[i] = T(columns.run[p].count);
                s.t_row[i] = T(rows.run[r].t);
                s.n_row[i] = T(rows.run[r].count);
            }
        }
        for (int i = total; i < total + L; ++i) s.t_column[i] = s.n_column[i] = s.t_row[i] = s.n_row[i] = 0;

        const int64_t origin = int64_t(rows.run[first].top - banded.first_corner(band)) * lanes;
        B b{};
        b.class_stride = s.packed.class_stride;
        b.below = lanes;
        b.classes = classes;
        b.column_step = T(columns.slope);
        b.row_step = T(rows.slope);
        b.columns = columns.longest;
        b.rows = longest;
        b.pixel = s.pixel;
        b.params = s.params;
        b.exps = s.exps;
        // Ratios between pixels more than half a cell apart may overflow, and there is nothing to gain from them.
        const bool progressions = !exact && columns.slope <= 0.5 && rows.slope <= 0.5;
        for (int i = 0; i < total; i += L) {
            const int64_t at = origin + i;
            b.left = s.packed.left + at;
            b.slope = s.packed.slope + at;
            b.grad_left = s.grad_left ? s.grad_left + at : nullptr;
            b.grad_slope = s.grad_slope ? s.grad_slope + at : nullptr;
            b.t_column = load(s.t_column + i);
            b.n_column = load(s.n_column + i);
            b.t_row = load(s.t_row + i);
            b.n_row = load(s.n_row + i);
            const Vec<T> low = load(s.low + at), low_below = load(s.low + at + lanes);
            b.finite = !any((low != low) | (low_below != low_below));
            // NaN must fail: hence "all above", not "none below".
            b.progressions = progressions && !any(~((low > lowest) & (low_below > lowest)));
            f(b, Place{at, first + i / lanes, i % lanes, int(imin(L, total - i))});
        }
    }

    const Tensor x, grad;
    const Grid grid;
    GradientRows<T> gradient;
};

}  // namespace fcn::FCN_ISA
