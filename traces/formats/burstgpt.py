"""BurstGPT: requests to ChatGPT and GPT-4 at a university, on a clock of seconds. A failed one has no answer tokens.

The source of a request is its model. Source: https://github.com/HPMLL/BurstGPT (CC-BY-4.0); Wang et al., KDD 2025.
"""

from traces.formats.named import NamedColumns
from traces.io.columns import Columns

READER = NamedColumns(
    Columns(
        time="Timestamp",
        input_tokens="Request tokens",
        output_tokens="Response tokens",
        source="Model",
        time_unit="s",
    ),
    needs=frozenset({"Request tokens", "Response tokens"}),
)
