// dilated_conv2d on CPUs: where filters have 3 x 3 taps by Winograd's algorithm, forward and both gradients; of few input
// channels by a matrix product.
#include "cpu.h"

#include "cpu_few_inputs.h"
#include "cpu_forward.h"
#include "cpu_weight_gradient.h"

namespace fcn::FCN_ISA {
namespace {

template <class F>
auto with_number(DType dtype, const F& f) {
    return dtype == DType::float64 ? f((double*)nullptr) : f((float*)nullptr);
}

}  // namespace

int64_t winograd_filters_size(DType dtype, int64_t outputs, int64_t inputs) {
    return with_number(dtype, [&](auto* number) { return transformed_size<std::remove_pointer_t<decltype(number)>>(outputs, inputs); });
}

void winograd_filters(const WinogradFiltersArgs& args) {
    with_number(args.weight.dtype, [&](auto* number) {
        using T = std::remove_pointer_t<decltype(number)>;
        transform_filters(Filters<T>(args.weight, args.transposed), static_cast<T*>(args.transformed.data), args.threads);
    });
}

bool winograd(const WinogradArgs& args) {
    return with_number(args.x.dtype, [&](auto* number) {
        using T = std::remove_pointer_t<decltype(number)>;
        const Maps maps{args.x, args.out, {args.dilation[0], args.dilation[1]}, {args.before[0], args.before[1]}};
        return WinogradForward<T>(maps, static_cast<const T*>(args.filters.data), static_cast<const T*>(args.bias.data), args.relu, args.threads).run();
    });
}

void few_inputs(const FewInputsArgs& args) {
    with_number(args.x.dtype, [&](auto* number) {
        using T = std::remove_pointer_t<decltype(number)>;
        const Maps maps{args.x, args.out, {args.dilation[0], args.dilation[1]}, {args.padding[0], args.padding[1]}};
        FewInputs<T>(maps, args.weight, static_cast<const T*>(args.bias.data), args.relu, args.threads).run();
    });
}

bool winograd_backward_weight(const WinogradWeightArgs& args) {
    return with_number(args.x.dtype, [&](auto* number) {
        using T = std::remove_pointer_t<decltype(number)>;
        const Maps maps{args.x, args.grad, {args.dilation[0], args.dilation[1]}, {args.padding[0], args.padding[1]}};
        return WinogradWeightGradient<T>(maps, args.grad_weight, args.threads).run();
    });
}

}  // namespace fcn::FCN_ISA
