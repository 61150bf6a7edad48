"""Pictures of the report and the explorer for README and docs, taken by Chromium.

    python benchmarks/pictures.py --report outputs/results/report/report.html --data outputs/results/store \
        --run outputs/results/mean16 outputs/results/bilstm16

Writes docs/images/report.png and docs/images/explorer.png, of 256 colours. Needs a `chromium` on the path.
"""

import argparse
import io
import shutil
import subprocess
import sys
from pathlib import Path

from PIL import Image
from playwright.sync_api import Page, sync_playwright

from egochef.files import atomic_path

IMAGES = Path(__file__).resolve().parents[1] / "docs" / "images"
SCALE = 0.75
"""of a picture to what the browser shows"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--report", type=Path, required=True, help="report.html")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--run", type=Path, nargs="+", required=True)
    args = parser.parse_args()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1200, "height": 1000}, color_scheme="light")
        page.goto(args.report.resolve().as_uri())
        for name in ("differences", "errors"):
            page.locator(f"#figure-{name}").scroll_into_view_if_needed()
            page.wait_for_selector(f"#figure-{name}[data-drawn]")
        page.wait_for_timeout(1000)
        page.evaluate("document.querySelector('figure:has(#figure-differences)').scrollIntoView()")
        page.evaluate("window.scrollBy(0, -50)")
        save(page, "report")
        words = ["explore", "--data", args.data, "--run", *args.run, "--port", "0", "--no-browser"]
        command = [sys.executable, "-m", "egochef", *map(str, words)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
            assert server.stdout is not None
            url = next(word for line in server.stdout for word in line.split() if word.startswith("http://"))
            page.goto(url)
            page.wait_for_selector("tbody tr")
            page.wait_for_timeout(1000)
            page.keyboard.press("j")
            page.keyboard.press("Enter")
            page.wait_for_timeout(2000)
            save(page, "explorer")
            server.terminate()
        browser.close()


def save(page: Page, name: str) -> None:
    """The page as it is shown."""
    picture = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
    size = (round(picture.width * SCALE), round(picture.height * SCALE))
    with atomic_path(IMAGES / f"{name}.png") as temporary:
        picture.resize(size, Image.Resampling.LANCZOS).quantize(256, method=Image.Quantize.MAXCOVERAGE).save(
            temporary, optimize=True
        )


if __name__ == "__main__":
    main()
