#pragma once

#include "../common/tensor.h"

namespace fcn {

enum class Fault : int {
    none,
    race,        // no barrier between writing shared memory and reading it
    outside,     // writes one number too many
    divergence,  // a thread ends before the barrier
    lane,        // a lane stays away from a shuffle whose mask names it
    alignment,   // reads 16 bytes from where they do not begin
    unset,       // reads shared memory that nobody wrote
};

// Reverses every 64 of the float32 numbers of `in`, or does what is wrong with it.
void planted(const Tensor& in, const Tensor& out, Fault fault);

}  // namespace fcn
