"""GPUs, precisions and models as measurement files write them, and as the catalog does."""

from collections.abc import Mapping

from simulator.catalog import Catalog, LlmModel, Tier
from simulator.validation import closest

DECORATIONS = ("instruct", "chat", "hf", "fp8", "bf16")


def plain_name(text: str) -> str:
    """A model's name in small letters and digits, without its organisation and suffixes such as `instruct`.

    `meta-llama/Llama-3.1-8B-Instruct` is `llama318b`.
    """
    name = text.rsplit("/", 1)[-1].lower()
    words = [word for word in name.replace("_", "-").split("-") if word not in DECORATIONS]
    return "".join(character for character in "".join(words) if character.isalnum())


class Names:
    """Looks up what the catalog knows; `problem` says what it does not."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self._gpus: dict[str, str] = {}
        for name, gpu in catalog.gpus.items():
            for alias in (name, *gpu.aliases):
                self._gpus[alias.lower()] = name
        self._precisions = {
            alias.lower(): name
            for name, precision in catalog.precisions.items()
            for alias in (name, *precision.aliases)
        }
        self._models: Mapping[str, LlmModel] = {
            plain_name(text): model for model in catalog.models.values() for text in (model.label, model.name)
        }

    def model(self, text: str) -> LlmModel | None:
        """The model of a name as a file writes it."""
        return self._models.get(plain_name(text))

    def tier(self, gpu: str, precision: str) -> Tier | None:
        """The tier of a GPU and a precision as a file writes them."""
        name = f"{self._gpus.get(gpu.lower())}-{self._precisions.get(precision.lower())}"
        return self._catalog.tiers.get(name)

    def problem(self, gpu: str, precision: str, model: str | None = None) -> str | None:
        """Why a row cannot be used, None if it can."""
        if gpu.lower() not in self._gpus:
            return f"gpu {gpu!r} is not in the catalog; {closest(gpu, self._gpus)}; add it with --catalog"
        if precision.lower() not in self._precisions:
            return f"precision {precision!r} is not in the catalog; {closest(precision, self._precisions)}"
        if self.tier(gpu, precision) is None:
            return f"{self._gpus[gpu.lower()]} has no {self._precisions[precision.lower()]} in the catalog"
        if model is not None and self.model(model) is None:
            return (
                f"model {model!r} is not in the catalog; {closest(model, self._catalog.models)}; add it with --catalog"
            )
        return None
