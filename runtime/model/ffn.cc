#include "runtime/model/ffn.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstring>
#include <limits>

namespace lacuna {
namespace {

// A batch visits `up` token by token in passes over some rows, while the next pass's rows are
// fetched: long enough for each token to multiply about kPassRows rows at once, within these bytes.
// Both passes fit into a second-level cache of 1 MiB; the first has nobody to fetch it, so it
// should be short.
constexpr int64_t kPassRows = 8;
constexpr int64_t kMinPassBytes = 96 * 1024;
constexpr int64_t kMaxPassBytes = 256 * 1024;

// As kRelu of KernelTable::activate: a NaN stays one.
void Relu(float* x, int64_t n) {
  for (int64_t i = 0; i < n; ++i) x[i] = x[i] <= 0.0f ? 0.0f : x[i];
}

int64_t CountNegative(const float* x, int64_t n) {
  return std::count_if(x, x + n, [](float value) { return value < 0.0f; });
}

}  // namespace

Ffn::Ffn(const KernelTable* kernels, ThreadPool* pool, int64_t hidden, int64_t neurons,
         Activation activation)
    : kernels_(kernels),
      pool_(pool),
      hidden_(hidden),
      neurons_(neurons),
      activation_(activation),
      is_active_(neurons),
      position_of_(neurons),
      scratch_(pool->threads()) {
  for (Scratch& s : scratch_) {
    s.rows.resize(neurons);
    s.ahead.resize(neurons);
    s.active.resize(kMaxTokens);
  }
}

void Ffn::Reserve(int64_t tokens) {
  if (static_cast<int64_t>(lists_.size()) >= tokens) return;
  gates_.resize(tokens * neurons_);
  // Each thread lists its neurons with some room to spare.
  const int64_t room = neurons_ + kGrain * pool_->threads();
  list_storage_.resize(tokens * 2 * room);
  value_storage_.resize(tokens * room);
  lists_.resize(tokens);
  for (int64_t t = 0; t < tokens; ++t) {
    lists_[t].neurons = &list_storage_[2 * t * room];
    lists_[t].positions = &list_storage_[(2 * t + 1) * room];
    lists_[t].values = &value_storage_[t * room];
  }
}

Ffn::Result Ffn::Run(const LayerWeights& weights, const float* x, int64_t tokens, FfnMode mode,
                     float* y, absl::Span<int64_t> active) {
  Reserve(tokens);
  x_.Set(*kernels_, pool_, weights.gate.dtype, x, tokens, hidden_);
  ComputeGate(weights, tokens);
  const FfnLoad load = LoadOf(weights, tokens);
  const FfnDecision decision = dispatcher_.Choose(mode, activation_.has_zeros(), load);
  const auto start = std::chrono::steady_clock::now();
  const Result result = UpDown(weights, tokens, weights.gate.bytes(), decision, y, active);
  const std::chrono::duration<double> elapsed = std::chrono::steady_clock::now() - start;
  dispatcher_.Learn(decision.path, load, elapsed.count());
  return result;
}

Ffn::Result Ffn::UpDown(const LayerWeights& weights, int64_t tokens, int64_t gate_bytes,
                        FfnDecision decision, float* y, absl::Span<int64_t> active) {
  const bool sparse = decision.path == FfnPath::kSparse;
  const auto rows_read = [&] { return sparse ? static_cast<int64_t>(union_.size()) : neurons_; };
  Result result;
  result.decision = decision;
  for (const Scratch& s : scratch_) result.negative += s.negative;
  result.weight_bytes = gate_bytes + rows_read() * weights.up.bytes() / neurons_;
  Up(weights.up, tokens, decision.path);
  if (activation_.kind == ActivationKind::kDRelu) DropZeros(tokens, decision.path);
  result.weight_bytes += rows_read() * weights.down.bytes() / neurons_;
  Down(weights, tokens, decision.path, y);
  result.union_active = static_cast<int64_t>(union_.size());
  for (int64_t t = 0; t < tokens; ++t) active[t] = lists_[t].size;
  return result;
}

FfnLoad Ffn::LoadOf(const LayerWeights& weights, int64_t tokens) const {
  FfnLoad load;
  load.tokens = tokens;
  load.neurons = neurons_;
  load.union_active = static_cast<int64_t>(union_.size());
  for (int64_t t = 0; t < tokens; ++t) load.active += lists_[t].size;
  load.hidden = hidden_;
  load.row_bytes = (weights.up.bytes() + weights.down.bytes()) / neurons_;
  return load;
}

void Ffn::Up(const RowMatrix& up, int64_t tokens, FfnPath path) {
  if (path == FfnPath::kSparse) {
    UpSparse(up, tokens);
  } else if (!up.empty()) {
    UpDense(up, tokens);
  }
}

void Ffn::Calibrate(absl::Span<const LayerWeights> layers) {
  constexpr int64_t kBatch = 16;
  constexpr int kRepeats = 3;
  const std::vector<float> x(kBatch * hidden_, 0.01f);
  AlignedVector<float> y(kBatch * hidden_);
  Reserve(kBatch);
  x_.Set(*kernels_, pool_, layers[0].gate.dtype, x.data(), kBatch, hidden_);
  size_t next_layer = 0;  // layers take turns, so that their weights are not in the caches
  const auto seconds = [&](int64_t tokens, FfnPath path) {
    double best = std::numeric_limits<double>::infinity();
    for (int repeat = 0; repeat < kRepeats; ++repeat) {
      std::fill(gates_.begin(), gates_.end(), 0.01f);  // small, so that nothing overflows
      const LayerWeights& weights = layers[next_layer++ % layers.size()];
      const auto start = std::chrono::steady_clock::now();
      Up(weights.up, tokens, path);
      Down(weights, tokens, path, y.data());
      const std::chrono::duration<double> elapsed = std::chrono::steady_clock::now() - start;
      best = std::min(best, elapsed.count());
    }
    return std::max(best, 1e-9);
  };
  // One neuron in `period` is active, another one for each token.
  const auto activate = [&](int64_t tokens, int64_t period) {
    for (Scratch& s : scratch_) s.listed.clear();
    std::fill(is_active_.begin(), is_active_.end(), 0);
    for (int64_t t = 0; t < tokens; ++t) {
      lists_[t].size = 0;
      for (int64_t j = t % period; j < neurons_; j += period) {
        lists_[t].neurons[lists_[t].size++] = static_cast<int32_t>(j);
        is_active_[j] = 1;
      }
    }
    for (int64_t j = 0; j < neurons_; ++j) {
      if (is_active_[j] != 0) scratch_[0].listed.push_back(static_cast<int32_t>(j));
    }
    FindUnion(tokens);
    return LoadOf(layers[0], tokens);
  };
  FfnCostModel cost;
  const FfnLoad one = activate(1, 9);
  cost.stream_bytes_per_s = one.neurons * one.row_bytes / seconds(1, FfnPath::kDense);
  cost.gather_bytes_per_s = one.union_active * one.row_bytes / seconds(1, FfnPath::kSparse);
  const double flops = 4.0 * kBatch * static_cast<double>(neurons_ * hidden_);
  cost.dense_flops_per_s = flops / seconds(kBatch, FfnPath::kDense);
  // Two densities tell the cost of a pair from the cost of looking at a neuron: all neurons are
  // listed in both.
  activate(kBatch, 9);
  const double at_ninth = seconds(kBatch, FfnPath::kSparse);
  activate(kBatch, 3);
  const double at_third = seconds(kBatch, FfnPath::kSparse);
  const double pairs = std::max((at_third - at_ninth) / (1.0 / 3 - 1.0 / 9), 0.5 * at_third);
  cost.sparse_flops_per_s = flops / pairs;
  cost.listing_seconds =
      std::max(at_ninth - pairs / 9, 0.0) / static_cast<double>(kBatch * neurons_);
  dispatcher_.SetCost(cost);
}

void Ffn::ComputeGate(const LayerWeights& weights, int64_t tokens) {
  const RowMatrix& gate = weights.gate;
  ListNeurons(
      tokens,
      [&](int64_t begin, int64_t end) {
        kernels_->linear[static_cast<int>(gate.dtype)](x_.data(), x_.stride(), tokens, gate, begin,
                                                       end, weights.gate_bias_data(), gates_.data(),
                                                       neurons_);
      },
      [&](int64_t begin, int64_t end, int64_t t, int32_t* out) {
        return kernels_->activate(activation_, &gates_[t * neurons_ + begin], end - begin,
                                  static_cast<int32_t>(begin), out);
      });
}

void Ffn::ListNeurons(int64_t tokens, absl::FunctionRef<void(int64_t, int64_t)> prepare,
                      absl::FunctionRef<int64_t(int64_t, int64_t, int64_t, int32_t*)> list_part) {
  for (Scratch& s : scratch_) {
    s.listed.clear();
    s.negative = 0;
    std::fill(s.active.begin(), s.active.end(), 0);
  }
  pool_->ParallelFor(neurons_, kGrain, [&](int64_t begin, int64_t end, int thread) {
    Scratch& s = scratch_[thread];
    prepare(begin, end);
    std::fill(is_active_.begin() + begin, is_active_.begin() + end, 0);
    for (int64_t t = 0; t < tokens; ++t) {
      // Each thread's part of the list, moved together below.
      int32_t* part = lists_[t].neurons + begin + kGrain * thread;
      s.active[t] = list_part(begin, end, t, part);
      for (int64_t i = 0; i < s.active[t]; ++i) is_active_[part[i]] = 1;
      if (activation_.kind == ActivationKind::kSilu) {
        s.negative += CountNegative(&gates_[t * neurons_ + begin], end - begin);
      }
    }
    for (int64_t j = begin; j < end; ++j) {
      if (is_active_[j] != 0) s.listed.push_back(static_cast<int32_t>(j));
    }
  });
  for (int64_t t = 0; t < tokens; ++t) {
    ActiveList& list = lists_[t];
    list.size = 0;
    for (int thread = 0; thread < pool_->threads(); ++thread) {
      const int64_t n = scratch_[thread].active[t];
      if (n == 0) continue;
      int64_t begin, end;
      SplitRange(neurons_, kGrain, pool_->threads(), thread, &begin, &end);
      std::memmove(list.neurons + list.size, list.neurons + begin + kGrain * thread,
                   n * sizeof(int32_t));
      list.size += n;
    }
  }
  FindUnion(tokens);
}

// From the threads' lists, which hold ascending ranges.
void Ffn::FindUnion(int64_t tokens) {
  union_.clear();
  for (const Scratch& s : scratch_) union_.insert(union_.end(), s.listed.begin(), s.listed.end());
  if (tokens == 1) return;
  for (size_t i = 0; i < union_.size(); ++i) position_of_[union_[i]] = static_cast<int32_t>(i);
}

void Ffn::ShrinkUnion(int64_t tokens) {
  for (const int32_t neuron : union_) is_active_[neuron] = 0;
  for (int64_t t = 0; t < tokens; ++t) {
    for (int64_t i = 0; i < lists_[t].size; ++i) is_active_[lists_[t].neurons[i]] = 1;
  }
  const auto end = std::remove_if(union_.begin(), union_.end(),
                                  [&](int32_t neuron) { return is_active_[neuron] == 0; });
  union_.erase(end, union_.end());
  for (size_t i = 0; i < union_.size(); ++i) position_of_[union_[i]] = static_cast<int32_t>(i);
}

// With dReLU a neuron is inactive also where `up` is. What the gate left active, and is not, leaves
// the lists and the union.
void Ffn::DropZeros(int64_t tokens, FfnPath path) {
  for (int64_t t = 0; t < tokens; ++t) {
    ActiveList& list = lists_[t];
    int64_t kept = 0;
    for (int64_t i = 0; i < list.size; ++i) {
      const int32_t neuron = list.neurons[i];
      const float value = path == FfnPath::kSparse ? list.values[i] : gates_[t * neurons_ + neuron];
      if (value == 0.0f) continue;
      list.neurons[kept] = neuron;
      list.values[kept++] = value;
    }
    list.size = kept;
  }
  ShrinkUnion(tokens);
  for (int64_t t = 0; t < tokens; ++t) {
    ActiveList& list = lists_[t];
    for (int64_t i = 0; i < list.size; ++i) list.positions[i] = position_of_[list.neurons[i]];
  }
}

void Ffn::DotLists(const RowMatrix& rows, int64_t tokens,
                   absl::FunctionRef<void(int64_t, const ActiveList&, int64_t, int64_t)> finish) {
  int64_t pass = neurons_;
  if (tokens > 1 && !rows.empty()) {
    int64_t active = 0;
    for (int64_t t = 0; t < tokens; ++t) active += lists_[t].size;
    const int64_t bytes = RowBytes(rows.dtype, hidden_);
    const int64_t all = static_cast<int64_t>(union_.size());
    pass = std::clamp(kPassRows * tokens * all / std::max<int64_t>(active, 1),
                      kMinPassBytes / bytes + 1, kMaxPassBytes / bytes + 1);
  }
  pool_->ParallelFor(union_.size(), 1, [&](int64_t begin, int64_t end, int thread) {
    Scratch& s = scratch_[thread];
    std::fill(s.active.begin(), s.active.end(), -1);  // where in its list each token has come to
    for (int64_t first = begin; first < end; first += pass) {
      const int64_t last = std::min(end, first + pass);
      // The next pass's rows are fetched in equal shares beside the tokens of this one.
      const int64_t num_ahead = rows.empty() ? 0 : std::min(end, last + pass) - last;
      for (int64_t i = 0; i < num_ahead; ++i) s.ahead[i] = rows.row(union_[last + i]);
      for (int64_t t = 0; t < tokens; ++t) {
        ActiveList& list = lists_[t];
        if (s.active[t] < 0) {
          const int32_t* const neurons = list.neurons;
          s.active[t] = std::lower_bound(neurons, neurons + list.size, union_[first]) - neurons;
        }
        const int64_t from = s.active[t];
        int64_t to = from;
        for (; to < list.size && list.neurons[to] <= union_[last - 1]; ++to) {
          list.positions[to] = position_of_[list.neurons[to]];
          if (!rows.empty()) s.rows[to - from] = rows.row(list.neurons[to]);
        }
        s.active[t] = to;
        if (!rows.empty()) {
          const int64_t share = num_ahead * t / tokens;
          const void* const* const ahead = tokens == 1 ? nullptr : s.ahead.data() + share;
          kernels_->dot_rows[static_cast<int>(rows.dtype)](
              x_.token(t), hidden_, s.rows.data(), to - from, ahead,
              num_ahead * (t + 1) / tokens - share, list.values + from);
        }
        finish(t, list, from, to);
      }
    }
  });
}

// list.values = gate * up for every active neuron. Without `up` weights, the gate itself.
void Ffn::UpSparse(const RowMatrix& up, int64_t tokens) {
  DotLists(up, tokens, [&](int64_t t, const ActiveList& list, int64_t from, int64_t to) {
    const float* const gates = &gates_[t * neurons_];
    if (activation_.kind == ActivationKind::kDRelu) Relu(list.values + from, to - from);
    for (int64_t i = from; i < to; ++i) {
      const float gate = gates[list.neurons[i]];
      list.values[i] = up.empty() ? gate : gate * list.values[i];
    }
  });
}

void Ffn::UpDense(const RowMatrix& up, int64_t tokens) {
  if (static_cast<int64_t>(up_.size()) < tokens * neurons_) up_.resize(tokens * neurons_);
  pool_->ParallelFor(neurons_, kGrain, [&](int64_t begin, int64_t end, int) {
    kernels_->linear[static_cast<int>(up.dtype)](x_.data(), x_.stride(), tokens, up, begin, end,
                                                 nullptr, up_.data(), neurons_);
    for (int64_t t = 0; t < tokens; ++t) {
      float* u = &up_[t * neurons_];
      if (activation_.kind == ActivationKind::kDRelu) Relu(u + begin, end - begin);
      float* gate = &gates_[t * neurons_];
      // A zero gate stays a plain zero, as on the sparse path, whatever `u` is.
      for (int64_t j = begin; j < end; ++j) gate[j] = gate[j] == 0.0f ? 0.0f : gate[j] * u[j];
    }
  });
}

void Ffn::Down(const LayerWeights& weights, int64_t tokens, FfnPath path, float* y) {
  const RowMatrix& down = weights.down;
  const int type = static_cast<int>(down.dtype);
  const auto listed = static_cast<int64_t>(union_.size());
  if (path == FfnPath::kSparse) {
    union_rows_.resize(listed);
    for (int64_t i = 0; i < listed; ++i) union_rows_[i] = down.row(union_[i]);
    combinations_.resize(tokens);
    for (int64_t t = 0; t < tokens; ++t) {
      combinations_[t] = {lists_[t].positions, lists_[t].values, lists_[t].size};
    }
  }
  pool_->ParallelFor(hidden_, ColumnGrain(down.dtype), [&](int64_t begin, int64_t end, int) {
    for (int64_t t = 0; t < tokens; ++t) {
      std::fill(y + t * hidden_ + begin, y + t * hidden_ + end, 0.0f);
    }
    if (path == FfnPath::kDense) {
      kernels_->linear_transposed[type](gates_.data(), neurons_, tokens, down, begin, end, y,
                                        hidden_);
    } else if (tokens == 1) {
      kernels_->axpy_rows[type](lists_[0].values, union_rows_.data(), listed, hidden_, begin, end,
                                y);
    } else {
      kernels_->axpy_lists[type](union_rows_.data(), listed, hidden_, combinations_.data(), tokens,
                                 begin, end, y, hidden_);
    }
    // An underflowed sum can be -0, and adding the zero products of the dense path makes it +0.
    // Adding +0 last gives both paths +0.
    for (int64_t t = 0; t < tokens; ++t) {
      for (int64_t c = begin; c < end; ++c) y[t * hidden_ + c] += 0.0f;
      if (!weights.down_bias.empty()) {
        kernels_->add_scaled(1.0f, weights.down_bias.data() + begin, end - begin,
                             y + t * hidden_ + begin);
      }
    }
  });
}

}  // namespace lacuna
