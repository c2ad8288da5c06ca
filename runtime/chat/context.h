#ifndef LACUNA_RUNTIME_CHAT_CONTEXT_H_
#define LACUNA_RUNTIME_CHAT_CONTEXT_H_

#include <cstdint>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

namespace lacuna::jinja {

// What one rendering may still do, and the first thing that went wrong. After an error all work
// ends soon; what it returns is not used.
class Context {
 public:
  explicit Context(int64_t work) : work_left_(work) {}

  const absl::Status& status() const { return status_; }
  bool ok() const { return status_.ok(); }
  // INVALID_ARGUMENT with the line at hand.
  void Fail(std::string_view what) {
    status_.Update(
        absl::InvalidArgumentError(absl::StrCat("line ", line_, ": ", std::string(what))));
  }
  // One for a step, and the bytes of texts and lists that are made. Fails if there is no work left.
  void Spend(size_t work) {
    work_left_ -= static_cast<int64_t>(work);
    if (work_left_ < 0) Fail("the template takes too many steps or makes too much text");
  }
  void set_line(int line) { line_ = line; }

 private:
  absl::Status status_;
  int64_t work_left_;
  int line_ = 0;
};

}  // namespace lacuna::jinja

#endif  // LACUNA_RUNTIME_CHAT_CONTEXT_H_
