#include "proto/status.h"

#include <gtest/gtest.h>

#include "google/rpc/status.pb.h"

namespace lacuna {
namespace {

TEST(StatusTest, EveryCodeSurvivesTheWayToGrpcAndBack) {
  for (int code = 0; code <= 16; ++code) {
    const absl::Status status(static_cast<absl::StatusCode>(code), "why");
    EXPECT_EQ(FromGrpcStatus(ToGrpcStatus(status)).code(), status.code()) << code;
  }
}

TEST(StatusTest, FieldViolationsTravelAsBadRequest) {
  const absl::Status status = InvalidFields({{"sampling.top_p", "is 2"}, {"prompt", "is empty"}});
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(status.message(), "sampling.top_p: is 2; prompt: is empty");
  const grpc::Status wire = ToGrpcStatus(status);
  google::rpc::Status details;
  ASSERT_TRUE(details.ParseFromString(wire.error_details()));
  EXPECT_EQ(details.code(), 3);
  EXPECT_EQ(details.details(0).type_url(), "type.googleapis.com/google.rpc.BadRequest");

  const auto violations = FieldViolations(FromGrpcStatus(wire));
  ASSERT_EQ(violations.size(), 2u);
  EXPECT_EQ(violations[0].field, "sampling.top_p");
  EXPECT_EQ(violations[1].description, "is empty");
}

TEST(StatusTest, RetryDelayTravelsToTheNanosecond) {
  const absl::Duration delay = absl::Milliseconds(2500) + absl::Nanoseconds(7);
  const absl::Status status = WithRetryAfter(absl::UnavailableError("later"), delay);
  EXPECT_EQ(RetryAfter(FromGrpcStatus(ToGrpcStatus(status))), delay);
  EXPECT_EQ(RetryAfter(absl::UnavailableError("later")), std::nullopt);
}

TEST(StatusTest, LongMessagesAreCutToFitMetadata) {
  const grpc::Status wire = ToGrpcStatus(InvalidFields({{"f", std::string(100'000, 'x')}}));
  EXPECT_LE(wire.error_message().size(), 1024u);
  EXPECT_LE(wire.error_details().size(), 6000u);
  const auto violations = FieldViolations(FromGrpcStatus(wire));
  ASSERT_EQ(violations.size(), 1u);
  EXPECT_EQ(violations[0].field, "f");
}

TEST(StatusTest, ACharacterIsNotCutInTwo) {
  for (int before = 0; before < 3; ++before) {
    std::string text(before, 'x');
    for (int i = 0; i < 600; ++i) text += "\u20ac";
    const grpc::Status wire = ToGrpcStatus(InvalidFields({{"f", text}}));
    const auto violations = FieldViolations(FromGrpcStatus(wire));
    ASSERT_EQ(violations.size(), 1u) << before;
    EXPECT_EQ(violations[0].description, text.substr(0, violations[0].description.size()));
    EXPECT_EQ((violations[0].description.size() - before) % 3, 0u);
    EXPECT_EQ((wire.error_message().size() - 3 - before) % 3, 0u);
  }
}

}  // namespace
}  // namespace lacuna
