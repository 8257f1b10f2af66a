"""A picture of the top of a report's page, drawn by the Chromium that is installed.

python -m benchmarks.page_picture out/half-cheetah/report/report.html docs/images/half-cheetah-report.png
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

WIDTH, HEIGHT, SCALE = 1100, 1900, 1.5


def main() -> None:
    """Draw the page of the first argument into the PNG of the second."""
    from playwright.sync_api import sync_playwright

    page_file, picture = Path(sys.argv[1]).resolve(), Path(sys.argv[2])
    browser_file = shutil.which("chromium") or shutil.which("google-chrome")
    if browser_file is None:
        sys.exit("no Chromium here; on Debian: apt-get install chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=browser_file, args=["--no-sandbox"])
        page = browser.new_page(
            viewport={"width": WIDTH, "height": HEIGHT}, device_scale_factor=SCALE, color_scheme="light"
        )
        page.goto(page_file.as_uri())
        page.screenshot(path=picture)
        browser.close()


if __name__ == "__main__":
    main()
