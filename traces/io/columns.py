"""Which columns of a table hold what: by what the user says, or by the names that people give them."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from simulator.errors import InputError
from traces.io.reader import Asked, default_source, short

_LISTED = 400  # characters of a header in a message

ROLES = ("arrival_s", "source", "input_tokens", "output_tokens")
EXTRAS = ("images", "prefix_tokens")

_UNITS = {
    **dict.fromkeys(("s", "sec", "secs", "second", "seconds"), "s"),
    **dict.fromkeys(("ms", "msec", "milli", "millis", "millisecond", "milliseconds"), "ms"),
    **dict.fromkeys(("us", "usec", "micros", "microsecond", "microseconds"), "us"),
    **dict.fromkeys(("ns", "nsec", "nano", "nanos", "nanosecond", "nanoseconds"), "ns"),
}

# In the order in which they are preferred, written as `_plain` leaves them.
_NAMES: dict[str, tuple[str, ...]] = {
    "arrival_s": (
        *("arrival", "arrivaltime", "arrivaltimestamp", "arrivedat", "arrivedtime", "timestamp", "requesttimestamp"),
        *("requesttime", "requestarrivaltime", "requeststarttime", "requeststart", "starttime", "starttimestamp"),
        *("submittime", "submittedat", "sendtime", "senttime", "createdat", "created", "starttimeunix", "datetime"),
        *("time", "ts", "date"),
    ),
    "source": ("source", "service", "workload", "application", "app", "tenant", "task"),
    "input_tokens": (
        *("inputtokens", "contexttokens", "prompttokens", "requesttokens", "numinputtokens", "numprompttokens"),
        *("numcontexttokens", "numprefilltokens", "prefilltokens", "inputlength", "inputlen", "promptlength"),
        *("promptlen", "promptsize", "inputsize", "contextlength", "contextlen", "inputtokencount"),
        *("prompttokencount", "inputtokslen", "inputtoks", "inlen", "intokens", "isl", "tokensin", "requestlength"),
        *("tokensprompt", "tokensinput", "inputsequencelength", "nativetokensprompt"),
    ),
    "output_tokens": (
        *("outputtokens", "generatedtokens", "completiontokens", "responsetokens", "numoutputtokens"),
        *("numgeneratedtokens", "numcompletiontokens", "numdecodetokens", "decodetokens", "outputlength", "outputlen"),
        *("generationlength", "completionlength", "completionlen", "responselength", "responselen", "tokensize"),
        *("outputsize", "outputtokencount", "completiontokencount", "outputtoks", "outlen", "outtokens", "osl"),
        *("tokensout", "expectedoutputlen", "generationlen", "tokenscompletion", "tokensoutput"),
        *("outputsequencelength", "nativetokenscompletion", "candidatestokencount"),
    ),
    "images": ("images", "numimages", "imagecount", "nimages"),
    "prefix_tokens": ("prefixtokens", "cachedtokens", "tokenscached", "prefixlen", "prefixlength"),
}

# What may tell requests apart: pointed out, but never taken for the source, since a scenario's sources are services.
_SOURCE_LIKE = (
    *("model", "modelname", "modelid", "modelslug", "modelpermaslug", "modelgroup", "requestmodel", "type"),
    *("deployment", "endpoint", "route", "user", "userid", "apikey", "apikeyalias", "keyalias", "team", "teamid"),
    *("customer", "customerid", "client", "clientid", "project", "projectid", "organization"),
)
_ITEM = re.compile(r"\[\d+\]")  # one of many, and so no request's
# Last words of a dotted name that say how the value is written, not what it is.
_HOLDERS = frozenset({"value", "intValue", "doubleValue", "stringValue"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Columns:
    """Names of the columns of a file by what they hold.

    Attributes
    ----------
    time_unit
        `s`, `ms`, `us` or `ns` where times are numbers and the format or the name says so; None: seconds since the
        file's zero, or a time since 1970 in the unit that makes it a year of our age.
    """

    time: str
    input_tokens: str
    output_tokens: str
    source: str | None = None
    extras: Mapping[str, str] = field(default_factory=dict)
    time_unit: str | None = None

    def names(self) -> tuple[str, ...]:
        """All of them, time first."""
        some = (self.time, self.input_tokens, self.output_tokens, self.source, *self.extras.values())
        return tuple(name for name in some if name is not None)


def find_columns(
    header: Sequence[str],
    asked: Asked,
    path: Path,
    where: str,
    *,
    is_there: Callable[[str], bool] | None = None,
    number: str = "",
) -> Columns:
    """Columns of a table by its header; of JSON records by the paths of a record (`traces.io.paths`).

    Parameters
    ----------
    asked
        What the user says (`arrival_s` -> `When`); the others are found by their names.
    where
        Place of the header in the file, for messages.
    is_there
        Whether there is what the user names, where that need not be in the header.
    number
        What else than a column the user may give, for messages.

    Raises
    ------
    InputError
        If a column that was asked for is not there, or one that is needed is not found.
    """
    problems = []
    for role, name in asked.columns.items():
        if not (header.count(name) == 1 if is_there is None else is_there(name)):
            found = "none" if name not in header else str(header.count(name))
            listed = short(",".join(header), _LISTED)
            problems.append(f"{path}: {where}: expected one column {name!r} (for {role}), found {found} in {listed}")
    if problems:
        raise InputError(problems)
    taken = dict(asked.columns)
    for role in (*ROLES, *EXTRAS):
        guess = _guess(header, role)
        if role not in taken and guess is not None:
            taken[role] = guess
            if header.count(guess) > 1:
                problems.append(
                    f"{path}: {where}: expected one column {guess!r} (for {role}), found {header.count(guess)}"
                )
    if problems:
        raise InputError(problems)
    missing = [role for role in ("arrival_s", "input_tokens", "output_tokens") if role not in taken]
    if missing:
        listed = short(",".join(header), _LISTED)
        hint = " ".join(f"--map {role}=COLUMN" for role in missing)
        raise InputError(
            f"{path}: {where}: found no column for {', '.join(missing)} in {listed}; name it: {hint}{number}"
        )
    return own_columns(taken, asked, header, path)


def own_columns(
    taken: Mapping[str, str], asked: Asked, header: Sequence[str], path: Path, time_unit: str | None = None
) -> Columns:
    """Columns that a format knows, but for those that the user names.

    The user is told of a column of the header that looks like a source where none is known.

    Parameters
    ----------
    taken
        Columns by what they hold.
    time_unit
        Of its times, unless the user or the name of their column says otherwise.
    """
    taken = {**taken, **asked.columns}
    if asked.source is None and "source" not in taken:
        tails = {_tail(name, unit=False): name for name in reversed(header) if not _ITEM.search(name)}
        like = next((tails[known] for known in _SOURCE_LIKE if known in tails), None)
        if like is not None:
            asked.tell(
                f"all requests are of one source, {default_source(path)!r}; column {like} may tell them apart: "
                f"--map source={like}"
            )
    extras = {role: name for role, name in taken.items() if role not in ROLES}
    return Columns(
        time=taken["arrival_s"],
        input_tokens=taken["input_tokens"],
        output_tokens=taken["output_tokens"],
        source=taken.get("source"),
        extras=extras,
        time_unit=asked.time_unit or _unit(taken["arrival_s"]) or time_unit,
    )


def has_columns(header: Sequence[str], *, some: bool = False) -> bool:
    """Whether the columns that are needed are there under names that are known, all of them or `some`."""
    found = [_guess(header, role) is not None for role in ("arrival_s", "input_tokens", "output_tokens")]
    return any(found) if some else all(found)


def _guess(header: Sequence[str], role: str) -> str | None:
    """The column of a known name: the whole of it, or else what stands after its last dot."""
    known_names = [name for name in header if not _ITEM.search(name)]
    for short_of in (_plain,) if role == "source" else (_plain, _tail):
        plain: dict[str, str] = {}
        for name in known_names:
            plain.setdefault(short_of(name, unit=role == "arrival_s"), name)
        found = next((plain[known] for known in _NAMES[role] if known in plain), None)
        if found is not None:
            return found
    return None


def _tail(name: str, *, unit: bool) -> str:
    """`metrics.input_sequence_length.value` -> inputsequencelength."""
    parts = name.split(".")
    while len(parts) > 1 and parts[-1] in _HOLDERS:
        parts.pop()
    return _plain(parts[-1], unit=unit)


def _plain(name: str, *, unit: bool) -> str:
    """Letters and digits, small; of a time, without its unit."""
    words = _words(name)
    if unit and len(words) > 1 and words[-1] in _UNITS:
        words.pop()
    return "".join(words)


def _unit(name: str) -> str | None:
    words = _words(name)
    return _UNITS.get(words[-1]) if len(words) > 1 else None


def _words(name: str) -> list[str]:
    """`ContextTokens` -> context, tokens; `arrival_time_ms` -> arrival, time, ms; `TIMESTAMP` -> timestamp."""
    spaced = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", name)
    return re.findall(r"[a-z0-9]+", spaced.lower())
