#ifndef LACUNA_RUNTIME_MODEL_GGUF_CONFIG_H_
#define LACUNA_RUNTIME_MODEL_GGUF_CONFIG_H_

#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "runtime/model/gguf_file.h"
#include "runtime/model/gguf_header.h"
#include "runtime/model/model_config.h"

namespace lacuna {

// What the metadata of a GGUF file says of its model, within the bounds of ParseModelConfig: the
// architectures `llama` (also of Mistral and SmolLM), `minicpm` and, of PowerInfer, `bamboo`. The
// vocabulary is as long as the list of tokens; embeddings are tied if there is no tensor
// output.weight. The activation is `activation` (see ParseActivation) or, if that is empty, what
// ARCHITECTURE.hidden_activation says, else silu, as in other engines; in PowerInfer's files relu,
// and in those of `bamboo` always dReLU.
//
// A turn ends at the tokens of tokenizer.ggml.eos_token_id, eot_token_id and eom_token_id. Older
// converters wrote no eot_token_id: then also at control tokens that end turns by their name, such
// as <|im_end|>.
//
// INVALID_ARGUMENT names the key and value at fault; UNIMPLEMENTED what this build does not run.
absl::StatusOr<ModelConfig> ParseGgufConfig(const GgufHeader& header,
                                            std::string_view activation = "");

// Converters of Llama 3.1 and later write what rotary frequencies are divided by as a tensor,
// rope_freqs.weight. Reads it, if it is there, into `config`, which ParseGgufConfig returned for
// the same file. INVALID_ARGUMENT if it does not fit.
absl::Status ReadGgufRopeFactors(const GgufFile& file, ModelConfig* config);

}  // namespace lacuna

#endif  // LACUNA_RUNTIME_MODEL_GGUF_CONFIG_H_
