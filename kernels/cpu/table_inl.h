#ifndef LACUNA_KERNELS_CPU_TABLE_INL_H_
#define LACUNA_KERNELS_CPU_TABLE_INL_H_

#include "kernels/base/kernel_table.h"
#include "kernels/cpu/attention_inl.h"
#include "kernels/cpu/axpy_inl.h"
#include "kernels/cpu/dot_inl.h"
#include "kernels/cpu/vector_inl.h"

namespace lacuna {

template <class V>
constexpr KernelTable MakeTable(const char* isa) {
  using Dot = DotKernels<V>;
  using Axpy = AxpyKernels<V>;
  using Vector = VectorKernels<V>;
  return KernelTable{
      .isa = isa,
      .dot_rows = {&Dot::template DotRows<float>, &Dot::template DotRows<Bf16>},
      .axpy_rows = {&Axpy::template AxpyRows<float>, &Axpy::template AxpyRows<Bf16>},
      .linear = {&Dot::template Linear<float>, &Dot::template Linear<Bf16>},
      .linear_transposed = {&Axpy::template LinearTransposed<float>,
                            &Axpy::template LinearTransposed<Bf16>},
      .activate = &Vector::Activate,
      .rms_norm = &Vector::RmsNorm,
      .layer_norm = &Vector::LayerNorm,
      .rope = &Vector::Rope,
      .attention = &AttentionKernel<V>::Attention,
      .add_scaled = &Vector::AddScaled,
      .widen = {&Vector::template Widen<float>, &Vector::template Widen<Bf16>},
  };
}

}  // namespace lacuna

#endif  // LACUNA_KERNELS_CPU_TABLE_INL_H_
