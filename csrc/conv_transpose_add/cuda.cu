// conv_transpose_add on GPUs. Output pixel X (counted before the crop) of one axis sums input j times tap x where
// j * stride + x = X: with q = X / stride, taps X % stride + t * stride meet input q - t.
#include "cuda.h"

#include "forward.h"
#include "gradients.h"

namespace fcn {

template <class T>
void conv_transpose_add(const ConvTransposeAddArgs& args, cudaStream_t stream) {
    Forward<T> a(args);
    const bool plane = a.inner.divisor == 1, packs = a.inner.divisor % kPack<T> == 0 && a.x.aligned();
    // Where strips of all rows begin at the same pixels, the same taps meet in strips above one another.
    const bool walks = a.taps <= 2 && a.strips.aligned && (plane || packs);
    const int64_t per_row = a.strips.per_row.divisor;
    int64_t tasks = a.planes * a.height.divisor * per_row;
    if (walks) {
        const int64_t rows = a.last_q - a.first_q + 1, columns = a.planes * a.stride.divisor * per_row;
        a.band = band_rows((columns + 255) / 256, rows);
        a.bands = Divisor((rows + a.band - 1) / a.band);
        tasks = columns * a.bands.divisor;
    }
    if (tasks >= (int64_t(1) << 31)) throw std::invalid_argument("a tensor has 2^31 strips of 16 bytes or more");
    const dim3 grid(unsigned((tasks + 255) / 256));
    if (!walks) {
        launch(conv_transpose_add_numbers<T>, grid, 256, 0, stream, a);
    } else if (plane) {
        launch(conv_transpose_add_walk<T, Neighbours<T>>, grid, 256, 0, stream, a);
    } else {
        launch(conv_transpose_add_walk<T, WithinPixel<T>>, grid, 256, 0, stream, a);
    }
}

template <class T>
void conv_transpose_add_backward_x(const ConvTransposeAddArgs& args, cudaStream_t stream) {
    Gradients<T> a(args);
    const bool packs = args.channels_last && a.channels % kPack<T> == 0 && a.grad.aligned() && a.x.aligned() && a.weight.aligned();
    a.chunks = Divisor(a.inner / (packs ? kPack<T> : 1));
    const int64_t tasks = a.planes * a.h * a.w.divisor * a.chunks.divisor;
    if (tasks >= (int64_t(1) << 31)) throw std::invalid_argument("a tensor has 2^31 numbers or more, or as many packs of 16 bytes");
    const dim3 grid(unsigned((tasks + 255) / 256));
    if (packs) {
        launch(conv_transpose_add_backward_x_kernel<T, kPack<T>>, grid, 256, 0, stream, a);
    } else {
        launch(conv_transpose_add_backward_x_kernel<T, 1>, grid, 256, 0, stream, a);
    }
}

template <class T>
void conv_transpose_add_backward_weight(const ConvTransposeAddArgs& args, const Tensor& parts, cudaStream_t stream) {
    const Gradients<T> a(args);
    const bool packs = args.channels_last && a.channels % kPack<T> == 0 && a.grad.aligned() && a.x.aligned();
    WeightParts p(static_cast<float*>(parts.data), parts.size[0], a.channels, a.k, packs ? kPack<T> : 1, args.channels_last);
    const dim3 grid(unsigned(p.groups * a.k * p.tiles), unsigned(p.count));
    if (packs) {
        launch(conv_transpose_add_backward_weight_parts<T, kPack<T>>, grid, 256, 0, stream, a, p);
    } else {
        launch(conv_transpose_add_backward_weight_parts<T, 1>, grid, 256, 0, stream, a, p);
    }
    const int64_t taps = int64_t(a.channels) * a.k * a.k;
    launch(conv_transpose_add_backward_weight_sum<T>, unsigned((taps + 255) / 256), 256, 0, stream, a, p);
}

template void conv_transpose_add<FCN_NUMBER>(const ConvTransposeAddArgs&, cudaStream_t);
template void conv_transpose_add_backward_x<FCN_NUMBER>(const ConvTransposeAddArgs&, cudaStream_t);
template void conv_transpose_add_backward_weight<FCN_NUMBER>(const ConvTransposeAddArgs&, const Tensor&, cudaStream_t);

}  // namespace fcn
