#include "runtime/model/load_model.h"

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <system_error>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "kernels/cpu/cpu_kernels.h"
#include "kernels/cuda/cuda_device.h"
#include "runtime/base/file.h"
#include "runtime/model/checkpoint.h"
#include "runtime/model/checkpoint_source.h"
#include "runtime/model/device_choice.h"
#include "runtime/model/gguf_checkpoint.h"
#include "runtime/model/gguf_config.h"
#include "runtime/model/gguf_file.h"
#include "runtime/model/gguf_tokenizer.h"
#include "runtime/model/make_cuda_model.h"
#include "runtime/model/transformer_model.h"
#include "runtime/tokenizer/load_tokenizer.h"

namespace lacuna {
namespace {

absl::StatusOr<DeviceChoice> FindDevice(const std::string& device) {
  absl::StatusOr<DeviceRequest> request = ParseDevice(device);
  if (!request.ok()) return request.status();
  if (request->kind == DeviceRequest::Kind::kCpu) return DeviceChoice{};
  absl::StatusOr<DeviceChoice> choice = ChooseDevice(*request, CudaDeviceCount());
  if (!choice.ok() || choice->gpu < 0) return choice;
  const absl::Status usable = CheckCudaDevice(choice->gpu);
  if (usable.ok()) return choice;
  return absl::IsUnavailable(usable) ? ChooseDevice(*request, usable) : usable;
}

absl::Status CheckPredictor(const LoadOptions& options, const ModelConfig& config, int gpu) {
  if (options.predictor == "off") return absl::OkStatus();
  if (options.predictor != "sketch") {
    return absl::InvalidArgumentError(
        absl::StrCat("--predictor=", options.predictor, ": want off or sketch"));
  }
  if (!config.activation.has_zeros()) {
    return absl::InvalidArgumentError(
        "--predictor=sketch: the model's activation is never zero, so there is nothing to predict");
  }
  if (gpu >= 0) {
    return absl::UnimplementedError(
        "--predictor=sketch predicts on the CPU only so far: it needs --device=cpu");
  }
  if (options.predictor_recall > 0 && options.predictor_recall < 1) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat("--predictor_recall=", options.predictor_recall,
                                                 ": want a share between 0 and 1"));
}

// Embeddings that no token has, for rounder sizes: a multiple of 128 rows for each of 8 devices
// needs up to 1,023. Up to this or a sixteenth of the vocabulary is taken for padding.
constexpr int32_t kMaxPadding = 1024;

constexpr char kWrongTokenizer[] =
    ": they do not belong together; fetch the tokenizer's files from where the weights came from";

// Real ones are a few kilobytes.
constexpr int64_t kMaxConfigBytes = 1 << 20;

absl::StatusOr<ModelConfig> ReadConfig(const std::string& directory,
                                       const std::string& activation) {
  absl::StatusOr<std::string> config = ReadFile(directory + "/config.json", kMaxConfigBytes);
  if (!config.ok()) return config.status();
  std::string generation;
  const std::string generation_path = directory + "/generation_config.json";
  std::error_code error;  // of what is there, but cannot be looked at: ReadFile says why
  if (std::filesystem::exists(generation_path, error) || error) {
    absl::StatusOr<std::string> contents = ReadFile(generation_path, kMaxConfigBytes);
    if (!contents.ok()) return contents.status();
    generation = *std::move(contents);
  }
  return ParseModelConfig(*config, generation, activation);
}

absl::Status CheckVocabularies(const std::string& directory, const ModelConfig& config,
                               const Tokenizer& tokenizer) {
  const int32_t ids = tokenizer.vocab_size();
  if (ids > config.vocab_size) {
    return absl::InvalidArgumentError(absl::StrCat(directory, ": the tokenizer has ", ids,
                                                   " ids, the model only ", config.vocab_size,
                                                   " embeddings", kWrongTokenizer));
  }
  if (config.vocab_size - ids > std::max(kMaxPadding, config.vocab_size / 16)) {
    return absl::InvalidArgumentError(
        absl::StrCat(directory, ": the tokenizer has ", ids, " ids, the model ", config.vocab_size,
                     " embeddings, which is more than padding", kWrongTokenizer));
  }
  // One of them may be amiss in a right pair: checkpoints that were tuned for chats name other
  // ends.
  std::vector<int32_t> special = config.eos_ids;
  if (config.bos_id >= 0) special.push_back(config.bos_id);
  if (special.empty() || std::any_of(special.begin(), special.end(), [&](int32_t id) {
        return id < ids && tokenizer.IsControl(id);
      })) {
    return absl::OkStatus();
  }
  const bool names_own = tokenizer.bos_id() >= 0 || tokenizer.eos_id() >= 0;
  return absl::InvalidArgumentError(absl::StrCat(
      directory, ": the model's texts begin with token ", config.bos_id, " and end with ",
      absl::StrJoin(config.eos_ids, ", "), ", no control tokens of the tokenizer, whose ",
      names_own ? absl::StrCat("own are ", tokenizer.bos_id(), " and ", tokenizer.eos_id())
                : "files name none (tokenizer_config.json or special_tokens_map.json would)",
      kWrongTokenizer));
}

absl::StatusOr<ModelFiles> OpenDirectory(const std::string& directory,
                                         const std::string& activation) {
  absl::StatusOr<ModelConfig> config = ReadConfig(directory, activation);
  if (!config.ok()) return config.status();
  absl::StatusOr<std::unique_ptr<Tokenizer>> tokenizer = LoadTokenizer(directory);
  if (!tokenizer.ok()) return tokenizer.status();
  absl::Status status = CheckVocabularies(directory, *config, **tokenizer);
  if (!status.ok()) return status;
  absl::StatusOr<std::unique_ptr<Checkpoint>> checkpoint = Checkpoint::Open(directory);
  if (!checkpoint.ok()) return checkpoint.status();
  absl::StatusOr<std::unique_ptr<CheckpointSource>> source =
      CheckpointSource::Create(*config, *std::move(checkpoint));
  if (!source.ok()) return source.status();
  const DType stored = (*source)->stored_dtype();
  return ModelFiles{.config = *std::move(config),
                    .tokenizer = *std::move(tokenizer),
                    .chat_template = LoadChatTemplate(directory),
                    .source = *std::move(source),
                    .auto_weights = stored};
}

absl::StatusOr<ModelFiles> OpenGguf(const std::string& path, const std::string& activation) {
  absl::StatusOr<std::unique_ptr<GgufFile>> file = GgufFile::Open(path);
  if (!file.ok()) return file.status();
  const GgufHeader& header = (*file)->header();
  const auto named = [&](const absl::Status& status) {
    return absl::Status(status.code(), absl::StrCat(path, ": ", status.message()));
  };
  absl::StatusOr<ModelConfig> config = ParseGgufConfig(header, activation);
  if (!config.ok()) return named(config.status());
  absl::Status status = ReadGgufRopeFactors(**file, &*config);
  if (!status.ok()) return named(status);
  absl::StatusOr<std::unique_ptr<Tokenizer>> tokenizer = MakeGgufTokenizer(header);
  if (!tokenizer.ok()) return named(tokenizer.status());
  absl::StatusOr<std::unique_ptr<ChatTemplate>> chat_template = MakeGgufChatTemplate(header);
  const bool has_blocks =
      std::any_of(header.tensors.begin(), header.tensors.end(),
                  [](const auto& entry) { return entry.second.type->is_quantized(); });
  absl::StatusOr<std::unique_ptr<Checkpoint>> checkpoint =
      GgufCheckpoint::Create(*config, *std::move(file));
  if (!checkpoint.ok()) return named(checkpoint.status());
  absl::StatusOr<std::unique_ptr<CheckpointSource>> source =
      CheckpointSource::Create(*config, *std::move(checkpoint));
  if (!source.ok()) return named(source.status());
  const DType auto_weights = has_blocks ? DType::kInt8 : (*source)->stored_dtype();
  return ModelFiles{.config = *std::move(config),
                    .tokenizer = *std::move(tokenizer),
                    .chat_template = std::move(chat_template),
                    .source = *std::move(source),
                    .auto_weights = auto_weights};
}

std::vector<std::string> Warnings(const ModelFiles& files) {
  const ModelConfig& config = files.config;
  std::vector<std::string> warnings = config.notes;
  if (!config.activation_note.empty()) warnings.push_back(config.activation_note);
  if (!config.activation.has_zeros()) {
    warnings.push_back("its activation gives no zeros: served dense, without the sparse speed-up");
  }
  if (files.source->has_unused_lm_head()) {
    warnings.push_back(
        "the files hold an lm_head, which their configuration ties to the embeddings: not used");
  }
  if (!files.chat_template.ok() && !absl::IsNotFound(files.chat_template.status())) {
    warnings.push_back(absl::StrCat("it takes no messages, its chat template cannot be used: ",
                                    files.chat_template.status().message()));
  }
  return warnings;
}

}  // namespace

absl::StatusOr<LoadedModel> BuildModel(const ModelConfig& config, const WeightSource& source,
                                       const LoadOptions& options) {
  absl::StatusOr<DeviceChoice> device = FindDevice(options.device);
  if (!device.ok()) return device.status();
  absl::Status status = CheckPredictor(options, config, device->gpu);
  if (!status.ok()) return status;
  absl::StatusOr<DType> dtype =
      options.weights == "auto" ? source.stored_dtype() : ParseWeightType(options.weights);
  if (!dtype.ok()) return dtype.status();
  if (device->gpu >= 0) status = CheckCudaMemory(config, *dtype, device->gpu);
  if (!status.ok()) return status;
  const char* isa = std::getenv("LACUNA_ISA");
  absl::StatusOr<const KernelTable*> kernels = SelectCpuKernels(isa == nullptr ? "" : isa);
  if (!kernels.ok()) return kernels.status();
  LoadedModel loaded;
  loaded.pool =
      std::make_unique<ThreadPool>(options.threads > 0 ? options.threads : AvailableCpus());
  const bool sketch = options.predictor == "sketch";
  absl::StatusOr<ModelWeights> weights = ModelWeights::Load(
      config, source, *dtype, sketch, **kernels, loaded.pool->threads(), options.progress);
  if (!weights.ok()) return weights.status();
  if (!device->fallback.empty()) loaded.warnings.push_back(device->fallback);
  if (device->gpu >= 0) {
    absl::StatusOr<std::unique_ptr<Model>> model =
        MakeCudaModel(config, *std::move(weights), device->gpu);
    if (!model.ok()) return model.status();
    loaded.model = *std::move(model);
    return loaded;
  }
  auto model =
      std::make_unique<TransformerModel>(config, *std::move(weights), *kernels, loaded.pool.get());
  if (sketch) model->UsePredictor(options.predictor_recall);
  model->Calibrate();
  loaded.model = std::move(model);
  return loaded;
}

absl::StatusOr<ModelFiles> OpenModel(const LoadOptions& options) {
  std::error_code ignored;  // opening it says why
  absl::StatusOr<ModelFiles> files = std::filesystem::is_regular_file(options.path, ignored)
                                         ? OpenGguf(options.path, options.activation)
                                         : OpenDirectory(options.path, options.activation);
  if (files.ok()) files->warnings = Warnings(*files);
  return files;
}

absl::StatusOr<LoadedModel> LoadModel(const LoadOptions& options) {
  absl::StatusOr<ModelFiles> files = OpenModel(options);
  if (!files.ok()) return files.status();
  LoadOptions build = options;
  if (build.weights == "auto") build.weights = DTypeName(files->auto_weights);
  absl::StatusOr<LoadedModel> loaded = BuildModel(files->config, *files->source, build);
  if (!loaded.ok()) return loaded;
  loaded->tokenizer = std::move(files->tokenizer);
  loaded->chat_template = std::move(files->chat_template);
  loaded->warnings.insert(loaded->warnings.begin(), files->warnings.begin(), files->warnings.end());
  return loaded;
}

}  // namespace lacuna
