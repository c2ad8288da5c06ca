#include "server/authenticator.h"

#include <fstream>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"

namespace lacuna {
namespace {

constexpr std::string_view kScheme = "bearer ";

// Takes the same time wherever the first difference is.
bool EqualConstantTime(std::string_view a, std::string_view b) {
  if (a.size() != b.size()) return false;
  volatile unsigned char difference = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    difference = difference | static_cast<unsigned char>(a[i] ^ b[i]);
  }
  return difference == 0;
}

bool HasScheme(std::string_view authorization) {
  if (authorization.size() < kScheme.size()) return false;
  for (size_t i = 0; i < kScheme.size(); ++i) {
    if (absl::ascii_tolower(authorization[i]) != kScheme[i]) return false;
  }
  return true;
}

}  // namespace

absl::StatusOr<Authenticator> Authenticator::FromFile(const std::string& path) {
  std::ifstream file(path);
  Authenticator result;
  for (std::string line; std::getline(file, line);) {
    absl::StripAsciiWhitespace(&line);
    if (!line.empty() && line[0] != '#') result.tokens_.push_back(line);
  }
  if (file.bad() || !file.eof()) {
    return absl::NotFoundError(absl::StrCat("cannot read the token file ", path));
  }
  if (result.tokens_.empty()) {
    return absl::InvalidArgumentError(absl::StrCat("the token file ", path, " has no token"));
  }
  return result;
}

absl::Status Authenticator::Check(std::string_view authorization) const {
  if (!required()) return absl::OkStatus();
  if (!HasScheme(authorization)) {
    return absl::UnauthenticatedError("metadata 'authorization: Bearer TOKEN' is needed");
  }
  const std::string_view token = authorization.substr(kScheme.size());
  bool known = false;
  for (const std::string& accepted : tokens_) known |= EqualConstantTime(token, accepted);
  return known ? absl::OkStatus() : absl::UnauthenticatedError("the bearer token is not accepted");
}

}  // namespace lacuna
