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
    const int64_t stride = args.ScoreStride();
    const int64_t queries = args.tokens * args.group;
    float* const scores = args.scratch;
    float* const q = scores + queries * stride;
    float* const out = q + queries * dim;
    for (int64_t t = 0; t < args.tokens; ++t) {
      __builtin_memcpy(q + t * args.group * dim, args.q + t * args.q_stride,
                       args.group * dim * sizeof(float));
    }
    __builtin_memset(out, 0, queries * dim * sizeof(float));
    // Scores of positions that some of the tokens do not attend to are computed, and left unused.
    const int64_t end = args.context + args.tokens - 1;
    ForRuns(args, args.kv.keys, args.first, end,
            [&](int64_t p, const void* const* rows, int64_t n) {
              DotKernels<V>::template Dots<W>(q, dim, queries, rows, n, dim,
                                              scores + p - args.first, stride);
            });
    for (int64_t i = 0; i < queries; ++i) {
      Softmax(args.scale, args.context + i / args.group - args.first, scores + i * stride);
    }
    const auto add_values = [&](int64_t first_query, int64_t count, int64_t begin, int64_t stop) {
      ForRuns(args, args.kv.values, begin, stop,
              [&](int64_t p, const void* const* rows, int64_t n) {
                AxpyKernels<V>::template Axpys<W>(scores + first_query * stride + p - args.first,
                                                  stride, count, rows, n, dim, 0, dim,
                                                  out + first_query * dim, dim);
              });
    };
    add_values(0, queries, args.first, args.context);
    for (int64_t t = 1; t < args.tokens; ++t) {
      add_values(t * args.group, args.group, args.context, args.context + t);
    }
    for (int64_t t = 0; t < args.tokens; ++t) {
      __builtin_memcpy(args.out + t * args.out_stride, out + t * args.group * dim,
                       args.group * dim * sizeof(float));
    }
  }

  // Calls f(p, rows, n) for runs of positions p + [0, n) of [begin, end), n <= kRowBatch,
  // ascending; `rows` are their vectors in `data`.
  template <class Function>
  static LACUNA_INLINE void ForRuns(const AttentionArgs& args, const std::byte* data, int64_t begin,
                                    int64_t end, Function f) {
    const int64_t bytes = RowBytes(args.kv.type, args.kv.head_dim);
    const void* rows[kRowBatch];
    int64_t n = 0;
    for (int64_t p = begin; p < end; p += n) {
      for (n = 0; p + n < end && n < kRowBatch;) {
        const int64_t slot = (p + n) % args.kv.block_size;
        const int32_t block = args.block_table[(p + n) / args.kv.block_size];
        const std::byte* row = data + args.kv.Offset(block, args.kv_head, slot);
        for (int64_t i = slot; i < args.kv.block_size && p + n < end && n < kRowBatch; ++i) {
          rows[n++] = row;
          row += bytes;
        }
      }
      f(p, rows, n);
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
