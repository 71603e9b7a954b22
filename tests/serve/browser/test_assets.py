"""The files for operators in docs/assets fit the service."""

import json
import re
import urllib.request
from pathlib import Path

import pytest
from typer.testing import CliRunner

from hedgerow.cli.main import app

ASSETS = Path(__file__).parents[3] / "docs" / "assets"


def test_the_dashboard_shows_metrics_of_the_service(films):
    films.call("/v1/retrieve", {"prompt": "Recommend me a western"})
    with urllib.request.urlopen(f"{films.url}/metrics") as response:
        lines = [line for line in response.read().decode().splitlines() if not line.startswith("#")]
    names = set(re.findall(r"^\w+", "\n".join(lines), re.MULTILINE))
    labels = {label for line in lines for label in re.findall(r"[{,](\w+)=", line)}
    dashboard = json.loads((ASSETS / "hedgerow-grafana.json").read_text())
    expressions = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    assert len(expressions) > 15
    for expression in expressions:
        shown = re.findall(r"hedgerow_\w+", expression)
        assert shown
        assert set(shown) <= names
        by = re.findall(r"by \((\w+)\)", expression)
        assert set(by) <= labels | {"instance"}


def test_the_manifest_starts_and_probes_the_service(films):
    yaml = pytest.importorskip("yaml")
    manifest = yaml.safe_load((ASSETS / "hedgerow-kubernetes.yaml").read_text())
    pod = manifest["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    for name in ("readinessProbe", "livenessProbe"):
        probe = container[name]["httpGet"]
        assert probe["port"] == container["ports"][0]["containerPort"]
        assert films.call(probe["path"])["status"] in ("ready", "live")
    arguments = container["args"]
    assert arguments[arguments.index("--port") + 1] == str(container["ports"][0]["containerPort"])
    shown = CliRunner().invoke(app, ["serve", "--help"], env={"COLUMNS": "200"}).stdout
    assert set(re.findall(r"--[\w-]+", " ".join(arguments))) <= set(re.findall(r"--[\w-]+", shown))
    assert arguments[:3] == ["serve", "/data/model", "/data/items.live"]
    assert container["volumeMounts"][0]["name"] == pod["volumes"][0]["name"]
