#include "tests/runtime/tokenizer/sentencepiece_library.h"

#include <sentencepiece_processor.h>
#include <sentencepiece_trainer.h>

namespace lacuna {
namespace {

class Library : public SentencePieceLibrary {
 public:
  bool Load(const std::string& serialized) {
    return processor_.LoadFromSerializedProto(serialized).ok();
  }
  std::vector<int> Encode(const std::string& text) const override {
    return processor_.EncodeAsIds(text);
  }
  std::string Decode(const std::vector<int>& ids) const override {
    return processor_.DecodeIds(ids);
  }

 private:
  sentencepiece::SentencePieceProcessor processor_;
};

}  // namespace

std::unique_ptr<SentencePieceLibrary> LoadWithLibrary(const std::string& serialized) {
  auto library = std::make_unique<Library>();
  if (!library->Load(serialized)) return nullptr;
  return library;
}

std::string TrainWithLibrary(const std::string& input_path, const std::string& flags) {
  std::string model;
  const auto status = sentencepiece::SentencePieceTrainer::Train(
      "--minloglevel=2 --num_threads=1 --hard_vocab_limit=false --input=" + input_path + " " +
          flags,
      nullptr, &model);
  return status.ok() ? model : std::string();
}

}  // namespace lacuna
