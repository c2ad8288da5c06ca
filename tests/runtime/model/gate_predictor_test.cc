#include "runtime/model/gate_predictor.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <vector>

namespace lacuna {
namespace {

// Margins that active neurons need, if errors are normal and tokens are not alike.
std::vector<float> Needed(int count, std::mt19937* random) {
  std::normal_distribution<float> normal;
  const float shift = 0.3f * normal(*random);
  std::vector<float> needed(count);
  for (float& margin : needed) margin = normal(*random) + shift;
  return needed;
}

TEST(GatePredictorTest, LearnsTheMarginThatFindsTheShareAskedFor) {
  for (const double recall : {0.9, 0.99}) {
    for (const int active : {2, 40, 2000}) {  // of a layer that is nearly dead, up to a large one
      std::mt19937 random(1);
      GatePredictor predictor(recall);
      double all = 0, missed = 0;
      for (int audit = 0; audit < 5000; ++audit) {
        const std::vector<float> needed = Needed(active, &random);
        if (audit >= 1000) {
          all += active;
          missed += std::count_if(needed.begin(), needed.end(),
                                  [&](float margin) { return margin > predictor.margin(); });
        }
        predictor.Learn(needed, 3000, 10000);
      }
      EXPECT_LE(missed / all, 0.8 * (1 - recall)) << active;
      EXPECT_GE(missed / all, 0.4 * (1 - recall)) << active << ": names more than was asked for";
    }
  }
}

TEST(GatePredictorTest, PaysOnlyWhileSketchAndNamedRowsAreLessThanTheGate) {
  GatePredictor predictor(0.99);
  EXPECT_TRUE(predictor.Pays(4, 25, 100)) << "nothing is known yet";
  predictor.Learn({0.0f}, 300, 1000);
  EXPECT_TRUE(predictor.Pays(1, 25, 100));
  EXPECT_TRUE(predictor.Pays(2, 25, 100));
  EXPECT_FALSE(predictor.Pays(3, 25, 100)) << "25 + 90 rows for three tokens";
  EXPECT_FALSE(predictor.Pays(1, 75, 100));
}

TEST(GatePredictorTest, ATokenWithoutActiveNeuronsTeachesNoMargin) {
  GatePredictor predictor(0.99);
  predictor.Learn({}, 0, 1000);
  EXPECT_EQ(predictor.margin(), 3.0f);
}

}  // namespace
}  // namespace lacuna
