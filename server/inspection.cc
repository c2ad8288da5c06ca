#include "server/inspection.h"

#include <nlohmann/json.hpp>
#include <string>

#include "absl/strings/str_format.h"
#include "runtime/base/memory.h"
#include "runtime/base/utf8.h"
#include "runtime/model/activation_name.h"
#include "runtime/model/inspect_model.h"

namespace lacuna {
namespace {

using nlohmann::ordered_json;

// Names are those of lacuna.v1.Model where that has the fact too.
ordered_json ToJson(const ModelInspection& inspection) {
  const ModelConfig& config = inspection.config;
  ordered_json memory = ordered_json::object();
  for (const MemoryNeed& need : inspection.memory) {
    memory[DTypeName(need.weights)] = {{"weight_bytes", need.weight_bytes},
                                       {"loading_bytes", need.loading_bytes},
                                       {"kv_bytes_per_1000_tokens", need.kv_bytes_per_1000_tokens}};
  }
  return {{"architecture", config.architecture},
          {"activation", ActivationKindName(config.activation.kind)},
          {"activation_threshold", config.activation.threshold},
          {"gated", config.gated},
          {"sparse", config.activation.has_zeros()},
          {"parameters", inspection.parameters},
          {"num_layers", config.num_layers},
          {"hidden_size", config.hidden_size},
          {"ffn_size", config.ffn_size},
          {"num_heads", config.num_heads},
          {"num_kv_heads", config.num_kv_heads},
          {"head_dim", config.head_dim},
          {"vocab_size", config.vocab_size},
          {"context_length", config.max_context},
          {"sliding_window", config.sliding_window},
          {"stored_bytes", inspection.stored_bytes},
          {"auto_weights", DTypeName(inspection.auto_weights)},
          {"memory", std::move(memory)},
          {"available_memory_bytes", AvailableMemoryBytes()},
          {"tokenizer", inspection.tokenizer_kind},
          {"tokenizer_ids", inspection.tokenizer_ids},
          {"has_chat_template", inspection.has_chat_template},
          {"warnings", inspection.warnings}};
}

ordered_json ErrorToJson(const absl::Status& status) {
  return {{"error",
           {{"code", absl::StatusCodeToString(status.code())}, {"message", status.message()}}}};
}

std::string Size(int64_t bytes) {
  const double mib = static_cast<double>(bytes) / (1 << 20);
  return mib < 10240 ? absl::StrFormat("%.1f MiB", mib) : absl::StrFormat("%.1f GiB", mib / 1024);
}

// `text` from a file, without what could steer a terminal.
std::string Printable(const std::string& text) {
  const std::string quoted = Quoted(text);
  return quoted.substr(1, quoted.size() - 2);
}

std::string FfnText(const ModelConfig& config) {
  std::string text = ActivationName(config.activation);
  absl::StrAppend(&text, config.gated ? ", gated" : ", not gated");
  return text + (config.activation.has_zeros() ? ": sparse, zeros are skipped"
                                               : ": no zeros, served dense");
}

std::string ToText(const ModelInspection& inspection) {
  const ModelConfig& c = inspection.config;
  std::string text;
  const auto line = [&text](const char* name, const std::string& value) {
    absl::StrAppendFormat(&text, "  %-13s %s\n", name, value);
  };
  line("architecture", Printable(c.architecture));
  line("FFN", FfnText(c));
  line("size", absl::StrFormat("%.1f M parameters: %d layers, hidden %d, FFN %d, vocabulary %d",
                               static_cast<double>(inspection.parameters) / 1e6, c.num_layers,
                               c.hidden_size, c.ffn_size, c.vocab_size));
  line("attention",
       absl::StrFormat("%d heads of %d, %d of keys and values; context %d%s", c.num_heads,
                       c.head_dim, c.num_kv_heads, c.max_context,
                       c.sliding_window > 0 ? absl::StrFormat(", window %d", c.sliding_window)
                                            : std::string()));
  std::string stored;
  for (const auto& [type, bytes] : inspection.stored_bytes) {
    absl::StrAppend(&stored, stored.empty() ? "" : ", ", type, " ", Size(bytes));
  }
  line("stored", stored);
  line("tokenizer",
       absl::StrFormat("%s, %d ids; %s", inspection.tokenizer_kind, inspection.tokenizer_ids,
                       inspection.has_chat_template ? "chat template" : "no chat template"));
  absl::StrAppendFormat(&text, "  %-13s %12s %12s %20s   (%s available)\n", "--weights", "memory",
                        "to load", "per 1,000 KV tokens", Size(AvailableMemoryBytes()));
  for (const MemoryNeed& need : inspection.memory) {
    absl::StrAppendFormat(&text, "  %-13s %12s %12s %20s%s\n", DTypeName(need.weights),
                          Size(need.weight_bytes), Size(need.loading_bytes),
                          Size(need.kv_bytes_per_1000_tokens),
                          need.weights == inspection.auto_weights ? "   auto" : "");
  }
  for (const std::string& warning : inspection.warnings) line("warning", warning);
  return text;
}

}  // namespace

bool PrintInspections(const ServerOptions& options, std::ostream& out, std::ostream& err) {
  bool all_load = true;
  for (const ModelSpec& model : options.models) {
    LoadOptions load;
    load.path = model.path;
    load.activation = model.activation;
    load.threads = options.threads;
    load.predictor = options.predictor;
    const absl::StatusOr<ModelInspection> inspection = InspectModel(load);
    all_load = all_load && inspection.ok();
    if (options.inspect == InspectMode::kJson) {
      ordered_json object = {{"path", model.path}};
      object.update(inspection.ok() ? ToJson(*inspection) : ErrorToJson(inspection.status()));
      out << object.dump(-1, ' ', true, ordered_json::error_handler_t::replace) << "\n";
    } else if (inspection.ok()) {
      out << model.path << "\n" << ToText(*inspection);
    } else {
      err << "cannot be served: " << inspection.status().message() << "\n";
    }
  }
  out.flush();
  return all_load;
}

}  // namespace lacuna
