#include "runtime/model/ffn.h"

#include <algorithm>
#include <chrono>
#include <cstring>
#include <limits>

namespace lacuna {
namespace {

// Neurons per pass over the tokens: 128 rows of a 4096-wide bf16 model are 1 MiB, which stays in
// the second-level cache while every token of the group visits them.
constexpr int64_t kNeuronsPerPass = 128;
// Parts of the neuron and column ranges start at multiples of a cache line of floats.
constexpr int64_t kGrain = 16;

// An underflowed sum can be -0, and adding the zero products of the dense path makes it +0. Adding
// +0 last gives both paths +0.
void MakeZerosPositive(float* y, int64_t tokens, int64_t stride, int64_t begin, int64_t end) {
  for (int64_t t = 0; t < tokens; ++t) {
    for (int64_t c = begin; c < end; ++c) y[t * stride + c] += 0.0f;
  }
}

}  // namespace

Ffn::Ffn(const KernelTable* kernels, ThreadPool* pool, int64_t hidden, int64_t neurons,
         Activation activation)
    : kernels_(kernels),
      pool_(pool),
      hidden_(hidden),
      neurons_(neurons),
      activation_(activation),
      masks_(neurons),
      scratch_(pool->threads()) {
  for (Scratch& s : scratch_) {
    s.indices.resize(neurons + kGrain);
    s.rows.resize(neurons);
    s.values.resize(neurons);
    s.active.resize(kMaxTokens);
  }
}

Ffn::Result Ffn::Run(const LayerWeights& weights, const float* x, int64_t tokens, FfnMode mode,
                     float* y, absl::Span<int64_t> active) {
  if (static_cast<int64_t>(x1_.size()) < tokens * neurons_) x1_.resize(tokens * neurons_);
  ComputeGate(weights.gate, x, tokens, active);
  FfnLoad load = LoadOf(weights, tokens);
  for (int64_t t = 0; t < tokens; ++t) load.active += active[t];
  const FfnDecision decision = ChooseFfnPath(mode, activation_.has_zeros(), cost_, load);
  UpDown(weights, x, tokens, decision.path, y);
  return {decision, load.union_active};
}

FfnLoad Ffn::LoadOf(const LayerWeights& weights, int64_t tokens) const {
  FfnLoad load;
  load.tokens = tokens;
  load.neurons = neurons_;
  load.union_active = static_cast<int64_t>(union_.size());
  load.hidden = hidden_;
  load.row_bytes = (weights.up.bytes() + weights.down.bytes()) / neurons_;
  return load;
}

void Ffn::UpDown(const LayerWeights& weights, const float* x, int64_t tokens, FfnPath path,
                 float* y) {
  std::memset(y, 0, tokens * hidden_ * sizeof(float));
  if (path == FfnPath::kSparse) {
    if (!weights.up.empty()) UpSparse(weights.up, x, tokens);
    DownSparse(weights.down, tokens, y);
  } else {
    if (!weights.up.empty()) UpDense(weights.up, x, tokens);
    DownDense(weights.down, tokens, y);
  }
}

void Ffn::Calibrate(absl::Span<const LayerWeights> layers) {
  constexpr int64_t kBatch = 16;
  constexpr int kRepeats = 3;
  const std::vector<float> x(kBatch * hidden_, 0.01f);
  std::vector<float> y(kBatch * hidden_);
  size_t next_layer = 0;  // layers take turns, so that their weights are not in the caches
  const auto seconds = [&](int64_t tokens, FfnPath path) {
    double best = std::numeric_limits<double>::infinity();
    for (int repeat = 0; repeat < kRepeats; ++repeat) {
      x1_.assign(tokens * neurons_, 0.01f);  // small, so that nothing overflows
      const LayerWeights& weights = layers[next_layer++ % layers.size()];
      const auto start = std::chrono::steady_clock::now();
      UpDown(weights, x.data(), tokens, path, y.data());
      const std::chrono::duration<double> elapsed = std::chrono::steady_clock::now() - start;
      best = std::min(best, elapsed.count());
    }
    return std::max(best, 1e-9);
  };
  // One neuron in `period` is active, another one for each token.
  const auto activate = [&](int64_t tokens, int64_t period) {
    std::fill(masks_.begin(), masks_.end(), 0);
    for (int64_t t = 0; t < tokens; ++t) {
      for (int64_t j = t % period; j < neurons_; j += period) masks_[j] |= TokenMask{1} << t;
    }
    union_.clear();
    for (int64_t j = 0; j < neurons_; ++j) {
      if (masks_[j] != 0) union_.push_back(static_cast<int32_t>(j));
    }
    return LoadOf(layers[0], tokens);
  };
  const FfnLoad one = activate(1, 9);
  cost_.stream_bytes_per_s = one.neurons * one.row_bytes / seconds(1, FfnPath::kDense);
  cost_.gather_bytes_per_s = one.union_active * one.row_bytes / seconds(1, FfnPath::kSparse);
  const double flops = 4.0 * kBatch * static_cast<double>(neurons_ * hidden_);
  cost_.dense_flops_per_s = flops / seconds(kBatch, FfnPath::kDense);
  // Two densities tell the cost of a pair from the cost of looking at a neuron: all neurons are
  // listed in both.
  activate(kBatch, 9);
  const double at_ninth = seconds(kBatch, FfnPath::kSparse);
  activate(kBatch, 3);
  const double at_third = seconds(kBatch, FfnPath::kSparse);
  const double pairs = std::max((at_third - at_ninth) / (1.0 / 3 - 1.0 / 9), 0.5 * at_third);
  cost_.sparse_flops_per_s = flops / pairs;
  cost_.listing_seconds =
      std::max(at_ninth - pairs / 9, 0.0) / static_cast<double>(kBatch * neurons_);
}

void Ffn::ComputeGate(const RowMatrix& gate, const float* x, int64_t tokens,
                      absl::Span<int64_t> active) {
  for (Scratch& s : scratch_) {
    s.listed.clear();
    std::fill(s.active.begin(), s.active.end(), 0);
  }
  pool_->ParallelFor(neurons_, kGrain, [&](int64_t begin, int64_t end, int thread) {
    Scratch& s = scratch_[thread];
    kernels_->linear[static_cast<int>(gate.dtype)](x, hidden_, tokens, gate, begin, end, nullptr,
                                                   x1_.data(), neurons_);
    std::fill(masks_.begin() + begin, masks_.begin() + end, 0);
    for (int64_t t = 0; t < tokens; ++t) {
      const int64_t n = kernels_->activate(activation_, &x1_[t * neurons_ + begin], end - begin,
                                           static_cast<int32_t>(begin), s.indices.data());
      for (int64_t i = 0; i < n; ++i) masks_[s.indices[i]] |= TokenMask{1} << t;
      s.active[t] = n;
    }
    for (int64_t j = begin; j < end; ++j) {
      if (masks_[j] != 0) s.listed.push_back(static_cast<int32_t>(j));
    }
  });
  // Threads hold ascending ranges, so their lists in order are the whole list in order.
  union_.clear();
  for (const Scratch& s : scratch_) union_.insert(union_.end(), s.listed.begin(), s.listed.end());
  for (int64_t t = 0; t < tokens; ++t) {
    active[t] = 0;
    for (const Scratch& s : scratch_) active[t] += s.active[t];
  }
}

// The neurons of union_[begin, end) that are active for `token`; returns how many.
int64_t Ffn::CollectActive(int64_t begin, int64_t end, int64_t token, int32_t* neurons) const {
  int64_t n = 0;
  for (int64_t i = begin; i < end; ++i) {
    neurons[n] = union_[i];
    n += (masks_[union_[i]] >> token) & 1;
  }
  return n;
}

void Ffn::UpSparse(const RowMatrix& up, const float* x, int64_t tokens) {
  pool_->ParallelFor(union_.size(), 1, [&](int64_t begin, int64_t end, int thread) {
    Scratch& s = scratch_[thread];
    const int64_t step = tokens == 1 ? end - begin : kNeuronsPerPass;
    for (int64_t i = begin; i < end; i += step) {
      for (int64_t t = 0; t < tokens; ++t) {
        const int64_t n = CollectActive(i, std::min(end, i + step), t, s.indices.data());
        for (int64_t k = 0; k < n; ++k) s.rows[k] = up.row(s.indices[k]);
        kernels_->dot_rows[static_cast<int>(up.dtype)](x + t * hidden_, hidden_, s.rows.data(), n,
                                                       s.values.data());
        float* x1 = &x1_[t * neurons_];
        for (int64_t k = 0; k < n; ++k) x1[s.indices[k]] *= s.values[k];
      }
    }
  });
}

void Ffn::UpDense(const RowMatrix& up, const float* x, int64_t tokens) {
  if (static_cast<int64_t>(up_.size()) < tokens * neurons_) up_.resize(tokens * neurons_);
  pool_->ParallelFor(neurons_, kGrain, [&](int64_t begin, int64_t end, int) {
    kernels_->linear[static_cast<int>(up.dtype)](x, hidden_, tokens, up, begin, end, nullptr,
                                                 up_.data(), neurons_);
    for (int64_t t = 0; t < tokens; ++t) {
      const float* u = &up_[t * neurons_];
      float* x1 = &x1_[t * neurons_];
      // A zero gate stays a plain zero, as on the sparse path, whatever `u` is.
      for (int64_t j = begin; j < end; ++j) x1[j] = x1[j] == 0.0f ? 0.0f : x1[j] * u[j];
    }
  });
}

void Ffn::DownSparse(const RowMatrix& down, int64_t tokens, float* y) {
  pool_->ParallelFor(hidden_, kGrain, [&](int64_t begin, int64_t end, int thread) {
    Scratch& s = scratch_[thread];
    const int64_t offset = RowBytes(down.dtype, begin);
    const int64_t listed = static_cast<int64_t>(union_.size());
    const int64_t step = tokens == 1 ? std::max<int64_t>(listed, 1) : kNeuronsPerPass;
    for (int64_t i = 0; i < listed; i += step) {
      for (int64_t t = 0; t < tokens; ++t) {
        const int64_t n = CollectActive(i, std::min(listed, i + step), t, s.indices.data());
        const float* x1 = &x1_[t * neurons_];
        for (int64_t k = 0; k < n; ++k) {
          s.rows[k] = static_cast<const std::byte*>(down.row(s.indices[k])) + offset;
          s.values[k] = x1[s.indices[k]];
        }
        kernels_->axpy_rows[static_cast<int>(down.dtype)](s.values.data(), s.rows.data(), n,
                                                          end - begin, y + t * hidden_ + begin);
      }
    }
    MakeZerosPositive(y, tokens, hidden_, begin, end);
  });
}

void Ffn::DownDense(const RowMatrix& down, int64_t tokens, float* y) {
  pool_->ParallelFor(hidden_, kGrain, [&](int64_t begin, int64_t end, int) {
    kernels_->linear_transposed[static_cast<int>(down.dtype)](x1_.data(), neurons_, tokens, down,
                                                              begin, end, y, hidden_);
    MakeZerosPositive(y, tokens, hidden_, begin, end);
  });
}

}  // namespace lacuna
