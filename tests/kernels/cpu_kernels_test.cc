#include "kernels/cpu/cpu_kernels.h"

#include <algorithm>
#include <string>

#include "gtest/gtest.h"

namespace lacuna {
namespace {

TEST(CpuKernelsTest, GenericComesFirst) {
  const std::vector<const KernelTable*> tables = SupportedCpuKernels();
  ASSERT_FALSE(tables.empty());
  EXPECT_STREQ(tables[0]->isa, "generic");
}

TEST(CpuKernelsTest, TablesAreComplete) {
  for (const KernelTable* table : SupportedCpuKernels()) {
    for (int t = 0; t < kNumDTypes; ++t) {
      EXPECT_TRUE(table->dot_rows[t] && table->linear[t] && table->widen[t]);
      const bool is_weight_type = static_cast<DType>(t) != DType::kInt2;
      EXPECT_EQ(table->axpy_rows[t] && table->axpy_lists[t] && table->linear_transposed[t],
                is_weight_type);
      EXPECT_EQ(table->quantize_weights[t] != nullptr, IsQuantized(static_cast<DType>(t)));
    }
    EXPECT_TRUE(table->quantize_activations && table->activate && table->rms_norm &&
                table->layer_norm && table->rope && table->attention && table->add_scaled);
  }
}

TEST(CpuKernelsTest, EmptyNameSelectsTheFastest) {
  EXPECT_EQ(SelectCpuKernels("").value(), SupportedCpuKernels().back());
}

TEST(CpuKernelsTest, NameSelectsOrTellsThatTheCpuCannot) {
  const std::vector<const KernelTable*> supported = SupportedCpuKernels();
  for (const char* isa : {"generic", "avx2", "avx512", "avx512vnni", "amx"}) {
    const bool can = std::any_of(supported.begin(), supported.end(),
                                 [&](const KernelTable* t) { return std::string(t->isa) == isa; });
    const absl::StatusOr<const KernelTable*> selected = SelectCpuKernels(isa);
    if (can) {
      ASSERT_TRUE(selected.ok()) << selected.status();
      EXPECT_STREQ((*selected)->isa, isa);
    } else {
      EXPECT_EQ(selected.status().code(), absl::StatusCode::kFailedPrecondition);
    }
  }
}

TEST(CpuKernelsTest, UnknownNameIsInvalid) {
  const absl::Status status = SelectCpuKernels("sse9").status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_NE(status.message().find("sse9"), absl::string_view::npos);
}

}  // namespace
}  // namespace lacuna
