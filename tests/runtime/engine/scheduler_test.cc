// What a request gets: tokens, text, log-probabilities, finish reasons, whatever the batch.

#include "runtime/engine/scheduler.h"

#include <algorithm>
#include <limits>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "runtime/engine/engine.h"
#include "tests/runtime/engine/engine_harness.h"

namespace lacuna {
namespace {

TEST(SchedulerTest, StreamsTheTokensThatTheModelSays) {
  EngineHarness h;
  std::vector<int32_t> script = Ids("hello");
  script.push_back(FakeTokenizer::kEos);
  SayAfter(&h.model, 3, script);
  GenerationRequest request = GreedyRequest("abc", 100);
  request.stopping.ignore_eos = false;
  const auto sink = h.Submit(request);
  h.RunAll();
  EXPECT_TRUE(sink->status().ok()) << sink->status();
  EXPECT_EQ(sink->text(), "hello");
  EXPECT_EQ(sink->tokens(), script);
  EXPECT_EQ(sink->deltas(), 6);
  EXPECT_EQ(sink->violations(), 0);
  const ChoiceResult result = sink->results().at(0);
  EXPECT_EQ(result.reason, FinishReason::kEos);
  EXPECT_EQ(result.matched_stop_token, FakeTokenizer::kEos);
  EXPECT_EQ(result.prompt_tokens, 3);
  EXPECT_EQ(result.completion_tokens, 6);
  EXPECT_DOUBLE_EQ(result.ffn_sparsity, 0.875);
}

TEST(SchedulerTest, EndsAtMaxTokensAndAtTheContext) {
  EngineHarness h({}, 64, 20);
  const auto length = h.Submit(GreedyRequest("0123456789", 7));
  const auto context = h.Submit(GreedyRequest("0123456789", 100));
  h.RunAll();
  EXPECT_EQ(length->results().at(0).reason, FinishReason::kLength);
  EXPECT_EQ(length->tokens().size(), 7u);
  EXPECT_EQ(context->results().at(0).reason, FinishReason::kContextLimit);
  EXPECT_EQ(context->tokens().size(), 10u);  // 20 in all
}

TEST(SchedulerTest, EndsAtTheCapacityOfTheKvCache) {
  EngineHarness h({}, 2, 512);  // 32 positions; the last token needs none
  const auto sink = h.Submit(GreedyRequest("0123456789", 100));
  h.RunAll();
  EXPECT_EQ(sink->results().at(0).reason, FinishReason::kContextLimit);
  EXPECT_EQ(sink->tokens().size(), 23u);
}

TEST(SchedulerTest, StopsAtStopStringsAndStopTokens) {
  EngineHarness h;
  SayAfter(&h.model, 3, Ids("one STOP two"));
  GenerationRequest request = GreedyRequest("abc", 100);
  request.stopping.stop_strings = {"STOP"};
  const auto cut = h.Submit(request);
  request.stopping.include_stop = true;
  const auto included = h.Submit(request);
  request = GreedyRequest("abc", 100);
  request.stopping.stop_token_ids = {FakeTokenizer::Byte('S')};
  const auto token = h.Submit(request);
  request.stopping.include_stop = true;
  const auto token_included = h.Submit(request);
  h.RunAll();
  EXPECT_EQ(cut->text(), "one ");
  EXPECT_EQ(cut->results().at(0).reason, FinishReason::kStopString);
  EXPECT_EQ(cut->results().at(0).matched_stop, "STOP");
  EXPECT_EQ(cut->tokens(), Ids("one STOP"));
  EXPECT_EQ(included->text(), "one STOP");
  EXPECT_EQ(token->text(), "one ");
  EXPECT_EQ(token->results().at(0).reason, FinishReason::kStopToken);
  EXPECT_EQ(token->results().at(0).matched_stop_token, FakeTokenizer::Byte('S'));
  EXPECT_EQ(token_included->text(), "one S");
}

TEST(SchedulerTest, MinTokensKeepsStopsAndEosAway) {
  EngineHarness h;
  h.model.logits_after = [](absl::Span<const int32_t>, absl::Span<float> logits) {
    logits[FakeTokenizer::kEos] = 3;
    logits[FakeTokenizer::Byte('s')] = 2;
    logits[FakeTokenizer::Byte('x')] = 1;
  };
  GenerationRequest request = GreedyRequest("abc", 100);
  request.stopping.ignore_eos = false;
  request.stopping.min_tokens = 4;
  const auto eos = h.Submit(request);
  request.stopping.stop_token_ids = {FakeTokenizer::Byte('s')};
  const auto token = h.Submit(request);
  request.stopping.stop_token_ids = {};
  request.stopping.stop_strings = {"ss"};
  const auto text = h.Submit(request);
  h.RunAll();
  EXPECT_EQ(eos->text(), "ssss");
  EXPECT_EQ(eos->results().at(0).completion_tokens, 5);
  EXPECT_EQ(token->text(), "xxxx");
  EXPECT_EQ(text->text(), "ss");  // the stop string that ends in the fourth token
  EXPECT_EQ(text->results().at(0).completion_tokens, 4);
}

TEST(SchedulerTest, StreamIntervalGroupsTokensButTheFirstAndTheLast) {
  EngineHarness h;
  GenerationRequest request = GreedyRequest("abc", 12);
  const auto single = h.Submit(request);
  request.stream_interval = 4;
  const auto grouped = h.Submit(request);
  h.RunAll();
  EXPECT_EQ(single->deltas(), 12);
  EXPECT_EQ(grouped->deltas(), 4);  // 1, 4, 4, 3
  EXPECT_EQ(grouped->tokens(), single->tokens());
  EXPECT_EQ(grouped->text(), single->text());
}

TEST(SchedulerTest, TheFirstTokenComesWithTheStepThatEndsThePrompt) {
  SchedulerOptions options;
  options.max_step_tokens = 16;
  EngineHarness h(options);
  const auto sink = h.Submit(GreedyRequest(std::string(33, 'p'), 5));
  EXPECT_TRUE(h.scheduler->RunStep());
  EXPECT_TRUE(h.scheduler->RunStep());
  EXPECT_EQ(sink->deltas(), 0);
  EXPECT_TRUE(h.scheduler->RunStep());
  EXPECT_EQ(sink->deltas(), 1);
}

TEST(SchedulerTest, OutputDoesNotDependOnChunksBatchOrPrefixCache) {
  std::vector<GenerationRequest> requests;
  for (int i = 0; i < 6; ++i) {
    GenerationRequest request = GreedyRequest(
        "a shared beginning of more than two blocks, then " + std::string(7 * i, 'a' + i), 40);
    if (i % 2 == 1) {
      request.sampling.temperature = 1;
      request.sampling.seed = 77;
      request.sampling.repetition_penalty = 1.2f;
    }
    requests.push_back(request);
  }
  std::vector<std::vector<int32_t>> alone;
  for (const GenerationRequest& request : requests) {
    EngineHarness h;
    const auto sink = h.Submit(request);
    h.RunAll();
    alone.push_back(sink->tokens());
  }
  ThreadPool pool(3);
  for (const int32_t max_step_tokens : {1, 7, 64, 512}) {
    for (const int32_t num_blocks : {10, 200}) {
      for (const bool prefix_cache : {false, true}) {
        SchedulerOptions options;
        options.max_step_tokens = max_step_tokens;
        options.prefix_cache = prefix_cache;
        options.pool = max_step_tokens < 64 ? &pool : nullptr;
        EngineHarness h(options, num_blocks);
        for (int repeat = 0; repeat < 2; ++repeat) {
          std::vector<std::shared_ptr<RecordingSink>> sinks;
          for (const GenerationRequest& request : requests) sinks.push_back(h.Submit(request));
          h.RunAll();
          for (size_t i = 0; i < sinks.size(); ++i) {
            EXPECT_TRUE(sinks[i]->status().ok()) << sinks[i]->status();
            EXPECT_EQ(sinks[i]->tokens(), alone[i]) << "request " << i;
          }
        }
        EXPECT_EQ(h.metrics.preemptions > 0, num_blocks == 10);
        EXPECT_EQ(h.metrics.prompt_cached > 0, prefix_cache);
        EXPECT_EQ(h.metrics.prompt_looked_up > 0, prefix_cache);
      }
    }
  }
}

TEST(SchedulerTest, AFullPromptHitComputesTheRestOnly) {
  EngineHarness h;
  const auto first = h.Submit(GreedyRequest(std::string(48, 'q'), 5));
  h.RunAll();
  EXPECT_EQ(first->results().at(0).cached_tokens, 0);
  const int64_t before = h.metrics.prefill_tokens;
  const auto second = h.Submit(GreedyRequest(std::string(48, 'q'), 5));
  h.RunAll();
  EXPECT_EQ(second->results().at(0).cached_tokens, 32);  // the last block is needed for its logits
  EXPECT_EQ(h.metrics.prefill_tokens - before, 16);
  EXPECT_EQ(h.metrics.prompt_cached, 32);
  EXPECT_EQ(h.metrics.prompt_computed, 48 + 16);
  EXPECT_EQ(second->tokens(), first->tokens());
  // What was generated is found too: 48 + 4 computed tokens are three full blocks.
  const auto longer = h.Submit(GreedyRequest(std::string(48, 'q') + first->text(), 5));
  h.RunAll();
  EXPECT_EQ(longer->results().at(0).cached_tokens, 48);
}

TEST(SchedulerTest, WhatAPredictorDecodedIsNotFoundAgain) {
  EngineHarness h;
  h.model.mutable_facts().has_predictor = true;
  const auto first = h.Submit(GreedyRequest(std::string(48, 'q'), 5));
  h.RunAll();
  // The third block is the prompt's; with one more it would be generated text too.
  const auto longer = h.Submit(GreedyRequest(std::string(48, 'q') + first->text(), 5));
  h.RunAll();
  EXPECT_EQ(longer->results().at(0).cached_tokens, 48);
  const auto unaligned = h.Submit(GreedyRequest(std::string(44, 'r'), 10));
  h.RunAll();
  const auto again = h.Submit(GreedyRequest(std::string(44, 'r') + unaligned->text(), 5));
  h.RunAll();
  EXPECT_EQ(again->results().at(0).cached_tokens, 32);
}

TEST(SchedulerTest, ARequestForAForcedPathKeepsPredictorsOut) {
  EngineHarness h;
  bool exact = false;
  h.model.on_forward = [&](absl::Span<const SequenceChunk> chunks, FfnMode) {
    for (const SequenceChunk& chunk : chunks) exact |= chunk.exact;
    return absl::OkStatus();
  };
  GenerationRequest request = GreedyRequest("q", 3);
  h.Submit(request);
  h.RunAll();
  EXPECT_FALSE(exact);
  request.ffn_mode = FfnMode::kSparse;
  h.Submit(request);
  h.RunAll();
  EXPECT_TRUE(exact);
}

TEST(SchedulerTest, TenantsDoNotShareThePrefixCache) {
  EngineHarness h;
  GenerationRequest request = GreedyRequest(std::string(48, 'q'), 5);
  request.tenant = "a";
  h.Submit(request);
  h.RunAll();
  request.tenant = "b";
  const auto other = h.Submit(request);
  h.RunAll();
  EXPECT_EQ(other->results().at(0).cached_tokens, 0);
}

TEST(SchedulerTest, ChoicesAreIndependentStreamsThatSharePrefillWork) {
  EngineHarness h;
  GenerationRequest request = GreedyRequest(std::string(40, 'q'), 30);
  request.sampling.temperature = 1;
  request.sampling.seed = 5;
  request.n = 3;
  const auto three = h.Submit(request);
  h.RunAll();
  EXPECT_TRUE(three->status().ok());
  EXPECT_EQ(three->results().size(), 3u);
  EXPECT_EQ(three->violations(), 0);
  EXPECT_EQ(h.metrics.prefill_tokens, 40 + 8 + 8);
  EXPECT_NE(three->tokens(0), three->tokens(1));
  EXPECT_NE(three->tokens(1), three->tokens(2));

  request.n = 1;
  const auto one = h.Submit(request);
  h.RunAll();
  EXPECT_EQ(one->tokens(0), three->tokens(0));
}

TEST(SchedulerTest, ReportsLogprobsOfPromptAndOutput) {
  GenerationRequest request = GreedyRequest(std::string(40, 'q') + "xyz", 6);
  request.logprobs = 2;
  request.prompt_logprobs = 1;
  request.n = 2;
  std::vector<TokenInfo> expected;
  for (const int32_t max_step_tokens : {1, 5, 512}) {
    SchedulerOptions options;
    options.max_step_tokens = max_step_tokens;
    EngineHarness h(options);
    h.Submit(GreedyRequest(std::string(40, 'q') + "xyz", 1));  // fills the prefix cache
    h.RunAll();
    const auto sink = h.Submit(request);
    h.RunAll();
    ASSERT_TRUE(sink->status().ok());
    EXPECT_EQ(sink->violations(), 0);
    const std::vector<TokenInfo> prompt = sink->prompt_infos();
    ASSERT_EQ(prompt.size(), 43u);
    EXPECT_TRUE(prompt[0].top.empty());
    for (size_t i = 0; i < prompt.size(); ++i) {
      EXPECT_EQ(prompt[i].token_id, request.prompt[i]);
      if (i > 0) {
        ASSERT_EQ(prompt[i].top.size(), 1u);
        EXPECT_LE(prompt[i].logprob, prompt[i].top[0].logprob);
        EXPECT_LT(prompt[i].logprob, 0);
      }
      if (!expected.empty()) {
        EXPECT_EQ(prompt[i].logprob, expected[i].logprob);
      }
    }
    expected = prompt;
    for (const TokenInfo& info : sink->infos()) {
      ASSERT_EQ(info.top.size(), 2u);
      EXPECT_EQ(info.top[0].token_id, info.token_id);
      EXPECT_EQ(info.top[0].logprob, info.logprob);
    }
    EXPECT_EQ(sink->results().at(0).cached_tokens, 0);
    EXPECT_EQ(sink->results().at(1).cached_tokens, 32);
  }
}

TEST(SchedulerTest, PromptLogprobsTakeFewRowsOfAStepAndHoldNobodyUp) {
  std::vector<GenerationRequest> requests(4, GreedyRequest(std::string(200, 'q'), 4));
  for (size_t i = 0; i < requests.size(); ++i) {
    requests[i].prompt[0] = FakeTokenizer::Byte(static_cast<char>('a' + i));
    requests[i].prompt_logprobs = 1;
  }
  std::vector<std::vector<TokenInfo>> expected;  // one token per step is below any cap
  for (const GenerationRequest& request : requests) {
    SchedulerOptions options;
    options.max_step_tokens = 1;
    EngineHarness h(options);
    const auto sink = h.Submit(request);
    h.RunAll();
    expected.push_back(sink->prompt_infos());
  }

  EngineHarness h({}, 128);
  size_t most_prompt_rows = 0, sequences = 1;
  h.model.on_forward = [&](absl::Span<const SequenceChunk> chunks, FfnMode) {
    size_t rows = 0;
    for (const SequenceChunk& chunk : chunks) rows += chunk.logits;
    EXPECT_LE(rows, kMaxPromptLogitRows + chunks.size());
    EXPECT_GE(chunks.size(), sequences);  // everyone gets on in every step
    most_prompt_rows = std::max(most_prompt_rows, rows);
    return absl::OkStatus();
  };
  const auto stream = h.Submit(GreedyRequest("abc", 400));
  h.scheduler->RunStep();
  std::vector<std::shared_ptr<RecordingSink>> sinks;
  for (const GenerationRequest& request : requests) sinks.push_back(h.Submit(request));
  const auto plain = h.Submit(GreedyRequest(std::string(300, 'p'), 100));
  sequences = 6;
  h.scheduler->RunStep();
  EXPECT_EQ(plain->tokens().size(), 1u);  // a long prompt without them is done in one step
  while (!sinks.front()->done()) h.scheduler->RunStep();
  sequences = 1;
  h.RunAll();
  EXPECT_GE(most_prompt_rows, static_cast<size_t>(kMaxPromptLogitRows));  // no step is idle
  EXPECT_EQ(stream->tokens().size(), 400u);
  for (size_t i = 0; i < sinks.size(); ++i) {
    EXPECT_EQ(sinks[i]->prompt_infos(), expected[i]) << "request " << i;
    EXPECT_EQ(expected[i].size(), 200u);
  }
}

TEST(SchedulerTest, AStepRunsDenseOrSparseOnlyIfAllItsSequencesAgree) {
  std::vector<FfnMode> modes;
  const auto run = [&modes](FfnMode operators, std::vector<FfnMode> requests) {
    SchedulerOptions options;
    options.ffn_mode = operators;
    EngineHarness h(options);
    h.model.on_forward = [&modes](absl::Span<const SequenceChunk>, FfnMode mode) {
      modes.push_back(mode);
      return absl::OkStatus();
    };
    for (const FfnMode mode : requests) {
      GenerationRequest request = GreedyRequest("abc", 1);
      request.ffn_mode = mode;
      h.Submit(request);
    }
    h.RunAll();
  };
  using enum FfnMode;
  run(kAuto, {kDense, kDense});
  run(kAuto, {kSparse});
  run(kAuto, {kDense, kSparse});
  run(kAuto, {kAuto, kSparse});
  run(kSparse, {kDense, kDense});
  EXPECT_EQ(modes, (std::vector<FfnMode>{kDense, kSparse, kAuto, kAuto, kSparse}));
}

TEST(SchedulerTest, BadLogitsEndOnlyTheirRequest) {
  EngineHarness h;
  const auto good_logits = h.model.logits_after;
  h.model.logits_after = [&](absl::Span<const int32_t> history, absl::Span<float> logits) {
    good_logits(history, logits);
    if (history[0] == FakeTokenizer::Byte('!') && history.size() == 6) {
      logits[5] = std::numeric_limits<float>::quiet_NaN();
    }
  };
  const auto good = h.Submit(GreedyRequest("abc", 10));
  GenerationRequest request = GreedyRequest("!bc", 10);
  request.n = 2;  // both are in the batch when the first one fails
  const auto bad = h.Submit(request);
  const auto other = h.Submit(GreedyRequest("abd", 10));
  h.RunAll();
  EXPECT_EQ(bad->status().code(), absl::StatusCode::kInternal);
  EXPECT_EQ(bad->tokens().size(), 3u);
  EXPECT_TRUE(bad->results().empty());
  EXPECT_TRUE(good->status().ok());
  EXPECT_TRUE(other->status().ok());
  EXPECT_EQ(other->tokens().size(), 10u);
  EXPECT_EQ(h.scheduler->GetLoad().kv_blocks_used, 0);
}

TEST(SchedulerTest, WhatABadStepComputedIsNotFoundAgain) {
  EngineHarness h;
  const auto good_logits = h.model.logits_after;
  bool bad = true;
  h.model.logits_after = [&](absl::Span<const int32_t> history, absl::Span<float> logits) {
    good_logits(history, logits);
    if (bad) logits[5] = std::numeric_limits<float>::quiet_NaN();
  };
  const std::string prompt(48, 'a');
  const auto first = h.Submit(GreedyRequest(prompt, 2));
  h.RunAll();
  EXPECT_EQ(first->status().code(), absl::StatusCode::kInternal);
  bad = false;
  const auto second = h.Submit(GreedyRequest(prompt, 2));
  h.RunAll();
  ASSERT_TRUE(second->status().ok()) << second->status();
  EXPECT_EQ(second->results().at(0).cached_tokens, 0);
}

TEST(SchedulerTest, RequestsThatNoStepCanTakeEndWithAnError) {
  SchedulerOptions options;
  options.max_concurrent = 0;  // only max_queue places to wait
  EngineHarness h(options);
  const auto one = h.Submit(GreedyRequest("abc", 3));
  const auto other = h.Submit(GreedyRequest("abd", 3));
  EXPECT_TRUE(h.scheduler->RunStep());
  for (const auto& sink : {one, other}) {
    EXPECT_EQ(sink->status(),
              absl::InternalError("none of the 2 requests in flight can be scheduled"));
    EXPECT_EQ(sink->violations(), 0);
  }
  EXPECT_FALSE(h.scheduler->RunStep());
  EXPECT_TRUE(h.scheduler->WaitIdle(absl::ZeroDuration()));
}

TEST(SchedulerTest, AModelThatKnowsMoreIdsThanTheTokenizerSaysOnlyKnownOnes) {
  FakeModel padded(320);
  padded.logits_after = [](absl::Span<const int32_t>, absl::Span<float> logits) {
    logits[300] = 9;
    logits[FakeTokenizer::Byte('k')] = 5;
  };
  SchedulerHarness h({}, &padded, 8);
  const auto sink = h.Submit(GreedyRequest("abc", 3));
  h.RunAll();
  EXPECT_EQ(sink->text(), "kkk");
}

}  // namespace
}  // namespace lacuna
