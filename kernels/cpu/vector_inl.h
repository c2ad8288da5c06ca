#ifndef LACUNA_KERNELS_CPU_VECTOR_INL_H_
#define LACUNA_KERNELS_CPU_VECTOR_INL_H_

#include "kernels/base/activation.h"
#include "kernels/cpu/dot_inl.h"
#include "kernels/cpu/simd.h"

namespace lacuna {

// exp(x) for each lane, to about 1 unit in the last place; 0 below -104, infinity above 89, NaN for
// NaN. Range reduction x = n ln 2 + r with |r| <= ln(2)/2, then the Taylor polynomial of degree 7,
// whose remainder is below (ln(2)/2)^8 / 8! = 5.2e-9 of the result.
template <class V>
LACUNA_INLINE typename V::F Exp(typename V::F x) {
  using F = typename V::F;
  x = V::Max(V::Set(-104.0f), V::Min(V::Set(89.0f), x));
  const F n = V::Round(x * V::Set(1.44269504f));
  // ln 2 in two parts: n times the first is exact, since that has 9 bits.
  F r = V::Fma(n, V::Set(-0.693359375f), x);
  r = V::Fma(n, V::Set(2.12194440e-4f), r);
  F p = V::Set(1.0f / 5040);
  p = V::Fma(p, r, V::Set(1.0f / 720));
  p = V::Fma(p, r, V::Set(1.0f / 120));
  p = V::Fma(p, r, V::Set(1.0f / 24));
  p = V::Fma(p, r, V::Set(1.0f / 6));
  p = V::Fma(p, r, V::Set(0.5f));
  p = V::Fma(p, r, V::Set(1.0f));
  p = V::Fma(p, r, V::Set(1.0f));
  return V::ScalePow2(p, n);
}

// The elementwise kernels of KernelTable over a vector type V (simd.h).
template <class V>
struct VectorKernels {
  using F = typename V::F;

  static int64_t Activate(Activation activation, float* gate, int64_t n, int32_t first_index,
                          int32_t* indices) {
    switch (activation.kind) {
      case ActivationKind::kRelu:
      case ActivationKind::kDRelu:
        return ActivateWith(gate, n, first_index, indices, [](F x) { return V::Relu(x); });
      case ActivationKind::kFatRelu: {
        const F threshold = V::Set(activation.threshold);
        return ActivateWith(gate, n, first_index, indices,
                            [threshold](F x) { return V::FatRelu(x, threshold); });
      }
      case ActivationKind::kSilu:
        break;
    }
    return ActivateWith(gate, n, first_index, indices,
                        [](F x) { return x / (V::Set(1.0f) + Exp<V>(-x)); });
  }

  static void RmsNorm(const float* x, const float* weight, float eps, int64_t n, float* out) {
    float sum_of_squares;
    const void* row = x;
    DotKernels<V>::template Dots<float>(x, n, 1, &row, 1, n, &sum_of_squares, 1);
    const F scale = V::Set(1.0f / __builtin_sqrtf(sum_of_squares / n + eps));
    ForVectors<V>(n, [&](int64_t i, int64_t m) LACUNA_INLINE_LAMBDA {
      StoreN<V>(out + i, m, LoadN<V>(x + i, m) * scale * LoadN<V>(weight + i, m));
    });
  }

  static void LayerNorm(const float* x, const float* weight, const float* bias, float eps,
                        int64_t n, float* out) {
    F sum = {};
    ForVectors<V>(
        n, [&](int64_t i, int64_t m) LACUNA_INLINE_LAMBDA { sum = sum + LoadN<V>(x + i, m); });
    const float mean = V::Sum(sum) / n;
    F squares = {};
    ForVectors<V>(n, [&](int64_t i, int64_t m) LACUNA_INLINE_LAMBDA {
      const F d = LoadN<V>(x + i, m, mean) - V::Set(mean);
      squares = V::Fma(d, d, squares);
    });
    const F scale = V::Set(1.0f / __builtin_sqrtf(V::Sum(squares) / n + eps));
    ForVectors<V>(n, [&](int64_t i, int64_t m) LACUNA_INLINE_LAMBDA {
      const F d = LoadN<V>(x + i, m) - V::Set(mean);
      StoreN<V>(out + i, m, V::Fma(d * scale, LoadN<V>(weight + i, m), LoadN<V>(bias + i, m)));
    });
  }

  static void Rope(float* x, const float* cos, const float* sin, int64_t heads, int64_t head_dim) {
    const int64_t half = head_dim / 2;
    for (int64_t h = 0; h < heads; ++h) {
      float* low = x + h * head_dim;
      float* high = low + half;
      ForVectors<V>(half, [&](int64_t i, int64_t m) LACUNA_INLINE_LAMBDA {
        const F a = LoadN<V>(low + i, m), b = LoadN<V>(high + i, m);
        const F c = LoadN<V>(cos + i, m), s = LoadN<V>(sin + i, m);
        StoreN<V>(low + i, m, a * c - b * s);
        StoreN<V>(high + i, m, b * c + a * s);
      });
    }
  }

  static void AddScaled(float scale, const float* x, int64_t n, float* y) {
    ForVectors<V>(n, [&](int64_t i, int64_t m) LACUNA_INLINE_LAMBDA {
      StoreN<V>(y + i, m, V::Fma(V::Set(scale), LoadN<V>(x + i, m), LoadN<V>(y + i, m)));
    });
  }

  template <class W>
  static void Widen(const void* row, int64_t n, float* out) {
    const W* w = static_cast<const W*>(row);
    ForVectors<V>(n, [&](int64_t i, int64_t m)
                         LACUNA_INLINE_LAMBDA { StoreN<V>(out + i, m, LoadN<V>(w + i, m)); });
  }

 private:
  // Padding lanes are 0, which every activation maps to 0: they are never active.
  template <class Function>
  static int64_t ActivateWith(float* gate, int64_t n, int32_t first_index, int32_t* indices,
                              Function f) {
    int64_t count = 0;
    ForVectors<V>(n, [&](int64_t i, int64_t m) LACUNA_INLINE_LAMBDA {
      const F a = f(LoadN<V>(gate + i, m));
      StoreN<V>(gate + i, m, a);
      count += V::StoreActive(a, first_index + static_cast<int32_t>(i), indices + count);
    });
    return count;
  }
};

}  // namespace lacuna

#endif  // LACUNA_KERNELS_CPU_VECTOR_INL_H_
