#include "client/cli/output.h"

#include <google/protobuf/util/json_util.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "client/describe_error.h"

namespace lacuna {
namespace {

// 0, or errno.
int WriteAll(int fd, absl::string_view text) {
  while (!text.empty()) {
    const ssize_t written = write(fd, text.data(), text.size());
    if (written >= 0) {
      text.remove_prefix(static_cast<size_t>(written));
    } else if (errno != EINTR) {
      return errno;
    }
  }
  return 0;
}

}  // namespace

bool WriteStdout(absl::string_view text) {
  const int error = WriteAll(STDOUT_FILENO, text);
  if (error != 0 && error != EPIPE) {
    WriteStderr(absl::StrCat("lacuna: cannot write to stdout: ", std::strerror(error), "\n"));
  }
  return error == 0;
}

bool WriteServerText(absl::string_view text) {
  static const bool terminal = isatty(STDOUT_FILENO) == 1;
  return WriteStdout(terminal ? PrintableText(text) : std::string(text));
}

void WriteStderr(absl::string_view text) { WriteAll(STDERR_FILENO, text); }

int Fail(const absl::Status& status) {
  std::string text = absl::StrCat("lacuna: ", DescribeError(status), "\n");
  if (absl::IsUnavailable(status) && absl::StrContains(status.message(), "onnect")) {
    absl::StrAppend(&text, "  is lacuna-server running there? --server=HOST:PORT says where\n");
  } else if (absl::IsUnauthenticated(status)) {
    absl::StrAppend(&text, "  this server wants a token: set LACUNA_TOKEN\n");
  }
  WriteStderr(text);
  return kExitFailure;
}

int FailUsage(const absl::Status& status) {
  WriteStderr(absl::StrCat("lacuna: ", status.message(), "\n"));
  return kExitUsage;
}

std::string ToJson(const google::protobuf::Message& message) {
  google::protobuf::util::JsonPrintOptions options;
  options.add_whitespace = true;
  options.preserve_proto_field_names = true;
  options.always_print_primitive_fields = true;
  std::string json;
  const auto status = google::protobuf::util::MessageToJsonString(message, &json, options);
  return status.ok() ? json : std::string("{}\n");
}

}  // namespace lacuna
