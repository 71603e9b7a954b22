"""MkDocs hooks: generate reference pages, copy figures, and check the API reference and the built pages."""

from __future__ import annotations

import re
from pathlib import Path

from cli_reference import cli_page
from errors_reference import errors_page
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from public_names import problems

ROOT = Path(__file__).parents[2]
GENERATED = {"reference/cli.md": cli_page, "reference/errors.md": errors_page}
# A picture that lies elsewhere in the repository: ![text](../benchmarks/results/figure.png).
OUTSIDE_PICTURE = re.compile(r"(!\[[^\]]*\]\()((?:\.\./)+[\w./-]+\.(?:png|svg))\)")
# An element that makes a browser load something from another host.
REMOTE = re.compile(r"<(?!a\b)\w+[^>]*\s(?:src|srcset|href|data|poster)=[\"']?(?:https?:)?//[^>]*>", re.IGNORECASE)
STYLE = re.compile(r"<style\b.*?</style>", re.DOTALL | re.IGNORECASE)
REMOTE_STYLE = re.compile(r"(?:@import|url\()[\s\"'(]*(?:https?:)?//[^;)]*")
MERMAID = re.compile(r"class=[\"'][^\"']*\bmermaid\b")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the generated pages, and the pictures that pages take from elsewhere in the repository."""
    for path, generate in GENERATED.items():
        files.append(File.generated(config, path, content=generate()))
    for page in list(files.documentation_pages()):
        for _, target in OUTSIDE_PICTURE.findall(page.content_string):
            picture = _picture(page.src_uri, target)
            if picture is not None and files.get_file_from_path(_place(picture)) is None:
                files.append(File.generated(config, _place(picture), abs_src_path=str(picture)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Point links to pictures outside docs/ to their copies in the site."""
    del config, files

    def moved(match: re.Match[str]) -> str:
        picture = _picture(page.file.src_uri, match[2])
        up = "../" * page.file.src_uri.count("/")
        return match[0] if picture is None else f"{match[1]}{up}{_place(picture)})"

    return OUTSIDE_PICTURE.sub(moved, markdown)


def on_post_build(config: MkDocsConfig) -> None:
    """Fail the build if a public name is undocumented, or if a page loads something from another host."""
    site = Path(config.site_dir)
    pages = {path: path.read_text("utf-8") for path in sorted(site.rglob("*.html"))}
    anchors = {
        anchor
        for path, text in pages.items()
        if path.is_relative_to(site / "reference")
        for anchor in re.findall(r"\bid=\"(hedgerow\.[\w.]+)\"", text)
    }
    found = problems(lambda name: name.path in anchors)
    for path, text in pages.items():
        remote = [match[0][:120] for match in REMOTE.finditer(text)]
        remote += [match for style in STYLE.findall(text) for match in REMOTE_STYLE.findall(style)]
        remote += ["a Mermaid diagram, whose script is loaded from a CDN"] if MERMAID.search(text) else []
        found += [f"{path.relative_to(site)} loads from another host: {element}" for element in remote]
    for path in sorted(site.rglob("*.css")):
        remote = REMOTE_STYLE.findall(path.read_text("utf-8"))
        found += [f"{path.relative_to(site)} loads from another host: {element}" for element in remote]
    if found:
        raise PluginError("\n".join([f"{len(found)} problems in the documentation:", *found]))


def _picture(page: str, target: str) -> Path | None:
    """The file that a link of a page leads to, if it is in the repository and outside docs/."""
    path = (ROOT / "docs" / page).parent.joinpath(target).resolve()
    outside = path.is_relative_to(ROOT) and not path.is_relative_to(ROOT / "docs")
    return path if outside and path.is_file() else None


def _place(picture: Path) -> str:
    return f"assets/{picture.relative_to(ROOT).as_posix()}"
