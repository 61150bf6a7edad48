"""The classes: verbs, nouns, and actions as pairs of them.

EK-100 has 97 verbs and 300 nouns; the counts come from the class files, so another taxonomy in the same layout works.
"""

from dataclasses import dataclass

from egochef.errors import InputError
from egochef.texts import name_fault, quoted

ACTION_BASE = 1000
MAX_VERBS, MAX_NOUNS = 2000, ACTION_BASE


def action_id(verb: int, noun: int) -> int:
    """One number for a (verb, noun) pair; the reverse is `divmod(action_id, 1000)`."""
    return verb * ACTION_BASE + noun


@dataclass(frozen=True)
class Taxonomy:
    """Class names by class id."""

    verbs: tuple[str, ...]
    """verb names, position = verb id"""
    nouns: tuple[str, ...]
    """noun names, position = noun id"""

    def __post_init__(self) -> None:
        object.__setattr__(self, "verbs", tuple(self.verbs))
        object.__setattr__(self, "nouns", tuple(self.nouns))
        if not self.verbs or not self.nouns:
            raise InputError("a taxonomy needs at least one verb and one noun")
        if len(self.verbs) > MAX_VERBS:
            raise InputError(f"{len(self.verbs)} verbs, expected at most {MAX_VERBS}")
        for kind, names in (("verb", self.verbs), ("noun", self.nouns)):
            for place, name in enumerate(names[:MAX_VERBS]):
                if not isinstance(name, str) or (fault := name_fault(name)):
                    what = f"{quoted(name)} {fault}" if isinstance(name, str) else f"is {name!r:.80}, expected a text"
                    raise InputError(f"{kind} {place}: the name {what}. Give the class a plain name.")
        if len(self.nouns) > MAX_NOUNS:
            raise InputError(
                f"{len(self.nouns)} nouns: action ids (verb * {ACTION_BASE} + noun) hold at most {ACTION_BASE}"
            )

    @property
    def num_verbs(self) -> int:
        return len(self.verbs)

    @property
    def num_nouns(self) -> int:
        return len(self.nouns)

    @property
    def counts(self) -> tuple[int, int]:
        """Verbs and nouns."""
        return self.num_verbs, self.num_nouns

    def action_name(self, verb: int, noun: int) -> str:
        """For people, for example `open drawer`."""
        return f"{self.verbs[verb]} {self.nouns[noun]}"
