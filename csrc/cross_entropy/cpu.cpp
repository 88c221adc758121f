// cross_entropy on CPUs, bound by memory. Pixels go in tiles: a tile's class planes are copied once into a buffer that
// stays in cache (reading strided planes twice would thrash it), softmax is done there, and the gradient leaves from there.
#include "cpu.h"

#include "../common/cells.h"
#include "../common/parallel.h"

namespace fcn::FCN_ISA {
namespace {

constexpr int kTile = 256;  // pixels; whole cache lines of every class plane, and long enough for the prefetchers

struct TaskResult {
    double loss, weight;
    int64_t bad_pixel;
};

template <class T>
struct Scratch {
    T *tile;                     // [C][kTile]
    T *peak, *sum, *target_score, *smooth, *label_weight, *pixel;
    int32_t* label;              // -1 where the pixel does not count
};

template <class T, class S>
class CrossEntropy {
public:
    explicit CrossEntropy(const CrossEntropyArgs& args)
        : a(args), images(a.logits.size[0]), classes(int(a.logits.size[1])), rows(a.logits.size[2]), columns(a.logits.size[3]) {
        // Rows without gaps between them are one long row.
        const Tensor* maps[] = {&a.logits, &a.target, a.grad.data ? &a.grad : nullptr, a.pixel_weight.data ? &a.pixel_weight : nullptr};
        bool flat = true;
        for (const Tensor* map : maps) {
            if (map) flat &= map->stride[map->dims - 2] == map->stride[map->dims - 1] * columns;
        }
        if (flat) columns *= rows, rows = 1;
        tiles = ceil_div(columns, kTile);
    }

    CrossEntropyResult run() {
        const int64_t strips = images * rows * tiles, tasks = ceil_div(strips, kStripsPerTask);
        const int threads = int(imax(1, imin(a.threads, tasks)));
        Memory memory([&](Arena& arena) {
            results = arena.take<TaskResult>(tasks);
            smoothing = arena.take<T>(classes);
            scratch = arena.take<Scratch<T>>(threads);
            for (int i = 0; i < threads; ++i) {
                Scratch<T> s;
                s.tile = arena.take<T>(int64_t(classes) * kTile);
                T** const pixel_rows[] = {&s.peak, &s.sum, &s.target_score, &s.smooth, &s.label_weight, &s.pixel};
                for (T** row : pixel_rows) *row = arena.take<T>(kTile);
                s.label = arena.take<int32_t>(kTile);
                if (scratch) scratch[i] = s;
            }
        });
        hard = T(1 - a.label_smoothing);
        const T* weight = static_cast<const T*>(a.weight.data);
        double total_smoothing = 0;
        for (int c = 0; c < classes; ++c) {
            const double w = a.label_smoothing / classes * (weight ? double(weight[c]) : 1);
            smoothing[c] = T(w);
            total_smoothing += w;
        }
        smoothing_total = T(total_smoothing);

        CrossEntropyResult total{0, -1};
        scale = 1;
        double mean = 1;
        if (a.mean) {  // the divisor comes first, so that the gradient is written once, scaled
            run_tasks(tasks, strips, threads, [&](int thread, int64_t strip, TaskResult& result) { count(scratch[thread], strip, result); });
            double weights = 0;
            for (int64_t i = 0; i < tasks; ++i) weights += results[i].weight;
            mean = weights != 0 ? 1 / weights : 0;
            scale = T(mean);
        }
        run_tasks(tasks, strips, threads, [&](int thread, int64_t strip, TaskResult& result) {
            tile(scratch[thread], strip, result);
        });
        for (int64_t i = 0; i < tasks; ++i) {
            total.loss += results[i].loss;
            if (total.bad_pixel < 0) total.bad_pixel = results[i].bad_pixel;
        }
        total.loss *= mean;
        return total;
    }

private:
    static constexpr int64_t kStripsPerTask = 16;  // fixed, so that sums do not depend on the number of threads

    template <class F>
    void run_tasks(int64_t tasks, int64_t strips, int threads, const F& f) const {
        parallel_for(tasks, threads, [&](int64_t task, int thread) {
            TaskResult result{0, 0, -1};
            for (int64_t strip = task * kStripsPerTask; strip < imin(strips, (task + 1) * kStripsPerTask); ++strip) {
                f(thread, strip, result);
            }
            results[task] = result;
        });
    }

    struct Strip {
        int64_t n, y, x;
        int count;
    };

    Strip locate(int64_t strip) const {
        const int64_t tile = strip % tiles, row = strip / tiles;
        return {row / rows, row % rows, tile * kTile, int(imin(kTile, columns - tile * kTile))};
    }

    // Labels, class weights and pixel weights of a strip.
    void read_labels(Scratch<T>& s, const Strip& at, TaskResult& result) const {
        const T* class_weight = static_cast<const T*>(a.weight.data);
        const T* pixel_weight = static_cast<const T*>(a.pixel_weight.data);
        if (pixel_weight) pixel_weight += at.n * a.pixel_weight.stride[0] + at.y * a.pixel_weight.stride[1] + at.x * a.pixel_weight.stride[2];
        with_label_dtype(a.target.dtype, [&](auto* type) {
            using Label = std::remove_pointer_t<decltype(type)>;
            const Label* labels = static_cast<const Label*>(a.target.data) + at.n * a.target.stride[0] + at.y * a.target.stride[1] + at.x * a.target.stride[2];
            const int64_t stride = a.target.stride[2];
            bool plain = stride == 1 && !class_weight && !pixel_weight;
            if (plain) {  // the common case, as loops that become vectors
                int32_t bad = 0;
                for (int i = 0; i < at.count; ++i) {
                    const int64_t label = int64_t(labels[i]);
                    const bool valid = label != a.ignore_index;
                    bad |= valid & ((label < 0) | (label >= classes));
                    s.label[i] = valid ? int32_t(label) : -1;
                    s.label_weight[i] = s.pixel[i] = valid ? T(1) : T(0);
                }
                plain = !bad;
            }
            for (int i = 0; i < at.count && !plain; ++i) {
                const int64_t label = int64_t(labels[i * stride]);
                s.label[i] = -1;
                s.label_weight[i] = s.pixel[i] = 0;
                if (label == a.ignore_index) continue;
                if (label < 0 || label >= classes) {
                    if (result.bad_pixel < 0) result.bad_pixel = (at.n * rows + at.y) * columns + at.x + i;
                    continue;
                }
                const T pixel = pixel_weight ? pixel_weight[i * a.pixel_weight.stride[2]] : T(1);
                if (pixel == 0) continue;
                s.label[i] = int32_t(label);
                s.pixel[i] = pixel;
                s.label_weight[i] = pixel * (class_weight ? class_weight[label] : T(1));
            }
        });
        for (int i = at.count; i < kTile; ++i) s.label[i] = -1, s.label_weight[i] = s.pixel[i] = 0;
        T weight = 0;
        for (int i = 0; i < kTile; i += kLanes<T>) weight += sum<T>(load(s.label_weight + i));
        result.weight += double(weight);
    }

    void count(Scratch<T>& s, int64_t strip, TaskResult& result) const { read_labels(s, locate(strip), result); }

    const S* logits_at(const Strip& at) const {
        return static_cast<const S*>(a.logits.data) + at.n * a.logits.stride[0] + at.y * a.logits.stride[2] +
               at.x * a.logits.stride[3];
    }

    // The strip's logits as [C][kTile], and the largest of each pixel.
    void read_logits(Scratch<T>& s, const Strip& at) const {
        const int64_t sc = a.logits.stride[1], sx = a.logits.stride[3];
        const S* from = logits_at(at);
        if (sx == 1) {
            for (int c = 0; c < classes; ++c) {
                T* to = s.tile + c * kTile;
                const S* plane = from + c * sc;
                for (int i = 0; i < at.count; ++i) to[i] = T(to_number(plane[i]));
                for (int i = 0; i < at.count; ++i) s.peak[i] = c == 0 || to[i] > s.peak[i] ? to[i] : s.peak[i];
            }
        } else {
            for (int i = 0; i < at.count; ++i) {
                for (int c = 0; c < classes; ++c) s.tile[c * kTile + i] = T(to_number(from[i * sx + c * sc]));
            }
            for (int c = 0; c < classes; ++c) {
                const T* to = s.tile + c * kTile;
                for (int i = 0; i < at.count; ++i) s.peak[i] = c == 0 || to[i] > s.peak[i] ? to[i] : s.peak[i];
            }
        }
        if (at.count == kTile) return;
        for (int c = 0; c < classes; ++c) std::memset(s.tile + c * kTile + at.count, 0, sizeof(T) * (kTile - at.count));
        for (int i = at.count; i < kTile; ++i) s.peak[i] = 0;
    }

    void tile(Scratch<T>& s, int64_t strip, TaskResult& result) const {
        using V = Vec<T>;
        constexpr int L = kLanes<T>;
        const Strip at = locate(strip);
        read_labels(s, at, result);
        read_logits(s, at);
        const FlushSubnormals flush;  // not before: subnormal float16 logits are read through subnormal float32
        const bool smooth = a.label_smoothing > 0;
        for (int i = 0; i < kTile; ++i) s.target_score[i] = s.label[i] < 0 ? T(0) : s.tile[s.label[i] * kTile + i];
        // The next strip's logits travel while this one's exponentials are computed. Prefetching never faults.
        const S* const next = logits_at(at) + kTile * a.logits.stride[3];
        const int64_t plane = a.logits.stride[1];
        for (int i = 0; i < kTile; i += L) {
            const V peak = load(s.peak + i);
            V total = {}, smoothed = {};
            for (int c = 0; c < classes; ++c) {
                T* p = s.tile + c * kTile + i;
                __builtin_prefetch(next + c * plane + i);
                const V v = load(p) - peak, e = vexp(v);
                total += e;
                store(p, e);
                if (smooth) smoothed += smoothing[c] * v;
            }
            store(s.sum + i, total);
            store(s.smooth + i, smoothed);
        }
        // loss = (hard w + smoothing) (log sum) - hard w (score - peak) - smoothed, where w is the label's weight
        V losses = {};
        T* const pixel_loss = static_cast<T*>(a.pixel_loss.data);
        for (int i = 0; i < kTile; i += L) {
            const V pixel = load(s.pixel + i), w = hard * load(s.label_weight + i), total = load(s.sum + i);
            const V a_lse = w + smoothing_total * pixel;
            const V lse = vlog(total);
            V loss = a_lse * lse - w * (load(s.target_score + i) - load(s.peak + i)) - pixel * load(s.smooth + i);
            loss = pixel != T(0) ? loss : V{};  // nothing of a pixel that does not count, NaN included
            losses += loss;
            store(s.sum + i, pixel != T(0) ? scale * a_lse / total : V{});
            store(s.smooth + i, loss);
        }
        result.loss += double(sum<T>(losses));
        if (pixel_loss) {
            std::memcpy(pixel_loss + (at.n * rows + at.y) * columns + at.x, s.smooth, sizeof(T) * at.count);
        }
        if (a.grad.data) write_gradient(s, at);
    }

    void write_gradient(Scratch<T>& s, const Strip& at) const {
        using V = Vec<T>;
        constexpr int L = kLanes<T>;
        const bool smooth = a.label_smoothing > 0;
        const int64_t sc = a.grad.stride[1], sx = a.grad.stride[3];
        S* const to = static_cast<S*>(a.grad.data) + at.n * a.grad.stride[0] + at.y * a.grad.stride[2] + at.x * sx;
        for (int c = 0; c < classes; ++c) {
            T* p = s.tile + c * kTile;
            for (int i = 0; i < kTile; i += L) {
                const V factor = load(s.sum + i);
                V g = factor * load(p + i);
                if (smooth) g -= scale * smoothing[c] * load(s.pixel + i);
                store(p + i, factor != T(0) || smooth ? g : V{});
            }
        }
        for (int i = 0; i < at.count; ++i) {
            if (s.label[i] >= 0) s.tile[s.label[i] * kTile + i] -= scale * hard * s.label_weight[i];
        }
        if (sx == 1) {
            for (int c = 0; c < classes; ++c) write_row(to + c * sc, s.tile + c * kTile, at.count);
        } else {
            for (int i = 0; i < at.count; ++i) {
                for (int c = 0; c < classes; ++c) from_number(s.tile[c * kTile + i], to[i * sx + c * sc]);
            }
        }
    }

    void write_row(S* to, const T* from, int count) const {
        if constexpr (sizeof(S) == sizeof(float) && sizeof(T) == sizeof(float)) {
            if (can_stream(to, count, images * classes * rows * columns)) {
                for (int i = 0; i < count; i += kLanes<T>) stream(to + i, load(from + i));
                return;
            }
        }
        for (int i = 0; i < count; ++i) from_number(from[i], to[i]);
    }

    const CrossEntropyArgs& a;
    const int64_t images;
    const int classes;
    int64_t rows, columns, tiles;
    T hard, smoothing_total, scale;
    T* smoothing;
    TaskResult* results;
    Scratch<T>* scratch;
};

}  // namespace

CrossEntropyResult cross_entropy(const CrossEntropyArgs& args) {
    CrossEntropyResult result{};
    with_float_dtype(args.logits.dtype, [&](auto* type) {
        using S = std::remove_pointer_t<decltype(type)>;
        using T = std::conditional_t<std::is_same_v<S, double>, double, float>;
        result = CrossEntropy<T, S>(args).run();
    });
    return result;
}

}  // namespace fcn::FCN_ISA
