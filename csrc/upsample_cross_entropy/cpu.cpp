// upsample_cross_entropy on CPUs: bands of cells in parallel, blocks of cells within a band, the gradient gathered.
#include "cpu.h"

#include "../common/parallel.h"
#include "../common/walk.h"
#include "exact.h"
#include "geometric.h"
#include "labels.h"

namespace fcn::FCN_ISA {
namespace {

struct BandResult {
    double loss, weight;
    int64_t bad_pixel, exact_blocks, blocks;
};

template <class T>
double run_block(const LossBlock<T>& b, const T* smoothing, T* pixel_lse) {
    return with_columns(b, [&](auto columns) {
        constexpr int K = decltype(columns)::value;
        if (b.progressions) return geometric_block<T, K>(b, pixel_lse);
        return b.finite ? exact_block<T, K, true>(b, smoothing, pixel_lse) : exact_block<T, K, false>(b, smoothing, pixel_lse);
    });
}

// A thread's working memory.
template <class T>
struct Scratch {
    WalkScratch<T> walk;
    T *smooth_left, *smooth_slope;  // the smoothing term's sums: like one class of the gradient's
    T *coefficient, *pixel_lse;
};

template <class T>
class Loss {
public:
    explicit Loss(const UpsampleCrossEntropyArgs& args) : a(args), walk(a.x, a.grad, a.grid), classes(walk.classes) {
        walk.exact = a.exact || (a.pixel_loss.data && a.label_smoothing > 0);
    }

    UpsampleCrossEntropyResult run() {
        Memory plan_memory([&](Arena& arena) {
            walk.allocate_plan(arena);
            smoothing = arena.take<T>(classes);
        });
        walk.plan();
        plan_options();
        const int64_t tasks = walk.bands();
        const int bands = walk.banded.bands.count;
        const int threads = int(imax(1, imin(a.threads, tasks)));
        Memory memory([&](Arena& arena) {
            results = arena.take<BandResult>(tasks);
            walk.allocate(arena);
            scratch = arena.take<Scratch<T>>(threads);
            for (int t = 0; t < threads; ++t) {
                Scratch<T> s;
                allocate(s, arena);
                if (scratch) scratch[t] = s;
            }
        });
        walk.prepare();
        parallel_for(tasks, threads, [&](int64_t task, int thread) {
            with_label_dtype(a.target.dtype, [&](auto* type) {
                using S = std::remove_pointer_t<decltype(type)>;
                results[task] = run_band<S>(scratch[thread], task / bands, int(task % bands));
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
        walk.finish(threads, T(factor));
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
        walk.allocate(s.walk, arena);
        const int64_t stride = s.walk.packed.class_stride;
        s.smooth_left = options.smoothing ? arena.take<T>(stride) : nullptr;
        s.smooth_slope = options.smoothing ? arena.take<T>(stride) : nullptr;
        s.coefficient = arena.take<T>(kMaxPixels * L);
        s.pixel_lse = a.pixel_loss.data ? arena.take<T>(kMaxPixels * L) : nullptr;
    }

    template <class S>
    BandResult run_band(Scratch<T>& s, int64_t n, int band) const {
        walk.open_band(s.walk, n, band);
        if (options.smoothing) {
            std::memset(s.smooth_left, 0, sizeof(T) * s.walk.packed.class_stride);
            std::memset(s.smooth_slope, 0, sizeof(T) * s.walk.packed.class_stride);
        }
        BandResult result{0, 0, -1, 0, 0};
        LabelSums<T> sums;
        {
            const FlushSubnormals flush;
            walk.template for_each_block<LossBlock<T>>(s.walk, band, [&](LossBlock<T>& b, const Place& place) {
                b.coefficient = add_labels<S>(s, b, n, place, sums) ? s.coefficient : nullptr;
                result.loss += run_block(b, options.smoothing, s.pixel_lse);
                result.exact_blocks += !b.progressions;
                result.blocks += 1;
                if (s.pixel_lse) b.finite ? write_pixels<S, true>(s, b, n, place) : write_pixels<S, false>(s, b, n, place);
            });
        }
        if (options.smoothing) apply_smoothing(s, walk.stride_rows(s.walk, band), sums.score);
        walk.close_band(s.walk, n, band);
        result.loss -= sums.score;
        result.weight = sums.weight;
        result.bad_pixel = sums.bad_pixel;
        return result;
    }

    // The label term of the block's cells. Returns whether the block needs coefficients, which are then filled in.
    template <class S>
    bool add_labels(Scratch<T>& s, const Block<T>& b, int64_t n, const Place& place, LabelSums<T>& sums) const {
        bool weighed = a.weight.data || a.pixel_weight.data || s.pixel_lse;
        for_each_cell<S>(s, n, place, [&](const Cell<T>& cell, const S* labels, const T* weight, int lane) {
            const int64_t pixel = (n * a.target.size[1] + cell.row->first) * a.target.size[2] + cell.column->first;
            weighed |= add_cell(b, lane, cell, options, labels, a.target.stride[1], a.target.stride[2], weight,
                                a.pixel_weight.stride + 1, pixel, a.target.size[2], sums);
        });
        if (!weighed) return false;
        std::memset(s.coefficient, 0, sizeof(T) * b.rows * b.columns * kLanes<T>);
        for_each_cell<S>(s, n, place, [&](const Cell<T>& cell, const S* labels, const T* weight, int lane) {
            fill_coefficients(b, cell, options, labels, a.target.stride[1], a.target.stride[2], weight,
                              a.pixel_weight.stride + 1, s.coefficient + lane);
        });
        return true;
    }

    template <class S, class F>
    void for_each_cell(Scratch<T>& s, int64_t n, const Place& place, const F& f) const {
        walk.for_each_cell(place, [&](const Run& row, const Run& column, int lane) {
            Cell<T> cell{&row, &column, nullptr, nullptr};
            if (s.smooth_left) cell.smooth_left = s.smooth_left + place.at + lane, cell.smooth_slope = s.smooth_slope + place.at + lane;
            const S* labels = static_cast<const S*>(a.target.data) + n * a.target.stride[0] +
                              row.first * a.target.stride[1] + column.first * a.target.stride[2];
            const T* weight = static_cast<const T*>(a.pixel_weight.data);
            if (weight) {
                weight += n * a.pixel_weight.stride[0] + row.first * a.pixel_weight.stride[1] +
                          column.first * a.pixel_weight.stride[2];
            }
            f(cell, labels, weight, lane);
        });
    }

    template <class S, bool finite>
    void write_pixels(Scratch<T>& s, const LossBlock<T>& b, int64_t n, const Place& place) const {
        constexpr int L = kLanes<T>;
        for_each_cell<S>(s, n, place, [&](const Cell<T>& cell, const S* labels, const T* weight, int lane) {
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
                    out[x] = s.pixel_lse[pixel] - w * (times<finite>(hard, score) + b.pixel[pixel]);
                }
            }
        });
    }

    void apply_smoothing(Scratch<T>& s, int count, double& score) const {
        for (int c = 0; c < classes; ++c) {
            const int64_t at = c * s.walk.packed.class_stride;
            double sum = 0;
            for (int i = 0; i < count; ++i) {
                sum += double(times(s.smooth_left[i], s.walk.packed.left[at + i]) + times(s.smooth_slope[i], s.walk.packed.slope[at + i]));
            }
            score += times(double(smoothing[c]), sum);
            if (!s.walk.grad_left) continue;
            for (int i = 0; i < count; ++i) {
                s.walk.grad_left[at + i] -= smoothing[c] * s.smooth_left[i];
                s.walk.grad_slope[at + i] -= smoothing[c] * s.smooth_slope[i];
            }
        }
    }

    const UpsampleCrossEntropyArgs& a;
    Walk<T> walk;
    const int classes;
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
