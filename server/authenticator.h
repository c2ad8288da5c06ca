#ifndef LACUNA_SERVER_AUTHENTICATOR_H_
#define LACUNA_SERVER_AUTHENTICATOR_H_

#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace lacuna {

// Checks bearer tokens. Immutable; thread-safe.
class Authenticator {
 public:
  // Lets everybody in.
  Authenticator() = default;
  // Accepts the tokens of `path`: one a line; blank lines and lines that start with # are skipped.
  // NOT_FOUND or INVALID_ARGUMENT if there is no file or no token in it.
  static absl::StatusOr<Authenticator> FromFile(const std::string& path);

  bool required() const { return !tokens_.empty(); }
  // `authorization` is the metadata of that name, "Bearer TOKEN", or empty. UNAUTHENTICATED.
  // The time taken tells an attacker the lengths of the tokens at most, not their bytes.
  absl::Status Check(std::string_view authorization) const;

 private:
  std::vector<std::string> tokens_;
};

}  // namespace lacuna

#endif  // LACUNA_SERVER_AUTHENTICATOR_H_
