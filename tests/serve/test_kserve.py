"""The routes of the KServe v2 protocol."""

import numpy as np
import pytest
from serve.support import index, service_of, started

import hedgerow as hr
from hedgerow._version import __version__

INFER = "/v2/models/tiny/infer"


@pytest.fixture(scope="module")
def client():
    with started(service_of()) as client:
        yield client


def request_of(*prompts, **parameters):
    tensor = {"name": "prompt", "datatype": "BYTES", "shape": [len(prompts)], "data": list(prompts)}
    return {"id": "mine", "inputs": [tensor], "parameters": parameters}


def outputs_of(document):
    """The outputs as arrays, whose shapes and types are checked."""
    arrays = {}
    for output in document["outputs"]:
        assert set(output) == {"name", "datatype", "shape", "data"}
        arrays[output["name"]] = np.array(output["data"], dtype=object).reshape(output["shape"])
    return arrays


def test_server_and_model(client):
    assert client.get("/v2").document == {"name": "hedgerow", "version": __version__, "extensions": []}
    assert client.get("/v2/models/tiny/ready").document == {"name": "tiny", "ready": True}
    document = client.get("/v2/models/tiny").document
    assert (document["name"], document["platform"], document["versions"]) == ("tiny", "hedgerow", [])
    assert document["inputs"] == [{"name": "prompt", "datatype": "BYTES", "shape": [-1]}]
    assert [output["name"] for output in document["outputs"]] == ["item_id", "score", "sid", "num_items"]


def test_outputs_are_the_items(client):
    rules = {"sets": ["made"], "k": 4, "beam_width": 20, "exclude": ["t1"]}
    document = client.post(INFER, request_of("w5 w6", "w7", **rules)).document
    assert (document["model_name"], document["id"]) == ("tiny", "mine")
    assert "model_version" not in document
    kinds = {output["name"]: output["datatype"] for output in document["outputs"]}
    assert kinds == {"item_id": "BYTES", "score": "FP32", "sid": "INT32", "num_items": "INT32"}
    outputs = outputs_of(document)
    assert outputs["num_items"].tolist() == [4, 4]
    for row, prompt in enumerate(("w5 w6", "w7")):
        items = client.retrieve(prompt, **rules).document["items"]
        assert outputs["item_id"][row].tolist() == [item["item_id"] for item in items]
        assert outputs["sid"][row].tolist() == [item["sid"] for item in items]
        np.testing.assert_allclose(outputs["score"][row].astype(float), [item["score"] for item in items], rtol=1e-4)


def test_fewer_items_than_asked_for(client):
    document = client.post(INFER, request_of("w5", candidates=["t1", "t2"], k=4)).document
    outputs = outputs_of(document)
    assert outputs["num_items"].tolist() == [2]
    assert sorted(outputs["item_id"][0].tolist()) == ["", "", "t1", "t2"]
    assert outputs["score"][0].tolist()[2:] == [np.finfo(np.float32).min] * 2
    assert outputs["sid"][0].tolist()[2:] == [[-1, -1, -1]] * 2


def test_one_prompt_as_a_column(client):
    request = request_of("w5")
    request["inputs"][0]["shape"] = [1, 1]
    assert client.post(INFER, request).status == 200


def test_version_and_made_id(tmp_path):
    live = hr.LiveIndex.create(tmp_path / "things.live", index())
    with started(service_of(live)) as client:
        request = request_of("w5")
        del request["id"]
        reply = client.post(INFER, request)
        assert reply.document["model_version"] == "1"
        assert reply.document["id"] == reply.headers["x-request-id"]
        assert client.get("/v2/models/tiny").document["versions"] == ["1"]


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"inputs": []}, "inputs"),
        ({"inputs": [{"name": "text", "datatype": "BYTES", "shape": [1], "data": ["w5"]}]}, "inputs.0.name"),
        ({"inputs": [{"name": "prompt", "datatype": "INT32", "shape": [1], "data": [5]}]}, "inputs.0.datatype"),
        ({"inputs": [{"name": "prompt", "datatype": "BYTES", "shape": [2], "data": ["w5"]}]}, "inputs"),
        ({"inputs": [{"name": "prompt", "datatype": "BYTES", "shape": [-1, -1], "data": ["w5"]}]}, "inputs.0.shape.0"),
        (
            {"inputs": [{"name": "prompt", "datatype": "BYTES", "shape": [2**63, 2], "data": ["w5"]}]},
            "inputs.0.shape.0",
        ),
        (
            {"inputs": [{"name": "prompt", "datatype": "BYTES", "shape": [2**64 + 1], "data": ["w5"]}]},
            "inputs.0.shape.0",
        ),
        ({"inputs": [{"name": "prompt", "datatype": "BYTES", "shape": [65], "data": ["w5"] * 65}]}, "inputs"),
        ({"inputs": [{"name": "prompt", "datatype": "BYTES", "shape": [1], "data": [5]}]}, "inputs.0.data.0"),
        ({"parameters": {"k": 0}}, "k"),
        ({"parameters": {"nothing": 1}}, "nothing"),
        ({"parameters": []}, "parameters"),
        ({"parameters": {"beam_width": 21}}, "beam_width"),
        ({"more": 1}, "more"),
    ],
)
def test_bad_requests(change, param, client):
    reply = client.post(INFER, request_of("w5") | change)
    assert reply.status == 400, reply.body
    assert reply.error["param"] == param


def test_one_bad_prompt_of_several(client):
    assert client.post(INFER, request_of("w5", " ")).status == 400
    assert client.post(INFER, request_of("w5", "w1 " * 41)).status == 413
    assert client.post(INFER, request_of("w5", sets=["nothing"])).status == 404
