#include "runtime/model/device_choice.h"

#include "gtest/gtest.h"
#include "tests/runtime/base/testing.h"

namespace lacuna {
namespace {

const absl::StatusOr<int> kTwo = 2;
const absl::StatusOr<int> kNoDriver = absl::UnavailableError("no usable GPU: no driver");
const absl::StatusOr<int> kNoBackend = absl::UnimplementedError("this build has no CUDA backend");

absl::StatusOr<DeviceChoice> Choose(const char* text, const absl::StatusOr<int>& gpus) {
  const absl::StatusOr<DeviceRequest> request = ParseDevice(text);
  if (!request.ok()) return request.status();
  return ChooseDevice(*request, gpus);
}

TEST(DeviceChoice, TakesTheGpuThatIsAskedForOrTheFirst) {
  EXPECT_EQ(Choose("auto", kTwo)->gpu, 0);
  EXPECT_EQ(Choose("cuda", kTwo)->gpu, 0);
  EXPECT_EQ(Choose("cuda:1", kTwo)->gpu, 1);
  EXPECT_EQ(Choose("cpu", kTwo)->gpu, -1);
}

TEST(DeviceChoice, AutoFallsBackAndSaysWhyUnlessTheBuildHasNoBackend) {
  EXPECT_EQ(Choose("auto", kNoDriver)->gpu, -1);
  EXPECT_EQ(Choose("auto", kNoDriver)->fallback,
            "it computes on the CPU (--device=auto): no usable GPU: no driver");
  EXPECT_EQ(Choose("auto", kNoBackend)->gpu, -1);
  EXPECT_EQ(Choose("auto", kNoBackend)->fallback, "");
  EXPECT_EQ(Choose("auto", kTwo)->fallback, "");
  EXPECT_EQ(Choose("cpu", kNoDriver)->fallback, "");
}

TEST(DeviceChoice, AGpuThatIsAskedForIsNeverReplaced) {
  EXPECT_TRUE(IsError(Choose("cuda", kNoDriver).status(), absl::StatusCode::kUnavailable,
                      "--device=cuda:0: no usable GPU: no driver"));
  EXPECT_TRUE(IsError(Choose("cuda:1", kNoBackend).status(), absl::StatusCode::kUnimplemented,
                      "--device=cuda:1: this build has no CUDA backend"));
  EXPECT_TRUE(IsError(Choose("cuda:2", kTwo).status(), absl::StatusCode::kInvalidArgument,
                      "--device=cuda:2: this machine has 2 GPUs"));
}

TEST(DeviceChoice, RefusesWhatIsNoDevice) {
  for (const char* text : {"", "gpu", "cuda:", "cuda:-1", "cuda:x", "cuda:1x", "cuda0"}) {
    EXPECT_TRUE(IsError(ParseDevice(text).status(), absl::StatusCode::kInvalidArgument,
                        "want auto, cpu, cuda or cuda:N"))
        << text;
  }
}

}  // namespace
}  // namespace lacuna
