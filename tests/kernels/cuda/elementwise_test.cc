#include "kernels/cuda/elementwise.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <vector>

#include "kernels/reference/reference.h"
#include "tests/kernels/cuda/device_data.h"
#include "tests/kernels/test_data.h"

namespace lacuna {
namespace {

constexpr int64_t kSizes[] = {1, 3, 32, 100, 1024, 1500, 5000};
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr float kInfinity = std::numeric_limits<float>::infinity();

class ElementwiseTest : public CudaTest {};

TEST_F(ElementwiseTest, AddsAndScales) {
  for (const int64_t n : {0, 1, 255, 256, 1000}) {
    const std::vector<float> x = RandomFloats(n, 1), y = RandomFloats(n, 2);
    const DeviceArray<float> device_x(x), device_y(y);
    AddScaled(stream(), 0.5f, device_x.get(), n, device_y.get());
    Scale(stream(), 3.0f, n, device_y.get());
    Synchronize();
    const std::vector<float> out = device_y.Values();
    for (int64_t i = 0; i < n; ++i) {
      EXPECT_NEAR(out[i], 3.0 * (y[i] + 0.5 * x[i]), 8 * kRoundoff) << i << " of " << n;
    }
  }
}

TEST_F(ElementwiseTest, EmbedsTokensAsTheCpuWidensRows) {
  const std::vector<int32_t> ids = {4, 0, 6, 4, 1};
  for (const DType dtype : {DType::kF32, DType::kBf16, DType::kInt8, DType::kInt4}) {
    for (const int64_t cols : {1, 40, 64, 200, 1024, 2100}) {
      const TestMatrix table(dtype, 7, cols, 3);
      const DeviceMatrix device_table(table.view());
      const DeviceArray<int32_t> device_ids(ids);
      const DeviceArray<float> out(ids.size() * cols);
      EmbedTokens(stream(), device_table.view(), device_ids.get(), ids.size(), 12.0f, out.get());
      Synchronize();
      std::vector<float> expected(out.size());
      for (size_t t = 0; t < ids.size(); ++t) {
        float* const row = &expected[t * cols];
        SupportedCpuKernels()[0]->widen[static_cast<int>(dtype)](table.rows()[ids[t]], cols, row);
        for (int64_t i = 0; i < cols; ++i) row[i] *= 12.0f;
      }
      EXPECT_EQ(out.Values(), expected) << DTypeName(dtype) << " " << cols;  // zeros of either sign
    }
  }
}

TEST_F(ElementwiseTest, AddsPositionsButToPadding) {
  constexpr int64_t kCols = 300;
  const TestMatrix table(DType::kF32, 9, kCols, 4);
  const std::vector<float> x = RandomFloats(3 * kCols, 5);
  const DeviceMatrix device_table(table.view());
  const DeviceArray<float> device_x(x);
  const DeviceArray<int32_t> positions(std::vector<int32_t>{6, -1, 0});
  AddPositions(stream(), device_table.view(), positions.get(), 2, 3, device_x.get());
  Synchronize();
  const std::vector<float> out = device_x.Values();
  for (int64_t i = 0; i < kCols; ++i) {
    const auto row = [&](int64_t r) { return static_cast<const float*>(table.rows()[r])[i]; };
    EXPECT_EQ(out[i], x[i] + row(8));
    EXPECT_EQ(out[kCols + i], x[kCols + i]);
    EXPECT_EQ(out[2 * kCols + i], x[2 * kCols + i] + row(2));
  }
}

// Roundings on the way to one output of a norm: a thread's part of the sum (at most 4 elements of
// short rows, 5 of 5,000), 10 additions of the block's sum, halved by the square root, but twice
// over for mean and variance; and 8 for the root, quotient, products.
constexpr double kNormTolerance = (2 * (5 + 10) + 8) * kRoundoff;

TEST_F(ElementwiseTest, RmsNormMatchesReference) {
  constexpr int64_t kTokens = 3;
  for (const int64_t n : kSizes) {
    const std::vector<float> x = RandomFloats(kTokens * n, 1), weight = RandomFloats(n, 2);
    const DeviceArray<float> device_x(x), device_weight(weight), device_out(kTokens * n);
    RmsNorm(stream(), device_x.get(), device_weight.get(), 1e-5f, kTokens, n, device_out.get());
    RmsNorm(stream(), device_x.get(), device_weight.get(), 1e-5f, kTokens, n, device_x.get());
    Synchronize();
    const std::vector<float> out = device_out.Values();
    for (int64_t t = 0; t < kTokens; ++t) {
      const std::vector<double> expected = reference::RmsNorm(&x[t * n], weight.data(), 1e-5f, n);
      for (int64_t i = 0; i < n; ++i) {
        EXPECT_NEAR(out[t * n + i], expected[i], kNormTolerance * std::abs(expected[i]))
            << "n " << n << " token " << t;
      }
    }
    EXPECT_TRUE(SameBits(device_x.Values(), out)) << "in place";
  }
}

TEST_F(ElementwiseTest, LayerNormMatchesReference) {
  constexpr int64_t kTokens = 3;
  for (const int64_t n : kSizes) {
    if (n < 3) continue;  // of 1 element only the rounding of the mean would be left
    const std::vector<float> x = RandomFloats(kTokens * n, 3);
    const std::vector<float> weight = RandomFloats(n, 4), bias = RandomFloats(n, 5);
    const DeviceArray<float> device_x(x), device_weight(weight), device_bias(bias),
        device_out(kTokens * n);
    for (float* const to : {device_out.get(), device_x.get()}) {
      LayerNorm(stream(), device_x.get(), device_weight.get(), device_bias.get(), 1e-5f, kTokens, n,
                to);
    }
    Synchronize();
    const std::vector<float> out = device_out.Values();
    for (int64_t t = 0; t < kTokens; ++t) {
      const std::vector<double> expected =
          reference::LayerNorm(&x[t * n], weight.data(), bias.data(), 1e-5f, n);
      for (int64_t i = 0; i < n; ++i) {
        // The mean is wrong by its own roundings, and magnitudes reach 4 deviations.
        EXPECT_NEAR(out[t * n + i], expected[i], kNormTolerance * 4) << "n " << n << " i " << i;
      }
    }
    EXPECT_TRUE(SameBits(device_x.Values(), out)) << "in place";
  }
}

TEST_F(ElementwiseTest, GathersRows) {
  constexpr int64_t kCols = 77;
  const std::vector<float> x = RandomFloats(6 * kCols, 6);
  const DeviceArray<float> device_x(x), out(3 * kCols);
  const DeviceArray<int32_t> rows(std::vector<int32_t>{5, 0, 5});
  GatherRows(stream(), device_x.get(), rows.get(), 3, kCols, out.get());
  Synchronize();
  const std::vector<float> values = out.Values();
  EXPECT_TRUE(std::equal(&values[0], &values[kCols], &x[5 * kCols]));
  EXPECT_TRUE(std::equal(&values[kCols], &values[2 * kCols], &x[0]));
  EXPECT_TRUE(std::equal(&values[2 * kCols], &values[2 * kCols] + kCols, &x[5 * kCols]));
}

TEST_F(ElementwiseTest, QuantizesActivationsToTheBytesOfTheCpu) {
  constexpr int64_t kTokens = 3;
  const int64_t sizes[] = {1, 5, 64, 100, 256, 260, 1000, 1024, 1028, 2048, 4096, 11008};
  for (const int64_t n : sizes) {
    std::vector<float> x = RandomFloats(kTokens * n, 7);
    for (int64_t i = 0; i < n; ++i) {
      x[i] *= std::ldexp(1.0f, static_cast<int>(i % 50) - 25);  // of many magnitudes
      if (i % 64 / 4 == 3) x[n + i] = 0.0f;                     // a group of zeros
      if (i % 64 / 4 == 5) x[n + i] *= 1e-38f;                  // of subnormals
      // Ties, where the largest magnitude of a group is 127.
      x[2 * n + i] = i % 1024 < 64 && i % 4 == 0 ? 127.0f : static_cast<float>(i * 7 % 200) - 99.5f;
    }
    const int64_t bytes = ActivationBytes(DType::kInt8, n);
    std::vector<std::byte> expected(kTokens * bytes);
    for (int64_t t = 0; t < kTokens; ++t) {
      SupportedCpuKernels()[0]->quantize_activations(&x[t * n], n, &expected[t * bytes]);
    }
    const DeviceArray<float> device_x(x);
    const DeviceArray<std::byte> out(kTokens * bytes);
    QuantizeActivations(stream(), device_x.get(), kTokens, n, out.get());
    Synchronize();
    EXPECT_EQ(out.Values(), expected) << "n " << n;
  }
}

TEST_F(ElementwiseTest, QuantizesWhatIsNotFiniteToANanScale) {
  for (const float bad : {kNan, kInfinity, -kInfinity}) {
    std::vector<float> x = RandomFloats(1100, 8);
    x[64 + 4 * 9 + 2] = bad;  // group 9 of the first block
    const DeviceArray<float> device_x(x);
    const DeviceArray<std::byte> out(ActivationBytes(DType::kInt8, 1100));
    QuantizeActivations(stream(), device_x.get(), 1, 1100, out.get());
    Synchronize();
    const std::vector<std::byte> values = out.Values();
    for (int64_t i = 0; i < 1100; ++i) {
      const bool in_group = i < 1024 && i % 64 / 4 == 9;
      EXPECT_EQ(std::isnan(reference::ActivationScale(values.data(), 1100, i)), in_group) << i;
    }
  }
}

class RotateAndStoreTest : public CudaTest {
 protected:
  static constexpr int64_t kTokens = 4, kBlocks = 5, kBlockSize = 8, kStride = 3, kPositions = 24;
  // Two sequences; the third token is padding.
  const std::vector<int32_t> positions_ = {7, 8, -1, 17}, sequences_ = {1, 1, 0, 0};
  const std::vector<int32_t> tables_ = {4, 0, 2, 3, 1, -1};

  void Test(DType type, int64_t heads, int64_t kv_heads, int64_t dim, bool rotary) {
    const int64_t half = dim / 2, width = (heads + 2 * kv_heads) * dim;
    const std::vector<float> qkv = RandomFloats(kTokens * width, 1);
    std::vector<float> cos(kPositions * half), sin(kPositions * half);
    for (int64_t i = 0; i < kPositions * half; ++i) {
      cos[i] = std::cos(0.1f * static_cast<float>(i));
      sin[i] = std::sin(0.1f * static_cast<float>(i));
    }
    const int64_t width_of_type = RowBytes(type, 1);
    const std::vector<std::byte> empty(kBlocks * kv_heads * kBlockSize * dim * width_of_type,
                                       std::byte{0xEE});
    const DeviceArray<float> device_qkv(qkv), device_cos(cos), device_sin(sin);
    const DeviceArray<std::byte> keys(empty), values(empty);
    const DeviceArray<int32_t> positions(positions_), sequences(sequences_), tables(tables_);
    const KvView kv = {keys.get(), values.get(), type, kBlockSize, kv_heads, dim};
    RotateAndStore(stream(), {positions.get(), sequences.get(), tables.get(), kStride}, kTokens,
                   heads, rotary ? device_cos.get() : nullptr, rotary ? device_sin.get() : nullptr,
                   device_qkv.get(), kv);
    Synchronize();

    std::vector<float> rotated = qkv;
    std::vector<std::byte> expected_keys = empty, expected_values = empty;
    for (int64_t t = 0; t < kTokens; ++t) {
      const int64_t p = positions_[t];
      if (p < 0) continue;
      float* const q = &rotated[t * width];
      if (rotary) {
        SupportedCpuKernels()[0]->rope(q, &cos[p * half], &sin[p * half], heads + kv_heads, dim);
      }
      for (int64_t h = 0; h < kv_heads; ++h) {
        const int64_t at =
            kv.Offset(tables_[sequences_[t] * kStride + p / kBlockSize], h, p % kBlockSize);
        const float* const k = q + (heads + h) * dim;
        const float* const v = k + kv_heads * dim;
        Store(type, k, dim, &expected_keys[at]);
        Store(type, v, dim, &expected_values[at]);
      }
    }
    EXPECT_TRUE(SameBits(device_qkv.Values(), rotated));
    EXPECT_EQ(keys.Values(), expected_keys);
    EXPECT_EQ(values.Values(), expected_values);
  }

 private:
  static void Store(DType type, const float* x, int64_t n, std::byte* out) {
    for (int64_t i = 0; i < n; ++i) {
      uint32_t bits;
      std::memcpy(&bits, x + i, 4);
      const uint16_t bf16 = static_cast<uint16_t>((bits + 0x7FFF + (bits >> 16 & 1)) >> 16);
      if (type == DType::kF32) {
        std::memcpy(out + 4 * i, &bits, 4);
      } else {
        std::memcpy(out + 2 * i, &bf16, 2);
      }
    }
  }
};

TEST_F(RotateAndStoreTest, MatchesTheCpuBitForBit) {
  for (const DType type : {DType::kF32, DType::kBf16}) {
    for (const bool rotary : {true, false}) {
      Test(type, 4, 2, 16, rotary);
      Test(type, 1, 1, 6, rotary);
      Test(type, 8, 8, 128, rotary);
      Test(type, 9, 3, 80, rotary);
    }
  }
}

TEST_F(RotateAndStoreTest, RefusesACacheOfAnotherType) {
  RotateAndStore(stream(), {}, 1, 1, nullptr, nullptr, nullptr,
                 {nullptr, nullptr, DType::kInt8, 16, 1, 8});
  EXPECT_EQ(stream().Synchronize().code(), absl::StatusCode::kUnimplemented);
}

}  // namespace
}  // namespace lacuna
