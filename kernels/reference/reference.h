#ifndef LACUNA_KERNELS_REFERENCE_REFERENCE_H_
#define LACUNA_KERNELS_REFERENCE_REFERENCE_H_

#include <cstdint>
#include <vector>

#include "kernels/base/kernel_table.h"

// The kernels of KernelTable as the plainest loop in double precision: what tests compare with.
// Arguments are those of the kernel; inputs stay untouched and results are returned.
namespace lacuna::reference {

// Element i of a row of `cols` weights of the given type.
double Element(DType dtype, const void* row, int64_t cols, int64_t i);

// Element i of one token's activations in the form that weights of the given type are multiplied
// with; and the scale of its group, for types that have one.
double ActivationElement(DType weights, const void* x, int64_t n, int64_t i);
double ActivationScale(const void* x, int64_t n, int64_t i);

// x in that form.
double Dot(const void* x, DType dtype, const void* row, int64_t k);

// The sum over i in [0, n) of a[i] * rows[i][c], for c in [0, cols).
std::vector<double> Axpy(DType dtype, const float* a, const void* const* rows, int64_t n,
                         int64_t cols);

double Activate(Activation activation, float x);

std::vector<double> RmsNorm(const float* x, const float* weight, float eps, int64_t n);

std::vector<double> LayerNorm(const float* x, const float* weight, const float* bias, float eps,
                              int64_t n);

// [heads, head_dim].
std::vector<double> Rope(const float* x, const float* cos, const float* sin, int64_t heads,
                         int64_t head_dim);

// [tokens, group, head_dim]; leaves args.out and args.scratch alone.
std::vector<double> Attention(const AttentionArgs& args);

}  // namespace lacuna::reference

#endif  // LACUNA_KERNELS_REFERENCE_REFERENCE_H_
