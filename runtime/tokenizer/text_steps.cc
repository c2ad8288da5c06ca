#include "runtime/tokenizer/text_steps.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"

namespace lacuna {
namespace {

struct Stretch {
  ByteRange range;
  bool matched;
};

// All of `text`, cut at the ends of `matches`.
std::vector<Stretch> ToStretches(std::string_view text, const std::vector<ByteRange>& matches,
                                 bool invert) {
  std::vector<Stretch> stretches;
  size_t done = 0;
  for (const ByteRange& match : matches) {
    if (done < match.begin) stretches.push_back({{done, match.begin}, invert});
    stretches.push_back({match, !invert});
    done = match.end;
  }
  if (done < text.size()) stretches.push_back({{done, text.size()}, invert});
  return stretches;
}

// Joins stretches to what stays together; empty ranges may be among them.
std::vector<ByteRange> Join(std::vector<Stretch> stretches, SplitBehavior behavior) {
  const bool from_end = behavior == SplitBehavior::kMergedWithNext;
  if (from_end) std::reverse(stretches.begin(), stretches.end());
  std::vector<ByteRange> ranges;
  bool after_match = false;
  for (const auto& [range, matched] : stretches) {
    bool join = false;
    switch (behavior) {
      case SplitBehavior::kRemoved:
        if (matched) continue;
        break;
      case SplitBehavior::kIsolated:
        break;
      case SplitBehavior::kMergedWithPrevious:
      case SplitBehavior::kMergedWithNext:
        join = matched && !after_match;
        break;
      case SplitBehavior::kContiguous:
        join = matched == after_match;
        break;
    }
    after_match = matched;
    if (!join || ranges.empty()) {
      ranges.push_back(range);
    } else if (from_end) {
      ranges.back().begin = range.begin;
    } else {
      ranges.back().end = range.end;
    }
  }
  if (from_end) std::reverse(ranges.begin(), ranges.end());
  return ranges;
}

absl::Status SplitWord(const Regex& pattern, SplitBehavior behavior, bool invert, const Word& word,
                       std::vector<Word>* words) {
  const absl::StatusOr<std::vector<ByteRange>> matches = pattern.FindAll(word.text);
  if (!matches.ok()) return matches.status();
  for (const ByteRange& range : Join(ToStretches(word.text, *matches, invert), behavior)) {
    if (range.begin == range.end) continue;
    words->push_back({word.text.substr(range.begin, range.end - range.begin),
                      word.at_start && range.begin == 0});
  }
  return absl::OkStatus();
}

}  // namespace

NormalizeStep UnicodeFormStep(UnicodeForm form) {
  return [form](const std::string& text) { return ToUnicodeForm(text, form); };
}

NormalizeStep LowercaseStep() {
  return [](const std::string& text) { return ToLower(text); };
}

NormalizeStep StripStep(bool left, bool right) {
  return [left, right](std::string text) {
    if (right) text.resize(TrailingSpaceBegin(text));
    if (left) text.erase(0, LeadingSpace(text));
    return text;
  };
}

NormalizeStep PrependStep(std::string prefix) {
  return [prefix = std::move(prefix)](const std::string& text) {
    return text.empty() ? text : prefix + text;
  };
}

NormalizeStep ReplaceStep(Regex pattern, std::string replacement) {
  return [pattern = std::move(pattern), replacement = std::move(replacement)](
             const std::string& text) -> absl::StatusOr<std::string> {
    const absl::StatusOr<std::vector<ByteRange>> matches = pattern.FindAll(text);
    if (!matches.ok()) return matches.status();
    std::string out;
    for (const auto& [range, matched] : ToStretches(text, *matches, /*invert=*/false)) {
      if (matched) {
        out += replacement;
      } else {
        out.append(text, range.begin, range.end - range.begin);
      }
    }
    return out;
  };
}

absl::StatusOr<std::string> Normalize(const std::vector<NormalizeStep>& steps,
                                      std::string_view text) {
  absl::StatusOr<std::string> out = std::string(text);
  for (const NormalizeStep& step : steps) {
    out = step(*std::move(out));
    if (!out.ok()) return out;
    if (absl::Status status = CheckGrowth(text.size(), out->size()); !status.ok()) return status;
  }
  return out;
}

SplitStep SplitByPattern(Regex pattern, SplitBehavior behavior, bool invert) {
  return
      [pattern = std::move(pattern), behavior, invert](const Word& word, std::vector<Word>* words) {
        return SplitWord(pattern, behavior, invert, word, words);
      };
}

SplitStep AddPrefixSpace() {
  return [](const Word& word, std::vector<Word>* words) {
    words->push_back(word);
    if (!word.text.starts_with(' ')) words->back().text.insert(0, 1, ' ');
    return absl::OkStatus();
  };
}

SplitStep SplitAtSpaces(std::string symbol, PrependScheme scheme, bool split) {
  return [symbol = std::move(symbol), scheme, split](const Word& word, std::vector<Word>* words) {
    std::string text = absl::StrReplaceAll(word.text, {{" ", symbol}});
    const bool prepend =
        scheme == PrependScheme::kAlways || (scheme == PrependScheme::kFirst && word.at_start);
    if (prepend && !text.starts_with(symbol)) text.insert(0, symbol);
    if (!split) {
      words->push_back({std::move(text), word.at_start});
      return absl::OkStatus();
    }
    for (size_t begin = 0; begin < text.size();) {
      const size_t end = std::min(text.find(symbol, begin + 1), text.size());
      words->push_back({text.substr(begin, end - begin), word.at_start && begin == 0});
      begin = end;
    }
    return absl::OkStatus();
  };
}

absl::Status Split(const std::vector<SplitStep>& steps, std::vector<Word>* words) {
  size_t size = 0;
  for (const Word& word : *words) size += word.text.size();
  for (const SplitStep& step : steps) {
    std::vector<Word> next;
    size_t next_size = 0;
    for (const Word& word : *words) {
      const size_t done = next.size();
      absl::Status status = step(word, &next);
      for (size_t i = done; i < next.size(); ++i) next_size += next[i].text.size();
      status.Update(CheckGrowth(size, next_size));
      if (!status.ok()) return status;
    }
    *words = std::move(next);
  }
  return absl::OkStatus();
}

}  // namespace lacuna
