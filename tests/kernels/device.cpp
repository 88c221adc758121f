// Runs csrc/common/device.h against fake_cuda: a call for DEVICE, and a launch with SHARED bytes, while REFUSED fails. Prints
// what CUDA was asked to do, the error, and whether CUDA still holds one.
#include "../../csrc/common/device.h"

#include <cstdio>
#include <cstdlib>

namespace {
void kernel(long, const float) {}
}  // namespace

int main(int, char** arguments) {
    fake::refused = arguments[3];
    std::string error = "none";
    try {
        const fcn::Device on(std::atoi(arguments[1]), 0);
        fcn::launch(kernel, 3, 64, size_t(std::atoi(arguments[2])), on.stream(), 7, 2.5);  // converted to the kernel's types
    } catch (const std::runtime_error& raised) {
        error = raised.what();
    }
    for (const std::string& call : fake::calls) std::printf("%s\n", call.c_str());
    std::printf("error: %s\nleft behind: %d, device %d\n", error.c_str(), int(cudaGetLastError()), fake::current);
    fake::refused = "";
    std::printf("most shared: %zu\n", fcn::most_shared());
}
