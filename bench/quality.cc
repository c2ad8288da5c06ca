// lacuna-quality: perplexity of a model on a text, and how far its weights' type moves it.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <iostream>
#include <optional>
#include <string>
#include <vector>

#include "CLI/CLI.hpp"
#include "absl/strings/str_cat.h"
#include "runtime/base/file.h"
#include "runtime/model/load_model.h"

namespace lacuna {
namespace {

constexpr char kDescription[] =
    "Perplexity of a model on a text file, in windows of --context tokens, each on its own and "
    "begun\n"
    "with the tokenizer's first token. With --against, the same model with another type of "
    "weights\n"
    "reads along: prints the mean KL divergence from it, in nats, and how often both rank the "
    "same\n"
    "token first.";

struct Options {
  LoadOptions load;
  std::string text;
  std::string against;
  int context = 512;
  int skip = 0;
  int64_t max_tokens = 16384;
};

// Log-probabilities of every position of a window, [tokens, vocab].
class Reader {
 public:
  static absl::StatusOr<Reader> Create(const LoadOptions& options, int context) {
    absl::StatusOr<LoadedModel> loaded = LoadModel(options);
    if (!loaded.ok()) return loaded.status();
    if (context < 2 || context > loaded->model->config().max_context) {
      return absl::InvalidArgumentError(absl::StrCat("--context=", context, ": the model has ",
                                                     loaded->model->config().max_context));
    }
    const int32_t blocks = KvCache::BlocksFor(context);
    absl::StatusOr<std::unique_ptr<KvCache>> cache = loaded->model->CreateKvCache(blocks);
    if (!cache.ok()) return cache.status();
    Reader reader;
    reader.loaded_ = *std::move(loaded);
    reader.cache_ = *std::move(cache);
    for (int32_t b = 0; b < blocks; ++b) reader.blocks_.push_back(b);
    return reader;
  }

  absl::StatusOr<std::vector<float>> Read(const std::vector<int32_t>& tokens) {
    SequenceChunk chunk;
    chunk.tokens = tokens;
    chunk.block_table = blocks_;
    chunk.logits = static_cast<int32_t>(tokens.size());
    absl::StatusOr<ForwardOutput> out =
        loaded_.model->Forward({chunk}, FfnMode::kAuto, cache_.get());
    if (!out.ok()) return out.status();
    std::vector<float> rows(out->logits.begin(), out->logits.end());
    const int64_t vocab = loaded_.model->config().vocab_size;
    for (size_t row = 0; row < tokens.size(); ++row) {
      float* x = &rows[row * vocab];
      const double max = *std::max_element(x, x + vocab);
      double sum = 0;
      for (int64_t i = 0; i < vocab; ++i) sum += std::exp(x[i] - max);
      const double log_sum = max + std::log(sum);
      for (int64_t i = 0; i < vocab; ++i) x[i] = static_cast<float>(x[i] - log_sum);
    }
    return rows;
  }

  const LoadedModel& loaded() const { return loaded_; }

 private:
  LoadedModel loaded_;
  std::unique_ptr<KvCache> cache_;
  std::vector<int32_t> blocks_;
};

absl::Status RunQuality(const Options& options) {
  absl::StatusOr<std::string> text = ReadFile(options.text, int64_t{1} << 30);
  if (!text.ok()) return text.status();
  absl::StatusOr<Reader> model = Reader::Create(options.load, options.context);
  if (!model.ok()) return model.status();
  std::optional<Reader> other;
  if (!options.against.empty()) {
    LoadOptions load = options.load;
    load.weights = options.against;
    absl::StatusOr<Reader> reader = Reader::Create(load, options.context);
    if (!reader.ok()) return reader.status();
    other = *std::move(reader);
  }
  // Ids of the text, and the one a sequence begins with, if any.
  const Tokenizer& tokenizer = *model->loaded().tokenizer;
  size_t bytes = std::min(text->size(), static_cast<size_t>(options.max_tokens) * 8);
  while (bytes < text->size() && ((*text)[bytes] & 0xC0) == 0x80) --bytes;  // whole characters
  const std::string head = text->substr(0, bytes);
  absl::StatusOr<std::vector<int32_t>> ids = tokenizer.Encode(head, false);
  absl::StatusOr<std::vector<int32_t>> first = tokenizer.Encode("", true);
  if (!ids.ok()) return ids.status();
  if (!first.ok()) return first.status();
  if (static_cast<int64_t>(ids->size()) > options.max_tokens) ids->resize(options.max_tokens);

  const int64_t vocab = model->loaded().model->config().vocab_size;
  double loss = 0, kl = 0;
  int64_t predicted = 0, positions = 0, same = 0;
  const size_t step = options.context - first->size();
  for (size_t begin = 0; begin < ids->size(); begin += step) {
    std::vector<int32_t> window = *first;
    window.insert(window.end(), ids->begin() + begin,
                  ids->begin() + std::min(begin + step, ids->size()));
    absl::StatusOr<std::vector<float>> q = model->Read(window);
    if (!q.ok()) return q.status();
    for (size_t i = options.skip; i + 1 < window.size(); ++i, ++predicted) {
      loss -= (*q)[i * vocab + window[i + 1]];
    }
    if (other.has_value()) {
      absl::StatusOr<std::vector<float>> p = other->Read(window);
      if (!p.ok()) return p.status();
      for (size_t i = 0; i < window.size(); ++i, ++positions) {
        const float* a = &(*p)[i * vocab];
        const float* b = &(*q)[i * vocab];
        for (int64_t v = 0; v < vocab; ++v) kl += std::exp(a[v]) * (double{a[v]} - b[v]);
        same += std::max_element(a, a + vocab) - a == std::max_element(b, b + vocab) - b;
      }
    }
    std::fprintf(stderr, "\r%ld of %ld tokens ",
                 static_cast<long>(std::min(begin + step, ids->size())),
                 static_cast<long>(ids->size()));
  }
  std::fputs("\n", stderr);
  if (predicted == 0) return absl::InvalidArgumentError("the text has too few tokens");
  std::printf("%s %s: perplexity %.4f over %ld tokens\n", options.load.path.c_str(),
              model->loaded().model->facts().weights.c_str(), std::exp(loss / predicted),
              static_cast<long>(predicted));
  if (other.has_value()) {
    std::printf("against %s: mean KL %.6f, same first choice %.2f %%\n", options.against.c_str(),
                kl / positions, 100.0 * static_cast<double>(same) / positions);
  }
  return absl::OkStatus();
}

int Main(int argc, char** argv) {
  Options options;
  CLI::App app(kDescription);
  app.add_option("--model", options.load.path, "A Hugging Face directory or a GGUF file")
      ->required();
  app.add_option("--text", options.text, "A text file")->required();
  app.add_option("--weights", options.load.weights, "auto, f32, bf16, int8 or int4")
      ->capture_default_str();
  app.add_option("--activation", options.load.activation,
                 "In place of the model's own: relu, fatrelu:T, drelu or silu");
  app.add_option("--against", options.against, "Weights to compare with, such as f32");
  app.add_option("--context", options.context, "Tokens of a window")->capture_default_str();
  app.add_option(
         "--skip", options.skip,
         "First tokens of a window after which the next is not counted, for want of context;\n"
         "half the window is what llama-perplexity does")
      ->capture_default_str()
      ->check(CLI::NonNegativeNumber);
  app.add_option("--max_tokens", options.max_tokens, "Of the text")
      ->capture_default_str()
      ->check(CLI::Range(2, 1 << 30));
  app.add_option("--threads", options.load.threads, "0: all CPUs that may be used");
  CLI11_PARSE(app, argc, argv);
  const absl::Status status = RunQuality(options);
  if (status.ok()) return 0;
  std::cerr << "lacuna-quality: " << status.message() << "\n";
  return 1;
}

}  // namespace
}  // namespace lacuna

int main(int argc, char** argv) { return lacuna::Main(argc, argv); }
