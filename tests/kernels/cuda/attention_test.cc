#include "kernels/cuda/attention.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <ostream>
#include <random>
#include <vector>

#include "kernels/reference/reference.h"
#include "tests/kernels/cuda/device_data.h"
#include "tests/kernels/test_data.h"

namespace lacuna {
namespace {

struct Shape {
  int64_t head_dim, heads, kv_heads, block_size, window;
  DType type = DType::kBf16;
};
std::ostream& operator<<(std::ostream& out, const Shape& s) {
  return out << "head_dim " << s.head_dim << ", heads " << s.heads << " of " << s.kv_heads
             << ", blocks of " << s.block_size << ", window " << s.window << ", "
             << DTypeName(s.type);
}

// The caches of a few sequences, on the host and on the device, in blocks that lie anywhere.
class Cache {
 public:
  // contexts: positions of each sequence.
  Cache(const Shape& shape, const std::vector<int64_t>& contexts) : shape_(shape) {
    for (const int64_t context : contexts) {
      stride_ = std::max(stride_, CeilDiv(context, shape.block_size));
    }
    const int64_t blocks = static_cast<int64_t>(contexts.size()) * stride_;
    tables_.resize(blocks);
    std::iota(tables_.begin(), tables_.end(), 0);
    std::shuffle(tables_.begin(), tables_.end(), std::mt19937(1));
    const int64_t width = RowBytes(shape.type, 1);
    const int64_t elements = blocks * shape.kv_heads * shape.block_size * shape.head_dim;
    // Every bit set is a NaN in both types: what was not stored must not count.
    keys_.resize(elements * width, std::byte{0xFF});
    values_ = keys_;
    view_ = {keys_.data(),     values_.data(), shape.type,
             shape.block_size, shape.kv_heads, shape.head_dim};
    uint32_t seed = 2;
    for (size_t s = 0; s < contexts.size(); ++s) {
      for (int64_t p = 0; p < contexts[s]; ++p) {
        for (int64_t h = 0; h < shape.kv_heads; ++h) {
          const int64_t at = view_.Offset(table(s)[p / shape.block_size], h, p % shape.block_size);
          for (std::vector<std::byte>* const to : {&keys_, &values_}) {
            const std::vector<float> x = RandomFloats(shape.head_dim, seed++);
            for (int64_t i = 0; i < shape.head_dim; ++i) {
              // A bf16 is the upper half of a float.
              const char* const value = reinterpret_cast<const char*>(&x[i]);
              std::memcpy(to->data() + at + i * width, value + 4 - width, width);
            }
          }
        }
      }
    }
    device_keys_ = std::make_unique<DeviceArray<std::byte>>(keys_);
    device_values_ = std::make_unique<DeviceArray<std::byte>>(values_);
    device_tables_ = std::make_unique<DeviceArray<int32_t>>(tables_);
  }

  const int32_t* table(int64_t sequence) const { return &tables_[sequence * stride_]; }
  const KvView& view() const { return view_; }
  KvView device_view() const {
    KvView view = view_;
    view.keys = device_keys_->get();
    view.values = device_values_->get();
    return view;
  }
  const int32_t* device_tables() const { return device_tables_->get(); }
  int64_t stride() const { return stride_; }

 private:
  const Shape shape_;
  int64_t stride_ = 0;
  std::vector<int32_t> tables_;
  std::vector<std::byte> keys_, values_;
  KvView view_;
  std::unique_ptr<DeviceArray<std::byte>> device_keys_, device_values_;
  std::unique_ptr<DeviceArray<int32_t>> device_tables_;
};

// A token: its sequence and position (negative: padding).
struct Token {
  int32_t sequence, position;
};

class CudaAttentionTest : public CudaTest {
 protected:
  static constexpr float kUntouched = -77.0f;

  // What a kernel gives for `tokens`: [tokens, heads, head_dim]; tiles are for prefill.
  std::vector<float> Attend(const Shape& shape, const Cache& cache,
                            const std::vector<Token>& tokens, const std::vector<float>& q,
                            int64_t splits, const std::vector<int32_t>& tiles = {}) {
    std::vector<int32_t> positions, sequences;
    for (const Token& token : tokens) {
      positions.push_back(token.position);
      sequences.push_back(token.sequence);
    }
    const int64_t n = static_cast<int64_t>(tokens.size());
    const DeviceArray<int32_t> device_positions(positions), device_sequences(sequences);
    const DeviceArray<float> device_q(q);
    const DeviceArray<float> out(std::vector<float>(n * shape.heads * shape.head_dim, kUntouched));
    CudaAttentionArgs args;
    args.q = device_q.get();
    args.q_stride = Stride(shape);
    args.out = out.get();
    args.tokens = n;
    args.heads = shape.heads;
    args.places = {device_positions.get(), device_sequences.get(), cache.device_tables(),
                   cache.stride()};
    args.kv = cache.device_view();
    args.window = shape.window;
    args.scale = Scale(shape);
    const DeviceArray<std::byte> scratch(
        DecodeAttentionScratchBytes(n, shape.heads, shape.head_dim, splits));
    const DeviceArray<int32_t> device_tiles(tiles);
    if (tiles.empty()) {
      DecodeAttention(stream(), args, splits, scratch.get());
    } else {
      PrefillAttention(stream(), args, device_tiles.get(), static_cast<int64_t>(tiles.size()) - 1);
    }
    Synchronize();
    return out.Values();
  }

  static int64_t Stride(const Shape& shape) {
    return (shape.heads + 2 * shape.kv_heads) * shape.head_dim;
  }
  static float Scale(const Shape& shape) {
    return 1.0f / std::sqrt(static_cast<float>(shape.head_dim));
  }

  static void ExpectReference(const Shape& shape, const Cache& cache,
                              const std::vector<Token>& tokens, const std::vector<float>& q,
                              const std::vector<float>& out) {
    const int64_t group = shape.heads / shape.kv_heads, dim = shape.head_dim;
    for (size_t t = 0; t < tokens.size(); ++t) {
      const float* const mine = &out[t * shape.heads * dim];
      if (tokens[t].position < 0) {
        for (int64_t i = 0; i < shape.heads * dim; ++i) EXPECT_EQ(mine[i], 0.0f) << "padding";
        continue;
      }
      for (int64_t h = 0; h < shape.kv_heads; ++h) {
        AttentionArgs args;
        args.q = &q[t * Stride(shape) + h * group * dim];
        args.group = group;
        args.kv_head = h;
        args.context = tokens[t].position + 1;
        args.first = shape.window > 0 ? std::max<int64_t>(0, args.context - shape.window) : 0;
        args.block_table = cache.table(tokens[t].sequence);
        args.kv = cache.view();
        args.scale = Scale(shape);
        const std::vector<double> expected = reference::Attention(args);
        // As of the CPU's attention (tests/kernels/attention_test.cc): the score's error, doubled;
        // the exponential's, and those of the sums.
        const double score = (dim + 4) * kRoundoff * std::sqrt(dim);
        // Tensor cores leave out less than 2^-16 of each query's element, and of each weight.
        const double left_out = std::sqrt(dim) * 0x1p-16;
        const double tolerance =
            2 * (score + left_out) + 0x1p-16 + (8 + 2 * (args.context - args.first)) * kRoundoff;
        for (int64_t i = 0; i < group * dim; ++i) {
          ASSERT_NEAR(mine[h * group * dim + i], expected[i], tolerance)
              << shape << ", token " << t << " at " << tokens[t].position << ", i " << i;
        }
      }
    }
  }
};

const std::vector<Shape>& Shapes() {
  static const auto* const shapes = [] {
    auto* all = new std::vector<Shape>;
    const Shape kinds[] = {
        {8, 1, 1, 4, 0},      {64, 4, 4, 16, 0},   {64, 6, 2, 16, 0},    {128, 4, 1, 16, 0},
        {80, 7, 1, 16, 0},    {128, 16, 2, 32, 0}, {48, 26, 2, 16, 100}, {256, 2, 1, 16, 0},
        {136, 3, 1, 1024, 7}, {16, 2, 2, 16, 1},
    };
    for (const DType type : {DType::kBf16, DType::kF32}) {
      for (Shape shape : kinds) {
        shape.type = type;
        all->push_back(shape);
      }
    }
    return all;
  }();
  return *shapes;
}

TEST_F(CudaAttentionTest, DecodingMatchesReference) {
  for (const Shape& shape : Shapes()) {
    const Cache cache(shape, {1, 333, 65, 200});
    // Each sequence's last position, and padding.
    const std::vector<Token> tokens = {{0, 0}, {1, 332}, {2, 64}, {0, -1}, {3, 199}};
    const std::vector<float> q = RandomFloats(tokens.size() * Stride(shape), 3);
    for (const int64_t splits : {1, 3, 64}) {
      const std::vector<float> out = Attend(shape, cache, tokens, q, splits);
      ExpectReference(shape, cache, tokens, q, out);
      if (HasFatalFailure()) return;
    }
  }
}

TEST_F(CudaAttentionTest, PrefillMatchesReference) {
  for (const Shape& shape : Shapes()) {
    const Cache cache(shape, {37, 150});
    // A prompt in tiles of 16, 16, and 5; the middle of another; no token in a tile; and one.
    std::vector<Token> tokens;
    for (int32_t p = 0; p < 37; ++p) tokens.push_back({0, p});
    for (int32_t p = 130; p < 142; ++p) tokens.push_back({1, p});
    tokens.push_back({1, 149});
    const std::vector<int32_t> tiles = {0, 16, 32, 37, 49, 49, 50};
    const std::vector<float> q = RandomFloats(tokens.size() * Stride(shape), 4);
    const std::vector<float> out = Attend(shape, cache, tokens, q, 1, tiles);
    ExpectReference(shape, cache, tokens, q, out);
    if (HasFatalFailure()) return;
  }
}

TEST_F(CudaAttentionTest, PrefillLeavesTokensOutsideOfTilesAlone) {
  const Shape shape = {64, 2, 1, 16, 0};
  const Cache cache(shape, {20});
  std::vector<Token> tokens;
  for (int32_t p = 0; p < 20; ++p) tokens.push_back({0, p});
  const std::vector<float> q = RandomFloats(tokens.size() * Stride(shape), 5);
  const std::vector<float> out = Attend(shape, cache, tokens, q, 1, {3, 10, 17});
  const int64_t width = shape.heads * shape.head_dim;
  for (int64_t t = 0; t < 20; ++t) {
    EXPECT_EQ(out[t * width] == kUntouched, t < 3 || t >= 17) << t;
  }
}

TEST_F(CudaAttentionTest, GivesTheSameBitsEveryTime) {
  const Shape shape = {128, 8, 2, 16, 0};
  const Cache cache(shape, {300});
  const std::vector<Token> tokens = {{0, 299}};
  const std::vector<float> q = RandomFloats(Stride(shape), 6);
  EXPECT_TRUE(SameBits(Attend(shape, cache, tokens, q, 5), Attend(shape, cache, tokens, q, 5)));
}

// Scores beyond what an exponential holds, of both signs.
TEST_F(CudaAttentionTest, LargeScoresDoNotOverflow) {
  const Shape shape = {64, 1, 1, 16, 0, DType::kF32};
  const Cache cache(shape, {200});
  const std::vector<Token> tokens = {{0, 199}};
  std::vector<float> q = RandomFloats(Stride(shape), 7);
  for (float& x : q) x *= 1000.0f;
  const std::vector<float> out = Attend(shape, cache, tokens, q, 3);
  AttentionArgs args;
  args.q = q.data();
  args.group = 1;
  args.context = 200;
  args.block_table = cache.table(0);
  args.kv = cache.view();
  args.scale = Scale(shape);
  const std::vector<double> expected = reference::Attention(args);
  // Scores reach 1,000 times what they do elsewhere.
  const double tolerance = 2 * 1000 * (64 + 4) * kRoundoff * 8;
  for (int64_t i = 0; i < 64; ++i) EXPECT_NEAR(out[i], expected[i], tolerance);
}

TEST_F(CudaAttentionTest, SaysWhichShapesItDoesNotDo) {
  for (const auto& [head_dim, type] :
       {std::pair<int64_t, DType>(30, DType::kBf16), {264, DType::kBf16}, {64, DType::kInt8}}) {
    absl::StatusOr<CudaStream> stream = CudaStream::Create();
    ASSERT_TRUE(stream.ok()) << stream.status();
    CudaAttentionArgs args;
    args.tokens = args.heads = 1;
    args.kv = {nullptr, nullptr, type, 16, 1, head_dim};
    DecodeAttention(*stream, args, 1, nullptr);
    EXPECT_EQ(stream->Synchronize().code(), absl::StatusCode::kUnimplemented) << head_dim;
  }
}

TEST(AttentionSplitsTest, FewTokensAreSplitUntilEveryMultiprocessorIsBusy) {
  EXPECT_EQ(AttentionSplits(132, 1, 32), 17);
  EXPECT_EQ(AttentionSplits(132, 64, 32), 1);
  EXPECT_EQ(AttentionSplits(132, 1, 1), 64);
}

}  // namespace
}  // namespace lacuna
