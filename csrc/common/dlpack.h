// The part of DLPack's C exchange API (version 1) that is used here, as its specification lays it out in memory: a tensor
// of Python is looked at without a call to Python, and without a build against torch.
#pragma once

#include <cstdint>

namespace fcn::dlpack {

enum : uint8_t { kInt = 0, kUInt = 1, kFloat = 2, kBfloat = 4 };

struct DataType {
    uint8_t code, bits;
    uint16_t lanes;
};

struct Tensor {
    void* data;
    int32_t device_type, device;
    int32_t dims;
    DataType dtype;
    int64_t *shape, *strides;  // in elements
    uint64_t byte_offset;
};

constexpr uint32_t kMajor = 1;

struct ExchangeApi {
    struct {
        uint32_t major, minor;
    } version;
    ExchangeApi* previous;
    void *allocate, *managed_tensor_from_object, *managed_tensor_to_object;  // not used
    int (*tensor_from_object)(void* object, Tensor* out);  // 0, or a Python error is set; valid while the object lives
    void* current_stream;                                  // not used
};

}  // namespace fcn::dlpack
