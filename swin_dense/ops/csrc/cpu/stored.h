// How the numbers of a map are stored; sums over them are float64 for float64, else float32.
#pragma once

namespace swin_dense {

enum class Stored { float32, bfloat16, float16, float64 };

}  // namespace swin_dense
