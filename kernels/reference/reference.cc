#include "kernels/reference/reference.h"

#include <algorithm>
#include <cmath>
#include <cstring>

namespace lacuna::reference {

namespace {

template <typename T>
T Load(const void* base, int64_t offset) {
  T value;
  std::memcpy(&value, static_cast<const char*>(base) + offset, sizeof(value));
  return value;
}

double FromBf16(uint16_t bits) {
  const uint32_t wide = uint32_t{bits} << 16;
  return Load<float>(&wide, 0);
}

// In a quantized row: the vector of element i, its place there, and its group among all groups.
struct Place {
  explicit Place(int64_t i)
      : vector(i / 64),
        in_vector(i % 64),
        group(vector / kBlockVectors * kBlockGroups + in_vector / 4) {}
  int64_t vector, in_vector, group;
};

}  // namespace

double Element(DType dtype, const void* row, int64_t cols, int64_t i) {
  if (dtype == DType::kF32) return Load<float>(row, i * 4);
  if (dtype == DType::kBf16) return FromBf16(Load<uint16_t>(row, i * 2));
  const Place place(i);
  const double scale = FromBf16(Load<uint16_t>(row, CodeBytes(dtype, cols) + place.group * 2));
  if (dtype == DType::kInt8) return scale * (Load<uint8_t>(row, i) - 128);
  if (dtype == DType::kInt2) {
    const uint8_t four = Load<uint8_t>(row, place.vector / 4 * 64 + place.in_vector);
    return scale * (2 * (four >> (place.vector % 4 * 2) & 3) - 3);
  }
  const uint8_t pair = Load<uint8_t>(row, place.vector / 2 * 64 + place.in_vector);
  return scale * ((place.vector % 2 == 0 ? pair & 15 : pair >> 4) - 8);
}

double ActivationScale(const void* x, int64_t n, int64_t i) {
  return Load<float>(x, ActivationVectors(n) * 64 + Place(i).group * 4);
}

double ActivationElement(DType weights, const void* x, int64_t n, int64_t i) {
  if (!IsQuantized(weights)) return Load<float>(x, i * 4);
  return ActivationScale(x, n, i) * Load<int8_t>(x, i);
}

double Dot(const void* x, DType dtype, const void* row, int64_t k) {
  double sum = 0;
  for (int64_t i = 0; i < k; ++i) {
    sum += ActivationElement(dtype, x, k, i) * Element(dtype, row, k, i);
  }
  return sum;
}

std::vector<double> Axpy(DType dtype, const float* a, const void* const* rows, int64_t n,
                         int64_t cols) {
  std::vector<double> y(cols, 0.0);
  for (int64_t i = 0; i < n; ++i) {
    for (int64_t c = 0; c < cols; ++c) y[c] += a[i] * Element(dtype, rows[i], cols, c);
  }
  return y;
}

double Activate(Activation activation, float x) {
  if (std::isnan(x)) return x;
  switch (activation.kind) {
    case ActivationKind::kRelu:
    case ActivationKind::kDRelu:
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
  std::vector<double> out(args.tokens * args.group * dim, 0.0);
  for (int64_t i = 0; i < args.tokens * args.group; ++i) {
    const int64_t t = i / args.group;
    const float* const q = args.q + t * args.q_stride + i % args.group * dim;
    const auto offset = [&](int64_t p) {
      return args.kv.Offset(args.block_table[p / args.kv.block_size], args.kv_head,
                            p % args.kv.block_size);
    };
    std::vector<double> weights;
    double total = 0, top = -INFINITY;
    for (int64_t p = args.first; p < args.context + t; ++p) {
      weights.push_back(args.scale * Dot(q, args.kv.type, args.kv.keys + offset(p), dim));
      top = std::max(top, weights.back());
    }
    for (double& weight : weights) total += weight = std::exp(weight - top);
    for (int64_t p = args.first; p < args.context + t; ++p) {
      for (int64_t c = 0; c < dim; ++c) {
        out[i * dim + c] += weights[p - args.first] / total *
                            Element(args.kv.type, args.kv.values + offset(p), dim, c);
      }
    }
  }
  return out;
}

}  // namespace lacuna::reference
