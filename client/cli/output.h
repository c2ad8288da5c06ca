#ifndef LACUNA_CLIENT_CLI_OUTPUT_H_
#define LACUNA_CLIENT_CLI_OUTPUT_H_

#include <google/protobuf/message.h>

#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace lacuna {

inline constexpr int kExitOk = 0;
inline constexpr int kExitFailure = 1;
inline constexpr int kExitUsage = 2;

// Writes all of `text` to stdout, unbuffered. False if that failed; says why on stderr, except
// when the reader of a pipe is gone, which is no error of anybody's.
bool WriteStdout(absl::string_view text);
// Likewise for text that a server sent: a terminal gets no control characters of it.
bool WriteServerText(absl::string_view text);

void WriteStderr(absl::string_view text);

// Prints the error, with advice where there is any, on stderr; returns kExitFailure.
int Fail(const absl::Status& status);
// Likewise for bad option values; returns kExitUsage.
int FailUsage(const absl::Status& status);

// The canonical protobuf JSON form, indented, with field names as in the .proto files and all
// scalars present; 64-bit integers are strings. Ends with a newline.
std::string ToJson(const google::protobuf::Message& message);

}  // namespace lacuna

#endif  // LACUNA_CLIENT_CLI_OUTPUT_H_
