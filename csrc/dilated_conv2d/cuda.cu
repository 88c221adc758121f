// dilated_conv2d on GPUs: matrix products on tensor cores (bfloat16 and float16; float32 as tf32 where that is allowed) or
// by fused multiply-adds (float32). The gradient of x is the same product with the filters transposed; that of the
// filters has pixels as its depth.
#include "cuda.h"

#include <algorithm>

#include "convolve.h"
#include "weight_gradient.h"

namespace fcn {
namespace {

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

// Pairs of a piece of the axis and a tap with which it sees anything.
int64_t seeing_pieces(const TapAxis& axis, int piece) {
    int64_t pairs = 0;
    for (int tap = 0; tap < axis.taps; ++tap) {
        const Range pixels = seeing_pixels(axis, tap);
        if (pixels.end > pixels.first) pairs += (pixels.end - 1) / piece - pixels.first / piece + 1;
    }
    return pairs;
}

// The rectangle of at most `pixels` pixels that leaves the least to compute; among equals the squarest.
void choose_rectangle(Convolution& c, int pixels) {
    int64_t least = INT64_MAX;
    for (int rows = 1; rows <= pixels; ++rows) {
        const int columns = pixels / rows;
        if (pixels / columns != rows) continue;  // as many columns with more rows
        const int64_t pairs = seeing_pieces(c.rows, rows) * seeing_pieces(c.columns, columns);
        const bool squarer = std::abs(rows - columns) < std::abs(c.tile_rows - c.tile_columns);
        if (pairs < least || (pairs == least && squarer)) least = pairs, c.tile_rows = rows, c.tile_columns = columns;
    }
}

Convolution convolution(const Tensor& read, const Tensor& written, const int64_t (&taps)[2], const int64_t (&step)[2],
                        const int64_t (&origin)[2]) {
    const auto axis = [&](int i) {
        return TapAxis{int(written.size[2 + i]), int(read.size[2 + i]), int(taps[i]), int(step[i]), int(origin[i])};
    };
    return {axis(0), axis(1), int(written.size[0]), int(read.size[1]), int(written.size[1]), 1, 1};
}

// Whether rows of `channels` numbers of this tensor are whole chunks of 16 bytes, no more of them than 32 bits count.
template <class S>
bool chunks_aligned(const Tensor& t, int64_t channels) {
    const int64_t chunks = t.size[0] * t.size[1] * t.size[2] * t.size[3] / kPack<S>;
    return channels % kPack<S> == 0 && reinterpret_cast<uintptr_t>(t.data) % 16 == 0 && chunks <= UINT32_MAX;
}

template <class S, class Math, int kM, int kN, bool kAligned>
void launch_convolve(Convolution c, const DilatedConv2dArgs& args, cudaStream_t stream) {
    choose_rectangle(c, kM);
    const int64_t rectangles = c.images * ceil_div(c.rows.size, c.tile_rows) * ceil_div(c.columns.size, c.tile_columns);
    const int64_t blocks = rectangles * ceil_div(c.channels, kN);
    if (blocks > INT32_MAX) throw std::invalid_argument("out: too many pixels for one launch");
    const int shared = shared_bytes<S, kM, kN>((kM + kN) * kDepthBytes);
    launch(convolve<S, Math, kM, kN, kAligned>, unsigned(blocks), kThreads, shared, stream, c,
           static_cast<const S*>(args.x.data), static_cast<const S*>(args.weight.data), static_cast<const S*>(args.bias.data),
           args.relu, chunks_aligned<S>(args.out, c.channels), static_cast<S*>(args.out.data));
}

template <class S, class Math>
void convolve_with(const Convolution& c, const DilatedConv2dArgs& args, cudaStream_t stream) {
    if (!chunks_aligned<S>(args.x, c.read_channels) || !chunks_aligned<S>(args.weight, c.read_channels)) {
        return launch_convolve<S, Math, 64, 64, false>(c, args, stream);
    }
    if (args.tile_pixels == 64) return launch_convolve<S, Math, 64, 64, true>(c, args, stream);
    if constexpr (!std::is_same_v<Math, Fma>) {
        if (args.tile_channels == 128) return launch_convolve<S, Math, 128, 128, true>(c, args, stream);
    }
    launch_convolve<S, Math, 128, 64, true>(c, args, stream);
}

template <class S, class Math, class Out, int kTile, bool kAligned>
void launch_multiply(const Convolution& c, const DilatedConv2dWeightArgs& args, const Tensor& out, int parts,
                     cudaStream_t stream) {
    const int64_t blocks = ceil_div(c.channels, kTile) * ceil_div(c.read_channels, kTile) * c.rows.taps * c.columns.taps;
    if (blocks > INT32_MAX) throw std::invalid_argument("grad_weight: too many filters for one launch");
    launch(multiply_pixels<S, Math, Out, kTile, kAligned>, dim3(unsigned(blocks), unsigned(parts)), kThreads,
           shared_bytes<Out, kTile, kTile>(2 * kDepth<S> * kPitch<S, kTile>), stream, c, static_cast<const S*>(args.grad.data),
           static_cast<const S*>(args.x.data), chunks_aligned<Out>(out, c.read_channels), static_cast<Out*>(out.data));
}

template <class S, class Math, class Out>
void multiply_with(const Convolution& c, const DilatedConv2dWeightArgs& args, const Tensor& out, int parts, cudaStream_t stream) {
    if (!chunks_aligned<S>(args.grad, c.channels) || !chunks_aligned<S>(args.x, c.read_channels)) {
        return launch_multiply<S, Math, Out, 64, false>(c, args, out, parts, stream);
    }
    if constexpr (!std::is_same_v<Math, Fma>) {
        if (args.tile == 128) return launch_multiply<S, Math, Out, 128, true>(c, args, out, parts, stream);
    }
    launch_multiply<S, Math, Out, 64, true>(c, args, out, parts, stream);
}

}  // namespace

template <class S>
void dilated_conv2d(const DilatedConv2dArgs& args, cudaStream_t stream) {
    const int sign = args.transposed ? -1 : 1;
    const int64_t taps[] = {args.weight.size[2], args.weight.size[3]};
    const int64_t step[] = {sign * args.dilation[0], sign * args.dilation[1]};
    const int64_t origin[] = {-sign * args.padding[0], -sign * args.padding[1]};
    const Convolution c = convolution(args.x, args.out, taps, step, origin);
    if constexpr (std::is_same_v<S, float>) {
        if (!args.tf32) return convolve_with<S, Fma>(c, args, stream);
    }
    convolve_with<S, TensorCores<S>>(c, args, stream);
}

template <class S>
void dilated_conv2d_backward_weight(const DilatedConv2dWeightArgs& args, cudaStream_t stream) {
    const Tensor& out = args.grad_weight;
    const int64_t taps[] = {out.size[2], out.size[3]}, origin[] = {-args.padding[0], -args.padding[1]};
    const Convolution c = convolution(args.x, args.grad, taps, args.dilation, origin);
    for (const Tensor* t : {&args.x, &args.grad}) {
        if (t->size[0] * t->size[2] * t->size[3] > INT32_MAX) throw std::invalid_argument("x and grad: want at most 2^31 pixels");
    }
    const auto multiply = [&](auto* number, const Tensor& to, int parts) {
        using Out = std::remove_pointer_t<decltype(number)>;
        if constexpr (std::is_same_v<S, float>) {
            if (!args.tf32) return multiply_with<S, Fma, Out>(c, args, to, parts, stream);
        }
        multiply_with<S, TensorCores<S>, Out>(c, args, to, parts, stream);
    };
    if (!args.parts.data) return multiply(static_cast<S*>(nullptr), out, 1);
    const int parts = int(args.parts.size[0]);
    multiply(static_cast<float*>(nullptr), args.parts, parts);
    const int64_t size = args.parts.size[1];
    launch(add_parts<S>, unsigned(ceil_div(size, 256)), 256, 0, stream, static_cast<const float*>(args.parts.data), parts, size,
           static_cast<S*>(out.data));
}

template void dilated_conv2d<FCN_NUMBER>(const DilatedConv2dArgs&, cudaStream_t);
template void dilated_conv2d_backward_weight<FCN_NUMBER>(const DilatedConv2dWeightArgs&, cudaStream_t);

}  // namespace fcn
