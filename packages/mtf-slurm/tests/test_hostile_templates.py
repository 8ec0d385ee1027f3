"""Values in a template of the user's own: data, whatever they hold, in `#SBATCH` lines and in those of the shell."""

from __future__ import annotations

import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtf_config import ExperimentConfig, SLURMConfig
from mtf_config.errors import ValidationError
from mtf_slurm.cluster.choosing import Templates, draft_scripts
from mtf_slurm.cluster.options import sbatch_options
from mtf_slurm.cluster.script import JobScriptSpec, SubmissionTemplate
from mtf_slurm.cluster.templates import Template
from mtf_slurm.errors import SLURMError
from mtf_utils.rundir import SweepDirectory
from mtf_utils.sections import PreemptionConfig

KEYS = {"experiment_name": "a", "model": {"name": "m"}, "data": {"dataset_name": "d"}, "optimizer": {"name": "o"}}
HOSTILE = [
    "$(touch hacked)",
    "`touch hacked`",
    "; touch hacked;",
    "x' ; touch hacked; '",
    'x" ; touch hacked; "',
    "x && touch hacked",
    "x > hacked",
    "a b",
    "a\\",
    "# hidden",
    "${HOME}",
    "{{ body }}",
    "*",
    "é \u202e",
    "a\u2028touch hacked",
]


def specify(**slurm: Any) -> JobScriptSpec:
    config = SLURMConfig(**slurm)
    options = sbatch_options(config, PreemptionConfig())
    return JobScriptSpec(job_name="a-t.0", options=options, config=config, sweep_dir=Path("/data"), token="t", number=0)


def render(folder: Path, text: str, **slurm: Any) -> str:
    path = folder / "site.j2"
    path.write_text(text)
    return SubmissionTemplate.read(path).render(specify(**slurm))


@pytest.mark.parametrize("line", ["echo {{ account }}", '\techo "{{ account }}"', "x='{{ account }}'", "{{ account }}"])
@pytest.mark.parametrize("value", HOSTILE)
def test_no_value_is_a_command(tmp_path: Path, line: str, value: str) -> None:
    with pytest.raises(SLURMError) as caught:
        render(tmp_path, f"#!/bin/sh\n\n{line}\n{{{{ body }}}}\n", account=value)
    assert "line 3" in str(caught.value)
    assert f": {value!r} is more than a word to the shell" in str(caught.value)
    assert "{{ account | quote }}" in str(caught.value)


@pytest.mark.parametrize("value", [*HOSTILE, "plain", "a@b.c"])
def test_what_is_quoted_arrives_as_it_is_and_runs_nothing(tmp_path: Path, value: str) -> None:
    text = "#!/bin/sh\nprintf '%s' {{ account | quote }} >shown\nexit\n{{ body }}\n"
    script = render(tmp_path, text, account=value)
    subprocess.run(["sh", "-c", script], cwd=tmp_path, check=True, timeout=60)
    assert (tmp_path / "shown").read_bytes() == value.encode()
    assert not (tmp_path / "hacked").exists()


@pytest.mark.parametrize("value", ["a b", "a # b", 'a"b', "a'b", "a\\b", "x --wrap=hacked", "a\u00a0b"])
def test_no_value_ends_its_word_in_an_option_line(tmp_path: Path, value: str) -> None:
    with pytest.raises(SLURMError, match="is more than one word for sbatch; every option is in `options`"):
        render(tmp_path, "#!/bin/sh\n#SBATCH --account={{ account }}\n{{ body }}\n", account=value)


def test_an_option_in_the_place_of_a_value_is_seen(tmp_path: Path) -> None:
    with pytest.raises(SLURMError, match="--wrap is the launcher's"):
        render(tmp_path, "#!/bin/sh\n#SBATCH -A {{ account }}\n{{ body }}\n", account="--wrap=hacked")


def test_what_is_legitimate_goes_through(tmp_path: Path) -> None:
    text = (
        "#!/bin/bash\n"
        "#SBATCH {{ options | join(' ') }}\n"
        "#SBATCH {{ options | join('\\n#SBATCH ') }}\n"
        "#SBATCH --constraint={{ constraint }}\n"
        "# for {{ account }}, at {{ mail_user }}\n"
        "{% if nodes > 1 %}export MANY={{ nodes * 2 }}{% endif %}\n"
        "{% set where = account | quote %}cd /scratch/{{ where }} && "
        "load {{ 'site' ~ '/1.2' }} {{ constraint | quote }}\n"
        "{{ body }}\n"
    )
    wanted = {"account": "our project", "constraint": "a&(b|c)*2", "nodes": 3, "mail_user": "a+b@c.d"}
    script = render(tmp_path, text, **wanted, additional_args=['--comment=it\'s "100%" # \\ $HOME'])
    assert "cd /scratch/'our project' && load site/1.2 'a&(b|c)*2'\n" in script
    assert "# for our project, at a+b@c.d\n" in script
    assert "export MANY=6\n" in script
    subprocess.run(["bash", "-n"], input=script, text=True, check=True, timeout=60)


def test_a_comment_that_may_be_none_takes_no_substitution(tmp_path: Path) -> None:
    text = "#!/bin/sh\ncat <<END\n# {{ account }}\nEND\n{{ body }}\n"
    assert "# ours\n" in render(tmp_path, text, account="ours")
    with pytest.raises(SLURMError, match="line 3"):
        render(tmp_path, text, account="$(touch hacked)")


# what SLURMConfig lets pass: one line without control characters
ONE_LINE = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters=[*map(chr, range(32)), "\x7f"]), min_size=1
)


@given(value=ONE_LINE.filter(str.strip), quoted=st.booleans())
def test_any_value_is_one_word_or_refused(value: str, quoted: bool) -> None:
    template = SubmissionTemplate(
        Template(
            f"#!/bin/sh\nset -- {{{{ account{' | quote' * quoted} }}}}\n{{{{ body }}}}\n",
            name="t",
            known=("account", "body"),
        )
    )
    try:
        spec = specify(account=value)
    except ValidationError:  # ${env:...}, which no job can ask with
        return
    try:
        script = template.render(spec)
    except SLURMError:
        assert not quoted
        return
    line = script.split("\n")[1]
    assert shlex.split(line.removeprefix("set -- ")) == [value]


@pytest.mark.parametrize(
    ("lines", "place", "said"),
    [
        ("if true; then\necho a", ":3", "bash cannot read 'echo a': syntax error: unexpected end of file"),
        ("echo 'x", ":2", "unexpected EOF while looking for matching"),
        ("echo a\nfi", ":3", "bash cannot read 'fi': syntax error near unexpected token `fi'"),
        ("cat <<E\nhi", ":2", "here-document delimited by end-of-file (wanted `E')"),
        ("for x in {{ account }}; do\necho\ndone done", ":4", "near unexpected token `done'"),
        ("fi\nfi", ": line 2 of the script", "bash cannot read 'fi'"),
    ],
)
@pytest.mark.parametrize("shell", ["/bin/bash", "/usr/bin/env bash", "/bin/sh"])
def test_what_bash_cannot_read_is_told_before_it_is_submitted(
    tmp_path: Path, shell: str, lines: str, place: str, said: str
) -> None:
    path = tmp_path / "site.j2"
    path.write_text(f"#!{shell}\n{lines}\n{{{{ body }}}}\n")
    config = ExperimentConfig.from_dict(KEYS | {"slurm": {"account": "a"}})
    (draft,) = draft_scripts(SweepDirectory(tmp_path / "sweep"), {"a": config}, Templates(tmp_path, path))
    assert draft.problem.startswith(f"{path}{place}: bash cannot read ")
    assert said in draft.problem
    assert draft.text == ""


def test_what_bash_need_not_read_is_left_to_who_does(tmp_path: Path) -> None:
    path = tmp_path / "site.j2"
    for text in ("#!/bin/zsh\nfi\n{{ body }}\n", "#!/bin/bash\nshopt -s extglob\nrm -f !(x)\n{{ body }}\n"):
        path.write_text(text)
        template = SubmissionTemplate.read(path)
        assert template.unreadable(template.render(specify())) == ""


@pytest.mark.parametrize(
    "tag", ["include 'x.sh'", "extends 'x.sh'", "import 'x.sh' as x", "from 'x.sh' import y", "include account"]
)
def test_a_template_reads_no_other_file(tmp_path: Path, tag: str) -> None:
    with pytest.raises(SLURMError) as caught:
        render(tmp_path, f"#!/bin/sh\n{{% {tag} %}}\n{{{{ body }}}}\n")
    word = tag.partition(" ")[0]
    assert str(caught.value) == (
        f"{tmp_path / 'site.j2'}:2: {{% {word} %}} reads another file, and a template is one; "
        "write here what that file would bring"
    )
