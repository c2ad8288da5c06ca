#!/usr/bin/env python3
"""Writes the dashboards, lacuna-service.json and lacuna-sparsity.json, next to this file.

The files are what Grafana and the Helm chart take; this is where they are edited.
"""
import json
import pathlib

SCHEMA_VERSION = 41
# Every query sees the variables of the dashboard. Series that have no namespace match "All".
NAMESPACE = 'namespace=~"$namespace"'
INSTANCE = NAMESPACE + ',instance=~"$instance"'
MODEL = NAMESPACE + ',model=~"$model"'  # of what is recorded over instances
SELECTOR = MODEL + ',instance=~"$instance"'
DATASOURCE = {"type": "prometheus", "uid": "$datasource"}

GREEN, YELLOW, RED, BLUE = "green", "yellow", "red", "blue"


def up_is_bad(warn, bad):
    return [(None, GREEN), (warn, YELLOW), (bad, RED)]


def down_is_bad(warn, bad):
    return [(None, RED), (bad, YELLOW), (warn, GREEN)]


# For what is neither good nor bad by itself.
PLAIN = [(None, BLUE)]


class Dashboard:
    def __init__(self, uid, title, description):
        self.panels, self.x, self.y, self.row_height = [], 0, 0, 0
        self.target = self.panels
        self.json = {
            "uid": uid, "title": title, "description": description, "tags": ["lacuna"],
            "schemaVersion": SCHEMA_VERSION, "version": 1, "editable": True, "graphTooltip": 1,
            "refresh": "30s", "time": {"from": "now-1h", "to": "now"}, "timezone": "browser",
            "fiscalYearStartMonth": 0, "preload": False, "links": [{
                "type": "dashboards", "title": "Lacuna", "tags": ["lacuna"], "asDropdown": False,
                "includeVars": True, "keepTime": True, "targetBlank": False, "icon": "",
                "tooltip": "", "url": ""}],
            "annotations": {"list": []},
            "templating": {"list": [
                {"name": "datasource", "label": "Data source", "type": "datasource",
                 "query": "prometheus", "hide": 0, "refresh": 1, "regex": "", "current": {}},
                self.variable("namespace", "Namespace",
                              "label_values(lacuna_model_ready, namespace)"),
                self.variable("model", "Model",
                              f"label_values(lacuna_model_ready{{{NAMESPACE}}}, model)"),
                self.variable("instance", "Instance",
                              f"label_values(lacuna_model_ready{{{MODEL}}}, instance)")]},
            "panels": self.panels}

    @staticmethod
    def variable(name, label, query):
        return {"name": name, "label": label, "type": "query", "datasource": DATASOURCE,
                "query": {"query": query, "refId": name}, "definition": query, "hide": 0,
                "refresh": 2, "regex": "", "sort": 1, "multi": True, "includeAll": True,
                "allValue": ".*", "current": {"text": ["All"], "value": ["$__all"]}}

    def row(self, title, collapsed=False):
        self.y += self.row_height
        row = {"type": "row", "title": title, "id": 0, "collapsed": collapsed, "panels": [],
               "gridPos": {"x": 0, "y": self.y, "w": 24, "h": 1}}
        self.panels.append(row)
        self.target = row["panels"] if collapsed else self.panels
        self.x, self.y, self.row_height = 0, self.y + 1, 0

    def panel(self, kind, title, description, unit, thresholds, queries, width, height=8,
              defaults=None, options=None, query_format="time_series", instant=False):
        """`queries`: (legend, expression) pairs; SELECTOR stands in them as {S}."""
        if self.x + width > 24:
            self.x, self.y, self.row_height = 0, self.y + self.row_height, 0
        field = {"unit": unit, "color": {"mode": "palette-classic"},
                 "thresholds": {"mode": "absolute",
                                "steps": [{"value": v, "color": c} for v, c in thresholds]}}
        field.update(defaults or {})
        self.target.append({
            "id": 0, "type": kind, "title": title, "description": description,
            "datasource": DATASOURCE,
            "gridPos": {"x": self.x, "y": self.y, "w": width, "h": height},
            "fieldConfig": {"defaults": field, "overrides": []}, "options": options or {},
            "targets": [{
                "refId": chr(ord("A") + i), "datasource": DATASOURCE, "editorMode": "code",
                "expr": expression.replace("{S}", SELECTOR), "legendFormat": legend,
                "format": query_format, "instant": instant, "range": not instant}
                for i, (legend, expression) in enumerate(queries)]})
        self.x += width
        self.row_height = max(self.row_height, height)

    def stat(self, title, description, unit, thresholds, query, width=4, legend="", **defaults):
        self.panel("stat", title, description, unit, thresholds, [(legend, query)], width, 4,
                   {"color": {"mode": "thresholds"}, **defaults},
                   {"graphMode": "area", "colorMode": "value",
                    "textMode": "value_and_name" if legend else "auto",
                    "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False}})

    def lines(self, title, description, unit, thresholds, queries, width=8, stack=None, **defaults):
        custom = {"drawStyle": "line", "lineWidth": 1, "fillOpacity": 30 if stack else 10,
                  "showPoints": "never", "spanNulls": False,
                  "stacking": {"mode": stack or "none", "group": "A"},
                  # The limits as lines, where there is a limit.
                  "thresholdsStyle": {"mode": "off" if len(thresholds) == 1 else "dashed"}}
        self.panel("timeseries", title, description, unit, thresholds, queries, width, 8,
                   {"custom": custom, "min": 0, **defaults},
                   {"legend": {"displayMode": "list", "placement": "bottom", "showLegend": True},
                    "tooltip": {"mode": "multi", "sort": "desc"}})

    def heatmap(self, title, description, unit, thresholds, legend, query, width=8, buckets=True,
                **color):
        """Of a histogram's buckets, or (`buckets` false) of one row per series."""
        scale = {"mode": "scheme", "scheme": "Viridis", "steps": 64, "fill": "dark-blue",
                 "exponent": 0.5, "scale": "exponential", "reverse": False, **color}
        self.panel("heatmap", title, description, unit if not buckets else "short", thresholds,
                   [(legend, query)], width, 8,
                   {"custom": {"hideFrom": {"legend": False, "tooltip": False, "viz": False},
                               "scaleDistribution": {"type": "linear"}}},
                   {"calculate": False, "cellGap": 1, "color": scale,
                    "cellValues": {"unit": unit if not buckets else "short"},
                    "yAxis": {"unit": unit if buckets else "short", "axisPlacement": "left",
                              "reverse": False},
                    "rowsFrame": {"layout": "auto"}, "showValue": "never",
                    "filterValues": {"le": 1e-9}, "exemplars": {"color": "orange"},
                    "legend": {"show": True},
                    "tooltip": {"mode": "single", "yHistogram": False, "showColorScale": True}},
                   query_format="heatmap" if buckets else "time_series")

    def write(self):
        panels = [p for panel in self.panels for p in [panel, *panel.get("panels", [])]]
        for number, panel in enumerate(panels, start=1):
            panel["id"] = number
        path = pathlib.Path(__file__).parent / f"{self.json['uid']}.json"
        path.write_text(json.dumps(self.json, indent=1, ensure_ascii=False) + "\n")


def quantiles(metric, labels="{S}"):
    return [(f"p{q}", f"histogram_quantile(0.{q}, sum by (le) "
             f"(rate({metric}_bucket{{{labels}}}[$__rate_interval])))") for q in (50, 95, 99)]


def buckets(metric):
    return f"sum by (le) (rate({metric}_bucket{{{{S}}}}[$__rate_interval]))"


def mean(metric):
    return (f"sum(rate({metric}_sum{{{{S}}}}[$__rate_interval]))"
            f" / sum(rate({metric}_count{{{{S}}}}[$__rate_interval]))")


def rate(metric, by="", labels="{S}"):
    group = f" by ({by})" if by else ""
    return f"sum{group} (rate({metric}{{{labels}}}[$__rate_interval]))"


GENERATE = '{S},method=~"Generate|GenerateStream"'
FAILED = GENERATE + ',code=~"INTERNAL|UNAVAILABLE|RESOURCE_EXHAUSTED|DEADLINE_EXCEEDED"'
ANSWERABLE = FAILED.replace('code=~"', 'code=~"OK|')


def service():
    d = Dashboard("lacuna-service", "Lacuna / Service",
                  "Is it well: objectives, traffic, latency, batching, saturation, engine.")
    d.row("Objectives")
    d.stat("Requests answered",
           "Share of Generate calls that did not fail, of those that could be answered: a client's "
           "own mistakes and cancellations are left out, and reading too slowly is no failure. "
           "Objective: 99.5 %.",
           "percentunit", down_is_bad(0.995, 0.98),
           f"1 - clamp_min(sum(increase(lacuna_requests_total{{{FAILED}}}[$__range])"
           " or -increase(lacuna_slow_consumer_total{{S}}[$__range])), 0)"
           f" / sum(increase(lacuna_requests_total{{{ANSWERABLE}}}[$__range]))",
           max=1, decimals=2)
    d.stat("First token within 2.5 s",
           "Share of first tokens that came within 2.5 s of arrival. Objective: 99 %.",
           "percentunit", down_is_bad(0.99, 0.95),
           'sum(increase(lacuna_time_to_first_token_seconds_bucket{{S},le="2.5"}[$__range])) / '
           "sum(increase(lacuna_time_to_first_token_seconds_count{{S}}[$__range]))",
           max=1, decimals=2)
    d.stat("Error budget burn, 1 h",
           "How many times faster than allowed the error budget of 30 days is being spent; at 1 "
           "it lasts exactly that long. Paged at 14.4.",
           "none", up_is_bad(1, 14.4),
           f"max(lacuna:request_errors:ratio_rate1h{{{MODEL}}}) / 0.005", decimals=1)
    d.stat("TTFT budget burn, 1 h",
           "The same for the objective of the time to first token.", "none", up_is_bad(1, 14.4),
           f"max(lacuna:ttft_slow:ratio_rate1h{{{MODEL}}}) / 0.01", decimals=1)
    d.stat("Models ready", "Share of (model, instance) pairs that answer requests.",
           "percentunit", down_is_bad(1, 0.5), "avg(lacuna_model_ready{{S}})", max=1)
    d.stat("Slots in use", "Running sequences over the most that may run at a time.",
           "percentunit", up_is_bad(0.8, 1),
           "sum(lacuna_requests_running{{S}}) / sum(lacuna_running_capacity{{S}})", max=1)

    d.row("Traffic")
    d.lines("Generate calls by code", "Calls that ended, per second, by gRPC status.", "reqps",
            PLAIN, [("{{code}}", rate("lacuna_requests_total", "code", GENERATE) + " > 0")],
            stack="normal")
    d.lines("Why generation ended", "Finish reasons of the calls that ended with OK.", "reqps",
            PLAIN, [("{{finish_reason}}",
                     rate("lacuna_requests_total", "finish_reason", GENERATE + ',code="OK"')
                     + " > 0")], stack="normal")
    d.lines("Tokens", "Prompt tokens by source (computed, or found in the prefix cache), and "
            "generated tokens, per second.", "short", PLAIN,
            [("prompt, {{source}}", rate("lacuna_prompt_tokens_total", "source")),
             ("generated", rate("lacuna_generation_tokens_total"))])
    d.lines("Refused", "Generate calls refused, by reason. queue_full: more "
            "replicas; draining or loading: a rollout.", "reqps", up_is_bad(0.1, 1),
            [("{{reason}}", rate("lacuna_requests_rejected_total", "reason"))])
    d.lines("Cancelled, by where they were", "Cancelled, disconnected or past their deadline. "
            "Many in the queue: clients give up waiting.", "reqps", up_is_bad(0.1, 1),
            [("{{where}}", rate("lacuna_cancelled_total", "where"))])
    d.lines("Arrived and ended", "All calls; the two lines agree but for what is running.",
            "reqps", PLAIN, [("arrived", rate("lacuna_requests_started_total")),
                             ("ended", rate("lacuna_requests_total"))])

    d.row("Latency")
    d.lines("Time to first token", "Arrival to first token. Dashed: 1 s, and the objective, "
            "2.5 s.", "s", up_is_bad(1, 2.5), quantiles("lacuna_time_to_first_token_seconds"))
    d.lines("Between tokens", "Time between two tokens of a choice. Dashed: 50 and 100 ms.", "s",
            up_is_bad(0.05, 0.1), quantiles("lacuna_inter_token_latency_seconds"))
    d.lines("Time per output token", "Mean over a choice, after its first token.", "s",
            up_is_bad(0.05, 0.1), quantiles("lacuna_time_per_output_token_seconds"))
    d.heatmap("Time to first token", "How many first tokens a second, by how long they took.",
              "s", up_is_bad(1, 2.5), "{{le}}", buckets("lacuna_time_to_first_token_seconds"))
    d.heatmap("Between tokens", "How many tokens a second, by the time since the one before.", "s",
              up_is_bad(0.05, 0.1), "{{le}}", buckets("lacuna_inter_token_latency_seconds"))
    d.heatmap("Whole calls", "How many Generate calls a second, by their duration.", "s",
              up_is_bad(30, 60), "{{le}}", buckets("lacuna_request_duration_seconds"))
    d.lines("Where the time goes", "Mean time in the queue, in prefill and in decode. A long "
            "queue: saturation; a long prefill: long prompts or a full step.", "s",
            up_is_bad(30, 60), [("queue", mean("lacuna_queue_time_seconds")),
                                ("prefill", mean("lacuna_prefill_seconds")),
                                ("decode", mean("lacuna_decode_seconds"))], width=12,
            stack="normal")
    d.lines("Time in the queue", "Arrival to first scheduled.", "s", up_is_bad(0.5, 2),
            quantiles("lacuna_queue_time_seconds"), width=12)

    d.row("Batching")
    d.heatmap("Batch size", "Steps a second, by how many sequences they carried.", "short",
              PLAIN, "{{le}}", buckets("lacuna_batch_size"))
    d.lines("Sequences and tokens of a step", "Means. Tokens above sequences are prefill.",
            "short", PLAIN, [("sequences", mean("lacuna_batch_size")),
                             ("tokens", mean("lacuna_step_tokens"))])
    d.lines("Step duration by phase", "Median and 95th percentile; mixed: some sequences "
            "prefill while others decode. Decoding sequences wait for the whole step.", "s",
            up_is_bad(0.1, 1),
            [(f"{{{{phase}}}} p{q}", f"histogram_quantile(0.{q}, sum by (le, phase) (rate("
              "lacuna_step_duration_seconds_bucket{{S}}[$__rate_interval])))") for q in (50, 95)])

    d.row("Saturation")
    d.lines("Running", "Sequences in the batch of each instance, against the most that may run.",
            "short", PLAIN,
            [("{{instance}}", "sum by (instance) (lacuna_requests_running{{S}})"),
             ("capacity of one", "max(sum by (instance) (lacuna_running_capacity{{S}}))")])
    d.lines("Places taken", "By sequences that run or wait, of --max_concurrent + --max_queue. At "
            "100 % calls are refused with RESOURCE_EXHAUSTED.", "percentunit", up_is_bad(0.5, 0.8),
            [("{{model}} {{instance}}", "lacuna:queue_fill:ratio{{S}}")], max=1)
    d.lines("Open calls", "Generate calls that are open on each instance; even lines mean that "
            "balancing works.", "short", PLAIN,
            [("{{instance}}", "sum by (instance) (lacuna_grpc_streams_open{{S}})")])
    d.lines("KV cache", "Share of blocks that sequences hold. Near 100 % sequences are "
            "preempted: --kv_cache_mb.", "percentunit", up_is_bad(0.8, 0.95),
            [("{{model}} {{instance}}", "lacuna_kv_cache_usage_ratio{{S}}")], max=1)
    d.lines("Preemptions and slow readers", "Sequences sent back to the queue for lack of KV "
            "blocks, and streams ended because their client did not read.", "ops",
            up_is_bad(0.1, 1), [("preempted", rate("lacuna_preemptions_total")),
                                ("slow consumer", rate("lacuna_slow_consumer_total"))])
    d.lines("Prefix cache", "Share of prompt tokens that were found, not computed.",
            "percentunit", PLAIN,
            [("hit", rate("lacuna_prefix_cache_hits_total") + " / "
              + rate("lacuna_prefix_cache_queries_total"))], max=1)

    d.row("Engine")
    d.lines("Since the last step", "While calls are open. Over 60 s it may be a stall "
            "(lacuna_engine_stalled says so), or the first step after a pause, or clients that "
            "still read what is finished.", "s", up_is_bad(30, 60),
            [("{{model}} {{instance}}", "(time() - lacuna_engine_last_step_timestamp_seconds"
              "{{S}}) * (lacuna_grpc_streams_open{{S}} > bool 0)")])
    d.lines("Steps", "Engine steps a second, by phase.", "ops", PLAIN,
            [("{{phase}}", rate("lacuna_step_duration_seconds_count", "phase"))])
    d.lines("Time spent in steps", "Share of the time the engine computes; near 100 % it is the "
            "limit.", "percentunit", up_is_bad(0.9, 0.98),
            [("{{model}} {{instance}}",
              rate("lacuna_step_duration_seconds_sum", "model, instance"))])
    d.stat("Model load time", "Longest of the models shown: what a new replica costs before it "
           "helps.", "s", up_is_bad(120, 600), "max(lacuna_model_load_seconds{{S}})", width=8)
    d.stat("Draining", "Instances that take no new requests.", "short", up_is_bad(1, 2),
           f"sum(lacuna_draining{{{INSTANCE}}})", width=8)
    d.stat("Instances by version", "More than one version during a rollout only.", "short",
           PLAIN, f"count by (version) (lacuna_build_info{{{INSTANCE}}})", width=8,
           legend="{{version}}")
    d.write()


SPARSITY = ("1 - sum%s (rate(lacuna_ffn_neurons_active_total{{S}}[$__rate_interval]))"
            " / sum%s (rate(lacuna_ffn_neurons_total{{S}}[$__rate_interval]))")


def sparsity_by(labels):
    group = f" by ({labels})" if labels else ""
    return SPARSITY % (group, group)


def sparsity():
    read, skipped = (rate(f"lacuna_ffn_weight_bytes_{what}_total") for what in ("read", "skipped"))
    tokens = rate("lacuna_generation_tokens_total")
    batch = mean("lacuna_batch_size")
    d = Dashboard("lacuna-sparsity", "Lacuna / Sparsity",
                  "What the zeros of the feed-forward layers are, and what they save.")
    d.row("Now")
    d.stat("Activation sparsity", "Share of FFN neurons that were exactly zero, per token.",
           "percentunit", down_is_bad(0.8, 0.5), sparsity_by(""), max=1, decimals=1)
    d.stat("FFN weight bytes skipped", "Of what dense passes would have read.", "percentunit",
           down_is_bad(0.4, 0.1), f"{skipped} / ({read} + {skipped})", max=1, decimals=1)
    d.stat("Layers run sparse", "Share of FFN passes; the rest ran dense because that was "
           "cheaper, or because it was asked for.", "percentunit", down_is_bad(0.5, 0.1),
           rate("lacuna_ffn_dispatch_total", "", '{S},path="sparse"') + " / "
           + rate("lacuna_ffn_dispatch_total"), max=1, decimals=1)
    d.stat("Tokens/s gained, at most", "An estimate: generated tokens/s, times the share of FFN "
           "bytes skipped. It would be exact if reading FFN weights were all that a step costs; "
           "attention and the output layer make the true gain smaller.", "short",
           down_is_bad(1, 0), f"{tokens} * {skipped} / ({read} + {skipped})", decimals=0)
    d.stat("Audit mismatches", "Share of audited tokens at which the approximate path chose "
           "another token. 0 while only exact paths run.", "percentunit", up_is_bad(0.001, 0.01),
           f"max(lacuna:sparse_audit_mismatch:ratio_rate1h{{{MODEL}}})", decimals=2)
    d.stat("Against the usual", "Sparsity of 5 minutes, less its average of a day. An alert is "
           "sent below -5 points.", "percentunit", down_is_bad(-0.02, -0.05),
           f"min(lacuna:ffn_sparsity:ratio_rate5m{{{MODEL}}} - "
           f"avg_over_time(lacuna:ffn_sparsity:ratio_rate5m{{{MODEL}}}[1d]))", decimals=1)

    d.row("Zeros")
    d.heatmap("Sparsity by layer", "Rows: layers; colour: share of neurons that were zero. A "
              "layer that loses colour costs most.", "percentunit", down_is_bad(0.8, 0.5),
              "{{layer}}", sparsity_by("layer"), width=12, buckets=False, min=0.5, max=1,
              scheme="RdYlGn", scale="linear")
    d.heatmap("Sparsity of steps", "Steps a second, by the share of zero neurons.",
              "percentunit", down_is_bad(0.8, 0.5), "{{le}}",
              buckets("lacuna_ffn_activation_sparsity_ratio"), width=12)
    d.lines("Density by phase", "Share of neurons that were active, per token. Prompts are "
            "often denser than what is generated.", "percentunit", up_is_bad(0.2, 0.5),
            [("{{phase}}", "sum by (phase) (rate(lacuna_ffn_neurons_active_total{{S}}"
              "[$__rate_interval])) / sum by (phase) (rate(lacuna_ffn_neurons_total{{S}}"
              "[$__rate_interval]))")], max=1)
    d.lines("Union density against batch size", "Share of a layer that a whole batch needs: as "
            "measured; for one token; and what tokens that had nothing in common would need, "
            "1 - (1 - d)^B. Near the last line batching eats the gain. Right axis: mean batch B.",
            "percentunit", up_is_bad(0.5, 0.8),
            [("union, measured", mean("lacuna_ffn_batch_union_density_ratio")),
             ("one token", f"1 - ({sparsity_by('')})"),
             ("union of independent tokens", f"1 - ({sparsity_by('')}) ^ ({batch})"),
             ("batch size", batch)], max=1)
    d.panels[-1]["fieldConfig"]["overrides"] = [{
        "matcher": {"id": "byName", "options": "batch size"},
        "properties": [{"id": "unit", "value": "short"},
                       {"id": "custom.axisPlacement", "value": "right"},
                       {"id": "max", "value": None}]}]
    d.heatmap("Union density of steps", "Steps a second, by the share of a layer that their "
              "batch needs.", "percentunit", up_is_bad(0.5, 0.8), "{{le}}",
              buckets("lacuna_ffn_batch_union_density_ratio"))

    d.row("Dispatch")
    d.lines("Path and reason", "FFN passes a second. cost: the cost model found it cheaper; "
            "forced: the operator or the request asked; no_zeros: the activation gives none; "
            "predicted: a predictor left gates out; probe: to measure the dearer path again.",
            "ops", PLAIN, [("{{path}}, {{reason}}",
                            rate("lacuna_ffn_dispatch_total", "path, reason") + " > 0")],
            stack="normal")
    d.heatmap("Dense passes by layer", "Rows: layers; colour: share of passes that ran dense.",
              "percentunit", up_is_bad(0.2, 0.5), "{{layer}}",
              rate("lacuna_ffn_dispatch_total", "layer", '{S},path="dense"') + " / "
              + rate("lacuna_ffn_dispatch_total", "layer"), buckets=False, min=0, max=1,
              scheme="Oranges", scale="linear")
    d.lines("Dense share by phase", "decode: small batches, where sparsity pays; prefill: many "
            "tokens, where it rarely does.", "percentunit", up_is_bad(0.5, 0.9),
            [("{{phase}}", rate("lacuna_ffn_dispatch_total", "phase", '{S},path="dense"') + " / "
              + rate("lacuna_ffn_dispatch_total", "phase"))], max=1)

    d.row("What it saves")
    d.lines("FFN weight bytes", "Read, and skipped because their neurons were zero; together "
            "what dense passes would have read.", "Bps", PLAIN,
            [("read", read), ("skipped", skipped)], stack="normal")
    d.lines("Bytes skipped by phase", "Share of what dense passes would have read.",
            "percentunit", down_is_bad(0.4, 0.1),
            [("{{phase}}", rate("lacuna_ffn_weight_bytes_skipped_total", "phase") + " / ("
              + rate("lacuna_ffn_weight_bytes_read_total", "phase") + " + "
              + rate("lacuna_ffn_weight_bytes_skipped_total", "phase") + ")")], max=1)
    d.lines("Tokens generated", "Measured; and an estimate of what dense passes would give, if "
            "reading FFN weights were all that a step costs.", "short", PLAIN,
            [("measured", tokens),
             ("dense, at least", f"{tokens} * {read} / ({read} + {skipped})")])

    d.row("Audit of approximate paths")
    d.lines("Audits", "Tokens computed both approximately and exactly, and those of them after "
            "which another token was best, per second.", "ops", PLAIN,
            [("audited", rate("lacuna_sparse_audit_total")),
             ("other token", rate("lacuna_sparse_audit_argmax_mismatch_total"))], width=12)
    d.lines("Mismatch ratio, 1 h", "Dashed: ticket at 1 % of over 300 tokens.", "percentunit",
            up_is_bad(0.001, 0.01),
            [("{{namespace}} {{model}}", f"lacuna:sparse_audit_mismatch:ratio_rate1h{{{MODEL}}}")],
            width=12)

    d.row("Predictor (empty unless one runs)", collapsed=True)
    truth, missed, extra = (f"lacuna_predictor_{kind}_total" for kind in
                            ("true_positive", "false_negative", "false_positive"))
    d.heatmap("Recall by layer", "Rows: layers; colour: share of the active neurons that the "
              "predictor named.", "percentunit", down_is_bad(0.99, 0.98), "{{layer}}",
              f"{rate(truth, 'layer')} / ({rate(truth, 'layer')} + {rate(missed, 'layer')})",
              width=12, buckets=False, min=0.9, max=1, scheme="RdYlGn", scale="linear")
    d.lines("Recall and precision", "Recall: active neurons that were named; precision: named "
            "neurons that were active. The rest of the named ones is read for nothing.",
            "percentunit", down_is_bad(0.99, 0.98),
            [("recall", f"{rate(truth)} / ({rate(truth)} + {rate(missed)})"),
             ("precision", f"{rate(truth)} / ({rate(truth)} + {rate(extra)})")], width=12, max=1)
    d.write()


if __name__ == "__main__":
    service()
    sparsity()
