#ifndef LACUNA_RUNTIME_MODEL_DEVICE_CHOICE_H_
#define LACUNA_RUNTIME_MODEL_DEVICE_CHOICE_H_

#include <string>
#include <string_view>

#include "absl/status/statusor.h"

namespace lacuna {

// The value of --device.
struct DeviceRequest {
  enum class Kind { kAuto, kCpu, kCuda };
  Kind kind = Kind::kAuto;
  int gpu = 0;  // kCuda
};

// "auto", "cpu", "cuda" (the first GPU) or "cuda:N". INVALID_ARGUMENT for anything else.
absl::StatusOr<DeviceRequest> ParseDevice(std::string_view text);

// Where a model will compute.
struct DeviceChoice {
  int gpu = -1;          // -1: on the CPU
  std::string fallback;  // for people, if not empty: why a build with GPUs uses the CPU
};

// `gpus` is what CudaDeviceCount says, or why none can be used; it does not count for the CPU. kAuto takes the first GPU,
// else the CPU. kCuda: INVALID_ARGUMENT for a GPU that is not there; the status of `gpus` if there
// is none at all.
absl::StatusOr<DeviceChoice> ChooseDevice(DeviceRequest request, const absl::StatusOr<int>& gpus);

}  // namespace lacuna

#endif  // LACUNA_RUNTIME_MODEL_DEVICE_CHOICE_H_
