#include "kernels/cpu/amx_inl.h"
#include "kernels/cpu/avx512vnni_inl.h"
#include "kernels/cpu/isa_tables.h"
#include "kernels/cpu/table_inl.h"

namespace lacuna {
namespace {

// As with VNNI, but for products of many tokens with whole matrices.
constexpr KernelTable MakeAmxTable() {
  KernelTable table = MakeTable<Avx512Vnni>("amx");
  table.linear[static_cast<int>(DType::kInt8)] = &AmxKernels<Avx512Vnni>::Linear<Int8>;
  table.linear[static_cast<int>(DType::kInt4)] = &AmxKernels<Avx512Vnni>::Linear<Int4>;
  return table;
}

}  // namespace

constinit const KernelTable kAmxTable = MakeAmxTable();

}  // namespace lacuna
