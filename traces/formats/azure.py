"""The Azure LLM inference traces of 2023 and 2024 in their original CSV form.

One file per service, one row per request: the time of arrival, the tokens of the prompt and those of the answer. Times
have seven decimals and no zone in 2023 (Patel et al., Splitwise, ISCA 2024), six and `+00:00` in 2024 (Stojkovic et
al., DynamoLLM, HPCA 2025). Source: https://github.com/Azure/AzurePublicDataset (CC-BY-4.0).
"""

from traces.formats.named import NamedColumns
from traces.io.columns import Columns

READER = NamedColumns(
    Columns(time="TIMESTAMP", input_tokens="ContextTokens", output_tokens="GeneratedTokens"),
    needs=frozenset({"ContextTokens", "GeneratedTokens"}),
    refuses=frozenset({"NumImages"}),
)
