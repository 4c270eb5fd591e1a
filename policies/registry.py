"""The policies by name: a new one is a module and one line here.

A policy is written as `name`, as `name[options]` (`agh[-m1,-local]`, `static[milp]`,
`headroom[1.3:exact]`, `robust[gamma=1,1.3:exact]`), or as `path/to/file.py:ClassName` for a policy of the user's own.
"""

import math
import re
from collections.abc import Callable
from dataclasses import dataclass, fields
from importlib import import_module
from typing import Any, cast

from simulator.errors import InputError
from simulator.planning.policy import Policy
from simulator.userfile import load_from_file

DEFAULT_ROBUST = "box=1.3:agh+"


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyEntry:
    """One line of the registry: `make(options)` gets the text in the brackets, None without brackets."""

    make: Callable[[str | None], Policy]
    summary: str


def _class(path: str) -> Any:
    """`module:Class`, imported when it is needed: Pyomo alone takes longer to load than most plans to make."""
    module, _, name = path.partition(":")
    return getattr(import_module(module), name)


def _plain(path: str) -> Callable[[str | None], Policy]:
    def make(options: str | None) -> Policy:
        policy: Policy = _class(path)()
        if options is not None:
            raise InputError(f"policy {policy.name!r} takes no options, found [{options}]")
        return policy

    return make


def _switched(path: str) -> Callable[[str | None], Policy]:
    """Options `-m1,-local` switch mechanisms off; the mechanisms are the policy's fields."""

    def make(options: str | None) -> Policy:
        policy = _class(path)
        mechanisms = [field.name for field in fields(policy)]
        off = [] if options is None else [option.strip() for option in options.split(",")]
        unknown = [option for option in off if not option.startswith("-") or option[1:] not in mechanisms]
        if unknown:
            known = ", ".join(f"-{name}" for name in mechanisms)
            raise InputError(f"policy {policy().name!r} has no option {unknown[0]!r}; known: {known}")
        return cast(Policy, policy(**{option[1:]: False for option in off}))

    return make


def _headroom(options: str | None) -> Policy:
    factor, separator, inner = ("1.3:agh" if options is None else options).partition(":")
    try:
        value = float(factor)
    except ValueError:
        value = math.nan
    if not (separator and 1 <= value < math.inf):
        raise InputError(f"policy 'headroom': expected [FACTOR:POLICY] with a factor from 1 on, found [{options}]")
    return cast(Policy, _class("policies.robust.headroom:Headroom")(value, make_policy(inner)))


def _robust(options: str | None) -> Policy:
    kind, separator, inside = (DEFAULT_ROBUST if options is None else options).partition(":")
    parsed = _class("policies.robust.kinds:parse_kind")(kind.strip())
    inner = make_policy(inside if separator else "agh+")
    exact = inner.name == "milp"
    optimum = _class("policies.milp.robust:optimum") if exact else None
    scout = make_policy("agh+") if exact else inner  # milp's own plans of the worse problems would take minutes
    return cast(Policy, _class("policies.robust.policy:Robust")(parsed, inner, scout, optimum))


def _static(options: str | None) -> Policy:
    return cast(Policy, _class("policies.static:Static")(make_policy(options or "agh")))


POLICIES: dict[str, PolicyEntry] = {
    name: PolicyEntry(make=make, summary=summary)
    for name, make, summary in (
        ("gh", _switched("policies.heuristics.greedy:Gh"), "greedy heuristic of arXiv 2604.07472"),
        (
            "agh",
            _switched("policies.heuristics.adaptive:Agh"),
            "adaptive greedy: multi-start, relocate, consolidate, LP routing",
        ),
        (
            "agh+",
            _plain("policies.exact.agh_plus:AghPlus"),
            "fleets priced by the duals of a bound: anytime, with a gap",
        ),
        ("milp", _plain("policies.milp:Milp"), "exact mixed-integer program (Pyomo, HiGHS) with bound and gap"),
        ("exact", _plain("policies.exact:Exact"), "branch and price: the proven optimum, or a plan with its bound"),
        ("lpr", _plain("policies.heuristics.lpr:Lpr"), "baseline: linear relaxation, rounded"),
        ("dvr", _plain("policies.heuristics.dvr:Dvr"), "baseline: machines first, routing after"),
        ("hf", _plain("policies.heuristics.hf:Hf"), "baseline: a homogeneous fleet, the best single tier"),
        ("headroom", _headroom, "planned at a factor on delay and error, routed at nominal (default 1.3:agh)"),
        (
            "robust",
            _robust,
            "a fleet for worse worlds: [box=1.3], [gamma=1,1.3], [mean], [cvar=0.9], each [KIND:POLICY]",
        ),
        ("static", _static, "plan once with the policy in brackets (static[milp]; default agh), never again"),
    )
}

_SPEC = re.compile(r"(?P<name>[A-Za-z0-9_+-]+)(\[(?P<options>.*)\])?", re.DOTALL)


def make_policy(text: str) -> Policy:
    """Make the policy that `text` names.

    Raises
    ------
    InputError
        If the name, an option, the file or the class does not exist, or the class is no policy.
    """
    if ".py:" in text:
        return _from_file(text)
    match = _SPEC.fullmatch(text.strip())
    entry = POLICIES.get(match["name"]) if match else None
    if match is None or entry is None:
        known = ", ".join(sorted(POLICIES))
        raise InputError(f"unknown policy {text!r}; known: {known}, or path/to/file.py:ClassName")
    return entry.make(match["options"])


def _from_file(text: str) -> Policy:
    made = load_from_file(text, what="policy", kind="class")
    class_name = text.rpartition(":")[2]
    try:
        policy = made()
    except TypeError as error:
        raise InputError(f"policy {text!r}: {class_name}() cannot be made without arguments: {error}") from None
    except Exception as error:
        raise InputError(f"policy {text!r}: {class_name}() raised {type(error).__name__}: {error}") from None
    if not isinstance(getattr(policy, "name", None), str) or not callable(getattr(policy, "plan", None)):
        raise InputError(
            f"policy {text!r}: expected an attribute `name` and a method `plan` (simulator/planning/policy.py)"
        )
    return cast(Policy, policy)
