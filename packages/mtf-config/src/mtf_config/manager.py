"""`ConfigurationManager`: reads, validates, composes and writes the configurations of a project."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mtf_config.compose import Composition, Layer, file_layers, mapping_layer, parameter_layer
from mtf_config.errors import ConfigurationError
from mtf_config.reader import Document, files_beside, is_file, read_bytes, read_document
from mtf_config.schema import ExperimentConfig
from mtf_config.writer import dump_json, dump_yaml, savable
from mtf_utils.names import nearest
from mtf_utils.paths import given_path
from mtf_utils.problems import describe

__all__ = ["ConfigurationManager"]

ConfigSource = str | Path | Mapping[str, Any] | ExperimentConfig


class ConfigurationManager:
    """Reads, validates, composes and writes the configurations of a project.

    Relative paths are looked up in `config_dir`, then in the working directory.

    Args:
        project_root: the project's root folder.
        config_dir: where its configurations lie; `configs` in the root by default, and relative to the root.

    Raises:
        TypeError: one of them is no path.
        ValueError: one of them is empty.
    """

    def __init__(self, project_root: str | os.PathLike[str], config_dir: str | os.PathLike[str] | None = None) -> None:
        self.project_root = given_path("project_root", project_root, "the project's root folder")
        folder = given_path(
            "config_dir", "configs" if config_dir is None else config_dir, "the folder of configurations"
        )
        self.config_dir = self.project_root / folder
        self._cache: dict[Path, tuple[bytes, Document]] = {}

    def load_config(self, config_path: str | Path, validate: bool = True, use_cache: bool = True) -> dict[str, Any]:
        """Read a configuration file and the files that it extends.

        Args:
            config_path: the file.
            validate: whether it must be a whole experiment; give False for a part of one.
            use_cache: whether to parse again only what has changed since it was last read. Files are always read,
                so that what is returned is never stale.

        Returns:
            The keys as written: without defaults, references unresolved. `ExperimentConfig.from_dict` fills in both.
            Only `slurm.template_path`, which a file means relative to itself, is made absolute.

        Raises:
            ConfigurationError: a file cannot be read.
            ValidationError: it is not a whole experiment; every problem is listed with file, line and column.
        """
        composition = self.composition(config_path, use_cache=use_cache)
        if validate:
            composition.experiment()
        return composition.data

    def load_experiment(self, config_path: str | Path) -> ExperimentConfig:
        """Read a configuration file as an experiment: validated, references resolved, defaults filled in.

        Raises:
            ConfigurationError: a file cannot be read.
            ValidationError: it is not a whole experiment.
        """
        return self.composition(config_path).experiment()

    def save_config(
        self, config: Mapping[str, Any] | ExperimentConfig, output_path: str | Path, format: str = "yaml"
    ) -> None:
        """Write a configuration, whole or not at all; loading it gives an equal one.

        Args:
            config: an experiment, or plain data.
            output_path: the file; a relative path lies in `config_dir`, unless it leads there from the working
                directory already. Missing folders are made.
            format: `yaml` or `json`; a file that ends in `.json` gets JSON in any case.

        Raises:
            ConfigurationError: the configuration is not plain data, the format is unknown, or the file cannot be
                written.
        """
        from mtf_utils import atomic

        path = self._place(Path(output_path))
        if format not in ("yaml", "json"):
            raise ConfigurationError.because(f"format: expected yaml or json, found {describe(format)}")
        data = savable(config, str(path))
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            as_json = format == "json" or path.suffix.lower() == ".json"
            atomic.write_text(path, dump_json(data) if as_json else dump_yaml(data))
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            raise ConfigurationError.because(f"cannot write it: {reason}", subject=str(path)) from error

    def _place(self, output_path: Path) -> Path:
        """Where a file is to be saved: `configs/x.yaml` with the folder `configs` does not mean `configs/configs`."""
        path = self.config_dir / output_path
        here = Path.cwd() / output_path
        try:
            leads_there = here.parent.resolve().is_relative_to(self.config_dir.resolve())
        except (OSError, ValueError):  # writing to it is going to say why
            return path
        return here if leads_there and not path.parent.exists() else path

    def compose_configs(
        self,
        base_config: ConfigSource,
        overrides: Sequence[ConfigSource] | None = None,
        parameter_overrides: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        """Compose an experiment from a base and what goes over it.

        Mappings are merged key by key, later ones win; lists and other values replace what was there; null sets null,
        and the value `${delete}` takes a key away.

        Args:
            base_config: a file or a mapping.
            overrides: files and mappings, each over the ones before.
            parameter_overrides: dotted key → value, over all others.

        Returns:
            The composed keys, references resolved, without defaults.

        Raises:
            ConfigurationError: a file cannot be read.
            ValidationError: the result is not a whole experiment.
        """
        composition = self.composition(base_config, overrides, parameter_overrides)
        composition.experiment()
        return composition.resolved()

    def composition(
        self,
        base_config: ConfigSource,
        overrides: Sequence[ConfigSource] | None = None,
        parameter_overrides: Mapping[str, Any] | None = None,
        *,
        use_cache: bool = True,
    ) -> Composition:
        """The composition itself, which knows the origin of every key; not validated.

        Raises:
            ConfigurationError: a file cannot be read, or a layer takes away what is not there.
        """
        layers = self._layers(base_config, "base_config", use_cache)
        for index, override in enumerate(overrides or ()):
            layers += self._layers(override, f"overrides[{index}]", use_cache)
        if parameter_overrides:
            layers.append(parameter_layer(parameter_overrides))
        return Composition(layers)

    def find(self, config_path: str | Path) -> Path:
        """The file that a path stands for.

        Raises:
            ConfigurationError: there is none; the message says where it was looked for.
        """
        candidates = list(dict.fromkeys([self.config_dir / config_path, Path(config_path)]))
        for candidate in candidates:
            if is_file(candidate):
                return candidate
        names = [name for candidate in candidates for name in files_beside(candidate)]
        guess = nearest(candidates[0].name, names)
        hint = f"; did you mean {guess!r}?" if guess else ""
        places = " and ".join(str(candidate) for candidate in candidates)
        raise ConfigurationError.because(f"there is no such file (looked for {places}){hint}", subject=str(config_path))

    def _layers(self, source: ConfigSource, name: str, use_cache: bool) -> list[Layer]:
        if isinstance(source, str | Path):
            return list(file_layers(self.find(source), self._read_cached if use_cache else read_document))
        if isinstance(source, ExperimentConfig):
            return [mapping_layer(source.to_dict(), name)]
        if isinstance(source, Mapping):
            return [mapping_layer(source, name)]
        raise ConfigurationError.because(f"{name}: expected a file or a mapping, found {describe(source)}")

    def _read_cached(self, path: Path) -> Document:
        content = read_bytes(path)
        cached = self._cache.get(path)
        if cached is None or cached[0] != content:
            cached = (content, read_document(path, content))
            self._cache[path] = cached
        return cached[1]
