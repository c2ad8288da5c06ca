#ifndef LACUNA_PROTO_STATUS_H_
#define LACUNA_PROTO_STATUS_H_

#include <grpcpp/support/status.h>

#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"

namespace lacuna {

// The one place where absl::Status and grpc::Status meet. A payload of an absl::Status, keyed by
// its type URL, is a detail of the google.rpc.Status in `grpc-status-details-bin`, and back.
grpc::Status ToGrpcStatus(const absl::Status& status);
absl::Status FromGrpcStatus(const grpc::Status& status);

struct FieldViolation {
  std::string field;  // path in the request: "sampling.temperature"
  std::string description;
};

// INVALID_ARGUMENT with a google.rpc.BadRequest; the message names every field. `violations` is
// not empty.
absl::Status InvalidFields(const std::vector<FieldViolation>& violations);
// The violations of a status; empty if it has none.
std::vector<FieldViolation> FieldViolations(const absl::Status& status);

// Advice to clients that were refused for load: steps take milliseconds, requests seconds.
inline constexpr absl::Duration kRetryDelay = absl::Seconds(1);

// `status` with a google.rpc.RetryInfo.
absl::Status WithRetryAfter(absl::Status status, absl::Duration delay);
std::optional<absl::Duration> RetryAfter(const absl::Status& status);

// "INVALID_ARGUMENT": the name in the gRPC documentation.
absl::string_view StatusCodeName(absl::StatusCode code);

}  // namespace lacuna

#endif  // LACUNA_PROTO_STATUS_H_
