#ifndef LACUNA_TESTS_RUNTIME_TOKENIZER_SENTENCEPIECE_LIBRARY_H_
#define LACUNA_TESTS_RUNTIME_TOKENIZER_SENTENCEPIECE_LIBRARY_H_

#include <memory>
#include <string>
#include <vector>

namespace lacuna {

// The SentencePiece library, behind an interface without its headers: they declare another
// absl::string_view than Abseil's.
class SentencePieceLibrary {
 public:
  virtual ~SentencePieceLibrary() = default;
  virtual std::vector<int> Encode(const std::string& text) const = 0;
  virtual std::string Decode(const std::vector<int>& ids) const = 0;
};

// Null if the library refuses the model.
std::unique_ptr<SentencePieceLibrary> LoadWithLibrary(const std::string& serialized);

// Trains a model on the lines of `input_path` with the flags of spm_train; empty if that fails.
std::string TrainWithLibrary(const std::string& input_path, const std::string& flags);

}  // namespace lacuna

#endif  // LACUNA_TESTS_RUNTIME_TOKENIZER_SENTENCEPIECE_LIBRARY_H_
