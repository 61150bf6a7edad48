"""The package as `pip install` gives it: the wheel, without extras, in a fresh environment, and every command there.

Builds the wheel, installs it with the pinned versions, runs the demo and each command's first step on what the demo
made. Each must succeed, or end in the one line that says what to install or to mend. Prints what each did; the exit
code is 1 if any did something else. Run it by `make plain`.
"""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
SEGMENTS = "24"
"""of the demo's kitchen: the least that has every split"""
ABSENT = ("altair", "coremltools", "itables", "onnx", "onnxruntime", "openvino", "pygame", "starlette", "tensorboard",
          "torchcodec", "transformers", "vl_convert", "wandb")  # fmt: skip
"""modules of the extras, which must not be there"""


def needs(module: str, extra: str) -> str:
    """How the line ends that names an extra."""
    return f'{module} is not installed: pip install "egochef[{extra}]"'


def steps(demo: Path) -> list[tuple[str, int, str]]:
    """(words after `egochef`, exit code, what the output must hold); a fault must be one line that holds it."""
    data, store, run16 = demo / "data", demo / "store", demo / "run16"
    video = next(data.rglob("*.MP4"))
    held_out = "held_out=P02"
    return [
        ("--version", 0, "egochef 0."),
        ("toy --out toy --segments 24", 0, ""),
        (f"doctor --data {data}", 0, "0 errors"),
        (f"stats --data {data}", 0, "Commonest verbs"),
        (f"stats --data {data} --out stats", 1, needs("altair", "report")),
        (f"prepare --data {data} --out prepared --size 128", 0, ""),
        (f"features --checkpoint {run16} --data {store} --out kept --views 1", 0, ""),
        ("train --recipe toy --data kept --out heads --epochs 1", 0, ""),
        (f"train --recipe toy --data {store} --out debug --debug --set {held_out}", 0, ""),
        (f"train --recipe toy --data {store} --out tracked --track tensorboard", 1, needs("tensorboard", "track")),
        (f"train --recipe toy --data {store} --out tracked --track wandb", 1, needs("wandb", "track")),
        (f"convert nothing.ckpt --data {data} --out tsn.safetensors", 1, "nothing.ckpt: "),
        ("models", 0, "resnet50"),
        (f"runs {demo}", 0, "run16"),
        (f"tune --checkpoint debug --data {store} --out tuned.json", 0, ""),
        (f"evaluate --checkpoint {run16} --data {store} --out evaluation", 0, "action"),
        (f"evaluate --checkpoint {run16}.onnx --data {store} --out evaluation", 1, ""),
        (f"report {run16}", 1, needs("altair", "report")),
        (f"explore --data {data}", 1, needs("h11", "report")),
        (f"submit --checkpoint {run16} --data {store} --out submission.zip", 0, ""),
        (f"submit --check submission.zip --data {store}", 0, ""),
        (f"predict {video} --checkpoint {run16} --log predictions.jsonl --render rendered.mp4", 0, ""),
        (f"predict {video} --checkpoint {run16} --backend onnx", 1, needs("onnx", "onnx")),
        (f"predict {video} --checkpoint {run16} --backend openvino", 1, needs("onnx", "openvino")),
        (f"live --checkpoint {run16} --camera {video} --headless --log live.jsonl", 0, ""),
        (f"live --checkpoint {run16} --camera {video}", 1, needs("pygame", "live")),
        (f"export --checkpoint {run16} --format coreml --output x.mlpackage", 1, needs("coremltools", "coreml")),
        (f"export --checkpoint {run16} --format onnx --output x.onnx", 1, needs("onnx", "onnx")),
        ("bench data --quick --rounds 1 --json", 0, "torchcodec is not installed"),
        ("bench train --quick --models timesformer --json", 0, "transformers is not installed"),
        ("bench live --quick --models light16 --ways torch onnx --json", 0, "onnx is not installed"),
        (f"slurm print train --recipe frames16 --data {store} --out job", 0, "#SBATCH"),
    ]


def main() -> int:
    with tempfile.TemporaryDirectory(prefix="egochef-plain-") as folder:
        root = Path(folder)
        scripts = install(root)
        environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
        environment |= {"EGOCHEF_CACHE": str(root / "cache")}

        def run(words: str) -> subprocess.CompletedProcess[str]:
            command = [scripts / "egochef", *words.split()]
            return subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, check=False)

        begun = time.perf_counter()
        demo = run(f"demo --out demo --segments {SEGMENTS}")
        print(f"demo: exit code {demo.returncode}, {time.perf_counter() - begun:.0f} s\n{demo.stdout}")
        left_out = [line for line in demo.stdout.splitlines() if line.startswith("left out: ")]
        if demo.returncode or len(left_out) != 2:
            print(demo.stderr, file=sys.stderr)
            return 1
        faults = sum(not judge(words, code, text, run(words)) for words, code, text in steps(root / "demo"))
    print(f"{faults} commands did something else" if faults else "every command works, or says what it needs")
    return int(faults > 0)


def install(root: Path) -> Path:
    """The wheel in an environment of its own; returns its folder of programs."""
    pip = ["-m", "pip", "--disable-pip-version-check", "--quiet"]
    subprocess.run([sys.executable, *pip, "wheel", "--no-deps", "--wheel-dir", root, REPOSITORY], check=True)
    (wheel,) = root.glob("egochef-*.whl")
    subprocess.run([sys.executable, "-m", "venv", root / "venv"], check=True)
    scripts = root / "venv" / ("Scripts" if os.name == "nt" else "bin")
    constraints = REPOSITORY / "constraints.txt"
    subprocess.run([scripts / "python", *pip, "install", "--constraint", constraints, wheel], check=True)
    code = f"import importlib.util as util; print(*[name for name in {ABSENT} if util.find_spec(name)])"
    there = subprocess.run([scripts / "python", "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not there, f"a plain install has brought {', '.join(there)}, which belong to extras"
    return scripts


def judge(words: str, code: int, text: str, done: subprocess.CompletedProcess[str]) -> bool:
    """Print what a command did, and whether that is what it should do."""
    said = done.stdout if code == 0 else done.stderr
    lines = said.strip().splitlines()
    good = done.returncode == code and (text in said) and (code == 0 or (len(lines) == 1 and "Traceback" not in said))
    shown = next((line for line in lines if text and text in line), (lines or [""])[-1])
    print(f"{'ok  ' if good else 'FAIL'} egochef {words}\n       {done.returncode}: {shown.strip()}", flush=True)
    if not good:
        print(f"expected {code} and {text!r}; standard output and error:\n{done.stdout}\n{done.stderr}")
    return good


if __name__ == "__main__":
    sys.exit(main())
