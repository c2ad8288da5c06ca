#include "kernels/cpu/cpu_kernels.h"

#include <sys/syscall.h>
#include <unistd.h>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "kernels/cpu/isa_tables.h"

namespace lacuna {
namespace {

bool CpuHasAvx2() { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"); }

bool CpuHasAvx512() {
  return CpuHasAvx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
}

bool CpuHasAvx512Vnni() { return CpuHasAvx512() && __builtin_cpu_supports("avx512vnni"); }

// Programs must ask Linux (5.16) before they use the tile registers, which make every thread's
// saved state larger by 8 KiB. What was granted once stays so, for all threads.
bool CpuHasAmx() {
  constexpr long kRequestPermission = 0x1023;  // ARCH_REQ_XCOMP_PERM of asm/prctl.h
  constexpr long kTileData = 18;               // the state component
  return CpuHasAvx512Vnni() && __builtin_cpu_supports("amx-tile") &&
         __builtin_cpu_supports("amx-int8") &&
         syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
}

}  // namespace

std::vector<const KernelTable*> SupportedCpuKernels() {
  std::vector<const KernelTable*> tables = {&kGenericTable};
  if (CpuHasAvx2()) tables.push_back(&kAvx2Table);
  if (CpuHasAvx512()) tables.push_back(&kAvx512Table);
  if (CpuHasAvx512Vnni()) tables.push_back(&kAvx512VnniTable);
  if (CpuHasAmx()) tables.push_back(&kAmxTable);
  return tables;
}

absl::StatusOr<const KernelTable*> SelectCpuKernels(std::string_view isa) {
  const absl::string_view name(isa.data(), isa.size());  // Debian's is not std::string_view
  const std::vector<const KernelTable*> supported = SupportedCpuKernels();
  if (isa.empty()) return supported.back();
  for (const KernelTable* table : supported) {
    if (isa == table->isa) return table;
  }
  for (const KernelTable* table : {&kAvx2Table, &kAvx512Table, &kAvx512VnniTable, &kAmxTable}) {
    if (isa == table->isa) {
      return absl::FailedPreconditionError(
          absl::StrCat("this CPU cannot run the instruction set \"", name,
                       "\"; the best it can is \"", supported.back()->isa, "\""));
    }
  }
  return absl::InvalidArgumentError(
      absl::StrCat("unknown instruction set \"", name,
                   "\", expected \"generic\", \"avx2\", \"avx512\", \"avx512vnni\" or \"amx\""));
}

}  // namespace lacuna
