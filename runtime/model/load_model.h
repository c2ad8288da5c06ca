#ifndef LACUNA_RUNTIME_MODEL_LOAD_MODEL_H_
#define LACUNA_RUNTIME_MODEL_LOAD_MODEL_H_

#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "kernels/base/thread_pool.h"
#include "runtime/chat/chat_template.h"
#include "runtime/model/checkpoint_source.h"
#include "runtime/model/model.h"
#include "runtime/model/weights.h"
#include "runtime/tokenizer/tokenizer.h"

namespace lacuna {

struct LoadOptions {
  std::string path;  // a Hugging Face directory or a GGUF file
  // "auto" (as stored; f16 becomes f32, the blocks of a GGUF file int8), f32, bf16, int8, int4
  std::string weights = "auto";
  std::string activation;         // "": the model's own; see ParseActivation
  std::string device = "auto";    // see ParseDevice
  int threads = 0;                // 0: AvailableCpus()
  std::string predictor = "off";  // "off", "sketch"
  double predictor_recall = 0.99;
  // Called now and then with the share of the weights that is loaded, in [0, 1]. May be empty.
  std::function<void(double)> progress;
};

// A model's files, opened and checked; its weights are not read yet.
struct ModelFiles {
  ModelConfig config;
  std::unique_ptr<Tokenizer> tokenizer;
  // Or why the model takes no messages; it can be served without.
  absl::StatusOr<std::unique_ptr<ChatTemplate>> chat_template =
      absl::NotFoundError("there is no chat template");
  std::unique_ptr<CheckpointSource> source;
  DType auto_weights = DType::kF32;   // what --weights=auto stands for
  std::vector<std::string> warnings;  // for people: what they may not expect of this model
};

// Everything that one served model is made of. `pool` is used by `model`.
struct LoadedModel {
  std::unique_ptr<ThreadPool> pool;
  std::unique_ptr<Model> model;
  std::unique_ptr<Tokenizer> tokenizer;
  // Or why the model takes no messages; it can be served without.
  absl::StatusOr<std::unique_ptr<ChatTemplate>> chat_template =
      absl::NotFoundError("there is no chat template");
  // As in ModelFiles, and why the CPU is used where a GPU might have been expected.
  std::vector<std::string> warnings;
};

// The first half of LoadModel: checks what can be checked of all files before it takes memory for
// weights. INVALID_ARGUMENT, NOT_FOUND, PERMISSION_DENIED or DATA_LOSS (what is wrong in which
// file), UNIMPLEMENTED (architecture or format).
absl::StatusOr<ModelFiles> OpenModel(const LoadOptions& options);

// Errors as above and below.
absl::StatusOr<LoadedModel> LoadModel(const LoadOptions& options);

// The second half of LoadModel: reads weights from any source and makes the model, without a
// tokenizer. Of `options`, all but `path` and `activation` count, and the environment variable
// LACUNA_ISA. Errors as above, and UNIMPLEMENTED (weights or device that this build does not run),
// RESOURCE_EXHAUSTED (memory), UNAVAILABLE (a GPU), FAILED_PRECONDITION (LACUNA_ISA names what this
// CPU lacks).
absl::StatusOr<LoadedModel> BuildModel(const ModelConfig& config, const WeightSource& source,
                                       const LoadOptions& options);

}  // namespace lacuna

#endif  // LACUNA_RUNTIME_MODEL_LOAD_MODEL_H_
