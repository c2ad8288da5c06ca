#ifndef LACUNA_CLIENT_DESCRIBE_ERROR_H_
#define LACUNA_CLIENT_DESCRIBE_ERROR_H_

#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace lacuna {

// UTF-8 `text` with control characters other than newline and tab replaced by '?': what a server
// sends must not drive the terminal.
std::string PrintableText(absl::string_view text);

// The error as text for people, without a final newline: code name and message, then one indented
// line for each field violation that the message does not spell out and for the retry delay:
//
//   INVALID_ARGUMENT: sampling.temperature: 3 is outside [0, 2]
//   RESOURCE_EXHAUSTED: the queue is full: 256 requests wait
//     retry after 1.5s
std::string DescribeError(const absl::Status& status);

}  // namespace lacuna

#endif  // LACUNA_CLIENT_DESCRIBE_ERROR_H_
