#include "kernels/base/aligned_buffer.h"

#include <algorithm>
#include <limits>
#include <string>

#include "gtest/gtest.h"
#include "kernels/base/aligned_vector.h"

namespace lacuna {
namespace {

constexpr int64_t kHugePage = int64_t{2} << 20;

TEST(AlignedBufferTest, ZeroedAndAligned) {
  for (int64_t bytes :
       {int64_t{1}, int64_t{64}, int64_t{100}, kHugePage - 1, kHugePage, 2 * kHugePage + 100}) {
    absl::StatusOr<AlignedBuffer> buffer = AlignedBuffer::Allocate(bytes);
    ASSERT_TRUE(buffer.ok()) << buffer.status();
    EXPECT_EQ(buffer->size(), bytes);
    const auto address = reinterpret_cast<uintptr_t>(buffer->data());
    EXPECT_EQ(address % (bytes >= kHugePage ? kHugePage : 64), 0u);
    EXPECT_TRUE(std::all_of(buffer->data(), buffer->data() + bytes,
                            [](std::byte b) { return b == std::byte{0}; }));
    std::fill_n(buffer->data(), bytes, std::byte{7});
  }
}

TEST(AlignedBufferTest, EmptyIsAllowed) {
  absl::StatusOr<AlignedBuffer> buffer = AlignedBuffer::Allocate(0);
  ASSERT_TRUE(buffer.ok()) << buffer.status();
  EXPECT_EQ(buffer->size(), 0);
}

TEST(AlignedBufferTest, FailureIsAStatusThatNamesTheSize) {
  for (int64_t bytes : {int64_t{-1}, int64_t{1} << 60, std::numeric_limits<int64_t>::max()}) {
    const absl::Status status = AlignedBuffer::Allocate(bytes).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
    EXPECT_NE(status.message().find(std::to_string(bytes)), absl::string_view::npos) << status;
  }
}

TEST(AlignedBufferTest, MovesOwnTheMemoryOnce) {
  AlignedBuffer small = *AlignedBuffer::Allocate(100);
  AlignedBuffer large = *AlignedBuffer::Allocate(kHugePage);
  const std::byte* small_data = small.data();
  AlignedBuffer moved(std::move(small));
  EXPECT_EQ(moved.data(), small_data);
  moved = std::move(large);
  EXPECT_EQ(moved.size(), kHugePage);
}

TEST(AlignedVectorTest, StartsACacheLineAtEverySize) {
  AlignedVector<float> floats;
  AlignedVector<char> bytes;
  for (size_t n = 1; n < 5000; n = n * 3 / 2 + 1) {
    floats.resize(n);
    bytes.resize(n);
    EXPECT_EQ(reinterpret_cast<uintptr_t>(floats.data()) % 64, 0u) << n;
    EXPECT_EQ(reinterpret_cast<uintptr_t>(bytes.data()) % 64, 0u) << n;
  }
  const AlignedVector<float> moved = std::move(floats);
  EXPECT_EQ(reinterpret_cast<uintptr_t>(moved.data()) % 64, 0u);
}

}  // namespace
}  // namespace lacuna
