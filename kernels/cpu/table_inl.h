#ifndef LACUNA_KERNELS_CPU_TABLE_INL_H_
#define LACUNA_KERNELS_CPU_TABLE_INL_H_

#include "kernels/base/kernel_table.h"
#include "kernels/cpu/attention_inl.h"
#include "kernels/cpu/axpy_inl.h"
#include "kernels/cpu/dot_inl.h"
#include "kernels/cpu/dot_quantized_inl.h"
#include "kernels/cpu/quantize_inl.h"
#include "kernels/cpu/vector_inl.h"

namespace lacuna {

template <class V>
constexpr KernelTable MakeTable(const char* isa) {
  using Dot = DotKernels<V>;
  using QuantizedDot = QuantizedDotKernels<V>;
  using Axpy = AxpyKernels<V>;
  using Vector = VectorKernels<V>;
  using Quantize = QuantizeKernels<V>;
  return KernelTable{
      .isa = isa,
      .dot_rows = {&Dot::template DotRows<float>, &Dot::template DotRows<Bf16>,
                   &QuantizedDot::template DotRows<Int8>, &QuantizedDot::template DotRows<Int4>,
                   &QuantizedDot::template DotRows<Int2>},
      .axpy_rows = {&Axpy::template AxpyRows<float>, &Axpy::template AxpyRows<Bf16>,
                    &Axpy::template AxpyRows<Int8>, &Axpy::template AxpyRows<Int4>, nullptr},
      .axpy_lists = {&Axpy::template AxpyLists<float>, &Axpy::template AxpyLists<Bf16>,
                     &Axpy::template AxpyLists<Int8>, &Axpy::template AxpyLists<Int4>, nullptr},
      .linear = {&Dot::template Linear<float>, &Dot::template Linear<Bf16>,
                 &QuantizedDot::template Linear<Int8>, &QuantizedDot::template Linear<Int4>,
                 &QuantizedDot::template Linear<Int2>},
      .linear_transposed = {&Axpy::template LinearTransposed<float>,
                            &Axpy::template LinearTransposed<Bf16>,
                            &Axpy::template LinearTransposed<Int8>,
                            &Axpy::template LinearTransposed<Int4>, nullptr},
      .quantize_activations = &Quantize::QuantizeActivations,
      .quantize_weights = {nullptr, nullptr, &Quantize::QuantizeInt8,
                           &Quantize::template QuantizePacked<Int4>,
                           &Quantize::template QuantizePacked<Int2>},
      .activate = &Vector::Activate,
      .rms_norm = &Vector::RmsNorm,
      .layer_norm = &Vector::LayerNorm,
      .rope = &Vector::Rope,
      .attention = &AttentionKernel<V>::Attention,
      .add_scaled = &Vector::AddScaled,
      .widen = {&Vector::template Widen<float>, &Vector::template Widen<Bf16>,
                &Quantize::template Widen<Int8>, &Quantize::template Widen<Int4>,
                &Quantize::WidenInt2},
  };
}

}  // namespace lacuna

#endif  // LACUNA_KERNELS_CPU_TABLE_INL_H_
