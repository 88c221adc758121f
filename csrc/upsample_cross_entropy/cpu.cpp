// upsample_cross_entropy on CPUs: bands of cells in parallel, blocks of cells within a band, the gradient gathered.
#include "cpu.h"

#include "../common/cells.h"
#include "../common/parallel.h"
#include "exact.h"
#include "geometric.h"
#include "gradient.h"
#include "labels.h"

namespace fcn::FCN_ISA {
namespace {

struct BandResult {
    double loss, weight;
    int64_t bad_pixel, exact_blocks, blocks;
};

template <class T, int K>
double run_block(const Block<T>& b, bool geometric, const T* smoothing, T* pixel_lse) {
    if (geometric) return geometric_block<T, K>(b);
    return b.finite ? exact_block<T, K, true>(b, smoothing, pixel_lse) : exact_block<T, K, false>(b, smoothing, pixel_lse);
}

template <class T>
double run_block(const Block<T>& b, bool geometric, const T* smoothing, T* pixel_lse) {
    switch (b.columns) {
        case 1: return run_block<T, 1>(b, geometric, smoothing, pixel_lse);
        case 2: return run_block<T, 2>(b, geometric, smoothing, pixel_lse);
        case 3: return run_block<T, 3>(b, geometric, smoothing, pixel_lse);
        case 4: return run_block<T, 4>(b, geometric, smoothing, pixel_lse);
        case 5: return run_block<T, 5>(b, geometric, smoothing, pixel_lse);
        case 6: return run_block<T, 6>(b, geometric, smoothing, pixel_lse);
        case 7: return run_block<T, 7>(b, geometric, smoothing, pixel_lse);
        default: return run_block<T, 8>(b, geometric, smoothing, pixel_lse);
    }
}

// A thread's working memory.
template <class T>
struct Scratch {
    Packed<T> packed;
    T *grad_left, *grad_slope;      // like packed.left
    T *smooth_left, *smooth_slope;  // the smoothing term's sums: like one class of it
    T* low;                         // smallest corner score of a lane in one row of corners
    T *t_column, *n_column, *t_row, *n_row;  // per lane of a segment
    T *pixel, *coefficient, *pixel_lse, *params, *exps;
    RowScratch<T> gradient_row;
};

template <class T>
class Loss {
public:
    explicit Loss(const UpsampleCrossEntropyArgs& args)
        : a(args), images(a.x.size[0]), height(a.x.size[2]), width(a.x.size[3]), classes(int(a.x.size[1])) {}

    UpsampleCrossEntropyResult run() {
        Memory plan_memory([&](Arena& arena) {
            allocate_runs(banded.rows, arena, a.grid.rows.size);
            allocate_runs(columns, arena, a.grid.columns.size);
            gradient.allocate_plan(arena, height);
            smoothing = arena.take<T>(classes);
        });
        build_runs(banded.rows, a.grid.rows, height, a.grid.clamp);
        build_runs(columns, a.grid.columns, width, a.grid.clamp);
        banded.bands = plan_bands(banded.rows, columns, images, classes, sizeof(T));
        plan_options();
        const Bands& bands = banded.bands;
        const int64_t tasks = images * bands.count;
        const int threads = int(imax(1, imin(a.threads, tasks)));
        Memory memory([&](Arena& arena) {
            results = arena.take<BandResult>(tasks);
            if (a.grad.data) gradient.allocate(arena, banded, a.grad);
            scratch = arena.take<Scratch<T>>(threads);
            for (int t = 0; t < threads; ++t) {
                Scratch<T> s;
                allocate(s, arena);
                if (scratch) scratch[t] = s;
            }
        });
        if (a.grad.data) gradient.prepare(&banded, &columns, a.grad);
        parallel_for(tasks, threads, [&](int64_t task, int thread) {
            with_label_dtype(a.target.dtype, [&](auto* type) {
                using S = std::remove_pointer_t<decltype(type)>;
                results[task] = run_band<S>(scratch[thread], task / bands.count, int(task % bands.count));
            });
        });
        UpsampleCrossEntropyResult total{0, -1, 0, 0};
        double weight = 0;
        for (int64_t task = 0; task < tasks; ++task) {  // in order, whatever thread made it
            total.loss += results[task].loss;
            weight += results[task].weight;
            if (total.bad_pixel < 0) total.bad_pixel = results[task].bad_pixel;
            total.exact_blocks += results[task].exact_blocks;
            total.blocks += results[task].blocks;
        }
        const double factor = !a.mean ? 1 : weight != 0 ? 1 / weight : 0;
        total.loss *= factor;
        if (a.grad.data) {
            parallel_for(images * height, threads, [&](int64_t row, int) { gradient.finish_row(row / height, row % height, T(factor)); });
        }
        return total;
    }

private:
    void plan_options() {
        options.class_weight = static_cast<const T*>(a.weight.data);
        options.hard = T(1 - a.label_smoothing);
        options.smoothing_total = 0;
        options.ignore_index = a.ignore_index;
        options.smoothing = a.label_smoothing > 0 ? smoothing : nullptr;
        if (!options.smoothing) return;
        double total = 0;
        for (int c = 0; c < classes; ++c) {
            const double w = options.class_weight ? double(options.class_weight[c]) : 1;
            smoothing[c] = T(a.label_smoothing / classes * w);
            total += a.label_smoothing / classes * w;
        }
        options.smoothing_total = T(total);
    }

    void allocate(Scratch<T>& s, Arena& arena) const {
        constexpr int L = kLanes<T>;
        allocate_packed(s.packed, arena, classes, width, columns, banded.bands.corners);
        const int64_t stride = s.packed.class_stride;
        s.low = arena.take<T>(stride);
        if (a.grad.data) {
            s.grad_left = arena.take<T>(classes * stride);
            s.grad_slope = arena.take<T>(classes * stride);
            GradientRows<T>::allocate(s.gradient_row, arena, columns, a.grad);
        } else {
            s.grad_left = s.grad_slope = nullptr;
        }
        s.smooth_left = options.smoothing ? arena.take<T>(stride) : nullptr;
        s.smooth_slope = options.smoothing ? arena.take<T>(stride) : nullptr;
        const int64_t lanes = int64_t(columns.count) * banded.bands.runs + L;
        s.t_column = arena.take<T>(lanes);
        s.n_column = arena.take<T>(lanes);
        s.t_row = arena.take<T>(lanes);
        s.n_row = arena.take<T>(lanes);
        s.pixel = arena.take<T>(kMaxPixels * L);
        s.coefficient = arena.take<T>(kMaxPixels * L);
        s.pixel_lse = a.pixel_loss.data ? arena.take<T>(kMaxPixels * L) : nullptr;
        s.params = arena.take<T>(4 * L * classes);
        s.exps = arena.take<T>(int64_t(kMaxRun) * L * classes);
    }

    template <class S>
    BandResult run_band(Scratch<T>& s, int64_t n, int band) const {
        const Runs& rows = banded.rows;
        const int corners = banded.corner_rows(band), stride_rows = s.packed.lanes * corners;
        const int64_t stride = s.packed.class_stride;
        for (int r = 0; r < corners; ++r) {
            pack_row(s.packed, a.x, columns, n, rows.corner[banded.first_corner(band) + r], r, true);
        }
        clear_tail(s.packed, s.packed.left, classes, corners);
        clear_tail(s.packed, s.packed.slope, classes, corners);
        find_lowest(s, stride_rows);
        if (a.grad.data) {
            std::memset(s.grad_left, 0, sizeof(T) * classes * stride);
            std::memset(s.grad_slope, 0, sizeof(T) * classes * stride);
        }
        if (options.smoothing) {
            std::memset(s.smooth_left, 0, sizeof(T) * stride);
            std::memset(s.smooth_slope, 0, sizeof(T) * stride);
        }
        BandResult result{0, 0, -1, 0, 0};
        LabelSums<T> sums;
        {
            const FlushSubnormals flush;
            const int end = banded.last_run(band) + 1;
            for (int first = band * banded.bands.runs; first < end;) {
                int last = first;  // runs between consecutive corners make one segment of lanes
                while (last + 1 < end && rows.run[last + 1].top == rows.run[last].top + 1) ++last;
                run_segment<S>(s, n, band, first, last + 1, sums, result);
                first = last + 1;
            }
        }
        if (options.smoothing) apply_smoothing(s, stride_rows, sums.score);
        if (a.grad.data) gradient.fold(s.gradient_row, s.grad_left, s.grad_slope, s.packed, n, band);
        result.loss -= sums.score;
        result.weight = sums.weight;
        result.bad_pixel = sums.bad_pixel;
        return result;
    }

    // A lane of `low` is NaN where a score is not finite.
    void find_lowest(Scratch<T>& s, int count) const {
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

    template <class S>
    void run_segment(Scratch<T>& s, int64_t n, int band, int first, int end, LabelSums<T>& sums, BandResult& result) const {
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
        Block<T> b{};
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
        const bool progressions = !a.exact && !s.pixel_lse && columns.slope <= 0.5 && rows.slope <= 0.5;
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
            const bool weighed = add_labels<S>(s, b, n, at, first, i, int(imin(L, total - i)), sums);
            b.coefficient = weighed ? s.coefficient : nullptr;
            const bool geometric = progressions && fits_geometric(low, low_below);
            result.loss += run_block(b, geometric, options.smoothing, s.pixel_lse);
            result.exact_blocks += !geometric;
            result.blocks += 1;
            if (s.pixel_lse) {
                const int count = int(imin(L, total - i));
                b.finite ? write_pixels<S, true>(s, b, n, first, i, count) : write_pixels<S, false>(s, b, n, first, i, count);
            }
        }
    }

    static bool fits_geometric(Vec<T> up, Vec<T> down) {
        // NaN must fail: hence "all above", not "none below".
        return !any(~((up > T(kLowest)) & (down > T(kLowest))));
    }

    // The label term of the block's cells. Returns whether the block needs coefficients, which are then filled in.
    template <class S>
    bool add_labels(Scratch<T>& s, const Block<T>& b, int64_t n, int64_t at, int first_run, int i, int count,
                    LabelSums<T>& sums) const {
        bool weighed = a.weight.data || a.pixel_weight.data || s.pixel_lse;
        for_each_cell<S>(s, n, at, first_run, i, count, [&](const Cell<T>& cell, const S* labels, const T* weight, int lane) {
            const int64_t pixel = (n * a.target.size[1] + cell.row->first) * a.target.size[2] + cell.column->first;
            weighed |= add_cell(b, lane, cell, options, labels, a.target.stride[1], a.target.stride[2], weight,
                                a.pixel_weight.stride + 1, pixel, a.target.size[2], sums);
        });
        if (!weighed) return false;
        std::memset(s.coefficient, 0, sizeof(T) * b.rows * b.columns * kLanes<T>);
        for_each_cell<S>(s, n, at, first_run, i, count, [&](const Cell<T>& cell, const S* labels, const T* weight, int lane) {
            fill_coefficients(b, cell, options, labels, a.target.stride[1], a.target.stride[2], weight,
                              a.pixel_weight.stride + 1, s.coefficient + lane);
        });
        return true;
    }

    template <class S, class F>
    void for_each_cell(Scratch<T>& s, int64_t n, int64_t at, int first_run, int i, int count, const F& f) const {
        const int lanes = s.packed.lanes;
        int run = first_run + i / lanes, column = i % lanes;
        for (int lane = 0; lane < count; ++lane) {
            Cell<T> cell{banded.rows.run + run, columns.run + column, nullptr, nullptr};
            if (s.smooth_left) cell.smooth_left = s.smooth_left + at + lane, cell.smooth_slope = s.smooth_slope + at + lane;
            const S* labels = static_cast<const S*>(a.target.data) + n * a.target.stride[0] +
                              cell.row->first * a.target.stride[1] + cell.column->first * a.target.stride[2];
            const T* weight = static_cast<const T*>(a.pixel_weight.data);
            if (weight) {
                weight += n * a.pixel_weight.stride[0] + cell.row->first * a.pixel_weight.stride[1] +
                          cell.column->first * a.pixel_weight.stride[2];
            }
            f(cell, labels, weight, lane);
            if (++column == lanes) column = 0, ++run;
        }
    }

    template <class S, bool finite>
    void write_pixels(Scratch<T>& s, const Block<T>& b, int64_t n, int first_run, int i, int count) const {
        constexpr int L = kLanes<T>;
        for_each_cell<S>(s, n, 0, first_run, i, count, [&](const Cell<T>& cell, const S* labels, const T* weight, int lane) {
            for (int y = 0; y < cell.row->count; ++y) {
                T* out = static_cast<T*>(a.pixel_loss.data) +
                         (n * a.target.size[1] + cell.row->first + y) * a.target.size[2] + cell.column->first;
                for (int x = 0; x < cell.column->count; ++x) {
                    const int64_t pixel = (y * b.columns + x) * L + lane;
                    if (s.coefficient[pixel] == 0) {
                        out[x] = 0;
                        continue;
                    }
                    const int64_t label = int64_t(labels[y * a.target.stride[1] + x * a.target.stride[2]]);
                    const T t_row = T(cell.row->t) + T(y) * b.row_step, t = T(cell.column->t) + T(x) * b.column_step;
                    const int64_t corner = label * b.class_stride + lane;
                    const T up = along<finite>(b.left[corner], t, b.slope[corner]);
                    const T down = along<finite>(b.left[corner + b.below], t, b.slope[corner + b.below]);
                    const T score = along<finite>(up, t_row, difference<finite>(up, down));
                    const T w = weight ? weight[y * a.pixel_weight.stride[1] + x * a.pixel_weight.stride[2]] : T(1);
                    const T hard = options.hard * (options.class_weight ? options.class_weight[label] : T(1));
                    out[x] = s.pixel_lse[pixel] - w * (times<finite>(hard, score) + s.pixel[pixel]);
                }
            }
        });
    }

    void apply_smoothing(Scratch<T>& s, int count, double& score) const {
        for (int c = 0; c < classes; ++c) {
            const int64_t at = c * s.packed.class_stride;
            double sum = 0;
            for (int i = 0; i < count; ++i) {
                sum += double(times(s.smooth_left[i], s.packed.left[at + i]) + times(s.smooth_slope[i], s.packed.slope[at + i]));
            }
            score += times(double(smoothing[c]), sum);
            if (!s.grad_left) continue;
            for (int i = 0; i < count; ++i) {
                s.grad_left[at + i] -= smoothing[c] * s.smooth_left[i];
                s.grad_slope[at + i] -= smoothing[c] * s.smooth_slope[i];
            }
        }
    }

    const UpsampleCrossEntropyArgs& a;
    const int64_t images, height, width;
    const int classes;
    BandedRows banded;
    Runs columns;
    GradientRows<T> gradient;
    LabelOptions<T> options;
    T* smoothing;
    BandResult* results;
    Scratch<T>* scratch;
};

}  // namespace

UpsampleCrossEntropyResult upsample_cross_entropy(const UpsampleCrossEntropyArgs& args) {
    if (args.x.dtype == DType::float64) return Loss<double>(args).run();
    return Loss<float>(args).run();
}

}  // namespace fcn::FCN_ISA
