#include "kernels/cuda/elementwise.h"

#include <vector>

#include "tests/kernels/cuda/device_data.h"
#include "tests/kernels/test_data.h"

namespace lacuna {
namespace {

using ElementwiseTest = CudaTest;

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

}  // namespace
}  // namespace lacuna
