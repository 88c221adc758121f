// Filters as products take them: values at the points, in panels of output channels.
#pragma once

#include <atomic>

#include "../common/parallel.h"
#include "../common/tensor.h"
#include "cpu_tiles.h"

namespace fcn::FCN_ISA {

template <class T>
inline int64_t panels_of(int64_t outputs) {
    return ceil_div(outputs, kPanel<T>);
}

// A bank of 3 x 3 filters with any strides, [O, I, 3, 3], or with outputs and inputs exchanged and taps turned round, which
// makes the gradient of a convolution's input a convolution too. It is read and written in squares of a few inputs by a
// panel of outputs, [input][tap][kPanel], because the filters of an output lie together, and vectors run along outputs.
template <class T>
class Filters {
public:
    static constexpr int P = kPanel<T>, kInputs = 16, kTaps2 = kTaps * kTaps;

    Filters(const Tensor& weight, bool transposed) : data_(static_cast<T*>(weight.data)) {
        const int in = transposed ? 0 : 1;
        outputs = weight.size[1 - in], inputs = weight.size[in];
        stride_out_ = weight.stride[1 - in], stride_in_ = weight.stride[in];
        for (int tap = 0; tap < kTaps2; ++tap) {
            const int from = transposed ? kTaps2 - 1 - tap : tap;
            tap_[tap] = from / kTaps * weight.stride[2] + from % kTaps * weight.stride[3];
        }
    }

    // Outputs past the last are 0.
    void read(int64_t panel, int64_t input, int count, T* square) const {
        if ((panel + 1) * P > outputs) std::memset(square, 0, count * kTaps2 * P * sizeof(T));
        each(panel, input, count, square, [](T& number, const T& filter) { number = filter; });
    }
    void write(int64_t panel, int64_t input, int count, T* square) const {
        each(panel, input, count, square, [](const T& number, T& filter) { filter = number; });
    }

    int64_t outputs, inputs;

private:
    template <class F>
    void each(int64_t panel, int64_t input, int count, T* square, const F& f) const {
        for (int o = 0; o < imin(P, outputs - panel * P); ++o) {
            T* filter = data_ + (panel * P + o) * stride_out_ + input * stride_in_;
            for (int tap = 0; tap < kTaps2; ++tap) {
                for (int i = 0; i < count; ++i) f(square[(i * kTaps2 + tap) * P + o], filter[tap_[tap] + i * stride_in_]);
            }
        }
    }

    T* data_;
    int64_t stride_out_, stride_in_, tap_[kTaps2];
};

// As many numbers as fill a vector of double precision, in which filters are transformed.
template <class T>
inline Vec<double> load_doubles(const T* p) {
    typedef T Numbers __attribute__((vector_size(kLanes<double> * sizeof(T)), aligned(alignof(T)), may_alias));
    return __builtin_convertvector(*reinterpret_cast<const Numbers*>(p), Vec<double>);
}
template <class T>
inline void store_doubles(T* p, Vec<double> v) {
    typedef T Numbers __attribute__((vector_size(kLanes<double> * sizeof(T)), aligned(alignof(T)), may_alias));
    *reinterpret_cast<Numbers*>(p) = __builtin_convertvector(v, Numbers);
}

// Numbers that `transform_filters` writes: [point][panel][input][kPanel].
template <class T>
inline int64_t transformed_size(int64_t outputs, int64_t inputs) {
    return kSquare * panels_of<T>(outputs) * inputs * kPanel<T>;
}

template <class T>
void transform_filters(const Filters<T>& filters, T* to, int threads) {
    constexpr int P = kPanel<T>, kInputs = Filters<T>::kInputs, kTaps2 = Filters<T>::kTaps2;
    const int64_t shares = ceil_div(filters.inputs, kInputs), point_step = panels_of<T>(filters.outputs) * filters.inputs * P;
    want_large_pages(to, kSquare * point_step * sizeof(T));
    parallel_for(panels_of<T>(filters.outputs) * shares, threads, [&](int64_t task, int) {
        const int64_t panel = task / shares, first = task % shares * kInputs;
        const int count = int(imin(kInputs, filters.inputs - first));
        T square[kInputs * kTaps2 * P];
        filters.read(panel, first, count, square);
        for (int input = 0; input < count; ++input) {
            for (int o = 0; o < P; o += kLanes<double>) {
                Vec<double> taps[kTaps], half[kPoints * kTaps], points[kPoints];
                for (int j = 0; j < kTaps; ++j) {
                    for (int i = 0; i < kTaps; ++i) taps[i] = load_doubles(square + (input * kTaps2 + i * kTaps + j) * P + o);
                    filter_to_points(taps, half + j, kTaps);
                }
                T* out = to + (panel * filters.inputs + first + input) * P + o;
                for (int i = 0; i < kPoints; ++i) {
                    filter_to_points(half + i * kTaps, points, 1);
                    for (int j = 0; j < kPoints; ++j) store_doubles(out + (i * kPoints + j) * point_step, points[j]);
                }
            }
        }
    });
}

// The gradient of filters from sums at the points, [panel][input][kPanel] with points `point_step` apart. Whether it is finite.
template <class T>
bool gather_filters(const T* sums, int64_t panel_step, int64_t point_step, const Filters<T>& filters, int threads) {
    constexpr int P = kPanel<T>, kInputs = Filters<T>::kInputs, kTaps2 = Filters<T>::kTaps2;
    const int64_t shares = ceil_div(filters.inputs, kInputs);
    std::atomic<bool> finite{true};
    parallel_for(panels_of<T>(filters.outputs) * shares, threads, [&](int64_t task, int) {
        const int64_t panel = task / shares, first = task % shares * kInputs;
        const int count = int(imin(kInputs, filters.inputs - first));
        T square[kInputs * kTaps2 * P];
        Vec<T> zero = {};
        for (int input = 0; input < count; ++input) {
            for (int o = 0; o < P; o += kLanes<double>) {
                const T* from = sums + panel * panel_step + (first + input) * P + o;
                Vec<double> points[kPoints], half[kTaps * kPoints], taps[kTaps];
                for (int j = 0; j < kPoints; ++j) {
                    for (int i = 0; i < kPoints; ++i) points[i] = load_doubles(from + (i * kPoints + j) * point_step);
                    points_to_filter(points, half + j, kPoints);
                }
                for (int i = 0; i < kTaps; ++i) {
                    points_to_filter(half + i * kPoints, taps, 1);
                    for (int j = 0; j < kTaps; ++j) store_doubles(square + (input * kTaps2 + i * kTaps + j) * P + o, taps[j]);
                }
            }
            for (int i = 0; i < kTaps2 * P; i += kLanes<T>) zero += T(0) * load(square + input * kTaps2 * P + i);
        }
        if (any(zero != zero)) finite = false;
        filters.write(panel, first, count, square);
    });
    return finite;
}

}  // namespace fcn::FCN_ISA
