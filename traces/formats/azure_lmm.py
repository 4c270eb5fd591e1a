"""The Azure trace of large multimodal models of 2025: as the earlier ones, and the number of images of a prompt.

Source: https://github.com/Azure/AzurePublicDataset (CC-BY-4.0); Qiu et al., ModServe, 2025.
"""

from traces.formats.named import NamedColumns
from traces.io.columns import Columns

READER = NamedColumns(
    Columns(
        time="TIMESTAMP",
        input_tokens="ContextTokens",
        output_tokens="GeneratedTokens",
        extras={"images": "NumImages"},
    ),
    needs=frozenset({"NumImages", "ContextTokens", "GeneratedTokens"}),
)
