// Stands in for the CUDA runtime, so that a C++ compiler makes CPU code of our kernels.
//
// cuda_on_cpu.py rewrites the few things that are no C++ (launches, dynamic shared memory) and
// compiles the rest as it is. Blocks run one after the other. The threads of a block are fibers:
// one runs until it has to wait for others, in a barrier or in an instruction of the whole warp,
// and then the next one does. What that shows is that index arithmetic, the layouts of tensor
// core operands, barriers and sums are right. It says nothing of speed. The fibers run in one
// order and, in the next launch, in the other: a barrier that is missing shows, though a race
// inside a warp need not.
//
// Reported as exceptions: barriers and warp instructions that not all threads reach, vectors at
// addresses that are no multiples of their size, writes past the dynamic shared memory, copies to
// it that nobody waits for, and launches larger than every supported GPU takes. Dynamic shared
// memory starts as NaN, and copies come when they are waited for.
#pragma once

#include <setjmp.h>
#include <torch/csrc/stable/macros.h>
#include <torch/headeronly/util/BFloat16.h>
#include <torch/headeronly/util/Half.h>
#include <ucontext.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <functional>
#include <map>
#include <memory>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#define CUDA_ON_CPU
#define __host__
#define __device__
#define __global__
#define __launch_bounds__(...)
#define __shared__ static  // blocks run one after the other
#define threadIdx (cuda_on_cpu::self->index)
#define blockIdx (cuda_on_cpu::block.index)
#define blockDim (cuda_on_cpu::block.size)
#define gridDim (cuda_on_cpu::block.grid)

struct dim3 {
  unsigned x, y, z;
  dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};

namespace cuda_on_cpu {

constexpr unsigned kWarp = 32;
constexpr size_t kMostShared = 99 * 1024, kUnasked = 48 * 1024;  // bytes of a block
constexpr size_t kStack = 128 * 1024, kGuard = 4096;
constexpr char kUntouched = '\xff';  // in every byte: NaN in all our types

// What one thread is, and where it stopped.
struct Thread {
  dim3 index;
  unsigned number = 0;
  bool started = false, finished = false;
  const unsigned* gate = nullptr;  // it waits until this number is no longer `seen`
  unsigned seen = 0;
  jmp_buf place;
  ucontext_t start;
  std::vector<std::pair<void*, const void*>> copies;  // under way, from global to shared memory
  std::unique_ptr<char[]> stack{new char[kStack]};
};

// A meeting that all have to reach; two sets of what they bring, since the first to leave may
// already bring something to the next meeting.
struct Meeting {
  unsigned size = 0, arrived = 0, count = 0;
  const char* kind = "";
};

struct Warp : Meeting {
  alignas(16) char brought[2][kWarp][16];
  float a[2][16][16], b[2][16][8];
};

struct Block {
  dim3 index, size, grid;
  std::vector<Thread> threads;
  std::vector<Warp> warps;
  Meeting barrier;
  std::function<void()> body;
  std::vector<char> shared;  // dynamic; a guard comes after it
  bool backwards = false;    // the last thread runs first: every other launch
  std::string error;
  jmp_buf scheduler;
};

inline Block block;
inline Thread* self = nullptr;
inline std::map<const void*, size_t> allowed;  // dynamic shared memory, by kernel

inline std::string name(const dim3& i) {
  return "(" + std::to_string(i.x) + ", " + std::to_string(i.y) + ", " + std::to_string(i.z) + ")";
}

[[noreturn]] inline void fail(const std::string& what) {
  block.error = "cuda_on_cpu: " + what;
  if (self == nullptr) throw std::runtime_error(block.error);
  block.error += ", thread " + name(threadIdx) + " of block " + name(blockIdx);
  _longjmp(block.scheduler, 1);  // an exception cannot leave a fiber: run_block throws it
}

inline void pause() {
  if (_setjmp(self->place) == 0) _longjmp(block.scheduler, 1);
}

inline void first_breath() {
  block.body();
  if (!self->copies.empty()) fail("copies to shared memory that nobody waits for");
  self->finished = true;
  _longjmp(block.scheduler, 1);
}

// Lets the thread run until it pauses.
inline void resume(Thread& thread) {
  self = &thread;
  if (_setjmp(block.scheduler) == 0) {
    if (self->started) _longjmp(self->place, 1);
    self->started = true;
    setcontext(&self->start);
  }
  self = nullptr;
}

// Returns when all have come; the number of the meeting tells which set of `brought` is its own.
inline unsigned meet(Meeting& meeting, const char* kind) {
  const unsigned number = meeting.count;
  if (meeting.arrived == 0) meeting.kind = kind;
  if (std::strcmp(meeting.kind, kind) != 0) {
    fail(std::string("some threads come to ") + meeting.kind + ", this one to " + kind);
  }
  if (++meeting.arrived == meeting.size) {
    meeting.arrived = 0, ++meeting.count;
  } else {
    self->gate = &meeting.count, self->seen = number;
    pause();
  }
  return number % 2;
}

inline void start(Thread& thread, unsigned number) {
  const unsigned x = block.size.x, y = block.size.y;
  thread.index = dim3(number % x, number / x % y, number / x / y), thread.number = number;
  thread.started = thread.finished = false, thread.gate = nullptr, thread.copies.clear();
  getcontext(&thread.start);
  thread.start.uc_stack.ss_sp = thread.stack.get(), thread.start.uc_stack.ss_size = kStack;
  makecontext(&thread.start, first_breath, 0);
}

inline void run_block() {
  for (unsigned i = 0; i < block.threads.size(); ++i) start(block.threads[i], i);
  for (bool moved = true; moved;) {
    moved = false;
    for (size_t i = 0, last = block.threads.size() - 1; i <= last; ++i) {
      Thread& thread = block.threads[block.backwards ? last - i : i];
      if (thread.finished || (thread.gate != nullptr && *thread.gate == thread.seen)) continue;
      thread.gate = nullptr, moved = true;
      resume(thread);
      if (!block.error.empty()) throw std::runtime_error(block.error);
    }
  }
  for (const Thread& thread : block.threads) {
    if (thread.finished) continue;
    const Meeting& warp = block.warps[thread.number / kWarp];
    const Meeting& at = thread.gate == &warp.count ? warp : block.barrier;
    fail(std::string("some threads wait in ") + at.kind + " for others that do not come");
  }
}

inline char* dynamic_shared() {
  return block.shared.data() + -reinterpret_cast<uintptr_t>(block.shared.data()) % 128;
}

inline void run_grid(size_t shared) {
  const dim3 &size = block.size, &grid = block.grid;
  const size_t threads = size_t(size.x) * size.y * size.z;
  const uint64_t blocks = uint64_t(grid.x) * grid.y * grid.z;
  if (threads > 1024 || size.z > 64) fail("more than 1024 threads in a block, or 64 along z");
  if (threads == 0 || blocks == 0) fail("a launch of nothing");
  if (grid.x > 0x7fffffff || grid.y > 0xffff || grid.z > 0xffff) {
    fail("a grid of more than 2**31 - 1 blocks along x, or 65535 along y or z");
  }
  block.threads.resize(threads);
  block.warps.assign((threads + kWarp - 1) / kWarp, Warp());
  for (Warp& warp : block.warps) warp.size = kWarp;
  if (threads % kWarp != 0) block.warps.back().size = threads % kWarp;
  block.barrier = Meeting();
  block.barrier.size = static_cast<unsigned>(threads);
  block.shared.resize(shared + kGuard + 128);
  for (uint64_t i = 0; i < blocks; ++i) {
    block.index = dim3(i % grid.x, i / grid.x % grid.y, i / grid.x / grid.y);
    std::fill_n(dynamic_shared(), shared + kGuard, kUntouched);
    run_block();
    const char* guard = dynamic_shared() + shared;
    if (std::count(guard, guard + kGuard, kUntouched) != kGuard) {
      fail("a write past the dynamic shared memory");
    }
  }
}

template <class... Parameters>
struct Launch {
  void (*kernel)(Parameters...);
  dim3 grid, size;
  size_t shared;

  void operator()(Parameters... arguments) const {
    const auto asked = allowed.find(reinterpret_cast<const void*>(kernel));
    block.error.clear(), self = nullptr;
    if (shared > kMostShared) fail("more than 99 KB of shared memory");
    if (shared > (asked == allowed.end() ? kUnasked : asked->second)) {
      fail("more shared memory than cudaFuncSetAttribute has allowed");
    }
    block.grid = grid, block.size = size, block.backwards = !block.backwards;
    block.body = [&] { kernel(arguments...); };
    run_grid(shared);
  }
};

// kernel<<<grid, size, shared, stream>>>(...) is rewritten to launch(kernel, grid, ...)(...).
template <class... Parameters>
Launch<Parameters...> launch(void (*kernel)(Parameters...), dim3 grid, dim3 size,
                             size_t shared = 0, void* = nullptr) {
  return {kernel, grid, size, shared};
}

inline Warp& my_warp() { return block.warps[self->number / kWarp]; }
inline unsigned my_lane() { return self->number % kWarp; }

// What lane `from` of the warp brings.
template <class T>
T of_lane(const T& mine, unsigned from, const char* kind) {
  static_assert(sizeof(T) <= 16);
  Warp& warp = my_warp();
  std::memcpy(warp.brought[warp.count % 2][my_lane()], &mine, sizeof(T));
  const unsigned set = meet(warp, kind);
  T theirs;
  std::memcpy(static_cast<void*>(&theirs), warp.brought[set][from % warp.size], sizeof(T));
  return theirs;
}

// The address is hidden from the compiler, which would take its alignment for granted.
template <size_t size>
void check_address(const void* pointer) {
  auto address = reinterpret_cast<uintptr_t>(pointer);
  asm volatile("" : "+r"(address));
  if (address % size != 0) {
    fail(std::to_string(size) + " bytes at an address that is no multiple of it");
  }
}

template <class T>
struct Two {
  T x, y;
};

template <class T>
struct Four {
  T x, y, z, w;
};

// A vector that is moved in one instruction.
template <class Fields>
struct alignas(sizeof(Fields)) Vector : Fields {
  Vector() = default;
  template <class... Numbers>
  Vector(Numbers... numbers) : Fields{static_cast<decltype(Fields::x)>(numbers)...} {}
  Vector(const Vector& other) { *this = other; }
  Vector& operator=(const Vector& other) {
    check_address<sizeof(Fields)>(this), check_address<sizeof(Fields)>(&other);
    static_cast<Fields&>(*this) = other;
    return *this;
  }
};

struct DeviceGuard {
  explicit DeviceGuard(int) {}
};

}  // namespace cuda_on_cpu

using uint2 = cuda_on_cpu::Vector<cuda_on_cpu::Two<uint32_t>>;
using uint4 = cuda_on_cpu::Vector<cuda_on_cpu::Four<uint32_t>>;
using float2 = cuda_on_cpu::Vector<cuda_on_cpu::Two<float>>;
using float4 = cuda_on_cpu::Vector<cuda_on_cpu::Four<float>>;
using std::isfinite;

inline void __syncthreads() { cuda_on_cpu::meet(cuda_on_cpu::block.barrier, "__syncthreads"); }
inline void __syncwarp() { cuda_on_cpu::of_lane(0, 0, "__syncwarp"); }

template <class T>
T __shfl_sync(unsigned, T mine, int from) {
  return cuda_on_cpu::of_lane(mine, from, "__shfl_sync");
}

template <class T>
T __shfl_xor_sync(unsigned, T mine, int mask) {
  return cuda_on_cpu::of_lane(mine, cuda_on_cpu::my_lane() ^ mask, "__shfl_xor_sync");
}

template <class T>
T atomicAdd(T* to, T added) {
  const T before = *to;
  *to = before + added;
  return before;
}

inline void atomicAdd(float4* to, const float4& added) {
  *to = float4(to->x + added.x, to->y + added.y, to->z + added.z, to->w + added.w);
}

template <class T>
T __ldg(const T* from) {
  return *from;
}

inline int __ffsll(long long bits) { return __builtin_ffsll(bits); }
inline float __uint_as_float(uint32_t bits) { return c10::bit_cast<float>(bits); }
inline uint32_t __float_as_uint(float x) { return c10::bit_cast<uint32_t>(x); }

using cudaStream_t = void*;
using cudaError_t = int;
constexpr int cudaFuncAttributeMaxDynamicSharedMemorySize = 8, cudaMemcpyDeviceToHost = 2;
constexpr int CUDART_VERSION = 0;

template <class Kernel>
cudaError_t cudaFuncSetAttribute(Kernel* kernel, int, size_t bytes) {
  cuda_on_cpu::allowed[reinterpret_cast<const void*>(kernel)] = bytes;
  return 0;
}

inline cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, int, cudaStream_t) {
  std::memcpy(to, from, bytes);
  return 0;
}

inline cudaError_t cudaStreamSynchronize(cudaStream_t) { return 0; }
inline int32_t aoti_torch_get_current_cuda_stream(int32_t, void** stream) {
  *stream = nullptr;
  return 0;
}

#undef STD_CUDA_CHECK
#undef STD_CUDA_KERNEL_LAUNCH_CHECK
#define STD_CUDA_CHECK(call) static_cast<void>(call)
#define STD_CUDA_KERNEL_LAUNCH_CHECK()  // launch has thrown
