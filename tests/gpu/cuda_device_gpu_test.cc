#include <gtest/gtest.h>

#include "kernels/cuda/cuda_device.h"

namespace lacuna {
namespace {

TEST(CudaDevice, AMachineForGpuTestsHasAGpu) {
  const auto count = CudaDeviceCount();
  ASSERT_TRUE(count.ok()) << count.status();
  EXPECT_GE(*count, 1);
  EXPECT_TRUE(CheckCudaDevice(0).ok()) << CheckCudaDevice(0);
}

}  // namespace
}  // namespace lacuna
