#include "runtime/model/device_choice.h"

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/strings/strip.h"

namespace lacuna {

absl::StatusOr<DeviceRequest> ParseDevice(std::string_view text) {
  using Kind = DeviceRequest::Kind;
  if (text == "auto") return DeviceRequest{Kind::kAuto};
  if (text == "cpu") return DeviceRequest{Kind::kCpu};
  if (text == "cuda") return DeviceRequest{Kind::kCuda};
  absl::string_view number(text.data(), text.size());
  DeviceRequest request{Kind::kCuda};
  if (absl::ConsumePrefix(&number, "cuda:") && absl::SimpleAtoi(number, &request.gpu) &&
      request.gpu >= 0) {
    return request;
  }
  return absl::InvalidArgumentError(
      absl::StrCat("--device=", absl::string_view(text.data(), text.size()),
                   ": want auto, cpu, cuda or cuda:N"));
}

absl::StatusOr<DeviceChoice> ChooseDevice(DeviceRequest request, const absl::StatusOr<int>& gpus) {
  switch (request.kind) {
    case DeviceRequest::Kind::kCpu:
      return DeviceChoice{};
    case DeviceRequest::Kind::kAuto:
      if (gpus.ok()) return DeviceChoice{.gpu = 0};
      // Nobody expects a GPU of a build without the backend.
      if (absl::IsUnimplemented(gpus.status())) return DeviceChoice{};
      return DeviceChoice{.fallback = absl::StrCat("it computes on the CPU (--device=auto): ",
                                                   gpus.status().message())};
    case DeviceRequest::Kind::kCuda:
      break;
  }
  const std::string device = absl::StrCat("--device=cuda:", request.gpu, ": ");
  if (!gpus.ok()) {
    return absl::Status(gpus.status().code(), absl::StrCat(device, gpus.status().message()));
  }
  if (request.gpu >= *gpus) {
    return absl::InvalidArgumentError(
        absl::StrCat(device, "this machine has ", *gpus, *gpus == 1 ? " GPU" : " GPUs"));
  }
  return DeviceChoice{.gpu = request.gpu};
}

}  // namespace lacuna
