#include "runtime/tokenizer/regex.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <cctype>
#include <ctime>

#include "absl/strings/str_cat.h"
#include "runtime/base/utf8.h"

namespace lacuna {
namespace {

// The longest under test has 274.
constexpr size_t kMaxPatternBytes = 8192;
// Groups inside each other.
constexpr uint32_t kMaxNesting = 50;
// KiB of heap for one match.
constexpr uint32_t kMaxHeapKib = 64 * 1024;

constexpr char kWord[] = "\\p{L}\\p{M}\\p{N}\\p{Pc}";

absl::Status Unsupported(std::string_view what) {
  return absl::UnimplementedError(
      absl::StrCat("regular expressions with ", Quoted(what), " are not supported"));
}

// Rewrites a pattern of Oniguruma's Ruby syntax for PCRE2.
class PatternTranslator {
 public:
  explicit PatternTranslator(std::string_view pattern) : rest_(pattern) {}

  absl::StatusOr<std::string> Run() {
    while (!rest_.empty()) {
      if (absl::Status status = Next(); !status.ok()) return status;
    }
    return std::move(out_);
  }

 private:
  absl::Status Next() {
    if (rest_[0] == '\\') return Escape();
    if (in_class_) {
      if (rest_.starts_with("&&") || rest_[0] == '[') return Unsupported(rest_.substr(0, 2));
      if (rest_[0] == ']') in_class_ = false;
    } else if (rest_[0] == '[') {
      in_class_ = true;
      Copy(rest_.starts_with("[^") ? 2 : 1);
      if (rest_.starts_with(']')) return Unsupported("[]");
      return absl::OkStatus();
    } else if (rest_[0] == '(') {
      return Group();
    } else if (rest_.starts_with("}+")) {  // greedy there, possessive here
      return Unsupported("}+");
    }
    Copy(1);
    return absl::OkStatus();
  }

  absl::Status Group() {
    for (const std::string_view known :
         {"(?:", "(?=", "(?!", "(?>", "(?<=", "(?<!", "(?i:", "(?i)", "(?-i:"}) {
      if (!rest_.starts_with(known)) continue;
      Copy(known.size());
      return absl::OkStatus();
    }
    if (rest_.starts_with("(?") || rest_.starts_with("(*")) return Unsupported(rest_.substr(0, 4));
    Copy(1);
    return absl::OkStatus();
  }

  absl::Status Escape() {
    if (rest_.size() < 2) return absl::InvalidArgumentError("a pattern ends with a backslash");
    const char c = rest_[1];
    switch (c) {
      case 's':
        return Replace("\\p{White_Space}");
      case 'S':
        return Replace("\\P{White_Space}");
      case 'w':
        return Replace(absl::StrCat(in_class_ ? "" : "[", kWord, in_class_ ? "" : "]"));
      case 'W':
        return in_class_ ? Unsupported("\\W in a class") : Replace(absl::StrCat("[^", kWord, "]"));
      case 'p':
      case 'P':
        return Property();
      case 'u':
        return CodePoint();
      default:
        if (std::isalnum(static_cast<unsigned char>(c)) != 0 &&
            std::string_view("dDrntfvx").find(c) == std::string_view::npos) {
          return Unsupported(rest_.substr(0, 2));
        }
        Copy(2);
        return absl::OkStatus();
    }
  }

  // \p{Name}: general categories are the same; other names are scripts.
  absl::Status Property() {
    const size_t end = rest_.find('}');
    if (rest_.size() < 4 || rest_[2] != '{' || end == std::string_view::npos) {
      return Unsupported(rest_.substr(0, 3));
    }
    std::string_view name = rest_.substr(3, end - 3);
    std::string head(rest_.substr(0, 3));
    if (name.starts_with('^')) {
      head += '^';
      name.remove_prefix(1);
    }
    absl::StrAppend(&out_, head, name.size() > 2 ? "sc:" : "", std::string(name), "}");
    rest_.remove_prefix(end + 1);
    return absl::OkStatus();
  }

  absl::Status CodePoint() {  // \uHHHH
    const std::string digits(rest_.substr(2, 4));
    for (const char c : digits) {
      if (std::isxdigit(static_cast<unsigned char>(c)) == 0) return Unsupported(rest_.substr(0, 6));
    }
    if (digits.size() < 4) return Unsupported(rest_);
    absl::StrAppend(&out_, "\\x{", digits, "}");
    rest_.remove_prefix(6);
    return absl::OkStatus();
  }

  absl::Status Replace(std::string_view replacement) {
    out_ += replacement;
    rest_.remove_prefix(2);
    return absl::OkStatus();
  }

  void Copy(size_t bytes) {
    out_ += rest_.substr(0, bytes);
    rest_.remove_prefix(bytes);
  }

  std::string_view rest_;
  std::string out_;
  bool in_class_ = false;
};

struct MatchDataDeleter {
  void operator()(pcre2_match_data* data) const { pcre2_match_data_free(data); }
};

std::string ErrorText(int error) {
  char text[128] = "";
  pcre2_get_error_message(error, reinterpret_cast<PCRE2_UCHAR*>(text), sizeof(text));
  return text;
}

// Of the processor, by this thread.
double ThreadSeconds() {
  timespec time;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
  return static_cast<double>(time.tv_sec) + 1e-9 * static_cast<double>(time.tv_nsec);
}

}  // namespace

struct Regex::Code {
  ~Code() {
    pcre2_code_free(code);
    pcre2_match_context_free(limits);
  }
  pcre2_code* code = nullptr;
  pcre2_match_context* limits = nullptr;
};

absl::StatusOr<Regex> Regex::Compile(std::string_view pattern) {
  if (pattern.size() > kMaxPatternBytes) {
    return absl::InvalidArgumentError(
        absl::StrCat("a pattern has ", pattern.size(), " bytes, the limit is ", kMaxPatternBytes));
  }
  absl::StatusOr<std::string> translated = PatternTranslator(pattern).Run();
  if (!translated.ok()) return translated.status();
  pcre2_compile_context* context = pcre2_compile_context_create(nullptr);
  pcre2_set_parens_nest_limit(context, kMaxNesting);
  int error = 0;
  PCRE2_SIZE offset = 0;
  auto code = std::make_shared<Code>();
  // MULTILINE: in Ruby's syntax ^ and $ stand at every line. No UTF check: FindAll gets checked
  // text, and a pattern comes out of JSON, which is UTF-8.
  code->code = pcre2_compile(reinterpret_cast<PCRE2_SPTR>(translated->data()), translated->size(),
                             PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE | PCRE2_NEVER_BACKSLASH_C,
                             &error, &offset, context);
  pcre2_compile_context_free(context);
  if (code->code == nullptr) {
    return absl::InvalidArgumentError(
        absl::StrCat("the pattern ", Quoted(pattern), " is broken: ", ErrorText(error)));
  }
  pcre2_jit_compile(code->code, PCRE2_JIT_COMPLETE);  // where there is no JIT, it is interpreted
  code->limits = pcre2_match_context_create(nullptr);
  pcre2_set_match_limit(code->limits, kMaxSteps);
  pcre2_set_heap_limit(code->limits, kMaxHeapKib);
  return Regex(std::move(code));
}

absl::StatusOr<Regex> Regex::Literal(std::string_view text) {
  std::string escaped;
  for (const char c : text) {
    if (std::ispunct(static_cast<unsigned char>(c)) != 0) escaped += '\\';
    escaped += c;
  }
  return Compile(escaped);
}

absl::StatusOr<std::vector<ByteRange>> Regex::FindAll(std::string_view text,
                                                      double max_seconds) const {
  const std::unique_ptr<pcre2_match_data, MatchDataDeleter> data(
      pcre2_match_data_create_from_pattern(code_->code, nullptr));
  const PCRE2_SIZE* const found = pcre2_get_ovector_pointer(data.get());
  std::vector<ByteRange> matches;
  // Looking at the clock takes as long as a match or two, so short texts never do.
  constexpr size_t kMatchesBetweenLooks = 64;
  double start = 0;
  size_t at = 0;
  while (at <= text.size()) {
    if (matches.size() == kMatchesBetweenLooks) {
      start = ThreadSeconds();
    } else if (matches.size() > kMatchesBetweenLooks &&
               matches.size() % kMatchesBetweenLooks == 0 &&
               ThreadSeconds() - start > max_seconds) {
      return absl::InvalidArgumentError(absl::StrCat("the tokenizer's pattern gave up at byte ", at,
                                                     " of ", text.size(), " after ", max_seconds,
                                                     " s"));
    }
    const auto match = [&](uint32_t options) {
      return pcre2_match(code_->code, reinterpret_cast<PCRE2_SPTR>(text.data()), text.size(), at,
                         options | PCRE2_NO_UTF_CHECK, data.get(), code_->limits);
    };
    int result = match(0);
    // The interpreter uses the heap where compiled code runs out of its stack.
    if (result == PCRE2_ERROR_JIT_STACKLIMIT) result = match(PCRE2_NO_JIT);
    if (result == PCRE2_ERROR_NOMATCH) break;
    if (result < 0) {
      return absl::InvalidArgumentError(absl::StrCat("the tokenizer's pattern gave up at byte ", at,
                                                     " of the text: ", ErrorText(result)));
    }
    matches.push_back({found[0], found[1]});
    at = found[1];
    if (found[0] < found[1]) continue;
    if (at == text.size()) break;
    at += Utf8CharLength(text.substr(at));
  }
  return matches;
}

}  // namespace lacuna
