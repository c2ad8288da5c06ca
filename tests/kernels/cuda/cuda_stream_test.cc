#include "kernels/cuda/cuda_stream.h"

#include <vector>

#include "absl/strings/match.h"
#include "kernels/cuda/elementwise.h"
#include "tests/kernels/cuda/device_data.h"

namespace lacuna {
namespace {

using CudaStreamTest = CudaTest;
using CudaGraphTest = CudaTest;

TEST_F(CudaStreamTest, RunsCopiesAndKernelsInTheirOrder) {
  absl::StatusOr<PinnedBuffer> host = PinnedBuffer::Allocate(8);
  ASSERT_TRUE(host.ok()) << host.status();
  DeviceArray<float> x(2), y(2);
  host->as<float>()[0] = 1.0f;
  host->as<float>()[1] = 2.0f;
  stream().CopyToDevice(x.get(), host->data(), 8);
  stream().Zero(y.get(), 8);
  AddScaled(stream(), 3.0f, x.get(), 2, y.get());
  stream().CopyOnDevice(x.get() + 1, y.get(), 4);
  AddScaled(stream(), 1.0f, x.get(), 2, y.get());
  stream().CopyToHost(host->data(), y.get(), 8);
  Synchronize();
  EXPECT_EQ(host->as<float>()[0], 4.0f);
  EXPECT_EQ(host->as<float>()[1], 9.0f);
}

TEST_F(CudaStreamTest, NamesWhatFailedFirstAndStaysFailed) {
  int something = 0;
  stream().CopyToHost(&something, nullptr, 4);  // from no device memory
  stream().Fail(absl::UnknownError("later"));
  for (int i = 0; i < 2; ++i) {
    const absl::Status status = stream().Synchronize();
    EXPECT_EQ(status.code(), absl::StatusCode::kInternal);
    EXPECT_TRUE(absl::StrContains(status.message(), "CopyToHost")) << status;
  }
}

TEST_F(CudaStreamTest, MeasuresTheTimeBetweenEvents) {
  absl::StatusOr<CudaEvent> start = CudaEvent::Create();
  absl::StatusOr<CudaEvent> end = CudaEvent::Create();
  ASSERT_TRUE(start.ok() && end.ok());
  DeviceArray<float> x(std::vector<float>(1000, 1.0f));
  stream().Record(*start);
  Scale(stream(), 2.0f, x.size(), x.get());
  stream().Record(*end);
  Synchronize();
  const absl::StatusOr<double> seconds = end->SecondsSince(*start);
  ASSERT_TRUE(seconds.ok()) << seconds.status();
  EXPECT_GT(*seconds, 0.0);
  EXPECT_LT(*seconds, 60.0);
}

TEST_F(CudaStreamTest, WaitsForAnEventOfAnotherStream) {
  absl::StatusOr<CudaStream> other = CudaStream::Create();
  absl::StatusOr<CudaEvent> event = CudaEvent::Create();
  ASSERT_TRUE(other.ok() && event.ok());
  DeviceArray<float> x(std::vector<float>(100, 1.0f));
  DeviceArray<float> y(std::vector<float>(100, 0.0f));
  Scale(*other, 5.0f, x.size(), x.get());
  other->Record(*event);
  stream().Wait(*event);
  AddScaled(stream(), 1.0f, x.get(), x.size(), y.get());
  Synchronize();
  EXPECT_EQ(y.Values(), std::vector<float>(100, 5.0f));
}

TEST_F(CudaGraphTest, RepeatsWhatWasCapturedOnWhatIsThereNow) {
  DeviceArray<float> x(std::vector<float>(3, 1.0f));
  DeviceArray<float> y(std::vector<float>(3, 0.0f));
  absl::StatusOr<CudaGraph> graph = CudaGraph::Capture(stream(), [&] {
    Scale(stream(), 2.0f, 3, x.get());
    AddScaled(stream(), 1.0f, x.get(), 3, y.get());
  });
  ASSERT_TRUE(graph.ok()) << graph.status();
  EXPECT_FALSE(graph->empty());
  Synchronize();
  EXPECT_EQ(y.Values(), std::vector<float>(3, 0.0f)) << "capturing ran something";
  for (int i = 0; i < 3; ++i) graph->Launch(stream());
  Synchronize();
  EXPECT_EQ(y.Values(), std::vector<float>(3, 2.0f + 4.0f + 8.0f));
}

TEST_F(CudaGraphTest, SaysWhatCannotBeCaptured) {
  const absl::StatusOr<CudaGraph> graph = CudaGraph::Capture(
      stream(), [&] { stream().Fail(absl::UnimplementedError("heads of 1,000 elements")); });
  EXPECT_EQ(graph.status().code(), absl::StatusCode::kUnimplemented) << graph.status();
}

}  // namespace
}  // namespace lacuna
