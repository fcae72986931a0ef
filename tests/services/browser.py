"""A real Chromium that hears a WAV file as its microphone, and the page in it."""

from __future__ import annotations

import asyncio
import os
import shutil
import wave
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from playwright.async_api import Locator, Page, async_playwright, expect

WITHIN_MS = 30_000
"""How long anything on the page may take on a busy machine."""
FLAGS = (
    "--disable-gpu",
    "--use-fake-ui-for-media-stream",
    "--use-fake-device-for-media-stream",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
)


def chromium() -> str:
    """The browser's path; ``CHROMIUM`` names another one.  A missing one is a failure here, not a skip."""
    found = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
    assert found, "Chromium is not installed: apt-get install chromium, or set CHROMIUM"
    return found


def wav(path: Path, audio: bytes, *, rate_hz: int = 16_000) -> Path:
    """Write s16le mono audio as a WAV file."""
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate_hz)
        file.writeframes(audio)
    return path


class Seat:
    """Somebody in front of the page."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.complaints: list[str] = []
        page.on("pageerror", lambda error: self.complaints.append(str(error)))

    def __getitem__(self, name: str) -> Locator:
        return self.page.locator(f"#{name}")

    async def sees(self, state: str) -> None:
        await expect(self["status"]).to_have_attribute("data-state", state, timeout=WITHIN_MS)

    async def choose(self, recording: Path, pace: str, interview: str) -> None:
        await self.page.get_by_text("Audio file").click()
        await self["file"].set_input_files(recording)
        await self["pace"].select_option(pace)
        await self["interview"].fill(interview)

    async def finals(self, at_least: int) -> None:
        await expect(self.page.locator("#finals li").nth(at_least - 1)).to_be_visible(timeout=WITHIN_MS)

    async def lines(self) -> list[str]:
        return await self.page.locator("#finals li > span").all_inner_texts()

    async def download(self, form: str) -> str:
        """The transcript behind the link of this name."""
        async with self.page.expect_download() as downloading:
            await self.page.get_by_role("link", name=form).click()
        path = await (await downloading.value).path()
        return await asyncio.to_thread(Path(path).read_text, "utf-8")


@asynccontextmanager
async def seat(
    url: str, *, microphone: Path | None = None, width: int = 1_100, dark: bool = False
) -> AsyncIterator[Seat]:
    """Open the page; when it is closed again it must not have thrown anything."""
    heard = [f"--use-file-for-fake-audio-capture={microphone}%noloop"] if microphone else []
    async with async_playwright() as driver:
        browser = await driver.chromium.launch(
            executable_path=chromium(), args=[*FLAGS, *heard], chromium_sandbox=False, headless=True
        )
        context = await browser.new_context(
            viewport={"width": width, "height": 900},
            color_scheme="dark" if dark else "light",
            permissions=["microphone"],
        )
        sitting = Seat(await context.new_page())
        await sitting.page.goto(url)
        await sitting.sees("idle")
        yield sitting
        assert sitting.complaints == []
        await browser.close()
