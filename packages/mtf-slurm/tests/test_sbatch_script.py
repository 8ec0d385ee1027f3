"""The text that sbatch gets, from the built-in template and from a user's own."""

from __future__ import annotations

import dataclasses
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mtf_config import SLURMConfig
from mtf_slurm.cluster.options import sbatch_options
from mtf_slurm.cluster.script import JobScriptSpec, SubmissionTemplate, slurm_job_name, task_line
from mtf_slurm.errors import SLURMError
from mtf_utils.sections import PreemptionConfig

TOKEN = "0123abcd"


def specify(folder: Path = Path("/data/sweep"), *, slurm: dict[str, Any] | None = None, **values: Any) -> JobScriptSpec:
    config = SLURMConfig(**(slurm or {}))
    common: dict[str, Any] = {
        "job_name": slurm_job_name("digits", TOKEN, 2),
        "options": sbatch_options(config, PreemptionConfig()),
        "config": config,
        "sweep_dir": folder,
        "token": TOKEN,
        "number": 2,
    }
    return JobScriptSpec(**(common | values))


def template(folder: Path, text: str) -> SubmissionTemplate:
    path = folder / "site.sh.j2"
    path.write_text(text)
    return SubmissionTemplate.read(path)


def refusal(folder: Path, text: str, **slurm: Any) -> str:
    with pytest.raises(SLURMError) as caught:
        template(folder, text).render(specify(slurm=slurm))
    return str(caught.value)


def sbatch_words(text: str) -> list[str]:
    """The words of the #SBATCH lines, read as sbatch does: blanks separate, quotes hold together."""
    lines = [line.removeprefix("#SBATCH") for line in text.splitlines() if line.startswith("#SBATCH")]
    return [word for line in lines for word in shlex.split(line, comments=True)]


def test_the_built_in_template_says_what_the_command_line_says() -> None:
    spec = specify(slurm={"time_limit": "1:00:00", "gres": "gpu:1"}, tasks=200, throttle=8)
    text = SubmissionTemplate.built_in().render(spec)
    assert text.startswith("#!/bin/bash\n#SBATCH --job-name=digits-0123abcd.2\n")
    assert sbatch_words(text) == list(spec.words())
    assert "--array=0-199%8" in spec.words()
    assert "--output=/data/sweep/submissions/0123abcd/2.out" in spec.words()
    assert spec.words("afterany:4") == (*spec.words(), "--dependency=afterany:4")
    subprocess.run(["bash", "-n"], input=text, text=True, check=True, timeout=60)


def test_a_single_run_is_no_array() -> None:
    assert not [word for word in specify().words() if word.startswith("--array")]
    assert "--array=0-0" in specify(tasks=1).words()


@given(value=st.text(st.characters(min_codepoint=32, max_codepoint=0x2FF, exclude_characters="\x7f"), min_size=1))
def test_any_value_is_one_word_of_a_line(value: str) -> None:
    slurm = {"additional_args": [f"--comment={value}"]}
    if not value.isprintable():
        return
    spec = specify(slurm=slurm)
    assert sbatch_words(SubmissionTemplate.built_in().render(spec)) == list(spec.words())


def test_percent_signs_of_a_path_mean_themselves() -> None:
    assert "--output=/data/100%%/submissions/0123abcd/2.out" in specify(Path("/data/100%")).words()


@pytest.mark.parametrize("name", ["a\\b", "a\nb"])
def test_a_path_that_sbatch_would_misread_is_refused(name: str) -> None:
    with pytest.raises(SLURMError, match="rename it"):
        specify(Path("/data") / name).words()


@pytest.mark.parametrize(
    ("stem", "becomes"),
    [("digits", "digits"), ("my run/ü,%A", "my-run-A"), ("", "run"), ("///", "run"), ("a=b+c_d", "a-b+c_d")],
)
def test_job_names_are_plain_and_unique(stem: str, becomes: str) -> None:
    assert slurm_job_name(stem, TOKEN, 0) == f"{becomes}-{TOKEN}.0"
    assert len(slurm_job_name(stem + "x" * 1000, TOKEN, 12)) < 160


def scripts_of(folder: Path, **values: Any) -> list[list[str]]:
    """How a shell runs the same job by the built-in template and, with the simplest of shells, by one of the user's."""
    spec = specify(folder, **values)
    (folder / "submissions" / TOKEN).mkdir(parents=True)
    (folder / "built-in").write_text(SubmissionTemplate.built_in().render(spec))
    (folder / "own").write_text(template(folder, "#!/bin/sh\nset -eu\n{{ body }}\n").render(spec))
    return [["bash", str(folder / "built-in")], ["sh", str(folder / "own")]]


SHOW = 'printf "%s|" "${BASH_SOURCE[0]}" "$MTF_TOKEN" "$MTF_FIRST_ATTEMPT" "$MTF_SWEEP_DIR" "${MTF_JOB_ID-none}"'


@settings(max_examples=10)
@given(index=st.integers(0, 11), first=st.integers(1, 10**6))
def test_a_task_finds_its_run(tmp_path_factory: pytest.TempPathFactory, index: int, first: int) -> None:
    folder = tmp_path_factory.mktemp("it's $(touch hacked) 100%") / "é ;"
    folder.mkdir()
    scripts = scripts_of(folder, tasks=12)
    lines = []
    for number in range(12):
        name = f"run=+{number}"
        (folder / "runs" / name).mkdir(parents=True)
        (folder / "runs" / name / "job.sh").write_text(SHOW)
        lines.append(task_line(first + number, name))
    (folder / "submissions" / TOKEN / "2.tasks").write_text("".join(lines))
    environ = {"PATH": "/usr/bin:/bin", "SLURM_ARRAY_TASK_ID": str(index), "MTF_JOB_ID": ""}
    wanted = [f"{folder}/runs/run=+{index}/job.sh", TOKEN, str(first + index), str(folder), "none", ""]
    for script in scripts:
        done = subprocess.run(script, env=environ, capture_output=True, text=True, timeout=60, check=True)
        assert done.stdout.split("|") == wanted


@pytest.mark.parametrize(
    ("tasks", "index", "says"),
    [
        ("1 a\n", "1", "has no line for task 1"),
        ("1 a\n", "x", "SLURM_ARRAY_TASK_ID='x' is not the number of a task"),
        ("1 a\n", "", "SLURM_ARRAY_TASK_ID='' is not the number of a task"),
        ("0 a\n", "0", "has no line for task 0"),
        ("a\n", "0", "has no line for task 0"),
        (None, "0", "cannot read"),
    ],
)
def test_a_task_without_a_run_says_so(tmp_path: Path, tasks: str | None, index: str, says: str) -> None:
    scripts = scripts_of(tmp_path, tasks=2)
    if tasks is not None:
        (tmp_path / "submissions" / TOKEN / "2.tasks").write_text(tasks)
    environ = {"PATH": "/usr/bin:/bin", "SLURM_ARRAY_TASK_ID": index}
    for script in scripts:
        done = subprocess.run(script, env=environ, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 1
        assert says in done.stderr


def test_a_template_of_ones_own(tmp_path: Path) -> None:
    text = (
        "#!/bin/bash\n"
        "#SBATCH --job-name={{ job_name }}\n"
        "#SBATCH -p {{ partition }} --gres={{ gres }}\n"
        "{% if time_limit %}\n#SBATCH --time={{ time_limit }}\n{% endif %}\n"
        "{% for option in options %}\n#SBATCH {{ option }}\n{% endfor %}\n"
        "#SBATCH --reservation=ours\n"
        "{% set cluster = 'x' %}module load site/{{ cluster }}\n"
        "{{ body }}\n"
        "# the end\n"
    )
    spec = specify(slurm={"partition": "gpu", "gres": "gpu:1"})
    rendered = template(tmp_path, text).render(spec)
    assert "module load site/x\n" in rendered
    assert "#SBATCH -p gpu --gres=gpu:1\n" in rendered
    assert "--time" not in rendered
    assert spec.body() in rendered
    assert set(spec.words()) < set(sbatch_words(rendered))


def test_every_field_that_asks_something_of_slurm_has_its_name(tmp_path: Path) -> None:
    others = {
        "setup",
        "link",
        "template_path",
        "retries",
        "runs_per_job",
        "runs_at_once",
        "additional_args",
        "job_name",
    }
    names = {item.name for item in dataclasses.fields(SLURMConfig)} - others
    shown = "".join(f"# {name}: {{% if {name} %}}{{{{ {name} }}}}{{% endif %}}\n" for name in sorted(names))
    rendered = template(tmp_path, f"#!/bin/sh\n{shown}{{{{ body }}}}\n").render(specify(slurm={"nodes": 3, "qos": "q"}))
    assert "# nodes: 3\n" in rendered
    assert "# qos: q\n" in rendered


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("#!/bin/sh\n{% if %}\n{{ body }}", "site.sh.j2:2: "),
        ("#!/bin/sh\n\n{% for %}\n{{ body }}", "site.sh.j2:3: "),
        ("#!/bin/sh\n# {{ jobname }}\n{{ body }}", "site.sh.j2:2: unknown name 'jobname' (did you mean job_name?)"),
        ("#!/bin/sh\n# {{ setup }}\n{{ body }}", "site.sh.j2:2: unknown name 'setup'"),
        ("#!/bin/sh\n", "site.sh.j2: there is no {{ body }}"),
        ("#!/bin/sh\n{% if not body %}{% endif %}\n", "has {{ body }} 0 times"),
        ("#!/bin/sh\n{{ body }}\n{{ body }}\n", "has {{ body }} 2 times"),
        ("#!/bin/sh\n{{ body | indent }}\n", "has {{ body }} 0 times"),
        ("#!/bin/sh\n#\n#SBATCH --qos={{ qos }}\n{{ body }}", "site.sh.j2:3: a value is null"),
        ("#!/bin/sh\n# {{ options.nothing }}\n{{ body }}", "site.sh.j2:2: 'list object' has no attribute 'nothing'"),
        ("#!/bin/sh\n# {{ 1 / 0 }}\n{{ body }}", "site.sh.j2:2: ZeroDivisionError"),
        ("#!/bin/sh\n{% include 'x' %}\n{{ body }}", "site.sh.j2:2: "),
        ("echo hi\n{{ body }}\n", "the script begins with 'echo hi"),
        ("#!/usr/bin/env python3\n{{ body }}\n", "begins with '#!/usr/bin/env python3', and {{ body }} is for a shell"),
        ("#!/bin/tcsh -f\n{{ body }}\n", "begins with '#!/bin/tcsh -f', and {{ body }} is for a shell; begin it with"),
        ("#!/bin/sh\n{{ body }}\necho done\n", "'echo done' would never run: {{ body }} does not return"),
        ("#!/bin/sh\necho\n#SBATCH --time=1\n{{ body }}\n", "site.sh.j2:3: '#SBATCH --time=1' comes after a command"),
        ("#!/bin/sh\n#SBATCH --job-name=a-{{ job_name }}\n{{ body }}\n", "write slurm.job_name"),
        ("#!/bin/sh\n#SBATCH -J mine\n{{ body }}\n", "write slurm.job_name"),
        ("#!/bin/sh\n#SBATCH --output=x.log\n{{ body }}\n", "site.sh.j2:2: '#SBATCH --output=x.log': --output is"),
        ("#!/bin/sh\n#SBATCH -a0-3\n{{ body }}\n", "--array is the launcher's"),
        ("#!/bin/sh\n#SBATCH --no-requeue\n{{ body }}\n", "write slurm.requeue"),
        ("#!/bin/sh\n#SBATCH --signal=USR1\n{{ body }}\n", "write slurm.signal"),
        ("#!/bin/sh\n#SBATCH --tiem=3\n{{ body }}\n", "sbatch has no option --tiem; did you mean --time?"),
        ("#!/bin/sh\n#SBATCH hetjob\n{{ body }}\n", "site.sh.j2:2: '#SBATCH hetjob' makes several jobs of one"),
        ("#!/bin/sh\n#SBATCH --comment='x\n{{ body }}\n", "No closing quotation"),
        # what the template writes otherwise than it stands there has the line of the script
        ("#!/bin/sh\n{% set o = '--wait' %}\n#SBATCH {{ o }}\n{{ body }}", "j2: line 3 of the script: '#SBATCH --wait"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_template_is_told_with_its_place(tmp_path: Path, text: str, says: str) -> None:
    assert says in refusal(tmp_path, text)


@pytest.mark.parametrize("first", ["#!/bin/sh", "#!/bin/bash -l", "#! /usr/bin/env bash", "#!/usr/bin/env -S zsh -f"])
def test_any_shell_will_do(tmp_path: Path, first: str) -> None:
    path = tmp_path / "site.sh.j2"
    path.write_text(f"{first}\n{{{{ body }}}}\n")
    assert SubmissionTemplate.read(path).render(specify()).startswith(f"{first}\n")


def test_carriage_returns_do_not_reach_the_shell(tmp_path: Path) -> None:
    path = tmp_path / "dos.j2"
    path.write_bytes(b"#!/bin/sh\r\n{{ body }}\r\n")
    assert "\r" not in SubmissionTemplate.read(path).render(specify())


def test_a_template_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(SLURMError, match="cannot be read"):
        SubmissionTemplate.read(tmp_path / "nowhere")
    (tmp_path / "latin").write_bytes(b"#!/bin/sh \xff")
    with pytest.raises(SLURMError, match="cannot be read"):
        SubmissionTemplate.read(tmp_path / "latin")


def test_what_a_value_holds_is_no_template(tmp_path: Path) -> None:
    spec = specify(Path("/data/{{ qos }}"), slurm={"account": "{{ body }}"})
    assert "'--account={{ body }}'" not in SubmissionTemplate.built_in().render(spec)
    assert sbatch_words(SubmissionTemplate.built_in().render(spec)) == list(spec.words())
