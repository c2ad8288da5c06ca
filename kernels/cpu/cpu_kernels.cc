#include "kernels/cpu/cpu_kernels.h"

#include <cpuid.h>
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

// Linux (5.16) must be asked before tiles are used. What it grants holds for the whole process; a
// thread's saved state grows by 8 KiB when it first uses them.
bool CpuHasAmx() {
  constexpr long kRequestPermission = 0x1023;  // ARCH_REQ_XCOMP_PERM of asm/prctl.h
  constexpr long kTileData = 18;               // the state component
  constexpr unsigned kTileAndInt8 = 3u << 24;  // leaf 7, edx (clang 14 has no names for them)
  unsigned a, b, c, d;
  return CpuHasAvx512Vnni() && __get_cpuid_count(7, 0, &a, &b, &c, &d) &&
         (d & kTileAndInt8) == kTileAndInt8 &&
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
          absl::StrCat("this machine cannot run the instruction set \"", name,
                       "\"; the best it can is \"", supported.back()->isa, "\""));
    }
  }
  return absl::InvalidArgumentError(
      absl::StrCat("unknown instruction set \"", name,
                   "\", expected \"generic\", \"avx2\", \"avx512\", \"avx512vnni\" or \"amx\""));
}

}  // namespace lacuna
