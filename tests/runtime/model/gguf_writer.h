#ifndef LACUNA_TESTS_RUNTIME_MODEL_GGUF_WRITER_H_
#define LACUNA_TESTS_RUNTIME_MODEL_GGUF_WRITER_H_

#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

#include "runtime/model/gguf_header.h"

namespace lacuna {

// Writes GGUF files, right or wrong: nothing is checked.
class GgufWriter {
 public:
  uint32_t version = 3;
  std::string magic = "GGUF";
  int64_t alignment = 32;
  int64_t extra_keys = 0;  // that the header counts and that are not there
  int64_t extra_tensors = 0;

  template <typename T>
  static std::string Raw(const T& value) {
    static_assert(std::is_trivially_copyable_v<T>);
    std::string bytes(sizeof(T), '\0');
    std::memcpy(bytes.data(), &value, sizeof(T));
    return bytes;
  }
  static std::string RawString(std::string_view text) {
    return Raw(uint64_t{text.size()}).append(text);
  }

  // A value of any type, from its bytes. A key that is there already gets the new value.
  void SetRaw(const std::string& key, GgufValueType type, const std::string& bytes) {
    Remove(key);
    keys_.push_back({key, RawString(key) + Raw(type) + bytes});
  }
  void Remove(const std::string& key) {
    std::erase_if(keys_, [&](const Key& entry) { return entry.name == key; });
  }
  void Repeat(const std::string& key) {
    for (size_t i = 0, n = keys_.size(); i < n; ++i) {
      if (keys_[i].name == key) keys_.push_back(keys_[i]);
    }
  }

  void Set(const std::string& key, uint32_t value) {
    SetRaw(key, GgufValueType::kUint32, Raw(value));
  }
  void Set(const std::string& key, float value) {
    SetRaw(key, GgufValueType::kFloat32, Raw(value));
  }
  void Set(const std::string& key, bool value) {
    SetRaw(key, GgufValueType::kBool, Raw(uint8_t{value}));
  }
  void Set(const std::string& key, const char* value) {
    SetRaw(key, GgufValueType::kString, RawString(value));
  }
  void Set(const std::string& key, const std::string& value) { Set(key, value.c_str()); }
  void Set(const std::string& key, const std::vector<std::string>& values) {
    std::string bytes;
    for (const std::string& value : values) bytes += RawString(value);
    SetArray(key, GgufValueType::kString, values.size(), bytes);
  }
  void Set(const std::string& key, const std::vector<int32_t>& values) {
    SetArray(key, GgufValueType::kInt32, values.size(), RawAll(values));
  }
  void Set(const std::string& key, const std::vector<float>& values) {
    SetArray(key, GgufValueType::kFloat32, values.size(), RawAll(values));
  }
  void SetArray(const std::string& key, GgufValueType type, uint64_t count,
                const std::string& bytes) {
    SetRaw(key, GgufValueType::kArray, Raw(type) + Raw(count) + bytes);
  }

  struct Tensor {
    std::string name;
    std::vector<int64_t> dimensions;  // that of a row first
    uint32_t type;                    // GGML's number
    std::string data;
    int64_t offset = -1;  // -1: where the data is
  };
  std::vector<Tensor> tensors;

  void Add(const std::string& name, const std::vector<int64_t>& dimensions,
           const std::vector<float>& values) {
    tensors.push_back({name, dimensions, 0, RawAll(values)});
  }
  Tensor& tensor(const std::string& name) {
    for (Tensor& tensor : tensors) {
      if (tensor.name == name) return tensor;
    }
    return tensors.emplace_back(Tensor{name, {}, 0, ""});
  }

  std::string Bytes() const {
    std::string bytes = magic + Raw(version);
    bytes += Raw(static_cast<int64_t>(tensors.size()) + extra_tensors);
    bytes += Raw(static_cast<int64_t>(keys_.size()) + extra_keys);
    for (const Key& key : keys_) bytes += key.bytes;
    std::string data;
    for (const Tensor& tensor : tensors) {
      bytes += RawString(tensor.name) + Raw(static_cast<uint32_t>(tensor.dimensions.size())) +
               RawAll(tensor.dimensions) + Raw(tensor.type) +
               Raw(tensor.offset < 0 ? static_cast<int64_t>(data.size()) : tensor.offset);
      data += tensor.data;
      Pad(&data);
    }
    Pad(&bytes);
    return bytes + data;
  }

 private:
  struct Key {
    std::string name;
    std::string bytes;
  };

  template <typename T>
  static std::string RawAll(const std::vector<T>& values) {
    return {reinterpret_cast<const char*>(values.data()), values.size() * sizeof(T)};
  }
  void Pad(std::string* bytes) const {
    while (static_cast<int64_t>(bytes->size()) % alignment != 0) *bytes += '\0';
  }

  std::vector<Key> keys_;
};

// A model that loads: 2 layers, hidden size 32, 4 heads on 2, FFN 64,
// 264 tokens.
inline GgufWriter SmallGguf(const std::string& architecture = "llama") {
  constexpr int64_t kHidden = 32, kFfn = 64, kKv = 16, kVocab = 264;
  GgufWriter file;
  file.Set("general.architecture", architecture);
  file.Set("general.alignment", 32u);
  file.Set(architecture + ".block_count", 2u);
  file.Set(architecture + ".context_length", 64u);
  file.Set(architecture + ".embedding_length", uint32_t{kHidden});
  file.Set(architecture + ".feed_forward_length", uint32_t{kFfn});
  file.Set(architecture + ".attention.head_count", 4u);
  file.Set(architecture + ".attention.head_count_kv", 2u);
  file.Set(architecture + ".attention.layer_norm_rms_epsilon", 1e-5f);
  file.Set(architecture + ".rope.dimension_count", 8u);
  file.Set(architecture + ".rope.freq_base", 10000.0f);
  std::vector<std::string> tokens = {"<unk>", "<s>", "</s>"};
  std::vector<int32_t> types = {2, 3, 3};
  for (int byte = 0; byte < 256; ++byte) {
    constexpr char kDigits[] = "0123456789ABCDEF";
    tokens.push_back(std::string("<0x") + kDigits[byte / 16] + kDigits[byte % 16] + ">");
    types.push_back(6);
  }
  for (const char* text : {"\xE2\x96\x81", "a", "b", "ab",
                           "\xE2\x96\x81"
                           "ab"}) {
    tokens.push_back(text);
    types.push_back(1);
  }
  file.Set("tokenizer.ggml.model", "llama");
  file.Set("tokenizer.ggml.tokens", tokens);
  file.Set("tokenizer.ggml.token_type", types);
  file.Set("tokenizer.ggml.scores", std::vector<float>(kVocab, -1.0f));
  file.Set("tokenizer.ggml.bos_token_id", 1u);
  file.Set("tokenizer.ggml.eos_token_id", 2u);
  const auto add = [&](const std::string& name, int64_t cols, int64_t rows) {
    std::vector<float> values(cols * rows);
    for (size_t i = 0; i < values.size(); ++i) {
      values[i] = static_cast<float>((i * 7 + name.size()) % 11) / 11.0f - 0.4f;
    }
    file.Add(name, rows == 1 ? std::vector<int64_t>{cols} : std::vector<int64_t>{cols, rows},
             values);
  };
  add("token_embd.weight", kHidden, kVocab);
  add("output_norm.weight", kHidden, 1);
  for (const std::string layer : {"blk.0.", "blk.1."}) {
    add(layer + "attn_norm.weight", kHidden, 1);
    add(layer + "attn_q.weight", kHidden, kHidden);
    add(layer + "attn_k.weight", kHidden, kKv);
    add(layer + "attn_v.weight", kHidden, kKv);
    add(layer + "attn_output.weight", kHidden, kHidden);
    add(layer + "ffn_norm.weight", kHidden, 1);
    add(layer + "ffn_gate.weight", kHidden, kFfn);
    add(layer + "ffn_up.weight", kHidden, kFfn);
    add(layer + "ffn_down.weight", kFfn, kHidden);
  }
  return file;
}

}  // namespace lacuna

#endif  // LACUNA_TESTS_RUNTIME_MODEL_GGUF_WRITER_H_
