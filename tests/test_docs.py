"""Every block of code in the README and the docs runs as it is written, each page from its first to its last."""

from __future__ import annotations

import ast
import importlib.util
import os
import re
import runpy
import shutil
import subprocess
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ssmrt
from cases import GOLDEN
from command_line import environment
from ssmrt import demo
from ssmrt.cli.main import _all_parsers, _parser
from ssmrt.readers import read
from test_architecture import EXTRAS
from wav_files import wav

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
# What a mark before a block may say that it needs: frameworks whose users a page is for, and extras.
NEEDS = {"jax", "equinox", "flax", "torch"} | EXTRAS
# Options of every command that takes a checkpoint: one example of each is enough.
WHICH = {"--config", "--arch", "--prefix", "--step", "--dtype", "--weights"}
SHOWN = {"text", "c", "js"}
# .ci/run runs them in a fresh clone.
SETTING_UP = [
    "python3 -m venv .venv && .venv/bin/pip install '.[cli]' && .venv/bin/ssmrt demo",
    ".venv/bin/pip install '.[test]' && .venv/bin/pytest -n auto",
]


@dataclass(frozen=True)
class Block:
    """``<!-- needs: a, b -->`` may stand before it."""

    language: str
    code: str
    needs: frozenset[str]
    line: int

    @property
    def imports(self) -> set[str]:
        """Packages that are neither ssmrt, nor brought by it, nor Python's own."""
        found = set()
        for node in ast.walk(ast.parse(self.code)) if self.language == "python" else ():
            if isinstance(node, ast.Import):
                found |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                found.add((node.module or "").partition(".")[0])
        return found - sys.stdlib_module_names - {"numpy", "ssmrt"}


def blocks(page: Path) -> list[Block]:
    text = page.read_text(encoding="utf-8")
    found = []
    for match in re.finditer(r"(?:^<!-- needs: ([\w, ]+) -->\n)?^```(\w*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        needs = frozenset(re.split(r",\s*", match[1])) if match[1] else frozenset()
        found.append(Block(match[2], match[3], needs, text.count("\n", 0, match.start(3)) + 1))
    assert 2 * len(found) == len(re.findall(r"^```", text, re.MULTILINE))
    return found


def copy(*pairs: tuple[str, str]) -> Callable[[], None]:
    """Puts golden files where a page expects its own."""

    def give() -> None:
        for source, target in pairs:
            Path(target).parent.mkdir(exist_ok=True)
            shutil.copy(GOLDEN / source, target)

    return give


def for_jax() -> None:
    copy(
        ("jax/s5_cls_default/variables.msgpack", "checkpoints/checkpoint_100"),
        ("jax/equinox_s4_yardenas/model.eqx", "s4/model.eqx"),
    )()
    tensors, layer = read(GOLDEN / "nn" / "model.eqx").tensors, "blocks[0].s4d."
    arrays: dict[str, Any] = {name[len(layer) :]: array for name, array in tensors.items() if name.startswith(layer)}
    np.savez("layer.npz", **arrays)


def for_generate() -> None:
    folder = shutil.copytree(GOLDEN / "torch/hf_mamba2", "mamba-130m-hf")
    if importlib.util.find_spec("tokenizers") is not None:
        import letters

        letters.write(Path(folder) / "tokenizer.json")


SPOTTER = "torch/s4d_minimal/checkpoint_dataparallel.pt"


def of_the_demo() -> None:
    """Pages for whoever has followed the first one."""
    demo.spotter().save("spotter.ssm.safetensors")
    Path("recording.wav").write_bytes(wav(demo.clips()[0].samples))


def for_the_command_line() -> None:
    of_the_demo()
    copy((SPOTTER, "model.pth"), (SPOTTER, "steps/checkpoint_100.pth"))()
    tensors: dict[str, Any] = {f"model.{name}": array for name, array in read(Path("model.pth")).tensors.items()}
    tensors["loss.weight"] = np.ones(3, np.float32)
    np.savez("lightning.npz", **tensors)
    sound = demo.clips()[0].samples[6000:8000]
    Path("stereo.wav").write_bytes(wav(np.stack([sound, sound], axis=1)))
    Path("samples.raw").write_bytes((sound * 32767).astype("<i2").tobytes())
    Path("log.csv").write_text("t,x\n" + "\n".join(f"{i},{x}" for i, x in enumerate(sound)))
    np.save("typical.npy", sound[:, None])
    layer = ssmrt.diagonal([[-0.5 + 3j]], [[1]], [[1]], [0.0], [0.05])
    layer.save("small.ssm.safetensors")
    A, one = -0.5 + 1j * np.pi * np.arange(8), np.ones((1, 8))
    ssmrt.diagonal(A[None], one, one, [1.0], [0.05]).save("layer.ssm.safetensors")
    shutil.copytree(GOLDEN / "torch/hf_mamba2", "mamba-130m-hf")


def for_the_help() -> None:
    for_the_command_line()
    for i, clip in enumerate(demo.clips()[:3]):
        Path(f"clips/{i}.wav").parent.mkdir(exist_ok=True)
        Path(f"clips/{i}.wav").write_bytes(wav(clip.samples))
    np.save("tokens.npy", [12, 7, 30])
    shutil.copy("layer.ssm.safetensors", "model.ssm.safetensors")
    if importlib.util.find_spec("onnx") is not None:
        ssmrt.export_onnx(demo.spotter(), "spotter.onnx")
    if importlib.util.find_spec("tokenizers") is not None:
        import letters

        letters.write(Path("mamba-130m-hf/tokenizer.json"))


FILES = {
    "command-line.md": for_the_command_line,
    **dict.fromkeys(("format.md", "microphone.md", "performance.md", "stability.md", "streams.md"), of_the_demo),
    "README.md": copy((SPOTTER, "model.pth")),
    "export.md": copy((SPOTTER, "spotter.pth")),
    "pytorch.md": copy(("kws/kws_s4d.pth", "model.pth")),
    "equinox.md": copy(("nn/model.eqx", "model.eqx"), ("nn/leaves.json", "leaves.json")),
    "jax.md": for_jax,
    "generate.md": for_generate,
}


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Runs a command as if ssmrt were installed, and before a microphone that hears one word."""
    programs = tmp_path / "bin"
    programs.mkdir()
    (tmp_path / "recording.wav").write_bytes(wav(demo.clips()[0].samples))
    for name, does in (("ssmrt", f'{sys.executable} -m ssmrt "$@"'), ("arecord", f"cat {tmp_path}/recording.wav")):
        (programs / name).write_text(f"#!/bin/sh\nexec {does}\n")
        (programs / name).chmod(0o755)

    def run(command: str) -> None:
        path = {"PATH": f"{programs}{os.pathsep}{os.environ['PATH']}"}
        done = subprocess.run(
            ["bash", "-ec", command], capture_output=True, text=True, env=environment(**path), timeout=120
        )
        assert done.returncode == 0, f"{command}: {done.stderr}"

    return run


def install(command: str) -> bool:
    """Whether the command installs ssmrt, with extras that there are."""
    match = re.fullmatch(r"pip install '?ssmrt(?:\[([\w,]+)\])?'?", command)
    if match is None:
        return False
    declared = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    for extra in (match[1] or "").split(","):
        assert not extra or re.search(rf"^{extra} = \[", declared, re.MULTILINE), f"no extra {extra}"
    return True


# One of the checkpoints that the pages load is, of which ssmrt warns.
@pytest.mark.filterwarnings("ignore:layer .* is unstable:UserWarning")
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_code_of_a_page_runs(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shell: Callable[[str], None]
) -> None:
    found = blocks(page)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    FILES.get(page.name, lambda: None)()
    names: dict[str, object] = {}
    missing = set()
    np.random.seed(0)
    for block in found:
        lacking = {module for module in block.needs if importlib.util.find_spec(module) is None}
        missing |= lacking
        if lacking or block.language in SHOWN:
            continue
        if block.language == "python":
            # So that a traceback has the line of the page.
            code = compile("\n" * (block.line - 1) + block.code, page.name, "exec")
            with warnings.catch_warnings():
                # Half the rate aliases, as it says.
                warnings.filterwarnings("ignore", message="rate=2", category=UserWarning)
                exec(code, names)
        else:
            for command in block.code.replace("\\\n", " ").splitlines():
                if command not in SETTING_UP and not install(command) and not command.startswith("#"):
                    shell(command)
    if missing:
        pytest.skip(f"{page.name}: what can be run without {', '.join(sorted(missing))} ran")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_block_says_what_it_needs(page: Path) -> None:
    for block in blocks(page):
        assert block.language in {"python", "sh"} | SHOWN, f"{page.name}:{block.line}"
        assert block.imports <= block.needs <= NEEDS, f"{page.name}:{block.line}"


def test_setting_up_is_tested_by_ci() -> None:
    found = [line for block in blocks(ROOT / "README.md") if block.language == "sh" for line in block.code.splitlines()]
    assert found[:2] == SETTING_UP
    ci = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    for i in range(2):
        assert f'step bash -c "${{readme[{i}]}}"' in ci


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_to_what_is_there(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", text):
        assert (page.parent / target).exists(), target
    for target in re.findall(r"https://github\.com/ssmrt/ssmrt/(?:blob|tree)/main/([^)\s#]+)", text):
        assert (ROOT / target).exists(), target


def test_the_readme_reads_the_same_on_an_index_page() -> None:
    text = re.sub(r"^```.*?^```$", "", (ROOT / "README.md").read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    assert not re.findall(r"\]\((?!https://)([^)]+)\)", text)
    defined = re.findall(r"^\[([^\]]+)\]: https://", text, re.MULTILINE)
    assert set(re.findall(r"\[[^\]]+\]\[([^\]]+)\]", text)) == set(defined)


def test_the_picture_of_the_architecture_is_what_its_script_draws() -> None:
    """Where it is not: ``python tools/architecture_picture.py``."""
    tool = runpy.run_path(str(ROOT / "tools" / "architecture_picture.py"))
    assert tool["PICTURE"].read_text(encoding="utf-8") == tool["svg"]()


def test_the_picture_of_the_architecture_is_seen_on_light_and_dark_pages() -> None:
    """By the contrasts of WCAG 2.2, 1.4.3 and 1.4.11: 4.5 of text, 3 of lines."""
    tool = runpy.run_path(str(ROOT / "tools" / "architecture_picture.py"))

    def luminance(colour: str) -> float:
        parts = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
        linear = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
        return float(linear @ [0.2126, 0.7152, 0.0722])

    def contrast(one: str, other: str) -> float:
        low, high = sorted((luminance(one), luminance(other)))
        return (high + 0.05) / (low + 0.05)

    assert all(contrast(tool["TEXT"], box.colours[0]) > 4.5 for box in tool["BOXES"])
    # White, and the dark grounds of GitHub and of the site.
    assert all(contrast(tool["ARROW"], page) > 3 for page in ("#ffffff", "#0d1117", "#1e2129"))


def test_every_page_is_in_the_sites_navigation() -> None:
    navigation = (ROOT / "mkdocs.yml").read_text(encoding="utf-8").partition("\nnav:")[2]
    assert set(re.findall(r"[\w-]+\.md", navigation)) == {page.name for page in (ROOT / "docs").glob("*.md")}


# Extras that the examples of a command's help need.
HELP_NEEDS = {
    "ssmrt": ("matplotlib", "onnx"),
    "ssmrt run": ("tokenizers",),
    "ssmrt verify": ("onnxruntime",),
    "ssmrt export": ("onnx", "onnxruntime"),
    **dict.fromkeys(("ssmrt bench", "ssmrt plot", "ssmrt reduce"), ("matplotlib",)),
}


@pytest.mark.parametrize("command", [parser.prog for parser in _all_parsers(_parser())])
def test_the_examples_of_help_run(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shell: Callable[[str], None]
) -> None:
    for module in HELP_NEEDS.get(command, ()):
        pytest.importorskip(module)
    monkeypatch.chdir(tmp_path)
    for_the_help()
    shown = subprocess.run(
        [sys.executable, "-m", *command.split(), "--help"],
        capture_output=True,
        text=True,
        env=environment(),
        check=True,
    )
    examples = re.findall(r"^    ((?:arecord .*\| )?ssmrt \S.*)$", shown.stdout, re.MULTILINE)
    assert examples
    for example in examples:
        shell(example)


def test_every_option_is_in_an_example_that_runs() -> None:
    code = "\n".join(block.code for block in blocks(ROOT / "docs" / "command-line.md") if block.language == "sh")
    lines = code.splitlines()
    for parser in _all_parsers(_parser()):
        mine = " ".join(line for line in lines if parser.prog in line)
        for action in parser._actions:
            if action.option_strings and not {"--help", *WHICH} & {*action.option_strings}:
                assert any(option in mine.split() for option in action.option_strings), (parser.prog, action.dest)
    assert all(any(option in line.split() for line in lines) for option in WHICH)
