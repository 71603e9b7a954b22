"""`hedgerow retrieve --input` answers lines as they come."""

import io
import json
import os
import subprocess
import sys
import threading

import pytest
from commands import assert_refused, lines_of

pytest.importorskip("torch")
pytest.importorskip("transformers")


class TestStream:
    """Lines of --input are answered as they come, and a bad one harms no other."""

    LINES = (
        '"w5 w6"',
        '{"prompt": ',
        '{"prompt": "w9", "id": 7, "exclude": "t1"}',
        '""',
        "[5, 900]",
        '{"prompt": "w9", "id": 8}',
    )

    def test_a_bad_line_harms_no_other(self, call, shop, tmp_path):
        path = tmp_path / "prompts.jsonl"
        path.write_bytes("\n".join(self.LINES).encode() + b'\n"\xff"\n\n"w5 \xe2\x80\xa8 w6"')
        code, stdout, stderr = call("retrieve", "--input", path, "-k", "3", "--json")
        assert (code, stderr) == (1, "")
        answers = lines_of(stdout)
        assert [answer.get("line") for answer in answers] == [None, 2, 3, 4, 5, None, 7, None]
        for number, message in {2: "is not JSON", 3: "exclude", 4: "is empty", 5: "token 900", 7: "UTF-8"}.items():
            assert list(answers[number - 1]) == ["line", "error"]
            assert answers[number - 1]["error"].startswith(f"{path}, line {number}")
            assert message in answers[number - 1]["error"]
        expected = [results.item_ids for results in shop[1].retrieve(["w5 w6", "w9", "w5 w6"], k=3)]
        found = [answers[position] for position in (0, 5, 7)]
        assert [[item["item_id"] for item in answer["items"]] for answer in found] == expected
        assert found[1]["id"] == 8
        code, stdout, stderr = call("retrieve", "--input", path, "-k", "3")
        assert (code, stderr.count("hedgerow: "), stdout.count("item_id")) == (1, 5, 3)

    def test_lines_of_a_pipe_are_answered_as_they_come(self, shop, tmp_path):
        fifo = tmp_path / "fifo"
        os.mkfifo(fifo)
        words = ["retrieve", "--input", fifo, "-k", "1", "--json", "--model", shop[0] / "model"]
        code = "import sys; from hedgerow.cli.main import main; main()"
        command = [sys.executable, "-c", code, *map(str, words), "--index", str(shop[0] / "things.hedgerow")]
        with (
            subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process,
            fifo.open("w") as file,
        ):
            assert process.stdout is not None
            for prompt in ("w5 w6", "w9"):
                print(json.dumps(prompt), file=file, flush=True)
                assert json.loads(process.stdout.readline())["prompt"] == prompt
            file.close()
            assert process.wait(60) == 0

    @pytest.mark.parametrize("as_json", [True, False])
    def test_standard_input(self, call, shop, as_json, monkeypatch):
        content = b'"w5 w6"\n\n{"prompt": \n{"prompt": "w9", "id": 8}'
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))
        code, stdout, stderr = call("retrieve", "--input", "-", "-k", "3", *["--json"] * as_json)
        assert code == 1
        if not as_json:
            assert (stderr.count("hedgerow: standard input, line 3 is not JSON"), stdout.count("item_id")) == (1, 2)
            return
        first, error, second = lines_of(stdout)
        assert error["line"] == 3
        assert error["error"].startswith("standard input, line 3 is not JSON")
        expected = [results.item_ids for results in shop[1].retrieve(["w5 w6", "w9"], k=3)]
        assert [[item["item_id"] for item in answer["items"]] for answer in (first, second)] == expected

    def test_standard_input_without_prompts_or_closed(self, call, monkeypatch):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"\n")))
        assert_refused(call("retrieve", "--input", "-"), "standard input contains no prompt")
        monkeypatch.setattr(sys, "stdin", None)
        assert_refused(call("retrieve", "--input", "-"), "standard input cannot be read: it is closed")

    @pytest.mark.parametrize(
        ("line", "key"),
        [
            ('{"prompt": "w5", "prompt": "w9"}', "prompt"),
            ('{"prompt": "w5", "where": "year > 1", "where": "year > 1"}', "where"),
            ('{"prompt": [{"role": "user", "content": "w5", "content": "w6"}]}', "content"),
            ('{"prompt": "w5", "id": {"a": 1, "a": 2}}', "a"),
        ],
    )
    def test_a_repeated_key_is_refused(self, call, tmp_path, line, key):
        path = tmp_path / "prompts.jsonl"
        path.write_text(f'"w9"\n{line}\n')
        code, stdout, stderr = call("retrieve", "--input", path, "-k", "1", "--json")
        answer, error = lines_of(stdout)
        assert (code, stderr, len(answer["items"])) == (1, "", 1)
        assert error == {
            "line": 2,
            "error": f"{path}, line 2 is not JSON: an object contains {key!r} twice; keys must be distinct",
        }

    def test_an_empty_pipe(self, call, tmp_path):
        fifo = tmp_path / "fifo"
        os.mkfifo(fifo)
        threading.Thread(target=lambda: fifo.open("w").close()).start()
        assert_refused(call("retrieve", "--input", fifo), "contains no prompt")

    def test_a_folder_is_refused(self, call, tmp_path):
        assert_refused(call("retrieve", "--input", tmp_path), "cannot be read")
