#include "kernels/cuda/cuda_buffer.h"

#include "absl/strings/match.h"
#include "tests/kernels/cuda/device_data.h"

namespace lacuna {
namespace {

using CudaBufferTest = CudaTest;

TEST_F(CudaBufferTest, KeepsWhatIsUploadedWhereItIsPut) {
  absl::StatusOr<DeviceBuffer> buffer = DeviceBuffer::Allocate(8);
  ASSERT_TRUE(buffer.ok()) << buffer.status();
  ASSERT_TRUE(buffer->Upload("abcdefgh", 8).ok());
  ASSERT_TRUE(buffer->Upload("XY", 2, 3).ok());
  char out[5] = {};
  ASSERT_TRUE(buffer->Download(out, 4, 2).ok());
  EXPECT_STREQ(out, "cXYf");
}

TEST_F(CudaBufferTest, RefusesWhatLiesBeyondItsEnd) {
  absl::StatusOr<DeviceBuffer> buffer = DeviceBuffer::Allocate(8);
  ASSERT_TRUE(buffer.ok()) << buffer.status();
  char bytes[8] = {};
  for (const absl::Status& status :
       {buffer->Upload(bytes, 6, 3), buffer->Download(bytes, 9), buffer->Upload(bytes, 1, -1)}) {
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;
  }
  EXPECT_TRUE(absl::StrContains(buffer->Upload(bytes, 6, 3).message(), "6 bytes at 3"));
}

TEST_F(CudaBufferTest, SaysHowMuchMemoryCannotBeHad) {
  const absl::StatusOr<DeviceBuffer> buffer = DeviceBuffer::Allocate(int64_t{1} << 50);
  EXPECT_EQ(buffer.status().code(), absl::StatusCode::kResourceExhausted);
  EXPECT_TRUE(absl::StrContains(buffer.status().message(), "1125899906842624 bytes"))
      << buffer.status();
  Synchronize();  // the failure concerns nobody else
}

TEST_F(CudaBufferTest, GivesItsMemoryBack) {
  const absl::StatusOr<CudaDeviceInfo> before = GetCudaDeviceInfo();
  ASSERT_TRUE(before.ok()) << before.status();
  {
    absl::StatusOr<DeviceBuffer> buffer = DeviceBuffer::Allocate(64 << 20);
    ASSERT_TRUE(buffer.ok()) << buffer.status();
    DeviceBuffer other;
    other = *std::move(buffer);
    EXPECT_LT(GetCudaDeviceInfo()->free_bytes, before->free_bytes);
  }
  // A driver takes and gives memory in large pieces.
  const int64_t slack = before->name == "emulated" ? 0 : 32 << 20;
  EXPECT_GE(GetCudaDeviceInfo()->free_bytes, before->free_bytes - slack);
}

TEST_F(CudaBufferTest, NoBytesNeedNoMemory) {
  absl::StatusOr<DeviceBuffer> buffer = DeviceBuffer::Allocate(0);
  ASSERT_TRUE(buffer.ok()) << buffer.status();
  EXPECT_EQ(buffer->data(), nullptr);
  EXPECT_TRUE(buffer->Upload(nullptr, 0).ok());
}

}  // namespace
}  // namespace lacuna
