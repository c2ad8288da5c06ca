#ifndef LACUNA_RUNTIME_MODEL_ACTIVATIONS_H_
#define LACUNA_RUNTIME_MODEL_ACTIVATIONS_H_

#include <cstdint>

#include "kernels/base/aligned_vector.h"
#include "kernels/base/kernel_table.h"
#include "kernels/base/thread_pool.h"

namespace lacuna {

// The inputs of a matrix product in the form that weights of some type are multiplied with: float32
// as it is, quantized for int8 and int4 weights. Holds the memory of the quantized form.
class Activations {
 public:
  // x: [tokens, n]; must stay as it is while data() is used. Split over the threads by tokens.
  void Set(const KernelTable& kernels, ThreadPool* pool, DType weights, const float* x,
           int64_t tokens, int64_t n) {
    stride_ = ActivationBytes(weights, n);
    data_ = x;
    if (!IsQuantized(weights)) return;
    const auto bytes = static_cast<size_t>(tokens * stride_);
    if (storage_.size() < bytes) storage_.resize(bytes);
    char* const out = storage_.data();
    data_ = out;
    pool->ParallelFor(tokens, kGrain, [&](int64_t begin, int64_t end, int) {
      for (int64_t t = begin; t < end; ++t) {
        kernels.quantize_activations(x + t * n, n, out + t * stride_);
      }
    });
  }

  const void* data() const { return data_; }
  const void* token(int64_t t) const { return static_cast<const char*>(data_) + t * stride_; }
  int64_t stride() const { return stride_; }  // bytes from one token to the next

 private:
  static constexpr int64_t kGrain = 4;  // tokens that take less time than waking a thread

  const void* data_ = nullptr;
  int64_t stride_ = 0;
  AlignedVector<char> storage_;
};

}  // namespace lacuna

#endif  // LACUNA_RUNTIME_MODEL_ACTIVATIONS_H_
