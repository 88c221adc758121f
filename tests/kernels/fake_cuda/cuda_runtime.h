// As much of CUDA's runtime as csrc/common/device.h asks for, with two GPUs and without one: it notes what it is told, and
// refuses what a test says.
#pragma once

#include <string>
#include <vector>

struct dim3 {
    unsigned x, y, z;
    dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
};
struct CUstream_st;
using cudaStream_t = CUstream_st*;
enum cudaError_t { cudaSuccess, cudaErrorInvalidValue, cudaErrorInvalidDevice };
enum cudaFuncAttribute { cudaFuncAttributeMaxDynamicSharedMemorySize };
enum cudaDeviceAttr { cudaDevAttrMaxSharedMemoryPerBlockOptin };

namespace fake {

inline int current = 0;
inline cudaError_t last = cudaSuccess;
inline std::string refused;             // the name of a function that fails
inline std::vector<std::string> calls;  // in order, but for questions

inline cudaError_t call(const char* name, const std::string& what) {
    if (!what.empty()) calls.push_back(what);
    if (refused != name) return cudaSuccess;
    return last = cudaErrorInvalidValue;
}

}  // namespace fake

inline cudaError_t cudaGetDevice(int* device) {
    *device = fake::current;
    return fake::call("cudaGetDevice", "");
}
inline cudaError_t cudaSetDevice(int device) {
    const cudaError_t error = fake::call("cudaSetDevice", "device " + std::to_string(device));
    if (error == cudaSuccess) fake::current = device;
    return error;
}
inline cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr, int device) {
    *value = device == 0 ? 232448 : 101376;
    return fake::call("cudaDeviceGetAttribute", "");
}
inline cudaError_t cudaFuncSetAttribute(const void*, cudaFuncAttribute, int value) {
    return fake::call("cudaFuncSetAttribute", "shared memory " + std::to_string(value));
}
inline cudaError_t cudaFuncGetName(const char** name, const void*) {
    *name = "the_kernel";
    return fake::call("cudaFuncGetName", "");
}
inline cudaError_t cudaLaunchKernel(const void*, dim3 grid, dim3 block, void** arguments, size_t shared, cudaStream_t) {
    return fake::call("cudaLaunchKernel", "launch " + std::to_string(grid.x) + " " + std::to_string(block.x) + " " +
                                              std::to_string(shared) + " " + std::to_string(*static_cast<const long*>(arguments[0])) +
                                              " " + std::to_string(*static_cast<const float*>(arguments[1])));
}
inline cudaError_t cudaGetLastError() {
    const cudaError_t error = fake::last;
    fake::last = cudaSuccess;
    return error;
}
inline const char* cudaGetErrorString(cudaError_t) { return "invalid argument"; }
