"""A small file of every trace format, as its publisher writes it, with what is in it."""

import gzip
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from simulator.workload import Trace
from traces.io.parquet import write_parquet


@dataclass(frozen=True)
class Sample:
    """A file and what reading it gives. `rows` are arrival_s, source, input_tokens, output_tokens."""

    format: str
    name: str
    write: Callable[[Path], None]
    rows: list[tuple[float, str, int, int]]
    start: datetime | None = None
    extras: dict[str, list[int]] = field(default_factory=dict)
    lines: bool = True
    columns: dict[str, str] = field(default_factory=dict)


def text(content: str) -> Callable[[Path], None]:
    return lambda path: path.write_bytes(content.encode()) and None


def packed(content: str) -> Callable[[Path], None]:
    return lambda path: path.write_bytes(gzip.compress(content.encode())) and None


def _own(path: Path) -> None:
    trace = Trace(
        sources=("conv", "code"),
        start=datetime(2024, 5, 10, tzinfo=UTC),
        arrival_s=np.array([0.25, 0.5, 0.5]),
        source=np.array([0, 1, 0], dtype=np.int32),
        input_tokens=np.array([3, 2, 1], dtype=np.int32),
        output_tokens=np.array([0, 5, 6], dtype=np.int32),
        extras={"images": np.array([0, 2, 0], dtype=np.int32)},
    )
    write_parquet(path, [trace])


def _table_in_parquet(path: Path) -> None:
    moments = pa.array([0, 1500, 1500], pa.timestamp("ms", "UTC"))
    columns = {"created_at": moments, "prompt_tokens": [1.0, 2.0, 3.0], "completion_tokens": [4, 5, 6]}
    pq.write_table(pa.table(columns), path)


VLLM = {
    "date": "20260101-120000",
    "backend": "vllm",
    "num_prompts": 3,
    "request_rate": "inf",
    "input_lens": [10, 20, 30],
    "output_lens": [1, 0, 3],
    "ttfts": [0.1, 0.0, 0.2],
    "errors": ["", "boom", ""],
    "start_times": [1000.5, 1001.0, 1000.75],
}


def guidellm(start: str) -> dict[str, object]:
    """A report of two runs; `start` is what the version calls the start of a request."""
    done = [{start: 1700000000.5, "prompt_tokens": 5, "output_tokens": 7}]
    failed = [{start: 1700000000.25, "prompt_tokens": 6, "output_tokens": None}]
    later = [{start: 1700000010, "prompt_tokens": 8, "output_tokens": 9}]
    return {
        "metadata": {},
        "benchmarks": [
            {"requests": {"successful": done, "incomplete": [], "errored": failed, "total": None}},
            {"requests": {"successful": later, "incomplete": [], "errored": []}},
        ],
    }


MOONCAKE = (
    '{"timestamp": 0, "input_length": 1500, "output_length": 52, "hash_ids": [46, 47, 48]}\n'
    '{"timestamp": 3000, "input_length": 600, "output_length": 26, "hash_ids": [46, 47]}\n'
    '{"timestamp": 3000, "input_length": 1100, "output_length": 1, "hash_ids": [46, 99, 48]}\n'
)
BURSTGPT = (
    "Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type\n"
    "5,ChatGPT,472,18,490,Conversation log\n"
    "45.5,GPT-4,1087,0,1087,API log\n"
    "118,ChatGPT,417,276,693,Conversation log\n"
)
QWEN = (
    '{"chat_id": 0, "parent_chat_id": -1, "timestamp": 0.5, "input_length": 40, "output_length": 9, "type": "text", '
    '"turn": 1, "hash_ids": [7, 8, 9]}\n'
    '{"chat_id": 1, "parent_chat_id": 0, "timestamp": 2.0, "input_length": 60, "output_length": 8, "type": "text", '
    '"turn": 2, "hash_ids": [7, 8, 5, 9]}\n'
)


def aiperf(start_ns: int, tokens: tuple[int, int] | None) -> str:
    """A record; without tokens of a request that failed."""
    names = ("input_sequence_length", "output_sequence_length")
    counts = {name: {"value": value, "unit": "tokens"} for name, value in zip(names, tokens or (), strict=False)}
    error = None if tokens else {"code": 499, "type": "RequestCancellationError", "message": "cancelled"}
    metrics = counts or {"error_isl": {"value": 550, "unit": "tokens"}}
    record = {"metadata": {"request_start_ns": start_ns, "turn_index": 0}, "metrics": metrics, "error": error}
    return json.dumps(record) + "\n"


def inference_perf(start_time: float, info: dict[str, object] | None) -> dict[str, object]:
    """A request; without `info` one that failed."""
    error = None if info else {"error_type": "ClientOSError", "error_msg": "refused"}
    texts = {"request": '{"prompt": "x"}', "response": "y"}
    return {"start_time": start_time, "end_time": start_time + 1, **texts, "info": info, "error": error}


def perf_analyzer(timestamp: int, response: str) -> dict[str, object]:
    """A request with one response."""
    inputs = {"payload": '{"model": "m", "max_tokens": 8}'}
    outputs = [{"response": "data: {}"}, {"response": response}]
    return {
        "timestamp": timestamp,
        "request_inputs": inputs,
        "response_timestamps": [timestamp + 5],
        "response_outputs": outputs,
    }


def span(start_ns: int, **usage: int | str) -> dict[str, object]:
    """A span with attributes of the GenAI conventions."""
    names = {"operation": "gen_ai.operation.name"}
    attributes = [
        {
            "key": names.get(name, f"gen_ai.usage.{name}"),
            "value": {"stringValue": value} if isinstance(value, str) else {"intValue": str(value)},
        }
        for name, value in usage.items()
    ]
    return {"traceId": "t", "name": "chat", "startTimeUnixNano": str(start_ns), "attributes": attributes}


EPOCH_NS = 1_700_000_000 * 10**9
PERF_ANALYZER = {
    "service_kind": "openai",
    "experiments": [
        {
            "experiment": {"mode": "request_rate", "value": 2.0},
            "requests": [
                perf_analyzer(EPOCH_NS, 'data: {"usage": {"prompt_tokens": 5, "completion_tokens": 7}}'),
                perf_analyzer(EPOCH_NS + 5 * 10**8, '{"usage": {"prompt_tokens": 6, "completion_tokens": 8}}'),
            ],
        }
    ],
}
SPANS = [
    span(EPOCH_NS, operation="chat", input_tokens=5, output_tokens=7),
    span(EPOCH_NS, operation="invoke_agent", input_tokens=11, output_tokens=15),
    span(EPOCH_NS),
    span(EPOCH_NS + 5 * 10**8, prompt_tokens=6, input_tokens=6, output_tokens=8),
]
OTLP = {
    "resourceSpans": [
        {
            "resource": {"attributes": [{"key": "service.name", "value": {"stringValue": "shop"}}]},
            "scopeSpans": [{"scope": {"name": "s"}, "spans": SPANS}],
        }
    ]
}
PLAIN = [(0.0, "log", 374, 44), (0.5, "log", 396, 109), (0.5, "log", 879, 55)]

SAMPLES = [
    Sample(
        "azure",
        "AzureLLMInferenceTrace_conv.csv",
        text(
            "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:15:46.6805900,374,44\n"
            "2023-11-16 18:15:50.9951690,396,109\n"
        ),
        [(0.0, "conv", 374, 44), (4.314579, "conv", 396, 109)],
        datetime(2023, 11, 16, 18, 15, 46, 680590),
    ),
    Sample(
        "azure",
        "AzureLLMInferenceTrace_code_1week.csv",
        text(
            "TIMESTAMP,ContextTokens,GeneratedTokens\n2024-05-10 00:00:00.009930+00:00,2162,5\n"
            "2024-05-10 00:00:00.017335+00:00,2399,6\n"
        ),
        [(0.0, "code", 2162, 5), (0.007405, "code", 2399, 6)],
        datetime(2024, 5, 10, 0, 0, 0, 9930, tzinfo=UTC),
    ),
    Sample(
        "azure-lmm",
        "AzureLMMInferenceTrace_multimodal.csv.gz",
        packed(
            "TIMESTAMP,NumImages,ContextTokens,GeneratedTokens\n2024-10-15T12:00:00.269000Z,2,4000,57\n"
            "2024-10-15T12:00:00.769000Z,0,12,5\n"
        ),
        [(0.0, "multimodal", 4000, 57), (0.5, "multimodal", 12, 5)],
        datetime(2024, 10, 15, 12, 0, 0, 269000, tzinfo=UTC),
        {"images": [2, 0]},
        lines=False,
    ),
    Sample(
        "burstgpt",
        "BurstGPT_1.csv",
        text(BURSTGPT),
        [(5.0, "ChatGPT", 472, 18), (45.5, "GPT-4", 1087, 0), (118.0, "ChatGPT", 417, 276)],
    ),
    Sample(
        "mooncake",
        "conversation_trace.jsonl",
        text(MOONCAKE),
        [(0.0, "trace", 1500, 52), (3.0, "trace", 600, 26), (3.0, "trace", 1100, 1)],
        extras={"prefix_tokens": [0, 600, 512]},
    ),
    Sample(
        "mooncake",
        "trace.jsonl",
        text('{"input_length": 7, "output_length": 8, "timestamp": 1500}\n'),
        [(1.5, "trace", 7, 8)],
        extras={"prefix_tokens": [0]},
    ),
    Sample(
        "qwen-bailian",
        "qwen_traceA_blksz_16.jsonl",
        text(QWEN),
        [(0.5, "16", 40, 9), (2.0, "16", 60, 8)],
        extras={"prefix_tokens": [0, 32]},
    ),
    Sample(
        "aiperf",
        "profile_export.jsonl",
        text(aiperf(EPOCH_NS, (5, 7)) + aiperf(EPOCH_NS + 10**6, None)),
        [(0.0, "export", 5, 7), (0.001, "export", 550, 0)],
        datetime(2023, 11, 14, 22, 13, 20),
    ),
    Sample(
        "inference-perf",
        "per_request_lifecycle_metrics.json",
        text(
            json.dumps(
                [
                    inference_perf(900.5, {"input_tokens": 5, "output_tokens": 7, "output_token_times": [901.0]}),
                    inference_perf(901.0, None),
                ],
                indent=2,
            )
        ),
        [(0.0, "metrics", 5, 7), (0.5, "metrics", 0, 0)],
        lines=False,
    ),
    Sample(
        "perf-analyzer",
        "profile_export.json",
        text(json.dumps(PERF_ANALYZER)),
        [(0.0, "export", 5, 7), (0.5, "export", 6, 8)],
        datetime(2023, 11, 14, 22, 13, 20),
        lines=False,
    ),
    Sample(
        "otel",
        "spans.jsonl",
        text("".join(json.dumps(item) + "\n" for item in (SPANS[0], SPANS[3]))),
        [(0.0, "spans", 5, 7), (0.5, "spans", 6, 8)],
        datetime(2023, 11, 14, 22, 13, 20),
    ),
    Sample(
        "otel",
        "otlp.json",
        text(json.dumps(OTLP, indent=2)),
        [(0.0, "shop", 5, 7), (0.5, "shop", 6, 8)],
        datetime(2023, 11, 14, 22, 13, 20),
        lines=False,
    ),
    Sample(
        "jsonl",
        "calls.json",
        text(
            json.dumps(
                [
                    {"created": 1_700_000_000, "usage": {"prompt_tokens": 5, "completion_tokens": 7}},
                    {"created": 1_700_000_001, "usage": {"prompt_tokens": 6, "completion_tokens": 8}},
                ]
            )
        ),
        [(0.0, "calls", 5, 7), (1.0, "calls", 6, 8)],
        datetime(2023, 11, 14, 22, 13, 20),
        lines=False,
    ),
    Sample(
        "vllm",
        "vllm-4.0qps.json",
        text(json.dumps(VLLM)),
        [(0.0, "vllm-4", 10, 1), (0.25, "vllm-4", 30, 3), (0.5, "vllm-4", 20, 0)],
        lines=False,
    ),
    *(
        Sample(
            "guidellm",
            "benchmarks.json",
            text(json.dumps(guidellm(start), indent=2)),
            [(0.0, "run1", 6, 0), (0.25, "run1", 5, 7), (9.75, "run2", 8, 9)],
            datetime(2023, 11, 14, 22, 13, 20, 250000),
            lines=False,
        )
        for start in ("start_time", "request_start_time")
    ),
    Sample(
        "tokenfleet",
        "week.parquet",
        _own,
        [(0.25, "conv", 3, 0), (0.5, "code", 2, 5), (0.5, "conv", 1, 6)],
        datetime(2024, 5, 10, tzinfo=UTC),
        {"images": [0, 2, 0]},
        lines=False,
    ),
    Sample(
        "jsonl",
        "log.jsonl",
        text(
            '{"arrival_time": 0, "prompt_tokens": 374, "completion_tokens": 44}\n'
            '{"arrival_time": 0.5, "prompt_tokens": 396.0, "completion_tokens": 109}\n'
            '{"completion_tokens": 55, "arrival_time": 0.5, "prompt_tokens": 879}\n'
        ),
        PLAIN,
    ),
    Sample(
        "table",
        "log.csv",
        text("arrival_time_ms,input_tokens,output_tokens,note\n0,374.0,44,a\n500,396,109,\n500,879,55,b\n"),
        PLAIN,
    ),
    Sample(
        "table",
        "log.tsv",
        text("service\tnum_prefill_tokens\tarrived_at\tnum_decode_tokens\nchat\t1\t0.5\t2\nrag\t3\t1\t4\n"),
        [(0.5, "chat", 1, 2), (1.0, "rag", 3, 4)],
    ),
    Sample(
        "table",
        "log.csv",
        text('"When";"In";"Out"\n1700000000123;1;2\n1700000000623;3;4\n'),
        [(0.0, "log", 1, 2), (0.5, "log", 3, 4)],
        datetime(2023, 11, 14, 22, 13, 20, 123000),
        columns={"arrival_s": "When", "input_tokens": "In", "output_tokens": "Out"},
    ),
    Sample(
        "table",
        "log_chat.parquet",
        _table_in_parquet,
        [(0.0, "chat", 1, 4), (1.5, "chat", 2, 5), (1.5, "chat", 3, 6)],
        datetime(1970, 1, 1, tzinfo=UTC),
        lines=False,
    ),
]
"""All but `servegen`, whose requests are drawn."""
