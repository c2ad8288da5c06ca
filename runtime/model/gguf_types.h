#ifndef LACUNA_RUNTIME_MODEL_GGUF_TYPES_H_
#define LACUNA_RUNTIME_MODEL_GGUF_TYPES_H_

#include <cstddef>
#include <cstdint>
#include <string>

namespace lacuna {

// How a tensor of a GGUF file is stored: blocks of elements of one row, in GGML's layouts.
struct GgufType {
  uint32_t id;
  const char* name;
  int32_t block_elements = 0;  // 0: a type that is known by name only
  int32_t block_bytes = 0;
  // Writes the elements of `blocks` blocks, bit for bit as the Python package `gguf` does. `in`
  // needs no alignment. Null if block_elements is 0.
  void (*dequantize)(const std::byte* in, int64_t blocks, float* out) = nullptr;

  bool is_read() const { return dequantize != nullptr; }
  // Several elements share a scale; else it is a float type.
  bool is_quantized() const { return block_elements > 1; }
};

// Null if no version of the format that we know has such a type.
const GgufType* FindGgufType(uint32_t id);

// The names of the types that are read: "F32, F16, ...".
std::string ReadableGgufTypes();

}  // namespace lacuna

#endif  // LACUNA_RUNTIME_MODEL_GGUF_TYPES_H_
