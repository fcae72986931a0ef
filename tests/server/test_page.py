"""The page's files as the server gives them: complete, closed to foreign code, open to those without a key."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from aiohttp import ClientSession

from streamsrv.server import page
from streamsrv.settings import ServerSettings
from tests.support.server import running

FOLDER = Path(page.__file__).parent
KEY = "a-key-for-tests"


def policy(header: str) -> dict[str, list[str]]:
    return {words[0]: words[1:] for part in header.split(";") if (words := part.split())}


def shipped() -> set[str]:
    return {path.name for path in FOLDER.iterdir() if path.is_file() and path.suffix != ".py"}


def test_the_list_is_what_lies_in_the_folder() -> None:
    assert page.NAMES | {page.INDEX} == shipped()


@pytest.mark.parametrize("name", sorted(shipped()))
def test_a_file_asks_only_for_files_of_the_list(name: str) -> None:
    text = (FOLDER / name).read_text("utf-8")
    asked = set(re.findall(r'(?:src|href)="page/([^"]+)"|from "\./([^"]+)"|new URL\("([^"]+\.js)"', text))
    assert {found for groups in asked for found in groups if found} <= page.NAMES
    foreign = [
        url for url in re.findall(r"(?:https?:)?//[\w.-]+\.\w+[^\s\"']*", text) if "www.w3.org/2000/svg" not in url
    ]
    assert foreign == []


@pytest.mark.parametrize("name", sorted(name for name in shipped() if name.endswith(".js")))
def test_no_text_can_become_markup_or_code(name: str) -> None:
    assert not re.search(
        r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b|new Function",
        (FOLDER / name).read_text("utf-8"),
    )


def test_the_markup_has_no_inline_code_or_style() -> None:
    html = (FOLDER / page.INDEX).read_text("utf-8")
    assert not re.search(r"<style|\sstyle=|\son\w+=|<script(?![^>]*\bsrc=)", html)


async def test_every_file_comes_with_its_kind_and_a_strict_policy(tmp_path: Path) -> None:
    kinds = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml", ".html": "text/html"}
    async with running(tmp_path) as server, ClientSession(server.http) as http:
        for path in sorted(page.PATHS):
            async with http.get(path) as response:
                name = path.rpartition("/")[2] or page.INDEX
                assert response.status == 200
                assert response.content_type == kinds[Path(name).suffix]
                assert await response.text() == (FOLDER / name).read_text("utf-8")
                assert response.headers["X-Content-Type-Options"] == "nosniff"
                rules = policy(response.headers["Content-Security-Policy"])
                assert rules["default-src"] == ["'none'"]
                assert rules["script-src"] == rules["style-src"] == rules["connect-src"] == ["'self'"]
                assert rules["frame-ancestors"] == rules["base-uri"] == rules["form-action"] == ["'none'"]
                assert not [word for words in rules.values() for word in words if "unsafe" in word or "*" in word]


@pytest.mark.parametrize("name", ["__init__.py", "index.html", "..%2Fauth.py", "%2e%2e/auth.py", "x", ""])
async def test_nothing_else_is_served(tmp_path: Path, name: str) -> None:
    async with running(tmp_path) as server, ClientSession() as http, http.get(f"{server.http}/page/{name}") as response:
        assert response.status == 404
        assert (await response.json())["error"]["hint"]


async def test_the_page_opens_without_a_key_and_nothing_else_does(tmp_path: Path) -> None:
    settings = ServerSettings(api_keys=(KEY,))
    async with running(tmp_path, server=settings) as server, ClientSession(server.http) as http:
        for path in sorted(page.PATHS):
            async with http.get(path) as response:
                assert response.status == 200
        for path in ("/transcription/t-1", "/transcription/stream/t-1", "/metrics", "/page/x"):
            async with http.get(path) as response:
                assert response.status == 401
