#ifndef LACUNA_CLIENT_CLI_CHOICE_PRINTER_H_
#define LACUNA_CLIENT_CLI_CHOICE_PRINTER_H_

#include <functional>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "lacuna/v1/generation.pb.h"

namespace lacuna {

// Prints the text of a stream with several choices, one choice after the other: the current one as
// it comes, later ones once those before them have finished. Each choice ends with a newline; with
// more than one, each has a title line. Not thread-safe.
class ChoicePrinter {
 public:
  // `write` returns false when nothing more can be written.
  ChoicePrinter(uint32_t choices, std::function<bool(absl::string_view)> write);

  // False once a write has failed. Events for unknown choices are ignored.
  bool Add(const v1::GenerateStreamResponse& event);
  // Prints what was held back, for a stream that ended early. False if a write has failed.
  bool Close();

 private:
  struct Choice {
    std::string pending;
    bool started = false;  // title printed
    bool finished = false;
    char last = '\n';  // last byte printed
  };
  void Print(Choice* choice);

  std::vector<Choice> choices_;
  const std::function<bool(absl::string_view)> write_;
  size_t current_ = 0;
  bool ok_ = true;
};

}  // namespace lacuna

#endif  // LACUNA_CLIENT_CLI_CHOICE_PRINTER_H_
