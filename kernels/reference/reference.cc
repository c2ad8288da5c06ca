#include "kernels/reference/reference.h"

#include <algorithm>
#include <cmath>
#include <cstring>

namespace lacuna::reference {

double Element(DType dtype, const void* row, int64_t i) {
  const char* p = static_cast<const char*>(row) + RowBytes(dtype, i);
  uint32_t bits = 0;
  if (dtype == DType::kF32) {
    std::memcpy(&bits, p, 4);
  } else {
    uint16_t upper;
    std::memcpy(&upper, p, 2);
    bits = static_cast<uint32_t>(upper) << 16;
  }
  float value;
  std::memcpy(&value, &bits, 4);
  return value;
}

double Dot(const float* x, DType dtype, const void* row, int64_t k) {
  double sum = 0;
  for (int64_t i = 0; i < k; ++i) sum += x[i] * Element(dtype, row, i);
  return sum;
}

std::vector<double> Axpy(DType dtype, const float* a, const void* const* rows, int64_t n,
                         int64_t cols) {
  std::vector<double> y(cols, 0.0);
  for (int64_t i = 0; i < n; ++i) {
    for (int64_t c = 0; c < cols; ++c) y[c] += a[i] * Element(dtype, rows[i], c);
  }
  return y;
}

double Activate(Activation activation, float x) {
  if (std::isnan(x)) return x;
  switch (activation.kind) {
    case ActivationKind::kRelu:
      return x > 0.0f ? x : 0.0;
    case ActivationKind::kFatRelu:
      return x >= activation.threshold ? x : 0.0;
    case ActivationKind::kSilu:
      break;
  }
  return x / (1.0 + std::exp(-static_cast<double>(x)));
}

std::vector<double> RmsNorm(const float* x, const float* weight, float eps, int64_t n) {
  const double mean_of_squares = Dot(x, DType::kF32, x, n) / n;
  std::vector<double> out(n);
  for (int64_t i = 0; i < n; ++i) out[i] = x[i] / std::sqrt(mean_of_squares + eps) * weight[i];
  return out;
}

std::vector<double> LayerNorm(const float* x, const float* weight, const float* bias, float eps,
                              int64_t n) {
  double mean = 0;
  for (int64_t i = 0; i < n; ++i) mean += x[i];
  mean /= n;
  double variance = 0;
  for (int64_t i = 0; i < n; ++i) variance += (x[i] - mean) * (x[i] - mean);
  variance /= n;
  std::vector<double> out(n);
  for (int64_t i = 0; i < n; ++i) {
    out[i] = (x[i] - mean) / std::sqrt(variance + eps) * weight[i] + bias[i];
  }
  return out;
}

std::vector<double> Rope(const float* x, const float* cos, const float* sin, int64_t heads,
                         int64_t head_dim) {
  const int64_t half = head_dim / 2;
  std::vector<double> out(x, x + heads * head_dim);
  for (int64_t h = 0; h < heads; ++h) {
    for (int64_t i = 0; i < half; ++i) {
      const double low = x[h * head_dim + i], high = x[h * head_dim + half + i];
      out[h * head_dim + i] = low * cos[i] - high * sin[i];
      out[h * head_dim + half + i] = high * cos[i] + low * sin[i];
    }
  }
  return out;
}

std::vector<double> Attention(const AttentionArgs& args) {
  const int64_t dim = args.kv.head_dim;
  std::vector<double> out(args.group * dim, 0.0);
  for (int64_t g = 0; g < args.group; ++g) {
    std::vector<double> weights;
    double total = 0, top = -INFINITY;
    for (int64_t p = args.first; p < args.context; ++p) {
      const int64_t offset = args.kv.Offset(args.block_table[p / args.kv.block_size], args.kv_head,
                                            p % args.kv.block_size);
      weights.push_back(args.scale *
                        Dot(args.q + g * dim, DType::kF32, args.kv.keys + offset, dim));
      top = std::max(top, weights.back());
    }
    for (double& weight : weights) total += weight = std::exp(weight - top);
    for (int64_t p = args.first; p < args.context; ++p) {
      const int64_t offset = args.kv.Offset(args.block_table[p / args.kv.block_size], args.kv_head,
                                            p % args.kv.block_size);
      for (int64_t c = 0; c < dim; ++c) {
        out[g * dim + c] += weights[p - args.first] / total * args.kv.values[offset + c];
      }
    }
  }
  return out;
}

}  // namespace lacuna::reference
