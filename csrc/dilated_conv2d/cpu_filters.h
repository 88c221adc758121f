// Filters as products take them: values at the points, in panels of output channels.
#pragma once

#include "../common/parallel.h"
#include "../common/tensor.h"
#include "cpu_tiles.h"

namespace fcn::FCN_ISA {

// A bank of filters with any strides: [O, I, 3, 3], or with outputs and inputs exchanged and taps turned round, which makes
// the gradient of a convolution's input a convolution too.
template <class T>
struct Filters {
    const T* data;
    int64_t outputs, inputs, stride_out, stride_in, stride_row, stride_column;

    Filters(const Tensor& weight, bool transposed) : data(static_cast<const T*>(weight.data)) {
        const int in = transposed ? 0 : 1;
        outputs = weight.size[1 - in], inputs = weight.size[in];
        stride_out = weight.stride[1 - in], stride_in = weight.stride[in];
        stride_row = weight.stride[2], stride_column = weight.stride[3];
        if (transposed) {
            data += (weight.size[2] - 1) * stride_row + (weight.size[3] - 1) * stride_column;
            stride_row = -stride_row, stride_column = -stride_column;
        }
    }

    const T* at(int64_t output, int64_t input) const { return data + output * stride_out + input * stride_in; }
};

template <class T>
inline int64_t panels_of(int64_t outputs) {
    return ceil_div(outputs, kPanel<T>);
}

// Numbers that `transform_filters` writes: [point][panel][input][kPanel].
template <class T>
inline int64_t transformed_size(int64_t outputs, int64_t inputs) {
    return kSquare * panels_of<T>(outputs) * inputs * kPanel<T>;
}

template <class T>
void transform_filters(const Filters<T>& filters, T* to, int threads) {
    constexpr int P = kPanel<T>;
    const int64_t panels = panels_of<T>(filters.outputs), inputs = filters.inputs;
    parallel_for(panels, threads, [&](int64_t panel, int) {
        const int width = int(imin(P, filters.outputs - panel * P));
        for (int64_t input = 0; input < inputs; ++input) {
            double taps[kTaps][kTaps][P] = {}, rows[kPoints][kTaps][P];
            for (int o = 0; o < width; ++o) {
                const T* from = filters.at(panel * P + o, input);
                for (int i = 0; i < kTaps; ++i) {
                    for (int j = 0; j < kTaps; ++j) taps[i][j][o] = from[i * filters.stride_row + j * filters.stride_column];
                }
            }
            for (int i = 0; i < kPoints; ++i) {
                for (int j = 0; j < kTaps; ++j) {
                    for (int o = 0; o < P; ++o) {
                        rows[i][j][o] = kFilter[i][0] * taps[0][j][o] + kFilter[i][1] * taps[1][j][o] + kFilter[i][2] * taps[2][j][o];
                    }
                }
            }
            for (int i = 0; i < kPoints; ++i) {
                for (int j = 0; j < kPoints; ++j) {
                    T* out = to + (((i * kPoints + j) * panels + panel) * inputs + input) * P;
                    for (int o = 0; o < P; ++o) {
                        out[o] = T(kFilter[j][0] * rows[i][0][o] + kFilter[j][1] * rows[i][1][o] + kFilter[j][2] * rows[i][2][o]);
                    }
                }
            }
        }
    });
}

}  // namespace fcn::FCN_ISA
