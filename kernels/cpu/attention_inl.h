#ifndef LACUNA_KERNELS_CPU_ATTENTION_INL_H_
#define LACUNA_KERNELS_CPU_ATTENTION_INL_H_

#include "kernels/base/kernel_table.h"
#include "kernels/cpu/axpy_inl.h"
#include "kernels/cpu/dot_inl.h"
#include "kernels/cpu/simd.h"
#include "kernels/cpu/vector_inl.h"

namespace lacuna {

// The attention kernel of KernelTable over a vector type V (simd.h): all scores, then the softmax
// of each query head, then the weighted sum of the values.
template <class V>
struct AttentionKernel {
  using F = typename V::F;

  static void Attention(const AttentionArgs& args) {
    if (args.kv.type == DType::kF32) {
      AttentionOver<float>(args);
    } else {
      AttentionOver<Bf16>(args);
    }
  }

 private:
  // W is the type of keys and values.
  template <class W>
  static void AttentionOver(const AttentionArgs& args) {
    const int64_t dim = args.kv.head_dim;
    const int64_t n = args.context - args.first;
    const int64_t stride = (n + V::kLanes - 1) / V::kLanes * V::kLanes;
    ForRuns(args, args.kv.keys, [&](int64_t i, const void* const* rows, int64_t count) {
      DotKernels<V>::template Dots<W>(args.q, dim, args.group, rows, count, dim, args.scores + i,
                                      stride);
    });
    for (int64_t g = 0; g < args.group; ++g) {
      Softmax(args.scale, n, args.scores + g * stride);
      ForVectors<V>(dim, [&](int64_t i, int64_t m)
                             LACUNA_INLINE_LAMBDA { StoreN<V>(args.out + g * dim + i, m, F{}); });
    }
    ForRuns(args, args.kv.values, [&](int64_t i, const void* const* rows, int64_t count) {
      AxpyKernels<V>::template Axpys<W>(args.scores + i, stride, args.group, rows, count, dim, 0,
                                        dim, args.out, dim);
    });
  }

  // Calls f(i, rows, count) for each run of positions first + i + [0, count) within one block, and
  // within kRowBatch, ascending; `rows` are their vectors in `data`.
  template <class Function>
  static LACUNA_INLINE void ForRuns(const AttentionArgs& args, const std::byte* data, Function f) {
    const void* rows[kRowBatch];
    for (int64_t p = args.first; p < args.context;) {
      const int64_t slot = p % args.kv.block_size;
      int64_t count = args.kv.block_size - slot;
      if (count > args.context - p) count = args.context - p;
      if (count > kRowBatch) count = kRowBatch;
      const int32_t block = args.block_table[p / args.kv.block_size];
      const std::byte* row = data + args.kv.Offset(block, args.kv_head, slot);
      const int64_t bytes = RowBytes(args.kv.type, args.kv.head_dim);
      for (int64_t i = 0; i < count; ++i) rows[i] = row + i * bytes;
      f(p - args.first, rows, count);
      p += count;
    }
  }

  // s[i] = exp(scale * s[i]) / sum over j in [0, n) of exp(scale * s[j]). The padding of s up to a
  // whole vector is overwritten.
  static void Softmax(float scale, int64_t n, float* s) {
    const float infinity = __builtin_inff();
    F max = V::Set(-infinity);
    for (int64_t i = 0; i < n; i += V::kLanes) {
      const int64_t m = n - i < V::kLanes ? n - i : V::kLanes;
      // Products first: a negative scale must not turn the padding into +infinity.
      V::Store(s + i, LoadN<V>(s + i, m) * V::Set(scale));
      const F scores = LoadN<V>(s + i, m, -infinity);
      V::Store(s + i, scores);
      max = V::Max(scores, max);
    }
    const F top = V::Set(V::MaxLane(max));
    F sum = {};
    for (int64_t i = 0; i < n; i += V::kLanes) {
      const F e = Exp<V>(V::Load(s + i) - top);
      V::Store(s + i, e);
      sum = sum + e;
    }
    const F inverse = V::Set(1.0f / V::Sum(sum));
    for (int64_t i = 0; i < n; i += V::kLanes) V::Store(s + i, V::Load(s + i) * inverse);
  }
};

}  // namespace lacuna

#endif  // LACUNA_KERNELS_CPU_ATTENTION_INL_H_
