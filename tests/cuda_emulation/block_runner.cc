#include "tests/cuda_emulation/block_runner.h"

#include <algorithm>
#include <boost/context/fiber.hpp>
#include <boost/context/protected_fixedsize_stack.hpp>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <iterator>
#include <memory>
#include <numeric>
#include <random>
#include <utility>
#include <vector>

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/common_interface_defs.h>
#endif

namespace cuda_emulation {

Dim3 thread_index, block_index, block_dim, grid_dim;

namespace {

namespace context = boost::context;

constexpr unsigned kWarp = 32;
constexpr size_t kStackBytes = 256 << 10;

// The values of one warp collective. Free for the next one when every lane has gone on.
struct Snapshot {
  uint64_t values[kWarp];
  int readers = 0;
};

struct Stack {
  const void* bottom = nullptr;
  size_t size = 0;
  void* fake = nullptr;  // AddressSanitizer's
};

enum class State { kRunnable, kAtBarrier, kInCollective, kDone };

struct Thread {
  context::fiber fiber;  // where it waits
  Stack stack;
  State state = State::kDone;
  Dim3 index;
  unsigned number = 0;
  const char* operation = nullptr;  // kInCollective
  uint32_t mask = 0;
  uint64_t value = 0;
  Snapshot* snapshot = nullptr;  // of the collective that the thread has been through last
};

class BlockRunner {
 public:
  std::string Run(Dim3 grid, Dim3 block, size_t shared_bytes, const std::function<void()>& body) {
    grid_dim = grid;
    block_dim = block;
    body_ = &body;
    error_.clear();
    size_ = static_cast<unsigned>(block.count());
    while (threads_.size() < size_) AddThread();
    std::vector<uint64_t> blocks = Turns<uint64_t>(grid.count());
    warps_ = Turns<unsigned>((size_ + kWarp - 1) / kWarp);
    lanes_ = Turns<unsigned>(kWarp);
    for (const uint64_t b : blocks) {
      block_index = {static_cast<unsigned>(b % grid.x), static_cast<unsigned>(b / grid.x % grid.y),
                     static_cast<unsigned>(b / grid.x / grid.y)};
      // Exactly as long as asked for, so that AddressSanitizer sees what lies beyond.
      void* shared = nullptr;
      if (posix_memalign(&shared, 256, shared_bytes) != 0) return "no shared memory";
      shared_.reset(static_cast<char*>(shared));
      std::memset(shared, 0xFB, shared_bytes);
      RunBlock();
      if (!error_.empty()) break;
    }
    return error_;
  }

  void SetOrder(Order order, uint32_t seed) {
    order_ = order;
    random_.seed(seed);
  }

  char* shared() const { return shared_.get(); }
  unsigned lane() const { return current_->number % kWarp; }

  int64_t SyncThreads(int value) {
    barrier_sum_ += value;
    current_->state = State::kAtBarrier;
    if (++at_barrier_ == size_) {
      at_barrier_ = 0;
      barrier_result_ = std::exchange(barrier_sum_, 0);
      for (unsigned t = 0; t < size_; ++t) threads_[t]->state = State::kRunnable;
    }
    Suspend();  // whoever comes last, too: turns are in order again
    return barrier_result_;
  }

  const uint64_t* Collective(const char* operation, uint32_t mask, uint64_t value) {
    Thread& self = *current_;
    self.operation = operation;
    self.mask = mask;
    self.value = value;
    self.state = State::kInCollective;
    if (!(mask >> lane() & 1)) {
      Fail(std::string("a lane calls ") + operation + " with a mask that leaves it out");
    }
    if (self.snapshot != nullptr) {
      --self.snapshot->readers;
      self.snapshot = nullptr;
    }
    CompleteCollective(self);
    Suspend();
    return self.snapshot->values;
  }

 private:
  struct Free {
    void operator()(char* p) const { std::free(p); }
  };

  void AddThread() {
    threads_.push_back(std::make_unique<Thread>());
    Thread& thread = *threads_.back();
    thread.number = static_cast<unsigned>(threads_.size() - 1);
    context::protected_fixedsize_stack stacks(kStackBytes);
    const context::stack_context stack = stacks.allocate();
    thread.stack.bottom = static_cast<char*>(stack.sp) - stack.size;
    thread.stack.size = stack.size;
    thread.fiber =
        context::fiber(std::allocator_arg, context::preallocated(stack.sp, stack.size, stack),
                       stacks, [this, &thread](context::fiber&& main) {
                         main_ = std::move(main);
                         AfterSwitch(thread.stack, &main_stack_);
                         for (;;) {
                           (*body_)();
                           thread.state = State::kDone;
                           Suspend();
                         }
                         return context::fiber();  // never
                       });
  }

  // The numbers below n in the order of turns.
  template <class T>
  std::vector<T> Turns(T n) {
    std::vector<T> turns(n);
    std::iota(turns.begin(), turns.end(), T{0});
    if (order_ == Order::kBackward) std::reverse(turns.begin(), turns.end());
    if (order_ == Order::kShuffled) std::shuffle(turns.begin(), turns.end(), random_);
    return turns;
  }

  void RunBlock() {
    at_barrier_ = 0;
    barrier_sum_ = 0;
    for (unsigned t = 0; t < size_; ++t) {
      Thread& thread = *threads_[t];
      thread.state = State::kRunnable;
      thread.index = {t % block_dim.x, t / block_dim.x % block_dim.y,
                      t / block_dim.x / block_dim.y};
      thread.snapshot = nullptr;
    }
    snapshots_.clear();
    for (bool progress = true; progress && error_.empty();) {
      progress = false;
      for (const unsigned warp : warps_) {
        if (order_ == Order::kShuffled) std::shuffle(lanes_.begin(), lanes_.end(), random_);
        for (const unsigned lane : lanes_) {
          const unsigned t = warp * kWarp + lane;
          if (t >= size_ || threads_[t]->state != State::kRunnable) continue;
          Resume(*threads_[t]);
          progress = true;
          if (!error_.empty()) break;
        }
        if (!error_.empty()) break;
      }
    }
    if (error_.empty()) error_ = Deadlock();
    if (!error_.empty()) {
      error_ = "block (" + std::to_string(block_index.x) + ", " + std::to_string(block_index.y) +
               ", " + std::to_string(block_index.z) + "): " + error_;
      // Those that wait never end, and their fibers are of no more use.
      abandoned_.insert(abandoned_.end(), std::make_move_iterator(threads_.begin()),
                        std::make_move_iterator(threads_.end()));
      threads_.clear();
    }
  }

  // If all lanes that `self` waits for have come to the same collective, hands out their values.
  void CompleteCollective(const Thread& self) {
    const unsigned first = self.number / kWarp * kWarp;
    // From the last one, who is late when turns go forward.
    for (unsigned lane = kWarp; lane-- > 0;) {
      if (!(self.mask >> lane & 1)) continue;
      if (first + lane >= size_) return;
      const Thread& other = *threads_[first + lane];
      if (other.state != State::kInCollective || other.mask != self.mask) return;
      if (other.operation != self.operation && std::strcmp(other.operation, self.operation) != 0) {
        return;
      }
    }
    auto snapshot = std::find_if(snapshots_.begin(), snapshots_.end(),
                                 [](const auto& s) { return s->readers == 0; });
    if (snapshot == snapshots_.end()) {
      snapshots_.push_back(std::make_unique<Snapshot>());
      snapshot = snapshots_.end() - 1;
    }
    for (unsigned lane = 0; lane < kWarp; ++lane) {
      if (!(self.mask >> lane & 1)) continue;
      Thread& other = *threads_[first + lane];
      (*snapshot)->values[lane] = other.value;
      (*snapshot)->readers += 1;
      other.snapshot = snapshot->get();
      other.state = State::kRunnable;
    }
  }

  // Empty if all threads have ended; else who waits for what.
  std::string Deadlock() const {
    unsigned done = 0, at_barrier = 0;
    const Thread* in_collective = nullptr;
    for (unsigned t = 0; t < size_; ++t) {
      done += threads_[t]->state == State::kDone;
      at_barrier += threads_[t]->state == State::kAtBarrier;
      if (threads_[t]->state == State::kInCollective) in_collective = threads_[t].get();
    }
    if (done == size_) return "";
    std::string text = "of " + std::to_string(size_) + " threads, " + std::to_string(done) +
                       " have ended, " + std::to_string(at_barrier) + " wait at __syncthreads";
    if (in_collective != nullptr) {
      char mask[16];
      std::snprintf(mask, sizeof(mask), "%08x", in_collective->mask);
      text += ", " + std::to_string(size_ - done - at_barrier) + " in warp collectives (thread " +
              std::to_string(in_collective->number) + ": " + in_collective->operation + ", mask " +
              mask + ")";
    }
    return text;
  }

  void Fail(std::string error) {
    error_ = std::move(error) + " (thread " + std::to_string(current_->number) + ")";
    Suspend();  // for good
  }

  void Resume(Thread& thread) {
    current_ = &thread;
    thread_index = thread.index;
    BeforeSwitch(&main_stack_, thread.stack);
    thread.fiber = std::move(thread.fiber).resume();
    AfterSwitch(main_stack_, &thread.stack);
  }

  void Suspend() {
    Thread& self = *current_;
    BeforeSwitch(&self.stack, main_stack_);
    main_ = std::move(main_).resume();
    AfterSwitch(self.stack, &main_stack_);
  }

  // What AddressSanitizer wants to know about a change of stacks.
#ifdef __SANITIZE_ADDRESS__
  static void BeforeSwitch(Stack* from, const Stack& to) {
    __sanitizer_start_switch_fiber(&from->fake, to.bottom, to.size);
  }
  // `from` is where the switch came from.
  static void AfterSwitch(const Stack& to, Stack* from) {
    __sanitizer_finish_switch_fiber(to.fake, &from->bottom, &from->size);
  }
#else
  static void BeforeSwitch(Stack*, const Stack&) {}
  static void AfterSwitch(const Stack&, Stack*) {}
#endif

  Stack main_stack_;
  std::vector<std::unique_ptr<Thread>> threads_;
  std::vector<std::unique_ptr<Thread>> abandoned_;
  std::vector<std::unique_ptr<Snapshot>> snapshots_;
  std::unique_ptr<char, Free> shared_;
  const std::function<void()>* body_ = nullptr;
  context::fiber main_;  // where RunBlock waits for the thread that runs
  Thread* current_ = nullptr;
  unsigned size_ = 0;  // threads of a block
  unsigned at_barrier_ = 0;
  int64_t barrier_sum_ = 0;
  int64_t barrier_result_ = 0;
  std::vector<unsigned> warps_, lanes_;  // in the order of turns
  Order order_ = Order::kForward;
  std::mt19937 random_;
  std::string error_;
};

BlockRunner& Runner() {
  static BlockRunner& runner = *[] {
    auto* const made = new BlockRunner;
    const char* const order = std::getenv("LACUNA_CUDA_ORDER");
    if (order == nullptr || std::strcmp(order, "forward") == 0) return made;
    if (std::strcmp(order, "backward") == 0) {
      made->SetOrder(Order::kBackward, 0);
    } else {
      made->SetOrder(Order::kShuffled, static_cast<uint32_t>(std::strtoul(order, nullptr, 10)));
    }
    return made;
  }();
  return runner;
}

}  // namespace

void SetOrder(Order order, uint32_t seed) { Runner().SetOrder(order, seed); }

std::string RunGrid(Dim3 grid, Dim3 block, size_t shared_bytes, const std::function<void()>& body) {
  return Runner().Run(grid, block, shared_bytes, body);
}

void* DynamicShared() { return Runner().shared(); }
int64_t SyncThreads(int value) { return Runner().SyncThreads(value); }
const uint64_t* Collective(const char* operation, uint32_t mask, uint64_t value) {
  return Runner().Collective(operation, mask, value);
}
unsigned Lane() { return Runner().lane(); }

}  // namespace cuda_emulation
