// Which vector instructions a loop is compiled for is decided when it runs, not when it is built.
//
//   struct Body { static SWIN_DENSE_INLINE void run(const float* in, float* out) {...} };
//   vectorised<Body>(in, out);
//
// compiles Body::run once per level and calls the best one this machine has. Everything that
// Body::run calls must be SWIN_DENSE_INLINE too, else it stays at the portable level.
#pragma once

#include <cstdlib>
#include <cstring>

#define SWIN_DENSE_INLINE inline __attribute__((always_inline))

#if defined(__x86_64__)
#define SWIN_DENSE_AVX2 __attribute__((target("avx2,fma,f16c")))
#define SWIN_DENSE_AVX512 \
  __attribute__((target("avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl")))
#endif

namespace swin_dense {

enum class Level { portable, avx2, avx512 };

inline Level detect_level() {
#if defined(__x86_64__)
  __builtin_cpu_init();
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
                    __builtin_cpu_supports("f16c");
  const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") &&
                      __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
                      __builtin_cpu_supports("avx512vl");
  const Level best = avx512 ? Level::avx512 : avx2 ? Level::avx2 : Level::portable;
  // For tests and for comparing levels: may lower the level, never raise it.
  const char* wish = std::getenv("SWIN_DENSE_CPU_LEVEL");
  if (wish != nullptr && std::strcmp(wish, "portable") == 0) return Level::portable;
  if (wish != nullptr && std::strcmp(wish, "avx2") == 0 && avx2) return Level::avx2;
  return best;
#else
  return Level::portable;
#endif
}

inline Level level() {
  static const Level chosen = detect_level();
  return chosen;
}

#if defined(__x86_64__)
template <class Body, class... Args>
SWIN_DENSE_AVX512 void run_avx512(Args... args) {
  Body::run(args...);
}
template <class Body, class... Args>
SWIN_DENSE_AVX2 void run_avx2(Args... args) {
  Body::run(args...);
}
#endif

template <class Body, class... Args>
void vectorised(Args... args) {
#if defined(__x86_64__)
  if (level() == Level::avx512) return run_avx512<Body, Args...>(args...);
  if (level() == Level::avx2) return run_avx2<Body, Args...>(args...);
#endif
  Body::run(args...);
}

// What levels/ offers under one name, of the best level this machine has.
#if defined(__x86_64__)
#define SWIN_DENSE_BEST(name)                      \
  (level() == Level::avx512 ? avx512::name         \
   : level() == Level::avx2 ? avx2::name           \
                            : portable::name)
#else
#define SWIN_DENSE_BEST(name) portable::name
#endif

// Numbers in 64 bytes. An inner loop over as many becomes one, two or four instructions by level.
template <class A>
constexpr int kLanes = 64 / sizeof(A);

}  // namespace swin_dense
