#include <sys/mman.h>
#include <unistd.h>

#include <string>
#include <utility>
#include <vector>

#include "runtime/model/gguf_checkpoint.h"
#include "runtime/model/gguf_config.h"
#include "runtime/model/gguf_file.h"
#include "runtime/model/gguf_tokenizer.h"
#include "tests/fuzz/fuzz_check.h"

namespace {

void CheckCode(const absl::Status& status) {
  FUZZ_CHECK(status.ok() || status.code() == absl::StatusCode::kInvalidArgument ||
             status.code() == absl::StatusCode::kDataLoss ||
             status.code() == absl::StatusCode::kUnimplemented);
}

void UseTokenizer(const lacuna::GgufHeader& header) {
  const auto tokenizer = lacuna::MakeGgufTokenizer(header);
  CheckCode(tokenizer.status());
  if (!tokenizer.ok()) return;
  const auto ids = (*tokenizer)->Encode("A few words, 12345 \xF0\x9F\x98\x80\n", true);
  if (!ids.ok()) return;
  for (const int32_t id : *ids) FUZZ_CHECK(id >= 0 && id < (*tokenizer)->vocab_size());
  FUZZ_CHECK((*tokenizer)->Decode(*ids).ok());
}

void ReadTensors(std::unique_ptr<lacuna::GgufFile> file) {
  const auto config = lacuna::ParseGgufConfig(file->header());
  CheckCode(config.status());
  if (!config.ok()) return;
  const auto checkpoint = lacuna::GgufCheckpoint::Create(*config, std::move(file));
  CheckCode(checkpoint.status());
  if (!checkpoint.ok()) return;
  for (const std::string_view name : (*checkpoint)->names()) {
    const lacuna::TensorInfo& tensor = *(*checkpoint)->Find(name);
    const int64_t cols = tensor.shape.back();
    // Blocks of 2 bits become 16 times as many bytes.
    FUZZ_CHECK(cols <= tensor.bytes * 16);
    std::vector<std::byte> row(cols * 4);
    CheckCode((*checkpoint)->ReadRows(tensor, 0, 1, lacuna::DType::kF32, row.data(), 0));
    CheckCode((*checkpoint)->ReadRows(tensor, 0, 1, lacuna::DType::kBf16, row.data(), 0));
  }
}

}  // namespace

// Input: a GGUF file.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const int fd = memfd_create("input", MFD_CLOEXEC);
  FUZZ_CHECK(fd >= 0 && write(fd, data, size) == static_cast<ssize_t>(size));
  auto file = lacuna::GgufFile::Open("/proc/self/fd/" + std::to_string(fd));
  close(fd);
  CheckCode(file.status());
  if (!file.ok()) return 0;
  for (const auto& [name, tensor] : (*file)->header().tensors) {
    FUZZ_CHECK(tensor.offset >= 24 && tensor.bytes > 0);
    FUZZ_CHECK(tensor.offset + tensor.bytes <= static_cast<int64_t>(size));
  }
  UseTokenizer((*file)->header());
  const auto chat_template = lacuna::MakeGgufChatTemplate((*file)->header());
  if (!absl::IsNotFound(chat_template.status())) CheckCode(chat_template.status());
  ReadTensors(*std::move(file));
  return 0;
}
