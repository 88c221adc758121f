// upsample_region_sums on a GPU: a block of threads takes a tile of cells, a thread a patch of up to R x K pixels of one
// cell; a second, small kernel adds up what tiles share. One exponential per pixel and class, relative to the pixel's
// maximum, so that scores may be of any range and not finite; the formulas are in block.h. What is not particular to sums
// (tiles, corners, labels, the gradient's way home) is the loss's.
#include "cuda.h"

#include "../common/sums.h"
#include "../upsample_cross_entropy/cuda_exact.h"
#include "../upsample_cross_entropy/cuda_finish.h"

namespace fcn {

template <class S>
struct RegionArgs : LossArgs<S> {
    const float* weights;  // backward: [2][image][class], incoming gradients of intersections and of predictions
    float* parts;          // forward: [block][3][class]
    float* results;        // forward: [3][image][class]
    bool squared;
};

constexpr int kColumns = 4, kRows = 2;  // of a patch: few registers

struct RegionCut {
    bool single;  // pixels are so far apart that each is a patch
    AxisPatches down, across;

    explicit RegionCut(const UpsampleRegionSumsArgs& args)
        : down(args.grid.rows, args.x.size[2], args.grid.clamp, kRows), across(args.grid.columns, args.x.size[3], args.grid.clamp, kColumns) {
        single = down.length == 1 && across.length == 1;
    }
};

struct RegionPlan : RegionCut, Tiling {
    explicit RegionPlan(const UpsampleRegionSumsArgs& args) : RegionCut(args), Tiling(down, across, args.x.size[0]) {}

    int64_t tiles() const { return int64_t(rows.tiles) * columns.tiles; }
    int64_t numbers(int64_t classes, bool with_grad) const { return blocks * classes * (with_grad ? rows.slots * columns.slots : 3); }
};

namespace {

// Of this thread's pixels: labels, largest scores and sums of exponentials; later 1 / these, 0 where a pixel counts nowhere.
template <int K, int R>
struct Pixels {
    int label[R][K];
    float peak[R][K], sum[R][K];
    unsigned present = 0;  // bit c % 32: whether a pixel may have class c
    bool bad = false;      // a label is out of range

    FCN_D bool may_have(int c) const { return present >> (c & 31) & 1; }

    FCN_D float probability(int row, int k, float score) const {
        return sum[row][k] != 0 ? sum[row][k] * exp2_approx(score - peak[row][k]) : 0.0f;
    }
};

// f(row, k, score) for a class's scores at the patch's pixels, in units of log 2.
template <int K, int R, class S, class F>
FCN_D void for_each_score(const RegionArgs<S>& a, const Patch& patch, const Corners<S>& corners, const S* plane, const F& f) {
    float v[4];
    corners.read_any(plane, v);
#pragma unroll
    for (int row = 0; row < R; ++row) {
        const RowScores scores(v, fmaf(float(row), a.rows.slope, patch.t_row), patch.t_column, a.columns.slope);
#pragma unroll
        for (int k = 0; k < K; ++k) f(row, k, scores.at(k));
    }
}

// Reads labels, finds peaks and makes sums; seen(c, row, k, exponential) for each.
template <int K, int R, class S, class F>
FCN_D void make_pixels(const RegionArgs<S>& a, const Patch& patch, const Corners<S>& corners, Pixels<K, R>& pixels, const F& seen) {
#pragma unroll
    for (int row = 0; row < R; ++row) {
        const int count = row < patch.rows() ? patch.columns() : 0;
        read_labels<K>(a, patch.image, patch.first_row() + row, patch.first_column(), count, pixels.label[row]);
#pragma unroll
        for (int k = 0; k < K; ++k) {
            const int label = pixels.label[row][k];
            pixels.bad |= label == kOutOfRange;
            if (label >= 0) pixels.present |= 1u << (label & 31);
            pixels.peak[row][k] = -INFINITY, pixels.sum[row][k] = 0;
        }
    }
    const S* plane = corners.image;
#pragma unroll 1
    for (int c = 0; c < a.classes; ++c, plane += corners.class_stride) {
        for_each_score<K, R>(a, patch, corners, plane, [&](int row, int k, float score) {
            pixels.peak[row][k] = fmaxf(pixels.peak[row][k], score);
        });
    }
    plane = corners.image;
#pragma unroll 1
    for (int c = 0; c < a.classes; ++c, plane += corners.class_stride) {
        for_each_score<K, R>(a, patch, corners, plane, [&](int row, int k, float score) {
            const float e = exp2_approx(score - pixels.peak[row][k]);
            pixels.sum[row][k] += e;
            seen(c, row, k, e);
        });
    }
#pragma unroll
    for (int row = 0; row < R; ++row) {
#pragma unroll
        for (int k = 0; k < K; ++k) pixels.sum[row][k] = pixels.label[row][k] >= 0 ? __fdividef(1.0f, pixels.sum[row][k]) : 0.0f;
    }
}

template <int K, int R, class S>
__global__ void __launch_bounds__(kThreads, 2) sums_kernel(const RegionArgs<S> a) {
    const Place place(a);
    const Patch patch(a, place);
    find_peaks(a, place, 0);
    const Corners<S> corners(a, place);
    Pixels<K, R> pixels;
    make_pixels<K, R>(a, patch, corners, pixels, [](int, int, int, float) {});
    const S* plane = corners.image;
    float* out = a.parts + int64_t(blockIdx.x) * 3 * a.classes;
#pragma unroll 1
    for (int c = 0; c < a.classes; ++c, plane += corners.class_stride, ++out) {
        // A label out of range makes its image's sums NaN.
        float prediction = pixels.bad ? NAN : 0.0f, intersection = prediction, count = prediction;
        const bool may_have = pixels.may_have(c);
        for_each_score<K, R>(a, patch, corners, plane, [&](int row, int k, float score) {
            const float p = pixels.probability(row, k, score);
            prediction += a.squared ? p * p : p;
            if (may_have && pixels.label[row][k] == c) intersection += p, count += 1;
        });
        intersection = block_sum(intersection), prediction = block_sum(prediction), count = block_sum(count);
        if (threadIdx.x == 0) out[0] = intersection, out[a.classes] = prediction, out[2 * a.classes] = count;
    }
}

// A thread adds up one number of one image: the tiles' parts in order.
template <class S>
__global__ void __launch_bounds__(kThreads) add_parts_kernel(const RegionArgs<S> a, int64_t tiles) {
    const int numbers = 3 * a.classes;
    const int64_t i = int64_t(blockIdx.x) * kThreads + threadIdx.x, image = i / numbers;
    if (image >= a.images) return;
    const int number = int(i - image * numbers), which = number / a.classes, c = number - which * a.classes;
    double total = 0;
    for (int64_t tile = image * tiles; tile < (image + 1) * tiles; ++tile) total += double(a.parts[tile * numbers + number]);
    a.results[(which * int64_t(a.images) + image) * a.classes + c] = float(total);
}

template <int K, int R, class S>
__global__ void __launch_bounds__(kThreads, 2) gradient_kernel(const RegionArgs<S> a) {
    const Place place(a);
    const Patch patch(a, place);
    find_peaks(a, place, 0);
    const Corners<S> corners(a, place);
    CornerSums<S> gradient(a, place);
    const float* const of_intersection = a.weights + int64_t(patch.image) * a.classes;
    const float* const of_prediction = of_intersection + int64_t(a.images) * a.classes;
    Pixels<K, R> pixels;
    float mean[R][K] = {}, own[R][K] = {};  // the sum over classes of p_k w_k, the label's part apart
    make_pixels<K, R>(a, patch, corners, pixels, [&](int c, int row, int k, float e) {
        mean[row][k] = fmaf(of_prediction[c], a.squared ? 2 * e * e : e, mean[row][k]);
        if (pixels.label[row][k] == c) own[row][k] = of_intersection[c] * e;
    });
#pragma unroll
    for (int row = 0; row < R; ++row) {
#pragma unroll
        for (int k = 0; k < K; ++k) {
            const float inverse = pixels.sum[row][k];
            mean[row][k] = inverse != 0 ? inverse * fmaf(mean[row][k], a.squared ? inverse : 1.0f, own[row][k]) : 0.0f;
        }
    }
    const S* plane = corners.image;
#pragma unroll 1
    for (int first = 0; first < a.classes; first += CornerSums<S>::kClasses) {
        const int classes = min(CornerSums<S>::kClasses, a.classes - first);
#pragma unroll 1
        for (int g = 0; g < classes; ++g, plane += corners.class_stride) {
            const int c = first + g;
            const float weight = a.squared ? 2 * of_prediction[c] : of_prediction[c];
            const float of_label = pixels.may_have(c) ? of_intersection[c] : 0.0f;
            float all[R] = {}, right[R] = {};
            for_each_score<K, R>(a, patch, corners, plane, [&](int row, int k, float score) {
                const float p = pixels.probability(row, k, score);
                const float w = (a.squared ? weight * p : weight) + (pixels.label[row][k] == c ? of_label : 0.0f);
                const float slope = p * (w - mean[row][k]);
                all[row] += slope;
                right[row] = fmaf(float(k), slope, right[row]);
            });
            float sum[4] = {0, 0, 0, 0};
#pragma unroll
            for (int row = 0; row < R; ++row) {
                const float t_row = fmaf(float(row), a.rows.slope, patch.t_row);
                const float to_right = fmaf(a.columns.slope, right[row], patch.t_column * all[row]), to_left = all[row] - to_right;
                sum[0] += fmaf(-t_row, to_left, to_left), sum[1] += fmaf(-t_row, to_right, to_right);
                sum[2] = fmaf(t_row, to_left, sum[2]), sum[3] = fmaf(t_row, to_right, sum[3]);
            }
            gradient.put(g, sum);
        }
        gradient.flush(first, classes, false);
    }
}

template <class S>
__global__ void __launch_bounds__(kThreads) finish_kernel(const RegionArgs<S> a) {
    finish_pixel(a, int64_t(blockIdx.x) * kThreads + threadIdx.x, int(blockIdx.y) * kFinishClasses);
}

}  // namespace

template <class S>
void upsample_region_sums(const UpsampleRegionSumsArgs& args, const Tensor& workspace, cudaStream_t stream) {
    const RegionPlan plan(args);
    const Tensor& x = args.x;
    if ((x.size[2] - 1) * x.stride[2] + (x.size[3] - 1) * x.stride[3] >= (int64_t(1) << 31)) {
        throw std::invalid_argument("x: a class of an image spans 2^31 numbers or more");
    }
    RegionArgs<S> a{};
    a.x = static_cast<const S*>(x.data);
    a.grad = static_cast<float*>(args.grad.data);
    for (int i = 0; i < 4; ++i) a.x_stride[i] = x.stride[i], a.grad_stride[i] = args.grad.stride[i];
    a.target = args.target.data, a.target_dtype = args.target.dtype;
    for (int i = 0; i < 3; ++i) a.target_stride[i] = args.target.stride[i];
    a.ignore_index = args.ignore_index;
    a.images = int(x.size[0]), a.classes = int(x.size[1]);
    a.rows = plan.rows, a.columns = plan.columns;
    a.cells = a.rows.tile * a.columns.tile, a.pieces = a.rows.pieces * a.columns.pieces;
    a.by_cells = Divisor(a.cells);
    a.squared = args.squared;
    a.weights = static_cast<const float*>(args.weights.data);
    a.parts = a.corner_parts = static_cast<float*>(workspace.data);
    a.results = static_cast<float*>(args.sums.data);
    const size_t shared = sizeof(BlockMemory) + sizeof(float) * size_t(a.rows.slots * a.columns.slots);
    const auto start = [&](auto* kernel) { launch(kernel, unsigned(plan.blocks), unsigned(plan.threads), shared, stream, a); };
    if (a.grad) {
        plan.single ? start(gradient_kernel<1, 1, S>) : start(gradient_kernel<kColumns, kRows, S>);
        const int64_t pixels = x.size[0] * x.size[2] * x.size[3];
        launch(finish_kernel<S>, dim3(unsigned(ceil_div(pixels, kThreads)), unsigned(ceil_div(a.classes, kFinishClasses))), kThreads, 0, stream, a);
    } else {
        plan.single ? start(sums_kernel<1, 1, S>) : start(sums_kernel<kColumns, kRows, S>);
        const int64_t numbers = 3 * x.size[0] * x.size[1];
        launch(add_parts_kernel<S>, unsigned(ceil_div(numbers, kThreads)), kThreads, 0, stream, a, plan.tiles());
    }
}

template <class S>
int64_t upsample_region_sums_workspace(const UpsampleRegionSumsArgs& args, bool with_grad) {
    return RegionPlan(args).numbers(args.x.size[1], with_grad);
}

template void upsample_region_sums<FCN_NUMBER>(const UpsampleRegionSumsArgs&, const Tensor&, cudaStream_t);
template int64_t upsample_region_sums_workspace<FCN_NUMBER>(const UpsampleRegionSumsArgs&, bool);

}  // namespace fcn
