#include <algorithm>
#include <cmath>
#include <numeric>

#include "kernels/reference/reference.h"
#include "tests/kernels/test_data.h"

namespace lacuna {
namespace {

constexpr int64_t kKvHeads = 2;

struct Shape {
  int64_t head_dim, group, block_size, context, first;
  DType type = DType::kF32;
};

// A cache whose position p holds the same vectors whatever its blocks are.
class Cache {
 public:
  Cache(const Shape& shape, uint32_t block_seed) : shape_(shape) {
    const int64_t blocks = (shape.context + shape.block_size - 1) / shape.block_size;
    block_table_.resize(blocks);
    std::iota(block_table_.begin(), block_table_.end(), 0);
    std::shuffle(block_table_.begin(), block_table_.end(), std::mt19937(block_seed));
    // Every bit set is a NaN in both types: what was not stored must not be read.
    const int64_t width = RowBytes(shape.type, 1);
    keys_.resize(blocks * shape.block_size * kKvHeads * shape.head_dim * width, std::byte{0xFF});
    values_ = keys_;
    kv_ = {.keys = keys_.data(),
           .values = values_.data(),
           .type = shape.type,
           .block_size = shape.block_size,
           .kv_heads = kKvHeads,
           .head_dim = shape.head_dim};
    const std::vector<float> k = RandomFloats(shape.context * kKvHeads * shape.head_dim, 1);
    const std::vector<float> v = RandomFloats(shape.context * kKvHeads * shape.head_dim, 2);
    for (int64_t p = 0; p < shape.context; ++p) {
      for (int64_t h = 0; h < kKvHeads; ++h) {
        const int64_t to = kv_.Offset(block_table_[p / shape.block_size], h, p % shape.block_size);
        const int64_t from = (p * kKvHeads + h) * shape.head_dim;
        for (int64_t i = 0; i < shape.head_dim; ++i) {
          // A bf16 is the upper half of a float.
          const auto upper = [&](const float& f) {
            return reinterpret_cast<const char*>(&f) + 4 - width;
          };
          std::memcpy(&keys_[to + i * width], upper(k[from + i]), width);
          std::memcpy(&values_[to + i * width], upper(v[from + i]), width);
        }
      }
    }
  }

  AttentionArgs Args(const std::vector<float>& q) const {
    return {.q = q.data(),
            .group = shape_.group,
            .kv_head = 1,
            .context = shape_.context,
            .first = shape_.first,
            .block_table = block_table_.data(),
            .kv = kv_,
            .scale = 1.0f / std::sqrt(static_cast<float>(shape_.head_dim))};
  }

 private:
  const Shape shape_;
  std::vector<int32_t> block_table_;
  std::vector<std::byte> keys_, values_;
  KvView kv_;
};

class AttentionTest : public IsaTest {
 protected:
  std::vector<float> Attention(AttentionArgs args) {
    constexpr float kCanary = -77.0f;
    args.out_stride = args.group * args.kv.head_dim;
    std::vector<float> out(args.tokens * args.out_stride, NAN);
    std::vector<float> scratch(args.ScratchFloats() + 1, kCanary);
    args.out = out.data();
    args.scratch = scratch.data();
    kernels().attention(args);
    EXPECT_EQ(scratch.back(), kCanary) << "wrote beyond the scratch space";
    return out;
  }
};
LACUNA_TEST_EVERY_ISA(AttentionTest);

constexpr Shape kShapes[] = {
    {.head_dim = 8, .group = 1, .block_size = 4, .context = 1, .first = 0},
    {.head_dim = 64, .group = 1, .block_size = 16, .context = 16, .first = 0},
    {.head_dim = 64, .group = 3, .block_size = 16, .context = 17, .first = 0},
    {.head_dim = 48, .group = 4, .block_size = 16, .context = 100, .first = 0},
    {.head_dim = 128, .group = 8, .block_size = 32, .context = 333, .first = 0},
    {.head_dim = 80, .group = 7, .block_size = 16, .context = 50, .first = 49},
    {.head_dim = 30, .group = 2, .block_size = 16, .context = 70, .first = 16},
    {.head_dim = 64, .group = 13, .block_size = 16, .context = 200, .first = 93},
    {.head_dim = 16, .group = 1, .block_size = 1024, .context = 2050, .first = 5},
};

const std::vector<Shape>& Shapes() {
  static const auto* const shapes = [] {
    auto* all = new std::vector<Shape>;
    for (DType type : {DType::kF32, DType::kBf16}) {
      for (Shape shape : kShapes) {
        shape.type = type;
        all->push_back(shape);
      }
    }
    return all;
  }();
  return *shapes;
}

TEST_P(AttentionTest, MatchesReference) {
  for (const Shape& shape : Shapes()) {
    const Cache cache(shape, 3);
    const std::vector<float> q = RandomFloats(shape.group * shape.head_dim, 4);
    const std::vector<double> expected = reference::Attention(cache.Args(q));
    const std::vector<float> out = Attention(cache.Args(q));
    // A score is a dot product of magnitude below head_dim, scaled; its error, doubled by the
    // subtraction of the largest score, is the relative error of a weight. Then the exponential
    // (8 roundings), and the sums over the positions of the weights and of the weighted values, of
    // magnitude below 1.
    const double score = (shape.head_dim + 4) * kRoundoff * std::sqrt(shape.head_dim);
    const double tolerance = 2 * score + (8 + 2 * (shape.context - shape.first)) * kRoundoff;
    for (size_t i = 0; i < out.size(); ++i) {
      EXPECT_NEAR(out[i], expected[i], tolerance)
          << "head_dim " << shape.head_dim << " context " << shape.context << " i " << i;
    }
  }
}

TEST_P(AttentionTest, BlockTableDoesNotMatter) {
  for (const Shape& shape : Shapes()) {
    const std::vector<float> q = RandomFloats(shape.group * shape.head_dim, 5);
    const Cache one(shape, 6), other(shape, 7);
    EXPECT_TRUE(SameBits(Attention(one.Args(q)), Attention(other.Args(q))))
        << "context " << shape.context;
  }
}

TEST_P(AttentionTest, BlockSizeDoesNotMatter) {
  Shape shape = {.head_dim = 64, .group = 3, .block_size = 16, .context = 150, .first = 3};
  const std::vector<float> q = RandomFloats(shape.group * shape.head_dim, 8);
  const std::vector<float> expected = Attention(Cache(shape, 9).Args(q));
  for (int64_t block_size : {1, 7, 64, 256}) {
    shape.block_size = block_size;
    EXPECT_TRUE(SameBits(Attention(Cache(shape, 9).Args(q)), expected)) << block_size;
  }
}

TEST_P(AttentionTest, HeadAloneIsHeadInGroup) {
  const Shape shape = {.head_dim = 64, .group = 9, .block_size = 16, .context = 77, .first = 0};
  const Cache cache(shape, 10);
  const std::vector<float> q = RandomFloats(shape.group * shape.head_dim, 11);
  const std::vector<float> together = Attention(cache.Args(q));
  for (int64_t g = 0; g < shape.group; ++g) {
    AttentionArgs args = cache.Args(q);
    args.q += g * shape.head_dim;
    args.group = 1;
    EXPECT_TRUE(
        SameBits(Attention(args), std::vector<float>(together.begin() + g * shape.head_dim,
                                                     together.begin() + (g + 1) * shape.head_dim)))
        << "head " << g;
  }
}

TEST_P(AttentionTest, TokensTogetherMatchTheReferenceAndAreTokensAlone) {
  for (Shape shape : Shapes()) {
    for (const int64_t tokens : {2, 5, 17}) {
      const Cache cache({.head_dim = shape.head_dim,
                         .group = shape.group,
                         .block_size = shape.block_size,
                         .context = shape.context + tokens - 1,
                         .first = shape.first,
                         .type = shape.type},
                        14);
      const int64_t width = shape.group * shape.head_dim;
      const int64_t q_stride = width + 3;
      const std::vector<float> q = RandomFloats(tokens * q_stride, 15);
      AttentionArgs args = cache.Args(q);
      args.tokens = tokens;
      args.q_stride = q_stride;
      args.context = shape.context;
      const std::vector<float> together = Attention(args);
      const std::vector<double> expected = reference::Attention(args);
      for (size_t i = 0; i < together.size(); ++i) {
        // MatchesReference holds the kernel to its error; this, to the right positions.
        ASSERT_NEAR(together[i], expected[i], 1e-4) << "context " << shape.context << " i " << i;
      }
      for (int64_t t = 0; t < tokens; ++t) {
        AttentionArgs alone = args;
        alone.tokens = 1;
        alone.q += t * q_stride;
        alone.context += t;
        EXPECT_TRUE(SameBits(
            Attention(alone),
            std::vector<float>(together.begin() + t * width, together.begin() + (t + 1) * width)))
            << "context " << shape.context << " token " << t << " of " << tokens;
      }
    }
  }
}

TEST_P(AttentionTest, HugeScoresStayFinite) {
  const Shape shape = {.head_dim = 64, .group = 2, .block_size = 16, .context = 40, .first = 0};
  const Cache cache(shape, 12);
  const std::vector<float> q = RandomFloats(shape.group * shape.head_dim, 13);
  for (float scale : {1e5f, -1e5f}) {
    AttentionArgs args = cache.Args(q);
    args.scale = scale;
    for (float v : Attention(args)) {
      EXPECT_LE(std::abs(v), 1.0f);  // an average of values in [-1, 1); false for NaN
    }
  }
}

}  // namespace
}  // namespace lacuna
