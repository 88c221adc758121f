// What the host asks of CUDA: the device of a call, its limits, and the start of a kernel. Needs no nvcc, so that tests
// compile it against a CUDA that refuses what they choose.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>
#include <stdexcept>
#include <string>

namespace fcn {

// Raises what CUDA says went wrong. It is told here, so that PyTorch, which looks at the last error, does not tell it again.
inline void check(cudaError_t error, const std::string& what) {
    if (error == cudaSuccess) return;
    cudaGetLastError();
    throw std::runtime_error(what + ": " + cudaGetErrorString(error));
}

// The device of a call, and afterwards again the one before. Where they are the same, the device is never set: that would
// make a context on a GPU that the process may not use at all.
class Device {
public:
    Device(int device, uintptr_t stream) : stream_(reinterpret_cast<cudaStream_t>(stream)) {
        check(cudaGetDevice(&before_), "asking for the current device");
        changed_ = device != before_;
        if (changed_) check(cudaSetDevice(device), "changing to device " + std::to_string(device));
    }
    ~Device() {
        if (changed_) cudaSetDevice(before_);
    }
    Device(const Device&) = delete;
    Device& operator=(const Device&) = delete;
    cudaStream_t stream() const { return stream_; }

private:
    cudaStream_t stream_;
    int before_ = 0;
    bool changed_ = false;
};

constexpr size_t kUsualShared = 48 << 10;  // bytes of shared memory that every block may have

// Bytes of shared memory that a block may have on the current device if it asks for more than the usual.
inline size_t most_shared() {
    int device = 0, bytes = 0;
    check(cudaGetDevice(&device), "asking for the current device");
    check(cudaDeviceGetAttribute(&bytes, cudaDevAttrMaxSharedMemoryPerBlockOptin, device), "asking for the shared memory of a block");
    return size_t(bytes);
}

// Starts a kernel on a stream; returns before it ends. Raises an error that names the kernel if it does not start.
template <class... P, class... A>
void launch(void (*kernel)(P...), dim3 grid, dim3 block, size_t shared_bytes, cudaStream_t stream, const A&... args) {
    const void* const function = reinterpret_cast<const void*>(kernel);
    const auto started = [&](cudaError_t error) {
        const char* name = nullptr;
        if (error == cudaSuccess) return;
        if (cudaFuncGetName(&name, function) != cudaSuccess) name = "a kernel";
        check(error, std::string("launching ") + name);
    };
    if (shared_bytes > kUsualShared) {
        started(cudaFuncSetAttribute(function, cudaFuncAttributeMaxDynamicSharedMemorySize, int(shared_bytes)));
    }
    [&](P... parameters) {  // in the kernel's own types
        void* at[] = {const_cast<void*>(static_cast<const void*>(&parameters))...};
        started(cudaLaunchKernel(function, grid, block, at, shared_bytes, stream));
    }(args...);
}

}  // namespace fcn
