// Runs the CPU kernels on data from standard input and writes their results to standard output: for test_aarch64.py, on
// an emulated processor that has no Python. Sizes are agreed with that file.
#include <cstdio>
#include <vector>

#include "../../csrc/common/kernels.h"

using namespace fcn;

namespace {

constexpr int64_t N = 2, C = 5, h = 6, w = 37, H = 24, W = 148;

template <class T>
std::vector<T> read(int64_t count) {
    std::vector<T> numbers(count);
    if (std::fread(numbers.data(), sizeof(T), count, stdin) != size_t(count)) throw "too little on standard input";
    return numbers;
}

template <class T>
void write(const std::vector<T>& numbers) {
    std::fwrite(numbers.data(), sizeof(T), numbers.size(), stdout);
}

Tensor map(std::vector<float>& data, int64_t rows, int64_t columns) {
    return {data.data(), DType::float32, 4, {N, C, rows, columns}, {C * rows * columns, rows * columns, columns, 1}};
}

}  // namespace

int main() {
    std::vector<float> x = read<float>(N * C * h * w), skip = read<float>(N * C * 2 * h * 2 * w);
    std::vector<float> logits = read<float>(N * C * H * W);
    std::vector<int64_t> labels = read<int64_t>(N * H * W);
    const Tensor none{}, target{labels.data(), DType::int64, 3, {N, H, W}, {H * W, W, 1}};
    const auto grid = [](int64_t rows, int64_t columns) {  // F.interpolate
        return Grid{{rows, 2 * h, h - rows, 2 * rows}, {columns, 2 * w, w - columns, 2 * columns}, true};
    };

    std::vector<float> sum(skip.size());
    kernels_baseline.upsample_add({map(x, h, w), map(skip, 2 * h, 2 * w), map(sum, 2 * h, 2 * w), grid(2 * h, 2 * w), false, 1});
    write(sum);

    std::vector<int64_t> winners(labels.size());
    const Tensor out{winners.data(), DType::int64, 3, {N, H, W}, {H * W, W, 1}};
    kernels_baseline.upsample_argmax({map(x, h, w), out, none, grid(H, W), 1});
    write(winners);

    std::vector<float> coarse(x.size()), full(logits.size());
    const double total = kernels_baseline.upsample_cross_entropy(
        {map(x, h, w), target, none, none, map(coarse, h, w), none, grid(H, W), 255, true, 0.1, false, 1}).loss;
    const double mean = kernels_baseline.cross_entropy(
        {map(logits, H, W), target, none, none, map(full, H, W), none, 255, true, 0.0, 1}).loss;
    write(coarse);
    write(full);
    write(std::vector<double>{total, mean});
}
