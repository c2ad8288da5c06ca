#include "kernels/cuda/cuda_device.h"

#include "gtest/gtest.h"

namespace lacuna {
namespace {

// Holds with and without the backend, with and without a GPU.
TEST(CudaDeviceTest, CountsGpusOrSaysWhyNone) {
  const absl::StatusOr<int> count = CudaDeviceCount();
  if (count.ok()) {
    EXPECT_GE(*count, 1);
    const absl::Status usable = CheckCudaDevice(0);
    EXPECT_TRUE(usable.ok() || absl::IsUnavailable(usable)) << usable;
  } else {
    EXPECT_TRUE(absl::IsUnavailable(count.status()) || absl::IsUnimplemented(count.status()))
        << count.status();
    EXPECT_FALSE(count.status().message().empty());
  }
}

}  // namespace
}  // namespace lacuna
