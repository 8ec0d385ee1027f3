"""What the sections of this package have in common: all problems at once, and room for keys of the user's own."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Self

from mtf_config.errors import ValidationError
from mtf_config.plain import plain_problems, to_plain
from mtf_utils.names import nearest
from mtf_utils.problems import KeyPath
from mtf_utils.settings import Problem, Settings, SettingsError, about

__all__ = ["OpenSection", "Section"]


@dataclass
class Section(Settings):
    """A settings section whose further checks also run while single fields are wrong, so that all is said at once."""

    error: ClassVar[type[SettingsError]] = ValidationError

    @classmethod
    def adopt(cls, value: Any) -> Any:
        """A mapping that is taken as it is holds plain data."""
        return to_plain(value)

    @classmethod
    def data_problems(cls, data: Mapping[str, Any]) -> Iterator[Problem]:
        """What is wrong beyond single fields.

        Args:
            data: the fields by name, as written: any of them may be missing or of a wrong type.
        """
        yield from ()

    def cross_checks(self) -> Iterable[Problem]:
        """What `data_problems` finds in the fields."""
        return self.data_problems(vars(self))

    @classmethod
    def decode(cls, data: Any, path: KeyPath) -> tuple[Self | None, list[Problem]]:
        """Build the section, or say everything that is wrong, with paths that begin with `path`."""
        instance, problems = super().decode(data, path)
        if problems and isinstance(data, Mapping):
            told = {problem.path for problem in problems}
            more = [dataclasses.replace(item, path=(*path, *item.path)) for item in cls.data_problems(data)]
            problems += [item for item in more if item.path not in told]
        return instance, problems


@dataclass(init=False, kw_only=True)
class OpenSection(Section):
    """A section that keeps further keys of the user's own, by attribute as well: `config.model.hidden_size`.

    Such keys hold plain data: strings, finite numbers, booleans, null, lists and mappings. A declared key that is
    None counts as not given: it is not written.
    """

    open: ClassVar[bool] = True

    extra: dict[str, Any] = field(default_factory=dict, metadata=about("Keys of the user's own."))

    def __init__(self, **values: Any) -> None:
        """Take declared keys and further ones alike, all by keyword.

        Raises:
            ValidationError: a required key is missing, or something is not acceptable.
        """
        extra = dict(values.pop("extra", None) or {})
        missing = []
        for item in dataclasses.fields(self):
            if item.name == "extra":
                continue
            if item.name in values:
                value = values.pop(item.name)
            elif item.default_factory is not dataclasses.MISSING:
                value = item.default_factory()
            elif item.default is not dataclasses.MISSING:
                value = item.default
            else:
                missing.append(Problem((item.name,), "this key is required", about_key=True))
                continue
            object.__setattr__(self, item.name, to_plain(value))
        object.__setattr__(self, "extra", to_plain(extra | values))
        if missing:
            missing += self._check_extra()
            raise self.error(missing, subject=type(self).__name__)
        self.__post_init__()

    def __getattr__(self, name: str) -> Any:
        extra = self.__dict__.get("extra", {})
        if name in extra:
            return extra[name]
        guess = nearest(name, [*extra, *type(self).__dataclass_fields__]) if not name.startswith("_") else None
        hint = f"; did you mean {guess!r}?" if guess else ""
        raise AttributeError(f"{type(self).__name__} has no key {name!r}{hint}")

    def __setattr__(self, name: str, value: Any) -> None:
        if name in type(self).__dataclass_fields__:
            object.__setattr__(self, name, value)
        else:
            self.extra[name] = value

    def get(self, key: str, default: Any = None) -> Any:
        """The value of a declared or further key, or `default` when it is not there or None."""
        value = self.__dict__.get(key, self.extra.get(key))
        return default if value is None else value

    def cross_checks(self) -> Iterable[Problem]:
        """What `data_problems` finds in the fields and in further keys."""
        declared = {key: value for key, value in vars(self).items() if key != "extra"}
        return self.data_problems(declared | self.extra)

    @classmethod
    def data_problems(cls, data: Mapping[str, Any]) -> Iterator[Problem]:
        """Further keys hold what a file can hold."""
        declared = [item.name for item in dataclasses.fields(cls) if item.name != "extra"]
        yield from plain_problems({key: value for key, value in data.items() if key not in declared}, ())

    def to_dict(self) -> dict[str, Any]:
        """The section as plain data; what is None is left out."""
        names = [item.name for item in dataclasses.fields(self) if item.name != "extra"]
        written = {name: to_plain(getattr(self, name)) for name in names}
        extra: dict[str, Any] = to_plain(self.extra)
        return {name: value for name, value in written.items() if value is not None} | extra
